//! `[service.<name>.nat]`: network address translation of IPv4 (RFC 3022, RFC 4787), its model, how it is read and
//! how it is written back.

use std::fmt;
use std::net::Ipv4Addr;
use std::time::Duration;

use ipnet::{IpNet, Ipv4Net};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::build::{many, matches, number, port_range, prefixes, records, text, word};
use crate::model::{Match, PortRange};
use crate::render::{self, Object};
use crate::text::{self as form, render_duration};
use crate::tree::Node;

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

/// Reads the table.
pub(crate) fn build(node: &Node) -> Nat {
    let default = NatTimeouts::default();
    let time = |key: &str, default: Duration| text(node, key, form::duration).unwrap_or(default);
    Nat {
        snat: many(node, "snat", |rule| Some(snat(rule))),
        dnat: records(node, "dnat").iter().map(dnat).collect(),
        filtering: match word(node, "filtering") {
            Some("endpoint-independent") => Filtering::EndpointIndependent,
            Some("address-and-port-dependent") => Filtering::AddressAndPortDependent,
            _ => Filtering::AddressDependent,
        },
        timeouts: NatTimeouts {
            tcp_established: time("tcp-established-timeout", default.tcp_established),
            tcp_transitory: time("tcp-transitory-timeout", default.tcp_transitory),
            udp: time("udp-timeout", default.udp),
            icmp: time("icmp-timeout", default.icmp),
        },
        ports_per_host: number(node, "ports-per-host"),
    }
}

fn snat(node: &Node) -> SnatRule {
    let targets = many(node, "to", |element| form::pool(element.text()?).ok());
    let target = match targets.as_slice() {
        [form::Pool::Masquerade, ..] => SnatTarget::Masquerade,
        [form::Pool::None, ..] => SnatTarget::Exempt,
        _ => SnatTarget::Pool(
            targets
                .iter()
                .filter_map(|target| if let form::Pool::Range(range) = target { Some(*range) } else { None })
                .collect(),
        ),
    };
    SnatRule {
        matches: matches(node, "protocol", "from", "to-prefix"),
        target,
        ports: node.get("ports").and_then(port_range).unwrap_or(DEFAULT_NAT_PORTS),
    }
}

fn dnat(node: &Node) -> DnatRule {
    let address = |key: &str| text(node, key, form::ipv4).unwrap_or(Ipv4Addr::UNSPECIFIED);
    DnatRule {
        protocol: number(node, "protocol").or_else(|| text(node, "protocol", form::protocol).flatten()),
        from: prefixes(node, "from"),
        to: address("to"),
        to_ports: node.get("to-port").and_then(port_range),
        forward: address("forward"),
        forward_port: node.get("forward-port").and_then(port_range).map(|ports| ports.first),
    }
}

/// Writes the table as [`build`] reads it.
pub(crate) fn render(nat: &Nat) -> Value {
    let mut out = Object::default();
    out.put_list("snat", nat.snat.iter().map(render_snat));
    out.put_list("dnat", nat.dnat.iter().map(render_dnat));
    out.put(
        "filtering",
        match nat.filtering {
            Filtering::EndpointIndependent => "endpoint-independent",
            Filtering::AddressDependent => "address-dependent",
            Filtering::AddressAndPortDependent => "address-and-port-dependent",
        },
    );
    out.put("tcp-established-timeout", render_duration(nat.timeouts.tcp_established));
    out.put("tcp-transitory-timeout", render_duration(nat.timeouts.tcp_transitory));
    out.put("udp-timeout", render_duration(nat.timeouts.udp));
    out.put("icmp-timeout", render_duration(nat.timeouts.icmp));
    out.put_some("ports-per-host", nat.ports_per_host);
    out.finish()
}

fn render_snat(rule: &SnatRule) -> Value {
    let mut out = Object::default();
    out.put_some("protocol", rule.matches.protocol);
    render::matches(&rule.matches, "from", "to-prefix", &mut out);
    match &rule.target {
        SnatTarget::Pool(ranges) => match ranges.as_slice() {
            [one] => out.put("to", one.to_string()),
            several => out.put_list("to", several.iter().map(ToString::to_string)),
        },
        SnatTarget::Masquerade => out.put("to", "masquerade"),
        SnatTarget::Exempt => out.put("to", "none"),
    }
    if rule.target != SnatTarget::Exempt {
        out.put("ports", render::port_range(&rule.ports));
    }
    out.finish()
}

fn render_dnat(rule: &DnatRule) -> Value {
    let mut out = Object::default();
    out.put("protocol", rule.protocol.map_or_else(|| json!("any"), |number| json!(number)));
    out.put_list("from", rule.from.iter().map(IpNet::to_string));
    out.put("to", rule.to.to_string());
    out.put_some("to-port", rule.to_ports.as_ref().map(render::port_range));
    out.put("forward", rule.forward.to_string());
    out.put_some("forward-port", rule.forward_ports().as_ref().map(render::port_range));
    out.finish()
}
