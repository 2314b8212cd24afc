//! The lab proved by the Linux kernel in weir's place: what holds here, a scenario may rely on.

#![allow(clippy::expect_used)] // A step of a scenario that fails is a failed test.

use std::panic::AssertUnwindSafe;
use std::time::Duration;

use weir_hw_tests::{Lab, Node};

const ALICE: &str = "10.1.0.2/24 2001:db8:1::2/64";
const BOB: &str = "10.2.0.2/24 2001:db8:2::2/64";

const ROUTER: &str = "
    addr add 10.1.0.1/24 dev west
    addr add 10.2.0.1/24 dev east
    addr add 2001:db8:1::1/64 dev west
    addr add 2001:db8:2::1/64 dev east
";

const VXLAN_WEST: &str = "
    addr add 192.0.2.1/24 dev underlay
    addr add 10.1.0.1/24 dev pods
    addr add 2001:db8:1::1/64 dev pods
    link add to-east type vxlan id 100 local 192.0.2.1 remote 192.0.2.2 dstport 4789
    link set to-east up mtu 1450
    addr add 10.255.0.1/30 dev to-east
    addr add 2001:db8:ff::1/64 dev to-east
    route add 10.2.0.0/24 via 10.255.0.2
    route add 2001:db8:2::/64 via 2001:db8:ff::2
";

const VXLAN_EAST: &str = "
    addr add 192.0.2.2/24 dev underlay
    addr add 10.2.0.1/24 dev pods
    addr add 2001:db8:2::1/64 dev pods
    link add to-west type vxlan id 100 local 192.0.2.2 remote 192.0.2.1 dstport 4789
    link set to-west up mtu 1450
    addr add 10.255.0.2/30 dev to-west
    addr add 2001:db8:ff::2/64 dev to-west
    route add 10.1.0.0/24 via 10.255.0.1
    route add 2001:db8:1::/64 via 2001:db8:ff::1
";

fn behind_one_router(lab: &Lab) -> (Node, Node) {
    let (alice, bob, router) = (lab.host(ALICE), lab.host(BOB), lab.linux(ROUTER));
    lab.wire(&alice, &router, "west");
    lab.wire_with_queues(&router, &bob, "east", 2);
    (alice, bob)
}

fn over_vxlan(lab: &Lab) -> (Node, Node) {
    let (alice, bob, west, east) =
        (lab.host(ALICE), lab.host(BOB), lab.linux(VXLAN_WEST), lab.linux(VXLAN_EAST));
    lab.wire(&alice, &west, "pods");
    lab.wire(&west, &east, "underlay");
    lab.wire(&east, &bob, "pods");
    (alice, bob)
}

#[test]
fn hosts_talk_through_a_router_and_the_capture_is_clean() {
    let lab = Lab::new();
    let (alice, bob) = behind_one_router(&lab);
    let mut capture = alice.capture("west");
    alice.ping(&bob).size(1500).df(true).count(10).expect_all();
    alice.ping(&bob).v6().size(1500).df(true).expect_all();
    alice.tcp(&bob).expect_bytes(2_000_000);
    bob.tcp(&alice).v6().expect_bytes(2_000_000);
    capture.assert_clean_capture().expect_some("icmp.type == 0").expect_none("frame.len > 1514");
}

#[test]
fn a_stream_of_numbered_datagrams_arrives_whole() {
    let lab = Lab::new();
    let (alice, bob) = behind_one_router(&lab);
    alice.udp(&bob).count(2_000).rate(4_000).run().expect_every_one();
    let report = bob.udp(&alice).v6().size(1_000).count(100).run();
    assert_eq!((report.expect_every_one().received, report.bytes), (100, 100_000));
}

#[test]
fn a_lost_stream_names_what_is_missing() {
    let lab = Lab::new();
    let (alice, bob) = behind_one_router(&lab);
    let stream = alice.udp(&bob).count(1_000).rate(1_000).start();
    std::thread::sleep(Duration::from_millis(300));
    bob.ip("route replace blackhole 10.2.0.2/32");
    bob.ip("addr del 10.2.0.2/24 dev east");
    let report = stream.finish();
    assert!(
        report.received > 50 && report.missing.len() > 100 && report.missing.contains(&999),
        "{report:?}"
    );
    assert!(std::panic::catch_unwind(|| drop(report.expect_every_one().clone())).is_err());
}

#[test]
fn ttl_and_unreachable_errors_reach_the_sender() {
    let lab = Lab::new();
    let (alice, bob) = behind_one_router(&lab);
    alice.ping(&bob).ttl(1).count(1).expect_error("Time to live exceeded");
    alice.ping(&bob).v6().ttl(1).count(1).expect_error("Time exceeded: Hop limit");
    bob.ping("10.99.0.1").count(1).expect_error("Net Unreachable");
    alice.tcp(&bob).expect_bytes(1);
}

#[test]
fn the_sender_learns_the_mtu_of_a_tunnel() {
    let lab = Lab::new();
    let (alice, bob) = over_vxlan(&lab);
    // An error quotes the packet that it is about, cut off: that is not malformed.
    let mut capture = alice.capture("pods");
    alice.ping(&bob).size(1450).df(true).expect_all();
    assert_eq!(alice.learned_mtu(&bob), None);
    alice.ping(&bob).size(1451).df(true).count(1).expect_too_big(1450);
    assert_eq!(alice.learned_mtu(&bob), Some(1450));
    alice.ping(&bob).v6().size(1451).df(true).count(1).expect_too_big(1450);
    alice.ip("route flush cache");
    alice.tcp(&bob).expect_bytes(3_000_000);
    alice.tcp(&bob).v6().expect_bytes(3_000_000);
    capture.assert_clean_capture().expect_some("icmp.type == 3 && tcp").expect_some("icmpv6.type == 2");
}

#[test]
fn a_capture_sees_inside_of_a_tunnel_and_finds_bad_checksums_there() {
    let lab = Lab::new();
    let (alice, west) = (lab.host("10.1.0.2/24"), lab.linux(VXLAN_WEST));
    let (east, switch) = (lab.linux(VXLAN_EAST), lab.switch());
    let bob = lab.host("10.2.0.2/24");
    lab.wire(&alice, &west, "pods");
    lab.wire(&west, &switch, "underlay");
    lab.wire(&switch, &east, "underlay");
    lab.wire(&east, &bob, "pods");
    let mut good = switch.capture("port1");
    alice.ping(&bob).expect_all();
    alice.tcp(&bob).expect_bytes(100_000);
    good.assert_clean_capture().expect_some("vxlan.vni == 100 && tcp");

    // With checksum offload on, a veth pair carries sums that nobody computed.
    let offload = alice.command("ethtool").args(["-K", "pods", "tx", "on"]).output().expect("ethtool");
    assert!(offload.status.success());
    let mut bad = alice.capture("pods");
    alice.tcp(&bob).expect_bytes(1_000);
    let judged = std::panic::catch_unwind(AssertUnwindSafe(|| {
        let _ = bad.assert_clean_capture();
    }));
    assert!(judged.is_err(), "a wrong checksum went unnoticed");
}

#[test]
fn refusal_and_silence_are_told_apart() {
    let lab = Lab::new();
    let (alice, bob) = behind_one_router(&lab);
    alice.ping(&bob).expect_all();
    bob.ip("addr add 10.2.0.9/32 dev lo");
    alice.ip("route add prohibit 10.2.0.2/32");
    alice.tcp(&bob).expect_refused();
    alice.ip("route del prohibit 10.2.0.2/32");
    bob.ip("route add blackhole 10.1.0.0/24");
    alice.tcp(&bob).expect_silence();
}

#[test]
fn a_wire_that_is_cut_and_laid_again_carries_packets() {
    let lab = Lab::new();
    let (alice, bob, router) = (lab.host(ALICE), lab.host(BOB), lab.linux(ROUTER));
    let west = lab.wire(&alice, &router, "west");
    lab.wire(&router, &bob, "east");
    alice.ping(&bob).expect_all();
    west.delete();
    west.create();
    west.mtu(1400);
    alice.ping(&bob).expect_all_within(Duration::from_secs(5));
    alice.ping(&bob).v6().expect_all_within(Duration::from_secs(5));
}

#[test]
fn a_lab_leaves_nothing_behind_also_after_a_panic() {
    let directory = std::sync::Mutex::new(None);
    let failed = std::panic::catch_unwind(AssertUnwindSafe(|| {
        let lab = Lab::new();
        let (alice, bob) = behind_one_router(&lab);
        *directory.lock().expect("lock") = Some((lab.directory().to_owned(), namespace_of(&alice)));
        alice.ping("10.99.0.1").count(1).expect_all();
        drop(bob);
    }));
    assert!(failed.is_err());
    let (directory, namespace) = directory.into_inner().expect("lock").expect("the lab was made");
    assert!(directory.is_dir(), "logs and captures of a failure are kept");
    assert!(!std::path::Path::new("/run/netns").join(namespace).exists());
    std::fs::remove_dir_all(directory).expect("remove");
}

fn namespace_of(node: &Node) -> String {
    let output = node.command("ip").args(["netns", "identify"]).output().expect("ip netns identify");
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}
