//! Tunnels whose outer packets are routed back into themselves.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::at;
use super::view::View;
use crate::codes;
use crate::model::{Config, NextHop, Route};
use crate::sink::{At, Sink, error};

pub(super) fn validate(config: &Config, view: &View<'_>, sink: &mut Sink<'_>) {
    // What cannot be read, and what only the kernel knows, may be a better route.
    if view.doubtful {
        return;
    }
    let tunnelled: BTreeMap<&str, &[Route]> = config
        .vrfs
        .iter()
        .filter(|(vrf, table)| {
            !view.is_open(vrf) && table.routes.iter().any(|route| tunnel_of(route).is_some())
        })
        .map(|(vrf, table)| (vrf.as_str(), table.routes.as_slice()))
        .collect();
    if tunnelled.is_empty() {
        return;
    }
    // Each tunnel leads into at most one other, so following the chain finds every loop.
    let next: BTreeMap<&str, &str> = config
        .tunnels
        .iter()
        .filter(|(name, _)| sink.is_sound(&["tunnel", name, "vxlan"]))
        .filter_map(|(name, tunnel)| {
            let routes = tunnelled.get(tunnel.underlay_vrf.as_str())?;
            let inner =
                tunnel.remotes.iter().find_map(|ip| outer_route(routes, &tunnel.underlay_vrf, *ip, view))?;
            Some((name.as_str(), inner))
        })
        .collect();
    for name in sink.names("tunnel") {
        if let Some(through) = cycle(name, &next) {
            let message = match through.as_slice() {
                [] => format!(
                    "the routes in its underlay VRF lead the outer packets of `{name}` into `{name}` itself"
                ),
                others => {
                    format!("the outer packets of `{name}` come back to it through `{}`", others.join("`, `"))
                }
            };
            let finding = error(codes::TUNNEL_LOOP, message)
                .hint("give the remote VTEP a more specific route, or put the tunnel into a VRF other than its underlay's");
            sink.report(&at!["tunnel", name, "vxlan"], At::Value, finding);
        }
    }
}

fn tunnel_of(route: &Route) -> Option<&str> {
    route.via.iter().find_map(|hop| match hop {
        NextHop::Tunnel(name) => Some(name.as_str()),
        _ => None,
    })
}

/// The tunnel that the best route to an address leads into, if it is a static route into one.
fn outer_route<'c>(routes: &'c [Route], vrf: &str, ip: IpAddr, view: &View<'_>) -> Option<&'c str> {
    let best =
        routes.iter().filter(|route| route.prefix.contains(&ip)).max_by_key(|r| r.prefix.prefix_len())?;
    let tunnel = tunnel_of(best)?;
    (!view.is_connected(vrf, ip)).then_some(tunnel)
}

/// The tunnels between a tunnel and itself, if it leads back to itself.
fn cycle<'c>(name: &str, next: &BTreeMap<&'c str, &'c str>) -> Option<Vec<&'c str>> {
    let mut through = Vec::new();
    let mut current = *next.get(name)?;
    while current != name {
        if through.contains(&current) {
            return None;
        }
        through.push(current);
        current = next.get(current)?;
    }
    Some(through)
}
