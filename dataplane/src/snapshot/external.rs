//! Which addresses packets come to that are translated, by VRF, and on which interfaces weir answers ARP for them.

use std::net::{IpAddr, Ipv4Addr};

use weir_config::AddressRange;

use crate::chain::Pipeline;
use crate::decision::{Domain, VrfId};
use crate::service::External;

/// Sets the external addresses of every VRF, and what its interfaces answer for.
pub(super) fn find(pipeline: &mut Pipeline) {
    let mut external: Vec<External> = Vec::new();
    for scope in pipeline.scopes.iter().flatten() {
        let Domain::Vrf(vrf) = scope.domain else { continue };
        let chains = pipeline.classifier.chains_for(scope.id);
        let hops = chains.iter().filter_map(|chain| pipeline.chain(*chain)).flat_map(|chain| &chain.hops);
        for found in hops.filter_map(|hop| pipeline.services.get(*hop)).map(|service| service.external()) {
            if external.len() <= vrf.index() {
                external.resize_with(vrf.index() + 1, External::default);
            }
            if let Some(place) = external.get_mut(vrf.index()) {
                place.ranges.extend(found.ranges);
                place.own |= found.own;
            }
        }
    }
    for of_vrf in &mut external {
        of_vrf.ranges = joined(std::mem::take(&mut of_vrf.ranges));
    }
    proxy(pipeline, &external);
    pipeline.external = external;
}

/// The same addresses in as few ranges as can be, in order.
fn joined(mut ranges: Vec<AddressRange>) -> Vec<AddressRange> {
    ranges.sort_unstable();
    let mut out: Vec<AddressRange> = Vec::new();
    for range in ranges {
        match out.last_mut() {
            Some(last) if range.first <= last.last => last.last = last.last.max(range.last),
            _ => out.push(range),
        }
    }
    out
}

fn proxy(pipeline: &mut Pipeline, external: &[External]) {
    for scope in pipeline.scopes.iter_mut().flatten() {
        let Some(interface) = &mut scope.interface else { continue };
        let VrfId(vrf) = interface.vrf;
        let ranges =
            external.get(usize::from(vrf)).map(|of_vrf| of_vrf.ranges.as_slice()).unwrap_or_default();
        interface.proxied = ranges
            .iter()
            .filter(|range| {
                interface.addresses.iter().any(|own| match (own.network(), own.broadcast()) {
                    (IpAddr::V4(first), IpAddr::V4(last)) => range.overlaps(AddressRange { first, last }),
                    _ => false,
                })
            })
            .map(|range| -> (Ipv4Addr, Ipv4Addr) { (range.first, range.last) })
            .collect();
    }
}
