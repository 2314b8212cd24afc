//! Errors from the underlay: believed and not believed.

use proptest::prelude::*;

use super::super::vtep::VtepEntry;
use super::*;
use crate::decision::ScopeId;
use crate::packet::builder::Packet;
use crate::packet::parse;

fn vteps() -> VtepTable {
    let entry = |local: &str, remote: &str, vni, endpoint| VtepEntry {
        local: local.parse().unwrap(),
        udp_port: 4789,
        vni,
        scope: ScopeId(0),
        remotes: vec![(remote.parse().unwrap(), EndpointId(endpoint))],
        check_udp: false,
    };
    VtepTable::new(&[
        entry("192.0.2.1", "192.0.2.2", 100, 1),
        entry("192.0.2.1", "192.0.2.2", 200, 2),
        entry("2001:db8::1", "2001:db8::2", 100, 3),
    ])
}

fn inner(len: usize) -> Vec<u8> {
    Packet::ethernet([6; 6], [8; 6]).ipv4("10.0.0.1", "10.0.0.2").udp(1, 2).payload(&vec![0; len]).build()
}

/// Our packet of 1500 bytes over IPv4.
fn sent_v4() -> Packet {
    Packet::ethernet([2; 6], [4; 6])
        .ipv4("192.0.2.1", "192.0.2.2")
        .dont_fragment()
        .udp(50000, 4789)
        .without_checksum()
        .vxlan(100, &inner(1422))
}

/// Our packet of 1500 bytes over IPv6.
fn sent_v6() -> Packet {
    Packet::ethernet([2; 6], [4; 6])
        .ipv6("2001:db8::1", "2001:db8::2")
        .udp(50000, 4789)
        .without_checksum()
        .vxlan(100, &inner(1402))
}

/// A router's "fragmentation needed" that quotes the first `quote` bytes of `packet`.
fn needed(packet: &Packet, quote: usize, mtu: u16) -> Packet {
    let [high, low] = mtu.to_be_bytes();
    let quotation = &packet.build_network()[..quote];
    Packet::ethernet([2; 6], [4; 6])
        .ipv4("198.51.100.1", "192.0.2.1")
        .icmp(3, 4, [0, 0, high, low])
        .payload(quotation)
}

/// A router's "packet too big".
fn too_big(packet: &Packet, mtu: u32) -> Packet {
    let quotation = &packet.build_network()[..1232];
    Packet::ethernet([2; 6], [4; 6])
        .ipv6("2001:db8:f::1", "2001:db8::1")
        .icmp(2, 0, mtu.to_be_bytes())
        .payload(quotation)
}

fn judge(frame: &[u8]) -> Option<(Vec<EndpointId>, u16)> {
    let vteps = vteps();
    underlay_error(frame, &parse(frame).unwrap(), &vteps).map(|error| (error.endpoints.to_vec(), error.mtu))
}

const V4: [EndpointId; 2] = [EndpointId(1), EndpointId(2)];

#[test]
fn fragmentation_needed_tells_the_mtu_of_all_endpoints_on_the_path() {
    assert_eq!(judge(&needed(&sent_v4(), 548, 1400).build()), Some((V4.to_vec(), 1400)));
}

/// RFC 792: a router need not quote more than the IP header and 8 bytes, so not the VNI.
#[test]
fn eight_quoted_bytes_of_the_datagram_are_enough() {
    assert_eq!(judge(&needed(&sent_v4(), 28, 1400).build()), Some((V4.to_vec(), 1400)));
    assert_eq!(judge(&needed(&sent_v4(), 27, 1400).build()), None);
}

/// RFC 1191 sections 5 and 7.1.
#[test]
fn a_router_that_tells_no_mtu_gets_the_next_lower_plateau() {
    assert_eq!(judge(&needed(&sent_v4(), 28, 0).build()), Some((V4.to_vec(), 1492)));
    assert_eq!(plateau_below(1492), Some(1006));
    assert_eq!(plateau_below(577), Some(576));
    assert_eq!(plateau_below(576), None);
}

#[test]
fn packet_too_big_tells_the_mtu_and_never_less_than_1280() {
    assert_eq!(judge(&too_big(&sent_v6(), 1400).build()), Some((vec![EndpointId(3)], 1400)));
    // RFC 8201 section 4: never below the IPv6 minimum link MTU.
    assert_eq!(judge(&too_big(&sent_v6(), 600).build()), Some((vec![EndpointId(3)], 1280)));
    assert_eq!(judge(&needed(&sent_v4(), 28, 68).build()), Some((V4.to_vec(), 576)));
}

#[test]
fn an_mtu_that_the_quoted_packet_would_have_fitted_is_not_believed() {
    assert_eq!(judge(&needed(&sent_v4(), 28, 1500).build()), None);
    assert_eq!(judge(&too_big(&sent_v6(), 1500).build()), None);
    assert_eq!(judge(&too_big(&sent_v6(), 70000).build()), None);
}

#[test]
fn quotations_that_are_not_of_our_packets_are_not_believed() {
    let other_port = sent_v4().udp(50000, 53);
    let low_source_port = sent_v4().udp(1000, 4789);
    let other_vni = sent_v4().vxlan(300, &inner(1422));
    let other_remote = Packet::ethernet([2; 6], [4; 6])
        .ipv4("192.0.2.1", "192.0.2.9")
        .dont_fragment()
        .udp(50000, 4789)
        .vxlan(100, &inner(1422));
    let other_source = Packet::ethernet([2; 6], [4; 6])
        .ipv4("192.0.2.7", "192.0.2.2")
        .dont_fragment()
        .udp(50000, 4789)
        .vxlan(100, &inner(1422));
    let tcp = sent_v4().tcp(50000, 4789);
    let without_df = Packet::ethernet([2; 6], [4; 6])
        .ipv4("192.0.2.1", "192.0.2.2")
        .udp(50000, 4789)
        .vxlan(100, &inner(1422));
    for packet in [other_port, low_source_port, other_vni, other_remote, other_source, tcp, without_df] {
        assert_eq!(judge(&needed(&packet, 548, 1400).build()), None, "{packet:?}");
    }
}

#[test]
fn other_messages_and_wrong_checksums_are_not_believed() {
    let error = needed(&sent_v4(), 548, 1400);
    assert_eq!(judge(&error.clone().icmp(3, 3, [0, 0, 5, 0]).build()), None);
    assert_eq!(judge(&error.clone().icmp(11, 0, [0, 0, 5, 0]).build()), None);
    let mut wrong = error.build();
    wrong[41] ^= 1;
    assert_eq!(judge(&wrong), None);
    assert_eq!(judge(&sent_v4().build()), None);
}

proptest! {
    #[test]
    fn damaged_errors_never_panic(
        damage in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..5),
        six in any::<bool>(),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut frame = if six { too_big(&sent_v6(), 1400) } else { needed(&sent_v4(), 100, 1400) }.build();
        let meta = parse(&frame).unwrap();
        for (at, value) in damage {
            let at = at.index(frame.len());
            frame[at] = value;
        }
        // As damaged, and with the checksum repaired, so that damage reaches what is quoted.
        let _ = underlay_error(&frame, &meta, &vteps());
        checksum::fill_transport(&mut frame, &meta);
        if let Some(error) = underlay_error(&frame, &meta, &vteps()) {
            prop_assert!(error.mtu >= 576 && !error.endpoints.is_empty());
        }
        frame.truncate(cut.index(frame.len() + 1));
        let _ = underlay_error(&frame, &meta, &vteps());
    }
}
