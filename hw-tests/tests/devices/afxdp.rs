//! AF_XDP on network cards: alice at the far end of a cable, weir at the near end, bob behind a veth pair.

use std::time::Duration;

use serde_json::Value;
use weir_hw_tests::{Lab, Nic, Node, WeirBox, eventually};

use crate::cards::{Cable, cables, skipped};

const ALICE: &str = "10.1.0.2/24 2001:db8:1::2/64";
const BOB: &str = "10.2.0.2/24 2001:db8:2::2/64";
/// Frames of 4096 bytes: see docs/ports.md on what zero-copy asks for.
pub(crate) const ROUTER: &str = r#"
    [workers]
    cores = [0]
    [memory]
    frame-size = 4096
    [port.west]
    device = "west"
    mode = "dedicated"
    addresses = ["10.1.0.1/24", "2001:db8:1::1/64"]
    [port.east]
    device = "east"
    mode = "dedicated"
    addresses = ["10.2.0.1/24", "2001:db8:2::1/64"]
"#;
/// How long a card may take to pass packets after its link went down.
pub(crate) const LINK: Duration = Duration::from_secs(30);

struct Bench {
    lab: Lab,
    alice: Node,
    bob: Node,
    weir: WeirBox,
    card: Nic,
}

/// alice ══ cable ══ weir ── veth ── bob
fn bench(cable: &Cable, configuration: &str) -> Bench {
    let lab = Lab::new();
    let (alice, bob, weir) = (lab.host(ALICE), lab.host(BOB), lab.weir(configuration));
    lab.nic(&alice, &cable.far, "west");
    let card = lab.nic(&weir, &cable.card, "west");
    lab.wire(&weir, &bob, "east");
    lab.start();
    Bench { lab, alice, bob, weir, card }
}

pub(crate) fn port(weir: &WeirBox, name: &str) -> Value {
    let ports = weir.show("ports");
    let list = ports.get("ports").unwrap_or(&ports).as_array().expect("a list of ports").clone();
    let found = list.into_iter().find(|port| port.get("name").and_then(Value::as_str) == Some(name));
    found.unwrap_or_else(|| panic!("no port {name}: {ports}"))
}

pub(crate) fn text<'a>(port: &'a Value, key: &str) -> &'a str {
    port.get(key).and_then(Value::as_str).unwrap_or_default()
}

pub(crate) fn sum(port: &Value, key: &str) -> u64 {
    let queues = port.get("queues").and_then(Value::as_array).expect("queues");
    queues.iter().filter_map(|queue| queue.get(key)?.as_u64()).sum()
}

fn free_frames(weir: &WeirBox) -> u64 {
    let memory = weir.show("memory");
    let tables = memory.get("tables").unwrap_or(&memory).as_array().expect("a list of tables");
    let frames = tables.iter().find(|table| table.get("table").and_then(Value::as_str) == Some("frames"));
    let number = |key| frames.and_then(|table| table.get(key)?.as_u64()).expect("use of frames");
    number("limit") - number("used")
}

/// Expects that as many frames are free as were, but for what the worker keeps for itself.
fn expect_free_frames(weir: &WeirBox, before: u64) {
    const CACHE: u64 = 512;
    let back = eventually(Duration::from_secs(5), || (free_frames(weir) + CACHE >= before).then_some(()));
    assert!(back.is_some(), "{} frames are free, {before} were", free_frames(weir));
}

/// Ends weir and expects that nothing was lost or warned of.
pub(crate) fn expect_a_clean_end(weir: &WeirBox) {
    weir.counters().expect_conserved();
    weir.terminate();
    let log = weir.log();
    assert!(log.contains(" frames came back") && !log.contains("the others were lost"), "{log}");
    assert!(!log.contains("ERROR"), "{log}");
}

#[test]
fn weir_says_which_xdp_mode_it_got_of_a_card() {
    let Some(cables) = cables(1) else { return };
    for cable in &cables.list {
        let bench = bench(cable, ROUTER);
        let port = port(&bench.weir, "west");
        let told = bench.weir.show_text("ports");
        println!("{}: driver {}, XDP {}; {}", cable.card, text(&port, "driver"), text(&port, "xdp"), port);
        match &cable.xdp {
            Some(expected) => assert_eq!(text(&port, "xdp"), expected, "{port}"),
            None => skipped(&format!("{}: WEIR_XDP_A does not say what to expect", cable.card)),
        }
        assert!(told.contains(text(&port, "xdp")) && told.contains(text(&port, "driver")), "{told}");
        bench.alice.ping(&bench.bob).expect_all_within(LINK);
    }
}

#[test]
fn packets_of_every_size_pass_a_card_unharmed_and_are_counted() {
    let Some(cables) = cables(1) else { return };
    for cable in &cables.list {
        let Bench { lab: _lab, alice, bob, weir, .. } = bench(cable, ROUTER);
        alice.ping(&bob).expect_all_within(LINK);
        for size in [28, 46, 64, 128, 511, 1000, 1010, 1011, 1024, 1025, 1280, 1499, 1500] {
            alice.ping(&bob).size(size).df(true).count(3).expect_all();
        }
        bob.ping(&alice).v6().size(1500).df(true).expect_all();
        let mut capture = alice.capture("west");
        alice.tcp(&bob).expect_bytes(1_000_000);
        bob.tcp(&alice).v6().expect_bytes(1_000_000);
        alice.udp(&bob).size(1500).count(2_000).rate(1_000).run().expect_every_one();
        bob.udp(&alice).size(64).count(2_000).rate(1_000).run().expect_every_one();
        capture.assert_clean_capture().expect_none("frame.len > 1514");
        let port = port(&weir, "west");
        assert_eq!(
            (sum(&port, "invalid"), sum(&port, "copies"), sum(&port, "rx_missed")),
            (0, 0, 0),
            "{port}"
        );
        assert!(sum(&port, "rx_frames") > 2_000 && sum(&port, "tx_frames") > 2_000, "{port}");
        expect_a_clean_end(&weir);
    }
}

#[test]
fn frames_of_2048_bytes_are_as_good_or_zero_copy_is_refused_in_words() {
    let Some(cables) = cables(1) else { return };
    for cable in &cables.list {
        let small = ROUTER.replace("frame-size = 4096", "frame-size = 2048");
        let Bench { lab: _lab, alice, bob, weir, .. } = bench(cable, &small);
        alice.ping(&bob).expect_all_within(LINK);
        let port = port(&weir, "west");
        println!("{}: driver {}, XDP {}", cable.card, text(&port, "driver"), text(&port, "xdp"));
        for size in [512, 1010, 1011, 1100, 1500] {
            alice.ping(&bob).size(size).df(true).count(2).expect_all();
        }
        if cable.xdp.as_deref() == Some("zero-copy") && text(&port, "xdp") != "zero-copy" {
            let refused = port.get("refused").map(Value::to_string).unwrap_or_default();
            assert!(refused.contains("memory.frame-size = 4096"), "{refused}");
        }
        expect_a_clean_end(&weir);
    }
}

#[test]
fn frames_go_from_card_to_card_without_a_copy() {
    let Some(cables) = cables(2) else { return };
    let [first, second, ..] = cables.list.as_slice() else { return };
    let lab = Lab::new();
    let (alice, bob, weir) = (lab.host(ALICE), lab.host(BOB), lab.weir(ROUTER));
    lab.nic(&alice, &first.far, "west");
    lab.nic(&weir, &first.card, "west");
    lab.nic(&weir, &second.card, "east");
    lab.nic(&bob, &second.far, "east");
    lab.start();
    alice.ping(&bob).expect_all_within(LINK);
    let there = alice.udp(&bob).size(1500).count(5_000).rate(1_000).start();
    let back = bob.udp(&alice).v6().size(700).count(5_000).rate(1_000).start();
    there.finish().expect_every_one();
    back.finish().expect_every_one();
    alice.tcp(&bob).expect_bytes(2_000_000);
    bob.tcp(&alice).expect_bytes(2_000_000);
    for name in ["west", "east"] {
        let port = port(&weir, name);
        assert_eq!((sum(&port, "invalid"), sum(&port, "copies")), (0, 0), "{port}");
    }
    expect_a_clean_end(&weir);
}

#[test]
fn a_card_taken_out_of_the_configuration_gives_every_frame_back() {
    let Some(cables) = cables(1) else { return };
    let without: String = ROUTER.split("[port.west]").next().expect("text before").to_owned()
        + &ROUTER[ROUTER.find("[port.east]").expect("the other port")..];
    for cable in &cables.list {
        let Bench { lab: _lab, alice, bob, weir, .. } = bench(cable, ROUTER);
        alice.ping(&bob).expect_all_within(LINK);
        weir.reload(&without);
        bob.ping("10.2.0.1").expect_all();
        let free = free_frames(&weir);
        for _ in 0..3 {
            weir.reload(ROUTER);
            alice.ping(&bob).expect_all_within(LINK);
            // Taken away while it receives: what the device still has in its hands is not used twice.
            let stream = alice.udp(&bob).size(1_200).rate(2_000).count(4_000).start();
            std::thread::sleep(Duration::from_millis(700));
            weir.reload(&without);
            let report = stream.finish();
            assert!(report.received > 0 && report.duplicated.is_empty(), "{report:?}");
            expect_free_frames(&weir, free);
        }
        expect_a_clean_end(&weir);
    }
}

/// What the kernel of the box can do once the card is its own again.
fn expect_the_kernel_has_it_back(alice: &Node, weir: &WeirBox) {
    let link = weir.ip("-d link show west");
    assert!(!link.contains("xdp"), "an XDP program is still attached: {link}");
    weir.ip("addr add 10.1.0.1/24 dev west");
    alice.ping("10.1.0.1").expect_all_within(LINK);
    weir.ping(alice).size(1500).df(true).expect_all();
    weir.ip("addr del 10.1.0.1/24 dev west");
}

#[test]
fn after_sigkill_and_after_sigterm_the_kernel_has_the_card_back() {
    let Some(cables) = cables(1) else { return };
    for cable in &cables.list {
        let Bench { lab: _lab, alice, bob, weir, .. } = bench(cable, ROUTER);
        alice.ping(&bob).expect_all_within(LINK);
        let stream = alice.udp(&bob).rate(2_000).count(4_000).start();
        weir.kill9();
        drop(stream.finish());
        expect_the_kernel_has_it_back(&alice, &weir);
        weir.restart();
        alice.ping(&bob).expect_all_within(LINK);
        weir.terminate();
        expect_the_kernel_has_it_back(&alice, &weir);
        weir.restart();
        alice.ping(&bob).expect_all_within(LINK);
    }
}

#[test]
fn a_card_that_loses_its_driver_under_traffic_is_taken_back_with_it() {
    let Some(cables) = cables(1) else { return };
    for cable in &cables.list {
        let Bench { lab: _lab, alice, bob, weir, card } = bench(cable, ROUTER);
        alice.ping(&bob).expect_all_within(LINK);
        let free = free_frames(&weir);
        let stream = alice.udp(&bob).rate(2_000).count(4_000).start();
        std::thread::sleep(Duration::from_millis(500));
        card.unbind();
        drop(stream.finish());
        bob.ping("10.2.0.1").expect_all();
        card.bind();
        alice.ping(&bob).expect_all_within(LINK);
        let port = port(&weir, "west");
        if let Some(expected) = &cable.xdp {
            assert_eq!(text(&port, "xdp"), expected, "{port}");
        }
        expect_free_frames(&weir, free);
        expect_a_clean_end(&weir);
    }
}

#[test]
fn a_card_that_goes_down_and_up_under_traffic_carries_packets_again() {
    let Some(cables) = cables(1) else { return };
    for cable in &cables.list {
        let Bench { lab: _lab, alice, bob, weir, .. } = bench(cable, ROUTER);
        alice.ping(&bob).expect_all_within(LINK);
        for _ in 0..2 {
            let stream = alice.udp(&bob).rate(1_000).count(2_000).start();
            let back = bob.udp(&alice).port(5003).rate(1_000).count(2_000).start();
            weir.ip("link set west down");
            std::thread::sleep(Duration::from_millis(500));
            weir.ip("link set west up");
            drop(stream.finish());
            drop(back.finish());
            alice.ping(&bob).expect_all_within(LINK);
        }
        bob.tcp(&alice).expect_bytes(500_000);
        expect_a_clean_end(&weir);
    }
}
