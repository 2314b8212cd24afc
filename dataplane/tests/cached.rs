//! What a cached program must not pass over: everything that decides about a packet is in its flow's key, or is looked
//! at for each packet.
#![allow(missing_docs, clippy::unwrap_used, clippy::panic, clippy::expect_used, clippy::indexing_slicing)]

mod common;

use common::Lab;
use common::bed::{ALICE, BOB, LAN, WAN, back, bridge, neighbour, out, route, routed, router, through};
use weir_dataplane::packet::builder::Packet;

fn trunk() -> String {
    let tagged = "[port.lan.vlan.100]\naddresses = [\"10.3.0.1/24\"]\n";
    router() + tagged
}

/// A flow's key has no VLAN tags: a second tag is another network even if the flow without it is cached.
#[test]
fn a_second_vlan_tag_on_a_routed_interface_is_unknown_even_if_the_flow_is_cached() {
    let mut lab = Lab::new(&trunk());
    let single = Packet::ethernet(ALICE, LAN).vlan(100).ipv4("10.3.0.2", "10.2.0.2").udp(1, 2).build();
    let double =
        Packet::ethernet(ALICE, LAN).vlan(100).vlan(200).ipv4("10.3.0.2", "10.2.0.2").udp(1, 2).build();
    lab.inject("lan", &double);
    assert_eq!(lab.take(), []);
    lab.inject("lan", &single);
    lab.inject("lan", &single);
    assert_eq!(lab.take().len(), 2);
    lab.inject("lan", &double);
    assert_eq!(lab.take(), []);
    assert_eq!(lab.counters().dropped, [("unknown_vlan", 2)].into());
}

/// IEEE 802.1Q clause 6.9.1: a frame whose tag carries VLAN id 0 is untagged but for its priority.
#[test]
fn a_priority_tag_is_no_vlan() {
    let mut lab = Lab::new(&trunk());
    let tagged = out().vlan(0).udp(1, 2).build();
    lab.inject("lan", &tagged);
    lab.inject("lan", &tagged);
    let sent = lab.take();
    assert_eq!(sent.len(), 2);
    assert_eq!(sent[0].1[12..14], [8, 0], "the tag is gone");
}

fn two_vrfs() -> String {
    [
        "[vrf.red]\n[vrf.blue]\n",
        &routed("underlay", LAN, &["192.0.2.1/24"]),
        &routed("tenant", WAN, &["10.9.0.1/24"]),
        "vrf = \"red\"\n",
        &routed("pods", "02:00:00:00:03:00", &["10.1.0.1/24"]),
        "vrf = \"blue\"\n",
        &neighbour("pods", "10.1.0.2", ALICE),
        TUNNEL,
    ]
    .concat()
}

const TUNNEL: &str = r#"
[tunnel.t.vxlan]
local = "192.0.2.1"
remote = "192.0.2.2"
vni = 100
vrf = "blue"
mac = "02:00:00:00:04:00"
remote-mac = "02:00:00:00:04:01"
"#;

/// RFC 7348 section 7: whoever can send to a VTEP can inject frames. VRFs share nothing, so another VRF cannot.
#[test]
fn a_tunnel_packet_is_taken_only_in_the_vrf_of_its_underlay() {
    let mut lab = Lab::new(&two_vrfs());
    let inner = Packet::ethernet("02:00:00:00:04:01", "02:00:00:00:04:00")
        .ipv4("10.2.0.2", "10.1.0.2")
        .udp(1, 2)
        .build();
    let outer = |mac: &str| {
        Packet::ethernet(BOB, mac).ipv4("192.0.2.2", "192.0.2.1").udp(50000, 4789).vxlan(100, &inner).build()
    };
    lab.inject("tenant", &outer(WAN));
    assert!(lab.take().iter().all(|(port, _)| port == "tenant"), "nothing but an ICMP error");
    assert_eq!(lab.counters().dropped, [("no_route", 1)].into());
    lab.inject("underlay", &outer(LAN));
    let sent = lab.take();
    assert_eq!(sent.len(), 1);
    assert_eq!(sent[0].0, "pods");
}

/// RFC 5508 section 4: an error belongs to the session that it quotes. A forged one must not make weir deaf to others.
#[test]
fn a_denied_icmp_error_does_not_take_a_genuine_one_with_it() {
    let edge = "[service.edge.firewall]\ndefault = \"drop\"\nrules = [{ allow = \"any\", from = \"10.1.0.0/24\" }]\n";
    let mut lab = Lab::new(&format!("{}{edge}{}", router(), through("edge")));
    let quoted = |port| Packet::ethernet(ALICE, BOB).ipv4("10.1.0.2", "10.2.0.2").udp(port, 53).build();
    let error = |port| {
        let quoted = quoted(port);
        back().icmp(3, 4, [0, 0, 5, 0]).payload(&quoted[14..]).build()
    };
    lab.inject("lan", &out().udp(4000, 53).build());
    assert_eq!(lab.take().len(), 1);
    for _ in 0..3 {
        lab.inject("wan", &error(4001));
    }
    assert_eq!(lab.take(), [], "about nothing that was sent");
    lab.inject("wan", &error(4000));
    assert_eq!(lab.take().len(), 1, "about the session");
    assert_eq!(lab.counters().dropped, [("firewall_denied", 3)].into());
}

/// The same of errors that quote too little to be about anything.
#[test]
fn an_icmp_error_that_quotes_too_little_does_not_take_a_genuine_one_with_it() {
    let edge = "[service.edge.firewall]\ndefault = \"drop\"\nrules = [{ allow = \"any\", from = \"10.1.0.0/24\" }]\n";
    let mut lab = Lab::new(&format!("{}{edge}{}", router(), through("edge")));
    let quoted = Packet::ethernet(ALICE, BOB).ipv4("10.1.0.2", "10.2.0.2").udp(4000, 53).build();
    let error = |quote: &[u8]| back().icmp(3, 4, [0, 0, 5, 0]).payload(quote).build();
    lab.inject("lan", &out().udp(4000, 53).build());
    assert_eq!(lab.take().len(), 1);
    for len in [0, 19, 23] {
        lab.inject("wan", &error(&quoted[14..14 + len]));
    }
    assert_eq!(lab.take(), [], "about nothing that can be told");
    lab.inject("wan", &error(&quoted[14..]));
    assert_eq!(lab.take().len(), 1, "about the session");
    assert_eq!(lab.counters().dropped, [("firewall_denied", 3)].into());
}

/// IEEE 802.1Q clause 8.7: the latest frame tells where a station is, also if a flow of its is cached there.
#[test]
fn a_station_that_moves_and_comes_back_is_found_where_it_is() {
    let mut lab = Lab::new(&bridge());
    let frame = |from, to| Packet::ethernet(from, to).ipv4("10.1.0.1", "10.1.0.2").udp(1, 2).build();
    lab.inject("two", &frame(BOB, ALICE));
    lab.inject("one", &frame(ALICE, BOB));
    lab.inject("one", &frame(ALICE, BOB));
    lab.inject("three", &frame(ALICE, BOB));
    lab.inject("one", &frame(ALICE, BOB));
    lab.take();
    lab.inject("two", &frame(BOB, ALICE));
    let ports: Vec<String> = lab.take().into_iter().map(|(port, _)| port).collect();
    assert_eq!(ports, ["one"]);
    assert_eq!(lab.counters().mac_moves, 2);
}

/// A later fragment of a flow that is known; but whose it is, only the first fragment of its own packet says.
#[test]
fn fragments_of_a_known_flow_do_not_walk_and_those_of_another_are_not_taken_for_them() {
    let edge = "[service.edge.firewall]\ndefault = \"drop\"\nrules = [{ allow = \"udp\", to-port = 53 }]\n";
    let mut lab = Lab::new(&format!("{}{edge}{}from = \"port.lan\"\n", router(), through("edge")));
    let packet = |id| out().identification(id);
    let first = |id, port| packet(id).fragment(0, true).udp(4000, port).payload(&[0; 24]).build();
    let later = |id| packet(id).fragment(32, false).protocol(17).payload(&[0; 30]).build();
    for id in 0..8 {
        lab.inject("lan", &first(id, 53));
        lab.inject("lan", &later(id));
    }
    assert_eq!((lab.take().len(), lab.counters().flow_misses), (16, 2), "one walk for each kind");
    lab.inject("lan", &first(100, 80));
    lab.inject("lan", &later(100));
    lab.inject("lan", &later(101));
    assert_eq!(lab.take(), []);
    assert_eq!(lab.counters().dropped, [("firewall_denied", 2), ("fragment_unknown", 1)].into());
    lab.inject("lan", &first(102, 53));
    lab.inject("lan", &later(102));
    assert_eq!(lab.take().len(), 2);
}

/// Of packets that take the same route each is looked at for its length (RFC 1191 section 4) and its hops (RFC 1812 section 5.3.1).
#[test]
fn a_packet_that_is_too_long_or_has_no_hop_left_stops_at_a_cached_route() {
    let narrow = routed("wan", WAN, &["10.2.0.1/24"]) + "mtu = 1400\n";
    let wide = routed("wan", WAN, &["10.2.0.1/24"]);
    let mut lab = Lab::new(&(router().replace(&wide, &narrow) + &route("10.9.0.0/16", "10.2.0.2")));
    let packet = |len: usize| {
        Packet::ethernet(ALICE, LAN).ipv4("10.1.0.2", "10.9.0.2").udp(1, 2).payload(&vec![7; len])
    };
    let (short, longest) = (packet(10).build(), packet(1372).build());
    let (long, spent) = (packet(1373).dont_fragment().build(), packet(10).ttl(1).build());
    lab.inject("lan", &short);
    assert_eq!(lab.take().len(), 1);
    let mut sent = Vec::new();
    let burst: [&[u8]; 6] = [&short, &longest, &long, &short, &spent, &longest];
    lab.engine.receive("lan", &burst, |port, frame| sent.push((port.to_owned(), frame.to_vec())));
    let of =
        |port: &str| sent.iter().filter(|(to, _)| to == port).map(|(_, frame)| frame).collect::<Vec<_>>();
    let lengths: Vec<_> = of("wan").iter().map(|frame| frame.len()).collect();
    assert_eq!(lengths, [short.len(), 1414, short.len(), 1414]);
    assert!(of("wan").iter().all(|frame| frame[22] == short[22] - 1), "each has a hop less");
    // ICMP: fragmentation needed, with the next hop's MTU; time exceeded.
    let errors: Vec<_> = of("lan").iter().map(|frame| (frame[34], frame[35], frame[40], frame[41])).collect();
    assert_eq!(errors, [(3, 4, 5, 120), (11, 0, 0, 0)]);
}

const STRICT: &str = r#"
[port.lan]
mode = "dedicated"
mac = "02:00:00:00:01:00"
addresses = ["10.1.0.1/24"]
[port.wan]
mode = "dedicated"
mac = "02:00:00:00:02:00"
addresses = ["10.2.0.1/24"]
[[neighbour]]
port = "lan"
ip = "10.1.0.2"
mac = "02:00:00:00:00:0a"
[[neighbour]]
port = "wan"
ip = "10.2.0.2"
mac = "02:00:00:00:00:0b"
[service.edge.firewall]
default = "drop"
rules = [
    { reject = "udp", to-port = 113 },
    { allow = "udp", to-port = 53 },
    { allow = "tcp", to-port = 80 },
]
[chain.all]
hops = ["edge"]
[[classify]]
from = "port.lan"
chain = "all"
"#;

/// Flows that are dropped do not hold up those that are passed, in whatever order they come, and each packet is counted.
#[test]
fn dropped_flows_among_others_are_counted_and_the_others_keep_their_order() {
    let frame = |number: u16, to: u16| {
        let payload = [number.to_be_bytes(); 12].concat();
        out().udp(4000, to).payload(&payload).build()
    };
    let patterns: [&dyn Fn(u16) -> bool; 5] =
        [&|n| n % 2 == 0, &|n| n % 7 == 3, &|_| true, &|n| n < 20, &|n| !(17..40).contains(&n)];
    let mut lab = Lab::new(STRICT);
    let (mut denied, mut passed) = (0, 0);
    for pattern in patterns {
        // The first time they walk.
        for _ in 0..3 {
            let frames: Vec<_> = (0..64).map(|n| frame(n, if pattern(n) { 99 } else { 53 })).collect();
            let frames: Vec<&[u8]> = frames.iter().map(Vec::as_slice).collect();
            let mut sent = Vec::new();
            lab.engine
                .receive("lan", &frames, |_, frame| sent.push(u16::from_be_bytes([frame[42], frame[43]])));
            let expected: Vec<u16> = (0..64).filter(|n| !pattern(*n)).collect();
            assert_eq!(sent, expected);
            (denied, passed) = (denied + 64 - sent.len() as u64, passed + sent.len() as u64);
        }
    }
    let counters = lab.counters();
    assert_eq!(counters.dropped, [("firewall_denied", denied)].into());
    assert_eq!(counters.transmitted, passed);
    assert!((2..=3).contains(&counters.flow_misses), "of each flow the first: {}", counters.flow_misses);
    assert_eq!(counters.flow_hits + counters.flow_misses, denied + passed);
}

/// A stray packet's flow is dropped, but a SYN opens a connection all the same; and who is rejected is told each time.
#[test]
fn a_dropped_flow_is_decided_about_anew_at_a_syn_and_rejected_ones_are_answered_each_time() {
    let tcp = |flags| out().tcp(4000, 80).flags(flags).build();
    let mut lab = Lab::new(STRICT);
    let (ack, syn) = (tcp(16), tcp(2));
    let (ack, syn) = (ack.as_slice(), syn.as_slice());
    let mut burst = |frames: &[&[u8]]| {
        let mut sent = Vec::new();
        lab.engine.receive("lan", frames, |port, _| sent.push(port.to_owned()));
        (sent, lab.counters())
    };
    for round in 1..4 {
        let (sent, counters) = burst(&[ack; 10]);
        assert_eq!((sent.len(), counters.dropped), (0, [("firewall_no_session", 10 * round)].into()));
    }
    let (sent, counters) = burst(&[ack, ack, syn, ack]);
    assert_eq!(sent.first().map(String::as_str), Some("wan"), "the SYN passes");
    assert!(counters.dropped["firewall_no_session"] <= 33);
    let ident = out().udp(4000, 113).build();
    for _ in 0..3 {
        let (sent, _) = burst(&[&ident, &ident]);
        assert_eq!(sent, ["lan", "lan"], "an answer each");
    }
}
