//! ICMP errors with what they quote, and fragments.

use super::*;

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
    assert_eq!(lab.drops(), BTreeMap::new());
    // One about somebody's packet that is nobody's: not weir's own business either.
    let stray = icmp_error(back(SERVER, "203.0.113.7"), 3, 3, &back("203.0.113.7", SERVER).udp(9, 9));
    assert_eq!(pass(&mut lab, "wan", &stray), NOTHING);
    assert_eq!(lab.drops(), BTreeMap::from([("nat_no_binding", 1)]));
}

#[test]
fn an_error_that_quotes_too_little_says_nothing_of_those_that_quote_enough() {
    let mut lab = nat(ONE);
    lab.inject("lan", &out(ALICE, SERVER).udp(5000, 53).build());
    let (_, sent) = lab.take().remove(0);
    let told = |quote: &[u8]| back(SERVER, "203.0.113.7").icmp(3, 3, [0; 4]).payload(quote);
    assert_eq!(pass(&mut lab, "wan", &told(&sent[14..30])), NOTHING);
    lab.inject("wan", &told(&sent[14..]).build());
    let (port, error) = lab.take().remove(0);
    assert_eq!((port.as_str(), quoted(&error).as_str()), ("lan", "10.1.0.2:5000 > 198.51.100.9:53"));
    assert_eq!(lab.drops(), BTreeMap::from([("nat_no_binding", 1)]));
}

#[test]
fn an_error_is_about_what_it_quotes_whatever_else_the_two_say_to_each_other() {
    // One-to-one: all of ICMP between the server and Alice is let pass, and makes a session of its own.
    let rules = "snat = { from = \"10.1.0.2/32\", to = \"203.0.113.7\" }\ndnat = [{ to = \"203.0.113.7\", forward = \"10.1.0.2\" }]";
    let mut lab = Lab::new(&format!("{}{INBOUND}", site(rules)));
    lab.inject("lan", &out(ALICE, SERVER).udp(5000, 53).build());
    let (_, sent) = lab.take().remove(0);
    let timestamp = back(SERVER, "203.0.113.7").icmp(13, 0, [0; 4]).payload(&[0; 12]);
    assert_eq!(pass(&mut lab, "wan", &timestamp).len(), 1);
    let told = back(SERVER, "203.0.113.7").icmp(3, 4, [0, 0, 2, 0]).payload(&sent[14..]);
    for _ in 0..2 {
        lab.inject("wan", &told.build());
        let (port, error) = lab.take().remove(0);
        assert_eq!((port.as_str(), quoted(&error).as_str()), ("lan", "10.1.0.2:5000 > 198.51.100.9:53"));
    }
    // One about nothing that is known is hers too, and is no reason to treat the others as it.
    let stray = icmp_error(back(SERVER, "203.0.113.7"), 3, 4, &back("203.0.113.7", SERVER).udp(9, 9));
    assert_eq!(pass(&mut lab, "wan", &stray).len(), 1);
    lab.inject("wan", &told.build());
    let (_, error) = lab.take().remove(0);
    assert_eq!(quoted(&error), "10.1.0.2:5000 > 198.51.100.9:53");
    assert_eq!(lab.drops(), BTreeMap::new());
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
    assert_eq!(lab.drops(), BTreeMap::from([("packet_too_big", 2), ("ttl_expired", 1)]));
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
    assert_eq!(lab.drops(), BTreeMap::from([("fragment_unknown", 1)]));
    // Cut by weir itself, after the translation was decided.
    let big = out(ALICE, SERVER).identification(11).udp(5000, 53).payload(&[7; 1400]);
    lab.inject("lan", &big.build());
    let sent = lab.take();
    assert_eq!(sent.len(), 2);
    assert!(sent.iter().all(|(_, frame)| frame[26..30] == [203, 0, 113, 7]));
}

#[test]
fn a_later_fragment_opens_no_tcp_connection() {
    // RFC 5382 section 5: what is established lives for hours, so nothing gets there without a SYN.
    let mut lab = nat(ONE);
    let pieces = |packet: fn() -> Packet, from: u16, to: u16| {
        let first = packet().identification(9).fragment(0, true).tcp(from, to).flags(ACK).payload(&[1; 12]);
        [first, packet().identification(9).fragment(32, false).protocol(6).payload(&[2; 8])]
    };
    for piece in pieces(|| out(ALICE, SERVER), 5000, 80) {
        assert_eq!(pass(&mut lab, "lan", &piece), NOTHING);
    }
    assert_eq!(bindings(&lab), NOTHING);
    // Nor from outside, to a binding of hers.
    assert_eq!(pass(&mut lab, "lan", &out(ALICE, SERVER).tcp(5000, 80).flags(SYN)).len(), 1);
    for piece in pieces(|| back(SERVER, "203.0.113.7"), 81, 5000) {
        assert_eq!(pass(&mut lab, "wan", &piece), NOTHING);
    }
    assert_eq!(lab.drops(), BTreeMap::from([("nat_no_session", 4)]));
    assert_eq!(lab.engine.snapshot().tables.sessions.counters().created, 1);
}
