//! Which header fields a scope's flow key keeps, and why.

use crate::chain::{Lane, Pipeline, Scope, ScopeKind};
use crate::decision::{Domain, FieldSet, HopId, VrfId};
use crate::flow::FlowMask;
use crate::l3::Target;

/// What sessions need to be told apart: the five-tuple, and the ICMP type that tells a request from a reply.
const SESSION: FieldSet = FieldSet::FIVE_TUPLE.union(FieldSet::ICMP_TYPE);

/// Sets the fields, the mask and the reasons of every scope of a pipeline.
pub(super) fn specialise(pipeline: &mut Pipeline) {
    let chained: Vec<Domain> = pipeline
        .scopes
        .iter()
        .flatten()
        .filter(|scope| !pipeline.classifier.chains_for(scope.id).is_empty())
        .map(domain_of)
        .chain(
            pipeline
                .hops
                .iter()
                .zip(0u16..)
                .filter_map(|(hop, id)| hop.is_some().then_some(Domain::Hop(HopId(id)))),
        )
        .collect();
    let mut scopes = std::mem::take(&mut pipeline.scopes);
    for scope in scopes.iter_mut().flatten() {
        scope.chained = chained.contains(&domain_of(scope));
        let why = reasons(pipeline, scope);
        scope.fields = why.iter().fold(FieldSet::empty(), |all, (fields, _)| all | *fields);
        scope.mask = FlowMask::new(scope.fields);
        scope.why =
            why.into_iter().map(|(fields, why)| format!("{}: {why}", names(fields).join(" "))).collect();
    }
    pipeline.scopes = scopes;
    let lanes: Vec<Lane> = pipeline
        .scopes
        .iter()
        .map(|scope| scope.as_ref().map_or(Lane::None, |scope| lane(pipeline, scope)))
        .collect();
    for (scope, lane) in pipeline.scopes.iter_mut().zip(lanes) {
        if let Some(scope) = scope {
            scope.lane = lane;
        }
    }
    let mut vrfs = std::mem::take(&mut pipeline.vrfs);
    for (vrf, id) in vrfs.iter_mut().zip(0u16..) {
        let Some(vrf) = vrf else { continue };
        let mut scopes = pipeline.scopes.iter().flatten();
        vrf.clamps = scopes.any(|scope| scope.mss_clamp && scope.domain == Domain::Vrf(VrfId(id)));
        let targets = 0..vrf.fib.numbers() as u32;
        vrf.direct = targets
            .map(|number| vrf.fib.target(number).is_some_and(|target| direct(pipeline, target)))
            .collect();
    }
    pipeline.vrfs = vrfs;
}

/// Whether all destinations behind a target share one next hop.
fn direct(pipeline: &Pipeline, target: &Target) -> bool {
    let Target::Hops(hops) = target else { return false };
    let [hop] = &**hops else { return false };
    let fixed = |scope: &Scope| scope.interface.as_ref().is_some_and(|i| i.point_to_point_mac.is_some());
    hop.gateway.is_some() || pipeline.scope(hop.scope).is_some_and(fixed)
}

/// How plain packets of a scope are looked up. What else the compact key leaves out is the same for all plain IPv4 packets.
fn lane(pipeline: &Pipeline, scope: &Scope) -> Lane {
    const TUPLE: FieldSet = FieldSet::FIVE_TUPLE.union(FieldSet::ICMP_TYPE).union(FieldSet::ETHER_TYPE);
    const STATIONS: FieldSet = FieldSet::ETHER_SOURCE.union(FieldSet::ETHER_DESTINATION);
    let wired = |other: &Scope| {
        let alone =
            |scope: &Scope| pipeline.by_port.get(scope.port.index()).is_some_and(|all| all.len() == 1);
        let port = |scope: &Scope| matches!(scope.kind, ScopeKind::Port) && scope.vlan == 0;
        alone(scope) && port(scope) && port(other)
    };
    match scope.domain {
        _ if scope.vlan != 0 => Lane::None,
        Domain::Vrf(_) if scope.fields == FieldSet::IP_DESTINATION => Lane::Routes,
        Domain::Vrf(_) if TUPLE.contains(scope.fields) => Lane::Flows,
        Domain::Bridge(_) if scope.fields == STATIONS => Lane::Bridge,
        Domain::CrossConnect(other) if scope.fields.is_empty() => {
            if pipeline.scope(other).is_some_and(wired) { Lane::Wire } else { Lane::None }
        }
        _ => Lane::None,
    }
}

/// The domain, the same for both ends of a cross-connect.
fn domain_of(scope: &Scope) -> Domain {
    match scope.domain {
        Domain::CrossConnect(other) => Domain::CrossConnect(other.min(scope.id)),
        domain => domain,
    }
}

fn reasons(pipeline: &Pipeline, scope: &Scope) -> Vec<(FieldSet, String)> {
    let mut why = Vec::new();
    match scope.domain {
        Domain::Vrf(id) => why.extend(routing(pipeline, id)),
        Domain::Hop(id) => {
            if let Some(hop) = pipeline.hop(id) {
                why.extend(routing(pipeline, hop.vrf));
            }
        }
        Domain::Bridge(id) => {
            let name = pipeline.bridge_names.get(id.index()).map_or("?", String::as_str);
            why.push((
                FieldSet::ETHER_SOURCE | FieldSet::ETHER_DESTINATION,
                format!("learning and forwarding in bridge {name}"),
            ));
        }
        Domain::CrossConnect(_) => {}
    }
    if underlay_multipath(pipeline) {
        why.push((FieldSet::FIVE_TUPLE, "equal-cost multipath in the underlay of tunnels".to_owned()));
    }
    if !scope.chained {
        return why;
    }
    why.push((SESSION | FieldSet::ETHER_TYPE, "sessions: chains are reachable from this domain".to_owned()));
    let classified = pipeline.classifier.fields_for(scope.id);
    if !classified.is_empty() {
        why.push((classified, "the classifier's rules".to_owned()));
    }
    // A session may bring any chain of the domain to this scope, so every chain counts; to a hop's, only its own.
    let own = match scope.domain {
        Domain::Hop(id) => pipeline.hop(id).and_then(|hop| pipeline.chain(hop.chain)),
        _ => None,
    };
    let all = pipeline.chains.iter().flatten().filter(|_| own.is_none());
    for chain in all.chain(own) {
        for service in chain.hops.iter().filter_map(|hop| pipeline.services.get(*hop)) {
            let fields = service.consults();
            if !fields.is_empty() {
                why.push((fields, format!("{} {} in chain {}", service.kind(), service.name(), chain.name)));
            }
        }
    }
    why
}

/// What routing in a VRF looks at.
fn routing(pipeline: &Pipeline, id: VrfId) -> Vec<(FieldSet, String)> {
    let vrf = pipeline.vrf(id);
    let name = vrf.map_or("?", |vrf| vrf.name.as_str());
    let mut why = vec![(FieldSet::IP_DESTINATION, format!("routing in vrf {name}"))];
    if vrf.is_some_and(|vrf| vrf.multipath) {
        why.push((FieldSet::FIVE_TUPLE, format!("equal-cost multipath in vrf {name}")));
    }
    why
}

/// Whether tunnels have several paths to choose from by the inner flow.
fn underlay_multipath(pipeline: &Pipeline) -> bool {
    let multipath =
        |endpoint: &crate::chain::Endpoint| pipeline.vrf(endpoint.underlay).is_some_and(|vrf| vrf.multipath);
    pipeline.endpoints.iter().any(multipath)
}

/// Names of fields, as `weir show pipeline` prints them.
pub(crate) fn names(fields: FieldSet) -> Vec<&'static str> {
    [
        (FieldSet::ETHER_SOURCE, "ether-source"),
        (FieldSet::ETHER_DESTINATION, "ether-destination"),
        (FieldSet::ETHER_TYPE, "ether-type"),
        (FieldSet::IP_SOURCE, "source"),
        (FieldSet::IP_DESTINATION, "destination"),
        (FieldSet::PROTOCOL, "protocol"),
        (FieldSet::SOURCE_PORT, "source-port"),
        (FieldSet::DESTINATION_PORT, "destination-port"),
        (FieldSet::DSCP, "dscp"),
        (FieldSet::TCP_FLAGS, "tcp-flags"),
        (FieldSet::ICMP_TYPE, "icmp-type"),
    ]
    .into_iter()
    .filter_map(|(field, name)| fields.contains(field).then_some(name))
    .collect()
}
