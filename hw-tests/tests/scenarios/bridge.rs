//! Bridge domains over three sites: learning, ageing, flooding, split horizon (IEEE 802.1Q, RFC 7348).

use std::time::Duration;

use weir_hw_tests::{Lab, Node, WeirBox};

struct ThreeSites {
    hosts: [Node; 3],
    weirs: [WeirBox; 3],
    _lab: Lab,
}

/// Three sites with one host each in one subnet; every weir has one tunnel with the other two as remotes.
fn three_sites(ageing: &str) -> ThreeSites {
    let lab = Lab::new();
    let switch = lab.switch();
    let site = |n: usize| {
        let others: Vec<_> = (1..=3).filter(|m| *m != n).map(|m| format!("\"192.0.2.{m}\"")).collect();
        let weir = lab.weir(&format!(
            r#"
            [bridge.lan]
            ageing = "{ageing}"

            [port.pods]
            device = "pods"
            mode = "dedicated"
            bridge = "lan"

            [port.underlay]
            device = "underlay"
            mode = "dedicated"
            addresses = ["192.0.2.{n}/24"]

            [tunnel.to-others.vxlan]
            local = "192.0.2.{n}"
            remotes = [{}]
            vni = 300
            bridge = "lan"
            "#,
            others.join(", ")
        ));
        let host = lab.host(&format!("10.1.0.{n}0/24 2001:db8:1::{n}0/64"));
        lab.wire(&host, &weir, "pods").mtu(1450);
        lab.wire(&weir, &switch, "underlay");
        (host, weir)
    };
    let ((alice, a), (bob, b), (carol, c)) = (site(1), site(2), site(3));
    ThreeSites { hosts: [alice, bob, carol], weirs: [a, b, c], _lab: lab }
}

#[test]
fn three_sites_share_a_subnet() {
    let sites = three_sites("300s");
    let [alice, bob, carol] = &sites.hosts;
    for (from, to) in [(alice, bob), (bob, carol), (carol, alice), (bob, alice)] {
        from.ping(to).expect_all();
        from.ping(to).v6().expect_all();
    }
    alice.tcp(carol).expect_bytes(5_000_000);
    sites.weirs.iter().for_each(|weir| drop(weir.counters().expect_conserved().clone()));
}

/// RFC 7348: what came out of a tunnel never goes back into one of the same domain, so nobody gets a frame twice.
#[test]
fn a_broadcast_reaches_every_site_exactly_once() {
    let sites = three_sites("300s");
    let [alice, bob, carol] = &sites.hosts;
    alice.ping(bob).expect_all();
    let (mut at_alice, mut at_bob, mut at_carol) =
        (alice.capture("pods"), bob.capture("pods"), carol.capture("pods"));
    alice.ping("10.1.0.99").count(3).expect_none();
    // Alice's kernel goes on asking for a while.
    std::thread::sleep(Duration::from_secs(3));
    let asked = "arp.opcode == 1 && arp.dst.proto_ipv4 == 10.1.0.99";
    let sent = at_alice.count(asked);
    assert!(sent > 0);
    assert_eq!((at_bob.count(asked), at_carol.count(asked)), (sent, sent));
}

#[test]
fn a_learned_address_is_not_flooded() {
    let sites = three_sites("300s");
    let [alice, bob, carol] = &sites.hosts;
    alice.ping(bob).expect_all();
    let mut at_carol = carol.capture("pods");
    alice.ping(bob).count(20).expect_all();
    // Something that carol does get, so that silence means something.
    alice.ping(carol).expect_all();
    at_carol.expect_some("icmp && ip.dst == 10.1.0.30").expect_none("icmp && ip.addr == 10.1.0.20");
    let learned = sites.weirs[0].show("bridge").to_string();
    let address = bob.ip("-br link show pods").split_whitespace().nth(2).unwrap_or_default().to_owned();
    assert!(learned.contains(&address), "{address} is not in {learned}");
}

#[test]
fn an_address_that_aged_out_is_flooded_again() {
    let sites = three_sites("1s");
    let [alice, bob, carol] = &sites.hosts;
    alice.ping(bob).expect_all();
    std::thread::sleep(Duration::from_millis(3_500));
    let mut at_carol = carol.capture("pods");
    // Bob says nothing by which he would be learned again.
    alice.udp(bob).count(5).run().expect_every_one();
    at_carol.expect_some("udp && ip.dst == 10.1.0.20");
}

#[test]
fn a_host_that_moves_is_found_at_its_new_site() {
    let sites = three_sites("300s");
    let [alice, bob, carol] = &sites.hosts;
    alice.ping(bob).expect_all();
    let address = bob.ip("-br link show pods").split_whitespace().nth(2).unwrap_or_default().to_owned();
    bob.ip("link set pods down");
    carol.ip("link set pods down");
    carol.ip(&format!("link set pods address {address}"));
    carol.ip("link set pods up");
    carol.ip("addr add 10.1.0.20/24 dev pods");
    // Its first frame tells every site.
    carol.ping("10.1.0.10").expect_all();
    alice.ping("10.1.0.20").expect_all();
    sites.weirs[0].counters().expect_conserved().expect_at_least("mac_moves", 1);
}

/// IEEE 802.1Q section 8.6.3: frames to 01-80-C2-00-00-0X are not forwarded.
#[test]
fn link_local_group_addresses_are_not_forwarded() {
    let sites = three_sites("300s");
    let [alice, bob, _] = &sites.hosts;
    let mut at_bob = bob.capture("pods");
    alice.ip("neigh replace 10.1.0.98 lladdr 01:80:c2:00:00:0e dev pods");
    alice.ping("10.1.0.98").count(3).expect_none();
    alice.ping(bob).expect_all();
    at_bob.expect_some("icmp").expect_none("eth.dst == 01:80:c2:00:00:0e");
    sites.weirs[0].counters().expect_conserved().expect("dropped.bridge_reserved", 3);
}
