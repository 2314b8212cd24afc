//! Pools of free frames: one shared pool for each memory, one private cache for each worker.

use std::sync::Arc;
use std::vec::Drain;

use crossbeam_queue::ArrayQueue;

use super::{Frame, FrameMemory, HEADROOM};

/// The free chunks of one [`FrameMemory`], shared by all workers.
pub struct FramePool {
    memory: &'static FrameMemory,
    free: ArrayQueue<u32>,
}

// By hand: memory and pool know each other.
impl std::fmt::Debug for FramePool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FramePool")
            .field("frames", &self.memory.frames())
            .field("available", &self.available())
            .finish()
    }
}

impl FramePool {
    /// The pool of `memory`, at first with every chunk free. A memory has one pool: asked again, it is the same.
    pub fn new(memory: &'static FrameMemory) -> Arc<Self> {
        memory.pool_or_init(|| {
            let free = ArrayQueue::new(memory.frames().max(1) as usize);
            for index in 0..memory.frames() {
                let _ = free.push(index);
            }
            Arc::new(Self { memory, free })
        })
    }

    /// Takes a chunk's index from the shared pool, around any cache.
    pub(crate) fn take_chunk(&self) -> Option<u32> {
        self.free.pop()
    }

    /// Takes as many chunks' indexes as there are places, or as there are; returns how many.
    #[cfg(feature = "dpdk")]
    pub(crate) fn take_chunks(&self, into: &mut [u32]) -> usize {
        let mut taken = 0;
        for place in into {
            let Some(index) = self.free.pop() else { break };
            *place = index;
            taken += 1;
        }
        taken
    }

    /// Gives a chunk's index back to the shared pool, around any cache.
    pub(crate) fn give_chunk(&self, index: u32) {
        // The queue holds as many indexes as there are chunks, so it is never full.
        let _ = self.free.push(index);
    }

    /// The memory behind the pool.
    pub fn memory(&self) -> &'static FrameMemory {
        self.memory
    }

    /// Free chunks in the shared pool, not counting private caches.
    pub fn available(&self) -> usize {
        self.free.len()
    }
}

/// A worker's private cache of free chunks. It allocates nothing after it was made and takes no lock; it exchanges
/// chunks with the shared pool in batches.
#[derive(Debug)]
pub struct FrameCache {
    pool: Arc<FramePool>,
    /// The pool's memory, one step nearer.
    memory: &'static FrameMemory,
    local: Vec<u32>,
}

impl FrameCache {
    /// Most chunks kept privately.
    const CAPACITY: usize = 512;
    /// Chunks moved at once between cache and pool.
    const BATCH: usize = 128;

    /// An empty cache over `pool`.
    pub fn new(pool: Arc<FramePool>) -> Self {
        Self { memory: pool.memory, pool, local: Vec::with_capacity(Self::CAPACITY + 1) }
    }

    /// The pool that this cache exchanges chunks with.
    pub fn pool(&self) -> &Arc<FramePool> {
        &self.pool
    }

    /// Takes a free frame: empty, with the standard headroom. `None` when the memory is used up.
    #[inline]
    pub fn alloc(&mut self) -> Option<Frame> {
        let index = self.alloc_chunk()?;
        // SAFETY: the index came from the pool, so no token of this chunk exists.
        Some(unsafe { self.memory.frame(index, HEADROOM, 0) })
    }

    /// Gives a frame back. One of another memory goes home to its own pool, slowly.
    #[inline]
    pub fn free(&mut self, frame: Frame) {
        if self.memory.owns(&frame) {
            let (index, _, _) = frame.into_raw();
            self.free_chunk(index);
        } else {
            send_home(frame);
        }
    }

    /// Gives the frames of a burst back.
    #[inline]
    pub fn free_all(&mut self, frames: Drain<'_, Frame>) {
        let burst = frames.as_slice();
        let fit = self.local.len() + burst.len() <= Self::CAPACITY;
        if !fit || !burst.iter().all(|frame| self.memory.owns(frame)) {
            return frames.for_each(|frame| self.free(frame));
        }
        // The rule: all in one go.
        self.local.extend(burst.iter().map(Frame::index));
        frames.for_each(|frame| {
            let _ = frame.into_raw();
        });
    }

    /// Takes a free chunk's index, as fill rings want it.
    #[inline]
    pub(crate) fn alloc_chunk(&mut self) -> Option<u32> {
        if let Some(index) = self.local.pop() {
            return Some(index);
        }
        for _ in 0..Self::BATCH {
            match self.pool.free.pop() {
                Some(index) => self.local.push(index),
                None => break,
            }
        }
        self.local.pop()
    }

    /// Gives a chunk's index back, as completion rings return it.
    #[inline]
    pub(crate) fn free_chunk(&mut self, index: u32) {
        self.local.push(index);
        if self.local.len() > Self::CAPACITY {
            for _ in 0..Self::BATCH {
                match self.local.pop() {
                    Some(index) => self.pool.give_chunk(index),
                    None => break,
                }
            }
        }
    }

    /// Chunks that are kept privately now.
    #[cfg(feature = "dpdk")]
    #[inline]
    pub(crate) fn kept(&self) -> usize {
        self.local.len()
    }

    /// Takes chunks that are kept privately, those freed last first; returns how many.
    #[cfg(feature = "dpdk")]
    pub(crate) fn take_kept(&mut self, into: &mut [u32]) -> usize {
        let mut taken = 0;
        for place in into {
            let Some(index) = self.local.pop() else { break };
            *place = index;
            taken += 1;
        }
        taken
    }

    /// Gives every private chunk back to the shared pool.
    pub fn flush(&mut self) {
        while let Some(index) = self.local.pop() {
            self.pool.give_chunk(index);
        }
    }
}

/// Gives a frame back to the pool of its own memory.
#[cold]
fn send_home(frame: Frame) {
    if let Some(pool) = FrameMemory::home_of(frame.chunk()) {
        let (index, _, _) = frame.into_raw();
        pool.give_chunk(index);
    }
}

impl Drop for FrameCache {
    fn drop(&mut self) {
        self.flush();
    }
}

#[cfg(test)]
mod tests {
    use weir_config::HugePages;

    use super::*;

    fn pool(frames: u32) -> Arc<FramePool> {
        FramePool::new(FrameMemory::map(frames, 2048, HugePages::Never).unwrap())
    }

    #[test]
    fn pool_and_memory_can_be_printed() {
        let memory = FrameMemory::map(64, 2048, HugePages::Never).unwrap();
        let pool = FramePool::new(memory);
        assert_eq!(format!("{pool:?}"), "FramePool { frames: 64, available: 64 }");
        assert!(format!("{memory:?}").contains("available: 64"));
    }

    #[test]
    fn a_memory_has_one_pool() {
        let first = pool(8);
        let second = FramePool::new(first.memory());
        assert!(Arc::ptr_eq(&first, &second));
        assert_eq!(second.available(), 8);
    }

    #[test]
    fn every_chunk_is_handed_out_once_and_comes_back() {
        let pool = pool(300);
        let mut cache = FrameCache::new(pool.clone());
        let mut frames = Vec::new();
        while let Some(mut frame) = cache.alloc() {
            assert!(frame.write(&(frames.len() as u32).to_be_bytes()));
            frames.push(frame);
        }
        assert_eq!(frames.len(), 300);
        for (n, frame) in frames.iter().enumerate() {
            assert_eq!(frame.bytes(), (n as u32).to_be_bytes());
        }
        frames.drain(..).for_each(|frame| cache.free(frame));
        drop(cache);
        assert_eq!(pool.available(), 300);
    }

    #[test]
    fn a_frame_of_another_memory_goes_home() {
        let (a, b) = (pool(4), pool(4));
        let (mut cache_a, mut cache_b) = (FrameCache::new(a.clone()), FrameCache::new(b.clone()));
        let frame = cache_a.alloc().unwrap();
        cache_b.free(frame);
        drop((cache_a, cache_b));
        assert_eq!((a.available(), b.available()), (4, 4));
    }

    #[test]
    fn a_burst_is_given_back_as_its_frames_one_by_one() {
        let (a, b) = (pool(1500), pool(4));
        let (mut cache_a, mut cache_b) = (FrameCache::new(a.clone()), FrameCache::new(b.clone()));
        let mut burst: Vec<_> = std::iter::from_fn(|| cache_a.alloc()).collect();
        let strange = cache_b.alloc().unwrap();
        for len in [64, 0, 511, 1, 600] {
            cache_a.free_all(burst.drain(..len));
            assert!(cache_a.local.len() <= FrameCache::CAPACITY);
            assert_eq!(cache_a.local.len() + a.available() + burst.len(), 1500);
        }
        burst.push(strange);
        cache_a.free_all(burst.drain(..));
        drop((cache_a, cache_b));
        assert_eq!((a.available(), b.available()), (1500, 4));
    }

    #[test]
    fn a_frame_refuses_what_does_not_fit_its_chunk() {
        let pool = pool(1);
        let mut cache = FrameCache::new(pool);
        let mut frame = cache.alloc().unwrap();
        assert!(!frame.write(&[0; 1793]));
        assert!(frame.write(&[7; 1792]));
        assert_eq!((frame.headroom(), frame.tailroom()), (256, 0));
        assert!(!frame.grow_front(257) && frame.grow_front(256));
        assert_eq!(frame.len(), 2048);
        assert!(!frame.strip(2049) && frame.strip(2048));
        assert!(!frame.set_len(1) && frame.set_len(0));
        cache.free(frame);
    }

    #[test]
    fn a_token_has_sixteen_bytes_and_knows_the_size_of_its_chunk() {
        assert_eq!(size_of::<Frame>(), 16);
        assert_eq!(size_of::<Option<Frame>>(), 16);
        for size in [2048, 4096, 8192, 16384] {
            let room = usize::from(size - HEADROOM);
            let pool = FramePool::new(FrameMemory::map(3, size, HugePages::Never).unwrap());
            let mut cache = FrameCache::new(pool.clone());
            let frames: Vec<_> = std::iter::from_fn(|| cache.alloc()).collect();
            let mut indexes: Vec<u32> = frames.iter().map(Frame::index).collect();
            indexes.sort_unstable();
            assert_eq!(indexes, [0, 1, 2]);
            for mut frame in frames {
                assert_eq!(frame.tailroom(), room);
                assert!(frame.write(&vec![1; room]) && !frame.write(&vec![1; room + 1]));
                cache.free(frame);
            }
            drop(cache);
            assert_eq!(pool.available(), 3);
        }
    }

    #[test]
    fn a_chunk_size_that_is_none_is_refused() {
        for size in [0, 1500, 1024, 32768] {
            let refused = FrameMemory::map(1, size, HugePages::Never);
            assert!(matches!(refused, Err(super::super::MemoryError::FrameSize(n)) if n == size));
        }
    }
}
