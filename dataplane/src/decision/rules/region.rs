//! Rules as regions: boxes in the space of addresses, ports, protocol and scope.
//!
//! A list makes several regions, as many as the product of the lists' lengths. A rule whose product is too large gets
//! fewer that cover more, and is asked itself whether it matches.

use std::net::IpAddr;

use ipnet::IpNet;
use weir_config::{Match, PortRange};

use super::{Exact, Rule};
use crate::decision::{FieldSet, Matcher, ScopeId};
use crate::packet::protocol;

/// Most regions of one rule in one family.
const MOST_OF_RULE: usize = 128;
/// Regions of all rules beyond which a rule gets no more than one in each family.
const MOST_IN_ALL: usize = 1 << 20;

/// The leading `len` bits of an address. IPv4 addresses stand in the uppermost 32 bits; below `len` there are zeros.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Prefix {
    pub(super) bits: u128,
    pub(super) len: u8,
}

impl Prefix {
    pub(super) const ANY: Self = Self { bits: 0, len: 0 };

    fn of(net: &IpNet) -> Self {
        Self { bits: address_bits(net.network()), len: net.prefix_len() }
    }

    /// The longest prefix that contains both.
    fn join(self, other: Self) -> Self {
        let same = (self.bits ^ other.bits).leading_zeros().min(128) as u8;
        let len = self.len.min(other.len).min(same);
        Self { bits: self.bits & leading_ones(len), len }
    }
}

/// An address in the uppermost bits.
pub(super) fn address_bits(ip: IpAddr) -> u128 {
    match ip {
        IpAddr::V4(ip) => u128::from(u32::from(ip)) << 96,
        IpAddr::V6(ip) => u128::from(ip),
    }
}

/// A mask of the uppermost `len` bits.
pub(super) fn leading_ones(len: u8) -> u128 {
    if len == 0 { 0 } else { u128::MAX << (128 - u32::from(len.min(128))) }
}

/// One region of one rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Region {
    pub(super) from: Prefix,
    pub(super) to: Prefix,
    /// Inclusive.
    pub(super) from_ports: (u16, u16),
    /// Inclusive.
    pub(super) to_ports: (u16, u16),
    pub(super) protocol: Option<u8>,
    pub(super) scope: Option<u16>,
    /// Whether a packet must have ports: the rule names some.
    pub(super) needs_ports: bool,
    /// The rule's number.
    pub(super) order: u32,
    /// Index of what else must hold, if anything.
    pub(super) exact: Option<u32>,
}

/// All ports.
pub(super) const ALL_PORTS: (u16, u16) = (0, u16::MAX);

/// Collects what the rules become.
pub(super) struct Expansion {
    pub(super) v4: Vec<Region>,
    pub(super) v6: Vec<Region>,
    pub(super) exact: Vec<Exact>,
    pub(super) bare: Vec<(ScopeId, u32)>,
    pub(super) catch_all: Option<u32>,
    pub(super) fields: FieldSet,
    next: u32,
}

impl Expansion {
    pub(super) fn new(rules: usize) -> Self {
        Self {
            v4: Vec::with_capacity(rules),
            v6: Vec::new(),
            exact: Vec::new(),
            bare: Vec::new(),
            catch_all: None,
            fields: FieldSet::empty(),
            next: 0,
        }
    }

    /// Adds the next rule.
    pub(super) fn add(&mut self, rule: &Rule<'_>) {
        let order = self.next;
        self.next += 1;
        let matcher = Matcher::new(rule.matches);
        self.fields |= matcher.fields();
        if matcher.matches_all() {
            match rule.scopes {
                Some(scopes) => self.bare.extend(scopes.iter().map(|scope| (*scope, order))),
                None => self.catch_all = self.catch_all.or(Some(order)),
            }
        }
        let mut sides = [Sides::new(rule, true), Sides::new(rule, false)];
        let mut exact = asks_more(rule.matches);
        for sides in &mut sides {
            let most = if self.v4.len() + self.v6.len() > MOST_IN_ALL { 1 } else { MOST_OF_RULE };
            exact |= sides.shrink(most);
        }
        let exact = exact.then(|| {
            let mut scopes = rule.scopes.map(<[ScopeId]>::to_vec);
            scopes.iter_mut().for_each(|scopes| scopes.sort_unstable());
            self.exact.push(Exact { scopes: scopes.map(Into::into), matcher });
            (self.exact.len() - 1) as u32
        });
        let needs_ports = !(rule.matches.from_ports.is_empty() && rule.matches.to_ports.is_empty());
        let stencil = Region {
            from: Prefix::ANY,
            to: Prefix::ANY,
            from_ports: ALL_PORTS,
            to_ports: ALL_PORTS,
            protocol: implied_protocol(rule.matches),
            scope: None,
            needs_ports,
            order,
            exact,
        };
        let [v4, v6] = sides;
        v4.regions(stencil, &mut self.v4);
        v6.regions(stencil, &mut self.v6);
    }
}

/// Whether a match asks for what a region does not hold.
fn asks_more(matches: &Match) -> bool {
    !matches.dscp.is_empty() || matches.tcp_flags.is_some() || !matches.icmp_types.is_empty()
}

/// TCP flags belong to TCP alone.
fn implied_protocol(matches: &Match) -> Option<u8> {
    matches.protocol.or(matches.tcp_flags.map(|_| protocol::TCP))
}

/// A rule's lists in one family.
struct Sides {
    from: Vec<Prefix>,
    to: Vec<Prefix>,
    from_ports: Vec<(u16, u16)>,
    to_ports: Vec<(u16, u16)>,
    scopes: Vec<Option<u16>>,
}

impl Sides {
    fn new(rule: &Rule<'_>, v4: bool) -> Self {
        let scopes = match rule.scopes {
            None => vec![None],
            Some(scopes) => {
                let mut scopes: Vec<_> = scopes.iter().map(|scope| Some(scope.0)).collect();
                scopes.sort_unstable();
                scopes.dedup();
                scopes
            }
        };
        Self {
            from: prefixes(&rule.matches.from, v4),
            to: prefixes(&rule.matches.to, v4),
            from_ports: ports(&rule.matches.from_ports),
            to_ports: ports(&rule.matches.to_ports),
            scopes,
        }
    }

    fn counts(&self) -> [usize; 5] {
        [self.from.len(), self.to.len(), self.from_ports.len(), self.to_ports.len(), self.scopes.len()]
    }

    /// Joins the longest lists until the product of their lengths is at most `most`. Returns whether it did.
    fn shrink(&mut self, most: usize) -> bool {
        let mut joined = false;
        loop {
            let counts = self.counts();
            let product = counts.iter().fold(1usize, |product, count| product.saturating_mul(*count));
            if product <= most {
                return joined;
            }
            joined = true;
            let longest = counts.iter().enumerate().max_by_key(|(_, count)| **count).map_or(0, |(at, _)| at);
            match longest {
                0 => join(&mut self.from, Prefix::join),
                1 => join(&mut self.to, Prefix::join),
                2 => join(&mut self.from_ports, |a, b| (a.0.min(b.0), a.1.max(b.1))),
                3 => join(&mut self.to_ports, |a, b| (a.0.min(b.0), a.1.max(b.1))),
                _ => self.scopes = vec![None],
            }
        }
    }

    fn regions(&self, stencil: Region, into: &mut Vec<Region>) {
        for from in &self.from {
            for to in &self.to {
                for from_ports in &self.from_ports {
                    for to_ports in &self.to_ports {
                        let region = Region {
                            from: *from,
                            to: *to,
                            from_ports: *from_ports,
                            to_ports: *to_ports,
                            ..stencil
                        };
                        into.extend(self.scopes.iter().map(|scope| Region { scope: *scope, ..region }));
                    }
                }
            }
        }
    }
}

/// Joins all elements of a list into one.
fn join<T: Copy>(list: &mut Vec<T>, join: impl FnMut(T, T) -> T) {
    *list = list.iter().copied().reduce(join).into_iter().collect();
}

/// The prefixes of one family; all addresses if none of either is given, none if only the other family's are.
fn prefixes(nets: &[IpNet], v4: bool) -> Vec<Prefix> {
    if nets.is_empty() {
        return vec![Prefix::ANY];
    }
    nets.iter().filter(|net| matches!(net, IpNet::V4(_)) == v4).map(Prefix::of).collect()
}

fn ports(ranges: &[PortRange]) -> Vec<(u16, u16)> {
    if ranges.is_empty() {
        return vec![ALL_PORTS];
    }
    ranges.iter().map(|range| (range.first, range.last)).collect()
}
