//! The four rings of an AF_XDP socket (Linux, Documentation/networking/af_xdp.rst): single-producer, single-consumer
//! rings in memory shared with the kernel. Use is acquire → data → release: look how many entries there are, read or
//! write them, hand them over at once.

use std::io;
use std::marker::PhantomData;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering};

/// A receive or transmit descriptor: `struct xdp_desc` of linux/if_xdp.h.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub(super) struct Descriptor {
    /// Offset of the packet in the memory, in bytes.
    pub(super) address: u64,
    /// Length of the packet in bytes.
    pub(super) len: u32,
    /// 0 for a packet in one buffer.
    pub(super) options: u32,
}

/// The mapping of one ring, unmapped when dropped.
#[derive(Debug)]
struct Mapping {
    base: NonNull<u8>,
    bytes: usize,
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the range is the mapping made in `Ring::map`, and the ring that points into it goes with it.
        unsafe { libc::munmap(self.base.as_ptr().cast(), self.bytes) };
    }
}

/// What both sides of a ring have in common.
#[derive(Debug)]
struct Ring<T> {
    mapping: Mapping,
    producer: NonNull<AtomicU32>,
    consumer: NonNull<AtomicU32>,
    flags: NonNull<AtomicU32>,
    entries: NonNull<T>,
    size: u32,
    /// The producer index as this side last knew it; of a producer ring, including what is not submitted yet.
    producer_here: u32,
    /// The consumer index as this side last knew it; of a consumer ring, including what is not released yet.
    consumer_here: u32,
    entry: PhantomData<T>,
}

// SAFETY: a ring is the only user of its mapping on this side; the kernel's side is synchronised by the indexes.
unsafe impl<T: Send> Send for Ring<T> {}

impl<T: Copy> Ring<T> {
    /// Maps a ring of `size` entries (a power of two), which the socket was told before.
    fn map(
        socket: BorrowedFd<'_>,
        page_offset: i64,
        size: u32,
        offsets: &libc::xdp_ring_offset,
    ) -> io::Result<Self> {
        let bytes = offsets.desc as usize + size as usize * size_of::<T>();
        // SAFETY: no address is asked for; the kernel checks the offset and the size.
        let base = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                bytes,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED | libc::MAP_POPULATE,
                socket.as_raw_fd(),
                page_offset,
            )
        };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let base = NonNull::new(base.cast::<u8>()).ok_or_else(|| io::Error::other("mmap returned null"))?;
        let mapping = Mapping { base, bytes };
        // SAFETY: the kernel gives offsets within the mapping whose size was computed from them, each aligned to its type.
        let ring = unsafe {
            Self {
                mapping,
                producer: base.add(offsets.producer as usize).cast(),
                consumer: base.add(offsets.consumer as usize).cast(),
                flags: base.add(offsets.flags as usize).cast(),
                entries: base.add(offsets.desc as usize).cast(),
                size,
                producer_here: 0,
                consumer_here: 0,
                entry: PhantomData,
            }
        };
        debug_assert_eq!(ring.mapping.base, base);
        Ok(ring)
    }

    #[inline]
    fn producer(&self) -> &AtomicU32 {
        // SAFETY: it points into the mapping, which lives as long as the ring; both sides use it atomically.
        unsafe { self.producer.as_ref() }
    }

    #[inline]
    fn consumer(&self) -> &AtomicU32 {
        // SAFETY: as for `producer`.
        unsafe { self.consumer.as_ref() }
    }

    #[inline]
    fn needs_wakeup(&self) -> bool {
        // SAFETY: as for `producer`.
        unsafe { self.flags.as_ref() }.load(Ordering::Relaxed) & libc::XDP_RING_NEED_WAKEUP != 0
    }

    /// The place of entry `index`, taken modulo the size.
    #[inline]
    fn slot(&self, index: u32) -> NonNull<T> {
        // SAFETY: size is a power of two, so the masked index is below it, and the mapping holds `size` entries.
        unsafe { self.entries.add((index & (self.size - 1)) as usize) }
    }
}

/// A ring that weir fills and the kernel empties: fill and transmit.
#[derive(Debug)]
pub(super) struct ProducerRing<T>(Ring<T>);

impl<T: Copy> ProducerRing<T> {
    pub(super) fn map(
        socket: BorrowedFd<'_>,
        page_offset: i64,
        size: u32,
        offsets: &libc::xdp_ring_offset,
    ) -> io::Result<Self> {
        Ring::map(socket, page_offset, size, offsets).map(Self)
    }

    /// How many entries can be pushed, at most `max`. Looks at the kernel's index only if the last look is not enough.
    #[inline]
    pub(super) fn room(&mut self, max: u32) -> u32 {
        let ring = &mut self.0;
        let known = ring.size.wrapping_sub(ring.producer_here.wrapping_sub(ring.consumer_here));
        if known >= max {
            return max;
        }
        // Acquire: the kernel has read the entries before it moved its index.
        ring.consumer_here = ring.consumer().load(Ordering::Acquire);
        max.min(ring.size.wrapping_sub(ring.producer_here.wrapping_sub(ring.consumer_here)))
    }

    /// Writes an entry; the kernel sees it after [`submit`](Self::submit). No more than [`room`](Self::room) allowed:
    /// beyond that, an entry that the kernel has not read is overwritten.
    #[inline]
    pub(super) fn push(&mut self, entry: T) {
        let ring = &mut self.0;
        debug_assert!(ring.producer_here.wrapping_sub(ring.consumer_here) < ring.size);
        // SAFETY: the slot is in the mapping, and the kernel does not read it before the index is moved.
        unsafe { ring.slot(ring.producer_here).write(entry) };
        ring.producer_here = ring.producer_here.wrapping_add(1);
    }

    /// Hands everything pushed to the kernel.
    #[inline]
    pub(super) fn submit(&mut self) {
        // Release: the entries are written before the index moves.
        self.0.producer().store(self.0.producer_here, Ordering::Release);
    }

    /// Whether the kernel has not taken everything that was submitted.
    #[inline]
    pub(super) fn pending(&mut self) -> bool {
        let ring = &mut self.0;
        if ring.consumer_here == ring.producer_here {
            return false;
        }
        ring.consumer_here = ring.consumer().load(Ordering::Acquire);
        ring.consumer_here != ring.producer_here
    }

    /// Whether the kernel sleeps and wants a system call (XDP_USE_NEED_WAKEUP).
    #[inline]
    pub(super) fn needs_wakeup(&self) -> bool {
        self.0.needs_wakeup()
    }

    /// Number of entries.
    pub(super) fn size(&self) -> u32 {
        self.0.size
    }
}

/// A ring that the kernel fills and weir empties: receive and completion.
#[derive(Debug)]
pub(super) struct ConsumerRing<T>(Ring<T>);

impl<T: Copy> ConsumerRing<T> {
    pub(super) fn map(
        socket: BorrowedFd<'_>,
        page_offset: i64,
        size: u32,
        offsets: &libc::xdp_ring_offset,
    ) -> io::Result<Self> {
        Ring::map(socket, page_offset, size, offsets).map(Self)
    }

    /// How many entries can be popped, at most `max`. Looks at the kernel's index only if the last look is not enough.
    #[inline]
    pub(super) fn available(&mut self, max: u32) -> u32 {
        let ring = &mut self.0;
        let known = ring.producer_here.wrapping_sub(ring.consumer_here);
        if known >= max {
            return max;
        }
        // Acquire: the kernel wrote the entries before it moved its index.
        ring.producer_here = ring.producer().load(Ordering::Acquire);
        max.min(ring.producer_here.wrapping_sub(ring.consumer_here))
    }

    /// Reads the next entry; no more than [`available`](Self::available) said.
    #[inline]
    pub(super) fn pop(&mut self) -> T {
        let ring = &mut self.0;
        debug_assert!(ring.producer_here != ring.consumer_here);
        // SAFETY: the slot is in the mapping; any bit pattern is a valid T (integers), and the kernel does not write it
        // before the index is moved.
        let entry = unsafe { ring.slot(ring.consumer_here).read() };
        ring.consumer_here = ring.consumer_here.wrapping_add(1);
        entry
    }

    /// Gives the room of everything popped back to the kernel.
    #[inline]
    pub(super) fn release(&mut self) {
        // Release: the entries are read before the index moves.
        self.0.consumer().store(self.0.consumer_here, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Both sides of one ring over anonymous memory, as if the kernel were the other side.
    fn pair(size: u32) -> (ProducerRing<u64>, ConsumerRing<u64>) {
        let offsets = libc::xdp_ring_offset { producer: 0, consumer: 64, flags: 128, desc: 192 };
        let file = tempfile::tempfile().unwrap();
        file.set_len(4096).unwrap();
        let fd = std::os::fd::AsFd::as_fd(&file);
        (ProducerRing::map(fd, 0, size, &offsets).unwrap(), ConsumerRing::map(fd, 0, size, &offsets).unwrap())
    }

    #[test]
    fn nothing_is_seen_before_it_is_submitted_and_no_room_before_it_is_released() {
        let (mut producer, mut consumer) = pair(4);
        assert_eq!(producer.room(9), 4);
        for n in 0..4 {
            producer.push(n);
        }
        assert_eq!(consumer.available(9), 0);
        producer.submit();
        assert!(producer.pending());
        assert_eq!((producer.room(9), consumer.available(9)), (0, 4));
        assert_eq!((consumer.pop(), consumer.pop()), (0, 1));
        assert_eq!(producer.room(9), 0);
        consumer.release();
        assert_eq!((producer.room(9), consumer.available(9)), (2, 2));
        assert_eq!((consumer.pop(), consumer.pop()), (2, 3));
        consumer.release();
        assert!(!producer.pending());
    }

    proptest::proptest! {
        #[test]
        fn a_ring_is_a_queue_whatever_the_indexes(
            start in proptest::prelude::any::<u32>(),
            steps in proptest::collection::vec((0u32..9, 0u32..9), 1..60),
        ) {
            let (mut producer, mut consumer) = pair(8);
            for ring in [&mut producer.0, &mut consumer.0] {
                (ring.producer_here, ring.consumer_here) = (start, start);
            }
            producer.submit();
            consumer.release();
            let (mut next, mut expected) = (0u64, std::collections::VecDeque::new());
            for (pushes, pops) in steps {
                let room = producer.room(pushes);
                proptest::prop_assert_eq!(room, pushes.min(8 - expected.len() as u32));
                for _ in 0..room {
                    producer.push(next);
                    expected.push_back(next);
                    next += 1;
                }
                producer.submit();
                let available = consumer.available(pops);
                proptest::prop_assert_eq!(available, pops.min(expected.len() as u32));
                for _ in 0..available {
                    proptest::prop_assert_eq!(Some(consumer.pop()), expected.pop_front());
                }
                consumer.release();
            }
        }
    }
}
