//! The machine's own stalls: threads, one on each core in use, that sleep for a millisecond again and again and note how much longer it
//! took. What stalls them stalls everything else on the core as well: other work, the hypervisor, interrupts. (After Gil Tene's jHiccup.)

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use core_affinity::CoreId;
use hdrhistogram::Histogram;

use super::clock::now;
use super::latency;

const PERIOD: Duration = Duration::from_millis(1);

/// Measures from its making until it is finished.
pub(crate) struct Hiccups {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<Histogram<u64>>>,
}

impl Hiccups {
    /// Starts a thread on each of the cores.
    pub(crate) fn start(cores: &[usize]) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let threads = cores.iter().map(|&id| {
            let stop = Arc::clone(&stop);
            std::thread::spawn(move || {
                core_affinity::set_for_current(CoreId { id });
                watch(&stop)
            })
        });
        Self { threads: threads.collect(), stop }
    }

    /// All threads' stalls in ns.
    pub(crate) fn finish(mut self) -> Histogram<u64> {
        self.stop.store(true, Ordering::Relaxed);
        let mut all = latency::histogram();
        for thread in self.threads.drain(..) {
            if let Ok(histogram) = thread.join() {
                let _ = all.add(histogram);
            }
        }
        all
    }
}

impl Drop for Hiccups {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn watch(stop: &AtomicBool) -> Histogram<u64> {
    let mut stalls = latency::histogram();
    while !stop.load(Ordering::Relaxed) {
        let before = now();
        std::thread::sleep(PERIOD);
        let stall = (now() - before).saturating_sub(PERIOD.as_nanos() as u64);
        stalls.saturating_record(stall.max(1));
    }
    stalls
}
