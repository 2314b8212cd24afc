//! What becomes of a packet that is addressed to weir itself (RFC 1122 section 3.2.1.3, RFC 1812 section 5.2.3, RFC 4443).
//!
//! weir is a router, not a host: it answers echo and neighbour discovery, and tells everybody else that nothing listens.
//! Tunnels' packets do not come here; they are taken out before.

use std::net::{IpAddr, Ipv4Addr};

use super::handled::{Handled, Reply};
use super::icmp::{self, IcmpError, RateLimiter};
use super::interface::Interface;
use super::nd;
use super::neighbour::NeighbourTable;
use super::sanity::is_host;
use crate::decision::{DropReason, Nanos, Verdict};
use crate::packet::view::udp;
use crate::packet::{FragmentKind, L3, Meta, checksum, protocol};

/// What a packet to weir is looked at with.
#[derive(Clone, Copy, Debug)]
pub struct Reception<'a> {
    /// The interface that it came in by.
    pub interface: &'a Interface,
    /// The interface that has the address it was sent to: `interface`, or another one of the VRF.
    pub owner: &'a Interface,
    /// All neighbours.
    pub neighbours: &'a NeighbourTable,
    /// The rate limit of what weir sends of its own accord.
    pub limiter: &'a RateLimiter,
    /// When.
    pub now: Nanos,
}

impl Interface {
    /// Whether a packet to `ip` that came in here is for weir without asking the FIB: its own link-local address, and
    /// the groups that it listens to (all systems and all routers over IPv4, RFC 1112 and RFC 1812 section 2.2.10).
    pub fn receives(&self, ip: IpAddr) -> bool {
        match ip {
            IpAddr::V4(ip) => ip == Ipv4Addr::new(224, 0, 0, 1) || ip == Ipv4Addr::new(224, 0, 0, 2),
            IpAddr::V6(ip) => ip == self.link_local || self.listens_to(ip),
        }
    }
}

/// Deals with an IP packet that is addressed to weir; the answer, if there is one, is written to `out` (replacing what
/// it held).
pub fn receive(frame: &[u8], meta: &Meta, at: Reception<'_>, out: &mut Vec<u8>) -> Handled {
    out.clear();
    let Some((source, destination)) = icmp::addresses(frame, meta) else {
        return Handled::dropped(DropReason::InternalError);
    };
    let v6 = meta.l3 == L3::V6;
    let icmp = if v6 { protocol::ICMPV6 } else { protocol::ICMP };
    // weir does not reassemble what is sent to it.
    if meta.fragment != FragmentKind::Whole {
        return Handled::dropped(DropReason::LocalUnsupported);
    }
    // Before the source is judged: duplicate address detection comes from nobody.
    if v6 && meta.protocol == icmp && nd::is_nd(meta.icmp_type) {
        return nd::handle(frame, meta, at.interface, at.neighbours, at.now, out);
    }
    if !is_other_host(at, source) {
        return Handled::dropped(DropReason::IpAddress);
    }
    if meta.protocol == icmp {
        return control(frame, meta, at, [source, destination], out);
    }
    if !is_host(destination) {
        return Handled::dropped(DropReason::LocalUnsupported);
    }
    let Some(from) = answer_from(at, source, destination) else {
        return Handled::dropped(DropReason::LocalUnsupported);
    };
    match meta.protocol {
        protocol::TCP => limited(at, |out| icmp::tcp_reset(frame, meta, out), out),
        protocol::UDP if !sound_udp(frame, meta) => Handled::dropped(DropReason::LocalUnsupported),
        protocol::UDP => refuse(IcmpError::PortUnreachable, frame, meta, from, at, out),
        _ => refuse(IcmpError::ProtocolUnreachable, frame, meta, from, at, out),
    }
}

/// ICMP and ICMPv6.
fn control(
    frame: &[u8],
    meta: &Meta,
    at: Reception<'_>,
    [source, destination]: [IpAddr; 2],
    out: &mut Vec<u8>,
) -> Handled {
    let v6 = meta.l3 == L3::V6;
    if checksum::verify_transport(frame, meta) != Some(true) {
        return Handled::dropped(DropReason::IcmpInvalid);
    }
    let echo_request = meta.icmp_type == if v6 { 128 } else { 8 };
    if !echo_request {
        return Handled::CONSUMED;
    }
    // To an IPv4 group or broadcast: discarded (RFC 1122 section 3.2.2.6). To an IPv6 group: answered (RFC 4443 section 4.2).
    if !v6 && !is_host(destination) {
        return Handled::CONSUMED;
    }
    let Some(from) = answer_from(at, source, destination) else { return Handled::CONSUMED };
    match icmp::echo_reply(frame, meta, from, out) {
        true => Handled::replied(Reply::Packet),
        false => Handled::dropped(DropReason::IcmpInvalid),
    }
}

/// Whether a source can be answered: one host, and not weir itself.
fn is_other_host(at: Reception<'_>, source: IpAddr) -> bool {
    let own = |interface: &Interface| interface.owns(source) || interface.is_directed_broadcast(source);
    is_host(source) && !own(at.interface) && !own(at.owner)
}

/// A right checksum; over IPv6 it may not be left out (RFC 8200 section 8.1).
fn sound_udp(frame: &[u8], meta: &Meta) -> bool {
    let header = frame.get(usize::from(meta.l4_offset)..).and_then(udp::Header::read);
    let absent = header.is_none_or(|header| header.checksum == 0);
    checksum::verify_transport(frame, meta) == Some(true) && !(absent && meta.l3 == L3::V6)
}

/// The address to answer from: the one that was asked, unless that is a group or an anycast address.
fn answer_from(at: Reception<'_>, source: IpAddr, destination: IpAddr) -> Option<IpAddr> {
    if is_host(destination) && !at.owner.is_subnet_router_anycast(destination) {
        return Some(destination);
    }
    at.interface.source_for(source).or_else(|| at.owner.source_for(source))
}

fn refuse(
    kind: IcmpError,
    frame: &[u8],
    meta: &Meta,
    from: IpAddr,
    at: Reception<'_>,
    out: &mut Vec<u8>,
) -> Handled {
    limited(at, |out| icmp::error(kind, frame, meta, from, out).is_ok(), out)
}

/// Nothing listens: the packet is dropped, and answered if `answer` may and the rate limit lets it.
fn limited(at: Reception<'_>, answer: impl FnOnce(&mut Vec<u8>) -> bool, out: &mut Vec<u8>) -> Handled {
    let answered = answer(out) && at.limiter.allow(at.now);
    if !answered {
        out.clear();
    }
    Handled {
        verdict: Verdict::Dropped(DropReason::LocalUnsupported),
        reply: if answered { Reply::Packet } else { Reply::None },
        conflict: None,
    }
}

#[cfg(test)]
mod tests;
