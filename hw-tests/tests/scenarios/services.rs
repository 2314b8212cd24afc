//! Service chains: a stateful firewall and a policer, by themselves and in one chain.

use std::time::Duration;

use weir_hw_tests::Lab;

use crate::sites::{ALICE, BOB, EAST, ROUTER, WEST, one_router, two_sites};

/// What alice may open towards bob; bob may open nothing.
const FIREWALL: &str = r#"
    [service.edge.firewall]
    default = "drop"
    rules = [
        { allow = "tcp", to-port = 443 },
        { reject = "tcp", to-port = 23 },
        { reject = "udp", to-port = 23 },
        { allow = "icmp" },
        { allow = "icmp6" },
        { allow = "udp", to-port = "5000-5999" },
    ]

    [chain.guarded]
    hops = ["edge"]

    [[classify]]
    from = "port.west"
    chain = "guarded"
"#;

#[test]
fn a_firewall_allows_with_replies_denies_silently_and_rejects_aloud() {
    let (_lab, alice, router, bob) = one_router(&format!("{ROUTER}{FIREWALL}"));
    let mut capture = alice.capture("west");
    alice.tcp(&bob).port(443).expect_bytes(1_000_000);
    alice.tcp(&bob).v6().port(443).expect_bytes(1_000_000);
    alice.ping(&bob).expect_all();
    alice.ping(&bob).v6().expect_all();
    alice.udp(&bob).count(50).run().expect_every_one();
    alice.tcp(&bob).port(80).expect_silence();
    alice.tcp(&bob).v6().port(80).expect_silence();
    alice.tcp(&bob).port(23).expect_refused();
    alice.tcp(&bob).v6().port(23).expect_refused();
    capture.assert_clean_capture();
    let counters = router.counters();
    counters
        .expect_conserved()
        .expect_at_least("dropped.firewall_denied", 4)
        .expect("dropped.firewall_rejected", 2);
}

/// RFC 1812 section 5.2.7.1: communication administratively prohibited.
#[test]
fn a_rejected_datagram_is_answered_by_an_icmp_error() {
    let (_lab, alice, router, bob) = one_router(&format!("{ROUTER}{FIREWALL}"));
    let mut capture = alice.capture("west");
    assert_eq!(alice.udp(&bob).port(23).count(1).run().received, 0);
    assert_eq!(alice.udp(&bob).v6().port(23).count(1).run().received, 0);
    capture.assert_clean_capture();
    capture
        .expect_some("icmp.type == 3 && icmp.code == 13")
        .expect_some("icmpv6.type == 1 && icmpv6.code == 1");
    router.counters().expect("dropped.firewall_rejected", 2);
}

#[test]
fn sessions_open_one_way_only() {
    let inward = FIREWALL.replace("from = \"port.west\"", "from = [\"port.west\", \"port.east\"]");
    let only_icmp =
        inward.replace("{ allow = \"tcp\", to-port = 443 },", "{ allow = \"tcp\", from = \"10.1.0.0/24\" },");
    let (_lab, alice, router, bob) = one_router(&format!("{ROUTER}{only_icmp}"));
    alice.tcp(&bob).port(8080).expect_bytes(100_000);
    bob.tcp(&alice).port(8080).expect_silence();
    router.counters().expect_conserved().expect_at_least("dropped.firewall_denied", 1);
}

#[test]
fn a_firewall_guards_a_tunnel() {
    let guarded = format!("{WEST}{FIREWALL}").replace("from = \"port.west\"", "from = \"port.pods\"");
    let mut sites = two_sites([ALICE, BOB], &guarded, EAST);
    sites.alice.tcp(&sites.bob).port(443).expect_bytes(5_000_000);
    sites.alice.tcp(&sites.bob).port(80).expect_silence();
    sites.alice.ping(&sites.bob).expect_all();
    sites.underlay.assert_clean_capture().expect_none("tcp.dstport == 80");
}

const POLICER: &str = r#"
    [service.thin.policer]
    rules = [{ rate = "2Mbit/s", burst = "20KB", protocol = "udp" }]

    [chain.thinned]
    hops = ["thin"]

    [[classify]]
    from = "port.west"
    chain = "thinned"
"#;

#[test]
fn a_policer_lets_through_what_its_bucket_holds_and_no_more() {
    let (_lab, alice, router, bob) = one_router(&format!("{ROUTER}{POLICER}"));
    // 1000 packets of 1000 bytes a second are 8 Mbit/s, four times the rate.
    let report = alice.udp(&bob).size(1_000).rate(1_000).count(3_000).run();
    let bucket = 20_000.0 + 250_000.0 * report.took.as_secs_f64();
    let share = report.bytes as f64 / bucket;
    assert!((0.85..=1.02).contains(&share), "{} bytes came where {bucket} may: {share}", report.bytes);
    assert!(report.duplicated.is_empty());
    router.counters().expect_conserved().expect("dropped.policed", u64::from(report.sent - report.received));
    // What no rule is about is not policed.
    alice.tcp(&bob).expect_bytes(5_000_000);
}

#[test]
fn a_policer_counts_packets_where_the_rate_is_in_packets() {
    let packets = POLICER.replace("2Mbit/s", "100pps").replace("20KB", "50 packets");
    let (_lab, alice, router, bob) = one_router(&format!("{ROUTER}{packets}"));
    let report = alice.udp(&bob).rate(1_000).count(2_000).run();
    let bucket = 50.0 + 100.0 * report.took.as_secs_f64();
    let share = f64::from(report.received) / bucket;
    assert!((0.9..=1.02).contains(&share), "{} packets came where {bucket} may", report.received);
    router.counters().expect("dropped.policed", u64::from(report.sent - report.received));
}

#[test]
fn each_source_has_its_own_bucket_where_the_policer_says_so() {
    let own = POLICER.replace("burst = \"20KB\"", "burst = \"20KB\", per = \"source\"");
    let lab = Lab::new();
    let (router, switch) = (lab.weir(&format!("{ROUTER}{own}")), lab.switch());
    let (alice, carol, bob) = (lab.host(ALICE), lab.host("10.1.0.3/24"), lab.host(BOB));
    lab.wire(&alice, &switch, "west");
    lab.wire(&carol, &switch, "west");
    lab.wire(&router, &switch, "west");
    lab.wire(&router, &bob, "east");
    let loud = alice.udp(&bob).size(1_000).rate(1_000).count(2_000).start();
    std::thread::sleep(Duration::from_millis(500));
    // 100 packets of 1000 bytes a second fit 2 Mbit/s; the loud one's bucket is empty.
    let quiet = carol.udp(&bob).port(5003).size(1_000).rate(100).count(100).run();
    let loud = loud.finish();
    assert!(loud.missing.len() > 500, "the loud source was not policed");
    quiet.expect_every_one();
    router.counters().expect_conserved();
}

#[test]
fn a_chain_asks_its_hops_in_order() {
    let both = format!("{ROUTER}{FIREWALL}{}", &POLICER[..POLICER.find("[chain.thinned]").unwrap_or(0)]);
    let both = both.replace("hops = [\"edge\"]", "hops = [\"edge\", \"thin\"]");
    let (_lab, alice, router, bob) = one_router(&both);
    let report = alice.udp(&bob).size(1_000).rate(1_000).count(1_000).run();
    assert!(report.received > 100 && report.received < 600, "{report:?}");
    let denied = alice.udp(&bob).port(6_000).count(100).run();
    assert_eq!(denied.received, 0);
    let policed = u64::from(report.sent - report.received);
    router
        .counters()
        .expect_conserved()
        .expect("dropped.policed", policed)
        .expect("dropped.firewall_denied", 100);
}
