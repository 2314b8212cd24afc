//! The validated configuration: what the rest of weir builds from.
//!
//! A value of [`Config`] has passed every check: each name that it refers to exists, ranges hold, nothing
//! conflicts. Tables are ordered by name, so that equal configurations compare and print alike.

mod chain;
mod firewall;
mod interfaces;
mod l2;
mod l3;
mod nat;
mod overlay;
mod policer;
mod resources;
mod rules;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub use chain::*;
pub use firewall::*;
pub use interfaces::*;
pub use l2::*;
pub use l3::*;
pub use nat::*;
pub use overlay::*;
pub use policer::*;
pub use resources::*;
pub use rules::*;

/// A whole, validated configuration.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Config {
    /// Worker threads.
    pub workers: Workers,
    /// Every bounded table's bound.
    pub limits: Limits,
    /// Frame memory.
    pub memory: Memory,
    /// Ports by name.
    pub ports: BTreeMap<String, Port>,
    /// Static neighbours.
    pub neighbours: Vec<StaticNeighbour>,
    /// VRFs by name; [`DEFAULT_VRF`] is always there.
    pub vrfs: BTreeMap<String, Vrf>,
    /// Bridge domains by name.
    pub bridges: BTreeMap<String, Bridge>,
    /// Tunnels by name.
    pub tunnels: BTreeMap<String, Tunnel>,
    /// Point-to-point cross-connects (port ↔ port, port ↔ tunnel) by name.
    pub cross_connects: BTreeMap<String, CrossConnect>,
    /// Service functions by name.
    pub services: BTreeMap<String, Service>,
    /// Attached hops by name; no service has the same.
    pub hops: BTreeMap<String, Hop>,
    /// Chains by name.
    pub chains: BTreeMap<String, Chain>,
    /// Classifier rules, first match wins.
    pub classify: Vec<ClassifyRule>,
}

impl Config {
    /// Every interface with what it belongs to: ports, their VLANs, tunnels.
    pub fn interfaces(&self) -> impl Iterator<Item = (String, &Attachment)> {
        let ports = self.ports.iter().flat_map(|(name, port)| {
            let vlans = port.vlans.iter().map(move |(vid, attachment)| (format!("{name}.{vid}"), attachment));
            std::iter::once((name.clone(), &port.attachment)).chain(vlans)
        });
        ports.chain(self.tunnels.iter().map(|(name, tunnel)| (name.clone(), &tunnel.attachment)))
    }

    /// What a rule of the classifier takes packets from, each once: VRFs, bridges, cross-connects.
    pub fn domains_of<'a>(&'a self, rule: &'a ClassifyRule) -> Vec<Domain> {
        let mut domains: Vec<Domain> = Vec::new();
        let mut add = |domain: Domain| {
            if !matches!(domain, Domain::Hop(_)) && !domains.contains(&domain) {
                domains.push(domain);
            }
        };
        if rule.from.is_empty() {
            self.interfaces().for_each(|(_, attachment)| add(attachment.domain.clone()));
        }
        for from in &rule.from {
            match from {
                ClassifyScope::Vrf(name) => add(Domain::Vrf(name.clone())),
                ClassifyScope::Bridge(name) => add(Domain::Bridge(name.clone())),
                ClassifyScope::Interface(wanted) => {
                    let found = self.interfaces().filter(|(name, _)| name == wanted);
                    found.for_each(|(_, attachment)| add(attachment.domain.clone()));
                }
            }
        }
        domains
    }

    /// The VRF whose packets are sent into a chain; `None` if no rule of the classifier sends any.
    pub fn vrf_of_chain(&self, chain: &str) -> Option<String> {
        let rules = self.classify.iter().filter(|rule| rule.chain.as_deref() == Some(chain));
        rules.flat_map(|rule| self.domains_of(rule)).find_map(|domain| match domain {
            Domain::Vrf(name) => Some(name),
            _ => None,
        })
    }
}
