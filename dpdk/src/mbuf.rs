//! mbufs: DPDK's descriptions of packet buffers. Each belongs to one chunk of frame memory for ever.

use std::ptr::NonNull;

use crate::sys;

/// Bytes that drivers leave free in front of a packet that they receive.
pub const HEADROOM: u16 = sys::WEIR_HEADROOM as u16;

/// log2 of the bytes of an mbuf.
pub(crate) const SHIFT: u32 = 7;
const _: () = assert!(sys::WEIR_MBUF_SIZE == 1 << SHIFT);

/// A reference count of one and one segment, in the word that starts with the offset of the data. The input port is unset.
const REARM: u64 = 1 << 16 | 1 << 32 | 0xffff << 48;

/// A pointer to an mbuf.
#[derive(Clone, Copy, Debug)]
#[repr(transparent)]
pub struct Mbuf(NonNull<u8>);

// For arrays of them to be handed to C.
const _: () = assert!(size_of::<Option<Mbuf>>() == size_of::<*mut sys::rte_mbuf>());

impl Mbuf {
    pub(crate) fn new(at: NonNull<u8>) -> Self {
        Self(at)
    }

    pub(crate) fn as_ptr(self) -> *mut sys::rte_mbuf {
        self.0.as_ptr().cast()
    }

    pub(crate) fn address(self) -> usize {
        self.0.as_ptr() as usize
    }

    /// A field at an offset that `shim.h` tells.
    ///
    /// # Safety
    /// The offset is that of a field of type `T`, and the mbuf is the caller's.
    #[inline(always)]
    unsafe fn read<T: Copy>(self, offset: u32) -> T {
        // SAFETY: the caller's promise.
        unsafe { self.0.as_ptr().add(offset as usize).cast::<T>().read() }
    }

    /// # Safety
    /// As for [`read`](Self::read).
    #[inline(always)]
    unsafe fn write<T>(self, offset: u32, value: T) {
        // SAFETY: the caller's promise.
        unsafe { self.0.as_ptr().add(offset as usize).cast::<T>().write(value) }
    }

    /// Where the packet is: its offset in the chunk, its length there, and how many segments it has in all.
    ///
    /// # Safety
    /// The mbuf is the caller's: received and not freed.
    #[inline(always)]
    pub unsafe fn layout(self) -> (u16, u16, u16) {
        // Field by field: a driver has just written some of them, and what was stored in pieces is slow to load as a whole.
        // SAFETY: these offsets are those of 16-bit fields.
        unsafe {
            (
                self.read(sys::WEIR_MBUF_DATA_OFF),
                self.read(sys::WEIR_MBUF_DATA_LEN),
                self.read(sys::WEIR_MBUF_NB_SEGS),
            )
        }
    }

    /// The next segment.
    ///
    /// # Safety
    /// As for [`layout`](Self::layout).
    pub unsafe fn next(self) -> Option<Self> {
        // SAFETY: `next` is a pointer, which may be null.
        unsafe { self.read::<Option<NonNull<u8>>>(sys::WEIR_MBUF_NEXT) }.map(Self)
    }

    /// Makes it the only segment of its packet. Those behind are the caller's to free.
    ///
    /// # Safety
    /// As for [`layout`](Self::layout).
    pub unsafe fn cut(self) {
        // SAFETY: as above.
        unsafe {
            self.write(sys::WEIR_MBUF_NEXT, std::ptr::null_mut::<u8>());
            self.write(sys::WEIR_MBUF_REARM, REARM | u64::from(HEADROOM));
        }
    }

    /// Puts another segment behind it, which has none behind it.
    ///
    /// # Safety
    /// As for [`layout`](Self::layout), of both.
    pub unsafe fn chain(self, next: Self) {
        // SAFETY: as above.
        unsafe {
            let word: u64 = self.read(sys::WEIR_MBUF_REARM);
            self.write(sys::WEIR_MBUF_REARM, word + (1 << 32));
            self.write(sys::WEIR_MBUF_NEXT, next.0);
        }
    }

    /// The bytes of this segment.
    ///
    /// # Safety
    /// As for [`layout`](Self::layout); nobody writes to them for as long as the slice lives.
    pub unsafe fn bytes<'a>(self) -> &'a [u8] {
        // SAFETY: the driver put `len` bytes at `offset` of the buffer.
        unsafe {
            let (offset, len, _) = self.layout();
            let base: *const u8 = self.read(sys::WEIR_MBUF_BUF_ADDR);
            std::slice::from_raw_parts(base.add(offset.into()), len.into())
        }
    }

    /// Says where the packet to be sent is: one segment, nothing left for the device to compute.
    ///
    /// # Safety
    /// The mbuf is the caller's, and `start + len` is at most the size of its chunk.
    #[inline(always)]
    pub unsafe fn set(self, start: u16, len: u16) {
        // SAFETY: as above; these are 64-bit words each, the last of them the lengths of packet (32 bits) and segment (16), and a tag,
        // which no flag says is to be inserted.
        unsafe {
            self.write(sys::WEIR_MBUF_REARM, REARM | u64::from(start));
            self.write(sys::WEIR_MBUF_OL_FLAGS, 0u64);
            let lengths = self.0.as_ptr().add(sys::WEIR_MBUF_PKT_LEN as usize).cast::<u64>();
            lengths.write_unaligned(u64::from(len) | u64::from(len) << 32);
        }
    }

    /// Frees the packet with all its segments, each to its own pool.
    ///
    /// # Safety
    /// The mbuf is the caller's, who does not use it again.
    pub unsafe fn free(self) {
        // SAFETY: as above.
        unsafe { sys::weir_mbuf_free(self.as_ptr()) };
    }

    /// Asks the processor for the line that [`layout`](Self::layout) reads and [`set`](Self::set) writes.
    #[inline(always)]
    pub fn prefetch(self) {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: prefetching has no effect on memory and cannot fault.
        unsafe {
            use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
            _mm_prefetch(self.0.as_ptr().cast_const().cast::<i8>(), _MM_HINT_T0);
        }
    }
}
