//! VXLAN tunnels (RFC 7348) and how DSCP crosses them (RFC 2983).

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::Attachment;
use crate::MacAddress;

/// `[tunnel.<name>.vxlan]` (RFC 7348).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Tunnel {
    /// The local VTEP address; an address of a port, or one that a shared port's kernel owns.
    pub local: IpAddr,
    /// Remote VTEP addresses, at least one, of the family of `local`. More than one only in a bridge domain:
    /// unknown and broadcast frames are replicated to each.
    pub remotes: Vec<IpAddr>,
    /// VXLAN network identifier, 24 bits.
    pub vni: u32,
    /// UDP destination port, 4789 by default.
    pub udp_port: u16,
    /// VRF in which the outer packet is routed.
    pub underlay_vrf: String,
    /// Where inner frames belong.
    pub attachment: Attachment,
    /// This end's own inner MAC address; derived from the name if absent.
    pub mac: Option<MacAddress>,
    /// A fixed inner destination MAC in a VRF: no ARP or ND inside.
    pub remote_mac: Option<MacAddress>,
    /// Inner MTU; absent: underlay MTU − overhead (50 B over IPv4, 70 B over IPv6).
    pub mtu: Option<u16>,
    /// Outer hop limit (TTL), 64 by default.
    pub ttl: u8,
    /// What becomes of DSCP (RFC 2983).
    pub dscp: DscpModel,
    /// Verify non-zero outer UDP checksums on receive.
    pub check_udp: bool,
    /// Lower the TCP maximum segment size in SYNs that go through, both ways, to what fits (RFC 9293 section 3.7.1).
    pub mss_clamp: bool,
}

/// RFC 2983 section 3: how DSCP crosses a tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum DscpModel {
    /// The outer header takes the inner DSCP on encapsulation; the inner keeps its own on decapsulation.
    Uniform,
    /// The outer DSCP is fixed.
    Pipe(u8),
}
