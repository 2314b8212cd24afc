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
use std::vec::Drain;

use crate::chain::{Walk, Walker};
use crate::decision::{
    Domain, DropReason, MeterCache, MeterId, MeterTable, Nanos, PathBuilder, PortId, ScopeId,
};
use crate::flow::table::milliseconds;
use crate::flow::{FlowKey, FlowTable, Ops, Outcome, Program, Replay, Rewrite, Slot};
use crate::frame::{Frame, FrameCache};
use crate::l3::NeighbourAction;
use crate::l3::icmp::RateLimiter;
use crate::packet::{Meta, tcp_flags};
use crate::snapshot::Snapshot;

use super::admit::{Admitted, Ingress};
use super::counters::CounterBlock;
use super::held::{HeldQueue, Origin};
use super::stage::Stage;

/// Frames between the one being parsed and the one being prefetched.
const PREFETCH_AHEAD: usize = 4;
/// Frames that are admitted before they are passed. Enough for what was prefetched to arrive; few enough that their
/// headers, often 2048 bytes apart and so in few sets of the first-level cache, are still there.
const STRIDE: usize = 16;
/// How long a flow without packets is kept.
const FLOW_IDLE_MS: u32 = 10_000;
/// Time in which the whole flow table is swept once.
const SWEEP_MS: u32 = 1_000;
/// TCP flags that a watched flow's packets walk for.
const WATCHED: u8 = tcp_flags::SYN | tcp_flags::FIN | tcp_flags::RST;

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
    pub(super) flows: FlowTable,
    /// Free frames.
    pub cache: FrameCache,
    /// Counters, also read by the control thread.
    pub counters: Arc<CounterBlock>,
    meters: MeterCache,
    path: PathBuilder,
    pub(super) held: HeldQueue,
    pub(super) stage: Stage,
    pub(super) asks: RefCell<Vec<NeighbourAction>>,
    pub(super) icmp: Arc<RateLimiter>,
    pub(super) scratch: Vec<u8>,
    /// Places for admitted packets.
    work: Box<[Admitted]>,
    pub(super) now: Nanos,
    now_ms: u32,
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
            flows: FlowTable::new(parts.flows, parts.seed),
            cache: parts.cache,
            counters: Arc::default(),
            meters,
            path: PathBuilder::default(),
            held: HeldQueue::new(parts.held),
            stage: Stage::default(),
            asks: RefCell::new(Vec::with_capacity(64)),
            icmp: parts.icmp,
            scratch: Vec::with_capacity(2048),
            work: (0..STRIDE).map(|_| Admitted::none()).collect(),
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
        let mut work = std::mem::take(&mut self.work);
        let mut ingress = Ingress::new(snapshot, port);
        let mut burst = frames.drain(..);
        while !burst.as_slice().is_empty() {
            let admitted = self.admit_some(snapshot, &mut ingress, &mut burst, &mut work);
            self.pass_all(snapshot, work.get_mut(..admitted).unwrap_or_default());
        }
        self.work = work;
    }

    /// Admits frames of a burst, as many as there are places in `work`, and says how many were. Places are written, and
    /// later read, where they are.
    // A function of its own, as the next one, so that each has the registers to itself.
    #[inline(never)]
    fn admit_some(
        &mut self,
        snapshot: &Snapshot,
        ingress: &mut Ingress<'_>,
        burst: &mut Drain<'_, Frame>,
        work: &mut [Admitted],
    ) -> usize {
        let mut count = 0;
        while let Some(place) = work.get_mut(count) {
            if let Some(later) = burst.as_slice().get(PREFETCH_AHEAD) {
                later.prefetch();
            }
            let Some(mut frame) = burst.next() else { break };
            match self.admit(snapshot, ingress, &mut frame, place) {
                Ok(()) => {
                    self.flows.prefetch_bucket(place.hash);
                    place.frame = Some(frame);
                    count += 1;
                }
                Err(reason) => self.drop_frame(frame, reason),
            }
        }
        count
    }

    /// Passes admitted frames.
    #[inline(never)]
    fn pass_all(&mut self, snapshot: &Snapshot, work: &mut [Admitted]) {
        for admitted in work.iter_mut() {
            admitted.guess = self.flows.guess(admitted.hash);
        }
        let (replay, epoch) = (snapshot.replay(), snapshot.tables.epoch());
        let mut hits = 0;
        for admitted in work {
            let Some(frame) = admitted.frame.take() else { continue };
            // What was held goes before what comes later: an answer may stand in this very burst.
            if !self.held.is_empty() {
                self.release_due(snapshot);
            }
            hits += u64::from(self.pass(snapshot, &replay, epoch, frame, admitted));
        }
        self.counters.flow_hits.add(hits);
    }

    /// Passes one admitted packet: by its flow's program, or by a walk. Says whether it was the former, which the caller
    /// counts.
    #[inline(always)]
    fn pass(
        &mut self,
        snapshot: &Snapshot,
        replay: &Replay<'_>,
        epoch: u32,
        frame: Frame,
        admitted: &Admitted,
    ) -> bool {
        let Admitted { meta, key, hash, guess, scope, slow, .. } = admitted;
        let slot = if *slow { Slot::NONE } else { self.flows.find_guessed(*guess, key, *hash) };
        let watched = meta.tcp_flags & WATCHED != 0;
        if let Some((entry, rewrites)) = self.flows.entry_and_rewrites(slot) {
            let current = entry.generation == snapshot.generation as u32 && entry.epoch == epoch;
            if current && !(watched && entry.program.ops.contains(Ops::WATCH_TCP)) {
                entry.count(frame.len(), self.now_ms);
                let rewrite = || rewrites.of(slot);
                let frame = match replay.forward(frame, meta, &entry.program) {
                    Ok((port, frame)) => {
                        self.stage.push(port, frame);
                        return true;
                    }
                    Err(frame) => frame,
                };
                let (outcome, frame) =
                    match replay.tunnel(frame, meta, &entry.program, &mut self.meters, self.now) {
                        Ok((Outcome::Send(port), frame)) => {
                            self.stage.push(port, frame);
                            return true;
                        }
                        Ok(done) => done,
                        Err(mut frame) => {
                            let (program, meters) = (&entry.program, &mut self.meters);
                            (replay.run(&mut frame, meta, program, rewrite, meters, self.now), frame)
                        }
                    };
                match outcome {
                    Outcome::Send(port) => self.stage.push(port, frame),
                    other => {
                        let (program, rewrite) = (entry.program, rewrite());
                        let origin = Origin::Received(*scope);
                        self.unusual(snapshot, frame, *meta, origin, other, &program, &rewrite);
                    }
                }
                return true;
            }
        }
        self.pass_slowly(snapshot, replay, epoch, frame, admitted);
        false
    }

    /// A packet whose flow has no program, or none that is still right.
    #[cold]
    fn pass_slowly(
        &mut self,
        snapshot: &Snapshot,
        replay: &Replay<'_>,
        epoch: u32,
        mut frame: Frame,
        admitted: &Admitted,
    ) {
        let Admitted { meta, key, hash, scope: scope_id, slow, .. } = admitted;
        let (meta, key, hash, scope_id, slow) = (*meta, *key, *hash, *scope_id, *slow);
        let Some(scope) = snapshot.pipeline.scope(scope_id) else {
            return self.drop_frame(frame, DropReason::NotConfigured);
        };
        let asks = std::mem::take(&mut self.asks);
        let walker = Walker { pipeline: &snapshot.pipeline, tables: &snapshot.tables, asks: &asks };
        let generation = snapshot.generation as u32;
        let slot = if slow { Slot::NONE } else { self.flows.find(&key, hash) };
        let watched = meta.tcp_flags & WATCHED != 0;
        // Only the forwarding tables moved: only the forwarding is asked again.
        let mut again = None;
        if let Some((entry, rewrites)) = self.flows.entry_and_rewrites(slot) {
            if entry.generation == generation && !(watched && entry.program.ops.contains(Ops::WATCH_TCP)) {
                let rewrite = rewrites.of(slot);
                if walker.forward_again(scope, frame.bytes(), &meta, &mut entry.program, &rewrite, self.now) {
                    entry.epoch = epoch;
                    entry.count(frame.len(), self.now_ms);
                    self.counters.flow_hits.add(1);
                    again = Some((entry.program, rewrite));
                }
            }
        }
        let (program, rewrite) = match again {
            Some(programmed) => programmed,
            None => {
                self.counters.flow_misses.add(1);
                match walker.walk(scope, frame.bytes(), &meta, self.now, &mut self.path) {
                    Walk::Program { program, rewrite, cache } => {
                        if cache && !slow {
                            let slot = self.flows.insert(
                                &key,
                                hash,
                                program,
                                rewrite,
                                generation,
                                epoch,
                                self.now_ms,
                            );
                            if let Some(entry) = self.flows.entry_mut(slot) {
                                entry.count(frame.len(), self.now_ms);
                            }
                        } else if slot != Slot::NONE {
                            self.flows.remove(&key, hash);
                        }
                        (program, rewrite)
                    }
                    Walk::Local => {
                        self.asks = asks;
                        self.local(snapshot, scope, frame, &meta);
                        return self.answer_asks(snapshot);
                    }
                    Walk::Flood(program, rewrite) => {
                        self.asks = asks;
                        self.flood(snapshot, scope, frame, &meta, program, rewrite);
                        return self.answer_asks(snapshot);
                    }
                }
            }
        };
        self.asks = asks;
        match replay.run(&mut frame, &meta, &program, || rewrite, &mut self.meters, self.now) {
            Outcome::Send(port) => self.stage.push(port, frame),
            other => {
                self.unusual(snapshot, frame, meta, Origin::Received(scope_id), other, &program, &rewrite);
            }
        }
        self.answer_asks(snapshot);
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

    /// Takes a held packet up again where it was left.
    pub(super) fn resume(&mut self, snapshot: &Snapshot, frame: Frame, meta: Meta, scope: ScopeId) {
        let Some(known) = snapshot.pipeline.scope(scope) else {
            return self.drop_frame(frame, DropReason::NotConfigured);
        };
        let key = FlowKey::new(scope, frame.bytes(), &meta, &known.mask);
        let hash = self.flows.hash(&key);
        let (replay, epoch) = (snapshot.replay(), snapshot.tables.epoch());
        let admitted = Admitted { frame: None, meta, key, hash, guess: Slot::NONE, scope, slow: false };
        if self.pass(snapshot, &replay, epoch, frame, &admitted) {
            self.counters.flow_hits.add(1);
        }
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
    fn release_due(&mut self, snapshot: &Snapshot) {
        if self.held.due(snapshot.tables.neighbours.epoch(), self.now) {
            self.release(snapshot);
        }
    }

    /// Sweeps so many buckets that the table is done once in [`SWEEP_MS`]: idle flows go, and what used flows refer to is
    /// kept alive.
    fn sweep(&mut self, snapshot: &Snapshot, elapsed: u32) {
        if self.flows.is_empty() {
            return;
        }
        let buckets = (self.flows.buckets() as u64 * u64::from(elapsed.min(SWEEP_MS)) / u64::from(SWEEP_MS))
            as usize
            + 1;
        let (tables, now, now_ms) = (&snapshot.tables, self.now, self.now_ms);
        let seconds = (now / 1_000_000_000) as u32;
        self.flows.sweep(buckets, |entry| {
            let idle = now_ms.wrapping_sub(entry.used);
            // Drops are decided about anew once a sweep: a session may vouch for the flow by now.
            if idle > FLOW_IDLE_MS || entry.program.ops.contains(Ops::DROP) {
                return false;
            }
            if idle > 2 * SWEEP_MS {
                return true;
            }
            let program = &entry.program;
            if program.ops.contains(Ops::SESSION) && !tables.sessions.touch(program.session, now) {
                // The session closed or is gone: the flow's next packet walks.
                return false;
            }
            for adjacency in [program.adjacency, program.inner] {
                tables.adjacencies.touch(adjacency, seconds);
            }
            for meter in program.meters.iter().take(usize::from(program.meter_count)) {
                tables.meters.touch(MeterId(u32::from(*meter)), seconds);
            }
            if let Some(Domain::Bridge(bridge)) =
                snapshot.pipeline.scope(entry.key.scope()).map(|scope| scope.domain)
            {
                tables.macs.touch(bridge, entry.key.ether_source(), entry.key.scope(), now);
            }
            true
        });
    }

    /// Flows with their slots, for display.
    pub fn flows(&self) -> &FlowTable {
        &self.flows
    }
}
