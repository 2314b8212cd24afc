//! Address translation: pools that can be used and do not overlap, ports that fit each other, timeouts that the
//! standards allow.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use ipnet::IpNet;

use super::at;
use super::rules::{self, Keys};
use super::services;
use super::view::View;
use crate::codes;
use crate::model::{
    AddressRange, ClassifyScope, Config, DnatRule, Domain, Nat, NextHop, PortRange, Service, SnatRule,
    SnatTarget,
};
use crate::sink::{At, Sink, error, warning};

const ICMP: u8 = 1;
const TCP: u8 = 6;
const UDP: u8 = 17;
const SCTP: u8 = 132;
/// Most addresses of one rule.
const MAX_POOL: u64 = 65_536;

/// A pool and where it stands.
struct Pool<'c> {
    path: Vec<String>,
    rule: &'c SnatRule,
    ranges: &'c [AddressRange],
}

pub(super) fn validate(config: &Config, view: &View<'_>, sink: &mut Sink<'_>) {
    let mut pools: Vec<Pool<'_>> = Vec::new();
    for (name, nat) in translators(config) {
        let table = at!["service", name, "nat"];
        timeouts(nat, &table, sink);
        let mut all = None;
        for (path, rule) in snat_rules(nat, &table, sink) {
            snat(rule, &path, sink);
            services::reachable(&mut all, &rule.matches, true, &path, sink);
            if let SnatTarget::Pool(ranges) = &rule.target {
                if !sink.is_refused(&path) {
                    pools.push(Pool { path, rule, ranges });
                }
            }
        }
        for (index, rule) in nat.dnat.iter().enumerate() {
            dnat(nat, index, rule, &table, sink);
        }
    }
    for (index, pool) in pools.iter().enumerate() {
        addresses(config, view, pool, sink);
        overlaps(pools.get(..index).unwrap_or_default(), pool, sink);
    }
    chains(config, view, sink);
}

fn translators(config: &Config) -> impl Iterator<Item = (&String, &Nat)> {
    config.services.iter().filter_map(|(name, service)| match service {
        Service::Nat(nat) => Some((name, nat)),
        _ => None,
    })
}

/// The rules with their places: one may stand for itself, several stand in a list.
fn snat_rules<'c>(nat: &'c Nat, table: &[String], sink: &Sink<'_>) -> Vec<(Vec<String>, &'c SnatRule)> {
    let path = below(table, "snat");
    let single = sink.is_table(&path);
    let place = |index: usize| if single { path.clone() } else { below(&path, &index.to_string()) };
    nat.snat.iter().enumerate().map(|(index, rule)| (place(index), rule)).collect()
}

fn below(path: &[String], step: &str) -> Vec<String> {
    [path, &[step.to_owned()]].concat()
}

fn timeouts(nat: &Nat, table: &[String], sink: &mut Sink<'_>) {
    let times = &nat.timeouts;
    for (key, value, least, rfc) in [
        ("tcp-established-timeout", times.tcp_established, 7440, "RFC 5382 REQ-5"),
        ("tcp-transitory-timeout", times.tcp_transitory, 240, "RFC 5382 REQ-5"),
        ("udp-timeout", times.udp, 120, "RFC 4787 REQ-5"),
        ("icmp-timeout", times.icmp, 60, "RFC 5508 REQ-2"),
    ] {
        let path = below(table, key);
        if value < Duration::from_secs(1) || value > Duration::from_secs(10 * 86_400) {
            let finding = error(codes::OUT_OF_RANGE, "a timeout is at least 1 s and at most 10 days");
            sink.report(&path, At::Value, finding);
        } else if value < Duration::from_secs(least) {
            let message = format!("{rfc} asks for at least {least} s: connections that rest longer break");
            sink.report(&path, At::Value, warning(codes::SHORT_TIMEOUT, message));
        }
    }
}

fn snat(rule: &SnatRule, path: &[String], sink: &mut Sink<'_>) {
    if sink.is_refused(path) {
        return;
    }
    let keys = Keys { protocol: "protocol", from: "from", to: "to-prefix" };
    rules::validate(&rule.matches, &keys, path, sink);
    only_v4(&rule.matches.from, &below(path, "from"), sink);
    only_v4(&rule.matches.to, &below(path, "to-prefix"), sink);
    if let Some(other) = rule.matches.protocol.filter(|known| ![ICMP, TCP, UDP, SCTP].contains(known)) {
        let finding =
            error(codes::NAT_PROTOCOL, format!("protocol {other} has no ports that could be translated"))
                .hint("sources of \"tcp\", \"udp\", \"icmp\" and \"sctp\" can be");
        sink.report(&below(path, "protocol"), At::Value, finding);
    }
    let to = below(path, "to");
    // One word among several targets: the model has only the word.
    if rule.target == SnatTarget::Masquerade || rule.target == SnatTarget::Exempt || sink.length(&to) > 1 {
        let word = |text: &&str| matches!(*text, "masquerade" | "none");
        let elements = (0..sink.length(&to)).filter_map(|i| sink.text_at(&below(&to, &i.to_string())));
        if let Some(text) = elements.clone().find(word).filter(|_| elements.count() > 1) {
            let finding = error(codes::BAD_POOL, format!("\"{text}\" stands alone, not among addresses"))
                .hint("give it a rule of its own");
            return sink.report(&to, At::Value, finding);
        }
    }
    let ports = below(path, "ports");
    if rule.target == SnatTarget::Exempt && sink.exists(&ports) {
        let finding = warning(codes::IGNORED_KEY, "what keeps its source gets no port");
        sink.report(&ports, At::Key, finding);
    }
    no_port_zero(Some(rule.ports), &ports, sink);
}

fn only_v4(prefixes: &[IpNet], path: &[String], sink: &mut Sink<'_>) {
    if !prefixes.is_empty() && prefixes.iter().all(|net| net.addr().is_ipv6()) {
        let finding = warning(codes::NEVER_MATCHES, "no packet matches: only IPv4 is translated");
        sink.report(path, At::Value, finding);
    }
}

fn no_port_zero(ports: Option<PortRange>, path: &[String], sink: &mut Sink<'_>) {
    if ports.is_some_and(|ports| ports.first == 0) && sink.exists(path) {
        let finding = error(codes::OUT_OF_RANGE, "0 is no port that anybody can use").hint("begin with 1");
        sink.report(path, At::Value, finding);
    }
}

fn dnat(nat: &Nat, index: usize, rule: &DnatRule, table: &[String], sink: &mut Sink<'_>) {
    let list = below(table, "dnat");
    let path = below(&list, &index.to_string());
    if sink.is_refused(&path) {
        return;
    }
    only_v4(&rule.from, &below(&path, "from"), sink);
    for (key, address) in [("to", rule.to), ("forward", rule.forward)] {
        usable(address, &below(&path, key), sink);
    }
    let (to, forward) = (below(&path, "to-port"), below(&path, "forward-port"));
    if rule.to_ports.is_some() && !matches!(rule.protocol, Some(TCP | UDP | SCTP)) {
        let finding = error(codes::PORTS_WITHOUT_PROTOCOL, "`to-port` needs a protocol that has ports")
            .hint("give `protocol = \"tcp\"`, \"udp\" or \"sctp\"; for both, give two rules");
        sink.report(&to, At::Key, finding);
    }
    no_port_zero(rule.to_ports, &to, sink);
    if rule.forward_port.is_some() {
        let written = sink.text_at(&forward).and_then(|text| crate::text::port_range(text).ok());
        let size = |ports: PortRange| ports.last - ports.first;
        let length = written.map_or(0, size);
        match rule.to_ports {
            None => {
                let finding = error(codes::PORT_RANGES, "`forward-port` needs `to-port`")
                    .hint("without ports, each goes to the same port");
                sink.report(&forward, At::Key, finding);
            }
            Some(ports) if size(ports) != length => {
                let message = format!(
                    "{} ports cannot be mapped one to one on {}",
                    u32::from(size(ports)) + 1,
                    u32::from(length) + 1
                );
                let finding = error(codes::PORT_RANGES, message)
                    .also(&to, At::Value, "the ports that connections come to")
                    .hint("give both ranges the same length");
                sink.report(&forward, At::Value, finding);
            }
            Some(_) => no_port_zero(rule.forward_ports(), &forward, sink),
        }
    }
    let earlier = nat.dnat.get(..index).unwrap_or_default();
    if let Some(first) = earlier.iter().position(|other| covers(other, rule)) {
        let finding =
            warning(codes::UNREACHABLE_RULE, "this rule is never asked: one before it takes everything")
                .also(&below(&list, &first.to_string()), At::Value, "this rule takes everything")
                .hint("move it up, or remove it");
        sink.report(&path, At::Value, finding);
    }
}

/// Whether everything that `rule` matches is `first`'s.
fn covers(first: &DnatRule, rule: &DnatRule) -> bool {
    let ports = match (first.to_ports, rule.to_ports) {
        (None, _) => true,
        (Some(_), None) => false,
        (Some(a), Some(b)) => a.first <= b.first && b.last <= a.last,
    };
    first.to == rule.to
        && ports
        && first.from.is_empty()
        && (first.protocol.is_none() || first.protocol == rule.protocol)
}

/// Reports an address that no host can have.
fn usable(address: Ipv4Addr, path: &[String], sink: &mut Sink<'_>) -> bool {
    let [first, ..] = address.octets();
    let why = match address {
        _ if address.is_loopback() => "a loopback address",
        _ if address.is_multicast() => "a multicast group",
        _ if address.is_link_local() => "link-local, and never forwarded",
        _ if first == 0 || first >= 240 => "an address that no host can have",
        _ => return true,
    };
    sink.report(path, At::Value, error(codes::BAD_ADDRESS, format!("{address} is {why}")));
    false
}

/// Checks the addresses of a pool against the subnets and gateways of the configuration.
fn addresses(config: &Config, view: &View<'_>, pool: &Pool<'_>, sink: &mut Sink<'_>) {
    let to = below(&pool.path, "to");
    let size: u64 = pool.ranges.iter().map(|range| range.size()).sum();
    if size > MAX_POOL {
        let finding = error(codes::OUT_OF_RANGE, format!("a pool of {size} addresses: at most {MAX_POOL}"));
        return sink.report(&to, At::Value, finding);
    }
    for range in pool.ranges {
        if !(usable(range.first, &to, sink) && usable(range.last, &to, sink)) {
            return;
        }
        if let Some((subnet, address)) = special(view, *range) {
            let message = format!("{address} is the network or broadcast address of {subnet}");
            let finding = error(codes::BAD_POOL, message).hint("leave it out: give a range");
            return sink.report(&to, At::Value, finding);
        }
        if let Some(gateway) = gateways(config).find(|gateway| range.contains(*gateway)) {
            let finding = error(codes::BAD_POOL, format!("{gateway} is the address of a gateway"))
                .hint("a pool's addresses belong to weir alone");
            return sink.report(&to, At::Value, finding);
        }
        let connected =
            |address: Ipv4Addr| view.interfaces.iter().any(|interface| interface.covers(IpAddr::V4(address)));
        let open = view.interfaces.iter().any(|interface| interface.kernel_addresses);
        if !open && !view.doubtful && !connected(range.first) && !connected(range.last) {
            let message = format!("{range} is in no subnet of any interface: nobody asks weir for it by ARP");
            let finding = warning(codes::POOL_NOT_CONNECTED, message).hint(
                "this is right if routers beyond have a route to weir for it; else take addresses of the interface's subnet, or \"masquerade\"",
            );
            sink.report(&to, At::Value, finding);
        }
    }
}

/// A network or broadcast address of a connected subnet within a range.
fn special(view: &View<'_>, range: AddressRange) -> Option<(IpNet, Ipv4Addr)> {
    let subnets = view.interfaces.iter().flat_map(|interface| &interface.attachment.addresses);
    let v4 = subnets.filter_map(|subnet| if let IpNet::V4(net) = subnet { Some(net) } else { None });
    v4.filter(|net| net.prefix_len() <= 30).find_map(|net| {
        let found = [net.network(), net.broadcast()].into_iter().find(|address| range.contains(*address))?;
        Some((IpNet::V4(net.trunc()), found))
    })
}

fn gateways(config: &Config) -> impl Iterator<Item = Ipv4Addr> {
    let hops = config.vrfs.values().flat_map(|vrf| &vrf.routes).flat_map(|route| &route.via);
    hops.filter_map(|hop| match hop {
        NextHop::Gateway { ip: IpAddr::V4(ip), .. } => Some(*ip),
        _ => None,
    })
}

/// Reports a pool that shares some addresses and ports, but not all, with one before it.
fn overlaps(before: &[Pool<'_>], pool: &Pool<'_>, sink: &mut Sink<'_>) {
    let ports = |a: PortRange, b: PortRange| a.first <= b.last && b.first <= a.last;
    for other in before {
        let same = other.ranges == pool.ranges && other.rule.ports == pool.rule.ports;
        let shared = other
            .ranges
            .iter()
            .flat_map(|a| pool.ranges.iter().map(move |b| (*a, *b)))
            .find(|(a, b)| a.overlaps(*b));
        if let (false, Some((a, b)), true) = (same, shared, ports(other.rule.ports, pool.rule.ports)) {
            let first = a.first.max(b.first);
            let finding =
                error(codes::OVERLAPPING_POOLS, format!("two pools have {first} and some of its ports"))
                    .also(&below(&other.path, "to"), At::Value, "the other pool")
                    .hint("give both rules the same addresses and ports, or ones that do not overlap");
            return sink.report(&below(&pool.path, "to"), At::Value, finding);
        }
    }
}

/// Translators stand alone in a chain, and only in chains of routed packets.
fn chains(config: &Config, view: &View<'_>, sink: &mut Sink<'_>) {
    let is_nat = |hop: &&String| matches!(config.services.get(*hop), Some(Service::Nat(_)));
    for (name, chain) in &config.chains {
        let hops = at!["chain", name, "hops"];
        if !sink.is_refused(&hops) && chain.hops.iter().filter(is_nat).count() > 1 {
            let finding = error(codes::TOO_MANY_TRANSLATORS, "a chain has at most one translator")
                .hint("one translator can have many rules: join them");
            sink.report(&hops, At::Value, finding);
        }
    }
    for (index, rule) in config.classify.iter().enumerate() {
        let chain = rule.chain.as_ref().and_then(|name| config.chains.get(name));
        if !chain.is_some_and(|chain| chain.hops.iter().any(|hop| is_nat(&hop))) {
            continue;
        }
        let bridged = |scope: &ClassifyScope| match scope {
            ClassifyScope::Bridge(_) => true,
            ClassifyScope::Vrf(_) => false,
            ClassifyScope::Interface(name) => view
                .interface(name)
                .is_some_and(|interface| !matches!(interface.attachment.domain, Domain::Vrf(_))),
        };
        if rule.from.iter().any(bridged) {
            let finding = error(codes::NAT_OUTSIDE_VRF, "bridged packets are not translated")
                .hint("translate where packets are routed: between interfaces of a VRF");
            sink.report(&at!["classify", index, "from"], At::Value, finding);
        }
    }
}
