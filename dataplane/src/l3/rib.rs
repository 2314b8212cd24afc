//! The RIB of one VRF: connected, local and static routes, and which of them counts (RFC 1812 section 5.2.4).
//!
//! Of one prefix a connected or local route is preferred to a static one. A static prefix that stands several times is an
//! equal-cost multipath route over all its next hops.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use weir_config::NextHop;

use super::fib::{Fib, FibFull, Hop, Target};
use super::interface::{Interface, anycast, broadcasts};
use crate::decision::ScopeId;

/// Where a route comes from, in order of preference.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    /// An own address.
    Local,
    /// A subnet of an interface.
    Connected,
    /// The configuration.
    Static,
}

impl Origin {
    /// Its name for people and programs.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Local => "local",
            Self::Connected => "connected",
            Self::Static => "static",
        }
    }
}

/// A static route that cannot be built.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RouteError {
    /// No interface has a subnet with the gateway in it.
    #[error("no interface of the VRF has a subnet that holds gateway {0}")]
    GatewayNotConnected(IpAddr),
    /// The gateway is an own address.
    #[error("gateway {0} is weir's own address")]
    GatewayIsOwn(IpAddr),
    /// The named interface is not one of this VRF.
    #[error("\"{0}\" is not an interface of the VRF")]
    UnknownInterface(String),
    /// No next hop.
    #[error("a route without a next hop")]
    Empty,
}

/// The routes of one VRF as they are known: from here the [`Fib`] is compiled.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rib {
    interfaces: BTreeMap<String, ScopeId>,
    /// The subnets of the interfaces: few, where there may be a million routes.
    subnets: BTreeMap<IpNet, ScopeId>,
    routes: BTreeMap<IpNet, (Origin, Target)>,
}

impl Rib {
    /// The connected and local routes of these interfaces, all of one VRF. If two have the same subnet, the one with the
    /// lower scope has it.
    pub fn new<'a>(interfaces: impl IntoIterator<Item = &'a Interface>) -> Self {
        let mut rib = Self::default();
        for interface in interfaces {
            rib.interfaces.insert(interface.name.clone(), interface.scope);
            for own in &interface.addresses {
                rib.add_address(interface.scope, *own);
            }
        }
        rib
    }

    fn add_address(&mut self, scope: ScopeId, own: IpNet) {
        self.offer(host(own.addr()), Origin::Local, Target::Local(scope));
        match own {
            IpNet::V4(own) => {
                for address in broadcasts(&own).into_iter().flatten() {
                    self.offer(host(address.into()), Origin::Connected, Target::Broadcast(scope));
                }
            }
            IpNet::V6(own) => {
                if let Some(address) = anycast(&own) {
                    self.offer(host(address.into()), Origin::Connected, Target::Local(scope));
                }
            }
        }
        if own.prefix_len() < own.max_prefix_len() {
            let hop = Hop { scope, gateway: None };
            self.offer(own.trunc(), Origin::Connected, Target::Connected(hop));
        }
    }

    /// Adds a route unless there is one that is preferred: of the same origin the one with the lower scope.
    fn offer(&mut self, prefix: IpNet, origin: Origin, target: Target) {
        let rank = |origin: Origin, target: &Target| (origin, scope_of(target));
        match self.routes.get(&prefix) {
            Some((old, known)) if rank(*old, known) <= rank(origin, &target) => {}
            _ => {
                if let Target::Connected(hop) = &target {
                    self.subnets.insert(prefix, hop.scope);
                }
                self.routes.insert(prefix, (origin, target));
            }
        }
    }

    /// Adds a static route. Call it after [`Self::new`] has seen all interfaces; a prefix given again adds next hops. A
    /// blackhole beside next hops counts for nothing.
    ///
    /// # Errors
    /// A next hop that leads nowhere. The route is then not added.
    pub fn add_static(&mut self, prefix: IpNet, via: &[NextHop]) -> Result<(), RouteError> {
        if via.is_empty() {
            return Err(RouteError::Empty);
        }
        let mut hops = Vec::with_capacity(via.len());
        for next_hop in via {
            hops.extend(self.hop(next_hop)?);
        }
        let prefix = prefix.trunc();
        match self.routes.get(&prefix) {
            Some((Origin::Local | Origin::Connected, _)) => return Ok(()),
            Some((Origin::Static, target)) => hops.extend(target.hops()),
            None => {}
        }
        // A fixed order, so that equal configurations spread flows alike.
        hops.sort_unstable();
        hops.dedup();
        let target = if hops.is_empty() { Target::Blackhole } else { Target::Hops(hops.into()) };
        self.routes.insert(prefix, (Origin::Static, target));
        Ok(())
    }

    /// `None` for a blackhole.
    fn hop(&self, next_hop: &NextHop) -> Result<Option<Hop>, RouteError> {
        let named = |name: &String| {
            self.interfaces.get(name).copied().ok_or_else(|| RouteError::UnknownInterface(name.clone()))
        };
        Ok(match next_hop {
            NextHop::Blackhole => None,
            NextHop::Interface(name) | NextHop::Tunnel(name) => {
                Some(Hop { scope: named(name)?, gateway: None })
            }
            NextHop::Gateway { ip, interface } => {
                if matches!(self.routes.get(&host(*ip)), Some((Origin::Local, _))) {
                    return Err(RouteError::GatewayIsOwn(*ip));
                }
                let scope = match interface {
                    Some(name) => named(name)?,
                    None => self.connected(*ip).ok_or(RouteError::GatewayNotConnected(*ip))?,
                };
                Some(Hop { scope, gateway: Some(*ip) })
            }
        })
    }

    /// The interface whose subnet holds `ip`: the longest such.
    pub fn connected(&self, ip: IpAddr) -> Option<ScopeId> {
        self.subnets
            .iter()
            .filter(|(prefix, _)| prefix.contains(&ip))
            .max_by_key(|(prefix, _)| prefix.prefix_len())
            .map(|(_, scope)| *scope)
    }

    /// The routes that count, by prefix: for `weir show routes`.
    pub fn routes(&self) -> impl Iterator<Item = (IpNet, Origin, &Target)> {
        self.routes.iter().map(|(prefix, (origin, target))| (*prefix, *origin, target))
    }

    /// Compiles them.
    ///
    /// # Errors
    /// [`FibFull`] when there is no memory for it.
    pub fn fib(&self) -> Result<Fib, FibFull> {
        Fib::build(self.routes().map(|(prefix, _, target)| (prefix, target)))
    }
}

/// A target in words: `via 10.1.0.9 dev pods`, `dev pods`, `blackhole`, `local`. `device` words a scope: `dev pods`,
/// `tunnel to-b`.
pub fn describe(target: &Target, device: &dyn Fn(ScopeId) -> String) -> Vec<String> {
    match target {
        Target::Blackhole => vec!["blackhole".into()],
        Target::Local(scope) => vec![format!("local {}", device(*scope))],
        Target::Broadcast(scope) => vec![format!("broadcast {}", device(*scope))],
        Target::Connected(_) | Target::Hops(_) => target
            .hops()
            .iter()
            .map(|hop| match hop.gateway {
                Some(gateway) => format!("via {gateway} {}", device(hop.scope)),
                None => device(hop.scope),
            })
            .collect(),
    }
}

fn scope_of(target: &Target) -> Option<ScopeId> {
    match target {
        Target::Local(scope) | Target::Broadcast(scope) | Target::Connected(Hop { scope, .. }) => {
            Some(*scope)
        }
        Target::Hops(_) | Target::Blackhole => None,
    }
}

/// The prefix of one address.
fn host(ip: IpAddr) -> IpNet {
    match ip {
        IpAddr::V4(ip) => Ipv4Net::from(ip).into(),
        IpAddr::V6(ip) => Ipv6Net::from(ip).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::interface::tests::interface;
    use super::*;

    fn named(name: &str, scope: u16, addresses: &[&str]) -> Interface {
        Interface { name: name.into(), scope: ScopeId(scope), ..interface(addresses) }
    }

    fn gateway(text: &str) -> NextHop {
        NextHop::Gateway { ip: text.parse().unwrap(), interface: None }
    }

    fn net(text: &str) -> IpNet {
        text.parse().unwrap()
    }

    fn rib() -> Rib {
        let pods = named("pods", 1, &["10.1.0.1/24", "2001:db8:1::1/64"]);
        let up = named("up", 2, &["192.0.2.0/31", "2001:db8:2::/127", "198.51.100.7/32"]);
        Rib::new([&pods, &up])
    }

    fn shown(rib: &Rib) -> Vec<String> {
        let device = |scope: ScopeId| format!("dev {}", scope.0);
        rib.routes()
            .map(|(prefix, origin, target)| {
                format!("{prefix} {} {}", origin.name(), describe(target, &device).join(", "))
            })
            .collect()
    }

    /// RFC 2644: directed broadcasts are known, to be dropped; RFC 3021, RFC 6164: a /31 and a /127 have no special address.
    #[test]
    fn addresses_make_local_and_connected_routes() {
        assert_eq!(
            shown(&rib()),
            [
                "10.1.0.0/24 connected dev 1",
                "10.1.0.0/32 connected broadcast dev 1",
                "10.1.0.1/32 local local dev 1",
                "10.1.0.255/32 connected broadcast dev 1",
                "192.0.2.0/31 connected dev 2",
                "192.0.2.0/32 local local dev 2",
                "198.51.100.7/32 local local dev 2",
                "2001:db8:1::/64 connected dev 1",
                "2001:db8:1::/128 connected local dev 1",
                "2001:db8:1::1/128 local local dev 1",
                "2001:db8:2::/127 connected dev 2",
                "2001:db8:2::/128 local local dev 2",
            ]
        );
    }

    #[test]
    fn a_connected_route_is_preferred_to_a_static_one() {
        let mut rib = rib();
        rib.add_static(net("10.1.0.0/24"), &[NextHop::Blackhole]).unwrap();
        let fib = rib.fib().unwrap();
        assert_eq!(
            fib.lookup("10.1.0.9".parse().unwrap()),
            Some(&Target::Connected(Hop { scope: ScopeId(1), gateway: None }))
        );
        assert_eq!(fib.lookup("10.1.0.1".parse().unwrap()), Some(&Target::Local(ScopeId(1))));
        assert_eq!(fib.lookup("10.1.0.255".parse().unwrap()), Some(&Target::Broadcast(ScopeId(1))));
    }

    #[test]
    fn a_static_prefix_that_stands_twice_is_multipath() {
        let mut rib = rib();
        rib.add_static(net("10.9.0.0/16"), &[gateway("192.0.2.1")]).unwrap();
        rib.add_static(net("10.9.1.1/16"), &[gateway("10.1.0.9"), gateway("192.0.2.1")]).unwrap();
        let shown = shown(&rib);
        assert!(
            shown.contains(&"10.9.0.0/16 static via 10.1.0.9 dev 1, via 192.0.2.1 dev 2".into()),
            "{shown:?}"
        );
    }

    #[test]
    fn a_gateway_is_reached_by_its_subnet_unless_an_interface_is_named() {
        let mut rib = rib();
        rib.add_static(net("0.0.0.0/0"), &[gateway("192.0.2.1")]).unwrap();
        rib.add_static(
            net("::/0"),
            &[NextHop::Gateway { ip: "fe80::1".parse().unwrap(), interface: Some("up".into()) }],
        )
        .unwrap();
        rib.add_static(net("10.8.0.0/16"), &[NextHop::Tunnel("pods".into())]).unwrap();
        let fib = rib.fib().unwrap();
        let default = fib.lookup("8.8.8.8".parse().unwrap()).unwrap();
        assert_eq!(default.hops(), [Hop { scope: ScopeId(2), gateway: Some("192.0.2.1".parse().unwrap()) }]);
        let default = fib.lookup("2001:db8:99::1".parse().unwrap()).unwrap();
        assert_eq!(default.hops(), [Hop { scope: ScopeId(2), gateway: Some("fe80::1".parse().unwrap()) }]);
        let tunnel = fib.lookup("10.8.0.1".parse().unwrap()).unwrap();
        assert_eq!(tunnel.hops(), [Hop { scope: ScopeId(1), gateway: None }]);
    }

    #[test]
    fn a_next_hop_that_leads_nowhere_is_refused() {
        let mut rib = rib();
        let far = gateway("203.0.113.1");
        let error = rib.add_static(net("10.9.0.0/16"), &[far]).unwrap_err();
        assert_eq!(error, RouteError::GatewayNotConnected("203.0.113.1".parse().unwrap()));
        let error = rib.add_static(net("10.9.0.0/16"), &[gateway("10.1.0.1")]).unwrap_err();
        assert_eq!(error, RouteError::GatewayIsOwn("10.1.0.1".parse().unwrap()));
        let error = rib.add_static(net("10.9.0.0/16"), &[NextHop::Interface("x".into())]).unwrap_err();
        assert_eq!(error, RouteError::UnknownInterface("x".into()));
        assert_eq!(rib.add_static(net("10.9.0.0/16"), &[]), Err(RouteError::Empty));
        assert_eq!(rib.fib().unwrap().lookup("10.9.0.1".parse().unwrap()), None);
    }
}
