//! A packet gets the same from its flow's program as from a walk: the same bytes, the same port, the same fate.
#![allow(missing_docs, clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::sync::atomic::{AtomicU64, Ordering};

use common::site::{BLUE, HOST, INNER, LAN, OTHER, PORTS, Site, VTEP, WAN, repair};
use common::{Lab, config};
use proptest::prelude::*;
use weir_dataplane::frame::Frame;
use weir_dataplane::packet::builder::Packet;
use weir_dataplane::packet::tcp_flags::{ACK, FIN, RST, SYN};

/// What happens to a valid packet before it is sent.
#[derive(Clone, Debug)]
enum Mutation {
    None,
    /// One byte changes; with `repair` the IPv4 header checksum is made right again.
    Byte {
        at: usize,
        value: u8,
        repair: bool,
    },
    Truncate(usize),
    Tag(u16),
}

#[derive(Clone, Debug)]
struct Step {
    /// Which of the site's packets.
    kind: u8,
    /// Small differences between packets of one kind.
    variant: u8,
    /// IP payload and TTL.
    len: usize,
    ttl: u8,
    class: u8,
    mutation: Mutation,
    /// By which port it comes, if not the right one.
    port: Option<usize>,
    /// How often it is sent.
    times: usize,
    /// Milliseconds that pass before.
    wait: u64,
}

/// A few packets, each sent several times, unchanged or mutated: so that flows are hit.
fn steps() -> impl Strategy<Value = Vec<Step>> {
    let mutation = prop_oneof![
        6 => Just(Mutation::None),
        2 => (0usize..120, any::<u8>(), any::<bool>())
            .prop_map(|(at, value, repair)| Mutation::Byte { at, value, repair }),
        1 => (0usize..120).prop_map(Mutation::Truncate),
        2 => prop_oneof![Just(0u16), Just(7), Just(10), Just(20), any::<u16>()].prop_map(Mutation::Tag),
    ];
    let len = prop_oneof![6 => 0usize..64, 1 => 1380usize..1490];
    let ttl = prop_oneof![8 => Just(64u8), 1 => 0u8..3, 1 => any::<u8>()];
    let class = prop_oneof![2 => Just(0u8), 1 => any::<u8>()];
    let port = proptest::option::weighted(0.1, 0..PORTS.len());
    let wait = prop_oneof![8 => Just(0u64), 1 => 1u64..2000];
    let palette = proptest::collection::vec((0u8..23, 0u8..6, len), 1..5);
    let step = (any::<proptest::sample::Index>(), ttl, class, mutation, port, 1usize..4, wait);
    (palette, proptest::collection::vec(step, 1..30)).prop_map(|(palette, steps)| {
        let step = |(which, ttl, class, mutation, port, times, wait): (
            proptest::sample::Index,
            _,
            _,
            _,
            _,
            _,
            _,
        )| {
            let (kind, variant, len) = *which.get(&palette);
            Step { kind, variant, len, ttl, class, mutation, port, times, wait }
        };
        steps.into_iter().map(step).collect()
    })
}

/// One of several hosts; the last has no neighbour entry.
fn v4(subnet: &str, variant: u8) -> std::net::Ipv4Addr {
    format!("{subnet}.{}", [2, 2, 2, 3, 2, 9][usize::from(variant % 6)]).parse().unwrap()
}

fn v6(subnet: &str, variant: u8) -> std::net::Ipv6Addr {
    format!("2001:db8:{subnet}::{}", [2, 2, 2, 3, 2, 9][usize::from(variant % 6)]).parse().unwrap()
}

fn transport(packet: Packet, step: &Step) -> Packet {
    let payload = vec![step.variant; step.len];
    match step.variant {
        0 => packet.udp(4000, 53),
        1 => packet.udp(4000 + u16::from(step.class), 4001),
        2 => packet.tcp(4000, 80).flags([SYN, SYN | ACK, ACK, FIN | ACK, RST][step.len % 5]),
        3 => packet.echo_request(7, 1),
        4 => packet.fragment(u16::from(step.class & 3) * 8, step.class & 1 == 0).udp(4000, 53),
        _ => packet.tcp(4000, 113).flags(SYN),
    }
    .payload(&payload)
}

impl Step {
    /// The port and the frame.
    fn frame(&self, site: Site) -> (&'static str, Vec<u8>) {
        let finish = |packet: Packet| {
            let packet = packet.ttl(self.ttl).traffic_class(self.class);
            transport(packet, self)
        };
        let routed = |mac: &str, gateway: &str| Packet::ethernet(mac, gateway);
        let bridged = || match self.variant {
            0 => Packet::ethernet(HOST, OTHER),
            1 => Packet::ethernet(OTHER, HOST),
            2 => Packet::ethernet(HOST, "ff:ff:ff:ff:ff:ff"),
            _ => Packet::ethernet("02:00:00:00:00:0c", HOST),
        };
        let (port, packet) = match self.kind {
            0 => ("lan", finish(routed(HOST, LAN).ipv4("10.1.0.2", v4("10.2.0", self.variant)))),
            1 => ("lan", finish(routed(HOST, LAN).ipv6("2001:db8:1::2", v6("2", self.variant)))),
            2 => ("wan", finish(routed(VTEP, WAN).ipv4(v4("10.2.0", self.variant), "10.1.0.2"))),
            3 => ("wan", finish(routed(VTEP, WAN).ipv6(v6("2", self.variant), "2001:db8:1::2"))),
            4 => ("lan", finish(routed(HOST, LAN).vlan(10).ipv4("10.10.0.2", v4("10.1.0", self.variant)))),
            5 => ("lan", finish(routed(HOST, LAN).ipv4("10.1.0.2", v4("10.10.0", self.variant)))),
            6 => ("lan", finish(routed(HOST, LAN).ipv4("10.1.0.2", v4("10.9.0", self.class)))),
            7 => ("lan", finish(routed(HOST, LAN).ipv6("2001:db8:1::2", v6("9:1", self.class)))),
            8 => ("lan", finish(routed(HOST, LAN).ipv4("10.1.0.2", "10.66.0.1"))),
            9 => ("lan", finish(routed(HOST, LAN).ipv4("10.1.0.2", "172.16.0.1"))),
            10 => ("blue", finish(routed(HOST, BLUE).ipv4("10.3.0.2", v4("10.4.0", self.variant)))),
            11 => ("blue", finish(routed(HOST, BLUE).ipv6("2001:db8:3::2", v6("4", self.variant)))),
            12 => {
                let inner =
                    finish(routed("02:00:00:00:04:01", INNER).ipv4(v4("10.4.0", self.variant), "10.3.0.2"));
                ("wan", site.outer(100, &inner.build()).traffic_class(self.class >> 1))
            }
            13 => {
                let inner = finish(bridged().ipv4("10.5.0.1", "10.5.0.2"));
                ("wan", site.outer(5000, &inner.build()).traffic_class(self.class >> 1))
            }
            14 => {
                let inner = finish(bridged().ipv6("2001:db8:5::1", "2001:db8:5::2"));
                ("wan", site.outer(5001, &inner.build()).traffic_class(self.class >> 1))
            }
            15 => {
                let port = ["one", "two", "wire", "left"][usize::from(self.class & 3)];
                (port, finish(bridged().ipv4("10.5.0.1", "10.5.0.2")))
            }
            16 => ("two", finish(bridged().vlan(20).ipv4("10.5.0.1", "10.5.0.2"))),
            17 => {
                // An ICMP error about what `lan` may have sent, or not.
                let sent = Packet::ethernet(HOST, LAN).ipv4("10.1.0.2", "10.2.0.2");
                let quote = match self.variant {
                    0 | 1 => sent.udp(4000, 53),
                    2 => sent.udp(4000, 4001 + u16::from(self.class & 1)),
                    3 => sent.tcp(4000, 80).flags(SYN),
                    4 => sent.echo_request(7, 1),
                    _ => sent.udp(9, 9),
                };
                let error = routed(VTEP, WAN).ipv4(v4("10.2.0", self.class & 1), "10.1.0.2").ttl(self.ttl);
                ("wan", error.icmp(3, 3, [0; 4]).payload(&quote.build_network()))
            }
            // To a neighbour that does not answer.
            18 => ("lan", finish(routed(HOST, LAN).ipv4("10.1.0.2", v4("10.1.0", 3)))),
            19 => {
                let own = ["10.1.0.1", "10.2.0.1", "10.1.0.255", "224.0.0.1"][usize::from(self.class & 3)];
                ("lan", finish(routed(HOST, LAN).ipv4("10.1.0.2", own)))
            }
            20 => ("lan", finish(routed(HOST, LAN).ipv6("64:ff9b::10.9.9.9", v6("2", self.variant)))),
            21 => (
                "lan",
                finish(routed(HOST, LAN).ipv6(["fe80::a", "::1"][usize::from(self.class & 1)], v6("2", 0))),
            ),
            _ => ("right", finish(bridged().vlan(7).ipv6("2001:db8:5::1", "2001:db8:5::2"))),
        };
        let mut frame = packet.build();
        match self.mutation {
            Mutation::None => {}
            Mutation::Byte { at, value, repair: mend } => {
                if let Some(byte) = frame.get_mut(at) {
                    *byte = value;
                }
                if mend {
                    repair(&mut frame);
                }
            }
            Mutation::Truncate(len) => frame.truncate(len),
            Mutation::Tag(tci) => {
                let [a, b] = tci.to_be_bytes();
                frame.splice(12..12, [0x81, 0, a, b]);
            }
        }
        (self.port.map_or(port, |port| PORTS[port]), frame)
    }
}

static HITS: AtomicU64 = AtomicU64::new(0);

fn compare(site: Site, steps: &[Step]) -> Result<(), TestCaseError> {
    let config = config(&site.text());
    // One engine remembers flows; before each packet of the other a new generation makes every program void.
    let (mut warm, mut cold) = (Lab::of(&config), Lab::of(&config));
    cold.engine.take_no_short_cuts();
    let mut waited = false;
    for step in steps {
        let (port, frame) = step.frame(site);
        for lab in [&mut warm, &mut cold] {
            lab.wait_ms(step.wait);
        }
        prop_assert_eq!(warm.take(), cold.take(), "timers of {:?}", step);
        for time in 0..step.times {
            // What waits for a neighbour walks again in a new generation, which counts as use of the neighbour.
            let waits = cold.counters().held > 0;
            waited |= waits;
            if !waits {
                cold.engine.apply(&config).unwrap();
            }
            warm.inject(port, &frame);
            cold.inject(port, &frame);
            prop_assert_eq!(warm.take(), cold.take(), "time {} of {:?}", time, step);
        }
        let (warm, cold) = (warm.counters(), cold.counters());
        prop_assert_eq!(warm.dropped, cold.dropped, "{:?}", step);
        prop_assert_eq!(
            (warm.consumed, warm.held, warm.originated),
            (cold.consumed, cold.held, cold.originated)
        );
    }
    prop_assert!(waited || cold.counters().flow_hits == 0, "the slow twin remembers nothing");
    HITS.fetch_add(warm.counters().flow_hits, Ordering::Relaxed);
    Ok(())
}

#[test]
fn a_cached_flow_is_treated_as_a_walk_would_treat_it() {
    // Translated sources are not compared: a walk that comes to nothing uses a port up, and the slow twin walks more often.
    let site = any::<[bool; 3]>().prop_map(|[v6, chain, ecmp]| Site { v6, chain, ecmp, nat: false });
    let cases = std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(192);
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig {
        cases,
        max_shrink_iters: 2000,
        failure_persistence: None,
        ..ProptestConfig::default()
    });
    runner.run(&(site, steps()), |(site, steps)| compare(site, &steps)).unwrap();
    assert!(HITS.load(Ordering::Relaxed) > u64::from(cases), "hardly a packet found its flow");
    assert_eq!(Frame::leaked(), 0);
    assert_eq!(common::POOL.available(), 8192, "every frame is back in the pool");
}
