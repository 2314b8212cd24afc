//! Queues and workers need not match: every queue is polled, and every worker can send by every port.

use weir_hw_tests::{Lab, Node, WeirBox};

use crate::sites::{ALICE, BOB, ROUTER};

fn router_with(queues: [u32; 2], workers: &str) -> (Lab, Node, WeirBox, Node) {
    let lab = Lab::new();
    let router = lab.weir(&format!("[workers]\ncores = {workers}\n{ROUTER}"));
    let (alice, bob) = (lab.host(ALICE), lab.host(BOB));
    lab.wire_with_queues(&alice, &router, "west", queues[0]);
    lab.wire_with_queues(&router, &bob, "east", queues[1]);
    (lab, alice, router, bob)
}

/// Sixteen flows, which the sender's kernel spreads over the queues, arrive whole, and TCP works both ways.
fn expect_every_flow(alice: &Node, bob: &Node) {
    let streams: Vec<_> = (7001..7017)
        .map(|port| alice.udp(bob).port(port).from_port(port).rate(200).count(200).start())
        .collect();
    streams.into_iter().for_each(|stream| drop(stream.finish().expect_every_one().clone()));
    alice.tcp(bob).expect_bytes(5_000_000);
    bob.tcp(alice).v6().expect_bytes(5_000_000);
}

#[test]
fn one_worker_polls_more_queues_than_it_has_company() {
    let (_lab, alice, router, bob) = router_with([4, 4], "[0]");
    expect_every_flow(&alice, &bob);
    router.counters().expect_conserved().expect("handed_out", 0);
    assert_eq!(router.show("workers").to_string().matches("\"core\"").count(), 1);
}

#[test]
fn two_workers_share_ports_of_one_queue() {
    let (_lab, alice, router, bob) = router_with([1, 1], "[0, 1]");
    expect_every_flow(&alice, &bob);
    router.counters().expect_conserved();
}

#[test]
fn two_workers_share_four_queues() {
    let (_lab, alice, router, bob) = router_with([4, 4], "[0, 1]");
    expect_every_flow(&alice, &bob);
    router.counters().expect_conserved();
}

#[test]
fn a_worker_without_a_transmit_queue_hands_its_frames_to_the_owner() {
    let (_lab, alice, router, bob) = router_with([4, 1], "[0, 1]");
    expect_every_flow(&alice, &bob);
    router.counters().expect_conserved().expect_at_least("handed_out", 1);
}

#[test]
fn a_core_that_was_not_given_is_refused() {
    let lab = Lab::new();
    let (alice, router) =
        (lab.host(ALICE), lab.weir("[workers]\ncores = [1023]\n[port.west]\ndevice = \"west\"\n"));
    lab.wire(&alice, &router, "west");
    router.run_refused(&[]).expect_failure().expect_text("1023");
    let pinned = lab.weir("[workers]\ncores = [0, 1]\n[port.west]\ndevice = \"west\"\n");
    lab.wire(&alice, &pinned, "west2");
    pinned.run_refused(&["taskset", "-c", "0"]).expect_failure().expect_text("core");
}
