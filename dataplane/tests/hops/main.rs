//! Attached hops through the whole engine: packets in, out to the hop, back, and on; exact counters.
#![allow(missing_docs, clippy::unwrap_used, clippy::panic, clippy::expect_used, clippy::indexing_slicing)]

#[path = "../common/mod.rs"]
mod common;

mod changes;
mod passing;
mod transparent;

use std::collections::BTreeMap;

use common::bed::{ALICE, LAN, WAN, neighbour, route, routed};
use common::sound::{assert_sound, dotted, ends, told};
use proptest::prelude::*;
use weir_dataplane::packet::builder::Packet;
use weir_dataplane::packet::tcp_flags::{ACK, RST, SYN};
use weir_dataplane::packet::{checksum, parse};

const GATEWAY: &str = "02:00:00:00:00:0f";
const SERVER: &str = "198.51.100.9";

/// Alice behind `lan`, whose packets take the chain `web`; the world behind a gateway on `wan`.
fn base() -> String {
    [
        &routed("lan", LAN, &["10.1.0.1/24", "2001:db8:1::1/64"]),
        &routed("wan", WAN, &["203.0.113.1/24", "2001:db8:2::1/64"]),
        &route("0.0.0.0/0", "203.0.113.254"),
        &route("::/0", "2001:db8:2::fe"),
        &neighbour("wan", "203.0.113.254", GATEWAY),
        &neighbour("wan", "2001:db8:2::fe", GATEWAY),
        &neighbour("lan", "10.1.0.2", ALICE),
        &neighbour("lan", "2001:db8:1::2", ALICE),
        SERVICES,
    ]
    .concat()
}

const SERVICES: &str = r#"
[service.edge.firewall]
default = "drop"
rules = [
    { allow = "udp" },
    { allow = "icmp" },
    { allow = "icmp6" },
    { reject = "tcp", to-port = 23 },
    { allow = "tcp" },
]
[service.out.nat]
snat = { from = "10.1.0.0/24", to = "203.0.113.7" }
filtering = "endpoint-independent"
[[classify]]
from = "port.lan"
chain = "web"
"#;

const TWO_ARMS: &str = r#"
[port.a]
mode = "dedicated"
[port.b]
mode = "dedicated"
[hop.ids]
attach = ["a", "b"]
"#;

/// What is on the wires of hops: from which port to which it hands frames on.
type Wires = &'static [(&'static str, &'static str)];
const THROUGH: Wires = &[("a", "b"), ("b", "a")];

fn site(hops: &str, extra: &str) -> String {
    format!("{}{extra}[chain.web]\nhops = [{hops}]\n", base())
}

struct Lab {
    lab: common::Lab,
    wires: Wires,
    /// Frames that went out to hops.
    seen: Vec<(String, Vec<u8>)>,
}

impl Lab {
    fn new(hops: &str, extra: &str, wires: Wires) -> Self {
        Self { lab: common::Lab::new(&site(hops, extra)), wires, seen: Vec::new() }
    }

    /// Sends a frame into a port, lets the hops hand on what comes to them, and returns what left by other ports.
    fn pass(&mut self, port: &str, frame: &[u8]) -> Vec<(String, Vec<u8>)> {
        self.lab.inject(port, frame);
        self.settle()
    }

    fn settle(&mut self) -> Vec<(String, Vec<u8>)> {
        let mut out = Vec::new();
        for _ in 0..50 {
            let sent = self.lab.take();
            if sent.is_empty() {
                return out;
            }
            for (port, frame) in sent {
                match self.wires.iter().find(|(from, _)| *from == port) {
                    Some((_, to)) => {
                        self.seen.push((port, frame.clone()));
                        self.lab.inject(to, &frame);
                    }
                    None => out.push((port, frame)),
                }
            }
        }
        panic!("a packet goes round and round");
    }

    fn send(&mut self, port: &str, packet: &Packet) -> Vec<String> {
        self.pass(port, &packet.build()).iter().map(describe).collect()
    }

    /// By which ports frames went out to hops since the last call.
    fn seen(&mut self) -> Vec<String> {
        std::mem::take(&mut self.seen).into_iter().map(|(port, _)| port).collect()
    }

    fn drops(&self) -> BTreeMap<&'static str, u64> {
        self.lab.drops()
    }

    fn apply(&mut self, text: &str) {
        self.lab.apply(text);
    }

    fn carrier(&mut self, port: &str, up: bool) {
        self.lab.engine.set_carrier(port, up).unwrap();
    }
}

/// A frame in words; it is a sound one.
fn describe((port, frame): &(String, Vec<u8>)) -> String {
    if frame[12..14] == [0x86, 0xdd] {
        assert_ne!(checksum::verify_transport(frame, &parse(frame).unwrap()), Some(false), "{frame:02x?}");
        return format!("{port} v6 ttl {}", frame[21]);
    }
    format!("{port} {} ttl {}", ends(frame), frame[22])
}

/// From Alice, behind `lan`.
fn out() -> Packet {
    Packet::ethernet(ALICE, LAN).ipv4("10.1.0.2", SERVER)
}

/// From the server, behind the gateway on `wan`, to Alice.
fn back() -> Packet {
    back_to("10.1.0.2")
}

fn back_to(destination: &str) -> Packet {
    Packet::ethernet(GATEWAY, WAN).ipv4(SERVER, destination)
}

const NOTHING: [String; 0] = [];
