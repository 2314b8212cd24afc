//! weir's pool of frames as DPDK's drivers see it.

use std::sync::{Arc, Mutex, PoisonError};

use weir_dpdk::{Chunks, Eal, Mempool};

use crate::frame::{FrameMemory, FramePool, PageKind};

/// The mempool of each memory, by its first byte. Both live as long as the process.
static POOLS: Mutex<Vec<(usize, &'static Mempool)>> = Mutex::new(Vec::new());

/// The pool keeps account of every chunk, whoever holds it.
struct Account(Arc<FramePool>);

impl Chunks for Account {
    fn take(&self, into: &mut [u32]) -> usize {
        self.0.take_chunks(into)
    }

    fn give(&self, chunks: &[u32]) {
        chunks.iter().for_each(|chunk| self.0.give_chunk(*chunk));
    }

    fn available(&self) -> usize {
        self.0.available()
    }
}

/// The mempool over the memory of `pool`, made when first asked for.
pub(super) fn mempool(eal: &Eal, pool: &Arc<FramePool>) -> Result<&'static Mempool, weir_dpdk::Error> {
    let memory: &'static FrameMemory = pool.memory();
    let key = memory.base().as_ptr() as usize;
    let mut pools = POOLS.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((_, mempool)) = pools.iter().find(|(base, _)| *base == key) {
        return Ok(mempool);
    }
    let page = match memory.pages() {
        PageKind::Huge => 2 << 20,
        PageKind::Normal => 4096,
    };
    let account = Box::new(Account(Arc::clone(pool)));
    // SAFETY: frame memory is never unmapped, starts on a page, and is mapped in whole huge pages; the pool gives out no chunk twice.
    let mempool =
        unsafe { Mempool::new(eal, memory.base(), memory.frames(), memory.frame_size(), page, account)? };
    pools.push((key, mempool));
    Ok(mempool)
}
