//! Chains, sessions, firewall, policer and bridge through the whole engine: packets in, packets out, exact counters.
#![allow(missing_docs, clippy::unwrap_used, clippy::panic)]

mod common;

use common::bed::{ALICE, BOB, LAN, WAN, back, bridge, neighbour, out, routed, router, through};
use common::{Lab, NOWHERE};
use weir_dataplane::packet::builder::Packet;
use weir_dataplane::packet::parse;
use weir_dataplane::packet::tcp_flags::{ACK, FIN, RST, SYN};

/// A bed whose packets all go through the service `hop`.
fn lab(bed: &str, service: &str) -> Lab {
    Lab::new(&format!("{bed}{}{service}", through("hop")))
}

const OUT_ONLY: &str = r#"
[service.hop.firewall]
default = "drop"
rules = [{ allow = "any", from = "10.1.0.0/24" }]
"#;

#[test]
fn replies_pass_a_firewall_and_what_nobody_asked_for_does_not() {
    let mut lab = lab(&router(), OUT_ONLY);
    assert_eq!(lab.send("lan", &out().tcp(4000, 80).flags(SYN)), ["wan"]);
    assert_eq!(lab.send("wan", &back().tcp(80, 4000).flags(SYN | ACK)), ["lan"]);
    assert_eq!(lab.send("lan", &out().tcp(4000, 80).flags(ACK)), ["wan"]);
    for _ in 0..5 {
        assert_eq!(lab.send("wan", &back().tcp(80, 4000).flags(ACK).payload(b"data")), ["lan"]);
    }
    assert_eq!(lab.send("wan", &back().tcp(80, 4001).flags(SYN)), NOWHERE);
    assert_eq!(lab.send("lan", &out().echo_request(7, 1)), ["wan"]);
    assert_eq!(lab.send("wan", &back().echo_reply(7, 1)), ["lan"]);
    assert_eq!(
        lab.send("wan", &back().echo_request(7, 1)),
        NOWHERE,
        "an echo the other way is another matter"
    );
    lab.expect_drops(&[("firewall_denied", 2)]);
}

#[test]
fn a_connection_is_cached_only_once_it_is_established() {
    let mut lab = lab(&router(), OUT_ONLY);
    lab.send("lan", &out().tcp(4000, 80).flags(SYN));
    lab.send("wan", &back().tcp(80, 4000).flags(SYN | ACK));
    assert_eq!(lab.engine.flows(10).len(), 0);
    lab.send("lan", &out().tcp(4000, 80).flags(ACK));
    assert_eq!(lab.engine.flows(10).len(), 1);
    let before = lab.counters().flow_hits;
    lab.send("lan", &out().tcp(4000, 80).flags(ACK));
    assert_eq!(lab.counters().flow_hits, before + 1);
    lab.send("lan", &out().tcp(4000, 80).flags(FIN | ACK));
    assert_eq!(lab.counters().flow_hits, before + 1, "a FIN walks");
}

#[test]
fn a_syn_opens_a_connection_after_stray_packets_were_dropped() {
    let mut lab = lab(&router(), OUT_ONLY);
    for _ in 0..3 {
        assert_eq!(lab.send("lan", &out().tcp(4000, 80).flags(ACK)), NOWHERE);
    }
    assert_eq!(lab.send("lan", &out().tcp(4000, 80).flags(SYN)), ["wan"]);
    assert_eq!(lab.send("wan", &back().tcp(80, 4000).flags(SYN | ACK)), ["lan"]);
    assert_eq!(lab.send("lan", &out().tcp(4000, 80).flags(ACK)), ["wan"]);
    lab.expect_drops(&[("firewall_no_session", 3)]);
}

#[test]
fn a_session_lets_replies_pass_that_were_dropped_before_it() {
    let mut lab = lab(&router(), OUT_ONLY);
    assert_eq!(lab.send("wan", &back().udp(53, 4000)), NOWHERE);
    assert_eq!(lab.send("wan", &back().udp(53, 4000)), NOWHERE, "by memory");
    assert_eq!(lab.send("lan", &out().udp(4000, 53)), ["wan"]);
    for _ in 0..2 {
        assert_eq!(lab.send("wan", &back().udp(53, 4000)), ["lan"]);
    }
    lab.expect_drops(&[("firewall_denied", 2)]);
}

/// Over IPv6, and of what has no ports, flows are kept under other keys.
#[test]
fn a_session_lets_any_replies_pass_that_were_dropped_before_it() {
    let (alice, bob) = ("2001:db8:1::2", "2001:db8:2::2");
    let bed = [
        routed("lan", LAN, &["2001:db8:1::1/64", "10.1.0.1/24"]),
        routed("wan", WAN, &["2001:db8:2::1/64", "10.2.0.1/24"]),
        neighbour("lan", alice, ALICE),
        neighbour("wan", bob, BOB),
        neighbour("lan", "10.1.0.2", ALICE),
        neighbour("wan", "10.2.0.2", BOB),
    ];
    let firewall = "[service.hop.firewall]\nrules = [{ allow = \"any\", from = \"10.1.0.0/24\" }, { allow = \"any\", from = \"2001:db8:1::/64\" }]";
    let there = Packet::ethernet(ALICE, LAN).ipv6(alice, bob);
    let answer = Packet::ethernet(BOB, WAN).ipv6(bob, alice);
    for (there, answer) in [
        (there.clone().udp(4000, 53), answer.clone().udp(53, 4000)),
        (there.echo_request(7, 1), answer.echo_reply(7, 1)),
        (out().echo_request(7, 1), back().echo_reply(7, 1)),
    ] {
        let mut lab = lab(&bed.concat(), firewall);
        for _ in 0..3 {
            assert_eq!(lab.send("wan", &answer), NOWHERE);
        }
        assert_eq!(lab.send("lan", &there), ["wan"]);
        for _ in 0..2 {
            assert_eq!(lab.send("wan", &answer), ["lan"]);
        }
        lab.expect_drops(&[("firewall_denied", 3)]);
    }
}

#[test]
fn a_session_ends_when_the_clock_jumps_past_its_timeout() {
    // RFC 4787 REQ-5: five minutes for UDP.
    let mut lab = lab(&router(), OUT_ONLY);
    lab.send("lan", &out().udp(4000, 53));
    lab.wait(290);
    assert_eq!(lab.send("wan", &back().udp(53, 4000)), ["lan"]);
    lab.wait(7200);
    assert_eq!(lab.send("wan", &back().udp(53, 4000)), NOWHERE);
    lab.expect_drops(&[("firewall_denied", 1)]);
}

#[test]
fn an_icmp_error_about_a_session_passes_and_any_other_does_not() {
    let mut lab = lab(&router(), OUT_ONLY);
    lab.inject("lan", &out().udp(4000, 53).payload(b"question").build());
    let (_, sent) = lab.take().remove(0);
    let quoted = &sent[14..];
    assert_eq!(lab.send("wan", &back().icmp(3, 3, [0; 4]).payload(quoted)), ["lan"]);
    let other = Packet::ethernet(ALICE, BOB).ipv4("10.1.0.2", "10.2.0.2").udp(4001, 53).build();
    assert_eq!(lab.send("wan", &back().icmp(3, 3, [0; 4]).payload(&other[14..])), NOWHERE);
    lab.expect_drops(&[("firewall_denied", 1)]);
}

#[test]
fn an_icmp_error_reaches_only_who_sent_what_it_quotes() {
    let mut lab = lab(&router(), OUT_ONLY);
    lab.inject("lan", &out().udp(4000, 53).payload(b"question").build());
    let (_, sent) = lab.take().remove(0);
    let about = |packet: Packet, quote: &[u8]| packet.icmp(3, 1, [0; 4]).payload(quote);
    let to_another = Packet::ethernet(BOB, WAN).ipv4("10.2.0.2", "10.1.0.9");
    assert_eq!(lab.send("wan", &about(to_another, &sent[14..])), NOWHERE, "somebody else's");
    // A ping whose identifier is 0 has the ports that errors have.
    assert_eq!(lab.send("lan", &out().echo_request(0, 1)), ["wan"]);
    let unknown = out().udp(4001, 53).build();
    assert_eq!(lab.send("wan", &about(back(), &unknown[14..])), NOWHERE);
    assert_eq!(lab.send("wan", &about(back(), &unknown[14..22])), NOWHERE, "it cannot be told whose");
    assert_eq!(lab.send("wan", &about(back(), &sent[14..])), ["lan"]);
    lab.expect_drops(&[("firewall_denied", 3)]);
}

#[test]
fn a_redirect_and_a_source_quench_belong_to_no_session() {
    // RFC 6633 section 4; and a gateway beyond a firewall is nobody's next hop behind it.
    let mut lab = lab(&router(), OUT_ONLY);
    lab.inject("lan", &out().udp(4000, 53).payload(b"question").build());
    let (_, sent) = lab.take().remove(0);
    let told = |kind| back().icmp(kind, 0, [10, 2, 0, 9]).payload(&sent[14..]);
    for (kind, passes) in [(3, true), (4, false), (5, false), (11, true), (12, true)] {
        assert_eq!(lab.send("wan", &told(kind)).len(), usize::from(passes), "type {kind}");
    }
    lab.expect_drops(&[("firewall_denied", 2)]);
}

#[test]
fn an_icmp_error_is_about_what_stands_behind_the_quoted_extension_headers() {
    // RFC 4890 section 4.3.1: packet too big is not to be dropped, also about a fragment.
    let (alice, bob) = ("2001:db8:1::2", "2001:db8:2::2");
    let bed = [
        routed("lan", LAN, &["2001:db8:1::1/64"]),
        routed("wan", WAN, &["2001:db8:2::1/64"]),
        neighbour("lan", alice, ALICE),
        neighbour("wan", bob, BOB),
    ];
    let firewall = OUT_ONLY.replace("10.1.0.0/24", "2001:db8:1::/64");
    for build in [
        (|packet: Packet| packet.udp(4000, 53)) as fn(Packet) -> Packet,
        |packet| packet.extension(60, &[]).udp(4000, 53),
        |packet| packet.identification(9).fragment(0, true).udp(4000, 53),
    ] {
        let mut lab = lab(&bed.concat(), &firewall);
        let packet = build(Packet::ethernet(ALICE, LAN).ipv6(alice, bob)).payload(&[7; 1224]);
        lab.inject("lan", &packet.build());
        let (_, sent) = lab.take().remove(0);
        let told = |quote: &[u8]| {
            Packet::ethernet(BOB, WAN).ipv6(bob, alice).icmp(2, 0, [0, 0, 5, 0]).payload(quote)
        };
        assert_eq!(lab.send("wan", &told(&sent[14..600])), ["lan"]);
        assert_eq!(lab.send("wan", &told(&sent[14..54])), NOWHERE, "cut before the ports");
        lab.expect_drops(&[("firewall_denied", 1)]);
    }
}

#[test]
fn a_rejected_connection_is_answered_with_a_reset() {
    let reject = "[service.hop.firewall]\ndefault = \"reject\"";
    let mut lab = lab(&router(), reject);
    lab.inject("lan", &out().tcp(4000, 80).flags(SYN).build());
    let sent = lab.take();
    assert_eq!(sent.len(), 1);
    assert_eq!(sent[0].0, "lan");
    let meta = parse(&sent[0].1).unwrap();
    assert_eq!(meta.tcp_flags & RST, RST);
    lab.expect_drops(&[("firewall_rejected", 1)]);
}

#[test]
fn later_fragments_follow_their_first() {
    let mut lab = lab(
        &router(),
        "[service.hop.firewall]\ndefault = \"drop\"\nrules = [{ allow = \"udp\", to-port = 53 }]",
    );
    let fragment = |port: u16, offset: u16, more| {
        let packet = out().identification(port).fragment(offset, more);
        if offset == 0 {
            packet.udp(4000, port).payload(&[0; 16])
        } else {
            packet.protocol(17).payload(&[0; 24])
        }
    };
    assert_eq!(lab.send("lan", &fragment(53, 0, true)), ["wan"]);
    assert_eq!(lab.send("lan", &fragment(53, 24, false)), ["wan"]);
    assert_eq!(lab.send("lan", &fragment(54, 0, true)), NOWHERE);
    assert_eq!(lab.send("lan", &fragment(54, 24, false)), NOWHERE);
    assert_eq!(lab.send("lan", &fragment(55, 24, false)), NOWHERE);
    lab.expect_drops(&[("firewall_denied", 2), ("fragment_unknown", 1)]);
}

#[test]
fn a_policer_lets_its_burst_pass_and_then_its_rate() {
    let police = r#"
        [service.hop.policer]
        rules = [{ rate = "10pps", burst = 5, per = "source", protocol = "udp", to = "10.2.0.0/24" }]
    "#;
    let mut lab = lab(&router(), police);
    let passed =
        |lab: &mut Lab, count| (0..count).map(|_| lab.send("lan", &out().udp(4000, 53)).len()).sum::<usize>();
    assert_eq!(passed(&mut lab, 10), 5);
    lab.wait_ms(200);
    assert_eq!(passed(&mut lab, 10), 2);
    let other = Packet::ethernet(ALICE, LAN).ipv4("10.1.0.3", "10.2.0.2").udp(4000, 53);
    assert_eq!(lab.send("lan", &other), ["wan"], "another source has its own bucket");
    assert_eq!(lab.send("wan", &back().udp(53, 4000)), ["lan"], "no rule matches the reply");
    lab.expect_drops(&[("policed", 13)]);
}

#[test]
fn arp_passes_a_firewall_between_bridged_hosts_and_other_traffic_does_not() {
    let mut lab = lab(&bridge(), "[service.hop.firewall]\ndefault = \"drop\"");
    let arp = Packet::ethernet(ALICE, "ff:ff:ff:ff:ff:ff")
        .ether_type(0x0806)
        .payload(&[0, 1, 8, 0, 6, 4, 0, 1, 2, 0, 0, 0, 0, 10, 10, 1, 0, 1, 0, 0, 0, 0, 0, 0, 10, 1, 0, 2]);
    assert_eq!(lab.send("one", &arp), ["three", "two"]);
    assert_eq!(
        lab.send("two", &Packet::ethernet(BOB, ALICE).ipv4("10.1.0.2", "10.1.0.1").udp(1, 2)),
        NOWHERE
    );
    assert_eq!(lab.send("two", &Packet::ethernet(BOB, ALICE).ether_type(0x88b5).payload(&[0; 46])), NOWHERE);
    lab.expect_drops(&[("firewall_denied", 2)]);
}

#[test]
fn what_a_chain_dropped_stays_dropped_when_bridge_entries_move() {
    let mut lab = lab(
        &bridge(),
        "[service.hop.firewall]\ndefault = \"drop\"\nrules = [{ allow = \"udp\", to-port = 53 }]",
    );
    let denied = Packet::ethernet(ALICE, BOB).ipv4("10.1.0.1", "10.1.0.2").udp(4000, 80);
    let answer = Packet::ethernet(BOB, ALICE).ipv4("10.1.0.2", "10.1.0.1").udp(4000, 53);
    assert_eq!(lab.send("two", &answer), ["one", "three"]);
    assert_eq!(lab.send("one", &denied), NOWHERE);
    assert_eq!(lab.send("three", &answer), ["one"], "Bob moved");
    assert_eq!(lab.counters().mac_moves, 1);
    assert_eq!(lab.send("one", &denied), NOWHERE);
    lab.expect_drops(&[("firewall_denied", 2)]);
}

#[test]
fn a_bridge_learns_and_cached_flows_follow_an_address_that_moves() {
    let mut lab = lab(&bridge(), "[service.hop.firewall]\ndefault = \"allow\"");
    let ask = Packet::ethernet(ALICE, BOB).ipv4("10.1.0.1", "10.1.0.2").udp(4000, 53);
    let answer = Packet::ethernet(BOB, ALICE).ipv4("10.1.0.2", "10.1.0.1").udp(53, 4000);
    assert_eq!(lab.send("one", &ask), ["three", "two"]);
    assert_eq!(lab.send("two", &answer), ["one"]);
    assert_eq!(lab.send("one", &ask), ["two"]);
    assert_eq!(lab.send("one", &ask), ["two"]);
    assert_eq!(lab.send("three", &answer), ["one"]);
    assert_eq!(lab.send("one", &ask), ["three"]);
    lab.wait(305);
    assert_eq!(lab.send("one", &ask), ["three", "two"], "aged out; sweeps see a use up to two seconds late");
    lab.expect_drops(&[]);
}

#[test]
fn an_answer_to_a_bridged_packet_goes_back_with_its_tags() {
    let trunk = r#"
        [bridge.lan]
        [port.one]
        mode = "dedicated"
        [port.one.vlan.100]
        bridge = "lan"
        [port.two]
        mode = "dedicated"
        bridge = "lan"
    "#;
    let mut lab = lab(trunk, "[service.hop.firewall]\ndefault = \"reject\"");
    let tagged = |tags: &[u16]| {
        let packet = tags.iter().fold(Packet::ethernet(ALICE, BOB), |packet, tag| packet.vlan(*tag));
        packet.ipv4("10.1.0.1", "10.1.0.2").tcp(4000, 80).flags(SYN).build()
    };
    for tags in [&[100][..], &[100, 200]] {
        lab.inject("one", &tagged(tags));
        let sent = lab.take();
        let meta = parse(&sent[0].1).unwrap();
        assert_eq!(sent[0].0, "one");
        assert_eq!(meta.tcp_flags & RST, RST);
        assert_eq!(usize::from(meta.vlan_tags), tags.len());
        assert_eq!((meta.outer_tci, meta.inner_tci), (100, tags.get(1).copied().unwrap_or(0)));
    }
    lab.expect_drops(&[("firewall_rejected", 2)]);
}
