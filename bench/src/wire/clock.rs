//! The clock that generators and sinks share, in user space and in BPF programs.

use nix::time::{ClockId, clock_gettime};

/// CLOCK_MONOTONIC in ns.
#[inline]
pub(crate) fn now() -> u64 {
    // It cannot fail on Linux.
    clock_gettime(ClockId::CLOCK_MONOTONIC)
        .map_or(0, |time| time.tv_sec() as u64 * 1_000_000_000 + time.tv_nsec() as u64)
}
