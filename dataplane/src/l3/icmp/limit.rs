//! The rate limit of ICMP errors (RFC 1812 section 4.3.2.8, RFC 4443 section 2.4 (f)).

use std::sync::atomic::{AtomicU64, Ordering};

use crate::decision::Nanos;

const SECOND: u64 = 1_000_000_000;

/// A token bucket that holds one second's worth, shared by all workers. Its state is the moment at which it will be full
/// again.
#[derive(Debug)]
pub struct RateLimiter {
    full_at: AtomicU64,
    /// Nanoseconds that a token takes to come; 0: nothing is ever allowed.
    cost: AtomicU64,
    suppressed: AtomicU64,
}

impl RateLimiter {
    /// A full bucket for `rate` messages a second; 0 allows none.
    pub fn new(rate: u32) -> Self {
        let limiter =
            Self { full_at: AtomicU64::new(0), cost: AtomicU64::new(0), suppressed: AtomicU64::new(0) };
        limiter.set_rate(rate);
        limiter
    }

    /// Changes the rate.
    pub fn set_rate(&self, rate: u32) {
        self.cost.store(SECOND.checked_div(u64::from(rate)).unwrap_or(0), Ordering::Relaxed);
    }

    /// Takes a token. False, and counted, if there is none.
    pub fn allow(&self, now: Nanos) -> bool {
        let cost = self.cost.load(Ordering::Relaxed);
        let taken = cost != 0
            && self
                .full_at
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |full_at| {
                    let full_at = full_at.max(now) + cost;
                    (full_at - now <= SECOND).then_some(full_at)
                })
                .is_ok();
        if !taken {
            self.suppressed.fetch_add(1, Ordering::Relaxed);
        }
        taken
    }

    /// Messages that were not allowed.
    pub fn suppressed(&self) -> u64 {
        self.suppressed.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_of_one_second_then_the_rate() {
        let limiter = RateLimiter::new(100);
        let start = 5 * SECOND;
        let allowed = |from: Nanos, count: usize| (0..count).filter(|_| limiter.allow(from)).count();
        assert_eq!(allowed(start, 150), 100);
        assert_eq!(limiter.suppressed(), 50);
        assert_eq!(allowed(start + SECOND / 10, 150), 10);
        assert_eq!(allowed(start + 100 * SECOND, 150), 100);
    }

    #[test]
    fn a_rate_of_zero_allows_nothing() {
        let limiter = RateLimiter::new(0);
        assert!(!limiter.allow(7));
        assert_eq!(limiter.suppressed(), 1);
        limiter.set_rate(1);
        assert!(limiter.allow(7));
    }

    #[test]
    fn workers_share_one_bucket() {
        let limiter = RateLimiter::new(1_000);
        let allowed: usize = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4)
                .map(|_| scope.spawn(|| (0..1_000).filter(|_| limiter.allow(SECOND)).count()))
                .collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        assert_eq!(allowed, 1_000);
    }
}
