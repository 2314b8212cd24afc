//! One engine, or several on one snapshot, fed from memory: what a packet costs them.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::{Arc, Barrier};

use weir_config::{Config, HugePages};
use weir_dataplane::decision::PortId;
use weir_dataplane::frame::{Frame, FrameCache, FrameMemory, FramePool};
use weir_dataplane::l3::icmp::RateLimiter;
use weir_dataplane::packet::builder::Packet;
use weir_dataplane::snapshot::{Registry, Shared, Snapshot};
use weir_dataplane::worker::{Core, CoreParts, START};

use crate::common::clock::ticks;

/// Bytes of a frame, without the frame check sequence.
const FRAME: usize = 64;
/// Chunks for all beds: a few bursts and the private caches.
const CHUNKS: u32 = 16_384;
/// Seed of tables.
const SEED: u64 = 0x7765_6972;

/// The packets of a run: destination and flow of each, over and over.
#[derive(Clone, Debug)]
pub(super) struct Traffic {
    /// IPv4 destination, and the flow's number, which stands in source address and port.
    pub(super) packets: Vec<(u32, u32)>,
    /// Packets in a burst.
    pub(super) burst: usize,
}

/// A configuration in force, and what cores of it share.
#[derive(Debug)]
pub(super) struct Site {
    snapshot: Arc<Snapshot>,
    shared: Shared,
    port: PortId,
    pool: Arc<FramePool>,
}

/// What a packet cost in one repeat, in ticks: with source and sink, and those alone.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cost {
    pub(super) whole: f64,
    pub(super) null: f64,
}

/// Frame memory lives as long as the process: there is one for all sites.
pub(super) fn pool() -> Result<Arc<FramePool>, String> {
    let memory = FrameMemory::map(CHUNKS, 2048, HugePages::Auto).map_err(|error| error.to_string())?;
    Ok(FramePool::new(memory))
}

impl Site {
    /// Compiles `config` for `workers` cores.
    pub(super) fn new(config: Config, workers: usize, pool: &Arc<FramePool>) -> Result<Self, String> {
        let shared = Shared::new(&config, workers, SEED);
        let mut registry = Registry::default();
        let config = Arc::new(config);
        let snapshot = Snapshot::compile(&config, &BTreeMap::new(), &mut registry, &shared, 1, START);
        let snapshot = Arc::new(snapshot.map_err(|error| error.to_string())?);
        let port = registry.port("in").map_err(|error| error.to_string())?;
        Ok(Self { snapshot, shared, port, pool: Arc::clone(pool) })
    }

    /// An engine of this site.
    pub(super) fn bed(&self) -> Bed {
        let limits = &self.snapshot.config.limits;
        let mut core = Core::new(CoreParts {
            meters: Arc::clone(&self.shared.tables.meters),
            icmp: Arc::new(RateLimiter::new(limits.icmp_errors_per_second)),
            cache: FrameCache::new(Arc::clone(&self.pool)),
            flows: limits.flows as usize,
            held: limits.held_packets as usize,
            seed: [3, 5, 7, 11, 13, 17, 19, 23].map(|n: u64| n.wrapping_mul(0x9e37_79b9_7f4a_7c15)),
        });
        core.set_clock(START);
        let none = Ipv4Addr::UNSPECIFIED;
        let frame = Packet::ethernet([2, 0, 0, 0, 1, 2], [2, 0, 0, 0, 1, 0])
            .ipv4(none, none)
            .udp(1024, 443)
            .payload(&[0; FRAME - 42])
            .without_checksum()
            .build();
        let mut template = [0; FRAME];
        template.iter_mut().zip(frame).for_each(|(to, from)| *to = from);
        let (snapshot, port) = (Arc::clone(&self.snapshot), self.port);
        Bed { core, snapshot, port, template, frames: Vec::with_capacity(64), sent: 0 }
    }

    /// What a packet costs workers on `cores`, in each of `repeats` repeats: all at once, on this site; all at once, each on a site of
    /// its own, of `own`; the first of them alone. They take turns: what the machine does to cores in use, it does to all three.
    pub(super) fn together(
        &self,
        own: &[Self],
        cores: &[usize],
        traffic: &Traffic,
        packets: usize,
        repeats: usize,
    ) -> Result<[Vec<Cost>; 3], String> {
        let barrier = Barrier::new(cores.len());
        let measure = |core: usize, site: &Self, first: bool| -> Result<[Vec<Cost>; 3], String> {
            let pinned = crate::common::pin::pin(Some(core));
            let (mut here, mut apart) = (self.bed(), site.bed());
            let warm = here.check(traffic).and(apart.check(traffic));
            let [mut shared, mut separate, mut alone] = [(); 3].map(|()| Vec::with_capacity(repeats));
            for _ in 0..repeats {
                barrier.wait();
                shared.push(here.repeat(traffic, packets));
                barrier.wait();
                separate.push(apart.repeat(traffic, packets));
                barrier.wait();
                if first {
                    alone.push(apart.repeat(traffic, packets));
                }
            }
            pinned.and(warm).map(|()| [shared, separate, alone])
        };
        let results: Vec<_> = std::thread::scope(|scope| {
            let workers = cores.iter().zip(own).enumerate();
            let threads: Vec<_> = workers
                .map(|(number, (core, site))| {
                    scope.spawn({
                        let measure = &measure;
                        move || measure(*core, site, number == 0)
                    })
                })
                .collect();
            threads.into_iter().map(|thread| thread.join()).collect()
        });
        let mut all = [(); 3].map(|()| Vec::new());
        for result in results {
            let costs = result.map_err(|_| "a worker's thread panicked")??;
            all.iter_mut().zip(costs).for_each(|(all, costs)| all.extend(costs));
        }
        Ok(all)
    }
}

/// An engine with a source and a sink.
#[derive(Debug)]
pub(super) struct Bed {
    core: Core,
    snapshot: Arc<Snapshot>,
    port: PortId,
    template: [u8; FRAME],
    frames: Vec<Frame>,
    /// Frames that left.
    sent: u64,
}

impl Bed {
    /// A pass over the traffic, after which each of its flows is known.
    ///
    /// # Errors
    /// When not every packet was transmitted.
    pub(super) fn check(&mut self, traffic: &Traffic) -> Result<(), String> {
        let before = self.sent;
        self.run(traffic, 0, traffic.packets.len(), Self::pass);
        let sent = self.sent - before;
        if sent == traffic.packets.len() as u64 {
            return Ok(());
        }
        Err(format!("{sent} of {} packets were transmitted", traffic.packets.len()))
    }

    /// About `packets` packets through the engine, and as many past it.
    pub(super) fn repeat(&mut self, traffic: &Traffic, packets: usize) -> Cost {
        self.run(traffic, 0, packets / 8, Self::skip);
        let null = self.run(traffic, 0, packets, Self::skip);
        // Others than those that come now: of many flows, an eighth would lie in the caches already.
        self.run(traffic, packets, packets / 8, Self::pass);
        Cost { whole: self.run(traffic, 0, packets, Self::pass), null }
    }

    /// The packets from `first` on, once, each of which begins a flow, and as many past the engine.
    pub(super) fn first_packets(&mut self, traffic: &Traffic, first: usize, packets: usize) -> Cost {
        let null = self.run(traffic, first, packets, Self::skip);
        Cost { whole: self.run(traffic, first, packets, Self::pass), null }
    }

    /// Ticks a packet.
    #[inline(always)]
    fn run(&mut self, traffic: &Traffic, first: usize, packets: usize, what: impl Fn(&mut Self)) -> f64 {
        let mut upcoming = traffic.packets.iter().cycle().skip(first);
        let bursts = packets.div_ceil(traffic.burst);
        let start = ticks();
        let mut left = packets;
        for _ in 0..bursts {
            for _ in 0..traffic.burst.min(left) {
                if let Some(packet) = upcoming.next() {
                    self.receive(*packet);
                }
            }
            left -= traffic.burst.min(left);
            what(self);
        }
        ticks().wrapping_sub(start) as f64 / packets.max(1) as f64
    }

    #[inline(always)]
    fn receive(&mut self, (destination, flow): (u32, u32)) {
        let source = 0x0a40_0000 | flow & 0x003f_ffff;
        let port = 1024 + (flow >> 22) as u16;
        let mut bytes = self.template;
        // What the addresses add to the header's sum is taken from the identification: the checksum stays.
        let words = [source >> 16, source & 0xffff, destination >> 16, destination & 0xffff];
        let id = u32::from(u16::from_be_bytes([bytes[18], bytes[19]]));
        let sum = words.iter().fold(id, |sum, word| sum + (!word & 0xffff));
        let sum = (sum & 0xffff) + (sum >> 16);
        let sum = (sum & 0xffff) + (sum >> 16);
        bytes[18..20].copy_from_slice(&(sum as u16).to_be_bytes());
        bytes[26..30].copy_from_slice(&source.to_be_bytes());
        bytes[30..34].copy_from_slice(&destination.to_be_bytes());
        bytes[34..36].copy_from_slice(&port.to_be_bytes());
        if let Some(mut frame) = self.core.cache.alloc() {
            frame.write(&bytes);
            self.frames.push(frame);
        }
    }

    #[inline(always)]
    fn pass(&mut self) {
        let Self { core, snapshot, port, frames, sent, .. } = self;
        core.process(snapshot, *port, frames);
        core.flush(|_, frames, cache, _| {
            *sent += frames.len() as u64;
            frames.drain(..).for_each(|frame| cache.free(frame));
        });
    }

    #[inline(always)]
    fn skip(&mut self) {
        let Self { core, frames, .. } = self;
        frames.drain(..).for_each(|frame| core.cache.free(frame));
    }
}
