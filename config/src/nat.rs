//! `[service.<name>.nat]`: how it is read, and how it is written back.

use std::net::Ipv4Addr;
use std::time::Duration;

use ipnet::IpNet;
use serde_json::{Value, json};

use crate::build::{many, matches, number, port_range, prefixes, records, text, word};
use crate::model::{DEFAULT_NAT_PORTS, DnatRule, Filtering, Nat, NatTimeouts, SnatRule, SnatTarget};
use crate::render::{self, Object};
use crate::text::{self as form, render_duration};
use crate::tree::Node;

/// Reads the table.
pub(crate) fn build(node: &Node) -> Nat {
    let default = NatTimeouts::default();
    let time = |key: &str, default: Duration| text(node, key, form::duration).unwrap_or(default);
    Nat {
        snat: many(node, "snat", |rule| Some(snat(rule))),
        dnat: records(node, "dnat").iter().map(dnat).collect(),
        filtering: match word(node, "filtering") {
            Some("endpoint-independent") => Filtering::EndpointIndependent,
            Some("address-and-port-dependent") => Filtering::AddressAndPortDependent,
            _ => Filtering::AddressDependent,
        },
        timeouts: NatTimeouts {
            tcp_established: time("tcp-established-timeout", default.tcp_established),
            tcp_transitory: time("tcp-transitory-timeout", default.tcp_transitory),
            udp: time("udp-timeout", default.udp),
            icmp: time("icmp-timeout", default.icmp),
        },
        ports_per_host: number(node, "ports-per-host"),
    }
}

fn snat(node: &Node) -> SnatRule {
    let targets = many(node, "to", |element| form::pool(element.text()?).ok());
    let target = match targets.as_slice() {
        [form::Pool::Masquerade, ..] => SnatTarget::Masquerade,
        [form::Pool::None, ..] => SnatTarget::Exempt,
        _ => SnatTarget::Pool(
            targets
                .iter()
                .filter_map(|target| if let form::Pool::Range(range) = target { Some(*range) } else { None })
                .collect(),
        ),
    };
    SnatRule {
        matches: matches(node, "protocol", "from", "to-prefix"),
        target,
        ports: node.get("ports").and_then(port_range).unwrap_or(DEFAULT_NAT_PORTS),
    }
}

fn dnat(node: &Node) -> DnatRule {
    let address = |key: &str| text(node, key, form::ipv4).unwrap_or(Ipv4Addr::UNSPECIFIED);
    DnatRule {
        protocol: number(node, "protocol").or_else(|| text(node, "protocol", form::protocol).flatten()),
        from: prefixes(node, "from"),
        to: address("to"),
        to_ports: node.get("to-port").and_then(port_range),
        forward: address("forward"),
        forward_port: node.get("forward-port").and_then(port_range).map(|ports| ports.first),
    }
}

/// Writes the table as [`build`] reads it.
pub(crate) fn render(nat: &Nat) -> Value {
    let mut out = Object::default();
    out.put_list("snat", nat.snat.iter().map(render_snat));
    out.put_list("dnat", nat.dnat.iter().map(render_dnat));
    out.put(
        "filtering",
        match nat.filtering {
            Filtering::EndpointIndependent => "endpoint-independent",
            Filtering::AddressDependent => "address-dependent",
            Filtering::AddressAndPortDependent => "address-and-port-dependent",
        },
    );
    out.put("tcp-established-timeout", render_duration(nat.timeouts.tcp_established));
    out.put("tcp-transitory-timeout", render_duration(nat.timeouts.tcp_transitory));
    out.put("udp-timeout", render_duration(nat.timeouts.udp));
    out.put("icmp-timeout", render_duration(nat.timeouts.icmp));
    out.put_some("ports-per-host", nat.ports_per_host);
    out.finish()
}

fn render_snat(rule: &SnatRule) -> Value {
    let mut out = Object::default();
    out.put_some("protocol", rule.matches.protocol);
    render::matches(&rule.matches, "from", "to-prefix", &mut out);
    match &rule.target {
        SnatTarget::Pool(ranges) => match ranges.as_slice() {
            [one] => out.put("to", one.to_string()),
            several => out.put_list("to", several.iter().map(ToString::to_string)),
        },
        SnatTarget::Masquerade => out.put("to", "masquerade"),
        SnatTarget::Exempt => out.put("to", "none"),
    }
    if rule.target != SnatTarget::Exempt {
        out.put("ports", render::port_range(&rule.ports));
    }
    out.finish()
}

fn render_dnat(rule: &DnatRule) -> Value {
    let mut out = Object::default();
    out.put("protocol", rule.protocol.map_or_else(|| json!("any"), |number| json!(number)));
    out.put_list("from", rule.from.iter().map(IpNet::to_string));
    out.put("to", rule.to.to_string());
    out.put_some("to-port", rule.to_ports.as_ref().map(render::port_range));
    out.put("forward", rule.forward.to_string());
    out.put_some("forward-port", rule.forward_ports().as_ref().map(render::port_range));
    out.finish()
}
