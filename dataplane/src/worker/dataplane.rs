//! The data plane as the control thread sees it: ports opened, workers started, configurations compiled and published.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use crossbeam_channel::Receiver;
use weir_config::{Config, MacAddress, Port, PortMode};

use crate::decision::PortId;
use crate::frame::{FrameCache, FrameMemory, FramePool, PageKind};
use crate::io::PortQueue as _;
use crate::io::afxdp::{AfXdpPort, AfXdpQueue, OpenOptions, Steering};
use crate::l3::Learned;
use crate::l3::icmp::RateLimiter;
use crate::snapshot::{PortFacts, Registry, Shared, Snapshot};

use super::core::{Core, CoreParts};
use super::cores;
use super::run::{self, Clock, Common, Door, Event, MAX_PORTS, Mail, NOBODY, Queue, Worker};

/// Why the data plane could not be started, or a configuration not be put in force.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// A port could not be opened.
    #[error("port {port}: {reason}")]
    Port {
        /// Its name.
        port: String,
        /// What is wrong, and what to do.
        reason: String,
    },
    /// A port without a device: only `weir replay` can drive it.
    #[error("port {0}: no device is given; add `device = \"…\"`")]
    NoDevice(String),
    /// It cannot be compiled here.
    #[error("{0}")]
    Compile(#[from] crate::snapshot::CompileError),
    /// No memory for frames.
    #[error("{0}")]
    Memory(#[from] crate::frame::MemoryError),
    /// The cores asked for cannot be had.
    #[error("{0}")]
    Cores(#[from] cores::CoresError),
    /// Settings that a running instance cannot change.
    #[error("{0} cannot be changed while weir runs; restart it")]
    NeedsRestart(String),
    /// A thread or descriptor could not be had.
    #[error("cannot start worker {worker}: {reason}")]
    Worker {
        /// Its number.
        worker: usize,
        /// What the kernel said.
        reason: String,
    },
    /// More ports than a process can have.
    #[error("more than {MAX_PORTS} ports in the life of the process; restart weir")]
    TooManyPorts,
    /// It was stopped.
    #[error("the data plane was stopped")]
    Stopped,
}

/// How long workers may take to do what they are told.
const PATIENCE: Duration = Duration::from_secs(2);
/// How often a vanished device is looked for.
const REOPEN: Duration = Duration::from_millis(500);

/// One open port.
pub(super) struct OpenPort {
    pub(super) id: PortId,
    pub(super) settings: Port,
    /// `None` while the device is gone.
    pub(super) io: Option<AfXdpPort>,
    /// What it was when it was opened last.
    pub(super) info: crate::io::afxdp::PortInfo,
    /// The worker of each queue, by number.
    pub(super) queues: Vec<(u32, usize)>,
    pub(super) rebinds: u64,
    next_try: Instant,
}

/// What exists from the first configuration on.
pub(super) struct Running {
    pub(super) common: Arc<Common>,
    pub(super) shared: Shared,
    pub(super) registry: Registry,
    pub(super) ports: BTreeMap<String, OpenPort>,
    pub(super) pool: Arc<FramePool>,
    pub(super) icmp: Arc<RateLimiter>,
    threads: Vec<JoinHandle<()>>,
    events: Receiver<Event>,
    /// Snapshots that some worker may still run: freed here, on the control thread.
    old: Vec<Arc<Snapshot>>,
    /// Next worker to be dealt a queue.
    next_worker: usize,
}

/// The data plane.
#[derive(Default)]
pub struct Dataplane {
    pub(super) running: Mutex<Option<Running>>,
}

impl std::fmt::Debug for Dataplane {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Dataplane").finish_non_exhaustive()
    }
}

impl Dataplane {
    pub(super) fn lock(&self) -> MutexGuard<'_, Option<Running>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts a configuration in force: the first one starts the workers. Returns its generation.
    ///
    /// # Errors
    /// [`ApplyError`]; the running generation, its ports and its tables are untouched then.
    pub fn apply(&self, config: &Config) -> Result<u64, ApplyError> {
        let mut guard = self.lock();
        match &mut *guard {
            Some(running) => running.apply(config),
            None => {
                *guard = Some(Running::start(config)?);
                Ok(1)
            }
        }
    }

    /// Housekeeping of the control thread: vanished devices are bound again, old snapshots are freed.
    pub fn service(&self) {
        if let Some(running) = &mut *self.lock() {
            running.service();
        }
    }

    /// Drains and detaches; the kernel has its interfaces back afterwards.
    pub fn stop(&self) {
        if let Some(running) = self.lock().take() {
            running.stop();
        }
    }

    /// The kernel's neighbour on `device` (`eth1`, or `eth1.100` for a VLAN); `None`: it is gone or failed.
    pub fn kernel_neighbour(&self, device: &str, ip: IpAddr, mac: Option<MacAddress>) {
        let guard = self.lock();
        let Some(running) = &*guard else { return };
        let Some(name) = running.interface_of(device) else { return };
        let Some(scope) = running.registry.scope(&name) else { return };
        let now = running.common.clock.now();
        let neighbours = &running.shared.tables.neighbours;
        match mac {
            Some(mac) => {
                neighbours.learn(scope, ip, mac, Learned::Kernel, now);
            }
            None => neighbours.kernel_failed(scope, ip, now),
        }
    }

    /// A device appeared, vanished or changed its carrier: it is looked at soon.
    pub fn device_changed(&self, device: &str) {
        let mut guard = self.lock();
        let Some(running) = &mut *guard else { return };
        for port in running.ports.values_mut() {
            if port.settings.device.as_deref() == Some(device) {
                port.next_try = Instant::now();
                // A device found gone makes its queues say so.
                let _ = port.io.as_ref().map(AfXdpPort::link);
            }
        }
    }

    /// Neighbours that the kernel should resolve: device and address.
    pub fn take_kernel_requests(&self) -> Vec<(String, IpAddr)> {
        let guard = self.lock();
        let Some(running) = &*guard else { return Vec::new() };
        let mut requests = Vec::new();
        while let Some((scope, ip)) = running.shared.kernel_asks.pop() {
            if let Some(device) = running.registry.scope_name(scope).and_then(|name| running.device_of(name))
            {
                requests.push((device, ip));
            }
        }
        requests
    }
}

impl Drop for Dataplane {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Running {
    /// Opens every port, compiles, starts the workers.
    fn start(config: &Config) -> Result<Self, ApplyError> {
        let available = cores::available(&config.workers.cores)?;
        let memory = &config.memory;
        let frame_size = u16::try_from(memory.frame_size).unwrap_or(2048);
        let memory = FrameMemory::map(memory.frames, frame_size, memory.huge_pages)?;
        let pool = FramePool::new(memory);
        let mut registry = Registry::default();
        let (mut ports, mut queues) = (BTreeMap::new(), Vec::new());
        let ring = ring_size(pool.available(), config.ports.values());
        for (name, settings) in &config.ports {
            let (port, opened) = open(name, settings, &mut registry, &pool, ring)?;
            ports.insert(name.clone(), port);
            queues.push((name.clone(), opened));
        }
        let queue_count: usize = queues.iter().map(|(_, queues)| queues.len()).sum();
        let cores = cores::choose(available, &config.workers.cores, queue_count);
        let seed = random();
        let shared = Shared::new(config, cores.len(), seed);
        let clock = Clock::start();
        let config = Arc::new(config.clone());
        let snapshot = Snapshot::compile(&config, &facts(&ports), &mut registry, &shared, 1, clock.now())?;
        let icmp = Arc::new(RateLimiter::new(config.limits.icmp_errors_per_second));
        let (events_in, events) = crossbeam_channel::unbounded();
        let mut parts = Vec::new();
        let mut doors = Vec::new();
        for (worker, core) in cores.iter().enumerate() {
            let engine = Core::new(CoreParts {
                meters: Arc::clone(&shared.tables.meters),
                icmp: Arc::clone(&icmp),
                cache: FrameCache::new(Arc::clone(&pool)),
                flows: config.limits.flows as usize,
                held: config.limits.held_packets as usize,
                seed: std::array::from_fn(|_| random()),
            });
            let (door, mail) = run::door(Arc::clone(&engine.counters), core.id, config.limits.flows as usize)
                .map_err(|error| ApplyError::Worker { worker, reason: error.to_string() })?;
            doors.push(door);
            parts.push((engine, mail, *core));
        }
        let common = Arc::new(Common {
            snapshots: ArcSwap::from_pointee(snapshot),
            senders: (0..MAX_PORTS).map(|_| std::sync::atomic::AtomicU16::new(NOBODY)).collect(),
            doors,
            events: events_in,
            clock,
            idle: config.workers.idle,
        });
        let mut running = Self {
            common,
            shared,
            registry,
            ports,
            pool,
            icmp,
            threads: Vec::new(),
            events,
            old: vec![],
            next_worker: 0,
        };
        running.old.push(running.common.snapshots.load_full());
        for (worker, (engine, mail, core)) in parts.into_iter().enumerate() {
            running.spawn(worker, engine, mail, core)?;
        }
        running.steer(&config)?;
        for (name, opened) in queues {
            running.deal(&name, opened);
        }
        Ok(running)
    }

    fn spawn(
        &mut self,
        worker: usize,
        engine: Core,
        mail: Receiver<Mail>,
        core: core_affinity::CoreId,
    ) -> Result<(), ApplyError> {
        let common = Arc::clone(&self.common);
        let thread = std::thread::Builder::new()
            .name(format!("weir-worker-{worker}"))
            .spawn(move || {
                core_affinity::set_for_current(core);
                if let Some(worker) = Worker::new(worker, engine, common, mail) {
                    worker.run();
                }
            })
            .map_err(|error| ApplyError::Worker { worker, reason: error.to_string() })?;
        self.threads.push(thread);
        Ok(())
    }

    /// Deals a port's queues out over the workers, in turn.
    fn deal(&mut self, name: &str, queues: Vec<AfXdpQueue>) {
        let Some(port) = self.ports.get_mut(name) else { return };
        port.queues.clear();
        let workers = self.common.doors.len().max(1);
        let mut sender = None;
        for queue in queues {
            let worker = self.next_worker % workers;
            self.next_worker += 1;
            let number = queue.number();
            port.queues.push((number, worker));
            if queue.transmits() {
                sender = sender.or_else(|| u16::try_from(worker).ok());
            }
            if let Some(door) = self.common.doors.get(worker) {
                door.send(Mail::Adopt(Queue { port: port.id, number, io: Box::new(queue) }));
            }
        }
        if let Some(place) = self.common.senders.get(port.id.index()) {
            place.store(sender.unwrap_or(NOBODY), Ordering::Release);
        }
    }

    /// Compiles and publishes a configuration while packets flow.
    fn apply(&mut self, config: &Config) -> Result<u64, ApplyError> {
        let current = Arc::clone(&self.common.snapshots.load().config);
        let fixed = [
            ("workers", current.workers != config.workers),
            ("memory", current.memory != config.memory),
            ("limits", current.limits != config.limits),
        ];
        if let Some((section, _)) = fixed.into_iter().find(|(_, changed)| *changed) {
            return Err(ApplyError::NeedsRestart(format!("[{section}]")));
        }
        // New and changed devices are opened before anything else happens: a failure leaves all as it was.
        let mut opened = Vec::new();
        for (name, settings) in &config.ports {
            let same = self.ports.get(name).is_some_and(|port| same_device(&port.settings, settings));
            if !same && !self.ports.contains_key(name) {
                let ring = ring_size(self.pool.available(), [settings]);
                let (port, queues) = open(name, settings, &mut self.registry, &self.pool, ring)?;
                opened.push((name.clone(), port, queues));
            } else if !same {
                return Err(ApplyError::NeedsRestart(format!(
                    "the device, mode or XDP mode of port {name} (unless the port is removed by one change and added again by the next)"
                )));
            }
        }
        self.filter_macs(config, true)?;
        let mut facts = facts(&self.ports);
        for (name, port, _) in &opened {
            facts.insert(name.clone(), facts_of(port));
        }
        let generation = self.common.snapshots.load().generation + 1;
        let config = Arc::new(config.clone());
        let now = self.common.clock.now();
        let snapshot = Snapshot::compile(&config, &facts, &mut self.registry, &self.shared, generation, now)?;
        for (name, settings) in &config.ports {
            if let Some(port) = self.ports.get_mut(name) {
                port.settings.clone_from(settings);
            }
        }
        self.publish(snapshot);
        let mut dealt = Vec::new();
        for (name, port, queues) in opened {
            self.ports.insert(name.clone(), port);
            dealt.push((name, queues));
        }
        self.icmp.set_rate(config.limits.icmp_errors_per_second);
        for (name, queues) in dealt {
            self.deal(&name, queues);
        }
        let gone: Vec<String> =
            self.ports.keys().filter(|name| !config.ports.contains_key(*name)).cloned().collect();
        for name in gone {
            self.close(&name);
        }
        self.filter_macs(&config, false)?;
        // Last: a port that refuses its new entries keeps those that it has, and everything else is in force.
        self.steer(&config)?;
        Ok(generation)
    }

    /// Lets open ports take foreign frames that have to (`on`), and those no more that had to.
    fn filter_macs(&mut self, config: &Config, on: bool) -> Result<(), ApplyError> {
        for (name, port) in &mut self.ports {
            let (Some(io), Some(settings)) = (&mut port.io, config.ports.get(name)) else { continue };
            if promiscuous(settings) == on {
                io.set_promiscuous(on)
                    .map_err(|error| ApplyError::Port { port: name.clone(), reason: error.to_string() })?;
            }
        }
        Ok(())
    }

    /// Publishes a snapshot and waits, within bounds, until every worker runs it.
    fn publish(&mut self, snapshot: Snapshot) {
        let generation = snapshot.generation;
        let snapshot = Arc::new(snapshot);
        self.old.push(Arc::clone(&snapshot));
        self.common.snapshots.store(snapshot);
        let deadline = Instant::now() + PATIENCE;
        for door in &self.common.doors {
            door.nudge();
            while door.counters.generation.get() != generation && Instant::now() < deadline {
                std::thread::sleep(Duration::from_micros(200));
            }
        }
    }

    /// Tells each shared port what it takes: the VTEPs of its VRF, and its prefixes.
    fn steer(&mut self, config: &Config) -> Result<(), ApplyError> {
        for (name, port) in &mut self.ports {
            let Some(io) = &mut port.io else { continue };
            let Some(settings) = config.ports.get(name) else { continue };
            io.steer(&steering(config, settings))
                .map_err(|error| ApplyError::Port { port: name.clone(), reason: error.to_string() })?;
        }
        Ok(())
    }

    /// Takes a port's queues back from the workers and closes the device.
    fn close(&mut self, name: &str) {
        let Some(port) = self.ports.remove(name) else { return };
        self.release(port.id);
    }

    fn release(&self, port: PortId) {
        if let Some(place) = self.common.senders.get(port.index()) {
            place.store(NOBODY, Ordering::Release);
        }
        for door in &self.common.doors {
            let (done, closed) = crossbeam_channel::bounded(1);
            if door.send(Mail::Release(port, done)) {
                let _ = closed.recv_timeout(PATIENCE);
            }
        }
    }

    fn service(&mut self) {
        while let Ok(Event::Lost(id)) = self.events.try_recv() {
            self.lose(id);
        }
        self.reopen();
        // A snapshot is freed once nobody else holds it.
        let newest = self.common.snapshots.load().generation;
        self.old.retain(|old| old.generation == newest || Arc::strong_count(old) > 1);
    }

    /// The device of a port is gone: its other queues are taken back.
    fn lose(&mut self, id: PortId) {
        let Some(port) = self.ports.values_mut().find(|port| port.id == id && port.io.is_some()) else {
            return;
        };
        port.io = None;
        port.queues.clear();
        port.next_try = Instant::now();
        self.release(id);
    }

    /// Binds vanished devices again by name.
    fn reopen(&mut self) {
        let now = Instant::now();
        let due: Vec<String> = self
            .ports
            .iter()
            .filter(|(_, port)| port.io.is_none() && port.next_try <= now)
            .map(|(name, _)| name.clone())
            .collect();
        for name in due {
            let Some(port) = self.ports.get_mut(&name) else { continue };
            port.next_try = now + REOPEN;
            let settings = port.settings.clone();
            let ring = ring_size(self.pool.available(), [&settings]);
            let opened = open(&name, &settings, &mut self.registry, &self.pool, ring);
            let Ok((fresh, queues)) = opened else { continue };
            let Some(port) = self.ports.get_mut(&name) else { continue };
            let rebinds = port.rebinds + 1;
            *port = OpenPort { rebinds, ..fresh };
            let config = Arc::clone(&self.common.snapshots.load().config);
            let generation = self.common.snapshots.load().generation + 1;
            let now = self.common.clock.now();
            let facts = facts(&self.ports);
            if let Ok(snapshot) =
                Snapshot::compile(&config, &facts, &mut self.registry, &self.shared, generation, now)
            {
                self.publish(snapshot);
            }
            let _ = self.steer(&config);
            self.deal(&name, queues);
        }
    }

    fn stop(mut self) {
        for door in &self.common.doors {
            door.send(Mail::Stop);
        }
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
        let mut cache = FrameCache::new(Arc::clone(&self.pool));
        for door in &self.common.doors {
            door.clear(&mut cache);
        }
        cache.flush();
        // Dropping the ports detaches their programs.
        self.ports.clear();
    }

    /// The interface of a device name: that of its port, or of the VLAN that the kernel calls `<device>.<vid>`.
    fn interface_of(&self, device: &str) -> Option<String> {
        let of = |wanted: &str| {
            let has = |port: &OpenPort| port.settings.device.as_deref() == Some(wanted);
            self.ports.iter().find(|(_, port)| has(port)).map(|(name, _)| name.clone())
        };
        of(device).or_else(|| {
            let (parent, vlan) = device.rsplit_once('.')?;
            Some(format!("{}.{vlan}", of(parent)?))
        })
    }

    fn device_of(&self, interface: &str) -> Option<String> {
        if let Some(port) = self.ports.get(interface) {
            return port.settings.device.clone();
        }
        let (port, vlan) = interface.rsplit_once('.')?;
        let device = self.ports.get(port)?.settings.device.as_deref()?;
        Some(format!("{device}.{vlan}"))
    }

    /// The queue counters of every port.
    pub(super) fn queue_counters(&self) -> Vec<(PortId, u32, crate::io::QueueCounters)> {
        let mut all = Vec::new();
        for door in &self.common.doors {
            let (reply, answer) = crossbeam_channel::bounded(1);
            if door.send(Mail::Queues(reply)) {
                all.extend(answer.recv_timeout(PATIENCE).unwrap_or_default());
            }
        }
        all
    }

    /// At most `limit` flows.
    pub(super) fn flows(&self, limit: usize) -> Vec<super::status::FlowStatus> {
        let mut all = Vec::new();
        for door in &self.common.doors {
            let (reply, answer) = crossbeam_channel::bounded(1);
            if door.send(Mail::Flows(limit - all.len().min(limit), reply)) {
                all.extend(answer.recv_timeout(PATIENCE).unwrap_or_default());
            }
        }
        all
    }

    /// The workers' doors.
    pub(super) fn doors(&self) -> &[Arc<Door>] {
        &self.common.doors
    }

    /// Whether frame memory lies in huge pages.
    pub(super) fn huge_pages(&self) -> bool {
        self.pool.memory().pages() == PageKind::Huge
    }
}

/// Opens a port's device.
fn open(
    name: &str,
    settings: &Port,
    registry: &mut Registry,
    pool: &Arc<FramePool>,
    ring: u32,
) -> Result<(OpenPort, Vec<AfXdpQueue>), ApplyError> {
    let device = settings.device.clone().ok_or_else(|| ApplyError::NoDevice(name.to_owned()))?;
    let id = registry.port(name)?;
    if id.index() >= MAX_PORTS {
        return Err(ApplyError::TooManyPorts);
    }
    let mut options = OpenOptions::new(device, settings.mode, settings.xdp);
    (options.rx_ring, options.tx_ring) = (ring, ring);
    options.promiscuous = promiscuous(settings);
    let (io, queues) = AfXdpPort::open(&options, pool)
        .map_err(|error| ApplyError::Port { port: name.to_owned(), reason: error.to_string() })?;
    let port = OpenPort {
        id,
        settings: settings.clone(),
        info: io.info().clone(),
        io: Some(io),
        queues: Vec::new(),
        rebinds: 0,
        next_try: Instant::now(),
    };
    Ok((port, queues))
}

/// Entries of each ring, so that the fill rings of all queues (twice as long) take at most half of the frames there are: the
/// rest is for frames on their way and in private caches.
fn ring_size<'a>(frames: usize, ports: impl IntoIterator<Item = &'a Port>) -> u32 {
    let queues: usize = ports.into_iter().filter_map(|port| port.device.as_deref()).map(receive_queues).sum();
    let share = u32::try_from(frames / (4 * queues.max(1))).unwrap_or(u32::MAX);
    (1 << share.clamp(64, 1024).ilog2()).min(1024)
}

/// Receive queues of a device, 1 if it cannot be told.
fn receive_queues(device: &str) -> usize {
    let queues = std::fs::read_dir(format!("/sys/class/net/{device}/queues"));
    let receive = |entry: &std::fs::DirEntry| entry.file_name().to_string_lossy().starts_with("rx-");
    queues.map_or(1, |all| all.flatten().filter(receive).count().max(1))
}

/// Whether a port has to take frames to foreign MAC addresses: bridges take those to other stations, and a MAC address of
/// our own choice is not one that the device's filter knows.
fn promiscuous(settings: &Port) -> bool {
    let bridged =
        |attachment: &weir_config::Attachment| !matches!(attachment.domain, weir_config::Domain::Vrf(_));
    settings.mode == PortMode::Dedicated
        && (settings.mac.is_some() || bridged(&settings.attachment) || settings.vlans.values().any(bridged))
}

/// Whether two settings of a port mean the same device, opened the same way.
fn same_device(a: &Port, b: &Port) -> bool {
    (&a.device, a.mode, a.xdp) == (&b.device, b.mode, b.xdp)
}

fn facts_of(port: &OpenPort) -> PortFacts {
    PortFacts {
        mac: port.info.mac,
        mtu: u16::try_from(port.info.mtu).unwrap_or(u16::MAX),
        kernel_neighbours: port.settings.mode == PortMode::Shared,
    }
}

fn facts(ports: &BTreeMap<String, OpenPort>) -> BTreeMap<String, PortFacts> {
    ports.iter().map(|(name, port)| (name.clone(), facts_of(port))).collect()
}

/// What a shared port takes: packets to VTEPs whose underlay is the port's VRF, and its configured prefixes.
fn steering(config: &Config, port: &Port) -> Steering {
    let attachments = std::iter::once(&port.attachment).chain(port.vlans.values());
    let vrfs: Vec<&String> = attachments
        .filter_map(|attachment| match &attachment.domain {
            weir_config::Domain::Vrf(vrf) => Some(vrf),
            _ => None,
        })
        .collect();
    let mut vteps: Vec<(IpAddr, u16)> = config
        .tunnels
        .values()
        .filter(|tunnel| vrfs.contains(&&tunnel.underlay_vrf))
        .map(|tunnel| (tunnel.local, tunnel.udp_port))
        .collect();
    vteps.sort_unstable();
    vteps.dedup();
    Steering { vteps, prefixes: port.prefixes.clone() }
}

/// A random number, from the keys that the standard library draws for its hash tables.
fn random() -> u64 {
    use std::hash::{BuildHasher, Hasher};
    ahash::RandomState::new().build_hasher().finish() ^ std::hash::RandomState::new().build_hasher().finish()
}
