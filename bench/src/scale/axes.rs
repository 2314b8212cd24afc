//! The axes: what grows, and the configuration and traffic for each size of it.

use std::fmt::Write;
use std::net::Ipv4Addr;
use std::sync::Arc;

use ipnet::IpNet;
use weir_config::{Config, DEFAULT_VRF, NextHop, Route};
use weir_dataplane::frame::{BURST, FramePool};

use super::bed::{Cost, Site, Traffic};
use super::{Axis, Effort};
use crate::tables::internet;

/// Flows where something else grows.
const FLOWS: usize = 10_000;
/// Where packets go where routes are not the point.
const DESTINATION: u32 = 0x0a80_0001;
/// The next hops.
const NEXT_HOP: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);

const PORTS: &str = r#"
[port.in]
mode = "dedicated"
mac = "02:00:00:00:01:00"
addresses = ["10.1.0.1/24"]
[port.out]
mode = "dedicated"
mac = "02:00:00:00:02:00"
addresses = ["192.0.2.1/24"]
[[neighbour]]
port = "out"
ip = "192.0.2.2"
mac = "02:00:00:00:02:02"
[[neighbour]]
port = "out"
ip = "192.0.2.3"
mac = "02:00:00:00:02:03"
"#;
const ROUTE: &str = "[[vrf.default.route]]\nprefix = \"10.128.0.0/9\"\nvia = { ip = \"192.0.2.2\" }\n";
/// A second next hop: packets are told apart by flow.
const MULTIPATH: &str = "[[vrf.default.route]]\nprefix = \"10.128.0.0/9\"\nvia = { ip = \"192.0.2.3\" }\n";

/// Measures one size of what grows on an axis: by series, the repeats.
pub(super) fn measure(
    axis: Axis,
    size: usize,
    effort: &Effort,
    pool: &Arc<FramePool>,
) -> Result<Vec<(&'static str, Vec<Cost>)>, String> {
    let random = &mut fastrand::Rng::with_seed(7);
    match axis {
        Axis::Flows => {
            let site = Site::new(parsed(&(limits(size) + PORTS + ROUTE + MULTIPATH))?, 1, pool)?;
            Ok(vec![(
                "by five-tuple, random order",
                known(&site, &mut shuffled(flows(size, BURST), random), effort)?,
            )])
        }
        Axis::Routes => {
            let routes = internet::v4(size, random);
            let packets = internet::v4_destinations(&routes, 1 << 20, random);
            let mut config = parsed(&(limits(FLOWS) + PORTS))?;
            let vrf = config.vrfs.entry(DEFAULT_VRF.to_owned()).or_default();
            let via = || vec![NextHop::Gateway { ip: NEXT_HOP.into(), interface: None }];
            vrf.routes.extend(routes.into_iter().map(|net| Route { prefix: IpNet::V4(net), via: via() }));
            let site = Site::new(config, 1, pool)?;
            let packets = packets.into_iter().map(|destination| (destination, 1)).collect();
            Ok(vec![("random destinations", known(&site, &mut Traffic { packets, burst: BURST }, effort)?)])
        }
        Axis::Rules => {
            let config =
                limits(effort.new_flows()) + PORTS + ROUTE + &firewall("edge", size) + &chain(&["edge"]);
            let site = Site::new(parsed(&config)?, 1, pool)?;
            both(&site, effort)
        }
        Axis::Chain => {
            let names: Vec<String> = (0..size).map(|hop| format!("hop{hop}")).collect();
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            let mut config = limits(effort.new_flows()) + PORTS + ROUTE;
            if size > 0 {
                names.iter().for_each(|name| config += &firewall(name, 10));
                config += &chain(&names);
            } else {
                config += MULTIPATH;
            }
            both(&Site::new(parsed(&config)?, 1, pool)?, effort)
        }
        Axis::Burst => {
            let routed = Site::new(parsed(&(limits(FLOWS) + PORTS + ROUTE))?, 1, pool)?;
            let flow = Site::new(parsed(&(limits(FLOWS) + PORTS + ROUTE + MULTIPATH))?, 1, pool)?;
            Ok(vec![
                ("route", known(&routed, &mut flows(FLOWS, size), effort)?),
                ("by five-tuple, 10 k flows", known(&flow, &mut flows(FLOWS, size), effort)?),
            ])
        }
        Axis::Workers => {
            let cores: Vec<usize> = effort.cores.iter().copied().take(size).collect();
            let traffic = flows(FLOWS, BURST);
            let run = |routes: &str, names: [&'static str; 3]| -> Result<_, String> {
                let site = |workers| Site::new(parsed(&(limits(FLOWS) + PORTS + routes))?, workers, pool);
                let own = cores.iter().map(|_| site(1)).collect::<Result<Vec<_>, _>>()?;
                let costs = site(size)?.together(&own, &cores, &traffic, effort.packets, effort.repeats)?;
                Ok(names.into_iter().zip(costs))
            };
            let by_flow = ROUTE.to_owned() + MULTIPATH;
            let routed = run(ROUTE, ["route", "route, nothing shared", "route, one of them alone"])?;
            let flow = [
                "by five-tuple, 10 k flows",
                "by five-tuple, nothing shared",
                "by five-tuple, one of them alone",
            ];
            Ok(routed.chain(run(&by_flow, flow)?).collect())
        }
    }
}

/// Flows that the engine knows.
fn known(site: &Site, traffic: &mut Traffic, effort: &Effort) -> Result<Vec<Cost>, String> {
    let mut bed = site.bed();
    bed.check(traffic)?;
    // A repeat goes over a part of many flows: another one each time.
    Ok((0..effort.repeats)
        .map(|_| {
            let turn = effort.packets % traffic.packets.len().max(1);
            traffic.packets.rotate_left(turn);
            bed.repeat(traffic, effort.packets)
        })
        .collect())
}

/// Flows that the engine knows, and first packets of flows.
fn both(site: &Site, effort: &Effort) -> Result<Vec<(&'static str, Vec<Cost>)>, String> {
    let cached = known(site, &mut flows(FLOWS, BURST), effort)?;
    let mut bed = site.bed();
    let traffic = flows(effort.new_flows(), BURST);
    let first: Vec<Cost> = (0..=effort.repeats)
        .map(|repeat| bed.first_packets(&traffic, repeat * effort.firsts, effort.firsts))
        .skip(1)
        .collect();
    Ok(vec![("known flows", cached), ("first packets of flows", first)])
}

fn flows(count: usize, burst: usize) -> Traffic {
    Traffic { packets: (0..count as u32).map(|flow| (DESTINATION, flow)).collect(), burst }
}

fn shuffled(mut traffic: Traffic, random: &mut fastrand::Rng) -> Traffic {
    random.shuffle(&mut traffic.packets);
    traffic
}

fn parsed(text: &str) -> Result<Config, String> {
    let loaded = weir_config::load_str("scale.toml", text).map_err(|errors| errors.to_string())?;
    Ok(loaded.config)
}

fn limits(flows: usize) -> String {
    let bound = (2 * flows).max(65_536);
    format!("[limits]\nflows = {bound}\nsessions = {bound}\n")
}

/// A firewall of which only the last rule matches.
fn firewall(name: &str, rules: usize) -> String {
    let mut text = format!("[service.{name}.firewall]\ndefault = \"drop\"\nrules = [\n");
    for rule in 1..rules {
        let (high, low, port) = (rule / 250 % 250, rule % 250, 1024 + rule % 40_000);
        let _ = writeln!(
            text,
            "{{ deny = \"udp\", from = \"172.{high}.{low}.{}/32\", to-port = {port} }},",
            rule / 62_500
        );
    }
    text + "{ allow = \"udp\", from = \"10.0.0.0/8\", to-port = 443 },\n]\n"
}

fn chain(hops: &[&str]) -> String {
    let hops: Vec<String> = hops.iter().map(|hop| format!("{hop:?}")).collect();
    format!("[chain.all]\nhops = [{}]\n[[classify]]\nfrom = \"port.in\"\nchain = \"all\"\n", hops.join(", "))
}
