//! Ports, their VLANs and addresses, and cross-connects.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;

use ipnet::IpNet;

use super::at;
use super::view::{Interface, InterfaceKind, View, is_link_local_v6};
use crate::codes;
use crate::device::{DeviceName, MemifEnd, memif_end};
use crate::model::{Config, Domain, PortMode, XskMap};
use crate::sink::{At, Sink, error, warning};

/// Bytes of a frame that packets cannot use: headroom, and an Ethernet header with two VLAN tags.
const FRAME_OVERHEAD: u32 = 256 + 22;

/// The least MTU of IPv6 (RFC 8200 section 5).
const IPV6_MINIMUM_MTU: u16 = 1280;

pub(super) fn validate(config: &Config, view: &View<'_>, sink: &mut Sink<'_>) {
    duplicate_cores(config, sink);
    duplicate_names(config, sink);
    duplicate_devices(config, sink);
    kinds_of_devices(config, sink);
    both_ends_of_a_memif(config, sink);
    foreign_programs(config, sink);
    for (name, bridge) in &config.bridges {
        let path = at!["bridge", name, "ageing"];
        if !(1..=1_000_000).contains(&bridge.ageing.as_secs()) && !sink.is_refused(&path) {
            let message = "the ageing time is out of range: 1s to 1000000s";
            sink.report(&path, At::Value, error(codes::OUT_OF_RANGE, message));
        }
    }
    for interface in &view.interfaces {
        mtu(config, interface, sink);
        attachment(config, interface, sink);
    }
}

fn duplicate_cores(config: &Config, sink: &mut Sink<'_>) {
    let crate::model::Cores::List(cores) = &config.workers.cores else { return };
    for (index, core) in cores.iter().enumerate() {
        if let Some(first) = cores.iter().position(|other| other == core).filter(|first| *first < index) {
            let finding = error(codes::CONFLICTING_KEYS, format!("core {core} is given twice")).also(
                &at!["workers", "cores", first],
                At::Value,
                "it is given here first",
            );
            sink.report(&at!["workers", "cores", index], At::Value, finding);
        }
    }
}

fn duplicate_names(config: &Config, sink: &mut Sink<'_>) {
    for name in config.tunnels.keys().filter(|name| config.ports.contains_key(*name)) {
        let finding = error(codes::DUPLICATE_INTERFACE, format!("`{name}` is both a port and a tunnel"))
            .also(&at!["port", name], At::Key, "the port")
            .hint("interfaces are referred to by name: give one of them another");
        sink.report(&at!["tunnel", name], At::Key, finding);
    }
}

/// The AF_XDP device plugin's program knows nothing of what the kernel should keep, and attaches as it likes.
fn foreign_programs(config: &Config, sink: &mut Sink<'_>) {
    let foreign = config.ports.iter().filter(|(_, port)| port.xsk_map != XskMap::Own);
    for (name, port) in foreign {
        let path = at!["port", name, "xsk-map"];
        if port.mode == PortMode::Shared {
            let message = "the device plugin's XDP program takes every frame, and a shared port leaves some to the kernel";
            sink.report(
                &path,
                At::Value,
                error(codes::CONFLICTING_KEYS, message).hint("add `mode = \"dedicated\"`"),
            );
        }
        let xdp = at!["port", name, "xdp"];
        if sink.is_sound(&xdp) {
            let message = "`xdp` has no effect here: the device plugin attached its XDP program already";
            sink.report(&xdp, At::Key, warning(codes::IGNORED_KEY, message));
        }
    }
}

/// A virtual device has no kernel to share it with, and no XDP; a network device's queues are not ours to choose.
fn kinds_of_devices(config: &Config, sink: &mut Sink<'_>) {
    for (name, port) in &config.ports {
        let Some(device) = port.device.as_deref().and_then(DeviceName::parse) else { continue };
        let (ignored, why): (&[&str], _) = match device {
            DeviceName::Virtual(_) => (
                &["xdp", "xsk-map", "prefixes", "vfio-token"],
                "a virtual device of DPDK has no XDP, no kernel beside it and no VFIO",
            ),
            DeviceName::Netdev(_) => (
                &["queues", "vfio-token"],
                "a network device is driven through AF_XDP, with the queues that `ethtool -L` gives it",
            ),
            DeviceName::Pci(_) | DeviceName::Environment { .. } => (&[], ""),
        };
        if matches!(device, DeviceName::Virtual(_)) && port.mode == PortMode::Shared {
            let message = "a virtual device of DPDK is weir's alone, and the port is shared";
            let finding = error(codes::CONFLICTING_KEYS, message).hint("add `mode = \"dedicated\"`");
            sink.report(&at!["port", name, "device"], At::Value, finding);
        }
        for key in ignored {
            let path = at!["port", name, *key];
            if sink.is_sound(&path) {
                let finding = warning(codes::IGNORED_KEY, format!("`{key}` has no effect here: {why}"));
                sink.report(&path, At::Key, finding);
            }
        }
    }
}

/// DPDK connects two ends that are in one process, but no packet crosses.
fn both_ends_of_a_memif(config: &Config, sink: &mut Sink<'_>) {
    let ends: Vec<(&String, MemifEnd<'_>)> = sink
        .names("port")
        .into_iter()
        .filter_map(|name| {
            let (name, port) = config.ports.get_key_value(name)?;
            match DeviceName::parse(port.device.as_deref()?)? {
                DeviceName::Virtual(arguments) => Some((name, memif_end(arguments)?)),
                _ => None,
            }
        })
        .collect();
    for (index, (name, end)) in ends.iter().enumerate() {
        let other = ends
            .iter()
            .take(index)
            .find(|(_, other)| other.socket == end.socket && other.server != end.server);
        let Some((other, _)) = other else { continue };
        let (socket, _) = end.socket;
        let message = format!("ports `{other}` and `{name}` are the two ends of memif `{socket}`");
        let finding = error(codes::CONFLICTING_KEYS, message)
            .also(&at!["port", other, "device"], At::Value, "the other end")
            .hint("no packet crosses a memif within one process: join ports by a bridge or a cross-connect");
        sink.report(&at!["port", name, "device"], At::Value, finding);
    }
}

fn duplicate_devices(config: &Config, sink: &mut Sink<'_>) {
    let mut first: BTreeMap<&str, &str> = BTreeMap::new();
    for (name, port) in sink.names("port").into_iter().filter_map(|name| config.ports.get_key_value(name)) {
        let Some(device) = port.device.as_deref() else { continue };
        match first.get(device) {
            None => {
                first.insert(device, name);
            }
            Some(other) => {
                let finding =
                    error(codes::DUPLICATE_DEVICE, format!("device `{device}` is used by two ports"))
                        .also(&at!["port", other, "device"], At::Value, format!("port `{other}` uses it"))
                        .hint("for VLANs of one device, write `[port.<name>.vlan.<id>]`");
                sink.report(&at!["port", name, "device"], At::Value, finding);
            }
        }
    }
}

fn mtu(config: &Config, interface: &Interface<'_>, sink: &mut Sink<'_>) {
    let port = interface.name.split_once('.').map_or(interface.name.as_str(), |(port, _)| port);
    let (mtu, path) = match interface.kind {
        InterfaceKind::Tunnel => {
            (config.tunnels.get(&interface.name).and_then(|t| t.mtu), interface.at("mtu"))
        }
        _ => (config.ports.get(port).and_then(|p| p.mtu), at!["port", port, "mtu"]),
    };
    let Some(mtu) = mtu else { return };
    let frame_size = config.memory.frame_size;
    let limit = frame_size.saturating_sub(FRAME_OVERHEAD);
    let known_size = !sink.is_refused(&["memory", "frame-size"]);
    if u32::from(mtu) > limit
        && known_size
        && interface.kind != InterfaceKind::Vlan
        && !sink.is_refused(&path)
    {
        let message =
            format!("an MTU of {mtu} does not fit: frames of {frame_size} bytes take at most {limit}");
        let fits = |size: &u32| u32::from(mtu) <= size.saturating_sub(FRAME_OVERHEAD);
        let hint = match [4096, 8192, 16384].into_iter().find(fits) {
            Some(4096) => format!("lower the MTU to {limit}, or give `frame-size = 4096` in [memory]"),
            Some(size) => format!(
                "lower the MTU to {limit}, or give `frame-size = {size}` in [memory], which AF_XDP takes on huge pages only"
            ),
            None => format!("lower the MTU to {limit}"),
        };
        sink.report(&path, At::Value, error(codes::MTU_EXCEEDS_FRAME, message).hint(hint));
    }
    let v6 = interface.attachment.addresses.iter().position(|address| address.addr().is_ipv6());
    if let Some(index) = v6.filter(|_| mtu < IPV6_MINIMUM_MTU && !sink.is_refused(&path)) {
        let address = interface.at_address(index);
        let message = format!("an MTU of {mtu} is below 1280, the least that IPv6 allows");
        let finding = error(codes::MTU_BELOW_IPV6_MINIMUM, message)
            .also(&address, At::Value, "the interface has an IPv6 address")
            .hint("raise the MTU to at least 1280, or remove the IPv6 addresses");
        sink.report(&path, At::Value, finding);
    }
}

fn attachment(config: &Config, interface: &Interface<'_>, sink: &mut Sink<'_>) {
    let in_vrf = interface.vrf().is_some();
    if !in_vrf && !interface.attachment.addresses.is_empty() {
        let message = format!("`{}` is in {}, so it has no addresses", interface.name, interface.belongs());
        let finding = error(codes::ADDRESSES_OUTSIDE_VRF, message)
            .hint("remove the addresses, or put the interface into a VRF");
        sink.report(&interface.at("addresses"), At::Key, finding);
    }
    let port = config.ports.get(interface.name.split('.').next().unwrap_or_default());
    let Some(port) = port.filter(|_| interface.kind != InterfaceKind::Tunnel) else { return };
    if !in_vrf && port.mode == PortMode::Shared && port.device.is_some() {
        let name = interface.path.get(1).map_or("", String::as_str);
        let message = format!(
            "`{}` is in {}, but port `{name}` is shared with the kernel",
            interface.name,
            interface.belongs()
        );
        let finding = error(codes::SHARED_PORT_IN_BRIDGE, message)
            .hint(format!("it needs every frame: give `mode = \"dedicated\"` in [port.{name}]"));
        let key = if matches!(interface.attachment.domain, Domain::Bridge(_)) { "bridge" } else { "mode" };
        sink.report(&interface.at(key), At::Value, finding);
    }
    if interface.kind == InterfaceKind::Port && port.mode == PortMode::Dedicated && !port.prefixes.is_empty()
    {
        let finding =
            warning(codes::IGNORED_KEY, "`prefixes` has no effect: a dedicated port takes everything")
                .hint("remove it, or give `mode = \"shared\"`");
        sink.report(&interface.at("prefixes"), At::Key, finding);
    }
}

/// Own addresses: usable ones, each once, and no two interfaces of a VRF on overlapping subnets.
pub(super) fn addresses(view: &View<'_>, sink: &mut Sink<'_>) {
    let mut seen: HashMap<(&str, IpAddr), Vec<String>> = HashMap::new();
    let mut subnets: Vec<(&str, IpNet, usize, Vec<String>)> = Vec::new();
    for (index, interface) in view.interfaces.iter().enumerate() {
        let Some(vrf) = interface.vrf() else { continue };
        for (position, address) in interface.attachment.addresses.iter().enumerate() {
            let path = interface.at_address(position);
            if let Some(reason) = unusable(address) {
                let message = format!("`{address}` cannot be the address of an interface: {reason}");
                sink.report(&path, At::Value, error(codes::BAD_ADDRESS, message));
                continue;
            }
            let link_local = is_link_local_v6(address.addr());
            let scope = if link_local { interface.name.as_str() } else { vrf };
            if let Some(first) = seen.get(&(scope, address.addr())) {
                let message = format!("`{}` is given twice in VRF `{vrf}`", address.addr());
                let finding =
                    error(codes::DUPLICATE_ADDRESS, message).also(first, At::Value, "it is given here first");
                sink.report(&path, At::Value, finding);
                continue;
            }
            seen.insert((scope, address.addr()), path.clone());
            if !link_local {
                subnets.push((vrf, address.trunc(), index, path));
            }
        }
    }
    overlaps(subnets, view, sink);
}

/// Prefixes overlap only by nesting, so a sorted sweep with the stack of enclosing ones finds all.
fn overlaps(mut subnets: Vec<(&str, IpNet, usize, Vec<String>)>, view: &View<'_>, sink: &mut Sink<'_>) {
    subnets.sort_by(|a, b| {
        (a.0, a.1.network(), a.1.prefix_len(), a.2).cmp(&(b.0, b.1.network(), b.1.prefix_len(), b.2))
    });
    let mut around: Vec<&(&str, IpNet, usize, Vec<String>)> = Vec::new();
    for subnet in &subnets {
        while around.last().is_some_and(|outer| outer.0 != subnet.0 || !outer.1.contains(&subnet.1)) {
            around.pop();
        }
        if let Some(outer) = around.last().filter(|outer| outer.2 != subnet.2) {
            let name =
                |index: usize| view.interfaces.get(index).map_or("", |interface| interface.name.as_str());
            let message = format!(
                "the subnet `{}` of `{}` overlaps `{}` of `{}` in VRF `{}`",
                subnet.1,
                name(subnet.2),
                outer.1,
                name(outer.2),
                subnet.0
            );
            let finding = error(codes::OVERLAPPING_ADDRESSES, message)
                .also(&outer.3, At::Value, format!("`{}` has this subnet", name(outer.2)))
                .hint("give one of them another subnet, or put them into different VRFs");
            sink.report(&subnet.3, At::Value, finding);
        }
        around.push(subnet);
    }
}

/// Why an address cannot be an interface's own.
fn unusable(address: &IpNet) -> Option<&'static str> {
    let ip = address.addr();
    if ip.is_unspecified() {
        return Some("it is unspecified");
    }
    if ip.is_multicast() {
        return Some("it is multicast");
    }
    if ip.is_loopback() {
        return Some("it is a loopback address");
    }
    match address {
        IpNet::V4(v4) if v4.prefix_len() < 31 && v4.addr() == v4.network() => {
            Some("it is its subnet's network address")
        }
        IpNet::V4(v4) if v4.prefix_len() < 31 && v4.addr() == v4.broadcast() => {
            Some("it is its subnet's broadcast address")
        }
        _ => None,
    }
}

pub(super) fn cross_connects(config: &Config, view: &View<'_>, sink: &mut Sink<'_>) {
    let mut used: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    let in_order = sink.names("cross-connect").into_iter();
    for (name, cross_connect) in in_order.filter_map(|name| config.cross_connects.get_key_value(name)) {
        for (index, end) in cross_connect.ends.iter().enumerate() {
            let path = at!["cross-connect", name, "ends", index];
            let Some(interface) = view.interface(end).filter(|_| !sink.is_refused(&path)) else { continue };
            if let Some(first) = used.get(end.as_str()) {
                let finding =
                    error(codes::CROSS_CONNECT_END, format!("`{end}` is an end of a cross-connect twice"))
                        .also(first, At::Value, "it is an end here first");
                sink.report(&path, At::Value, finding);
                continue;
            }
            used.insert(end, path.clone());
            if matches!(interface.attachment.domain, Domain::CrossConnect(_)) {
                continue;
            }
            let key = if matches!(interface.attachment.domain, Domain::Vrf(_)) { "vrf" } else { "bridge" };
            let message = format!("`{end}` is already in {}", interface.belongs());
            let finding = error(codes::CROSS_CONNECT_END, message)
                .also(&interface.at(key), At::Key, "it is put there here")
                .hint(format!("remove `{key}` there: an end of a cross-connect belongs to nothing else"));
            sink.report(&path, At::Value, finding);
        }
    }
}
