//! A site with everything in it: a router with a VLAN, a VRF behind a routed tunnel, a bridge domain with a tunnel, two
//! cross-connects, ECMP, and a chain. And the packets of those who live there.

use std::fmt::Write;

use weir_dataplane::packet::builder::Packet;

pub(crate) use super::bed::{LAN, WAN};

/// weir's own MAC address on `blue`.
pub(crate) const BLUE: &str = "02:00:00:00:03:00";
/// weir's inner MAC address in the routed tunnel, and the far end's.
pub(crate) const INNER: &str = "02:00:00:00:04:00";
pub(crate) const FAR: &str = "02:00:00:00:04:01";
/// A host behind each interface, and the remote VTEPs.
pub(crate) const HOST: &str = "02:00:00:00:00:0a";
pub(crate) const OTHER: &str = "02:00:00:00:00:0b";
pub(crate) const VTEP: &str = "02:00:00:00:00:02";

/// What may differ from site to site.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Site {
    /// The underlay is IPv6.
    pub(crate) v6: bool,
    /// New flows pass a policer and a firewall.
    pub(crate) chain: bool,
    /// Some routes have two next hops.
    pub(crate) ecmp: bool,
    /// What goes between `lan` and `wan` is translated.
    pub(crate) nat: bool,
    /// The translator stands between the policer and the firewall, has few ports, and lets in only who was sent to.
    pub(crate) guarded: bool,
}

/// Over IPv4, without a chain; with one; over IPv6.
pub(crate) const PLAIN: Site = Site { v6: false, chain: false, ecmp: false, nat: false, guarded: false };
pub(crate) const CHAINED: Site = Site { chain: true, ..PLAIN };
pub(crate) const SIX: Site = Site { v6: true, ..PLAIN };
pub(crate) const NATTED: Site = Site { nat: true, ..PLAIN };

/// A port and a frame for it.
pub(crate) type Sent = (&'static str, Vec<u8>);

impl Site {
    /// The configuration.
    pub(crate) fn text(self) -> String {
        let mut text = String::from(BASE);
        let (local, far, third) = if self.v6 {
            ("2001:db8:f::1", "2001:db8:f::2", "2001:db8:f::3")
        } else {
            ("192.0.2.1", "192.0.2.2", "192.0.2.3")
        };
        let _ = write!(
            text,
            r#"
[tunnel.sites.vxlan]
local = "{local}"
remotes = ["{far}", "{third}"]
vni = 5000
bridge = "br"
[tunnel.line.vxlan]
local = "{local}"
remote = "{far}"
vni = 5001
[tunnel.to-blue.vxlan]
local = "{local}"
remote = "{far}"
vni = 100
vrf = "blue"
addresses = ["10.255.0.1/30", "2001:db8:ff::1/64"]
mac = "{INNER}"
remote-mac = "{FAR}"
"#
        );
        if self.nat {
            let (ports, filtering, hops) = if self.guarded {
                ("4000-4007", "address-dependent", r#""calm", "out", "edge""#)
            } else {
                ("4000-4063", "endpoint-independent", r#""out""#)
            };
            let _ = write!(text, "{}", nat(ports, filtering, hops));
        }
        if self.chain || self.guarded {
            text.push_str(SERVICES);
        }
        if self.chain {
            text.push_str(CHAIN);
        }
        for (prefix, hops) in [
            ("10.9.0.0/16", ["10.2.0.2", "10.2.0.3"]),
            ("2001:db8:9::/48", ["2001:db8:2::2", "2001:db8:2::3"]),
        ] {
            let _ = match (self.ecmp, hops) {
                (true, [a, b]) => writeln!(
                    text,
                    "[[vrf.default.route]]\nprefix = \"{prefix}\"\nvia = [{{ ip = \"{a}\" }}, {{ ip = \"{b}\" }}]"
                ),
                (false, [a, _]) => {
                    writeln!(text, "[[vrf.default.route]]\nprefix = \"{prefix}\"\nvia = {{ ip = \"{a}\" }}")
                }
            };
        }
        for (port, ip, mac) in [
            ("lan", "10.1.0.2", HOST),
            ("lan", "2001:db8:1::2", HOST),
            ("lan.10", "10.10.0.2", HOST),
            ("lan.10", "2001:db8:10::2", HOST),
            ("blue", "10.3.0.2", HOST),
            ("blue", "2001:db8:3::2", HOST),
            ("wan", "192.0.2.2", VTEP),
            ("wan", "192.0.2.3", "02:00:00:00:00:03"),
            ("wan", "2001:db8:f::2", VTEP),
            ("wan", "2001:db8:f::3", "02:00:00:00:00:03"),
            ("wan", "10.2.0.2", "02:00:00:00:02:02"),
            ("wan", "10.2.0.3", "02:00:00:00:02:03"),
            ("wan", "2001:db8:2::2", "02:00:00:00:02:02"),
            ("wan", "2001:db8:2::3", "02:00:00:00:02:03"),
        ] {
            let _ = writeln!(text, "[[neighbour]]\nport = \"{port}\"\nip = \"{ip}\"\nmac = \"{mac}\"");
        }
        text
    }

    /// A frame in VXLAN, from the first remote VTEP.
    pub(crate) fn outer(self, vni: u32, inner: &[u8]) -> Packet {
        self.underlay().udp(0xc123, 4789).without_checksum().vxlan(vni, inner)
    }

    /// A packet from the first remote VTEP to weir's.
    pub(crate) fn underlay(self) -> Packet {
        let frame = Packet::ethernet(VTEP, WAN);
        if self.v6 {
            frame.ipv6("2001:db8:f::2", "2001:db8:f::1")
        } else {
            frame.ipv4("192.0.2.2", "192.0.2.1")
        }
    }

    /// Bytes that encapsulation adds to an IP packet.
    pub(crate) fn overhead(self) -> usize {
        if self.v6 { 70 } else { 50 }
    }
}

const BASE: &str = r#"
[memory]
frames = 2048
[limits]
flows = 256
sessions = 512
nat-bindings = 512
neighbours = 256
held-packets = 128
macs = 256
meters = 256
[port.lan]
mode = "dedicated"
mac = "02:00:00:00:01:00"
addresses = ["10.1.0.1/24", "2001:db8:1::1/64"]
[port.lan.vlan.10]
addresses = ["10.10.0.1/24", "2001:db8:10::1/64"]
[port.wan]
mode = "dedicated"
mac = "02:00:00:00:02:00"
addresses = ["192.0.2.1/24", "2001:db8:f::1/64", "10.2.0.1/24", "2001:db8:2::1/64"]
[port.blue]
mode = "dedicated"
mac = "02:00:00:00:03:00"
vrf = "blue"
addresses = ["10.3.0.1/24", "2001:db8:3::1/64"]
[port.one]
mode = "dedicated"
bridge = "br"
[port.two]
mode = "dedicated"
bridge = "br"
[port.two.vlan.20]
bridge = "br"
[port.wire]
mode = "dedicated"
[port.left]
mode = "dedicated"
[port.right]
mode = "dedicated"
[port.right.vlan.7]
[bridge.br]
[vrf.blue]
[cross-connect.leased]
ends = ["wire", "line"]
[cross-connect.patch]
ends = ["left", "right.7"]
[[vrf.blue.route]]
prefix = "10.4.0.0/16"
via = { tunnel = "to-blue" }
[[vrf.blue.route]]
prefix = "2001:db8:4::/48"
via = { tunnel = "to-blue" }
[[vrf.default.route]]
prefix = "10.66.0.0/16"
via = { blackhole = true }
[[vrf.default.route]]
prefix = "2001:db8:66::/48"
via = { blackhole = true }
"#;

/// The host on `lan` gets an address of its own with few ports, that on the VLAN weir's; both can be reached from `wan`.
fn nat(ports: &str, filtering: &str, hops: &str) -> String {
    format!(
        r#"
[service.out.nat]
snat = [
    {{ from = "10.1.0.0/24", to = "192.0.2.7", ports = "{ports}" }},
    {{ from = "10.10.0.0/24", to = "masquerade" }},
]
dnat = [
    {{ protocol = "udp", to = "192.0.2.7", to-port = "53-60", forward = "10.10.0.2", forward-port = "1053-1060" }},
    {{ to = "192.0.2.8", forward = "10.1.0.2" }},
]
filtering = "{filtering}"
[chain.translated]
hops = [{hops}]
[[classify]]
from = ["port.lan", "port.lan.10", "port.wan"]
chain = "translated"
"#
    )
}

const SERVICES: &str = r#"
[service.edge.firewall]
default = "drop"
rules = [
    { allow = "udp", to-port = [53, "4000-4100"] },
    { allow = "tcp", to-port = 80 },
    { allow = "icmp" },
    { allow = "icmp6" },
    { reject = "tcp", to-port = 113 },
    { reject = "udp", to-port = 113 },
]
[service.calm.policer]
rules = [{ rate = "10pps", burst = 5, per = "source", protocol = "udp", to-port = 53 }]
"#;

const CHAIN: &str = r#"
[chain.all]
hops = ["calm", "edge"]
[[classify]]
from = ["port.lan", "port.lan.10", "port.blue", "bridge.br"]
chain = "all"
"#;

/// Ports of every site.
pub(crate) const PORTS: [&str; 8] = ["lan", "wan", "blue", "one", "two", "wire", "left", "right"];

/// The site's packets with a right IPv4 header checksum again, after a mutation.
pub(crate) fn repair(frame: &mut [u8]) {
    let mut at = 12;
    while matches!(frame.get(at..at + 2), Some([0x81, 0] | [0x88, 0xa8])) {
        at += 4;
    }
    if frame.get(at..at + 2) != Some(&[8, 0]) {
        return;
    }
    let Some(first) = frame.get(at + 2) else { return };
    let len = usize::from(first & 15).max(5) * 4;
    let Some(header) = frame.get_mut(at + 2..at + 2 + len) else { return };
    header[10..12].fill(0);
    let sum = weir_dataplane::packet::checksum::checksum(header);
    header[10..12].copy_from_slice(&sum.to_be_bytes());
}

/// From the host on `lan`, over IPv4 and IPv6, to somebody on `wan`.
pub(crate) fn lan() -> Packet {
    Packet::ethernet(HOST, LAN).ipv4("10.1.0.2", "10.2.0.2")
}

pub(crate) fn lan6() -> Packet {
    Packet::ethernet(HOST, LAN).ipv6("2001:db8:1::2", "2001:db8:2::2")
}

pub(crate) fn to(destination: &str) -> Packet {
    Packet::ethernet(HOST, LAN).ipv4("10.1.0.2", destination).udp(1, 2)
}

pub(crate) fn from(source: &str) -> Packet {
    Packet::ethernet(HOST, LAN).ipv4(source, "10.2.0.2").udp(1, 2)
}

pub(crate) fn between6(source: &str, destination: &str) -> Packet {
    Packet::ethernet(HOST, LAN).ipv6(source, destination).udp(1, 2)
}

pub(crate) fn bridged(source: &str, destination: &str) -> Packet {
    Packet::ethernet(source, destination).ipv4("10.5.0.1", "10.5.0.2").udp(1, 2)
}

/// What the far end of the routed tunnel sends.
pub(crate) fn inner() -> Packet {
    Packet::ethernet(FAR, INNER).ipv4("10.4.0.2", "10.3.0.2").udp(1, 2)
}
