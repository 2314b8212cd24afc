//! One workload's test bed, and the loop that is timed.

use weir_dataplane::decision::PortId;
use weir_dataplane::frame::{BURST, Frame};
use weir_dataplane::io::PortQueue;
use weir_dataplane::io::memory::TemplateQueue;
use weir_dataplane::worker::Engine;

use super::workload::Workload;
use crate::common::clock::ticks;

/// Bytes of each frame that are restored before it is received again: all that a pipeline may have changed.
const RESTORED: usize = 128;
/// The engine's clock goes on by this much between repeats, so that token buckets are full and no flow is idle for long.
const PAUSE: u64 = 1_000_000_000;

/// What one repeat cost, in ticks a packet.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cost {
    /// Over all bursts.
    pub(crate) mean: f64,
    /// Of the median burst: blind to interruptions, and to what happens rarely.
    pub(crate) typical: f64,
}

/// An engine with a workload's configuration, fed by templates of its frames.
pub(crate) struct Bed {
    pub(crate) workload: Workload,
    engine: Engine,
    queue: TemplateQueue,
    port: PortId,
    burst: Vec<Frame>,
    bursts: Vec<u64>,
    /// By repeat: the engine with receive and free.
    pub(crate) whole: Vec<Cost>,
    /// By repeat: receive and free alone.
    pub(crate) null: Vec<Cost>,
}

impl Bed {
    /// Makes the engine and caches every flow.
    pub(crate) fn new(workload: &Workload) -> Result<Self, String> {
        let loaded = weir_config::load_str("bench.toml", &workload.config()).map_err(|e| e.to_string())?;
        let engine = Engine::new(&loaded.config).map_err(|e| e.to_string())?;
        let port = engine.port(workload.port()).ok_or("the workload's port is missing")?;
        let mut bed = Self {
            workload: *workload,
            engine,
            queue: TemplateQueue::new(&workload.frames(), RESTORED),
            port,
            burst: Vec::with_capacity(BURST),
            bursts: Vec::new(),
            whole: Vec::new(),
            null: Vec::new(),
        };
        bed.pass(workload.flows);
        Ok(bed)
    }

    /// Measures both pipelines once, over about `packets` packets, and checks that nothing else than replay was measured.
    pub(crate) fn repeat(&mut self, packets: usize) -> Result<(), String> {
        let packets = packets.max(self.workload.flows);
        let now = self.engine.now() + PAUSE;
        self.engine.advance(now, |_, _, _| {});
        self.warm_up(packets / 8, Self::idle);
        let null = self.time(packets, Self::idle);
        self.warm_up(packets / 8, Self::work);
        let before = self.engine.counters();
        let whole = self.time(packets, Self::work);
        let after = self.engine.counters();
        let ran = (self.bursts.len() * BURST) as u64;
        for (what, before, after) in [
            ("received", before.received, after.received),
            ("flow hits", before.flow_hits, after.flow_hits),
            ("transmitted", before.transmitted, after.transmitted),
        ] {
            if after - before != ran {
                return Err(format!(
                    "{}: {what}: {} of {ran}\n{after:?}",
                    self.workload.name(),
                    after - before
                ));
            }
        }
        self.null.push(null);
        self.whole.push(whole);
        Ok(())
    }

    /// One burst through the null pipeline.
    #[inline]
    fn idle(&mut self) {
        self.queue.receive(&mut self.burst, BURST, self.engine.cache());
        self.queue.transmit(&mut self.burst, self.engine.cache());
    }

    /// One burst through the engine.
    #[inline]
    fn work(&mut self) {
        let Self { engine, queue, burst, .. } = self;
        queue.receive(burst, BURST, engine.cache());
        engine.process(self.port, burst, |_, frames, cache| {
            queue.transmit(frames, cache);
        });
    }

    /// Sends at least `packets` packets through the engine.
    fn pass(&mut self, packets: usize) {
        for _ in 0..packets.div_ceil(BURST) {
            self.work();
        }
    }

    #[inline]
    fn warm_up(&mut self, packets: usize, run: impl Fn(&mut Self)) {
        for _ in 0..packets.div_ceil(BURST) {
            run(self);
        }
    }

    /// Times at least `packets` packets, burst by burst.
    #[inline]
    fn time(&mut self, packets: usize, run: impl Fn(&mut Self)) -> Cost {
        let count = packets.div_ceil(BURST);
        let mut bursts = std::mem::take(&mut self.bursts);
        bursts.clear();
        bursts.reserve(count);
        let start = ticks();
        let mut last = start;
        for _ in 0..count {
            run(self);
            let now = ticks();
            bursts.push(now.wrapping_sub(last));
            last = now;
        }
        let mean = last.wrapping_sub(start) as f64 / (count * BURST) as f64;
        let middle = count / 2;
        let (_, typical, _) = bursts.select_nth_unstable(middle);
        let typical = *typical as f64 / BURST as f64;
        self.bursts = bursts;
        Cost { mean, typical }
    }
}
