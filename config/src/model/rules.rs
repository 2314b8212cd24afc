//! What a rule matches, of whatever feature it is.

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

/// Which packets a rule is about. Every given part must hold; an empty list or `None` matches all.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Match {
    /// IP protocol number (6 TCP, 17 UDP, 1 ICMP, 58 ICMPv6, 132 SCTP).
    pub protocol: Option<u8>,
    /// Source prefixes.
    pub from: Vec<IpNet>,
    /// Destination prefixes.
    pub to: Vec<IpNet>,
    /// Source port ranges (inclusive).
    pub from_ports: Vec<PortRange>,
    /// Destination port ranges (inclusive).
    pub to_ports: Vec<PortRange>,
    /// DSCP values.
    pub dscp: Vec<u8>,
    /// TCP flags that must be set, and the mask of the flags looked at.
    pub tcp_flags: Option<TcpFlagsMatch>,
    /// ICMP or ICMPv6 types.
    pub icmp_types: Vec<u8>,
}

/// An inclusive range of ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct PortRange {
    /// First port.
    pub first: u16,
    /// Last port, not below `first`.
    pub last: u16,
}

/// A test on TCP flags: `flags & mask == set` (bits as in the TCP header: FIN 1, SYN 2, RST 4, PSH 8, ACK 16, URG 32).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct TcpFlagsMatch {
    /// Flags that must be set.
    pub set: u8,
    /// Flags looked at.
    pub mask: u8,
}
