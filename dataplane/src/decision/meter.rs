//! Token buckets (RFC 2697's committed bucket, single rate, two colours), kept as virtual time.
//!
//! A bucket's state is one number: the moment at which it will be full again. A packet costs time; it conforms if the
//! bucket would be full again no later than `burst` from now. The rate is global: with several workers each takes
//! tokens in small batches, so that the shared word is not written for each packet; what workers hold in advance is
//! at most one sixteenth of the burst each. With one worker the bucket is exact.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use super::{MeterId, Nanos};

/// Fractions of a nanosecond that costs are kept in.
const UNITS: u64 = 64;

/// What a bucket admits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct MeterSpec {
    /// Tokens a second: bytes of L3 packets, or packets.
    pub rate: u64,
    /// Depth in tokens.
    pub burst: u64,
    /// Whether a packet costs 1 token instead of its L3 length.
    pub packets: bool,
}

/// Seconds without use after which a full bucket may be given to somebody else.
const IDLE_SECONDS: u32 = 60;

#[derive(Debug, Default)]
struct Bucket {
    /// When the bucket is full again, in units.
    full_at: AtomicU64,
    /// Time that a token costs, in units × 2^16.
    cost: AtomicU64,
    /// Depth as time, in units.
    depth: AtomicU64,
    /// 1 if a packet costs 1 token.
    packets: AtomicU32,
    /// Seconds of the engine's clock at which a program was last known to use the bucket.
    used: AtomicU32,
}

/// All token buckets, bounded, shared by all workers.
#[derive(Debug)]
pub struct MeterTable {
    buckets: Box<[Bucket]>,
    workers: usize,
}

impl MeterTable {
    /// A table of `capacity` buckets used by `workers` workers.
    pub fn new(capacity: usize, workers: usize) -> Self {
        Self { buckets: (0..capacity).map(|_| Bucket::default()).collect(), workers }
    }

    /// Memory of a table of `capacity` buckets, in bytes.
    pub fn bytes_for(capacity: usize) -> usize {
        capacity * size_of::<Bucket>()
    }

    /// Number of buckets.
    pub fn capacity(&self) -> usize {
        self.buckets.len()
    }

    /// Gives bucket `id` a new rate and depth, and fills it.
    pub fn define(&self, id: MeterId, spec: MeterSpec) {
        let Some(bucket) = self.buckets.get(id.index()) else { return };
        let cost = ((u128::from(UNITS) * 1_000_000_000) << 16) / u128::from(spec.rate.max(1));
        let depth = (cost * u128::from(spec.burst)) >> 16;
        bucket.cost.store(u64::try_from(cost).unwrap_or(u64::MAX), Ordering::Relaxed);
        bucket.depth.store(u64::try_from(depth).unwrap_or(u64::MAX), Ordering::Relaxed);
        bucket.packets.store(u32::from(spec.packets), Ordering::Relaxed);
        bucket.full_at.store(0, Ordering::Relaxed);
    }

    /// Notes that programs with bucket `id` are in use at `seconds` of the engine's clock. For walks and sweeps.
    pub fn touch(&self, id: MeterId, seconds: u32) {
        if let Some(bucket) = self.buckets.get(id.index()) {
            if bucket.used.load(Ordering::Relaxed) < seconds {
                bucket.used.store(seconds, Ordering::Relaxed);
            }
        }
    }

    /// Whether bucket `id` is full, so that a fresh one would be no different, and no program has used it for a minute.
    pub fn is_idle(&self, id: MeterId, now: Nanos) -> bool {
        let Some(bucket) = self.buckets.get(id.index()) else { return false };
        let used = u64::from(bucket.used.load(Ordering::Relaxed)) + u64::from(IDLE_SECONDS);
        bucket.full_at.load(Ordering::Relaxed) <= now.saturating_mul(UNITS) && used <= now / 1_000_000_000
    }
}

/// One worker's tokens taken in advance.
#[derive(Debug)]
pub struct MeterCache {
    credit: Box<[u64]>,
}

impl MeterCache {
    /// No tokens for any bucket of `table`.
    pub fn new(table: &MeterTable) -> Self {
        Self { credit: vec![0; if table.workers > 1 { table.capacity() } else { 0 }].into() }
    }

    /// Spends tokens of bucket `id` for a packet of `l3_len` bytes. False if there are too few: nothing is spent.
    #[inline]
    pub fn spend(&mut self, table: &MeterTable, id: MeterId, l3_len: u16, now: Nanos) -> bool {
        let Some(bucket) = table.buckets.get(id.index()) else { return true };
        let tokens = if bucket.packets.load(Ordering::Relaxed) == 1 { 1 } else { u128::from(l3_len) };
        let cost = ((u128::from(bucket.cost.load(Ordering::Relaxed)) * tokens) >> 16) as u64;
        let now = now.saturating_mul(UNITS);
        let depth = bucket.depth.load(Ordering::Relaxed);
        let Some(credit) = self.credit.get_mut(id.index()) else {
            // The only worker: the only writer.
            let base = bucket.full_at.load(Ordering::Relaxed).max(now);
            let full_at = base.saturating_add(cost);
            if full_at - now > depth {
                return false;
            }
            bucket.full_at.store(full_at, Ordering::Relaxed);
            return true;
        };
        if *credit >= cost {
            *credit -= cost;
            return true;
        }
        let need = cost - *credit;
        let mut taken = 0;
        let result = bucket.full_at.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |full_at| {
            let base = full_at.max(now);
            let available = depth.saturating_sub(base - now);
            if available < need {
                return None;
            }
            taken = available.min(need.max(depth / 16));
            Some(base + taken)
        });
        if result.is_err() {
            return false;
        }
        *credit = *credit + taken - cost;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_admits_its_burst_then_its_rate() {
        let table = MeterTable::new(1, 1);
        table.define(MeterId(0), MeterSpec { rate: 1_000, burst: 3_000, packets: false });
        let mut cache = MeterCache::new(&table);
        let start = 5_000_000_000;
        assert!((0..3).all(|_| cache.spend(&table, MeterId(0), 1000, start)));
        assert!(!cache.spend(&table, MeterId(0), 1000, start));
        assert!(!cache.spend(&table, MeterId(0), 1000, start + 999_000_000));
        assert!(cache.spend(&table, MeterId(0), 1000, start + 1_000_000_000));
    }

    #[test]
    fn two_workers_together_admit_no_more_than_one_bucket() {
        let table = MeterTable::new(1, 2);
        table.define(MeterId(0), MeterSpec { rate: 100, burst: 160, packets: true });
        let (mut a, mut b) = (MeterCache::new(&table), MeterCache::new(&table));
        let mut admitted = 0;
        for _ in 0..400 {
            admitted += u32::from(a.spend(&table, MeterId(0), 1500, 1_000));
            admitted += u32::from(b.spend(&table, MeterId(0), 1500, 1_000));
        }
        assert_eq!(admitted, 160);
    }
}
