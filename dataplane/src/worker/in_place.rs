//! Passing in place: as long as the frames of a burst are plain, nothing is unusual, and all go to one port, they are edited where
//! they stand, and no token is moved. What all in a row have in common is looked up once.

use std::marker::PhantomData;

use crate::chain::Lane;
use crate::decision::{DropReason, MeterCache, Nanos, PortId};
use crate::flow::{CompactTable, ProgramId, ProgramTable, Quick, Ready, Replay};
use crate::frame::Frame;
use crate::l3::Fib;
use crate::packet::plain;

use super::admit::Ingress;
use super::core::Core;
use super::lane::{Kind, Routes, View, Work};
use super::pass::Under;

/// How far frames were passed where they stand: `done` of them, all to `port`. The next has to be moved, or passed otherwise.
#[derive(Clone, Copy, Debug)]
pub(super) struct InPlace {
    pub(super) done: usize,
    pub(super) port: PortId,
}

/// No port yet.
pub(super) const NOWHERE: PortId = PortId(u16::MAX);

/// What became of a packet in a tight loop.
enum Next {
    Sent,
    Dropped(DropReason),
    Stop,
}

impl Core {
    /// Passes frames where they stand, behind those that were passed before, as long as they are plain, nothing is unusual, and
    /// all go to one port. Most bursts are like that, and then no frame's token is moved. What is to be dropped is taken out of
    /// the burst.
    pub(super) fn pass_in_place<'a>(
        &mut self,
        under: &Under<'a>,
        ingress: &mut Ingress<'a>,
        frames: &mut Vec<Frame>,
        places: &mut [Work],
        before: Option<InPlace>,
    ) -> InPlace {
        let mut result = before.unwrap_or(InPlace { done: 0, port: NOWHERE });
        let at_once = result.done;
        let Some(view) = &ingress.view else { return result };
        if view.lane == Lane::Wire {
            result.port = view.wire.0;
            result.done = frames.iter().take_while(|frame| view.takes(frame)).count();
            self.counters.flow_hits.add(result.done as u64);
            return result;
        }
        let stride = places.len();
        // Whoever passed some asked for them.
        if before.is_none() {
            frames.iter().take(2 * stride).for_each(Frame::prefetch);
        }
        let (mut dropped, mut stop) = (false, false);
        while let (false, Some(rest @ [_, ..])) = (stop, frames.get(result.done..)) {
            let (chunk, behind) = rest.split_at(stride.min(rest.len()));
            behind.iter().skip(stride).take(stride).for_each(Frame::prefetch);
            let Some(mut work) = places.get_mut(..chunk.len()) else { break };
            let flows = &self.flows.compact;
            let tunnels = view.vteps.is_some();
            let mut odd = false;
            if view.scan(chunk, flows, work) > 0
                && !(tunnels && view.scan_inside(under.snapshot, &mut ingress.inner, chunk, flows, work))
            {
                odd = true;
                let kept;
                (kept, stop) = self.look_closer(under, view, frames, result.done, work);
                work = work.get_mut(..kept).unwrap_or_default();
                let Some(chunk) = frames.get(result.done..result.done + kept) else { break };
                let flows = &self.flows.compact;
                if tunnels && !view.scan_inside(under.snapshot, &mut ingress.inner, chunk, flows, work) {
                    break;
                }
            }
            let flows = &self.flows.compact;
            if flows.is_scattered() {
                let flow = work.iter().filter(|work| work.tag.is(Kind::Flow));
                flow.for_each(|work| flows.prefetch_others(work.hash, &work.odd_key()));
            }
            let mut work = &*work;
            while let [first, ..] = work {
                let Some(chunk) = frames.get_mut(result.done..result.done + work.len()) else { break };
                let inner = ingress.inner.as_ref();
                let view = if first.strip == 0 { Some(view) } else { inner };
                let Some(view) = view.filter(|view| view.scope == first.tag.scope()) else { break };
                let (passed, refused) = match first.tag.kind() {
                    Kind::RouteV4 => self.routes_in_place(under, view, chunk, work, &mut result.port),
                    Kind::RouteV6 => self.routes_v6_in_place(under, view, chunk, work, &mut result.port),
                    Kind::Flow if odd => {
                        self.flows_in_place::<false, true>(under, chunk, work, &mut result.port)
                    }
                    Kind::Flow => self.flows_in_place::<false, false>(under, chunk, work, &mut result.port),
                    Kind::Bridged => self.flows_in_place::<true, false>(under, chunk, work, &mut result.port),
                    _ => (0, None),
                };
                let rest = chunk.get_mut(passed..).unwrap_or_default();
                let gone = match (refused, rest) {
                    (Some(reason), [frame, ..]) => usize::from(self.empty(frame, reason)),
                    (_, []) => 0,
                    (_, rest) => self.drop_known(under, rest, work.get(passed..).unwrap_or_default()),
                };
                dropped |= gone > 0;
                if passed + gone == 0 {
                    break;
                }
                result.done += passed + gone;
                work = work.get(passed + gone..).unwrap_or_default();
            }
            stop |= !work.is_empty();
        }
        self.counters.flow_hits.add((result.done - at_once) as u64);
        if dropped {
            result.done = self.take_out(frames, at_once, result.done);
        }
        result
    }

    /// Drops a frame, as far as can be while others of its burst are passed: an empty one is left.
    #[cold]
    #[inline(never)]
    fn empty(&mut self, frame: &mut Frame, reason: DropReason) -> bool {
        self.counters.count_drop(reason);
        frame.set_len(0)
    }

    /// Takes those frames out of a burst that were dropped between two places. Those behind them move up. Says where the second
    /// place is then.
    #[inline(never)]
    fn take_out(&mut self, frames: &mut Vec<Frame>, from: usize, to: usize) -> usize {
        let mut kept = from;
        for at in from..to {
            if frames.get(at).is_some_and(|frame| frame.len() > 0) {
                frames.swap(kept, at);
                kept += 1;
            }
        }
        self.cache.free_all(frames.drain(kept..to));
        kept
    }

    /// Drops the first frames of a run, as long as their flows are known to be dropped, and nobody is told. Says how many. Apart from
    /// the loops of what is passed: there it would cost each packet.
    #[inline(never)]
    fn drop_known(&mut self, under: &Under<'_>, frames: &mut [Frame], work: &[Work]) -> usize {
        let Self { flows, counters, now_ms, .. } = self;
        let mut done = 0;
        for (frame, work) in frames.iter_mut().zip(work) {
            let strip = usize::from(work.strip);
            let (key, epoch) = match work.tag.kind() {
                Kind::Flow => (work.odd_key(), under.epoch),
                Kind::Bridged => {
                    let inner = frame.bytes().get(strip..).unwrap_or_default();
                    (work.bridged_key(inner), under.bridged)
                }
                _ => break,
            };
            let Some(entry) = flows.compact.find_mut(work.hash, &key) else { break };
            let shared = flows.programs.get(entry.program);
            let shared = shared.filter(|shared| shared.generation == under.generation);
            let Some((shared, reason)) = shared.and_then(|shared| Some((shared, shared.drops()?))) else {
                break;
            };
            if entry.epoch != under.of_drop(epoch, key.end()) || work.tag.turning() && shared.turns {
                break;
            }
            let len = if strip == 0 { frame.len() } else { usize::from(work.len) };
            entry.count(len, *now_ms);
            counters.count_drop(reason);
            if !frame.set_len(0) {
                break;
            }
            done += 1;
        }
        done
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
            // What is dropped goes to no port.
            if ready.shared.drops().is_none() {
                if *port != ready.shared.port && *port != NOWHERE {
                    break;
                }
                *port = ready.shared.port;
            }
            let mut run = ByRoute::<F> { under, fib, target, ready: &ready, bytes: 0, family: PhantomData };
            let (done, stop) = run_in_place::<false>(frames, work, &mut run);
            let (bytes, all) = (run.bytes, done + usize::from(stop.is_some()));
            if let Some(shared) = programs.get_mut(id) {
                shared.count(all as u64, bytes as u64, *now_ms);
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
    fn flows_in_place<const BRIDGED: bool, const ODD: bool>(
        &mut self,
        under: &Under<'_>,
        frames: &mut [Frame],
        work: &[Work],
        port: &mut PortId,
    ) -> (usize, Option<DropReason>) {
        let Self { flows, meters, now, now_ms, .. } = self;
        let (compact, programs) = (&mut flows.compact, &flows.programs);
        let (now, now_ms, last) = (*now, *now_ms, None);
        let mut run =
            ByFlow::<BRIDGED, ODD> { under, compact, programs, meters, now, now_ms, last, port: *port };
        let result = run_in_place::<ODD>(frames, work, &mut run);
        *port = run.port;
        result
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
            Quick::Drop(reason) => {
                self.bytes += bytes;
                Next::Dropped(reason)
            }
            Quick::Otherwise => Next::Stop,
        }
    }
}

/// Frames with compact flows; `ODD`: some with options, or fragments.
struct ByFlow<'a, const BRIDGED: bool, const ODD: bool> {
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

impl<const BRIDGED: bool, const ODD: bool> Step for ByFlow<'_, BRIDGED, ODD> {
    #[inline(always)]
    fn step(&mut self, frame: &mut Frame, work: &Work) -> Next {
        let key = match (BRIDGED, ODD) {
            (true, _) => work.bridged_key(frame.bytes()),
            (false, true) => work.odd_key(),
            (false, false) => work.flow_key(),
        };
        let Some(entry) = self.compact.find_mut(work.hash, &key) else { return Next::Stop };
        if self.last.is_none_or(|(id, _)| id != entry.program) {
            let shared = self.programs.get(entry.program);
            let shared = shared.filter(|shared| shared.generation == self.under.generation);
            let ready = shared.and_then(|shared| self.under.replay.ready(shared));
            // What is dropped goes to no port.
            let leads = |ready: &Ready<'_>| self.port == ready.shared.port || self.port == NOWHERE;
            let Some(ready) = ready.filter(|ready| leads(ready) && ready.shared.drops().is_none()) else {
                return Next::Stop;
            };
            self.port = ready.shared.port;
            self.last = Some((entry.program, ready));
        }
        let Some((_, ready)) = &self.last else { return Next::Stop };
        let epoch = if BRIDGED { self.under.bridged } else { self.under.epoch };
        if entry.epoch != epoch || ODD && work.tag.is_odd() && !ready.takes_odd() {
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

/// Passes the frames of a run, those whose work has the same tag as the first's; `ODD`: whatever is odd about them. Says how many
/// were, and why the next is dropped, if it is. A frame that is not passed is as it was.
#[inline(always)]
fn run_in_place<const ODD: bool>(
    frames: &mut [Frame],
    work: &[Work],
    step: &mut impl Step,
) -> (usize, Option<DropReason>) {
    let Some(first) = work.first() else { return (0, None) };
    // Turning points of connections need more.
    let tag = if ODD { first.tag.steady().even() } else { first.tag.steady() };
    let (mut done, mut dropped) = (0, None);
    for (frame, work) in frames.iter_mut().zip(work) {
        if tag != if ODD { work.tag.even() } else { work.tag } {
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
