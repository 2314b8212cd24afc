//! Devices under test, each in a network namespace of its own between two wires:
//!
//! ```text
//! generator gN ──── in   device under test   out ──── sN sink
//! 198.18.0.2        198.18.0.1      198.19.0.1        198.19.0.2, behind it 198.19.64.0/18
//! ```
//!
//! Addresses are those set aside for benchmarks (RFC 2544, appendix C.2.2). With encapsulation the far side is an underlay,
//! 192.0.2.1 and 192.0.2.2, and 198.19.64.0/18 is behind a VXLAN tunnel with VNI 100.

mod kernel;
mod testpmd;
mod weir;

use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::lab::Namespace;
use super::stop;

/// MAC addresses: generator, the two sides of the device under test, sink.
pub(crate) const GENERATOR: &str = "02:00:00:00:0a:01";
pub(crate) const NEAR: &str = "02:00:00:00:0d:01";
pub(crate) const FAR: &str = "02:00:00:00:0d:02";
pub(crate) const SINK: &str = "02:00:00:00:0b:01";
/// How long a device under test may take to start.
const START: Duration = Duration::from_secs(30);

/// Which one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, clap::ValueEnum)]
pub(crate) enum Kind {
    /// weir, from a release build, one worker that spins
    Weir,
    /// weir as it is by default: a worker that sleeps when nothing comes
    WeirAdaptive,
    /// Linux's own forwarding, its polling on the core of the device under test
    Kernel,
    /// DPDK's testpmd over net_af_xdp: rewrites MAC addresses and nothing else
    Testpmd,
}

impl Kind {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Weir => "weir",
            Self::WeirAdaptive => "weir-adaptive",
            Self::Kernel => "kernel",
            Self::Testpmd => "testpmd",
        }
    }
}

/// What devices under test are to do and where.
#[derive(Clone, Debug)]
pub(crate) struct Setting {
    /// Put packets into a VXLAN tunnel.
    pub(crate) vxlan: bool,
    /// The core for its packets, and one for whatever else it does.
    pub(crate) core: usize,
    pub(crate) other_core: usize,
    /// weir's binary.
    pub(crate) weir: PathBuf,
    /// For configurations and logs.
    pub(crate) directory: PathBuf,
}

/// One that runs.
pub(crate) struct Dut {
    pub(crate) kind: Kind,
    /// What it is, exactly.
    pub(crate) version: String,
    /// What its figures depend on.
    pub(crate) notes: Vec<String>,
    child: Option<Child>,
    // Dropped last: its devices go with it.
    _namespace: Namespace,
}

impl Dut {
    /// Makes the namespace and the wires to devices `near` and `far` of `tester`, and starts it.
    pub(crate) fn start(
        kind: Kind,
        setting: &Setting,
        tester: &Namespace,
        near: &str,
        far: &str,
    ) -> Result<Self, String> {
        let namespace = Namespace::new()?;
        // The kernel's polling threads are named after devices: a name that no other run has.
        let inner = ["in", "out"].map(|side| format!("{side}{}", std::process::id()));
        let [input, output] = &inner;
        for (device, other, mac, own) in [(near, input, GENERATOR, NEAR), (far, output, SINK, FAR)] {
            tester.wire(device, &namespace, other)?;
            tester.ip(&format!("link set {device} address {mac}"))?;
            namespace.ip(&format!("link set {other} address {own}"))?;
        }
        await_carrier(&namespace, &inner)?;
        let started = match kind {
            Kind::Weir => weir::start(setting, &namespace, input, output, "spin"),
            Kind::WeirAdaptive => weir::start(setting, &namespace, input, output, "adaptive"),
            Kind::Kernel => kernel::start(setting, &namespace, input, output),
            Kind::Testpmd => testpmd::start(setting, &namespace, input, output),
        };
        let Started { version, notes, child } =
            started.map_err(|error| format!("{}: {error}", kind.name()))?;
        Ok(Self { kind, version, notes, child, _namespace: namespace })
    }

    /// Stops it from using its core while others are measured.
    pub(crate) fn pause(&self) {
        self.signal(Signal::SIGSTOP);
    }

    /// Lets it go on.
    pub(crate) fn resume(&self) {
        self.signal(Signal::SIGCONT);
    }

    fn signal(&self, signal: Signal) {
        if let Some(child) = &self.child {
            let _ = kill(Pid::from_raw(child.id() as i32), signal);
        }
    }

    /// Seconds of processor time that its process has used; `None` if it has no process.
    pub(crate) fn cpu_seconds(&self) -> Option<f64> {
        let id = self.child.as_ref()?.id();
        let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
        // Fields 14 and 15, counted after the name, which may hold anything; in USER_HZ, 100 a second.
        let fields = stat.rsplit(')').next()?.split_whitespace();
        let ticks: u64 = fields.skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum();
        Some(ticks as f64 / 100.0)
    }

    /// An error if its process has ended.
    pub(crate) fn check(&mut self) -> Result<(), String> {
        match self.child.as_mut().and_then(|child| child.try_wait().ok().flatten()) {
            Some(status) => Err(format!("{} has ended: {status}", self.kind.name())),
            None => Ok(()),
        }
    }
}

impl Drop for Dut {
    fn drop(&mut self) {
        self.resume();
        self.signal(Signal::SIGTERM);
        if let Some(mut child) = self.child.take() {
            let asked = Instant::now();
            while asked.elapsed() < Duration::from_secs(3) {
                if !matches!(child.try_wait(), Ok(None)) {
                    return;
                }
                std::thread::sleep(Duration::from_millis(20));
            }
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// What starting one returns.
struct Started {
    version: String,
    notes: Vec<String>,
    child: Option<Child>,
}

/// Waits until devices pass frames: the kernel takes up to a second to tell queueing of a new carrier.
fn await_carrier(namespace: &Namespace, devices: &[String]) -> Result<(), String> {
    let started = Instant::now();
    for device in devices {
        loop {
            let mut command = Command::new("ip");
            command.args(["link", "show", device]);
            let text = namespace.run(command)?;
            if text.contains("state UP") && !text.contains("qdisc noop ") {
                break;
            }
            if started.elapsed() > START {
                return Err(format!("{device} has no carrier: {text}"));
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }
    Ok(())
}

/// Waits until `ready` says so; gives up when the process ends or takes too long, and tells the end of its log.
fn await_ready(child: &mut Child, log: &Path, mut ready: impl FnMut() -> bool) -> Result<(), String> {
    let started = Instant::now();
    loop {
        if ready() {
            return Ok(());
        }
        stop::check()?;
        let ended = child.try_wait().map_err(|error| error.to_string())?;
        if ended.is_some() || started.elapsed() > START {
            let _ = child.kill();
            let _ = child.wait();
            let text = std::fs::read_to_string(log).unwrap_or_default();
            let lines: Vec<_> = text.lines().collect();
            let tail = lines.get(lines.len().saturating_sub(12)..).unwrap_or_default().join("\n    ");
            let what =
                ended.map_or("is not ready after 30 s".to_owned(), |status| format!("ended ({status})"));
            return Err(format!("it {what}; it said:\n    {tail}"));
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}
