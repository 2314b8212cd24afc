//! Path MTU (RFC 1191, 8201, 4459): senders learn what fits a tunnel, and what may be fragmented is.

use crate::sites::{ALICE, BOB, EAST, ROUTER, WEST, one_router, two_sites};

#[test]
fn tcp_learns_the_path_mtu_through_a_vxlan_tunnel() {
    let mut sites = two_sites([ALICE, BOB], WEST, EAST);
    assert_eq!(sites.alice.learned_mtu(&sites.bob), None);
    sites.alice.tcp(&sites.bob).expect_bytes(10_000_000);
    assert_eq!(sites.alice.learned_mtu(&sites.bob), Some(1450));
    sites.west.counters().expect_conserved().expect_at_least("dropped.packet_too_big", 1);
    sites.underlay.assert_clean_capture().expect_none("frame.len > 1514");
}

#[test]
fn tcp_over_ipv6_learns_the_path_mtu_through_a_vxlan_tunnel() {
    let mut sites = two_sites([ALICE, BOB], WEST, EAST);
    sites.alice.tcp(&sites.bob).v6().expect_bytes(10_000_000);
    assert_eq!(sites.alice.learned_mtu("2001:db8:2::2"), Some(1450));
    sites.underlay.assert_clean_capture().expect_none("frame.len > 1514");
}

/// RFC 1191 section 4: the error carries the next hop's MTU, and RFC 792 the packet that it is about.
#[test]
fn a_packet_one_byte_too_big_is_answered_with_the_exact_mtu() {
    let sites = two_sites([ALICE, BOB], WEST, EAST);
    let mut capture = sites.alice.capture("pods");
    sites.alice.ping(&sites.bob).size(1450).df(true).expect_all();
    sites.alice.ping(&sites.bob).size(1451).df(true).count(1).expect_too_big(1450);
    sites.alice.ping(&sites.bob).v6().size(1451).df(true).count(1).expect_too_big(1450);
    capture.assert_clean_capture();
    assert_eq!(capture.fields("icmp.type == 3 && icmp.code == 4", "icmp.mtu"), ["1450"]);
    assert_eq!(capture.fields("icmpv6.type == 2", "icmpv6.mtu"), ["1450"]);
    capture
        .expect_some("icmp.type == 3 && ip.src == 10.1.0.1")
        .expect_some("icmpv6.type == 2 && ipv6.src == 2001:db8:1::1");
    sites.west.counters().expect("dropped.packet_too_big", 2);
}

#[test]
fn an_ipv4_packet_without_df_is_fragmented_into_the_tunnel() {
    let mut sites = two_sites([ALICE, BOB], WEST, EAST);
    sites.alice.ping(&sites.bob).size(1500).count(5).expect_all();
    sites.underlay.assert_clean_capture().expect_some("ip.flags.mf == 1").expect_none("frame.len > 1514");
    sites.west.counters().expect_conserved().expect("dropped.packet_too_big", 0);
}

#[test]
fn a_narrow_port_is_a_path_mtu_too() {
    let narrow = ROUTER.replace("device = \"east\"", "device = \"east\"\n    mtu = 1300");
    let (_lab, alice, router, bob) = one_router(&narrow);
    alice.ping(&bob).size(1300).df(true).expect_all();
    alice.ping(&bob).size(1301).df(true).count(1).expect_too_big(1300);
    alice.ping(&bob).v6().size(1301).df(true).count(1).expect_too_big(1300);
    alice.tcp(&bob).expect_bytes(3_000_000);
    router.counters().expect_conserved();
}

/// RFC 1191: what the next hop takes may change at any time, and the sender learns it.
#[test]
fn a_device_whose_mtu_is_lowered_while_weir_runs_is_noticed() {
    let (_lab, alice, router, bob) = one_router(ROUTER);
    alice.ping(&bob).size(1500).df(true).expect_all();
    router.ip("link set east mtu 1400");
    std::thread::sleep(std::time::Duration::from_secs(2));
    alice.ping(&bob).size(1401).df(true).count(1).expect_too_big(1400);
    alice.ping(&bob).size(1400).df(true).expect_all();
    router.counters().expect_conserved();
}
