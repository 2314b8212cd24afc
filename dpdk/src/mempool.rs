//! A mempool whose objects are not DPDK's: an mbuf for each chunk of somebody's memory, which keeps the account of the free ones.
//!
//! mbuf `n` belongs to chunk `n` for ever, and the mbufs lie in one array, so that each is found from the other by a shift. They
//! do not lie in the chunks: neither an encapsulation nor a device can overwrite them.

use std::ffi::{CString, c_uint, c_void};
use std::ptr::NonNull;
use std::sync::{Mutex, PoisonError};

use crate::eal::Eal;
use crate::error::{Error, reason};
use crate::mbuf::{Mbuf, SHIFT};
use crate::sys;

/// The account of free chunks, from which drivers are given theirs.
pub trait Chunks: Send + Sync {
    /// Takes free chunks, as many as there are places, and returns how many there were.
    fn take(&self, into: &mut [u32]) -> usize;
    /// Takes chunks back.
    fn give(&self, chunks: &[u32]);
    /// How many are free.
    fn available(&self) -> usize;
}

/// mbufs that a thread keeps for itself, of each pool. Half as many again before some are given back.
const CACHE: u32 = 256;
/// Chunks taken or given back in one piece.
const BATCH: usize = 64;
/// Bytes of a huge page.
const HUGE: usize = 2 << 20;

/// Every pool of the process.
static POOLS: Mutex<Vec<&'static Mempool>> = Mutex::new(Vec::new());

/// A mempool. It lives as long as the process: drivers may look at it until then.
pub struct Mempool {
    pool: NonNull<sys::rte_mempool>,
    mbufs: NonNull<u8>,
    frames: u32,
    frame_size: u16,
    memory: NonNull<u8>,
    bytes: usize,
    page: usize,
    chunks: Box<dyn Chunks>,
}

// SAFETY: its mbufs are reached by those who own them, and the rest is not changed after it was made; DPDK's part is made for threads.
unsafe impl Send for Mempool {}
// SAFETY: as above.
unsafe impl Sync for Mempool {}

impl std::fmt::Debug for Mempool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Mempool").field("frames", &self.frames).finish_non_exhaustive()
    }
}

impl Mempool {
    /// A mempool over `frames` chunks of `frame_size` bytes (a power of two) from `memory` on, on pages of `page` bytes. `chunks` is
    /// asked for free ones.
    ///
    /// # Safety
    /// The memory is mapped for as long as the process lives, starts on a page and is a whole number of pages with `frames * frame_size`
    /// rounded up; a chunk that `chunks` gives out is nobody else's until it is given back.
    ///
    /// # Errors
    /// [`Error::Mempool`].
    pub unsafe fn new(
        _eal: &Eal,
        memory: NonNull<u8>,
        frames: u32,
        frame_size: u16,
        page: usize,
        chunks: Box<dyn Chunks>,
    ) -> Result<&'static Self, Error> {
        let refused = |reason: String| Error::Mempool { frames, reason };
        let mut pools = POOLS.lock().unwrap_or_else(PoisonError::into_inner);
        if pools.is_empty() {
            // SAFETY: the functions are what a mempool's operations are declared to be, and stay.
            let code = unsafe { sys::weir_mempool_register(Some(enqueue), Some(dequeue), Some(count)) };
            if code < 0 {
                return Err(refused(reason(code)));
            }
        }
        let mbufs = map((frames as usize) << SHIFT).map_err(|error| refused(error.to_string()))?;
        let bytes = (frames as usize * usize::from(frame_size)).next_multiple_of(page);
        let name =
            CString::new(format!("weir{}", pools.len())).map_err(|error| refused(error.to_string()))?;
        // SAFETY: the name is a string; DPDK copies it. The owner is set below, before anybody knows of the pool.
        let pool = unsafe {
            sys::weir_mempool_create(name.as_ptr(), frames, frame_size, CACHE.min(frames * 2 / 3), -1)
        };
        let pool = NonNull::new(pool).ok_or_else(|| refused(reason(-1)))?;
        for index in 0..frames as usize {
            // SAFETY: both arrays have `frames` elements.
            unsafe {
                let mbuf = mbufs.add(index << SHIFT).as_ptr().cast();
                let chunk = memory.add(index * usize::from(frame_size)).as_ptr().cast();
                sys::weir_mbuf_init(pool.as_ptr(), mbuf, chunk, frame_size);
            }
        }
        // SAFETY: the range is the memory's, mapped for ever.
        let code = unsafe { sys::weir_mempool_holds(pool.as_ptr(), memory.as_ptr().cast(), bytes) };
        if code != 0 {
            return Err(refused(reason(code)));
        }
        let this: &'static Self =
            Box::leak(Box::new(Self { pool, mbufs, frames, frame_size, memory, bytes, page, chunks }));
        // SAFETY: the pool is used by nobody yet; its operations find `this` there, which stays.
        unsafe { sys::weir_mempool_set_owner(pool.as_ptr(), std::ptr::from_ref(this).cast_mut().cast()) };
        pools.push(this);
        Ok(this)
    }

    pub(crate) fn as_ptr(&self) -> *mut sys::rte_mempool {
        self.pool.as_ptr()
    }

    /// Memory, bytes and bytes of a page: what a device has to be able to reach.
    pub(crate) fn memory(&self) -> (NonNull<u8>, usize, usize) {
        (self.memory, self.bytes, self.page)
    }

    /// Bytes of a chunk.
    pub fn frame_size(&self) -> u16 {
        self.frame_size
    }

    /// Where its mbufs are.
    #[inline(always)]
    pub fn places(&self) -> Places {
        Places { mbufs: self.mbufs, bytes: (self.frames as usize) << SHIFT }
    }

    /// The chunk of an mbuf, if it is one of this pool's.
    #[inline(always)]
    pub fn chunk(&self, mbuf: Mbuf) -> Option<u32> {
        self.places().chunk(mbuf)
    }

    /// The mbuf of a chunk.
    ///
    /// # Safety
    /// The pool's memory has a chunk of that number.
    #[inline(always)]
    pub unsafe fn mbuf(&self, chunk: u32) -> Mbuf {
        // SAFETY: the caller's promise.
        unsafe { self.places().mbuf(chunk) }
    }

    /// Gives chunks back by way of what the calling thread keeps for itself: drivers that it polls take them next.
    ///
    /// # Safety
    /// The chunks are the pool's, and the caller's, who gives them up.
    pub unsafe fn put(&self, chunks: &[u32]) {
        let places = self.places();
        let mut mbufs = [std::ptr::null_mut(); BATCH];
        for batch in chunks.chunks(BATCH) {
            for (place, chunk) in mbufs.iter_mut().zip(batch) {
                // SAFETY: the caller's promise.
                *place = unsafe { places.mbuf(*chunk) }.as_ptr().cast();
            }
            // SAFETY: as many places were filled. An mbuf that is nobody's is one segment with a count of one.
            unsafe { sys::weir_mempool_put(self.pool.as_ptr(), mbufs.as_ptr(), batch.len() as c_uint) };
        }
    }

    /// Gives back what the calling thread keeps for itself.
    fn flush(&self) {
        // SAFETY: the cache is the calling thread's own, if it has one.
        unsafe { sys::weir_mempool_flush(self.pool.as_ptr()) };
    }
}

/// Where the mbufs of a pool are: a copy, to be kept in registers through a loop.
#[derive(Clone, Copy, Debug)]
pub struct Places {
    mbufs: NonNull<u8>,
    bytes: usize,
}

impl Places {
    /// The chunk of an mbuf, if it is one of this pool's.
    #[inline(always)]
    pub fn chunk(self, mbuf: Mbuf) -> Option<u32> {
        let offset = mbuf.address().wrapping_sub(self.mbufs.as_ptr() as usize);
        if offset < self.bytes { Some((offset >> SHIFT) as u32) } else { None }
    }

    /// The mbuf of a chunk.
    ///
    /// # Safety
    /// The pool's memory has a chunk of that number.
    #[inline(always)]
    pub unsafe fn mbuf(self, chunk: u32) -> Mbuf {
        debug_assert!((chunk as usize) << SHIFT < self.bytes);
        // SAFETY: the array has an mbuf for each chunk.
        Mbuf::new(unsafe { self.mbufs.add((chunk as usize) << SHIFT) })
    }
}

/// Gives back what the calling thread keeps of all pools.
pub(crate) fn flush_all() {
    let pools = POOLS.lock().unwrap_or_else(PoisonError::into_inner);
    pools.iter().for_each(|pool| pool.flush());
}

/// Zeroed memory for mbufs, where transparent huge pages fit.
fn map(bytes: usize) -> std::io::Result<NonNull<u8>> {
    let whole = bytes.next_multiple_of(HUGE) + HUGE;
    // SAFETY: a fresh anonymous mapping at no given address, and advice about it, whose refusal changes nothing. A child that is
    // forked must not make the kernel copy pages under a running driver.
    unsafe {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        let base = libc::mmap(std::ptr::null_mut(), whole, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0);
        if base == libc::MAP_FAILED {
            return Err(std::io::Error::last_os_error());
        }
        libc::madvise(base, whole, libc::MADV_HUGEPAGE);
        libc::madvise(base, whole, libc::MADV_DONTFORK);
        let base = base.cast::<u8>();
        NonNull::new(base.add(base.align_offset(HUGE)))
            .ok_or_else(|| std::io::Error::other("mmap returned null"))
    }
}

/// The pool behind DPDK's.
///
/// # Safety
/// `pool` is one that [`Mempool::new`] made.
unsafe fn owner<'a>(pool: *const sys::rte_mempool) -> &'a Mempool {
    // SAFETY: its owner was set to a pool that is never freed, before the first operation.
    unsafe { &*sys::weir_mempool_owner(pool).cast::<Mempool>() }
}

/// Takes mbufs back.
unsafe extern "C" fn enqueue(pool: *mut sys::rte_mempool, objects: *const *mut c_void, n: c_uint) -> i32 {
    // SAFETY: DPDK calls it with a pool of ours, and `n` mbufs of that pool.
    let (this, objects) = unsafe { (owner(pool), std::slice::from_raw_parts(objects, n as usize)) };
    let mut chunks = [0; BATCH];
    for batch in objects.chunks(BATCH) {
        let mut known = 0;
        let indexes = batch
            .iter()
            .filter_map(|object| NonNull::new(object.cast::<u8>()))
            .filter_map(|object| this.chunk(Mbuf::new(object)));
        for (place, index) in chunks.iter_mut().zip(indexes) {
            *place = index;
            known += 1;
        }
        this.chunks.give(chunks.get(..known).unwrap_or_default());
    }
    0
}

/// Gives out mbufs: all that are asked for, or none.
unsafe extern "C" fn dequeue(pool: *mut sys::rte_mempool, objects: *mut *mut c_void, n: c_uint) -> i32 {
    // SAFETY: DPDK calls it with a pool of ours, and room for `n` pointers.
    let (this, objects) = unsafe { (owner(pool), std::slice::from_raw_parts_mut(objects, n as usize)) };
    let mut chunks = [0; BATCH];
    let mut filled = 0;
    for places in objects.chunks_mut(BATCH) {
        let Some(wanted) = chunks.get_mut(..places.len()) else { return -libc::EINVAL };
        let taken = this.chunks.take(wanted);
        for (place, chunk) in places.iter_mut().zip(wanted.iter().take(taken)) {
            // SAFETY: the chunk is one of the pool's.
            *place = unsafe { this.mbuf(*chunk) }.as_ptr().cast();
        }
        filled += taken;
        if taken < places.len() {
            // SAFETY: the first `filled` pointers are those taken here.
            unsafe { enqueue(pool, objects.as_ptr(), filled as c_uint) };
            return -libc::ENOENT;
        }
    }
    0
}

/// How many can be given out.
unsafe extern "C" fn count(pool: *const sys::rte_mempool) -> c_uint {
    // SAFETY: DPDK calls it with a pool of ours.
    let this = unsafe { owner(pool) };
    this.chunks.available().try_into().unwrap_or(c_uint::MAX)
}
