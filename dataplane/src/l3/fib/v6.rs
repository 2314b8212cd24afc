//! IPv6 longest-prefix match of any length (RFC 7608): a binary trie whose nodes stand for whole prefixes, so that
//! chains of one-way branches take no node. At most two nodes of 32 bytes a route; a lookup reads one node for each
//! prefix or branch on its way down.

use ipnet::Ipv6Net;

/// No node, no target.
const NONE: u32 = u32::MAX;

#[derive(Debug)]
struct Node {
    /// The prefix's bits; those past its length are zero.
    bits: u128,
    /// Nodes below by the first bit past the prefix.
    children: [u32; 2],
    /// The target of a route with this very prefix.
    target: u32,
    /// Length of the prefix.
    len: u8,
}

#[derive(Debug)]
pub(super) struct TrieV6 {
    /// The root first.
    nodes: Vec<Node>,
}

/// One route: bits, length, target.
type Route = (u128, u8, u32);

impl TrieV6 {
    /// Of equal prefixes the last counts. Host bits must be zero.
    pub(super) fn build(routes: Vec<(Ipv6Net, u32)>) -> Self {
        let mut routes: Vec<Route> = routes
            .into_iter()
            .map(|(prefix, target)| (prefix.network().to_bits(), prefix.prefix_len(), target))
            .collect();
        // Stable, so that after the reversal the last of equal prefixes comes first and stays.
        routes.reverse();
        routes.sort_by_key(|&(bits, len, _)| (bits, len));
        routes.dedup_by_key(|&mut (bits, len, _)| (bits, len));
        let mut trie = Self { nodes: Vec::with_capacity(routes.len() * 2) };
        trie.grow(&routes);
        trie.nodes.shrink_to_fit();
        trie
    }

    /// Makes the node of a sorted run of routes, and all below it; returns its number. At most 129 levels deep.
    fn grow(&mut self, routes: &[Route]) -> u32 {
        let (Some(&(bits, shortest, target)), Some(&(last, _, _))) = (routes.first(), routes.last()) else {
            return NONE;
        };
        // What all have in common. The shortest prefix of the run, if it is just that, sorts first.
        let common = ((bits ^ last).leading_zeros() as u8).min(shortest);
        let ends_here = shortest == common;
        let at = self.nodes.len() as u32;
        self.nodes.push(Node {
            bits: bits & mask(common),
            children: [NONE; 2],
            target: if ends_here { target } else { NONE },
            len: common,
        });
        let below = if ends_here { routes.get(1..).unwrap_or_default() } else { routes };
        if !below.is_empty() {
            let (zeros, ones) = below.split_at(below.partition_point(|route| branch(route.0, common) == 0));
            let children = [self.grow(zeros), self.grow(ones)];
            if let Some(node) = self.nodes.get_mut(at as usize) {
                node.children = children;
            }
        }
        at
    }

    /// The target's number.
    #[inline]
    pub(super) fn lookup(&self, address: u128) -> Option<u32> {
        let (mut best, mut at) = (NONE, 0);
        while let Some(node) = self.nodes.get(at as usize) {
            if (address ^ node.bits) & mask(node.len) != 0 {
                break;
            }
            if node.target != NONE {
                best = node.target;
            }
            if node.len == 128 {
                break;
            }
            let [zero, one] = node.children;
            at = if branch(address, node.len) == 0 { zero } else { one };
        }
        (best != NONE).then_some(best)
    }

    pub(super) fn memory(&self) -> usize {
        self.nodes.capacity() * size_of::<Node>()
    }
}

/// A mask of `len` leading ones.
#[inline]
fn mask(len: u8) -> u128 {
    u128::MAX.checked_shl(128 - u32::from(len)).unwrap_or(0)
}

/// The bit that follows a prefix of `len` (below 128) bits.
#[inline]
fn branch(bits: u128, len: u8) -> u128 {
    (bits >> (127 - u32::from(len.min(127)))) & 1
}
