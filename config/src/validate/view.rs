//! All interfaces of a configuration by name, and the subnets that are connected in each VRF.

use std::collections::{BTreeMap, HashSet};
use std::net::IpAddr;

use ipnet::IpNet;

use crate::model::{Attachment, Config, Domain, PortMode};
use crate::sink::Sink;
use crate::validate::at;

/// Keys of ports and tunnels from which no address or domain follows.
const HARMLESS: &[&str] = &[
    "mtu",
    "mac",
    "xdp",
    "xsk-map",
    "queues",
    "vfio-token",
    "device",
    "prefixes",
    "ttl",
    "dscp",
    "check-udp",
    "mss-clamp",
    "vni",
    "port",
    "remote-mac",
    "remote",
    "remotes",
    "local",
    "vlan",
];

/// What kind an interface is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum InterfaceKind {
    Port,
    Vlan,
    Tunnel,
}

/// An interface and where it stands in the file.
pub(super) struct Interface<'c> {
    pub(super) name: String,
    pub(super) kind: InterfaceKind,
    pub(super) path: Vec<String>,
    pub(super) attachment: &'c Attachment,
    /// Whether the kernel may hold addresses on it that the file does not know: a shared port.
    pub(super) kernel_addresses: bool,
    /// Index in the file of each of its readable addresses.
    positions: Vec<usize>,
    /// Whether it has errors, so that its addresses and domain may not be what was meant.
    pub(super) doubtful: bool,
}

impl Interface<'_> {
    pub(super) fn vrf(&self) -> Option<&str> {
        match &self.attachment.domain {
            Domain::Vrf(vrf) => Some(vrf),
            _ => None,
        }
    }

    /// Where it belongs, in words.
    pub(super) fn belongs(&self) -> String {
        match &self.attachment.domain {
            Domain::Vrf(name) => format!("VRF `{name}`"),
            Domain::Bridge(name) => format!("bridge `{name}`"),
            Domain::CrossConnect(name) => format!("cross-connect `{name}`"),
            Domain::Hop(name) => format!("hop `{name}`"),
        }
    }

    /// The path of the n-th of its addresses.
    pub(super) fn at_address(&self, n: usize) -> Vec<String> {
        let mut path = self.at("addresses");
        path.push(self.positions.get(n).unwrap_or(&n).to_string());
        path
    }

    /// A path below the interface's.
    pub(super) fn at(&self, step: &str) -> Vec<String> {
        let mut path = self.path.clone();
        path.push(step.to_owned());
        path
    }

    pub(super) fn covers(&self, ip: IpAddr) -> bool {
        is_link_local_v6(ip) || self.attachment.addresses.iter().any(|address| address.contains(&ip))
    }
}

/// All interfaces.
pub(super) struct View<'c> {
    pub(super) interfaces: Vec<Interface<'c>>,
    by_name: BTreeMap<String, usize>,
    connected: BTreeMap<&'c str, HashSet<IpNet>>,
    own: BTreeMap<&'c str, HashSet<IpAddr>>,
    /// VRFs in which the kernel may hold addresses.
    open: HashSet<&'c str>,
    /// Whether an interface is doubtful.
    pub(super) doubtful: bool,
}

impl<'c> View<'c> {
    pub(super) fn new(config: &'c Config, sink: &Sink<'_>) -> Self {
        let mut interfaces = Vec::new();
        let interface = |name: String, kind, path: Vec<String>, attachment, kernel_addresses| Interface {
            name,
            kind,
            attachment,
            kernel_addresses,
            positions: positions(sink, &path),
            doubtful: is_doubtful(sink, &path),
            path,
        };
        let ports = sink.names("port").into_iter().filter_map(|name| config.ports.get_key_value(name));
        for (name, port) in ports {
            let kernel = port.mode == PortMode::Shared && port.device.is_some();
            let path = at!["port", name];
            interfaces.push(interface(name.clone(), InterfaceKind::Port, path, &port.attachment, kernel));
            for (vid, attachment) in &port.vlans {
                let path = at!["port", name, "vlan", vid];
                interfaces.push(interface(
                    format!("{name}.{vid}"),
                    InterfaceKind::Vlan,
                    path,
                    attachment,
                    kernel,
                ));
            }
        }
        let tunnels = sink.names("tunnel").into_iter().filter_map(|name| config.tunnels.get_key_value(name));
        for (name, tunnel) in tunnels {
            let path = at!["tunnel", name, "vxlan"];
            interfaces.push(interface(name.clone(), InterfaceKind::Tunnel, path, &tunnel.attachment, false));
        }
        Self::index(interfaces)
    }

    fn index(interfaces: Vec<Interface<'c>>) -> Self {
        let mut by_name = BTreeMap::new();
        let mut connected: BTreeMap<&str, HashSet<IpNet>> = BTreeMap::new();
        let mut own: BTreeMap<&str, HashSet<IpAddr>> = BTreeMap::new();
        let mut open = HashSet::new();
        for (index, interface) in interfaces.iter().enumerate() {
            by_name.entry(interface.name.clone()).or_insert(index);
            let attachment: &'c Attachment = interface.attachment;
            let Domain::Vrf(vrf) = &attachment.domain else { continue };
            connected.entry(vrf).or_default().extend(attachment.addresses.iter().map(IpNet::trunc));
            own.entry(vrf).or_default().extend(attachment.addresses.iter().map(IpNet::addr));
            if interface.kernel_addresses {
                open.insert(vrf.as_str());
            }
        }
        let doubtful = interfaces.iter().any(|interface| interface.doubtful);
        Self { interfaces, by_name, connected, own, open, doubtful }
    }

    pub(super) fn interface(&self, name: &str) -> Option<&Interface<'c>> {
        self.by_name.get(name).and_then(|&index| self.interfaces.get(index))
    }

    /// Whether an address is on a subnet that the file connects in a VRF.
    pub(super) fn is_connected(&self, vrf: &str, ip: IpAddr) -> bool {
        let bits = if ip.is_ipv4() { 32 } else { 128 };
        self.connected.get(vrf).is_some_and(|nets| {
            (0..=bits).any(|length| IpNet::new(ip, length).is_ok_and(|net| nets.contains(&net.trunc())))
        })
    }

    /// Whether an address is one of weir's own in a VRF.
    pub(super) fn is_own(&self, vrf: &str, ip: IpAddr) -> bool {
        self.own.get(vrf).is_some_and(|addresses| addresses.contains(&ip))
    }

    /// Whether the kernel may hold further addresses in a VRF, so that only a running instance knows all subnets.
    pub(super) fn is_open(&self, vrf: &str) -> bool {
        self.open.contains(vrf)
    }

    /// The connected subnets of a VRF in words, if they are few.
    pub(super) fn subnets(&self, vrf: &str) -> Option<String> {
        let mut nets: Vec<IpNet> = self.connected.get(vrf)?.iter().copied().collect();
        nets.sort();
        (1..=6).contains(&nets.len()).then(|| {
            let list: Vec<_> = nets.iter().map(|net| format!("`{net}`")).collect();
            list.join(", ")
        })
    }
}

/// Indices of the addresses that could be read, and so are in the model.
fn positions(sink: &Sink<'_>, path: &[String]) -> Vec<usize> {
    let addresses = [path, &at!["addresses"]].concat();
    (0..sink.length(&addresses))
        .filter(|i| !sink.is_refused(&[addresses.as_slice(), &at![i]].concat()))
        .collect()
}

fn is_doubtful(sink: &Sink<'_>, path: &[String]) -> bool {
    sink.refused_keys(path).iter().any(|key| !HARMLESS.contains(&key.as_str()))
}

/// fe80::/10 (RFC 4291 section 2.5.6).
pub(super) fn is_link_local_v6(ip: IpAddr) -> bool {
    matches!(ip, IpAddr::V6(v6) if v6.is_unicast_link_local())
}
