//! One queue of a device behind an AF_XDP socket.

use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::program::SocketMap;
use super::ring::Descriptor;
use super::socket::{Kick, XskSocket, await_release};
use crate::frame::{BURST, Frame, FrameCache, FramePool};
use crate::io::{PortQueue, QueueCounters};

/// Empty polls between two looks whether the device is still there.
const IDLE_PROBE: u32 = 1024;
/// Service calls between two looks at the kernel's statistics under load.
const STATISTICS_EVERY: u32 = 1 << 16;
/// Shortest frame that the kernel sends: an Ethernet header.
const SHORTEST: usize = 14;
/// How long closing waits for frames that the kernel is sending.
const DRAIN: Duration = Duration::from_millis(50);
/// How long the kernel may take to take a closed zero-copy socket's queue away from the driver.
const RELEASE: Duration = Duration::from_secs(5);

/// One receive/transmit queue pair of an [`AfXdpPort`](super::AfXdpPort), for one worker to poll.
#[derive(Debug)]
pub struct AfXdpQueue {
    /// Absent once closed.
    socket: Option<XskSocket>,
    pool: Arc<FramePool>,
    lent: Lent,
    /// Frames handed to the transmit ring whose completion is outstanding.
    sending: u32,
    queue: u32,
    /// Where the program finds the socket.
    sockets: Option<SocketMap>,
    /// The device whose driver itself uses the frames.
    zero_copy: Option<u32>,
    transmits: bool,
    /// log2 of the chunk size.
    shift: u32,
    counters: QueueCounters,
    /// Descriptors that this side refused.
    refused: u64,
    idle: u32,
    serviced: u32,
    /// Set by this queue, its siblings or the port when the device is gone.
    gone: Arc<AtomicBool>,
}

/// Which chunks the kernel has. A descriptor that names any other is refused, so that whatever the kernel says, no chunk
/// gets a second owner; and what is left when the socket is closed comes back.
#[derive(Debug)]
struct Lent(Vec<u64>);

impl Lent {
    fn new(frames: u32) -> Self {
        Self(vec![0; frames.div_ceil(64) as usize])
    }

    #[inline]
    fn give(&mut self, chunk: u32) {
        if let Some(word) = self.0.get_mut((chunk / 64) as usize) {
            *word |= 1 << (chunk % 64);
        }
    }

    /// True if the kernel had the chunk.
    #[inline]
    fn take(&mut self, chunk: u64) -> bool {
        let Some(word) = self.0.get_mut((chunk / 64) as usize) else { return false };
        let bit = 1 << (chunk % 64);
        let had = *word & bit != 0;
        *word &= !bit;
        had
    }

    /// Every chunk that the kernel has; afterwards it has none.
    fn take_all(&mut self) -> impl Iterator<Item = u32> + '_ {
        self.0.iter_mut().zip(0u32..).flat_map(|(word, n)| {
            let bits = std::mem::take(word);
            (0..64).filter(move |bit| bits >> bit & 1 == 1).map(move |bit| n * 64 + bit)
        })
    }
}

impl AfXdpQueue {
    /// A queue over a socket that is not bound yet. Its fill ring is filled from the pool. `zero_copy`: the index
    /// of the device that it is going to be bound to so.
    pub(super) fn new(
        socket: XskSocket,
        queue: u32,
        zero_copy: Option<u32>,
        pool: &Arc<FramePool>,
        gone: &Arc<AtomicBool>,
    ) -> Self {
        let memory = pool.memory();
        let mut this = Self {
            socket: Some(socket),
            pool: Arc::clone(pool),
            lent: Lent::new(memory.frames()),
            sending: 0,
            queue,
            sockets: None,
            zero_copy,
            transmits: true,
            shift: u32::from(memory.frame_size()).trailing_zeros(),
            counters: QueueCounters::default(),
            refused: 0,
            idle: 0,
            serviced: 0,
            gone: Arc::clone(gone),
        };
        let pool = Arc::clone(pool);
        this.refill(|| pool.take_chunk());
        this
    }

    /// Number of the queue on its device.
    pub fn number(&self) -> u32 {
        self.queue
    }

    pub(super) fn socket(&self) -> Option<&XskSocket> {
        self.socket.as_ref()
    }

    /// The queue is bound: the program may send it frames.
    pub(super) fn start(&mut self, sockets: &SocketMap, transmits: bool) -> Result<(), String> {
        self.transmits = transmits;
        if let Some(socket) = &self.socket {
            sockets.insert(self.queue, socket.as_fd())?;
            self.sockets = Some(sockets.clone());
            // Some drivers look at the fill ring only when woken.
            socket.kick_receive();
        }
        Ok(())
    }

    /// Chunks that the fill ring holds at most.
    pub(super) fn fill_size(&self) -> u32 {
        self.socket.as_ref().map_or(0, |socket| socket.fill.size())
    }

    /// Chunks that the kernel has now.
    pub(super) fn lent(&self) -> u32 {
        self.lent.0.iter().map(|word| word.count_ones()).sum()
    }

    /// Hands free chunks to the kernel while the fill ring has room. Returns how many.
    fn refill(&mut self, mut alloc: impl FnMut() -> Option<u32>) -> u32 {
        let Some(socket) = &mut self.socket else { return 0 };
        let room = socket.fill.room(u32::MAX);
        let mut filled = 0;
        while filled < room {
            let Some(chunk) = alloc() else { break };
            self.lent.give(chunk);
            socket.fill.push(u64::from(chunk) << self.shift);
            filled += 1;
        }
        if filled > 0 {
            socket.fill.submit();
        }
        filled
    }

    /// Takes back the chunks of frames that were sent.
    fn reap(&mut self, mut free: impl FnMut(u32)) {
        let Some(socket) = &mut self.socket else { return };
        if self.sending == 0 {
            return;
        }
        let done = socket.completion.available(u32::MAX);
        for _ in 0..done {
            let chunk = socket.completion.pop() >> self.shift;
            if self.lent.take(chunk) {
                free(chunk as u32);
            } else {
                self.refused += 1;
            }
        }
        if done > 0 {
            socket.completion.release();
            self.sending = self.sending.saturating_sub(done);
        }
    }

    fn shares_pool(&self, cache: &FrameCache) -> bool {
        Arc::ptr_eq(cache.pool(), &self.pool)
    }

    /// Replaces a frame of another memory by a copy in this queue's. False if there is no free chunk.
    #[cold]
    fn copy_here(&mut self, frame: &mut Frame, cache: &mut FrameCache) -> bool {
        let memory = self.pool.memory();
        if frame.len() > usize::from(memory.frame_size() - crate::frame::HEADROOM) {
            return false;
        }
        let Some(chunk) = self.pool.take_chunk() else { return false };
        // SAFETY: the index came from the pool, so no token of this chunk exists.
        let mut copy = unsafe { memory.frame(chunk, crate::frame::HEADROOM, 0) };
        copy.write(frame.bytes());
        cache.free(std::mem::replace(frame, copy));
        self.counters.copies += 1;
        true
    }

    /// How many frames from the front can be sent as they are, or were made so.
    fn sendable(&mut self, frames: &mut [Frame], cache: &mut FrameCache) -> usize {
        let memory = self.pool.memory();
        for (n, frame) in frames.iter_mut().enumerate() {
            if !memory.owns(frame) && !self.copy_here(frame, cache) {
                return n;
            }
        }
        frames.len()
    }

    fn kicked(&self, kick: Kick) {
        if kick == Kick::Gone {
            self.gone.store(true, Ordering::Release);
        }
    }

    /// Looks whether the device is still there, and at the kernel's counters. Two system calls.
    #[cold]
    fn probe(&mut self) {
        let Some(socket) = &self.socket else { return };
        self.kicked(socket.kick_receive());
        if let Some(statistics) = socket.statistics() {
            self.counters.rx_missed = statistics.missed;
            self.counters.invalid = statistics.invalid;
        }
    }

    /// Stops sending, waits at most 50 ms for what is being sent, closes the socket and takes every chunk back. Of a
    /// zero-copy socket, once the driver has let go of them; if it does not, they are lost: no frame is used that a device
    /// may still write to.
    fn shut(&mut self) {
        if self.socket.is_none() {
            return;
        }
        // A socket whose binding was refused says ENXIO, as if the device that its siblings are bound to were gone.
        if self.sockets.is_some() {
            self.probe();
        }
        // Before the socket is closed: a forked child may keep a copy of the descriptor for a while.
        if let Some(sockets) = self.sockets.take() {
            sockets.remove(self.queue);
        }
        let pool = Arc::clone(&self.pool);
        let started = Instant::now();
        while self.sending > 0 && self.alive() && started.elapsed() < DRAIN {
            if let Some(socket) = &self.socket {
                self.kicked(socket.kick_transmit());
            }
            self.reap(|chunk| pool.give_chunk(chunk));
            if self.sending > 0 {
                std::thread::sleep(Duration::from_micros(200));
            }
        }
        let alive = self.alive();
        self.socket = None;
        self.sending = 0;
        if let Some(ifindex) = self.zero_copy.filter(|_| alive) {
            if !await_release(ifindex, self.queue, RELEASE) {
                return;
            }
        }
        self.lent.take_all().for_each(|chunk| pool.give_chunk(chunk));
    }
}

impl PortQueue for AfXdpQueue {
    fn receive(&mut self, burst: &mut Vec<Frame>, max: usize, _cache: &mut FrameCache) -> usize {
        let Some(socket) = &mut self.socket else { return 0 };
        let ready = socket.receive.available(max.min(BURST) as u32);
        if ready == 0 {
            self.idle += 1;
            if self.idle >= IDLE_PROBE {
                self.idle = 0;
                self.probe();
            }
            return 0;
        }
        self.idle = 0;
        let memory = self.pool.memory();
        let mut received = 0;
        for _ in 0..ready {
            let descriptor = socket.receive.pop();
            let chunk = descriptor.address >> self.shift;
            let start = descriptor.address & ((1 << self.shift) - 1);
            let fits = start + u64::from(descriptor.len) <= 1 << self.shift;
            if !self.lent.take(chunk) {
                self.refused += 1;
                continue;
            }
            if !fits {
                self.refused += 1;
                self.pool.give_chunk(chunk as u32);
                continue;
            }
            self.counters.rx_bytes += u64::from(descriptor.len);
            received += 1;
            // SAFETY: the kernel had the chunk and gave it back, it is below the number of frames since it was marked,
            // and the packet lies within it.
            burst.push(unsafe { memory.frame(chunk as u32, start as u16, descriptor.len as u16) });
        }
        socket.receive.release();
        self.counters.rx_frames += received as u64;
        received
    }

    fn transmit(&mut self, frames: &mut Vec<Frame>, cache: &mut FrameCache) -> usize {
        let Some(socket) = &mut self.socket else { return 0 };
        if !self.transmits || frames.is_empty() {
            return 0;
        }
        let room = socket.transmit.room(frames.len() as u32) as usize;
        let Some(front) = frames.get_mut(..room) else { return 0 };
        let taken = self.sendable(front, cache);
        let Some(socket) = &mut self.socket else { return 0 };
        let mut sent = 0;
        for frame in frames.drain(..taken) {
            if frame.len() < SHORTEST {
                self.refused += 1;
                cache.free(frame);
                continue;
            }
            let (chunk, start, len) = frame.into_raw();
            self.lent.give(chunk);
            let address = (u64::from(chunk) << self.shift) + u64::from(start);
            socket.transmit.push(Descriptor { address, len: len.into(), options: 0 });
            self.counters.tx_bytes += u64::from(len);
            sent += 1;
        }
        if sent > 0 {
            socket.transmit.submit();
            self.sending += sent;
            self.counters.tx_frames += u64::from(sent);
            if socket.transmit.needs_wakeup() {
                let kick = socket.kick_transmit();
                self.kicked(kick);
            }
        }
        taken
    }

    fn service(&mut self, cache: &mut FrameCache) {
        let filled = if self.shares_pool(cache) {
            self.reap(|chunk| cache.free_chunk(chunk));
            self.refill(|| cache.alloc_chunk())
        } else {
            let pool = Arc::clone(&self.pool);
            self.reap(|chunk| pool.give_chunk(chunk));
            self.refill(|| pool.take_chunk())
        };
        let Some(socket) = &mut self.socket else { return };
        if self.sending > 0 && socket.transmit.needs_wakeup() && socket.transmit.pending() {
            let kick = socket.kick_transmit();
            self.kicked(kick);
        }
        let Some(socket) = &self.socket else { return };
        if filled > 0 && socket.fill.needs_wakeup() {
            self.kicked(socket.kick_receive());
        }
        self.serviced = self.serviced.wrapping_add(1);
        if self.serviced % STATISTICS_EVERY == 0 {
            self.probe();
        }
    }

    fn descriptor(&self) -> Option<RawFd> {
        self.socket.as_ref().map(|socket| socket.as_fd().as_raw_fd())
    }

    fn counters(&self) -> QueueCounters {
        QueueCounters { invalid: self.counters.invalid + self.refused, ..self.counters }
    }

    fn alive(&self) -> bool {
        self.socket.is_some() && !self.gone.load(Ordering::Acquire)
    }

    fn transmits(&self) -> bool {
        self.transmits
    }

    fn close(&mut self, _cache: &mut FrameCache) {
        self.shut();
    }
}

impl Drop for AfXdpQueue {
    fn drop(&mut self) {
        self.shut();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chunk_that_the_kernel_does_not_have_is_not_taken() {
        let mut lent = Lent::new(100);
        lent.give(63);
        lent.give(64);
        assert!(lent.take(64));
        assert!(!lent.take(64));
        assert!(!lent.take(1 << 40));
        lent.give(99);
        assert_eq!(lent.take_all().collect::<Vec<_>>(), [63, 99]);
        assert_eq!(lent.take_all().count(), 0);
    }
}
