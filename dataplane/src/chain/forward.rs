//! The last step of a walk: where the packet goes.

use std::net::IpAddr;

use weir_config::MacAddress;

use crate::decision::{AdjacencyId, Domain, DropReason, EndpointId, Nanos, ScopeId, Tuple, VrfId};
use crate::flow::{Ops, Program, Rewrite};
use crate::l2::{Forward, Member};
use crate::l3::Target;
use crate::packet::{Meta, hash};

use super::pipeline::{Lane, Scope, ScopeKind};
use super::walk::{Walk, Walker, ingress_member};

/// Where the last new flow of a burst went: others that begin in the same burst often go the same way, and nothing that
/// decides about it changes meanwhile.
#[derive(Debug, Default)]
pub struct LastWay {
    /// Generation of the snapshot, epoch of the forwarding tables, time.
    stamp: (u32, u32, Nanos),
    /// A target of the VRF's routes, all of whose destinations share one next hop, and the program that sends there.
    way: Option<(VrfId, u32, Program)>,
}

impl LastWay {
    /// Forgets the way if it was found in another generation or epoch, or at another time.
    pub fn renew(&mut self, generation: u32, epoch: u32, now: Nanos) {
        if self.stamp != (generation, epoch, now) {
            *self = Self { stamp: (generation, epoch, now), way: None };
        }
    }
}

impl Walker<'_> {
    /// Decides where a packet goes, by what its scope belongs to. `tuple` is that after all rewrites.
    pub(super) fn forward(
        &self,
        scope: &Scope,
        packet: &[u8],
        meta: &Meta,
        destination: MacAddress,
        tuple: Option<&Tuple>,
        now: Nanos,
    ) -> Walk {
        let hash = || hash::flow_hash(packet, meta, self.tables.seed);
        if let (Some(vrf), Some(tuple), 0..=1) = (self.pipeline.vrf_of(scope), tuple, meta.ttl) {
            return self.forward_spent(vrf, tuple.destination, hash());
        }
        let result = match scope.domain {
            Domain::Vrf(_) | Domain::Hop(_) => match (self.pipeline.vrf_of(scope), tuple) {
                (Some(vrf), Some(tuple)) => self.route_again(vrf, tuple.destination, hash, now),
                (Some(_), None) => Err(DropReason::UnsupportedEtherType),
                (None, _) => Err(DropReason::HopStray),
            },
            Domain::Bridge(id) => match self.pipeline.bridge(id) {
                Some(bridge) => {
                    match bridge.forward(&self.tables.macs, ingress_member(scope, meta), destination, now) {
                        Forward::To(member) => self.to_member(scope.vlan != 0, member, hash(), now),
                        Forward::Flood => {
                            return Walk::Flood(Program::default(), Rewrite::default());
                        }
                        Forward::Drop(reason) => Err(reason),
                    }
                }
                None => Err(DropReason::NotConfigured),
            },
            Domain::CrossConnect(other) => {
                let endpoint = self.pipeline.scope(other).and_then(|scope| match &scope.kind {
                    ScopeKind::Tunnel(endpoints) => endpoints.first().copied(),
                    ScopeKind::Port => None,
                });
                self.to_member(scope.vlan != 0, Member { scope: other, endpoint }, hash(), now)
            }
        };
        let cache = !matches!(result, Err(DropReason::NeighbourTableFull));
        let mut program = result.unwrap_or_else(Program::drop);
        if scope.mss_clamp {
            self.clamp(scope, meta, &mut program, hash(), now);
        } else if program.ops.contains(Ops::ROUTE) && self.shares_with_clamped(scope) {
            // It lowers nothing here; but who replays it looks at SYNs.
            program.ops |= Ops::CLAMP_MSS;
        }
        Walk::Program { program, rewrite: Rewrite::default(), cache }
    }

    /// Whether programs of a scope are kept with routes that others take too, some of whose SYNs are told a segment size.
    fn shares_with_clamped(&self, scope: &Scope) -> bool {
        let vrf = || self.pipeline.vrf(self.pipeline.vrf_of(scope)?);
        scope.lane == Lane::Routes && vrf().is_some_and(|vrf| vrf.clamps)
    }

    /// What comes out of a tunnel is answered into it.
    fn clamp(&self, scope: &Scope, meta: &Meta, program: &mut Program, hash: u64, now: Nanos) {
        if scope.mss_clamp {
            program.ops |= Ops::CLAMP_MSS;
            program.clamp = program.clamp.min(self.way_back(scope, EndpointId(meta.endpoint), hash, now));
        }
    }

    /// Sends a packet to an attached hop by one of its interfaces: as it is, Ethernet addresses and all, and without taking from
    /// its TTL.
    pub(super) fn towards_hop(
        &self,
        scope: &Scope,
        packet: &[u8],
        meta: &Meta,
        arm: ScopeId,
        now: Nanos,
    ) -> Walk {
        let hash = hash::flow_hash(packet, meta, self.tables.seed);
        // A priority tag goes too where another tag comes: it names no VLAN.
        let tagged = self.pipeline.scope(arm).is_some_and(|arm| arm.vlan != 0);
        let member = Member { scope: arm, endpoint: None };
        let mut program =
            self.to_member(scope.vlan != 0 || tagged, member, hash, now).unwrap_or_else(Program::drop);
        self.clamp(scope, meta, &mut program, hash, now);
        Walk::Program { program, rewrite: Rewrite::default(), cache: true }
    }

    /// Of a packet that has no hop left: replay says so before it looks at a next hop. No neighbour is asked for on its behalf.
    fn forward_spent(&self, vrf: VrfId, destination: IpAddr, hash: u64) -> Walk {
        let program = match self.next_hop(vrf, destination, hash) {
            Ok((egress, _)) => Program { ops: Ops::FORWARD, egress, ..Program::default() },
            Err(reason) => Program::drop(reason),
        };
        Walk::Program { program, rewrite: Rewrite::default(), cache: program.ops.contains(Ops::DROP) }
    }

    /// Whether `ip` is weir's own in `vrf`, or a broadcast address of one of its subnets.
    pub(super) fn is_local(&self, vrf: VrfId, scope: &Scope, ip: IpAddr) -> bool {
        if scope.interface.as_ref().is_some_and(|interface| interface.owns(ip)) {
            return true;
        }
        matches!(
            self.pipeline.vrf(vrf).and_then(|vrf| vrf.fib.lookup(ip)),
            Some(Target::Local(_) | Target::Broadcast(_))
        )
    }

    /// The egress interface and next hop towards `destination`.
    pub fn next_hop(
        &self,
        vrf: VrfId,
        destination: IpAddr,
        hash: u64,
    ) -> Result<(ScopeId, IpAddr), DropReason> {
        let vrf = self.pipeline.vrf(vrf).ok_or(DropReason::NotConfigured)?;
        match vrf.fib.lookup(destination) {
            None => Err(DropReason::NoRoute),
            Some(Target::Blackhole) => Err(DropReason::Blackhole),
            Some(Target::Local(_) | Target::Broadcast(_)) => Err(DropReason::LocalUnsupported),
            Some(target) => match target.select(hash) {
                Some(hop) => Ok((hop.scope, hop.neighbour(destination))),
                None => Err(DropReason::NoRoute),
            },
        }
    }

    /// As [`route`](Self::route), for what is forwarded, without asking again what the flow before asked.
    fn route_again(
        &self,
        vrf: VrfId,
        destination: IpAddr,
        hash: impl Fn() -> u64,
        now: Nanos,
    ) -> Result<Program, DropReason> {
        let route = || {
            self.route(vrf, destination, hash(), now)
                .map(|program| Program { ops: program.ops | Ops::DECREMENT_TTL, ..program })
        };
        let (Some(last), Some(known)) = (self.last_way, self.pipeline.vrf(vrf)) else { return route() };
        let target = known.fib.lookup_number(destination);
        if let Ok(last) = last.try_borrow() {
            if let Some((_, _, program)) = last.way.filter(|way| (way.0, way.1) == (vrf, target)) {
                return Ok(program);
            }
        }
        let program = route()?;
        let direct = known.direct.get(target as usize).copied().unwrap_or(false);
        if direct && !self.spreads(&program) {
            if let Ok(mut last) = last.try_borrow_mut() {
                last.way = Some((vrf, target, program));
            }
        }
        Ok(program)
    }

    /// Whether the outer packets of a program's tunnel may take several paths.
    fn spreads(&self, program: &Program) -> bool {
        program.ops.contains(Ops::ENCAPSULATE)
            && self
                .pipeline
                .endpoints
                .get(program.endpoint.index())
                .and_then(|remote| self.pipeline.vrf(remote.underlay))
                .is_none_or(|underlay| underlay.multipath)
    }

    /// A program that routes to `destination` what weir itself made.
    pub fn route(
        &self,
        vrf: VrfId,
        destination: IpAddr,
        hash: u64,
        now: Nanos,
    ) -> Result<Program, DropReason> {
        let (scope, next_hop) = self.next_hop(vrf, destination, hash)?;
        self.towards(scope, next_hop, hash, now)
    }

    /// A program that sends to the neighbour `next_hop` on the routed interface `scope`.
    pub fn towards(
        &self,
        scope: ScopeId,
        next_hop: IpAddr,
        hash: u64,
        now: Nanos,
    ) -> Result<Program, DropReason> {
        let egress = self.pipeline.scope(scope).ok_or(DropReason::InterfaceDown)?;
        let mut program = match &egress.kind {
            ScopeKind::Port => {
                let adjacency = self.resolve(scope, next_hop, now)?;
                Program { egress: scope, adjacency, mtu: egress.mtu, ..Program::default() }
            }
            ScopeKind::Tunnel(endpoints) => {
                let endpoint = endpoints.first().copied().ok_or(DropReason::InternalError)?;
                let mut program = self.encapsulate(endpoint, hash, now)?;
                let fixed = egress.interface.as_ref().is_some_and(|i| i.point_to_point_mac.is_some());
                if !fixed {
                    program.inner = self.resolve(scope, next_hop, now)?;
                    program.ops |= Ops::INNER_ADJACENCY;
                }
                program
            }
        };
        program.ops |= Ops::ROUTE;
        Ok(program)
    }

    /// A program that sends a bridged or cross-connected frame to `member`, its Ethernet header kept. `pop_tag`: its
    /// outermost VLAN tag is that of the interface it came in by, and goes.
    pub fn to_member(
        &self,
        pop_tag: bool,
        member: Member,
        hash: u64,
        now: Nanos,
    ) -> Result<Program, DropReason> {
        let egress = self.pipeline.scope(member.scope).ok_or(DropReason::InterfaceDown)?;
        let mut program = match member.endpoint {
            Some(endpoint) => self.encapsulate(endpoint, hash, now)?,
            None => Program { ops: Ops::RETAG, egress: egress.id, mtu: egress.mtu, ..Program::default() },
        };
        if pop_tag {
            program.ops |= Ops::POP_TAG;
        }
        Ok(program)
    }

    /// A program that encapsulates towards `endpoint` and sends the outer packet along the underlay's route.
    fn encapsulate(&self, endpoint: EndpointId, hash: u64, now: Nanos) -> Result<Program, DropReason> {
        let (Some(remote), Some(outer)) = (
            self.pipeline.endpoints.get(endpoint.index()),
            self.pipeline.encapsulations.get(endpoint.index()),
        ) else {
            return Err(DropReason::InternalError);
        };
        // Turned, so that equal-cost paths inside and outside are chosen independently.
        let (scope, next_hop) = self.next_hop(remote.underlay, remote.remote, hash.rotate_left(32))?;
        let underlay = self.pipeline.scope(scope).ok_or(DropReason::InterfaceDown)?;
        if matches!(underlay.kind, ScopeKind::Tunnel(_)) {
            return Err(DropReason::TunnelLoop);
        }
        let mtu = self.tunnel_mtu_of(remote.scope, outer.overhead(), underlay.mtu, endpoint, now);
        let clamps = self.pipeline.scope(remote.scope).is_some_and(|tunnel| tunnel.mss_clamp);
        Ok(Program {
            ops: if clamps { Ops::ENCAPSULATE | Ops::CLAMP_MSS } else { Ops::ENCAPSULATE },
            egress: scope,
            adjacency: self.resolve(scope, next_hop, now)?,
            endpoint,
            mtu,
            clamp: if clamps { mtu } else { u16::MAX },
            ..Program::default()
        })
    }

    /// The largest L3 packet that fits `tunnel` back towards `endpoint`, in bytes; `u16::MAX` where there is no way back.
    fn way_back(&self, tunnel: &Scope, endpoint: EndpointId, hash: u64, now: Nanos) -> u16 {
        let way = self
            .pipeline
            .endpoints
            .get(endpoint.index())
            .and_then(|remote| self.next_hop(remote.underlay, remote.remote, hash.rotate_left(32)).ok());
        way.map_or(u16::MAX, |(egress, _)| self.tunnel_mtu(tunnel, endpoint, egress, now))
    }

    /// The largest L3 packet that fits `tunnel` towards `endpoint` when it leaves by `egress`, in bytes.
    pub fn tunnel_mtu(&self, tunnel: &Scope, endpoint: EndpointId, egress: ScopeId, now: Nanos) -> u16 {
        let overhead = self.pipeline.encapsulations.get(endpoint.index()).map_or(0, |outer| outer.overhead());
        let underlay = self.pipeline.scope(egress).map_or(0, |scope| scope.mtu);
        self.tunnel_mtu_of(tunnel.id, overhead, underlay, endpoint, now)
    }

    /// The underlay's MTU, lowered by what its ICMP errors taught, less the overhead; the tunnel's own if that is less.
    fn tunnel_mtu_of(
        &self,
        tunnel: ScopeId,
        overhead: u16,
        underlay: u16,
        endpoint: EndpointId,
        now: Nanos,
    ) -> u16 {
        let learned = self.tables.path_mtu.current(endpoint, now).unwrap_or(u16::MAX);
        let configured = self.pipeline.scope(tunnel).map_or(u16::MAX, |tunnel| tunnel.mtu);
        underlay.min(learned).saturating_sub(overhead).min(configured)
    }

    /// The adjacency of a neighbour, made if need be; what has to be sent for it is left in `asks`.
    fn resolve(&self, scope: ScopeId, ip: IpAddr, now: Nanos) -> Result<AdjacencyId, DropReason> {
        let interface = self
            .pipeline
            .scope(scope)
            .and_then(|scope| scope.interface.as_ref())
            .ok_or(DropReason::InternalError)?;
        let (adjacency, action) = self
            .tables
            .neighbours
            .resolve(interface, ip, now)
            .map_err(|crate::l3::TableFull| DropReason::NeighbourTableFull)?;
        if let (Some(action), Ok(mut asks)) = (action, self.asks.try_borrow_mut()) {
            asks.push(action);
        }
        Ok(adjacency)
    }
}
