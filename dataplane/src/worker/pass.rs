//! Passing: what was admitted is looked up, and done to it what its program says; or it walks.

use std::marker::PhantomData;
use std::vec::Drain;

use crate::chain::{Lane, Walk, Walker};
use crate::decision::{DropReason, MeterCache, Nanos, PortId, ScopeId};
use crate::flow::{
    CompactKey, CompactTable, Ops, Outcome, Place, ProgramId, ProgramTable, Quick, Ready, Replay, Slot, Stamp,
};
use crate::frame::Frame;
use crate::l3::Fib;
use crate::packet::{self, Meta, plain, tcp_flags};
use crate::snapshot::Snapshot;

use super::admit::{Admitted, Ingress};
use super::core::Core;
use super::held::Origin;
use super::lane::{Kind, Routes, Tag, View, Work};

/// TCP flags that a watched flow's packets walk for.
const WATCHED: u8 = tcp_flags::SYN | tcp_flags::FIN | tcp_flags::RST;

/// What packets are passed under: one for a burst.
#[derive(Clone, Copy)]
pub(super) struct Under<'a> {
    pub(super) snapshot: &'a Snapshot,
    pub(super) replay: Replay<'a>,
    pub(super) generation: u32,
    pub(super) epoch: u32,
}

impl<'a> Under<'a> {
    pub(super) fn new(snapshot: &'a Snapshot) -> Self {
        let (generation, epoch) = (snapshot.generation as u32, snapshot.tables.epoch());
        Self { snapshot, replay: snapshot.replay(), generation, epoch }
    }
}

/// How far frames were passed where they stand: `done` of them, all to `port`. The next is to be dropped, or has to be moved.
pub(super) struct InPlace {
    pub(super) done: usize,
    pub(super) port: PortId,
    pub(super) dropped: Option<DropReason>,
}

/// No port yet.
const NOWHERE: PortId = PortId(u16::MAX);

/// What became of a packet in a tight loop.
enum Next {
    Sent,
    Dropped(DropReason),
    Stop,
}

impl Core {
    /// Passes frames where they stand, as long as they are plain, nothing is unusual, and all go to one port. Most bursts are
    /// like that, and then no frame's token is moved.
    pub(super) fn pass_in_place<'a>(
        &mut self,
        under: &Under<'a>,
        ingress: &mut Ingress<'a>,
        frames: &mut [Frame],
        work: &mut [Work],
    ) -> InPlace {
        let mut result = InPlace { done: 0, port: NOWHERE, dropped: None };
        let Some(view) = &ingress.view else { return result };
        if view.lane == Lane::Wire {
            // A wire does not look at what is on it, but for its length. Tags are in front of what counts: who has some is looked at.
            let (port, longest) = view.wire;
            result.port = port;
            result.done = frames.iter().take_while(|frame| (14..=longest).contains(&frame.len())).count();
            self.counters.flow_hits.add(result.done as u64);
            return result;
        }
        let stride = work.len();
        frames.iter().take(2 * stride).for_each(Frame::prefetch);
        let mut rest = frames;
        while !rest.is_empty() {
            let (chunk, behind) = rest.split_at_mut(stride.min(rest.len()));
            behind.iter().skip(stride).take(stride).for_each(Frame::prefetch);
            rest = behind;
            let Some(work) = work.get_mut(..chunk.len()) else { break };
            let flows = &self.flows.compact;
            if view.scan(chunk, flows, work) > 0
                && !view.scan_inside(under.snapshot, &mut ingress.inner, chunk, flows, work)
            {
                break;
            }
            if flows.is_scattered() {
                let flow = work.iter().filter(|work| work.tag.is(Kind::Flow));
                flow.for_each(|work| flows.prefetch_others(work.hash, &work.flow_key()));
            }
            let inner = ingress.inner.as_ref();
            let Some(first) = work.first() else { break };
            let view = if first.strip == 0 { Some(view) } else { inner };
            let Some(view) = view.filter(|view| view.scope == first.tag.scope()) else { break };
            let (passed, dropped) = match first.tag.kind() {
                Kind::RouteV4 => self.routes_in_place(under, view, chunk, work, &mut result.port),
                Kind::RouteV6 => self.routes_v6_in_place(under, view, chunk, work, &mut result.port),
                Kind::Flow => self.flows_in_place::<false>(under, chunk, work, &mut result.port),
                Kind::Bridged => self.flows_in_place::<true>(under, chunk, work, &mut result.port),
                _ => break,
            };
            result.done += passed;
            result.dropped = dropped;
            if passed < chunk.len() {
                break;
            }
        }
        self.counters.flow_hits.add(result.done as u64 + u64::from(result.dropped.is_some()));
        result
    }

    #[inline(never)]
    fn routes_in_place(
        &mut self,
        under: &Under<'_>,
        view: &View<'_>,
        frames: &mut [Frame],
        work: &[Work],
        port: &mut PortId,
    ) -> (usize, Option<DropReason>) {
        self.targets_in_place::<V4>(under, view, frames, work, port)
    }

    #[inline(never)]
    fn routes_v6_in_place(
        &mut self,
        under: &Under<'_>,
        view: &View<'_>,
        frames: &mut [Frame],
        work: &[Work],
        port: &mut PortId,
    ) -> (usize, Option<DropReason>) {
        self.targets_in_place::<V6>(under, view, frames, work, port)
    }

    /// Passes frames by their routes. Those in a row that have the same cost the look-up of their program once.
    #[inline(always)]
    fn targets_in_place<F: Family>(
        &mut self,
        under: &Under<'_>,
        view: &View<'_>,
        frames: &mut [Frame],
        work: &[Work],
        port: &mut PortId,
    ) -> (usize, Option<DropReason>) {
        let Self { flows, now_ms, .. } = self;
        let Some(Routes { vrf, fib, .. }) = view.routes else { return (0, None) };
        let (mut from, mut dropped) = (0, None);
        while let (Some(frames), Some(work)) = (frames.get_mut(from..), work.get(from..)) {
            let Some(first) = work.first() else { break };
            let target = F::target(fib, first);
            let (routes, programs) = flows.routes_of(vrf);
            let Some(id) = routes.get(target as usize).copied() else { break };
            let shared = programs.get(id);
            let shared = shared.filter(|shared| shared.is_current(under.generation, under.epoch));
            let Some(ready) = shared.and_then(|shared| under.replay.ready(shared)) else { break };
            if *port != ready.shared.port && *port != NOWHERE {
                break;
            }
            *port = ready.shared.port;
            let mut run = ByRoute::<F> { under, fib, target, ready: &ready, bytes: 0, family: PhantomData };
            let (done, stop) = run_in_place(frames, work, &mut run);
            let bytes = run.bytes;
            if let Some(shared) = programs.get_mut(id) {
                shared.count(done as u64, bytes as u64, *now_ms);
            }
            from += done;
            if done == 0 || stop.is_some() {
                dropped = stop;
                break;
            }
        }
        (from, dropped)
    }

    #[inline(never)]
    fn flows_in_place<const BRIDGED: bool>(
        &mut self,
        under: &Under<'_>,
        frames: &mut [Frame],
        work: &[Work],
        port: &mut PortId,
    ) -> (usize, Option<DropReason>) {
        let Self { flows, meters, now, now_ms, .. } = self;
        let (compact, programs) = (&mut flows.compact, &flows.programs);
        let (now, now_ms, last) = (*now, *now_ms, None);
        let mut run = ByFlow::<BRIDGED> { under, compact, programs, meters, now, now_ms, last, port: *port };
        let result = run_in_place(frames, work, &mut run);
        *port = run.port;
        result
    }

    /// Passes as many frames of a burst as there is work, in the order in which they came.
    #[inline(never)]
    pub(super) fn pass_all(
        &mut self,
        under: &Under<'_>,
        burst: &mut Drain<'_, Frame>,
        work: &[Work],
        admitted: &[Admitted],
    ) {
        let mut parsed = admitted.iter();
        let mut hits = 0;
        for work in work {
            // What was held goes before what comes later: an answer may stand in this very burst.
            if !self.held.is_empty() {
                self.release_due(under.snapshot);
            }
            let Some(frame) = burst.next() else { break };
            if work.tag.is(Kind::Dropped) {
                self.drop_frame(frame, work.reason);
                continue;
            }
            let Ok(frame) = unwrap_outer(frame, work).map_err(|frame| {
                self.drop_frame(frame, DropReason::VxlanMalformed);
            }) else {
                continue;
            };
            hits += u64::from(match work.tag.kind() {
                Kind::RouteV4 | Kind::RouteV6 => self.pass_route(under, frame, work),
                Kind::Flow => {
                    let (key, hash) = (work.flow_key(), work.hash);
                    self.pass_flow(under, frame, work, key, hash)
                }
                Kind::Bridged => {
                    let (key, hash) = (work.bridged_key(frame.bytes()), work.hash);
                    self.pass_flow(under, frame, work, key, hash)
                }
                Kind::Parsed | Kind::Tunnelled | Kind::Dropped => match parsed.next() {
                    Some(admitted) => self.pass(under, frame, admitted),
                    None => {
                        self.drop_frame(frame, DropReason::InternalError);
                        false
                    }
                },
            });
        }
        self.counters.flow_hits.add(hits);
    }

    /// Passes a plain packet by its route. Says whether there was a program that was still right.
    #[inline]
    fn pass_route(&mut self, under: &Under<'_>, mut frame: Frame, work: &Work) -> bool {
        let view = View::by_id(under.snapshot, work.tag.scope());
        let Some(view) = view.and_then(|view| view.routes) else {
            self.drop_frame(frame, DropReason::NotConfigured);
            return false;
        };
        let v4 = work.tag.is(Kind::RouteV4);
        let target = match v4 {
            true => view.fib.lookup_v4(plain::destination_v4(work.known.addresses)),
            false => view.fib.lookup_v6(work.destination_v6()),
        };
        if !view.is_direct(target) {
            let key = work.destination_key();
            let hash = self.flows.compact.hash(&key);
            return if v4 {
                self.pass_flow(under, frame, work, key, hash)
            } else {
                self.reconsider(under, frame, work, None)
            };
        }
        if let Some(shared) = self.flows.route(view.vrf, target) {
            // Whether TCP is at a turning point was looked at only over IPv4.
            let turning = work.tag.turning() | !v4;
            if shared.is_current(under.generation, under.epoch) && !(turning & shared.turns) {
                let (bytes, port) = (frame.len(), shared.port);
                let quick = match (under.replay.ready(shared), v4) {
                    (Some(ready), true) => under.replay.quick_route(&mut frame, &work.known, &ready),
                    (Some(ready), false) => under.replay.quick_v6(&mut frame, work.known.total, &ready),
                    (None, _) => Quick::Otherwise,
                };
                match quick {
                    Quick::Send => {
                        shared.count(1, bytes as u64, self.now_ms);
                        self.stage.push(port, frame);
                        return true;
                    }
                    Quick::Drop(reason) => {
                        self.drop_frame(frame, reason);
                        return true;
                    }
                    Quick::Otherwise => {}
                }
            }
        }
        self.reconsider(under, frame, work, Some(Place::Route(view.vrf, target)))
    }

    /// Passes a plain packet by its compact flow. Says whether there was a program that was still right.
    #[inline]
    fn pass_flow(
        &mut self,
        under: &Under<'_>,
        mut frame: Frame,
        work: &Work,
        key: CompactKey,
        hash: u64,
    ) -> bool {
        let Self { flows, stage, meters, now, now_ms, .. } = self;
        let line = flows.compact.find(hash, &key);
        if let Some(entry) = flows.compact.entry_mut(line) {
            if let Some(shared) = flows.programs.get(entry.program) {
                let current = (shared.generation ^ under.generation) | (entry.epoch ^ under.epoch) == 0;
                if current && !(work.tag.turning() & shared.turns) {
                    let bytes = frame.len();
                    let quick = match under.replay.ready(shared) {
                        Some(ready) => {
                            under.replay.quick_flow(&mut frame, &work.known, &ready, entry, meters, *now)
                        }
                        None => Quick::Otherwise,
                    };
                    match quick {
                        Quick::Send => {
                            entry.count(bytes, *now_ms);
                            stage.push(shared.port, frame);
                            return true;
                        }
                        Quick::Drop(reason) => {
                            entry.count(bytes, *now_ms);
                            self.drop_frame(frame, reason);
                            return true;
                        }
                        Quick::Otherwise => {}
                    }
                }
            }
        }
        self.reconsider(under, frame, work, Some(Place::Compact(key, hash)))
    }

    /// A plain packet that is not passed in one piece: the parser looks at it after all. Its outer headers are off. Says
    /// whether there was a program that was still right.
    #[inline(never)]
    fn reconsider(&mut self, under: &Under<'_>, frame: Frame, work: &Work, place: Option<Place>) -> bool {
        let mut meta = match packet::parse(frame.bytes()) {
            Ok(meta) => meta,
            Err(malformed) => {
                self.drop_frame(frame, malformed.into());
                return false;
            }
        };
        if work.strip != 0 {
            meta.endpoint = work.endpoint.0;
        }
        let id = work.tag.scope();
        let place = match (place, under.snapshot.pipeline.scope(id)) {
            (Some(place), _) => place,
            (None, Some(scope)) => self.place(scope, frame.bytes(), &meta),
            (None, None) => Place::Nowhere,
        };
        self.pass_slowly(under, frame, meta, id, &place)
    }

    /// Passes one parsed packet: by its flow's program, or by a walk. Says whether it was the former, which the caller
    /// counts.
    fn pass(&mut self, under: &Under<'_>, frame: Frame, admitted: &Admitted) -> bool {
        let Admitted { meta, guess, scope, place, .. } = admitted;
        let slot = match place {
            Place::Whole(key, hash) => self.flows.whole.find_guessed(*guess, key, *hash),
            _ => Slot::NONE,
        };
        let watched = meta.tcp_flags & WATCHED != 0;
        let replay = &under.replay;
        if let Some((entry, rewrites)) = self.flows.whole.entry_and_rewrites(slot) {
            let current = entry.generation == under.generation && entry.epoch == under.epoch;
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
                        self.unusual(under.snapshot, frame, *meta, origin, other, &program, &rewrite);
                    }
                }
                return true;
            }
        }
        self.pass_slowly(under, frame, *meta, *scope, place)
    }

    /// A packet whose flow has no program, or none that is still right, or one that is not replayed in one piece. Says
    /// whether its flow had a program that was still right.
    #[cold]
    fn pass_slowly(
        &mut self,
        under: &Under<'_>,
        mut frame: Frame,
        meta: Meta,
        scope_id: ScopeId,
        place: &Place,
    ) -> bool {
        let Under { snapshot, replay, generation, epoch } = under;
        let Some(scope) = snapshot.pipeline.scope(scope_id) else {
            self.drop_frame(frame, DropReason::NotConfigured);
            return false;
        };
        let asks = std::mem::take(&mut self.asks);
        let walker = Walker { pipeline: &snapshot.pipeline, tables: &snapshot.tables, asks: &asks };
        let stamp = Stamp { generation: *generation, epoch: *epoch, now_ms: self.now_ms };
        let watched = meta.tcp_flags & WATCHED != 0;
        let cached = self.flows.get(place);
        let right = cached.filter(|cached| {
            cached.generation == *generation && !(watched && cached.program.ops.contains(Ops::WATCH_TCP))
        });
        let mut known = None;
        if let Some(mut right) = right {
            let (program, rewrite) = (&mut right.program, &right.rewrite);
            if right.epoch == *epoch {
                self.flows.count(place, frame.len(), self.now_ms);
                known = Some((right.program, right.rewrite));
            } else if walker.forward_again(scope, frame.bytes(), &meta, program, rewrite, self.now) {
                // Only the forwarding tables moved: only the forwarding was asked again.
                self.flows.put(place, program, rewrite, stamp, frame.len(), replay);
                known = Some((right.program, right.rewrite));
            }
        }
        let hit = known.is_some();
        let (program, rewrite) = match known {
            Some(programmed) => programmed,
            None => {
                self.counters.flow_misses.add(1);
                match walker.walk(scope, frame.bytes(), &meta, self.now, &mut self.path) {
                    Walk::Program { program, rewrite, cache } => {
                        if cache {
                            self.flows.put(place, &program, &rewrite, stamp, frame.len(), replay);
                        } else if cached.is_some() {
                            self.flows.remove(place);
                        }
                        (program, rewrite)
                    }
                    Walk::Local => {
                        self.asks = asks;
                        self.local(snapshot, scope, frame, &meta);
                        self.answer_asks(snapshot);
                        return false;
                    }
                    Walk::Flood(program, rewrite) => {
                        self.asks = asks;
                        self.flood(snapshot, scope, frame, &meta, program, rewrite);
                        self.answer_asks(snapshot);
                        return false;
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
        hit
    }

    /// Takes a held packet up again where it was left.
    pub(super) fn resume(&mut self, snapshot: &Snapshot, frame: Frame, meta: Meta, scope: ScopeId) {
        let Some(known) = snapshot.pipeline.scope(scope) else {
            return self.drop_frame(frame, DropReason::NotConfigured);
        };
        let place = self.place(known, frame.bytes(), &meta);
        if self.pass_slowly(&Under::new(snapshot), frame, meta, scope, &place) {
            self.counters.flow_hits.add(1);
        }
    }
}

/// What a tight loop does to one frame. Traits, so that it is put into the loop whatever the compiler thinks of its size.
trait Step {
    fn step(&mut self, frame: &mut Frame, work: &Work) -> Next;
}

/// IPv4 or IPv6.
trait Family {
    fn target(fib: &Fib, work: &Work) -> u32;
    fn quick(replay: &Replay<'_>, frame: &mut Frame, work: &Work, ready: &Ready<'_>) -> Quick;
}

struct V4;

impl Family for V4 {
    #[inline(always)]
    fn target(fib: &Fib, work: &Work) -> u32 {
        fib.lookup_v4(plain::destination_v4(work.known.addresses))
    }

    #[inline(always)]
    fn quick(replay: &Replay<'_>, frame: &mut Frame, work: &Work, ready: &Ready<'_>) -> Quick {
        replay.quick_route(frame, &work.known, ready)
    }
}

struct V6;

impl Family for V6 {
    #[inline(always)]
    fn target(fib: &Fib, work: &Work) -> u32 {
        fib.lookup_v6(work.destination_v6())
    }

    #[inline(always)]
    fn quick(replay: &Replay<'_>, frame: &mut Frame, work: &Work, ready: &Ready<'_>) -> Quick {
        // Whether TCP is at a turning point was not looked at.
        if ready.shared.turns { Quick::Otherwise } else { replay.quick_v6(frame, work.known.total, ready) }
    }
}

/// Frames in a row that take the same route.
struct ByRoute<'a, F> {
    under: &'a Under<'a>,
    fib: &'a Fib,
    target: u32,
    ready: &'a Ready<'a>,
    bytes: usize,
    family: PhantomData<F>,
}

impl<F: Family> Step for ByRoute<'_, F> {
    #[inline(always)]
    fn step(&mut self, frame: &mut Frame, work: &Work) -> Next {
        if F::target(self.fib, work) != self.target {
            return Next::Stop;
        }
        let bytes = frame.len();
        match F::quick(&self.under.replay, frame, work, self.ready) {
            Quick::Send => {
                self.bytes += bytes;
                Next::Sent
            }
            Quick::Drop(reason) => Next::Dropped(reason),
            Quick::Otherwise => Next::Stop,
        }
    }
}

/// Frames with compact flows.
struct ByFlow<'a, const BRIDGED: bool> {
    under: &'a Under<'a>,
    compact: &'a mut CompactTable,
    programs: &'a ProgramTable,
    meters: &'a mut MeterCache,
    now: Nanos,
    now_ms: u32,
    /// The program of the last frame.
    last: Option<(ProgramId, Ready<'a>)>,
    port: PortId,
}

impl<const BRIDGED: bool> Step for ByFlow<'_, BRIDGED> {
    #[inline(always)]
    fn step(&mut self, frame: &mut Frame, work: &Work) -> Next {
        let key = if BRIDGED { work.bridged_key(frame.bytes()) } else { work.flow_key() };
        let line = self.compact.find(work.hash, &key);
        let Some(entry) = self.compact.entry_mut(line) else { return Next::Stop };
        if self.last.is_none_or(|(id, _)| id != entry.program) {
            let shared = self.programs.get(entry.program);
            let shared = shared.filter(|shared| shared.generation == self.under.generation);
            let ready = shared.and_then(|shared| self.under.replay.ready(shared));
            let Some(ready) = ready.filter(|ready| self.port == ready.shared.port || self.port == NOWHERE)
            else {
                return Next::Stop;
            };
            self.port = ready.shared.port;
            self.last = Some((entry.program, ready));
        }
        let Some((_, ready)) = &self.last else { return Next::Stop };
        if entry.epoch != self.under.epoch {
            return Next::Stop;
        }
        let bytes = frame.len();
        match self.under.replay.quick_flow(frame, &work.known, ready, entry, self.meters, self.now) {
            Quick::Send => {
                entry.count(bytes, self.now_ms);
                Next::Sent
            }
            Quick::Drop(reason) => {
                entry.count(bytes, self.now_ms);
                Next::Dropped(reason)
            }
            Quick::Otherwise => Next::Stop,
        }
    }
}

/// Passes the frames of a run, those whose work has the same tag as the first's. Says how many were, and why the next is
/// dropped, if it is. A frame that is not passed is as it was.
#[inline(always)]
fn run_in_place(frames: &mut [Frame], work: &[Work], step: &mut impl Step) -> (usize, Option<DropReason>) {
    let Some(first) = work.first() else { return (0, None) };
    // Turning points of connections need more.
    let tag = Tag::new(first.tag.scope(), first.tag.kind(), false);
    let (mut done, mut dropped) = (0, None);
    for (frame, work) in frames.iter_mut().zip(work) {
        if work.tag != tag {
            break;
        }
        let outer = (usize::from(work.strip), frame.len());
        if outer.0 != 0 && !(frame.strip(outer.0) && frame.truncate(usize::from(work.len))) {
            break;
        }
        match step.step(frame, work) {
            Next::Sent => {}
            Next::Dropped(reason) => {
                dropped = Some(reason);
                break;
            }
            Next::Stop => {
                if outer.0 != 0 {
                    let _ = frame.grow_front(outer.0) && frame.set_len(outer.1);
                }
                break;
            }
        }
        done += 1;
    }
    (done, dropped)
}

/// Takes the outer headers off, if admission found that they go.
#[inline(always)]
fn unwrap_outer(mut frame: Frame, work: &Work) -> Result<Frame, Frame> {
    let (strip, len) = (usize::from(work.strip), usize::from(work.len));
    if strip == 0 || frame.strip(strip) && frame.truncate(len) { Ok(frame) } else { Err(frame) }
}
