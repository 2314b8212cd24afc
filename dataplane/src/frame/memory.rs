//! The memory that frames live in: one mapping, cut into chunks of equal size, never unmapped.

use std::io;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

use super::token::SizeTag;
use super::{Frame, FramePool};

/// Every memory of the process, so that a frame that ends up with another memory's pool finds its way home.
static MEMORIES: Mutex<Vec<&'static FrameMemory>> = Mutex::new(Vec::new());

/// Which pages the memory got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PageKind {
    /// 2 MB huge pages.
    Huge,
    /// Ordinary pages.
    Normal,
}

/// Why frame memory could not be had.
#[derive(Debug, thiserror::Error)]
pub enum MemoryError {
    /// Huge pages were required and there are too few.
    #[error(
        "{needed} huge pages of 2 MB are required and could not be had ({source}); reserve them with `sysctl vm.nr_hugepages={needed}` or set memory.huge-pages = \"auto\""
    )]
    NoHugePages {
        /// How many pages the memory needs.
        needed: usize,
        /// What the kernel said.
        source: io::Error,
    },
    /// A chunk size that is not one.
    #[error("memory.frame-size is {0}; it must be 2048, 4096, 8192 or 16384")]
    FrameSize(u16),
    /// The mapping failed.
    #[error("cannot map {bytes} bytes for frames: {source}; lower memory.frames")]
    Map {
        /// Size of the mapping.
        bytes: usize,
        /// What the kernel said.
        source: io::Error,
    },
}

/// One mapping of frame memory. It lives as long as the process, which is what lets a [`Frame`] be a small token.
#[derive(Debug)]
pub struct FrameMemory {
    base: NonNull<u8>,
    frames: u32,
    frame_size: u16,
    size: SizeTag,
    /// log2 of the chunk size.
    shift: u32,
    /// Bytes of all chunks.
    bytes: usize,
    pages: PageKind,
    /// The one pool that hands out the chunks.
    pool: OnceLock<Arc<FramePool>>,
}

// SAFETY: the mapping is only reached through frames, each the only owner of its chunk.
unsafe impl Send for FrameMemory {}
// SAFETY: as above; after construction only `pool` is written, once and synchronised.
unsafe impl Sync for FrameMemory {}

impl FrameMemory {
    /// Maps `frames` chunks of `frame_size` bytes (2048, 4096, 8192 or 16384).
    ///
    /// # Errors
    /// [`MemoryError`] when the kernel refuses, or when huge pages are required and cannot be touched.
    pub fn map(
        frames: u32,
        frame_size: u16,
        huge: weir_config::HugePages,
    ) -> Result<&'static Self, MemoryError> {
        use weir_config::HugePages;
        let size = SizeTag::of(frame_size).ok_or(MemoryError::FrameSize(frame_size))?;
        // The two highest bits of a frame's index say how large its chunk is.
        let frames = frames.min((1 << 30) - 1);
        let bytes = (frames as usize * usize::from(frame_size)).next_multiple_of(2 << 20);
        let (base, pages) = match huge {
            HugePages::Never => (map(bytes, false), PageKind::Normal),
            HugePages::Auto => match map(bytes, true) {
                Ok(base) => (Ok(base), PageKind::Huge),
                Err(_) => (map(bytes, false), PageKind::Normal),
            },
            HugePages::Require => {
                let base = map(bytes, true)
                    .map_err(|source| MemoryError::NoHugePages { needed: bytes >> 21, source })?;
                (Ok(base), PageKind::Huge)
            }
        };
        let base = base.map_err(|source| MemoryError::Map { bytes, source })?;
        let memory: &'static Self = Box::leak(Box::new(Self {
            base,
            frames,
            frame_size,
            size,
            shift: frame_size.trailing_zeros(),
            bytes: frames as usize * usize::from(frame_size),
            pages,
            pool: OnceLock::new(),
        }));
        MEMORIES.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push(memory);
        Ok(memory)
    }

    /// The one pool over this memory, made by `make` when first asked for.
    pub(super) fn pool_or_init(&self, make: impl FnOnce() -> Arc<FramePool>) -> Arc<FramePool> {
        Arc::clone(self.pool.get_or_init(make))
    }

    /// The pool that the chunk at `address` belongs to. Slow: for frames that crossed from one memory to another.
    #[cold]
    pub(super) fn home_of(address: NonNull<u8>) -> Option<Arc<FramePool>> {
        let memories = MEMORIES.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let memory = memories.iter().find(|memory| memory.contains(address))?;
        memory.pool.get().map(Arc::clone)
    }

    /// Whether the chunk of `frame` is one of this memory's.
    #[inline]
    pub fn owns(&self, frame: &Frame) -> bool {
        self.contains(frame.chunk())
    }

    #[inline]
    fn contains(&self, address: NonNull<u8>) -> bool {
        (address.as_ptr() as usize).wrapping_sub(self.base.as_ptr() as usize) < self.bytes()
    }

    /// First byte of the mapping.
    pub fn base(&self) -> NonNull<u8> {
        self.base
    }

    /// Bytes of all chunks.
    #[inline]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Number of chunks.
    pub fn frames(&self) -> u32 {
        self.frames
    }

    /// Bytes of a chunk.
    pub fn frame_size(&self) -> u16 {
        self.frame_size
    }

    /// Which pages it got.
    pub fn pages(&self) -> PageKind {
        self.pages
    }

    /// The token of chunk `index`.
    ///
    /// # Safety
    /// `index < frames`, no other token of the chunk exists, the kernel does not own it, `start + len <= frame_size`.
    #[inline]
    pub(crate) unsafe fn frame(&self, index: u32, start: u16, len: u16) -> Frame {
        debug_assert!(index < self.frames);
        // SAFETY: the caller's promise.
        unsafe { self.layout().frame(index, start, len) }
    }

    /// Where the chunks are.
    #[inline]
    pub(crate) fn layout(&self) -> Layout {
        Layout { base: self.base, bytes: self.bytes, shift: self.shift, size: self.size }
    }
}

/// Where the chunks of a memory are: a copy, to be kept in registers through a loop.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Layout {
    base: NonNull<u8>,
    bytes: usize,
    shift: u32,
    size: SizeTag,
}

impl Layout {
    /// Whether the chunk of `frame` is one of this memory's.
    #[cfg(feature = "dpdk")]
    #[inline(always)]
    pub(crate) fn owns(&self, frame: &Frame) -> bool {
        (frame.chunk().as_ptr() as usize).wrapping_sub(self.base.as_ptr() as usize) < self.bytes
    }

    /// The token of chunk `index`.
    ///
    /// # Safety
    /// As for [`FrameMemory::frame`].
    #[inline(always)]
    pub(crate) unsafe fn frame(&self, index: u32, start: u16, len: u16) -> Frame {
        debug_assert!((index as usize) << self.shift < self.bytes);
        // SAFETY: the offset is inside the mapping; the rest is the caller's promise.
        unsafe {
            let chunk = self.base.add((index as usize) << self.shift);
            Frame::from_raw(chunk, index, start, len, self.size)
        }
    }
}

/// Where frame memory is asked to lie, one behind the other: within the 39 bits of address that small IOMMUs translate, since devices use
/// the addresses of the process. DPDK's own memory lies below.
static NEXT: AtomicUsize = AtomicUsize::new(0x40_0000_0000);

/// Maps `bytes` of private memory. Huge pages are probed by populating them: a reservation that cannot be kept shows
/// here, not as a bus error later.
fn map(bytes: usize, huge: bool) -> io::Result<NonNull<u8>> {
    let mut flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    if huge {
        flags |= libc::MAP_HUGETLB | libc::MAP_HUGE_2MB;
    }
    // A wish: where something lies already, the kernel takes another place.
    let wish = std::ptr::without_provenance_mut(NEXT.fetch_add(bytes + (2 << 20), Ordering::Relaxed));
    // SAFETY: a fresh anonymous mapping, which takes the place of no other.
    let base = unsafe { libc::mmap(wish, bytes, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0) };
    if base == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: advice about the mapping just made; a refusal changes nothing. A child that is forked must not make
    // the kernel copy pages that sockets have pinned; transparent huge pages spare TLB misses where they can be had.
    unsafe {
        libc::madvise(base, bytes, libc::MADV_DONTFORK);
        if !huge {
            libc::madvise(base, bytes, libc::MADV_HUGEPAGE);
        }
    }
    if huge {
        // SAFETY: the range is the mapping just made.
        let populated = unsafe { libc::madvise(base, bytes, libc::MADV_POPULATE_WRITE) };
        if populated != 0 {
            let error = io::Error::last_os_error();
            // SAFETY: as above; nothing refers to it yet.
            unsafe { libc::munmap(base, bytes) };
            return Err(error);
        }
    }
    NonNull::new(base.cast()).ok_or_else(|| io::Error::other("mmap returned null"))
}

#[cfg(test)]
mod tests {
    use weir_config::HugePages;

    use super::*;

    /// Frames of 2048 bytes for which one huge page more is needed than there are, and the number of those pages.
    fn too_many() -> (u32, u32) {
        let reserved = std::fs::read_to_string("/proc/sys/vm/nr_hugepages").unwrap();
        let pages = reserved.trim().parse::<u32>().unwrap() + 1;
        (pages * 1024, pages)
    }

    #[test]
    fn huge_pages_that_are_required_and_cannot_be_had_are_refused_with_the_remedy() {
        let (frames, pages) = too_many();
        let error = FrameMemory::map(frames, 2048, HugePages::Require).unwrap_err().to_string();
        assert!(error.contains(&format!("vm.nr_hugepages={pages}`")), "{error}");
        assert!(error.contains("memory.huge-pages = \"auto\""), "{error}");
    }

    #[test]
    fn frames_lie_where_small_iommus_reach() {
        let (first, second) =
            (FrameMemory::map(64, 2048, HugePages::Never), FrameMemory::map(64, 16384, HugePages::Never));
        for memory in [first.unwrap(), second.unwrap()] {
            let start = memory.base().as_ptr() as usize;
            assert!(start.is_multiple_of(2 << 20) && start + memory.bytes() < 1 << 39, "{start:#x}");
        }
    }

    #[test]
    fn without_enough_huge_pages_ordinary_ones_are_taken_and_said() {
        let memory = FrameMemory::map(too_many().0, 2048, HugePages::Auto).unwrap();
        assert_eq!(memory.pages(), PageKind::Normal);
    }
}
