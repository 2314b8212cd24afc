//! Generator and sink back to back: what they can do, and what they add to latencies, before anything stands between them.

use std::time::Duration;

use serde::Serialize;

use super::measure::{self, Latency};
use super::mlr::{Goal, Search};
use super::options::{Args, Cores};
use super::trial::{Outcome, Path};
use super::{lab, stop};

/// Seconds of a trial of the self-test, and most of them.
const TRIAL: f64 = 0.5;
const TRIALS: usize = 16;

/// What generator and sink can do.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct SelfTest {
    pub(crate) generator: String,
    pub(crate) sink: String,
    /// As fast as the generator can, whatever the sink takes.
    pub(crate) flood: Outcome,
    /// The largest rate found at which every packet arrives, in packets a second; without a search, what arrived in the flood.
    pub(crate) ceiling: f64,
    /// Their own part of latencies, one packet at a time; absent without a search.
    pub(crate) idle: Option<Latency>,
}

impl SelfTest {
    fn new(path: &Path, flood: Outcome, ceiling: f64, idle: Option<Latency>) -> Self {
        Self { generator: path.generator.describe(), sink: path.sink.describe(), flood, ceiling, idle }
    }
}

/// Measures.
///
/// # Errors
/// When packets are lost, changed, doubled or reordered even slowly: nothing that is measured could then be believed.
pub(crate) fn run(args: &Args, cores: &Cores, path: &mut Path) -> Result<SelfTest, String> {
    check(path)?;
    let duration = Duration::from_secs_f64(TRIAL);
    let flood = path.flood(duration)?;
    let most = (flood.sent as f64 / flood.seconds).max(args.min_rate);
    let goal =
        Goal { loss_ratio: 0.0, exceed_ratio: 0.5, width: 0.02, final_trial: TRIAL, duration_sum: TRIAL };
    if let Some(rate) = args.rate {
        // One trial needs no search: what arrived in the flood is a lower bound of the ceiling, roughly.
        let ceiling = flood.forwarded().max(rate);
        return Ok(SelfTest::new(path, flood, ceiling, None));
    }
    let mut search = Search::new(vec![goal], args.min_rate, most, TRIALS);
    while let Some((rate, _)) = search.next() {
        stop::check()?;
        search.record(path.at(rate, duration)?.trial());
    }
    let ceiling = search.results().first().and_then(|result| result.bounds.lower).ok_or_else(|| {
        format!(
            "self-test: even {} packets a second do not all arrive back to back; {} of {} were lost in a flood, {} of them by the sink",
            args.min_rate, flood.lost, flood.sent, flood.sink_missed
        )
    })?;
    let outcome = path.at(1e6 / args.silence, args.duration())?;
    let idle = Latency::new(measure::IDLE, &[outcome], &measure::hiccups(cores, Duration::from_millis(500)));
    Ok(SelfTest::new(path, flood, ceiling, Some(idle)))
}

/// A thousand packets, slowly: each arrives once, in order, whole.
fn check(path: &mut Path) -> Result<(), String> {
    let outcome = path.at(10_000.0, Duration::from_millis(100))?;
    let bad = outcome.lost + outcome.duplicates() + outcome.reordered() + outcome.corrupted();
    if outcome.received == outcome.intended && bad == 0 {
        return Ok(());
    }
    Err(format!(
        "self-test: of {} packets sent at 10,000 a second {} were lost, {} doubled, {} reordered, {} changed: is something \
         between the devices, or are they not connected? (driver: {})",
        outcome.sent,
        outcome.lost,
        outcome.duplicates(),
        outcome.reordered(),
        outcome.corrupted(),
        lab::driver(&path.sink.device())
    ))
}
