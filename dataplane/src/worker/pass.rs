//! Passing: what was admitted is looked up, and done to it what its program says; or it walks.

use std::vec::Drain;

use crate::chain::{Epochs, Walk, Walker};
use crate::decision::{Domain, DropReason, End, PortId, ScopeId};
use crate::flow::{CompactKey, Known, Ops, Outcome, Place, Program, Quick, Replay, Slot, Stamp};
use crate::frame::Frame;
use crate::packet::plain::{self, PlainV4};
use crate::packet::{self, FragmentKind, Meta, tcp_flags};
use crate::snapshot::Snapshot;

use super::admit::Admitted;
use super::ahead::Ahead;
use super::core::Core;
use super::held::Origin;
use super::lane::{Kind, View, Work};

/// TCP flags that a watched flow's packets walk for.
const WATCHED: u8 = tcp_flags::SYN | tcp_flags::FIN | tcp_flags::RST;

/// What packets are passed under: one for a burst.
#[derive(Clone, Copy)]
pub(super) struct Under<'a> {
    pub(super) snapshot: &'a Snapshot,
    pub(super) replay: Replay<'a>,
    pub(super) generation: u32,
    /// Of the forwarding tables; and of what comes in by a bridge domain.
    pub(super) epoch: u32,
    pub(super) bridged: u32,
}

impl<'a> Under<'a> {
    pub(super) fn new(snapshot: &'a Snapshot) -> Self {
        let (generation, Epochs { bridged, others }) = (snapshot.generation as u32, snapshot.tables.epochs());
        Self { snapshot, replay: snapshot.replay(), generation, epoch: others, bridged }
    }

    /// The epoch of what is dropped on its way to `end`: a session that was opened since may vouch for it.
    #[inline(always)]
    pub(super) fn of_drop(&self, epoch: u32, end: End) -> u32 {
        epoch ^ self.snapshot.tables.sessions.openings().last(end)
    }
}

impl Core {
    /// Passes as many frames of a burst as there is work, in the order in which they came.
    #[inline(never)]
    pub(super) fn pass_all(
        &mut self,
        under: &Under<'_>,
        burst: &mut Drain<'_, Frame>,
        work: &[Work],
        admitted: &[Admitted],
        mut ahead: Option<Ahead>,
    ) {
        let all = work;
        let mut parsed = admitted.iter();
        let mut hits = 0;
        for (at, work) in work.iter().enumerate() {
            if let Some(ahead) = &mut ahead {
                self.look_ahead(under.snapshot, ahead, all, at);
            }
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
                    let (key, hash) = (work.odd_key(), work.hash);
                    self.pass_flow(under, frame, work, key, hash, under.epoch)
                }
                Kind::Bridged => {
                    let (key, hash) = (work.bridged_key(frame.bytes()), work.hash);
                    self.pass_flow(under, frame, work, key, hash, under.bridged)
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
        // Whether TCP is at a turning point was looked at only over IPv4.
        let turning = work.tag.turning() | !v4;
        let clamps = || under.snapshot.pipeline.vrf(view.vrf).is_some_and(|vrf| vrf.clamps);
        if !view.is_direct(target) || turning && clamps() {
            let key = work.destination_key();
            let hash = self.flows.compact.hash(&key);
            return if v4 {
                self.pass_flow(under, frame, work, key, hash, under.epoch)
            } else {
                self.reconsider(under, frame, work, None, false)
            };
        }
        if let Some(shared) = self.flows.route(view.vrf, target) {
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
                        shared.count(1, bytes as u64, self.now_ms);
                        self.drop_frame(frame, reason);
                        return true;
                    }
                    Quick::Otherwise => {}
                }
            }
        }
        self.reconsider(under, frame, work, Some(Place::Route(view.vrf, target)), false)
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
        epoch: u32,
    ) -> bool {
        let Self { flows, stage, meters, now, now_ms, .. } = self;
        let mut new = true;
        if let Some(entry) = flows.compact.find_mut(hash, &key) {
            new = false;
            if let Some(shared) = flows.programs.get(entry.program) {
                let epoch = if shared.drops().is_some() { under.of_drop(epoch, key.end()) } else { epoch };
                let current = (shared.generation ^ under.generation) | (entry.epoch ^ epoch) == 0;
                if current && !(work.tag.turning() & shared.turns) && !work.tag.is_odd() {
                    let bytes = frame.len();
                    let quick = match (shared.drops(), under.replay.ready(shared)) {
                        (Some(reason), _) => Quick::Drop(reason),
                        (None, Some(ready)) => {
                            under.replay.quick_flow(&mut frame, &work.known, &ready, entry, meters, *now)
                        }
                        (None, None) => Quick::Otherwise,
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
        self.reconsider(under, frame, work, Some(Place::Compact(key, hash)), new)
    }

    /// A plain packet that is not passed in one piece: the parser looks at it after all. Its outer headers are off. `new`: there is
    /// nothing in its place. Says whether there was a program that was still right.
    #[inline(never)]
    fn reconsider(
        &mut self,
        under: &Under<'_>,
        frame: Frame,
        work: &Work,
        place: Option<Place>,
        new: bool,
    ) -> bool {
        let plain = work.tag.is(Kind::Flow) && !work.tag.is_odd() && !self.no_short_cuts;
        let mut meta = match plain {
            true => Meta::of_plain(frame.bytes(), &plain_of(work)),
            false => match packet::parse(frame.bytes()) {
                Ok(meta) => meta,
                Err(malformed) => {
                    self.drop_frame(frame, malformed.into());
                    return false;
                }
            },
        };
        if work.strip != 0 {
            meta.endpoint = work.endpoint.0;
        }
        let id = work.tag.scope();
        let place = match (place, under.snapshot.pipeline.scope(id)) {
            (Some(place), _) => place,
            (None, Some(scope)) => self.place(&under.snapshot.tables, scope, frame.bytes(), &mut meta),
            (None, None) => Place::Nowhere,
        };
        // What is replayed in one piece is so from its first packet on.
        let whole = plain || (work.tag.is(Kind::Bridged) && !work.tag.is_odd());
        self.pass_slowly(under, frame, meta, id, &place, whole.then_some(work), new)
    }

    /// Passes one parsed packet: by its flow's program, or by a walk. Says whether it was the former, which the caller
    /// counts.
    fn pass(&mut self, under: &Under<'_>, frame: Frame, admitted: &Admitted) -> bool {
        let Admitted { meta, guess, scope, place, bridged, .. } = admitted;
        let slot = match place {
            Place::Whole(key, hash) => self.flows.whole.find_guessed(*guess, key, *hash),
            _ => Slot::NONE,
        };
        let watched = meta.tcp_flags & WATCHED != 0;
        let replay = &under.replay;
        if let Some((entry, rewrites)) = self.flows.whole.entry_and_rewrites(slot) {
            let mut epoch = if *bridged { under.bridged } else { under.epoch };
            if entry.program.ops.contains(Ops::DROP) {
                epoch = under.of_drop(epoch, place.end());
            }
            let current = entry.generation == under.generation && entry.epoch == epoch;
            let spent = is_spent(meta, &entry.program);
            if current && !spent && !(watched && entry.program.ops.contains(Ops::WATCH_TCP)) {
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
        self.pass_slowly(under, frame, *meta, *scope, place, None, false)
    }

    /// A packet whose flow has no program, or none that is still right, or one that is not replayed in one piece. `work`: it is
    /// plain. `new`: there is nothing in its place. Says whether its flow had a program that was still right.
    #[inline(never)]
    #[allow(clippy::too_many_arguments)]
    fn pass_slowly(
        &mut self,
        under: &Under<'_>,
        mut frame: Frame,
        meta: Meta,
        scope_id: ScopeId,
        place: &Place,
        work: Option<&Work>,
        new: bool,
    ) -> bool {
        let Under { snapshot, replay, generation, .. } = under;
        let Some(scope) = snapshot.pipeline.scope(scope_id) else {
            self.drop_frame(frame, DropReason::NotConfigured);
            return false;
        };
        let epoch = if let Domain::Bridge(_) = scope.domain { under.bridged } else { under.epoch };
        let asks = std::mem::take(&mut self.asks);
        self.last_way.get_mut().renew(*generation, under.epoch, self.now);
        let last_way = Some(&self.last_way).filter(|_| !self.no_short_cuts);
        let walker = Walker { pipeline: &snapshot.pipeline, tables: &snapshot.tables, asks: &asks, last_way };
        let mut stamp = Stamp { generation: *generation, epoch, now_ms: self.now_ms };
        // Read before anybody looks for a session.
        let of_drop = under.of_drop(epoch, place.end());
        let watched = meta.tcp_flags & WATCHED != 0;
        let cached = if new { None } else { self.flows.get(place) };
        let right = cached.filter(|cached| {
            cached.generation == *generation && !(watched && cached.program.ops.contains(Ops::WATCH_TCP))
        });
        let mut known = None;
        if let Some(mut right) = right {
            let (program, rewrite) = (&mut right.program, &right.rewrite);
            let epoch = if program.ops.contains(Ops::DROP) { of_drop } else { epoch };
            if right.epoch == epoch {
                // It is no use of the next hop, which a flow in use keeps being asked for.
                if !is_spent(&meta, program) {
                    self.flows.count(place, frame.len(), self.now_ms);
                }
                known = Some((right.program, right.rewrite));
            } else if walker.forward_again(scope, frame.bytes(), &meta, program, rewrite, self.now) {
                // Only the forwarding tables moved: only the forwarding was asked again.
                self.flows.put(place, program, rewrite, stamp, frame.len(), replay);
                known = Some((right.program, right.rewrite));
            }
        }
        let hit = known.is_some();
        let mut fresh = false;
        let (program, rewrite) = match known {
            Some(programmed) => programmed,
            None => {
                self.counters.flow_misses.add(1);
                let walk = walker.walk(scope, frame.bytes(), &meta, self.now, &mut self.path);
                // A walk that was refused behind a translator holds a binding that no session has.
                self.path.let_go();
                match walk {
                    Walk::Program { program, rewrite, cache } => {
                        // Where ports decide, a fragment's whole key does not know them.
                        let knows = meta.fragment == FragmentKind::Whole
                            || !scope.chained
                            || matches!(place, Place::Compact(..));
                        if program.ops.contains(Ops::DROP) {
                            stamp.epoch = of_drop;
                        }
                        if cache && knows {
                            self.flows.put(place, &program, &rewrite, stamp, frame.len(), replay);
                            fresh = true;
                        } else if cached.is_some() && !is_spent(&meta, &program) {
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
        if let Some(work) = work.filter(|_| fresh && !self.no_short_cuts) {
            match self.replay_quickly(under, &mut frame, work, place) {
                (Quick::Send, port) => {
                    self.stage.push(port, frame);
                    self.answer_asks(snapshot);
                    return hit;
                }
                (Quick::Drop(reason), _) => {
                    self.drop_frame(frame, reason);
                    self.answer_asks(snapshot);
                    return hit;
                }
                (Quick::Otherwise, _) => {}
            }
        }
        match replay.run(&mut frame, &meta, &program, || rewrite, &mut self.meters, self.now) {
            Outcome::Send(port) => self.stage.push(port, frame),
            other => {
                self.unusual(snapshot, frame, meta, Origin::Received(scope_id), other, &program, &rewrite);
            }
        }
        self.answer_asks(snapshot);
        hit
    }

    /// Replays the program that was just cached for a plain packet, and counted.
    fn replay_quickly(
        &mut self,
        under: &Under<'_>,
        frame: &mut Frame,
        work: &Work,
        place: &Place,
    ) -> (Quick, PortId) {
        const OTHERWISE: (Quick, PortId) = (Quick::Otherwise, PortId(0));
        let Place::Compact(key, hash) = place else { return OTHERWISE };
        let Self { flows, meters, now, .. } = self;
        let Some(entry) = flows.compact.entry(flows.compact.find(*hash, key)) else { return OTHERWISE };
        let Some(shared) = flows.programs.get(entry.program) else { return OTHERWISE };
        if work.tag.turning() && shared.turns {
            return OTHERWISE;
        }
        if let Some(reason) = shared.drops() {
            return (Quick::Drop(reason), shared.port);
        }
        let Some(ready) = under.replay.ready(shared) else { return OTHERWISE };
        (under.replay.quick_flow(frame, &work.known, &ready, entry, meters, *now), shared.port)
    }

    /// Takes a held packet up again where it was left.
    pub(super) fn resume(&mut self, snapshot: &Snapshot, frame: Frame, mut meta: Meta, scope: ScopeId) {
        let Some(known) = snapshot.pipeline.scope(scope) else {
            return self.drop_frame(frame, DropReason::NotConfigured);
        };
        let place = self.place(&snapshot.tables, known, frame.bytes(), &mut meta);
        if self.pass_slowly(&Under::new(snapshot), frame, meta, scope, &place, None, false) {
            self.counters.flow_hits.add(1);
        }
    }
}

/// What is known of a packet that is plain.
fn plain_of(work: &Work) -> PlainV4 {
    let Known { addresses, total, class, protocol, ports } = work.known;
    PlainV4 { addresses, ports, total, class, protocol, turning: work.tag.turning() }
}

/// Whether a packet would have to be forwarded and has no hop left.
fn is_spent(meta: &Meta, program: &Program) -> bool {
    meta.ttl <= 1 && program.ops.contains(Ops::DECREMENT_TTL)
}

/// Takes the outer headers off, if admission found that they go.
#[inline(always)]
fn unwrap_outer(mut frame: Frame, work: &Work) -> Result<Frame, Frame> {
    let (strip, len) = (usize::from(work.strip), usize::from(work.len));
    if strip == 0 || frame.strip(strip) && frame.truncate(len) { Ok(frame) } else { Err(frame) }
}
