//! The data plane as the control thread sees it: ports opened, workers started, configurations compiled and published.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Instant;

use arc_swap::ArcSwap;
use crossbeam_channel::Receiver;
use weir_config::{Config, MacAddress, Memory};

use crate::decision::PortId;
use crate::frame::{FrameCache, FrameMemory, FramePool, PageKind};
use crate::l3::Learned;
use crate::l3::icmp::RateLimiter;
use crate::snapshot::{Registry, Shared, Snapshot};

use super::core::{Core, CoreParts};
use super::cores;
use super::devices::LOOK;
use super::error::ApplyError;
use super::memory::{self, Private};
use super::ports::{BUSY, OpenPort, Queues, facts, open, ring_size};
use super::run::{self, Clock, Common, Door, Event, MAX_PORTS, Mail, NOBODY, PATIENCE, Queue, Worker};
use super::status::{Counters, Stopped};

/// What exists from the first configuration on.
pub(super) struct Running {
    pub(super) common: Arc<Common>,
    pub(super) shared: Shared,
    pub(super) registry: Registry,
    pub(super) ports: BTreeMap<String, OpenPort>,
    pub(super) pool: Arc<FramePool>,
    pub(super) icmp: Arc<RateLimiter>,
    pub(super) threads: Vec<JoinHandle<()>>,
    events: Receiver<Event>,
    /// Snapshots that some worker may still run: freed here, on the control thread.
    pub(super) old: Vec<Arc<Snapshot>>,
    /// When MTUs and carriers are looked at next.
    pub(super) next_look: Instant,
}

/// What every worker thread does first, given its number: giving up privileges, say. The data plane knows no policy.
pub type WorkerStart = Arc<dyn Fn(usize) -> std::io::Result<()> + Send + Sync>;

/// The data plane.
#[derive(Default)]
pub struct Dataplane {
    pub(super) running: Mutex<Option<Running>>,
    worker_start: Option<WorkerStart>,
    /// The doors of the workers that run, apart from `running`: that is locked while devices are waited for.
    doors: Mutex<Vec<Arc<Door>>>,
    /// Every memory of frames there is, with what it was asked for as.
    pools: Mutex<Vec<(Memory, Arc<FramePool>)>>,
}

impl std::fmt::Debug for Dataplane {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Dataplane").finish_non_exhaustive()
    }
}

impl Dataplane {
    /// A data plane without a configuration whose worker threads begin with `start`. If that fails, so does
    /// [`apply`](Self::apply).
    pub fn with_worker_start(start: WorkerStart) -> Self {
        let mut dataplane = Self::default();
        dataplane.worker_start = Some(start);
        dataplane
    }

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
                let start = self.worker_start.clone();
                let running = Running::start(config, self.pool(&config.memory)?, start)?;
                self.doors().clone_from(&running.common.doors);
                *guard = Some(running);
                Ok(1)
            }
        }
    }

    fn doors(&self) -> MutexGuard<'_, Vec<Arc<Door>>> {
        self.doors.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How often each worker has gone round, by its number. A worker that blocks is woken, so that it goes round too: one whose
    /// number stands still is stuck. Never waits for a device.
    pub fn turns(&self) -> Vec<u64> {
        let doors = self.doors();
        doors.iter().for_each(|door| door.nudge());
        doors.iter().map(|door| door.counters.loops.get()).collect()
    }

    /// Frames as the configuration asks for them. Memory of frames is never unmapped: what a start that failed, or a run
    /// that ended, leaves is used again.
    fn pool(&self, wanted: &Memory) -> Result<Arc<FramePool>, ApplyError> {
        let mut pools = self.pools.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, pool)) = pools.iter().find(|(memory, _)| memory == wanted) {
            return Ok(Arc::clone(pool));
        }
        memory::frames_fit(wanted)?;
        let frame_size = u16::try_from(wanted.frame_size).unwrap_or(2048);
        let memory = FrameMemory::map(wanted.frames, frame_size, wanted.huge_pages)?;
        pools.push((wanted.clone(), FramePool::new(memory)));
        Ok(FramePool::new(memory))
    }

    /// Housekeeping of the control thread: vanished devices are bound again, old snapshots are freed.
    pub fn service(&self) {
        if let Some(running) = &mut *self.lock() {
            running.service();
        }
    }

    /// Stops announcing addresses of weir's own, or goes on with it; packets are forwarded either way.
    pub fn quiet(&self, quiet: bool) {
        if let Some(running) = &*self.lock() {
            running.common.quiet.store(quiet, Ordering::Relaxed);
        }
    }

    /// Drains and detaches; the kernel has its interfaces back afterwards. `None` if nothing was running.
    pub fn stop(&self) -> Option<Stopped> {
        let running = self.lock().take();
        self.doors().clear();
        running.map(Running::stop)
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
        running.next_look = Instant::now();
        for port in running.ports.values_mut() {
            if port.settings.device.as_deref() == Some(device) {
                port.next_try = Instant::now();
                // A device found gone makes its queues say so.
                let _ = port.io.as_ref().map(|io| io.link());
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
    fn start(config: &Config, pool: Arc<FramePool>, start: Option<WorkerStart>) -> Result<Self, ApplyError> {
        let available = cores::available(&config.workers.cores)?;
        let mut registry = Registry::default();
        let (mut ports, mut queues) = (BTreeMap::new(), Vec::new());
        let ring = ring_size(pool.available(), config.ports.values());
        for (name, settings) in &config.ports {
            let (port, opened) = open(name, settings, &mut registry, &pool, ring, available.len(), BUSY)?;
            ports.insert(name.clone(), port);
            queues.push((name.clone(), opened));
        }
        let queue_count: usize = queues.iter().map(|(_, queues)| queues.len()).sum();
        let cores = cores::choose(available, &config.workers.cores, queue_count);
        memory::tables_fit(config, cores.len())?;
        let seed = random();
        let shared = Shared::new(config, cores.len(), seed);
        let clock = Clock::start();
        let config = Arc::new(config.clone());
        // What workers run until every port is dealt.
        let nothing = Arc::new(Config { limits: config.limits.clone(), ..Config::default() });
        let idle = Snapshot::compile(&nothing, &BTreeMap::new(), &mut registry, &shared, 0, clock.now())?;
        let first = Snapshot::compile(&config, &facts(&ports), &mut registry, &shared, 1, clock.now())?;
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
            let private = Private::of(&engine.flows, &config.limits, cores.len());
            let flows = config.limits.flows as usize;
            let (door, mail) = run::door(Arc::clone(&engine.counters), core.id, flows, private)
                .map_err(|error| ApplyError::Worker { worker, reason: error.to_string() })?;
            doors.push(door);
            parts.push((engine, mail, *core));
        }
        let common = Arc::new(Common {
            snapshots: ArcSwap::from_pointee(idle),
            senders: (0..MAX_PORTS).map(|_| std::sync::atomic::AtomicU16::new(NOBODY)).collect(),
            doors,
            events: events_in,
            clock,
            idle: config.workers.idle,
            quiet: AtomicBool::new(false),
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
            next_look: Instant::now() + LOOK,
        };
        running.old.push(running.common.snapshots.load_full());
        let launched = parts
            .into_iter()
            .enumerate()
            .try_for_each(|(worker, (engine, mail, core))| {
                running.spawn(worker, engine, mail, core, start.clone())
            })
            .and_then(|()| running.steer(&config));
        if let Err(error) = launched {
            running.stop();
            return Err(error);
        }
        // No port receives before all of them can send.
        for (name, opened) in queues {
            running.deal(&name, opened, 1);
        }
        running.publish(first);
        Ok(running)
    }

    fn spawn(
        &mut self,
        worker: usize,
        engine: Core,
        mail: Receiver<Mail>,
        core: core_affinity::CoreId,
        start: Option<WorkerStart>,
    ) -> Result<(), ApplyError> {
        let refused = |error: std::io::Error| ApplyError::Worker { worker, reason: error.to_string() };
        let common = Arc::clone(&self.common);
        let (started, outcome) = crossbeam_channel::bounded(1);
        let thread = std::thread::Builder::new()
            .name(format!("weir-worker-{worker}"))
            .spawn(move || {
                core_affinity::set_for_current(core);
                let outcome = start.map_or(Ok(()), |start| start(worker));
                let goes_on = outcome.is_ok();
                let _ = started.send(outcome);
                if !goes_on {
                    return;
                }
                run::or_abort(worker, || {
                    if let Some(worker) = Worker::new(worker, engine, common, mail) {
                        worker.run();
                    }
                });
            })
            .map_err(refused)?;
        self.threads.push(thread);
        // A thread that ends without a word has panicked.
        outcome.recv().unwrap_or_else(|_| Err(std::io::Error::other("its thread ended"))).map_err(refused)
    }

    /// Deals a port's queues out, each to the worker that has the fewest, and waits until they can send. They receive from
    /// generation `since` on.
    pub(super) fn deal(&mut self, name: &str, queues: Queues, since: u64) {
        let Some(port) = self.ports.get_mut(name) else { return };
        let port = port.id;
        let (mut sender, mut awaited) = (NOBODY, Vec::new());
        for (number, io) in queues {
            let worker = self.least_busy();
            if let Some(port) = self.ports.get_mut(name) {
                port.queues.push((number, worker));
            }
            if io.transmits() && sender == NOBODY {
                sender = u16::try_from(worker).unwrap_or(NOBODY);
            }
            if let Some(door) = self.common.doors.get(worker) {
                let (done, adopted) = crossbeam_channel::bounded(1);
                if door.send(Mail::Adopt(Queue { port, number, io, since }, done)) {
                    awaited.push(adopted);
                }
            }
        }
        for adopted in awaited {
            let _ = adopted.recv_timeout(PATIENCE);
        }
        // Only now: until its queue is adopted, the sender would drop what others hand to it.
        if let Some(place) = self.common.senders.get(port.index()) {
            place.store(sender, Ordering::Release);
        }
    }

    /// The worker that polls the fewest queues, the first of several.
    fn least_busy(&self) -> usize {
        let mut polled = vec![0; self.common.doors.len()];
        for (_, worker) in self.ports.values().flat_map(|port| &port.queues) {
            if let Some(count) = polled.get_mut(*worker) {
                *count += 1;
            }
        }
        (0..polled.len()).min_by_key(|worker| polled.get(*worker)).unwrap_or(0)
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
        let mut queues = Vec::new();
        for door in &self.common.doors {
            let (done, released) = crossbeam_channel::bounded(1);
            if door.send(Mail::Release(port, done)) {
                queues.extend(released.recv_timeout(PATIENCE).unwrap_or_default());
            }
        }
        self.shut(queues);
    }

    /// Closes queues that workers gave up.
    fn shut(&self, queues: Vec<Queue>) {
        let mut cache = FrameCache::new(Arc::clone(&self.pool));
        for mut queue in queues {
            queue.io.close(&mut cache);
        }
    }

    /// Closes the queues whose devices are gone, and takes back the others of their ports.
    fn bury(&mut self) {
        while let Ok(Event::Lost(queue)) = self.events.try_recv() {
            let port = queue.port;
            self.shut(vec![queue]);
            self.lose(port);
        }
    }

    fn service(&mut self) {
        self.bury();
        self.reopen();
        self.look_at_links();
        self.free_old();
    }

    /// Frees the snapshots that nobody else holds.
    pub(super) fn free_old(&mut self) {
        let newest = self.common.snapshots.load().generation;
        self.old.retain(|old| old.generation == newest || Arc::strong_count(old) > 1);
    }

    fn stop(mut self) -> Stopped {
        for door in &self.common.doors {
            door.send(Mail::Stop);
        }
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
        self.bury();
        let mut cache = FrameCache::new(Arc::clone(&self.pool));
        for door in &self.common.doors {
            door.clear(&mut cache);
        }
        cache.flush();
        // Dropping the ports detaches their programs.
        self.ports.clear();
        let mut counters = Counters::default();
        for door in &self.common.doors {
            door.counters.add_to(&mut counters);
        }
        Stopped {
            counters,
            frames: u64::from(self.pool.memory().frames()),
            free_frames: self.pool.available() as u64,
        }
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
