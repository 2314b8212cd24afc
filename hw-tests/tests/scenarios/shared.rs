//! Shared ports: weir takes its tunnels and its prefixes; the host's other traffic never notices.

use weir_hw_tests::{Lab, Node, WeirBox};

use crate::sites::{ALICE, BOB, LINUX_EAST, WEST, expect_whole_service, over_ipv6};

/// alice ── weir ── Linux ── bob with the underlay port shared with the kernel of weir's box.
fn shared_site(over: fn(&str) -> String) -> (Lab, Node, WeirBox, Node, Node) {
    let own = "mode = \"dedicated\"\n    addresses = [\"192.0.2.1/24\"]";
    let shared = WEST.replace(own, "mode = \"shared\"");
    assert_ne!(shared, WEST);
    let lab = Lab::new();
    let (alice, bob) = (lab.host(ALICE), lab.host(BOB));
    let (west, east) = (lab.weir(&over(&shared)), lab.linux(&over(LINUX_EAST)));
    lab.wire(&alice, &west, "pods");
    lab.wire(&west, &east, "underlay");
    lab.wire(&east, &bob, "pods");
    west.ip(&over("addr add 192.0.2.1/24 dev underlay"));
    (lab, alice, west, east, bob)
}

#[test]
fn a_tunnel_runs_over_a_port_that_the_kernel_keeps() {
    let (_lab, alice, west, east, bob) = shared_site(str::to_owned);
    let mut capture = east.capture("underlay");
    expect_whole_service(&alice, &bob, 1450);
    capture.assert_clean_capture();
    west.counters().expect_conserved();
}

#[test]
fn a_tunnel_over_ipv6_runs_over_a_port_that_the_kernel_keeps() {
    let (_lab, alice, _west, _east, bob) = shared_site(over_ipv6);
    expect_whole_service(&alice, &bob, 1430);
}

#[test]
fn the_hosts_own_traffic_on_a_shared_port_goes_on() {
    let (_lab, alice, west, east, bob) = shared_site(str::to_owned);
    // Before weir runs, while it starts, and while its tunnel is busy.
    let stream = east.udp(&west).rate(500).count(1_000_000).start();
    let transfer = alice.tcp(&bob).rate(3_000_000).start(9_000_000);
    west.ping("192.0.2.2").count(20).expect_all();
    east.ping("192.0.2.1").count(20).expect_all();
    west.ping("192.0.2.2").size(1500).df(true).expect_all();
    west.tcp(&east).expect_bytes(5_000_000);
    east.tcp(&west).port(22).expect_bytes(5_000_000);
    transfer.finish().expect_bytes(9_000_000);
    stream.stop().expect_every_one();
    assert!(west.ip("neigh show dev underlay").contains("192.0.2.2"), "ARP stays with the kernel");
    west.counters().expect_conserved();
}

#[test]
fn a_change_of_steering_does_not_disturb_the_host() {
    let (_lab, alice, west, east, bob) = shared_site(str::to_owned);
    alice.ping(&bob).expect_all();
    let stream = east.udp(&west).rate(1_000).count(1_000_000).start();
    let text = std::fs::read_to_string(west.configuration()).expect("the configuration is there");
    for port in [4790, 4791, 4789] {
        west.apply(&text.replace("vni = 100", &format!("vni = 100\n    port = {port}")));
    }
    alice.ping(&bob).expect_all();
    stream.stop().expect_every_one();
}

#[test]
fn when_weir_dies_the_host_goes_on() {
    let (_lab, alice, west, east, bob) = shared_site(str::to_owned);
    alice.ping(&bob).expect_all();
    let stream = east.udp(&west).rate(1_000).count(1_000_000).start();
    west.kill9();
    west.ping("192.0.2.2").expect_all();
    stream.stop().expect_every_one();
    assert!(!west.ip("-d link show underlay").contains("xdp"));
}

#[test]
fn two_environment_variables_make_a_plain_router() {
    let lab = Lab::new();
    let routes = "10.2.0.0/24 192.0.2.2,10.1.0.0/24 dev pods,2001:db8:2::/64 fd00::2,2001:db8:1::/64 pods,10.66.0.0/16 blackhole";
    let west = lab.weir_by_environment(&[("INTERFACES", "pods,underlay"), ("ROUTES", routes)]);
    let east = lab.linux(
        "addr add 192.0.2.2/24 dev underlay
         addr add fd00::2/64 dev underlay
         addr add 10.2.0.1/24 dev pods
         addr add 2001:db8:2::1/64 dev pods
         route add 10.1.0.0/24 via 192.0.2.1
         route add 2001:db8:1::/64 via fd00::1",
    );
    let (alice, bob) = (lab.host(ALICE), lab.host(BOB));
    lab.wire(&alice, &west, "pods");
    lab.wire(&west, &east, "underlay");
    lab.wire(&east, &bob, "pods");
    for address in [
        "10.1.0.1/24 dev pods",
        "192.0.2.1/24 dev underlay",
        "2001:db8:1::1/64 dev pods",
        "fd00::1/64 dev underlay",
    ] {
        west.ip(&format!("addr add {address}"));
    }
    alice.ping(&bob).expect_all();
    alice.ping(&bob).v6().expect_all();
    alice.tcp(&bob).expect_bytes(3_000_000);
    // The kernel of this box does not forward, so it was weir.
    west.counters().expect_conserved().expect_at_least("transmitted", 100);
    alice.ping("10.66.0.1").count(2).expect_none();
    west.counters().expect("dropped.blackhole", 2);
    // The host keeps its own address, though its subnet is among the routes.
    alice.ping("10.1.0.1").expect_all();
    west.counters().expect("consumed", 0);
}
