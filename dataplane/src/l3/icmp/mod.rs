//! ICMP (RFC 792, RFC 1122 section 3.2.2, RFC 1812 section 4.3) and ICMPv6 (RFC 4443): errors, echo, and the rate
//! limit of what weir sends of its own accord. TCP resets stand beside them: they answer where ICMP does not.
//!
//! All functions take a frame and what the parser found in it, and write an IP packet without Ethernet header: the
//! caller routes it like any other.

mod limit;
mod reset;

use std::net::{IpAddr, Ipv4Addr};

pub use limit::RateLimiter;
pub use reset::tcp_reset;

use super::extension;
use super::originate::Ip;
use super::sanity::is_host;
use crate::packet::view::{icmp, ipv4, ipv6};
use crate::packet::{FragmentKind, L3, Meta, PacketFlags, checksum, protocol};

/// An IPv4 error is at most as long as any host takes (RFC 1812 section 4.3.2.3).
const MAX_V4: usize = 576;
/// An IPv6 error is at most as long as any link carries (RFC 4443 section 2.4 (c)).
const MAX_V6: usize = 1280;
/// IPv6 minimum link MTU (RFC 8200 section 5).
const MIN_MTU_V6: u16 = 1280;
/// The smallest MTU that IPv4 allows (RFC 791 section 3.2).
const MIN_MTU_V4: u16 = 68;
/// Internetwork control: the precedence of IPv4 errors (RFC 1812 section 4.3.2.5).
const PRECEDENCE_6: u8 = 0xc0;

/// What went wrong with a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IcmpError {
    /// TTL or hop limit used up in transit.
    TimeExceeded,
    /// Larger than the next hop takes, and not to be fragmented.
    TooBig {
        /// Largest IP packet in bytes that would have fitted.
        mtu: u16,
    },
    /// No route to the destination.
    NetUnreachable,
    /// The next hop does not answer ARP or ND.
    HostUnreachable,
    /// Nothing listens on the port.
    PortUnreachable,
    /// Nothing here speaks the protocol.
    ProtocolUnreachable,
    /// A rule forbids it.
    AdminProhibited,
    /// A header field cannot be understood.
    ParameterProblem {
        /// IPv6: 0 erroneous field, 1 unknown next header, 2 unknown option. IPv4: 0.
        code: u8,
        /// Where in the packet, in bytes.
        pointer: u16,
    },
}

/// Why no error may be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoError {
    /// The packet is an ICMP error, or a redirect, itself.
    AboutError,
    /// It is a fragment other than the first.
    LaterFragment,
    /// It was sent to an IP or link broadcast or multicast address.
    Group,
    /// Its source is not one host.
    Source,
    /// It is not an IP packet, or the address to send from is of the other family.
    NotIp,
}

impl IcmpError {
    /// Type, code and the four bytes after the checksum (RFC 792, RFC 1191 section 4, RFC 1812 section 5.2.7.1).
    fn v4(self) -> (u8, u8, [u8; 4]) {
        match self {
            Self::NetUnreachable => (3, 0, [0; 4]),
            Self::HostUnreachable => (3, 1, [0; 4]),
            Self::ProtocolUnreachable => (3, 2, [0; 4]),
            Self::PortUnreachable => (3, 3, [0; 4]),
            Self::TooBig { mtu } => {
                let [high, low] = mtu.max(MIN_MTU_V4).to_be_bytes();
                (3, 4, [0, 0, high, low])
            }
            Self::AdminProhibited => (3, 13, [0; 4]),
            Self::TimeExceeded => (11, 0, [0; 4]),
            Self::ParameterProblem { pointer, .. } => (12, 0, [pointer as u8, 0, 0, 0]),
        }
    }

    /// The same (RFC 4443 section 3). IPv6 has no "protocol unreachable": it points at the next header.
    fn v6(self, packet: &[u8]) -> (u8, u8, [u8; 4]) {
        match self {
            Self::NetUnreachable => (1, 0, [0; 4]),
            Self::AdminProhibited => (1, 1, [0; 4]),
            Self::HostUnreachable => (1, 3, [0; 4]),
            Self::PortUnreachable => (1, 4, [0; 4]),
            Self::TooBig { mtu } => (2, 0, u32::from(mtu.max(MIN_MTU_V6)).to_be_bytes()),
            Self::TimeExceeded => (3, 0, [0; 4]),
            Self::ProtocolUnreachable => {
                let at = extension::walk(packet).map_or(6, |walk| walk.next_header_at);
                (4, 1, (at as u32).to_be_bytes())
            }
            Self::ParameterProblem { code, pointer } => (4, code, u32::from(pointer).to_be_bytes()),
        }
    }

    /// Whether it may answer a group in IPv6 (RFC 4443 section 2.4 (e.3)).
    fn may_answer_group(self) -> bool {
        matches!(self, Self::TooBig { .. } | Self::ParameterProblem { code: 2, .. })
    }
}

/// Whether a message of this type is an error or a redirect, which no error may be about (RFC 1122 section 3.2.2, RFC
/// 4443 section 2.4 (e.1), (e.2)).
pub(crate) fn is_error(l3: L3, icmp_type: u8) -> bool {
    match l3 {
        L3::V4 => matches!(icmp_type, 3 | 4 | 5 | 11 | 12),
        _ => icmp_type < 128 || icmp_type == 137,
    }
}

/// Whether an error may be sent about a packet: RFC 1812 section 4.3.2.7, RFC 4443 section 2.4 (e). Directed broadcasts
/// are the caller's to know: those packets have no route that makes errors.
///
/// # Errors
/// The rule that forbids it.
pub fn may_answer(kind: IcmpError, frame: &[u8], meta: &Meta) -> Result<(), NoError> {
    let (source, _) = addresses(frame, meta).ok_or(NoError::NotIp)?;
    let v6 = meta.l3 == L3::V6;
    let icmp = if v6 { protocol::ICMPV6 } else { protocol::ICMP };
    if meta.fragment == FragmentKind::Later {
        // IPv6 alone: a later fragment that is too big has to be told of, unless it might be part of an error.
        let exempt = v6 && matches!(kind, IcmpError::TooBig { .. }) && meta.protocol != icmp;
        if !exempt {
            return Err(NoError::LaterFragment);
        }
    } else if meta.protocol == icmp && is_error(meta.l3, meta.icmp_type) {
        return Err(NoError::AboutError);
    }
    let group = meta.flags.intersects(PacketFlags::ETHER_GROUP | PacketFlags::IP_GROUP);
    if group && !(v6 && kind.may_answer_group()) {
        return Err(NoError::Group);
    }
    if is_host(source) { Ok(()) } else { Err(NoError::Source) }
}

/// Writes an ICMP or ICMPv6 error about the IP packet in `frame`, to its source and from `source`, to `out` (replacing
/// what it held): an IP packet that quotes as much as 576 bytes over IPv4 and 1280 over IPv6 leave room for.
///
/// # Errors
/// The rule that forbids it; `out` is empty then.
pub fn error(
    kind: IcmpError,
    frame: &[u8],
    meta: &Meta,
    source: IpAddr,
    out: &mut Vec<u8>,
) -> Result<(), NoError> {
    out.clear();
    may_answer(kind, frame, meta)?;
    let (destination, _) = addresses(frame, meta).ok_or(NoError::NotIp)?;
    let packet = frame.get(usize::from(meta.l3_offset)..meta.end()).ok_or(NoError::NotIp)?;
    let ((kind, code, rest), header, room) = match meta.l3 {
        L3::V4 => {
            let ip = Ip::new(source, destination, protocol::ICMP);
            (kind.v4(), Ip { traffic_class: PRECEDENCE_6, ..ip }, MAX_V4 - ipv4::LEN - icmp::LEN)
        }
        _ => {
            let ip = Ip::new(source, destination, protocol::ICMPV6);
            (kind.v6(packet), ip, MAX_V6 - ipv6::LEN - icmp::LEN)
        }
    };
    let quote = packet.get(..room).unwrap_or(packet);
    if header.append(out, &[&[kind, code, 0, 0], &rest, quote], 2) { Ok(()) } else { Err(NoError::NotIp) }
}

/// Writes the reply to an echo request, from `source`, to `out` (replacing what it held): the same identifier, sequence
/// number and data (RFC 792, RFC 4443 section 4.2), the request's type of service (RFC 1122 section 3.2.2.6). False if it is
/// not a whole, sound echo request of one host.
pub fn echo_reply(frame: &[u8], meta: &Meta, source: IpAddr, out: &mut Vec<u8>) -> bool {
    out.clear();
    let Some((destination, _)) = addresses(frame, meta) else { return false };
    let (request, reply, icmp) = match meta.l3 {
        L3::V4 => (8, 0, protocol::ICMP),
        _ => (128, 129, protocol::ICMPV6),
    };
    let asked = meta.protocol == icmp
        && meta.icmp_type == request
        && meta.icmp_code == 0
        && checksum::verify_transport(frame, meta) == Some(true);
    let Some(rest) = frame.get(usize::from(meta.l4_offset) + 4..meta.end()) else { return false };
    if !asked || !is_host(destination) {
        return false;
    }
    let mut header = Ip { traffic_class: meta.traffic_class, ..Ip::new(source, destination, icmp) };
    if let Some(request) = frame.get(usize::from(meta.l3_offset)..).and_then(ipv4::Header::read) {
        header.identification = request.identification;
        header.dont_fragment = request.dont_fragment;
    }
    header.append(out, &[&[reply, 0, 0, 0], rest], 2)
}

/// Source and destination of the IP packet in a frame.
pub(crate) fn addresses(frame: &[u8], meta: &Meta) -> Option<(IpAddr, IpAddr)> {
    let packet = frame.get(usize::from(meta.l3_offset)..)?;
    match meta.l3 {
        L3::V4 => {
            let [a, b, c, d, e, f, g, h] = *packet.get(12..)?.first_chunk::<8>()?;
            Some((Ipv4Addr::new(a, b, c, d).into(), Ipv4Addr::new(e, f, g, h).into()))
        }
        L3::V6 => {
            let source = *packet.get(8..)?.first_chunk::<16>()?;
            let destination = *packet.get(24..)?.first_chunk::<16>()?;
            Some((IpAddr::from(source), IpAddr::from(destination)))
        }
        L3::Arp | L3::Other => None,
    }
}

#[cfg(test)]
mod tests;
