//! Packets that wait for ARP or ND: a bounded queue, private to a worker.

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
    capacity: usize,
    /// Epoch of the neighbour table at the last look.
    epoch: u64,
}

impl HeldQueue {
    /// A queue of at most `capacity` packets.
    pub(super) fn new(capacity: usize) -> Self {
        Self { packets: Vec::with_capacity(capacity), capacity, epoch: u64::MAX }
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
        let waiting = self.packets.iter().filter(|held| held.adjacency == adjacency).count();
        if self.packets.len() >= self.capacity || waiting >= PER_NEIGHBOUR {
            return Err(frame);
        }
        self.packets.push(Held { frame, meta, origin, adjacency, since: now });
        Ok(())
    }

    /// Whether [`take`](Self::take) may find something: the neighbour table moved, or time ran out for the oldest.
    #[inline]
    pub(super) fn due(&mut self, epoch: u64, now: Nanos) -> bool {
        if self.packets.is_empty() {
            return false;
        }
        let moved = epoch != self.epoch;
        self.epoch = epoch;
        moved || self.packets.first().is_some_and(|held| now.saturating_sub(held.since) > PATIENCE)
    }

    /// Takes the first packet whose neighbour was resolved or failed, or that has waited too long (then as failed).
    pub(super) fn take(&mut self, adjacencies: &AdjacencyTable, now: Nanos) -> Option<(Held, Link)> {
        let at = self.packets.iter().position(|held| {
            adjacencies.link(held.adjacency) != Link::Unresolved || now.saturating_sub(held.since) > PATIENCE
        })?;
        let held = self.packets.remove(at);
        let link = match adjacencies.link(held.adjacency) {
            Link::Unresolved => Link::Failed,
            link => link,
        };
        Some((held, link))
    }

    /// Takes everything.
    pub(super) fn drain(&mut self) -> impl Iterator<Item = Held> + '_ {
        self.packets.drain(..)
    }
}
