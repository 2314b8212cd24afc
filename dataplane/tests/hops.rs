//! Attached hops through the whole engine: packets in, out to the hop, back, and on; exact counters.
#![allow(missing_docs, clippy::unwrap_used, clippy::panic, clippy::expect_used, clippy::indexing_slicing)]

mod common;

use std::collections::BTreeMap;

use common::config;
use common::sound::{assert_sound, told};
use proptest::prelude::*;
use weir_dataplane::packet::builder::Packet;
use weir_dataplane::packet::tcp_flags::{ACK, RST, SYN};
use weir_dataplane::packet::{checksum, parse};

const LAN: &str = "02:00:00:00:01:00";
const WAN: &str = "02:00:00:00:02:00";
const ALICE: &str = "02:00:00:00:00:0a";
const GATEWAY: &str = "02:00:00:00:00:0f";
const SERVER: &str = "198.51.100.9";

const BASE: &str = r#"
[memory]
frames = 1024
[port.lan]
mode = "dedicated"
mac = "02:00:00:00:01:00"
addresses = ["10.1.0.1/24", "2001:db8:1::1/64"]
[port.wan]
mode = "dedicated"
mac = "02:00:00:00:02:00"
addresses = ["203.0.113.1/24", "2001:db8:2::1/64"]
[[vrf.default.route]]
prefix = "0.0.0.0/0"
via = { ip = "203.0.113.254" }
[[vrf.default.route]]
prefix = "::/0"
via = { ip = "2001:db8:2::fe" }
[[neighbour]]
port = "wan"
ip = "203.0.113.254"
mac = "02:00:00:00:00:0f"
[[neighbour]]
port = "wan"
ip = "2001:db8:2::fe"
mac = "02:00:00:00:00:0f"
[[neighbour]]
port = "lan"
ip = "10.1.0.2"
mac = "02:00:00:00:00:0a"
[[neighbour]]
port = "lan"
ip = "2001:db8:1::2"
mac = "02:00:00:00:00:0a"
[service.edge.firewall]
default = "drop"
rules = [
    { allow = "udp" },
    { allow = "icmp" },
    { allow = "icmp6" },
    { reject = "tcp", to-port = 23 },
    { allow = "tcp" },
]
[service.out.nat]
snat = { from = "10.1.0.0/24", to = "203.0.113.7" }
filtering = "endpoint-independent"
[[classify]]
from = "port.lan"
chain = "web"
"#;

const TWO_ARMS: &str = r#"
[port.a]
mode = "dedicated"
[port.b]
mode = "dedicated"
[hop.ids]
attach = ["a", "b"]
"#;

/// What is on the wires of hops: from which port to which it hands frames on.
type Wires = &'static [(&'static str, &'static str)];
const THROUGH: Wires = &[("a", "b"), ("b", "a")];

fn site(hops: &str, extra: &str) -> String {
    format!("{BASE}{extra}[chain.web]\nhops = [{hops}]\n")
}

struct Lab {
    lab: common::Lab,
    wires: Wires,
    /// Frames that went out to hops.
    seen: Vec<(String, Vec<u8>)>,
}

impl Lab {
    fn new(hops: &str, extra: &str, wires: Wires) -> Self {
        Self { lab: common::Lab::new(&site(hops, extra)), wires, seen: Vec::new() }
    }

    /// Sends a frame into a port, lets the hops hand on what comes to them, and returns what left by other ports.
    fn pass(&mut self, port: &str, frame: &[u8]) -> Vec<(String, Vec<u8>)> {
        self.lab.inject(port, frame);
        self.settle()
    }

    fn settle(&mut self) -> Vec<(String, Vec<u8>)> {
        let mut out = Vec::new();
        for _ in 0..50 {
            let sent = self.lab.take();
            if sent.is_empty() {
                return out;
            }
            for (port, frame) in sent {
                match self.wires.iter().find(|(from, _)| *from == port) {
                    Some((_, to)) => {
                        self.seen.push((port, frame.clone()));
                        self.lab.inject(to, &frame);
                    }
                    None => out.push((port, frame)),
                }
            }
        }
        panic!("a packet goes round and round");
    }

    fn send(&mut self, port: &str, packet: &Packet) -> Vec<String> {
        self.pass(port, &packet.build()).iter().map(describe).collect()
    }

    /// By which ports frames went out to hops since the last call.
    fn seen(&mut self) -> Vec<String> {
        std::mem::take(&mut self.seen).into_iter().map(|(port, _)| port).collect()
    }

    fn drops(&self) -> BTreeMap<&'static str, u64> {
        self.lab.counters().dropped
    }

    fn apply(&mut self, text: &str) {
        self.lab.engine.apply(&config(text)).unwrap();
    }

    fn carrier(&mut self, port: &str, up: bool) {
        self.lab.engine.set_carrier(port, up).unwrap();
    }
}

fn dotted(bytes: &[u8]) -> String {
    bytes.iter().map(u8::to_string).collect::<Vec<_>>().join(".")
}

/// A frame in words; it is a sound one.
fn describe((port, frame): &(String, Vec<u8>)) -> String {
    let meta = parse(frame).unwrap();
    assert_ne!(checksum::verify_transport(frame, &meta), Some(false), "{frame:02x?}");
    if frame[12..14] == [0x86, 0xdd] {
        return format!("{port} v6 ttl {}", frame[21]);
    }
    let (source, destination) = (dotted(&frame[26..30]), dotted(&frame[30..34]));
    format!(
        "{port} {source}:{} > {destination}:{} ttl {}",
        meta.source_port, meta.destination_port, frame[22]
    )
}

/// From Alice, behind `lan`.
fn out() -> Packet {
    Packet::ethernet(ALICE, LAN).ipv4("10.1.0.2", SERVER)
}

/// From the server, behind the gateway on `wan`, to Alice.
fn back() -> Packet {
    back_to("10.1.0.2")
}

fn back_to(destination: &str) -> Packet {
    Packet::ethernet(GATEWAY, WAN).ipv4(SERVER, destination)
}

const NOTHING: [String; 0] = [];

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

/// What Alice and the server say to each other.
#[derive(Clone, Debug)]
struct Said {
    v6: bool,
    reply: bool,
    kind: u8,
    port: u16,
    ttl: u8,
    len: usize,
    class: u8,
}

fn said() -> impl Strategy<Value = Said> {
    let parts = (any::<bool>(), any::<bool>(), 0..4u8, 0..4u16, 2..=255u8, 0..600usize, any::<u8>());
    parts.prop_map(|(v6, reply, kind, port, ttl, len, class)| Said { v6, reply, kind, port, ttl, len, class })
}

impl Said {
    fn frame(&self, source_of: impl Fn(u16) -> Option<(String, u16)>) -> (&'static str, Vec<u8>) {
        let (port, inside) = (if self.reply { "wan" } else { "lan" }, 4000 + self.port);
        let (address, inside) = match source_of(inside).filter(|_| self.reply && !self.v6) {
            Some(translated) => translated,
            None => ("10.1.0.2".to_owned(), inside),
        };
        let packet = match (self.v6, self.reply) {
            (false, false) => out(),
            (false, true) => back_to(&address),
            (true, false) => Packet::ethernet(ALICE, LAN).ipv6("2001:db8:1::2", "2001:db8:9::9"),
            (true, true) => Packet::ethernet(GATEWAY, WAN).ipv6("2001:db8:9::9", "2001:db8:1::2"),
        };
        let packet = packet.ttl(self.ttl).traffic_class(self.class);
        let (source, destination) = if self.reply { (53, inside) } else { (inside, 53) };
        let packet = match self.kind {
            0 => packet.tcp(source, destination).flags(if self.reply { SYN | ACK } else { SYN }),
            1 => packet.tcp(source, destination).flags(ACK),
            _ => packet.udp(source, destination),
        };
        (port, packet.payload(&vec![self.class; self.len]).build())
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    /// However the chain is cut, a transparent hop in it changes no byte, and drops nothing that would not be dropped without it.
    #[test]
    fn with_a_transparent_hop_packets_leave_as_without_one(
        conversation in prop::collection::vec(said(), 1..40),
        cut in 0..4usize,
    ) {
        let with = ["\"edge\", \"ids\", \"out\"", "\"ids\", \"edge\", \"out\"", "\"edge\", \"out\", \"ids\"", "\"ids\", \"edge\""];
        let without = ["\"edge\", \"out\"", "\"edge\", \"out\"", "\"edge\", \"out\"", "\"edge\""];
        let mut hopped = Lab::new(with[cut], TWO_ARMS, THROUGH);
        let mut plain = Lab::new(without[cut], "", &[]);
        let mut seen: BTreeMap<u16, (String, u16)> = BTreeMap::new();
        let mut known = std::collections::BTreeSet::new();
        for said in &conversation {
            // A reply to what nobody said is another matter: it is classified as it comes.
            if said.reply && !known.contains(&(said.v6, said.kind < 2, said.port)) {
                continue;
            }
            let (port, frame) = said.frame(|port| seen.get(&port).cloned());
            let expected = plain.pass(port, &frame);
            let actual = hopped.pass(port, &frame);
            prop_assert_eq!(&actual, &expected, "{:?}", said);
            for (_, frame) in &expected {
                assert_sound(frame);
            }
            if let ([(_, frame)], false) = (expected.as_slice(), said.reply) {
                known.insert((said.v6, said.kind < 2, said.port));
                if !said.v6 {
                    let source = parse(frame).unwrap().source_port;
                    seen.insert(4000 + said.port, (dotted(&frame[26..30]), source));
                }
            }
        }
        prop_assert_eq!(hopped.drops(), plain.drops());
    }
}
