//! Static routes.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;

use super::at;
use super::view::{InterfaceKind, View, is_link_local_v6};
use crate::codes;
use crate::model::{Config, NextHop};
use crate::sink::{At, Sink, error, warning};

pub(super) fn validate(config: &Config, view: &View<'_>, sink: &mut Sink<'_>) {
    for (vrf, table) in &config.vrfs {
        let mut hops: BTreeMap<IpNet, Vec<(&NextHop, Vec<String>)>> = BTreeMap::new();
        for (index, route) in table.routes.iter().enumerate() {
            let base = at!["vrf", vrf, "route", index];
            if !sink.is_sound(&[base.as_slice(), &at!["prefix"]].concat()) {
                continue;
            }
            let single = sink.is_table(&[base.as_slice(), &at!["via"]].concat());
            for (position, hop) in route.via.iter().enumerate() {
                let mut at = base.clone();
                at.push("via".to_owned());
                if !single {
                    at.push(position.to_string());
                }
                if sink.is_refused(&at) {
                    continue;
                }
                next_hop(vrf, route.prefix, hop, &at, view, sink);
                hops.entry(route.prefix).or_default().push((hop, at));
            }
        }
        for (prefix, hops) in &hops {
            multipath(*prefix, hops, sink);
        }
    }
}

/// What must hold between the next hops of one prefix.
fn multipath(prefix: IpNet, hops: &[(&NextHop, Vec<String>)], sink: &mut Sink<'_>) {
    let Some((first, first_path)) = hops.first() else { return };
    for (index, (hop, at)) in hops.iter().enumerate().skip(1) {
        let same = hops.iter().take(index).find(|(other, _)| other == hop);
        if let Some((_, other)) = same {
            let finding = warning(codes::DUPLICATE_NEXT_HOP, format!("`{prefix}` has this next hop twice"))
                .also(other, At::Value, "it is given here first");
            sink.report(at, At::Value, finding);
        } else if matches!(hop, NextHop::Blackhole) != matches!(first, NextHop::Blackhole) {
            let finding = error(
                codes::BLACKHOLE_MULTIPATH,
                format!("`{prefix}` has a blackhole beside other next hops"),
            )
            .also(first_path, At::Value, "the prefix has this next hop")
            .hint("a prefix is either a blackhole or has next hops");
            sink.report(at, At::Value, finding);
        }
    }
}

fn next_hop(vrf: &str, prefix: IpNet, hop: &NextHop, at: &[String], view: &View<'_>, sink: &mut Sink<'_>) {
    let below = |key: &str| [at, &at![key]].concat();
    match hop {
        NextHop::Blackhole => {}
        NextHop::Tunnel(name) => belongs(vrf, name, &below("tunnel"), view, sink),
        NextHop::Interface(name) => {
            if view.interface(name).is_some_and(|interface| interface.kind == InterfaceKind::Tunnel) {
                let finding = error(codes::UNKNOWN_REFERENCE, format!("there is no port `{name}`"))
                    .hint(format!("`{name}` is a tunnel: write `{{ tunnel = \"{name}\" }}`"));
                sink.report(&below("port"), At::Value, finding);
            } else {
                belongs(vrf, name, &below("port"), view, sink);
            }
        }
        NextHop::Gateway { ip, interface } => {
            if let Some(name) = interface {
                belongs(vrf, name, &below("port"), view, sink);
            }
            gateway(vrf, prefix, *ip, interface.as_deref(), &below("ip"), view, sink);
        }
    }
}

/// An interface of a route is in the route's VRF.
fn belongs(vrf: &str, name: &str, at: &[String], view: &View<'_>, sink: &mut Sink<'_>) {
    let Some(interface) = view.interface(name).filter(|interface| !interface.doubtful) else { return };
    if interface.vrf() == Some(vrf) {
        return;
    }
    let key = ["vrf", "bridge"].map(|key| interface.at(key)).into_iter().find(|path| sink.exists(path));
    let finding =
        error(codes::WRONG_VRF, format!("`{name}` is in {}, not in VRF `{vrf}`", interface.belongs()))
            .also(&key.unwrap_or_else(|| interface.path.clone()), At::Key, "it is put there here")
            .hint(match interface.vrf() {
                Some(other) => {
                    format!("move the route to `[[vrf.{other}.route]]`, or the interface to VRF `{vrf}`")
                }
                None => "routes lead to interfaces of their own VRF only".to_owned(),
            });
    sink.report(at, At::Value, finding);
}

fn gateway(
    vrf: &str,
    prefix: IpNet,
    ip: IpAddr,
    interface: Option<&str>,
    at: &[String],
    view: &View<'_>,
    sink: &mut Sink<'_>,
) {
    if ip.is_ipv4() != prefix.addr().is_ipv4() {
        let finding = error(
            codes::FAMILY_MISMATCH,
            format!("gateway `{ip}` and prefix `{prefix}` are not of one family"),
        )
        .hint("both are IPv4, or both IPv6");
        return sink.report(at, At::Value, finding);
    }
    if ip.is_unspecified() || ip.is_multicast() || ip.is_loopback() {
        let finding = error(codes::BAD_ADDRESS, format!("`{ip}` cannot be a gateway"));
        return sink.report(at, At::Value, finding);
    }
    if view.is_own(vrf, ip) {
        let finding =
            error(codes::GATEWAY_IS_OWN, format!("gateway `{ip}` is weir's own address in VRF `{vrf}`"));
        return sink.report(at, At::Value, finding);
    }
    if is_link_local_v6(ip) && interface.is_none() {
        let finding = error(
            codes::GATEWAY_NOT_CONNECTED,
            format!("gateway `{ip}` is link-local: its interface is unknown"),
        )
        .hint(format!("name the interface: `{{ ip = \"{ip}\", port = \"…\" }}`"));
        return sink.report(at, At::Value, finding);
    }
    if view.doubtful {
        return;
    }
    match interface.and_then(|name| view.interface(name)) {
        Some(interface) if interface.kernel_addresses || interface.covers(ip) => {}
        Some(interface) => {
            let message = format!("gateway `{ip}` is on no subnet of `{}`", interface.name);
            let list: Vec<_> =
                interface.attachment.addresses.iter().map(|a| format!("`{}`", a.trunc())).collect();
            let hint = (!list.is_empty()).then(|| format!("its subnets are {}", list.join(", ")));
            sink.report(at, At::Value, error(codes::GATEWAY_NOT_CONNECTED, message).maybe_hint(hint));
        }
        None if interface.is_some() || view.is_open(vrf) || view.is_connected(vrf, ip) => {}
        None => {
            let message = format!("gateway `{ip}` is on no subnet that is connected in VRF `{vrf}`");
            let hint = match view.subnets(vrf) {
                Some(list) => format!("connected there: {list}"),
                None => format!("give an interface of VRF `{vrf}` an address of the gateway's subnet"),
            };
            sink.report(at, At::Value, error(codes::GATEWAY_NOT_CONNECTED, message).hint(hint));
        }
    }
}
