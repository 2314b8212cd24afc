//! Numbered slots that are found by a hash: what hosts and bindings of a shard lie in.
//!
//! The index is open-addressed, eight bytes an entry: half of the hash, and the slot's number. Whoever finds an entry compares
//! the key with what lies in the slot. So a look-up that finds nothing reads one line, and growing needs no keys.

use crate::service::Show;

/// Numbers by hashes. Free entries are zero; others have a number plus one.
#[derive(Debug, Default)]
pub(super) struct Index {
    places: Vec<u64>,
    len: usize,
}

impl Index {
    /// Where looking for a hash begins. Not to be read.
    pub(super) fn home(&self, hash: u32) -> *const u64 {
        self.places.as_ptr().wrapping_add(hash as usize & self.places.len().wrapping_sub(1))
    }

    /// The places of a hash, from where it belongs on.
    fn from(&self, hash: u32) -> impl Iterator<Item = (usize, u64)> + '_ {
        let mask = self.places.len().wrapping_sub(1);
        (0..self.places.len()).map_while(move |step| {
            let at = (hash as usize).wrapping_add(step) & mask;
            self.places.get(at).filter(|entry| **entry != 0).map(|entry| (at, *entry))
        })
    }

    /// The numbers that were put in under a hash.
    pub(super) fn numbers(&self, hash: u32) -> impl Iterator<Item = u32> + '_ {
        let own = self.from(hash).filter(move |(_, entry)| (entry >> 32) as u32 == hash);
        own.map(|(_, entry)| (entry as u32).wrapping_sub(1))
    }

    /// Every hash with its number, in no order.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, u32)> + '_ {
        let taken = self.places.iter().filter(|entry| **entry != 0);
        taken.map(|entry| ((entry >> 32) as u32, (*entry as u32).wrapping_sub(1)))
    }

    /// Puts a number below `u32::MAX` in.
    pub(super) fn insert(&mut self, hash: u32, slot: u32) {
        // A quarter is free, so that few entries are not near where they belong.
        if (self.len + 1) * 4 > self.places.len() * 3 {
            let doubled = (self.places.len() * 2).max(16);
            let old = std::mem::replace(&mut self.places, vec![0; doubled]);
            old.into_iter().filter(|entry| *entry != 0).for_each(|entry| self.put(entry));
        }
        self.len += 1;
        self.put(u64::from(hash) << 32 | (u64::from(slot) + 1));
    }

    fn put(&mut self, entry: u64) {
        let mask = self.places.len().wrapping_sub(1);
        let mut at = (entry >> 32) as usize & mask;
        while let Some(place) = self.places.get_mut(at) {
            if *place == 0 {
                *place = entry;
                return;
            }
            at = (at + 1) & mask;
        }
    }

    /// Takes a number out, if it is there.
    pub(super) fn remove(&mut self, hash: u32, slot: u32) {
        let own = u64::from(hash) << 32 | (u64::from(slot) + 1);
        let Some((mut gap, _)) = self.from(hash).find(|(_, entry)| *entry == own) else { return };
        self.len -= 1;
        let mask = self.places.len().wrapping_sub(1);
        // What stands behind and belongs in front of the gap or into it moves up: no look-up stops too early.
        let mut at = gap;
        loop {
            at = (at + 1) & mask;
            let entry = self.places.get(at).copied().unwrap_or(0);
            let home = (entry >> 32) as usize & mask;
            if entry != 0 && at.wrapping_sub(home) & mask < at.wrapping_sub(gap) & mask {
                continue;
            }
            if let Some(place) = self.places.get_mut(gap) {
                *place = entry;
            }
            if entry == 0 {
                return;
            }
            gap = at;
        }
    }
}

/// Values in slots that keep their numbers.
#[derive(Debug)]
pub(super) struct Slots<T> {
    index: Index,
    slots: Vec<Option<T>>,
    free: Vec<u32>,
}

impl<T> Default for Slots<T> {
    fn default() -> Self {
        Self { index: Index::default(), slots: Vec::new(), free: Vec::new() }
    }
}

impl<T> Slots<T> {
    /// Bytes that a value takes, index and free places included, about.
    pub(super) const EACH: usize = 3 * size_of::<u64>() + 2 * size_of::<Option<T>>() + size_of::<u32>();

    /// Where looking for a hash begins.
    pub(super) fn home(&self, hash: u32) -> *const u64 {
        self.index.home(hash)
    }

    /// Shows where the next value will lie: its first byte and its last.
    pub(super) fn show_next(&self, show: Show<'_>) {
        let next = self.slots.as_ptr().wrapping_add(self.next() as usize).cast::<u8>();
        show(next);
        if 64 % size_of::<Option<T>>() != 0 {
            show(next.wrapping_add(size_of::<Option<T>>() - 1));
        }
    }

    /// What `wanted` makes of the first value with this hash that it wants.
    pub(super) fn find<R>(&self, hash: u32, mut wanted: impl FnMut(u32, &T) -> Option<R>) -> Option<R> {
        self.index.numbers(hash).find_map(|slot| wanted(slot, self.get(slot)?))
    }

    /// The slot that the next value will have.
    pub(super) fn next(&self) -> u32 {
        self.free.last().copied().unwrap_or(self.slots.len() as u32)
    }

    /// Puts a value into the next slot, whose number is below `u32::MAX`.
    #[inline(always)]
    pub(super) fn insert(&mut self, hash: u32, value: T) -> u32 {
        let slot = match self.free.pop() {
            Some(slot) => slot,
            None => {
                self.slots.push(None);
                self.slots.len() as u32 - 1
            }
        };
        if let Some(place) = self.slots.get_mut(slot as usize) {
            *place = Some(value);
        }
        self.index.insert(hash, slot);
        slot
    }

    pub(super) fn get(&self, slot: u32) -> Option<&T> {
        self.slots.get(slot as usize)?.as_ref()
    }

    pub(super) fn get_mut(&mut self, slot: u32) -> Option<&mut T> {
        self.slots.get_mut(slot as usize)?.as_mut()
    }

    /// Takes the value of a slot out, which was put there with this hash.
    pub(super) fn remove(&mut self, hash: u32, slot: u32) -> Option<T> {
        let value = self.slots.get_mut(slot as usize)?.take()?;
        self.index.remove(hash, slot);
        self.free.push(slot);
        Some(value)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn values_are_found_as_a_list_has_them(
            steps in proptest::collection::vec((any::<bool>(), 0u32..40), 1..300),
            spread in prop_oneof![Just(0u32), Just(1), Just(0x1000_0001), Just(u32::MAX)],
        ) {
            // Few different hashes, some of them at the very end: entries crowd, and go on round it.
            let hash = |key: u32| (key % 12).wrapping_mul(spread).wrapping_sub(3);
            let mut slots = Slots::default();
            let mut twin: BTreeMap<u32, u32> = BTreeMap::new();
            for (put, key) in steps {
                match (put, twin.get(&key).copied()) {
                    (true, None) => {
                        let next = slots.next();
                        prop_assert_eq!(slots.insert(hash(key), key), next);
                        prop_assert!(twin.values().all(|slot| *slot != next));
                        twin.insert(key, next);
                    }
                    (false, Some(slot)) => {
                        prop_assert_eq!(slots.remove(hash(key), slot), Some(key));
                        prop_assert_eq!(slots.remove(hash(key), slot), None);
                        twin.remove(&key);
                    }
                    _ => {}
                }
                for key in 0..40 {
                    let found = slots.find(hash(key), |slot, held| (*held == key).then_some(slot));
                    prop_assert_eq!(found, twin.get(&key).copied());
                    prop_assert_eq!(found.and_then(|slot| slots.get(slot).copied()), found.map(|_| key));
                }
                prop_assert_eq!(slots.index.len, twin.len());
                prop_assert_eq!(slots.index.iter().count(), twin.len());
                prop_assert_eq!(slots.index.places.iter().filter(|entry| **entry != 0).count(), twin.len());
            }
        }
    }
}
