//! The whole data plane, threads and all, on real AF_XDP sockets: two workers between veth pairs, while configurations
//! and devices come and go.
#![allow(unsafe_code, clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

#[path = "../support/mod.rs"]
mod support;

mod changes;
mod reloads;
mod workers;

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
