//! A plain router on ports of its own: forwarding, ARP and ND, ICMP errors, multipath, blackholes.

use std::time::Duration;

use weir_hw_tests::Lab;

use crate::sites::{ALICE, ROUTER, one_router};

#[test]
fn two_subnets_talk_through_a_router() {
    let (_lab, alice, router, bob) = one_router(ROUTER);
    let (mut near, mut far) = (alice.capture("west"), bob.capture("east"));
    alice.ping(&bob).size(1500).df(true).count(10).expect_all();
    alice.ping(&bob).v6().size(1500).df(true).count(10).expect_all();
    alice.tcp(&bob).expect_bytes(10_000_000);
    bob.tcp(&alice).v6().expect_bytes(10_000_000);
    near.assert_clean_capture();
    // RFC 1812 section 5.3.1: forwarding takes one off the TTL.
    far.assert_clean_capture().expect_none("icmp.type == 8 && ip.ttl != 63").expect_some("icmp.type == 8");
    router.counters().expect_conserved().expect("dropped.ttl_expired", 0);
}

#[test]
fn the_routers_own_addresses_answer_echo() {
    let (_lab, alice, router, _bob) = one_router(ROUTER);
    for own in ["10.1.0.1", "10.2.0.1", "2001:db8:1::1", "2001:db8:2::1"] {
        alice.ping(own).count(5).expect_all();
    }
    alice.ping("10.1.0.1").size(1500).expect_all();
    router.counters().expect_conserved().expect_at_least("consumed", 20);
}

/// RFC 792, RFC 4443 section 3.3: time exceeded, from the interface that the error leaves by.
#[test]
fn an_expired_ttl_is_reported_by_the_router() {
    let (_lab, alice, router, bob) = one_router(ROUTER);
    let mut capture = alice.capture("west");
    alice.ping(&bob).ttl(1).count(2).expect_error("From 10.1.0.1 icmp_seq=1 Time to live exceeded");
    alice
        .ping(&bob)
        .v6()
        .ttl(1)
        .count(2)
        .expect_error("From 2001:db8:1::1 icmp_seq=1 Time exceeded: Hop limit");
    alice.ping(&bob).ttl(2).expect_all();
    // Packets to the router itself are not TTL-checked (RFC 1812 section 5.3.1).
    alice.ping("10.2.0.1").ttl(1).expect_all();
    capture.assert_clean_capture();
    router.counters().expect_conserved().expect("dropped.ttl_expired", 4);
}

#[test]
fn a_destination_without_a_route_is_unreachable() {
    let (_lab, alice, router, _bob) = one_router(ROUTER);
    alice.ping("10.99.0.1").count(2).expect_error("Destination Net Unreachable");
    alice.ping("2001:db8:99::1").count(2).expect_error("Destination unreachable: No route");
    router.counters().expect_conserved().expect("dropped.no_route", 4);
}

/// RFC 1812 section 5.2.7.1, RFC 4861 section 7.2.2: who does not answer ARP or ND is unreachable.
#[test]
fn a_silent_neighbour_is_reported_after_resolution_fails() {
    let (_lab, alice, router, _bob) = one_router(ROUTER);
    let patient = Duration::from_secs(6);
    alice.ping("10.2.0.77").count(1).wait(patient).expect_error("Destination Host Unreachable");
    alice.ping("2001:db8:2::77").count(1).wait(patient).expect_error("Address unreachable");
    router
        .counters()
        .expect_conserved()
        .expect("held", 0)
        .expect_at_least("dropped.neighbour_unreachable", 2);
}

#[test]
fn no_packet_is_lost_while_a_neighbour_is_resolved() {
    let (_lab, alice, router, bob) = one_router(ROUTER);
    alice.udp(&bob).count(20).rate(20_000).run().expect_every_one();
    alice.udp(&bob).v6().count(20).rate(20_000).run().expect_every_one();
    router.counters().expect_conserved().expect("held", 0).expect("dropped.neighbour_queue_full", 0);
}

#[test]
fn a_blackhole_swallows_and_counts() {
    let hole = "[[vrf.default.route]]\nprefix = \"10.66.0.0/16\"\nvia = { blackhole = true }";
    let (_lab, alice, router, bob) = one_router(&format!("{ROUTER}\n{hole}"));
    alice.ping("10.66.1.1").count(5).expect_none();
    alice.ping(&bob).expect_all();
    router.counters().expect_conserved().expect("dropped.blackhole", 5);
}

const MULTIPATH: &str = r#"
    [port.pods]
    device = "pods"
    mode = "dedicated"
    addresses = ["10.1.0.1/24"]

    [port.north]
    device = "north"
    mode = "dedicated"
    addresses = ["192.0.2.1/30"]

    [port.south]
    device = "south"
    mode = "dedicated"
    addresses = ["192.0.2.5/30"]

    [[vrf.default.route]]
    prefix = "10.9.0.0/16"
    via = [{ ip = "192.0.2.2" }, { ip = "192.0.2.6" }]
"#;

#[test]
fn equal_cost_paths_share_the_flows_and_a_flow_stays_on_its_path() {
    let lab = Lab::new();
    let (alice, router) = (lab.host("10.1.0.2/24"), lab.weir(MULTIPATH));
    let north = lab.linux(
        "addr add 192.0.2.2/30 dev north\naddr add 10.9.0.1/32 dev lo\nroute add default via 192.0.2.1",
    );
    let south = lab.linux(
        "addr add 192.0.2.6/30 dev south\naddr add 10.9.0.1/32 dev lo\nroute add default via 192.0.2.5",
    );
    lab.wire(&alice, &router, "pods");
    lab.wire(&router, &north, "north");
    lab.wire(&router, &south, "south");
    // Both next hops are known, so that no datagram waits for one; and nobody answers, so that none is refused to be sent.
    for (router, address) in [(&north, "192.0.2.2"), (&south, "192.0.2.6")] {
        alice.ping(address).expect_all();
        router.ip("route del default");
    }
    let (mut to_north, mut to_south) = (north.capture("north"), south.capture("south"));
    // 64 flows of 3 datagrams.
    let flows = "for p in $(seq 7001 7064); do exec 3>/dev/udp/10.9.0.1/$p; for n in 1 2 3; do echo $n >&3; done; done";
    alice.command("bash").args(["-c", flows]).status().expect("run bash");
    let ports = |capture: &mut weir_hw_tests::Capture| -> Vec<String> {
        capture.fields("udp && ip.src == 10.1.0.2 && ip.dst == 10.9.0.1 && !icmp", "udp.dstport")
    };
    let (north, south) = (ports(&mut to_north), ports(&mut to_south));
    assert_eq!(north.len() + south.len(), 64 * 3);
    assert!(north.len() >= 48 && south.len() >= 48, "{} and {} of 192", north.len(), south.len());
    assert!(!north.iter().any(|port| south.contains(port)), "a flow was split over both paths");
    router.counters().expect_conserved();
}

#[test]
fn a_static_neighbour_needs_no_arp() {
    let lab = Lab::new();
    let (alice, bob) = (lab.host(ALICE), lab.host("10.2.0.2/24"));
    let fixed = "[[neighbour]]\nport = \"east\"\nip = \"10.2.0.2\"\nmac = \"02:00:00:00:02:02\"";
    let router = lab.weir(&format!("{ROUTER}\n{fixed}"));
    lab.wire(&alice, &router, "west");
    lab.wire(&router, &bob, "east");
    bob.ip("link set east address 02:00:00:00:02:02");
    let mut capture = bob.capture("east");
    alice.ping(&bob).expect_all();
    capture.expect_none("arp.opcode == 1 && arp.dst.proto_ipv4 == 10.2.0.2");
}

/// RFC 5227 section 2.3, RFC 4861 section 7.2.6: who had the router's addresses before it is forgotten at once.
#[test]
fn hosts_learn_of_a_new_router_by_its_announcements() {
    let (lab, alice, router, _bob) = one_router(ROUTER);
    for own in ["10.1.0.1", "2001:db8:1::1"] {
        alice.ip(&format!("neigh replace {own} lladdr 02:00:00:00:99:99 dev west nud stale"));
    }
    lab.start();
    let ports = router.show("ports").to_string();
    let macs: Vec<&str> = ports.split('"').filter(|word| word.split(':').count() == 6).collect();
    for own in ["10.1.0.1", "2001:db8:1::1"] {
        let known = || alice.ip(&format!("neigh show {own}"));
        let told = || macs.iter().any(|mac| known().contains(mac));
        let patience = std::time::Instant::now() + Duration::from_secs(5);
        while !told() && std::time::Instant::now() < patience {
            std::thread::sleep(Duration::from_millis(100));
        }
        assert!(told(), "{own} is still known as {}, none of {macs:?}", known());
    }
}
