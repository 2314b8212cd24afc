//! The value tree as a [`Config`]. What is malformed has been reported by [`crate::check`] and stands as its
//! default here.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use ipnet::IpNet;

use crate::MacAddress;
use crate::model::*;
use crate::nat;
use crate::text::{self, Burst};
use crate::tree::{Entry, Node};

/// Inner MTU and VTEP address of what is malformed: never used, because the configuration is refused.
const NO_ADDRESS: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);

/// Reads the whole tree.
pub(crate) fn build(root: &Node) -> Config {
    let taken = Taken::find(root);
    let mut vrfs: BTreeMap<String, Vrf> = named(root, "vrf", |entry| vrf(&entry.node));
    vrfs.entry(DEFAULT_VRF.to_owned()).or_default();
    Config {
        workers: root.get("workers").map(workers).unwrap_or_default(),
        limits: root.get("limits").map(limits).unwrap_or_default(),
        memory: root.get("memory").map(memory).unwrap_or_default(),
        ports: named(root, "port", |entry| port(entry, &taken)),
        neighbours: records(root, "neighbour").iter().map(neighbour).collect(),
        vrfs,
        bridges: named(root, "bridge", |entry| bridge(&entry.node)),
        tunnels: named(root, "tunnel", |entry| {
            let empty = Node::empty_table();
            vxlan(&entry.key, entry.node.get("vxlan").unwrap_or(&empty), &taken)
        }),
        cross_connects: named(root, "cross-connect", |entry| cross_connect(&entry.node)),
        services: named(root, "service", |entry| service(&entry.node)),
        hops: named(root, "hop", |entry| hop(&entry.node)),
        chains: named(root, "chain", |entry| Chain { hops: texts(&entry.node, "hops") }),
        classify: records(root, "classify").iter().map(classify).collect(),
    }
}

fn named<T>(root: &Node, section: &str, read: impl Fn(&Entry) -> T) -> BTreeMap<String, T> {
    let entries = root.get(section).map(Node::entries).unwrap_or_default();
    entries.iter().map(|entry| (entry.key.clone(), read(entry))).collect()
}

pub(crate) fn records<'a>(node: &'a Node, section: &str) -> &'a [Node] {
    node.get(section).map(Node::elements).unwrap_or_default()
}

/// Interfaces that something else in the file names as its own.
struct Taken {
    /// Interface → the cross-connect that it is an end of.
    crossed: BTreeMap<String, String>,
    /// Interface → the hop that is attached to it.
    hopped: BTreeMap<String, String>,
}

impl Taken {
    fn find(root: &Node) -> Self {
        let named = |section: &str, key: &str| {
            let entries = root.get(section).map(Node::entries).unwrap_or_default();
            let ends = |entry: &Entry| texts(&entry.node, key);
            let of = |entry| -> Vec<_> {
                let entry: &Entry = entry;
                ends(entry).into_iter().map(|end| (end, entry.key.clone())).collect()
            };
            entries.iter().flat_map(of).collect()
        };
        Self { crossed: named("cross-connect", "ends"), hopped: named("hop", "attach") }
    }

    /// The hop that a VLAN of this port serves. What comes in without a tag is then nobody's, if nothing else is said.
    fn hop_of_vlan(&self, port: &str) -> Option<&String> {
        let of_port = |name: &str| name.strip_prefix(port).is_some_and(|rest| rest.starts_with('.'));
        self.hopped.iter().find(|(name, _)| of_port(name)).map(|(_, hop)| hop)
    }
}

pub(crate) fn text<T>(node: &Node, key: &str, read: impl Fn(&str) -> text::Parsed<T>) -> Option<T> {
    node.get(key).and_then(Node::text).and_then(|text| read(text).ok())
}

pub(crate) fn word<'a>(node: &'a Node, key: &str) -> Option<&'a str> {
    node.get(key).and_then(Node::text)
}

fn texts(node: &Node, key: &str) -> Vec<String> {
    many(node, key, |element| element.text().map(str::to_owned))
}

/// The readable elements of a key that takes one or a list.
pub(crate) fn many<T>(node: &Node, key: &str, read: impl Fn(&Node) -> Option<T>) -> Vec<T> {
    node.get(key).map(Node::one_or_many).unwrap_or_default().iter().filter_map(read).collect()
}

pub(crate) fn prefixes(node: &Node, key: &str) -> Vec<IpNet> {
    many(node, key, |element| text::prefix(element.text()?).ok())
}

pub(crate) fn number<T: TryFrom<i64>>(node: &Node, key: &str) -> Option<T> {
    node.get(key).and_then(Node::integer).and_then(|number| T::try_from(number).ok())
}

fn flag(node: &Node, key: &str, default: bool) -> bool {
    node.get(key).and_then(Node::boolean).unwrap_or(default)
}

fn workers(node: &Node) -> Workers {
    let cores = match node.get("cores") {
        Some(list) if list.text().is_none() => {
            Cores::List(list.elements().iter().filter_map(|n| usize::try_from(n.integer()?).ok()).collect())
        }
        _ => Cores::Auto,
    };
    let idle = if word(node, "idle") == Some("spin") { Idle::Spin } else { Idle::Adaptive };
    Workers { cores, idle }
}

fn limits(node: &Node) -> Limits {
    let default = Limits::default();
    Limits {
        flows: number(node, "flows").unwrap_or(default.flows),
        sessions: number(node, "sessions").unwrap_or(default.sessions),
        neighbours: number(node, "neighbours").unwrap_or(default.neighbours),
        held_packets: number(node, "held-packets").unwrap_or(default.held_packets),
        macs: number(node, "macs").unwrap_or(default.macs),
        meters: number(node, "meters").unwrap_or(default.meters),
        nat_bindings: number(node, "nat-bindings").unwrap_or(default.nat_bindings),
        icmp_errors_per_second: number(node, "icmp-errors-per-second")
            .unwrap_or(default.icmp_errors_per_second),
    }
}

fn memory(node: &Node) -> Memory {
    let default = Memory::default();
    Memory {
        frames: number(node, "frames").unwrap_or(default.frames),
        frame_size: number(node, "frame-size").unwrap_or(default.frame_size),
        huge_pages: match word(node, "huge-pages") {
            Some("require") => HugePages::Require,
            Some("never") => HugePages::Never,
            _ => HugePages::Auto,
        },
    }
}

fn port(entry: &Entry, taken: &Taken) -> Port {
    let node = &entry.node;
    let vlans = node.get("vlan").map(Node::entries).unwrap_or_default();
    Port {
        device: word(node, "device").map(str::to_owned),
        mode: if word(node, "mode") == Some("dedicated") { PortMode::Dedicated } else { PortMode::Shared },
        xdp: match word(node, "xdp") {
            Some("native") => XdpMode::Native,
            Some("generic") => XdpMode::Generic,
            _ => XdpMode::Auto,
        },
        xsk_map: match word(node, "xsk-map") {
            Some("plugin") => XskMap::Plugin,
            Some("pinned") => XskMap::Pinned,
            _ => XskMap::Own,
        },
        queues: number(node, "queues"),
        vfio_token: word(node, "vfio-token").map(str::to_owned),
        mac: text(node, "mac", text::mac),
        mtu: number(node, "mtu"),
        prefixes: prefixes(node, "prefixes"),
        attachment: attachment(&entry.key, node, taken),
        vlans: vlans
            .iter()
            .filter_map(|vlan| {
                let interface = format!("{}.{}", entry.key, vlan.key);
                Some((vlan.key.parse().ok()?, attachment(&interface, &vlan.node, taken)))
            })
            .collect(),
    }
}

fn attachment(interface: &str, node: &Node, taken: &Taken) -> Attachment {
    let silent = node.get("addresses").is_none();
    let hop = taken.hopped.get(interface).or_else(|| taken.hop_of_vlan(interface).filter(|_| silent));
    let domain = match (word(node, "vrf"), word(node, "bridge"), taken.crossed.get(interface), hop) {
        (Some(vrf), _, _, _) => Domain::Vrf(vrf.to_owned()),
        (None, Some(bridge), _, _) => Domain::Bridge(bridge.to_owned()),
        (None, None, Some(cross_connect), _) => Domain::CrossConnect(cross_connect.clone()),
        (None, None, None, Some(hop)) => Domain::Hop(hop.clone()),
        (None, None, None, None) => Domain::Vrf(DEFAULT_VRF.to_owned()),
    };
    Attachment { domain, addresses: many(node, "addresses", |element| text::address(element.text()?).ok()) }
}

fn neighbour(node: &Node) -> StaticNeighbour {
    StaticNeighbour {
        interface: word(node, "port").unwrap_or_default().to_owned(),
        ip: text(node, "ip", text::ip).unwrap_or(NO_ADDRESS),
        mac: text(node, "mac", text::mac).unwrap_or(MacAddress::default()),
    }
}

fn vrf(node: &Node) -> Vrf {
    Vrf { routes: records(node, "route").iter().map(route).collect() }
}

fn route(node: &Node) -> Route {
    Route {
        prefix: text(node, "prefix", text::prefix).unwrap_or(IpNet::from(NO_ADDRESS)),
        via: many(node, "via", |via| Some(next_hop(via))),
    }
}

fn next_hop(node: &Node) -> NextHop {
    let port = word(node, "port").map(str::to_owned);
    if let Some(ip) = text(node, "ip", text::ip) {
        return NextHop::Gateway { ip, interface: port };
    }
    match (port, word(node, "tunnel")) {
        (Some(port), _) => NextHop::Interface(port),
        (None, Some(tunnel)) => NextHop::Tunnel(tunnel.to_owned()),
        (None, None) => NextHop::Blackhole,
    }
}

fn bridge(node: &Node) -> Bridge {
    Bridge {
        ageing: text(node, "ageing", text::duration).unwrap_or(Duration::from_secs(300)),
        learning: flag(node, "learning", true),
        macs_per_member: number(node, "macs-per-member"),
        forward_stp: flag(node, "forward-stp", false),
        forward_lldp: flag(node, "forward-lldp", false),
    }
}

fn vxlan(name: &str, node: &Node, taken: &Taken) -> Tunnel {
    let remote = if node.get("remote").is_some() { "remote" } else { "remotes" };
    Tunnel {
        local: text(node, "local", text::ip).unwrap_or(NO_ADDRESS),
        remotes: many(node, remote, |element| text::ip(element.text()?).ok()),
        vni: number(node, "vni").unwrap_or_default(),
        udp_port: number(node, "port").unwrap_or(4789),
        underlay_vrf: word(node, "underlay-vrf").unwrap_or(DEFAULT_VRF).to_owned(),
        attachment: attachment(name, node, taken),
        mac: text(node, "mac", text::mac),
        remote_mac: text(node, "remote-mac", text::mac),
        mtu: number(node, "mtu"),
        ttl: number(node, "ttl").unwrap_or(64),
        dscp: match (word(node, "dscp"), number(node, "dscp")) {
            (_, Some(value)) => DscpModel::Pipe(value),
            (Some("pipe"), None) => DscpModel::Pipe(0),
            _ => DscpModel::Uniform,
        },
        check_udp: flag(node, "check-udp", true),
        mss_clamp: flag(node, "mss-clamp", false),
    }
}

fn cross_connect(node: &Node) -> CrossConnect {
    let mut ends = texts(node, "ends").into_iter();
    CrossConnect { ends: [ends.next().unwrap_or_default(), ends.next().unwrap_or_default()] }
}

fn hop(node: &Node) -> Hop {
    let fail = if word(node, "fail") == Some("open") { Fail::Open } else { Fail::Closed };
    Hop { attach: texts(node, "attach"), fail }
}

fn service(node: &Node) -> Service {
    match (node.get("policer"), node.get("nat")) {
        (Some(policer), _) => {
            Service::Policer(Policer { rules: records(policer, "rules").iter().map(policer_rule).collect() })
        }
        (None, Some(nat)) => Service::Nat(nat::build(nat)),
        (None, None) => {
            let empty = Node::empty_table();
            Service::Firewall(firewall(node.get("firewall").unwrap_or(&empty)))
        }
    }
}

fn firewall(node: &Node) -> Firewall {
    Firewall {
        default: match word(node, "default") {
            Some("allow") => Action::Allow,
            Some("reject") => Action::Reject,
            _ => Action::Deny,
        },
        rules: records(node, "rules").iter().map(firewall_rule).collect(),
        tcp_pickup: flag(node, "tcp-pickup", false),
    }
}

fn firewall_rule(node: &Node) -> FirewallRule {
    let (key, action) = [("allow", Action::Allow), ("reject", Action::Reject)]
        .into_iter()
        .find(|(key, _)| node.get(key).is_some())
        .unwrap_or(("deny", Action::Deny));
    FirewallRule { action, matches: matches(node, key, "from", "to") }
}

fn policer_rule(node: &Node) -> PolicerRule {
    let rate = text(node, "rate", text::rate).unwrap_or(Rate::BitsPerSecond(1));
    let written = match text(node, "burst", text::burst) {
        Some(Burst::Bytes(burst) | Burst::Packets(burst)) => Some(burst),
        None => number(node, "burst"),
    };
    PolicerRule {
        matches: matches(node, "protocol", "from", "to"),
        rate,
        burst: written.unwrap_or(default_burst(rate)),
        per: if word(node, "per") == Some("source") { PolicerScope::Source } else { PolicerScope::Rule },
    }
}

/// 100 ms of the rate, but at least ten full-sized packets.
pub(crate) fn default_burst(rate: Rate) -> u64 {
    match rate {
        Rate::BitsPerSecond(bits) => (bits / 80).max(15_000),
        Rate::PacketsPerSecond(packets) => (packets / 10).max(10),
    }
}

fn classify(node: &Node) -> ClassifyRule {
    ClassifyRule {
        from: many(node, "from", |element| scope(element.text()?)),
        matches: matches(node, "protocol", "from-prefix", "to-prefix"),
        chain: word(node, "chain").filter(|name| *name != "none").map(str::to_owned),
    }
}

fn scope(text: &str) -> Option<ClassifyScope> {
    let (kind, name) = text.split_once('.')?;
    let name = name.to_owned();
    match kind {
        "port" | "tunnel" => Some(ClassifyScope::Interface(name)),
        "vrf" => Some(ClassifyScope::Vrf(name)),
        "bridge" => Some(ClassifyScope::Bridge(name)),
        _ => None,
    }
}

pub(crate) fn matches(node: &Node, protocol: &str, from: &str, to: &str) -> Match {
    Match {
        protocol: number(node, protocol).or_else(|| text(node, protocol, text::protocol).flatten()),
        from: prefixes(node, from),
        to: prefixes(node, to),
        from_ports: many(node, "from-port", port_range),
        to_ports: many(node, "to-port", port_range),
        dscp: many(node, "dscp", |n| {
            n.integer().map_or_else(|| text::dscp(n.text()?).ok(), |i| u8::try_from(i).ok())
        }),
        tcp_flags: text(node, "tcp-flags", text::tcp_flags),
        icmp_types: many(node, "icmp-type", |n| u8::try_from(n.integer()?).ok()),
    }
}

pub(crate) fn port_range(node: &Node) -> Option<PortRange> {
    match node.integer() {
        Some(number) => u16::try_from(number).ok().map(|port| PortRange { first: port, last: port }),
        None => text::port_range(node.text()?).ok(),
    }
}
