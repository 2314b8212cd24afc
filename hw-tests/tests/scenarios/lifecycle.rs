//! How an instance starts, idles, loses an interface, and ends.

use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use weir_hw_tests::{Lab, Node};

use crate::sites::{ALICE, BOB, ROUTER, one_router};

#[test]
fn weir_says_which_driver_and_xdp_mode_it_got() {
    let (_lab, alice, router, bob) = one_router(ROUTER);
    alice.ping(&bob).expect_all();
    let ports = router.show("ports").to_string();
    assert!(ports.contains("veth") && ports.contains("native copy"), "{ports}");
    let text = router.show_text("ports");
    assert!(text.contains("west") && text.contains("native copy"), "{text}");
}

#[test]
fn the_control_socket_is_not_for_everyone() {
    let (lab, _alice, router, _bob) = one_router(ROUTER);
    lab.start();
    let mode = std::fs::metadata(router.socket()).expect("the socket is there").permissions().mode();
    assert_eq!(mode & 0o777, 0o660);
}

#[test]
fn an_interface_that_is_deleted_and_made_again_is_bound_again() {
    let lab = Lab::new();
    let (alice, bob, router) = (lab.host(ALICE), lab.host(BOB), lab.weir(ROUTER));
    let west = lab.wire(&alice, &router, "west");
    lab.wire(&router, &bob, "east");
    alice.ping(&bob).expect_all();
    for _ in 0..3 {
        west.delete();
        // The other port goes on.
        bob.ping("10.2.0.1").expect_all();
        west.create();
        alice.ping(&bob).expect_all_within(Duration::from_secs(15));
        alice.ping(&bob).v6().expect_all_within(Duration::from_secs(5));
    }
    alice.tcp(&bob).expect_bytes(2_000_000);
    router.counters().expect_conserved();
}

/// What the kernel of the box can do once the interface is its own again.
fn expect_the_kernel_has_it_back(alice: &Node, router: &Node) {
    let link = router.ip("-d link show west");
    assert!(!link.contains("xdp"), "an XDP program is still attached: {link}");
    alice.ping("10.1.0.1").expect_all();
    router.ping(alice).expect_all();
    alice.ping("10.1.0.1").size(1500).df(true).expect_all();
}

#[test]
fn after_sigkill_the_kernel_has_the_interface_back() {
    let (_lab, alice, router, bob) = one_router(ROUTER);
    alice.ping(&bob).expect_all();
    assert!(router.ip("-d link show west").contains("xdp"));
    router.kill9();
    router.ip("addr add 10.1.0.1/24 dev west");
    expect_the_kernel_has_it_back(&alice, &router);
    // And weir can have it again, over the socket that the dead one left.
    router.ip("addr del 10.1.0.1/24 dev west");
    router.restart();
    alice.ping(&bob).expect_all();
}

#[test]
fn on_sigterm_weir_drains_detaches_and_ends_well() {
    let (_lab, alice, router, bob) = one_router(ROUTER);
    alice.ping(&bob).expect_all();
    router.terminate();
    assert!(!router.socket().exists(), "the socket is left behind");
    router.ip("addr add 10.1.0.1/24 dev west");
    expect_the_kernel_has_it_back(&alice, &router);
}

#[test]
fn an_idle_instance_uses_next_to_nothing_and_wakes_without_losing_a_packet() {
    let (_lab, alice, router, bob) = one_router(ROUTER);
    alice.ping(&bob).expect_all();
    std::thread::sleep(Duration::from_secs(1));
    let percent = router.cpu_percent(Duration::from_secs(5));
    assert!(percent < 2.0, "an idle instance used {percent} % of a core");
    // Each of these finds it asleep.
    alice.udp(&bob).rate(2).count(6).run().expect_every_one();
    alice.ping(&bob).interval(Duration::from_millis(700)).count(4).expect_all();
    // And so does a sudden burst.
    alice.udp(&bob).rate(1_000_000).count(200).run().expect_every_one();
    router.counters().expect_conserved();
}

#[test]
fn a_missing_device_is_named() {
    let lab = Lab::new();
    let (alice, router) =
        (lab.host(ALICE), lab.weir(&ROUTER.replace("device = \"east\"", "device = \"nosuch0\"")));
    lab.wire(&alice, &router, "west");
    router.run_refused(&[]).expect_failure().expect_text("nosuch0");
    // Nothing is left attached to the device that was there.
    assert!(!router.ip("-d link show west").contains("xdp"));
}

#[test]
fn a_missing_device_in_a_new_configuration_leaves_the_running_one_untouched() {
    let (_lab, alice, router, bob) = one_router(ROUTER);
    alice.ping(&bob).expect_all();
    let before = router.generation();
    let extra = format!(
        "{ROUTER}\n[port.more]\ndevice = \"nosuch0\"\nmode = \"dedicated\"\naddresses = [\"10.3.0.1/24\"]\n"
    );
    let refusal = router.try_apply(&extra).expect_err("a missing device was accepted");
    assert!(refusal.contains("nosuch0"), "{refusal}");
    assert_eq!(router.generation(), before);
    alice.ping(&bob).expect_all();
}

#[test]
fn missing_privileges_are_named() {
    let lab = Lab::new();
    let (alice, bob, router) = (lab.host(ALICE), lab.host(BOB), lab.weir(ROUTER));
    lab.wire(&alice, &router, "west");
    lab.wire(&router, &bob, "east");
    for (without, name) in
        [("-net_admin", "CAP_NET_ADMIN"), ("-net_raw", "CAP_NET_RAW"), ("-bpf,-sys_admin", "CAP_BPF")]
    {
        let bounding = format!("--bounding-set={without}");
        let inheritable = format!("--inh-caps={without}");
        router.run_refused(&["setpriv", &bounding, &inheritable]).expect_failure().expect_text(name);
    }
}

#[test]
fn a_file_with_errors_is_refused_before_any_device_is_touched() {
    let lab = Lab::new();
    let (alice, router) = (lab.host(ALICE), lab.weir("[port.west]\ndevice = 7\nmode = \"dedicatd\"\n"));
    lab.wire(&alice, &router, "west");
    let refused = router.run_refused(&[]);
    refused
        .expect_failure()
        .expect_text("weir1.toml:2:")
        .expect_text("weir1.toml:3:")
        .expect_text("dedicated");
}
