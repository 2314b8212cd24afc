//! The walk: asks the stages, in order, about a packet whose flow has no program, and compiles what they say.
//!
//! Nothing here touches bytes. The caller replays the program on the packet itself, so the first packet of a flow and
//! the later ones go through the same code.

use std::cell::RefCell;
use std::net::IpAddr;

use crate::decision::{
    ChainId, Direction, Domain, DropReason, Edit, EndpointId, FlowView, Nanos, PathBuilder, SessionId, Step,
    Translations, Tuple,
};
use crate::flow::{Ops, Program, Rewrite};
use crate::l2::Member;
use crate::l3::{NeighbourAction, sanity};
use crate::packet::{FragmentKind, L3, Meta, PacketFlags, protocol};
use crate::session::{Created, Found, NewSession, Refused, session_domain};

use super::pipeline::{Pipeline, Scope, ScopeKind, Tables};
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
    fn drop_once(reason: DropReason) -> Self {
        Self::Program { program: Program::drop(reason), rewrite: Rewrite::default(), cache: false }
    }

    /// A drop that is cached. A SYN is decided about anew all the same: it opens a connection where a stray packet does not.
    fn drop_flow(reason: DropReason) -> Self {
        let mut program = Program::drop(reason);
        program.ops |= Ops::WATCH_TCP;
        Self::Program { program, rewrite: Rewrite::default(), cache: true }
    }
}

/// How a packet relates to what is known.
struct Relation {
    direction: Direction,
    established: bool,
    chain: Option<ChainId>,
    session: Option<SessionId>,
    /// An ICMP error about a session: passes as part of it, and makes none of its own.
    related: bool,
    /// The session's.
    translations: Translations,
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
        if !scope.chained {
            path.reset(tuple);
            return self.conclude(scope, packet, meta, destination, path, None, now, true);
        }
        // Addressed to weir, but perhaps on its way to somebody behind a translator.
        let own = self.is_own(scope, tuple.as_ref());
        if let Some(tuple) = &mut tuple {
            let domain = session_domain(scope.id, scope.domain);
            if !self.tables.fragments.restore(domain, packet, meta, tuple, now) {
                return if own { Walk::Local } else { Walk::drop_once(DropReason::FragmentUnknown) };
            }
        }
        path.reset(tuple);
        // An ICMP error is judged by what it quotes, and that is not in the flow key.
        let quoted = crate::packet::embedded_tuple(packet, meta).map(Tuple::from);
        path.quote(quoted);
        let ways = self.ways(scope, packet, meta);
        let mut view = FlowView {
            scope: scope.id,
            domain: scope.domain,
            ether_source: source,
            ether_destination: destination,
            tuple,
            meta,
            direction: Direction::Forward,
            established: false,
            now,
            translations: Translations::none(),
            ways: &ways,
        };
        let mut cacheable = quoted.is_none();
        let mut relation = self.relate(&view, quoted.as_ref());
        if relation.session.is_none() && !relation.related {
            match self.address(&view, relation.chain, own) {
                Addressee::Another => {}
                Addressee::Behind(translation, chain) => {
                    relation.direction = Direction::Reverse;
                    relation.chain = Some(chain);
                    relation.translations.push(translation);
                }
                Addressee::Weir => return Walk::Local,
                Addressee::Nobody(reason) if cacheable => return Walk::drop_flow(reason),
                Addressee::Nobody(reason) => return Walk::drop_once(reason),
            }
        }
        view.direction = relation.direction;
        view.established = relation.established;
        view.translations = &relation.translations;
        if let Some(chain) = relation.chain {
            match self.ask_hops(chain, &view, path) {
                Step::Continue => {}
                Step::Drop(reason) | Step::Reject(reason) => {
                    return if cacheable && reason != DropReason::MeterTableFull {
                        Walk::drop_flow(reason)
                    } else {
                        Walk::drop_once(reason)
                    };
                }
            }
        }
        let mut session = relation.session;
        if let (None, Some(chain), Some(tuple), false) = (session, relation.chain, tuple, relation.related) {
            match self.open(&view, chain, &tuple, path) {
                Ok(created) => {
                    session = Some(created.id);
                    // Another worker was first, with the other direction: the hops were asked about the wrong one.
                    cacheable &= created.direction == view.direction;
                }
                Err(reason) => return Walk::drop_once(reason),
            }
        }
        let cache = cacheable && session.is_none_or(|id| self.tables.sessions.is_established(id));
        self.conclude(scope, packet, meta, destination, path, session, now, cache)
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
    fn relate(&self, view: &FlowView<'_>, quoted: Option<&Tuple>) -> Relation {
        let classified = |walker: &Self| Relation {
            direction: Direction::Forward,
            established: false,
            chain: walker.pipeline.classifier.classify(view, view.tuple.as_ref()),
            session: None,
            related: false,
            translations: Translations::default(),
        };
        let Some(tuple) = view.tuple else { return classified(self) };
        let sessions = &self.tables.sessions;
        let domain = session_domain(view.scope, view.domain);
        let found = sessions.lookup(domain, &tuple, view.meta.tcp_flags, view.now);
        let found = found.filter(|found| self.goes_on(view, found));
        if let Some(Found { id, direction, chain, translations, .. }) = found {
            if tuple.protocol == protocol::TCP && view.meta.fragment != FragmentKind::Later {
                sessions.observe(id, direction, view.meta.tcp_flags, view.now);
            } else {
                sessions.touch(id, view.now);
            }
            let chain = chain.filter(|chain| self.pipeline.chain(*chain).is_some()).or_else(|| {
                // The chain that the session was sent into is gone: ask again.
                self.pipeline.classifier.classify(view, Some(&tuple))
            });
            let session = Some(id);
            return Relation { direction, established: true, chain, session, related: false, translations };
        }
        let about = quoted.and_then(|quoted| sessions.lookup_related(domain, quoted, view.now));
        if let Some(found) = about.filter(|found| self.goes_on(view, found)) {
            let Found { direction, chain, translations, .. } = found;
            let session = None;
            return Relation { direction, established: true, chain, session, related: true, translations };
        }
        classified(self)
    }

    /// Makes the session of a packet that a chain let pass.
    fn open(
        &self,
        view: &FlowView<'_>,
        chain: ChainId,
        tuple: &Tuple,
        path: &mut PathBuilder,
    ) -> Result<Created, DropReason> {
        let after = path.tuple().ok_or(DropReason::InternalError)?.reversed();
        // Whoever opens it from outside, over a binding, is not the one that the chain is seen from.
        let (forward, reply, translations) = match view.direction {
            Direction::Forward => (*tuple, after, path.take_translations()),
            Direction::Reverse => (after, *tuple, view.translations.clone()),
        };
        let new = NewSession {
            domain: session_domain(view.scope, view.domain),
            forward,
            reply,
            direction: view.direction,
            chain: Some(chain),
            tcp_flags: view.meta.tcp_flags,
            timeouts: path.timeouts().or_else(|| self.timeouts(chain, &translations)),
            translations: translations.clone(),
        };
        let created = self.tables.sessions.create(new, view.now).map_err(|refused| match refused {
            Refused::Full => DropReason::SessionTableFull,
            Refused::ReplyTaken => DropReason::SessionClash,
        })?;
        if let (Direction::Forward, IpAddr::V4(remote)) = (view.direction, tuple.destination) {
            for translation in translations.iter() {
                translation.mapping.settle(Some(chain), remote);
            }
        }
        Ok(created)
    }

    /// Asks each hop of a chain, in the direction of the packet.
    fn ask_hops(&self, chain: ChainId, view: &FlowView<'_>, path: &mut PathBuilder) -> Step {
        let Some(chain) = self.pipeline.chain(chain) else { return Step::Continue };
        let mut ask = |hop: &usize| match self.pipeline.services.get(*hop) {
            Some(service) => service.decide(view, path),
            None => Step::Drop(DropReason::InternalError),
        };
        let stop = |step: &Step| *step != Step::Continue;
        match view.direction {
            Direction::Forward => chain.hops.iter().map(&mut ask).find(stop),
            Direction::Reverse => chain.hops.iter().rev().map(&mut ask).find(stop),
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
        session: Option<SessionId>,
        now: Nanos,
        cacheable: bool,
    ) -> Walk {
        let mut walk = self.forward(scope, packet, meta, destination, path.tuple().as_ref(), now);
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
