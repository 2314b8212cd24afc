//! Passing at once: where the destination alone decides, and the routes lie in the caches, a plain packet is recognised, looked up
//! and edited in one go. Nothing has to be asked for beforehand, so nothing is noted in between.
//!
//! Packets in a row may be of several [`Sort`]s, with packets among them that are not plain ([`odd`](super::odd)). What is not passed
//! here is as it was: it is passed in place, or moved.

use crate::chain::Lane;
use crate::decision::{DropReason, PortId, ScopeId, VrfId};
use crate::flow::{Forward, ProgramId};
use crate::frame::Frame;
use crate::l3::{Fib, LookUpV4, WarmV4};
use crate::overlay::{PathHeaders, Ports, VtepTable};
use crate::packet::plain::{self, Look, OddV4, PlainV4, Station};
use crate::packet::{ecn, protocol};

use super::admit::Ingress;
use super::core::Core;
use super::in_place::{InPlace, NOWHERE};
use super::lane::{Routes, View, is_v6};
use super::pass::Under;

/// Frames between which those are asked for that come later.
const STRIDE: usize = 16;
/// In so short a burst no frame is asked for: it is read at once.
const SHORT: usize = 2;

/// Bursts of a scope that are not tried after one whose first packet needs more than to be forwarded: its route leads into a
/// tunnel, say.
const PAUSE: u8 = 15;

/// Where trying was in vain.
#[derive(Clone, Copy, Debug)]
pub(super) struct InVain {
    scope: ScopeId,
    /// Bursts of it that are still not tried.
    bursts: u8,
}

impl InVain {
    /// Nowhere yet.
    pub(super) fn none() -> Self {
        Self { scope: ScopeId(0), bursts: 0 }
    }
}

/// How a frame is passed at once, if it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sort {
    V4,
    V6,
    /// What a tunnel over IPv4 carries.
    Inside,
}

impl Sort {
    /// What a frame looks like on a port with these VTEPs.
    #[inline(always)]
    fn of(frame: &[u8], ports: Ports) -> Self {
        let Some(header) = frame.first_chunk::<50>().filter(|header| header[12] == 8) else {
            return if is_v6(frame) { Self::V6 } else { Self::V4 };
        };
        let port = u16::from_be_bytes([header[36], header[37]]);
        let inside = header[14] == 0x45 && header[23] == protocol::UDP && ports.may_have(port);
        if inside { Self::Inside } else { Self::V4 }
    }
}

/// What is known of a packet that was recognised.
#[derive(Clone, Copy)]
struct Seen<D> {
    destination: D,
    /// Length of the IP packet in bytes.
    total: u16,
    /// The same of the frame, without outer headers.
    len: usize,
    /// TCP with SYN, FIN or RST.
    turning: bool,
}

/// What a frame is that was not recognised.
enum Odd<D> {
    /// Not one that is passed by this road.
    Other,
    /// Malformed.
    Dropped(DropReason),
    /// To be passed nevertheless, as a packet of so many bytes; whether it is TCP with SYN, FIN or RST. No more than comes in a register.
    Passed { destination: D, total: u16, turning: bool },
}

/// How packets of one sort are recognised and looked up.
trait Road: Copy {
    /// Bytes of outer headers, which go.
    const STRIP: usize = 0;
    const V6: bool = false;
    type Destination: Copy;
    fn recognise(self, frame: &[u8]) -> Option<Seen<Self::Destination>>;
    fn target(self, destination: Self::Destination) -> u32;
    /// A closer look at what was not recognised.
    fn look_closer(self, view: &View<'_>, frame: &[u8]) -> Odd<Self::Destination>;
}

/// IPv4; `VTEPS`: some may be for a tunnel.
#[derive(Clone, Copy)]
struct RoadV4<L, const VTEPS: bool> {
    station: Station,
    ports: Ports,
    routes: L,
}

impl<L: LookUpV4, const VTEPS: bool> Road for RoadV4<L, VTEPS> {
    type Destination = u32;

    #[inline(always)]
    fn recognise(self, frame: &[u8]) -> Option<Seen<u32>> {
        let plain = plain::plain_v4(frame, self.station)?;
        if VTEPS && plain.protocol == protocol::UDP && self.ports.may_have(plain.destination_port()) {
            return None;
        }
        let PlainV4 { total, turning, .. } = plain;
        Some(Seen { destination: plain.destination(), total, len: frame.len(), turning })
    }

    #[inline(always)]
    fn target(self, destination: u32) -> u32 {
        self.routes.number(destination)
    }

    #[inline(always)]
    fn look_closer(self, view: &View<'_>, frame: &[u8]) -> Odd<u32> {
        if VTEPS && Sort::of(frame, self.ports) != Sort::V4 {
            return Odd::Other;
        }
        odd_v4(frame, self.station, view.vteps.is_some())
    }
}

/// IPv6.
#[derive(Clone, Copy)]
struct RoadV6<'a> {
    station: Station,
    ports: Ports,
    fib: &'a Fib,
}

impl Road for RoadV6<'_> {
    const V6: bool = true;
    type Destination = u128;

    #[inline(always)]
    fn recognise(self, frame: &[u8]) -> Option<Seen<u128>> {
        let plain = plain::plain_v6(frame, self.station)?;
        if plain.udp_port != 0 && self.ports.may_have(plain.udp_port) {
            return None;
        }
        // Whether TCP is at a turning point was not looked at.
        let (destination, total) = (plain.destination, plain.total);
        Some(Seen { destination, total, len: frame.len(), turning: true })
    }

    #[inline(always)]
    fn target(self, destination: u128) -> u32 {
        self.fib.lookup_v6(destination)
    }

    #[inline(always)]
    fn look_closer(self, _: &View<'_>, _: &[u8]) -> Odd<u128> {
        Odd::Other
    }
}

/// IPv4 that came through one tunnel by one path.
#[derive(Clone, Copy)]
struct RoadInside<L> {
    outer: Station,
    path: PathHeaders,
    station: Station,
    routes: L,
}

impl<L: LookUpV4> Road for RoadInside<L> {
    const STRIP: usize = PathHeaders::LEN;
    type Destination = u32;

    #[inline(always)]
    fn recognise(self, frame: &[u8]) -> Option<Seen<u32>> {
        let outer = plain::plain_v4(frame, self.outer)?;
        let len = self.path.inner_len(frame, &outer)?;
        let inner = frame.get(Self::STRIP..)?.get(..len)?;
        let PlainV4 { total, turning, class, .. } = plain::plain_v4(inner, self.station)?;
        // What the outer header says of congestion goes into the inner one, if it is not there already (RFC 6040).
        let (outer, class) = (outer.class & 3, class & 3);
        if outer != 0 && ecn::decapsulate(class, outer) != ecn::Decapsulated::Keep {
            return None;
        }
        let destination = inner.get(30..)?.first_chunk().map(|bytes| u32::from_be_bytes(*bytes))?;
        Some(Seen { destination, total, len, turning })
    }

    #[inline(always)]
    fn target(self, destination: u32) -> u32 {
        self.routes.number(destination)
    }

    #[inline(always)]
    fn look_closer(self, _: &View<'_>, _: &[u8]) -> Odd<u32> {
        Odd::Other
    }
}

/// A packet that is not plain: it is malformed; or merely odd, and passed by its route. `tunnels`: UDP may be for one. Apart from
/// the loop, whose registers it would take.
#[inline(never)]
fn odd_v4(frame: &[u8], station: Station, tunnels: bool) -> Odd<u32> {
    match plain::look_v4(frame, station) {
        Look::Odd(OddV4 { plain, .. }) if !(tunnels & (plain.protocol == protocol::UDP)) => {
            let PlainV4 { total, turning, .. } = plain;
            Odd::Passed { destination: plain.destination(), total, turning }
        }
        Look::Foreign => Odd::Dropped(DropReason::NotForUs),
        Look::Malformed(malformed) => Odd::Dropped(malformed.into()),
        Look::Odd(_) | Look::Other => Odd::Other,
    }
}

/// Packets in a row that have the same route, which is made ready.
struct Row {
    id: ProgramId,
    target: u32,
    forward: Forward,
    turns: bool,
    /// Where they begin, and of how many bytes those are that were passed.
    from: usize,
    bytes: usize,
}

impl Default for Row {
    /// No packets. No route has this number.
    fn default() -> Self {
        let (id, target, forward) = (ProgramId::NONE, u32::MAX, Forward::default());
        Self { id, target, forward, turns: false, from: 0, bytes: 0 }
    }
}

/// How far a burst is.
struct Progress {
    /// The next frame.
    next: usize,
    /// Frames that were passed. Those that were dropped stand behind them.
    passed: usize,
    /// How far frames were asked for.
    asked: usize,
    port: PortId,
}

impl Core {
    /// Passes frames at once, as long as their routes only forward, and all go to one port. What is malformed is dropped. `None`: it
    /// was not tried.
    #[inline(always)]
    pub(super) fn pass_at_once<'a>(
        &mut self,
        under: &Under<'a>,
        ingress: &Ingress<'a>,
        frames: &mut Vec<Frame>,
    ) -> Option<InPlace> {
        let Some(view @ View { lane: Lane::Routes, routes: Some(routes), .. }) = &ingress.view else {
            return None;
        };
        if self.in_vain.bursts > 0 && self.in_vain.scope == view.scope {
            self.in_vain.bursts -= 1;
            return None;
        }
        Some(self.routes_at_once(under, view, routes, frames))
    }

    #[inline(never)]
    fn routes_at_once(
        &mut self,
        under: &Under<'_>,
        view: &View<'_>,
        routes: &Routes<'_>,
        frames: &mut Vec<Frame>,
    ) -> InPlace {
        let mut progress = Progress { next: 0, passed: 0, asked: usize::MAX, port: NOWHERE };
        if frames.len() > SHORT {
            progress.asked = STRIDE;
            frames.iter().take(2 * STRIDE).for_each(Frame::prefetch);
        }
        let ports = view.vteps.map(VtepTable::ports).unwrap_or_default();
        let mut last = (usize::MAX, Sort::V4);
        while let Some(first) = frames.get(progress.next) {
            let sort = Sort::of(first.bytes(), ports);
            // Nothing came of it.
            if last == (progress.next, sort) {
                break;
            }
            last = (progress.next, sort);
            match (sort, routes.fib.warm_v4(), view.vteps) {
                (Sort::V4, Some(WarmV4::Sparse(table)), None) => {
                    let road = RoadV4::<_, false> { station: view.station, ports, routes: table };
                    self.along(under, view, routes.vrf, &road, frames, &mut progress);
                }
                (Sort::V4, Some(WarmV4::Sparse(table)), Some(_)) => {
                    let road = RoadV4::<_, true> { station: view.station, ports, routes: table };
                    self.along(under, view, routes.vrf, &road, frames, &mut progress);
                }
                (Sort::V4, Some(WarmV4::Other(fib)), _) => {
                    let road = RoadV4::<_, true> { station: view.station, ports, routes: fib };
                    self.along(under, view, routes.vrf, &road, frames, &mut progress);
                }
                (Sort::V6, ..) if routes.fib.is_warm_v6() => {
                    let road = RoadV6 { station: view.station, ports, fib: routes.fib };
                    self.along(under, view, routes.vrf, &road, frames, &mut progress);
                }
                (Sort::Inside, _, Some(vteps)) => {
                    self.inside_at_once(under, view, vteps, frames, &mut progress);
                }
                _ => break,
            }
        }
        let Progress { next, passed, port, .. } = progress;
        self.counters.flow_hits.add(passed as u64);
        if passed < next {
            self.cache.free_all(frames.drain(passed..next));
        }
        InPlace { done: passed, port }
    }

    /// Passes what comes through a tunnel that leads to routes.
    #[inline(never)]
    fn inside_at_once(
        &mut self,
        under: &Under<'_>,
        view: &View<'_>,
        vteps: &VtepTable,
        frames: &mut [Frame],
        progress: &mut Progress,
    ) {
        let Some(frame) = frames.get(progress.next).map(Frame::bytes) else { return };
        let Some(outer) = plain::plain_v4(frame, view.station) else { return };
        let mut known = None;
        let decap = vteps.lookup_plain(frame, &outer, &mut known);
        let (Some(decap), Some(known)) = (decap, known) else { return };
        let inner = View::by_id(under.snapshot, decap.scope).filter(|inner| inner.lane == Lane::Routes);
        let (Some(path), Some(View { station, routes: Some(Routes { vrf, fib, .. }), .. })) =
            (PathHeaders::of(frame, &outer, &known), inner)
        else {
            return;
        };
        let outer = view.station;
        match fib.warm_v4() {
            Some(WarmV4::Sparse(routes)) => {
                self.along(under, view, vrf, &RoadInside { outer, path, station, routes }, frames, progress);
            }
            Some(WarmV4::Other(routes)) => {
                self.along(under, view, vrf, &RoadInside { outer, path, station, routes }, frames, progress);
            }
            None => {}
        }
    }

    /// Passes frames of one sort, until one is of another, or is not passed at once.
    #[inline(never)]
    fn along<R: Road>(
        &mut self,
        under: &Under<'_>,
        view: &View<'_>,
        vrf: VrfId,
        road: &R,
        frames: &mut [Frame],
        progress: &mut Progress,
    ) {
        let Progress { mut next, mut passed, .. } = *progress;
        let mut row = Row { from: passed, ..Row::default() };
        let all = frames.len();
        let refused = 'all: loop {
            let end = progress.asked.min(all);
            let Some(asked) = frames.get_mut(..end) else { break None };
            while let Some(frame) = asked.get_mut(next) {
                let seen = match road.recognise(frame.bytes()) {
                    Some(seen) => seen,
                    None => match road.look_closer(view, frame.bytes()) {
                        Odd::Passed { destination, total, turning } => {
                            Seen { destination, total, len: frame.len(), turning }
                        }
                        Odd::Dropped(reason) => {
                            self.counters.count_drop(reason);
                            next += 1;
                            continue;
                        }
                        Odd::Other => break 'all None,
                    },
                };
                let target = road.target(seen.destination);
                if target != row.target {
                    self.count_route(&row, passed);
                    let other = self.road_to(under, vrf, target, &mut progress.port);
                    row = Row { from: passed, ..other.unwrap_or_default() };
                    if row.target != target {
                        break 'all Some(target);
                    }
                }
                if row.turns & seen.turning || !row.forward.pass(frame, R::V6, R::STRIP, seen.total) {
                    break 'all None;
                }
                row.bytes += seen.len;
                if passed != next {
                    asked.swap(passed, next);
                }
                (next, passed) = (next + 1, passed + 1);
            }
            if end == all {
                break None;
            }
            let later = frames.get(end + STRIDE..).unwrap_or_default();
            later.iter().take(STRIDE).for_each(Frame::prefetch);
            progress.asked += STRIDE;
        };
        self.count_route(&row, passed);
        (progress.next, progress.passed) = (next, passed);
        if let (0, Some(target)) = (next, refused) {
            self.note_in_vain(under, view.scope, vrf, target);
        }
    }

    /// The route to a target, if it only forwards, and leads to `port`, or that is nowhere yet.
    #[inline(always)]
    fn road_to(&mut self, under: &Under<'_>, vrf: VrfId, target: u32, port: &mut PortId) -> Option<Row> {
        let (routes, programs) = self.flows.routes_of(vrf);
        let id = routes.get(target as usize).copied()?;
        let shared = programs.get(id).filter(|shared| shared.is_current(under.generation, under.epoch))?;
        let forward = Forward::of(&under.replay.ready(shared)?)?;
        if *port != shared.port && *port != NOWHERE {
            return None;
        }
        *port = shared.port;
        Some(Row { id, target, forward, turns: shared.turns, ..Row::default() })
    }

    /// Notes that a burst whose first packet goes to a target was tried in vain, if what is known of the target says so.
    #[inline(never)]
    fn note_in_vain(&mut self, under: &Under<'_>, scope: ScopeId, vrf: VrfId, target: u32) {
        let shared = self.flows.route(vrf, target);
        if shared.is_some_and(|shared| shared.is_current(under.generation, under.epoch)) {
            self.in_vain = InVain { scope, bursts: PAUSE };
        }
    }

    /// Counts what was passed by a route, up to the frame at `at`.
    #[inline(always)]
    fn count_route(&mut self, row: &Row, at: usize) {
        if let (Some(shared), true) = (self.flows.programs.get_mut(row.id), at > row.from) {
            shared.count((at - row.from) as u64, row.bytes as u64, self.now_ms);
        }
    }
}
