//! Timers of the shared tables: driven by one worker's clock, or by a capture's.

use std::cell::RefCell;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::chain::Walker;
use crate::decision::Nanos;
use crate::snapshot::Snapshot;

use super::announce::Announcer;
use super::core::Core;

/// How often timers are looked at.
pub(super) const TICK: Nanos = 100_000_000;
/// Sessions and bridge entries looked at in one tick.
const BUDGET: usize = 4096;

/// Session slots looked at in one tick when the configuration has changed.
const AUDITED: usize = 16_384;
/// Time in which every worker has picked up a new generation.
const AUDIT_DELAY: Nanos = 1_000_000_000;

/// Time that ports have to be dealt out in at the start, before anything is announced on them.
const SETTLE: Nanos = 250_000_000;

/// Ticks the shared tables.
#[derive(Debug, Default)]
pub(super) struct Ticker {
    next: Nanos,
    announcer: Announcer,
    auditor: Auditor,
    /// When it ticked first.
    began: Option<Nanos>,
}

impl Ticker {
    /// Runs what is due. While `quiet` is set, nothing is announced; what was due is made up for afterwards.
    #[inline]
    pub(super) fn tick(&mut self, core: &mut Core, snapshot: &Snapshot, quiet: &AtomicBool) {
        if core.now >= self.next {
            self.next = core.now + TICK;
            run(core, snapshot);
            self.auditor.tick(core, snapshot);
            let began = *self.began.get_or_insert(core.now);
            if core.now >= began + SETTLE && !quiet.load(Ordering::Relaxed) {
                self.announcer.tick(core, snapshot);
            }
        }
    }
}

/// Ends the sessions whose translations a new generation does not have any more, so that their ports come free even if none
/// of their packets comes. Packets do not wait for it: each session is looked at when one walks.
#[derive(Debug, Default)]
pub(super) struct Auditor {
    generation: u64,
    /// When to begin: no worker makes sessions by an older generation then.
    begin: Nanos,
    /// Where to go on; `None` once all were looked at.
    next: Option<usize>,
}

impl Auditor {
    pub(super) fn tick(&mut self, core: &Core, snapshot: &Snapshot) {
        if snapshot.generation != self.generation {
            *self = Self { generation: snapshot.generation, begin: core.now + AUDIT_DELAY, next: Some(0) };
        }
        let Some(from) = self.next.filter(|_| core.now >= self.begin) else { return };
        let asks = RefCell::default();
        let walker =
            Walker { pipeline: &snapshot.pipeline, tables: &snapshot.tables, asks: &asks, last_way: None };
        let keep = |domain, chain, translations: &_| walker.keeps(domain, chain, translations);
        self.next = snapshot.tables.sessions.audit(from, AUDITED, core.now, keep);
        if self.next.is_none() {
            snapshot.tables.nat.forget_idle(core.now);
        }
    }
}

/// Runs the timers of neighbours, sessions, bridge entries and learned MTUs.
#[cold]
pub(super) fn run(core: &mut Core, snapshot: &Snapshot) {
    let (tables, now) = (&snapshot.tables, core.now);
    let mut actions = Vec::new();
    tables.neighbours.tick(now, &mut |action| actions.push(action));
    for action in actions {
        core.neighbour_action(snapshot, action);
    }
    // Solicitations inside a tunnel may ask for the underlay's next hop in turn.
    core.answer_asks(snapshot);
    tables.sessions.tick(now, BUDGET);
    tables.macs.age(now, BUDGET);
    tables.path_mtu.tick(now);
    tables.nat.tick(now);
}
