//! Address translation through the whole engine: packets in, packets out, exact counters.
#![allow(missing_docs, clippy::unwrap_used, clippy::panic, clippy::expect_used, clippy::indexing_slicing)]

mod common;

use std::collections::BTreeMap;

use common::sound::assert_sound;
use common::{Lab, config};
use weir_dataplane::packet::builder::Packet;
use weir_dataplane::packet::tcp_flags::{ACK, FIN, RST, SYN};
use weir_dataplane::packet::view::arp;
use weir_dataplane::packet::{checksum, parse};

const LAN: &str = "02:00:00:00:01:00";
const WAN: &str = "02:00:00:00:02:00";
const DMZ: &str = "02:00:00:00:03:00";
const HOST: &str = "02:00:00:00:00:0a";
const GATEWAY: &str = "02:00:00:00:00:0f";

const ALICE: &str = "10.1.0.2";
const CAROL: &str = "10.1.0.3";
const SERVER: &str = "198.51.100.9";
const OTHER: &str = "198.51.100.10";

const BASE: &str = r#"
[memory]
frames = 1024
[port.lan]
mode = "dedicated"
mac = "02:00:00:00:01:00"
addresses = ["10.1.0.1/24"]
[port.dmz]
mode = "dedicated"
mac = "02:00:00:00:03:00"
addresses = ["10.3.0.1/24"]
[port.wan]
mode = "dedicated"
mac = "02:00:00:00:02:00"
addresses = ["203.0.113.1/24"]
mtu = 1400
[[vrf.default.route]]
prefix = "0.0.0.0/0"
via = { ip = "203.0.113.254" }
[[neighbour]]
port = "wan"
ip = "203.0.113.254"
mac = "02:00:00:00:00:0f"
[[neighbour]]
port = "lan"
ip = "10.1.0.2"
mac = "02:00:00:00:00:0a"
[[neighbour]]
port = "lan"
ip = "10.1.0.3"
mac = "02:00:00:00:00:0a"
[[neighbour]]
port = "dmz"
ip = "10.3.0.2"
mac = "02:00:00:00:00:0a"
[chain.out]
hops = ["out"]
[[classify]]
from = ["port.lan", "port.dmz"]
chain = "out"
"#;

/// Packets from outside to forwarded ports take the chain too.
const INBOUND: &str = "[[classify]]\nfrom = \"port.wan\"\nto-prefix = \"203.0.113.0/24\"\nchain = \"out\"\n";

fn site(nat: &str) -> String {
    format!("{BASE}[service.out.nat]\n{nat}\n")
}

fn nat(text: &str) -> Lab {
    Lab::new(&site(text))
}

const ONE: &str = "snat = { to = \"203.0.113.7\" }";

/// From a host behind `lan`.
fn out(source: &str, destination: &str) -> Packet {
    Packet::ethernet(HOST, LAN).ipv4(source, destination)
}

/// From the gateway on `wan`.
fn back(source: &str, destination: &str) -> Packet {
    Packet::ethernet(GATEWAY, WAN).ipv4(source, destination)
}

/// What leaves: its port, and addresses and ports in words. Its checksums are right.
fn describe((port, frame): &(String, Vec<u8>)) -> String {
    let meta = parse(frame).unwrap();
    let (source, destination) = (&frame[26..30], &frame[30..34]);
    let dotted = |bytes: &[u8]| bytes.iter().map(u8::to_string).collect::<Vec<_>>().join(".");
    assert_ne!(checksum::verify_transport(frame, &meta), Some(false), "{frame:02x?}");
    format!(
        "{port} {}:{} > {}:{}",
        dotted(source),
        meta.source_port,
        dotted(destination),
        meta.destination_port
    )
}

/// Sends a frame into a port; what leaves, in words.
fn pass(lab: &mut Lab, port: &str, packet: &Packet) -> Vec<String> {
    lab.inject(port, &packet.build());
    lab.take().iter().map(describe).collect()
}

fn drops(lab: &Lab) -> BTreeMap<&'static str, u64> {
    lab.counters().dropped
}

fn bindings(lab: &Lab) -> Vec<String> {
    let entries = lab.engine.snapshot().tables.nat.entries(100);
    entries
        .iter()
        .map(|entry| {
            let ((inside, from), (outside, to)) = (entry.inside, entry.outside);
            format!("{} {inside}:{from} {outside}:{to}", entry.protocol)
        })
        .collect()
}

const NOTHING: [&str; 0] = [];

#[test]
fn a_source_is_translated_and_its_replies_are_translated_back() {
    let mut lab = nat(ONE);
    for _ in 0..3 {
        // RFC 4787 REQ-3: the port is kept where it is free.
        let sent = pass(&mut lab, "lan", &out(ALICE, SERVER).udp(5000, 53).payload(b"question"));
        assert_eq!(sent, ["wan 203.0.113.7:5000 > 198.51.100.9:53"]);
        let sent = pass(&mut lab, "wan", &back(SERVER, "203.0.113.7").udp(53, 5000).payload(b"answer"));
        assert_eq!(sent, ["lan 198.51.100.9:53 > 10.1.0.2:5000"]);
    }
    assert_eq!(lab.counters().flow_misses, 2, "one walk a direction");
    assert_eq!(drops(&lab), BTreeMap::new());
    assert_eq!(bindings(&lab), ["17 10.1.0.2:5000 203.0.113.7:5000"]);
}

#[test]
fn a_connection_is_followed_from_its_handshake_to_its_end() {
    let mut lab = nat(ONE);
    let there = |flags| out(ALICE, SERVER).tcp(5000, 80).flags(flags).payload(b"x");
    let again = |flags| back(SERVER, "203.0.113.7").tcp(80, 5000).flags(flags).payload(b"y");
    let (to, from) = (["wan 203.0.113.7:5000 > 198.51.100.9:80"], ["lan 198.51.100.9:80 > 10.1.0.2:5000"]);
    assert_eq!(pass(&mut lab, "lan", &there(ACK)), NOTHING, "no connection is picked up in mid-stream");
    assert_eq!(pass(&mut lab, "lan", &there(SYN)), to);
    assert_eq!(pass(&mut lab, "wan", &again(SYN | ACK)), from);
    for _ in 0..3 {
        assert_eq!(pass(&mut lab, "lan", &there(ACK)), to);
        assert_eq!(pass(&mut lab, "wan", &again(ACK)), from);
    }
    // RFC 7857 section 2.2: a reset does not end the mapping at once.
    assert_eq!(pass(&mut lab, "wan", &again(RST)), from);
    assert_eq!(pass(&mut lab, "lan", &there(ACK)), to);
    lab.wait_ms(239_000);
    assert_eq!(bindings(&lab).len(), 1);
    lab.wait_ms(5_000);
    assert_eq!(bindings(&lab), NOTHING);
    assert_eq!(drops(&lab), BTreeMap::from([("nat_no_session", 1)]));
    assert_eq!(pass(&mut lab, "lan", &there(FIN | ACK)), NOTHING);
}

#[test]
fn pings_are_told_apart_by_their_identifiers() {
    let mut lab = nat(ONE);
    assert_eq!(
        pass(&mut lab, "lan", &out(ALICE, SERVER).echo_request(2000, 1)),
        ["wan 203.0.113.7:2000 > 198.51.100.9:2000"]
    );
    let second = pass(&mut lab, "lan", &out(CAROL, SERVER).echo_request(2000, 1));
    let id: u16 = second[0].rsplit(':').next().unwrap().parse().unwrap();
    assert_ne!(id, 2000);
    assert_eq!(id % 2, 0, "RFC 4787 REQ-4: parity is kept");
    assert_eq!(
        pass(&mut lab, "wan", &back(SERVER, "203.0.113.7").echo_reply(2000, 1)),
        ["lan 198.51.100.9:2000 > 10.1.0.2:2000"]
    );
    assert_eq!(
        pass(&mut lab, "wan", &back(SERVER, "203.0.113.7").echo_reply(id, 1)),
        ["lan 198.51.100.9:2000 > 10.1.0.3:2000"]
    );
    // Who pings is not pinged by the same identifier.
    assert_eq!(pass(&mut lab, "wan", &back(SERVER, "203.0.113.7").echo_request(2000, 1)), NOTHING);
    assert_eq!(drops(&lab), BTreeMap::from([("nat_no_binding", 1)]));
}

#[test]
fn a_mapping_does_not_depend_on_who_it_talks_to() {
    // RFC 4787 REQ-1, and REQ-8: filtering by address unless it is said otherwise.
    let mut lab = nat(ONE);
    pass(&mut lab, "lan", &out(CAROL, SERVER).udp(5000, 53));
    let first = pass(&mut lab, "lan", &out(ALICE, SERVER).udp(5000, 53));
    let port: u16 = first[0].split([':', ' ']).nth(2).unwrap().parse().unwrap();
    assert_ne!(port, 5000, "no port is overloaded");
    assert_eq!(
        pass(&mut lab, "lan", &out(ALICE, OTHER).udp(5000, 123)),
        [format!("wan 203.0.113.7:{port} > 198.51.100.10:123")]
    );
    let from = |source: &str, port_there| back(source, "203.0.113.7").udp(port_there, port);
    assert_eq!(pass(&mut lab, "wan", &from(OTHER, 9)), ["lan 198.51.100.10:9 > 10.1.0.2:5000"]);
    assert_eq!(
        pass(&mut lab, "lan", &out(ALICE, OTHER).udp(5000, 9)),
        [format!("wan 203.0.113.7:{port} > 198.51.100.10:9")]
    );
    assert_eq!(pass(&mut lab, "wan", &from("198.51.100.77", 9)), NOTHING);
    assert_eq!(drops(&lab), BTreeMap::from([("nat_filtered", 1)]));
}

#[test]
fn filtering_is_a_choice() {
    for (filtering, passed) in [
        ("endpoint-independent", [true, true, true]),
        ("address-dependent", [true, true, false]),
        ("address-and-port-dependent", [true, false, false]),
    ] {
        let mut lab = nat(&format!("{ONE}\nfiltering = \"{filtering}\""));
        pass(&mut lab, "lan", &out(ALICE, SERVER).udp(5000, 53));
        let arrived = [(SERVER, 53), (SERVER, 54), (OTHER, 53)].map(|(source, port)| {
            pass(&mut lab, "wan", &back(source, "203.0.113.7").udp(port, 5000)).len() == 1
        });
        assert_eq!(arrived, passed, "{filtering}");
    }
}

#[test]
fn what_comes_to_a_masquerade_address_is_for_weir_unless_a_binding_has_it() {
    let mut lab = nat("snat = { to = \"masquerade\" }");
    assert_eq!(
        pass(&mut lab, "lan", &out(ALICE, SERVER).udp(5000, 53)),
        ["wan 203.0.113.1:5000 > 198.51.100.9:53"]
    );
    assert_eq!(
        pass(&mut lab, "wan", &back(SERVER, "203.0.113.1").udp(53, 5000)),
        ["lan 198.51.100.9:53 > 10.1.0.2:5000"]
    );
    assert_eq!(pass(&mut lab, "lan", &out(ALICE, SERVER).echo_request(7, 1)).len(), 1);
    // RFC 1812: weir's own address answers pings, also by an identifier that is in use.
    assert_eq!(
        pass(&mut lab, "wan", &back(SERVER, "203.0.113.1").echo_request(7, 1)),
        ["wan 203.0.113.1:7 > 198.51.100.9:7"]
    );
    let before = lab.counters().dropped;
    assert_eq!(before, BTreeMap::new());
    assert_eq!(
        pass(&mut lab, "wan", &back(SERVER, "203.0.113.1").udp(53, 6000)).len(),
        1,
        "port unreachable"
    );
    assert_eq!(drops(&lab), BTreeMap::from([("local_unsupported", 1)]));
}

#[test]
fn ports_are_forwarded_one_to_one_and_replies_come_from_where_the_request_went() {
    let rules = r#"
dnat = [
    { protocol = "tcp", to = "203.0.113.7", to-port = 8443, forward = "10.1.0.2", forward-port = 443 },
    { protocol = "udp", to = "203.0.113.7", to-port = "7000-7010", forward = "10.1.0.3", forward-port = "9000-9010" },
    { to = "203.0.113.8", forward = "10.3.0.2" },
]"#;
    let mut lab = Lab::new(&format!("{}{INBOUND}", site(rules)));
    let syn = back(SERVER, "203.0.113.7").tcp(40000, 8443).flags(SYN);
    assert_eq!(pass(&mut lab, "wan", &syn), ["lan 198.51.100.9:40000 > 10.1.0.2:443"]);
    let answer = out(ALICE, SERVER).tcp(443, 40000).flags(SYN | ACK);
    assert_eq!(pass(&mut lab, "lan", &answer), ["wan 203.0.113.7:8443 > 198.51.100.9:40000"]);
    assert_eq!(
        pass(&mut lab, "wan", &back(SERVER, "203.0.113.7").udp(1, 7003)),
        ["lan 198.51.100.9:1 > 10.1.0.3:9003"]
    );
    assert_eq!(
        pass(&mut lab, "wan", &back(SERVER, "203.0.113.8").echo_request(5, 1)),
        ["dmz 198.51.100.9:5 > 10.3.0.2:5"]
    );
    let reply = Packet::ethernet(HOST, DMZ).ipv4("10.3.0.2", SERVER).echo_reply(5, 1);
    assert_eq!(pass(&mut lab, "dmz", &reply), ["wan 203.0.113.8:5 > 198.51.100.9:5"]);
    assert_eq!(pass(&mut lab, "wan", &back(SERVER, "203.0.113.7").tcp(40000, 8444).flags(SYN)), NOTHING);
    assert_eq!(drops(&lab), BTreeMap::from([("nat_no_binding", 1)]));
}

#[test]
fn hosts_behind_the_translator_reach_each_other_by_their_external_addresses() {
    // RFC 4787 REQ-9: hairpinning, with the external source address.
    let rules = format!(
        "{ONE}\ndnat = [{{ protocol = \"tcp\", to = \"203.0.113.7\", to-port = 8443, forward = \"{CAROL}\", forward-port = 443 }}]"
    );
    let mut lab = nat(&rules);
    let syn = out(ALICE, "203.0.113.7").tcp(5000, 8443).flags(SYN);
    assert_eq!(pass(&mut lab, "lan", &syn), ["lan 203.0.113.7:5000 > 10.1.0.3:443"]);
    let answer = out(CAROL, "203.0.113.7").tcp(443, 5000).flags(SYN | ACK);
    assert_eq!(pass(&mut lab, "lan", &answer), ["lan 203.0.113.7:8443 > 10.1.0.2:5000"]);
    // By bindings: each has sent to the other's external address, so each lets the other in.
    pass(&mut lab, "lan", &out(CAROL, "203.0.113.7").udp(7000, 6000));
    pass(&mut lab, "lan", &out(CAROL, SERVER).udp(7000, 6000));
    assert_eq!(pass(&mut lab, "lan", &out(ALICE, "203.0.113.7").udp(6000, 7000)), NOTHING);
    assert_eq!(
        drops(&lab),
        BTreeMap::from([("nat_no_binding", 1), ("nat_filtered", 1)]),
        "Carol has not yet sent to her"
    );
}

/// The packet that an ICMP error quotes, in words; its IP header checksum is right, and its transport checksum if whole.
fn quoted(frame: &[u8]) -> String {
    assert_sound(frame);
    let meta = parse(frame).unwrap();
    let mut inner = vec![0; 12];
    inner.extend([8, 0]);
    inner.extend(&frame[usize::from(meta.l4_offset) + 8..meta.end()]);
    let shown = describe(&(String::new(), inner));
    shown.trim_start().to_owned()
}

fn icmp_error(from: Packet, kind: u8, code: u8, about: &Packet) -> Packet {
    from.icmp(kind, code, [0; 4]).payload(&about.build_network())
}

#[test]
fn an_error_from_outside_quotes_what_the_sender_behind_sent() {
    // RFC 5508 section 4.2, REQ-4 and REQ-5.
    let mut lab = nat("snat = { to = \"203.0.113.7\", ports = \"20000-30000\" }");
    for build in [
        (|packet: Packet| packet.udp(5000, 53).payload(b"odd")) as fn(Packet) -> Packet,
        |packet| packet.udp(5001, 53).without_checksum().payload(b"none"),
        |packet| packet.tcp(5002, 80).flags(SYN).payload(b"some"),
        |packet| packet.echo_request(5003, 1).payload(b"ping"),
        |packet| packet.sctp(5004, 6, 7).payload(b"more"),
    ] {
        lab.inject("lan", &build(out(ALICE, SERVER)).build());
        let (_, sent) = lab.take().remove(0);
        let before = lab.engine.snapshot().tables.sessions.counters();
        // A router on the way tells of it, and quotes it as it saw it.
        let told = back("192.0.2.77", "203.0.113.7").icmp(3, 4, [0, 0, 2, 0]).payload(&sent[14..]);
        lab.inject("wan", &told.build());
        let (port, error) = lab.take().remove(0);
        assert_eq!(port, "lan");
        assert_eq!(&error[26..34], &[192, 0, 2, 77, 10, 1, 0, 2]);
        let original = build(out(ALICE, SERVER)).ttl(63).build();
        assert_eq!(&error[42..], &original[14..], "byte for byte, but for the TTL that weir took");
        assert_eq!(lab.engine.snapshot().tables.sessions.counters(), before);
        // Cut short after eight bytes of the transport header, as RFC 792 has it.
        let told = back("192.0.2.77", "203.0.113.7").icmp(11, 0, [0; 4]).payload(&sent[14..42]);
        lab.inject("wan", &told.build());
        let (_, error) = lab.take().remove(0);
        assert_sound(&error);
        assert_eq!(&error[42..], &original[14..42]);
    }
    assert_eq!(drops(&lab), BTreeMap::new());
    // One about somebody's packet that is nobody's: not weir's own business either.
    let stray = icmp_error(back(SERVER, "203.0.113.7"), 3, 3, &back("203.0.113.7", SERVER).udp(9, 9));
    assert_eq!(pass(&mut lab, "wan", &stray), NOTHING);
    assert_eq!(drops(&lab), BTreeMap::from([("nat_no_binding", 1)]));
}

#[test]
fn an_error_from_behind_does_not_show_who_is_there() {
    // RFC 5508 REQ-5 (c): from the external address, whoever behind it sent it.
    let rules = "dnat = [{ protocol = \"udp\", to = \"203.0.113.7\", to-port = 53, forward = \"10.1.0.2\", forward-port = 5353 }]";
    let mut lab = Lab::new(&format!("{}{INBOUND}", site(rules)));
    let request = back(SERVER, "203.0.113.7").udp(4000, 53).payload(b"question");
    lab.inject("wan", &request.build());
    let (_, sent) = lab.take().remove(0);
    for source in [ALICE, "10.1.0.77"] {
        let told = out(source, SERVER).icmp(3, 3, [0; 4]).payload(&sent[14..]);
        lab.inject("lan", &told.build());
        let (port, error) = lab.take().remove(0);
        assert_eq!(port, "wan");
        assert_eq!(&error[26..34], &[203, 0, 113, 7, 198, 51, 100, 9]);
        assert_eq!(quoted(&error), "198.51.100.9:4000 > 203.0.113.7:53");
    }
}

#[test]
fn what_weir_tells_of_a_packet_quotes_it_as_it_was_sent() {
    let mut lab = nat(ONE);
    let big = out(ALICE, SERVER).dont_fragment().udp(5000, 53).payload(&[7; 1400]);
    for _ in 0..2 {
        lab.inject("lan", &big.build());
        let (port, error) = lab.take().remove(0);
        assert_eq!(port, "lan");
        let meta = parse(&error).unwrap();
        assert_eq!((meta.icmp_type, meta.icmp_code, &error[40..42]), (3, 4, &1400u16.to_be_bytes()[..]));
        assert_eq!(&error[42..70], &big.build()[14..42]);
    }
    lab.inject("lan", &out(ALICE, SERVER).ttl(1).udp(5000, 53).build());
    let (_, error) = lab.take().remove(0);
    assert_eq!(quoted(&error), "10.1.0.2:5000 > 198.51.100.9:53");
    assert_eq!(drops(&lab), BTreeMap::from([("packet_too_big", 2), ("ttl_expired", 1)]));
}

#[test]
fn fragments_are_translated_like_their_first() {
    let mut lab = nat("snat = { to = \"203.0.113.7\", ports = \"20000-20000\" }");
    let first = out(ALICE, SERVER).identification(9).fragment(0, true).udp(5000, 53).payload(&[1; 24]);
    let later = out(ALICE, SERVER).identification(9).fragment(32, false).protocol(17).payload(&[2; 8]);
    assert_eq!(pass(&mut lab, "lan", &later), NOTHING, "out of order: bounded by not being kept");
    lab.inject("lan", &first.build());
    lab.inject("lan", &later.build());
    let sent = lab.take();
    assert_eq!(sent.len(), 2);
    assert!(sent.iter().all(|(port, frame)| port == "wan" && frame[26..30] == [203, 0, 113, 7]));
    assert_eq!(sent[0].1[34..36], 20000u16.to_be_bytes());
    let first =
        back(SERVER, "203.0.113.7").identification(5).fragment(0, true).udp(53, 20000).payload(&[1; 24]);
    let later =
        back(SERVER, "203.0.113.7").identification(5).fragment(32, false).protocol(17).payload(&[2; 8]);
    lab.inject("wan", &first.build());
    lab.inject("wan", &later.build());
    let sent = lab.take();
    assert_eq!(sent.len(), 2);
    assert!(sent.iter().all(|(port, frame)| port == "lan" && frame[30..34] == [10, 1, 0, 2]));
    assert_eq!(drops(&lab), BTreeMap::from([("fragment_unknown", 1)]));
    // Cut by weir itself, after the translation was decided.
    let big = out(ALICE, SERVER).identification(11).udp(5000, 53).payload(&[7; 1400]);
    lab.inject("lan", &big.build());
    let sent = lab.take();
    assert_eq!(sent.len(), 2);
    assert!(sent.iter().all(|(_, frame)| frame[26..30] == [203, 0, 113, 7]));
}

#[test]
fn when_ports_run_out_others_go_on_and_the_rest_is_counted() {
    let mut lab = nat("snat = { to = \"203.0.113.7\", ports = \"4000-4009\" }");
    for port in 1..=15 {
        let sent = pass(&mut lab, "lan", &out(ALICE, SERVER).udp(port, 53));
        assert_eq!(sent.len(), usize::from(port <= 10), "port {port}");
    }
    assert_eq!(
        pass(&mut lab, "lan", &out(ALICE, SERVER).udp(3, 54)).len(),
        1,
        "a binding that is there serves all"
    );
    assert_eq!(drops(&lab), BTreeMap::from([("nat_ports_exhausted", 5)]));
    lab.wait_ms(310_000);
    assert_eq!(bindings(&lab), NOTHING);
    assert_eq!(pass(&mut lab, "lan", &out(ALICE, SERVER).udp(99, 53)), NOTHING, "they rest");
    lab.wait_ms(130_000);
    assert_eq!(pass(&mut lab, "lan", &out(ALICE, SERVER).udp(99, 53)).len(), 1);
}

#[test]
fn sessions_live_as_long_as_the_translator_says() {
    let times = "udp-timeout = \"150s\"\nicmp-timeout = \"70s\"";
    let mut lab = nat(&format!("{ONE}\n{times}"));
    pass(&mut lab, "lan", &out(ALICE, SERVER).udp(5000, 53));
    pass(&mut lab, "lan", &out(ALICE, SERVER).echo_request(6000, 1));
    lab.wait_ms(65_000);
    assert_eq!(bindings(&lab).len(), 2);
    lab.wait_ms(9_000);
    assert_eq!(bindings(&lab), ["17 10.1.0.2:5000 203.0.113.7:5000"]);
    // RFC 4787 REQ-6: what goes out keeps it alive.
    pass(&mut lab, "lan", &out(ALICE, SERVER).udp(5000, 53));
    lab.wait_ms(145_000);
    assert_eq!(bindings(&lab).len(), 1);
    lab.wait_ms(8_000);
    assert_eq!(bindings(&lab), NOTHING);
    assert_eq!(pass(&mut lab, "wan", &back(SERVER, "203.0.113.7").udp(53, 5000)), NOTHING);
    assert_eq!(drops(&lab), BTreeMap::from([("nat_no_binding", 1)]));
}

#[test]
fn a_translation_outlives_a_change_that_leaves_its_rule_and_no_other() {
    let rule = "{ from = \"10.1.0.2/32\", to = \"203.0.113.7\", ports = \"20000-29999\" }";
    let mut lab = nat(&format!("snat = [{rule}]"));
    let there = out(ALICE, SERVER).udp(5000, 53);
    let first = pass(&mut lab, "lan", &there);
    // Another rule in front, other timeouts: hers is still there.
    let more = site(&format!(
        "snat = [{{ from = \"10.1.0.3/32\", to = \"203.0.113.8\" }}, {rule}]\nudp-timeout = \"200s\""
    ));
    lab.engine.apply(&config(&more)).unwrap();
    assert_eq!(pass(&mut lab, "lan", &there), first);
    let port: u16 = first[0].split([':', ' ']).nth(2).unwrap().parse().unwrap();
    let answer = back(SERVER, "203.0.113.7").udp(53, port);
    assert_eq!(pass(&mut lab, "wan", &answer).len(), 1);
    // Her rule has another address now.
    lab.engine.apply(&config(&site(&format!("snat = [{}]", rule.replace("113.7", "113.9"))))).unwrap();
    lab.inject("wan", &answer.build());
    let left = lab.take();
    assert!(left.iter().all(|(port, _)| port != "lan"), "nothing comes in by a translation that is gone");
    let now = pass(&mut lab, "lan", &there);
    assert!(now[0].starts_with("wan 203.0.113.9:"), "{now:?}");
    // Nobody sends any more, and the rule goes: the ports come back all the same.
    lab.engine.apply(&config(&site("snat = { from = \"10.9.0.0/16\", to = \"203.0.113.9\" }"))).unwrap();
    lab.wait_ms(3_000);
    lab.take();
    assert_eq!(bindings(&lab), NOTHING);
    assert_eq!(pass(&mut lab, "lan", &there), ["wan 10.1.0.2:5000 > 198.51.100.9:53"]);
}

#[test]
fn a_masquerade_ends_when_its_address_is_weirs_no_more() {
    let text = site("snat = { to = \"masquerade\" }");
    let mut lab = Lab::new(&text);
    let there = out(ALICE, SERVER).udp(5000, 53);
    assert_eq!(pass(&mut lab, "lan", &there), ["wan 203.0.113.1:5000 > 198.51.100.9:53"]);
    lab.engine.apply(&config(&text.replace("203.0.113.1/24", "203.0.113.2/24"))).unwrap();
    assert_eq!(pass(&mut lab, "lan", &there), ["wan 203.0.113.2:5000 > 198.51.100.9:53"]);
    assert_eq!(bindings(&lab).len(), 1);
}

#[test]
fn weir_answers_arp_for_external_addresses() {
    let mut lab = nat("snat = { to = \"203.0.113.8/31\" }");
    let ask = |target: [u8; 4]| {
        let request = arp::Packet {
            operation: 1,
            sender_mac: GATEWAY.parse().unwrap(),
            sender_ip: [203, 0, 113, 254].into(),
            target_mac: weir_config::MacAddress::default(),
            target_ip: target.into(),
        };
        Packet::ethernet(GATEWAY, "ff:ff:ff:ff:ff:ff").arp(request).build()
    };
    for (last, answered) in [(8, true), (9, true), (10, false), (1, true)] {
        lab.inject("wan", &ask([203, 0, 113, last]));
        let sent = lab.take();
        assert_eq!(sent.len(), usize::from(answered), "203.0.113.{last}");
        assert!(sent.iter().all(|(_, frame)| frame[28..32] == [203, 0, 113, last]));
    }
    // Not on the other side.
    let inside = Packet::ethernet(HOST, "ff:ff:ff:ff:ff:ff").arp(arp::Packet {
        operation: 1,
        sender_mac: HOST.parse().unwrap(),
        sender_ip: [10, 1, 0, 2].into(),
        target_mac: weir_config::MacAddress::default(),
        target_ip: [203, 0, 113, 8].into(),
    });
    lab.inject("lan", &inside.build());
    assert!(lab.take().is_empty());
}

#[test]
fn a_forwarded_host_that_does_not_answer_is_asked_for_by_its_own_address() {
    let rules =
        "dnat = [{ protocol = \"udp\", to = \"203.0.113.7\", to-port = 53, forward = \"10.1.0.99\" }]";
    let mut lab = Lab::new(&format!("{}{INBOUND}", site(rules)));
    let request = back(SERVER, "203.0.113.7").udp(4000, 53);
    lab.inject("wan", &request.build());
    lab.wait_ms(400);
    let sent = lab.take();
    let mut asked = sent.iter().filter(|(port, frame)| port == "lan" && frame[12..14] == [8, 6]);
    assert!(asked.any(|(_, frame)| frame[38..42] == [10, 1, 0, 99]), "{sent:02x?}");
    lab.wait_ms(10_000);
    assert_eq!(drops(&lab), BTreeMap::from([("neighbour_unreachable", 1)]));
}
