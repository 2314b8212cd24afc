//! The run loop of one worker thread: poll the queues, run the engine, send, keep house, idle.

use std::io::Write as _;
use std::ops::Deref;
use std::os::fd::RawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};
use std::time::{Duration, Instant};

use arc_swap::{ArcSwap, Cache};
use crossbeam_channel::{Receiver, Sender};
use crossbeam_queue::ArrayQueue;
use weir_config::Idle;

use crate::decision::{DropReason, Nanos, PortId};
use crate::frame::{BURST, BURST_ROOM, Frame, FrameCache};
use crate::io::{PortQueue, QueueCounters, Wake};
use crate::snapshot::Snapshot;

use super::core::Core;
use super::counters::CounterBlock;
use super::display;
use super::idle::{NAP, Silence};
use super::memory::Private;
use super::relay::Wire;
use super::status::FlowStatus;
use super::tick::Ticker;

/// Most ports in the life of a process.
pub(super) const MAX_PORTS: usize = 1024;
/// No worker.
pub(super) const NOBODY: u16 = u16::MAX;
/// How long workers may take to do what they are told.
pub(super) const PATIENCE: Duration = Duration::from_secs(2);
/// Unread mail of a worker.
const MAILBOX: usize = 1024;
/// Frames that wait to be taken over by another worker.
const HANDOFF: usize = 1024;
/// How long a worker blocks at the most: timers are looked at that often.
const BLOCK: Duration = Duration::from_millis(100);

/// The engine's clock: nanoseconds since the data plane started, never zero.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock(Instant);

impl Clock {
    pub(super) fn start() -> Self {
        Self(Instant::now())
    }

    #[inline]
    pub(super) fn now(&self) -> Nanos {
        self.0.elapsed().as_nanos() as Nanos + 1_000_000_000
    }
}

/// One queue with what a worker needs to know of it.
pub(super) struct Queue {
    pub(super) port: PortId,
    pub(super) number: u32,
    pub(super) io: Box<dyn PortQueue>,
    /// Generation that knows the port: a worker that runs an older one leaves received frames where they are.
    pub(super) since: u64,
}

/// What control tells a worker.
pub(super) enum Mail {
    /// Poll this queue; answer once it can send.
    Adopt(Queue, Sender<()>),
    /// Give the queues of this port back. Control closes them: that takes milliseconds, in which the worker's other ports
    /// would not be polled.
    Release(PortId, Sender<Vec<Queue>>),
    /// Tell the flow table.
    Flows(usize, Sender<Vec<FlowStatus>>),
    /// Tell the counters of the queues.
    Queues(Sender<Vec<(PortId, u32, QueueCounters)>>),
    /// Drain, give every queue back, and end.
    Stop,
}

/// What a worker tells control.
pub(super) enum Event {
    /// The device behind a queue is gone, or the worker ends. Control closes the queue.
    Lost(Queue),
}

/// How others reach a worker.
pub(super) struct Door {
    pub(super) mail: Sender<Mail>,
    has_mail: AtomicBool,
    handoff: ArrayQueue<(PortId, Frame)>,
    wake: Wake,
    pub(super) counters: Arc<CounterBlock>,
    pub(super) core: usize,
    pub(super) flow_capacity: usize,
    pub(super) private: Private,
}

impl Door {
    /// Puts mail into the worker's box and wakes it. False if it has ended, or has not read its mail for long.
    pub(super) fn send(&self, mail: Mail) -> bool {
        let sent = self.mail.send_timeout(mail, PATIENCE).is_ok();
        self.has_mail.store(true, Ordering::Release);
        self.wake.wake();
        sent
    }

    /// Drops what was handed over and never taken: the worker ends, or has ended while others still ran.
    pub(super) fn clear(&self, cache: &mut FrameCache) {
        while let Some((_, frame)) = self.handoff.pop() {
            self.counters.handed_in.add(1);
            self.counters.count_drop(DropReason::InterfaceDown);
            cache.free(frame);
        }
    }

    /// Wakes the worker: something that it looks at every turn has changed.
    pub(super) fn nudge(&self) {
        self.wake.wake();
    }
}

/// What all workers share.
pub(super) struct Common {
    pub(super) snapshots: ArcSwap<Snapshot>,
    /// Worker that sends for a port, by port, for the workers that have no queue there.
    pub(super) senders: Vec<AtomicU16>,
    pub(super) doors: Vec<Arc<Door>>,
    pub(super) events: Sender<Event>,
    pub(super) clock: Clock,
    pub(super) idle: Idle,
    /// While set, no address of our own is announced.
    pub(super) quiet: AtomicBool,
}

/// Where the newest snapshot is, for a cache of it: whether there is a newer one is then a look at one word.
struct Newest(Arc<Common>);

impl Deref for Newest {
    type Target = ArcSwap<Snapshot>;

    fn deref(&self) -> &Self::Target {
        &self.0.snapshots
    }
}

/// One worker.
pub(super) struct Worker {
    id: usize,
    pub(super) core: Core,
    pub(super) snapshot: Arc<Snapshot>,
    newest: Cache<Newest, Arc<Snapshot>>,
    common: Arc<Common>,
    door: Arc<Door>,
    mail: Receiver<Mail>,
    pub(super) queues: Vec<Queue>,
    /// Index into `queues` of the queue that sends for a port.
    pub(super) transmit: Vec<Option<usize>>,
    /// By index into `queues`: where what is received there is relayed to.
    pub(super) wires: Vec<Option<Wire>>,
    descriptors: Vec<RawFd>,
    /// Whether there is a queue without a descriptor: nothing wakes the worker when that receives.
    blind: bool,
    pub(super) burst: Vec<Frame>,
    ticker: Option<Ticker>,
    now: Nanos,
    silence: Silence,
    stopping: bool,
}

/// Runs a worker. weir does not go on without one: its queues would swallow packets, and the frames that it held would be
/// lost. The process ends, so that the kernel has its interfaces back and whoever supervises weir starts it again.
pub(super) fn or_abort(worker: usize, work: impl FnOnce()) {
    // What the work has touched is never looked at again.
    if std::panic::catch_unwind(std::panic::AssertUnwindSafe(work)).is_err() {
        // Where it was, the panic hook has said. A standard error that is closed changes nothing.
        let _ = writeln!(std::io::stderr(), "weir: worker {worker} panicked: aborting");
        std::process::abort();
    }
}

/// Makes the door of a worker, and the end that the worker reads its mail from.
pub(super) fn door(
    counters: Arc<CounterBlock>,
    core: usize,
    flow_capacity: usize,
    private: Private,
) -> std::io::Result<(Arc<Door>, Receiver<Mail>)> {
    let (mail, receiver) = crossbeam_channel::bounded(MAILBOX);
    let door = Door {
        mail,
        has_mail: AtomicBool::new(false),
        handoff: ArrayQueue::new(HANDOFF),
        wake: Wake::new()?,
        counters,
        core,
        flow_capacity,
        private,
    };
    Ok((Arc::new(door), receiver))
}

impl Worker {
    pub(super) fn new(id: usize, core: Core, common: Arc<Common>, mail: Receiver<Mail>) -> Option<Self> {
        let door = Arc::clone(common.doors.get(id)?);
        let snapshot = common.snapshots.load_full();
        door.counters.generation.set(snapshot.generation);
        Some(Self {
            id,
            core,
            snapshot,
            newest: Cache::new(Newest(Arc::clone(&common))),
            door,
            mail,
            queues: Vec::new(),
            transmit: vec![None; MAX_PORTS],
            wires: Vec::new(),
            descriptors: Vec::new(),
            blind: false,
            burst: Vec::with_capacity(BURST_ROOM),
            ticker: (id == 0).then(Ticker::default),
            now: 0,
            silence: Silence::new(),
            stopping: false,
            common,
        })
    }

    /// Polls until told to stop.
    pub(super) fn run(mut self) {
        while !self.stopping {
            let busy = self.turn();
            if busy {
                self.silence.ends(self.now);
            } else {
                self.idle();
            }
        }
        self.wind_up();
    }

    /// One turn: mail, snapshot, every queue once, frames handed over, housekeeping. Says whether there was traffic.
    #[inline]
    fn turn(&mut self) -> bool {
        self.door.counters.loops.add(1);
        if self.door.has_mail.load(Ordering::Acquire) {
            self.read_mail();
        }
        self.pick_up();
        self.now = self.common.clock.now();
        self.core.set_clock(self.now);
        let mut frames = 0;
        for at in 0..self.queues.len() {
            frames += self.poll_queue(at);
        }
        frames += self.take_over();
        self.core.housekeep(&self.snapshot);
        if let Some(ticker) = &mut self.ticker {
            ticker.tick(&mut self.core, &self.snapshot, &self.common.quiet);
        }
        self.send();
        let mut lost = false;
        for queue in &mut self.queues {
            queue.io.service(&mut self.core.cache);
            lost |= !queue.io.alive();
        }
        if lost {
            self.give_up_lost();
        }
        frames > 0
    }

    #[inline]
    fn poll_queue(&mut self, at: usize) -> usize {
        let generation = self.snapshot.generation;
        let Some(queue) = self.queues.get_mut(at).filter(|queue| queue.since <= generation) else { return 0 };
        let port = queue.port;
        let relayed = match self.wires.get(at) {
            Some(Some(wire)) => self.relay(at, *wire),
            _ => {
                queue.io.receive(&mut self.burst, BURST, &mut self.core.cache);
                0
            }
        };
        let count = self.burst.len();
        if count > 0 {
            self.core.process(&self.snapshot, port, &mut self.burst);
            self.send();
        }
        relayed + count
    }

    /// Frames that other workers hand over to be sent.
    #[inline]
    fn take_over(&mut self) -> usize {
        let mut count = 0;
        while count < BURST {
            let Some((port, frame)) = self.door.handoff.pop() else { break };
            self.core.counters.handed_in.add(1);
            self.core.stage.push(port, frame);
            count += 1;
        }
        count
    }

    /// Sends what is staged.
    #[inline]
    fn send(&mut self) {
        let Self { core, queues, transmit, common, id, .. } = self;
        core.flush(|port, frames, cache, counters| {
            let queue = transmit.get(port.index()).copied().flatten().and_then(|at| queues.get_mut(at));
            match queue {
                Some(queue) => transmit_all(queue, frames, cache, counters),
                None => hand_over(common, *id, port, frames, cache, counters),
            }
        });
    }

    /// Goes on to the newest snapshot. The old one is freed by the control thread, which holds it until every worker has
    /// moved on.
    #[inline]
    fn pick_up(&mut self) {
        let newest = self.newest.load();
        if newest.generation != self.snapshot.generation {
            self.snapshot = Arc::clone(newest);
            self.door.counters.generation.set(self.snapshot.generation);
            self.core.release_all(&self.snapshot);
            self.find_wires();
        }
    }

    #[cold]
    fn read_mail(&mut self) {
        // Not a plain store: it may not become visible after the box was found empty, or mail would lie unread.
        self.door.has_mail.swap(false, Ordering::SeqCst);
        while let Ok(mail) = self.mail.try_recv() {
            match mail {
                Mail::Adopt(queue, done) => {
                    self.core.stage.reserve(queue.port.index() + 1);
                    self.queues.push(queue);
                    let _ = done.send(());
                }
                Mail::Release(port, done) => {
                    self.finish(HANDOFF / BURST);
                    let _ = done.send(self.take_queues(|queue| queue.port == port));
                }
                Mail::Flows(limit, reply) => {
                    let _ = reply.send(display::flows(self.id, &self.core, &self.snapshot, limit));
                }
                Mail::Queues(reply) => {
                    let all = self.queues.iter().map(|queue| (queue.port, queue.number, queue.io.counters()));
                    let _ = reply.send(all.collect());
                }
                Mail::Stop => self.stopping = true,
            }
            self.index_queues();
        }
    }

    fn index_queues(&mut self) {
        self.transmit.fill(None);
        for (at, queue) in self.queues.iter().enumerate().filter(|(_, queue)| queue.io.transmits()) {
            if let Some(place) = self.transmit.get_mut(queue.port.index()) {
                place.get_or_insert(at);
            }
        }
        self.descriptors.clear();
        self.descriptors.extend(self.queues.iter().filter_map(|queue| queue.io.descriptor()));
        self.blind = self.descriptors.len() < self.queues.len();
        self.find_wires();
    }

    /// Sends what other workers have handed over so far, at most so many bursts of it.
    fn finish(&mut self, bursts: usize) {
        for _ in 0..bursts {
            if self.take_over() == 0 {
                break;
            }
            self.send();
        }
    }

    fn take_queues(&mut self, which: impl Fn(&Queue) -> bool) -> Vec<Queue> {
        let (mut taken, keep): (Vec<_>, Vec<_>) = self.queues.drain(..).partition(which);
        taken.iter_mut().for_each(|queue| queue.io.leave());
        self.queues = keep;
        self.index_queues();
        taken
    }

    #[cold]
    fn give_up_lost(&mut self) {
        for queue in self.take_queues(|queue| !queue.io.alive()) {
            let _ = self.common.events.send(Event::Lost(queue));
        }
    }

    fn idle(&mut self) {
        if self.common.idle == Idle::Spin || !self.silence.is_long(self.now) {
            std::hint::spin_loop();
            return;
        }
        self.door.counters.sleeps.add(1);
        let Door { handoff, has_mail, wake, .. } = &*self.door;
        let timeout = if self.blind {
            NAP
        } else if self.core.held.is_empty() {
            BLOCK
        } else {
            // Held packets and their timers want a closer look than the usual one.
            Duration::from_millis(1)
        };
        let generation = self.snapshot.generation;
        wake.sleep(&self.descriptors, timeout, || {
            !handoff.is_empty()
                || has_mail.load(Ordering::Acquire)
                || self.common.snapshots.load().generation != generation
        });
    }

    /// Sends what is left, frees what is held. Control closes the queues: a worker may not be allowed to.
    fn wind_up(&mut self) {
        self.finish(HANDOFF / BURST);
        self.core.abandon_held();
        self.send();
        for queue in &mut self.queues {
            queue.io.service(&mut self.core.cache);
            queue.io.leave();
        }
        for queue in self.queues.drain(..) {
            let _ = self.common.events.send(Event::Lost(queue));
        }
        let Core { cache, .. } = &mut self.core;
        self.door.clear(cache);
        cache.flush();
    }
}

/// Sends frames by a queue of this worker's own. A full ring is reaped once and tried again; what still does not fit
/// stays, and is counted by the caller.
#[inline]
fn transmit_all(queue: &mut Queue, frames: &mut Vec<Frame>, cache: &mut FrameCache, counters: &CounterBlock) {
    let mut sent = queue.io.transmit(frames, cache);
    if !frames.is_empty() {
        queue.io.service(cache);
        sent += queue.io.transmit(frames, cache);
    }
    counters.transmitted.add(sent as u64);
}

/// Hands frames to the worker that sends for their port.
#[cold]
fn hand_over(
    common: &Common,
    own: usize,
    port: PortId,
    frames: &mut Vec<Frame>,
    cache: &mut FrameCache,
    counters: &CounterBlock,
) {
    let owner = common.senders.get(port.index()).map_or(NOBODY, |owner| owner.load(Ordering::Relaxed));
    let door = common.doors.get(usize::from(owner)).filter(|_| usize::from(owner) != own);
    let Some(door) = door else {
        for frame in frames.drain(..) {
            counters.count_drop(DropReason::InterfaceDown);
            cache.free(frame);
        }
        return;
    };
    for frame in frames.drain(..) {
        match door.handoff.push((port, frame)) {
            Ok(()) => counters.handed_out.add(1),
            Err((_, frame)) => {
                counters.count_drop(DropReason::HandoffQueueFull);
                cache.free(frame);
            }
        }
    }
    door.wake.wake();
}

#[cfg(test)]
#[allow(clippy::panic)]
mod tests;
