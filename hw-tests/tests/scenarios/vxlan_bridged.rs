//! VXLAN between bridge domains (RFC 7348): one subnet over two sites.

use weir_hw_tests::Lab;

use crate::sites::{expect_whole_service, over_ipv6, two_sites};

const ALICE: &str = "10.1.0.2/24 2001:db8:1::2/64";
const BOB: &str = "10.1.0.3/24 2001:db8:1::3/64";

const WEST: &str = r#"
    [bridge.lan]

    [port.pods]
    device = "pods"
    mode = "dedicated"
    bridge = "lan"

    [port.underlay]
    device = "underlay"
    mode = "dedicated"
    addresses = ["192.0.2.1/24"]

    [tunnel.to-east.vxlan]
    local = "192.0.2.1"
    remote = "192.0.2.2"
    vni = 200
    bridge = "lan"
"#;

const EAST: &str = r#"
    [bridge.lan]

    [port.pods]
    device = "pods"
    mode = "dedicated"
    bridge = "lan"

    [port.underlay]
    device = "underlay"
    mode = "dedicated"
    addresses = ["192.0.2.2/24"]

    [tunnel.to-west.vxlan]
    local = "192.0.2.2"
    remote = "192.0.2.1"
    vni = 200
    bridge = "lan"
"#;

const LINUX_EAST: &str = "
    addr add 192.0.2.2/24 dev underlay
    link add lan type bridge
    link add to-west type vxlan id 200 local 192.0.2.2 remote 192.0.2.1 dstport 4789
    link set to-west master lan
    link set pods master lan
    link set to-west up
    link set lan up
";

#[test]
fn two_weirs_stretch_a_subnet_over_an_ipv4_underlay() {
    let mut sites = two_sites([ALICE, BOB], WEST, EAST);
    expect_whole_service(&sites.alice, &sites.bob, 1450);
    sites.underlay.assert_clean_capture().expect_some("vxlan.vni == 200 && arp");
    sites.west.counters().expect_conserved();
}

#[test]
fn two_weirs_stretch_a_subnet_over_an_ipv6_underlay() {
    let mut sites = two_sites([ALICE, BOB], &over_ipv6(WEST), &over_ipv6(EAST));
    expect_whole_service(&sites.alice, &sites.bob, 1430);
    sites.underlay.assert_clean_capture();
}

#[test]
fn weir_and_linux_stretch_a_subnet() {
    for (west, east, mtu) in
        [(WEST.to_owned(), LINUX_EAST.to_owned(), 1450), (over_ipv6(WEST), over_ipv6(LINUX_EAST), 1430)]
    {
        let lab = Lab::new();
        let (alice, west, east, bob) = (lab.host(ALICE), lab.weir(&west), lab.linux(&east), lab.host(BOB));
        lab.wire(&alice, &west, "pods");
        let underlay = lab.wire(&west, &east, "underlay");
        // A Linux bridge tells nobody that a frame is too big for its tunnel.
        lab.wire(&east, &bob, "pods").mtu(mtu);
        let mut capture = underlay.capture_far();
        expect_whole_service(&alice, &bob, mtu);
        capture.assert_clean_capture();
        west.counters().expect_conserved();
    }
}
