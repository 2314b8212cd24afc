//! Relaying: what a cross-connected port receives goes straight on to the other port's queue, where both queues are this worker's and can
//! do so. No token is made for a frame that nobody looks at. Whatever is too long, or finds no room, goes the usual way.

use crate::chain::Lane;
use crate::decision::Domain;
use crate::frame::BURST;

use super::run::{Queue, Worker};

/// Where the frames of a queue are relayed to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Wire {
    /// Index of the other queue.
    to: usize,
    /// Largest frame that the other port takes, in bytes.
    longest: usize,
}

impl Worker {
    /// Finds where each queue's frames can be relayed to. Asked when queues or the snapshot have changed.
    #[cold]
    pub(super) fn find_wires(&mut self) {
        self.wires.clear();
        for at in 0..self.queues.len() {
            let wire = self.find_wire(at);
            self.wires.push(wire);
        }
    }

    fn find_wire(&mut self, at: usize) -> Option<Wire> {
        let pipeline = &self.snapshot.pipeline;
        let from = self.queues.get_mut(at)?;
        let scope = pipeline.scope_of(from.port, 0).filter(|scope| scope.lane == Lane::Wire)?;
        let Domain::CrossConnect(other) = scope.domain else { return None };
        let other = pipeline.scope(other)?;
        from.io.as_relay()?;
        let to = self.transmit.get(other.port.index()).copied().flatten().filter(|to| *to != at)?;
        self.queues.get_mut(to)?.io.as_relay()?;
        Some(Wire { to, longest: usize::from(other.mtu) + 14 })
    }

    /// Receives from a queue and relays. What is not relayed is in the burst. Returns how many frames were.
    pub(super) fn relay(&mut self, at: usize, wire: Wire) -> usize {
        let Self { core, queues, burst, .. } = self;
        let Some((from, to)) = pair(queues, at, wire.to) else { return 0 };
        let count = from.io.relay(&mut *to.io, wire.longest, burst, BURST, &mut core.cache);
        for counter in [&core.counters.received, &core.counters.flow_hits, &core.counters.transmitted] {
            counter.add(count as u64);
        }
        count
    }
}

/// Two different queues.
fn pair(queues: &mut [Queue], first: usize, second: usize) -> Option<(&mut Queue, &mut Queue)> {
    if first < second {
        let (front, back) = queues.split_at_mut_checked(second)?;
        Some((front.get_mut(first)?, back.first_mut()?))
    } else {
        let (front, back) = queues.split_at_mut_checked(first)?;
        Some((back.first_mut()?, front.get_mut(second)?))
    }
}
