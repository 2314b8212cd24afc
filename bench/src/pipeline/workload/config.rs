//! The configurations, in pieces that workloads put together.

use std::fmt::Write;

/// Two ports and their neighbours, bounds apart. Both ports take IP packets of 1600 bytes, so that a full frame fits a tunnel.
pub(super) const PORTS: &str = r#"
[memory]
frames = 4096
[port.in]
mode = "dedicated"
mac = "02:00:00:00:01:00"
mtu = 1600
addresses = ["10.1.0.1/24", "2001:db8:1::1/64"]
[port.out]
mode = "dedicated"
mac = "02:00:00:00:02:00"
mtu = 1600
addresses = ["192.0.2.1/24", "2001:db8:2::1/64"]
[[neighbour]]
port = "out"
ip = "192.0.2.2"
mac = "02:00:00:00:02:02"
[[neighbour]]
port = "out"
ip = "2001:db8:2::2"
mac = "02:00:00:00:02:02"
[[neighbour]]
port = "in"
ip = "10.1.0.2"
mac = "02:00:00:00:01:02"
"#;

/// A route to the other port, for each family.
pub(super) const ROUTE: &str = r#"
[[vrf.default.route]]
prefix = "10.128.0.0/9"
via = { ip = "192.0.2.2" }
[[vrf.default.route]]
prefix = "2001:db8:8000::/33"
via = { ip = "2001:db8:2::2" }
"#;

/// A route back to the first port, for what comes out of a tunnel.
pub(super) const FROM_TUNNEL: &str = r#"
[[vrf.default.route]]
prefix = "10.64.0.0/10"
via = { ip = "10.1.0.2" }
"#;

/// A routed VXLAN tunnel over IPv4, with a fixed router address of the far end.
pub(super) const TUNNEL: &str = r#"
[tunnel.far.vxlan]
local = "192.0.2.1"
remote = "192.0.2.2"
vni = 100
addresses = ["10.255.0.1/30"]
remote-mac = "02:00:00:00:03:02"
mac = "02:00:00:00:03:01"
"#;

/// The route into it.
pub(super) const INTO_TUNNEL: &str = r#"
[[vrf.default.route]]
prefix = "10.128.0.0/9"
via = { tunnel = "far" }
"#;

/// A cross-connect of two ports.
pub(super) const CROSS_CONNECT: &str = r#"
[memory]
frames = 4096
[port.in]
mode = "dedicated"
mac = "02:00:00:00:01:00"
mtu = 1600
[port.out]
mode = "dedicated"
mac = "02:00:00:00:02:00"
mtu = 1600
[cross-connect.wire]
ends = ["in", "out"]
"#;

/// A bridge domain of a port and a VXLAN tunnel over the other port.
pub(super) const BRIDGED: &str = r#"
[memory]
frames = 4096
[bridge.lan]
ageing = "3600s"
[port.in]
mode = "dedicated"
mac = "02:00:00:00:01:00"
mtu = 1550
bridge = "lan"
[port.out]
mode = "dedicated"
mac = "02:00:00:00:02:00"
mtu = 1600
addresses = ["192.0.2.1/24"]
[[neighbour]]
port = "out"
ip = "192.0.2.2"
mac = "02:00:00:00:02:02"
[tunnel.far.vxlan]
local = "192.0.2.1"
remotes = ["192.0.2.2"]
vni = 100
bridge = "lan"
"#;

/// A translator of sources called `outside`, with ports enough for a million hosts.
pub(super) const NAT: &str = r#"
[service.outside.nat]
snat = { to = "203.0.113.0/27" }
"#;

/// Bounds for `flows` flows, in tables that are not crowded.
pub(super) fn limits(flows: usize) -> String {
    let bound = (2 * flows).max(262_144);
    format!("[limits]\nflows = {bound}\nsessions = {bound}\nnat-bindings = {bound}\n")
}

/// A stateful firewall of `rules` rules called `edge`, of which only the last matches the workloads' packets.
pub(super) fn firewall(rules: usize) -> String {
    let mut text = String::from("[service.edge.firewall]\ndefault = \"drop\"\nrules = [\n");
    for rule in 1..rules {
        let (high, low, port) = (rule / 250, rule % 250, 1024 + rule % 40_000);
        let _ = writeln!(
            text,
            "{{ deny = \"udp\", from = \"172.{}.{low}.0/24\", to-port = {port} }},",
            16 + high
        );
    }
    text + "{ allow = \"udp\", from = \"10.0.0.0/8\", to-port = 443 },\n]\n"
}

/// Everything that enters by the first port goes through these service functions.
pub(super) fn chain(hops: &str) -> String {
    format!("[chain.all]\nhops = [{hops}]\n[[classify]]\nfrom = \"port.in\"\nchain = \"all\"\n")
}
