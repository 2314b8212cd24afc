//! Virtual functions on vfio-pci, driven by DPDK: alice at the far end of the card's cable, bob on the card's physical function,
//! weir between them on two virtual functions.

use std::time::Duration;

use serde_json::Value;
use weir_hw_tests::{Lab, Nic, Node, WeirBox, weir_binary};

use crate::afxdp::{LINK, ROUTER, expect_a_clean_end, port, sum, text};
use crate::cards::{Cables, cables, skipped};
use crate::functions::{Functions, possible};

/// Who is where.
struct Bench {
    alice: Node,
    bob: Node,
    card: Nic,
    lab: Lab,
    /// They go after weir.
    functions: Functions,
    _cables: Cables,
}

/// alice ══ cable ══ VF 0 … VF 1 ── PF: bob
fn bench() -> Option<Bench> {
    let cables = cables(1)?;
    let cable = cables.list.first()?;
    if let Err(reason) = possible(&cable.card) {
        skipped(&reason);
        return None;
    }
    let lab = Lab::new();
    let (alice, bob) = (lab.host("10.1.0.2/24 2001:db8:1::2/64"), lab.host("10.2.0.2/24 2001:db8:2::2/64"));
    lab.nic(&alice, &cable.far, "west");
    let card = lab.nic(&bob, &cable.card, "east");
    card.await_carrier();
    let functions = Functions::new(&cable.card, &bob, "east", 2);
    Some(Bench { alice, bob, card, lab, functions, _cables: cables })
}

/// Whether weir is built with DPDK; otherwise the test is skipped.
pub(crate) fn drives_dpdk() -> bool {
    const LIBRARY: &[u8] = b"librte_eal";
    let binary = std::fs::read(weir_binary()).expect("read weir");
    let found = binary.windows(LIBRARY.len()).any(|bytes| bytes == LIBRARY);
    if !found {
        skipped("weir is built without DPDK: cargo build --features dpdk");
    }
    found
}

/// The same with weir.
fn with_weir() -> Option<(Bench, WeirBox)> {
    if !drives_dpdk() {
        return None;
    }
    let bench = bench()?;
    let weir = bench.lab.weir(&router(&bench.functions));
    bench.lab.start();
    Some((bench, weir))
}

fn router(functions: &Functions) -> String {
    let [west, east] = functions.list.as_slice() else { panic!("two functions, not {functions:?}") };
    let device = |name: &str| format!("device = \"{name}\"");
    ROUTER
        .replace(&device("west"), &device(&format!("pci:{west}")))
        .replace(&device("east"), &device(&format!("pci:{east}")))
}

#[test]
fn weir_forwards_from_one_virtual_function_to_another() {
    let Some((bench, weir)) = with_weir() else { return };
    let (alice, bob) = (&bench.alice, &bench.bob);
    alice.ping(bob).expect_all_within(LINK);
    for size in [28, 64, 1000, 1024, 1025, 1500] {
        alice.ping(bob).size(size).df(true).count(3).expect_all();
    }
    // An 82576 as QEMU emulates it hands no multicast to virtual functions: the hosts cannot ask for weir's MAC addresses.
    for (node, device, address, mac) in [
        (alice, "west", "2001:db8:1::1", "02:57:45:49:52:00"),
        (bob, "east", "2001:db8:2::1", "02:57:45:49:52:01"),
    ] {
        node.ip(&format!("neigh replace {address} lladdr {mac} dev {device}"));
    }
    alice.ping(bob).v6().size(1500).expect_all_within(LINK);
    alice.udp(bob).size(1500).count(2_000).rate(1_000).run().expect_every_one();
    bob.udp(alice).size(64).count(2_000).rate(1_000).run().expect_every_one();
    alice.tcp(bob).expect_bytes(1_000_000);
    bob.tcp(alice).v6().expect_bytes(1_000_000);
    for name in ["west", "east"] {
        let port = port(&weir, name);
        println!("{port}");
        assert_eq!((text(&port, "backend"), text(&port, "driver")), ("DPDK", "net_e1000_igb_vf"), "{port}");
        assert_eq!((sum(&port, "invalid"), sum(&port, "copies")), (0, 0), "{port}");
    }
    expect_a_clean_end(&weir);
}

#[test]
fn the_kernels_driver_of_a_virtual_function_gives_what_it_can_and_weir_says_so() {
    let Some(cables) = cables(1) else { return };
    let Some(cable) = cables.list.first() else { return };
    if let Err(reason) = possible(&cable.card) {
        return skipped(&reason);
    }
    let lab = Lab::new();
    let (alice, bob) = (lab.host("10.1.0.2/24 2001:db8:1::2/64"), lab.host("10.2.0.2/24 2001:db8:2::2/64"));
    let weir = lab.weir(ROUTER);
    let owner = lab.host("");
    lab.nic(&alice, &cable.far, "west");
    let card = lab.nic(&owner, &cable.card, "pf");
    card.await_carrier();
    let functions = Functions::with_the_kernels_driver(&cable.card, &owner, "pf", 1);
    lab.nic(&weir, &functions.list[0], "west");
    lab.wire(&weir, &bob, "east");
    lab.start();
    alice.ping(&bob).expect_all_within(LINK);
    let port = port(&weir, "west");
    println!("{port}");
    if text(&port, "driver") == "igbvf" {
        assert_eq!(text(&port, "xdp"), "generic", "{port}");
        let refused = port.get("refused").map(Value::to_string).unwrap_or_default();
        assert!(refused.contains("native") && refused.contains("does not support"), "{refused}");
    }
    alice.udp(&bob).size(1500).count(500).rate(500).run().expect_every_one();
    expect_a_clean_end(&weir);
}

/// Starts a stream that nobody expects to arrive whole.
fn under_traffic(bench: &Bench, work: impl FnOnce()) {
    let stream = bench.alice.udp(&bench.bob).rate(1_000).count(3_000).start();
    std::thread::sleep(Duration::from_millis(500));
    work();
    drop(stream.finish());
}

#[test]
fn a_reset_of_the_physical_function_under_traffic_is_survived() {
    let Some((bench, weir)) = with_weir() else { return };
    bench.alice.ping(&bench.bob).expect_all_within(LINK);
    for _ in 0..2 {
        under_traffic(&bench, || {
            bench.bob.ip("link set east down");
            std::thread::sleep(Duration::from_millis(500));
            bench.bob.ip("link set east up");
            // Addresses of IPv6 and routes go with the link.
            bench.bob.ip("route replace default via 10.2.0.1 dev east");
        });
        bench.card.await_carrier();
        bench.alice.ping(&bench.bob).expect_all_within(LINK);
    }
    bench.alice.tcp(&bench.bob).expect_bytes(500_000);
    expect_a_clean_end(&weir);
}

#[test]
fn a_virtual_function_taken_away_in_use_is_driven_again_when_it_is_back() {
    let Some((bench, weir)) = with_weir() else { return };
    bench.alice.ping(&bench.bob).expect_all_within(LINK);
    let function = bench.functions.list[0].clone();
    under_traffic(&bench, || bench.functions.unbind(&function));
    // The other port goes on.
    bench.bob.ping("10.2.0.1").expect_all();
    let state = port(&weir, "west");
    assert_ne!(state.get("state").and_then(Value::as_str), Some("up"), "{state}");
    bench.functions.bind(&function);
    bench.alice.ping(&bench.bob).expect_all_within(LINK);
    weir.counters().expect_conserved();
    weir.terminate();
    // DPDK has complained of the function while it was away.
    assert!(weir.log().contains("frames came back") && !weir.log().contains("were lost"), "{}", weir.log());
}
