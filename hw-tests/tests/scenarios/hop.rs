//! Attached hops: a container that is an unmodified Linux kernel with a bridge between two veths sits in a chain.

use std::time::Duration;

use weir_hw_tests::{Lab, Node, WeirBox, Wire};

use crate::sites::{ALICE, BOB, ROUTER};

/// A firewall in front of the container, a translator behind it.
const CHAIN: &str = r#"
    [port.ids-a]
    device = "ids-a"
    mode = "dedicated"

    [port.ids-b]
    device = "ids-b"
    mode = "dedicated"

    [hop.ids]
    attach = ["ids-a", "ids-b"]

    [service.edge.firewall]
    default = "drop"
    rules = [
        { allow = "tcp", to-port = [80, 443] },
        { allow = "udp" },
        { allow = "icmp" },
        { allow = "icmp6" },
    ]

    [service.out.nat]
    snat = { from = "10.1.0.0/24", to = "masquerade" }

    [chain.web]
    hops = ["edge", "ids", "out"]

    [[classify]]
    from = "port.west"
    chain = "web"
"#;

/// What runs in the container: nothing but the kernel's bridge, with IPv6 and all that it says for itself.
const CONTAINER: &str = "
    link add bump type bridge
    link set bump up
    link set ids-a master bump
    link set ids-b master bump
";

struct Site {
    _lab: Lab,
    alice: Node,
    weir: WeirBox,
    bob: Node,
    ids: Node,
    arms: [Wire; 2],
}

/// alice ── weir ── bob, and a container beside weir.
fn site(chain: &str) -> Site {
    let lab = Lab::new();
    let (alice, bob, weir) = (lab.host(ALICE), lab.host(BOB), lab.weir(&format!("{ROUTER}{chain}")));
    let ids = lab.linux(CONTAINER);
    lab.wire(&alice, &weir, "west");
    lab.wire(&weir, &bob, "east");
    let arms = [lab.wire(&weir, &ids, "ids-a"), lab.wire(&weir, &ids, "ids-b")];
    Site { _lab: lab, alice, weir, bob, ids, arms }
}

/// The state of the hop, as `weir show chains` has it.
fn state(weir: &WeirBox) -> String {
    weir.show("chains")["chains"][0]["hops"][1]["state"].as_str().unwrap_or_default().to_owned()
}

#[test]
fn connections_pass_a_container_between_a_firewall_and_a_translator() {
    let Site { _lab, alice, weir, bob, ids, .. } = site(CHAIN);
    let (mut inner, mut outer) = (ids.capture("ids-a"), ids.capture("ids-b"));
    let mut east = bob.capture("east");
    alice.ping(&bob).expect_all();
    alice.ping(&bob).v6().expect_all();
    alice.ping(&bob).size(1500).df(true).expect_all();
    alice.ping(&bob).ttl(1).count(1).expect_error("From 10.1.0.1 icmp_seq=1 Time to live exceeded");
    alice.tcp(&bob).port(443).expect_bytes(5_000_000);
    alice.tcp(&bob).v6().port(443).expect_bytes(1_000_000);
    alice.tcp(&bob).port(22).expect_silence();
    alice.udp(&bob).count(50).run().expect_every_one();
    // The container sees both directions, untranslated, as alice and weir sent them; and nothing that was denied.
    for capture in [&mut inner, &mut outer] {
        capture.assert_clean_capture();
        capture
            .expect_some("ip.src == 10.1.0.2 && ip.dst == 10.2.0.2 && tcp")
            .expect_some("ip.src == 10.2.0.2 && ip.dst == 10.1.0.2 && tcp")
            .expect_some("ipv6 && tcp")
            .expect_none("ip.src == 10.1.0.2 && tcp && ip.ttl != 64")
            .expect_none("tcp.port == 22")
            .expect_none("ip.addr == 10.2.0.1");
    }
    east.assert_clean_capture();
    east.expect_some("ip.src == 10.2.0.1 && tcp && ip.ttl == 63").expect_none("ip.addr == 10.1.0.0/24");
    assert_eq!(state(&weir), "up");
    let text = weir.show_text("chains");
    assert!(text.contains("ids-a, ids-b") && text.contains("reverse"), "{text}");
    // The kernel in the container talks of itself (IPv6): that goes nowhere.
    weir.counters().expect_conserved().expect_at_least("dropped.hop_stray", 1);
}

#[test]
fn a_container_whose_interface_goes_down_stops_its_chain_until_it_is_back() {
    let Site { _lab, alice, weir, bob, ids, arms } = site(CHAIN);
    alice.ping(&bob).expect_all();
    ids.ip("link set ids-b down");
    let down = weir_hw_tests::eventually(Duration::from_secs(5), || (state(&weir) == "down").then_some(()));
    assert!(down.is_some(), "the hop is {}", state(&weir));
    alice.ping(&bob).count(3).expect_none();
    weir.counters().expect_conserved().expect_at_least("dropped.hop_down", 3);
    // What does not take the chain goes on.
    bob.ping("10.1.0.1").count(3).expect_all();
    ids.ip("link set ids-b up");
    alice.ping(&bob).expect_all_within(Duration::from_secs(15));
    alice.tcp(&bob).port(443).expect_bytes(1_000_000);
    // The container goes away altogether, and another one comes.
    arms[0].delete();
    let down = weir_hw_tests::eventually(Duration::from_secs(5), || (state(&weir) == "down").then_some(()));
    assert!(down.is_some(), "the hop is {}", state(&weir));
    alice.ping(&bob).count(3).expect_none();
    arms[0].create();
    alice.ping(&bob).expect_all_within(Duration::from_secs(15));
    alice.tcp(&bob).port(443).expect_bytes(1_000_000);
    weir.counters().expect_conserved();
}

#[test]
fn a_connection_goes_on_past_an_open_hop_that_is_down() {
    let open = CHAIN
        .replace("attach = [\"ids-a\", \"ids-b\"]", "attach = [\"ids-a\", \"ids-b\"]\n    fail = \"open\"");
    let Site { _lab, alice, weir, bob, ids, .. } = site(&open);
    let transfer = alice.tcp(&bob).port(443).rate(1_000_000).start(8_000_000);
    std::thread::sleep(Duration::from_secs(2));
    ids.ip("link set ids-a down");
    let skipped =
        weir_hw_tests::eventually(Duration::from_secs(5), || (state(&weir) == "open").then_some(()));
    assert!(skipped.is_some(), "the hop is {}", state(&weir));
    alice.ping(&bob).count(3).expect_all();
    ids.ip("link set ids-a up");
    transfer.finish().expect_bytes(8_000_000);
    alice.ping(&bob).expect_all_within(Duration::from_secs(15));
    assert_eq!(state(&weir), "up");
    weir.counters().expect_conserved();
}

#[test]
fn a_router_on_a_stick_is_a_hop_with_one_arm() {
    let one = CHAIN
        .replace("attach = [\"ids-a\", \"ids-b\"]", "attach = \"ids-a\"")
        .replace("[port.ids-b]\n    device = \"ids-b\"\n    mode = \"dedicated\"\n", "");
    let lab = Lab::new();
    let (alice, bob, weir) = (lab.host(ALICE), lab.host(BOB), lab.weir(&format!("{ROUTER}{one}")));
    // A bridge that gives back by the port that a frame came in by.
    let ids = lab.linux(
        "link add bump type bridge
         link set bump up
         link set ids-a master bump
         link set ids-a type bridge_slave hairpin on learning off",
    );
    lab.wire(&alice, &weir, "west");
    lab.wire(&weir, &bob, "east");
    lab.wire(&weir, &ids, "ids-a");
    alice.ping(&bob).expect_all();
    alice.tcp(&bob).port(443).expect_bytes(2_000_000);
    alice.tcp(&bob).port(22).expect_silence();
    weir.counters().expect_conserved();
}
