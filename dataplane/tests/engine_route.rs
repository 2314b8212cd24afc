//! The whole engine over frames in memory: routing.
#![allow(missing_docs, clippy::unwrap_used, clippy::panic, clippy::expect_used, clippy::indexing_slicing)]

mod common;

use common::{Lab, sum};
use weir_dataplane::packet::builder::Packet;

const ROUTER: &str = r#"
[port.a]
addresses = ["10.1.0.1/24", "2001:db8:1::1/64"]
mode = "dedicated"
mac = "02:00:00:00:00:0a"
[port.b]
addresses = ["10.2.0.1/24", "2001:db8:2::1/64"]
mode = "dedicated"
mac = "02:00:00:00:00:0b"
[[neighbour]]
port = "b"
ip = "10.2.0.2"
mac = "02:00:00:00:00:22"
"#;

#[test]
fn a_packet_is_routed_with_its_ttl_decremented_and_its_checksum_right() {
    let mut lab = Lab::new(ROUTER);
    let packet = Packet::ethernet("02:00:00:00:00:11", "02:00:00:00:00:0a")
        .ipv4("10.1.0.2", "10.2.0.2")
        .ttl(64)
        .udp(1000, 2000)
        .payload(b"hello");
    for _ in 0..3 {
        lab.inject("a", &packet.build());
    }
    let expected = Packet::ethernet("02:00:00:00:00:0b", "02:00:00:00:00:22")
        .ipv4("10.1.0.2", "10.2.0.2")
        .ttl(63)
        .udp(1000, 2000)
        .payload(b"hello")
        .build();
    assert_eq!(
        lab.take(),
        vec![("b".to_owned(), expected.clone()), ("b".into(), expected.clone()), ("b".into(), expected)]
    );
    let counters = lab.counters();
    assert_eq!(
        (counters.received, counters.transmitted, counters.flow_misses, counters.flow_hits),
        (3, 3, 1, 2)
    );
    assert_eq!(sum(&counters), 0);
}

#[test]
fn a_neighbour_is_resolved_and_the_packet_that_waited_is_sent() {
    let mut lab = Lab::new(ROUTER);
    let packet = Packet::ethernet("02:00:00:00:00:11", "02:00:00:00:00:0a")
        .ipv4("10.1.0.2", "10.2.0.9")
        .udp(1000, 2000)
        .payload(b"hello")
        .build();
    lab.inject("a", &packet);
    let sent = lab.take();
    assert_eq!(sent.len(), 1, "an ARP request: {sent:?}");
    assert_eq!(lab.counters().held, 1);
    lab.answer_arp(&sent[0], "02:00:00:00:00:99");
    let sent = lab.take();
    assert_eq!(sent.len(), 1, "the packet: {sent:?}");
    assert_eq!(sent[0].1[..6], [2, 0, 0, 0, 0, 0x99]);
    assert_eq!(lab.counters().held, 0);
}

/// RFC 1812 section 4.3.2.8: what the limit held back is counted, whoever wanted to send it.
#[test]
fn errors_over_the_rate_limit_are_counted_for_transit_and_for_local_packets() {
    let mut lab = Lab::new(&format!("{ROUTER}\n[limits]\nicmp-errors-per-second = 1\n"));
    let to = |destination: &str| {
        Packet::ethernet("02:00:00:00:00:11", "02:00:00:00:00:0a")
            .ipv4("10.1.0.2", destination)
            .udp(1000, 2000)
            .build()
    };
    lab.inject("a", &to("10.1.0.1"));
    assert_eq!(lab.counters().icmp_limited, 0);
    lab.inject("a", &to("10.1.0.1"));
    assert_eq!(lab.counters().icmp_limited, 1);
    lab.inject("a", &to("10.9.0.1"));
    assert_eq!(lab.counters().icmp_limited, 2);
    assert_eq!(lab.counters().dropped, [("local_unsupported", 2), ("no_route", 1)].into());
}
