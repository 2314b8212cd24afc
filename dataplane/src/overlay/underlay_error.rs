//! "Too big" errors from the underlay: are they about a packet of ours, and what MTU do they tell?
//!
//! ICMP type 3 code 4 (RFC 1191 section 4), ICMPv6 type 2 (RFC 4443 section 3.2, RFC 8201 section 4). An error from
//! outside is believed only if it quotes a VXLAN packet that a VTEP of ours could have sent (RFC 4459 section 3.2, RFC
//! 5927 section 7): whoever can see the packets can forge the quotation, but nobody else, and not below a floor.

use std::net::IpAddr;

use super::pmtu::{FLOOR_V4, FLOOR_V6};
use super::vtep::VtepTable;
use super::vxlan::read_vni;
use crate::decision::EndpointId;
use crate::packet::view::{icmp, ipv4, ipv6, udp};
use crate::packet::{FragmentKind, L3, Meta, PacketFlags, checksum, protocol};

/// MTUs of usual links, for routers that do not tell theirs (RFC 1191 section 7.1), largest first, down to the floor.
const PLATEAUS: [u16; 8] = [32000, 17914, 8166, 4352, 2002, 1492, 1006, FLOOR_V4];

/// A believable "too big".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnderlayError<'a> {
    /// The endpoints whose packets take this path: one for each VNI between the two VTEPs.
    pub endpoints: &'a [EndpointId],
    /// What the path takes, in bytes of outer IP packet.
    pub mtu: u16,
}

/// The quoted outer packet, as far as it matters.
struct Quoted<'a> {
    source: IpAddr,
    destination: IpAddr,
    /// Length of the IP packet in bytes.
    len: u32,
    /// From the UDP header on.
    datagram: &'a [u8],
}

/// Reads an ICMP or ICMPv6 packet that is addressed to us. `None` if it is not a "too big" with a right checksum about a
/// packet that one of `vteps` could have sent to a configured remote, or if its MTU is not below that packet's length.
pub fn underlay_error<'a>(frame: &[u8], meta: &Meta, vteps: &'a VtepTable) -> Option<UnderlayError<'a>> {
    let about = match (meta.l3, meta.protocol, meta.icmp_type, meta.icmp_code) {
        (L3::V4, protocol::ICMP, 3, 4) | (L3::V6, protocol::ICMPV6, 2, _) => meta.flags,
        _ => return None,
    };
    if !about.contains(PacketFlags::TRANSPORT) || meta.fragment != FragmentKind::Whole {
        return None;
    }
    let outer = frame.get(..meta.end())?;
    let (addressed_to, message) = (destination(outer, meta)?, outer.get(usize::from(meta.l4_offset)..)?);
    if checksum::verify_transport(outer, meta) != Some(true) {
        return None;
    }
    let header = icmp::Header::read(message)?;
    let quotation = message.get(icmp::LEN..)?;
    let (quoted, mtu) = if meta.l3 == L3::V4 {
        let quoted = quoted_v4(quotation)?;
        let [_, _, high, low] = header.rest;
        let mtu = match u16::from_be_bytes([high, low]) {
            0 => plateau_below(quoted.len)?,
            told => told.max(FLOOR_V4),
        };
        (quoted, mtu)
    } else {
        let mtu = u16::try_from(u32::from_be_bytes(header.rest)).ok()?;
        (quoted_v6(quotation)?, mtu.max(FLOOR_V6))
    };
    if quoted.source != addressed_to || u32::from(mtu) >= quoted.len {
        return None;
    }
    let datagram = udp::Header::read(quoted.datagram)?;
    if datagram.source_port < 0xc000 {
        return None;
    }
    let vni = match quoted.datagram.get(udp::LEN..) {
        Some(vxlan) if vxlan.len() >= 8 => Some(read_vni(vxlan).ok()?),
        _ => None,
    };
    let endpoints = vteps.path(quoted.source, quoted.destination, datagram.destination_port, vni);
    (!endpoints.is_empty()).then_some(UnderlayError { endpoints, mtu })
}

/// The largest plateau below a packet's length (RFC 1191 section 5).
fn plateau_below(len: u32) -> Option<u16> {
    PLATEAUS.into_iter().find(|plateau| u32::from(*plateau) < len)
}

fn destination(frame: &[u8], meta: &Meta) -> Option<IpAddr> {
    let packet = frame.get(usize::from(meta.l3_offset)..)?;
    match meta.l3 {
        L3::V4 => Some(<[u8; 4]>::try_from(packet.get(16..20)?).ok()?.into()),
        L3::V6 => Some(<[u8; 16]>::try_from(packet.get(24..40)?).ok()?.into()),
        L3::Other | L3::Arp => None,
    }
}

/// What a VTEP sends: UDP, not a fragment, DF set. The quoted header checksum is not looked at: a router has changed TTL.
fn quoted_v4(quotation: &[u8]) -> Option<Quoted<'_>> {
    let header = ipv4::Header::read(quotation)?;
    let ours = header.protocol == protocol::UDP
        && header.dont_fragment
        && !header.more_fragments
        && header.fragment_offset == 0
        && header.header_len == 20;
    ours.then_some(Quoted {
        source: header.source.into(),
        destination: header.destination.into(),
        len: header.total_len.into(),
        datagram: quotation.get(ipv4::LEN..)?,
    })
}

fn quoted_v6(quotation: &[u8]) -> Option<Quoted<'_>> {
    let header = ipv6::Header::read(quotation)?;
    (header.next_header == protocol::UDP).then_some(Quoted {
        source: header.source.into(),
        destination: header.destination.into(),
        len: u32::from(header.payload_len) + 40,
        datagram: quotation.get(ipv6::LEN..)?,
    })
}

#[cfg(test)]
mod tests;
