//! The packet that an ICMP error quotes (RFC 792, RFC 4443 section 2.4), and fragment identifications.

use std::net::IpAddr;

use super::{FragmentKind, L3, Meta, protocol};

/// Addresses, protocol and ports of a quoted packet; ports as the parser gives them (ICMP echo: the identifier).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Embedded {
    /// Source address.
    pub source: IpAddr,
    /// Destination address.
    pub destination: IpAddr,
    /// IP protocol.
    pub protocol: u8,
    /// Source port.
    pub source_port: u16,
    /// Destination port.
    pub destination_port: u16,
}

/// Whether a type is an ICMP (`v6 == false`) or ICMPv6 error.
pub fn is_icmp_error(v6: bool, icmp_type: u8) -> bool {
    if v6 { icmp_type < 128 } else { matches!(icmp_type, 3 | 4 | 5 | 11 | 12) }
}

/// Whether a packet is an ICMP or ICMPv6 error, whatever it quotes. A later fragment does not say so.
pub fn is_error(meta: &Meta) -> bool {
    let v6 = match (meta.l3, meta.protocol) {
        (L3::V4, protocol::ICMP) => false,
        (L3::V6, protocol::ICMPV6) => true,
        _ => return false,
    };
    meta.fragment != FragmentKind::Later && is_icmp_error(v6, meta.icmp_type)
}

/// The packet that `frame` quotes, if it is an ICMP error that quotes enough. A redirect, and a source quench (RFC 6633), tell
/// nothing of what became of a packet.
pub fn embedded_tuple(frame: &[u8], meta: &Meta) -> Option<Embedded> {
    let v6 = meta.l3 == L3::V6;
    let tells = is_error(meta) && (v6 || !matches!(meta.icmp_type, 4 | 5));
    if meta.fragment != FragmentKind::Whole || !tells {
        return None;
    }
    let quoted = frame.get(usize::from(meta.l4_offset) + 8..)?;
    let (source, destination, protocol, rest): (IpAddr, IpAddr, u8, &[u8]) = if v6 {
        let header = quoted.first_chunk::<40>()?;
        let source: [u8; 16] = header[8..24].try_into().ok()?;
        let destination: [u8; 16] = header[24..40].try_into().ok()?;
        let (protocol, rest) = behind_extensions(header[6], quoted.get(40..)?)?;
        (source.into(), destination.into(), protocol, rest)
    } else {
        let header = quoted.first_chunk::<20>()?;
        if u16::from_be_bytes([header[6], header[7]]) & 0x1fff != 0 {
            return None;
        }
        let source = [header[12], header[13], header[14], header[15]];
        let destination = [header[16], header[17], header[18], header[19]];
        let len = Some(usize::from(header[0] & 15) * 4).filter(|len| *len >= 20)?;
        (source.into(), destination.into(), header[9], quoted.get(len..)?)
    };
    let (source_port, destination_port) = match protocol {
        protocol::TCP | protocol::UDP | protocol::SCTP => {
            let ports = rest.first_chunk::<4>()?;
            (u16::from_be_bytes([ports[0], ports[1]]), u16::from_be_bytes([ports[2], ports[3]]))
        }
        protocol::ICMP | protocol::ICMPV6 => {
            let head = rest.first_chunk::<6>()?;
            let echo = if v6 { matches!(head[0], 128 | 129) } else { matches!(head[0], 0 | 8) };
            let id = if echo { u16::from_be_bytes([head[4], head[5]]) } else { 0 };
            (id, id)
        }
        _ => (0, 0),
    };
    Some(Embedded { source, destination, protocol, source_port, destination_port })
}

/// What stands behind the extension headers of a quoted IPv6 packet (RFC 8200 section 4), the first of which is a `next`, and its
/// protocol. `None` in a later fragment, and where the quote ends before it.
fn behind_extensions(mut next: u8, mut rest: &[u8]) -> Option<(u8, &[u8])> {
    for _ in 0..super::MAX_EXTENSIONS {
        let header = rest.first_chunk::<8>();
        let len = match next {
            0 | 43 | 60 => (usize::from(header?[1]) + 1) * 8,
            51 => (usize::from(header?[1]) + 2) * 4,
            44 if u16::from_be_bytes([header?[2], header?[3]]) & 0xfff8 != 0 => return None,
            44 => 8,
            _ => break,
        };
        next = header?[0];
        rest = rest.get(len..)?;
    }
    Some((next, rest))
}

/// The identification that the fragments of one packet share; `None` for a whole packet.
pub fn fragment_id(frame: &[u8], meta: &Meta) -> Option<u32> {
    if meta.fragment == FragmentKind::Whole {
        return None;
    }
    let at = usize::from(meta.l3_offset);
    match meta.l3 {
        L3::V4 => frame.get(at + 4..)?.first_chunk().map(|id| u32::from(u16::from_be_bytes(*id))),
        L3::V6 => {
            // Walk to the fragment header; the parser has checked the chain.
            let (mut next, mut header) = (*frame.get(at + 6)?, at + 40);
            for _ in 0..super::MAX_EXTENSIONS {
                match next {
                    44 => return frame.get(header + 4..)?.first_chunk().map(|id| u32::from_be_bytes(*id)),
                    0 | 43 | 60 => {
                        next = *frame.get(header)?;
                        header += (usize::from(*frame.get(header + 1)?) + 1) * 8;
                    }
                    _ => return None,
                }
            }
            None
        }
        L3::Arp | L3::Other => None,
    }
}
