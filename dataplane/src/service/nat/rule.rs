//! The rules of a translator, compiled.

use std::net::{IpAddr, Ipv4Addr};

use weir_config::{DnatRule, PortRange, SnatRule, SnatTarget};

use super::has_ports;
use super::pool::{Pool, digest};
use crate::decision::{ChainId, Mapping, Matcher, Transport, Tuple};
use crate::packet::Meta;

/// A rule about sources.
#[derive(Debug)]
pub(super) struct Snat {
    pub(super) id: u64,
    pub(super) matcher: Matcher,
    pub(super) target: Target,
    /// Whether it says whose packets it is about.
    pub(super) names_sources: bool,
}

/// What a source becomes.
#[derive(Debug)]
pub(super) enum Target {
    Pool(Pool),
    Masquerade(Pool),
    Exempt,
}

/// A rule that forwards ports.
#[derive(Debug)]
pub(super) struct Dnat {
    pub(super) id: u64,
    pub(super) rule: DnatRule,
    from: Matcher,
}

/// A destination that a rule gives for good.
#[derive(Debug)]
pub(super) struct Forwarding {
    rule: u64,
    inside: Transport,
    outside: Transport,
}

impl Mapping for Forwarding {
    fn rule(&self) -> u64 {
        self.rule
    }

    fn inside(&self) -> Transport {
        self.inside
    }

    fn outside(&self) -> Transport {
        self.outside
    }

    fn settle(&self, _: u64, _: Option<ChainId>, _: Ipv4Addr) {}

    fn note(&self, _: Ipv4Addr) {}

    fn has_sent_to(&self, _: Ipv4Addr) -> bool {
        true
    }
}

impl Snat {
    pub(super) fn new(service: &str, rule: &SnatRule) -> Self {
        Self {
            id: digest((service, rule)),
            matcher: Matcher::new(&rule.matches),
            target: match &rule.target {
                SnatTarget::Pool(ranges) => Target::Pool(Pool::new(ranges, rule.ports)),
                SnatTarget::Masquerade => Target::Masquerade(Pool::new(&[], rule.ports)),
                SnatTarget::Exempt => Target::Exempt,
            },
            names_sources: !rule.matches.from.is_empty(),
        }
    }
}

impl Dnat {
    pub(super) fn new(service: &str, rule: &DnatRule) -> Self {
        let from = weir_config::Match { from: rule.from.clone(), ..weir_config::Match::default() };
        Self { id: digest((service, rule)), rule: rule.clone(), from: Matcher::new(&from) }
    }

    pub(super) fn matches(&self, meta: &Meta, tuple: &Tuple) -> bool {
        let within = |ports: PortRange| {
            has_ports(meta, tuple) && (ports.first..=ports.last).contains(&tuple.destination_port)
        };
        IpAddr::V4(self.rule.to) == tuple.destination
            && self.rule.protocol.is_none_or(|known| known == tuple.protocol)
            && self.rule.to_ports.is_none_or(within)
            && self.from.matches_source(tuple.source)
    }

    /// What becomes of packets to a port that the rule is about.
    pub(super) fn forwarding(&self, port: u16) -> Forwarding {
        Forwarding { rule: self.id, inside: self.inside(port), outside: (self.rule.to, port) }
    }

    /// The host, and its port for a port that the rule is about.
    fn inside(&self, port: u16) -> Transport {
        let first = self.rule.to_ports.map_or(0, |ports| ports.first);
        let port = match self.rule.forward_port {
            Some(forward) => forward.saturating_add(port.saturating_sub(first)),
            None => port,
        };
        (self.rule.forward, port)
    }
}
