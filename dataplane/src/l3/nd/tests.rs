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

fn own() -> Interface {
    interface(&["2001:db8::1/64"])
}

fn ip(text: &str) -> Ipv6Addr {
    text.parse().unwrap()
}

/// A message from Alice: she stands for the interface that sends.
fn message(source: &str, destination: &str, head: [u8; 2], target: &str, option: &[u8]) -> Vec<u8> {
    let alice = Interface { mac: ALICE, ..own() };
    let (destination, mut out) = (ip(destination), Vec::new());
    let mac = if destination.is_multicast() { multicast_mac(destination.into()) } else { own().mac };
    send(&alice, ip(source).into(), destination, mac, head, ip(target), option, &mut out).unwrap();
    out
}

fn solicit(source: &str, target: &str) -> Vec<u8> {
    let group = solicited_node(ip(target)).to_string();
    message(source, &group, [135, 0], target, &link_address(1, ALICE))
}

fn take(frame: &[u8], table: &NeighbourTable, out: &mut Vec<u8>) -> Handled {
    let meta = packet::parse(frame).unwrap();
    handle(frame, &meta, &own(), table, 0, out)
}

/// The advertisement in `out`: Ethernet destination, source, destination, flags, target.
fn advertisement(out: &[u8]) -> (MacAddress, Ipv6Addr, Ipv6Addr, u8, Ipv6Addr) {
    let meta = packet::parse(out).unwrap();
    assert_eq!(checksum::verify_transport(out, &meta), Some(true));
    assert_eq!((meta.icmp_type, meta.icmp_code, meta.ttl), (136, 0, 255));
    assert_eq!(out[78..], link_address(2, own().mac));
    let header = ipv6::Header::read(&out[14..]).unwrap();
    let target: [u8; 16] = out[62..78].try_into().unwrap();
    let mac = ethernet::Header::read(out).unwrap().destination;
    (mac, header.source, header.destination, out[58], target.into())
}

/// RFC 4861 sections 7.2.3 and 7.2.4.
#[test]
fn a_solicitation_for_an_own_address_is_answered_and_its_sender_learned() {
    let (table, mut out) = (table(), Vec::new());
    for target in ["2001:db8::1", "fe80::ff:fe00:1"] {
        let handled = take(&solicit("2001:db8::9", target), &table, &mut out);
        assert_eq!(handled, Handled::replied(Reply::Frame));
        assert_eq!(advertisement(&out), (ALICE, ip(target), ip("2001:db8::9"), 0xe0, ip(target)));
    }
    let entries = table.entries(0);
    assert_eq!((entries[0].mac, entries[0].state), (Some(ALICE), NeighbourState::Stale));
}

#[test]
fn a_solicitation_for_somebody_else_is_not_answered() {
    let (table, mut out) = (table(), Vec::new());
    assert_eq!(take(&solicit("2001:db8::9", "2001:db8::7"), &table, &mut out), Handled::CONSUMED);
    assert!(out.is_empty() && table.is_empty());
}

/// RFC 4861 section 7.2.4, RFC 4862 section 5.4.3: the owner answers all nodes, S clear, and is told of it.
#[test]
fn duplicate_address_detection_of_an_own_address_is_answered_to_all_nodes() {
    let (table, mut out) = (table(), Vec::new());
    let frame = message("::", "ff02::1:ff00:1", [135, 0], "2001:db8::1", &[]);
    let handled = take(&frame, &table, &mut out);
    assert_eq!(handled.reply, Reply::Frame);
    assert_eq!(handled.conflict.map(|conflict| conflict.mac), Some(ALICE));
    let all_nodes = "33:33:00:00:00:01".parse().unwrap();
    assert_eq!(advertisement(&out), (all_nodes, ip("2001:db8::1"), ip("ff02::1"), 0xa0, ip("2001:db8::1")));
    assert!(table.is_empty());
}

#[test]
fn duplicate_address_detection_of_another_address_is_left_alone() {
    let (table, mut out) = (table(), Vec::new());
    let frame = message("::", "ff02::1:ff00:7", [135, 0], "2001:db8::7", &[]);
    assert_eq!(take(&frame, &table, &mut out), Handled::CONSUMED);
    assert!(out.is_empty());
}

/// RFC 4861 section 7.2.7.
#[test]
fn the_anycast_address_is_answered_without_the_override_flag() {
    let (table, mut out) = (table(), Vec::new());
    assert_eq!(take(&solicit("2001:db8::9", "2001:db8::"), &table, &mut out).reply, Reply::Frame);
    assert_eq!(advertisement(&out), (ALICE, ip("2001:db8::1"), ip("2001:db8::9"), 0xc0, ip("2001:db8::")));
}

/// Changes a frame, then makes its checksum right again.
fn changed(mut frame: Vec<u8>, change: impl Fn(&mut Vec<u8>)) -> Vec<u8> {
    change(&mut frame);
    if let Ok(meta) = packet::parse(&frame) {
        checksum::fill_transport(&mut frame, &meta);
    }
    frame
}

/// RFC 4861 sections 7.1.1 and 7.1.2.
#[test]
fn an_unsound_message_is_dropped() {
    let good = || solicit("2001:db8::9", "2001:db8::1");
    let bad: Vec<(&str, Vec<u8>)> = vec![
        ("hop limit", changed(good(), |frame| frame[21] = 254)),
        ("code", changed(good(), |frame| frame[55] = 1)),
        ("option length 0", changed(good(), |frame| frame[79] = 0)),
        ("option too long", changed(good(), |frame| frame[79] = 2)),
        ("multicast target", changed(good(), |frame| frame[62] = 0xff)),
        ("checksum", {
            let mut frame = good();
            frame[57] ^= 1;
            frame
        }),
        ("short", {
            let mut frame = good();
            frame.truncate(54 + 20);
            frame[19] = 20;
            changed(frame, |_| {})
        }),
        (
            "detection with a link address",
            message("::", "ff02::1:ff00:1", [135, 0], "2001:db8::1", &link_address(1, ALICE)),
        ),
        ("detection by unicast", message("::", "2001:db8::1", [135, 0], "2001:db8::1", &[])),
        (
            "solicited to a group",
            message("2001:db8::9", "ff02::1", [136, 0x60], "2001:db8::9", &link_address(2, ALICE)),
        ),
    ];
    let (table, mut out) = (table(), Vec::new());
    for (what, frame) in bad {
        let handled = take(&frame, &table, &mut out);
        assert_eq!(handled, Handled::dropped(DropReason::NdInvalid), "{what}");
        assert!(out.is_empty() && table.is_empty(), "{what}");
    }
    assert_eq!(take(&good(), &table, &mut out).verdict, Verdict::Consumed);
}

/// RFC 6980 section 5: a fragment header, though of an atomic fragment, makes the message unsound.
#[test]
fn a_message_behind_a_fragment_header_is_dropped() {
    let mut frame = solicit("2001:db8::9", "2001:db8::1");
    frame.splice(54..54, [58, 0, 0, 0, 0, 0, 0, 1]);
    frame[20] = 44;
    frame[19] += 8;
    let meta = packet::parse(&frame).unwrap();
    assert_eq!((meta.fragment, meta.icmp_type), (FragmentKind::Whole, 135));
    let handled = take(&frame, &table(), &mut Vec::new());
    assert_eq!(handled, Handled::dropped(DropReason::NdInvalid));
}

/// RFC 4861 section 9: unknown options are passed over.
#[test]
fn an_unknown_option_is_passed_over() {
    let mut option = vec![14, 1, 1, 2, 3, 4, 5, 6];
    option.extend(link_address(1, ALICE));
    let frame = message("2001:db8::9", "2001:db8::1", [135, 0], "2001:db8::1", &option);
    let table = table();
    assert_eq!(take(&frame, &table, &mut Vec::new()).reply, Reply::Frame);
    assert_eq!(table.entries(0)[0].mac, Some(ALICE));
}

/// RFC 4861 section 7.2.5.
#[test]
fn an_advertisement_resolves_who_was_asked_for_only() {
    let table = table();
    let frame = message("2001:db8::9", "2001:db8::1", [136, 0x60], "2001:db8::9", &link_address(2, ALICE));
    assert_eq!(take(&frame, &table, &mut Vec::new()), Handled::CONSUMED);
    assert!(table.is_empty());
    table.resolve(&own(), ip("2001:db8::9").into(), 0).unwrap();
    take(&frame, &table, &mut Vec::new());
    let entry = table.entries(0)[0];
    assert_eq!((entry.mac, entry.state), (Some(ALICE), NeighbourState::Reachable));
}

/// RFC 4862 section 5.4.4.
#[test]
fn an_advertisement_of_an_own_address_is_a_conflict() {
    let frame = message("2001:db8::1", "ff02::1", [136, 0x20], "2001:db8::1", &link_address(2, ALICE));
    let handled = take(&frame, &table(), &mut Vec::new());
    assert_eq!(handled, Handled::conflict(ip("2001:db8::1").into(), ALICE));
}

/// RFC 4861 section 7.2.2; RFC 4862 section 5.4.2.
#[test]
fn what_weir_sends_is_sound() {
    let (own, mut out) = (own(), Vec::new());
    assert!(solicitation(&own, ip("2001:db8::9"), None, &mut out));
    let meta = packet::parse(&out).unwrap();
    assert!(read(&out, &meta).is_some());
    let header = ipv6::Header::read(&out[14..]).unwrap();
    assert_eq!((header.source, header.destination), (ip("2001:db8::1"), ip("ff02::1:ff00:9")));
    assert_eq!(ethernet::Header::read(&out).unwrap().destination.to_string(), "33:33:ff:00:00:09");

    assert!(solicitation(&own, ip("fe80::9"), Some(ALICE), &mut out));
    let header = ipv6::Header::read(&out[14..]).unwrap();
    assert_eq!((header.source, header.destination), (own.link_local, ip("fe80::9")));
    assert_eq!(ethernet::Header::read(&out).unwrap().destination, ALICE);

    for probed in [probe(&own, ip("2001:db8::1"), &mut out), announcement(&own, ip("2001:db8::1"), &mut out)]
    {
        assert!(probed);
        let meta = packet::parse(&out).unwrap();
        assert!(read(&out, &meta).is_some());
    }
}
