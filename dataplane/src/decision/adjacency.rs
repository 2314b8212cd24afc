//! Adjacencies: resolved next hops, rewritten in place while programs point at them.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use weir_config::MacAddress;

use super::AdjacencyId;

/// What an adjacency says: state in the top 16 bits, the MAC address in the others, in one atomic word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Link {
    /// No entry, or being resolved: hold the packet and ask.
    Unresolved,
    /// Send to this MAC address.
    Resolved(MacAddress),
    /// Resolution failed: answer unreachable.
    Failed,
}

const RESOLVED: u64 = 1 << 48;
const FAILED: u64 = 2 << 48;

/// A bounded table of adjacencies, shared by all workers. Reading is one relaxed load.
#[derive(Debug)]
pub struct AdjacencyTable {
    words: Box<[AtomicU64]>,
    /// Seconds of the engine's clock at which a worker last used the entry; written by sweeps, not on the fast path.
    used: Box<[AtomicU32]>,
}

impl AdjacencyTable {
    /// A table of `capacity` unresolved entries.
    pub fn new(capacity: usize) -> Self {
        Self {
            words: (0..capacity).map(|_| AtomicU64::new(0)).collect(),
            used: (0..capacity).map(|_| AtomicU32::new(0)).collect(),
        }
    }

    /// Memory of a table of `capacity` entries, in bytes.
    pub fn bytes_for(capacity: usize) -> usize {
        capacity * (size_of::<AtomicU64>() + size_of::<AtomicU32>())
    }

    /// Number of entries.
    pub fn capacity(&self) -> usize {
        self.words.len()
    }

    /// What entry `id` says now.
    #[inline]
    pub fn link(&self, id: AdjacencyId) -> Link {
        let word = self.words.get(id.index()).map_or(0, |word| word.load(Ordering::Relaxed));
        if word & RESOLVED != 0 {
            let [_, _, a, b, c, d, e, f] = word.to_be_bytes();
            Link::Resolved(MacAddress([a, b, c, d, e, f]))
        } else if word & FAILED != 0 {
            Link::Failed
        } else {
            Link::Unresolved
        }
    }

    /// The MAC address of entry `id` in the lowest 48 bits, first byte lowest, as it stands at the beginning of a frame; `None`
    /// if it is not resolved.
    #[inline(always)]
    pub fn resolved(&self, id: AdjacencyId) -> Option<u64> {
        let word = self.words.get(id.index())?.load(Ordering::Relaxed);
        (word & RESOLVED != 0).then_some(word.swap_bytes() >> 16)
    }

    /// Rewrites entry `id` in place.
    pub fn set(&self, id: AdjacencyId, link: Link) {
        let word = match link {
            Link::Unresolved => 0,
            Link::Failed => FAILED,
            Link::Resolved(MacAddress([a, b, c, d, e, f])) => {
                RESOLVED | u64::from_be_bytes([0, 0, a, b, c, d, e, f])
            }
        };
        if let Some(cell) = self.words.get(id.index()) {
            cell.store(word, Ordering::Release);
        }
    }

    /// Notes that entry `id` is in use at `seconds` of the engine's clock.
    pub fn touch(&self, id: AdjacencyId, seconds: u32) {
        if let Some(cell) = self.used.get(id.index()) {
            if cell.load(Ordering::Relaxed) != seconds {
                cell.store(seconds, Ordering::Relaxed);
            }
        }
    }

    /// Second of the engine's clock at which entry `id` was last used.
    pub fn last_used(&self, id: AdjacencyId) -> u32 {
        self.used.get(id.index()).map_or(0, |cell| cell.load(Ordering::Relaxed))
    }
}
