//! Who has which token bucket: bounded, over all policers and generations.
//!
//! A bucket is known by its rule (service, number, rate) and, per source, an address. One that is full again and that no
//! program has used for a minute is no different from a new one, and is given away when somebody needs a bucket.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ahash::RandomState;

use crate::decision::{MeterId, MeterSpec, MeterTable, Nanos};

/// How many buckets an allocation looks at for one that is idle.
const RECLAIM_BUDGET: usize = 256;
/// Programs keep numbers of buckets in 16 bits.
const MOST: usize = 1 << 16;

/// A rule that buckets belong to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct RuleKey {
    /// Name of the service.
    pub(super) service: String,
    /// Number of the rule, from 0.
    pub(super) rule: usize,
    /// Rate and depth.
    pub(super) spec: MeterSpec,
}

type Key = (Arc<RuleKey>, Option<IpAddr>);

/// Counters and gauges.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MeterCounters {
    /// Buckets that belong to somebody, idle ones included.
    pub in_use: u64,
    /// Most buckets.
    pub capacity: u64,
    /// Buckets refused.
    pub refused: u64,
}

/// One bucket for show.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MeterEntry {
    /// Its number.
    pub id: MeterId,
    /// Name of its policer.
    pub service: String,
    /// Number of its rule, from 0.
    pub rule: usize,
    /// Its source address, with `per = "source"`.
    pub source: Option<IpAddr>,
    /// Rate and depth.
    pub spec: MeterSpec,
}

#[derive(Debug, Default)]
struct Inner {
    by_key: HashMap<Key, MeterId, RandomState>,
    /// By number; never longer than the capacity.
    owners: Vec<Option<Key>>,
    /// Where the next search for an idle bucket starts.
    hand: usize,
    refused: u64,
}

/// Hands out the buckets of a [`MeterTable`]. Consulted on walks only.
#[derive(Debug)]
pub struct MeterAllocator {
    table: Arc<MeterTable>,
    inner: Mutex<Inner>,
}

impl MeterAllocator {
    /// An allocator over all buckets of `table`, at most 65536.
    pub fn new(table: Arc<MeterTable>) -> Self {
        Self { table, inner: Mutex::default() }
    }

    /// The bucket of a rule, or of a source address under it; filled if it is new. `None` if there is no room.
    pub(super) fn meter(&self, rule: &Arc<RuleKey>, source: Option<IpAddr>, now: Nanos) -> Option<MeterId> {
        let key = (Arc::clone(rule), source);
        let mut inner = self.lock();
        let known = inner.by_key.get(&key).copied();
        let id = match known.or_else(|| self.allocate(&mut inner, key, now)) {
            Some(id) => id,
            None => {
                inner.refused += 1;
                return None;
            }
        };
        self.table.touch(id, u32::try_from(now / 1_000_000_000).unwrap_or(u32::MAX));
        Some(id)
    }

    /// Counters and gauges.
    pub fn counters(&self) -> MeterCounters {
        let inner = self.lock();
        MeterCounters {
            in_use: inner.by_key.len() as u64,
            capacity: self.capacity() as u64,
            refused: inner.refused,
        }
    }

    /// Up to `limit` buckets for show, ordered by number.
    pub fn entries(&self, limit: usize) -> Vec<MeterEntry> {
        let inner = self.lock();
        let owned = inner.owners.iter().enumerate().filter_map(|(id, owner)| Some((id, owner.as_ref()?)));
        let entry = |(id, (rule, source)): (usize, &Key)| {
            let id = MeterId(u32::try_from(id).ok()?);
            let (service, spec) = (rule.service.clone(), rule.spec);
            Some(MeterEntry { id, service, rule: rule.rule, source: *source, spec })
        };
        owned.filter_map(entry).take(limit).collect()
    }

    fn capacity(&self) -> usize {
        self.table.capacity().min(MOST)
    }

    fn allocate(&self, inner: &mut Inner, key: Key, now: Nanos) -> Option<MeterId> {
        let number = if inner.owners.len() < self.capacity() {
            inner.owners.push(None);
            inner.owners.len() - 1
        } else {
            self.reclaim(inner, now)?
        };
        let id = MeterId(u32::try_from(number).ok()?);
        self.table.define(id, key.0.spec);
        *inner.owners.get_mut(number)? = Some(key.clone());
        inner.by_key.insert(key, id);
        Some(id)
    }

    /// Takes an idle bucket from its owner.
    fn reclaim(&self, inner: &mut Inner, now: Nanos) -> Option<usize> {
        let total = inner.owners.len();
        for _ in 0..RECLAIM_BUDGET.min(total) {
            let number = inner.hand % total;
            inner.hand = number + 1;
            if self.table.is_idle(MeterId(u32::try_from(number).ok()?), now) {
                if let Some(owner) = inner.owners.get_mut(number)?.take() {
                    inner.by_key.remove(&owner);
                }
                return Some(number);
            }
        }
        None
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
