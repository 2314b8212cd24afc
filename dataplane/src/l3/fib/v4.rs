//! IPv4 longest-prefix match: a multibit trie with leaves pushed down, strides 16-8-8, or 8-8-8-8 for a small table.
//!
//! Blocks of entries lie in one vector. An entry is a target's number, a child block, or nothing; a lookup reads one
//! entry a level and never goes back.

use ipnet::Ipv4Net;

/// No route.
const NONE: u32 = 0;
/// Set in an entry that names a child block: the rest is the block's first index.
const CHILD: u32 = 1 << 31;
/// Up to so many routes the root has 2^8 entries (1 KiB) instead of 2^16 (256 KiB): many VRFs are small.
const SMALL: usize = 256;

#[derive(Debug)]
pub(super) struct TrieV4 {
    /// 32 − the root's stride.
    root_shift: u32,
    /// The root, then child blocks of 256 entries. An entry: [`NONE`], [`CHILD`] | index, or a target's number + 1.
    entries: Vec<u32>,
}

impl TrieV4 {
    /// Of equal prefixes the last counts. Host bits must be zero.
    pub(super) fn build(mut routes: Vec<(Ipv4Net, u32)>) -> Self {
        // Short prefixes first, so that a longer one overwrites its part. The sort is stable.
        routes.sort_by_key(|(prefix, _)| prefix.prefix_len());
        let root_bits = if routes.len() <= SMALL { 8 } else { 16 };
        let mut trie = Self { root_shift: 32 - root_bits, entries: vec![NONE; 1 << root_bits] };
        for (prefix, target) in routes {
            trie.insert(prefix.network().to_bits(), u32::from(prefix.prefix_len()), target + 1);
        }
        trie.entries.shrink_to_fit();
        trie
    }

    fn insert(&mut self, network: u32, len: u32, entry: u32) {
        let (mut base, mut shift, mut index) = (0, self.root_shift, network >> self.root_shift);
        while 32 - shift < len {
            base = self.child(base + index as usize);
            shift -= 8;
            index = (network >> shift) & 0xff;
        }
        // The prefix ends within this level: it fills a run of entries, all of them leaves (longer ones come later).
        let run = 1usize << (32 - shift - len);
        let first = base + index as usize;
        if let Some(entries) = self.entries.get_mut(first..first + run) {
            entries.fill(entry);
        }
    }

    /// First index of the child block behind entry `at`; made, and filled with what the entry said, if it is not there.
    fn child(&mut self, at: usize) -> usize {
        let entry = self.entries.get(at).copied().unwrap_or(NONE);
        if entry & CHILD != 0 {
            return (entry & !CHILD) as usize;
        }
        let base = self.entries.len();
        self.entries.resize(base + 256, entry);
        if let Some(cell) = self.entries.get_mut(at) {
            *cell = CHILD | base as u32;
        }
        base
    }

    /// The target's number.
    #[inline]
    pub(super) fn lookup(&self, address: u32) -> Option<u32> {
        let mut shift = self.root_shift;
        let mut entry = *self.entries.get((address >> shift) as usize)?;
        while entry & CHILD != 0 {
            shift -= 8;
            let index = (entry & !CHILD) + ((address >> shift) & 0xff);
            entry = *self.entries.get(index as usize)?;
        }
        entry.checked_sub(1)
    }

    pub(super) fn memory(&self) -> usize {
        self.entries.capacity() * size_of::<u32>()
    }
}
