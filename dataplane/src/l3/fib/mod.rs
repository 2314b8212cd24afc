//! The FIB: the routes of one VRF, compiled for longest-prefix match (RFC 1812 section 5.2.4.3, RFC 7608).
//!
//! IPv4 is a table of the first 24 bits ([`direct`]), or a search tree of cache lines ([`tree`]) where that would take too much
//! memory; IPv6 goes 32 bits at a time over the same two ([`v6`]). A look-up gives a small number, so that a caller can keep what it needs of each target in a vector. Single
//! routes are added and removed in place; how that is worked out is in [`routes`].

mod direct;
mod routes;
mod targets;
mod tree;
mod v4;
mod v6;

use std::borrow::Borrow;
use std::net::IpAddr;

use ipnet::IpNet;

use crate::decision::ScopeId;
use crate::frame::TablePages;
use targets::Targets;
use v4::TableV4;
pub use v4::{LookUpV4, Sparse};
use v6::TableV6;

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

/// What a look-up gives where there is no route.
pub const NO_ROUTE: u32 = 0;

/// What routes are compiled into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Choice {
    /// What suits them.
    Suited,
    /// A table of 24 bits wherever there is memory for it.
    Direct,
    /// Search trees.
    Trees,
}

impl Choice {
    fn direct(self, suits: impl FnOnce() -> bool) -> bool {
        match self {
            Self::Suited => suits(),
            Self::Direct => true,
            Self::Trees => false,
        }
    }
}

/// No memory for the tables of a FIB.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no memory for the forwarding table of {0} routes")]
pub struct FibFull(pub usize);

/// What became of the routes of one family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FibFamily {
    /// Routes.
    pub routes: usize,
    /// The structure that was chosen for them.
    pub structure: &'static str,
    /// Bytes of it in memory.
    pub bytes: usize,
    /// Which pages it got.
    pub pages: TablePages,
}

/// IPv4 routes that stay in the caches.
#[derive(Clone, Copy, Debug)]
pub enum WarmV4<'a> {
    /// In a sparse table.
    Sparse(Sparse<'a>),
    /// In something else.
    Other(&'a Fib),
}

impl LookUpV4 for &Fib {
    #[inline(always)]
    fn number(self, destination: u32) -> u32 {
        self.lookup_v4(destination)
    }
}

/// The compiled routes of one VRF.
///
/// Each different target has a number from 1 on, as small as may be; [`NO_ROUTE`] is 0. A number that no route leads to
/// any more is given to another target.
#[derive(Debug)]
pub struct Fib {
    v4: TableV4,
    v6: TableV6,
    targets: Targets,
}

impl Fib {
    /// Compiles routes. Host bits of a prefix are ignored; of equal prefixes the last counts.
    ///
    /// # Errors
    /// [`FibFull`] when there is no memory for the tables.
    pub fn build<T: Borrow<Target>>(routes: impl IntoIterator<Item = (IpNet, T)>) -> Result<Self, FibFull> {
        Self::build_as(routes, Choice::Suited)
    }

    /// The same with a structure of the caller's choice: for measurements and tests.
    ///
    /// # Errors
    /// As [`build`](Self::build).
    pub fn build_as<T: Borrow<Target>>(
        routes: impl IntoIterator<Item = (IpNet, T)>,
        choice: Choice,
    ) -> Result<Self, FibFull> {
        let mut targets = Targets::default();
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        for (prefix, target) in routes {
            let number = targets.number(target.borrow());
            match prefix {
                IpNet::V4(prefix) => v4.push(((prefix.network().to_bits(), prefix.prefix_len()), number)),
                IpNet::V6(prefix) => v6.push(((prefix.network().to_bits(), prefix.prefix_len()), number)),
            }
        }
        let count = v4.len() + v6.len();
        let full = |_| FibFull(count);
        let (v4, v6) = (TableV4::build(v4, choice).map_err(full)?, TableV6::build(v6, choice).map_err(full)?);
        v4.values().chain(v6.values()).for_each(|number| targets.add_route(number));
        targets.drop_unused();
        Ok(Self { v4, v6, targets })
    }

    /// Adds a route, or gives one another target. Host bits of the prefix are ignored.
    ///
    /// # Errors
    /// [`FibFull`] when there is no memory; the FIB is then to be built anew.
    pub fn insert(&mut self, prefix: IpNet, target: &Target) -> Result<(), FibFull> {
        let number = self.targets.number(target);
        self.targets.add_route(number);
        let old = match prefix {
            IpNet::V4(prefix) => self.v4.insert((prefix.network().to_bits(), prefix.prefix_len()), number),
            IpNet::V6(prefix) => self.v6.insert((prefix.network().to_bits(), prefix.prefix_len()), number),
        };
        if let Some(old) = old.map_err(|_| FibFull(self.len()))? {
            self.targets.remove_route(old);
        }
        Ok(())
    }

    /// Removes a route; false if there was none. Host bits of the prefix are ignored.
    ///
    /// # Errors
    /// As [`insert`](Self::insert).
    pub fn remove(&mut self, prefix: IpNet) -> Result<bool, FibFull> {
        let old = match prefix {
            IpNet::V4(prefix) => self.v4.remove((prefix.network().to_bits(), prefix.prefix_len())),
            IpNet::V6(prefix) => self.v6.remove((prefix.network().to_bits(), prefix.prefix_len())),
        };
        let old = old.map_err(|_| FibFull(self.len()))?;
        if let Some(old) = old {
            self.targets.remove_route(old);
        }
        Ok(old.is_some())
    }

    /// The target of the longest prefix that holds `destination`; `None` if there is no route.
    #[inline]
    pub fn lookup(&self, destination: IpAddr) -> Option<&Target> {
        self.target(self.lookup_number(destination))
    }

    /// The same as the target's number.
    #[inline]
    pub fn lookup_number(&self, destination: IpAddr) -> u32 {
        match destination {
            IpAddr::V4(address) => self.lookup_v4(address.to_bits()),
            IpAddr::V6(address) => self.lookup_v6(address.to_bits()),
        }
    }

    /// The same as the target's number, of an IPv4 address in host order.
    #[inline(always)]
    pub fn lookup_v4(&self, destination: u32) -> u32 {
        self.v4.lookup(destination)
    }

    /// The routes of IPv4, if what they were compiled into stays in the caches: it need not be asked for beforehand.
    #[inline]
    pub fn warm_v4(&self) -> Option<WarmV4<'_>> {
        match self.v4.sparse() {
            Some(sparse) => Some(WarmV4::Sparse(sparse)),
            None if self.v4.is_dense() => None,
            None => Some(WarmV4::Other(self)),
        }
    }

    /// Whether what the routes of IPv6 were compiled into stays in the caches.
    #[inline]
    pub fn is_warm_v6(&self) -> bool {
        !self.v6.is_dense()
    }

    /// The same as the target's number, of an IPv6 address in host order.
    #[inline(always)]
    pub fn lookup_v6(&self, destination: u128) -> u32 {
        self.v6.lookup(destination)
    }

    /// Asks the processor for what a look-up of an IPv4 address reads first.
    #[inline(always)]
    pub fn prefetch_v4(&self, destination: u32) {
        self.v4.prefetch(destination);
    }

    /// Asks the processor for what a look-up of an IPv6 address reads first.
    #[inline(always)]
    pub fn prefetch_v6(&self, destination: u128) {
        self.v6.prefetch(destination);
    }

    /// Looks a burst of IPv4 addresses up; as many as the shorter of both slices has. Misses of the cache overlap.
    #[inline]
    pub fn lookup_burst_v4(&self, destinations: &[u32], numbers: &mut [u32]) {
        self.v4.lookup_burst(destinations, numbers);
    }

    /// Looks a burst of IPv6 addresses up; as many as the shorter of both slices has. Misses of the cache overlap.
    #[inline]
    pub fn lookup_burst_v6(&self, destinations: &[u128], numbers: &mut [u32]) {
        self.v6.lookup_burst(destinations, numbers);
    }

    /// The target with a number; `None` for [`NO_ROUTE`].
    #[inline]
    pub fn target(&self, number: u32) -> Option<&Target> {
        self.targets.get(number)
    }

    /// One more than the greatest number that a look-up gives: what a vector indexed by it has to hold.
    pub fn numbers(&self) -> usize {
        self.targets.end()
    }

    /// Routes of both families.
    pub fn len(&self) -> usize {
        self.v4.len() + self.v6.len()
    }

    /// Whether there is no route.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Nodes of search trees in use.
    #[cfg(test)]
    fn nodes_left(&self) -> usize {
        self.v4.nodes() + self.v6.nodes()
    }

    /// Bytes in memory of tables and routes, targets' own next hops not counted.
    pub fn memory(&self) -> usize {
        // A route in its map: key, value, and what a B-tree leaves free.
        let kept = self.v4.len() * 18 + self.v6.len() * 54;
        self.v4.memory() + self.v6.memory() + self.targets.memory() + kept
    }

    /// What became of the routes of IPv4 and of IPv6. Asks the kernel: for the control thread.
    pub fn families(&self) -> [FibFamily; 2] {
        let (v4, v6) = (&self.v4, &self.v6);
        [
            FibFamily { routes: v4.len(), structure: v4.structure(), bytes: v4.memory(), pages: v4.pages() },
            FibFamily { routes: v6.len(), structure: v6.structure(), bytes: v6.memory(), pages: v6.pages() },
        ]
    }
}

#[cfg(test)]
mod tests;
