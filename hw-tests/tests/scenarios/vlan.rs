//! VLAN sub-interfaces: a tagged underlay, and a bridge that joins tagged and untagged members.

use crate::sites::{ALICE, BOB, EAST, WEST, expect_whole_service, two_sites};

/// Puts the underlay addresses of a site on VLAN 100 of its port.
fn tagged(site: &str) -> String {
    let (before, after) = site.split_once("addresses = [\"192.0.2.").expect("the site has an underlay");
    format!("{before}\n    [port.underlay.vlan.100]\n    addresses = [\"192.0.2.{after}")
}

#[test]
fn an_underlay_can_be_a_vlan_of_a_port() {
    let mut sites = two_sites([ALICE, BOB], &tagged(WEST), &tagged(EAST));
    expect_whole_service(&sites.alice, &sites.bob, 1450);
    sites
        .underlay
        .assert_clean_capture()
        .expect_some("vlan.id == 100 && vxlan")
        .expect_none("vxlan && !vlan");
    sites.west.counters().expect_conserved();
}

#[test]
fn a_vlan_that_nobody_configured_is_dropped_and_counted() {
    let sites = two_sites([ALICE, BOB], &tagged(WEST), &tagged(EAST).replace("vlan.100", "vlan.101"));
    sites.alice.ping(&sites.bob).count(2).expect_none();
    sites.east.counters().expect_conserved().expect_at_least("dropped.unknown_vlan", 1);
}

const TRUNK: &str = r#"
    [bridge.lan]

    [port.pods]
    device = "pods"
    mode = "dedicated"
    bridge = "lan"

    [port.underlay]
    device = "underlay"
    mode = "dedicated"

    [port.underlay.vlan.7]
    bridge = "lan"
"#;

#[test]
fn a_bridge_joins_an_untagged_port_and_a_vlan_of_a_trunk() {
    let same = ["10.1.0.2/24 2001:db8:1::2/64", "10.1.0.3/24 2001:db8:1::3/64"];
    let mut sites = two_sites(same, TRUNK, TRUNK);
    sites.alice.ping(&sites.bob).size(1500).df(true).expect_all();
    sites.alice.ping(&sites.bob).v6().expect_all();
    sites.alice.tcp(&sites.bob).expect_bytes(5_000_000);
    sites.underlay.assert_clean_capture().expect_some("vlan.id == 7 && icmp").expect_none("icmp && !vlan");
    sites.west.counters().expect_conserved();
}
