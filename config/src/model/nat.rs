//! `[service.<name>.nat]`: network address translation of IPv4 (RFC 3022, RFC 4787).

use std::fmt;
use std::net::Ipv4Addr;
use std::time::Duration;

use ipnet::{IpNet, Ipv4Net};
use serde::{Deserialize, Serialize};

use super::{Match, PortRange};

/// Ports that a rule without `ports` hands out: all that are not well-known (RFC 6335 section 6).
pub const DEFAULT_NAT_PORTS: PortRange = PortRange { first: 1024, last: 65535 };

/// A translator of IPv4 addresses and ports.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Nat {
    /// Rules for the sources of connections, first match wins; what no rule matches keeps its source.
    pub snat: Vec<SnatRule>,
    /// Rules for the destinations of connections, first match wins; what no rule matches keeps its destination.
    pub dnat: Vec<DnatRule>,
    /// Who may send to a binding from outside.
    pub filtering: Filtering,
    /// How long sessions live without traffic.
    pub timeouts: NatTimeouts,
    /// Most bindings of one host; absent: only the ports of its address and `limits.nat-bindings` bound them.
    pub ports_per_host: Option<u32>,
}

/// A rule that translates sources.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct SnatRule {
    /// Which connections.
    pub matches: Match,
    /// What their source becomes.
    pub target: SnatTarget,
    /// Ports (of an ICMP query: identifiers) that are handed out.
    pub ports: PortRange,
}

/// What a source becomes.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum SnatTarget {
    /// One of these addresses.
    Pool(Vec<AddressRange>),
    /// The address of the interface that the packet leaves by.
    Masquerade,
    /// It stays what it is.
    Exempt,
}

/// Addresses from the first to the last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct AddressRange {
    /// First address.
    pub first: Ipv4Addr,
    /// Last address, not below `first`.
    pub last: Ipv4Addr,
}

/// A rule that translates destinations.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct DnatRule {
    /// IP protocol number; `None`: all.
    pub protocol: Option<u8>,
    /// Source prefixes; empty: all.
    pub from: Vec<IpNet>,
    /// The address that connections come to.
    pub to: Ipv4Addr,
    /// The ports that they come to; `None`: all.
    pub to_ports: Option<PortRange>,
    /// The host that gets them.
    pub forward: Ipv4Addr,
    /// The first of its ports: one for each of `to_ports`. `None`: the same port.
    pub forward_port: Option<u16>,
}

/// Who may send to a binding from outside (RFC 4787 section 5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Filtering {
    /// Anybody.
    EndpointIndependent,
    /// Hosts that the binding's owner has sent to.
    AddressDependent,
    /// Addresses and ports that the binding's owner has sent to.
    AddressAndPortDependent,
}

/// How long sessions that a translator made live without traffic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NatTimeouts {
    /// TCP connections that are established.
    pub tcp_established: Duration,
    /// TCP connections that open or close.
    pub tcp_transitory: Duration,
    /// UDP, and protocols that have none of their own.
    pub udp: Duration,
    /// ICMP queries.
    pub icmp: Duration,
}

impl Default for NatTimeouts {
    /// RFC 5382 REQ-5, RFC 4787 REQ-5 (recommended), RFC 5508 REQ-2.
    fn default() -> Self {
        Self {
            tcp_established: Duration::from_secs(7440),
            tcp_transitory: Duration::from_secs(240),
            udp: Duration::from_secs(300),
            icmp: Duration::from_secs(60),
        }
    }
}

impl AddressRange {
    /// A range of one address.
    pub const fn one(address: Ipv4Addr) -> Self {
        Self { first: address, last: address }
    }

    /// How many addresses.
    pub fn size(self) -> u64 {
        u64::from(u32::from(self.last)) - u64::from(u32::from(self.first)) + 1
    }

    /// Whether `address` is one of them.
    pub fn contains(self, address: Ipv4Addr) -> bool {
        (self.first..=self.last).contains(&address)
    }

    /// Whether both have an address.
    pub fn overlaps(self, other: Self) -> bool {
        self.first <= other.last && other.first <= self.last
    }
}

impl From<Ipv4Net> for AddressRange {
    fn from(net: Ipv4Net) -> Self {
        Self { first: net.network(), last: net.broadcast() }
    }
}

impl fmt::Display for AddressRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.first == self.last { self.first.fmt(f) } else { write!(f, "{}-{}", self.first, self.last) }
    }
}

impl DnatRule {
    /// The ports of the host that gets the connections; `None`: the same ports.
    pub fn forward_ports(&self) -> Option<PortRange> {
        let first = self.forward_port?;
        let last = self.to_ports.map_or(first, |to| first.saturating_add(to.last - to.first));
        Some(PortRange { first, last })
    }
}
