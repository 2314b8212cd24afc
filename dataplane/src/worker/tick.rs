//! Timers of the shared tables: driven by one worker's clock, or by a capture's.

use std::sync::atomic::{AtomicBool, Ordering};

use crate::decision::Nanos;
use crate::snapshot::Snapshot;

use super::announce::Announcer;
use super::core::Core;

/// How often timers are looked at.
pub(super) const TICK: Nanos = 100_000_000;
/// Sessions and bridge entries looked at in one tick.
const BUDGET: usize = 4096;

/// Time that ports have to be dealt out in at the start, before anything is announced on them.
const SETTLE: Nanos = 250_000_000;

/// Ticks the shared tables.
#[derive(Debug, Default)]
pub(super) struct Ticker {
    next: Nanos,
    announcer: Announcer,
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
            let began = *self.began.get_or_insert(core.now);
            if core.now >= began + SETTLE && !quiet.load(Ordering::Relaxed) {
                self.announcer.tick(core, snapshot);
            }
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
}
