//! Memory for tables: a slice of plain values, large ones on 2 MB pages where those can be had.
//!
//! A look-up in a table of many megabytes misses the TLB as well as the cache when its pages have 4 KB. Reserved huge pages
//! (`MAP_HUGETLB`) come first, then transparent ones (`MADV_HUGEPAGE` on an aligned range), then ordinary pages; the table
//! says what it got.

use std::io;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;

use weir_config::HugePages;

/// Bytes of a huge page.
const HUGE: usize = 2 << 20;
/// Bytes of an ordinary page. One without access follows each mapping: so the kernel keeps account of each by itself.
const PAGE: usize = 4096;
/// Alignment of tables that are too small for pages of their own: a cache line.
const LINE: usize = 64;

/// What any pattern of bits is a valid value of, all bits zero too.
///
/// # Safety
/// The type has no padding that is read, no niche, no destructor, and needs no alignment beyond a cache line.
#[allow(unsafe_code)]
pub unsafe trait Plain: Copy + 'static {}

// SAFETY: integers are what the trait asks for.
unsafe impl Plain for u8 {}
// SAFETY: as above.
unsafe impl Plain for u16 {}
// SAFETY: as above.
unsafe impl Plain for u32 {}
// SAFETY: as above.
unsafe impl Plain for i32 {}
// SAFETY: as above.
unsafe impl Plain for u64 {}
// SAFETY: as above.
unsafe impl Plain for u128 {}
// SAFETY: an array is as plain as its elements.
unsafe impl<T: Plain, const N: usize> Plain for [T; N] {}

/// Sixteen words on one cache line: a node of a search tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C, align(64))]
pub struct Line(pub [i32; 16]);

// SAFETY: sixteen integers, without padding.
unsafe impl Plain for Line {}

impl Line {
    /// Which of the sixteen words lie below `key`: the first word is the lowest bit.
    #[inline(always)]
    pub fn below(&self, key: i32) -> u32 {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: SSE2 belongs to every x86-64 processor; the four loads lie in the 64 bytes, aligned.
        unsafe {
            use std::arch::x86_64::{
                __m128i, _mm_cmpgt_epi32, _mm_load_si128, _mm_movemask_epi8, _mm_packs_epi16,
                _mm_packs_epi32, _mm_set1_epi32,
            };
            let (at, key) = (std::ptr::from_ref(self).cast::<__m128i>(), _mm_set1_epi32(key));
            let four = |index| _mm_cmpgt_epi32(key, _mm_load_si128(at.add(index)));
            let (low, high) = (_mm_packs_epi32(four(0), four(1)), _mm_packs_epi32(four(2), four(3)));
            _mm_movemask_epi8(_mm_packs_epi16(low, high)) as u32
        }
        #[cfg(not(target_arch = "x86_64"))]
        self.below_one_by_one(key)
    }

    /// Which of the first eight words lie below `key`; bits above the eighth may be anything.
    #[inline(always)]
    pub fn below_in_first_half(&self, key: i32) -> u32 {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: as above, two of the four loads.
        unsafe {
            use std::arch::x86_64::{
                __m128i, _mm_cmpgt_epi32, _mm_load_si128, _mm_movemask_epi8, _mm_packs_epi16,
                _mm_packs_epi32, _mm_set1_epi32,
            };
            let (at, key) = (std::ptr::from_ref(self).cast::<__m128i>(), _mm_set1_epi32(key));
            let four = |index| _mm_cmpgt_epi32(key, _mm_load_si128(at.add(index)));
            let eight = _mm_packs_epi32(four(0), four(1));
            _mm_movemask_epi8(_mm_packs_epi16(eight, eight)) as u32
        }
        #[cfg(not(target_arch = "x86_64"))]
        self.below_one_by_one(key)
    }

    /// The same without vectors.
    #[cfg(any(test, not(target_arch = "x86_64")))]
    fn below_one_by_one(&self, key: i32) -> u32 {
        self.0.iter().enumerate().fold(0, |bits, (at, word)| bits | u32::from(*word < key) << at)
    }
}

/// Which pages a table lies on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TablePages {
    /// A part of the heap: too small for huge pages.
    Heap,
    /// Ordinary pages.
    Normal,
    /// Transparent huge pages, as far as the kernel had any.
    Transparent,
    /// Reserved huge pages of 2 MB.
    Huge,
}

impl TablePages {
    /// Its name for people and programs.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Heap => "heap",
            Self::Normal => "4 KB",
            Self::Transparent => "transparent 2 MB",
            Self::Huge => "2 MB",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Source {
    Heap,
    /// Bytes of the mapping, and whether reserved huge pages.
    Mapped(usize, bool),
}

/// A slice of `T` that owns its memory.
#[derive(Debug)]
pub struct TableMemory<T: Plain> {
    base: NonNull<T>,
    len: usize,
    source: Source,
}

// SAFETY: it owns what it points at, like a `Box<[T]>`.
unsafe impl<T: Plain + Send> Send for TableMemory<T> {}
// SAFETY: as above.
unsafe impl<T: Plain + Sync> Sync for TableMemory<T> {}

impl<T: Plain> TableMemory<T> {
    /// `len` values of all bits zero. Ordinary and transparent pages take memory only once they are written to.
    ///
    /// [`HugePages::Require`] speaks of frames: a table takes what it gets.
    ///
    /// # Errors
    /// The kernel's, when the address space or the memory does not suffice.
    pub fn zeroed(len: usize, huge: HugePages) -> io::Result<Self> {
        let bytes = len.checked_mul(size_of::<T>()).ok_or(io::ErrorKind::OutOfMemory)?;
        if bytes < HUGE / 2 {
            return Self::on_heap(len);
        }
        let rounded = bytes.next_multiple_of(HUGE);
        let (base, reserved) = match huge {
            HugePages::Never => (map_aligned(rounded, false)?, false),
            HugePages::Auto | HugePages::Require => match map_reserved(rounded) {
                Ok(base) => (base, true),
                Err(_) => (map_aligned(rounded, true)?, false),
            },
        };
        Ok(Self { base: base.cast(), len, source: Source::Mapped(rounded, reserved) })
    }

    fn on_heap(len: usize) -> io::Result<Self> {
        let layout = Self::heap_layout(len)?;
        // SAFETY: the layout's size is at least a cache line.
        let base = NonNull::new(unsafe { std::alloc::alloc_zeroed(layout) });
        Ok(Self { base: base.ok_or(io::ErrorKind::OutOfMemory)?.cast(), len, source: Source::Heap })
    }

    fn heap_layout(len: usize) -> io::Result<std::alloc::Layout> {
        let bytes = (len * size_of::<T>()).max(LINE);
        let layout = std::alloc::Layout::from_size_align(bytes, align_of::<T>().max(LINE));
        layout.map_err(|_| io::ErrorKind::OutOfMemory.into())
    }

    /// `len` times `value`.
    ///
    /// # Errors
    /// As [`zeroed`](Self::zeroed).
    pub fn filled(len: usize, value: T, huge: HugePages) -> io::Result<Self> {
        let mut table = Self::zeroed(len, huge)?;
        table.fill(value);
        Ok(table)
    }

    /// Makes it `len` long: what it held stays, as far as it fits, the rest is zero.
    ///
    /// # Errors
    /// As [`zeroed`](Self::zeroed); the table is then as it was.
    pub fn resize(&mut self, len: usize, huge: HugePages) -> io::Result<()> {
        let mut other = Self::zeroed(len, huge)?;
        for (to, from) in other.iter_mut().zip(self.iter()) {
            *to = *from;
        }
        *self = other;
        Ok(())
    }

    /// Maps every page for reading, so that look-ups meet no page fault. Pages never written to take no memory by it.
    pub fn map_for_reading(&self) {
        if let Source::Mapped(bytes, false) = self.source {
            // SAFETY: the range is this table's mapping; a refusal changes nothing.
            unsafe { libc::madvise(self.base.as_ptr().cast(), bytes, libc::MADV_POPULATE_READ) };
        }
    }

    /// Asks the processor for the cache line of element `index`, if there is one.
    #[inline(always)]
    pub fn prefetch(&self, index: usize) {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: prefetching has no effect on memory and cannot fault; the address is not dereferenced.
        unsafe {
            use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
            _mm_prefetch(self.base.as_ptr().wrapping_add(index).cast::<i8>(), _MM_HINT_T0);
        }
        #[cfg(not(target_arch = "x86_64"))]
        let _ = index;
    }

    /// Bytes of address space that it takes. Of ordinary and transparent pages only those written to are in memory.
    pub fn bytes(&self) -> usize {
        match self.source {
            Source::Heap => (self.len * size_of::<T>()).max(LINE),
            Source::Mapped(bytes, _) => bytes,
        }
    }

    /// Bytes of it that are in memory. Asks the kernel: for the control thread.
    pub fn resident(&self) -> usize {
        match self.source {
            Source::Heap => self.bytes(),
            Source::Mapped(bytes, true) => bytes,
            Source::Mapped(bytes, false) => self.of_smaps("Rss:").unwrap_or(bytes),
        }
    }

    /// Which pages it lies on now. Asks the kernel about transparent ones: for the control thread.
    pub fn pages(&self) -> TablePages {
        match self.source {
            Source::Heap => TablePages::Heap,
            Source::Mapped(_, true) => TablePages::Huge,
            Source::Mapped(_, false) if self.of_smaps("AnonHugePages:").is_some_and(|bytes| bytes > 0) => {
                TablePages::Transparent
            }
            Source::Mapped(..) => TablePages::Normal,
        }
    }

    /// A line about this mapping in the kernel's account of the process, in bytes.
    fn of_smaps(&self, what: &str) -> Option<usize> {
        let start = self.base.as_ptr() as usize;
        let text = std::fs::read_to_string("/proc/self/smaps").ok()?;
        let mut inside = false;
        for line in text.lines() {
            let range = line.split(' ').next().and_then(|range| range.split_once('-'));
            let bounds = range.and_then(|(low, high)| {
                Some((usize::from_str_radix(low, 16).ok()?, usize::from_str_radix(high, 16).ok()?))
            });
            if let Some((low, high)) = bounds {
                inside = (low..high).contains(&start);
            } else if inside && line.starts_with(what) {
                let kilobytes: usize = line.split_ascii_whitespace().nth(1)?.parse().ok()?;
                return Some((kilobytes << 10).min(self.bytes()));
            }
        }
        None
    }
}

impl<T: Plain> Deref for TableMemory<T> {
    type Target = [T];

    #[inline(always)]
    fn deref(&self) -> &[T] {
        // SAFETY: `len` values that this table owns; zeroed or written, and any bits are a value.
        unsafe { std::slice::from_raw_parts(self.base.as_ptr(), self.len) }
    }
}

impl<T: Plain> DerefMut for TableMemory<T> {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: as above, and borrowed mutably.
        unsafe { std::slice::from_raw_parts_mut(self.base.as_ptr(), self.len) }
    }
}

impl<T: Plain> Drop for TableMemory<T> {
    fn drop(&mut self) {
        match self.source {
            Source::Heap => {
                if let Ok(layout) = Self::heap_layout(self.len) {
                    // SAFETY: allocated with just this layout.
                    unsafe { std::alloc::dealloc(self.base.as_ptr().cast(), layout) };
                }
            }
            Source::Mapped(bytes, reserved) => {
                let guard = if reserved { 0 } else { PAGE };
                // SAFETY: the mapping is this table's own, with the page behind it.
                unsafe { libc::munmap(self.base.as_ptr().cast(), bytes + guard) };
            }
        }
    }
}

fn map(bytes: usize, flags: libc::c_int) -> io::Result<*mut libc::c_void> {
    let flags = flags | libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    // SAFETY: a fresh anonymous mapping, no address asked for.
    let base =
        unsafe { libc::mmap(std::ptr::null_mut(), bytes, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0) };
    if base == libc::MAP_FAILED { Err(io::Error::last_os_error()) } else { Ok(base) }
}

/// Reserved huge pages, populated at once: a reservation that cannot be kept shows here, not as a bus error later.
fn map_reserved(bytes: usize) -> io::Result<NonNull<u8>> {
    let base = map(bytes, libc::MAP_HUGETLB | libc::MAP_HUGE_2MB)?;
    // SAFETY: the range is the mapping just made.
    if unsafe { libc::madvise(base, bytes, libc::MADV_POPULATE_WRITE) } != 0 {
        let error = io::Error::last_os_error();
        // SAFETY: as above; nothing refers to it yet.
        unsafe { libc::munmap(base, bytes) };
        return Err(error);
    }
    NonNull::new(base.cast()).ok_or_else(|| io::Error::other("mmap returned null"))
}

/// Pages of the kernel's choice at an address where huge ones fit; `transparent`: ask for those.
fn map_aligned(bytes: usize, transparent: bool) -> io::Result<NonNull<u8>> {
    let whole = bytes.checked_add(HUGE + PAGE).ok_or(io::ErrorKind::OutOfMemory)?;
    let base = map(whole, libc::MAP_NORESERVE)?.cast::<u8>();
    let before = base.align_offset(HUGE).min(HUGE);
    let start = base.wrapping_add(before);
    let end = start.wrapping_add(bytes);
    // SAFETY: what is given back lies in the mapping just made, before and behind the part that is kept and its last page,
    // which nobody may touch; the advice is about that part, and a refusal changes nothing.
    unsafe {
        if before > 0 {
            libc::munmap(base.cast(), before);
        }
        if before < HUGE {
            libc::munmap(end.wrapping_add(PAGE).cast(), HUGE - before);
        }
        libc::mprotect(end.cast(), PAGE, libc::PROT_NONE);
        let advice = if transparent { libc::MADV_HUGEPAGE } else { libc::MADV_NOHUGEPAGE };
        libc::madvise(start.cast(), bytes, advice);
    }
    NonNull::new(start).ok_or_else(|| io::Error::other("mmap returned null"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_table_lies_on_the_heap_by_cache_lines() {
        for len in [0, 1, 3, 1000] {
            let mut table = TableMemory::<u16>::filled(len, 7, HugePages::Auto).unwrap();
            assert_eq!((table.len(), table.pages()), (len, TablePages::Heap));
            assert_eq!(table.as_ptr().align_offset(64), 0);
            assert!(table.iter().all(|value| *value == 7));
            table.resize(len + 2, HugePages::Auto).unwrap();
            assert_eq!(table.iter().map(|value| usize::from(*value)).sum::<usize>(), 7 * len);
        }
    }

    #[test]
    fn a_large_table_takes_memory_as_it_is_written_to_and_says_its_pages() {
        let mut table = TableMemory::<u32>::zeroed(4 << 20, HugePages::Never).unwrap();
        let _neighbour = TableMemory::<u32>::filled(4 << 20, 1, HugePages::Never).unwrap();
        assert_eq!((table.bytes(), table.resident(), table.pages()), (16 << 20, 0, TablePages::Normal));
        table.map_for_reading();
        assert_eq!(table.resident(), 0);
        table[1 << 20] = 1;
        assert_eq!(table.resident(), PAGE);
        assert_eq!(table.iter().map(|value| *value as usize).sum::<usize>(), 1);
        let table = TableMemory::<u32>::filled(1 << 20, 9, HugePages::Auto).unwrap();
        assert_eq!((table.resident(), table.as_ptr().align_offset(HUGE)), (4 << 20, 0));
        assert!(table.pages() > TablePages::Heap);
    }

    proptest::proptest! {
        #[test]
        fn vectors_and_single_words_compare_alike(
            words in proptest::array::uniform16(proptest::prelude::any::<i32>()),
            key in proptest::prelude::any::<i32>(),
            which in 0..16usize,
        ) {
            for key in [key, words[which], i32::MIN, i32::MAX] {
                let line = Line(words);
                proptest::prop_assert_eq!(line.below(key), line.below_one_by_one(key));
                proptest::prop_assert_eq!(line.below_in_first_half(key) & 0xff, line.below_one_by_one(key) & 0xff);
            }
        }
    }

    #[test]
    fn a_table_that_cannot_be_had_is_an_error() {
        assert!(TableMemory::<u64>::zeroed(usize::MAX / 4, HugePages::Auto).is_err());
        assert!(TableMemory::<u64>::zeroed(1 << 44, HugePages::Auto).is_err());
    }
}
