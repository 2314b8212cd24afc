//! Which addresses and ports packets get, and who may answer.

use super::*;

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
    assert_eq!(lab.drops(), BTreeMap::new());
    assert_eq!(bindings(&lab), ["17 10.1.0.2:5000 203.0.113.7:5000"]);
}

#[test]
fn what_came_before_the_binding_does_not_keep_the_answer_out() {
    // Of whoever sends first, and whichever way it was refused: what is remembered of it ends with the session.
    for filtering in ["endpoint-independent", "address-dependent", "address-and-port-dependent"] {
        let mut lab = nat(&format!("{ONE}\nfiltering = \"{filtering}\""));
        let answer = back(SERVER, "203.0.113.7").udp(53, 5000).payload(b"answer");
        // The first packet ever sweeps the table.
        assert_eq!(pass(&mut lab, "lan", &out(ALICE, SERVER).udp(1, 1)).len(), 1);
        for _ in 0..3 {
            assert_eq!(pass(&mut lab, "wan", &answer), NOTHING);
        }
        let sent = pass(&mut lab, "lan", &out(ALICE, SERVER).udp(5000, 53));
        assert_eq!(sent, ["wan 203.0.113.7:5000 > 198.51.100.9:53"]);
        for _ in 0..2 {
            assert_eq!(pass(&mut lab, "wan", &answer), ["lan 198.51.100.9:53 > 10.1.0.2:5000"]);
        }
        assert_eq!(lab.drops(), BTreeMap::from([("nat_no_binding", 3)]));
    }
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
    assert_eq!(lab.drops(), BTreeMap::from([("nat_no_session", 1)]));
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
    assert_eq!(lab.drops(), BTreeMap::from([("nat_no_binding", 1)]));
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
    assert_eq!(lab.drops(), BTreeMap::from([("nat_filtered", 1)]));
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
    assert_eq!(lab.drops(), BTreeMap::from([("local_unsupported", 1)]));
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
    assert_eq!(lab.drops(), BTreeMap::from([("nat_no_binding", 1)]));
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
    // By bindings: whom Carol has not sent to, she does not let in.
    pass(&mut lab, "lan", &out(CAROL, "203.0.113.7").udp(7000, 6000));
    pass(&mut lab, "lan", &out(CAROL, SERVER).udp(7000, 6000));
    assert_eq!(pass(&mut lab, "lan", &out(ALICE, "203.0.113.7").udp(6000, 7000)), NOTHING);
    assert_eq!(
        lab.drops(),
        BTreeMap::from([("nat_no_binding", 1), ("nat_filtered", 1)]),
        "Carol has not yet sent to her"
    );
}

#[test]
fn two_hosts_behind_the_translator_get_through_to_each_other_once_both_have_sent() {
    // RFC 4787 section 5: a host lets in whom it has sent to, though its packet was refused at the other end.
    let mut lab = nat(ONE);
    for (host, port) in [(ALICE, 6000), (CAROL, 7000)] {
        assert_eq!(pass(&mut lab, "lan", &out(host, SERVER).udp(port, 53)).len(), 1);
    }
    let carol = out(CAROL, "203.0.113.7").udp(7000, 6000);
    assert_eq!(pass(&mut lab, "lan", &carol), NOTHING, "Alice has not yet sent to her");
    assert_eq!(
        pass(&mut lab, "lan", &out(ALICE, "203.0.113.7").udp(6000, 7000)),
        ["lan 203.0.113.7:6000 > 10.1.0.3:7000"]
    );
    // A drop is remembered until the next sweep.
    lab.wait_ms(1100);
    assert_eq!(pass(&mut lab, "lan", &carol), ["lan 203.0.113.7:7000 > 10.1.0.2:6000"]);
    assert_eq!(lab.drops(), BTreeMap::from([("nat_filtered", 1)]));
}

#[test]
fn who_was_sent_to_by_a_host_behind_the_translator_has_not_sent_there() {
    // The rule names them: each has the external source on its way to another interface too.
    let one = "snat = { from = [\"10.1.0.0/24\", \"10.3.0.0/24\"], to = \"203.0.113.7\" }";
    let mut lab = nat(&format!("{one}\nfiltering = \"endpoint-independent\""));
    pass(&mut lab, "lan", &out(CAROL, SERVER).udp(7000, 53));
    assert_eq!(
        pass(&mut lab, "lan", &out(ALICE, "203.0.113.7").udp(6000, 7000)),
        ["lan 203.0.113.7:6000 > 10.1.0.3:7000"]
    );
    lab.apply(&site(one));
    let other = Packet::ethernet(HOST, DMZ).ipv4("10.3.0.2", "203.0.113.7").udp(8000, 7000);
    assert_eq!(pass(&mut lab, "dmz", &other), NOTHING);
    assert_eq!(lab.drops(), BTreeMap::from([("nat_filtered", 1)]));
}
