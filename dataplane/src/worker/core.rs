//! A worker's engine: takes a burst of received frames and leaves them staged for their ports, held, or dropped.
//!
//! ```text
//! admit:  parse → decapsulate → scope → key     (all frames of the burst)
//! pass:   flow look-up → replay, or walk → replay
//! ```
//!
//! It knows no sockets and no clock: the run loop and the capture replay drive it alike.

use std::cell::RefCell;
use std::sync::Arc;

use weir_config::MacAddress;

use crate::chain::{Lane, LastWay};
use crate::decision::{
    Domain, DropReason, MeterCache, MeterId, MeterTable, Nanos, PathBuilder, PortId, ScopeId, SessionId,
};
use crate::flow::table::milliseconds;
use crate::flow::{Flows, Ops, Outcome, Program, Rewrite};
use crate::frame::{Frame, FrameCache};
use crate::l3::NeighbourAction;
use crate::l3::icmp::RateLimiter;
use crate::packet::Meta;
use crate::snapshot::Snapshot;

use super::admit::{Admitted, Ingress};
use super::at_once::InVain;
use super::counters::CounterBlock;
use super::held::HeldQueue;
use super::in_place::InPlace;
use super::lane::{Kind, Tag, Work};
use super::pass::Under;
use super::stage::Stage;

/// Frames that are admitted before they are passed. Enough for what was prefetched to arrive; few enough that their
/// headers, often 2048 bytes apart and so in few sets of the first-level cache, are still there.
pub(super) const STRIDE: usize = 16;
/// How long a flow without packets is kept.
const FLOW_IDLE_MS: u32 = 10_000;
/// Time in which the whole flow table is swept once.
const SWEEP_MS: u32 = 1_000;

/// What a core is made of.
pub struct CoreParts {
    /// Shared token buckets.
    pub meters: Arc<MeterTable>,
    /// Shared limit of ICMP errors.
    pub icmp: Arc<RateLimiter>,
    /// Private frame cache.
    pub cache: FrameCache,
    /// Flow-table bound.
    pub flows: usize,
    /// Held-packet bound.
    pub held: usize,
    /// Seed of the flow table.
    pub seed: [u64; 8],
}

/// One worker's engine.
pub struct Core {
    pub(super) flows: Flows,
    /// Free frames.
    pub cache: FrameCache,
    /// Counters, also read by the control thread.
    pub counters: Arc<CounterBlock>,
    pub(super) meters: MeterCache,
    pub(super) path: PathBuilder,
    pub(super) held: HeldQueue,
    pub(super) stage: Stage,
    pub(super) asks: RefCell<Vec<NeighbourAction>>,
    pub(super) last_way: RefCell<LastWay>,
    /// Whether first packets are parsed, walked and replayed in the general way alone.
    pub(super) no_short_cuts: bool,
    pub(super) icmp: Arc<RateLimiter>,
    pub(super) scratch: Vec<u8>,
    /// Places for the frames of a stride, and for those of them that the parser admitted.
    work: Box<[Work]>,
    admitted: Box<[Admitted]>,
    pub(super) in_vain: InVain,
    pub(super) now: Nanos,
    pub(super) now_ms: u32,
    swept_ms: u32,
}

impl std::fmt::Debug for Core {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Core").field("flows", &self.flows).finish_non_exhaustive()
    }
}

impl Core {
    /// An engine with empty private tables.
    pub fn new(parts: CoreParts) -> Self {
        let meters = MeterCache::new(&parts.meters);
        Self {
            flows: Flows::new(parts.flows, parts.seed),
            cache: parts.cache,
            counters: Arc::default(),
            meters,
            path: PathBuilder::default(),
            held: HeldQueue::new(parts.held),
            stage: Stage::default(),
            asks: RefCell::new(Vec::with_capacity(64)),
            last_way: RefCell::default(),
            no_short_cuts: false,
            icmp: parts.icmp,
            scratch: Vec::with_capacity(2048),
            work: (0..STRIDE).map(|_| Work::none()).collect(),
            admitted: (0..STRIDE).map(|_| Admitted::none()).collect(),
            in_vain: InVain::none(),
            now: 0,
            now_ms: 0,
            swept_ms: 0,
        }
    }

    /// Sets the engine's clock; it never runs backwards.
    #[inline]
    pub fn set_clock(&mut self, now: Nanos) {
        self.now = self.now.max(now);
        self.now_ms = milliseconds(self.now);
    }

    /// Runs a burst of frames received by `port` through the engine. `frames` is empty afterwards.
    #[inline]
    pub fn process(&mut self, snapshot: &Snapshot, port: PortId, frames: &mut Vec<Frame>) {
        self.counters.received.add(frames.len() as u64);
        self.flows.renumber(snapshot.generation as u32);
        let under = Under::new(snapshot);
        let mut ingress = Ingress::new(snapshot, port);
        if !self.held.is_empty() {
            self.release_due(snapshot);
        }
        let at_once = self.pass_at_once(&under, &ingress, frames);
        if let Some(InPlace { port, .. }) = at_once.filter(|passed| passed.done == frames.len()) {
            self.stage.adopt(port, frames);
            return;
        }
        let mut work = std::mem::take(&mut self.work);
        let InPlace { done, port } = self.pass_in_place(&under, &mut ingress, frames, &mut work, at_once);
        if done == frames.len() {
            self.stage.adopt(port, frames);
            self.work = work;
            return;
        }
        if ingress.view.is_some_and(|view| view.lane == Lane::Wire) {
            self.pass_beside_wire(&under, &mut ingress, frames, done, &mut work);
            self.work = work;
            return;
        }
        let mut admitted = std::mem::take(&mut self.admitted);
        let mut burst = frames.drain(..);
        self.stage.extend(port, burst.by_ref().take(done));
        while let frames @ [_, ..] = burst.as_slice() {
            let count = frames.len().min(STRIDE);
            let (Some(frames), Some(work)) = (frames.get(..count), work.get_mut(..count)) else { break };
            for frame in frames {
                frame.prefetch();
            }
            let others = match &ingress.view {
                Some(view) => view.scan(frames, &self.flows.compact, work),
                None => count,
            };
            if others > 0 {
                self.admit_others(snapshot, &mut ingress, frames, work, &mut admitted);
            }
            let ahead = self.begin_ahead(snapshot, work);
            self.pass_all(&under, &mut burst, work, &admitted, ahead);
        }
        drop(burst);
        (self.work, self.admitted) = (work, admitted);
    }

    /// Passes the frames of a wire, `done` of which it takes to begin with: what it does not take is for the parser, and what
    /// comes behind that is for the wire again.
    #[cold]
    #[inline(never)]
    fn pass_beside_wire<'a>(
        &mut self,
        under: &Under<'a>,
        ingress: &mut Ingress<'a>,
        frames: &mut Vec<Frame>,
        done: usize,
        work: &mut [Work],
    ) {
        let Some(wire) = ingress.view.take() else { return };
        let mut admitted = std::mem::take(&mut self.admitted);
        let mut burst = frames.drain(..);
        self.stage.extend(wire.wire.0, burst.by_ref().take(done));
        while let frames @ [_, ..] = burst.as_slice() {
            let count = frames.iter().take_while(|frame| !wire.takes(frame)).take(STRIDE).count();
            let (Some(others), Some(work)) = (frames.get(..count), work.get_mut(..count)) else { break };
            self.admit_others(under.snapshot, ingress, others, work, &mut admitted);
            self.pass_all(under, &mut burst, work, &admitted, None);
            let taken = burst.as_slice().iter().take_while(|frame| wire.takes(frame)).count();
            self.counters.flow_hits.add(taken as u64);
            self.stage.extend(wire.wire.0, burst.by_ref().take(taken));
        }
        drop(burst);
        self.admitted = admitted;
    }

    /// Admits what is not plain, and looks inside what may be for a tunnel.
    #[inline(never)]
    fn admit_others<'a>(
        &mut self,
        snapshot: &'a Snapshot,
        ingress: &mut Ingress<'a>,
        frames: &[Frame],
        work: &mut [Work],
        admitted: &mut [Admitted],
    ) {
        let plain = ingress.view.is_some();
        let mut parsed = 0;
        for (frame, work) in frames.iter().zip(work) {
            if plain {
                if work.tag.is(Kind::Tunnelled) {
                    let (Some(view), inner) = (&ingress.view, &mut ingress.inner) else { continue };
                    if view.look_inside(snapshot, inner, &mut None, frame, &self.flows.compact, work) {
                        continue;
                    }
                } else if !work.tag.is(Kind::Parsed) {
                    continue;
                }
            }
            let Some(place) = admitted.get_mut(parsed) else { break };
            (work.tag, work.strip) = (Tag::new(ScopeId(0), Kind::Parsed, false), 0);
            match self.admit(snapshot, ingress, frame.bytes(), place) {
                Ok(outer) => {
                    (work.strip, work.len) = outer;
                    parsed += 1;
                }
                Err(reason) => {
                    (work.tag, work.reason) = (Tag::new(ScopeId(0), Kind::Dropped, false), reason);
                }
            }
        }
        for admitted in admitted.iter_mut().take(parsed) {
            admitted.guess = self.flows.whole.guess(admitted.hash);
        }
    }

    /// Replays a program on a frame of the slow path.
    pub(super) fn run(
        &mut self,
        snapshot: &Snapshot,
        frame: &mut Frame,
        meta: &Meta,
        program: &Program,
        rewrite: &Rewrite,
    ) -> Outcome {
        snapshot.replay().run(frame, meta, program, || *rewrite, &mut self.meters, self.now)
    }

    /// Counts and frees.
    #[inline]
    pub(super) fn drop_frame(&mut self, frame: Frame, reason: DropReason) {
        self.counters.count_drop(reason);
        self.cache.free(frame);
    }

    /// Hands each port's staged frames to `send`, which takes what it can. What it leaves is dropped and counted.
    #[inline]
    pub fn flush(&mut self, mut send: impl FnMut(PortId, &mut Vec<Frame>, &mut FrameCache, &CounterBlock)) {
        let Self { stage, cache, counters, .. } = self;
        stage.flush(|port, frames| {
            send(port, frames, cache, counters);
            for frame in frames.drain(..) {
                counters.count_drop(DropReason::TransmitQueueFull);
                cache.free(frame);
            }
        });
    }

    /// Keeps the tables: sweeps part of the flow table, and takes up held packets whose neighbour answered.
    pub fn housekeep(&mut self, snapshot: &Snapshot) {
        let elapsed = self.now_ms.wrapping_sub(self.swept_ms);
        if elapsed > 0 {
            self.swept_ms = self.now_ms;
            self.sweep(snapshot, elapsed);
            self.counters.flows.set(self.flows.len() as u64);
            self.counters.flow_evictions.set(self.flows.evictions());
        }
        self.counters.held.set(self.held.len() as u64);
        self.release_due(snapshot);
    }

    /// Takes up held packets if their neighbour may have answered.
    pub(super) fn release_due(&mut self, snapshot: &Snapshot) {
        if self.held.due(snapshot.tables.neighbours.epoch(), self.now) {
            self.release(snapshot);
        }
    }

    /// Sweeps so many flows that the tables are done once in [`SWEEP_MS`]: idle flows go, and what used flows refer to is
    /// kept alive.
    fn sweep(&mut self, snapshot: &Snapshot, elapsed: u32) {
        let share =
            |all: usize| (all as u64 * u64::from(elapsed.min(SWEEP_MS)) / u64::from(SWEEP_MS)) as usize + 1;
        let keeper = Keeper { snapshot, now: self.now, now_ms: self.now_ms };
        if !self.flows.whole.is_empty() {
            let buckets = share(self.flows.whole.buckets());
            self.flows.whole.sweep(buckets, |entry| {
                keeper.keep(&entry.program, entry.program.session, entry.used) && {
                    keeper.learned(entry.key.scope(), entry.key.ether_source(), entry.used);
                    true
                }
            });
        }
        if !self.flows.compact.is_empty() {
            let lines = share(self.flows.compact.lines());
            self.flows.sweep_compact(lines, |entry, shared| {
                let kept = keeper.keep(&shared.program, entry.session, entry.used);
                if let (true, Some(source)) = (kept, entry.key.ether_source()) {
                    keeper.learned(entry.key.scope(), source, entry.used);
                }
                kept
            });
        }
        self.flows.sweep_routes(|shared| keeper.keep(&shared.program, shared.program.session, shared.used));
    }

    /// Flows with their slots, for display.
    pub fn flows(&self) -> &Flows {
        &self.flows
    }
}

/// Says which flows a sweep keeps, and keeps alive what they refer to.
struct Keeper<'a> {
    snapshot: &'a Snapshot,
    now: Nanos,
    now_ms: u32,
}

impl Keeper<'_> {
    fn keep(&self, program: &Program, session: SessionId, used: u32) -> bool {
        let idle = self.now_ms.wrapping_sub(used);
        // Drops are decided about anew once a sweep, for what a session that is opened does not tell.
        if idle > FLOW_IDLE_MS || program.ops.contains(Ops::DROP) {
            return false;
        }
        if idle > 2 * SWEEP_MS {
            return true;
        }
        let tables = &self.snapshot.tables;
        let seconds = (self.now / 1_000_000_000) as u32;
        if program.ops.contains(Ops::SESSION) && !tables.sessions.touch(session, self.now) {
            // The session closed or is gone: the flow's next packet walks.
            return false;
        }
        for adjacency in [program.adjacency, program.inner] {
            tables.adjacencies.touch(adjacency, seconds);
        }
        for meter in program.meters.iter().take(usize::from(program.meter_count)) {
            tables.meters.touch(MeterId(u32::from(*meter)), seconds);
        }
        true
    }

    /// Keeps the bridge entry of a flow's source.
    fn learned(&self, scope: ScopeId, source: MacAddress, used: u32) {
        if self.now_ms.wrapping_sub(used) > 2 * SWEEP_MS {
            return;
        }
        if let Some(Domain::Bridge(bridge)) = self.snapshot.pipeline.scope(scope).map(|scope| scope.domain) {
            self.snapshot.tables.macs.touch(bridge, source, scope, self.now);
        }
    }
}
