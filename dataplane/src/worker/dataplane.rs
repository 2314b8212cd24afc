//! The data plane as the control thread sees it: ports opened, workers started, configurations compiled and published.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use crossbeam_channel::Receiver;
use weir_config::{Config, MacAddress};

use crate::decision::PortId;
use crate::frame::{FrameCache, FrameMemory, FramePool, PageKind};
use crate::io::PortQueue as _;
use crate::io::afxdp::{AfXdpPort, AfXdpQueue};
use crate::l3::Learned;
use crate::l3::icmp::RateLimiter;
use crate::snapshot::{Registry, Shared, Snapshot};

use super::core::{Core, CoreParts};
use super::cores;
use super::error::ApplyError;
use super::ports::{OpenPort, facts, facts_of, open, promiscuous, ring_size, same_device, steering};
use super::run::{self, Clock, Common, Door, Event, MAX_PORTS, Mail, NOBODY, Queue, Worker};

/// How long workers may take to do what they are told.
const PATIENCE: Duration = Duration::from_secs(2);
/// How often a vanished device is looked for.
const REOPEN: Duration = Duration::from_millis(500);

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
        let launched = parts
            .into_iter()
            .enumerate()
            .try_for_each(|(worker, (engine, mail, core))| running.spawn(worker, engine, mail, core))
            .and_then(|()| running.steer(&config));
        if let Err(error) = launched {
            running.stop();
            return Err(error);
        }
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
        let closed = self.make_way(config);
        let result = self.prepare(config);
        let (opened, snapshot, config) = match result {
            Ok(prepared) => prepared,
            Err(error) => {
                if !closed.is_empty() {
                    self.reopen();
                }
                return Err(error);
            }
        };
        let generation = snapshot.generation;
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

    /// Closes the ports whose devices the new configuration wants opened another way, or by another port. They are looked for
    /// again by [`reopen`](Self::reopen) if the change fails. Returns their names.
    fn make_way(&mut self, config: &Config) -> Vec<String> {
        let wanted_elsewhere = |name: &String, port: &OpenPort| {
            let device = &port.settings.device;
            config.ports.iter().any(|(other, settings)| other != name && settings.device == *device)
        };
        let in_the_way = |(name, port): &(&String, &OpenPort)| {
            config.ports.get(*name).is_some_and(|settings| !same_device(&port.settings, settings))
                || wanted_elsewhere(name, port)
        };
        let names: Vec<String> = self.ports.iter().filter(in_the_way).map(|(name, _)| name.clone()).collect();
        for name in &names {
            if let Some(id) = self.ports.get(name).map(|port| port.id) {
                self.release(id);
            }
            if let Some(port) = self.ports.get_mut(name) {
                port.io = None;
                port.queues.clear();
                port.next_try = Instant::now();
            }
        }
        names
    }

    /// Opens what is new or changed, and compiles.
    #[allow(clippy::type_complexity)]
    fn prepare(
        &mut self,
        config: &Config,
    ) -> Result<(Vec<(String, OpenPort, Vec<AfXdpQueue>)>, Snapshot, Arc<Config>), ApplyError> {
        let mut opened = Vec::new();
        for (name, settings) in &config.ports {
            if self.ports.get(name).is_some_and(|port| same_device(&port.settings, settings)) {
                continue;
            }
            let ring = ring_size(self.pool.available(), [settings]);
            let (port, queues) = open(name, settings, &mut self.registry, &self.pool, ring)?;
            opened.push((name.clone(), port, queues));
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
        Ok((opened, snapshot, config))
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

/// A random number, from the keys that the standard library draws for its hash tables.
fn random() -> u64 {
    use std::hash::{BuildHasher, Hasher};
    ahash::RandomState::new().build_hasher().finish() ^ std::hash::RandomState::new().build_hasher().finish()
}
