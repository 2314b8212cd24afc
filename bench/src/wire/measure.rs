//! Throughput and latency of several paths, in turns, so that what disturbs the machine for a while disturbs all of them alike.

use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

use super::dut::Dut;
use super::hiccup::Hiccups;
use super::latency::Percentiles;
use super::mlr::{GoalResult, Search};
use super::options::{Args, Cores};
use super::stop;
use super::trial::{Outcome, Path, together};
use crate::common::record::round;

/// A result this close to the self-test's ceiling says as much about the generator as about the device under test.
const NEAR_CEILING: f64 = 0.95;
/// Parts of the throughput at which latencies are measured.
const LOADS: [f64; 3] = [0.1, 0.5, 0.9];
/// Names of loads: one packet at a time, after `--silence` and after `--long-silence`.
pub(crate) const IDLE: &str = "idle";
pub(crate) const ASLEEP: &str = "asleep";
/// How long the use of processor time is watched while nothing is sent.
const WATCH: Duration = Duration::from_secs(2);

/// One device under test and its results so far.
pub(crate) struct Subject {
    pub(crate) name: String,
    pub(crate) version: String,
    pub(crate) notes: Vec<String>,
    /// Absent if it is somebody else's.
    pub(crate) dut: Option<Dut>,
    pub(crate) path: Path,
    pub(crate) throughput: Vec<GoalResult>,
    pub(crate) trials: Vec<Outcome>,
    pub(crate) latencies: Vec<Latency>,
    pub(crate) cpu_idle: Option<f64>,
    pub(crate) bounded: bool,
    /// Under load it is as another one that is measured: only what happens while little is sent is of interest.
    pub(crate) idle_only: bool,
    /// What went wrong with it: it is then left out of what follows.
    pub(crate) error: Option<String>,
}

/// Latencies at one load.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Latency {
    pub(crate) load: String,
    /// Packets a second.
    pub(crate) rate: f64,
    pub(crate) sent: u64,
    pub(crate) lost: u64,
    pub(crate) ns: Percentiles,
    /// The machine's stalls meanwhile.
    pub(crate) hiccups_ns: Percentiles,
    /// Every repeat.
    pub(crate) repeats: Vec<Outcome>,
    #[serde(skip)]
    pub(crate) histogram: Histogram<u64>,
    #[serde(skip)]
    pub(crate) stalls: Histogram<u64>,
}

impl Latency {
    pub(crate) fn new(load: &str, repeats: &[Outcome], hiccups: &Histogram<u64>) -> Self {
        let histogram = together(repeats);
        Self {
            load: load.to_owned(),
            rate: round(repeats.first().and_then(|outcome| outcome.rate).unwrap_or(0.0), 1),
            sent: repeats.iter().map(|outcome| outcome.sent).sum(),
            lost: repeats.iter().map(|outcome| outcome.lost).sum(),
            ns: Percentiles::of(&histogram),
            hiccups_ns: Percentiles::of(hiccups),
            repeats: repeats.to_vec(),
            histogram,
            stalls: hiccups.clone(),
        }
    }
}

impl Subject {
    pub(crate) fn new(name: &str, dut: Option<Dut>, path: Path) -> Self {
        Self {
            name: name.to_owned(),
            version: dut.as_ref().map(|dut| dut.version.clone()).unwrap_or_default(),
            notes: dut.as_ref().map(|dut| dut.notes.clone()).unwrap_or_default(),
            dut,
            path,
            throughput: Vec::new(),
            trials: Vec::new(),
            latencies: Vec::new(),
            cpu_idle: None,
            bounded: false,
            idle_only: false,
            error: None,
        }
    }

    /// Runs `work` while the device under test may run, and only then.
    fn active<T>(&mut self, work: impl FnOnce(&mut Self) -> Result<T, String>) -> Option<T> {
        if self.error.is_some() {
            return None;
        }
        if let Some(dut) = &self.dut {
            dut.resume();
        }
        let result = work(self);
        let alive = self.dut.as_mut().map_or(Ok(()), Dut::check);
        if let Some(dut) = &self.dut {
            dut.pause();
        }
        match alive.and(result) {
            Ok(value) => Some(value),
            Err(error) => {
                self.error = Some(error);
                None
            }
        }
    }

    /// The best known rate without loss, or with the least that was allowed.
    fn rate(&self) -> Option<f64> {
        self.throughput.iter().find_map(|result| result.conditional_throughput).filter(|rate| *rate > 0.0)
    }
}

/// Warms every path up: neighbours, flows, pages.
pub(crate) fn warm_up(subjects: &mut [Subject]) -> Result<(), String> {
    for subject in subjects {
        stop::check()?;
        subject.active(|subject| {
            let outcome = subject.path.at(20_000.0, Duration::from_millis(300))?;
            match outcome.received {
                0 => Err(format!("none of {} packets came through", outcome.sent)),
                _ => Ok(()),
            }
        });
    }
    Ok(())
}

/// One trial each at a fixed rate.
pub(crate) fn fixed(args: &Args, subjects: &mut [Subject], rate: f64) -> Result<(), String> {
    for subject in subjects {
        stop::check()?;
        if let Some(outcome) = subject.active(|subject| subject.path.at(rate, args.duration())) {
            subject.trials.push(outcome);
        }
    }
    Ok(())
}

/// Searches the throughput of all, a trial each in turn.
pub(crate) fn throughput(args: &Args, subjects: &mut [Subject], ceiling: f64) -> Result<(), String> {
    let most = args.max_rate.unwrap_or(ceiling);
    let new = || Search::new(args.goals(), args.min_rate, most, args.trials);
    let mut searches: Vec<_> = subjects.iter().map(|_| new()).collect();
    loop {
        let mut tried = false;
        for (subject, search) in subjects.iter_mut().zip(&mut searches) {
            stop::check()?;
            let searched = subject.error.is_none() && !subject.idle_only;
            let Some((rate, seconds)) = (if searched { search.next() } else { None }) else {
                continue;
            };
            let duration = Duration::from_secs_f64(seconds);
            let outcome = subject.active(|subject| subject.path.at(rate, duration));
            if let Some(outcome) = outcome {
                search.record(outcome.trial());
                subject.trials.push(outcome);
                tried = true;
            }
        }
        if !tried {
            break;
        }
    }
    for (subject, search) in subjects.iter_mut().zip(&searches).filter(|(subject, _)| !subject.idle_only) {
        subject.throughput = search.results();
        let near =
            |result: &GoalResult| result.bounds.lower.is_some_and(|rate| rate >= NEAR_CEILING * ceiling);
        let short = |result: &GoalResult| {
            let at = |outcome: &&Outcome| outcome.rate.map(f64::round) == result.bounds.upper;
            subject.trials.iter().filter(at).any(|outcome| outcome.short() || outcome.sink_missed > 0)
        };
        subject.bounded = subject.throughput.iter().any(|result| near(result) || short(result));
    }
    Ok(())
}

/// Latencies while idle, one packet at a time, after a short silence and after one that workers sleep in; and at parts of the throughput
/// found.
pub(crate) fn latencies(args: &Args, cores: &Cores, subjects: &mut [Subject]) -> Result<(), String> {
    for (load, silence) in [(IDLE, args.silence), (ASLEEP, args.long_silence)] {
        at_load(args, cores, subjects, load, |_| Some(1e6 / silence))?;
    }
    for part in LOADS {
        let name = format!("{:.0} %", part * 100.0);
        at_load(args, cores, subjects, &name, |subject| Some(subject.rate()? * part))?;
    }
    for subject in subjects {
        subject.cpu_idle = subject.active(|subject| Ok(cpu_while_idle(subject))).flatten();
        stop::check()?;
    }
    Ok(())
}

/// Latencies at one load, all in turns.
fn at_load(
    args: &Args,
    cores: &Cores,
    subjects: &mut [Subject],
    load: &str,
    rate: impl Fn(&Subject) -> Option<f64>,
) -> Result<(), String> {
    let mut outcomes: Vec<Vec<Outcome>> = subjects.iter().map(|_| Vec::new()).collect();
    let mut stalls: Vec<_> = subjects.iter().map(|_| super::latency::histogram()).collect();
    for _ in 0..args.repeats {
        for ((subject, outcomes), stalls) in subjects.iter_mut().zip(&mut outcomes).zip(&mut stalls) {
            stop::check()?;
            let Some(rate) = rate(subject) else { continue };
            let watch = Hiccups::start(&cores.all());
            outcomes.extend(subject.active(|subject| subject.path.at(rate, args.duration())));
            let _ = stalls.add(watch.finish());
        }
    }
    for ((subject, outcomes), stalls) in subjects.iter_mut().zip(&outcomes).zip(&stalls) {
        if !outcomes.is_empty() {
            subject.latencies.push(Latency::new(load, outcomes, stalls));
        }
    }
    Ok(())
}

/// The share of one core that a device under test uses while nothing is sent; `None` if it is no process.
fn cpu_while_idle(subject: &Subject) -> Option<f64> {
    let dut = subject.dut.as_ref()?;
    std::thread::sleep(Duration::from_millis(500));
    let before = dut.cpu_seconds()?;
    std::thread::sleep(WATCH);
    Some((dut.cpu_seconds()? - before) / WATCH.as_secs_f64())
}

/// The machine's stalls for a while.
pub(crate) fn hiccups(cores: &Cores, time: Duration) -> Histogram<u64> {
    let watch = Hiccups::start(&cores.all());
    std::thread::sleep(time);
    watch.finish()
}
