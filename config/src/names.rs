//! The names that a configuration defines, read before anything else so that references can be checked.

use std::collections::BTreeSet;

use crate::codes;
use crate::model::DEFAULT_VRF;
use crate::schema::Ref;
use crate::sink::{Finding, error};
use crate::text::nearest;
use crate::tree::Node;

/// All defined names, by what they name.
#[derive(Default)]
pub(crate) struct Defined {
    ports: BTreeSet<String>,
    /// `<port>.<vid>`.
    vlans: BTreeSet<String>,
    vrfs: BTreeSet<String>,
    bridges: BTreeSet<String>,
    tunnels: BTreeSet<String>,
    services: BTreeSet<String>,
    hops: BTreeSet<String>,
    chains: BTreeSet<String>,
}

impl Defined {
    pub(crate) fn collect(root: &Node) -> Self {
        let names = |section: &str| -> BTreeSet<String> {
            root.get(section).map(Node::entries).unwrap_or_default().iter().map(|e| e.key.clone()).collect()
        };
        let mut vrfs = names("vrf");
        vrfs.insert(DEFAULT_VRF.to_owned());
        let ports = root.get("port").map(Node::entries).unwrap_or_default();
        let vlans = ports
            .iter()
            .flat_map(|port| {
                let vlans = port.node.get("vlan").map(Node::entries).unwrap_or_default();
                vlans.iter().map(|vlan| format!("{}.{}", port.key, vlan.key))
            })
            .collect();
        Self {
            ports: names("port"),
            vlans,
            vrfs,
            bridges: names("bridge"),
            tunnels: names("tunnel"),
            services: names("service"),
            hops: names("hop"),
            chains: names("chain"),
        }
    }

    /// Checks that a reference names something of its kind.
    pub(crate) fn check(&self, to: Ref, name: &str) -> Result<(), Finding> {
        match to {
            Ref::Vrf => known(&self.vrfs, "VRF", name).map_err(|finding| {
                let add = format!("define it: `[vrf.{name}]`");
                if finding.hint.is_none() { finding.hint(add) } else { finding }
            }),
            Ref::Bridge => known(&self.bridges, "bridge", name),
            Ref::Tunnel if self.ports.contains(name) || self.vlans.contains(name) => {
                Err(unknown("tunnel", name).hint(format!("`{name}` is a port: write `port = \"{name}\"`")))
            }
            Ref::Tunnel => known(&self.tunnels, "tunnel", name),
            Ref::Hop if self.services.contains(name) || self.hops.contains(name) => Ok(()),
            Ref::Hop if self.chains.contains(name) => {
                Err(unknown("service or hop", name).hint(format!("`{name}` is a chain; chains do not nest")))
            }
            Ref::Hop if self.ports.contains(name) => Err(unknown("service or hop", name).hint(format!(
                "`{name}` is a port: define a hop, `[hop.<name>]` with `attach = \"{name}\"`"
            ))),
            Ref::Hop => {
                let candidates = self.services.iter().chain(&self.hops);
                Err(unknown("service or hop", name).maybe_hint(suggest(name, candidates)))
            }
            Ref::Attachment if self.tunnels.contains(name) => {
                Err(unknown("port", name).hint(format!("`{name}` is a tunnel; hops are attached to ports")))
            }
            Ref::Attachment => self.interface(name, false),
            Ref::Chain if name == "none" => Ok(()),
            Ref::Chain if self.services.contains(name) && !self.chains.contains(name) => {
                Err(unknown("chain", name).hint(format!(
                    "`{name}` is a service: put it into a chain, `[chain.{name}]` with `hops = [\"{name}\"]`"
                )))
            }
            Ref::Chain => known(&self.chains, "chain", name),
            Ref::Interface => self.interface(name, true),
            Ref::Scope => self.scope(name),
        }
    }

    fn interface(&self, name: &str, tunnels: bool) -> Result<(), Finding> {
        let is_tunnel = self.tunnels.contains(name);
        if self.ports.contains(name) || self.vlans.contains(name) || (tunnels && is_tunnel) {
            return Ok(());
        }
        if is_tunnel {
            return Err(
                unknown("port", name).hint(format!("`{name}` is a tunnel: write `tunnel = \"{name}\"`"))
            );
        }
        if let Some((port, vid)) = name.split_once('.').filter(|(port, _)| self.ports.contains(*port)) {
            return Err(error(codes::UNKNOWN_REFERENCE, format!("port `{port}` has no VLAN `{vid}`"))
                .hint(format!("define it: `[port.{port}.vlan.{vid}]`")));
        }
        let tunnels = self.tunnels.iter().filter(|_| tunnels);
        let candidates = self.ports.iter().chain(&self.vlans).chain(tunnels);
        Err(unknown("interface", name).maybe_hint(suggest(name, candidates)))
    }

    fn scope(&self, text: &str) -> Result<(), Finding> {
        let kinds = ["port", "tunnel", "vrf", "bridge"];
        let Some((kind, name)) = text.split_once('.') else {
            let full = kinds.iter().zip([&self.ports, &self.tunnels, &self.vrfs, &self.bridges]);
            let guess = full.filter(|(_, names)| names.contains(text)).map(|(kind, _)| kind).next();
            return Err(error(codes::BAD_VALUE, format!("`{text}` is not a scope")).hint(match guess {
                Some(kind) => format!("say what it is: \"{kind}.{text}\""),
                None => Ref::Scope.describe().to_owned(),
            }));
        };
        match kind {
            "port" => self.interface(name, false),
            "tunnel" => known(&self.tunnels, "tunnel", name),
            "vrf" => known(&self.vrfs, "VRF", name),
            "bridge" => known(&self.bridges, "bridge", name),
            _ => Err(error(codes::BAD_VALUE, format!("`{text}` is not a scope")).hint(
                match nearest(kind, kinds) {
                    Some(near) => format!("did you mean `{near}.{name}`?"),
                    None => Ref::Scope.describe().to_owned(),
                },
            )),
        }
    }
}

fn unknown(what: &str, name: &str) -> Finding {
    error(codes::UNKNOWN_REFERENCE, format!("there is no {what} `{name}`"))
}

fn known(names: &BTreeSet<String>, what: &str, name: &str) -> Result<(), Finding> {
    if names.contains(name) { Ok(()) } else { Err(unknown(what, name).maybe_hint(suggest(name, names))) }
}

fn suggest<'a>(name: &str, candidates: impl IntoIterator<Item = &'a String>) -> Option<String> {
    let candidates: Vec<&str> = candidates.into_iter().map(String::as_str).collect();
    match nearest(name, candidates.iter().copied()) {
        Some(near) => Some(format!("did you mean `{near}`?")),
        None if !candidates.is_empty() && candidates.len() <= 6 => {
            let list: Vec<_> = candidates.iter().map(|name| format!("`{name}`")).collect();
            Some(format!("there is {}", list.join(", ")))
        }
        None => None,
    }
}
