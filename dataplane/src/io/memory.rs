//! Memory ports: frames put in and taken out by a test, a replay or a benchmark. No device and no privilege.
//!
//! [`memory_queue`] makes a queue and the [`MemoryHandle`] of its other end, which any thread may hold.
//! [`TemplateQueue`] is the benchmarks' source and sink: no lock, no copy of payloads.

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{PortQueue, QueueCounters};
use crate::frame::{Frame, FrameCache, HEADROOM};

/// Frames that each direction holds unless told otherwise.
const DEFAULT_RING: usize = 65_536;

/// Why a frame could not be put in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InjectError {
    /// It does not fit a chunk behind the headroom.
    #[error("a frame of {len} bytes does not fit a chunk: at most {limit} bytes")]
    TooLong {
        /// Its length.
        len: usize,
        /// The longest that fits.
        limit: usize,
    },
    /// The receive ring is full: frame dropped and counted in `rx_missed`.
    #[error("the receive ring is full")]
    Full,
    /// The port was unplugged or closed.
    #[error("the port is gone")]
    Gone,
}

#[derive(Debug)]
struct State {
    received: VecDeque<Vec<u8>>,
    transmitted: VecDeque<Vec<u8>>,
    receive_limit: usize,
    transmit_limit: usize,
    missed: u64,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    alive: AtomicBool,
    /// Longest frame that fits a chunk, in bytes.
    longest: usize,
    /// Written to when the receive ring stops being empty; the queue's descriptor is the other end.
    bell: UnixStream,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The far end of a memory port's queue: the wire, so to speak. Clones are the same wire.
#[derive(Clone, Debug)]
pub struct MemoryHandle {
    shared: Arc<Shared>,
}

/// A memory port's queue.
#[derive(Debug)]
pub struct MemoryQueue {
    shared: Arc<Shared>,
    bell: UnixStream,
    counters: QueueCounters,
    closed: bool,
}

/// Makes a memory port's queue for chunks of `frame_size` bytes and the handle of its far end.
///
/// # Errors
/// What the kernel says when no descriptor can be had.
pub fn memory_queue(frame_size: u16) -> std::io::Result<(MemoryHandle, MemoryQueue)> {
    let (ours, theirs) = UnixStream::pair()?;
    ours.set_nonblocking(true)?;
    theirs.set_nonblocking(true)?;
    let shared = Arc::new(Shared {
        state: Mutex::new(State {
            received: VecDeque::new(),
            transmitted: VecDeque::new(),
            receive_limit: DEFAULT_RING,
            transmit_limit: DEFAULT_RING,
            missed: 0,
        }),
        alive: AtomicBool::new(true),
        longest: usize::from(frame_size.saturating_sub(HEADROOM)),
        bell: theirs,
    });
    let queue =
        MemoryQueue { shared: shared.clone(), bell: ours, counters: QueueCounters::default(), closed: false };
    Ok((MemoryHandle { shared }, queue))
}

impl MemoryHandle {
    /// Puts a frame on the wire towards the queue.
    ///
    /// # Errors
    /// [`InjectError`] when it does not fit, when the receive ring is full, or when the port is gone.
    pub fn inject(&self, bytes: &[u8]) -> Result<(), InjectError> {
        if !self.shared.alive.load(Ordering::Acquire) {
            return Err(InjectError::Gone);
        }
        if bytes.len() > self.shared.longest {
            return Err(InjectError::TooLong { len: bytes.len(), limit: self.shared.longest });
        }
        let mut state = self.shared.state();
        if state.received.len() >= state.receive_limit {
            state.missed += 1;
            return Err(InjectError::Full);
        }
        state.received.push_back(bytes.to_vec());
        if state.received.len() == 1 {
            // A full pipe has rung already.
            let _ = (&self.shared.bell).write(&[1]);
        }
        Ok(())
    }

    /// Takes every frame that the queue transmitted, oldest first.
    pub fn take_transmitted(&self) -> Vec<Vec<u8>> {
        self.shared.state().transmitted.drain(..).collect()
    }

    /// Frames transmitted and not taken yet.
    pub fn transmitted(&self) -> usize {
        self.shared.state().transmitted.len()
    }

    /// Frames injected that the queue has not received yet.
    pub fn pending(&self) -> usize {
        self.shared.state().received.len()
    }

    /// Bounds the transmit ring: with `limit` frames in it that nobody took, the queue takes no more.
    pub fn set_transmit_limit(&self, limit: usize) {
        self.shared.state().transmit_limit = limit;
    }

    /// Bounds the receive ring: a frame injected beyond `limit` is dropped and counted in `rx_missed`.
    pub fn set_receive_limit(&self, limit: usize) {
        self.shared.state().receive_limit = limit;
    }

    /// Takes the device away: the queue's `alive()` turns false.
    pub fn unplug(&self) {
        self.shared.alive.store(false, Ordering::Release);
        let _ = (&self.shared.bell).write(&[1]);
    }
}

impl PortQueue for MemoryQueue {
    fn receive(&mut self, burst: &mut Vec<Frame>, max: usize, cache: &mut FrameCache) -> usize {
        let mut state = self.shared.state();
        self.counters.rx_missed = state.missed;
        let mut n = 0;
        while n < max {
            if state.received.is_empty() {
                break;
            }
            let Some(mut frame) = cache.alloc() else { break };
            let Some(bytes) = state.received.pop_front() else {
                cache.free(frame);
                break;
            };
            if !frame.write(&bytes) {
                self.counters.invalid += 1;
                cache.free(frame);
                continue;
            }
            self.counters.rx_bytes += bytes.len() as u64;
            burst.push(frame);
            n += 1;
        }
        if state.received.is_empty() {
            // Silences the bell while the ring is locked, so that no ring is lost.
            let mut sink = [0; 16];
            while matches!((&self.bell).read(&mut sink), Ok(n) if n == sink.len()) {}
        }
        self.counters.rx_frames += n as u64;
        n
    }

    fn transmit(&mut self, frames: &mut Vec<Frame>, cache: &mut FrameCache) -> usize {
        if self.closed {
            return 0;
        }
        let mut state = self.shared.state();
        let room = state.transmit_limit.saturating_sub(state.transmitted.len());
        let n = room.min(frames.len());
        for frame in frames.drain(..n) {
            self.counters.tx_bytes += frame.len() as u64;
            state.transmitted.push_back(frame.bytes().to_vec());
            cache.free(frame);
        }
        self.counters.tx_frames += n as u64;
        n
    }

    fn service(&mut self, _cache: &mut FrameCache) {}

    fn descriptor(&self) -> Option<RawFd> {
        Some(self.bell.as_raw_fd())
    }

    fn counters(&self) -> QueueCounters {
        self.counters
    }

    fn alive(&self) -> bool {
        self.shared.alive.load(Ordering::Acquire)
    }

    fn close(&mut self, _cache: &mut FrameCache) {
        self.closed = true;
        self.shared.alive.store(false, Ordering::Release);
        self.shared.state().received.clear();
    }
}

/// Bytes that a [`TemplateQueue`] restores at once.
const BLOCK: usize = 64;

/// A benchmark's source and sink. Every receive hands out `max` frames in turn from a list of templates: only the header's
/// bytes are written, the rest of a frame is what stood in the chunk. Transmit frees. No lock, no system call.
#[derive(Debug)]
pub struct TemplateQueue {
    templates: Vec<Template>,
    next: usize,
    /// Frames still to be handed out; `u64::MAX` is without end.
    left: u64,
    counters: QueueCounters,
}

#[derive(Debug)]
struct Template {
    /// The header in whole blocks; copying an array of known size costs a few moves, not a call.
    blocks: Box<[[u8; BLOCK]]>,
    rest: Box<[u8]>,
    len: usize,
}

impl Template {
    fn new(bytes: &[u8], header: usize) -> Self {
        let header = header.next_multiple_of(BLOCK).min(bytes.len());
        let mut blocks = Vec::new();
        let mut rest = bytes.get(..header).unwrap_or(bytes);
        while let Some((block, behind)) = rest.split_first_chunk() {
            blocks.push(*block);
            rest = behind;
        }
        Self { blocks: blocks.into(), rest: rest.into(), len: bytes.len() }
    }

    /// Makes `frame` the template's frame. False if it does not fit.
    #[inline]
    fn restore(&self, frame: &mut Frame) -> bool {
        // A free frame is empty and has the standard headroom.
        if !frame.set_len(self.len) {
            return false;
        }
        let mut bytes = frame.bytes_mut();
        for block in &self.blocks {
            let Some((to, behind)) = bytes.split_first_chunk_mut() else { return false };
            *to = *block;
            bytes = behind;
        }
        match bytes.get_mut(..self.rest.len()) {
            // Copying nothing would still be a call.
            Some(to) if !to.is_empty() => to.copy_from_slice(&self.rest),
            _ => {}
        }
        true
    }
}

impl TemplateQueue {
    /// A source that repeats `templates` (whole frames), restoring at least the first `header` bytes of each.
    pub fn new(templates: &[Vec<u8>], header: usize) -> Self {
        let templates = templates.iter().map(|bytes| Template::new(bytes, header)).collect();
        Self { templates, next: 0, left: u64::MAX, counters: QueueCounters::default() }
    }

    /// Stops the source after `frames` more frames.
    pub fn limit(&mut self, frames: u64) {
        self.left = frames;
    }
}

impl PortQueue for TemplateQueue {
    fn receive(&mut self, burst: &mut Vec<Frame>, max: usize, cache: &mut FrameCache) -> usize {
        let max = max.min(usize::try_from(self.left).unwrap_or(usize::MAX));
        // Locals: a benchmark should measure the engine, not stores to the queue's own fields.
        let (mut n, mut bytes, mut next) = (0, 0, self.next);
        while n < max {
            let Some(template) = self.templates.get(next) else { break };
            let Some(mut frame) = cache.alloc() else { break };
            next += 1;
            if next == self.templates.len() {
                next = 0;
            }
            if !template.restore(&mut frame) {
                self.counters.invalid += 1;
                cache.free(frame);
                break;
            }
            bytes += template.len as u64;
            burst.push(frame);
            n += 1;
        }
        self.next = next;
        if self.left != u64::MAX {
            self.left -= n as u64;
        }
        self.counters.rx_frames += n as u64;
        self.counters.rx_bytes += bytes;
        n
    }

    fn transmit(&mut self, frames: &mut Vec<Frame>, cache: &mut FrameCache) -> usize {
        let (n, mut bytes) = (frames.len(), 0);
        for frame in frames.drain(..) {
            bytes += frame.len() as u64;
            cache.free(frame);
        }
        self.counters.tx_frames += n as u64;
        self.counters.tx_bytes += bytes;
        n
    }

    fn service(&mut self, _cache: &mut FrameCache) {}

    fn descriptor(&self) -> Option<RawFd> {
        None
    }

    fn counters(&self) -> QueueCounters {
        self.counters
    }

    fn alive(&self) -> bool {
        true
    }

    fn close(&mut self, _cache: &mut FrameCache) {
        self.left = 0;
    }
}

#[cfg(test)]
mod tests {
    use weir_config::HugePages;

    use super::*;
    use crate::frame::{BURST, FrameMemory, FramePool};

    fn cache(frames: u32) -> FrameCache {
        FrameCache::new(FramePool::new(FrameMemory::map(frames, 2048, HugePages::Never).unwrap()))
    }

    #[test]
    fn frames_come_out_as_they_went_in_and_in_order() {
        let mut cache = cache(8);
        let (wire, mut queue) = memory_queue(2048).unwrap();
        for n in 0..5u8 {
            wire.inject(&[n; 60]).unwrap();
        }
        let mut burst = Vec::new();
        assert_eq!(queue.receive(&mut burst, 3, &mut cache), 3);
        assert_eq!(queue.receive(&mut burst, BURST, &mut cache), 2);
        assert_eq!(queue.transmit(&mut burst, &mut cache), 5);
        assert!(burst.is_empty());
        let expected: Vec<Vec<u8>> = (0..5u8).map(|n| vec![n; 60]).collect();
        assert_eq!(wire.take_transmitted(), expected);
        let pool = cache.pool().clone();
        drop(cache);
        assert_eq!(pool.available(), 8);
        let counters = queue.counters();
        assert_eq!((counters.rx_frames, counters.rx_bytes), (5, 300));
        assert_eq!((counters.tx_frames, counters.tx_bytes), (5, 300));
    }

    #[test]
    fn a_full_transmit_ring_leaves_frames_with_the_caller_in_order() {
        let mut cache = cache(8);
        let (wire, mut queue) = memory_queue(2048).unwrap();
        wire.set_transmit_limit(2);
        for n in 0..4u8 {
            wire.inject(&[n]).unwrap();
        }
        let mut burst = Vec::new();
        queue.receive(&mut burst, BURST, &mut cache);
        assert_eq!(queue.transmit(&mut burst, &mut cache), 2);
        assert_eq!(burst.iter().map(|frame| frame.bytes()[0]).collect::<Vec<_>>(), [2, 3]);
        assert_eq!(wire.take_transmitted().len(), 2);
        assert_eq!(queue.transmit(&mut burst, &mut cache), 2);
        assert_eq!(wire.take_transmitted(), [vec![2], vec![3]]);
    }

    #[test]
    fn a_frame_longer_than_a_chunk_is_reported() {
        let (wire, _queue) = memory_queue(2048).unwrap();
        assert_eq!(wire.inject(&[0; 1793]), Err(InjectError::TooLong { len: 1793, limit: 1792 }));
        assert_eq!(wire.inject(&[0; 1792]), Ok(()));
    }

    #[test]
    fn a_full_receive_ring_counts_what_it_misses() {
        let mut cache = cache(4);
        let (wire, mut queue) = memory_queue(2048).unwrap();
        wire.set_receive_limit(1);
        wire.inject(&[1]).unwrap();
        assert_eq!(wire.inject(&[2]), Err(InjectError::Full));
        let mut burst = Vec::new();
        assert_eq!(queue.receive(&mut burst, BURST, &mut cache), 1);
        assert_eq!(queue.counters().rx_missed, 1);
        burst.drain(..).for_each(|frame| cache.free(frame));
    }

    #[test]
    fn frames_wait_on_the_wire_while_the_memory_is_used_up() {
        let mut cache = cache(1);
        let (wire, mut queue) = memory_queue(2048).unwrap();
        wire.inject(&[1]).unwrap();
        wire.inject(&[2]).unwrap();
        let mut burst = Vec::new();
        assert_eq!(queue.receive(&mut burst, BURST, &mut cache), 1);
        assert_eq!(wire.pending(), 1);
        queue.transmit(&mut burst, &mut cache);
        assert_eq!(queue.receive(&mut burst, BURST, &mut cache), 1);
        burst.drain(..).for_each(|frame| cache.free(frame));
    }

    #[test]
    fn the_descriptor_is_readable_exactly_while_frames_wait() {
        let readable = |queue: &MemoryQueue| {
            queue.bell.set_nonblocking(true).unwrap();
            let mut fd = libc::pollfd { fd: queue.descriptor().unwrap(), events: libc::POLLIN, revents: 0 };
            #[allow(unsafe_code)]
            // SAFETY: one valid pollfd.
            let n = unsafe { libc::poll(&mut fd, 1, 0) };
            n == 1
        };
        let mut cache = cache(4);
        let (wire, mut queue) = memory_queue(2048).unwrap();
        assert!(!readable(&queue));
        wire.inject(&[1]).unwrap();
        wire.inject(&[2]).unwrap();
        assert!(readable(&queue));
        let mut burst = Vec::new();
        queue.receive(&mut burst, 1, &mut cache);
        assert!(readable(&queue));
        queue.receive(&mut burst, 1, &mut cache);
        assert!(!readable(&queue));
        burst.drain(..).for_each(|frame| cache.free(frame));
    }

    #[test]
    fn unplugging_ends_the_queue() {
        let (wire, queue) = memory_queue(2048).unwrap();
        assert!(queue.alive());
        wire.unplug();
        assert!(!queue.alive());
        assert_eq!(wire.inject(&[1]), Err(InjectError::Gone));
    }

    #[test]
    fn a_template_source_restores_headers_and_stops_at_its_limit() {
        let mut cache = cache(8);
        let mut queue = TemplateQueue::new(&[vec![1; 64], vec![2; 1500]], 64);
        queue.limit(5);
        let mut burst = Vec::new();
        assert_eq!(queue.receive(&mut burst, 4, &mut cache), 4);
        assert_eq!(burst.iter().map(Frame::len).collect::<Vec<_>>(), [64, 1500, 64, 1500]);
        assert_eq!(burst[3].bytes()[..64], [2; 64]);
        burst.iter_mut().for_each(|frame| frame.bytes_mut()[..14].fill(9));
        assert_eq!(queue.transmit(&mut burst, &mut cache), 4);
        assert_eq!(queue.receive(&mut burst, 4, &mut cache), 1);
        assert_eq!(burst[0].bytes(), [1; 64]);
        queue.transmit(&mut burst, &mut cache);
        assert_eq!(queue.receive(&mut burst, 4, &mut cache), 0);
        let pool = cache.pool().clone();
        drop(cache);
        assert_eq!(pool.available(), 8);
    }
}
