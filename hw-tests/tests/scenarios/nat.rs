//! Address translation: hosts behind a weir, a Linux router and a server beyond it that know nothing of them.

use weir_hw_tests::{Lab, Node, WeirBox};

use crate::sites::{ALICE, ROUTER};

/// Everybody behind `west` goes out as weir's own address on `east`; one port comes back in.
const NAT: &str = r#"
    [[vrf.default.route]]
    prefix = "0.0.0.0/0"
    via = { ip = "10.2.0.2" }

    [service.out.nat]
    snat = { from = "10.1.0.0/24", to = "masquerade" }
    dnat = [{ protocol = "tcp", to = "10.2.0.1", to-port = 8443, forward = "10.1.0.2", forward-port = 443 }]

    [chain.out]
    hops = ["out"]

    [[classify]]
    from = "port.west"
    chain = "out"

    [[classify]]
    from = "port.east"
    to-prefix = "10.2.0.1/32"
    chain = "out"
"#;

/// alice ── weir ── Linux router ── server. The router has no route to alice.
fn behind(nat: &str) -> (Lab, Node, WeirBox, Node) {
    let lab = Lab::new();
    let (alice, weir) = (lab.host(ALICE), lab.weir(&format!("{ROUTER}{nat}")));
    let router = lab.linux("addr add 10.2.0.2/24 dev east\naddr add 198.51.100.1/24 dev far");
    let server = lab.host("198.51.100.2/24");
    lab.wire(&alice, &weir, "west");
    lab.wire(&weir, &router, "east");
    lab.wire(&router, &server, "far").mtu(1300);
    (lab, alice, weir, server)
}

#[test]
fn hosts_behind_a_masquerade_reach_a_server_that_cannot_reach_them() {
    let (_lab, alice, weir, server) = behind(NAT);
    let mut capture = server.capture("far");
    alice.ping(&server).count(5).expect_all();
    alice.tcp(&server).expect_bytes(5_000_000);
    alice.udp(&server).count(50).run().expect_every_one();
    // Fragments, whose later ones have no port.
    alice.ping(&server).size(2000).count(3).expect_all();
    capture.assert_clean_capture();
    capture.expect_some("ip.src == 10.2.0.1 && tcp").expect_none("ip.addr == 10.1.0.0/24");
    let bindings = weir.show("nat");
    assert!(bindings["bindings"].as_array().is_some_and(|list| !list.is_empty()), "{bindings}");
    // weir's own address goes on answering for itself.
    server.ping("10.2.0.1").count(3).expect_all();
    weir.counters().expect_conserved().expect("dropped.nat_no_binding", 0);
}

/// RFC 5508 section 4.2, RFC 1191: errors about translated packets are told to who sent them.
#[test]
fn traceroute_and_path_mtu_work_through_a_translator() {
    let (_lab, alice, weir, server) = behind(NAT);
    alice.ping(&server).ttl(1).count(1).expect_error("From 10.1.0.1 icmp_seq=1 Time to live exceeded");
    alice.ping(&server).ttl(2).count(1).expect_error("From 10.2.0.2 icmp_seq=1 Time to live exceeded");
    alice.ping(&server).ttl(3).expect_all();
    alice.ping(&server).size(1300).df(true).expect_all();
    alice.ping(&server).size(1301).df(true).count(1).expect_too_big(1300);
    alice.tcp(&server).expect_bytes(2_000_000);
    assert_eq!(alice.learned_mtu(&server), Some(1300));
    weir.counters().expect_conserved();
}

#[test]
fn a_forwarded_port_is_reached_from_outside_and_others_are_not() {
    let (_lab, alice, weir, server) = behind(NAT);
    let mut capture = alice.capture("west");
    server.tcp(&alice).port(443).by("10.2.0.1:8443").expect_bytes(2_000_000);
    capture.assert_clean_capture();
    capture.expect_some("ip.src == 198.51.100.2 && tcp.dstport == 443");
    // weir itself has nobody at other ports, and says so.
    server.tcp(&alice).port(444).by("10.2.0.1:8444").expect_refused();
    weir.counters().expect_conserved();
}
