//! One workload's test bed, and the loop that is timed.

use weir_config::HugePages;
use weir_dataplane::decision::PortId;
use weir_dataplane::frame::{Frame, FrameCache, FrameMemory, FramePool, PageKind};
use weir_dataplane::worker::Engine;
use weir_dataplane::worker::status::Counters;

use super::Setup;
use super::input::{Order, Shape};
use super::source::Source;
use super::workload::{ADDRESSES, SEED, Workload};
use crate::common::clock::ticks;

/// Chunks besides the input frames: a burst on its way, and the engine's cache.
const SPARE: usize = 2048;
/// Packets between two readings of the counter, at least: shorter bursts are timed several at a time, since reading
/// takes as long as a packet.
const SAMPLE: usize = 64;
/// The engine's clock goes on by this much between repeats, in nanoseconds: no flow is idle for long.
const PAUSE: u64 = 1_000_000_000;
/// The same where each packet begins a flow: those of the last repeat are gone by then.
const LONG_PAUSE: u64 = 600_000_000_000;

/// What one repeat cost, in ticks a packet.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cost {
    /// Over all bursts.
    pub(super) mean: f64,
    /// Of the median burst: blind to interruptions, and to what happens rarely.
    pub(super) typical: f64,
}

/// The repeats of one workload with one size of bursts.
#[derive(Clone, Debug, Default)]
pub(super) struct Runs {
    /// The engine with source and sink.
    pub(super) whole: Vec<Cost>,
    /// Source and sink alone.
    pub(super) null: Vec<Cost>,
}

/// An engine with a workload's configuration, fed with its packets.
pub(super) struct Bed {
    pub(super) workload: &'static Workload,
    pub(super) order: Order,
    engine: Engine,
    source: Source,
    port: PortId,
    /// The pages that frames lie in.
    pub(super) pages: PageKind,
    burst: Vec<Frame>,
    samples: Vec<u64>,
    random: fastrand::Rng,
    /// Where the next repeat's flows begin, if they are new in each.
    fresh: u32,
    /// Packets that [`Self::measured_burst`] processed.
    pub(super) measured: u64,
    /// Of a pass over the shapes, packets that are transmitted; `None`: all.
    transmitted: Option<(u64, u64)>,
}

impl Bed {
    /// Makes the engine and caches every flow.
    pub(super) fn new(workload: &'static Workload, setup: &Setup) -> Result<Self, String> {
        let (shapes, cycle) = workload.shapes(setup.lengths);
        Self::with_shapes(workload, setup, shapes, cycle)
    }

    /// The same with the hostile mix instead of the workload's packets.
    pub(super) fn with_hostile_mix(workload: &'static Workload, setup: &Setup) -> Result<Self, String> {
        let shapes = super::workload::hostile();
        let cycle: Vec<u16> = (0..shapes.len() as u16).collect();
        let pass = shapes.len() as u64;
        let mut bed = Self::with_shapes(workload, setup, shapes, cycle)?;
        let before = bed.engine.counters().transmitted;
        bed.warm_up(pass as usize * super::BURST);
        let transmitted = bed.engine.counters().transmitted - before;
        bed.transmitted = Some((transmitted / super::BURST as u64, pass));
        Ok(bed)
    }

    fn with_shapes(
        workload: &'static Workload,
        setup: &Setup,
        shapes: Vec<Shape>,
        cycle: Vec<u16>,
    ) -> Result<Self, String> {
        let name = workload.name;
        let chunks = u32::try_from(setup.inputs + SPARE).map_err(|_| "too many input frames")?;
        let memory = FrameMemory::map(chunks, 2048, HugePages::Auto).map_err(|error| error.to_string())?;
        let mut engine = Engine::with_pool(&workload.config()?, &FramePool::new(memory))
            .map_err(|error| format!("{name}: {error}"))?;
        for (port, frame) in workload.primers() {
            engine.receive(port, &[&frame], |_, _| {});
        }
        let port = engine.port(workload.port()).ok_or_else(|| format!("{name}: its port is missing"))?;
        let order = setup.order.unwrap_or(workload.order);
        let mut random = fastrand::Rng::with_seed(SEED);
        let values = workload.values(0, order, &mut random);
        let mut source = Source::new(setup.source, shapes, cycle, values);
        source.fill(setup.inputs, engine.cache())?;
        let mut bed = Self {
            workload,
            order,
            engine,
            source,
            port,
            pages: memory.pages(),
            burst: Vec::with_capacity(weir_dataplane::frame::BURST_ROOM),
            samples: Vec::new(),
            random,
            fresh: 0,
            measured: 0,
            transmitted: None,
        };
        if !workload.first {
            bed.warm_up(bed.source.pass());
        }
        Ok(bed)
    }

    /// Whether it gets the hostile mix.
    pub(super) fn hostile(&self) -> bool {
        self.transmitted.is_some()
    }

    /// Whole frames of `count` packets, in order.
    pub(super) fn frames(&self, count: usize) -> impl Iterator<Item = Vec<u8>> + '_ {
        self.source.frames(count)
    }

    /// Measures both pipelines once, with bursts of `size`, over about `packets` packets, and checks that every packet
    /// was transmitted.
    pub(super) fn repeat(&mut self, size: usize, packets: usize, runs: &mut Runs) -> Result<(), String> {
        let packets = self.prepare(packets);
        self.time(packets / 8, size, Self::idle);
        runs.null.push(self.time(packets, size, Self::idle));
        if !self.workload.first {
            self.time(packets / 8, size, Self::work);
        }
        let before = self.engine.counters();
        let received = self.source.received;
        runs.whole.push(self.time(packets, size, Self::work));
        self.check(&before, &self.engine.counters(), self.source.received - received)
    }

    /// Instead of timing: `packets` packets through [`Self::measured_burst`], for a profiler that looks at it.
    pub(super) fn count(&mut self, packets: usize) -> Result<(), String> {
        let packets = self.prepare(packets);
        let before = self.engine.counters();
        let received = self.source.received;
        for _ in 0..packets.div_ceil(super::BURST) {
            self.work(super::BURST);
        }
        self.check(&before, &self.engine.counters(), self.source.received - received)
    }

    /// Moves the clock, and chooses the flows' order. Says how many packets a repeat has.
    fn prepare(&mut self, packets: usize) -> usize {
        let pause = if self.workload.first { LONG_PAUSE } else { PAUSE };
        let now = self.engine.now() + pause;
        self.engine.advance(now, |_, _, _| {});
        let flows = self.workload.flows;
        if self.workload.first {
            self.fresh = (self.fresh + flows as u32) % ADDRESSES;
        }
        if self.workload.first || self.order == Order::Random {
            self.source.reorder(self.workload.values(self.fresh, self.order, &mut self.random));
        }
        if self.workload.first { flows } else { packets.max(flows) }
    }

    /// Every packet was transmitted, or of the hostile mix as many as should be; no other packet was.
    fn check(&self, before: &Counters, after: &Counters, ran: u64) -> Result<(), String> {
        let (of, all) = self.transmitted.unwrap_or((1, 1));
        let mut expected = vec![
            ("received", before.received, after.received, ran),
            ("transmitted", before.transmitted, after.transmitted, ran / all * of),
        ];
        if self.workload.first {
            expected.push(("walks", before.flow_misses, after.flow_misses, ran));
        }
        for (what, before, after_, expected) in expected {
            if after_ - before != expected {
                let got = after_ - before;
                return Err(format!(
                    "{}: {what}: {got} instead of {expected}\n{after:?}",
                    self.workload.name
                ));
            }
        }
        Ok(())
    }

    /// Sends at least `packets` packets through the engine.
    fn warm_up(&mut self, packets: usize) {
        for _ in 0..packets.div_ceil(super::BURST) {
            let Self { engine, source, burst, port, .. } = self;
            source.receive(burst, super::BURST, engine.cache());
            engine.process(*port, burst, |_, frames, cache| source.take(frames, cache));
        }
    }

    /// One burst through the null pipeline.
    #[inline]
    fn idle(&mut self, size: usize) {
        let Self { engine, source, burst, .. } = self;
        source.receive(burst, size, engine.cache());
        self.measured_null();
    }

    /// One burst through the engine.
    #[inline]
    fn work(&mut self, size: usize) {
        let Self { engine, source, burst, .. } = self;
        source.receive(burst, size, engine.cache());
        self.measured_burst();
    }

    /// What profilers look at: the engine, from a burst received to its frames given back.
    #[inline(never)]
    fn measured_burst(&mut self) {
        let Self { engine, source, burst, port, measured, .. } = self;
        *measured += burst.len() as u64;
        engine.process(*port, burst, |_, frames, cache: &mut FrameCache| source.take(frames, cache));
    }

    /// The same without the engine.
    #[inline(never)]
    fn measured_null(&mut self) {
        let Self { engine, source, burst, .. } = self;
        source.take(burst, engine.cache());
    }

    /// Times at least `packets` packets in bursts of `size`.
    #[inline]
    fn time(&mut self, packets: usize, size: usize, run: impl Fn(&mut Self, usize)) -> Cost {
        let bursts = SAMPLE.div_ceil(size);
        let sample = bursts * size;
        let count = packets.div_ceil(sample);
        let mut samples = std::mem::take(&mut self.samples);
        samples.clear();
        samples.reserve(count);
        let start = ticks();
        let mut last = start;
        for _ in 0..count {
            for _ in 0..bursts {
                run(self, size);
            }
            let now = ticks();
            samples.push(now.wrapping_sub(last));
            last = now;
        }
        let mean = last.wrapping_sub(start) as f64 / (count * sample) as f64;
        let middle = samples.len() / 2;
        let typical = match samples.is_empty() {
            true => f64::NAN,
            false => *samples.select_nth_unstable(middle).1 as f64 / sample as f64,
        };
        self.samples = samples;
        Cost { mean, typical }
    }
}
