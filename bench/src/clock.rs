//! Time: the processor's time-stamp counter where there is one, the system's monotonic clock elsewhere.
#![allow(unsafe_code)]

use std::time::Instant;

/// Now, in ticks of the clock that [`Calibration`] measures.
#[inline(always)]
pub(crate) fn ticks() -> u64 {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: RDTSC exists on every x86-64 processor and touches no memory.
    unsafe {
        core::arch::x86_64::_rdtsc()
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        use std::sync::OnceLock;
        static START: OnceLock<Instant> = OnceLock::new();
        START.get_or_init(Instant::now).elapsed().as_nanos() as u64
    }
}

/// Measures the counter against the monotonic clock, from start to end of the run.
pub(crate) struct Calibration {
    at: Instant,
    ticks: u64,
}

impl Calibration {
    pub(crate) fn start() -> Self {
        Self { at: Instant::now(), ticks: ticks() }
    }

    /// Ticks a nanosecond.
    pub(crate) fn finish(&self) -> f64 {
        let ticks = ticks().wrapping_sub(self.ticks);
        ticks as f64 / self.at.elapsed().as_nanos().max(1) as f64
    }
}
