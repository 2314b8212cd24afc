//! The index of sessions: which slot has a key, over shards.
//!
//! Of a key only some bits of its hash are kept, eight bytes with the slot's number, seven such entries in a cache line: whoever finds an entry
//! compares the key with the slot's session. So a look-up that finds nothing reads one line, and takes no lock; who changes a
//! shard holds its lock.

use std::net::IpAddr;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use ahash::RandomState;

use crate::decision::{Direction, Domain, Lock, SessionId, Tuple};
use crate::packet::hash::fold;

const SHARDS: usize = 64;
const WAYS: usize = 7;

/// What hashes are keyed with.
#[derive(Debug)]
pub(super) struct Seed([u64; 4]);

impl Seed {
    pub(super) fn random() -> Self {
        let random = RandomState::new();
        Self([0u64, 1, 2, 3].map(|number| random.hash_one(number)))
    }
}

/// What a session is found by, and its hash under the table's seed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Key<'a> {
    hash: u64,
    pub(super) tuple: &'a Tuple,
    pub(super) domain: Domain,
}

impl<'a> Key<'a> {
    pub(super) fn new(seed: &Seed, domain: Domain, tuple: &'a Tuple) -> Self {
        let Seed([a, b, c, d]) = seed;
        let (kind, number) = match domain {
            Domain::Vrf(vrf) => (0, vrf.0),
            Domain::Bridge(bridge) => (1, bridge.0),
            Domain::CrossConnect(scope) => (2, scope.0),
            Domain::Hop(hop) => (3, hop.0),
        };
        let ports = u64::from(tuple.source_port) << 16 | u64::from(tuple.destination_port);
        let domain_bits = kind << 56 | u64::from(number) << 40;
        let rest = domain_bits | u64::from(tuple.protocol) << 32 | ports;
        let addresses = match (tuple.source, tuple.destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                u64::from(source.to_bits()) << 32 | u64::from(destination.to_bits())
            }
            (source, destination) => {
                let halves = |ip: IpAddr| match ip {
                    IpAddr::V4(ip) => (0, u64::from(ip.to_bits())),
                    IpAddr::V6(ip) => ((ip.to_bits() >> 64) as u64, ip.to_bits() as u64),
                };
                let ((e, f), (g, h)) = (halves(source), halves(destination));
                fold(fold(e ^ a, f ^ b) ^ g, h ^ c)
            }
        };
        let hash = fold(fold(addresses ^ a, rest ^ b) ^ c, d | 1);
        Self { hash, tuple, domain }
    }

    /// Which shard it is in.
    pub(super) fn shard(&self) -> usize {
        (self.hash >> 58) as usize % SHARDS
    }

    /// The bits of its hash that are kept.
    fn tag(&self) -> u64 {
        self.hash >> 16 << 32
    }
}

/// One cache line of entries.
#[derive(Debug, Default)]
#[repr(align(64))]
pub(super) struct Bucket {
    /// A tag (high half), and the number of a slot with a direction, plus one; 0 is free.
    entries: [AtomicU64; WAYS],
    /// How many entries belong here or before, and stand behind: a look-up goes on.
    passed: AtomicU32,
}

impl Bucket {
    /// Which entries have a tag, and which are free: bits, the first entry's lowest.
    #[inline]
    fn compare(&self, tag: u64) -> (u32, u32) {
        let (mut same, mut free) = (0, 0);
        for (at, place) in self.entries.iter().enumerate() {
            let value = place.load(Ordering::Relaxed);
            same |= u32::from((value ^ tag) >> 32 == 0) << at;
            free |= u32::from(value as u32 == 0) << at;
        }
        (same, free)
    }

    /// What `wanted` makes of the first of some entries that it takes.
    #[inline]
    fn first_of<T>(
        &self,
        mut among: u32,
        wanted: &mut impl FnMut(SessionId, Direction) -> Option<T>,
    ) -> Option<T> {
        while among != 0 {
            // It may be another's by now, or nobody's.
            let value = self.entries.get(among.trailing_zeros() as usize)?.load(Ordering::Relaxed);
            let (id, direction) = held(value);
            if let Some(found) = wanted(id, direction).filter(|_| value as u32 != 0) {
                return Some(found);
            }
            among &= among - 1;
        }
        None
    }
}

/// The index.
#[derive(Debug)]
pub(super) struct Index {
    buckets: Box<[Bucket]>,
    locks: Box<[Lock<()>]>,
    /// Buckets of a shard: a power of two.
    each: usize,
}

/// A free place for a key: so many buckets behind its first one, and where in there.
#[derive(Clone, Copy, Debug)]
pub(super) struct Vacancy {
    step: usize,
    at: usize,
}

/// A shard that may be changed.
pub(super) type Locked<'a> = crate::decision::Locked<'a, ()>;

fn entry(key: &Key<'_>, id: SessionId, direction: Direction) -> u64 {
    let place = u64::from(id.0) << 1 | u64::from(direction == Direction::Reverse);
    key.tag() | (place + 1)
}

/// Whose an entry is, that is not free.
fn held(entry: u64) -> (SessionId, Direction) {
    let number = (entry as u32).wrapping_sub(1);
    (SessionId(number >> 1), if number & 1 == 0 { Direction::Forward } else { Direction::Reverse })
}

impl Index {
    /// An index of `keys` keys. Some more fit, since they are not spread evenly.
    pub(super) fn new(keys: usize) -> Self {
        let each = Self::each(keys);
        let buckets = (0..SHARDS * each).map(|_| Bucket::default()).collect();
        Self { buckets, locks: (0..SHARDS).map(|_| Lock::default()).collect(), each }
    }

    /// Buckets of a shard: for its share of the keys, six standard deviations more, and a quarter of free places.
    fn each(keys: usize) -> usize {
        let share = keys / SHARDS;
        let most = (share + 6 * share.isqrt() + 12).min(keys + 2);
        (most * 4).div_ceil(3 * WAYS).next_power_of_two()
    }

    /// Memory of an index of `keys` keys, in bytes.
    pub(super) fn bytes_for(keys: usize) -> usize {
        SHARDS * Self::each(keys) * size_of::<Bucket>()
    }

    /// Locks the shards of two keys, in the order of their numbers; once if they are one and the same.
    pub(super) fn lock(&self, keys: [&Key<'_>; 2]) -> [Option<Locked<'_>>; 2] {
        let [first, second] = keys.map(Key::shard);
        let low = self.locks.get(first.min(second)).map(Lock::lock);
        let high = if first == second { None } else { self.locks.get(first.max(second)).map(Lock::lock) };
        [low, high]
    }

    /// Where a key's entries begin.
    #[inline]
    pub(super) fn home(&self, key: &Key<'_>) -> Option<&Bucket> {
        self.buckets.get(self.place(key, 0))
    }

    /// The number of the bucket `step` behind the first one of a key.
    fn place(&self, key: &Key<'_>, step: usize) -> usize {
        key.shard() * self.each + ((key.hash as usize).wrapping_add(step) & (self.each - 1))
    }

    /// The first entry that may be of a key and that `wanted` takes.
    pub(super) fn find<T>(
        &self,
        key: &Key<'_>,
        mut wanted: impl FnMut(SessionId, Direction) -> Option<T>,
    ) -> Option<T> {
        for step in 0..self.each {
            let bucket = self.buckets.get(self.place(key, step))?;
            let (same, free) = bucket.compare(key.tag());
            let found = bucket.first_of(same & !free, &mut wanted);
            if found.is_some() {
                return found;
            }
            if bucket.passed.load(Ordering::Relaxed) == 0 {
                return None;
            }
        }
        None
    }

    /// Where a key, whose shard is locked, can be entered; `None` if there is no room. Or what `wanted` makes of the first entry
    /// that may be of the key and that it takes.
    pub(super) fn vacancy<T>(
        &self,
        key: &Key<'_>,
        mut wanted: impl FnMut(SessionId, Direction) -> Option<T>,
    ) -> Result<Option<Vacancy>, T> {
        let mut vacancy = None;
        for step in 0..self.each {
            let Some(bucket) = self.buckets.get(self.place(key, step)) else { break };
            let (same, free) = bucket.compare(key.tag());
            if let Some(found) = bucket.first_of(same & !free, &mut wanted) {
                return Err(found);
            }
            if vacancy.is_none() && free != 0 {
                vacancy = Some(Vacancy { step, at: free.trailing_zeros() as usize });
            }
            if vacancy.is_some() && bucket.passed.load(Ordering::Relaxed) == 0 {
                break;
            }
        }
        Ok(vacancy)
    }

    /// Enters a key, whose shard is locked, where there is room for it. False if that is taken by now.
    pub(super) fn enter(&self, key: &Key<'_>, vacancy: Vacancy, id: SessionId, direction: Direction) -> bool {
        let bucket = self.buckets.get(self.place(key, vacancy.step));
        let Some(place) = bucket.and_then(|bucket| bucket.entries.get(vacancy.at)) else { return false };
        if place.load(Ordering::Relaxed) as u32 != 0 {
            return false;
        }
        place.store(entry(key, id, direction), Ordering::Relaxed);
        self.pass(key, vacancy.step, 1);
        true
    }

    /// Takes a key out, whose shard is locked, if it is there.
    pub(super) fn remove(&self, key: &Key<'_>, id: SessionId, direction: Direction) {
        let own = entry(key, id, direction);
        for step in 0..self.each {
            let Some(bucket) = self.buckets.get(self.place(key, step)) else { return };
            if let Some(place) = bucket.entries.iter().find(|place| place.load(Ordering::Relaxed) == own) {
                place.store(0, Ordering::Relaxed);
                self.pass(key, step, u32::MAX);
                return;
            }
            if bucket.passed.load(Ordering::Relaxed) == 0 {
                return;
            }
        }
    }

    /// Counts `change` in the buckets that a key went past.
    fn pass(&self, key: &Key<'_>, steps: usize, change: u32) {
        for step in 0..steps {
            if let Some(bucket) = self.buckets.get(self.place(key, step)) {
                let passed = bucket.passed.load(Ordering::Relaxed).wrapping_add(change);
                bucket.passed.store(passed, Ordering::Relaxed);
            }
        }
    }
}

const _: () = assert!(size_of::<Bucket>() == 64);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decision::VrfId;

    fn key(number: u32) -> Key<'static> {
        let ip = |low: u32| IpAddr::V4(low.into());
        let tuple = Tuple {
            source: ip(number),
            destination: ip(!number),
            protocol: 17,
            source_port: 1,
            destination_port: 2,
        };
        Key::new(&Seed([3, 5, 7, 11]), Domain::Vrf(VrfId(0)), Box::leak(Box::new(tuple)))
    }

    fn holders(index: &Index, key: &Key<'_>) -> Vec<u32> {
        let mut found = Vec::new();
        let none: Option<()> = index.find(key, |id, _| {
            found.push(id.0);
            None
        });
        assert_eq!(none, None);
        found
    }

    fn insert(index: &Index, key: &Key<'_>, id: SessionId, direction: Direction) -> bool {
        let none = |_, _| None::<()>;
        index.vacancy(key, none).unwrap().is_some_and(|vacancy| index.enter(key, vacancy, id, direction))
    }

    #[test]
    fn a_place_is_given_once_and_an_entry_of_the_key_is_told() {
        let index = Index::new(8);
        let own = |id: SessionId, _| Some(id);
        let first = index.vacancy(&key(1), own).unwrap().unwrap();
        assert!(index.enter(&key(1), first, SessionId(5), Direction::Reverse));
        assert_eq!(index.vacancy(&key(1), own).unwrap_err(), SessionId(5));
        assert!(index.vacancy(&key(1), |_, _| None::<()>).unwrap().is_some(), "an entry that is not wanted");
        assert!(!index.enter(&key(1), first, SessionId(6), Direction::Forward), "the place is taken by now");
        assert_eq!(holders(&index, &key(1)), [5]);
    }

    #[test]
    fn every_key_is_found_while_it_is_in_and_none_when_all_are_out() {
        // Far more than a shard's buckets hold side by side: keys stand behind their own bucket, and round the end.
        let index = Index::new(10_000);
        for number in 0..10_000 {
            assert!(insert(&index, &key(number), SessionId(number), Direction::Forward));
        }
        for number in 0..10_000 {
            assert!(holders(&index, &key(number)).contains(&number));
        }
        for number in (0..10_000).step_by(2) {
            index.remove(&key(number), SessionId(number), Direction::Forward);
            // What is not there is not taken out.
            index.remove(&key(number), SessionId(number), Direction::Forward);
        }
        for number in 0..10_000 {
            assert_eq!(holders(&index, &key(number)).contains(&number), number % 2 == 1);
        }
        for number in (1..10_000).step_by(2) {
            index.remove(&key(number), SessionId(number), Direction::Forward);
        }
        assert!(index.buckets.iter().all(|bucket| bucket.passed.load(Ordering::Relaxed) == 0));
    }

    #[test]
    fn a_full_shard_refuses_and_a_small_table_holds_all_its_keys_in_one() {
        for capacity in [1usize, 4, 8, 100, 1024, 131_072] {
            let each = Index::each(2 * capacity) * WAYS;
            assert!(each >= (2 * capacity).min(2 * capacity / SHARDS + 12), "{capacity}: {each}");
        }
        let index = Index::new(4);
        let same = (0..).map(key).filter(|key| key.shard() == 7).take(index.each * WAYS + 1);
        let entered = same.filter(|key| insert(&index, key, SessionId(1), Direction::Reverse)).count();
        assert_eq!(entered, index.each * WAYS);
    }

    #[test]
    fn both_directions_of_the_last_slot_are_told_apart() {
        let index = Index::new(4);
        let last = SessionId(u32::MAX / 2 - 1);
        for direction in [Direction::Forward, Direction::Reverse] {
            insert(&index, &key(1), last, direction);
            let found = index.find(&key(1), |id, direction| Some((id, direction)));
            assert_eq!(found, Some((last, direction)));
            index.remove(&key(1), last, direction);
        }
    }
}
