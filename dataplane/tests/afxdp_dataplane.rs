//! The whole data plane, threads and all, on real AF_XDP sockets: two workers between veth pairs, while configurations
//! and devices come and go.
#![allow(unsafe_code, clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread::{Scope, ScopedJoinHandle};
use std::time::{Duration, Instant};

use support::{SOON, Tap, Wire, privileged};
use weir_config::{Config, Cores, Idle};
use weir_dataplane::packet::builder::Packet;
use weir_dataplane::worker::status::{Counters, Stopped, WorkerStatus};
use weir_dataplane::worker::{ApplyError, Dataplane};

/// The ports: left and right always, spare if a configuration says so.
const NAMES: [&str; 3] = ["left", "right", "spare"];
/// Destination port of the packets that are counted.
const COUNTED: u16 = 7;
/// Destination port of those that only make noise.
const NOISE: u16 = 9;
/// Destination port of single packets that are looked for.
const PROBE: u16 = 11;
const FRAMES: u64 = 16_384;

/// What a configuration may have beyond two routed ports.
const ROUTES: u32 = 1;
const CHAIN: u32 = 2;
const VLAN: u32 = 4;
const SPARE: u32 = 8;

/// One test at a time: they measure, and each wants both cores.
fn alone() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Two cores of the affinity mask, or the only one twice.
fn cores() -> [usize; 2] {
    // SAFETY: all-zero is an empty set, and the kernel writes no more than its size.
    let set = unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        assert_eq!(libc::sched_getaffinity(0, size_of_val(&set), &mut set), 0);
        set
    };
    // SAFETY: the index is below the size of the set.
    let mut given = (0..libc::CPU_SETSIZE as usize).filter(|core| unsafe { libc::CPU_ISSET(*core, &set) });
    let first = given.next().unwrap();
    [first, given.next().unwrap_or(first)]
}

/// Three wires and the data plane between them.
struct Site {
    wires: [Wire; 3],
    dataplane: Dataplane,
}

impl Site {
    fn new(queues: u32) -> Self {
        Self { wires: [(); 3].map(|()| Wire::new(queues)), dataplane: Dataplane::default() }
    }

    fn text(&self, options: u32) -> String {
        let mut text = format!("[memory]\nframes = {FRAMES}\nhuge-pages = \"never\"\n");
        let ports = if options & SPARE != 0 { 3 } else { 2 };
        text += &format!(
            "[[vrf.default.route]]\nprefix = \"10.9.0.0/24\"\nvia = {{ ip = \"10.{}.0.9\" }}\n",
            ports - 1
        );
        for (n, (name, wire)) in NAMES.iter().zip(&self.wires).enumerate().take(ports) {
            let device = &wire.device;
            text += &format!(
                "[port.{name}]\ndevice = \"{device}\"\nmode = \"dedicated\"\nmac = \"02:00:00:00:01:0{n}\"\n\
                 addresses = [\"10.{n}.0.1/24\"]\n\
                 [[neighbour]]\nport = \"{name}\"\nip = \"10.{n}.0.9\"\nmac = \"02:00:00:00:02:0{n}\"\n"
            );
        }
        if options & ROUTES != 0 {
            for n in 0..50 {
                text += &format!(
                    "[[vrf.default.route]]\nprefix = \"172.16.{n}.0/24\"\nvia = {{ ip = \"10.1.0.9\" }}\n"
                );
            }
        }
        if options & CHAIN != 0 {
            text += "[service.wall.firewall]\ndefault = \"allow\"\nrules = [{ deny = \"tcp\", to-port = 1 }]\n\
                     [chain.guarded]\nhops = [\"wall\"]\n[[classify]]\nfrom = \"port.left\"\nchain = \"guarded\"\n";
        }
        if options & VLAN != 0 {
            text += "[port.left.vlan.100]\naddresses = [\"10.100.0.1/24\"]\n";
        }
        text
    }

    fn config(&self, options: u32) -> Config {
        configured(&self.text(options))
    }

    /// Starts with two workers.
    fn start(queues: u32, options: u32) -> Self {
        let site = Self::new(queues);
        assert_eq!(site.dataplane.apply(&site.config(options)).unwrap(), 1);
        site
    }

    fn taps(&self) -> [Tap; 3] {
        [0, 1, 2].map(|n: usize| self.wires[n].tap())
    }

    /// The counters, once they have stood still for a while.
    fn quiet(&self) -> Counters {
        let end = Instant::now() + SOON;
        let mut last = self.dataplane.counters();
        loop {
            std::thread::sleep(Duration::from_millis(100));
            self.dataplane.service();
            let now = self.dataplane.counters();
            if now == last || Instant::now() > end {
                return now;
            }
            last = now;
        }
    }

    fn missed(&self) -> u64 {
        self.dataplane.ports().iter().flat_map(|port| &port.queues).map(|queue| queue.rx_missed).sum()
    }

    /// Does what the control thread does until `done`.
    fn serve_until(&self, what: &str, done: impl Fn() -> bool) {
        let end = Instant::now() + 2 * SOON;
        while !done() {
            assert!(Instant::now() < end, "{what}: {:?}", self.dataplane.ports());
            self.dataplane.service();
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Stops; nothing may be lost.
    fn stop(&self) -> Stopped {
        let stopped = self.dataplane.stop().unwrap();
        assert_conserved(&stopped.counters);
        assert_eq!((stopped.frames, stopped.free_frames), (FRAMES, FRAMES), "frames are lost");
        assert!(self.wires.iter().all(|wire| !wire.has_xdp()), "the kernel has its interfaces back");
        stopped
    }
}

fn configured(text: &str) -> Config {
    let mut config =
        weir_config::load_str("test.toml", text).unwrap_or_else(|error| panic!("{error}")).config;
    config.workers.cores = Cores::List(cores().to_vec());
    config
}

fn assert_conserved(counters: &Counters) {
    let (entered, left) = counters.balance();
    assert_eq!(entered, left, "{counters:?}");
    assert_eq!(counters.handed_in, counters.handed_out, "{counters:?}");
}

fn dropped(counters: &Counters) -> u64 {
    counters.dropped.values().sum()
}

/// A datagram from the host behind port `from` to the one behind port `to`, of one of 32 flows.
fn datagram(from: usize, to: usize, flow: u16, port: u16) -> Vec<u8> {
    Packet::ethernet(format!("02:00:00:00:02:0{from}").as_str(), format!("02:00:00:00:01:0{from}").as_str())
        .ipv4(format!("10.{from}.0.9").as_str(), format!("10.{to}.0.9").as_str())
        .udp(1000 + flow % 32, port)
        .payload(&[flow as u8; 32])
        .build()
}

fn is_to(bytes: &[u8], port: u16) -> bool {
    bytes.get(12..14) == Some(&[8, 0]) && bytes.get(36..38) == Some(&port.to_be_bytes())
}

fn is_counted(bytes: &[u8]) -> bool {
    is_to(bytes, COUNTED)
}

/// What threads that make traffic share.
#[derive(Default)]
struct Traffic {
    over: AtomicBool,
    sent: AtomicU64,
    arrived: AtomicU64,
}

impl Traffic {
    /// Sends noise as fast as it can.
    fn flood<'s>(&'s self, scope: &'s Scope<'s, '_>, tap: &'s Tap, from: usize, to: usize) {
        scope.spawn(move || {
            let frames: Vec<_> = (0..32).map(|flow| datagram(from, to, flow, NOISE)).collect();
            while !self.over.load(Ordering::Relaxed) {
                let _ = frames.iter().filter(|frame| tap.try_send(frame)).count();
            }
        });
    }

    /// Sends counted packets, at a pace that rings and a busy machine can take.
    fn stream<'s>(&'s self, scope: &'s Scope<'s, '_>, tap: &'s Tap, from: usize, to: usize) {
        scope.spawn(move || {
            let frames: Vec<_> = (0..32).map(|flow| datagram(from, to, flow, COUNTED)).collect();
            while !self.over.load(Ordering::Relaxed) {
                for four in frames.chunks(4) {
                    let sent = four.iter().filter(|frame| tap.try_send(frame)).count();
                    self.sent.fetch_add(sent as u64, Ordering::Relaxed);
                    std::thread::sleep(Duration::from_millis(1));
                }
            }
        });
    }

    /// Counts what arrives, until the traffic is over and nothing has come for a while.
    fn count<'s>(&'s self, scope: &'s Scope<'s, '_>, tap: &'s Tap) -> ScopedJoinHandle<'s, ()> {
        scope.spawn(move || {
            while tap.receive(support::NEVER, is_counted).map_or(!self.over.load(Ordering::Relaxed), |_| {
                self.arrived.fetch_add(1, Ordering::Relaxed);
                true
            }) {}
        })
    }

    fn stop(&self) {
        self.over.store(true, Ordering::Relaxed);
    }

    fn arrived(&self) -> u64 {
        self.arrived.load(Ordering::Relaxed)
    }

    fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }
}

/// Ends the traffic also when the test fails, so that its threads do.
struct Ending<'a>(&'a Traffic);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.0.stop();
    }
}

/// Numbers that look random (xorshift).
fn next(state: &mut u32) -> u32 {
    *state ^= *state << 13;
    *state ^= *state >> 17;
    *state ^= *state << 5;
    *state
}

fn reloads_under_traffic(queues: u32, flood: bool) {
    let _turn = alone();
    let site = Site::start(queues, 0);
    let taps = site.taps();
    let (traffic, mut random) = (Traffic::default(), 0x5eed_0000 + queues);
    let mut generations: Vec<Weak<Config>> = Vec::new();
    std::thread::scope(|scope| {
        let _ending = Ending(&traffic);
        for (from, to) in [(0, 1), (1, 0)] {
            if flood {
                traffic.flood(scope, &taps[from], from, to);
            } else {
                traffic.count(scope, &taps[to]);
                traffic.stream(scope, &taps[from], from, to);
            }
        }
        if !flood {
            // To a prefix behind the spare port while it is there, else behind the right one.
            traffic.count(scope, &taps[2]);
            traffic.stream(scope, &taps[0], 0, 9);
        }
        for _ in 0..10 {
            generations.push(Arc::downgrade(&site.dataplane.config()));
            let options = next(&mut random) >> 8 & 15;
            let generation = site.dataplane.apply(&site.config(options)).unwrap();
            assert_eq!(site.dataplane.generation(), generation);
            let behind = |worker: &WorkerStatus| worker.generation != generation;
            assert!(!site.dataplane.workers().iter().any(behind), "a worker did not follow");
            site.dataplane.service();
            std::thread::sleep(Duration::from_millis(20));
        }
    });
    let counters = site.quiet();
    assert_conserved(&counters);
    // Old generations are freed: by the control thread, or the debug build would have ended this process.
    let alive = generations.iter().filter(|config| config.strong_count() > 0).count();
    assert_eq!(alive, 0, "snapshots of {alive} old generations are still there");
    if queues == 1 {
        assert!(counters.handed_out > 0, "{counters:?}");
    }
    if !flood {
        let (sent, arrived) = (traffic.sent(), traffic.arrived());
        assert_eq!((dropped(&counters), site.missed()), (0, 0), "{counters:?}");
        assert!(sent > 500 && arrived == sent, "{sent} sent, {arrived} arrived: {counters:?}");
    }
    let stopped = site.stop();
    assert_eq!(stopped.counters.received, counters.received);
}

#[test]
fn reloads_under_full_load_conserve_every_packet_and_free_every_generation() {
    if privileged("reloads_under_full_load_conserve_every_packet_and_free_every_generation") {
        [1, 2, 4].into_iter().for_each(|queues| reloads_under_traffic(queues, true));
    }
}

#[test]
fn reloads_lose_no_packet() {
    if privileged("reloads_lose_no_packet") {
        [1, 2].into_iter().for_each(|queues| reloads_under_traffic(queues, false));
    }
}

#[test]
fn a_device_may_be_deleted_and_made_again_ten_times_under_traffic() {
    if !privileged("a_device_may_be_deleted_and_made_again_ten_times_under_traffic") {
        return;
    }
    let _turn = alone();
    let site = Site::start(2, SPARE);
    let [_, right, spare] = site.taps();
    let (traffic, through) = (Traffic::default(), Traffic::default());
    let polled = |name: &str| -> Vec<usize> {
        let ports = site.dataplane.ports();
        let port = ports.iter().find(|port| port.name == name).unwrap();
        port.queues.iter().map(|queue| queue.worker).collect()
    };
    std::thread::scope(|scope| {
        let (_ending, _through) = (Ending(&traffic), Ending(&through));
        // Towards the port that vanishes, and past it.
        traffic.flood(scope, &right, 1, 0);
        through.count(scope, &right);
        through.stream(scope, &spare, 2, 1);
        for round in 1..=10 {
            let left = site.wires[0].tap();
            let (here, probe) = (Traffic::default(), site.wires[1].tap());
            left.send(&datagram(0, 1, 0, PROBE));
            assert!(probe.receive(SOON, |bytes| is_to(bytes, PROBE)).is_some(), "round {round}");
            assert!(left.receive(SOON, |bytes| is_to(bytes, NOISE)).is_some(), "round {round}");
            std::thread::scope(|scope| {
                let _ending = Ending(&here);
                here.flood(scope, &left, 0, 1);
                let before = through.arrived();
                site.serve_until("traffic past the port", || through.arrived() > before + 20);
                site.wires[0].unplug();
            });
            site.wires[0].plug();
            site.dataplane.device_changed(&site.wires[0].device);
            site.serve_until("bound again", || {
                let ports = site.dataplane.ports();
                ports.iter().any(|port| port.name == "left" && port.state == "up" && port.rebinds >= round)
            });
            let mut workers = polled("left");
            workers.sort_unstable();
            assert_eq!(workers, [0, 1], "the queues stay dealt out evenly");
        }
        let ports = site.dataplane.ports();
        let rebinds: Vec<u64> = ports.iter().map(|port| port.rebinds).collect();
        assert_eq!(rebinds, [10, 0, 0], "once for each deletion, and nothing else is touched");
    });
    // The fresh device works in both directions.
    let (left, right) = (site.wires[0].tap(), site.wires[1].tap());
    left.send(&datagram(0, 1, 0, COUNTED));
    assert!(right.receive(SOON, is_counted).is_some());
    right.send(&datagram(1, 0, 0, COUNTED));
    assert!(left.receive(SOON, is_counted).is_some());
    assert_conserved(&site.quiet());
    site.stop();
}

#[test]
fn stopping_under_full_load_is_quick_and_gives_every_frame_back() {
    if !privileged("stopping_under_full_load_is_quick_and_gives_every_frame_back") {
        return;
    }
    let _turn = alone();
    let site = Site::new(2);
    let taps = site.taps();
    let traffic = Traffic::default();
    std::thread::scope(|scope| {
        let _ending = Ending(&traffic);
        for (from, to) in [(0, 1), (1, 0), (2, 1)] {
            traffic.flood(scope, &taps[from], from, to);
        }
        for _ in 0..3 {
            assert_eq!(site.dataplane.apply(&site.config(SPARE)).unwrap(), 1);
            std::thread::sleep(Duration::from_millis(200));
            let begun = Instant::now();
            let stopped = site.stop();
            assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
            assert!(stopped.counters.transmitted > 0);
            assert!(site.dataplane.stop().is_none());
        }
    });
}

#[test]
fn what_comes_while_weir_starts_finds_every_port_able_to_send() {
    if !privileged("what_comes_while_weir_starts_finds_every_port_able_to_send") {
        return;
    }
    let _turn = alone();
    let site = Site::new(1);
    let taps = site.taps();
    let traffic = Traffic::default();
    std::thread::scope(|scope| {
        let _ending = Ending(&traffic);
        traffic.flood(scope, &taps[0], 0, 1);
        traffic.flood(scope, &taps[2], 2, 1);
        for _ in 0..5 {
            assert_eq!(site.dataplane.apply(&site.config(SPARE)).unwrap(), 1);
            site.serve_until("traffic", || site.dataplane.counters().received > 1000);
            let counters = site.dataplane.counters();
            assert_eq!(counters.dropped.get("interface_down"), None, "{counters:?}");
            site.stop();
        }
    });
}

#[test]
fn a_configuration_that_is_refused_disturbs_no_packet() {
    if !privileged("a_configuration_that_is_refused_disturbs_no_packet") {
        return;
    }
    let _turn = alone();
    let site = Site::start(1, 0);
    let taps = site.taps();
    let traffic = Traffic::default();
    let running = site.dataplane.config();
    std::thread::scope(|scope| {
        let _ending = Ending(&traffic);
        for (from, to) in [(0, 1), (1, 0)] {
            traffic.count(scope, &taps[to]);
            traffic.stream(scope, &taps[from], from, to);
        }
        let refused = |what: &str, config: &Config| -> ApplyError {
            let before = traffic.arrived();
            let error = site.dataplane.apply(config).expect_err(what);
            assert_eq!(site.dataplane.generation(), 1, "{what}: {error}");
            assert!(Arc::ptr_eq(&running, &site.dataplane.config()), "{what}: {error}");
            site.serve_until(what, || traffic.arrived() > before + 20);
            assert!(!site.wires[2].has_xdp(), "{what}: the spare device was kept");
            error
        };
        let [left, spare] = [0, 2].map(|n: usize| site.wires[n].device.as_str());
        let base = site.text(0);
        let changed = |from: &str, to: &str| configured(&base.replace(from, to));
        for _ in 0..3 {
            let error = refused(
                "another port without a device",
                &configured(&format!(
                    "{}[port.more]\ndevice = \"wx-none\"\nmode = \"dedicated\"\n",
                    site.text(SPARE)
                )),
            );
            assert!(error.to_string().contains("more"), "{error}");
            refused("a device that is not there", &changed(left, "wx-none"));
            // The port moves, and what it moves to could be opened, but it does not compile.
            let moved = base.replace(left, spare).replace("[port.right]", "[port.right]\nmtu = 1600");
            refused("an MTU that the device has not", &configured(&moved));
            refused("other memory", &changed("frames = 16384", "frames = 8192"));
            let mut workers = (*running).clone();
            workers.workers.idle = Idle::Spin;
            let error = refused("other workers", &workers);
            assert!(matches!(error, ApplyError::NeedsRestart(_)), "{error}");
        }
    });
    let counters = site.quiet();
    assert_eq!((dropped(&counters), site.missed()), (0, 0), "{counters:?}");
    assert_eq!(traffic.arrived(), traffic.sent());
    site.stop();
}

#[test]
fn a_port_moves_to_another_device_and_back() {
    if !privileged("a_port_moves_to_another_device_and_back") {
        return;
    }
    let _turn = alone();
    let site = Site::start(1, 0);
    let [left, right, spare] = site.taps();
    let assert_even = || {
        let ports = site.dataplane.ports();
        let mut workers: Vec<_> =
            ports.iter().flat_map(|port| &port.queues).map(|queue| queue.worker).collect();
        workers.sort_unstable();
        assert_eq!(workers, [0, 1], "the queues stay dealt out evenly");
    };
    let base = site.text(0);
    let moved = base.replace(&site.wires[0].device, &site.wires[2].device);
    for (text, tap) in [(&moved, &spare), (&base, &left), (&moved, &spare)] {
        site.dataplane.apply(&configured(text)).unwrap();
        assert_even();
        let other = if std::ptr::eq(tap, &spare) { 0 } else { 2 };
        assert!(!site.wires[other].has_xdp());
        tap.send(&datagram(0, 1, 0, COUNTED));
        assert!(right.receive(SOON, is_counted).is_some());
        right.send(&datagram(1, 0, 0, COUNTED));
        assert!(tap.receive(SOON, is_counted).is_some());
    }
    // Two ports swap their devices.
    let [a, b] = [1, 2].map(|n: usize| site.wires[n].device.as_str());
    let swapped = moved.replace(a, "?").replace(b, a).replace('?', b);
    site.dataplane.apply(&configured(&swapped)).unwrap();
    assert_even();
    right.send(&datagram(0, 1, 0, COUNTED));
    assert!(spare.receive(SOON, is_counted).is_some());
    assert_conserved(&site.quiet());
    site.stop();
}

#[test]
fn a_port_that_does_not_drain_is_counted_and_holds_up_no_other() {
    if !privileged("a_port_that_does_not_drain_is_counted_and_holds_up_no_other") {
        return;
    }
    let _turn = alone();
    let site = Site::start(2, SPARE);
    let taps = site.taps();
    let (noise, traffic) = (Traffic::default(), Traffic::default());
    std::thread::scope(|scope| {
        let (_noise, _ending) = (Ending(&noise), Ending(&traffic));
        traffic.count(scope, &taps[2]);
        traffic.stream(scope, &taps[0], 0, 2);
        site.wires[1].down();
        noise.flood(scope, &taps[0], 0, 1);
        site.serve_until("the ring is full", || {
            site.dataplane.counters().dropped.get("transmit_queue_full").is_some_and(|count| *count > 1000)
        });
        let before = traffic.arrived();
        site.serve_until("the other port goes on", || traffic.arrived() > before + 200);
        site.wires[1].up();
    });
    // What stood in the ring leaves, and what comes later too.
    taps[0].send(&datagram(0, 1, 0, COUNTED));
    assert!(taps[1].receive(SOON, is_counted).is_some());
    let counters = site.quiet();
    assert_conserved(&counters);
    assert_eq!(dropped(&counters), counters.dropped["transmit_queue_full"], "{counters:?}");
    site.stop();
}

/// The threads of this process that have this name.
fn threads(name: &str) -> Vec<i32> {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    tasks
        .filter_map(|task| task.ok()?.file_name().to_str()?.parse().ok())
        .filter(|id: &i32| {
            std::fs::read_to_string(format!("/proc/self/task/{id}/comm"))
                .is_ok_and(|comm| comm.trim() == name)
        })
        .collect()
}

#[test]
fn a_worker_that_does_not_keep_up_makes_the_handoff_ring_full_and_that_is_counted() {
    if !privileged("a_worker_that_does_not_keep_up_makes_the_handoff_ring_full_and_that_is_counted") {
        return;
    }
    let _turn = alone();
    // Both workers on one core, as no file may ask for, and the second one runs when the first has nothing to do: never.
    let site = Site::new(1);
    let mut config = site.config(0);
    config.workers.cores = Cores::List(vec![cores()[0]; 2]);
    config.workers.idle = Idle::Spin;
    site.dataplane.apply(&config).unwrap();
    let workers = site.dataplane.workers();
    assert_eq!(workers.iter().map(|worker| worker.core).collect::<Vec<_>>(), [cores()[0]; 2]);
    let parameters = libc::sched_param { sched_priority: 0 };
    for id in threads("weir-worker-1") {
        // SAFETY: the pointer is that of a live value.
        assert_eq!(unsafe { libc::sched_setscheduler(id, libc::SCHED_IDLE, &parameters) }, 0);
    }
    let taps = site.taps();
    let noise = Traffic::default();
    std::thread::scope(|scope| {
        let _ending = Ending(&noise);
        noise.flood(scope, &taps[0], 0, 1);
        site.serve_until("the ring is full", || {
            site.dataplane.counters().dropped.get("handoff_queue_full").is_some_and(|count| *count > 100)
        });
    });
    let stopped = site.stop();
    assert!(stopped.counters.handed_in > 0);
}

#[test]
fn idle_workers_block_and_a_packet_wakes_them() {
    if !privileged("idle_workers_block_and_a_packet_wakes_them") {
        return;
    }
    let _turn = alone();
    let site = Site::start(1, 0);
    let [left, right, _] = site.taps();
    let used = || -> Duration {
        let ids = ["weir-worker-0", "weir-worker-1"].map(threads).concat();
        assert_eq!(ids.len(), 2);
        let on_core = |id: &i32| {
            let schedstat = std::fs::read_to_string(format!("/proc/self/task/{id}/schedstat")).unwrap();
            schedstat.split_whitespace().next().unwrap().parse::<u64>().unwrap()
        };
        Duration::from_nanos(ids.iter().map(on_core).sum())
    };
    // Until both announcements of the ports' addresses are over.
    std::thread::sleep(Duration::from_secs(3));
    site.quiet();
    for _ in 0..3 {
        let before = (used(), site.dataplane.workers());
        std::thread::sleep(Duration::from_secs(1));
        let after = (used(), site.dataplane.workers());
        assert!(
            after.0 - before.0 < Duration::from_millis(50),
            "{:?} of CPU in one second",
            after.0 - before.0
        );
        for (before, after) in before.1.iter().zip(&after.1) {
            assert!(after.loops > before.loops, "an idle worker still looks at its timers");
            assert!(after.loops < before.loops + 200, "an idle worker does not spin");
        }
        // From one worker's port to the other's: two wake-ups.
        let begun = Instant::now();
        left.send(&datagram(0, 1, 0, COUNTED));
        assert!(right.receive(SOON, is_counted).is_some());
        assert!(begun.elapsed() < Duration::from_millis(50), "{:?}", begun.elapsed());
        site.quiet();
    }
    // The three, and both announcements of the address of the other worker's port.
    assert_eq!(site.stop().counters.handed_out, 3 + 2);
}

#[test]
fn a_start_that_fails_takes_nothing_and_the_next_one_works() {
    if !privileged("a_start_that_fails_takes_nothing_and_the_next_one_works") {
        return;
    }
    let _turn = alone();
    let site = Site::new(2);
    let mut elsewhere = site.config(0);
    elsewhere.workers.cores = Cores::List(vec![cores()[0], 1023]);
    let error = site.dataplane.apply(&elsewhere).unwrap_err();
    assert!(error.to_string().contains("core 1023 is not in the affinity mask"), "{error}");
    let missing = configured(&site.text(SPARE).replace(&site.wires[2].device, "wx-none"));
    for _ in 0..5 {
        let error = site.dataplane.apply(&missing).unwrap_err();
        assert!(matches!(error, ApplyError::Port { .. }), "{error}");
    }
    assert!(site.wires.iter().all(|wire| !wire.has_xdp()));
    assert!(site.dataplane.stop().is_none());
    site.dataplane.apply(&site.config(SPARE)).unwrap();
    site.stop();
}
