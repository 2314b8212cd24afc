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
use super::devices::LOOK;
use super::error::ApplyError;
use super::ports::{OpenPort, facts, open, ring_size};
use super::run::{self, Clock, Common, Door, Event, MAX_PORTS, Mail, NOBODY, Queue, Worker};

/// How long workers may take to do what they are told.
pub(super) const PATIENCE: Duration = Duration::from_secs(2);

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
    pub(super) old: Vec<Arc<Snapshot>>,
    /// Next worker to be dealt a queue.
    next_worker: usize,
    /// When MTUs are looked at next.
    pub(super) next_look: Instant,
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
            next_look: Instant::now() + LOOK,
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
    pub(super) fn deal(&mut self, name: &str, queues: Vec<AfXdpQueue>) {
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

    /// Takes a port's queues back from the workers and closes the device.
    pub(super) fn close(&mut self, name: &str) {
        let Some(port) = self.ports.remove(name) else { return };
        self.release(port.id);
    }

    pub(super) fn release(&self, port: PortId) {
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
        self.look_at_mtus();
        // A snapshot is freed once nobody else holds it.
        let newest = self.common.snapshots.load().generation;
        self.old.retain(|old| old.generation == newest || Arc::strong_count(old) > 1);
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
