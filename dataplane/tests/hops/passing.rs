//! Packets that pass hops, and what becomes of those that cannot.

use super::*;

#[test]
fn a_packet_goes_out_to_the_hop_as_it_came_and_is_routed_once_it_is_back() {
    let mut lab = Lab::new("\"ids\"", TWO_ARMS, &[]);
    let request = out().udp(4000, 53).payload(b"hello").build();
    lab.lab.inject("lan", &request);
    assert_eq!(lab.lab.take(), [("a".to_owned(), request.clone())], "byte for byte");
    lab.lab.inject("b", &request);
    let sent = lab.lab.take();
    assert_eq!(sent.iter().map(describe).collect::<Vec<_>>(), ["wan 10.1.0.2:4000 > 198.51.100.9:53 ttl 63"]);
    assert_eq!((&sent[0].1[..6], &sent[0].1[6..12]), (&[2, 0, 0, 0, 0, 0xf][..], &[2, 0, 0, 0, 2, 0][..]));
    let reply = back().udp(53, 4000).build();
    lab.lab.inject("wan", &reply);
    assert_eq!(lab.lab.take(), [("b".to_owned(), reply.clone())], "replies the other way round");
    lab.lab.inject("a", &reply);
    let sent = lab.lab.take();
    assert_eq!(sent.iter().map(describe).collect::<Vec<_>>(), ["lan 198.51.100.9:53 > 10.1.0.2:4000 ttl 63"]);
    let counters = lab.lab.counters();
    assert_eq!((counters.received, counters.transmitted), (4, 4));
    assert!(counters.dropped.is_empty(), "{counters:?}");
}

#[test]
fn later_packets_of_a_flow_are_replayed_on_each_segment() {
    let mut lab = Lab::new("\"edge\", \"ids\", \"out\"", TWO_ARMS, THROUGH);
    for _ in 0..10 {
        let sent = lab.send("lan", &out().udp(4000, 53));
        assert_eq!(sent.len(), 1);
    }
    let counters = lab.lab.counters();
    assert_eq!((counters.flow_misses, counters.flow_hits), (2, 18));
    let programs: Vec<String> = lab.lab.engine.flows(10).into_iter().map(|flow| flow.program).collect();
    assert!(programs.iter().any(|program| program.contains("send a")), "{programs:?}");
    assert!(programs.iter().any(|program| program.contains("send wan")), "{programs:?}");
}

#[test]
fn addresses_are_translated_behind_the_hop_and_back_in_front_of_it() {
    let mut lab = Lab::new("\"edge\", \"ids\", \"out\"", TWO_ARMS, THROUGH);
    let sent = lab.pass("lan", &out().tcp(4000, 80).flags(SYN).build());
    let words = describe(&sent[0]);
    assert!(words.starts_with("wan 203.0.113.7:") && words.ends_with("> 198.51.100.9:80 ttl 63"), "{words}");
    let port = parse(&sent[0].1).unwrap().source_port;
    let (hop, frame) = &lab.seen[0];
    assert_eq!(
        (hop.as_str(), describe(&(hop.clone(), frame.clone()))),
        ("a", "a 10.1.0.2:4000 > 198.51.100.9:80 ttl 64".into())
    );
    lab.seen();
    let sent = lab.send("wan", &back_to("203.0.113.7").tcp(80, port).flags(SYN | ACK));
    assert_eq!(sent, ["lan 198.51.100.9:80 > 10.1.0.2:4000 ttl 63"]);
    let (hop, frame) = &lab.seen[0];
    assert_eq!(
        (hop.as_str(), describe(&(hop.clone(), frame.clone()))),
        ("b", "b 198.51.100.9:80 > 10.1.0.2:4000 ttl 64".into())
    );
    for _ in 0..3 {
        assert_eq!(lab.send("lan", &out().tcp(4000, 80).flags(ACK)).len(), 1);
        let sent = lab.send("wan", &back_to("203.0.113.7").tcp(80, port).flags(ACK).payload(b"data"));
        assert_eq!(sent, ["lan 198.51.100.9:80 > 10.1.0.2:4000 ttl 63"]);
    }
    // Nobody else gets in.
    assert_eq!(lab.send("wan", &back_to("203.0.113.7").tcp(81, port).flags(ACK)), NOTHING);
    assert_eq!(lab.drops(), BTreeMap::from([("nat_no_session", 1)]));
}

#[test]
fn addresses_are_translated_in_front_of_the_hop_too() {
    let mut lab = Lab::new("\"out\", \"ids\"", TWO_ARMS, THROUGH);
    let sent = lab.pass("lan", &out().udp(4000, 53).build());
    let port = parse(&sent[0].1).unwrap().source_port;
    assert_eq!(describe(&lab.seen[0]), format!("a 203.0.113.7:{port} > 198.51.100.9:53 ttl 64"));
    lab.seen();
    for _ in 0..3 {
        let sent = lab.send("wan", &back_to("203.0.113.7").udp(53, port));
        assert_eq!(sent, ["lan 198.51.100.9:53 > 10.1.0.2:4000 ttl 63"]);
        assert_eq!(describe(&lab.seen[0]), format!("b 198.51.100.9:53 > 203.0.113.7:{port} ttl 64"));
        assert_eq!(lab.seen(), ["b"]);
        assert_eq!(lab.send("lan", &out().udp(4000, 53)).len(), 1);
        lab.seen();
    }
    assert!(lab.drops().is_empty());
}

#[test]
fn somebody_outside_may_open_a_connection_over_a_binding_and_passes_the_hop() {
    for hops in ["\"edge\", \"ids\", \"out\"", "\"out\", \"ids\", \"edge\"", "\"out\", \"ids\""] {
        let mut lab = Lab::new(hops, TWO_ARMS, THROUGH);
        let sent = lab.pass("lan", &out().udp(4000, 53).build());
        let port = parse(&sent[0].1).unwrap().source_port;
        lab.seen();
        let from_outside =
            |port| Packet::ethernet(GATEWAY, WAN).ipv4("198.51.100.77", "203.0.113.7").udp(9, port);
        for _ in 0..2 {
            let sent = lab.send("wan", &from_outside(port));
            assert_eq!(sent, ["lan 198.51.100.77:9 > 10.1.0.2:4000 ttl 63"], "{hops}");
            assert_eq!(lab.seen(), ["b"], "{hops}");
            let answer = Packet::ethernet(ALICE, LAN).ipv4("10.1.0.2", "198.51.100.77").udp(4000, 9);
            let sent = lab.send("lan", &answer);
            assert_eq!(sent, [format!("wan 203.0.113.7:{port} > 198.51.100.77:9 ttl 63")], "{hops}");
            assert_eq!(lab.seen(), ["a"], "{hops}");
        }
        assert!(lab.drops().is_empty(), "{hops}: {:?}", lab.drops());
    }
}

#[test]
fn a_firewall_behind_the_hop_denies_and_rejects() {
    let mut lab = Lab::new("\"ids\", \"edge\"", TWO_ARMS, THROUGH);
    assert_eq!(lab.send("lan", &out().tcp(4000, 80).flags(SYN)).len(), 1);
    assert_eq!(lab.send("wan", &back().tcp(80, 4000).flags(SYN | ACK)).len(), 1);
    assert_eq!(lab.seen(), ["a", "b"]);
    // The reset goes back the way that the connection came: the hop sees how it ended.
    let sent = lab.pass("lan", &out().tcp(4001, 23).flags(SYN).build());
    assert_eq!(sent.iter().map(describe).collect::<Vec<_>>(), ["lan 198.51.100.9:23 > 10.1.0.2:4001 ttl 63"]);
    assert_eq!(parse(&sent[0].1).unwrap().tcp_flags & RST, RST);
    assert_eq!(lab.seen(), ["a", "b"]);
    assert_eq!(lab.send("lan", &out().protocol(47).payload(&[0; 8])), NOTHING);
    assert_eq!(lab.drops(), BTreeMap::from([("firewall_rejected", 1), ("firewall_denied", 1)]));
    assert_eq!(lab.lab.counters().originated, 1);
}

/// What an ICMP error quotes, in words.
fn quoted(frame: &[u8]) -> String {
    let quote = told(frame).quote;
    let port = |at: usize| u16::from_be_bytes([quote[at], quote[at + 1]]);
    format!("{}:{} > {}:{}", dotted(&quote[12..16]), port(20), dotted(&quote[16..20]), port(22))
}

#[test]
fn traceroute_shows_weir_once_and_those_beyond() {
    for hops in ["\"edge\", \"ids\", \"out\"", "\"out\", \"ids\", \"edge\"", "\"ids\""] {
        let mut lab = Lab::new(hops, TWO_ARMS, THROUGH);
        let probe = |ttl| out().ttl(ttl).udp(4000, 33434);
        let sent = lab.pass("lan", &probe(1).build());
        assert_eq!(sent.len(), 1, "{hops}: {:?}", lab.drops());
        let error = told(&sent[0].1);
        assert_eq!((sent[0].0.as_str(), error.kind), ("lan", (11, 0)));
        assert_eq!(
            (error.source.to_string(), error.destination.to_string()),
            ("10.1.0.1".into(), "10.1.0.2".into())
        );
        assert_eq!(quoted(&sent[0].1), "10.1.0.2:4000 > 198.51.100.9:33434", "{hops}");
        assert_eq!(lab.seen(), ["a", "b"], "the error goes back through the hop");
        // The next router sends its own.
        let sent = lab.pass("lan", &probe(2).build());
        let beyond = Packet::ethernet(GATEWAY, WAN).ipv4("203.0.113.254", &dotted(&sent[0].1[26..30])[..]);
        let error = beyond.icmp(11, 0, [0; 4]).payload(&sent[0].1[14..]).build();
        lab.seen();
        let sent = lab.pass("wan", &error);
        assert_eq!(sent.len(), 1, "{hops}: {:?}", lab.drops());
        assert_eq!(told(&sent[0].1).source.to_string(), "203.0.113.254");
        assert_eq!(quoted(&sent[0].1), "10.1.0.2:4000 > 198.51.100.9:33434", "{hops}");
        assert_eq!(lab.seen(), ["b"]);
        assert_eq!(lab.drops(), BTreeMap::from([("ttl_expired", 1)]));
    }
}

#[test]
fn errors_about_replies_go_back_to_who_sent_them() {
    let mut lab = Lab::new("\"edge\", \"ids\", \"out\"", TWO_ARMS, THROUGH);
    let sent = lab.pass("lan", &out().udp(4000, 53).build());
    let port = parse(&sent[0].1).unwrap().source_port;
    let reply = |ttl| back_to("203.0.113.7").ttl(ttl).udp(53, port);
    let sent = lab.pass("wan", &reply(1).build());
    assert_eq!(sent.len(), 1, "{:?}", lab.drops());
    assert_eq!((sent[0].0.as_str(), told(&sent[0].1).kind), ("wan", (11, 0)));
    assert_eq!(quoted(&sent[0].1), format!("198.51.100.9:53 > 203.0.113.7:{port}"));
    // Alice says that nobody listens there any more.
    let sent = lab.pass("wan", &reply(64).build());
    let unreachable = Packet::ethernet(ALICE, LAN).ipv4("10.1.0.2", SERVER);
    let sent = lab.pass("lan", &unreachable.icmp(3, 3, [0; 4]).payload(&sent[0].1[14..]).build());
    assert_eq!(sent.len(), 1, "{:?}", lab.drops());
    assert_eq!(quoted(&sent[0].1), format!("198.51.100.9:53 > 203.0.113.7:{port}"));
    assert_eq!(told(&sent[0].1).source.to_string(), "203.0.113.7");
}

#[test]
fn what_is_too_big_for_the_hop_is_told_or_fragmented() {
    let small = TWO_ARMS.replace("[port.a]", "[port.a]\nmtu = 1300");
    let mut lab = Lab::new("\"edge\", \"ids\"", &small, THROUGH);
    let big = |df: bool| {
        let packet = out().udp(4000, 53).payload(&[7; 1400]);
        if df { packet.dont_fragment() } else { packet }
    };
    let sent = lab.pass("lan", &big(true).build());
    let error = told(&sent[0].1);
    assert_eq!((sent[0].0.as_str(), error.kind, error.mtu), ("lan", (3, 4), 1300));
    assert_eq!(lab.drops(), BTreeMap::from([("packet_too_big", 1)]));
    let sent = lab.pass("lan", &big(false).build());
    assert_eq!(sent.iter().map(|(port, _)| port.as_str()).collect::<Vec<_>>(), ["wan", "wan"]);
    assert_eq!(lab.seen(), ["a", "a"]);
    assert_eq!(lab.drops(), BTreeMap::from([("packet_too_big", 1)]));
    let v6 =
        Packet::ethernet(ALICE, LAN).ipv6("2001:db8:1::2", "2001:db8:9::9").udp(1, 2).payload(&[0; 1400]);
    let sent = lab.pass("lan", &v6.build());
    assert_eq!((told(&sent[0].1).kind, told(&sent[0].1).mtu), ((2, 0), 1300));
}

#[test]
fn fragments_pass_the_hop_and_the_translator_behind_it() {
    for hops in ["\"ids\"", "\"edge\", \"ids\", \"out\""] {
        let mut lab = Lab::new(hops, TWO_ARMS, THROUGH);
        let first =
            out().identification(7).fragment(0, true).udp(4000, 53).without_checksum().payload(&[1; 24]);
        let later = out().identification(7).fragment(32, false).protocol(17).payload(&[2; 40]);
        for fragment in [first, later] {
            let sent = lab.pass("lan", &fragment.build());
            assert_eq!(sent.len(), 1, "{hops}: {:?}", lab.drops());
            let source = if hops == "\"ids\"" { "10.1.0.2" } else { "203.0.113.7" };
            assert_eq!((sent[0].0.as_str(), dotted(&sent[0].1[26..30]).as_str()), ("wan", source));
        }
        assert_eq!(lab.seen(), ["a", "a"]);
        assert!(lab.drops().is_empty());
    }
}

#[test]
fn a_hop_with_one_arm_gets_and_gives_back_by_the_same_port() {
    let one = "[port.a]\nmode = \"dedicated\"\n[hop.ids]\nattach = \"a\"\n";
    for hops in ["\"ids\"", "\"edge\", \"ids\", \"out\"", "\"out\", \"ids\", \"edge\""] {
        let mut lab = Lab::new(hops, one, &[("a", "a")]);
        for _ in 0..3 {
            let sent = lab.pass("lan", &out().udp(4000, 53).build());
            assert_eq!((sent.len(), lab.seen()), (1, vec!["a".to_owned()]), "{hops}");
            let port = parse(&sent[0].1).unwrap().source_port;
            let sent = lab.send("wan", &back_to(&dotted(&sent[0].1[26..30])).udp(53, port));
            assert_eq!(sent, ["lan 198.51.100.9:53 > 10.1.0.2:4000 ttl 63"], "{hops}");
            assert_eq!(lab.seen(), ["a"]);
        }
        let sent = lab.pass("lan", &out().ttl(1).udp(4000, 53).build());
        assert_eq!(quoted(&sent[0].1), "10.1.0.2:4000 > 198.51.100.9:53", "{hops}");
        assert_eq!(lab.drops(), BTreeMap::from([("ttl_expired", 1)]));
    }
}

const TWO_HOPS: &str = r#"
[port.a]
mode = "dedicated"
[port.a.vlan.10]
[port.a.vlan.20]
[port.c]
mode = "dedicated"
[hop.ids]
attach = ["a.10", "a.20"]
[hop.waf]
attach = "c"
"#;

/// Hands on what comes with one tag with the other.
fn swap_tag(frame: &[u8]) -> Vec<u8> {
    let mut frame = frame.to_vec();
    frame[15] = if frame[15] == 10 { 20 } else { 10 };
    frame
}

#[test]
fn several_hops_in_a_chain_are_passed_in_order_and_vlans_of_a_port_may_be_arms() {
    let mut lab = Lab::new("\"edge\", \"ids\", \"out\", \"waf\"", TWO_HOPS, &[("c", "c")]);
    let tagged = |lab: &mut Lab, port: &str, frame: &[u8], tag: u8| {
        let sent = lab.pass(port, frame);
        assert_eq!((sent.len(), sent[0].0.as_str(), &sent[0].1[12..16]), (1, "a", &[0x81, 0, 0, tag][..]));
        lab.pass("a", &swap_tag(&sent[0].1))
    };
    for _ in 0..3 {
        let sent = tagged(&mut lab, "lan", &out().udp(4000, 53).build(), 10);
        let port = parse(&sent[0].1).unwrap().source_port;
        assert_eq!(describe(&sent[0]), format!("wan 203.0.113.7:{port} > 198.51.100.9:53 ttl 63"));
        assert_eq!(lab.seen(), ["c"]);
        // In reverse: the last hop first. What then comes out is tagged for the other side of the first.
        let reply = back_to("203.0.113.7").udp(53, port).build();
        let sent = tagged(&mut lab, "wan", &reply, 20);
        assert_eq!(
            sent.iter().map(describe).collect::<Vec<_>>(),
            ["lan 198.51.100.9:53 > 10.1.0.2:4000 ttl 63"]
        );
        assert_eq!(lab.seen(), ["c"]);
    }
    assert!(lab.drops().is_empty());
    // Without a tag, the port is nobody's.
    assert_eq!(lab.pass("a", &out().udp(4000, 53).build()).len(), 0);
    assert_eq!(lab.drops(), BTreeMap::from([("hop_stray", 1)]));
}
