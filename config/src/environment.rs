//! A plain router described by two environment variables, without a file.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;

use crate::codes::{self, Code};
use crate::diagnostic::{Diagnostic, Diagnostics, LineIndex, Severity};
use crate::model::*;
use crate::text::{self, Bad, nearest};

const GRAMMAR: &str =
    "PREFIX NEXTHOP, PREFIX IFNAME, PREFIX dev IFNAME, PREFIX NEXTHOP IFNAME, or PREFIX blackhole";

/// A plain router from the values of `INTERFACES` and `ROUTES`.
///
/// `INTERFACES` is a list of network devices with commas between them: `eth0,eth1`. `ROUTES` is a list of routes
/// with commas between them, each `PREFIX NEXTHOP`, `PREFIX IFNAME`, `PREFIX dev IFNAME`, `PREFIX NEXTHOP IFNAME`
/// or `PREFIX blackhole`, of IPv4 or IPv6; it may be empty. A prefix that stands several times is an equal-cost
/// multipath route.
///
/// Every device becomes a port in shared mode, named after it (a dot in it becomes `-`), in the default VRF. The
/// port takes the routes' prefixes from the kernel; the host keeps everything else. `addresses` stay empty: the
/// kernel holds the devices' addresses, and they, their subnets and the neighbours are known only at run time.
/// So it is not checked here that a gateway is on a connected subnet.
///
/// # Errors
///
/// Every error in both, with the variable's name as the file and 1 as the line.
pub fn from_environment(interfaces: &str, routes: &str) -> Result<Config, Diagnostics> {
    let mut found = Findings::default();
    let ports = read_interfaces(interfaces, &mut found);
    let routes = read_routes(routes, &ports, &mut found);
    if !found.0.is_empty() {
        return Err(Diagnostics(found.0));
    }
    let mut prefixes: Vec<IpNet> = routes.iter().map(|route| route.prefix).collect();
    prefixes.sort();
    prefixes.dedup();
    let mut config = Config::default();
    config.vrfs.insert(DEFAULT_VRF.to_owned(), Vrf { routes });
    config.ports = ports.into_iter().map(|(device, name)| (name, port(device, &prefixes))).collect();
    Ok(config)
}

fn port(device: String, prefixes: &[IpNet]) -> Port {
    Port {
        device: Some(device),
        mode: PortMode::Shared,
        xdp: XdpMode::Auto,
        xsk_map: XskMap::Own,
        queues: None,
        vfio_token: None,
        mac: None,
        mtu: None,
        prefixes: prefixes.to_vec(),
        attachment: Attachment { domain: Domain::Vrf(DEFAULT_VRF.to_owned()), addresses: Vec::new() },
        vlans: BTreeMap::new(),
    }
}

#[derive(Default)]
struct Findings(Vec<Diagnostic>);

impl Findings {
    /// Adds an error about `part`, which is a part of `text`.
    fn error(&mut self, variable: &str, text: &str, part: &str, bad: Bad) {
        let start = (part.as_ptr() as usize).saturating_sub(text.as_ptr() as usize).min(text.len());
        let lines = LineIndex::new(text);
        let (line, column) = lines.place(start);
        let excerpt = Some(lines.excerpt(start, start + part.len()));
        let finding = Diagnostic::new(variable, Severity::Error, bad.code, bad.message);
        self.0.push(Diagnostic { line, column, hint: bad.hint, excerpt, ..finding });
    }
}

fn bad(code: &'static Code, message: String, hint: Option<String>) -> Bad {
    Bad { code, message, hint }
}

/// Devices and the names of their ports, in the order of the variable.
fn read_interfaces(text: &str, found: &mut Findings) -> Vec<(String, String)> {
    let mut ports: Vec<(String, String)> = Vec::new();
    for device in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        if let Err(bad) = text::device(device) {
            found.error("INTERFACES", text, device, bad);
            continue;
        }
        let letter = |c: char| if c.is_ascii_alphanumeric() || c == '_' { c } else { '-' };
        let name: String = device.chars().map(letter).collect();
        match ports.iter().find(|(_, other)| *other == name) {
            None => ports.push((device.to_owned(), name)),
            Some((other, _)) => {
                let message = if other == device {
                    format!("device `{device}` is given twice")
                } else {
                    format!("devices `{other}` and `{device}` would both be called `{name}`")
                };
                found.error("INTERFACES", text, device, bad(codes::DUPLICATE_DEVICE, message, None));
            }
        }
    }
    if ports.is_empty() && found.0.is_empty() {
        let hint = Some("such as INTERFACES=\"eth0,eth1\"".to_owned());
        found.error(
            "INTERFACES",
            text,
            text,
            bad(codes::MISSING_KEY, "no interface is named".to_owned(), hint),
        );
    }
    ports
}

fn read_routes(text: &str, ports: &[(String, String)], found: &mut Findings) -> Vec<Route> {
    let mut routes: Vec<Route> = Vec::new();
    for item in text.split(',').map(str::trim).filter(|item| !item.is_empty()) {
        match route(item, ports) {
            Ok(route) => routes.push(route),
            Err((part, bad)) => found.error("ROUTES", text, part, bad),
        }
    }
    for (index, route) in routes.iter().enumerate() {
        let blackhole = |route: &Route| route.via.contains(&NextHop::Blackhole);
        let mixed = |other: &&Route| other.prefix == route.prefix && blackhole(other) != blackhole(route);
        if routes.iter().take(index).find(mixed).is_some() {
            let message = format!("`{}` has a blackhole beside other next hops", route.prefix);
            found.error("ROUTES", text, text, bad(codes::BLACKHOLE_MULTIPATH, message, None));
        }
    }
    routes
}

fn route<'a>(item: &'a str, ports: &[(String, String)]) -> Result<Route, (&'a str, Bad)> {
    let words: Vec<&str> = item.split_whitespace().collect();
    let grammar = |message: String| (item, bad(codes::BAD_ROUTE, message, Some(GRAMMAR.to_owned())));
    let (Some(destination), rest) = (words.first().copied(), words.get(1..).unwrap_or_default()) else {
        return Err(grammar("an empty route".to_owned()));
    };
    let prefix = text::prefix(destination).map_err(|bad| (destination, bad))?;
    let interface = |name: &'a str| interface(name, ports).map_err(|bad| (name, bad));
    let hop = match rest {
        ["blackhole"] => NextHop::Blackhole,
        ["dev", name] => NextHop::Interface(interface(name)?),
        [word] => match word.parse::<IpAddr>() {
            Ok(ip) => NextHop::Gateway { ip: gateway(ip, prefix, word)?, interface: None },
            Err(_) => NextHop::Interface(interface(word)?),
        },
        [word, name] => {
            let ip = text::ip(word).map_err(|bad| (*word, bad))?;
            NextHop::Gateway { ip: gateway(ip, prefix, word)?, interface: Some(interface(name)?) }
        }
        [] => return Err(grammar(format!("`{item}` has no next hop"))),
        _ => return Err(grammar(format!("`{item}` is not a route"))),
    };
    let link_local =
        matches!(hop, NextHop::Gateway { ip: IpAddr::V6(ip), interface: None } if ip.is_unicast_link_local());
    if link_local {
        let message = "a link-local gateway needs its interface".to_owned();
        return Err((
            item,
            bad(codes::GATEWAY_NOT_CONNECTED, message, Some("PREFIX NEXTHOP IFNAME".to_owned())),
        ));
    }
    Ok(Route { prefix, via: vec![hop] })
}

fn gateway(ip: IpAddr, prefix: IpNet, word: &str) -> Result<IpAddr, (&str, Bad)> {
    let problem = if ip.is_ipv4() != prefix.addr().is_ipv4() {
        bad(
            codes::FAMILY_MISMATCH,
            format!("gateway `{ip}` and prefix `{prefix}` are not of one family"),
            None,
        )
    } else if ip.is_unspecified() || ip.is_multicast() || ip.is_loopback() {
        bad(codes::BAD_ADDRESS, format!("`{ip}` cannot be a gateway"), None)
    } else {
        return Ok(ip);
    };
    Err((word, problem))
}

/// The name of the port of a device.
fn interface(device: &str, ports: &[(String, String)]) -> Result<String, Bad> {
    if let Some((_, name)) = ports.iter().find(|(known, _)| known == device) {
        return Ok(name.clone());
    }
    let hint = match nearest(device, ports.iter().map(|(known, _)| known.as_str())) {
        Some(near) => format!("did you mean `{near}`?"),
        None => "add it to INTERFACES".to_owned(),
    };
    Err(bad(codes::UNKNOWN_REFERENCE, format!("`{device}` is not in INTERFACES"), Some(hint)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn routes(text: &str) -> Vec<Route> {
        let config = from_environment("eth0,eth1", text).unwrap_or_else(|error| panic!("{error}"));
        config.vrfs[DEFAULT_VRF].routes.clone()
    }

    fn errors(interfaces: &str, routes: &str) -> Vec<String> {
        let found = from_environment(interfaces, routes).unwrap_err();
        found.iter().map(|d| format!("{}:{}:{}", d.file, d.column, d.code)).collect()
    }

    #[test]
    fn every_form_of_a_route_is_read() {
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        let via = |text: &str| routes(text).remove(0).via.remove(0);
        let gateway = |text: &str, interface: Option<&str>| NextHop::Gateway {
            ip: ip(text),
            interface: interface.map(str::to_owned),
        };
        assert_eq!(via("10.0.0.0/24 172.16.0.1"), gateway("172.16.0.1", None));
        assert_eq!(via("10.1.0.0/16 eth1"), NextHop::Interface("eth1".into()));
        assert_eq!(via("10.1.0.0/16 dev eth1"), NextHop::Interface("eth1".into()));
        assert_eq!(via("10.1.0.0/16 172.16.0.1 eth0"), gateway("172.16.0.1", Some("eth0")));
        assert_eq!(via("10.1.0.0/16 blackhole"), NextHop::Blackhole);
        assert_eq!(via("2001:db8::/32 fe80::1 eth0"), gateway("fe80::1", Some("eth0")));
    }

    #[test]
    fn ports_are_shared_and_take_the_routes_prefixes() {
        let config =
            from_environment(" eth0, eth1.5 ,", "10.0.0.0/24 172.16.0.1,2001:db8::/32 eth1.5").unwrap();
        assert_eq!(config.ports.keys().collect::<Vec<_>>(), ["eth0", "eth1-5"]);
        let port = &config.ports["eth1-5"];
        assert_eq!((port.device.as_deref(), port.mode), (Some("eth1.5"), PortMode::Shared));
        assert_eq!(port.prefixes.len(), 2);
        assert!(port.attachment.addresses.is_empty());
        assert_eq!(config.vrfs[DEFAULT_VRF].routes[1].via, [NextHop::Interface("eth1-5".into())]);
    }

    #[test]
    fn every_error_comes_at_once_with_its_column() {
        let text = "10.0.0.1/24 eth0,10.0.0.0/8,10.0.0.0/8 eht1,10.0.0.0/8 fe80::1, x y z w";
        assert_eq!(
            errors("eth0,eth1,eth0", text),
            [
                "INTERFACES:11:duplicate-device",
                "ROUTES:1:host-bits",
                "ROUTES:18:bad-route",
                "ROUTES:40:unknown-reference",
                "ROUTES:56:family-mismatch",
                "ROUTES:65:bad-value",
            ]
        );
        assert_eq!(errors("", ""), ["INTERFACES:1:missing-key"]);
        assert_eq!(errors("eth0", "2001:db8::/32 fe80::1"), ["ROUTES:1:gateway-not-connected"]);
    }
}
