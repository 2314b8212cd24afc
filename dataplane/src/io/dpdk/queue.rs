//! One queue of a device that DPDK drives.

use std::any::Any;
use std::mem::MaybeUninit;
use std::sync::Arc;

use weir_dpdk::{Device, Mbuf, Mempool};

use super::port::Shared;
use crate::frame::{BURST, Frame, FrameCache, FrameMemory, FramePool, HEADROOM};
use crate::io::{PortQueue, QueueCounters};

/// Shortest frame that is sent: an Ethernet header.
pub(super) const SHORTEST: usize = 14;
/// Free frames that a worker keeps for itself before it gives more to the drivers, and how many it then gives at once.
const KEPT: usize = 128;
const SHARED: usize = 64;
/// Polls without anything sent after which the driver is asked to free what has been sent.
const CLEAN_AFTER: u32 = 256;

/// One receive/transmit queue pair of a [`DpdkPort`](super::DpdkPort), for one worker to poll.
#[derive(Debug)]
pub struct DpdkQueue {
    pub(super) port: u16,
    pub(super) queue: u16,
    pub(super) mempool: &'static Mempool,
    memory: &'static FrameMemory,
    pool: Arc<FramePool>,
    /// Longest frame that is sent: as much as drivers take to fit one of this pool's buffers.
    pub(super) longest: usize,
    /// `None` once closed.
    pub(super) shared: Option<Arc<Shared>>,
    pub(super) counters: QueueCounters,
    /// Polls since something was sent; the driver was asked to clean up when it reaches [`CLEAN_AFTER`], and it stays there.
    pub(super) quiet: u32,
    /// Whether the driver can be asked.
    cleans: bool,
}

impl DpdkQueue {
    pub(super) fn new(
        shared: Arc<Shared>,
        port: u16,
        queue: u16,
        mempool: &'static Mempool,
        pool: &Arc<FramePool>,
    ) -> Self {
        Self {
            port,
            queue,
            mempool,
            memory: pool.memory(),
            pool: Arc::clone(pool),
            longest: usize::from(pool.memory().frame_size().saturating_sub(weir_dpdk::HEADROOM)),
            shared: Some(shared),
            counters: QueueCounters::default(),
            quiet: CLEAN_AFTER,
            cleans: true,
        }
    }

    /// Number of the queue on its device.
    pub fn number(&self) -> u32 {
        self.queue.into()
    }

    /// Appends the frames of mbufs that were just received to a burst with room for them, as far as they are the usual case: one segment,
    /// of this memory. Says how many, and their bytes.
    ///
    /// # Safety
    /// The driver filled these places, and has handed the mbufs over.
    #[inline(always)]
    unsafe fn plain(&self, filled: &[MaybeUninit<Mbuf>], burst: &mut Vec<Frame>) -> (usize, u64) {
        let (mempool, memory) = (self.mempool.places(), self.memory.layout());
        let size = u32::from(self.mempool.frame_size());
        let (mut count, mut bytes) = (0, 0);
        for (place, room) in filled.iter().zip(burst.spare_capacity_mut()) {
            // SAFETY: the caller's promise. The chunk is below the number of frames, was the driver's, which gave it up, and the packet
            // lies within it.
            unsafe {
                let mbuf = place.assume_init();
                let (start, len, segments) = mbuf.layout();
                if segments != 1 || u32::from(start) + u32::from(len) > size {
                    break;
                }
                let Some(chunk) = mempool.chunk(mbuf) else { break };
                room.write(memory.frame(chunk, start, len));
                bytes += u64::from(len);
            }
            count += 1;
        }
        // SAFETY: the first `count` places behind the burst were written.
        unsafe { burst.set_len(burst.len() + count) };
        (count, bytes)
    }

    /// The frame of an mbuf in any other case: several segments are put together in the first, what comes from another memory is
    /// copied. `None`, counted, where that cannot be done: the mbuf is then freed.
    #[cold]
    fn odd(&mut self, mbuf: Mbuf) -> Option<Frame> {
        // SAFETY: the driver has just handed the packet over, with all its segments, and nobody else writes to them; a chunk is ours
        // with its mbuf, or since it came from the pool.
        unsafe {
            let (start, len, _) = mbuf.layout();
            let own = self.mempool.chunk(mbuf);
            if own.is_some() && u32::from(start) + u32::from(len) > u32::from(self.mempool.frame_size()) {
                self.counters.invalid += 1;
                mbuf.free();
                return None;
            }
            let (mut frame, rest) = if let Some(chunk) = own {
                let rest = mbuf.next();
                mbuf.cut();
                (self.memory.frame(chunk, start, len), rest)
            } else if let Some(chunk) = self.pool.take_chunk() {
                // Of a ring that another memory's port feeds.
                (self.memory.frame(chunk, HEADROOM, 0), Some(mbuf))
            } else {
                self.counters.rx_missed += 1;
                mbuf.free();
                return None;
            };
            let whole = rest.is_none_or(|rest| {
                let whole = append(&mut frame, rest);
                rest.free();
                whole
            });
            self.judge(frame, whole)
        }
    }

    /// Keeps a frame that was put together, counted as a copy, or gives it up.
    fn judge(&mut self, frame: Frame, whole: bool) -> Option<Frame> {
        if whole {
            self.counters.copies += 1;
            return Some(frame);
        }
        self.counters.invalid += 1;
        let (chunk, _, _) = frame.into_raw();
        self.pool.give_chunk(chunk);
        None
    }

    /// Appends the frames of mbufs that were just received to a burst, and counts them. Says how many.
    ///
    /// # Safety
    /// As for [`plain`](Self::plain).
    #[inline(always)]
    pub(super) unsafe fn take(&mut self, filled: &[MaybeUninit<Mbuf>], burst: &mut Vec<Frame>) -> usize {
        burst.reserve(filled.len());
        let mut rest = filled;
        let (mut received, mut bytes) = (0, 0);
        loop {
            // SAFETY: the caller's promise.
            let (count, of) = unsafe { self.plain(rest, burst) };
            received += count;
            bytes += of;
            let Some(([odd], behind)) = rest.get(count..).and_then(<[_]>::split_first_chunk) else { break };
            // SAFETY: as above.
            if let Some(frame) = self.odd(unsafe { odd.assume_init() }) {
                bytes += frame.len() as u64;
                received += 1;
                burst.push(frame);
            }
            rest = behind;
        }
        self.counters.rx_bytes += bytes;
        self.counters.rx_frames += received as u64;
        received
    }

    /// Replaces a frame of another memory, of a length that may be sent, by a copy in this queue's. False if there is no free chunk.
    #[cold]
    fn copy_here(&mut self, frame: &mut Frame, cache: &mut FrameCache) -> bool {
        let Some(chunk) = self.pool.take_chunk() else { return false };
        // SAFETY: the index came from the pool, so no token of this chunk exists.
        let mut copy = unsafe { self.memory.frame(chunk, weir_dpdk::HEADROOM, 0) };
        if copy.set_len(frame.len()) {
            copy.bytes_mut().copy_from_slice(frame.bytes());
        }
        cache.free(std::mem::replace(frame, copy));
        self.counters.copies += 1;
        true
    }

    /// Whether a driver may be given a frame of this length.
    #[inline(always)]
    fn sendable(&self, frame: &Frame) -> bool {
        frame.len().wrapping_sub(SHORTEST) <= self.longest.wrapping_sub(SHORTEST)
    }

    /// Describes frames from the front to DPDK, at most a burst of them. Stops before one that cannot be sent as it is. Says how many,
    /// and their bytes.
    #[inline]
    fn describe(
        &mut self,
        frames: &mut [Frame],
        cache: &mut FrameCache,
        mbufs: &mut [MaybeUninit<Mbuf>; BURST],
    ) -> (usize, usize) {
        let (mempool, memory) = (self.mempool.places(), self.memory.layout());
        let span = self.longest.wrapping_sub(SHORTEST);
        let (mut described, mut bytes) = (0, 0);
        for (frame, place) in frames.iter_mut().zip(mbufs) {
            let len = frame.len();
            if len.wrapping_sub(SHORTEST) > span || (!memory.owns(frame) && !self.copy_here(frame, cache)) {
                break;
            }
            // SAFETY: the frame is of this memory, so there is such an mbuf, and it is ours with the frame; the packet lies in it.
            unsafe {
                let mbuf = mempool.mbuf(frame.index());
                mbuf.set(frame.headroom() as u16, len as u16);
                place.write(mbuf);
            }
            bytes += len;
            described += 1;
        }
        (described, bytes)
    }

    /// Gives drivers back what the worker has freed beyond what it keeps for itself. They take next what they were given last, which
    /// is still in the processor's caches; by way of the pool they would get what has lain there longest.
    #[inline]
    fn share(&mut self, cache: &mut FrameCache) {
        if cache.kept() < KEPT + SHARED || !std::ptr::eq(cache.pool().memory(), self.memory) {
            return;
        }
        self.share_out(cache);
    }

    #[inline(never)]
    fn share_out(&mut self, cache: &mut FrameCache) {
        let mut chunks = [0; SHARED];
        while cache.kept() >= KEPT + SHARED {
            let taken = cache.take_kept(&mut chunks);
            // SAFETY: the chunks were the cache's, of this memory, and are given up.
            unsafe { self.mempool.put(chunks.get(..taken).unwrap_or_default()) };
        }
    }

    fn shut(&mut self) {
        if let Some(shared) = self.shared.take() {
            shared.close_queue();
            // What the calling thread keeps, if it was the one that polled.
            weir_dpdk::flush();
        }
    }
}

/// Appends what the segments from `mbuf` on hold to a frame. False if it does not fit.
///
/// # Safety
/// The segments are the caller's.
unsafe fn append(frame: &mut Frame, mbuf: Mbuf) -> bool {
    let mut next = Some(mbuf);
    while let Some(segment) = next {
        // SAFETY: the caller's promise; the frame lies in another chunk.
        let bytes = unsafe { segment.bytes() };
        let len = frame.len();
        if !frame.set_len(len + bytes.len()) {
            return false;
        }
        match frame.bytes_mut().get_mut(len..) {
            Some(room) => room.copy_from_slice(bytes),
            None => return false,
        }
        // SAFETY: as above.
        next = unsafe { segment.next() };
    }
    true
}

impl PortQueue for DpdkQueue {
    fn receive(&mut self, burst: &mut Vec<Frame>, max: usize, _cache: &mut FrameCache) -> usize {
        if self.shared.is_none() {
            return 0;
        }
        if !weir_dpdk::inside() {
            weir_dpdk::enter();
        }
        let mut mbufs = [const { MaybeUninit::<Mbuf>::uninit() }; BURST];
        let Some(places) = mbufs.get_mut(..max.min(BURST)) else { return 0 };
        // SAFETY: the device is started, and has this queue, which only its one worker polls; the driver fills the first places.
        unsafe {
            let ready = Device::receive(self.port, self.queue, places);
            self.take(places.get(..ready).unwrap_or_default(), burst)
        }
    }

    fn relay(
        &mut self,
        other: &mut dyn PortQueue,
        longest: usize,
        burst: &mut Vec<Frame>,
        max: usize,
        cache: &mut FrameCache,
    ) -> usize {
        let other = other.as_relay().and_then(|other| other.downcast_mut::<Self>());
        match other.filter(|other| other.takes_from(self)) {
            Some(other) => self.pass_on(other, longest, burst, max),
            None => {
                self.receive(burst, max, cache);
                0
            }
        }
    }

    fn as_relay(&mut self) -> Option<&mut dyn Any> {
        Some(self)
    }

    fn transmit(&mut self, frames: &mut Vec<Frame>, cache: &mut FrameCache) -> usize {
        if self.shared.is_none() || frames.is_empty() {
            return 0;
        }
        if !weir_dpdk::inside() {
            weir_dpdk::enter();
        }
        self.quiet = 0;
        let mut mbufs = [const { MaybeUninit::<Mbuf>::uninit() }; BURST];
        let mut taken = 0;
        while let Some(first) = frames.first() {
            if !self.sendable(first) {
                self.counters.invalid += 1;
                cache.free(frames.remove(0));
                taken += 1;
                continue;
            }
            let (described, mut bytes) = self.describe(frames, cache, &mut mbufs);
            if described == 0 {
                break;
            }
            // SAFETY: the first `described` places were written; these mbufs are the frames', which are given up below where
            // the driver takes them. The device is as for `receive`.
            let sent = unsafe {
                let mbufs = std::slice::from_raw_parts_mut(mbufs.as_mut_ptr().cast::<Mbuf>(), described);
                Device::transmit(self.port, self.queue, mbufs)
            };
            bytes -= frames.iter().take(described).skip(sent).map(Frame::len).sum::<usize>();
            if sent == frames.len() {
                // SAFETY: fewer than there are. No token is dropped: each was given up with its mbuf.
                unsafe { frames.set_len(0) };
            } else {
                frames.drain(..sent).for_each(|frame| {
                    let _ = frame.into_raw();
                });
            }
            self.counters.tx_bytes += bytes as u64;
            self.counters.tx_frames += sent as u64;
            taken += sent;
            if sent < described {
                break;
            }
        }
        taken
    }

    fn service(&mut self, cache: &mut FrameCache) {
        self.share(cache);
        if self.quiet < CLEAN_AFTER {
            self.quiet += 1;
            if self.quiet == CLEAN_AFTER && self.cleans && self.shared.is_some() {
                // SAFETY: as for `receive`.
                self.cleans = unsafe { Device::clean(self.port, self.queue) };
            }
        }
    }

    fn descriptor(&self) -> Option<std::os::fd::RawFd> {
        None
    }

    fn counters(&self) -> QueueCounters {
        self.counters
    }

    fn alive(&self) -> bool {
        self.shared.is_some() && !Device::gone(self.port)
    }

    fn leave(&mut self) {
        weir_dpdk::flush();
    }

    fn close(&mut self, _cache: &mut FrameCache) {
        self.shut();
    }
}

impl Drop for DpdkQueue {
    fn drop(&mut self) {
        self.shut();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::FrameMemory;
    use crate::io::dpdk::{DpdkOpenOptions, DpdkPort};

    /// A packet as a driver hands it over whose buffers hold so many bytes of it each, filled with 1, 2, ….
    fn segments(queue: &DpdkQueue, lengths: &[u16]) -> Mbuf {
        let mbufs: Vec<Mbuf> = (1..)
            .zip(lengths)
            .map(|(n, &len)| {
                let chunk = queue.pool.take_chunk().unwrap();
                // SAFETY: the chunk came from the pool, and what is written lies in it.
                unsafe {
                    let mut frame = queue.memory.frame(chunk, 128, len);
                    frame.bytes_mut().fill(n);
                    let _ = frame.into_raw();
                    let mbuf = queue.mempool.mbuf(chunk);
                    mbuf.set(128, len);
                    mbuf
                }
            })
            .collect();
        for pair in mbufs[1..].windows(2) {
            // SAFETY: all of them are ours.
            unsafe { pair[0].chain(pair[1]) };
        }
        if let [first, second, ..] = mbufs[..] {
            // SAFETY: as above.
            unsafe { first.chain(second) };
        }
        mbufs[0]
    }

    #[test]
    fn what_comes_in_pieces_is_put_together_or_dropped_and_no_frame_is_lost() {
        let pool = FramePool::new(FrameMemory::map(1024, 2048, weir_config::HugePages::Never).unwrap());
        let options = DpdkOpenOptions::new("net_null90");
        let (_port, mut queues) = DpdkPort::open(&options, &pool).unwrap();
        let queue = &mut queues[0];
        weir_dpdk::enter();
        let whole = segments(queue, &[1024, 494]);
        // SAFETY: the packet was just made.
        let usual = unsafe { queue.plain(&[MaybeUninit::new(whole)], &mut Vec::with_capacity(1)) };
        assert_eq!(usual, (0, 0));
        let frame = queue.odd(whole).unwrap();
        assert_eq!((frame.len(), frame.headroom()), (1518, 128));
        assert!(frame.bytes()[..1024].iter().all(|byte| *byte == 1));
        assert!(frame.bytes()[1024..].iter().all(|byte| *byte == 2));
        // It can be sent, and received again as any other.
        let mut cache = FrameCache::new(Arc::clone(&pool));
        let mut frames = vec![frame];
        assert_eq!(queue.transmit(&mut frames, &mut cache), 1);
        let frame = {
            let third = segments(queue, &[1000, 500, 420]);
            queue.odd(third).unwrap()
        };
        assert_eq!((frame.len(), frame.bytes()[1499], frame.bytes()[1500]), (1920, 2, 3));
        cache.free(frame);
        assert_eq!((queue.counters.copies, queue.counters.invalid), (2, 0));
        let long = segments(queue, &[1024, 1024]);
        assert!(queue.odd(long).is_none());
        assert_eq!((queue.counters.copies, queue.counters.invalid), (2, 1));
        drop(cache);
        queues.clear();
        assert_eq!(pool.available(), 1024);
    }
}
