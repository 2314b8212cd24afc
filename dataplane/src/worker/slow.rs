//! What replay leaves to the slow path: drops that their sender is told of, and packets that wait for their next hop. What is too
//! big is in `too_big.rs`, floods in `flood.rs`, what weir makes itself in `own.rs`.

use crate::chain::Walker;
use crate::decision::{AdjacencyId, DropReason, Link, Tuple};
use crate::flow::{Exception, Outcome, Program, Rewrite};
use crate::frame::Frame;
use crate::l3::icmp::IcmpError;
use crate::l3::{self, NeighbourAction};
use crate::packet::{Meta, hash};
use crate::snapshot::Snapshot;

use super::core::Core;
use super::held::{Held, Origin};

impl Core {
    /// Deals with whatever replay did not send.
    #[cold]
    pub(super) fn unusual(
        &mut self,
        snapshot: &Snapshot,
        frame: Frame,
        meta: Meta,
        origin: Origin,
        outcome: Outcome,
        program: &Program,
        rewrite: &Rewrite,
    ) {
        match outcome {
            Outcome::Send(port) => self.stage.push(port, frame),
            Outcome::Drop(reason) => self.refuse(snapshot, frame, &meta, origin, reason),
            Outcome::Exception(Exception::TtlExpired) => {
                self.refuse(snapshot, frame, &meta, origin, DropReason::TtlExpired);
            }
            Outcome::Exception(Exception::TooBig) => {
                self.too_big(snapshot, frame, &meta, origin, program, rewrite);
            }
            Outcome::Exception(Exception::Unresolved(adjacency)) => {
                self.hold(frame, meta, origin, adjacency);
            }
            Outcome::Exception(Exception::Failed(adjacency)) => {
                self.ask_again(snapshot, &frame, &meta, origin, rewrite);
                if snapshot.tables.adjacencies.link(adjacency) == Link::Failed {
                    self.refuse(snapshot, frame, &meta, origin, DropReason::NeighbourUnreachable);
                } else {
                    // It is asked for again: the packet waits like one whose flow is new.
                    self.hold(frame, meta, origin, adjacency);
                }
            }
        }
    }

    /// Drops a packet, and tells its sender where a router tells.
    pub(super) fn refuse(
        &mut self,
        snapshot: &Snapshot,
        frame: Frame,
        meta: &Meta,
        origin: Origin,
        reason: DropReason,
    ) {
        if let Origin::Received(scope) = origin {
            let error = match reason {
                DropReason::TtlExpired => Some(IcmpError::TimeExceeded),
                DropReason::NoRoute => Some(IcmpError::NetUnreachable),
                DropReason::NeighbourUnreachable => Some(IcmpError::HostUnreachable),
                DropReason::FirewallRejected => Some(IcmpError::AdminProhibited),
                _ => None,
            };
            debug_assert_eq!(error.is_some(), reason.is_told(), "{}", reason.name());
            if let (Some(error), Some(scope)) = (error, snapshot.pipeline.scope(scope)) {
                self.tell(snapshot, scope, frame.bytes(), meta, error);
            }
        }
        self.drop_frame(frame, reason);
    }

    /// Holds a packet until its next hop is resolved.
    fn hold(&mut self, frame: Frame, meta: Meta, origin: Origin, adjacency: AdjacencyId) {
        if let Err(frame) = self.held.hold(frame, meta, origin, adjacency, self.now) {
            self.drop_frame(frame, DropReason::NeighbourQueueFull);
        }
        self.counters.held.set(self.held.len() as u64);
    }

    /// Takes up the held packets whose next hop was resolved, and answers those whose next hop failed.
    pub(super) fn release(&mut self, snapshot: &Snapshot) {
        for (held, link) in self.held.take_due(&snapshot.tables.adjacencies, self.now) {
            if let Link::Resolved(_) = link {
                self.go_on(snapshot, held);
            } else {
                let Held { frame, meta, origin, .. } = held;
                self.refuse(snapshot, frame, &meta, origin, DropReason::NeighbourUnreachable);
            }
        }
        self.answer_asks(snapshot);
        self.counters.held.set(self.held.len() as u64);
    }

    /// Takes up everything that is held: a new generation may send it elsewhere.
    pub(super) fn release_all(&mut self, snapshot: &Snapshot) {
        if self.held.is_empty() {
            return;
        }
        let held: Vec<Held> = self.held.drain().collect();
        for packet in held {
            self.go_on(snapshot, packet);
        }
        self.answer_asks(snapshot);
        self.counters.held.set(self.held.len() as u64);
    }

    /// Takes a held packet up where it was left.
    fn go_on(&mut self, snapshot: &Snapshot, held: Held) {
        let Held { frame, meta, origin, .. } = held;
        match origin {
            Origin::Received(scope) => self.resume(snapshot, frame, meta, scope),
            Origin::Originated(vrf) => self.send_routed(snapshot, vrf, frame, &meta),
            Origin::Member { member, pop_tag, flooded } => {
                self.send_to_member(snapshot, frame, &meta, member, pop_tag, flooded);
            }
        }
    }

    /// Drops what is held: the engine stops.
    pub fn abandon_held(&mut self) {
        let held: Vec<_> = self.held.drain().collect();
        for packet in held {
            self.drop_frame(packet.frame, DropReason::NeighbourUnreachable);
        }
        self.counters.held.set(0);
    }

    /// Asks for the next hop of a packet once more; the table says whether it is time.
    fn ask_again(
        &mut self,
        snapshot: &Snapshot,
        frame: &Frame,
        meta: &Meta,
        origin: Origin,
        rewrite: &Rewrite,
    ) {
        let asks = std::mem::take(&mut self.asks);
        let walker =
            Walker { pipeline: &snapshot.pipeline, tables: &snapshot.tables, asks: &asks, last_way: None };
        let hash = hash::flow_hash(frame.bytes(), meta, snapshot.tables.seed);
        match origin {
            Origin::Received(scope) => {
                if let Some(scope) = snapshot.pipeline.scope(scope) {
                    let mut program = Program::default();
                    walker.forward_again(scope, frame.bytes(), meta, &mut program, rewrite, self.now);
                }
            }
            Origin::Originated(vrf) => {
                if let Some(tuple) = Tuple::of(frame.bytes(), meta) {
                    let _ = walker.route(vrf, tuple.destination, hash, self.now);
                }
            }
            Origin::Member { member, pop_tag, .. } => {
                let _ = walker.to_member(pop_tag, member, hash, self.now);
            }
        }
        self.asks = asks;
        self.answer_asks(snapshot);
    }

    /// Sends what the neighbour table asked for during a walk.
    pub(super) fn answer_asks(&mut self, snapshot: &Snapshot) {
        loop {
            let Some(action) = self.asks.get_mut().pop() else { return };
            self.neighbour_action(snapshot, action);
        }
    }

    /// Does what the neighbour table wants done.
    pub fn neighbour_action(&mut self, snapshot: &Snapshot, action: NeighbourAction) {
        match action {
            NeighbourAction::Solicit { scope, ip, unicast_to } => {
                let Some(known) = snapshot.pipeline.scope(scope) else { return };
                let Some(interface) = &known.interface else { return };
                let mut out = std::mem::take(&mut self.scratch);
                out.clear();
                if l3::solicit(interface, ip, unicast_to, &mut out) {
                    self.emit(snapshot, known, None, &out);
                }
                self.scratch = out;
            }
            NeighbourAction::AskKernel { scope, ip } => snapshot.ask_kernel(scope, ip),
            NeighbourAction::Failed { .. } | NeighbourAction::Expired { .. } => {}
        }
    }
}
