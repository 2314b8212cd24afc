//! VXLAN headers (RFC 7348 section 5): reading one, and the outer headers towards one remote VTEP.

use std::net::IpAddr;

use weir_config::DscpModel;

use crate::decision::{DropReason, Encapsulation, EndpointId, ScopeId};
use crate::packet::protocol;
use crate::packet::view::{ipv4, ipv6, udp, vxlan};

/// The UDP port that IANA assigned (RFC 7348 section 8).
pub const UDP_PORT: u16 = 4789;

/// The largest VNI.
pub const VNI_MAX: u32 = 0xff_ffff;

/// The VNI of a VXLAN header at the start of `payload`, the payload of a UDP datagram. Reserved bits are ignored.
///
/// # Errors
/// [`DropReason::VxlanMalformed`] if the header is short, or its I flag is not set.
#[inline]
pub fn read_vni(payload: &[u8]) -> Result<u32, DropReason> {
    match vxlan::Header::read(payload) {
        Some(header) if header.vni_valid => Ok(header.vni),
        _ => Err(DropReason::VxlanMalformed),
    }
}

/// What the outer headers towards one remote VTEP are made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Remote {
    /// Which endpoint this is.
    pub endpoint: EndpointId,
    /// The tunnel's scope.
    pub scope: ScopeId,
    /// Local VTEP.
    pub local: IpAddr,
    /// Remote VTEP, of the family of `local`.
    pub remote: IpAddr,
    /// VXLAN network identifier, 24 bits.
    pub vni: u32,
    /// UDP destination port.
    pub udp_port: u16,
    /// Outer TTL or hop limit.
    pub ttl: u8,
    /// How the outer DSCP is chosen.
    pub dscp: DscpModel,
}

/// The outer headers towards one remote VTEP; `None` if local and remote are of different families, or the VNI has more
/// than 24 bits.
///
/// DF is set in an outer IPv4 header: a VTEP does not fragment (RFC 7348 section 4.3), and so its identification may be 0
/// (RFC 6864 section 4.1). The outer UDP checksum is 0: what RFC 7348 section 5 asks for over IPv4; over IPv6 allowed to
/// tunnels by RFC 6935 section 5, since the inner packet has checksums of its own and a VTEP checks the outer addresses
/// (RFC 6936 section 4).
pub fn encapsulation(remote: &Remote) -> Option<Encapsulation> {
    if remote.vni > VNI_MAX {
        return None;
    }
    let mut header = [0u8; 56];
    let (len, ip_sum) = match (remote.local, remote.remote) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            let outer = ipv4::Header {
                header_len: 20,
                traffic_class: 0,
                total_len: 0,
                identification: 0,
                dont_fragment: true,
                more_fragments: false,
                fragment_offset: 0,
                ttl: remote.ttl,
                protocol: protocol::UDP,
                checksum: 0,
                source,
                destination,
            };
            outer.write(&mut header)?;
            let sum = !u16::from_be_bytes([header[10], header[11]]);
            [header[10], header[11]] = [0, 0];
            (ipv4::LEN, sum)
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            let outer = ipv6::Header {
                traffic_class: 0,
                flow_label: 0,
                payload_len: 0,
                next_header: protocol::UDP,
                hop_limit: remote.ttl,
                source,
                destination,
            };
            outer.write(&mut header)?;
            (ipv6::LEN, 0)
        }
        _ => return None,
    };
    let outer = udp::Header { source_port: 0, destination_port: remote.udp_port, len: 0, checksum: 0 };
    outer.write(header.get_mut(len..)?)?;
    vxlan::Header { vni_valid: true, vni: remote.vni }.write(header.get_mut(len + udp::LEN..)?)?;
    Some(Encapsulation {
        endpoint: remote.endpoint,
        scope: remote.scope,
        remote: remote.remote,
        local: remote.local,
        header,
        len: (len + udp::LEN + vxlan::LEN) as u8,
        ip_sum,
        dscp: remote.dscp,
    })
}

#[cfg(test)]
mod tests;
