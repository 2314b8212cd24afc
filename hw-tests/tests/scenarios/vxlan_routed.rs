//! VXLAN between VRFs (RFC 7348): weir and weir, weir and Linux, over IPv4 and IPv6, with IPv4 and IPv6 inside.

use weir_hw_tests::Lab;

use crate::sites::{ALICE, BOB, EAST, LINUX_EAST, WEST, expect_whole_service, over_ipv6, two_sites};

#[test]
fn two_weirs_join_sites_over_an_ipv4_underlay() {
    let mut sites = two_sites([ALICE, BOB], WEST, EAST);
    expect_whole_service(&sites.alice, &sites.bob, 1450);
    sites.underlay.assert_clean_capture().expect_some("vxlan.vni == 100 && ip.version == 4");
    sites.underlay.expect_none("frame.len > 1514");
    sites.west.counters().expect_conserved().expect_at_least("dropped.packet_too_big", 2);
    sites.east.counters().expect_conserved();
}

#[test]
fn two_weirs_join_sites_over_an_ipv6_underlay() {
    let mut sites = two_sites([ALICE, BOB], &over_ipv6(WEST), &over_ipv6(EAST));
    expect_whole_service(&sites.alice, &sites.bob, 1430);
    sites.underlay.assert_clean_capture().expect_some("vxlan.vni == 100 && ipv6.dst == fd00::2");
    sites.underlay.expect_none("frame.len > 1514");
}

#[test]
fn weir_and_linux_join_sites_over_an_ipv4_underlay() {
    let lab = Lab::new();
    let (alice, west, east, bob) = (lab.host(ALICE), lab.weir(WEST), lab.linux(LINUX_EAST), lab.host(BOB));
    lab.wire(&alice, &west, "pods");
    let underlay = lab.wire(&west, &east, "underlay");
    lab.wire(&east, &bob, "pods");
    let mut capture = underlay.capture_far();
    expect_whole_service(&alice, &bob, 1450);
    capture.assert_clean_capture().expect_some("vxlan.vni == 100");
    west.counters().expect_conserved();
}

#[test]
fn weir_and_linux_join_sites_over_an_ipv6_underlay() {
    let lab = Lab::new();
    let (west, east) = (lab.weir(&over_ipv6(WEST)), lab.linux(&over_ipv6(LINUX_EAST)));
    let (alice, bob) = (lab.host(ALICE), lab.host(BOB));
    lab.wire(&alice, &west, "pods");
    let underlay = lab.wire(&west, &east, "underlay");
    lab.wire(&east, &bob, "pods");
    let mut capture = underlay.capture_far();
    expect_whole_service(&alice, &bob, 1430);
    capture.assert_clean_capture();
}

/// RFC 7348 section 4: the source port is a hash of the inner flow in the dynamic range, and stable for a flow.
#[test]
fn the_outer_source_port_tells_flows_apart_and_stays_in_the_dynamic_range() {
    let mut sites = two_sites([ALICE, BOB], WEST, EAST);
    for port in 7001..7009 {
        sites.alice.udp(&sites.bob).port(port).from_port(port).count(10).run().expect_every_one();
    }
    let mut ports = std::collections::BTreeSet::new();
    for port in 7001..7009 {
        let outer =
            sites.underlay.fields(&format!("ip.src == 10.1.0.2 && udp.dstport == {port}"), "udp.srcport");
        let flow: std::collections::BTreeSet<_> =
            outer.iter().filter_map(|both| both.split(',').next()).collect();
        assert_eq!(flow.len(), 1, "one flow, one outer source port: {outer:?}");
        ports.extend(flow.into_iter().filter_map(|port| port.parse::<u16>().ok()));
    }
    assert!(ports.iter().all(|port| *port >= 49_152), "below the dynamic range: {ports:?}");
    assert!(ports.len() >= 4, "eight flows share too few source ports: {ports:?}");
}

#[test]
fn a_frame_with_an_unknown_vni_is_counted_and_dropped() {
    let other = LINUX_EAST.replace("id 100", "id 101");
    let lab = Lab::new();
    let (west, east, bob) = (lab.weir(WEST), lab.linux(&other), lab.host(BOB));
    let alice = lab.host(ALICE);
    lab.wire(&alice, &west, "pods");
    lab.wire(&west, &east, "underlay");
    lab.wire(&east, &bob, "pods");
    bob.ping(&alice).count(2).expect_none();
    west.counters().expect_conserved().expect_at_least("dropped.vxlan_unknown_vni", 1);
}

#[test]
fn a_vtep_that_is_not_configured_is_not_believed() {
    let stranger = LINUX_EAST.replace("192.0.2.2", "192.0.2.3");
    let lab = Lab::new();
    let (west, east, bob) = (lab.weir(WEST), lab.linux(&stranger), lab.host(BOB));
    let alice = lab.host(ALICE);
    lab.wire(&alice, &west, "pods");
    lab.wire(&west, &east, "underlay");
    lab.wire(&east, &bob, "pods");
    bob.ping(&alice).count(2).expect_none();
    west.counters().expect_conserved().expect_at_least("dropped.vxlan_unknown_remote", 1);
}
