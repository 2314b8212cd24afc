//! The frame token.

use std::ptr::NonNull;

/// One packet buffer, owned by exactly one holder: a move-only token.
///
/// A frame that is dropped instead of given back to its [`FrameCache`](super::FrameCache) is lost for the pool;
/// [`leaked`](Frame::leaked) counts such frames in debug builds so that tests can assert none.
#[derive(Debug)]
#[must_use = "a frame goes back to its pool or to a port"]
pub struct Frame {
    /// First byte of the chunk.
    chunk: NonNull<u8>,
    /// Index of the chunk in its memory; the two highest bits say how often the size of the chunk is twice 2048 bytes. So a token has
    /// 16 bytes: bursts of them are moved a lot.
    tagged: u32,
    /// Offset of the packet in the chunk.
    start: u16,
    /// Length of the packet in bytes.
    len: u16,
}

/// Bits of `tagged` below those of the size.
const SIZE_SHIFT: u32 = 30;
/// The bits of `tagged` that are the index.
const INDEX: u32 = (1 << SIZE_SHIFT) - 1;

/// The size of a chunk, as a token keeps it.
#[derive(Clone, Copy, Debug)]
pub(super) struct SizeTag(u32);

impl SizeTag {
    /// Of 2048, 4096, 8192 or 16384 bytes; of no others.
    pub(super) fn of(size: u16) -> Option<Self> {
        let doubled = [2048, 4096, 8192, 16384].iter().position(|&known| known == size)?;
        Some(Self((doubled as u32) << SIZE_SHIFT))
    }
}

// SAFETY: a frame is the only owner of its chunk, and chunks live in memory that is never unmapped.
unsafe impl Send for Frame {}

#[cfg(debug_assertions)]
static LEAKED: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);

#[cfg(debug_assertions)]
impl Drop for Frame {
    fn drop(&mut self) {
        LEAKED.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    }
}

impl Frame {
    /// Makes the token of a chunk.
    ///
    /// # Safety
    /// `size` is that of the chunk, `index < 2^30`, `chunk` points at as many bytes of a [`FrameMemory`](super::FrameMemory) (never unmapped),
    /// no other token of the chunk exists, neither kernel nor device own it, and `start + len` is at most its size.
    #[inline]
    pub(super) unsafe fn from_raw(
        chunk: NonNull<u8>,
        index: u32,
        start: u16,
        len: u16,
        size: SizeTag,
    ) -> Self {
        debug_assert!(index <= INDEX);
        let this = Self { chunk, tagged: index | size.0, start, len };
        debug_assert!(usize::from(start) + usize::from(len) <= this.size());
        this
    }

    /// Gives up the token and returns (chunk index, start, len): the chunk now belongs to whoever holds the index.
    #[inline]
    pub(crate) fn into_raw(self) -> (u32, u16, u16) {
        let raw = (self.index(), self.start, self.len);
        std::mem::forget(self);
        raw
    }

    /// First byte of the chunk.
    #[inline]
    pub(super) fn chunk(&self) -> NonNull<u8> {
        self.chunk
    }

    /// Index of the chunk in its memory.
    #[inline]
    pub fn index(&self) -> u32 {
        self.tagged & INDEX
    }

    /// Length of the chunk in bytes.
    #[inline]
    fn size(&self) -> usize {
        2048 << (self.tagged >> SIZE_SHIFT)
    }

    /// Length of the packet in bytes.
    #[inline]
    #[allow(clippy::len_without_is_empty)]
    pub fn len(&self) -> usize {
        usize::from(self.len)
    }

    /// Bytes in front of the packet.
    #[inline]
    pub fn headroom(&self) -> usize {
        usize::from(self.start)
    }

    /// Bytes behind the packet.
    #[inline]
    pub fn tailroom(&self) -> usize {
        self.size() - usize::from(self.start) - usize::from(self.len)
    }

    /// The packet.
    #[inline]
    pub fn bytes(&self) -> &[u8] {
        // SAFETY: start + len <= size, and this token is the only owner of the chunk.
        unsafe { std::slice::from_raw_parts(self.chunk.as_ptr().add(self.start.into()), self.len.into()) }
    }

    /// The packet, to write.
    #[inline]
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as for `bytes`; the borrow is exclusive.
        unsafe { std::slice::from_raw_parts_mut(self.chunk.as_ptr().add(self.start.into()), self.len.into()) }
    }

    /// Moves the start of the packet `n` bytes towards the end: takes a header off. False, and nothing done, if the
    /// packet is shorter.
    #[inline]
    pub fn strip(&mut self, n: usize) -> bool {
        if n > usize::from(self.len) {
            return false;
        }
        self.start += n as u16;
        self.len -= n as u16;
        true
    }

    /// Moves the start of the packet `n` bytes into the headroom. What stands there is whatever stood there: the
    /// caller writes it. False, and nothing done, if there is less headroom.
    #[inline]
    pub fn grow_front(&mut self, n: usize) -> bool {
        if n > usize::from(self.start) {
            return false;
        }
        self.start -= n as u16;
        self.len += n as u16;
        true
    }

    /// Sets the length of the packet: trims padding, or grows into the tailroom (the caller writes what is new).
    /// False, and nothing done, if the chunk is too short.
    #[inline]
    pub fn set_len(&mut self, len: usize) -> bool {
        if len > self.size() - usize::from(self.start) {
            return false;
        }
        self.len = len as u16;
        true
    }

    /// Takes bytes off the end of the packet, so that `len` are left. False, and nothing done, if it has fewer.
    #[inline]
    pub fn truncate(&mut self, len: usize) -> bool {
        if len > usize::from(self.len) {
            return false;
        }
        self.len = len as u16;
        true
    }

    /// Makes the packet a copy of `bytes`, at the standard headroom. False, and nothing done, if they do not fit.
    pub fn write(&mut self, bytes: &[u8]) -> bool {
        if bytes.len() > self.size() - usize::from(super::HEADROOM) {
            return false;
        }
        self.start = super::HEADROOM;
        self.len = bytes.len() as u16;
        self.bytes_mut().copy_from_slice(bytes);
        true
    }

    /// Asks the processor for the first two cache lines of the packet.
    #[inline]
    pub fn prefetch(&self) {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: prefetching has no effect on memory and cannot fault.
        unsafe {
            use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
            let p = self.chunk.as_ptr().add(self.start.into()).cast_const().cast::<i8>();
            _mm_prefetch(p, _MM_HINT_T0);
            _mm_prefetch(p.wrapping_add(64), _MM_HINT_T0);
        }
    }

    /// How many frames were dropped instead of freed, in this process (debug builds; 0 in release builds).
    pub fn leaked() -> u64 {
        #[cfg(debug_assertions)]
        return LEAKED.load(std::sync::atomic::Ordering::Relaxed);
        #[cfg(not(debug_assertions))]
        0
    }
}
