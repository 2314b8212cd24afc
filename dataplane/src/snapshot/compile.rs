//! Compiles a validated configuration: names become numbers, routes a FIB, tunnels outer headers. Each stage builds itself
//! from its own part; this room puts the parts together.

use std::collections::BTreeMap;
use std::sync::Arc;

use weir_config::{
    Attachment, ClassifyScope, Config, DEFAULT_VRF, Domain as ConfigDomain, MacAddress, Tunnel,
};

use crate::chain::classifier::{Classifier, Rule};
use crate::chain::{Chain, Endpoint, Lane, Pipeline, Scope, ScopeKind, Vrf};
use crate::decision::{
    BridgeId, ChainId, Domain, Encapsulation, EndpointId, FieldSet, Nanos, PortId, ScopeId, VrfId,
};
use crate::flow::{Egress, FlowMask, InnerLink};
use crate::l2::{Bridge, Member};
use crate::l3::{Interface, Learned, NeighbourState, Rib, link_local};
use crate::overlay::{self, VtepEntry, VtepTable};
use crate::service;

use super::{CompileError, MAX_ENDPOINTS, PortFacts, Registry, Shared, Snapshot};

/// MTU of a port that has no device and no `mtu`.
const DEFAULT_MTU: u16 = 1500;

impl Snapshot {
    /// Compiles `config` as generation `generation`. `facts` tells of the ports' devices; a port without facts is one that
    /// only captures drive. Static neighbours are written to the shared table.
    ///
    /// # Errors
    /// [`CompileError`]; the shared tables are as before then.
    pub fn compile(
        config: &Arc<Config>,
        facts: &BTreeMap<String, PortFacts>,
        registry: &mut Registry,
        shared: &Shared,
        generation: u64,
        now: Nanos,
    ) -> Result<Self, CompileError> {
        let mut compiler =
            Compiler { config, facts, registry, scopes: Vec::new(), endpoints: BTreeMap::new() };
        let by_port = compiler.port_scopes()?;
        compiler.tunnel_scopes()?;
        compiler.join_cross_connects()?;
        let (vrfs, ribs) = compiler.vrfs()?;
        let (bridges, bridge_names) = compiler.bridges()?;
        let (chains, services) = compiler.chains(shared)?;
        let hops = compiler.attached_hops()?;
        let classifier = compiler.classifier()?;
        let Endpoints { endpoints, encapsulations, inner, vteps } = compiler.endpoints()?;
        let egress =
            compiler.scopes.iter().map(|scope| scope.as_ref().map(egress_of).unwrap_or_default()).collect();
        let mut pipeline = Pipeline {
            by_port,
            vrfs,
            bridges,
            bridge_names,
            endpoints,
            encapsulations,
            inner,
            egress,
            vteps,
            classifier,
            chains,
            hops,
            external: Vec::new(),
            services,
            scopes: compiler.scopes,
        };
        super::fields::specialise(&mut pipeline);
        super::external::find(&mut pipeline);
        install_neighbours(config, &pipeline, registry, shared, now);
        // What was learned behind somebody who is no member any more must not come back with him.
        shared.tables.macs.retain(|bridge, member| {
            pipeline.bridge(bridge).is_some_and(|bridge| bridge.members().contains(&member))
        });
        Ok(Self {
            generation,
            config: Arc::clone(config),
            pipeline,
            ribs,
            tables: Arc::clone(&shared.tables),
            kernel_asks: Arc::clone(&shared.kernel_asks),
        })
    }
}

fn egress_of(scope: &Scope) -> Egress {
    Egress { port: scope.port, vlan: scope.vlan, mac: scope.mac }
}

/// Everything by endpoint.
struct Endpoints {
    endpoints: Vec<Endpoint>,
    encapsulations: Vec<Encapsulation>,
    inner: Vec<InnerLink>,
    /// By VRF.
    vteps: Vec<VtepTable>,
}

pub(super) struct Compiler<'a> {
    pub(super) config: &'a Config,
    pub(super) facts: &'a BTreeMap<String, PortFacts>,
    pub(super) registry: &'a mut Registry,
    scopes: Vec<Option<Scope>>,
    /// Endpoints by tunnel name.
    endpoints: BTreeMap<String, Vec<EndpointId>>,
}

/// An address that two instances are unlikely to share: locally administered, derived (FNV-1a) from what tells the interface
/// apart, and so the same after every start.
fn derived_mac(text: &str) -> MacAddress {
    let step = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
    let hash = text.bytes().fold(0xcbf2_9ce4_8422_2325, step);
    let [.., a, b, c, d, e] = (hash ^ hash >> 40).to_be_bytes();
    MacAddress([0x02, a, b, c, d, e])
}

impl Compiler<'_> {
    fn add_scope(&mut self, scope: Scope) {
        let at = scope.id.index();
        if self.scopes.len() <= at {
            self.scopes.resize_with(at + 1, || None);
        }
        if let Some(place) = self.scopes.get_mut(at) {
            *place = Some(scope);
        }
    }

    /// The domain of an attachment. A cross-connect's other end is filled in later.
    fn domain(&mut self, domain: &ConfigDomain) -> Result<Domain, CompileError> {
        Ok(match domain {
            ConfigDomain::Vrf(name) => Domain::Vrf(VrfId(self.registry.vrfs.intern(name, "VRFs")?)),
            ConfigDomain::Bridge(name) => {
                Domain::Bridge(BridgeId(self.registry.bridges.intern(name, "bridges")?))
            }
            ConfigDomain::CrossConnect(_) => Domain::CrossConnect(ScopeId(u16::MAX)),
            ConfigDomain::Hop(name) => Domain::Hop(self.hop(name)?),
        })
    }

    #[allow(clippy::too_many_arguments)]
    fn scope(
        &mut self,
        name: &str,
        attachment: &Attachment,
        kind: ScopeKind,
        port: PortId,
        vlan: u16,
        mac: MacAddress,
        mtu: u16,
        kernel_neighbours: bool,
        remote_mac: Option<MacAddress>,
    ) -> Result<ScopeId, CompileError> {
        let id = ScopeId(self.registry.scopes.intern(name, "interfaces")?);
        let domain = self.domain(&attachment.domain)?;
        let interface = match domain {
            Domain::Vrf(vrf) => Some(Interface {
                scope: id,
                vrf,
                name: name.to_owned(),
                mac,
                addresses: attachment.addresses.clone(),
                mtu,
                link_local: link_local(mac),
                kernel_neighbours,
                point_to_point_mac: remote_mac,
                proxied: Vec::new(),
            }),
            Domain::Bridge(_) | Domain::CrossConnect(_) | Domain::Hop(_) => None,
        };
        self.add_scope(Scope {
            id,
            name: name.to_owned(),
            domain,
            kind,
            port,
            vlan,
            mac,
            mtu,
            mss_clamp: false,
            interface,
            fields: FieldSet::empty(),
            mask: FlowMask::new(FieldSet::empty()),
            why: Vec::new(),
            chained: false,
            lane: Lane::None,
        });
        Ok(id)
    }

    /// Scopes of ports and their VLANs.
    fn port_scopes(&mut self) -> Result<Vec<Vec<(u16, ScopeId)>>, CompileError> {
        let mut by_port = Vec::new();
        let config = self.config;
        for (name, port) in &config.ports {
            let id = self.registry.port(name)?;
            let facts = self.facts.get(name);
            let mac = port.mac.or(facts.map(|facts| facts.mac)).unwrap_or_else(|| derived_mac(name));
            let mtu = port.mtu.or(facts.map(|facts| facts.mtu)).unwrap_or(DEFAULT_MTU);
            if let Some(facts) = facts.filter(|facts| facts.mtu < mtu) {
                return Err(CompileError::Mtu { port: name.clone(), mtu, device: facts.mtu });
            }
            let kernel = facts.is_some_and(|facts| facts.kernel_neighbours);
            let untagged =
                self.scope(name, &port.attachment, ScopeKind::Port, id, 0, mac, mtu, kernel, None)?;
            let mut scopes = vec![(0, untagged)];
            for (vlan, attachment) in &port.vlans {
                let name = format!("{name}.{vlan}");
                let scope =
                    self.scope(&name, attachment, ScopeKind::Port, id, *vlan, mac, mtu, kernel, None)?;
                scopes.push((*vlan, scope));
            }
            if by_port.len() <= id.index() {
                by_port.resize_with(id.index() + 1, Vec::new);
            }
            if let Some(place) = by_port.get_mut(id.index()) {
                *place = scopes;
            }
        }
        Ok(by_port)
    }

    /// Scopes of tunnels, and numbers for their endpoints.
    fn tunnel_scopes(&mut self) -> Result<(), CompileError> {
        let config = self.config;
        for (name, tunnel) in &config.tunnels {
            let mut endpoints = Vec::new();
            for remote in &tunnel.remotes {
                let id = self.registry.endpoints.intern(&format!("{name}@{remote}"), "tunnel endpoints")?;
                endpoints.push(EndpointId(id));
            }
            if self.registry.endpoints.len() > MAX_ENDPOINTS {
                return Err(CompileError::TooManyEndpoints(MAX_ENDPOINTS));
            }
            self.endpoints.insert(name.clone(), endpoints.clone());
            let mtu = tunnel.mtu.unwrap_or(u16::MAX);
            let kind = ScopeKind::Tunnel(endpoints);
            let mac = tunnel_mac(name, tunnel);
            let attachment = &tunnel.attachment;
            let id =
                self.scope(name, attachment, kind, PortId::default(), 0, mac, mtu, false, tunnel.remote_mac)?;
            if let Some(Some(scope)) = self.scopes.get_mut(id.index()) {
                scope.mss_clamp = tunnel.mss_clamp;
            }
        }
        Ok(())
    }

    /// Tells the ends of each cross-connect of each other.
    fn join_cross_connects(&mut self) -> Result<(), CompileError> {
        for cross in self.config.cross_connects.values() {
            let [a, b] = &cross.ends;
            let a = ScopeId(self.registry.scopes.intern(a, "interfaces")?);
            let b = ScopeId(self.registry.scopes.intern(b, "interfaces")?);
            for (end, other) in [(a, b), (b, a)] {
                if let Some(Some(scope)) = self.scopes.get_mut(end.index()) {
                    scope.domain = Domain::CrossConnect(other);
                }
            }
        }
        Ok(())
    }

    /// RIBs and FIBs.
    #[allow(clippy::type_complexity)]
    fn vrfs(&mut self) -> Result<(Vec<Option<Vrf>>, Vec<(String, Arc<Rib>)>), CompileError> {
        let mut vrfs = Vec::new();
        let mut ribs = Vec::new();
        let config = self.config;
        let mut names: Vec<&str> = config.vrfs.keys().map(String::as_str).collect();
        if !names.contains(&DEFAULT_VRF) {
            names.push(DEFAULT_VRF);
        }
        for name in names {
            let id = VrfId(self.registry.vrfs.intern(name, "VRFs")?);
            let interfaces = self.scopes.iter().flatten().filter_map(|scope| scope.interface.as_ref());
            let mut rib = Rib::new(interfaces.filter(|interface| interface.vrf == id));
            let mut multipath = false;
            for route in config.vrfs.get(name).into_iter().flat_map(|vrf| &vrf.routes) {
                rib.add_static(route.prefix, &route.via).map_err(|error| CompileError::Route {
                    vrf: name.to_owned(),
                    prefix: route.prefix.to_string(),
                    reason: error.to_string(),
                })?;
            }
            let rib = Arc::new(rib);
            let fib = self
                .registry
                .fib(name, &rib)
                .map_err(|error| CompileError::Fib { vrf: name.to_owned(), reason: error.to_string() })?;
            multipath |= rib.routes().any(|(_, _, target)| target.hops().len() > 1);
            if vrfs.len() <= id.index() {
                vrfs.resize_with(id.index() + 1, || None);
            }
            if let Some(place) = vrfs.get_mut(id.index()) {
                *place =
                    Some(Vrf { name: name.to_owned(), fib, multipath, direct: Vec::new(), clamps: false });
            }
            ribs.push((name.to_owned(), rib));
        }
        Ok((vrfs, ribs))
    }

    /// Bridge domains with their members.
    fn bridges(&mut self) -> Result<(Vec<Option<Bridge>>, Vec<String>), CompileError> {
        let mut bridges = Vec::new();
        let mut names = Vec::new();
        for (name, bridge) in &self.config.bridges {
            let id = BridgeId(self.registry.bridges.intern(name, "bridges")?);
            let mut members = Vec::new();
            for scope in self.scopes.iter().flatten().filter(|scope| scope.domain == Domain::Bridge(id)) {
                match &scope.kind {
                    ScopeKind::Port => members.push(Member { scope: scope.id, endpoint: None }),
                    ScopeKind::Tunnel(endpoints) => members.extend(
                        endpoints
                            .iter()
                            .map(|endpoint| Member { scope: scope.id, endpoint: Some(*endpoint) }),
                    ),
                }
            }
            if bridges.len() <= id.index() {
                bridges.resize_with(id.index() + 1, || None);
                names.resize(id.index() + 1, String::new());
            }
            if let (Some(place), Some(named)) = (bridges.get_mut(id.index()), names.get_mut(id.index())) {
                *place = Some(Bridge::new(id, bridge, members));
                named.clone_from(name);
            }
        }
        Ok((bridges, names))
    }

    /// Chains, and the service functions that they are made of.
    #[allow(clippy::type_complexity)]
    fn chains(
        &mut self,
        shared: &Shared,
    ) -> Result<(Vec<Option<Chain>>, Vec<Box<dyn service::ServiceFunction>>), CompileError> {
        let reserved = Arc::new(service::nat::Reserved::new(self.config));
        let context = service::BuildContext { reserved, ..shared.services.clone() };
        let services: Vec<_> = self
            .config
            .services
            .iter()
            .map(|(name, config)| service::build(name, config, &context))
            .collect();
        let mut chains = Vec::new();
        for (name, chain) in &self.config.chains {
            let id = ChainId(self.registry.chains.intern(name, "chains")?);
            let (mut hops, mut attached) = (Vec::new(), Vec::new());
            for hop in &chain.hops {
                match self.config.services.keys().position(|service| service == hop) {
                    Some(service) => hops.push(service),
                    None => attached.push((hops.len(), self.hop(hop)?)),
                }
            }
            if chains.len() <= id.index() {
                chains.resize_with(id.index() + 1, || None);
            }
            if let Some(place) = chains.get_mut(id.index()) {
                *place = Some(Chain { name: name.clone(), hops, attached });
            }
        }
        Ok((chains, services))
    }

    /// The classifier, its scopes resolved.
    fn classifier(&mut self) -> Result<Classifier, CompileError> {
        let mut rules = Vec::new();
        let config = self.config;
        let mut resolved: BTreeMap<&[ClassifyScope], Vec<ScopeId>> = BTreeMap::new();
        for rule in &config.classify {
            let chain = match &rule.chain {
                Some(name) => Some(ChainId(self.registry.chains.intern(name, "chains")?)),
                None => None,
            };
            let scopes = (!rule.from.is_empty()).then(|| {
                // Many rules say the same here.
                let scopes = resolved.entry(&rule.from).or_insert_with(|| {
                    let named = |scope: &&Scope| rule.from.iter().any(|from| self.is_in(scope, from));
                    self.scopes.iter().flatten().filter(named).map(|scope| scope.id).collect()
                });
                scopes.clone()
            });
            rules.push(Rule::new(scopes, &rule.matches, chain));
        }
        Ok(Classifier::new(&rules))
    }

    fn is_in(&self, scope: &Scope, from: &ClassifyScope) -> bool {
        match from {
            ClassifyScope::Interface(name) => scope.name == *name,
            ClassifyScope::Vrf(name) => {
                matches!(scope.domain, Domain::Vrf(id) if self.registry.vrf_name(id) == Some(name))
            }
            ClassifyScope::Bridge(name) => {
                matches!(scope.domain, Domain::Bridge(id) if self.registry.bridge_name(id) == Some(name))
            }
        }
    }

    /// Outer headers, and what decapsulation looks up.
    fn endpoints(&mut self) -> Result<Endpoints, CompileError> {
        let blank =
            Endpoint { scope: ScopeId(u16::MAX), remote: [0, 0, 0, 0].into(), underlay: VrfId(u16::MAX) };
        let count = self.registry.endpoints.len();
        let mut endpoints = vec![blank; count];
        let mut encapsulations: Vec<Option<Encapsulation>> = vec![None; count];
        let mut inner = vec![InnerLink::default(); count];
        let mut entries: Vec<Vec<VtepEntry>> = Vec::new();
        for (name, tunnel) in &self.config.tunnels {
            let scope = ScopeId(self.registry.scopes.intern(name, "interfaces")?);
            let underlay = VrfId(self.registry.vrfs.intern(&tunnel.underlay_vrf, "VRFs")?);
            let link = InnerLink {
                source: tunnel_mac(name, tunnel),
                destination: tunnel.remote_mac.unwrap_or_default(),
            };
            let ids = self.endpoints.get(name).cloned().unwrap_or_default();
            for (id, remote) in ids.iter().zip(&tunnel.remotes) {
                let described = overlay::Remote {
                    endpoint: *id,
                    scope,
                    local: tunnel.local,
                    remote: *remote,
                    vni: tunnel.vni,
                    udp_port: tunnel.udp_port,
                    ttl: tunnel.ttl,
                    dscp: tunnel.dscp,
                };
                let at = id.index();
                if let (Some(endpoint), Some(outer), Some(place)) =
                    (endpoints.get_mut(at), encapsulations.get_mut(at), inner.get_mut(at))
                {
                    *endpoint = Endpoint { scope, remote: *remote, underlay };
                    *outer = overlay::encapsulation(&described);
                    *place = link;
                }
            }
            if entries.len() <= underlay.index() {
                entries.resize_with(underlay.index() + 1, Vec::new);
            }
            let Some(entries) = entries.get_mut(underlay.index()) else { continue };
            entries.push(VtepEntry {
                local: tunnel.local,
                udp_port: tunnel.udp_port,
                vni: tunnel.vni,
                scope,
                remotes: tunnel.remotes.iter().copied().zip(ids).collect(),
                check_udp: tunnel.check_udp,
            });
        }
        let unused = Encapsulation {
            endpoint: EndpointId(u16::MAX),
            scope: ScopeId(u16::MAX),
            remote: [0, 0, 0, 0].into(),
            local: [0, 0, 0, 0].into(),
            header: [0; 56],
            len: 36,
            ip_sum: 0,
            dscp: weir_config::DscpModel::Uniform,
        };
        let encapsulations =
            encapsulations.into_iter().map(|outer| outer.unwrap_or_else(|| unused.clone())).collect();
        let vteps = entries.iter().map(|entries| VtepTable::new(entries)).collect();
        Ok(Endpoints { endpoints, encapsulations, inner, vteps })
    }
}

/// A tunnel's own inner MAC address.
fn tunnel_mac(name: &str, tunnel: &Tunnel) -> MacAddress {
    tunnel.mac.unwrap_or_else(|| derived_mac(&format!("{name} {} {}", tunnel.local, tunnel.vni)))
}

/// Writes the configuration's neighbours, and removes static ones that it no longer has, and all of interfaces that are
/// no longer there.
fn install_neighbours(
    config: &Config,
    pipeline: &Pipeline,
    registry: &Registry,
    shared: &Shared,
    now: Nanos,
) {
    let neighbours = &shared.tables.neighbours;
    let wanted: Vec<_> = config
        .neighbours
        .iter()
        .filter_map(|entry| Some((registry.scope(&entry.interface)?, entry.ip, entry.mac)))
        .collect();
    neighbours.retain(now, |info| {
        let routed = pipeline.scope(info.scope).is_some_and(|scope| scope.interface.is_some());
        // One that only has another MAC address now is changed in place below: flows of the running generation hold it.
        let wanted = || wanted.iter().any(|(scope, ip, _)| (*scope, *ip) == (info.scope, info.ip));
        routed && (info.state != NeighbourState::Static || wanted())
    });
    for (scope, ip, mac) in wanted {
        neighbours.learn(scope, ip, mac, Learned::Static, now);
    }
}
