//! Pools of free frames: one shared pool for each memory, one private cache for each worker.

use std::sync::Arc;

use crossbeam_queue::ArrayQueue;

use super::{Frame, FrameMemory, HEADROOM};

/// The free chunks of one [`FrameMemory`], shared by all workers.
#[derive(Debug)]
pub struct FramePool {
    memory: &'static FrameMemory,
    free: ArrayQueue<u32>,
}

impl FramePool {
    /// A pool in which every chunk of `memory` is free. Call once for each memory.
    pub fn new(memory: &'static FrameMemory) -> Arc<Self> {
        let free = ArrayQueue::new(memory.frames().max(1) as usize);
        for index in 0..memory.frames() {
            let _ = free.push(index);
        }
        Arc::new(Self { memory, free })
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
    local: Vec<u32>,
}

impl FrameCache {
    /// Most chunks kept privately.
    const CAPACITY: usize = 512;
    /// Chunks moved at once between cache and pool.
    const BATCH: usize = 128;

    /// An empty cache over `pool`.
    pub fn new(pool: Arc<FramePool>) -> Self {
        Self { pool, local: Vec::with_capacity(Self::CAPACITY + 1) }
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
        Some(unsafe { self.pool.memory.frame(index, HEADROOM, 0) })
    }

    /// Gives a frame back.
    #[inline]
    pub fn free(&mut self, frame: Frame) {
        let (index, _, _) = frame.into_raw();
        self.free_chunk(index);
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
                    // The queue holds as many indexes as there are chunks, so it is never full.
                    Some(index) => drop(self.pool.free.push(index)),
                    None => break,
                }
            }
        }
    }

    /// Gives every private chunk back to the shared pool.
    pub fn flush(&mut self) {
        while let Some(index) = self.local.pop() {
            let _ = self.pool.free.push(index);
        }
    }
}

impl Drop for FrameCache {
    fn drop(&mut self) {
        self.flush();
    }
}
