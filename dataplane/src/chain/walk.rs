//! The walk: asks the stages, in order, about a packet whose flow has no program, and compiles what they say.
//!
//! Nothing here touches bytes. The caller replays the program on the packet itself, so the first packet of a flow and
//! the later ones go through the same code.

use std::cell::RefCell;
use std::net::IpAddr;

use crate::decision::{
    ChainId, Direction, Domain, DropReason, Edit, EndpointId, FlowView, Nanos, PathBuilder, ScopeId,
    SessionId, Side, Step, Translations, Tuple,
};
use crate::flow::{Ops, Program, Rewrite};
use crate::l2::Member;
use crate::l3::{NeighbourAction, sanity};
use crate::packet::{self, FragmentKind, L3, Meta, PacketFlags, protocol};
use crate::session::{Created, Found, NewSession, Refused, session_domain};

use super::forward::LastWay;
use super::pipeline::{Chain, Pipeline, Scope, ScopeKind, Tables};
use super::translated::Addressee;
use weir_config::MacAddress;

/// What a walk came to.
#[derive(Clone, Debug)]
pub enum Walk {
    /// Replay this.
    Program {
        /// What to do.
        program: Program,
        /// New addresses and ports.
        rewrite: Rewrite,
        /// Whether later packets with the same key may do the same.
        cache: bool,
    },
    /// Addressed to weir itself.
    Local,
    /// To every other member of the bridge domain; the program holds what is to be done besides forwarding.
    Flood(Program, Rewrite),
}

impl Walk {
    pub(super) fn drop_once(reason: DropReason) -> Self {
        Self::Program { program: Program::drop(reason), rewrite: Rewrite::default(), cache: false }
    }

    /// A drop that is cached. A SYN is decided about anew all the same: it opens a connection where a stray packet does not.
    fn drop_flow(reason: DropReason) -> Self {
        let mut program = Program::drop(reason);
        program.ops |= Ops::WATCH_TCP;
        Self::Program { program, rewrite: Rewrite::default(), cache: true }
    }
}

/// How a packet relates to what is known. In this order, so that where a `Result` has it, a refusal shares no bytes with a part of
/// something wider, which would be read in pieces then, and late.
#[repr(C)]
pub(super) struct Relation {
    pub(super) direction: Direction,
    pub(super) established: bool,
    /// An ICMP error about a session: passes as part of it, and makes none of its own.
    pub(super) related: bool,
    pub(super) chain: Option<ChainId>,
    pub(super) session: Option<SessionId>,
    /// The segment of the chain that it comes to.
    pub(super) segment: usize,
    /// The session's.
    pub(super) translations: Translations,
}

/// Where a packet leaves its chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Exit {
    /// At its end: it goes where the forwarding says.
    End,
    /// To an attached hop, by this interface.
    Hop(ScopeId),
}

/// What a chain came to.
pub(super) struct Taken {
    pub(super) exit: Exit,
    pub(super) session: Option<SessionId>,
    /// Whether all sessions on the way are such that programs may be cached.
    pub(super) settled: bool,
}

/// Why a packet goes no further, and whether that is true of its whole flow.
pub(super) struct Refusal {
    pub(super) reason: DropReason,
    pub(super) lasting: bool,
}

impl Refusal {
    pub(super) fn of_flow(reason: DropReason) -> Self {
        Self { reason, lasting: reason != DropReason::MeterTableFull }
    }

    pub(super) fn once(reason: DropReason) -> Self {
        Self { reason, lasting: false }
    }

    fn walk(self, cacheable: bool) -> Walk {
        if self.lasting && cacheable { Walk::drop_flow(self.reason) } else { Walk::drop_once(self.reason) }
    }
}

/// Walks packets over one pipeline.
#[derive(Clone, Copy, Debug)]
pub struct Walker<'a> {
    /// The compiled configuration.
    pub pipeline: &'a Pipeline,
    /// What generations share.
    pub tables: &'a Tables,
    /// Collects what has to be sent to resolve neighbours.
    pub asks: &'a RefCell<Vec<NeighbourAction>>,
    /// Where the flow before went, that began in the same burst.
    pub last_way: Option<&'a RefCell<LastWay>>,
}

impl Walker<'_> {
    /// Decides about one packet, which came in by `scope` and lies in `packet` from its Ethernet header on.
    pub fn walk(
        &self,
        scope: &Scope,
        packet: &[u8],
        meta: &Meta,
        now: Nanos,
        path: &mut PathBuilder,
    ) -> Walk {
        let mut tuple = Tuple::of(packet, meta);
        if let Domain::Vrf(vrf) = scope.domain {
            if let Some(walk) = self.admit_routed(vrf, scope, meta, tuple.as_ref()) {
                return walk;
            }
        }
        let (source, destination) = ether_addresses(packet);
        if let Domain::Bridge(bridge) = scope.domain {
            if let Err(reason) = self.learn(bridge, scope, meta, source, now) {
                return Walk::drop_once(reason);
            }
        }
        if let Domain::Hop(_) = scope.domain {
            // What it says for itself, to its neighbours on the wire.
            if tuple.is_none() || meta.flags.intersects(PacketFlags::IP_GROUP | PacketFlags::ETHER_GROUP) {
                return Walk::drop_once(DropReason::HopStray);
            }
        }
        if !scope.chained {
            path.reset(tuple.as_ref());
            return self.conclude(scope, packet, meta, destination, path, Exit::End, None, now, true);
        }
        // Addressed to weir, but perhaps on its way to somebody behind a translator.
        let own = self.is_own(scope, tuple.as_ref());
        if let Some(tuple) = &mut tuple {
            let domain = session_domain(scope.id, scope.domain);
            if !self.tables.fragments.restore(domain, packet, meta, tuple, now) {
                return if own { Walk::Local } else { Walk::drop_once(DropReason::FragmentUnknown) };
            }
        }
        path.reset(tuple.as_ref());
        // An ICMP error is judged by what it quotes, and that is not in the flow key. It is about what its receiver sent.
        let cacheable = !packet::is_error(meta);
        let own_packet = |quoted: &Tuple| tuple.is_some_and(|tuple| tuple.destination == quoted.source);
        let quoted = packet::embedded_tuple(packet, meta).map(Tuple::from).filter(own_packet);
        if quoted.is_some() {
            path.quote(quoted);
        }
        let ways = self.ways(scope, packet, meta);
        let (id, domain) = self.seen_from(scope, destination);
        let mut view = FlowView {
            scope: id,
            domain,
            ether_source: source,
            ether_destination: destination,
            tuple: tuple.as_ref(),
            meta,
            direction: Direction::Forward,
            established: false,
            now,
            translations: Translations::none(),
            ways: &ways,
        };
        let returned = if let Domain::Hop(hop) = scope.domain { Some(hop) } else { None };
        let relation = match returned {
            Some(hop) => self.relate_returned(hop, scope, &view, quoted.as_ref()),
            None => self.relate(&view, quoted.as_ref()),
        };
        let mut relation = match relation {
            Ok(relation) => relation,
            Err(refusal) => return refusal.walk(cacheable),
        };
        if relation.session.is_none() && !relation.related && returned.is_none() {
            match self.address(&view, relation.chain, own) {
                Addressee::Another => {}
                Addressee::Behind(translation, chain) => {
                    relation.direction = Direction::Reverse;
                    relation.chain = Some(chain);
                    relation.segment = self.pipeline.chain(chain).map_or(0, Chain::last_segment);
                    if self.is_translated_in(chain, relation.segment, &translation, &view) {
                        relation.translations.push(translation);
                    }
                }
                Addressee::Weir => return Walk::Local,
                Addressee::Nobody(reason) if cacheable => return Walk::drop_flow(reason),
                Addressee::Nobody(reason) => return Walk::drop_once(reason),
            }
        }
        let taken = match relation.chain.and_then(|chain| Some((chain, self.pipeline.chain(chain)?))) {
            Some(chain) => match self.take_chain(chain, relation, &mut view, path) {
                Ok(taken) => taken,
                Err(refusal) => return refusal.walk(cacheable),
            },
            None => {
                let session = relation.session;
                Taken { exit: Exit::End, session, settled: self.is_settled(session) }
            }
        };
        let Taken { exit, session, settled } = taken;
        self.conclude(scope, packet, meta, destination, path, exit, session, now, cacheable && settled)
    }

    /// Whether programs of a session may be cached.
    pub(super) fn is_settled(&self, session: Option<SessionId>) -> bool {
        session.is_none_or(|id| self.tables.sessions.is_established(id))
    }

    /// Redoes the forwarding of a flow whose program is otherwise still right: its walk is not repeated.
    pub fn forward_again(
        &self,
        scope: &Scope,
        packet: &[u8],
        meta: &Meta,
        program: &mut Program,
        rewrite: &Rewrite,
        now: Nanos,
    ) -> bool {
        // What a chain dropped is not for the forwarding tables to let pass.
        if program.ops.contains(Ops::DROP) {
            return false;
        }
        // What goes to an attached hop goes there wherever the forwarding leads.
        if program.ops.contains(Ops::RETAG) && matches!(scope.domain, Domain::Vrf(_) | Domain::Hop(_)) {
            return true;
        }
        // The station may be back where it was before it moved: then this is how the table hears of it.
        let (source, destination) = ether_addresses(packet);
        if let Domain::Bridge(bridge) = scope.domain {
            if self.learn(bridge, scope, meta, source, now).is_err() {
                return false;
            }
        }
        let mut tuple = Tuple::of(packet, meta);
        if let Some(tuple) = &mut tuple {
            if let Some((ip, port)) = rewrite.source {
                (tuple.source, tuple.source_port) = (ip, port);
            }
            if let Some((ip, port)) = rewrite.destination {
                (tuple.destination, tuple.destination_port) = (ip, port);
            }
        }
        match self.forward(scope, packet, meta, destination, tuple.as_ref(), now) {
            Walk::Program { program: fresh, cache: true, .. } => {
                const KEPT: Ops = Ops::METER.union(Ops::REWRITE).union(Ops::SESSION).union(Ops::WATCH_TCP);
                let (kept, old) = (program.ops & KEPT, *program);
                *program = fresh;
                program.ops |= kept;
                (program.meters, program.meter_count) = (old.meters, old.meter_count);
                program.session = old.session;
                true
            }
            _ => false,
        }
    }

    /// What a routed interface takes before anything else is asked: `None` to go on.
    fn admit_routed(
        &self,
        vrf: crate::decision::VrfId,
        scope: &Scope,
        meta: &Meta,
        tuple: Option<&Tuple>,
    ) -> Option<Walk> {
        let Some(tuple) = tuple else {
            return Some(match meta.l3 {
                L3::Arp => Walk::Local,
                _ => Walk::drop_flow(DropReason::UnsupportedEtherType),
            });
        };
        if meta.flags.intersects(PacketFlags::IP_GROUP | PacketFlags::ETHER_GROUP) {
            return Some(Walk::Local);
        }
        if self.is_local(vrf, scope, tuple.destination) && !self.is_own(scope, Some(tuple)) {
            return Some(Walk::Local);
        }
        sanity::forwardable(tuple.source, tuple.destination).err().map(Walk::drop_once)
    }

    /// Learns the source of a bridged frame.
    fn learn(
        &self,
        bridge: crate::decision::BridgeId,
        scope: &Scope,
        meta: &Meta,
        source: MacAddress,
        now: Nanos,
    ) -> Result<(), DropReason> {
        if source.is_group() {
            return Err(DropReason::BridgeSource);
        }
        if let Some(bridge) = self.pipeline.bridge(bridge) {
            bridge.learn(&self.tables.macs, source, ingress_member(scope, meta), now);
        }
        Ok(())
    }

    /// Finds what is known of a packet: its session, the session that an ICMP error is about, or else its chain.
    fn relate(&self, view: &FlowView<'_>, quoted: Option<&Tuple>) -> Result<Relation, Refusal> {
        let classified = |walker: &Self| Relation {
            direction: Direction::Forward,
            established: false,
            chain: walker.pipeline.classifier.classify(view, view.tuple),
            segment: 0,
            session: None,
            related: false,
            translations: Translations::default(),
        };
        let Some(tuple) = view.tuple else { return Ok(classified(self)) };
        let sessions = &self.tables.sessions;
        // An error belongs to no session by its own addresses: what other ICMP messages between the two opened says nothing of it.
        let error = packet::is_error(view.meta);
        let own = |domain: Domain| {
            sessions
                .lookup(domain, tuple, view.meta.tcp_flags, view.now)
                .filter(|found| !error && self.goes_on(view, found))
        };
        if let Some((found, segment)) = self.find(view, own)? {
            self.follow(view, tuple, &found);
            let Found { id, direction, chain, translations, .. } = found;
            let chain = chain.filter(|chain| self.pipeline.chain(*chain).is_some()).or_else(|| {
                // The chain that the session was sent into is gone: ask again.
                self.pipeline.classifier.classify(view, Some(tuple))
            });
            let session = Some(id);
            let related = false;
            return Ok(Relation {
                direction,
                established: true,
                chain,
                segment,
                session,
                related,
                translations,
            });
        }
        let Some(quoted) = quoted else { return Ok(classified(self)) };
        let about = |domain: Domain| {
            sessions.lookup_related(domain, quoted, view.now).filter(|found| self.goes_on(view, found))
        };
        if let Some((found, segment)) = self.find(view, about)? {
            let Found { direction, chain, translations, .. } = found;
            let (session, related) = (None, true);
            return Ok(Relation {
                direction,
                established: true,
                chain,
                segment,
                session,
                related,
                translations,
            });
        }
        Ok(classified(self))
    }

    /// Follows a packet of a session.
    pub(super) fn follow(&self, view: &FlowView<'_>, tuple: &Tuple, found: &Found) {
        let sessions = &self.tables.sessions;
        if tuple.protocol == protocol::TCP && view.meta.fragment != FragmentKind::Later {
            sessions.observe(found.id, found.direction, view.meta.tcp_flags, view.now);
        } else {
            sessions.touch(found.id, view.now);
        }
    }

    /// Makes the session of a packet that a segment of a chain let pass, in the segment's domain.
    pub(super) fn open(
        &self,
        domain: Domain,
        view: &FlowView<'_>,
        chain: ChainId,
        tuple: &Tuple,
        path: &mut PathBuilder,
    ) -> Result<Created, DropReason> {
        let after = path.tuple().ok_or(DropReason::InternalError)?.reversed();
        // Whoever opens it from outside, over a binding, is not the one that the chain is seen from.
        let (forward, reply, translations) = match view.direction {
            Direction::Forward => (tuple, &after, path.take_translations()),
            Direction::Reverse => (&after, tuple, view.translations.clone()),
        };
        let new = NewSession {
            domain,
            forward,
            reply,
            direction: view.direction,
            chain: Some(chain),
            cuts: self.pipeline.chain(chain).map_or(0, Chain::cuts),
            tcp_flags: view.meta.tcp_flags,
            timeouts: path.timeouts().or_else(|| self.timeouts(chain, &translations)),
            translations,
        };
        let settle = |translations: &Translations| {
            if let (Direction::Forward, IpAddr::V4(remote)) = (view.direction, tuple.destination) {
                // Whose destination it is has not sent anything.
                for translation in translations.iter().filter(|known| known.side == Side::Source) {
                    translation.mapping.settle(translation.rule, Some(chain), remote);
                }
            }
        };
        self.tables.sessions.create_and(new, view.now, settle).map_err(|refused| match refused {
            Refused::Full => DropReason::SessionTableFull,
            Refused::ReplyTaken => DropReason::SessionClash,
        })
    }

    /// Asks each service of a segment of a chain, in the direction of the packet.
    pub(super) fn ask_hops(
        &self,
        chain: &Chain,
        segment: usize,
        view: &FlowView<'_>,
        path: &mut PathBuilder,
    ) -> Step {
        let services = chain.services(segment);
        let mut ask = |hop: &usize| match self.pipeline.services.get(*hop) {
            Some(service) => service.decide(view, path),
            None => Step::Drop(DropReason::InternalError),
        };
        let stop = |step: &Step| *step != Step::Continue;
        match view.direction {
            Direction::Forward => services.iter().map(&mut ask).find(stop),
            Direction::Reverse => services.iter().rev().map(&mut ask).find(stop),
        }
        .unwrap_or(Step::Continue)
    }

    /// Asks where the packet goes, and compiles everything that was decided.
    #[allow(clippy::too_many_arguments)]
    fn conclude(
        &self,
        scope: &Scope,
        packet: &[u8],
        meta: &Meta,
        destination: MacAddress,
        path: &PathBuilder,
        exit: Exit,
        session: Option<SessionId>,
        now: Nanos,
        cacheable: bool,
    ) -> Walk {
        let mut walk = match exit {
            Exit::End => self.forward(scope, packet, meta, destination, path.tuple(), now),
            Exit::Hop(arm) => self.towards_hop(scope, packet, meta, arm, now),
        };
        let (program, rewrite, cache) = match &mut walk {
            Walk::Program { program, rewrite, cache } => (program, rewrite, Some(cache)),
            Walk::Flood(program, rewrite) => (program, rewrite, None),
            Walk::Local => return walk,
        };
        for edit in path.edits() {
            match *edit {
                Edit::Meter(meter) => {
                    if !program.push_meter(meter) {
                        return Walk::drop_once(DropReason::MeterTableFull);
                    }
                }
                Edit::SetQuoted(source, destination) => {
                    rewrite.quoted = Some((source, destination));
                    program.ops |= Ops::REWRITE;
                }
                Edit::SetSource(ip, port) => {
                    rewrite.source = Some((ip, port));
                    program.ops |= Ops::REWRITE;
                }
                Edit::SetDestination(ip, port) => {
                    rewrite.destination = Some((ip, port));
                    program.ops |= Ops::REWRITE;
                }
            }
        }
        if let Some(session) = session {
            program.session = session;
            program.ops |= Ops::SESSION;
            if path.tuple().is_some_and(|tuple| tuple.protocol == protocol::TCP) {
                program.ops |= Ops::WATCH_TCP;
            }
        }
        if let Some(cache) = cache {
            *cache &= cacheable;
        }
        walk
    }
}

/// Ethernet source and destination of a frame.
fn ether_addresses(packet: &[u8]) -> (MacAddress, MacAddress) {
    let [a, b, c, d, e, f, g, h, i, j, k, l] = packet.first_chunk::<12>().copied().unwrap_or_default();
    (MacAddress([g, h, i, j, k, l]), MacAddress([a, b, c, d, e, f]))
}

/// The bridge member that a packet came in by.
pub(super) fn ingress_member(scope: &Scope, meta: &Meta) -> Member {
    let endpoint = match scope.kind {
        ScopeKind::Port => None,
        ScopeKind::Tunnel(_) => Some(EndpointId(meta.endpoint)),
    };
    Member { scope: scope.id, endpoint }
}
