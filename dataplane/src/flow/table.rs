//! A worker's flow table: bounded, private, keyed with a random seed.
//!
//! Buckets of eight tags stand apart from the entries, so that a miss costs one cache line and a hit two more (key,
//! program). A key has two candidate buckets; when both are full the entry that was used longest ago gives way.

use crate::decision::Nanos;

use super::{FlowKey, Program, Rewrite};

/// Entries in a bucket.
const WAYS: usize = 8;
/// A slot that holds nothing.
const EMPTY: u32 = u32::MAX;

/// One bucket: a cache line of tags and entry numbers.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
struct Bucket {
    /// Eight tags of 16 bits, the first way's lowest.
    tags: u128,
    entries: [u32; WAYS],
}

impl Bucket {
    /// The ways whose tag is `tag`, as the highest bits of their lanes: all eight compared at once, by finding the zero
    /// lanes of the difference. A way behind the first one found may be there wrongly, and an empty way may; the key tells.
    #[inline]
    fn matching(&self, tag: u16) -> u128 {
        const ONES: u128 = u128::MAX / 0xffff;
        let lanes = u64::from(tag) * (ONES as u64);
        let differences = self.tags ^ (u128::from(lanes) << 64 | u128::from(lanes));
        differences.wrapping_sub(ONES) & !differences & (ONES << 15)
    }

    /// The entry of the first way in `ways`.
    #[inline]
    fn first(&self, ways: u128) -> Option<u32> {
        self.entries.get(ways.trailing_zeros() as usize / 16).copied()
    }
}

/// One flow: two cache lines.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
pub struct Entry {
    /// The masked key.
    pub key: FlowKey,
    /// What to do.
    pub program: Program,
    /// Generation of the snapshot that the program was compiled from.
    pub generation: u32,
    /// Epoch of the forwarding tables at the walk or the last look-up.
    pub epoch: u32,
    /// Milliseconds of the engine's clock at the last packet.
    pub used: u32,
    /// Packets replayed.
    pub packets: u64,
    /// Bytes replayed.
    pub bytes: u64,
}

impl Entry {
    /// Counts one packet.
    #[inline]
    pub fn count(&mut self, bytes: usize, now_ms: u32) {
        self.packets += 1;
        self.bytes += bytes as u64;
        self.used = now_ms;
    }
}

/// Number of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot(u32);

impl Slot {
    /// No entry.
    pub const NONE: Self = Self(EMPTY);
}

/// All rewrites of a flow table.
#[derive(Clone, Copy, Debug)]
pub struct Rewrites<'a>(&'a [Rewrite]);

impl Rewrites<'_> {
    /// That of a slot.
    #[inline]
    pub fn of(self, slot: Slot) -> Rewrite {
        self.0.get(slot.0 as usize).copied().unwrap_or_default()
    }
}

/// A worker's flow table.
pub struct FlowTable {
    buckets: Box<[Bucket]>,
    /// A free entry's key is [`FlowKey::NONE`]. Room for all of them is there from the start; memory is taken as they are first
    /// used.
    entries: Vec<Entry>,
    /// Rewrites by entry number; read only for programs that rewrite.
    rewrites: Vec<Rewrite>,
    /// Entries that were used and are free again.
    free: Vec<u32>,
    capacity: usize,
    /// Bucket mask.
    mask: u64,
    seed: [u64; 8],
    evictions: u64,
    sweep_at: usize,
}

impl std::fmt::Debug for FlowTable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FlowTable").field("capacity", &self.capacity()).field("len", &self.len()).finish()
    }
}

impl FlowTable {
    /// A table of at most `capacity` flows, hashed with `seed`.
    pub fn new(capacity: usize, seed: [u64; 8]) -> Self {
        let capacity = capacity.max(WAYS);
        let buckets = (capacity.div_ceil(WAYS) * 2).next_power_of_two();
        Self {
            buckets: vec![Bucket { tags: 0, entries: [EMPTY; WAYS] }; buckets].into(),
            entries: Vec::with_capacity(capacity),
            rewrites: Vec::with_capacity(capacity),
            free: Vec::with_capacity(capacity),
            capacity,
            mask: buckets as u64 - 1,
            seed,
            evictions: 0,
            sweep_at: 0,
        }
    }

    /// Most flows.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Flows now.
    pub fn len(&self) -> usize {
        self.entries.len() - self.free.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Flows that gave way to others since start.
    pub fn evictions(&self) -> u64 {
        self.evictions
    }

    /// The table's hash of a key.
    #[inline]
    pub fn hash(&self, key: &FlowKey) -> u64 {
        key.hash(&self.seed)
    }

    #[inline]
    fn places(&self, hash: u64) -> (usize, usize, u16) {
        let tag = (hash >> 48) as u16;
        let first = hash & self.mask;
        // The second bucket depends on the first and the tag alone.
        let second = (first ^ (u64::from(tag) + 1).wrapping_mul(0xc6a4_a793_5bd1_e995)) & self.mask;
        (first as usize, second as usize, tag)
    }

    /// Asks the processor for the first bucket of `hash`.
    #[inline]
    pub fn prefetch_bucket(&self, hash: u64) {
        if let Some(bucket) = self.buckets.get((hash & self.mask) as usize) {
            prefetch(bucket);
        }
    }

    /// The first entry in the first bucket whose tag matches: a guess for [`find_guessed`](Self::find_guessed). Its
    /// lines are asked for.
    #[inline]
    pub fn guess(&self, hash: u64) -> Slot {
        let (first, _, tag) = self.places(hash);
        let Some(bucket) = self.buckets.get(first) else { return Slot::NONE };
        let Some(number) = bucket.first(bucket.matching(tag)) else { return Slot::NONE };
        if let Some(entry) = self.entries.get(number as usize) {
            prefetch(&entry.key);
            prefetch(&entry.program);
        }
        Slot(number)
    }

    /// Looks a key up, first where a guess says.
    #[inline]
    pub fn find_guessed(&self, guess: Slot, key: &FlowKey, hash: u64) -> Slot {
        // An entry that was freed since has another key.
        match self.entry(guess) {
            Some(entry) if entry.key == *key => guess,
            _ => self.find(key, hash),
        }
    }

    /// Looks a key up.
    pub fn find(&self, key: &FlowKey, hash: u64) -> Slot {
        let (first, second, tag) = self.places(hash);
        let found = self.find_in(first, tag, key);
        if found != Slot::NONE { found } else { self.find_in(second, tag, key) }
    }

    #[inline]
    fn find_in(&self, bucket: usize, tag: u16, key: &FlowKey) -> Slot {
        let Some(bucket) = self.buckets.get(bucket) else { return Slot::NONE };
        let mut ways = bucket.matching(tag);
        while let Some(number) = bucket.first(ways) {
            if self.entries.get(number as usize).is_some_and(|entry| entry.key == *key) {
                return Slot(number);
            }
            ways &= ways - 1;
        }
        Slot::NONE
    }

    /// The entry of a slot.
    #[inline]
    pub fn entry(&self, slot: Slot) -> Option<&Entry> {
        self.entries.get(slot.0 as usize)
    }

    /// The entry of a slot, to change.
    #[inline]
    pub fn entry_mut(&mut self, slot: Slot) -> Option<&mut Entry> {
        self.entries.get_mut(slot.0 as usize)
    }

    /// The rewrite of a slot.
    #[inline]
    pub fn rewrite(&self, slot: Slot) -> Option<&Rewrite> {
        self.rewrites.get(slot.0 as usize)
    }

    /// The entry of a slot, to change, and beside it all rewrites.
    #[inline]
    pub fn entry_and_rewrites(&mut self, slot: Slot) -> Option<(&mut Entry, Rewrites<'_>)> {
        Some((self.entries.get_mut(slot.0 as usize)?, Rewrites(&self.rewrites)))
    }

    /// Inserts a flow, or replaces its program. Makes room if need be.
    pub fn insert(
        &mut self,
        key: &FlowKey,
        hash: u64,
        program: Program,
        rewrite: Rewrite,
        generation: u32,
        epoch: u32,
        now_ms: u32,
    ) -> Slot {
        let found = self.find(key, hash);
        let slot = if found != Slot::NONE { found } else { self.make_room(key, hash, now_ms) };
        if let Some(entry) = self.entries.get_mut(slot.0 as usize) {
            if found == Slot::NONE {
                (entry.packets, entry.bytes) = (0, 0);
                entry.key = *key;
            }
            entry.program = program;
            entry.generation = generation;
            entry.epoch = epoch;
            entry.used = now_ms;
        }
        if let Some(place) = self.rewrites.get_mut(slot.0 as usize) {
            *place = rewrite;
        }
        slot
    }

    /// A slot for a key that is not there: a free one, or that of the flow in its buckets that was used longest ago.
    fn make_room(&mut self, _key: &FlowKey, hash: u64, now_ms: u32) -> Slot {
        let (first, second, tag) = self.places(hash);
        let mut oldest = (first, 0, 0u32, EMPTY);
        for bucket in [first, second] {
            let Some(ways) = self.buckets.get(bucket) else { continue };
            for (way, number) in ways.entries.iter().enumerate() {
                if *number == EMPTY {
                    if let Some(free) =
                        free_entry(&mut self.entries, &mut self.rewrites, &mut self.free, self.capacity)
                    {
                        self.put(bucket, way, tag, free);
                        return Slot(free);
                    }
                    continue;
                }
                let idle = self.entries.get(*number as usize).map_or(0, |e| now_ms.wrapping_sub(e.used));
                if oldest.3 == EMPTY || idle > oldest.2 {
                    oldest = (bucket, way, idle, *number);
                }
            }
        }
        if oldest.3 == EMPTY {
            // No entry is free and both buckets are empty: take one from wherever the sweep stands.
            self.evict_any();
            return match self.free.pop() {
                Some(free) => {
                    self.put(first, 0, tag, free);
                    Slot(free)
                }
                None => Slot::NONE,
            };
        }
        self.evictions += 1;
        self.put(oldest.0, oldest.1, tag, oldest.3);
        Slot(oldest.3)
    }

    fn put(&mut self, bucket: usize, way: usize, tag: u16, entry: u32) {
        if let Some(bucket) = self.buckets.get_mut(bucket) {
            if let Some(place) = bucket.entries.get_mut(way) {
                *place = entry;
                let lane = 16 * way;
                bucket.tags = bucket.tags & !(0xffff << lane) | u128::from(tag) << lane;
            }
        }
    }

    fn evict_any(&mut self) {
        for _ in 0..self.buckets.len() {
            self.sweep_at = (self.sweep_at + 1) % self.buckets.len();
            let Some(bucket) = self.buckets.get_mut(self.sweep_at) else { return };
            if let Some(place) = bucket.entries.iter_mut().find(|number| **number != EMPTY) {
                release(&mut self.entries, &mut self.free, place);
                self.evictions += 1;
                return;
            }
        }
    }

    /// Removes a flow.
    pub fn remove(&mut self, key: &FlowKey, hash: u64) -> bool {
        let slot = self.find(key, hash);
        if slot == Slot::NONE {
            return false;
        }
        let (first, second, _) = self.places(hash);
        for bucket in [first, second] {
            if let Some(bucket) = self.buckets.get_mut(bucket) {
                if let Some(place) = bucket.entries.iter_mut().find(|number| **number == slot.0) {
                    release(&mut self.entries, &mut self.free, place);
                    return true;
                }
            }
        }
        false
    }

    /// Visits `buckets` buckets, from where the last sweep stopped. `keep` sees each flow; false removes it. Returns
    /// whether the sweep wrapped round the table.
    pub fn sweep(&mut self, buckets: usize, mut keep: impl FnMut(&Entry) -> bool) -> bool {
        let mut wrapped = false;
        for _ in 0..buckets.min(self.buckets.len()) {
            self.sweep_at += 1;
            if self.sweep_at >= self.buckets.len() {
                self.sweep_at = 0;
                wrapped = true;
            }
            let Some(bucket) = self.buckets.get_mut(self.sweep_at) else { break };
            for number in &mut bucket.entries {
                if *number == EMPTY {
                    continue;
                }
                if !self.entries.get(*number as usize).is_some_and(&mut keep) {
                    release(&mut self.entries, &mut self.free, number);
                }
            }
        }
        wrapped
    }

    /// Number of buckets, as [`sweep`](Self::sweep) counts them.
    pub fn buckets(&self) -> usize {
        self.buckets.len()
    }

    /// Every flow with its slot.
    pub fn iter(&self) -> impl Iterator<Item = (Slot, &Entry)> {
        self.buckets
            .iter()
            .flat_map(|bucket| bucket.entries)
            .filter(|number| *number != EMPTY)
            .filter_map(|number| Some((Slot(number), self.entries.get(number as usize)?)))
    }
}

/// Takes a free entry: one that was used before, or else the next one.
fn free_entry(
    entries: &mut Vec<Entry>,
    rewrites: &mut Vec<Rewrite>,
    free: &mut Vec<u32>,
    capacity: usize,
) -> Option<u32> {
    if let Some(number) = free.pop() {
        return Some(number);
    }
    if entries.len() >= capacity {
        return None;
    }
    entries.push(Entry {
        key: FlowKey::NONE,
        program: Program::default(),
        generation: 0,
        epoch: 0,
        used: 0,
        packets: 0,
        bytes: 0,
    });
    rewrites.push(Rewrite::default());
    Some(entries.len() as u32 - 1)
}

/// Frees the entry that `place` points at.
fn release(entries: &mut [Entry], free: &mut Vec<u32>, place: &mut u32) {
    if let Some(entry) = entries.get_mut(*place as usize) {
        entry.key = FlowKey::NONE;
    }
    free.push(*place);
    *place = EMPTY;
}

/// Milliseconds of the engine's clock, as entries keep them (wraps after 49 days; only differences count).
#[inline]
pub fn milliseconds(now: Nanos) -> u32 {
    (now / 1_000_000) as u32
}

/// Asks the processor for the cache lines of `value`.
#[inline]
pub fn prefetch<T>(value: &T) {
    for line in (0..size_of::<T>()).step_by(64) {
        prefetch_line(std::ptr::from_ref(value).cast::<u8>().wrapping_add(line));
    }
}

/// Asks the processor for the cache line at an address, which may be any.
#[inline]
pub fn prefetch_line(address: *const u8) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: prefetching has no effect on memory and cannot fault.
    #[allow(unsafe_code)]
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        _mm_prefetch(address.cast::<i8>(), _MM_HINT_T0);
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = address;
}

const _: () = assert!(size_of::<Entry>() == 128);
const _: () = assert!(size_of::<Bucket>() == 64);

#[cfg(test)]
mod tests;
