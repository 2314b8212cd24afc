//! A hostile wire: whatever comes, nothing panics, every frame is accounted for, and tables keep telling the truth.
#![allow(missing_docs, clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::collections::BTreeMap;

use common::site::{
    BLUE, CHAINED, HOST, NATTED, OTHER, PLAIN, PORTS, SIX, Sent, Site, VTEP, WAN, between6, bridged, inner,
    lan, lan6, repair, to,
};
use common::sound::told;
use common::{Lab, config};
use proptest::prelude::*;
use weir_config::HugePages;
use weir_dataplane::frame::{Frame, FrameMemory, FramePool};
use weir_dataplane::packet::builder::Packet;
use weir_dataplane::packet::tcp_flags::SYN;
use weir_dataplane::worker::Engine;

#[test]
fn a_neighbour_that_does_not_answer_is_asked_thrice_and_the_sender_is_told() {
    let mut lab = Lab::new(&PLAIN.text());
    lab.inject("lan", &to("10.2.0.77").build());
    let mut sent = lab.take();
    lab.wait_ms(10_000);
    sent.extend(lab.take());
    let asked = sent.iter().filter(|(port, frame)| port == "wan" && frame[12..14] == [8, 6]).count();
    assert_eq!(asked, 3);
    let answers: Vec<_> = sent.iter().filter(|(port, _)| port == "lan").collect();
    assert_eq!(answers.len(), 1, "{sent:02x?}");
    // RFC 1812 section 5.2.7.1: host unreachable.
    let told = told(&answers[0].1);
    assert_eq!(told.kind, (3, 1));
    assert_eq!(told.quote, to("10.2.0.77").build_network());
    let counters = lab.counters();
    assert_eq!(counters.dropped, BTreeMap::from([("neighbour_unreachable", 1)]));
    assert_eq!(counters.held, 0);
}

#[test]
fn a_packet_that_has_a_failed_neighbour_asked_for_again_waits_for_it() {
    let mut lab = Lab::new(&PLAIN.text());
    let packet = to("10.2.0.77").build();
    lab.inject("lan", &packet);
    // Three seconds until it failed, two of hold-down; the flow is cached still.
    lab.wait_ms(5_500);
    lab.take();
    lab.inject("lan", &packet);
    let sent = lab.take();
    assert_eq!(sent.len(), 1, "{sent:02x?}");
    lab.answer_arp(&sent[0], OTHER);
    let sent = lab.take();
    assert_eq!((sent.len(), sent[0].0.as_str()), (1, "wan"));
    assert_eq!(sent[0].1[..6], [2, 0, 0, 0, 0, 0x0b]);
}

#[test]
fn a_priority_tag_is_no_vlan() {
    // IEEE 802.1Q clause 6.9: VLAN id 0 says nothing but a priority.
    let mut lab = Lab::new(&PLAIN.text());
    lab.inject("lan", &to("10.2.0.2").vlan(0xe000).build());
    let sent = lab.take();
    assert_eq!(sent.len(), 1, "{:?}", lab.counters());
    assert_eq!(sent[0].0, "wan");
    assert_eq!(sent[0].1[12..14], [8, 0], "the tag stays behind");
}

#[test]
fn a_vtep_is_one_in_its_underlay_alone() {
    // Somebody in another VRF pretends to be the remote VTEP.
    let mut lab = Lab::new(&PLAIN.text());
    let forged =
        Packet::ethernet(HOST, BLUE).ipv4("192.0.2.2", "192.0.2.1").udp(0xc123, 4789).without_checksum();
    lab.inject("blue", &forged.vxlan(5000, &bridged(HOST, OTHER).build()).build());
    lab.take();
    assert_eq!(lab.counters().dropped, BTreeMap::from([("no_route", 1)]));
}

#[test]
fn a_station_that_comes_back_is_found_where_it_is() {
    let mut lab = Lab::new(&PLAIN.text());
    let host = bridged(HOST, OTHER).build();
    let elsewhere = Packet::ethernet(HOST, OTHER).vlan(20).ipv4("10.5.0.1", "10.5.0.2").udp(1, 2).build();
    lab.inject("one", &bridged(OTHER, HOST).build());
    lab.inject("two", &host);
    lab.inject("two", &elsewhere);
    // Back, while its first flow is still cached.
    lab.inject("two", &host);
    lab.take();
    lab.inject("one", &bridged(OTHER, HOST).build());
    let sent = lab.take();
    assert_eq!(sent.len(), 1);
    assert_eq!(
        (sent[0].0.as_str(), &sent[0].1[12..14]),
        ("two", &[8, 0][..]),
        "not behind the VLAN any more"
    );
    assert_eq!(lab.counters().mac_moves, 2);
}

#[test]
fn copies_and_fragments_that_find_no_frame_are_counted() {
    let pool = FramePool::new(FrameMemory::map(2, 2048, HugePages::Never).unwrap());
    let mut engine = Engine::with_pool(&config(&PLAIN.text()), &pool).unwrap();
    let host = Packet::ethernet(HOST, BLUE).ipv4("10.3.0.2", "10.4.0.2").udp(1, 2);
    // Four copies want four frames; there are two. Two fragments want two.
    engine.inject("one", &bridged(HOST, OTHER).build());
    assert_eq!((engine.take_sent().len(), engine.counters().dropped["no_frames"]), (2, 2));
    engine.inject("blue", &host.payload(&[0; 1460]).build());
    assert_eq!((engine.take_sent().len(), engine.counters().dropped["no_frames"]), (2, 2));
    let (entered, left) = engine.counters().balance();
    assert_eq!(entered, left);
    drop(engine);
    assert_eq!(pool.available(), 2);
    assert_eq!(Frame::leaked(), 0);
}

/// One packet of every kind.
fn valid(site: Site) -> Vec<Sent> {
    let mut frames = vec![
        ("lan", to("10.2.0.2").build()),
        ("lan", lan().tcp(5, 80).flags(SYN).tcp_options(&[2, 4, 5, 0xb4]).build()),
        ("lan", lan().echo_request(1, 1).build()),
        ("lan", to("10.1.0.1").echo_request(1, 1).build()),
        ("lan", to("10.10.0.2").options(&[7, 7, 4, 0, 0, 0, 0]).build()),
        ("lan", lan().fragment(0, true).udp(1, 2).payload(&[0; 16]).build()),
        ("lan", lan6().extension(0, &[]).udp(1, 2).build()),
        ("lan", lan6().fragment(8, false).protocol(17).payload(&[0; 16]).build()),
        ("lan", between6("2001:db8:1::2", "2001:db8:1::1").echo_request(1, 1).build()),
        ("lan", lan6().sctp(1, 2, 3).payload(&[0; 8]).build()),
        ("blue", Packet::ethernet(HOST, BLUE).ipv4("10.3.0.2", "10.4.0.2").udp(1, 2).build()),
        ("blue", Packet::ethernet(HOST, BLUE).ipv6("2001:db8:3::2", "2001:db8:4::2").udp(1, 2).build()),
        ("wan", site.outer(100, &inner().build()).build()),
        ("wan", site.outer(5000, &bridged(OTHER, HOST).build()).build()),
        ("wan", site.outer(5001, &bridged(OTHER, HOST).build()).build()),
        ("one", bridged(HOST, OTHER).build()),
        ("two", bridged(HOST, "ff:ff:ff:ff:ff:ff").vlan(20).build()),
        ("wire", bridged(HOST, OTHER).build()),
        ("left", bridged(HOST, OTHER).vlan(7).vlan(8).build()),
        ("right", bridged(HOST, OTHER).vlan(7).build()),
    ];
    let quoted = site.outer(100, &inner().build());
    let quote = if site.v6 {
        Packet::ethernet(WAN, VTEP).ipv6("2001:db8:f::1", "2001:db8:f::2").udp(0xc123, 4789).payload(&[0; 64])
    } else {
        Packet::ethernet(WAN, VTEP)
            .ipv4("192.0.2.1", "192.0.2.2")
            .dont_fragment()
            .udp(0xc123, 4789)
            .payload(&[0; 64])
    };
    let error = if site.v6 { [0, 0, 5, 0] } else { [0, 0, 4, 0] };
    let kind = if site.v6 { (2, 0) } else { (3, 4) };
    frames.push(("wan", site.underlay().icmp(kind.0, kind.1, error).payload(&quote.build_network()).build()));
    frames
        .push(("wan", site.underlay().icmp(kind.0, kind.1, error).payload(&quoted.build_network()).build()));
    frames
}

#[test]
fn every_truncation_of_every_kind_of_packet_is_accounted_for() {
    for site in [PLAIN, CHAINED, SIX, NATTED] {
        let mut lab = Lab::new(&site.text());
        for (port, frame) in valid(site) {
            for len in 0..=frame.len() {
                lab.inject(port, &frame[..len]);
            }
        }
        assert_eq!(lab.counters().dropped.get("internal_error"), None);
        lab.take().iter().for_each(|(_, frame)| assert_tight(frame));
    }
    assert_eq!(Frame::leaked(), 0);
}

/// Every frame that leaves is at least a frame.
fn assert_tight(frame: &[u8]) {
    assert!((14..=1522).contains(&frame.len()), "{} bytes", frame.len());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn mutations_of_valid_packets_are_accounted_for(
        (v6, chain, nat) in any::<(bool, bool, bool)>(),
        picks in proptest::collection::vec(
            (any::<proptest::sample::Index>(), proptest::collection::vec((0usize..130, any::<u8>()), 0..4), any::<bool>(),
             proptest::option::weighted(0.2, 0..PORTS.len()), 0u64..20_000),
            1..60,
        ),
    ) {
        let site = Site { v6, chain, ecmp: true, nat, ..Site::default() };
        let frames = valid(site);
        let mut lab = Lab::of(&config(&site.text()));
        for (which, bytes, mend, port, wait) in picks {
            let (right, frame) = which.get(&frames);
            let mut frame = frame.clone();
            for (at, value) in bytes {
                if let Some(byte) = frame.get_mut(at) {
                    *byte = value;
                }
            }
            if mend {
                repair(&mut frame);
            }
            lab.inject(port.map_or(right, |port| PORTS[port]), &frame);
            if wait > 19_000 {
                lab.wait_ms(wait - 19_000);
            }
        }
        prop_assert!(!lab.counters().dropped.contains_key("internal_error"));
        lab.take().iter().for_each(|(_, frame)| assert_tight(frame));
    }

    #[test]
    fn arbitrary_bytes_are_accounted_for(
        frames in proptest::collection::vec((0..PORTS.len(), proptest::collection::vec(any::<u8>(), 0..200)), 1..30),
    ) {
        let mut lab = Lab::of(&config(&CHAINED.text()));
        for (port, frame) in frames {
            lab.inject(PORTS[port], &frame);
        }
        prop_assert!(!lab.counters().dropped.contains_key("internal_error"));
    }
}
