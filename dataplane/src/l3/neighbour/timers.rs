//! State changes and timers of neighbours (RFC 4861 sections 7.3.3 and 10).

use std::sync::atomic::Ordering;

use weir_config::MacAddress;

use super::{Inner, NeighbourAction, NeighbourState, NeighbourTable, SECOND, seconds};
use crate::decision::{AdjacencyId, Link, Nanos};

/// RETRANS_TIMER; also the most frequent ARP for one address that RFC 1122 section 2.3.2.1 allows.
const RETRANSMIT: Nanos = SECOND;
/// MAX_MULTICAST_SOLICIT.
const MULTICAST_TRIES: u8 = 3;
/// MAX_UNICAST_SOLICIT.
const UNICAST_TRIES: u8 = 3;
/// REACHABLE_TIME, before it is varied.
const REACHABLE: Nanos = 30 * SECOND;
/// DELAY_FIRST_PROBE_TIME: how often a stale entry is looked at.
const DELAY: Nanos = 5 * SECOND;
/// A stale entry not used for so long is removed; so is a failed one that nobody asked for since.
const UNUSED: Nanos = 60 * SECOND;
/// Hold-down after the first failure; doubles with each further one.
const HOLD_DOWN: Nanos = 2 * SECOND;
/// The longest hold-down.
const HOLD_DOWN_MAX: Nanos = 60 * SECOND;

impl NeighbourTable {
    /// Runs the timers that are due. Cheap when none is. Deterministic: same calls, same actions.
    pub fn tick(&self, now: Nanos, emit: &mut dyn FnMut(NeighbourAction)) {
        if now < self.next_due.load(Ordering::Relaxed) {
            return;
        }
        // Collected first: `emit` may come back to the table.
        let mut actions = Vec::new();
        let mut inner = self.lock();
        while let Some(&(due, id)) = inner.due.first() {
            if due > now {
                break;
            }
            actions.extend(self.run_timer(&mut inner, id, now));
            // Whatever happened, the timer of this round is over.
            if inner.due.contains(&(due, id)) {
                self.arm(&mut inner, id, now + SECOND);
            }
        }
        let next = inner.due.first().map_or(Nanos::MAX, |&(due, _)| due);
        self.next_due.store(next, Ordering::Relaxed);
        drop(inner);
        actions.into_iter().for_each(emit);
    }

    /// When [`Self::tick`] has something to do next; [`Nanos::MAX`]: never.
    pub fn next_due(&self) -> Nanos {
        self.next_due.load(Ordering::Relaxed)
    }

    fn run_timer(&self, inner: &mut Inner, id: AdjacencyId, now: Nanos) -> Option<NeighbourAction> {
        use NeighbourState::{Failed, Incomplete, Kernel, PointToPoint, Probe, Reachable, Stale, Static};
        let last_used = self.adjacencies.last_used(id);
        let entry = inner.entry(id)?;
        let (scope, ip, mac) = (entry.scope, entry.ip, entry.mac);
        // Use is noted in whole seconds: what falls into the second of the change may have been before it.
        let used = last_used > seconds(entry.since);
        let idle = self.unused(id, now) && now.saturating_sub(entry.since) >= UNUSED;
        match entry.state {
            Incomplete if entry.tries < MULTICAST_TRIES => return self.solicit(inner, id, None, now),
            Incomplete => {
                self.fail(inner, id, now);
                return Some(NeighbourAction::Failed { scope, ip, adjacency: id });
            }
            Reachable => self.enter(inner, id, Stale, now, now + DELAY),
            Stale if used => {
                self.enter(inner, id, Probe, now, now + RETRANSMIT);
                return self.solicit(inner, id, mac, now);
            }
            Probe if entry.tries < UNICAST_TRIES => return self.solicit(inner, id, mac, now),
            Probe => return self.begin(inner, id, now),
            Failed if used && entry.retry_at <= now => return self.begin(inner, id, now),
            Stale | Failed | PointToPoint if idle => {
                self.free(inner, id, now);
                return Some(NeighbourAction::Expired { scope, ip });
            }
            Stale | Failed | PointToPoint => self.arm(inner, id, now + DELAY),
            // The kernel sees none of the packets that weir sends, so it is asked to verify what is in use.
            Kernel => {
                entry.since = now;
                self.arm(inner, id, now + reachable_time(id, now));
                return used.then_some(NeighbourAction::AskKernel { scope, ip });
            }
            Static => self.arm(inner, id, Nanos::MAX),
        }
        None
    }

    /// Whether nobody used an entry for long.
    pub(super) fn unused(&self, id: AdjacencyId, now: Nanos) -> bool {
        now.saturating_sub(u64::from(self.adjacencies.last_used(id)) * SECOND) >= UNUSED
    }

    /// Starts to resolve at the next tick.
    pub(super) fn begin_soon(&self, inner: &mut Inner, id: AdjacencyId, now: Nanos) {
        let Some(entry) = inner.entry(id) else { return };
        entry.mac = None;
        self.adjacencies.set(id, Link::Unresolved);
        self.enter(inner, id, NeighbourState::Incomplete, now, now);
    }

    /// Starts, or starts again, to resolve.
    pub(super) fn begin(&self, inner: &mut Inner, id: AdjacencyId, now: Nanos) -> Option<NeighbourAction> {
        inner.entry(id)?.mac = None;
        self.adjacencies.set(id, Link::Unresolved);
        self.enter(inner, id, NeighbourState::Incomplete, now, now + RETRANSMIT);
        self.solicit(inner, id, None, now)
    }

    /// Counts a try, sets the timer for the next, and says what to send.
    fn solicit(
        &self,
        inner: &mut Inner,
        id: AdjacencyId,
        unicast_to: Option<MacAddress>,
        now: Nanos,
    ) -> Option<NeighbourAction> {
        self.arm(inner, id, now + RETRANSMIT);
        let entry = inner.entry(id)?;
        entry.tries += 1;
        let (scope, ip) = (entry.scope, entry.ip);
        Some(match entry.kernel {
            true => NeighbourAction::AskKernel { scope, ip },
            false => NeighbourAction::Solicit { scope, ip, unicast_to },
        })
    }

    /// The entry has a MAC address.
    pub(super) fn settle(
        &self,
        inner: &mut Inner,
        id: AdjacencyId,
        mac: MacAddress,
        state: NeighbourState,
        now: Nanos,
    ) {
        let Some(entry) = inner.entry(id) else { return };
        entry.mac = Some(mac);
        let (scope, first) = (entry.scope, !std::mem::replace(&mut entry.heard, true));
        if first {
            inner.no_more_unheard(scope);
        }
        let Some(entry) = inner.entry(id) else { return };
        entry.failures = 0;
        if state != NeighbourState::Stale {
            entry.confirmed = now;
        }
        entry.kernel |= state == NeighbourState::Kernel;
        let due = match state {
            NeighbourState::Reachable | NeighbourState::Kernel => now + reachable_time(id, now),
            NeighbourState::Stale | NeighbourState::PointToPoint => now + DELAY,
            _ => Nanos::MAX,
        };
        self.enter(inner, id, state, now, due);
        let waited = !matches!(self.adjacencies.link(id), Link::Resolved(_));
        self.adjacencies.set(id, Link::Resolved(mac));
        if waited {
            self.bump();
        }
    }

    /// Nobody answered.
    pub(super) fn fail(&self, inner: &mut Inner, id: AdjacencyId, now: Nanos) {
        let Some(entry) = inner.entry(id) else { return };
        entry.mac = None;
        let hold_down = (HOLD_DOWN << entry.failures.min(16)).min(HOLD_DOWN_MAX);
        entry.failures = entry.failures.saturating_add(1);
        entry.retry_at = now + hold_down;
        self.enter(inner, id, NeighbourState::Failed, now, now + hold_down);
        self.adjacencies.set(id, Link::Failed);
        self.bump();
    }

    fn enter(&self, inner: &mut Inner, id: AdjacencyId, state: NeighbourState, now: Nanos, due: Nanos) {
        if let Some(entry) = inner.entry(id) {
            entry.state = state;
            entry.since = now;
            entry.tries = 0;
        }
        self.arm(inner, id, due);
    }

    /// Sets the entry's timer.
    fn arm(&self, inner: &mut Inner, id: AdjacencyId, due: Nanos) {
        let Some(entry) = inner.entry(id) else { return };
        let old = std::mem::replace(&mut entry.due, due);
        inner.due.remove(&(old, id));
        inner.due.insert((due, id));
        self.next_due.fetch_min(due, Ordering::Relaxed);
    }
}

/// ReachableTime: REACHABLE_TIME varied by 0.5 to 1.5 (RFC 4861 section 6.3.2), so that entries made together are not
/// verified together. The same every time for the same entry and moment.
fn reachable_time(id: AdjacencyId, now: Nanos) -> Nanos {
    let mixed = (u64::from(id.0) ^ now).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
    REACHABLE / 2 + ((REACHABLE * (mixed >> 16)) >> 16)
}
