//! Two sites and an underlay, in the configurations that several scenarios share.

use weir_hw_tests::{Capture, Lab, Node, WeirBox};

pub(crate) const ALICE: &str = "10.1.0.2/24 2001:db8:1::2/64";
pub(crate) const BOB: &str = "10.2.0.2/24 2001:db8:2::2/64";

/// A site that routes: pods on one side, a VXLAN tunnel to the other site on the other.
pub(crate) const WEST: &str = r#"
    [port.pods]
    device = "pods"
    mode = "dedicated"
    vrf = "blue"
    addresses = ["10.1.0.1/24", "2001:db8:1::1/64"]

    [port.underlay]
    device = "underlay"
    mode = "dedicated"
    addresses = ["192.0.2.1/24"]

    [tunnel.to-east.vxlan]
    local = "192.0.2.1"
    remote = "192.0.2.2"
    vni = 100
    vrf = "blue"
    addresses = ["10.255.0.1/30", "2001:db8:ff::1/64"]

    [[vrf.blue.route]]
    prefix = "10.2.0.0/24"
    via = { ip = "10.255.0.2" }

    [[vrf.blue.route]]
    prefix = "2001:db8:2::/64"
    via = { ip = "2001:db8:ff::2" }
"#;

/// Its counterpart.
pub(crate) const EAST: &str = r#"
    [port.pods]
    device = "pods"
    mode = "dedicated"
    vrf = "blue"
    addresses = ["10.2.0.1/24", "2001:db8:2::1/64"]

    [port.underlay]
    device = "underlay"
    mode = "dedicated"
    addresses = ["192.0.2.2/24"]

    [tunnel.to-west.vxlan]
    local = "192.0.2.2"
    remote = "192.0.2.1"
    vni = 100
    vrf = "blue"
    addresses = ["10.255.0.2/30", "2001:db8:ff::2/64"]

    [[vrf.blue.route]]
    prefix = "10.1.0.0/24"
    via = { ip = "10.255.0.1" }

    [[vrf.blue.route]]
    prefix = "2001:db8:1::/64"
    via = { ip = "2001:db8:ff::1" }
"#;

/// The same counterpart as Linux does it.
pub(crate) const LINUX_EAST: &str = "
    addr add 192.0.2.2/24 dev underlay
    addr add 10.2.0.1/24 dev pods
    addr add 2001:db8:2::1/64 dev pods
    link add to-west type vxlan id 100 local 192.0.2.2 remote 192.0.2.1 dstport 4789
    link set to-west up
    addr add 10.255.0.2/30 dev to-west
    addr add 2001:db8:ff::2/64 dev to-west
    route add 10.1.0.0/24 via 10.255.0.1
    route add 2001:db8:1::/64 via 2001:db8:ff::1
";

/// A plain router, no tunnel: all ports are its own.
pub(crate) const ROUTER: &str = r#"
    [port.west]
    device = "west"
    mode = "dedicated"
    addresses = ["10.1.0.1/24", "2001:db8:1::1/64"]

    [port.east]
    device = "east"
    mode = "dedicated"
    addresses = ["10.2.0.1/24", "2001:db8:2::1/64"]
"#;

/// The same with the underlay on IPv6. Linux demands an outer UDP checksum there, as RFC 8200 section 8.1 does.
pub(crate) fn over_ipv6(text: &str) -> String {
    text.replace("192.0.2.1/24", "fd00::1/64")
        .replace("192.0.2.2/24", "fd00::2/64")
        .replace("192.0.2.", "fd00::")
}

/// alice ── weir ── switch ── weir ── bob, and a capture of what goes over the underlay.
pub(crate) struct TwoSites {
    pub(crate) alice: Node,
    pub(crate) bob: Node,
    pub(crate) west: WeirBox,
    pub(crate) east: WeirBox,
    pub(crate) underlay: Capture,
    pub(crate) _lab: Lab,
}

/// Two sites by weir at both ends. The hosts' addresses are given, as they differ between routed and bridged sites.
pub(crate) fn two_sites(hosts: [&str; 2], west: &str, east: &str) -> TwoSites {
    let lab = Lab::new();
    let (alice, bob) = (lab.host(hosts[0]), lab.host(hosts[1]));
    let (west, east, switch) = (lab.weir(west), lab.weir(east), lab.switch());
    lab.wire(&alice, &west, "pods");
    lab.wire(&west, &switch, "underlay");
    lab.wire(&switch, &east, "underlay");
    lab.wire(&east, &bob, "pods");
    let underlay = switch.capture("port1");
    TwoSites { alice, bob, west, east, underlay, _lab: lab }
}

/// alice ── weir ── bob with weir as a plain router.
pub(crate) fn one_router(configuration: &str) -> (Lab, Node, WeirBox, Node) {
    let lab = Lab::new();
    let (alice, bob, router) = (lab.host(ALICE), lab.host(BOB), lab.weir(configuration));
    lab.wire(&alice, &router, "west");
    lab.wire(&router, &bob, "east");
    (lab, alice, router, bob)
}

/// What must work between two hosts whose path has this MTU: small packets, packets of exactly the MTU, an error for one byte more
/// that says the MTU, and TCP both ways, in both families.
pub(crate) fn expect_whole_service(alice: &Node, bob: &Node, mtu: u32) {
    alice.ping(bob).count(10).expect_all();
    alice.ping(bob).v6().count(10).expect_all();
    alice.ping(bob).size(mtu).df(true).expect_all();
    alice.ping(bob).v6().size(mtu).df(true).expect_all();
    alice.ping(bob).size(mtu + 1).df(true).count(1).expect_too_big(mtu);
    alice.ping(bob).v6().size(mtu + 1).df(true).count(1).expect_too_big(mtu);
    alice.tcp(bob).expect_bytes(10_000_000);
    alice.tcp(bob).v6().expect_bytes(10_000_000);
    bob.tcp(alice).expect_bytes(1_000_000);
    bob.tcp(alice).v6().expect_bytes(1_000_000);
}
