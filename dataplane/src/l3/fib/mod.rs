//! The FIB: the routes of one VRF, compiled for longest-prefix match (RFC 1812 section 5.2.4.3, RFC 7608).
//!
//! Immutable once built. IPv4 is a multibit trie ([`v4`]), IPv6 a path-compressed binary trie ([`v6`]); both keep their
//! nodes in one flat vector and name targets by number.

mod v4;
mod v6;

use std::collections::HashMap;
use std::net::IpAddr;

use ipnet::IpNet;

use crate::decision::ScopeId;
use v4::TrieV4;
use v6::TrieV6;

/// One way out: an interface, and who is asked for there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Hop {
    /// The interface (a port, a VLAN of a port, or a tunnel) that the packet leaves by.
    pub scope: ScopeId,
    /// The neighbour there; `None`: the packet's own destination is the neighbour.
    pub gateway: Option<IpAddr>,
}

impl Hop {
    /// The address that has to be resolved for a packet to `destination`.
    pub fn neighbour(&self, destination: IpAddr) -> IpAddr {
        self.gateway.unwrap_or(destination)
    }
}

/// Where a route leads.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Target {
    /// Next hops of a static route; more than one is equal-cost multipath. Never empty.
    Hops(Box<[Hop]>),
    /// A subnet of this interface: the destination is a neighbour there.
    Connected(Hop),
    /// An own address of this interface (also a subnet-router anycast address, RFC 4291 section 2.6.1).
    Local(ScopeId),
    /// The directed broadcast, or the network address, of a subnet of this interface: never forwarded (RFC 2644,
    /// RFC 1812 section 5.3.5).
    Broadcast(ScopeId),
    /// Dropped and counted.
    Blackhole,
}

impl Target {
    /// The next hop for a flow with this hash; `None` where the target has none. The same hash gives the same hop as
    /// long as the target does not change (hash-threshold, RFC 2992), so a flow's packets keep their order.
    #[inline]
    pub fn select(&self, hash: u64) -> Option<&Hop> {
        match self {
            Self::Connected(hop) => Some(hop),
            Self::Hops(hops) => match &**hops {
                [only] => Some(only),
                // Spread first: callers' hashes may be good in their low bits only.
                hops => {
                    let spread = hash.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
                    hops.get(((spread * hops.len() as u64) >> 32) as usize)
                }
            },
            Self::Local(_) | Self::Broadcast(_) | Self::Blackhole => None,
        }
    }

    /// All next hops: none, one or several.
    pub fn hops(&self) -> &[Hop] {
        match self {
            Self::Connected(hop) => std::slice::from_ref(hop),
            Self::Hops(hops) => hops,
            Self::Local(_) | Self::Broadcast(_) | Self::Blackhole => &[],
        }
    }
}

/// The compiled routes of one VRF.
#[derive(Debug)]
pub struct Fib {
    v4: Option<TrieV4>,
    v6: Option<TrieV6>,
    /// Each different target once.
    targets: Vec<Target>,
}

impl Fib {
    /// Compiles routes. Host bits of a prefix are ignored; of equal prefixes the last counts.
    pub fn build(routes: impl IntoIterator<Item = (IpNet, Target)>) -> Self {
        let mut targets = Vec::new();
        let mut numbers: HashMap<Target, u32> = HashMap::new();
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        for (prefix, target) in routes {
            let number = *numbers.entry(target).or_insert_with_key(|target| {
                targets.push(target.clone());
                targets.len() as u32 - 1
            });
            match prefix {
                IpNet::V4(prefix) => v4.push((prefix.trunc(), number)),
                IpNet::V6(prefix) => v6.push((prefix.trunc(), number)),
            }
        }
        Self {
            v4: (!v4.is_empty()).then(|| TrieV4::build(v4)),
            v6: (!v6.is_empty()).then(|| TrieV6::build(v6)),
            targets,
        }
    }

    /// The target of the longest prefix that holds `destination`; `None` if there is no route.
    #[inline]
    pub fn lookup(&self, destination: IpAddr) -> Option<&Target> {
        let number = match destination {
            IpAddr::V4(address) => self.v4.as_ref()?.lookup(address.to_bits())?,
            IpAddr::V6(address) => self.v6.as_ref()?.lookup(address.to_bits())?,
        };
        self.targets.get(number as usize)
    }

    /// All targets, by number.
    pub fn targets(&self) -> &[Target] {
        &self.targets
    }

    /// The number of the target of an IPv4 destination; past the end of the targets if there is no route.
    #[inline(always)]
    pub fn target_v4(&self, destination: u32) -> u32 {
        self.v4.as_ref().and_then(|v4| v4.lookup(destination)).unwrap_or(u32::MAX)
    }

    /// The number of the target of an IPv6 destination; past the end of the targets if there is no route.
    #[inline(always)]
    pub fn target_v6(&self, destination: u128) -> u32 {
        self.v6.as_ref().and_then(|v6| v6.lookup(destination)).unwrap_or(u32::MAX)
    }

    /// Asks the processor for what looking an IPv4 destination up will read.
    #[inline(always)]
    pub fn prefetch_v4(&self, _destination: u32) {}

    /// Asks the processor for what looking an IPv6 destination up will read.
    #[inline(always)]
    pub fn prefetch_v6(&self, _destination: u128) {}

    /// Bytes that the tables take, targets' own next hops not counted.
    pub fn memory(&self) -> usize {
        self.v4.as_ref().map_or(0, TrieV4::memory)
            + self.v6.as_ref().map_or(0, TrieV6::memory)
            + self.targets.len() * size_of::<Target>()
    }
}

#[cfg(test)]
mod tests;
