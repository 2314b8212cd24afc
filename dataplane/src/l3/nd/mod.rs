//! IPv6 neighbour discovery (RFC 4861) and duplicate address detection (RFC 4862 section 5.4).
//!
//! weir answers for its own addresses only: no ND proxy. It sends no router advertisements and heeds none: hosts get
//! their default route by configuration. Redirects are neither sent nor heeded.

use std::net::{IpAddr, Ipv6Addr};

use weir_config::MacAddress;

use super::extension;
use super::handled::{Handled, Reply};
use super::interface::{Interface, multicast_mac, solicited_node};
use super::neighbour::{Learned, NeighbourTable};
use super::originate::{Ip, append_ethernet};
use crate::decision::{DropReason, Nanos};
use crate::packet::view::{ethernet, ipv6};
use crate::packet::{FragmentKind, Meta, checksum, protocol};

const ROUTER_SOLICITATION: u8 = 133;
const NEIGHBOUR_SOLICITATION: u8 = 135;
const NEIGHBOUR_ADVERTISEMENT: u8 = 136;
const REDIRECT: u8 = 137;

const SOURCE_LINK_ADDRESS: u8 = 1;
const TARGET_LINK_ADDRESS: u8 = 2;

const FLAG_ROUTER: u8 = 0x80;
const FLAG_SOLICITED: u8 = 0x40;
const FLAG_OVERRIDE: u8 = 0x20;

/// All nodes of the link (RFC 4291 section 2.7.1).
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

/// Whether an ICMPv6 type is one of neighbour discovery.
pub(crate) const fn is_nd(icmp_type: u8) -> bool {
    matches!(icmp_type, ROUTER_SOLICITATION..=REDIRECT)
}

/// A solicitation or advertisement that passed the checks of RFC 4861 section 7.1.
struct Message {
    source: Ipv6Addr,
    destination: Ipv6Addr,
    flags: u8,
    target: Ipv6Addr,
    source_mac: Option<MacAddress>,
    target_mac: Option<MacAddress>,
}

/// Takes in a neighbour discovery message that came in by `interface`, learns what may be learned from it, and writes
/// the advertisement, if there is one, to `out` (replacing what it held).
pub fn handle(
    frame: &[u8],
    meta: &Meta,
    interface: &Interface,
    neighbours: &NeighbourTable,
    now: Nanos,
    out: &mut Vec<u8>,
) -> Handled {
    out.clear();
    if interface.kernel_neighbours
        || !matches!(meta.icmp_type, NEIGHBOUR_SOLICITATION | NEIGHBOUR_ADVERTISEMENT)
    {
        return Handled::CONSUMED;
    }
    let (Some(message), Some(ethernet)) = (read(frame, meta), ethernet::Header::read(frame)) else {
        return Handled::dropped(DropReason::NdInvalid);
    };
    if ethernet.source == interface.mac {
        // Our own frame, looped back (RFC 4862 appendix A).
        return Handled::CONSUMED;
    }
    match meta.icmp_type {
        NEIGHBOUR_SOLICITATION => solicited(&message, ethernet.source, interface, neighbours, now, out),
        _ => advertised(&message, ethernet.source, interface, neighbours, now),
    }
}

/// RFC 4861 sections 7.1.1 and 7.1.2; RFC 6980 section 5: not in fragments.
fn read(frame: &[u8], meta: &Meta) -> Option<Message> {
    let packet = frame.get(usize::from(meta.l3_offset)..meta.end())?;
    let header = ipv6::Header::read(packet)?;
    let message = frame.get(usize::from(meta.l4_offset)..meta.end())?;
    let fixed = message.first_chunk::<24>()?;
    let [_, code, _, _, flags, _, _, _, target @ ..] = fixed;
    let target = Ipv6Addr::from(*target);
    let sound = meta.ttl == 255
        && *code == 0
        && meta.fragment == FragmentKind::Whole
        && !extension::walk(packet)?.fragment
        && checksum::verify_transport(frame, meta) == Some(true)
        && !target.is_multicast()
        && !header.source.is_multicast();
    let [source_mac, target_mac] = options(message.get(24..)?)?;
    let group = header.destination.is_multicast();
    let sound = sound
        && match meta.icmp_type {
            NEIGHBOUR_SOLICITATION if header.source.is_unspecified() => {
                header.destination == solicited_node(target) && source_mac.is_none()
            }
            NEIGHBOUR_SOLICITATION => true,
            _ => !(header.source.is_unspecified() || group && flags & FLAG_SOLICITED != 0),
        };
    sound.then_some(Message {
        source: header.source,
        destination: header.destination,
        flags: *flags,
        target,
        source_mac,
        target_mac,
    })
}

/// Source and target link-layer address. `None` if an option has length 0 or reaches past the message; options that are
/// not known, and link-layer addresses that are not Ethernet's, are passed over (RFC 4861 sections 4.6 and 9).
fn options(mut rest: &[u8]) -> Option<[Option<MacAddress>; 2]> {
    let mut found = [None; 2];
    while !rest.is_empty() {
        let [kind, len] = *rest.first_chunk::<2>()?;
        let (option, after) = rest.split_at_checked(usize::from(len) * 8).filter(|_| len > 0)?;
        if let [_, 1, a, b, c, d, e, f] = *option {
            let [source, target] = &mut found;
            match kind {
                SOURCE_LINK_ADDRESS => *source = Some(MacAddress([a, b, c, d, e, f])),
                TARGET_LINK_ADDRESS => *target = Some(MacAddress([a, b, c, d, e, f])),
                _ => {}
            }
        }
        rest = after;
    }
    Some(found)
}

/// RFC 4861 sections 7.2.3 and 7.2.4.
fn solicited(
    message: &Message,
    ether_source: MacAddress,
    interface: &Interface,
    neighbours: &NeighbourTable,
    now: Nanos,
    out: &mut Vec<u8>,
) -> Handled {
    let target = IpAddr::V6(message.target);
    let own = interface.owns(target);
    let anycast = !own && interface.is_subnet_router_anycast(target);
    if !own && !anycast {
        return Handled::CONSUMED;
    }
    let source = IpAddr::V6(message.source);
    if interface.owns(source) {
        return Handled::conflict(source, ether_source);
    }
    let detection = message.source.is_unspecified();
    if anycast && detection {
        // Anycast addresses are nobody's alone: no detection for them (RFC 4862 section 5.4).
        return Handled::CONSUMED;
    }
    if let Some(mac) = message.source_mac
        && interface.subnet_of(source).is_some()
    {
        neighbours.learn(interface.scope, source, mac, Learned::Request, now);
    }
    let (destination, mac) = if detection {
        (ALL_NODES, multicast_mac(ALL_NODES.into()))
    } else {
        (message.source, message.source_mac.unwrap_or(ether_source))
    };
    // Another member of an anycast group may answer too: no O flag (RFC 4861 section 7.2.7).
    let flags =
        FLAG_ROUTER | if detection { 0 } else { FLAG_SOLICITED } | if anycast { 0 } else { FLAG_OVERRIDE };
    let from = if anycast { interface.source_for(source) } else { Some(target) };
    let sent = from.and_then(|from| advertise(interface, from, destination, mac, message.target, flags, out));
    let reply = if sent.is_some() { Reply::Frame } else { Reply::None };
    let mut handled = Handled::replied(reply);
    if detection {
        handled.conflict = Handled::conflict(target, ether_source).conflict;
    }
    handled
}

/// RFC 4861 section 7.2.5; RFC 4862 section 5.4.4.
fn advertised(
    message: &Message,
    ether_source: MacAddress,
    interface: &Interface,
    neighbours: &NeighbourTable,
    now: Nanos,
) -> Handled {
    let target = IpAddr::V6(message.target);
    if interface.owns(target) {
        return match message.target_mac {
            Some(mac) if mac == interface.mac => Handled::CONSUMED,
            mac => Handled::conflict(target, mac.unwrap_or(ether_source)),
        };
    }
    let solicited = message.flags & FLAG_SOLICITED != 0 && !message.destination.is_multicast();
    let overrides = message.flags & FLAG_OVERRIDE != 0;
    match message.target_mac {
        Some(mac) => {
            let how = Learned::Advertisement { solicited, overrides };
            neighbours.learn(interface.scope, target, mac, how, now);
        }
        None if solicited => {
            neighbours.confirm(interface.scope, target, now);
        }
        None => {}
    }
    Handled::CONSUMED
}

/// Writes a neighbour solicitation for `target` to `out` (replacing what it held): to its solicited-node group, or by
/// unicast to verify a known neighbour (RFC 4861 sections 7.2.2 and 7.3.3).
pub fn solicitation(
    interface: &Interface,
    target: Ipv6Addr,
    unicast_to: Option<MacAddress>,
    out: &mut Vec<u8>,
) -> bool {
    let source = interface.source_for(target.into()).unwrap_or(interface.link_local.into());
    let (destination, mac) = match unicast_to {
        Some(mac) => (target, mac),
        None => (solicited_node(target), multicast_mac(solicited_node(target).into())),
    };
    let option = link_address(SOURCE_LINK_ADDRESS, interface.mac);
    send(interface, source, destination, mac, [NEIGHBOUR_SOLICITATION, 0], target, &option, out).is_some()
}

/// Writes a probe for duplicate address detection to `out` (RFC 4862 section 5.4.2): does anybody use `address`?
pub fn probe(interface: &Interface, address: Ipv6Addr, out: &mut Vec<u8>) -> bool {
    let group = solicited_node(address);
    let mac = multicast_mac(group.into());
    let source = Ipv6Addr::UNSPECIFIED.into();
    send(interface, source, group, mac, [NEIGHBOUR_SOLICITATION, 0], address, &[], out).is_some()
}

/// Writes an unsolicited advertisement to all nodes to `out` (RFC 4861 section 7.2.6): `address` is here.
pub fn announcement(interface: &Interface, address: Ipv6Addr, out: &mut Vec<u8>) -> bool {
    let mac = multicast_mac(ALL_NODES.into());
    let flags = FLAG_ROUTER | FLAG_OVERRIDE;
    advertise(interface, address.into(), ALL_NODES, mac, address, flags, out).is_some()
}

fn advertise(
    interface: &Interface,
    source: IpAddr,
    destination: Ipv6Addr,
    mac: MacAddress,
    target: Ipv6Addr,
    flags: u8,
    out: &mut Vec<u8>,
) -> Option<()> {
    let option = link_address(TARGET_LINK_ADDRESS, interface.mac);
    send(interface, source, destination, mac, [NEIGHBOUR_ADVERTISEMENT, flags], target, &option, out)
}

/// A link-layer address option (RFC 4861 section 4.6.1).
fn link_address(kind: u8, mac: MacAddress) -> [u8; 8] {
    let MacAddress([a, b, c, d, e, f]) = mac;
    [kind, 1, a, b, c, d, e, f]
}

#[allow(clippy::too_many_arguments)]
fn send(
    interface: &Interface,
    source: IpAddr,
    destination: Ipv6Addr,
    mac: MacAddress,
    [kind, flags]: [u8; 2],
    target: Ipv6Addr,
    option: &[u8],
    out: &mut Vec<u8>,
) -> Option<()> {
    out.clear();
    append_ethernet(out, mac, interface.mac, destination.into())?;
    let ip = Ip { ttl: 255, ..Ip::new(source, destination.into(), protocol::ICMPV6) };
    ip.append(out, &[&[kind, 0, 0, 0, flags, 0, 0, 0], &target.octets(), option], 2).then_some(())
}

#[cfg(test)]
mod tests;
