//! What replay needs to encapsulate: the outer headers of one remote VTEP, built once.

use std::net::IpAddr;

use super::{EndpointId, ScopeId};
use weir_config::DscpModel;

/// The outer headers towards one remote VTEP. Replay copies them into the headroom and patches length, DSCP/ECN,
/// checksum and UDP source port.
#[derive(Clone, Debug)]
pub struct Encapsulation {
    /// Which endpoint this is.
    pub endpoint: EndpointId,
    /// The tunnel's scope.
    pub scope: ScopeId,
    /// Remote VTEP.
    pub remote: IpAddr,
    /// Local VTEP.
    pub local: IpAddr,
    /// Outer IP, UDP and VXLAN headers: 36 bytes over IPv4, 56 over IPv6, in the first `len` bytes. Lengths, checksum and
    /// source port are zero; the IPv4 checksum field holds nothing.
    pub header: [u8; 56],
    /// Valid bytes of `header`.
    pub len: u8,
    /// IPv4 only: ones' complement sum (folded, not inverted) of the IP header with total length, TOS and checksum zero.
    pub ip_sum: u16,
    /// How the outer DSCP is chosen.
    pub dscp: DscpModel,
}

impl Encapsulation {
    /// Whether the underlay is IPv4.
    pub fn is_v4(&self) -> bool {
        self.len == 36
    }

    /// Bytes by which an inner *IP packet* grows to the outer IP packet: outer headers and the inner Ethernet header,
    /// 50 over IPv4 and 70 over IPv6.
    pub fn overhead(&self) -> u16 {
        u16::from(self.len) + 14
    }
}
