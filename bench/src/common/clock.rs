//! Time: the processor's time-stamp counter where there is one, the system's monotonic clock elsewhere.
#![allow(unsafe_code)]

use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// Now, in ticks: a cycle of the time-stamp counter each, whose rate need not be the core's.
#[inline(always)]
pub(crate) fn ticks() -> u64 {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: RDTSC exists on every x86-64 processor and touches no memory.
    unsafe {
        core::arch::x86_64::_rdtsc()
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        static START: OnceLock<Instant> = OnceLock::new();
        START.get_or_init(Instant::now).elapsed().as_nanos() as u64
    }
}

/// Ticks a nanosecond, measured once against the monotonic clock, over a fifth of a second.
pub(crate) fn ticks_per_ns() -> f64 {
    static RATE: OnceLock<f64> = OnceLock::new();
    *RATE.get_or_init(|| {
        let (at, start) = (Instant::now(), ticks());
        std::thread::sleep(Duration::from_millis(200));
        let (elapsed, end) = (at.elapsed(), ticks());
        end.wrapping_sub(start) as f64 / elapsed.as_nanos().max(1) as f64
    })
}
