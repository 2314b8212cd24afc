//! Hops that go down, that send of themselves, that come into chains in service and leave them.

use super::*;

#[test]
fn a_hop_that_is_down_is_closed_unless_it_is_open() {
    let mut lab = Lab::new("\"edge\", \"ids\", \"out\"", TWO_ARMS, THROUGH);
    assert_eq!(lab.send("lan", &out().udp(4000, 53)).len(), 1);
    lab.carrier("b", false);
    for _ in 0..3 {
        assert_eq!(lab.send("lan", &out().udp(4000, 53)), NOTHING);
        assert_eq!(lab.send("lan", &out().udp(4001, 53)), NOTHING);
    }
    assert_eq!(lab.drops(), BTreeMap::from([("hop_down", 6)]));
    lab.carrier("b", true);
    assert_eq!(lab.send("lan", &out().udp(4000, 53)).len(), 1);
    assert_eq!(lab.send("lan", &out().udp(4001, 53)).len(), 1);
}

#[test]
fn connections_go_on_while_an_open_hop_is_down_and_when_it_is_back() {
    let open = format!("{TWO_ARMS}fail = \"open\"\n");
    for hops in ["\"edge\", \"ids\", \"out\"", "\"out\", \"ids\", \"edge\""] {
        let mut lab = Lab::new(hops, &open, THROUGH);
        let sent = lab.pass("lan", &out().tcp(4000, 80).flags(SYN).build());
        let port = parse(&sent[0].1).unwrap().source_port;
        let talk = |lab: &mut Lab, flags: u8| {
            let words = lab.send("wan", &back_to("203.0.113.7").tcp(80, port).flags(flags));
            assert_eq!(words, ["lan 198.51.100.9:80 > 10.1.0.2:4000 ttl 63"], "{hops}");
            let words = lab.send("lan", &out().tcp(4000, 80).flags(ACK));
            assert_eq!(words, [format!("wan 203.0.113.7:{port} > 198.51.100.9:80 ttl 63")], "{hops}");
        };
        talk(&mut lab, SYN | ACK);
        talk(&mut lab, ACK);
        assert_eq!(lab.seen().len(), 5);
        lab.carrier("a", false);
        // Longer than a session of UDP lives, and so long that flows are swept: the sessions of both segments are kept.
        for _ in 0..3 {
            talk(&mut lab, ACK);
            lab.lab.wait_ms(500);
        }
        assert_eq!(lab.seen(), NOTHING, "the hop is skipped");
        // And new ones are opened.
        let sent = lab.pass("lan", &out().udp(5000, 53).build());
        let other = parse(&sent[0].1).unwrap().source_port;
        for _ in 0..40 {
            lab.lab.wait_ms(4_000);
            let words = lab.send("wan", &back_to("203.0.113.7").udp(53, other));
            assert_eq!(words, ["lan 198.51.100.9:53 > 10.1.0.2:5000 ttl 63"], "{hops}");
        }
        lab.carrier("a", true);
        talk(&mut lab, ACK);
        assert_eq!(lab.send("wan", &back_to("203.0.113.7").udp(53, other)).len(), 1);
        assert_eq!(lab.seen(), ["b", "a", "b"], "{hops}");
        assert!(lab.drops().is_empty(), "{hops}: {:?}", lab.drops());
    }
}

#[test]
fn what_the_hop_sends_of_itself_goes_nowhere() {
    let mut lab = Lab::new("\"edge\", \"ids\", \"out\"", TWO_ARMS, THROUGH);
    lab.send("lan", &out().udp(4000, 53));
    lab.seen();
    let guest = "02:00:00:00:00:99";
    let arp = Packet::ethernet(guest, "ff:ff:ff:ff:ff:ff")
        .ether_type(0x0806)
        .payload(&[0, 1, 8, 0, 6, 4, 0, 1, 2, 0, 0, 0, 0, 0x99, 10, 1, 0, 99, 0, 0, 0, 0, 0, 0, 10, 1, 0, 1]);
    let strays = [
        arp,
        // Router solicitation, spanning tree, LLDP, a DHCP discover, packets to weir and beyond, a reflected one.
        Packet::ethernet(guest, "33:33:00:00:00:02").ipv6("fe80::99", "ff02::2").icmp(133, 0, [0; 4]),
        Packet::ethernet(guest, "01:80:c2:00:00:00").ether_type(39).payload(&[0x42, 0x42, 3, 0, 0]),
        Packet::ethernet(guest, "01:80:c2:00:00:0e").ether_type(0x88cc).payload(&[0; 20]),
        Packet::ethernet(guest, "ff:ff:ff:ff:ff:ff").ipv4("0.0.0.0", "255.255.255.255").udp(68, 67),
        Packet::ethernet(guest, LAN).ipv4("10.1.0.99", "10.1.0.1").echo_request(1, 1),
        Packet::ethernet(guest, LAN).ipv4("10.1.0.99", SERVER).udp(1, 2),
        Packet::ethernet(guest, LAN).ipv4("10.1.0.99", SERVER).tcp(1, 2).flags(SYN),
        Packet::ethernet(guest, LAN).ipv6("2001:db8:1::99", "2001:db8:9::9").udp(1, 2),
        Packet::ethernet(guest, LAN).ipv4("10.1.0.2", SERVER).udp(4000, 54),
    ];
    for stray in &strays {
        for arm in ["a", "b"] {
            lab.lab.inject(arm, &stray.build());
            assert_eq!(lab.lab.take(), [], "{stray:?}");
        }
    }
    // Back by the port that it went out by.
    lab.lab.inject("a", &out().udp(4000, 53).build());
    lab.lab.inject("b", &back().udp(53, 4000).build());
    assert_eq!(lab.lab.take(), []);
    let strays = 2 * strays.len() as u64 + 2;
    assert_eq!(lab.drops(), BTreeMap::from([("hop_stray", strays)]));
    let counters = lab.lab.counters();
    assert_eq!((counters.consumed, counters.originated), (0, 0), "nothing is answered");
}

#[test]
fn a_reply_without_what_the_hop_let_through_is_dropped() {
    // The hop swallows what it gets.
    let mut lab = Lab::new("\"edge\", \"ids\"", TWO_ARMS, &[]);
    lab.lab.inject("lan", &out().udp(4000, 53).build());
    assert_eq!(lab.lab.take().len(), 1);
    lab.lab.inject("wan", &back().udp(53, 4000).build());
    assert_eq!(lab.lab.take(), []);
    assert_eq!(lab.drops(), BTreeMap::from([("hop_no_session", 1)]));
}

#[test]
fn a_hop_may_end_a_connection_on_both_sides() {
    let mut lab = Lab::new("\"edge\", \"ids\", \"out\"", TWO_ARMS, THROUGH);
    let sent = lab.pass("lan", &out().tcp(4000, 80).flags(SYN).build());
    let port = parse(&sent[0].1).unwrap().source_port;
    lab.send("wan", &back_to("203.0.113.7").tcp(80, port).flags(SYN | ACK));
    let to_alice = Packet::ethernet(WAN, LAN).ipv4(SERVER, "10.1.0.2").tcp(80, 4000).flags(RST);
    assert_eq!(lab.send("a", &to_alice), ["lan 198.51.100.9:80 > 10.1.0.2:4000 ttl 63"]);
    let to_server = out().tcp(4000, 80).flags(RST);
    assert_eq!(lab.send("b", &to_server), [format!("wan 203.0.113.7:{port} > 198.51.100.9:80 ttl 63")]);
    assert!(lab.drops().is_empty());
}

#[test]
fn connections_survive_a_change_of_the_configuration() {
    let mut lab = Lab::new("\"edge\", \"ids\", \"out\"", TWO_ARMS, THROUGH);
    let sent = lab.pass("lan", &out().tcp(4000, 80).flags(SYN).build());
    let port = parse(&sent[0].1).unwrap().source_port;
    let talk = |lab: &mut Lab, seen: usize| {
        let words = lab.send("wan", &back_to("203.0.113.7").tcp(80, port).flags(SYN | ACK));
        assert_eq!(words, ["lan 198.51.100.9:80 > 10.1.0.2:4000 ttl 63"]);
        let words = lab.send("lan", &out().tcp(4000, 80).flags(ACK));
        assert_eq!(words, [format!("wan 203.0.113.7:{port} > 198.51.100.9:80 ttl 63")]);
        assert_eq!(lab.seen().len(), seen);
    };
    talk(&mut lab, 3);
    let same = site("\"edge\", \"ids\", \"out\"", TWO_ARMS);
    // Another rule; nothing is sent into the chain any more but by another rule; another name of a port.
    lab.apply(&same.replace("{ allow = \"udp\" }", "{ deny = \"udp\" }"));
    talk(&mut lab, 2);
    lab.apply(&same.replace("from = \"port.lan\"", "from = \"port.lan\"\nprotocol = \"udp\""));
    talk(&mut lab, 2);
    lab.apply(&same.replace("\"a\"", "\"b\"").replace("[\"b\", \"b\"]", "[\"b\", \"a\"]"));
    assert_eq!(lab.send("lan", &out().udp(7, 7)).len(), 1, "the other way round");
    assert_eq!(lab.seen(), ["b"]);
    talk(&mut lab, 2);
    lab.apply(&same);
    talk(&mut lab, 2);
    assert!(lab.drops().is_empty(), "{:?}", lab.drops());
}

#[test]
fn a_hop_put_into_a_chain_in_service_takes_its_connections() {
    let mut lab = Lab::new("\"edge\"", "", THROUGH);
    lab.send("lan", &out().udp(4000, 53));
    assert_eq!(lab.send("wan", &back().udp(53, 4000)).len(), 1);
    lab.apply(&site("\"edge\", \"ids\"", TWO_ARMS));
    // Until the connection has been through the hop, its replies are nobody's.
    assert_eq!(lab.send("wan", &back().udp(53, 4000)), NOTHING);
    assert_eq!(lab.send("lan", &out().udp(4000, 53)).len(), 1);
    lab.lab.wait_ms(2_000);
    assert_eq!(lab.send("wan", &back().udp(53, 4000)).len(), 1);
    assert_eq!(lab.seen(), ["a", "b"]);
    lab.apply(&site("\"edge\"", ""));
    assert_eq!(lab.send("wan", &back().udp(53, 4000)).len(), 1);
    assert_eq!(lab.send("lan", &out().udp(4000, 53)).len(), 1);
    assert_eq!(lab.seen(), NOTHING);
    assert_eq!(lab.drops(), BTreeMap::from([("hop_no_session", 1)]));
}

#[test]
fn no_connection_loses_its_translation_when_a_hop_is_attached_or_taken_away() {
    let with = site("\"edge\", \"ids\", \"out\"", TWO_ARMS);
    let without = site("\"edge\", \"out\"", "");
    for (first, second) in [(&with, &without), (&without, &with)] {
        let mut lab = Lab { lab: common::Lab::new(first), wires: THROUGH, seen: Vec::new() };
        let mut ports = Vec::new();
        for text in [first, second, first] {
            lab.apply(text);
            for _ in 0..2 {
                let sent = lab.pass("lan", &out().udp(4000, 53).build());
                assert_eq!(dotted(&sent[0].1[26..30]), "203.0.113.7", "{:?}", lab.drops());
                ports.push(parse(&sent[0].1).unwrap().source_port);
                let back = back_to("203.0.113.7").udp(53, ports[ports.len() - 1]);
                assert_eq!(lab.send("wan", &back), ["lan 198.51.100.9:53 > 10.1.0.2:4000 ttl 63"]);
            }
            // In mid-stream nothing can be translated anew.
            assert_eq!(lab.send("lan", &out().tcp(4000, 80).flags(ACK)), NOTHING);
        }
        assert_eq!(lab.drops(), BTreeMap::from([("firewall_no_session", 3)]));
    }
}

#[test]
fn a_policer_and_a_translator_in_front_of_a_hop_are_asked_once_for_each_packet() {
    let policer = "[service.calm.policer]\nrules = [{ rate = \"1pps\", burst = 10 }]\n";
    for hops in ["\"calm\", \"out\", \"ids\"", "\"calm\", \"ids\", \"out\"", "\"out\", \"ids\", \"calm\""] {
        let mut lab = Lab::new(hops, &format!("{TWO_ARMS}{policer}"), THROUGH);
        let passed = (0..12).map(|_| lab.send("lan", &out().udp(4000, 53)).len()).sum::<usize>();
        assert_eq!(passed, 10, "{hops}");
        assert_eq!(lab.drops(), BTreeMap::from([("policed", 2)]), "{hops}");
    }
}

#[test]
fn what_takes_no_chain_does_not_pass_the_hop() {
    let mut lab = Lab::new("\"ids\"", TWO_ARMS, THROUGH);
    let sent = lab.send("wan", &back().udp(1, 2));
    assert_eq!(sent, ["lan 198.51.100.9:1 > 10.1.0.2:2 ttl 63"], "only what comes by `lan` is classified");
    let ping = Packet::ethernet(ALICE, LAN).ipv4("10.1.0.2", "10.1.0.1").echo_request(1, 1);
    assert_eq!(lab.send("lan", &ping).len(), 1, "weir answers for itself");
    assert_eq!(lab.seen(), NOTHING);
}
