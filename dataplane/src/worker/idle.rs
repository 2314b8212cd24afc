//! When a worker without work goes on polling, and when it blocks.
//!
//! Polling finds a packet at once; waking a blocked thread takes some 5 µs on bare metal and ten times that on a virtual machine. So a
//! worker polls on through silences as long as traffic usually has them, up to [`LONGEST`], and blocks when one gets longer. Where
//! packets come further apart than that, polling finds nothing: the time spent on it is halved with each such silence, down to
//! [`SHORTEST`], until a short silence shows that it is worth it again.

use std::time::Duration;

use crate::decision::Nanos;

/// The longest that a worker polls on without traffic.
pub(super) const LONGEST: Nanos = 2_000_000;
/// The shortest.
pub(super) const SHORTEST: Nanos = 100_000;

/// How long a worker sleeps between two polls of a queue that cannot wake it, as those of DPDK cannot. A packet that comes meanwhile waits
/// about half as long, and the worker takes a few hundredths of a core.
pub(super) const NAP: Duration = Duration::from_micros(200);

/// What a worker has learned of the silences in its traffic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Silence {
    /// When there was traffic last.
    since: Nanos,
    /// How long it polls on.
    patience: Nanos,
}

impl Silence {
    pub(super) fn new() -> Self {
        Self { since: 0, patience: LONGEST }
    }

    /// There was traffic.
    #[inline]
    pub(super) fn ends(&mut self, now: Nanos) {
        let lasted = now.saturating_sub(self.since);
        self.patience = if lasted <= LONGEST { LONGEST } else { (self.patience / 2).max(SHORTEST) };
        self.since = now;
    }

    /// Whether the worker has polled in vain for long enough.
    #[inline]
    pub(super) fn is_long(&self, now: Nanos) -> bool {
        now.saturating_sub(self.since) >= self.patience
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Nanos = 1_000_000;

    #[test]
    fn silences_of_a_millisecond_are_polled_through() {
        let mut silence = Silence::new();
        for n in 1..1000 {
            let now = n * MS;
            assert!(!silence.is_long(now), "packet {n}");
            silence.ends(now);
        }
    }

    #[test]
    fn rare_packets_cost_less_and_less_polling() {
        let mut silence = Silence::new();
        let mut polled = Vec::new();
        for n in 1..10u64 {
            let now = n * 100 * MS;
            silence.ends(now);
            polled.push((0..LONGEST + 2).step_by(10_000).find(|&more| silence.is_long(now + more)).unwrap());
        }
        assert_eq!(polled[..5], [MS, MS / 2, MS / 4, MS / 8 + 5_000, SHORTEST]);
        assert_eq!(polled.last(), Some(&SHORTEST));
    }

    #[test]
    fn one_short_silence_brings_patience_back() {
        let mut silence = Silence::new();
        (1..10).for_each(|n| silence.ends(n * 100 * MS));
        silence.ends(900 * MS + MS / 2);
        assert!(!silence.is_long(902 * MS));
        assert!(silence.is_long(903 * MS));
    }

    #[test]
    fn a_clock_that_jumps_is_a_long_silence() {
        let mut silence = Silence::new();
        silence.ends(MS);
        assert!(silence.is_long(3_600_000 * MS));
        silence.ends(0);
        assert!(!silence.is_long(0));
    }
}
