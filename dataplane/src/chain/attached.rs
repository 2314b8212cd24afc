//! Chains with attached hops: which segment of its chain a packet comes to, and what is known of it there.
//!
//! Attached hops cut a chain into segments. A segment is walked as a whole chain is: its services are asked, and it has sessions of
//! its own, for the services on the two sides of a hop keep what they know under different tuples. The sessions of the first
//! segment are in the domain that packets come in by; those of any other in that of the hop in front of it.

use weir_config::MacAddress;

use crate::decision::{
    ChainId, Direction, Domain, DropReason, FlowView, HopId, PathBuilder, ScopeId, SessionId, Step,
    Translation, Translations, Tuple,
};
use crate::packet::is_error;
use crate::session::{Found, session_domain};

use super::pipeline::{AttachedHop, Chain, Scope};
use super::walk::{Exit, Refusal, Relation, Taken, Walker};

impl Walker<'_> {
    /// The interface that a packet came to weir by, and what that belongs to. If it came back from a hop, its Ethernet
    /// destination tells: it is still that of the interface, unless the hop replaced it.
    pub(super) fn seen_from(&self, scope: &Scope, destination: MacAddress) -> (ScopeId, Domain) {
        let Domain::Hop(hop) = scope.domain else { return (scope.id, scope.domain) };
        let Some(hop) = self.pipeline.hop(hop) else { return (scope.id, scope.domain) };
        let domain = Domain::Vrf(hop.vrf);
        let mut scopes = self.pipeline.scopes.iter().flatten();
        let came_by = scopes.find(|scope| scope.domain == domain && scope.mac == destination);
        (came_by.map_or(scope.id, |scope| scope.id), domain)
    }

    /// Finds a session by `look_up`, which is given domains to look in, and the segment that its packets come to from outside.
    /// Replies come to the last segment: the session that counts is the one there.
    pub(super) fn find(
        &self,
        view: &FlowView<'_>,
        look_up: impl Fn(Domain) -> Option<Found>,
    ) -> Result<Option<(Found, usize)>, Refusal> {
        let first = session_domain(view.scope, view.domain);
        let found = look_up(first);
        if self.pipeline.hops.is_empty() {
            return Ok(found.map(|found| (found, 0)));
        }
        if let Some(found) = found {
            let chain = found.chain.and_then(|chain| self.pipeline.chain(chain));
            let last = chain.map_or(0, Chain::last_segment);
            if found.direction == Direction::Forward || last == 0 {
                return Ok(Some((found, 0)));
            }
            let there = chain.and_then(|chain| look_up(chain.domain(last, first)));
            let reply =
                there.filter(|there| there.direction == Direction::Reverse && there.chain == found.chain);
            return match reply {
                Some(reply) => Ok(Some((reply, last))),
                None => Err(Refusal::of_flow(DropReason::HopNoSession)),
            };
        }
        // Where addresses are translated behind a hop, only the last segment knows them.
        for hop in self.pipeline.hops.iter().flatten().filter(|hop| Domain::Vrf(hop.vrf) == view.domain) {
            let Some(chain) =
                self.pipeline.chain(hop.chain).filter(|chain| chain.last_segment() == hop.at + 1)
            else {
                continue;
            };
            let found = look_up(chain.domain(hop.at + 1, first));
            let reply =
                |found: &Found| found.direction == Direction::Reverse && found.chain == Some(hop.chain);
            if let Some(found) = found.filter(reply) {
                return Ok(Some((found, hop.at + 1)));
            }
        }
        Ok(None)
    }

    /// Says what is known of a packet that came back from a hop.
    pub(super) fn relate_returned(
        &self,
        id: HopId,
        scope: &Scope,
        view: &FlowView<'_>,
        quoted: Option<&Tuple>,
    ) -> Result<Relation, Refusal> {
        let stray = || Refusal::once(DropReason::HopStray);
        let hop = self.pipeline.hop(id).ok_or_else(stray)?;
        let chain = self.pipeline.chain(hop.chain).ok_or_else(stray)?;
        let tuple = view.tuple.ok_or_else(stray)?;
        let directions = hop.directions(scope.id);
        let known = |direction| {
            let place = Place { chain, id: hop.chain, segment: hop.segment_after(direction), direction };
            self.known(&place, view, tuple, quoted)
        };
        if let Some(known) = directions.clone().find_map(known) {
            return Ok(known);
        }
        // The first of its connection on this side: the other side knows it.
        let mut sent = directions.filter(|direction| self.was_sent(hop, chain, *direction, view, *tuple));
        let direction = sent.next().ok_or_else(stray)?;
        let place = Place { chain, id: hop.chain, segment: hop.segment_after(direction), direction };
        Ok(self.unknown(&place, view, tuple))
    }

    /// Whether the segment in front of a hop, in a direction, has the session of a packet with this tuple.
    fn was_sent(
        &self,
        hop: &AttachedHop,
        chain: &Chain,
        direction: Direction,
        view: &FlowView<'_>,
        tuple: Tuple,
    ) -> bool {
        let (segment, turned) = match direction {
            Direction::Forward => (hop.at, Direction::Reverse),
            Direction::Reverse => (hop.at + 1, Direction::Forward),
        };
        let domain = chain.domain(segment, view.domain);
        // How a packet leaves a segment, the session knows as the reverse of how a reply comes to it.
        let found = self.tables.sessions.lookup(domain, &tuple.reversed(), 0, view.now);
        found.is_some_and(|found| found.direction == turned && found.chain == Some(hop.chain))
    }

    /// What a segment knows of a packet that comes to it from another one.
    fn known(
        &self,
        place: &Place<'_>,
        view: &FlowView<'_>,
        tuple: &Tuple,
        quoted: Option<&Tuple>,
    ) -> Option<Relation> {
        let domain = place.chain.domain(place.segment, session_domain(view.scope, view.domain));
        let sessions = &self.tables.sessions;
        let fits = |found: &Found| {
            found.direction == place.direction && found.chain == Some(place.id) && self.goes_on(view, found)
        };
        let own = sessions
            .lookup(domain, tuple, view.meta.tcp_flags, view.now)
            .filter(|found| !is_error(view.meta) && fits(found));
        let related = own.is_none();
        if let Some(found) = &own {
            self.follow(view, tuple, found);
        }
        let found = own.or_else(|| sessions.lookup_related(domain, quoted?, view.now).filter(fits))?;
        Some(Relation {
            direction: place.direction,
            established: true,
            chain: Some(place.id),
            segment: place.segment,
            session: (!related).then_some(found.id),
            related,
            translations: found.translations,
        })
    }

    /// A packet that is the first of its connection in a segment. If it comes from outside, over a binding, it is translated in the
    /// segment that has the translator.
    fn unknown(&self, place: &Place<'_>, view: &FlowView<'_>, tuple: &Tuple) -> Relation {
        let mut translations = Translations::default();
        if let (Direction::Reverse, Domain::Vrf(vrf)) = (place.direction, view.domain) {
            let bound = self.tables.nat.from_outside(vrf, view.meta, tuple);
            if let Some((translation, chain)) = bound {
                if chain == Some(place.id)
                    && self.is_translated_in(place.id, place.segment, &translation, view)
                {
                    translations.push(translation);
                }
            }
        }
        Relation {
            direction: place.direction,
            established: false,
            chain: Some(place.id),
            segment: place.segment,
            session: None,
            related: false,
            translations,
        }
    }

    /// Whether a translation was made by a service of a segment.
    pub(super) fn is_translated_in(
        &self,
        chain: ChainId,
        segment: usize,
        translation: &Translation,
        view: &FlowView<'_>,
    ) -> bool {
        let services = self.pipeline.chain(chain).map(|chain| chain.services(segment)).unwrap_or_default();
        let mut services = services.iter().filter_map(|service| self.pipeline.services.get(*service));
        services.any(|service| service.keeps(translation, view.ways))
    }

    /// Takes a packet through its chain, from the segment that it comes to up to where it leaves weir.
    pub(super) fn take_chain<'v>(
        &self,
        (id, chain): (ChainId, &Chain),
        mut relation: Relation,
        view: &mut FlowView<'v>,
        path: &mut PathBuilder,
    ) -> Result<Taken, Refusal> {
        let (first, mut settled) = (session_domain(view.scope, view.domain), true);
        // What comes to the segment, where that is not the first.
        let mut edited: Option<Tuple> = None;
        let mut passed: Vec<SessionId> = Vec::new();
        loop {
            let tuple = edited.as_ref().or(view.tuple);
            let view = FlowView {
                direction: relation.direction,
                established: relation.established,
                translations: &relation.translations,
                tuple,
                ..*view
            };
            if let Step::Drop(reason) | Step::Reject(reason) =
                self.ask_hops(chain, relation.segment, &view, path)
            {
                return Err(Refusal::of_flow(reason));
            }
            let hop = chain.hop_behind(relation.segment, relation.direction);
            let way = hop.map(|hop| self.way_to(hop, &view)).transpose()?;
            let mut session = relation.session;
            if let (None, Some(tuple), false) = (session, tuple, relation.related) {
                let domain = chain.domain(relation.segment, first);
                let created = self.open(domain, &view, id, tuple, path).map_err(Refusal::once)?;
                session = Some(created.id);
                // Another worker was first, with the other direction: the services were asked about the wrong one.
                settled &= created.direction == view.direction;
            }
            settled &= self.is_settled(session);
            let exit = match way {
                None => Exit::End,
                Some(Way::By(arm)) => Exit::Hop(arm),
                Some(Way::Past(segment)) => {
                    passed.extend(session);
                    let place = Place { chain, id, segment, direction: relation.direction };
                    let next = path.tuple().copied();
                    let tuple = next.as_ref().ok_or(Refusal::once(DropReason::InternalError))?;
                    let quoted = path.quoted();
                    let known = self.known(&place, &view, tuple, quoted.as_ref());
                    relation = match known {
                        Some(known) => known,
                        None if relation.related => return Err(Refusal::of_flow(DropReason::HopNoSession)),
                        None => self.unknown(&place, &view, tuple),
                    };
                    edited = next;
                    continue;
                }
            };
            if !self.pipeline.hops.is_empty() {
                passed.extend(session);
                self.tables.sessions.tie(&passed);
            }
            return Ok(Taken { exit, session, settled });
        }
    }

    /// How packets go on at an attached hop.
    fn way_to(&self, hop: HopId, view: &FlowView<'_>) -> Result<Way, Refusal> {
        let hop = self.pipeline.hop(hop).filter(|hop| Domain::Vrf(hop.vrf) == view.domain);
        match hop {
            Some(hop) if hop.up => Ok(Way::By(hop.way_in(view.direction))),
            Some(hop) if hop.skipped => Ok(Way::Past(hop.segment_after(view.direction))),
            _ => Err(Refusal::of_flow(DropReason::HopDown)),
        }
    }
}

/// A segment of a chain, in one direction.
struct Place<'a> {
    chain: &'a Chain,
    id: ChainId,
    segment: usize,
    direction: Direction,
}

/// How packets go on at an attached hop.
enum Way {
    /// To it, by this interface.
    By(ScopeId),
    /// Past it, to this segment.
    Past(usize),
}
