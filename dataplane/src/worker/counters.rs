//! A worker's counters: written by the worker alone, read by the control thread.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::decision::DropReason;

use super::status::Counters;

/// A counter with one writer: no read-modify-write instruction, no line that two cores write.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds `n`. Only the owning worker may call it.
    #[inline]
    pub fn add(&self, n: u64) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(n), Ordering::Relaxed);
    }

    /// Sets a gauge. Only the owning worker may call it.
    #[inline]
    pub fn set(&self, n: u64) {
        self.0.store(n, Ordering::Relaxed);
    }

    /// The value, as last written.
    #[inline]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// All counters of one worker.
#[derive(Debug)]
#[repr(align(128))]
pub struct CounterBlock {
    pub(crate) received: Counter,
    pub(crate) originated: Counter,
    pub(crate) handed_in: Counter,
    pub(crate) transmitted: Counter,
    pub(crate) handed_out: Counter,
    pub(crate) punted: Counter,
    pub(crate) consumed: Counter,
    pub(crate) held: Counter,
    pub(crate) flow_hits: Counter,
    pub(crate) flow_misses: Counter,
    pub(crate) flow_evictions: Counter,
    pub(crate) flows: Counter,
    pub(crate) icmp_limited: Counter,
    pub(crate) address_conflicts: Counter,
    pub(crate) loops: Counter,
    pub(crate) sleeps: Counter,
    pub(crate) generation: Counter,
    dropped: [Counter; DropReason::COUNT],
}

impl Default for CounterBlock {
    fn default() -> Self {
        Self {
            received: Counter::default(),
            originated: Counter::default(),
            handed_in: Counter::default(),
            transmitted: Counter::default(),
            handed_out: Counter::default(),
            punted: Counter::default(),
            consumed: Counter::default(),
            held: Counter::default(),
            flow_hits: Counter::default(),
            flow_misses: Counter::default(),
            flow_evictions: Counter::default(),
            flows: Counter::default(),
            icmp_limited: Counter::default(),
            address_conflicts: Counter::default(),
            loops: Counter::default(),
            sleeps: Counter::default(),
            generation: Counter::default(),
            dropped: [const { Counter(AtomicU64::new(0)) }; DropReason::COUNT],
        }
    }
}

impl CounterBlock {
    /// Counts one dropped packet.
    #[inline]
    pub(crate) fn count_drop(&self, reason: DropReason) {
        if let Some(counter) = self.dropped.get(reason.index()) {
            counter.add(1);
        }
    }

    /// Packets dropped for `reason`.
    pub fn dropped(&self, reason: DropReason) -> u64 {
        self.dropped.get(reason.index()).map_or(0, Counter::get)
    }

    /// Adds this worker's counters to a sum.
    pub fn add_to(&self, sum: &mut Counters) {
        sum.received += self.received.get();
        sum.originated += self.originated.get();
        sum.handed_in += self.handed_in.get();
        sum.transmitted += self.transmitted.get();
        sum.handed_out += self.handed_out.get();
        sum.punted += self.punted.get();
        sum.consumed += self.consumed.get();
        sum.held += self.held.get();
        sum.flow_hits += self.flow_hits.get();
        sum.flow_misses += self.flow_misses.get();
        sum.flow_evictions += self.flow_evictions.get();
        sum.icmp_limited += self.icmp_limited.get();
        sum.address_conflicts += self.address_conflicts.get();
        for reason in DropReason::ALL {
            let count = self.dropped(*reason);
            if count > 0 {
                *sum.dropped.entry(reason.name()).or_default() += count;
            }
        }
    }
}

impl Counters {
    /// Everything that came in, and everything that left or is held: equal, exactly, whenever the worker is between bursts.
    pub fn balance(&self) -> (u64, u64) {
        let entered = self.received + self.handed_in + self.originated;
        let dropped: u64 = self.dropped.values().sum();
        let left = self.transmitted + dropped + self.punted + self.consumed + self.handed_out + self.held;
        (entered, left)
    }
}
