//! Changes while packets flow: none is lost, sessions survive, and a wrong configuration changes nothing.

use crate::sites::{ALICE, BOB, EAST, ROUTER, WEST, one_router, two_sites};

const MORE: &str = r#"
    [[vrf.default.route]]
    prefix = "10.77.0.0/16"
    via = { blackhole = true }

    [service.edge.firewall]
    default = "allow"
    rules = [{ deny = "tcp", to-port = 9 }]

    [chain.guarded]
    hops = ["edge"]

    [[classify]]
    from = "port.west"
    chain = "guarded"
"#;

#[test]
fn a_hundred_reloads_lose_no_packet() {
    let (_lab, alice, router, bob) = one_router(ROUTER);
    let more = format!("{ROUTER}{MORE}");
    // Neighbours are resolved first: packets that are held for one may be overtaken.
    alice.ping(&bob).expect_all();
    let stream = alice.udp(&bob).rate(2_000).count(1_000_000).start();
    for _ in 0..50 {
        router.apply(&more);
        router.apply(ROUTER);
    }
    assert!(stream.is_running());
    let report = stream.stop();
    report.expect_every_one().expect_in_order();
    router.counters().expect_conserved();
}

#[test]
fn reloads_with_tunnels_lose_no_packet() {
    let sites = two_sites([ALICE, BOB], WEST, EAST);
    let more = format!("{WEST}{}", MORE.replace("port.west", "port.pods"));
    let stream = sites.alice.udp(&sites.bob).rate(2_000).count(1_000_000).start();
    for _ in 0..10 {
        sites.west.apply(&more);
        sites.west.apply(WEST);
    }
    stream.stop().expect_every_one();
}

#[test]
fn a_transfer_survives_reloads_by_apply_and_by_sighup() {
    let (_lab, alice, router, bob) = one_router(&format!("{ROUTER}{MORE}"));
    let transfer = alice.tcp(&bob).rate(5_000_000).start(10_000_000);
    let before = router.generation();
    router.apply(ROUTER);
    router.reload(&format!("{ROUTER}{MORE}"));
    assert!(transfer.is_running() && router.generation() > before);
    transfer.finish().expect_bytes(10_000_000);
    router.counters().expect_conserved();
}

#[test]
fn a_new_rule_takes_hold_of_new_connections() {
    let (_lab, alice, router, bob) = one_router(ROUTER);
    alice.tcp(&bob).port(9).expect_bytes(1_000);
    router.apply(&format!("{ROUTER}{MORE}"));
    alice.tcp(&bob).port(9).expect_silence();
    router.apply(ROUTER);
    alice.tcp(&bob).port(9).expect_bytes(1_000);
}

#[test]
fn a_wrong_configuration_is_refused_whole_and_changes_nothing() {
    let (_lab, alice, router, bob) = one_router(ROUTER);
    alice.ping(&bob).expect_all();
    let before = router.generation();
    let wrong = format!(
        "{ROUTER}\n[[vrf.default.route]]\nprefix = \"10.2.0.0/25\"\nvia = {{ tunnel = \"nowhere\" }}\n"
    );
    let refusal = router.try_apply(&wrong).expect_err("a route into a missing tunnel was accepted");
    assert!(refusal.contains("nowhere") && refusal.contains("error["), "{refusal}");
    let typo = ROUTER.replace("mode = \"dedicated\"", "moed = \"dedicated\"");
    let refusal = router.try_apply(&typo).expect_err("an unknown key was accepted");
    assert!(refusal.contains("moed") && refusal.contains("mode"), "{refusal}");
    assert!(router.try_apply("this is = not [toml").is_err());
    assert_eq!(router.generation(), before);
    alice.ping(&bob).expect_all();
}

#[test]
fn a_malformed_request_leaves_the_state_untouched() {
    let (_lab, alice, router, bob) = one_router(ROUTER);
    alice.ping(&bob).expect_all();
    let before = router.generation();
    router.say(b"\x00\xff garbage\r\n\r\n");
    let answer = router
        .say(b"PUT /nowhere HTTP/1.1\r\nhost: weir\r\nconnection: close\r\ncontent-length: 2\r\n\r\n{}");
    assert!(answer.starts_with("HTTP/1.1 4"), "{answer}");
    let request = "POST /v1/config HTTP/1.1\r\nhost: weir\r\nconnection: close\r\ncontent-type: application/json\r\n\
                   content-length: 13\r\n\r\n{ \"port\": [1 ";
    let answer = router.say(request.as_bytes());
    assert!(answer.starts_with("HTTP/1.1 4"), "{answer}");
    // Half a request, and silence.
    router.say(b"POST /v1/config HTTP/1.1\r\ncontent-length: 1000\r\n\r\n{");
    assert_eq!(router.generation(), before);
    alice.ping(&bob).expect_all();
    router.counters().expect_conserved();
}

#[test]
fn a_port_is_opened_another_way_or_under_another_name_while_weir_runs() {
    let (_lab, alice, router, bob) = one_router(ROUTER);
    alice.ping(&bob).expect_all();
    router.apply(&ROUTER.replace("device = \"east\"", "device = \"east\"\nxdp = \"generic\""));
    alice.ping(&bob).expect_all();
    assert!(router.show_text("ports").contains("generic"));
    router.apply(&ROUTER.replace("[port.east]", "[port.renamed]"));
    alice.ping(&bob).expect_all();
    // Opening what is not there fails, and what was closed to make way is there again.
    let refused = router.try_apply(&ROUTER.replace("device = \"east\"", "device = \"nothing\"")).unwrap_err();
    assert!(refused.contains("nothing"), "{refused}");
    alice.ping(&bob).expect_all();
    router.counters().expect_conserved();
}
