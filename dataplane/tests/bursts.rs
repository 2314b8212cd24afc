//! A burst is treated as its packets are one by one: what is odd or malformed among them changes nothing for the others.
#![allow(missing_docs, clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::collections::BTreeMap;

use common::site::{BLUE, CHAINED, HOST, INNER, LAN, NATTED, PLAIN, Site, VTEP, WAN, repair};
use common::{Lab, config};
use proptest::prelude::*;
use weir_dataplane::frame::Frame;
use weir_dataplane::packet::builder::Packet;
use weir_dataplane::packet::tcp_flags::{ACK, SYN};

/// One packet of a burst: which, how it differs, and what was done to it on its way.
#[derive(Clone, Debug)]
struct Item {
    kind: u8,
    ttl: u8,
    tail: usize,
    /// Which packet a fragment is of.
    id: u16,
    damage: Damage,
}

#[derive(Clone, Debug)]
enum Damage {
    None,
    /// One byte is another; the header's checksum may be made right again.
    Byte(usize, u8, bool),
    Cut(usize),
    Tag(u16),
}

fn items() -> impl Strategy<Value = Vec<Item>> {
    let damage = prop_oneof![
        5 => Just(Damage::None),
        2 => (0usize..80, any::<u8>(), any::<bool>())
            .prop_filter("fragments are kinds of their own", |(at, ..)| !(18..22).contains(at))
            .prop_map(|(at, value, mend)| Damage::Byte(at, value, mend)),
        1 => (0usize..60).prop_map(Damage::Cut),
        1 => prop_oneof![Just(0u16), Just(10)].prop_map(Damage::Tag),
    ];
    let ttl = prop_oneof![9 => Just(64u8), 1 => 0u8..3];
    let tail = prop_oneof![9 => 0usize..40, 1 => Just(1470usize)];
    let item = (prop_oneof![3 => Just(0u8), 4 => 0u8..15], ttl, tail, 0u16..4, damage);
    let item = item.prop_map(|(kind, ttl, tail, id, damage)| Item { kind, ttl, tail, id, damage });
    proptest::collection::vec(item, 1..64)
}

impl Item {
    fn frame(&self, from: &str, site: Site) -> Vec<u8> {
        let lan = || Packet::ethernet(HOST, LAN).ttl(self.ttl);
        let v4 = |host: u8| lan().ipv4("10.1.0.2", std::net::Ipv4Addr::new(10, 2, 0, host));
        let tail = vec![7; self.tail];
        let packet = match (from, self.kind) {
            ("wan", 0..=2) => {
                Packet::ethernet(VTEP, WAN).ipv4("10.2.0.2", "10.1.0.2").ttl(self.ttl).udp(53, 4000)
            }
            ("wan", 3..=5) => {
                let inner = Packet::ethernet("02:00:00:00:04:01", INNER).ttl(self.ttl);
                let inner = inner.ipv4("10.4.0.2", "10.3.0.2").udp(1, 2).payload(&tail);
                return self.damaged(site.outer(100, &inner.build()).build());
            }
            ("wan", _) => {
                Packet::ethernet(VTEP, WAN).ipv4("10.2.0.2", "10.1.0.2").fragment(8, true).protocol(17)
            }
            ("blue", 0..=4) => {
                Packet::ethernet(HOST, BLUE).ipv4("10.3.0.2", "10.4.0.2").ttl(self.ttl).udp(1, 2)
            }
            ("blue", _) => {
                Packet::ethernet(HOST, BLUE).ipv4("10.3.0.2", "10.4.0.2").fragment(0, true).udp(1, 2)
            }
            (_, 0 | 1) => v4(2).udp(4000, 53),
            (_, 2) => v4(3).udp(4000, 4001),
            (_, 3) => v4(2).options(&[1; 4]).udp(4000, 53),
            (_, 4) => v4(2).identification(self.id).fragment(0, true).udp(4000, 53),
            (_, 5) => v4(2).identification(self.id).fragment(32, false).protocol(17),
            (_, 6) => v4(2).identification(self.id).fragment(64, true).protocol(17),
            (_, 7) => v4(3).tcp(4000, 80).flags(ACK),
            (_, 8) => v4(3).tcp(4000, 80).flags(SYN),
            (_, 9) => v4(2).echo_request(7, 1),
            (_, 10) => lan().ipv6("2001:db8:1::2", "2001:db8:2::2").udp(1, 53),
            (_, 11) => v4(9).udp(4000, 53),
            (_, 12) => lan().ipv4("10.1.0.2", "10.1.0.1").echo_request(9, 1),
            (_, 13) => lan().ipv4("10.1.0.2", "10.10.0.2").udp(4000, 53),
            _ => lan().ipv4("127.0.0.1", "10.2.0.2").udp(4000, 53),
        };
        self.damaged(packet.payload(&tail).build())
    }

    /// Of fragments all have the same ports: a note of another first fragment, which came later in the same burst, would count.
    fn damaged(&self, mut frame: Vec<u8>) -> Vec<u8> {
        let fragment = frame.get(20..22).is_some_and(|field| field[0] & 0x3f != 0 || field[1] != 0);
        match self.damage {
            Damage::Byte(34.., ..) if fragment => {}
            Damage::None => {}
            Damage::Byte(at, value, mend) => {
                if let Some(byte) = frame.get_mut(at) {
                    *byte = value;
                }
                if mend {
                    repair(&mut frame);
                }
            }
            Damage::Cut(len) => frame.truncate(len),
            Damage::Tag(tci) => {
                let [a, b] = tci.to_be_bytes();
                frame.splice(12..12, [0x81, 0, a, b]);
            }
        }
        frame
    }
}

/// What left, by port, in order.
fn by_port(sent: Vec<(String, Vec<u8>)>) -> BTreeMap<String, Vec<Vec<u8>>> {
    let mut ports: BTreeMap<String, Vec<Vec<u8>>> = BTreeMap::new();
    for (port, frame) in sent {
        ports.entry(port).or_default().push(frame);
    }
    ports
}

fn compare(site: Site, bursts: &[(&'static str, Vec<Item>)]) -> Result<(), TestCaseError> {
    let config = config(&site.text());
    let (mut whole, mut single) = (Lab::of(&config), Lab::of(&config));
    // What the flows of a burst have in common is asked for each of them.
    single.engine.take_no_short_cuts();
    // The first sweep of the flow table is over: from now on no time goes by.
    let first = Item { kind: 4, ttl: 64, tail: 24, id: 0, damage: Damage::None }.frame("lan", site);
    for lab in [&mut whole, &mut single] {
        lab.wait_ms(1);
        lab.inject("lan", &first);
        lab.take();
    }
    for (port, items) in bursts {
        let frames: Vec<_> = items.iter().map(|item| item.frame(port, site)).collect();
        let frames: Vec<&[u8]> = frames.iter().map(Vec::as_slice).collect();
        let mut sent = [Vec::new(), Vec::new()];
        whole.engine.receive(port, &frames, |port, frame| sent[0].push((port.to_owned(), frame.to_vec())));
        for frame in frames {
            single
                .engine
                .receive(port, &[frame], |port, frame| sent[1].push((port.to_owned(), frame.to_vec())));
        }
        let [sent, expected] = sent.map(by_port);
        prop_assert_eq!(sent, expected, "{:?}", items);
        let (whole, single) = (whole.counters(), single.counters());
        prop_assert_eq!(whole.dropped, single.dropped, "{:?}", items);
        prop_assert_eq!(
            (whole.consumed, whole.held, whole.originated),
            (single.consumed, single.held, single.originated)
        );
    }
    Ok(())
}

/// The first is looked at before the other is passed: that is too late for it nevertheless, whatever was in front of them.
#[test]
fn a_later_fragment_that_comes_before_its_first_in_a_burst_is_dropped() {
    let item = |kind, id| Item { kind, ttl: 64, tail: 24, id, damage: Damage::None };
    let (plain, first, later) = (|| item(0, 0), |id| item(4, id), |id| item(5, id));
    for site in [CHAINED, NATTED] {
        for ahead in [0, 1, 9, 15] {
            let mut items: Vec<_> = (0..ahead).map(|_| plain()).collect();
            items.extend([later(1), first(1), later(1), plain(), later(2), later(2), first(2), plain()]);
            // One that only the parser reads, and what follows it.
            let tagged = |item| Item { damage: Damage::Tag(10), ..item };
            items.extend([tagged(first(4)), later(4), tagged(later(6)), first(6), tagged(later(6))]);
            // Unknown flows, then known ones.
            let bursts =
                [("lan", items.clone()), ("lan", vec![later(3), first(3), later(3)]), ("lan", items)];
            compare(site, &bursts).unwrap();
        }
        let mut lab = Lab::of(&config(&site.text()));
        let frames: Vec<_> =
            [later(1), first(1), later(1)].iter().map(|item| item.frame("lan", site)).collect();
        let frames: Vec<&[u8]> = frames.iter().map(Vec::as_slice).collect();
        lab.engine.receive("lan", &frames, |_, _| {});
        let counters = lab.counters();
        assert_eq!((counters.transmitted, counters.dropped), (2, [("fragment_unknown", 1)].into()));
    }
}

/// A wire does not look at what is on it; what is too long for it, or tagged, does not make it look at what comes behind.
#[test]
fn what_a_wire_does_not_take_changes_nothing_for_what_comes_behind_it() {
    let text = "[port.left]\nmode = \"dedicated\"\n[port.right]\nmode = \"dedicated\"\nmtu = 1400\n\
                [cross-connect.patch]\nends = [\"left\", \"right\"]\n";
    let packet = || Packet::ethernet(HOST, LAN).ipv4("10.1.0.2", "10.2.0.2").dont_fragment();
    let mut odd = packet().udp(1, 2).build();
    odd[24] ^= 1;
    let tagged = packet().vlan(7).udp(1, 2).payload(&[0; 1372]).build();
    let [good, long] = [8, 1380].map(|len| packet().udp(3, 4).payload(&vec![0; len]).build());
    let mut frames = vec![&good, &odd, &tagged, &odd, &long, &odd, &odd, &long, &long];
    // More than a stride of them.
    frames.extend([&tagged; 40]);
    frames.extend([&odd, &good]);
    let frames: Vec<&[u8]> = frames.into_iter().map(Vec::as_slice).collect();
    let (mut whole, mut single) = (Lab::new(text), Lab::new(text));
    let mut sent = [Vec::new(), Vec::new()];
    whole.engine.receive("left", &frames, |port, frame| sent[0].push((port.to_owned(), frame.to_vec())));
    for frame in frames {
        single
            .engine
            .receive("left", &[frame], |port, frame| sent[1].push((port.to_owned(), frame.to_vec())));
    }
    let [sent, expected] = sent.map(by_port);
    assert_eq!((sent["right"].len(), sent["left"].len()), (48, 3), "all but what is too long");
    assert_eq!(sent, expected);
    assert_eq!(whole.counters().dropped, single.counters().dropped);
}

#[test]
fn a_burst_is_treated_as_its_packets_one_by_one() {
    let site = proptest::sample::select(vec![PLAIN, CHAINED, NATTED]);
    let port = proptest::sample::select(vec!["lan", "lan", "wan", "blue"]);
    let bursts = proptest::collection::vec((port, items()), 1..8);
    let cases = std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(96);
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig {
        cases,
        max_shrink_iters: 500,
        failure_persistence: None,
        ..ProptestConfig::default()
    });
    runner.run(&(site, bursts), |(site, bursts)| compare(site, &bursts)).unwrap();
    assert_eq!(Frame::leaked(), 0);
    assert_eq!(common::POOL.available(), 8192, "every frame is back in the pool");
}
