//! What the walk needs to know where addresses are translated: to whom a packet to a translated address goes, whether a
//! session's translations still hold, and what routing is around a translator.

use std::net::IpAddr;

use crate::decision::{
    ChainId, Direction, Domain, DropReason, FlowView, Side, Timeouts, Translation, Translations, Tuple,
    VrfId, Way, Ways,
};
use crate::l3::Target;
use crate::packet::{Meta, PacketFlags, hash, protocol};
use crate::service::{External, ServiceFunction};
use crate::session::{Found, opens};

use super::pipeline::Scope;
use super::walk::Walker;

/// ICMP echo request (RFC 792).
const ECHO_REQUEST: u8 = 8;

/// Who a packet that belongs to no session is addressed to.
pub(super) enum Addressee {
    /// Somebody else than weir, or somebody whom a function of its chain will find.
    Another,
    /// The owner of a binding, whose chain it takes in reverse.
    Behind(Translation, ChainId),
    /// weir itself.
    Weir,
    /// Nobody.
    Nobody(DropReason),
}

/// The routing around a scope.
#[derive(Debug)]
pub(super) struct RoutedWays<'a> {
    walker: &'a Walker<'a>,
    vrf: Option<VrfId>,
    /// The packet whose hash chooses among equal paths; without one it is 0.
    packet: Option<(&'a [u8], &'a Meta)>,
}

impl Ways for RoutedWays<'_> {
    fn way(&self, destination: IpAddr) -> Option<Way> {
        let hash =
            self.packet.map_or(0, |(packet, meta)| hash::flow_hash(packet, meta, self.walker.tables.seed));
        let (scope, next_hop) = self.walker.next_hop(self.vrf?, destination, hash).ok()?;
        let egress = self.walker.pipeline.scope(scope)?.interface.as_ref()?;
        Some(Way { scope, source: egress.source_for(next_hop) })
    }

    fn owns(&self, ip: IpAddr) -> bool {
        self.vrf.is_some_and(|vrf| self.walker.owns(vrf, ip))
    }
}

impl Walker<'_> {
    /// The routing around a packet.
    pub(super) fn ways<'a>(&'a self, scope: &Scope, packet: &'a [u8], meta: &'a Meta) -> RoutedWays<'a> {
        RoutedWays { walker: self, vrf: self.pipeline.vrf_of(scope), packet: Some((packet, meta)) }
    }

    /// Whether an address is one of weir's own in a VRF.
    fn owns(&self, vrf: VrfId, ip: IpAddr) -> bool {
        let target = self.pipeline.vrf(vrf).and_then(|vrf| vrf.fib.lookup(ip));
        matches!(target, Some(Target::Local(_)))
    }

    /// Whether a packet is addressed to one of weir's own addresses that translators use too.
    pub(super) fn is_own(&self, scope: &Scope, tuple: Option<&Tuple>) -> bool {
        let (Domain::Vrf(vrf), Some(tuple), true) = (scope.domain, tuple, scope.chained) else {
            return false;
        };
        let (Some(external), IpAddr::V4(ip)) = (self.pipeline.external_of(vrf), tuple.destination) else {
            return false;
        };
        (external.own || external.contains(ip)) && self.owns(vrf, tuple.destination)
    }

    /// To whom a packet goes that belongs to no session and would take `chain`. `own`: to an address of weir's own.
    pub(super) fn address(&self, view: &FlowView<'_>, chain: Option<ChainId>, own: bool) -> Addressee {
        let (Domain::Vrf(vrf), Some(tuple)) = (view.domain, view.tuple) else { return Addressee::Another };
        let IpAddr::V4(ip) = tuple.destination else { return Addressee::Another };
        if !own && !self.pipeline.external_of(vrf).is_some_and(|external| external.contains(ip)) {
            return Addressee::Another;
        }
        if chain.is_some_and(|chain| self.hops(chain).any(|service| service.claims(view, tuple))) {
            return Addressee::Another;
        }
        if let Some((translation, chain)) = self.tables.nat.from_outside(vrf, view.meta, tuple) {
            if let Some(chain) = chain.filter(|chain| self.holds(view.ways, vrf, *chain, &translation)) {
                return self.over_binding(view, tuple, translation, chain);
            }
        }
        if own { Addressee::Weir } else { Addressee::Nobody(DropReason::NatNoBinding) }
    }

    /// A packet from outside to a binding, from somebody who has no session with its owner.
    fn over_binding(
        &self,
        view: &FlowView<'_>,
        tuple: &Tuple,
        translation: Translation,
        chain: ChainId,
    ) -> Addressee {
        let IpAddr::V4(remote) = tuple.source else { return Addressee::Nobody(DropReason::NatNoBinding) };
        if !self.hops(chain).any(|service| service.lets_in(&translation, remote)) {
            return Addressee::Nobody(DropReason::NatFiltered);
        }
        // A later fragment opens nothing: where its first one did, there is a session.
        if tuple.protocol == protocol::TCP && !opens(view.meta.tcp_flags) {
            return Addressee::Nobody(DropReason::NatNoSession);
        }
        Addressee::Behind(translation, chain)
    }

    /// Whether a session goes on for this packet. One whose translations do not hold any more is ended; a ping to weir's own
    /// address is no reply to a ping from behind it that has the same identifier.
    pub(super) fn goes_on(&self, view: &FlowView<'_>, found: &Found) -> bool {
        let chain = found.chain.and_then(|chain| self.pipeline.chain(chain));
        if chain.is_some_and(|chain| chain.cuts() != found.cuts && self.translates(found.chain)) {
            // A hop was attached or is gone: what was translated on one side of it would not be on the other.
            self.tables.sessions.remove(found.id, view.now);
            return false;
        }
        if found.translations.is_empty() {
            return true;
        }
        if !self.keeps(view.domain, found.chain, &found.translations) {
            self.tables.sessions.remove(found.id, view.now);
            return false;
        }
        let pings = view.meta.protocol == protocol::ICMP
            && view.meta.flags.contains(PacketFlags::TRANSPORT)
            && view.meta.icmp_type == ECHO_REQUEST;
        let reply = found.direction == Direction::Reverse;
        !(pings && reply && found.translations.iter().any(|translation| translation.side == Side::Source))
    }

    /// Whether the configuration still has what made a session's translations.
    pub fn keeps(&self, domain: Domain, chain: Option<ChainId>, translations: &Translations) -> bool {
        if translations.is_empty() {
            return true;
        }
        let vrf = match domain {
            Domain::Vrf(vrf) => Some(vrf),
            Domain::Hop(hop) => self.pipeline.hop(hop).map(|hop| hop.vrf),
            Domain::Bridge(_) | Domain::CrossConnect(_) => None,
        };
        let (Some(vrf), Some(chain)) = (vrf, chain) else { return false };
        let ways = RoutedWays { walker: self, vrf: Some(vrf), packet: None };
        translations.iter().all(|translation| self.holds(&ways, vrf, chain, translation))
    }

    fn holds(&self, ways: &dyn Ways, vrf: VrfId, chain: ChainId, translation: &Translation) -> bool {
        let (address, _) = translation.mapping.outside();
        let known = self.pipeline.external_of(vrf);
        known.is_some_and(|external| external.own || external.contains(address))
            && self.hops(chain).any(|service| service.keeps(translation, ways))
    }

    /// Whether a chain has a translator.
    fn translates(&self, chain: Option<ChainId>) -> bool {
        chain.is_some_and(|chain| self.hops(chain).any(|service| service.external() != External::default()))
    }

    /// How long a session lives that is opened from outside.
    pub(super) fn timeouts(&self, chain: ChainId, translations: &Translations) -> Option<Timeouts> {
        if translations.is_empty() {
            return None;
        }
        self.hops(chain).find_map(ServiceFunction::timeouts)
    }

    /// The functions of a chain.
    fn hops(&self, chain: ChainId) -> impl Iterator<Item = &dyn ServiceFunction> {
        let hops = self.pipeline.chain(chain).map(|chain| chain.hops.as_slice()).unwrap_or_default();
        hops.iter().filter_map(|hop| self.pipeline.services.get(*hop)).map(|service| &**service)
    }
}
