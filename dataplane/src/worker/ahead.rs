//! Looking ahead: what walks of new flows will read and write is in no cache, and is asked of the memory while packets before them
//! walk. A walk takes longer than the memory, but not if it has to wait for all of its lines in turn; and the processor has only so many
//! requests under way at a time, so they are made packet by packet, not burst by burst.

use crate::chain::Scope;
use crate::decision::Tuple;
use crate::flow::table::{prefetch, prefetch_line};
use crate::session::session_domain;
use crate::snapshot::Snapshot;

use super::core::{Core, STRIDE};
use super::lane::{Kind, Work};

/// How many packets before its own a new flow's lines are asked for; those that follow from what is in them, one packet before.
const LINES: usize = 3;

/// How far a stride that begins with a new flow was looked ahead at.
#[derive(Debug)]
pub(super) struct Ahead {
    /// The slots of the sessions that will be made next, and how many of them were asked for.
    slots: [u32; STRIDE],
    asked: usize,
}

impl Core {
    /// Begins to look ahead, if a stride begins with a new flow: most others are new then too.
    #[inline(never)]
    pub(super) fn begin_ahead(&self, snapshot: &Snapshot, work: &[Work]) -> Option<Ahead> {
        let compact = &self.flows.compact;
        let first = work.iter().find(|work| work.tag.is(Kind::Flow))?;
        if compact.entry(compact.find(first.hash, &first.odd_key())).is_some() {
            return None;
        }
        chained(snapshot, first)?;
        let mut ahead = Ahead { slots: [u32::MAX; STRIDE], asked: 0 };
        snapshot.tables.sessions.upcoming(&mut ahead.slots);
        work.iter().take(LINES).for_each(|work| self.ask_for_lines(snapshot, &mut ahead, work));
        self.foresee(snapshot, work.first());
        Some(ahead)
    }

    /// Looks ahead of the packet at `at`.
    #[inline(never)]
    pub(super) fn look_ahead(&self, snapshot: &Snapshot, ahead: &mut Ahead, work: &[Work], at: usize) {
        if let Some(work) = work.get(at + LINES) {
            self.ask_for_lines(snapshot, ahead, work);
        }
        self.foresee(snapshot, work.get(at + 1));
    }

    /// Asks for the lines that are known beforehand.
    fn ask_for_lines(&self, snapshot: &Snapshot, ahead: &mut Ahead, work: &Work) {
        let Some(scope) = self.new_flow(snapshot, work) else { return };
        self.flows.compact.prefetch_others(work.hash, &work.odd_key());
        let tuple = work.tuple();
        ask_for_session(snapshot, scope, &tuple);
        snapshot.pipeline.look_ahead(scope, &tuple, &prefetch_line);
        let slot = ahead.slots.get(ahead.asked).and_then(|slot| snapshot.tables.sessions.slot(*slot));
        slot.into_iter().for_each(prefetch);
        ahead.asked += 1;
    }

    /// Asks for the lines that a new flow's addresses and ports decide, once they are translated.
    fn foresee(&self, snapshot: &Snapshot, work: Option<&Work>) {
        let Some((work, scope)) = work.and_then(|work| Some((work, self.new_flow(snapshot, work)?))) else {
            return;
        };
        let mut tuple = work.tuple();
        if snapshot.pipeline.foresee(scope, &mut tuple, &prefetch_line) {
            ask_for_session(snapshot, scope, &tuple.reversed());
        }
    }

    /// The scope of a packet of a flow that is probably new, and in a chain. Whatever is not where it most likely is passes for new:
    /// nobody waits here for other lines.
    fn new_flow<'a>(&self, snapshot: &'a Snapshot, work: &Work) -> Option<&'a Scope> {
        let new = work.tag.is(Kind::Flow) && self.flows.compact.is_elsewhere(work.hash, &work.odd_key());
        if new { chained(snapshot, work) } else { None }
    }
}

fn chained<'a>(snapshot: &'a Snapshot, work: &Work) -> Option<&'a Scope> {
    snapshot.pipeline.scope(work.tag.scope()).filter(|scope| scope.chained)
}

fn ask_for_session(snapshot: &Snapshot, scope: &Scope, tuple: &Tuple) {
    if let Some(home) = snapshot.tables.sessions.home(session_domain(scope.id, scope.domain), tuple) {
        prefetch(home);
    }
}
