//! VXLAN tunnels.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::at;
use super::view::View;
use crate::codes;
use crate::model::{Config, Domain, Tunnel};
use crate::sink::{At, Sink, error, warning};

pub(super) fn validate(config: &Config, view: &View<'_>, sink: &mut Sink<'_>) {
    duplicate_vnis(config, sink);
    for (name, tunnel) in &config.tunnels {
        let at = |key: &str| at!["tunnel", name, "vxlan", key];
        // Placeholders of malformed addresses are no addresses.
        if sink.is_sound(&at("local")) {
            vtep(tunnel.local, "local", &at("local"), sink);
            remotes(name, tunnel, sink);
            local_is_owned(name, tunnel, view, sink);
        }
        if !matches!(tunnel.attachment.domain, Domain::Vrf(_)) {
            for (key, given) in [("mac", tunnel.mac.is_some()), ("remote-mac", tunnel.remote_mac.is_some())] {
                if given {
                    let message = format!("`{key}` has no effect: `{name}` is not in a VRF");
                    sink.report(&at(key), At::Key, warning(codes::IGNORED_KEY, message).hint("remove it"));
                }
            }
        }
        if let (Some(mac), true) = (tunnel.remote_mac, tunnel.mac == tunnel.remote_mac) {
            let message = format!("`{mac}` is both this end's and the far end's MAC address");
            let finding = error(codes::BAD_MAC, message).also(&at("mac"), At::Value, "this end's");
            sink.report(&at("remote-mac"), At::Value, finding);
        }
        inner_mtu(config, name, tunnel, view, sink);
    }
}

fn duplicate_vnis(config: &Config, sink: &mut Sink<'_>) {
    let mut first: BTreeMap<(IpAddr, u16, u32), &str> = BTreeMap::new();
    for (name, tunnel) in
        sink.names("tunnel").into_iter().filter_map(|name| config.tunnels.get_key_value(name))
    {
        let at = |key: &str| at!["tunnel", name, "vxlan", key];
        if !sink.is_sound(&at("local")) || !sink.is_sound(&at("vni")) || sink.is_refused(&at("port")) {
            continue;
        }
        let key = (tunnel.local, tunnel.udp_port, tunnel.vni);
        let Some(other) = first.get(&key) else {
            first.insert(key, name);
            continue;
        };
        let message = format!(
            "VNI {} of VTEP {} (UDP port {}) is given to two tunnels",
            tunnel.vni, tunnel.local, tunnel.udp_port
        );
        let finding = error(codes::DUPLICATE_VNI, message)
            .also(&at!["tunnel", other, "vxlan", "vni"], At::Value, format!("tunnel `{other}` has it"))
            .hint("give one of them another VNI; several remotes of one bridge go into `remotes`");
        sink.report(&at!["tunnel", name, "vxlan", "vni"], At::Value, finding);
    }
}

/// A VTEP address is one host's.
fn vtep(ip: IpAddr, what: &str, path: &[String], sink: &mut Sink<'_>) {
    let reason = if ip.is_unspecified() {
        "it is unspecified"
    } else if ip.is_multicast() {
        "it is multicast"
    } else if ip.is_loopback() {
        "it is a loopback address"
    } else if matches!(ip, IpAddr::V4(v4) if v4.is_broadcast()) {
        "it is broadcast"
    } else {
        return;
    };
    let finding = error(codes::BAD_ADDRESS, format!("`{ip}` cannot be a {what} VTEP address: {reason}"));
    let finding = if ip.is_multicast() && what == "remote" {
        finding.hint("name the remote VTEPs in `remotes`: broadcast goes to each of them")
    } else {
        finding
    };
    sink.report(path, At::Value, finding);
}

fn remotes(name: &str, tunnel: &Tunnel, sink: &mut Sink<'_>) {
    let list = at!["tunnel", name, "vxlan", "remotes"];
    let one = at!["tunnel", name, "vxlan", "remote"];
    // Indices are those of the file only if every element could be read.
    if sink.is_refused(&list) || sink.is_refused(&one) {
        return;
    }
    let several = tunnel.remotes.len() > 1;
    for (index, remote) in tunnel.remotes.iter().enumerate() {
        let path =
            if sink.exists(&one) { one.clone() } else { at!["tunnel", name, "vxlan", "remotes", index] };
        vtep(*remote, "remote", &path, sink);
        let at_local = at!["tunnel", name, "vxlan", "local"];
        if remote.is_ipv4() != tunnel.local.is_ipv4() {
            let message =
                format!("`{remote}` and the local address `{}` are not of one family", tunnel.local);
            let finding = error(codes::FAMILY_MISMATCH, message)
                .also(&at_local, At::Value, "the local address")
                .hint("both are IPv4, or both IPv6");
            sink.report(&path, At::Value, finding);
        } else if *remote == tunnel.local {
            let finding = error(
                codes::REMOTE_IS_LOCAL,
                format!("`{remote}` is the tunnel's own local address"),
            )
            .also(&at_local, At::Value, "the local address");
            sink.report(&path, At::Value, finding);
        }
        let first = tunnel.remotes.iter().position(|other| other == remote);
        if let Some(first) = first.filter(|first| *first < index) {
            let finding = error(codes::DUPLICATE_REMOTE, format!("`{remote}` is given twice")).also(
                &at!["tunnel", name, "vxlan", "remotes", first],
                At::Value,
                "it is given here first",
            );
            sink.report(&path, At::Value, finding);
        }
    }
    if several && !matches!(tunnel.attachment.domain, Domain::Bridge(_)) {
        let finding = error(codes::SEVERAL_REMOTES, "only a tunnel in a bridge can have several remotes")
            .hint("define one tunnel for each remote, or put the tunnel into a bridge");
        sink.report(&list, At::Value, finding);
    }
}

fn local_is_owned(name: &str, tunnel: &Tunnel, view: &View<'_>, sink: &mut Sink<'_>) {
    let vrf = tunnel.underlay_vrf.as_str();
    if view.is_own(vrf, tunnel.local) || view.is_open(vrf) || view.doubtful {
        return;
    }
    let message = format!("`{}` is not an address of a port in VRF `{vrf}`", tunnel.local);
    let finding = warning(codes::LOCAL_NOT_OWNED, message)
        .hint("give it to a port in `addresses`, or nobody can send to this tunnel unless routes lead here");
    sink.report(&at!["tunnel", name, "vxlan", "local"], At::Value, finding);
}

/// Warns if the MTU cannot hold on any port of the underlay.
fn inner_mtu(config: &Config, name: &str, tunnel: &Tunnel, view: &View<'_>, sink: &mut Sink<'_>) {
    let Some(mtu) = tunnel.mtu else { return };
    let underlay = view.interfaces.iter().filter(|interface| {
        interface.path.first().is_some_and(|first| first == "port")
            && interface.vrf() == Some(tunnel.underlay_vrf.as_str())
    });
    let mtus: Option<Vec<u16>> =
        underlay.map(|i| i.path.get(1).and_then(|port| config.ports.get(port)).and_then(|p| p.mtu)).collect();
    let Some(largest) = mtus.and_then(|mtus| mtus.into_iter().max()) else { return };
    let overhead = if tunnel.local.is_ipv4() { 50 } else { 70 };
    let limit = largest.saturating_sub(overhead);
    if mtu > limit && sink.is_sound(&["tunnel", name, "vxlan", "local"]) {
        let message =
            format!("an MTU of {mtu} and {overhead} bytes of encapsulation exceed the underlay's {largest}");
        let finding =
            warning(codes::TUNNEL_MTU, message).hint(format!("lower it to {limit}, or leave it out"));
        sink.report(&at!["tunnel", name, "vxlan", "mtu"], At::Value, finding);
    }
}
