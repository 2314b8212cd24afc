//! What survives a change of the configuration, and what must not.
#![allow(missing_docs, clippy::unwrap_used, clippy::panic, clippy::expect_used, clippy::indexing_slicing)]

mod common;

use common::Lab;
use common::bed::{ALICE, BOB, LAN, WAN, bridged, neighbour, routed};
use weir_dataplane::decision::VrfId;
use weir_dataplane::packet::builder::Packet;

fn frame(from: &str, to: &str) -> Vec<u8> {
    Packet::ethernet(from, to).ipv4("10.1.0.1", "10.1.0.2").udp(1, 2).build()
}

fn bridges(two: &str) -> String {
    let ports =
        [bridged("one", "red"), bridged("two", two), bridged("three", "blue"), bridged("four", "red")];
    format!("[bridge.red]\n[bridge.blue]\n{}", ports.concat())
}

#[test]
fn addresses_learned_behind_a_port_that_changes_its_bridge_are_forgotten() {
    let mut lab = Lab::new(&bridges("red"));
    lab.inject("two", &frame(BOB, ALICE));
    lab.inject("one", &frame(ALICE, BOB));
    lab.take();
    lab.apply(&bridges("blue"));
    lab.inject("one", &frame(ALICE, BOB));
    assert_eq!(lab.take()[0].0, "four", "unknown: flooded within red");
    lab.inject("three", &frame(ALICE, BOB));
    assert_eq!(lab.take()[0].0, "two", "flooded within blue");
    lab.apply(&bridges("red"));
    lab.inject("one", &frame(ALICE, BOB));
    let mut ports: Vec<String> = lab.take().into_iter().map(|(port, _)| port).collect();
    ports.sort_unstable();
    assert_eq!(
        ports,
        ["four", "two"],
        "what was learned before the port left is not believed when it is back"
    );
}

fn router(wan: &str, mac: &str) -> String {
    let lan = routed("a", LAN, &["10.1.0.1/24"]) + &neighbour("a", "10.1.0.2", mac);
    format!("[bridge.lan]\n[port.b]\nmode = \"dedicated\"\nmac = \"{WAN}\"\n{wan}\n{lan}")
}

const ROUTED: &str = r#"addresses = ["10.2.0.1/24"]"#;

fn neighbours(lab: &Lab) -> Vec<(String, u32, String)> {
    let entries = lab.engine.snapshot().tables.neighbours.entries(lab.engine.now());
    let text = |mac: Option<weir_config::MacAddress>| mac.map(|mac| mac.to_string()).unwrap_or_default();
    entries.into_iter().map(|entry| (entry.ip.to_string(), entry.adjacency.0, text(entry.mac))).collect()
}

#[test]
fn a_static_neighbour_with_a_new_address_keeps_its_adjacency() {
    let mut lab = Lab::new(&router(ROUTED, ALICE));
    assert_eq!(neighbours(&lab), [("10.1.0.2".to_owned(), 0, ALICE.to_owned())]);
    lab.apply(&router(ROUTED, BOB));
    assert_eq!(neighbours(&lab), [("10.1.0.2".to_owned(), 0, BOB.to_owned())]);
}

#[test]
fn neighbours_of_an_interface_that_is_routed_no_more_are_forgotten() {
    let mut lab = Lab::new(&router(ROUTED, ALICE));
    let packet = Packet::ethernet(ALICE, LAN).ipv4("10.1.0.2", "10.2.0.9").udp(1, 2).build();
    lab.inject("a", &packet);
    let request = lab.take().remove(0);
    lab.answer_arp(&request, BOB);
    assert_eq!(neighbours(&lab).len(), 2);
    lab.apply(&router("bridge = \"lan\"", ALICE));
    assert_eq!(neighbours(&lab).len(), 1);
}

#[test]
fn routes_that_stay_are_compiled_once() {
    let mut lab = Lab::new(&router(ROUTED, ALICE));
    let fib = |lab: &Lab| std::sync::Arc::as_ptr(&lab.engine.snapshot().pipeline.vrf(VrfId(0)).unwrap().fib);
    let first = fib(&lab);
    for mac in [BOB, ALICE, BOB] {
        lab.apply(&router(ROUTED, mac));
        assert_eq!(fib(&lab), first);
    }
    lab.apply(&router("bridge = \"lan\"", ALICE));
    assert_ne!(fib(&lab), first);
}
