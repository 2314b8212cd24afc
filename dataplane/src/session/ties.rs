//! Sessions of one connection that cached programs stand for together.
//!
//! A connection through attached hops has a session in each segment of its chain, and a program keeps one alive. Where a hop is
//! skipped, one program stands for the sessions on both sides: they are tied in a ring, and touching one touches all.

use super::slots::Slot;
use super::table::SessionTable;
use crate::decision::{Nanos, SessionId};

/// Most sessions in a ring: a chain has 64 hops at the most.
const LONGEST: usize = 65;

impl SessionTable {
    /// Ties the sessions of one connection; one alone is tied to none.
    pub fn tie(&self, sessions: &[SessionId]) {
        let alone = sessions.len() < 2;
        for (index, id) in sessions.iter().enumerate() {
            let next = sessions.get(index + 1).or(sessions.first()).filter(|_| !alone);
            let next = next.and_then(|next| Some((next.0, self.slots.get(next.index())?.incarnation())));
            if let Some(slot) = self.slots.get(id.index()) {
                slot.tie(next);
            }
        }
    }

    /// Notes that those that a session is tied to are in use too. False if one is gone, or its packets must walk again.
    pub(super) fn touch_tied(&self, id: SessionId, slot: &Slot, now: Nanos) -> bool {
        let mut tied = slot.tied();
        for _ in 0..LONGEST {
            let Some((number, incarnation)) = tied.filter(|(number, _)| *number != id.0) else { break };
            let Some(next) = self.slots.get(number as usize) else { return false };
            let established = next.state().is_some_and(|state| state.is_established());
            if next.incarnation() != incarnation || !established {
                return false;
            }
            next.seen(now);
            tied = next.tied();
        }
        true
    }
}
