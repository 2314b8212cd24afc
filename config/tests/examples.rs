//! Every example loads without an error or a warning, and so does the shape of the file that the design gives.

#![allow(clippy::unwrap_used, clippy::panic)] // Helpers of tests, outside test functions.

use std::path::Path;

use weir_config::{ClassifyScope, Domain, NextHop, PortMode, Service, load, load_str};

fn examples() -> Vec<std::path::PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
    let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

#[test]
fn every_example_loads_without_a_warning() {
    let files = examples();
    assert!(files.len() >= 4, "{files:?}");
    for file in files {
        let loaded = load(&file).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(loaded.warnings, [], "{}", file.display());
    }
}

#[test]
fn an_empty_file_is_the_default_configuration() {
    let loaded = load_str("empty.toml", "").unwrap();
    assert!(loaded.config.vrfs.contains_key("default"));
    assert!(loaded.config.ports.is_empty());
    assert_eq!(loaded.config.limits, weir_config::Limits::default());
}

const DESIGN: &str = r#"
[workers]
cores = "auto"                     # from the affinity mask: never a core that was not given

[port.uplink]
device = "eth1"
mode = "shared"                    # or "dedicated"
[port.pods]
device = "veth-pods"
mode = "dedicated"
vrf = "blue"                       # or bridge = "lan"
addresses = ["10.1.0.1/24", "2001:db8:1::1/64"]
mtu = 1500                         # mac = "02:…" overrides the device's own

[[neighbour]]                      # static entries; the rest is learned
port = "pods"
ip = "10.1.0.9"
mac = "02:00:00:00:01:09"

[vrf.blue]
[[vrf.blue.route]]
prefix = "10.2.0.0/16"
via = { tunnel = "to-b" }          # or { ip = "10.1.0.9" }, { port = "pods" }, { blackhole = true }

[bridge.lan]
ageing = "300s"

[tunnel.to-b.vxlan]
local = "192.0.2.1"
remote = "192.0.2.2"               # in a bridge also remotes = [ … ]: head-end replication
vni = 100
vrf = "blue"                       # or bridge = "lan"
addresses = ["10.255.0.1/30"]
remote-mac = "02:00:00:00:00:02"

[service.edge.firewall]
default = "drop"
rules = [ { allow = "tcp", to-port = 443 } ]
[service.out.policer]
rules = [ { rate = "10Mbit/s" } ]

[chain.web]
hops = ["edge", "out"]

[[classify]]
from = "port.pods"
to-port = [80, 443]
chain = "web"
"#;

#[test]
fn every_section_reaches_the_model() {
    let loaded = load_str("design.toml", DESIGN).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(loaded.warnings, []);
    let config = loaded.config;
    assert_eq!(config.ports["uplink"].mode, PortMode::Shared);
    assert_eq!(config.ports["uplink"].attachment.domain, Domain::Vrf("default".into()));
    assert_eq!(config.ports["pods"].attachment.domain, Domain::Vrf("blue".into()));
    assert_eq!(config.ports["pods"].attachment.addresses.len(), 2);
    assert_eq!(config.ports["pods"].mtu, Some(1500));
    assert_eq!(config.neighbours[0].interface, "pods");
    assert_eq!(config.vrfs["blue"].routes[0].via, [NextHop::Tunnel("to-b".into())]);
    assert_eq!(config.bridges["lan"].ageing.as_secs(), 300);
    let tunnel = &config.tunnels["to-b"];
    assert_eq!((tunnel.vni, tunnel.udp_port, tunnel.ttl), (100, 4789, 64));
    assert!(matches!(config.services["edge"], Service::Firewall(_)));
    let Service::Policer(policer) = &config.services["out"] else { panic!() };
    assert_eq!(policer.rules[0].burst, 125_000, "100 ms of 10 Mbit/s");
    assert_eq!(config.chains["web"].hops, ["edge", "out"]);
    assert_eq!(config.classify[0].from, [ClassifyScope::Interface("pods".into())]);
    assert_eq!(config.classify[0].matches.to_ports.len(), 2);
}
