//! Point-to-point cross-connects: whatever enters one end leaves the other.

use weir_hw_tests::Lab;

use crate::sites::two_sites;

const ALICE: &str = "10.1.0.2/24 2001:db8:1::2/64";
const BOB: &str = "10.1.0.3/24 2001:db8:1::3/64";

const PATCH: &str = r#"
    [port.left]
    device = "left"
    mode = "dedicated"

    [port.right]
    device = "right"
    mode = "dedicated"

    [cross-connect.patch]
    ends = ["left", "right"]
"#;

#[test]
fn two_ports_are_joined_back_to_back() {
    let lab = Lab::new();
    let (alice, patch, bob) = (lab.host(ALICE), lab.weir(PATCH), lab.host(BOB));
    lab.wire(&alice, &patch, "left");
    lab.wire(&patch, &bob, "right");
    let mut capture = bob.capture("right");
    alice.ping(&bob).size(1500).df(true).expect_all();
    alice.ping(&bob).v6().size(1500).df(true).expect_all();
    alice.tcp(&bob).expect_bytes(10_000_000);
    // Nothing is looked at, so nothing is changed.
    capture.assert_clean_capture().expect_none("icmp.type == 8 && ip.ttl != 64");
    patch.counters().expect_conserved();
}

const WEST: &str = r#"
    [port.pods]
    device = "pods"
    mode = "dedicated"

    [port.underlay]
    device = "underlay"
    mode = "dedicated"
    addresses = ["192.0.2.1/24"]

    [tunnel.wire.vxlan]
    local = "192.0.2.1"
    remote = "192.0.2.2"
    vni = 400

    [cross-connect.line]
    ends = ["pods", "wire"]
"#;

#[test]
fn a_port_is_joined_to_a_vni() {
    let east = WEST
        .replace("[\"192.0.2.1/24\"]", "[\"192.0.2.2/24\"]")
        .replace("local = \"192.0.2.1\"", "local = \"192.0.2.2\"")
        .replace("remote = \"192.0.2.2\"", "remote = \"192.0.2.1\"");
    let mut sites = two_sites([ALICE, BOB], WEST, &east);
    sites.alice.ping(&sites.bob).expect_all();
    sites.alice.ping(&sites.bob).v6().expect_all();
    sites.alice.ping(&sites.bob).size(1450).df(true).expect_all();
    sites.alice.tcp(&sites.bob).expect_bytes(5_000_000);
    sites.underlay.assert_clean_capture().expect_some("vxlan.vni == 400");
    sites.west.counters().expect_conserved();
    sites.east.counters().expect_conserved();
}
