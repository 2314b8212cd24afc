//! The workloads: a configuration, and one frame for each flow.

use std::net::Ipv4Addr;

use weir_dataplane::packet::builder::Packet;

/// Length of a frame before encapsulation, in bytes, without the frame check sequence.
pub(crate) const FRAME: usize = 64;

/// Two ports, their neighbours, and a table for 100,000 flows that is not crowded.
const BASE: &str = r#"
[limits]
flows = 262144
sessions = 262144
[memory]
frames = 4096
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
port = "in"
ip = "10.1.0.2"
mac = "02:00:00:00:01:02"
"#;

const FROM_TUNNEL: &str = r#"
[[vrf.default.route]]
prefix = "10.64.0.0/10"
via = { ip = "10.1.0.2" }
"#;

const ROUTE: &str = r#"
[[vrf.default.route]]
prefix = "10.128.0.0/9"
via = { ip = "192.0.2.2" }
"#;

const TUNNEL: &str = r#"
[tunnel.far.vxlan]
local = "192.0.2.1"
remote = "192.0.2.2"
vni = 100
addresses = ["10.255.0.1/30"]
remote-mac = "02:00:00:00:03:02"
mac = "02:00:00:00:03:01"
"#;

const INTO_TUNNEL: &str = r#"
[[vrf.default.route]]
prefix = "10.128.0.0/9"
via = { tunnel = "far" }
"#;

const CHAIN: &str = r#"
[service.edge.firewall]
default = "drop"
rules = [{ allow = "udp", from = "10.1.0.0/24", to-port = 443 }]
[service.rate.policer]
rules = [{ rate = "100Gbit/s", per = "rule" }]
[chain.all]
hops = ["edge", "rate"]
[[classify]]
from = "port.in"
chain = "all"
"#;

/// What the engine does to each packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// IPv4 routing, port to port; the flow key is the destination address alone.
    Route,
    /// Stateful firewall and policer, then routed into a VXLAN tunnel.
    ChainEncapsulate,
    /// VXLAN packets to our VTEP: outer headers off, inner packet routed out of the other port.
    Decapsulate,
}

/// One workload.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Workload {
    pub(crate) kind: Kind,
    pub(crate) flows: usize,
}

/// All workloads, in the order in which they are reported.
pub(crate) fn all() -> Vec<Workload> {
    let kinds = [Kind::Route, Kind::ChainEncapsulate, Kind::Decapsulate];
    kinds.into_iter().flat_map(|kind| [1, 1_000, 100_000].map(|flows| Workload { kind, flows })).collect()
}

impl Workload {
    pub(crate) fn name(&self) -> String {
        let kind = match self.kind {
            Kind::Route => "route",
            Kind::ChainEncapsulate => "chain+vxlan-encap",
            Kind::Decapsulate => "vxlan-decap+route",
        };
        format!("{kind}/{}", self.flows)
    }

    /// The configuration.
    pub(crate) fn config(&self) -> String {
        match self.kind {
            Kind::Route => format!("{BASE}{ROUTE}"),
            Kind::ChainEncapsulate => format!("{BASE}{TUNNEL}{INTO_TUNNEL}{CHAIN}"),
            Kind::Decapsulate => format!("{BASE}{TUNNEL}{FROM_TUNNEL}"),
        }
    }

    /// The port that frames come in by.
    pub(crate) fn port(&self) -> &'static str {
        match self.kind {
            Kind::Route | Kind::ChainEncapsulate => "in",
            Kind::Decapsulate => "out",
        }
    }

    /// One frame for each flow.
    pub(crate) fn frames(&self) -> Vec<Vec<u8>> {
        (0..self.flows as u32).map(|flow| self.frame(flow)).collect()
    }

    fn frame(&self, flow: u32) -> Vec<u8> {
        let [_, a, b, c] = flow.to_be_bytes();
        match self.kind {
            Kind::Route | Kind::ChainEncapsulate => Packet::ethernet([2, 0, 0, 0, 1, 2], [2, 0, 0, 0, 1, 0])
                .ipv4(Ipv4Addr::new(10, 1, 0, 2), Ipv4Addr::new(10, 128 | a, b, c))
                .udp(4000, 443)
                .payload(&[0; FRAME - 42])
                .build(),
            Kind::Decapsulate => {
                let inner = Packet::ethernet([2, 0, 0, 0, 3, 2], [2, 0, 0, 0, 3, 1])
                    .ipv4(Ipv4Addr::new(10, 128, 0, 2), Ipv4Addr::new(10, 64 | a, b, c))
                    .udp(4000, 443)
                    .payload(&[0; FRAME - 42])
                    .build();
                // The far end takes the source port from the inner flow (RFC 7348 section 5) and, over IPv4, sends no
                // outer UDP checksum.
                Packet::ethernet([2, 0, 0, 0, 2, 2], [2, 0, 0, 0, 2, 0])
                    .ipv4(Ipv4Addr::new(192, 0, 2, 2), Ipv4Addr::new(192, 0, 2, 1))
                    .udp(0xc000 | (flow & 0x3fff) as u16, 4789)
                    .without_checksum()
                    .vxlan(100, &inner)
                    .build()
            }
        }
    }
}
