//! Packets that wait for ARP or ND: a bounded queue, private to a worker.

use std::collections::HashMap;

use crate::decision::{AdjacencyId, AdjacencyTable, Link, Nanos, ScopeId, VrfId};
use crate::frame::Frame;
use crate::l2::Member;
use crate::packet::Meta;

/// Where a held packet goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// It came in by this scope.
    Received(ScopeId),
    /// weir made it; it is routed in this VRF.
    Originated(VrfId),
    /// It goes to one member of a bridge domain, or out of one interface as it is.
    Member {
        /// Where to.
        member: Member,
        /// Whether its outermost VLAN tag goes.
        pop_tag: bool,
        /// The interface that a flooded frame came in by, whose sender is told if a copy is too big.
        flooded: Option<ScopeId>,
    },
}

/// One held packet, as it was before any edit.
#[derive(Debug)]
pub(super) struct Held {
    /// The packet.
    pub(super) frame: Frame,
    /// What the parser found.
    pub(super) meta: Meta,
    /// Where it goes on.
    pub(super) origin: Origin,
    /// What it waits for.
    pub(super) adjacency: AdjacencyId,
    since: Nanos,
}

/// Packets for one neighbour that are held at the most, so that one silent neighbour does not use up the queue
/// (RFC 4861 section 7.2.2 asks for a small queue for each neighbour).
const PER_NEIGHBOUR: usize = 64;

/// How long a packet waits at the most: longer than resolution takes to fail.
const PATIENCE: Nanos = 5_000_000_000;

/// A bounded queue of held packets.
#[derive(Debug)]
pub(super) struct HeldQueue {
    packets: Vec<Held>,
    /// How many of them wait for each neighbour.
    waiting: HashMap<AdjacencyId, usize, ahash::RandomState>,
    capacity: usize,
    /// Epoch of the neighbour table at the last look.
    epoch: u64,
}

impl HeldQueue {
    /// A queue of at most `capacity` packets.
    pub(super) fn new(capacity: usize) -> Self {
        let waiting = HashMap::with_capacity_and_hasher(capacity, ahash::RandomState::new());
        Self { packets: Vec::with_capacity(capacity), waiting, capacity, epoch: u64::MAX }
    }

    /// Memory of a queue of `capacity` packets, in bytes, about.
    pub(super) fn bytes_for(capacity: usize) -> usize {
        capacity * (size_of::<Held>() + 2 * (size_of::<(AdjacencyId, usize)>() + 1))
    }

    /// Packets held.
    pub(super) fn len(&self) -> usize {
        self.packets.len()
    }

    /// Whether none is held.
    pub(super) fn is_empty(&self) -> bool {
        self.packets.is_empty()
    }

    /// Holds a packet; gives it back if there is no room.
    pub(super) fn hold(
        &mut self,
        frame: Frame,
        meta: Meta,
        origin: Origin,
        adjacency: AdjacencyId,
        now: Nanos,
    ) -> Result<(), Frame> {
        if self.packets.len() >= self.capacity {
            return Err(frame);
        }
        let waiting = self.waiting.entry(adjacency).or_default();
        if *waiting >= PER_NEIGHBOUR {
            return Err(frame);
        }
        *waiting += 1;
        self.packets.push(Held { frame, meta, origin, adjacency, since: now });
        Ok(())
    }

    /// Whether [`take_due`](Self::take_due) may find something: the neighbour table moved, or time ran out for the oldest.
    #[inline]
    pub(super) fn due(&mut self, epoch: u64, now: Nanos) -> bool {
        if self.packets.is_empty() {
            return false;
        }
        let moved = epoch != self.epoch;
        self.epoch = epoch;
        moved || self.packets.first().is_some_and(|held| now.saturating_sub(held.since) > PATIENCE)
    }

    /// Takes the packets whose neighbours were resolved or failed, or that have waited too long (then as failed), in the order in
    /// which they came.
    pub(super) fn take_due(&mut self, adjacencies: &AdjacencyTable, now: Nanos) -> Vec<(Held, Link)> {
        let is_due = |held: &Held| {
            adjacencies.link(held.adjacency) != Link::Unresolved || now.saturating_sub(held.since) > PATIENCE
        };
        let Self { packets, waiting, capacity, .. } = self;
        let mut due = Vec::new();
        if !packets.iter().any(is_due) {
            return due;
        }
        for held in std::mem::replace(packets, Vec::with_capacity(*capacity)) {
            if !is_due(&held) {
                packets.push(held);
                continue;
            }
            if let Some(count) = waiting.get_mut(&held.adjacency) {
                *count = count.saturating_sub(1);
                if *count == 0 {
                    waiting.remove(&held.adjacency);
                }
            }
            let link = match adjacencies.link(held.adjacency) {
                Link::Unresolved => Link::Failed,
                link => link,
            };
            due.push((held, link));
        }
        due
    }

    /// Takes everything.
    pub(super) fn drain(&mut self) -> impl Iterator<Item = Held> + '_ {
        self.waiting.clear();
        self.packets.drain(..)
    }
}

#[cfg(test)]
mod tests {
    use weir_config::HugePages;

    use super::*;
    use crate::frame::{FrameCache, FrameMemory, FramePool};

    /// A neighbour each for so many packets, of which each has as many as it may.
    const NEIGHBOURS: u32 = 1024;

    #[test]
    fn a_long_queue_is_filled_and_emptied_in_order() {
        let capacity = NEIGHBOURS as usize * PER_NEIGHBOUR;
        let pool = FramePool::new(FrameMemory::map(capacity as u32 + 1, 2048, HugePages::Never).unwrap());
        let mut cache = FrameCache::new(pool.clone());
        let (mut queue, adjacencies) = (HeldQueue::new(capacity), AdjacencyTable::new(NEIGHBOURS as usize));
        let origin = Origin::Originated(VrfId(0));
        for at in 0..capacity as u32 {
            let (frame, id) = (cache.alloc().unwrap(), AdjacencyId(at % NEIGHBOURS));
            let meta = Meta { l3_len: (at / NEIGHBOURS) as u16, ..Meta::default() };
            queue.hold(frame, meta, origin, id, 0).unwrap();
        }
        let frame = cache.alloc().unwrap();
        let refused = queue.hold(frame, Meta::default(), origin, AdjacencyId(0), 0).unwrap_err();
        cache.free(refused);
        adjacencies.set(AdjacencyId(7), Link::Failed);
        let due = queue.take_due(&adjacencies, 1);
        let order: Vec<_> =
            due.iter().map(|(held, link)| (held.adjacency.0, held.meta.l3_len, *link)).collect();
        let expected: Vec<_> = (0..PER_NEIGHBOUR as u16).map(|at| (7, at, Link::Failed)).collect();
        assert_eq!(order, expected);
        due.into_iter().for_each(|(held, _)| cache.free(held.frame));
        let due = queue.take_due(&adjacencies, PATIENCE + 1);
        assert_eq!((due.len(), queue.len()), (capacity - PER_NEIGHBOUR, 0));
        due.into_iter().for_each(|(held, _)| cache.free(held.frame));
        let frame = cache.alloc().unwrap();
        queue.hold(frame, Meta::default(), origin, AdjacencyId(0), 0).unwrap();
        queue.drain().for_each(|held| cache.free(held.frame));
        drop(cache);
        assert_eq!(pool.available(), capacity + 1);
    }
}
