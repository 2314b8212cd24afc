//! Workers driven turn by turn, without threads: what has to be counted is counted exactly.

use std::any::Any;
use std::sync::atomic::AtomicUsize;

use weir_config::HugePages;

use super::*;
use crate::frame::{FrameMemory, FramePool};
use crate::io::memory::{MemoryHandle, memory_queue};
use crate::l3::icmp::RateLimiter;
use crate::packet::builder::Packet;
use crate::snapshot::{Registry, Shared};
use crate::worker::core::CoreParts;
use crate::worker::status::Counters;

const FRAMES: u32 = 4096;
const PATCH: &str = "[port.left]\nmode = \"dedicated\"\n[port.right]\nmode = \"dedicated\"\n[cross-connect.patch]\nends = [\"left\", \"right\"]\n";

/// Workers that take turns, and what control would hold.
struct Bench {
    workers: Vec<Worker>,
    common: Arc<Common>,
    registry: Registry,
    shared: Shared,
    pool: Arc<FramePool>,
    events: Receiver<Event>,
}

impl Bench {
    fn new(workers: usize) -> Self {
        let config = weir_config::load_str("test.toml", PATCH).unwrap().config;
        let pool = FramePool::new(FrameMemory::map(FRAMES, 2048, HugePages::Never).unwrap());
        let (shared, mut registry) = (Shared::new(&config, workers, 1), Registry::default());
        let snapshot = Self::compile(&config, &mut registry, &shared, 1);
        let (mut doors, mut parts) = (Vec::new(), Vec::new());
        for id in 0..workers {
            let core = Core::new(CoreParts {
                meters: Arc::clone(&shared.tables.meters),
                icmp: Arc::new(RateLimiter::new(100)),
                cache: FrameCache::new(Arc::clone(&pool)),
                flows: 1024,
                held: 64,
                seed: [7; 8],
            });
            let (door, mail) = door(Arc::clone(&core.counters), id, 1024, Private::default()).unwrap();
            doors.push(door);
            parts.push((core, mail));
        }
        let (events_in, events) = crossbeam_channel::unbounded();
        let common = Arc::new(Common {
            snapshots: ArcSwap::from_pointee(snapshot),
            senders: (0..MAX_PORTS).map(|_| AtomicU16::new(NOBODY)).collect(),
            doors,
            events: events_in,
            clock: Clock::start(),
            idle: Idle::Adaptive,
            quiet: AtomicBool::new(false),
        });
        let workers = parts
            .into_iter()
            .enumerate()
            .map(|(id, (core, mail))| Worker::new(id, core, Arc::clone(&common), mail).unwrap())
            .collect();
        Self { workers, common, registry, shared, pool, events }
    }

    fn compile(
        config: &weir_config::Config,
        registry: &mut Registry,
        shared: &Shared,
        generation: u64,
    ) -> Snapshot {
        let config = Arc::new(config.clone());
        Snapshot::compile(&config, &Default::default(), registry, shared, generation, 1).unwrap()
    }

    /// Has a worker poll one queue of a port, and send by it.
    fn adopt(&mut self, worker: usize, port: &str, since: u64) -> MemoryHandle {
        let (handle, queue) = memory_queue(2048).unwrap();
        self.adopt_queue(worker, port, since, Box::new(queue));
        handle
    }

    fn adopt_queue(&mut self, worker: usize, port: &str, since: u64, io: Box<dyn PortQueue>) {
        let port = self.registry.port(port).unwrap();
        let (done, adopted) = crossbeam_channel::bounded(1);
        self.common.doors[worker].send(Mail::Adopt(Queue { port, number: 0, io, since }, done));
        self.workers[worker].turn();
        adopted.try_recv().unwrap();
        self.common.senders[port.index()].store(worker as u16, Ordering::Release);
    }

    fn counters(&self) -> Counters {
        let mut sum = Counters::default();
        self.common.doors.iter().for_each(|door| door.counters.add_to(&mut sum));
        sum
    }

    /// Ends the workers in the order given; afterwards the pool has to be whole.
    fn stop(self, order: &[usize]) -> Counters {
        let Self { mut workers, common, pool, events, .. } = self;
        let mut workers: Vec<_> = workers.drain(..).map(Some).collect();
        for worker in order {
            workers[*worker].take().unwrap().wind_up();
        }
        let mut cache = FrameCache::new(Arc::clone(&pool));
        while let Ok(Event::Lost(mut queue)) = events.try_recv() {
            queue.io.close(&mut cache);
        }
        common.doors.iter().for_each(|door| door.clear(&mut cache));
        cache.flush();
        assert_eq!(pool.available(), FRAMES as usize, "frames are lost");
        let mut sum = Counters::default();
        common.doors.iter().for_each(|door| door.counters.add_to(&mut sum));
        sum
    }
}

fn datagram() -> Vec<u8> {
    Packet::ethernet("02:00:00:00:00:0a", "02:00:00:00:00:0b").ipv4("10.0.0.1", "10.0.0.2").udp(1, 2).build()
}

#[test]
fn what_does_not_fit_the_handoff_ring_is_counted_and_nothing_is_lost() {
    let mut bench = Bench::new(2);
    let (left, right) = (bench.adopt(0, "left", 1), bench.adopt(1, "right", 1));
    for _ in 0..1500 {
        left.inject(&datagram()).unwrap();
    }
    while bench.workers[0].turn() {}
    let counters = bench.counters();
    assert_eq!((counters.received, counters.handed_out, counters.handed_in), (1500, HANDOFF as u64, 0));
    assert_eq!(counters.dropped["handoff_queue_full"], 1500 - HANDOFF as u64);
    while bench.workers[1].turn() {}
    let counters = bench.counters();
    assert_eq!((counters.handed_in, counters.transmitted), (HANDOFF as u64, HANDOFF as u64));
    assert_eq!(counters.balance().0, counters.balance().1);
    assert_eq!(right.transmitted(), HANDOFF);
    bench.stop(&[0, 1]);
}

#[test]
fn what_was_handed_over_to_a_worker_that_ends_is_counted_whoever_ends_first() {
    for order in [[0, 1], [1, 0]] {
        let mut bench = Bench::new(2);
        let (left, _right) = (bench.adopt(0, "left", 1), bench.adopt(1, "right", 1));
        for _ in 0..100 {
            left.inject(&datagram()).unwrap();
        }
        while bench.workers[0].turn() {}
        assert_eq!(bench.counters().handed_out, 100);
        let counters = bench.stop(&order);
        assert_eq!((counters.handed_in, counters.transmitted), (100, 100));
        assert_eq!(counters.balance().0, counters.balance().1);
    }
}

#[test]
fn what_was_handed_over_for_a_port_that_closes_leaves_by_it_first() {
    let mut bench = Bench::new(2);
    let (left, handle) = (bench.adopt(0, "left", 1), bench.adopt(1, "right", 1));
    for _ in 0..200 {
        left.inject(&datagram()).unwrap();
    }
    while bench.workers[0].turn() {}
    let right = bench.registry.port("right").unwrap();
    let (done, released) = crossbeam_channel::bounded(1);
    bench.common.doors[1].send(Mail::Release(right, done));
    bench.workers[1].turn();
    assert_eq!(released.try_recv().unwrap().len(), 1);
    assert_eq!((handle.transmitted(), bench.counters().transmitted), (200, 200));
    bench.stop(&[0, 1]);
}

#[test]
fn a_full_transmit_ring_is_counted_and_does_not_stop_the_other_direction() {
    let mut bench = Bench::new(1);
    let (left, right) = (bench.adopt(0, "left", 1), bench.adopt(0, "right", 1));
    right.set_transmit_limit(100);
    for _ in 0..300 {
        left.inject(&datagram()).unwrap();
        right.inject(&datagram()).unwrap();
    }
    while bench.workers[0].turn() {}
    let counters = bench.counters();
    assert_eq!(counters.dropped["transmit_queue_full"], 200);
    assert_eq!((left.transmitted(), right.transmitted()), (300, 100));
    assert_eq!(counters.balance().0, counters.balance().1);
    bench.stop(&[0]);
}

#[test]
fn a_queue_is_polled_only_by_workers_that_run_the_generation_that_knows_its_port() {
    let mut bench = Bench::new(1);
    let (left, right) = (bench.adopt(0, "left", 2), bench.adopt(0, "right", 2));
    left.inject(&datagram()).unwrap();
    assert!(!bench.workers[0].turn());
    assert_eq!((left.pending(), bench.counters().received), (1, 0));
    let config = weir_config::load_str("test.toml", PATCH).unwrap().config;
    let snapshot = Bench::compile(&config, &mut bench.registry, &bench.shared, 2);
    // As control does, so that no worker frees the old one.
    let _old = bench.common.snapshots.swap(Arc::new(snapshot));
    assert!(bench.workers[0].turn());
    assert_eq!((left.pending(), right.transmitted()), (0, 1));
    bench.stop(&[0]);
}

#[test]
fn queues_whose_device_is_gone_and_queues_asked_back_reach_control_unclosed() {
    let mut bench = Bench::new(1);
    let (left, _right) = (bench.adopt(0, "left", 1), bench.adopt(0, "right", 1));
    left.unplug();
    bench.workers[0].turn();
    let Event::Lost(queue) = bench.events.try_recv().unwrap();
    assert_eq!(Some(queue.port), bench.registry.port("left").ok());
    let right = bench.registry.port("right").unwrap();
    let (done, released) = crossbeam_channel::bounded(1);
    bench.common.doors[0].send(Mail::Release(right, done));
    bench.workers[0].turn();
    let queues = released.try_recv().unwrap();
    assert!(queues.len() == 1 && queues[0].io.alive());
    assert!(bench.workers[0].queues.is_empty());
    bench.stop(&[0]);
}

/// Says to the child what it is there for.
const PANIC: &str = "WEIR_TEST_PANICKING_WORKER";

/// Not a test by itself: the child of the test below.
#[test]
fn child_whose_worker_panics() {
    if std::env::var_os(PANIC).is_some() {
        let worker = std::thread::spawn(|| or_abort(3, || panic!("as it was told")));
        let _ = worker.join();
        // Whoever goes on without the worker ends well, and that is what the test looks for.
    }
}

#[test]
fn a_worker_that_panics_takes_the_process_with_it() {
    use std::os::unix::process::ExitStatusExt;
    let output = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "worker::run::tests::child_whose_worker_panics", "--nocapture"])
        .env(PANIC, "1")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.signal(), Some(libc::SIGABRT), "{said}");
    assert!(said.contains("as it was told") && said.contains("weir: worker 3 panicked: aborting"), "{said}");
}

/// A memory queue that relays, as queues of DPDK's drivers do, and counts what it relayed.
struct Relaying(Box<dyn PortQueue>, Arc<AtomicUsize>);

impl PortQueue for Relaying {
    fn receive(&mut self, burst: &mut Vec<Frame>, max: usize, cache: &mut FrameCache) -> usize {
        self.0.receive(burst, max, cache)
    }

    fn transmit(&mut self, frames: &mut Vec<Frame>, cache: &mut FrameCache) -> usize {
        self.0.transmit(frames, cache)
    }

    fn relay(
        &mut self,
        other: &mut dyn PortQueue,
        longest: usize,
        burst: &mut Vec<Frame>,
        max: usize,
        cache: &mut FrameCache,
    ) -> usize {
        assert!(other.as_relay().is_some() && burst.is_empty());
        self.receive(burst, max, cache);
        let fit = burst.iter().take_while(|frame| frame.len() <= longest).count();
        let mut rest = burst.split_off(fit);
        let sent = other.transmit(burst, cache);
        burst.append(&mut rest);
        self.1.fetch_add(sent, Ordering::Relaxed);
        sent
    }

    fn as_relay(&mut self) -> Option<&mut dyn Any> {
        Some(self)
    }

    fn service(&mut self, cache: &mut FrameCache) {
        self.0.service(cache);
    }

    fn descriptor(&self) -> Option<RawFd> {
        None
    }

    fn counters(&self) -> QueueCounters {
        self.0.counters()
    }

    fn alive(&self) -> bool {
        self.0.alive()
    }

    fn close(&mut self, cache: &mut FrameCache) {
        self.0.close(cache);
    }
}

#[test]
fn cross_connected_queues_of_one_worker_relay_and_what_they_leave_goes_through_the_engine() {
    let mut bench = Bench::new(2);
    let relayed = Arc::new(AtomicUsize::new(0));
    let mut relaying = |worker: usize, port: &str| {
        let (handle, queue) = memory_queue(2048).unwrap();
        bench.adopt_queue(worker, port, 1, Box::new(Relaying(Box::new(queue), Arc::clone(&relayed))));
        handle
    };
    let (left, right) = (relaying(0, "left"), relaying(0, "right"));
    let frame = |n: u8, len: usize| [&[2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, n][..], &vec![n; len - 12]].concat();
    let frames: Vec<_> = [60, 70, 1600, 80].into_iter().zip(0..).map(|(len, n)| frame(n, len)).collect();
    for frame in &frames {
        left.inject(frame).unwrap();
    }
    while bench.workers[0].turn() {}
    let counters = bench.counters();
    assert_eq!((counters.received, counters.transmitted), (4, 3));
    assert_eq!(counters.dropped.values().sum::<u64>(), 1, "{counters:?}");
    assert_eq!(counters.balance().0, counters.balance().1);
    assert_eq!(relayed.load(Ordering::Relaxed), 2);
    assert_eq!(right.take_transmitted(), [0, 1, 3].map(|n| frames[n].clone()));
    // Back the other way as well; no more once the ports are something else.
    right.inject(&frames[0]).unwrap();
    while bench.workers[0].turn() {}
    assert_eq!((relayed.load(Ordering::Relaxed), left.take_transmitted().len()), (3, 1));
    let bridged = PATCH
        .replace("[cross-connect.patch]\nends = [\"left\", \"right\"]\n", "")
        .replace("\"dedicated\"", "\"dedicated\"\nbridge = \"lan\"")
        + "[bridge.lan]\n";
    let config = weir_config::load_str("test.toml", &bridged).unwrap().config;
    let snapshot = Bench::compile(&config, &mut bench.registry, &bench.shared, 2);
    bench.common.snapshots.store(Arc::new(snapshot));
    left.inject(&frames[0]).unwrap();
    while bench.workers[0].turn() {}
    assert_eq!((relayed.load(Ordering::Relaxed), right.take_transmitted().len()), (3, 1));
    bench.stop(&[0, 1]);
}

#[test]
fn queues_of_two_workers_do_not_relay() {
    let mut bench = Bench::new(2);
    let relayed = Arc::new(AtomicUsize::new(0));
    let handles = [(0, "left"), (1, "right")].map(|(worker, port)| {
        let (handle, queue) = memory_queue(2048).unwrap();
        bench.adopt_queue(worker, port, 1, Box::new(Relaying(Box::new(queue), Arc::clone(&relayed))));
        handle
    });
    handles[0].inject(&datagram()).unwrap();
    for worker in [0, 1] {
        while bench.workers[worker].turn() {}
    }
    assert_eq!((relayed.load(Ordering::Relaxed), handles[1].transmitted()), (0, 1));
    bench.stop(&[0, 1]);
}
