//! Flows that are not where they are looked for first: of which lines there are some.
//!
//! A flow may be in one of four lines. Most are in the first; whoever looks for a flow that is not there, and is nowhere, would read the
//! other three for nothing, from memory. One bit a line says whether that is needed. Bits are only ever set; each pass of the sweep
//! over the table makes new ones, of what it saw and what came meanwhile, for the next.

/// One bit for each line, set if a flow that is looked for there first may be elsewhere.
#[derive(Debug)]
pub(super) struct Strays {
    now: Vec<u64>,
    /// Those of the next pass, as far as they are known.
    next: Vec<u64>,
}

impl Strays {
    /// Of an empty table of so many lines.
    pub(super) fn new(lines: usize) -> Self {
        let words = lines.div_ceil(64);
        Self { now: vec![0; words], next: vec![0; words] }
    }

    /// Memory of the bits of so many lines, in bytes.
    pub(super) const fn bytes_for(lines: usize) -> usize {
        2 * lines.div_ceil(64) * size_of::<u64>()
    }

    /// Whether flows that are looked for first in `line` may be elsewhere.
    #[inline(always)]
    pub(super) fn may_be_of(&self, line: usize) -> bool {
        self.now.get(line / 64).is_some_and(|word| word >> (line % 64) & 1 == 1)
    }

    /// A flow that is looked for first in `home` is put into `line`.
    #[inline]
    pub(super) fn note(&mut self, home: usize, line: usize) {
        if home != line {
            set(&mut self.now, home);
            set(&mut self.next, home);
        }
    }

    /// The sweep has met a flow that is looked for first in `home`, in `line`.
    #[inline]
    pub(super) fn seen(&mut self, home: usize, line: usize) {
        if home != line {
            set(&mut self.next, home);
        }
    }

    /// The sweep begins anew.
    pub(super) fn turn(&mut self) {
        std::mem::swap(&mut self.now, &mut self.next);
        self.next.fill(0);
    }
}

#[inline]
fn set(bits: &mut [u64], line: usize) {
    if let Some(word) = bits.get_mut(line / 64) {
        *word |= 1 << (line % 64);
    }
}
