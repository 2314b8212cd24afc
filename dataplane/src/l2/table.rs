//! The MAC addresses that bridge domains learned (IEEE 802.1Q clause 8.7 and 8.8): bounded, shared by all workers, consulted on
//! walks and by sweeps of flow tables only.
//!
//! Looking up and refreshing take a shared lock; only a new, moved or removed address takes the exclusive one. An
//! address that is out of time counts as unknown at once, whenever ageing gets round to it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use ahash::RandomState;
use weir_config::MacAddress;

use super::Member;
use crate::decision::{Apart, BridgeId, Nanos, ScopeId};

/// How many addresses a refused learning looks at for one that is out of time.
const FULL_BUDGET: usize = 64;

/// What a bridge domain's configuration says of learning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LearnPolicy {
    /// Nanoseconds that an address lives without traffic.
    pub ageing: Nanos,
    /// Most addresses behind one interface; `None`: only the table's capacity bounds them.
    pub per_member: Option<u32>,
}

/// What learning came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Learned {
    /// Learned.
    New,
    /// Known there already: refreshed.
    Same,
    /// Known behind another member: moved, and counted.
    Moved,
    /// Not learned: no single station's address, or no room. The frame is forwarded all the same.
    Refused,
    /// The bridge domain does not learn.
    Off,
}

/// Counters and gauges.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MacCounters {
    /// Addresses now.
    pub in_use: u64,
    /// Most addresses.
    pub capacity: u64,
    /// Addresses learned.
    pub learned: u64,
    /// Addresses that moved from one member to another.
    pub moved: u64,
    /// Addresses not learned for want of room.
    pub refused: u64,
    /// Addresses that ran out of time.
    pub aged: u64,
}

/// One address for show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MacEntry {
    /// Bridge domain.
    pub bridge: BridgeId,
    /// Address.
    pub mac: MacAddress,
    /// Where it is.
    pub member: Member,
    /// Nanoseconds since it was last seen.
    pub idle: Nanos,
    /// Nanoseconds until it goes, without traffic.
    pub expires: Nanos,
}

type Key = (BridgeId, MacAddress);

#[derive(Debug)]
struct Entry {
    key: Key,
    member: Member,
    last_seen: AtomicU64,
    ageing: AtomicU64,
}

impl Entry {
    fn expires(&self) -> Nanos {
        self.last_seen.load(Ordering::Relaxed).saturating_add(self.ageing.load(Ordering::Relaxed))
    }

    fn seen(&self, now: Nanos) {
        if self.last_seen.load(Ordering::Relaxed) < now {
            self.last_seen.store(now, Ordering::Relaxed);
        }
    }
}

#[derive(Debug, Default)]
struct Inner {
    index: HashMap<Key, usize, RandomState>,
    /// Without gaps: the last entry fills the place of one that is removed.
    entries: Vec<Entry>,
    behind: HashMap<(BridgeId, ScopeId), u32, RandomState>,
    /// Where ageing goes on.
    cursor: usize,
}

impl Inner {
    fn get(&self, key: &Key) -> Option<&Entry> {
        self.entries.get(*self.index.get(key)?)
    }

    fn count(&self, bridge: BridgeId, scope: ScopeId) -> u32 {
        self.behind.get(&(bridge, scope)).copied().unwrap_or(0)
    }

    fn insert(&mut self, entry: Entry) {
        *self.behind.entry((entry.key.0, entry.member.scope)).or_default() += 1;
        self.index.insert(entry.key, self.entries.len());
        self.entries.push(entry);
    }

    fn remove(&mut self, at: usize) {
        if at >= self.entries.len() {
            return;
        }
        let entry = self.entries.swap_remove(at);
        self.index.remove(&entry.key);
        if let Some(moved) = self.entries.get(at) {
            self.index.insert(moved.key, at);
        }
        let place = (entry.key.0, entry.member.scope);
        if let Some(count) = self.behind.get_mut(&place) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                self.behind.remove(&place);
            }
        }
    }

    /// Removes what is out of time among the next `budget` entries; returns how many.
    fn age(&mut self, now: Nanos, budget: usize) -> u64 {
        let mut aged = 0;
        for _ in 0..budget.min(self.entries.len()) {
            if self.cursor >= self.entries.len() {
                self.cursor = 0;
            }
            match self.entries.get(self.cursor) {
                Some(entry) if entry.expires() <= now => {
                    self.remove(self.cursor);
                    aged += 1;
                }
                _ => self.cursor += 1,
            }
        }
        aged
    }
}

/// The table of learned addresses of all bridge domains. Survives changes of configuration.
#[derive(Debug)]
pub struct MacTable {
    inner: RwLock<Inner>,
    capacity: usize,
    /// Read for every burst; what is beside it is written to whenever an address is looked at.
    epoch: Apart<AtomicU32>,
    learned: AtomicU64,
    moved: AtomicU64,
    refused: AtomicU64,
    aged: AtomicU64,
}

impl MacTable {
    /// Memory of `addresses` addresses, in bytes, about: it is taken as they come.
    pub fn bytes_for(addresses: usize) -> usize {
        addresses * (size_of::<Entry>() + 2 * (size_of::<(Key, usize)>() + 1))
    }

    /// A table of at most `capacity` addresses (`limits.macs`).
    pub fn new(capacity: usize) -> Self {
        let inner = Inner {
            index: HashMap::with_capacity_and_hasher(capacity, RandomState::new()),
            entries: Vec::with_capacity(capacity),
            ..Inner::default()
        };
        Self {
            inner: RwLock::new(inner),
            capacity,
            epoch: Apart::default(),
            learned: AtomicU64::new(0),
            moved: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            aged: AtomicU64::new(0),
        }
    }

    /// Moves whenever a forwarding decision that was cached may have become wrong: an address moved or went. A new
    /// address changes none: frames to an unknown address are flooded, and floods are not cached.
    #[inline]
    pub fn epoch(&self) -> u32 {
        self.epoch.load(Ordering::Acquire)
    }

    /// Learns that `mac` is behind `member` (802.1Q clause 8.7.1: only addresses of single stations are learned).
    pub fn learn(
        &self,
        bridge: BridgeId,
        mac: MacAddress,
        member: Member,
        policy: LearnPolicy,
        now: Nanos,
    ) -> Learned {
        if mac.is_group() || mac == MacAddress::default() {
            return Learned::Refused;
        }
        let key = (bridge, mac);
        if let Some(entry) = self.read().get(&key).filter(|entry| entry.member == member) {
            entry.ageing.store(policy.ageing, Ordering::Relaxed);
            entry.seen(now);
            return Learned::Same;
        }
        self.place(key, member, policy, now)
    }

    /// Where `mac` is, if that is known and not out of time.
    pub fn lookup(&self, bridge: BridgeId, mac: MacAddress, now: Nanos) -> Option<Member> {
        self.read().get(&(bridge, mac)).filter(|entry| entry.expires() > now).map(|entry| entry.member)
    }

    /// Keeps `mac` alive: cached flows from it by interface `scope` were in use at `now`. For sweeps of flow tables.
    pub fn touch(&self, bridge: BridgeId, mac: MacAddress, scope: ScopeId, now: Nanos) {
        let inner = self.read();
        if let Some(entry) = inner.get(&(bridge, mac)).filter(|entry| entry.member.scope == scope) {
            // What is out of time stays so: frames were flooded already.
            if entry.expires() > now {
                entry.seen(now);
            }
        }
    }

    /// Removes what is out of time among the next `budget` addresses, going round; returns how many were removed.
    pub fn age(&self, now: Nanos, budget: usize) -> u64 {
        let aged = self.write().age(now, budget);
        self.count_aged(aged);
        aged
    }

    /// Forgets everything behind an interface, as when it goes down or leaves the bridge domain.
    pub fn flush_member(&self, scope: ScopeId) {
        self.retain(|_, member| member.scope != scope);
    }

    /// Forgets everything of a bridge domain.
    pub fn flush_bridge(&self, bridge: BridgeId) {
        self.retain(|of, _| of != bridge);
    }

    /// Forgets what `keep` does not want kept.
    pub fn retain(&self, keep: impl Fn(BridgeId, Member) -> bool) {
        let mut inner = self.write();
        let before = inner.entries.len();
        let mut at = 0;
        while let Some(entry) = inner.entries.get(at) {
            if keep(entry.key.0, entry.member) { at += 1 } else { inner.remove(at) }
        }
        if inner.entries.len() != before {
            self.invalidate();
        }
    }

    /// Counters and gauges.
    pub fn counters(&self) -> MacCounters {
        MacCounters {
            in_use: self.read().entries.len() as u64,
            capacity: self.capacity as u64,
            learned: self.learned.load(Ordering::Relaxed),
            moved: self.moved.load(Ordering::Relaxed),
            refused: self.refused.load(Ordering::Relaxed),
            aged: self.aged.load(Ordering::Relaxed),
        }
    }

    /// Up to `limit` addresses for show, ordered by bridge domain and address.
    pub fn entries(&self, now: Nanos, limit: usize) -> Vec<MacEntry> {
        let mut entries: Vec<MacEntry> = {
            let inner = self.read();
            let alive = inner.entries.iter().filter(|entry| entry.expires() > now);
            alive
                .map(|entry| MacEntry {
                    bridge: entry.key.0,
                    mac: entry.key.1,
                    member: entry.member,
                    idle: now.saturating_sub(entry.last_seen.load(Ordering::Relaxed)),
                    expires: entry.expires() - now,
                })
                .collect()
        };
        entries.sort_unstable_by_key(|entry| (entry.bridge, entry.mac));
        entries.truncate(limit);
        entries
    }

    /// Puts an address where it was not.
    fn place(&self, key: Key, member: Member, policy: LearnPolicy, now: Nanos) -> Learned {
        let mut inner = self.write();
        let before = inner.index.get(&key).copied();
        if before.is_none() && inner.entries.len() >= self.capacity {
            let aged = inner.age(now, FULL_BUDGET);
            self.count_aged(aged);
        }
        let (known, alive, behind) = match before.and_then(|at| inner.entries.get(at)) {
            // Another worker was first.
            Some(entry) if entry.member == member => {
                entry.seen(now);
                return Learned::Same;
            }
            Some(entry) => (true, entry.expires() > now, entry.member.scope == member.scope),
            None => (false, false, false),
        };
        let crowded =
            !behind && policy.per_member.is_some_and(|most| inner.count(key.0, member.scope) >= most);
        if crowded || (!known && inner.entries.len() >= self.capacity) {
            self.refused.fetch_add(1, Ordering::Relaxed);
            return Learned::Refused;
        }
        if let Some(at) = before {
            inner.remove(at);
        }
        inner.insert(Entry {
            key,
            member,
            last_seen: AtomicU64::new(now),
            ageing: AtomicU64::new(policy.ageing),
        });
        if known {
            self.invalidate();
        }
        let (counter, learned) =
            if alive { (&self.moved, Learned::Moved) } else { (&self.learned, Learned::New) };
        counter.fetch_add(1, Ordering::Relaxed);
        learned
    }

    fn count_aged(&self, aged: u64) {
        if aged > 0 {
            self.aged.fetch_add(aged, Ordering::Relaxed);
            self.invalidate();
        }
    }

    fn invalidate(&self) {
        self.epoch.fetch_add(1, Ordering::Release);
    }

    fn read(&self) -> RwLockReadGuard<'_, Inner> {
        self.inner.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Inner> {
        self.inner.write().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
#[path = "table_tests.rs"]
mod tests;
