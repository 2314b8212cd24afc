//! A worker in steady state allocates nothing: cached packets, sweeps and timers.
#![allow(missing_docs, unsafe_code, clippy::unwrap_used, clippy::indexing_slicing)]

mod common;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use common::config;
use common::site::{BLUE, FAR, HOST, INNER, LAN, OTHER, PLAIN, Site, VTEP, WAN};
use weir_dataplane::decision::PortId;
use weir_dataplane::frame::Frame;
use weir_dataplane::packet::builder::Packet;
use weir_dataplane::packet::tcp_flags::{ACK, SYN};
use weir_dataplane::worker::Engine;

/// The system's allocator; counts what the thread that watches asks for.
struct Counting;

thread_local! {
    static ASKED: Cell<Option<u64>> = const { Cell::new(None) };
}

fn note() {
    // Not there any more while a thread ends.
    let _ = ASKED.try_with(|asked| asked.set(asked.get().map(|count| count + 1)));
}

// SAFETY: every call is handed to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        note();
        // SAFETY: as the caller promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        note();
        // SAFETY: as the caller promises.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        note();
        // SAFETY: as the caller promises.
        unsafe { System.realloc(block, layout, size) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(block, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// How often this thread allocates in `work`.
fn allocations(work: impl FnOnce()) -> u64 {
    ASKED.set(Some(0));
    work();
    ASKED.take().unwrap()
}

const BURST: usize = 32;
const ROUNDS: u64 = 500;

/// An engine, and bursts by ingress port.
struct Bench {
    engine: Engine,
    bursts: Vec<(PortId, Vec<Vec<u8>>)>,
    frames: Vec<Frame>,
    sent: u64,
}

impl Bench {
    fn new(engine: Engine, bursts: &[(&str, Vec<Vec<u8>>)]) -> Self {
        let bursts =
            bursts.iter().map(|(port, frames)| (engine.port(port).unwrap(), frames.clone())).collect();
        Self { engine, bursts, frames: Vec::with_capacity(BURST), sent: 0 }
    }

    /// Every burst once, its frames repeated until it is full.
    fn round(&mut self) {
        for (port, frames) in &self.bursts {
            for bytes in frames.iter().cycle().take(BURST) {
                let mut frame = self.engine.cache().alloc().unwrap();
                assert!(frame.write(bytes));
                self.frames.push(frame);
            }
            self.engine.process(*port, &mut self.frames, |_, frames, cache| {
                self.sent += frames.len() as u64;
                frames.drain(..).for_each(|frame| cache.free(frame));
            });
        }
    }

    /// Runs rounds with one millisecond between them. Returns allocations, packets sent and flows hit.
    fn run(&mut self, rounds: u64) -> (u64, u64, u64) {
        let (sent, hits) = (self.sent, self.engine.counters().flow_hits);
        let count = allocations(|| {
            for _ in 0..rounds {
                self.round();
                let now = self.engine.now() + 1_000_000;
                self.engine.advance(now, |_, _, _| {});
            }
        });
        (count, self.sent - sent, self.engine.counters().flow_hits - hits)
    }
}

fn routed() -> Vec<Vec<u8>> {
    let v4 =
        |port| Packet::ethernet(HOST, LAN).ipv4("10.1.0.2", "10.9.0.2").udp(port, 4000).payload(&[0; 18]);
    let v6 = |port| Packet::ethernet(HOST, LAN).ipv6("2001:db8:1::2", "2001:db8:2::2").udp(port, 4001);
    (0..8).flat_map(|port| [v4(port).build(), v6(port).build()]).collect()
}

fn encapsulated() -> Vec<Vec<u8>> {
    let v4 =
        |port| Packet::ethernet(HOST, BLUE).ipv4("10.3.0.2", "10.4.0.2").udp(port, 4002).payload(&[0; 18]);
    let v6 = |port| Packet::ethernet(HOST, BLUE).ipv6("2001:db8:3::2", "2001:db8:4::2").udp(port, 4003);
    let tcp = Packet::ethernet(HOST, BLUE).ipv4("10.3.0.2", "10.4.0.2").tcp(9, 80).payload(b"data").build();
    (0..8).flat_map(|port| [v4(port).build(), v6(port).build()]).chain([tcp]).collect()
}

fn decapsulated(site: Site) -> Vec<Vec<u8>> {
    let to_blue = Packet::ethernet(FAR, INNER).ipv4("10.4.0.3", "10.3.0.2").udp(1, 4004).build();
    let bridged = Packet::ethernet(OTHER, HOST).ipv4("10.5.0.2", "10.5.0.1").udp(1, 4005).build();
    let crossed = Packet::ethernet(OTHER, HOST).ipv6("2001:db8:5::1", "2001:db8:5::2").udp(1, 4006).build();
    [(100, to_blue), (5000, bridged), (5001, crossed)]
        .into_iter()
        .map(|(vni, inner)| site.outer(vni, &inner).traffic_class(2).build())
        .collect()
}

#[test]
fn cached_packets_sweeps_and_timers_allocate_nothing() {
    assert_eq!(allocations(|| drop(std::hint::black_box(Box::new(1)))), 1, "the counter counts");
    for site in [false, true]
        .into_iter()
        .flat_map(|v6| [false, true].map(|chain| Site { v6, chain, ecmp: true, ..PLAIN }))
    {
        let mut engine = Engine::with_pool(&config(&site.text()), &common::POOL).unwrap();
        // A TCP connection is opened, and bridge entries are learned.
        let pair =
            |flags| Packet::ethernet(HOST, BLUE).ipv4("10.3.0.2", "10.4.0.2").tcp(9, 80).flags(flags).build();
        let answer =
            Packet::ethernet(FAR, INNER).ipv4("10.4.0.2", "10.3.0.2").tcp(80, 9).flags(SYN | ACK).build();
        engine.inject("blue", &pair(SYN));
        engine.inject("wan", &site.outer(100, &answer).build());
        engine.inject("blue", &pair(ACK));
        let host = Packet::ethernet(HOST, OTHER).ipv4("10.5.0.1", "10.5.0.2").udp(4005, 4005);
        engine.inject("one", &host.build());
        let back = Packet::ethernet(VTEP, WAN).ipv4("10.2.0.2", "10.1.0.2").udp(4000, 4007).build();
        let mut from_wan = decapsulated(site);
        from_wan.push(back);
        engine.take_sent();
        let bursts = [
            ("lan", routed()),
            ("blue", encapsulated()),
            ("wan", from_wan),
            ("one", vec![host.build()]),
            ("left", vec![host.vlan(5).build()]),
        ];
        let packets = ROUNDS * (BURST * bursts.len()) as u64;
        let mut bench = Bench::new(engine, &bursts);
        bench.run(1500);
        let before = bench.engine.counters();
        let (count, sent, hits) = bench.run(ROUNDS);
        assert_eq!((count, sent, hits), (0, packets, packets), "{site:?} allocations, packets, flows hit");
        let counters = bench.engine.counters();
        assert_eq!(counters.dropped, before.dropped);
        let (entered, left) = counters.balance();
        assert_eq!(entered, left);
    }
}
