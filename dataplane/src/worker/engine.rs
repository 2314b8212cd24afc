//! The engine without threads, sockets or a clock of its own: what captures, tests and benchmarks drive.
//!
//! The same code as in a worker; frames come in and go out as bytes, and time is what the caller says. Runs are
//! deterministic: seeds are fixed.

use std::collections::BTreeMap;
use std::sync::Arc;

use weir_config::{Config, HugePages};

use crate::chain::Scope;
use crate::decision::{Nanos, PortId};
use crate::frame::{Frame, FrameCache, FrameMemory, FramePool, MemoryError};
use crate::l3::icmp::RateLimiter;
use crate::snapshot::{CompileError, PortFacts, Registry, Shared, Snapshot};

use super::core::{Core, CoreParts};
use super::display;
use super::status::{Counters, FlowStatus};
use super::tick::{self, Auditor};

/// The engine's clock at the start.
pub const START: Nanos = 1_000_000_000;
/// Timer steps taken one by one when the clock jumps; beyond, they are taken in larger strides.
const STEPS: u64 = 100_000;

/// Why an engine cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The configuration cannot be compiled.
    #[error("{0}")]
    Compile(#[from] CompileError),
    /// There is no memory for frames.
    #[error("{0}")]
    Memory(#[from] MemoryError),
}

/// One single-threaded engine.
pub struct Engine {
    core: Core,
    snapshot: Arc<Snapshot>,
    shared: Shared,
    registry: Registry,
    facts: BTreeMap<String, PortFacts>,
    port_names: BTreeMap<u16, String>,
    burst: Vec<Frame>,
    next_tick: Nanos,
    auditor: Auditor,
    output: Vec<(String, Vec<u8>)>,
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine").field("core", &self.core).finish_non_exhaustive()
    }
}

impl Engine {
    /// An engine that runs `config`. Ports need no devices: MAC, addresses and MTU come from the configuration.
    ///
    /// # Errors
    /// [`EngineError`].
    pub fn new(config: &Config) -> Result<Self, EngineError> {
        let memory = FrameMemory::map(
            config.memory.frames,
            u16::try_from(config.memory.frame_size).unwrap_or(2048),
            HugePages::Auto,
        )?;
        Self::with_pool(config, &FramePool::new(memory))
    }

    /// An engine that runs `config` on frames of `pool`.
    ///
    /// # Errors
    /// [`EngineError`].
    pub fn with_pool(config: &Config, pool: &Arc<FramePool>) -> Result<Self, EngineError> {
        let shared = Shared::new(config, 1, 0x7765_6972);
        let mut registry = Registry::default();
        let facts = BTreeMap::new();
        let config = Arc::new(config.clone());
        let snapshot = Arc::new(Snapshot::compile(&config, &facts, &mut registry, &shared, 1, START)?);
        let core = Core::new(CoreParts {
            meters: Arc::clone(&shared.tables.meters),
            icmp: Arc::new(RateLimiter::new(config.limits.icmp_errors_per_second)),
            cache: FrameCache::new(Arc::clone(pool)),
            flows: config.limits.flows as usize,
            held: config.limits.held_packets as usize,
            seed: [3, 5, 7, 11, 13, 17, 19, 23].map(|n: u64| n.wrapping_mul(0x9e37_79b9_7f4a_7c15)),
        });
        let mut engine = Self {
            core,
            snapshot,
            shared,
            registry,
            facts,
            port_names: BTreeMap::new(),
            burst: Vec::with_capacity(crate::frame::BURST_ROOM),
            next_tick: START,
            auditor: Auditor::default(),
            output: Vec::new(),
        };
        engine.name_ports();
        engine.core.set_clock(START);
        Ok(engine)
    }

    /// Puts another configuration in force: sessions, neighbours and bridge entries survive.
    ///
    /// # Errors
    /// [`EngineError::Compile`]; the running generation is untouched.
    pub fn apply(&mut self, config: &Config) -> Result<u64, EngineError> {
        let generation = self.snapshot.generation + 1;
        let config = Arc::new(config.clone());
        let now = self.core.now;
        let snapshot =
            Snapshot::compile(&config, &self.facts, &mut self.registry, &self.shared, generation, now)?;
        self.snapshot = Arc::new(snapshot);
        self.name_ports();
        self.core.release_all(&self.snapshot);
        Ok(generation)
    }

    /// Has first packets of flows parsed, walked and replayed in the general way alone: the slow twin of all others.
    pub fn take_no_short_cuts(&mut self) {
        self.core.no_short_cuts = true;
    }

    fn name_ports(&mut self) {
        for name in self.snapshot.config.ports.keys() {
            if let Ok(PortId(id)) = self.registry.port(name) {
                self.port_names.insert(id, name.clone());
            }
        }
    }

    /// A port's device loses its carrier, or has it again.
    ///
    /// # Errors
    /// [`EngineError::Compile`]; the running generation is untouched.
    pub fn set_carrier(&mut self, port: &str, carrier: bool) -> Result<u64, EngineError> {
        let id = self.port(port).and_then(|id| self.snapshot.pipeline.by_port.get(id.index()));
        let scope = id.and_then(|scopes| self.snapshot.pipeline.scope(scopes.first()?.1));
        if let Some(Scope { mac, mtu, .. }) = scope {
            let facts = PortFacts { mac: *mac, mtu: *mtu, kernel_neighbours: false, carrier };
            self.facts.insert(port.to_owned(), facts);
        }
        let config = Arc::clone(&self.snapshot.config);
        self.apply(&config)
    }

    /// The number of a port.
    pub fn port(&self, name: &str) -> Option<PortId> {
        self.port_names.iter().find(|(_, have)| *have == name).map(|(id, _)| PortId(*id))
    }

    /// The clock.
    pub fn now(&self) -> Nanos {
        self.core.now
    }

    /// Sets the clock to `now`, running every timer on the way. Frames that timers make are handed to `sent` with the
    /// port's name and the time at which they left.
    pub fn advance(&mut self, now: Nanos, mut sent: impl FnMut(&str, Nanos, &[u8])) {
        let stride = ((now.saturating_sub(self.core.now)) / STEPS).max(tick::TICK);
        while self.next_tick <= now {
            self.core.set_clock(self.next_tick);
            self.next_tick += stride;
            tick::run(&mut self.core, &self.snapshot);
            self.auditor.tick(&self.core, &self.snapshot);
            self.core.housekeep(&self.snapshot);
            let at = self.core.now;
            self.flush(|port, bytes| sent(port, at, bytes));
        }
        self.core.set_clock(now);
        self.core.housekeep(&self.snapshot);
        self.flush(|port, bytes| sent(port, now, bytes));
    }

    /// Receives frames on a port as one burst. What leaves is handed to `sent` with the port's name. A frame that does
    /// not fit a chunk, or for which there is no chunk, is not received: the number of frames received is returned.
    pub fn receive(&mut self, port: &str, frames: &[&[u8]], sent: impl FnMut(&str, &[u8])) -> usize {
        let Some(id) = self.port(port) else { return 0 };
        let mut burst = std::mem::take(&mut self.burst);
        for bytes in frames {
            let Some(mut frame) = self.core.cache.alloc() else { break };
            if frame.write(bytes) {
                burst.push(frame);
            } else {
                self.core.cache.free(frame);
            }
        }
        let count = burst.len();
        self.core.process(&self.snapshot, id, &mut burst);
        self.burst = burst;
        self.core.housekeep(&self.snapshot);
        self.flush(sent);
        count
    }

    /// Receives one frame; what left stays for [`take_sent`](Self::take_sent).
    pub fn inject(&mut self, port: &str, bytes: &[u8]) {
        let mut output = std::mem::take(&mut self.output);
        self.receive(port, &[bytes], |port, bytes| output.push((port.to_owned(), bytes.to_vec())));
        self.output = output;
    }

    /// Runs a burst of whole frames through the engine and hands what leaves to `sent`, frame by frame: for benchmarks,
    /// which bring their own frames and want them back.
    #[inline]
    pub fn process(
        &mut self,
        port: PortId,
        burst: &mut Vec<Frame>,
        mut sent: impl FnMut(PortId, &mut Vec<Frame>, &mut FrameCache),
    ) {
        self.core.process(&self.snapshot, port, burst);
        self.core.flush(|port, frames, cache, counters| {
            counters.transmitted.add(frames.len() as u64);
            sent(port, frames, cache);
        });
    }

    /// The private frame cache.
    pub fn cache(&mut self) -> &mut FrameCache {
        &mut self.core.cache
    }

    /// Advances the clock by `nanos`; what left stays for [`take_sent`](Self::take_sent).
    pub fn wait(&mut self, nanos: Nanos) {
        let mut output = std::mem::take(&mut self.output);
        self.advance(self.core.now + nanos, |port, _, bytes| output.push((port.to_owned(), bytes.to_vec())));
        self.output = output;
    }

    /// What left since the last call: port name and frame, in order.
    pub fn take_sent(&mut self) -> Vec<(String, Vec<u8>)> {
        std::mem::take(&mut self.output)
    }

    fn flush(&mut self, mut sent: impl FnMut(&str, &[u8])) {
        let names = &self.port_names;
        self.core.flush(|port, frames, cache, counters| {
            counters.transmitted.add(frames.len() as u64);
            let name = names.get(&port.0).map_or("?", String::as_str);
            for frame in frames.drain(..) {
                sent(name, frame.bytes());
                cache.free(frame);
            }
        });
    }

    /// Counters now.
    pub fn counters(&self) -> Counters {
        let mut sum = Counters::default();
        self.core.counters.held.set(self.core.held.len() as u64);
        self.core.counters.add_to(&mut sum);
        let macs = self.shared.tables.macs.counters();
        (sum.mac_moves, sum.mac_refused) = (macs.moved, macs.refused);
        sum.icmp_limited = self.core.icmp.suppressed();
        sum
    }

    /// At most `limit` flows.
    pub fn flows(&self, limit: usize) -> Vec<FlowStatus> {
        display::flows(0, &self.core, &self.snapshot, limit)
    }

    /// The running generation.
    pub fn snapshot(&self) -> &Snapshot {
        &self.snapshot
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.core.abandon_held();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::builder::Packet;

    /// As in a loop: what is routed keeps its program as it is, and what is bridged finds the station where it is.
    #[test]
    fn a_station_that_moves_has_bridged_packets_looked_up_again_and_no_others() {
        let mut text = String::from("[bridge.br]\n[limits]\nflows = 64\n[memory]\nframes = 1024\n");
        for (port, rest) in [
            ("one", "bridge = \"br\""),
            ("two", "bridge = \"br\""),
            ("three", "bridge = \"br\""),
            ("lan", "mac = \"02:00:00:00:01:00\"\naddresses = [\"10.1.0.1/24\"]"),
            ("wan", "addresses = [\"10.2.0.1/24\"]"),
        ] {
            text += &format!("[port.{port}]\nmode = \"dedicated\"\n{rest}\n");
        }
        text += "[[neighbour]]\nport = \"wan\"\nip = \"10.2.0.2\"\nmac = \"02:00:00:00:00:02\"\n\
                 [[vrf.default.route]]\nprefix = \"10.9.0.0/16\"\nvia = { ip = \"10.2.0.2\" }\n";
        let mut engine = Engine::new(&weir_config::load_str("test", &text).unwrap().config).unwrap();
        let to = |source: &str, destination: &str, ip: &str| {
            Packet::ethernet(source, destination).ipv4("10.1.0.2", ip)
        };
        let packet = |source: &str, destination: &str| to(source, destination, "10.9.0.2").udp(1, 2).build();
        let (host, peer, lan) = ("02:00:00:00:00:0a", "02:00:00:00:00:0b", "02:00:00:00:01:00");
        let mut state = |port: &str| {
            // It is in another place each time.
            engine.inject(port, &packet(host, peer));
            engine.take_sent();
            engine.inject("three", &packet(peer, host));
            // By a route, by a destination, by a whole key.
            engine.inject("lan", &packet(host, lan));
            engine.inject("lan", &to(host, lan, "10.2.0.2").udp(1, 2).build());
            engine.inject("lan", &to(host, lan, "10.9.0.2").echo_request(1, 2).build());
            let ports: Vec<String> = engine.take_sent().into_iter().map(|(port, _)| port).collect();
            assert_eq!(ports, [port, "wan", "wan", "wan"]);
            let flows = engine.core.flows();
            let compact = flows.compact.iter().map(|entry| (entry.key.ether_source().is_some(), entry.epoch));
            let routes = flows.routes().map(|(_, _, shared)| (false, shared.epoch));
            let whole = flows.whole.iter().map(|(_, entry)| (false, entry.epoch));
            let all: Vec<(bool, u32)> = compact.chain(routes).chain(whole).collect();
            let of = |bridged| {
                all.iter().filter(|(of, _)| *of == bridged).map(|(_, epoch)| *epoch).collect::<Vec<_>>()
            };
            (of(true).into_iter().max(), of(false))
        };
        let first = state("one");
        assert!(first.1.len() >= 2, "{first:?}");
        for port in ["two", "one", "two"] {
            let next = state(port);
            assert!(next.0 > first.0, "{next:?}");
            assert_eq!(next.1, first.1);
        }
    }
}
