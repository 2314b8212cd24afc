//! An engine over frames in memory, with what tests ask of it.
#![allow(dead_code, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

pub(crate) mod bed;
pub(crate) mod site;
pub(crate) mod sound;

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

use weir_config::{Config, HugePages};
use weir_dataplane::frame::{FrameMemory, FramePool};
use weir_dataplane::packet::builder::Packet;
use weir_dataplane::packet::view::arp;
use weir_dataplane::worker::Engine;
use weir_dataplane::worker::status::Counters;

/// An engine whose conservation is checked after every step.
pub(crate) struct Lab {
    pub(crate) engine: Engine,
    sent: Vec<(String, Vec<u8>)>,
}

/// Loads a configuration that must be valid.
pub(crate) fn config(text: &str) -> Config {
    match weir_config::load_str("test.toml", text) {
        Ok(loaded) => loaded.config,
        Err(error) => panic!("{error}"),
    }
}

/// Frames for all engines of a test program: memory of frames is never unmapped.
pub(crate) static POOL: LazyLock<Arc<FramePool>> =
    LazyLock::new(|| FramePool::new(FrameMemory::map(8192, 2048, HugePages::Never).unwrap()));

impl Lab {
    pub(crate) fn new(text: &str) -> Self {
        Self::of(&config(text))
    }

    /// A lab of a configuration that is loaded already.
    pub(crate) fn of(config: &Config) -> Self {
        Self { engine: Engine::with_pool(config, &POOL).unwrap(), sent: Vec::new() }
    }

    pub(crate) fn inject(&mut self, port: &str, frame: &[u8]) {
        self.engine.inject(port, frame);
        self.collect();
    }

    /// Sends a packet into a port; the ports by which something left since the last call, sorted.
    pub(crate) fn send(&mut self, port: &str, packet: &Packet) -> Vec<String> {
        self.inject(port, &packet.build());
        let mut ports: Vec<String> = self.take().into_iter().map(|(port, _)| port).collect();
        ports.sort_unstable();
        ports
    }

    /// Puts another configuration in force.
    pub(crate) fn apply(&mut self, text: &str) {
        self.engine.apply(&config(text)).unwrap();
    }

    pub(crate) fn wait(&mut self, seconds: u64) {
        self.wait_ms(seconds * 1000);
    }

    pub(crate) fn wait_ms(&mut self, ms: u64) {
        self.engine.wait(ms * 1_000_000);
        self.collect();
    }

    fn collect(&mut self) {
        self.sent.extend(self.engine.take_sent());
        self.counters();
    }

    /// Frames that left since the last call.
    pub(crate) fn take(&mut self) -> Vec<(String, Vec<u8>)> {
        std::mem::take(&mut self.sent)
    }

    /// The counters; what came in equals what left or is held.
    pub(crate) fn counters(&self) -> Counters {
        let counters = self.engine.counters();
        let (entered, left) = counters.balance();
        assert_eq!(entered, left, "not conserved: {counters:?}");
        counters
    }

    /// How many packets were dropped, by reason.
    pub(crate) fn drops(&self) -> BTreeMap<&'static str, u64> {
        self.counters().dropped
    }

    /// Checks that every packet is accounted for, and the drops.
    pub(crate) fn expect_drops(&self, drops: &[(&'static str, u64)]) {
        assert_eq!(self.drops(), BTreeMap::from_iter(drops.iter().copied()));
    }

    /// Answers an ARP request that left by a port, as the owner of the address asked for.
    pub(crate) fn answer_arp(&mut self, (port, request): &(String, Vec<u8>), mac: &str) {
        let mac: weir_config::MacAddress = mac.parse().unwrap();
        let asked = arp::Packet::read(&request[14..]).expect("an ARP request");
        let reply = arp::Packet {
            operation: 2,
            sender_mac: mac,
            sender_ip: asked.target_ip,
            target_mac: asked.sender_mac,
            target_ip: asked.sender_ip,
        };
        let frame = Packet::ethernet(mac, asked.sender_mac).arp(reply).build();
        let port = port.clone();
        self.inject(&port, &frame);
    }
}

/// What a scenario expects that lets nothing pass.
pub(crate) const NOWHERE: [String; 0] = [];

/// All drops.
pub(crate) fn sum(counters: &Counters) -> u64 {
    counters.dropped.values().sum()
}
