//! Address translation through the whole engine: packets in, packets out, exact counters.
#![allow(missing_docs, clippy::unwrap_used, clippy::panic, clippy::expect_used, clippy::indexing_slicing)]

#[path = "../common/mod.rs"]
mod common;

mod errors;
mod lasting;
mod mapping;

use std::collections::BTreeMap;

use common::sound::{assert_sound, ends};
use common::{Lab, config};
use weir_dataplane::packet::builder::Packet;
use weir_dataplane::packet::parse;
use weir_dataplane::packet::tcp_flags::{ACK, FIN, RST, SYN};
use weir_dataplane::packet::view::arp;

const LAN: &str = "02:00:00:00:01:00";
const WAN: &str = "02:00:00:00:02:00";
const DMZ: &str = "02:00:00:00:03:00";
const HOST: &str = "02:00:00:00:00:0a";
const GATEWAY: &str = "02:00:00:00:00:0f";

const ALICE: &str = "10.1.0.2";
const CAROL: &str = "10.1.0.3";
const SERVER: &str = "198.51.100.9";
const OTHER: &str = "198.51.100.10";

const BASE: &str = r#"
[memory]
frames = 1024
[port.lan]
mode = "dedicated"
mac = "02:00:00:00:01:00"
addresses = ["10.1.0.1/24"]
[port.dmz]
mode = "dedicated"
mac = "02:00:00:00:03:00"
addresses = ["10.3.0.1/24"]
[port.wan]
mode = "dedicated"
mac = "02:00:00:00:02:00"
addresses = ["203.0.113.1/24"]
mtu = 1400
[[vrf.default.route]]
prefix = "0.0.0.0/0"
via = { ip = "203.0.113.254" }
[[neighbour]]
port = "wan"
ip = "203.0.113.254"
mac = "02:00:00:00:00:0f"
[[neighbour]]
port = "lan"
ip = "10.1.0.2"
mac = "02:00:00:00:00:0a"
[[neighbour]]
port = "lan"
ip = "10.1.0.3"
mac = "02:00:00:00:00:0a"
[[neighbour]]
port = "dmz"
ip = "10.3.0.2"
mac = "02:00:00:00:00:0a"
[chain.out]
hops = ["out"]
[[classify]]
from = ["port.lan", "port.dmz"]
chain = "out"
"#;

/// Packets from outside to forwarded ports take the chain too.
const INBOUND: &str = "[[classify]]\nfrom = \"port.wan\"\nto-prefix = \"203.0.113.0/24\"\nchain = \"out\"\n";

fn site(nat: &str) -> String {
    format!("{BASE}[service.out.nat]\n{nat}\n")
}

fn nat(text: &str) -> Lab {
    Lab::new(&site(text))
}

const ONE: &str = "snat = { to = \"203.0.113.7\" }";

/// From a host behind `lan`.
fn out(source: &str, destination: &str) -> Packet {
    Packet::ethernet(HOST, LAN).ipv4(source, destination)
}

/// From the gateway on `wan`.
fn back(source: &str, destination: &str) -> Packet {
    Packet::ethernet(GATEWAY, WAN).ipv4(source, destination)
}

/// What leaves: its port, and addresses and ports in words. Its checksums are right.
fn describe((port, frame): &(String, Vec<u8>)) -> String {
    format!("{port} {}", ends(frame))
}

/// Sends a frame into a port; what leaves, in words.
fn pass(lab: &mut Lab, port: &str, packet: &Packet) -> Vec<String> {
    lab.inject(port, &packet.build());
    lab.take().iter().map(describe).collect()
}

fn drops(lab: &Lab) -> BTreeMap<&'static str, u64> {
    lab.counters().dropped
}

fn bindings(lab: &Lab) -> Vec<String> {
    let entries = lab.engine.snapshot().tables.nat.entries(100);
    entries
        .iter()
        .map(|entry| {
            let ((inside, from), (outside, to)) = (entry.inside, entry.outside);
            format!("{} {inside}:{from} {outside}:{to}", entry.protocol)
        })
        .collect()
}

const NOTHING: [&str; 0] = [];
