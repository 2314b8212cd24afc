//! The workloads: what the engine is configured to do, and the packets that it gets.
//!
//! To add one, add an entry to [`ALL`].

mod config;
mod hostile;
mod routes;

use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net};
use weir_config::{Config, DEFAULT_VRF, NextHop, Route};
use weir_dataplane::packet::builder::Packet;

use super::input::{
    DESTINATION4, DESTINATION6, INNER_DESTINATION4, Lengths, Order, SOURCE4, Shape, Vary, ordered, udp4, udp6,
};
pub(super) use hostile::hostile;

/// Flows where the number of flows is not the point: as many as there are input frames.
const FEW: usize = 1024;
/// Routes of W3.
const ROUTES: usize = 1_000_000;
/// Addresses that flows may be told apart by, from any base on.
pub(super) const ADDRESSES: u32 = 1 << 21;
/// The seed of everything random.
pub(super) const SEED: u64 = 0x7765_6972;

/// The first port's address, and what its hosts send to when they send to a router.
const ROUTER: [u8; 6] = [2, 0, 0, 0, 1, 0];
/// The second port's.
const UPLINK: [u8; 6] = [2, 0, 0, 0, 2, 0];
/// A host of the far end's segment.
const FAR_HOST: [u8; 6] = [2, 0, 0, 0, 3, 9];
/// A host of the first port's segment.
const HOST: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 2);

/// What packets look like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Traffic {
    /// IPv4 UDP to the router, of many destinations.
    ToMany,
    /// The same, from many sources to one destination.
    FromMany,
    /// IPv6 UDP to the router, of many destinations.
    ToMany6,
    /// IPv4 UDP to destinations all over a full table.
    ToAll,
    /// IPv4 UDP to a host of the far end's segment.
    Bridged,
    /// VXLAN to our VTEP, with IPv4 UDP to many destinations inside.
    Tunnelled,
}

/// One workload.
#[derive(Clone, Copy, Debug)]
pub(super) struct Workload {
    /// How it is called in records.
    pub(super) name: &'static str,
    /// What it is, in a few words.
    pub(super) title: &'static str,
    pub(super) flows: usize,
    pub(super) order: Order,
    traffic: Traffic,
    configure: fn(flows: usize) -> String,
    /// What weir aims at with whole bursts, in cycles a packet.
    aim: Option<f64>,
    /// The same with bursts of one.
    aim_alone: Option<f64>,
    /// Packets are the first of their flows: walks are measured.
    pub(super) first: bool,
    /// Whether the hostile mix goes where this workload's packets go.
    pub(super) hostile: bool,
    /// It has a million of something, or rules by the thousand: tests without optimisation leave it out.
    pub(super) large: bool,
}

/// What most have in common.
const PLAIN: Workload = Workload {
    name: "",
    title: "",
    flows: FEW,
    order: Order::Sequential,
    traffic: Traffic::ToMany,
    configure: |flows| config::limits(flows) + config::PORTS + config::ROUTE,
    aim: None,
    aim_alone: None,
    first: false,
    hostile: false,
    large: false,
};

/// Route behind a stateful firewall of so many rules.
fn guarded(flows: usize, rules: usize) -> String {
    config::limits(flows)
        + config::PORTS
        + config::ROUTE
        + &config::firewall(rules)
        + &config::chain("\"edge\"")
}

/// Into a tunnel behind a stateful firewall of so many rules and a translator.
fn whole_chain(flows: usize, rules: usize) -> String {
    let ports = config::limits(flows) + config::PORTS + config::TUNNEL + config::INTO_TUNNEL;
    ports + &config::firewall(rules) + config::NAT + &config::chain("\"edge\", \"outside\"")
}

/// All workloads, in the order in which they are reported.
pub(super) const ALL: &[Workload] = &[
    Workload {
        name: "W1",
        title: "cross-connect",
        configure: |flows| config::limits(flows) + config::CROSS_CONNECT,
        aim: Some(8.0),
        ..PLAIN
    },
    Workload {
        name: "W2",
        title: "IPv4, one route",
        aim: Some(25.0),
        aim_alone: Some(120.0),
        hostile: true,
        ..PLAIN
    },
    Workload { name: "W2b", title: "IPv6, one route", traffic: Traffic::ToMany6, aim: Some(32.0), ..PLAIN },
    Workload {
        name: "W3",
        title: "IPv4, 1 M routes, 1 M random destinations",
        flows: 1 << 20,
        order: Order::Random,
        traffic: Traffic::ToAll,
        aim: Some(60.0),
        large: true,
        ..PLAIN
    },
    Workload {
        name: "W3-sequential",
        title: "IPv4, 1 M routes, 1 M ascending destinations",
        flows: 1 << 20,
        traffic: Traffic::ToAll,
        aim: Some(40.0),
        large: true,
        ..PLAIN
    },
    Workload {
        name: "W4",
        title: "route + stateful firewall, 100 rules, 10 k flows",
        flows: 10_000,
        configure: |flows| guarded(flows, 100),
        aim: Some(50.0),
        hostile: true,
        ..PLAIN
    },
    Workload {
        name: "W4-10k",
        title: "route + stateful firewall, 10 k rules, 10 k flows",
        flows: 10_000,
        configure: |flows| guarded(flows, 10_000),
        aim: Some(50.0),
        large: true,
        ..PLAIN
    },
    Workload {
        name: "W5",
        title: "VXLAN encapsulation, routed",
        configure: |flows| config::limits(flows) + config::PORTS + config::TUNNEL + config::INTO_TUNNEL,
        aim: Some(55.0),
        ..PLAIN
    },
    Workload {
        name: "W5-bridged",
        title: "VXLAN encapsulation, bridged",
        traffic: Traffic::Bridged,
        configure: |flows| config::limits(flows) + config::BRIDGED,
        aim: Some(45.0),
        ..PLAIN
    },
    Workload {
        name: "W6",
        title: "VXLAN decapsulation, routed",
        traffic: Traffic::Tunnelled,
        configure: |flows| config::limits(flows) + config::PORTS + config::TUNNEL + config::FROM_TUNNEL,
        aim: Some(50.0),
        ..PLAIN
    },
    Workload {
        name: "W7",
        title: "NAT44, 10 k sessions",
        flows: 10_000,
        traffic: Traffic::FromMany,
        configure: |flows| {
            let ports = config::limits(flows) + config::PORTS + config::ROUTE;
            ports + config::NAT + &config::chain("\"outside\"")
        },
        aim: Some(60.0),
        ..PLAIN
    },
    Workload {
        name: "W8",
        title: "firewall, NAT44 and VXLAN encapsulation, 10 k flows",
        flows: 10_000,
        traffic: Traffic::FromMany,
        configure: |flows| whole_chain(flows, 100),
        aim: Some(80.0),
        ..PLAIN
    },
    Workload {
        name: "W9",
        title: "W8's chain, 1 M flows in random order",
        flows: 1 << 20,
        order: Order::Random,
        traffic: Traffic::FromMany,
        configure: |flows| whole_chain(flows, 100),
        aim: Some(160.0),
        large: true,
        ..PLAIN
    },
    Workload {
        name: "first",
        title: "first packets of flows, W8's chain with 1 k rules",
        flows: 1 << 16,
        traffic: Traffic::FromMany,
        configure: |flows| whole_chain(flows, 1000),
        first: true,
        ..PLAIN
    },
];

impl Workload {
    /// What weir aims at with bursts of so many packets, in cycles a packet; see the project's aims in `docs/benchmarking.md`.
    pub(super) fn aim(&self, burst: usize) -> Option<f64> {
        match burst {
            super::BURST => self.aim,
            1 => self.aim_alone,
            _ => None,
        }
    }

    /// The validated configuration.
    ///
    /// # Errors
    /// What the configuration's checks say.
    pub(super) fn config(&self) -> Result<Config, String> {
        let text = (self.configure)(self.flows);
        let loaded = weir_config::load_str(&format!("{}.toml", self.name), &text);
        let mut config = loaded.map_err(|errors| format!("{}: {errors}", self.name))?.config;
        if self.traffic == Traffic::ToAll {
            // As text, a million routes would take longer to read than to measure.
            let vrf = config.vrfs.entry(DEFAULT_VRF.to_owned()).or_default();
            vrf.routes.extend(table().into_iter().map(|prefix| Route {
                prefix: IpNet::V4(prefix),
                via: vec![NextHop::Gateway { ip: Ipv4Addr::new(192, 0, 2, 2).into(), interface: None }],
            }));
        }
        Ok(config)
    }

    /// The port that packets come in by.
    pub(super) fn port(&self) -> &'static str {
        if self.traffic == Traffic::Tunnelled { "out" } else { "in" }
    }

    /// One shape for each length.
    pub(super) fn shapes(&self, lengths: Lengths) -> (Vec<Shape>, Vec<u16>) {
        let cycle = lengths.cycle();
        let mut kinds = cycle.clone();
        kinds.sort_unstable();
        kinds.dedup();
        let shapes = kinds.iter().map(|&length| self.shape(length)).collect();
        let index = |length| kinds.iter().position(|&kind| kind == length).unwrap_or(0) as u16;
        (shapes, cycle.into_iter().map(index).collect())
    }

    fn shape(&self, len: usize) -> Shape {
        let none = Ipv4Addr::UNSPECIFIED;
        let (bytes, vary): (Vec<u8>, Vary) = match self.traffic {
            Traffic::ToMany | Traffic::ToAll => (udp4(ROUTER, HOST, none, len), DESTINATION4),
            Traffic::FromMany => (udp4(ROUTER, none, Ipv4Addr::new(10, 128, 0, 1), len), SOURCE4),
            Traffic::ToMany6 => {
                let to = Ipv6Addr::new(0x2001, 0xdb8, 0x8000, 0, 0, 0, 0, 0);
                (udp6(ROUTER, Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 2), to, len), DESTINATION6)
            }
            Traffic::Bridged => (udp4(FAR_HOST, HOST, none, len), DESTINATION4),
            Traffic::Tunnelled => {
                let inner = udp4([2, 0, 0, 0, 3, 1], Ipv4Addr::new(10, 128, 0, 2), none, len);
                (tunnelled(&inner), INNER_DESTINATION4)
            }
        };
        Shape::varying(bytes, vary)
    }

    /// The flows' values in the order of the packets, from the flow of this number on.
    pub(super) fn values(&self, first: u32, order: Order, random: &mut fastrand::Rng) -> Vec<u32> {
        let base: u32 = match self.traffic {
            Traffic::ToMany | Traffic::ToMany6 | Traffic::Bridged => 0x0a80_0000,
            Traffic::FromMany => 0x0a02_0000,
            Traffic::Tunnelled => 0x0a40_0000,
            Traffic::ToAll => {
                let mut fixed = fastrand::Rng::with_seed(SEED + 1);
                return ordered(routes::destinations(&table(), self.flows, &mut fixed), order, random);
            }
        };
        ordered((first..first + self.flows as u32).map(|flow| base + flow).collect(), order, random)
    }

    /// Frames, with the ports they come in by, that have to be received before all others.
    pub(super) fn primers(&self) -> Vec<(&'static str, Vec<u8>)> {
        match self.traffic {
            // So that the bridge knows where the far host is.
            Traffic::Bridged => {
                let inner = Packet::ethernet(FAR_HOST, [2, 0, 0, 0, 1, 2])
                    .ipv4(Ipv4Addr::new(10, 128, 0, 1), HOST)
                    .udp(443, 4000)
                    .payload(&[0; 22])
                    .build();
                vec![("out", tunnelled(&inner))]
            }
            _ => Vec::new(),
        }
    }
}

/// A VXLAN packet of the far end to our VTEP. The outer source port is the flow's entropy; over IPv4 there is no outer
/// UDP checksum (RFC 7348 section 5).
fn tunnelled(inner: &[u8]) -> Vec<u8> {
    Packet::ethernet([2, 0, 0, 0, 2, 2], UPLINK)
        .ipv4(Ipv4Addr::new(192, 0, 2, 2), Ipv4Addr::new(192, 0, 2, 1))
        .udp(0xc000, 4789)
        .without_checksum()
        .vxlan(100, inner)
        .build()
}

/// The routes of W3.
fn table() -> Vec<Ipv4Net> {
    routes::internet(ROUTES, &mut fastrand::Rng::with_seed(SEED))
}
