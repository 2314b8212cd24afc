//! A [`Config`] in the shape of the file, as JSON: the inverse of [`crate::from_json`], with every default
//! written out.

use ipnet::IpNet;
use serde_json::{Map, Value, json};

use crate::model::*;
use crate::text::{render_duration, render_rate};

/// The configuration in the shape of the file, every default written out. [`crate::from_json`] reads it back to
/// an equal configuration.
pub fn to_json(config: &Config) -> Value {
    let mut root = Object::default();
    root.put("workers", workers(&config.workers));
    root.put("limits", limits(&config.limits));
    root.put("memory", memory(&config.memory));
    root.put_all("port", config.ports.iter().map(|(name, value)| (name.clone(), port(value))));
    root.put_list("neighbour", config.neighbours.iter().map(neighbour));
    root.put_all("vrf", config.vrfs.iter().map(|(name, value)| (name.clone(), vrf(value))));
    root.put_all("bridge", config.bridges.iter().map(|(name, value)| (name.clone(), bridge(value))));
    root.put_all(
        "tunnel",
        config.tunnels.iter().map(|(name, value)| (name.clone(), json!({ "vxlan": vxlan(value) }))),
    );
    let cross_connects = config.cross_connects.iter();
    root.put_all(
        "cross-connect",
        cross_connects.map(|(name, value)| (name.clone(), json!({ "ends": value.ends }))),
    );
    root.put_all("service", config.services.iter().map(|(name, value)| (name.clone(), service(value))));
    root.put_all("hop", config.hops.iter().map(|(name, value)| (name.clone(), hop(value))));
    root.put_all(
        "chain",
        config.chains.iter().map(|(name, value)| (name.clone(), json!({ "hops": value.hops }))),
    );
    root.put_list("classify", config.classify.iter().map(|rule| classify(rule, config)));
    root.finish()
}

/// A JSON object under construction: what is absent or empty is left out.
#[derive(Default)]
pub(crate) struct Object(Map<String, Value>);

impl Object {
    pub(crate) fn put(&mut self, key: &str, value: impl Into<Value>) {
        self.0.insert(key.to_owned(), value.into());
    }

    pub(crate) fn put_some<T: Into<Value>>(&mut self, key: &str, value: Option<T>) {
        if let Some(value) = value {
            self.put(key, value);
        }
    }

    pub(crate) fn put_list<T: Into<Value>>(&mut self, key: &str, list: impl IntoIterator<Item = T>) {
        let list: Vec<Value> = list.into_iter().map(Into::into).collect();
        if !list.is_empty() {
            self.put(key, list);
        }
    }

    pub(crate) fn put_all(&mut self, key: &str, entries: impl Iterator<Item = (String, Value)>) {
        let entries: Map<String, Value> = entries.collect();
        if !entries.is_empty() {
            self.put(key, entries);
        }
    }

    pub(crate) fn finish(self) -> Value {
        Value::Object(self.0)
    }
}

fn workers(workers: &Workers) -> Value {
    json!({
        "cores": match &workers.cores {
            Cores::Auto => json!("auto"),
            Cores::List(cores) => json!(cores),
        },
        "idle": match workers.idle {
            Idle::Spin => "spin",
            Idle::Adaptive => "adaptive",
        },
    })
}

fn limits(limits: &Limits) -> Value {
    json!({
        "flows": limits.flows,
        "sessions": limits.sessions,
        "neighbours": limits.neighbours,
        "held-packets": limits.held_packets,
        "macs": limits.macs,
        "meters": limits.meters,
        "nat-bindings": limits.nat_bindings,
        "icmp-errors-per-second": limits.icmp_errors_per_second,
    })
}

fn memory(memory: &Memory) -> Value {
    json!({
        "frames": memory.frames,
        "frame-size": memory.frame_size,
        "huge-pages": match memory.huge_pages {
            HugePages::Auto => "auto",
            HugePages::Require => "require",
            HugePages::Never => "never",
        },
    })
}

fn port(port: &Port) -> Value {
    let mut out = Object::default();
    out.put_some("device", port.device.clone());
    out.put(
        "mode",
        match port.mode {
            PortMode::Shared => "shared",
            PortMode::Dedicated => "dedicated",
        },
    );
    out.put(
        "xdp",
        match port.xdp {
            XdpMode::Auto => "auto",
            XdpMode::Native => "native",
            XdpMode::Generic => "generic",
        },
    );
    out.put(
        "xsk-map",
        match port.xsk_map {
            XskMap::Own => "own",
            XskMap::Plugin => "plugin",
            XskMap::Pinned => "pinned",
        },
    );
    out.put_some("queues", port.queues);
    out.put_some("vfio-token", port.vfio_token.clone());
    out.put_some("mac", port.mac.map(|mac| mac.to_string()));
    out.put_some("mtu", port.mtu);
    out.put_list("prefixes", texts(&port.prefixes));
    attachment(&port.attachment, &mut out);
    out.put_all(
        "vlan",
        port.vlans.iter().map(|(vid, vlan)| {
            let mut out = Object::default();
            attachment(vlan, &mut out);
            (vid.to_string(), out.finish())
        }),
    );
    out.finish()
}

fn texts(prefixes: &[IpNet]) -> impl Iterator<Item = String> {
    prefixes.iter().map(IpNet::to_string)
}

fn attachment(attachment: &Attachment, out: &mut Object) {
    match &attachment.domain {
        Domain::Vrf(name) => out.put("vrf", name.clone()),
        Domain::Bridge(name) => out.put("bridge", name.clone()),
        // The cross-connect names its ends, the hop its interfaces.
        Domain::CrossConnect(_) | Domain::Hop(_) => {}
    }
    out.put_list("addresses", texts(&attachment.addresses));
}

fn hop(hop: &Hop) -> Value {
    let attach = match hop.attach.as_slice() {
        [one] => json!(one),
        several => json!(several),
    };
    let fail = match hop.fail {
        Fail::Closed => "closed",
        Fail::Open => "open",
    };
    json!({ "attach": attach, "fail": fail })
}

fn neighbour(neighbour: &StaticNeighbour) -> Value {
    json!({ "port": neighbour.interface, "ip": neighbour.ip, "mac": neighbour.mac })
}

fn vrf(vrf: &Vrf) -> Value {
    let mut out = Object::default();
    out.put_list("route", vrf.routes.iter().map(route));
    out.finish()
}

fn route(route: &Route) -> Value {
    let hops: Vec<Value> = route.via.iter().map(next_hop).collect();
    let via = match hops.as_slice() {
        [one] => one.clone(),
        _ => Value::Array(hops),
    };
    json!({ "prefix": route.prefix, "via": via })
}

fn next_hop(hop: &NextHop) -> Value {
    match hop {
        NextHop::Gateway { ip, interface: Some(interface) } => json!({ "ip": ip, "port": interface }),
        NextHop::Gateway { ip, interface: None } => json!({ "ip": ip }),
        NextHop::Interface(name) => json!({ "port": name }),
        NextHop::Tunnel(name) => json!({ "tunnel": name }),
        NextHop::Blackhole => json!({ "blackhole": true }),
    }
}

fn bridge(bridge: &Bridge) -> Value {
    let mut out = Object::default();
    out.put("ageing", render_duration(bridge.ageing));
    out.put("learning", bridge.learning);
    out.put_some("macs-per-member", bridge.macs_per_member);
    out.put("forward-stp", bridge.forward_stp);
    out.put("forward-lldp", bridge.forward_lldp);
    out.finish()
}

fn vxlan(tunnel: &Tunnel) -> Value {
    let mut out = Object::default();
    out.put("local", tunnel.local.to_string());
    match tunnel.remotes.as_slice() {
        [one] => out.put("remote", one.to_string()),
        several => out.put_list("remotes", several.iter().map(ToString::to_string)),
    }
    out.put("vni", tunnel.vni);
    out.put("port", tunnel.udp_port);
    out.put("underlay-vrf", tunnel.underlay_vrf.clone());
    attachment(&tunnel.attachment, &mut out);
    out.put_some("mac", tunnel.mac.map(|mac| mac.to_string()));
    out.put_some("remote-mac", tunnel.remote_mac.map(|mac| mac.to_string()));
    out.put_some("mtu", tunnel.mtu);
    out.put("ttl", tunnel.ttl);
    match tunnel.dscp {
        DscpModel::Uniform => out.put("dscp", "uniform"),
        DscpModel::Pipe(value) => out.put("dscp", value),
    }
    out.put("check-udp", tunnel.check_udp);
    out.put("mss-clamp", tunnel.mss_clamp);
    out.finish()
}

fn service(service: &Service) -> Value {
    match service {
        Service::Firewall(firewall) => {
            let mut out = Object::default();
            out.put(
                "default",
                match firewall.default {
                    Action::Allow => "allow",
                    Action::Deny => "drop",
                    Action::Reject => "reject",
                },
            );
            out.put("tcp-pickup", firewall.tcp_pickup);
            out.put_list("rules", firewall.rules.iter().map(firewall_rule));
            json!({ "firewall": out.finish() })
        }
        Service::Policer(policer) => {
            let rules: Vec<Value> = policer.rules.iter().map(policer_rule).collect();
            json!({ "policer": { "rules": rules } })
        }
        Service::Nat(nat) => json!({ "nat": crate::nat::render(nat) }),
    }
}

fn firewall_rule(rule: &FirewallRule) -> Value {
    let key = match rule.action {
        Action::Allow => "allow",
        Action::Deny => "deny",
        Action::Reject => "reject",
    };
    let mut out = Object::default();
    out.put(key, protocol(rule.matches.protocol));
    matches(&rule.matches, "from", "to", &mut out);
    out.finish()
}

fn protocol(number: Option<u8>) -> Value {
    number.map_or_else(|| json!("any"), |number| json!(number))
}

fn policer_rule(rule: &PolicerRule) -> Value {
    let mut out = Object::default();
    out.put("rate", render_rate(rule.rate));
    out.put("burst", rule.burst);
    out.put(
        "per",
        match rule.per {
            PolicerScope::Rule => "rule",
            PolicerScope::Source => "source",
        },
    );
    out.put_some("protocol", rule.matches.protocol);
    matches(&rule.matches, "from", "to", &mut out);
    out.finish()
}

fn classify(rule: &ClassifyRule, config: &Config) -> Value {
    let mut out = Object::default();
    let scopes = rule.from.iter().map(|scope| match scope {
        ClassifyScope::Interface(name) if config.tunnels.contains_key(name) => format!("tunnel.{name}"),
        ClassifyScope::Interface(name) => format!("port.{name}"),
        ClassifyScope::Vrf(name) => format!("vrf.{name}"),
        ClassifyScope::Bridge(name) => format!("bridge.{name}"),
    });
    out.put_list("from", scopes);
    out.put_some("protocol", rule.matches.protocol);
    matches(&rule.matches, "from-prefix", "to-prefix", &mut out);
    out.put("chain", rule.chain.as_deref().unwrap_or("none"));
    out.finish()
}

pub(crate) fn matches(matches: &Match, from: &str, to: &str, out: &mut Object) {
    out.put_list(from, texts(&matches.from));
    out.put_list(to, texts(&matches.to));
    out.put_list("from-port", matches.from_ports.iter().map(port_range));
    out.put_list("to-port", matches.to_ports.iter().map(port_range));
    out.put_list("dscp", matches.dscp.iter().copied());
    out.put_some("tcp-flags", matches.tcp_flags.map(crate::text::render_tcp_flags));
    out.put_list("icmp-type", matches.icmp_types.iter().copied());
}

pub(crate) fn port_range(range: &PortRange) -> Value {
    if range.first == range.last {
        json!(range.first)
    } else {
        json!(format!("{}-{}", range.first, range.last))
    }
}
