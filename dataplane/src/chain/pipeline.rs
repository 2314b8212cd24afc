//! The compiled configuration as the walk sees it, and the tables that outlive it.

use std::net::IpAddr;
use std::sync::Arc;

use weir_config::MacAddress;

use crate::decision::{
    AdjacencyTable, BridgeId, ChainId, Direction, Domain, Encapsulation, EndpointId, FieldSet, HopId,
    MeterTable, PortId, ScopeId, Tuple, VrfId,
};
use crate::flow::{Egress, FlowMask, InnerLink};
use crate::l2::{Bridge, MacTable};
use crate::l3::{Fib, Interface, NeighbourTable};
use crate::overlay::{PathMtuTable, VtepTable};
use crate::service::nat::NatTable;
use crate::service::{External, ServiceFunction, Show};
use crate::session::{FragmentTable, SessionTable};

use super::classifier::Classifier;

/// Tables that every generation shares: what was learned, and what is being spent.
#[derive(Debug)]
pub struct Tables {
    /// Connections.
    pub sessions: SessionTable,
    /// Ports of fragmented packets.
    pub fragments: FragmentTable,
    /// ARP and ND entries, over `adjacencies`.
    pub neighbours: NeighbourTable,
    /// Resolved next hops.
    pub adjacencies: Arc<AdjacencyTable>,
    /// Bridge entries.
    pub macs: MacTable,
    /// Token buckets.
    pub meters: Arc<MeterTable>,
    /// MTUs that the underlay taught.
    pub path_mtu: PathMtuTable,
    /// Address bindings.
    pub nat: Arc<NatTable>,
    /// Seed of flow hashes (ECMP, tunnel source ports): equal on all workers.
    pub seed: u64,
}

impl Tables {
    /// Move whenever a cached forwarding decision may have become wrong.
    #[inline]
    pub fn epochs(&self) -> Epochs {
        let path_mtu = self.path_mtu.epoch() as u32;
        Epochs { bridged: self.macs.epoch().wrapping_add(path_mtu), others: path_mtu }
    }
}

/// The state of what forwarding decisions are made from besides the configuration, as numbers. Apart, since stations that move in a
/// bridge domain, as they do in a loop, are nothing to what is routed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Epochs {
    /// Of what comes in by a bridge domain: bridge entries, and path MTUs that were learned.
    pub bridged: u32,
    /// Of everything else: path MTUs that were learned.
    pub others: u32,
}

/// What kind of interface a scope is.
#[derive(Clone, Debug)]
pub enum ScopeKind {
    /// A port, or a VLAN of it.
    Port,
    /// A tunnel with these endpoints.
    Tunnel(Vec<EndpointId>),
}

/// How plain packets of a scope are looked up ([`packet::plain`](crate::packet::plain)).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Lane {
    /// As all others: under a whole key.
    #[default]
    None,
    /// The destination alone decides: by their route.
    Routes,
    /// Under a compact key: the five-tuple.
    Flows,
    /// Under a compact key: both MAC addresses.
    Bridge,
    /// Not at all: everything goes to one other port.
    Wire,
}

/// One scope: an interface that packets come in by and leave by.
#[derive(Clone, Debug)]
pub struct Scope {
    /// Its number.
    pub id: ScopeId,
    /// Its name: `uplink`, `uplink.100`, `to-b`.
    pub name: String,
    /// What it belongs to.
    pub domain: Domain,
    /// Port or tunnel.
    pub kind: ScopeKind,
    /// Port; for a tunnel meaningless.
    pub port: PortId,
    /// VLAN id, 0: untagged.
    pub vlan: u16,
    /// Own MAC address.
    pub mac: MacAddress,
    /// Largest L3 packet in bytes; for a tunnel the configured one, else unbounded (the underlay bounds it).
    pub mtu: u16,
    /// A tunnel through which TCP SYNs are told a segment size that fits.
    pub mss_clamp: bool,
    /// Addresses and what goes with them, in a VRF.
    pub interface: Option<Interface>,
    /// What the flow key keeps.
    pub fields: FieldSet,
    /// The same as a mask.
    pub mask: FlowMask,
    /// Why each field is kept, for people.
    pub why: Vec<String>,
    /// Whether new flows are classified and sessions looked up.
    pub chained: bool,
    /// How plain packets are looked up.
    pub lane: Lane,
}

/// One remote VTEP of a tunnel.
#[derive(Clone, Debug)]
pub struct Endpoint {
    /// The tunnel's scope.
    pub scope: ScopeId,
    /// Remote VTEP.
    pub remote: IpAddr,
    /// VRF in which the outer packet is routed.
    pub underlay: VrfId,
}

/// One VRF.
#[derive(Debug)]
pub struct Vrf {
    /// Its name.
    pub name: String,
    /// Compiled routes.
    pub fib: Arc<Fib>,
    /// Whether some route has several next hops.
    pub multipath: bool,
    /// By target of the FIB: whether all destinations behind it share one next hop, so that one program does for all.
    pub direct: Vec<bool>,
    /// Whether SYNs that come in by some of its interfaces are told a segment size that fits: then what is done to a SYN depends
    /// on more than its destination.
    pub clamps: bool,
}

/// One chain.
#[derive(Clone, Debug)]
pub struct Chain {
    /// Its name.
    pub name: String,
    /// Indexes into [`Pipeline::services`], forward order.
    pub hops: Vec<usize>,
    /// Attached hops, forward order, each with the number of services in front of it. They cut the chain into segments.
    pub attached: Vec<(usize, HopId)>,
}

impl Chain {
    /// The number of the last segment.
    pub fn last_segment(&self) -> usize {
        self.attached.len()
    }

    /// How many attached hops it has.
    pub fn cuts(&self) -> u8 {
        // A chain has 64 hops at the most.
        u8::try_from(self.attached.len()).unwrap_or(u8::MAX)
    }

    /// The services of a segment, forward order.
    pub fn services(&self, segment: usize) -> &[usize] {
        let cut = |at: usize| self.attached.get(at).map(|(before, _)| *before);
        let from = segment.checked_sub(1).and_then(cut).unwrap_or(0);
        let to = cut(segment).unwrap_or(self.hops.len());
        self.hops.get(from..to).unwrap_or_default()
    }

    /// Where the sessions of a segment are looked up, if those of the first are in `first`.
    pub fn domain(&self, segment: usize, first: Domain) -> Domain {
        let hop = segment.checked_sub(1).and_then(|at| self.attached.get(at));
        hop.map_or(first, |(_, hop)| Domain::Hop(*hop))
    }

    /// The attached hop behind a segment, in a direction.
    pub fn hop_behind(&self, segment: usize, direction: Direction) -> Option<HopId> {
        let at = match direction {
            Direction::Forward => segment,
            Direction::Reverse => segment.checked_sub(1)?,
        };
        self.attached.get(at).map(|(_, hop)| *hop)
    }
}

/// An attached hop: something outside that the packets of a chain go through.
#[derive(Clone, Debug)]
pub struct AttachedHop {
    /// Its name.
    pub name: String,
    /// Its chain.
    pub chain: ChainId,
    /// Which of its chain's attached hops it is, from 0: it stands behind the segment of this number.
    pub at: usize,
    /// The VRF whose packets take the chain.
    pub vrf: VrfId,
    /// Its interfaces: forward packets go out by the first and come back by the second. With one arm, both are the same.
    pub arms: [ScopeId; 2],
    /// Whether packets can be sent to it.
    pub up: bool,
    /// Whether it is skipped while they cannot.
    pub skipped: bool,
}

impl AttachedHop {
    /// The interface that packets in a direction go out by.
    pub fn way_in(&self, direction: Direction) -> ScopeId {
        let [first, second] = self.arms;
        if direction == Direction::Forward { first } else { second }
    }

    /// The directions that a packet may have that comes back by an interface.
    pub fn directions(&self, scope: ScopeId) -> impl Iterator<Item = Direction> + Clone {
        let [first, second] = self.arms;
        let forward = (scope == second).then_some(Direction::Forward);
        forward.into_iter().chain((scope == first).then_some(Direction::Reverse))
    }

    /// The segment that packets in a direction go on in.
    pub fn segment_after(&self, direction: Direction) -> usize {
        if direction == Direction::Forward { self.at + 1 } else { self.at }
    }
}

/// A compiled configuration. Vectors are indexed by the ids; a number without a thing in this generation is `None`.
pub struct Pipeline {
    /// Scopes.
    pub scopes: Vec<Option<Scope>>,
    /// Scope of (port, VLAN): by port, then (VLAN, scope) pairs; VLAN 0 is untagged.
    pub by_port: Vec<Vec<(u16, ScopeId)>>,
    /// VRFs.
    pub vrfs: Vec<Option<Vrf>>,
    /// Bridge domains.
    pub bridges: Vec<Option<Bridge>>,
    /// Bridge names.
    pub bridge_names: Vec<String>,
    /// Tunnel endpoints.
    pub endpoints: Vec<Endpoint>,
    /// Outer headers by endpoint.
    pub encapsulations: Vec<Encapsulation>,
    /// Inner Ethernet addresses by endpoint.
    pub inner: Vec<InnerLink>,
    /// What replay needs of scopes.
    pub egress: Vec<Egress>,
    /// Local VTEPs, by the VRF in which they are reached; past the end: none.
    pub vteps: Vec<VtepTable>,
    /// Classifier.
    pub classifier: Classifier,
    /// Chains.
    pub chains: Vec<Option<Chain>>,
    /// Attached hops.
    pub hops: Vec<Option<AttachedHop>>,
    /// Addresses that are translated, by VRF; past the end: none.
    pub external: Vec<External>,
    /// Service functions.
    pub services: Vec<Box<dyn ServiceFunction>>,
}

impl std::fmt::Debug for Pipeline {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pipeline").field("scopes", &self.scopes).finish_non_exhaustive()
    }
}

impl Pipeline {
    /// A scope by number.
    #[inline]
    pub fn scope(&self, id: ScopeId) -> Option<&Scope> {
        self.scopes.get(id.index())?.as_ref()
    }

    /// A VRF by number.
    #[inline]
    pub fn vrf(&self, id: VrfId) -> Option<&Vrf> {
        self.vrfs.get(id.index())?.as_ref()
    }

    /// The VTEPs that packets of a VRF may be addressed to.
    #[inline]
    pub fn vteps_of(&self, id: VrfId) -> Option<&VtepTable> {
        self.vteps.get(id.index())
    }

    /// The addresses of a VRF that packets come to which are translated.
    pub fn external_of(&self, id: VrfId) -> Option<&External> {
        self.external.get(id.index())
    }

    /// A bridge domain by number.
    #[inline]
    pub fn bridge(&self, id: BridgeId) -> Option<&Bridge> {
        self.bridges.get(id.index())?.as_ref()
    }

    /// A chain by number.
    pub fn chain(&self, id: ChainId) -> Option<&Chain> {
        self.chains.get(id.index())?.as_ref()
    }

    /// The services that walks of new flows of `scope` will ask, and in which VRF, where that is known beforehand.
    #[inline]
    fn ahead(&self, scope: &Scope) -> Option<(VrfId, impl Iterator<Item = &dyn ServiceFunction>)> {
        let (Domain::Vrf(vrf), Some(chain)) = (scope.domain, self.classifier.sure(scope.id)) else {
            return None;
        };
        let hops = self.chain(chain).map(|chain| chain.hops.as_slice()).unwrap_or_default();
        Some((vrf, hops.iter().filter_map(|hop| self.services.get(*hop)).map(|service| &**service)))
    }

    /// Shows what walks of new flows of `scope` will probably read that is in no cache.
    pub fn look_ahead(&self, scope: &Scope, tuple: &Tuple, show: Show<'_>) {
        if let Some((vrf, services)) = self.ahead(scope) {
            services.for_each(|service| service.look_ahead(vrf, tuple, show));
        }
    }

    /// Makes of `tuple` what it will probably be after its walk, and shows what follows from that. False if that cannot be told.
    #[inline]
    pub fn foresee(&self, scope: &Scope, tuple: &mut Tuple, show: Show<'_>) -> bool {
        let Some((vrf, services)) = self.ahead(scope) else { return false };
        services.for_each(|service| service.foresee(vrf, tuple, show));
        true
    }

    /// An attached hop by number.
    pub fn hop(&self, id: HopId) -> Option<&AttachedHop> {
        self.hops.get(id.index())?.as_ref()
    }

    /// The VRF that packets of a scope are routed in, if they are.
    pub fn vrf_of(&self, scope: &Scope) -> Option<VrfId> {
        match scope.domain {
            Domain::Vrf(vrf) => Some(vrf),
            Domain::Hop(hop) => self.hop(hop).map(|hop| hop.vrf),
            Domain::Bridge(_) | Domain::CrossConnect(_) => None,
        }
    }

    /// The scope of a frame that came in by `port` with this outermost VLAN id (0: untagged). A cross-connected port takes
    /// every frame that no VLAN of its own takes.
    #[inline]
    pub fn scope_of(&self, port: PortId, vlan: u16) -> Option<&Scope> {
        let scopes = self.by_port.get(port.index())?;
        if let Some((_, id)) = scopes.iter().find(|(have, _)| *have == vlan) {
            return self.scope(*id);
        }
        let (_, id) = scopes.iter().find(|(have, _)| *have == 0)?;
        self.scope(*id).filter(|scope| matches!(scope.domain, Domain::CrossConnect(_)))
    }

    /// Name of a scope, or its number if this generation has none.
    pub fn scope_name(&self, id: ScopeId) -> String {
        self.scope(id).map_or_else(|| format!("#{}", id.0), |scope| scope.name.clone())
    }
}
