//! The fast lane: plain packets on interfaces whose keys are small.
//!
//! A plain packet ([`packet::plain`](crate::packet::plain)) needs no [`Meta`](crate::packet::Meta) and no whole key. What is done to it
//! is kept with its route, if the destination alone decides and the route has a next hop of its own; else in one line of the
//! compact table. Everything else is admitted by the parser ([`admit`](super::admit)).
//!
//! Here is what looks at frames, burst by burst, before anything is done to them; [`pass`](super::pass) does it.

use crate::chain::{Lane, Scope, Vrf};
use crate::decision::{Domain, DropReason, EndpointId, PortId, ScopeId, Tuple, VrfId};
use crate::flow::{CompactKey, CompactTable, Known};
use crate::frame::Frame;
use crate::l3::Fib;
use crate::overlay::{self, VtepTable};
use crate::packet::plain::{self, PlainV4, Station};
use crate::packet::{FragmentKind, ecn, protocol};
use crate::snapshot::Snapshot;

/// How a frame of a burst is passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Kind {
    /// Not plain: the parser looks at it. Then, as the parser found it.
    Parsed,
    /// To a VTEP, perhaps.
    Tunnelled,
    /// By its route, IPv4.
    RouteV4,
    /// By its route, IPv6: the destination is in `known.addresses` (high half) and `hash`.
    RouteV6,
    /// By its compact flow, under its five-tuple.
    Flow,
    /// By its compact flow, under its MAC addresses.
    Bridged,
    /// Not at all, for `reason`.
    Dropped,
}

/// What is known of a frame of a burst between admission and passing: one line.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
pub(super) struct Work {
    pub(super) known: Known,
    /// Of the compact key.
    pub(super) hash: u64,
    /// Of outer headers that are to be taken off, in bytes; and what is left then.
    pub(super) strip: u16,
    pub(super) len: u16,
    /// What frames of a run have in common.
    pub(super) tag: Tag,
    /// Tunnel endpoint that the packet came from, if it has outer headers.
    pub(super) endpoint: EndpointId,
    pub(super) reason: DropReason,
}

/// The scope (low 16 bits), the [`Kind`] (8 bits), whether it is TCP with SYN, FIN or RST, and what is odd about a packet: in one
/// number, since frames that have it in common are passed in one go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tag(u32);

/// The bit of TCP with SYN, FIN or RST.
const TURNING: u32 = 1 << 24;
/// The bit of an odd packet, and where its [`FragmentKind`] is.
const ODD: u32 = 1 << 25;
const FRAGMENT: u32 = 26;

impl Tag {
    #[inline(always)]
    pub(super) fn new(scope: ScopeId, kind: Kind, turning: bool) -> Self {
        Self(u32::from(scope.0) | (kind as u32) << 16 | u32::from(turning) << 24)
    }

    /// The same for a packet that has options, or is a fragment.
    #[inline(always)]
    pub(super) fn odd(self, fragment: FragmentKind) -> Self {
        Self(self.0 | ODD | (fragment as u32) << FRAGMENT)
    }

    /// The same for a packet that is no turning point of a connection.
    #[inline(always)]
    pub(super) fn steady(self) -> Self {
        Self(self.0 & !TURNING)
    }

    /// The same for a packet that is not odd.
    #[inline(always)]
    pub(super) fn even(self) -> Self {
        Self(self.0 & (ODD - 1))
    }

    /// Whether the packet has options, or is a fragment.
    #[inline(always)]
    pub(super) fn is_odd(self) -> bool {
        self.0 & ODD != 0
    }

    /// Which fragment the packet is.
    #[inline(always)]
    pub(super) fn fragment(self) -> FragmentKind {
        match self.0 >> FRAGMENT {
            0 => FragmentKind::Whole,
            1 => FragmentKind::First,
            _ => FragmentKind::Later,
        }
    }

    #[inline(always)]
    pub(super) fn scope(self) -> ScopeId {
        ScopeId(self.0 as u16)
    }

    #[inline(always)]
    pub(super) fn is(self, kind: Kind) -> bool {
        (self.0 >> 16) as u8 == kind as u8
    }

    #[inline(always)]
    pub(super) fn turning(self) -> bool {
        self.0 & TURNING != 0
    }

    #[inline(always)]
    pub(super) fn kind(self) -> Kind {
        match (self.0 >> 16) as u8 {
            0 => Kind::Parsed,
            1 => Kind::Tunnelled,
            2 => Kind::RouteV4,
            3 => Kind::RouteV6,
            4 => Kind::Flow,
            5 => Kind::Bridged,
            _ => Kind::Dropped,
        }
    }
}

impl Work {
    /// A place that nothing was put into yet.
    pub(super) fn none() -> Self {
        Self {
            known: Known { addresses: 0, total: 0, class: 0, protocol: 0, ports: 0 },
            hash: 0,
            strip: 0,
            len: 0,
            tag: Tag::new(ScopeId(0), Kind::Parsed, false),
            endpoint: EndpointId(0),
            reason: DropReason::InternalError,
        }
    }

    /// The compact key of an odd packet's flow.
    #[inline(always)]
    pub(super) fn odd_key(&self) -> CompactKey {
        self.flow_key().of_fragments(self.tag.fragment())
    }

    /// The compact key of a flow.
    #[inline(always)]
    pub(super) fn flow_key(&self) -> CompactKey {
        CompactKey::of(self.tag.scope(), self.known.addresses, self.known.ports, self.known.protocol)
    }

    /// Addresses and ports of an IPv4 packet.
    pub(super) fn tuple(&self) -> Tuple {
        tuple_of(self.known.addresses, self.known.ports, self.known.protocol)
    }

    /// The compact key of a bridged frame, whose outer headers are off.
    #[inline(always)]
    pub(super) fn bridged_key(&self, frame: &[u8]) -> CompactKey {
        let (first, next) = plain::stations(frame);
        let endpoint = if self.strip == 0 { EndpointId(0) } else { self.endpoint };
        CompactKey::bridged(self.tag.scope(), endpoint, first, next)
    }

    /// The compact key of a destination alone.
    #[inline(always)]
    pub(super) fn destination_key(&self) -> CompactKey {
        CompactKey::of(self.tag.scope(), self.known.addresses & !0xffff_ffff, 0, 0)
    }

    /// The IPv6 destination.
    #[inline(always)]
    pub(super) fn destination_v6(&self) -> u128 {
        u128::from(self.known.addresses) << 64 | u128::from(self.hash)
    }

    #[inline(always)]
    pub(super) fn put(&mut self, scope: ScopeId, kind: Kind, plain: &PlainV4) {
        let PlainV4 { addresses, ports, total, class, protocol, turning } = *plain;
        self.known = Known { addresses, total, class, protocol, ports };
        (self.strip, self.tag) = (0, Tag::new(scope, kind, turning));
    }

    /// A bridged frame keeps what is behind its IP packet: all of it has to fit where it goes.
    #[inline(always)]
    fn put_bridged(&mut self, scope: ScopeId, frame: &[u8], plain: &PlainV4) {
        self.put(scope, Kind::Bridged, &PlainV4 { total: (frame.len() - 14) as u16, ..*plain });
    }

    #[inline(always)]
    fn put_v6(&mut self, scope: ScopeId, destination: u128, total: u16) {
        (self.known.addresses, self.hash) = ((destination >> 64) as u64, destination as u64);
        self.known.total = total;
        (self.strip, self.tag) = (0, Tag::new(scope, Kind::RouteV6, false));
    }
}

/// What the fast lane needs of a scope.
#[derive(Clone, Copy)]
pub(super) struct View<'a> {
    pub(super) scope: ScopeId,
    pub(super) lane: Lane,
    pub(super) station: Station,
    /// Of a VRF.
    pub(super) routes: Option<Routes<'a>>,
    /// VTEPs that packets here may be addressed to.
    pub(super) vteps: Option<&'a VtepTable>,
    /// Where a wire leads, and the largest frame that it takes, in bytes.
    pub(super) wire: (PortId, usize),
}

/// Where packets of a VRF go.
#[derive(Clone, Copy)]
pub(super) struct Routes<'a> {
    pub(super) vrf: VrfId,
    pub(super) fib: &'a Fib,
    direct: &'a [bool],
}

impl Routes<'_> {
    /// Whether one program does for all destinations behind a target.
    #[inline(always)]
    pub(super) fn is_direct(&self, target: u32) -> bool {
        self.direct.get(target as usize).copied().unwrap_or(false)
    }
}

impl<'a> View<'a> {
    /// `None` if the scope has no fast lane.
    pub(super) fn of(snapshot: &'a Snapshot, scope: &Scope) -> Option<Self> {
        let (mut routes, mut vteps, mut wire) = (None, None, (PortId(0), 0));
        match (scope.lane, scope.domain) {
            (Lane::None, _) => return None,
            (_, Domain::Vrf(vrf)) => {
                vteps = snapshot.pipeline.vteps_of(vrf).filter(|vteps| !vteps.is_empty());
                let Vrf { fib, direct, .. } = snapshot.pipeline.vrf(vrf)?;
                routes = Some(Routes { vrf, fib, direct });
            }
            (_, Domain::CrossConnect(other)) => {
                let other = snapshot.pipeline.scope(other)?;
                wire = (other.port, usize::from(other.mtu) + 14);
            }
            (_, Domain::Bridge(_) | Domain::Hop(_)) => {}
        }
        let station = Station::new(scope.mac);
        Some(Self { scope: scope.id, lane: scope.lane, station, routes, vteps, wire })
    }

    /// That of the scope with this number.
    pub(super) fn by_id(snapshot: &'a Snapshot, scope: ScopeId) -> Option<Self> {
        Self::of(snapshot, snapshot.pipeline.scope(scope)?)
    }

    /// Whether a wire takes a frame. It does not look at what is on it, but for its length. Tags are in front of what counts: who
    /// has some is looked at.
    #[inline(always)]
    pub(super) fn takes(&self, frame: &Frame) -> bool {
        (14..=self.wire.1).contains(&frame.len())
    }

    /// Looks at frames: notes in `work` how the plain ones among them are passed, and asks for what passing them will read. Says
    /// how many are not plain, or are for a tunnel.
    pub(super) fn scan(&self, frames: &[Frame], flows: &CompactTable, work: &mut [Work]) -> usize {
        let others = match (self.lane, self.vteps) {
            (Lane::None | Lane::Wire, _) => frames.len(),
            (Lane::Bridge, _) => self.scan_bridged(frames, flows, work),
            (Lane::Flows, None) => self.scan_v4::<true, false>(frames, flows, work),
            (Lane::Flows, Some(_)) => self.scan_v4::<true, true>(frames, flows, work),
            (Lane::Routes, None) => self.scan_v4::<false, false>(frames, flows, work),
            (Lane::Routes, Some(_)) => self.scan_v4::<false, true>(frames, flows, work),
        };
        // A run of packets to a VTEP has no IPv6 in it; what comes behind something else that is not plain is looked at closer anyway.
        let tunnelled =
            others == frames.len() && work.first().is_some_and(|first| first.tag.is(Kind::Tunnelled));
        if others == 0 || self.lane != Lane::Routes || tunnelled {
            return others;
        }
        let six = |(frame, work): (&Frame, &Work)| work.tag.is(Kind::Parsed).then(|| is_v6(frame.bytes()));
        let first = frames.iter().zip(&*work).find_map(six);
        if first == Some(true) { self.scan_v6(frames, work) } else { others }
    }

    // Loops of their own, with the registers to themselves.
    #[inline(never)]
    fn scan_v4<const FLOWS: bool, const VTEPS: bool>(
        &self,
        frames: &[Frame],
        flows: &CompactTable,
        work: &mut [Work],
    ) -> usize {
        let Self { scope, station, vteps, .. } = *self;
        let Some(Routes { fib, .. }) = self.routes else { return frames.len() };
        let ports = vteps.map(VtepTable::ports).unwrap_or_default();
        let mut others = 0;
        for (frame, work) in frames.iter().zip(work) {
            let Some(plain) = plain::plain_v4(frame.bytes(), station) else {
                work.tag = Tag::new(scope, Kind::Parsed, false);
                others += 1;
                continue;
            };
            if VTEPS && plain.protocol == protocol::UDP && ports.may_have(plain.destination_port()) {
                work.put(scope, Kind::Tunnelled, &plain);
                others += 1;
            } else if FLOWS {
                work.put(scope, Kind::Flow, &plain);
                work.hash = flows.hash(&CompactKey::new(scope, &plain));
                flows.prefetch(work.hash);
            } else {
                work.put(scope, Kind::RouteV4, &plain);
                fib.prefetch_v4(plain.destination());
            }
        }
        others
    }

    #[inline(never)]
    fn scan_bridged(&self, frames: &[Frame], flows: &CompactTable, work: &mut [Work]) -> usize {
        let mut others = 0;
        for (frame, work) in frames.iter().zip(work) {
            match plain::bridged_v4(frame.bytes()) {
                Some(plain) => {
                    work.put_bridged(self.scope, frame.bytes(), &plain);
                    work.hash = flows.hash(&work.bridged_key(frame.bytes()));
                    flows.prefetch(work.hash);
                }
                None => {
                    work.tag = Tag::new(self.scope, Kind::Parsed, false);
                    others += 1;
                }
            }
        }
        others
    }

    #[inline(never)]
    fn scan_v6(&self, frames: &[Frame], work: &mut [Work]) -> usize {
        let Some(Routes { fib, .. }) = self.routes else { return frames.len() };
        let mut others = 0;
        for (frame, work) in frames.iter().zip(work) {
            if work.tag.is(Kind::Tunnelled) {
                others += 1;
            }
            if !work.tag.is(Kind::Parsed) {
                continue;
            }
            others += usize::from(!self.put_v6(fib, frame.bytes(), work));
        }
        others
    }

    /// Notes how a plain IPv6 packet is passed. False if it is not one, or for a tunnel.
    #[inline(always)]
    pub(super) fn put_v6(&self, fib: &Fib, frame: &[u8], work: &mut Work) -> bool {
        // Of tunnels over IPv6 the parser takes the outer headers off.
        let outer = |port| port != 0 && self.vteps.is_some_and(|vteps| vteps.ports().may_have(port));
        match plain::plain_v6(frame, self.station).filter(|plain| !outer(plain.udp_port)) {
            Some(plain) => {
                fib.prefetch_v6(plain.destination);
                work.put_v6(self.scope, plain.destination, plain.total);
                true
            }
            None => false,
        }
    }

    /// Looks inside the frames of a run that may all be for a tunnel. False as soon as one is for the parser to look at.
    #[inline(never)]
    pub(super) fn scan_inside(
        &self,
        snapshot: &'a Snapshot,
        inner: &mut Option<View<'a>>,
        frames: &[Frame],
        flows: &CompactTable,
        work: &mut [Work],
    ) -> bool {
        let mut last = None;
        frames.iter().zip(work).all(|(frame, work)| {
            !work.tag.is(Kind::Parsed)
                && (!work.tag.is(Kind::Tunnelled)
                    || self.look_inside(snapshot, inner, &mut last, frame, flows, work))
        })
    }

    /// A plain packet that may be to a VTEP: if what it carries is plain too, notes how that is passed. False if the parser
    /// has to look at it. `inner` is the view of the tunnel that was seen last, `last` whose packet the last one was.
    #[inline(always)]
    pub(super) fn look_inside(
        &self,
        snapshot: &'a Snapshot,
        inner: &mut Option<View<'a>>,
        last: &mut Option<overlay::Known>,
        frame: &Frame,
        flows: &CompactTable,
        work: &mut Work,
    ) -> bool {
        let Known { addresses, total, class, protocol, ports } = work.known;
        let outer = PlainV4 { addresses, ports, total, class, protocol, turning: false };
        let Some(decap) = self.vteps.and_then(|vteps| vteps.lookup_plain(frame.bytes(), &outer, last)) else {
            return false;
        };
        if inner.is_none_or(|view| view.scope != decap.scope) {
            *inner = View::by_id(snapshot, decap.scope);
        }
        let Some(view) = inner else { return false };
        let end = decap.strip + decap.inner_len;
        let Some(bytes) = frame.bytes().get(decap.strip..end) else { return false };
        // What the outer header says of congestion goes into the inner one, if it is not there already (RFC 6040).
        let same = |class: u8| {
            decap.outer_ecn == 0 || ecn::decapsulate(class & 3, decap.outer_ecn) == ecn::Decapsulated::Keep
        };
        let scope = view.scope;
        match (view.lane, view.routes) {
            (Lane::Flows, _) => {
                let Some(plain) = plain::plain_v4(bytes, view.station).filter(|plain| same(plain.class))
                else {
                    return false;
                };
                work.put(scope, Kind::Flow, &plain);
                work.hash = flows.hash(&CompactKey::new(scope, &plain));
                flows.prefetch(work.hash);
            }
            (Lane::Routes, Some(routes)) => match plain::plain_v4(bytes, view.station) {
                Some(plain) if same(plain.class) => {
                    work.put(scope, Kind::RouteV4, &plain);
                    routes.fib.prefetch_v4(plain.destination());
                }
                Some(_) => return false,
                None if decap.outer_ecn != 0 => return false,
                None => match plain::plain_v6(bytes, view.station) {
                    Some(plain) => work.put_v6(scope, plain.destination, plain.total),
                    None => return false,
                },
            },
            (Lane::Bridge, _) => {
                let Some(plain) = plain::bridged_v4(bytes).filter(|plain| same(plain.class)) else {
                    return false;
                };
                work.put_bridged(scope, bytes, &plain);
                (work.strip, work.endpoint) = (decap.strip as u16, decap.endpoint);
                work.hash = flows.hash(&work.bridged_key(bytes));
                flows.prefetch(work.hash);
            }
            _ => return false,
        }
        // Both are within the frame, which is shorter than 64 KB.
        (work.strip, work.len, work.endpoint) = (decap.strip as u16, decap.inner_len as u16, decap.endpoint);
        true
    }
}

/// Addresses and ports as they stand in headers, one by one.
pub(super) fn tuple_of(addresses: u64, ports: u32, protocol: u8) -> Tuple {
    let [a, b, c, d, e, f, g, h] = addresses.to_le_bytes();
    Tuple {
        source: [a, b, c, d].into(),
        destination: [e, f, g, h].into(),
        protocol,
        source_port: (ports as u16).swap_bytes(),
        destination_port: ((ports >> 16) as u16).swap_bytes(),
    }
}

/// Whether a frame says that it carries IPv6.
#[inline(always)]
pub(super) fn is_v6(frame: &[u8]) -> bool {
    frame.get(12..14).is_some_and(|kind| kind == [0x86, 0xdd])
}
