//! Address translation through the whole engine: packets in, packets out, exact counters.
#![allow(missing_docs, clippy::unwrap_used, clippy::panic, clippy::expect_used, clippy::indexing_slicing)]

#[path = "../common/mod.rs"]
mod common;

mod errors;
mod lasting;
mod mapping;

use std::collections::BTreeMap;

use common::Lab;
use common::bed::{LAN, WAN, neighbour, route, routed, through};
use common::sound::{assert_sound, ends};
use weir_dataplane::packet::builder::Packet;
use weir_dataplane::packet::parse;
use weir_dataplane::packet::tcp_flags::{ACK, FIN, RST, SYN};
use weir_dataplane::packet::view::arp;

const DMZ: &str = "02:00:00:00:03:00";
const HOST: &str = "02:00:00:00:00:0a";
const GATEWAY: &str = "02:00:00:00:00:0f";

const ALICE: &str = "10.1.0.2";
const CAROL: &str = "10.1.0.3";
const SERVER: &str = "198.51.100.9";
const OTHER: &str = "198.51.100.10";

/// Hosts behind `lan` and `dmz`, whose packets are translated; the world behind a gateway on `wan`.
fn base() -> String {
    [
        &routed("lan", LAN, &["10.1.0.1/24"]),
        &routed("dmz", DMZ, &["10.3.0.1/24"]),
        &routed("wan", WAN, &["203.0.113.1/24"]),
        "mtu = 1400\n",
        &route("0.0.0.0/0", "203.0.113.254"),
        &neighbour("wan", "203.0.113.254", GATEWAY),
        &neighbour("lan", ALICE, HOST),
        &neighbour("lan", CAROL, HOST),
        &neighbour("dmz", "10.3.0.2", HOST),
        &through("out"),
        "from = [\"port.lan\", \"port.dmz\"]\n",
    ]
    .concat()
}

/// Packets from outside to forwarded ports take the chain too.
const INBOUND: &str = "[[classify]]\nfrom = \"port.wan\"\nto-prefix = \"203.0.113.0/24\"\nchain = \"all\"\n";

fn site(nat: &str) -> String {
    format!("{}[service.out.nat]\n{nat}\n", base())
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
