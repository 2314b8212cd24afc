//! ARP (RFC 826) and IPv4 address conflict detection (RFC 5227).
//!
//! weir answers for its own addresses, and for those that packets come to which it translates.

use std::net::{IpAddr, Ipv4Addr};

use weir_config::MacAddress;

use super::handled::{Handled, Reply};
use super::interface::Interface;
use super::neighbour::{Learned, NeighbourTable};
use super::originate::extend;
use crate::decision::{DropReason, Nanos};
use crate::packet::view::{arp, ethernet};
use crate::packet::{Meta, ether_type};

/// Takes in an ARP frame that came in by `interface`, learns what may be learned from it, and writes the reply, if
/// there is one, to `out` (replacing what it held). On an interface whose ARP is the kernel's it does nothing.
pub fn handle(
    frame: &[u8],
    meta: &Meta,
    interface: &Interface,
    neighbours: &NeighbourTable,
    now: Nanos,
    out: &mut Vec<u8>,
) -> Handled {
    out.clear();
    if interface.kernel_neighbours {
        return Handled::CONSUMED;
    }
    let Some(packet) = frame.get(usize::from(meta.l3_offset)..).and_then(arp::Packet::read) else {
        return Handled::dropped(DropReason::ArpInvalid);
    };
    if packet.sender_mac.is_group() || packet.sender_ip.is_multicast() || packet.sender_ip.is_broadcast() {
        return Handled::dropped(DropReason::ArpInvalid);
    }
    let own_target = interface.answers_for(packet.target_ip);
    if packet.sender_mac == interface.mac {
        // Our own frame, looped back.
        return Handled::CONSUMED;
    }
    if interface.answers_for(packet.sender_ip) {
        return Handled::conflict(packet.sender_ip.into(), packet.sender_mac);
    }
    match packet.operation {
        arp::REQUEST if own_target => {
            learn(&packet, Learned::Request, interface, neighbours, now);
            match reply(&packet, interface, out) {
                Some(()) => Handled::replied(Reply::Frame),
                None => Handled::dropped(DropReason::InternalError),
            }
        }
        arp::REPLY if own_target && packet.target_mac == interface.mac => {
            learn(&packet, Learned::Reply, interface, neighbours, now);
            Handled::CONSUMED
        }
        arp::REQUEST | arp::REPLY => {
            learn(&packet, Learned::Gratuitous, interface, neighbours, now);
            Handled::CONSUMED
        }
        _ => Handled::dropped(DropReason::ArpInvalid),
    }
}

/// A probe (sender 0.0.0.0, RFC 5227 section 1.1) says nothing of its sender; a sender from elsewhere is no neighbour.
fn learn(packet: &arp::Packet, how: Learned, interface: &Interface, neighbours: &NeighbourTable, now: Nanos) {
    let ip = IpAddr::from(packet.sender_ip);
    let host = !packet.sender_ip.is_unspecified() && !interface.is_directed_broadcast(ip);
    if host && interface.subnet_of(ip).is_some() {
        neighbours.learn(interface.scope, ip, packet.sender_mac, how, now);
    }
}

fn reply(request: &arp::Packet, interface: &Interface, out: &mut Vec<u8>) -> Option<()> {
    let packet = arp::Packet {
        operation: arp::REPLY,
        sender_mac: interface.mac,
        sender_ip: request.target_ip,
        target_mac: request.sender_mac,
        target_ip: request.sender_ip,
    };
    write(request.sender_mac, &packet, out)
}

/// Writes a request for `target` to `out` (replacing what it held): broadcast, or by unicast to verify a known
/// neighbour (RFC 1122 section 2.3.2.1). False if the interface has no IPv4 address to ask from.
pub fn request(
    interface: &Interface,
    target: Ipv4Addr,
    unicast_to: Option<MacAddress>,
    out: &mut Vec<u8>,
) -> bool {
    let Some(IpAddr::V4(source)) = interface.source_for(target.into()) else { return false };
    ask(interface, source, target, unicast_to, out)
}

/// Writes a probe (RFC 5227 section 2.1.1) to `out`: does anybody use `address`?
pub fn probe(interface: &Interface, address: Ipv4Addr, out: &mut Vec<u8>) -> bool {
    ask(interface, Ipv4Addr::UNSPECIFIED, address, None, out)
}

/// Writes an announcement (RFC 5227 section 2.3) to `out`: `address` is here.
pub fn announcement(interface: &Interface, address: Ipv4Addr, out: &mut Vec<u8>) -> bool {
    ask(interface, address, address, None, out)
}

fn ask(
    interface: &Interface,
    source: Ipv4Addr,
    target: Ipv4Addr,
    unicast_to: Option<MacAddress>,
    out: &mut Vec<u8>,
) -> bool {
    out.clear();
    let packet = arp::Packet {
        operation: arp::REQUEST,
        sender_mac: interface.mac,
        sender_ip: source,
        target_mac: MacAddress::default(),
        target_ip: target,
    };
    write(unicast_to.unwrap_or(MacAddress::BROADCAST), &packet, out).is_some()
}

fn write(destination: MacAddress, packet: &arp::Packet, out: &mut Vec<u8>) -> Option<()> {
    let header = ethernet::Header { destination, source: packet.sender_mac, ether_type: ether_type::ARP };
    header.write(extend(out, ethernet::LEN)?)?;
    packet.write(extend(out, arp::LEN)?)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::interface::tests::interface;
    use super::super::neighbour::NeighbourState;
    use super::*;
    use crate::decision::{AdjacencyTable, Verdict};
    use crate::packet;

    const ALICE: MacAddress = MacAddress([2, 0, 0, 0, 0, 9]);

    fn table() -> NeighbourTable {
        NeighbourTable::new(Arc::new(AdjacencyTable::new(8)), 8)
    }

    fn arp(operation: u16, sender: [u8; 4], target_mac: MacAddress, target: [u8; 4]) -> Vec<u8> {
        let packet = arp::Packet {
            operation,
            sender_mac: ALICE,
            sender_ip: sender.into(),
            target_mac,
            target_ip: target.into(),
        };
        let mut out = Vec::new();
        write(MacAddress::BROADCAST, &packet, &mut out).unwrap();
        out
    }

    fn take(frame: &[u8], neighbours: &NeighbourTable, out: &mut Vec<u8>) -> Handled {
        let meta = packet::parse(frame).unwrap();
        handle(frame, &meta, &interface(&["10.1.0.1/24"]), neighbours, 0, out)
    }

    fn read(frame: &[u8]) -> (ethernet::Header, arp::Packet) {
        (ethernet::Header::read(frame).unwrap(), arp::Packet::read(&frame[14..]).unwrap())
    }

    /// RFC 826, packet reception.
    #[test]
    fn a_request_for_an_own_address_is_answered_and_its_sender_learned() {
        let (table, mut out) = (table(), Vec::new());
        let handled = take(&arp(1, [10, 1, 0, 9], MacAddress::default(), [10, 1, 0, 1]), &table, &mut out);
        assert_eq!(handled, Handled::replied(Reply::Frame));
        let (header, reply) = read(&out);
        let own = interface(&[]).mac;
        assert_eq!((header.destination, header.source, header.ether_type), (ALICE, own, 0x0806));
        assert_eq!((reply.operation, reply.sender_mac, reply.target_mac), (2, own, ALICE));
        assert_eq!(reply.sender_ip, Ipv4Addr::new(10, 1, 0, 1));
        assert_eq!(reply.target_ip, Ipv4Addr::new(10, 1, 0, 9));
        let entries = table.entries(0);
        assert_eq!((entries[0].mac, entries[0].state), (Some(ALICE), NeighbourState::Stale));
    }

    #[test]
    fn a_request_for_somebody_else_is_not_answered_and_teaches_nothing_new() {
        let (table, mut out) = (table(), Vec::new());
        let handled = take(&arp(1, [10, 1, 0, 9], MacAddress::default(), [10, 1, 0, 7]), &table, &mut out);
        assert_eq!(handled, Handled::CONSUMED);
        assert!(out.is_empty() && table.is_empty());
    }

    /// RFC 5227 section 2.1.1: the owner of an address answers a probe; a probe must not change a cache.
    #[test]
    fn a_probe_for_an_own_address_is_answered_and_not_learned() {
        let (table, mut out) = (table(), Vec::new());
        let handled = take(&arp(1, [0, 0, 0, 0], MacAddress::default(), [10, 1, 0, 1]), &table, &mut out);
        assert_eq!(handled.reply, Reply::Frame);
        assert!(table.is_empty());
        assert_eq!(read(&out).1.target_ip, Ipv4Addr::UNSPECIFIED);
    }

    #[test]
    fn a_sender_outside_the_subnet_is_answered_and_not_learned() {
        let (table, mut out) = (table(), Vec::new());
        for sender in [[10, 9, 0, 9], [10, 1, 0, 255]] {
            let handled = take(&arp(1, sender, MacAddress::default(), [10, 1, 0, 1]), &table, &mut out);
            assert_eq!(handled.reply, Reply::Frame);
            assert!(table.is_empty());
        }
    }

    #[test]
    fn a_reply_to_us_resolves_who_was_asked_for_only() {
        let (table, mut out) = (table(), Vec::new());
        let iface = interface(&["10.1.0.1/24"]);
        let reply = arp(2, [10, 1, 0, 9], iface.mac, [10, 1, 0, 1]);
        assert_eq!(take(&reply, &table, &mut out), Handled::CONSUMED);
        assert!(table.is_empty());
        table.resolve(&iface, [10, 1, 0, 9].into(), 0).unwrap();
        take(&reply, &table, &mut out);
        assert_eq!(table.entries(0)[0].state, NeighbourState::Reachable);
    }

    /// RFC 5227 section 2.4.
    #[test]
    fn a_claim_of_an_own_address_is_a_conflict_and_not_learned() {
        let (table, mut out) = (table(), Vec::new());
        let handled = take(&arp(1, [10, 1, 0, 1], MacAddress::default(), [10, 1, 0, 1]), &table, &mut out);
        assert_eq!(handled, Handled::conflict([10, 1, 0, 1].into(), ALICE));
        assert!(out.is_empty() && table.is_empty());
    }

    #[test]
    fn what_is_not_arp_for_ipv4_over_ethernet_is_dropped() {
        let (table, mut out) = (table(), Vec::new());
        for (at, value) in [(15, 6), (21, 9), (22, 3)] {
            let mut frame = arp(1, [10, 1, 0, 9], MacAddress::default(), [10, 1, 0, 1]);
            frame[at] = value;
            let handled = take(&frame, &table, &mut out);
            assert_eq!(handled.verdict, Verdict::Dropped(DropReason::ArpInvalid), "byte {at}");
        }
        assert!(table.is_empty());
    }

    #[test]
    fn a_request_asks_from_the_address_of_the_subnet() {
        let iface = interface(&["10.1.0.1/24", "10.2.0.1/24"]);
        let mut out = vec![1, 2, 3];
        assert!(request(&iface, [10, 2, 0, 9].into(), None, &mut out));
        let (header, packet) = read(&out);
        assert_eq!(header.destination, MacAddress::BROADCAST);
        assert_eq!(packet.sender_ip, Ipv4Addr::new(10, 2, 0, 1));
        assert_eq!(packet.target_ip, Ipv4Addr::new(10, 2, 0, 9));
        assert!(request(&iface, [10, 2, 0, 9].into(), Some(ALICE), &mut out));
        assert_eq!(read(&out).0.destination, ALICE);
        assert!(!request(&interface(&["2001:db8::1/64"]), [10, 2, 0, 9].into(), None, &mut out));
    }
}
