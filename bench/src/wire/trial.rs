//! One trial: a generator sends, a sink receives, and what came of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

use super::deck::Deck;
use super::generator::{Generator, Offer};
use super::latency::{self, Percentiles};
use super::mlr;
use super::sink::{Receipt, Sink, StreamReceipt, UNKNOWN};
use crate::common::pin;

/// After the last packet was sent, the trial is over when nothing has arrived for this long.
const QUIET: Duration = Duration::from_millis(50);

/// A generator and a sink, with a device under test between them, or a wire.
pub(crate) struct Path {
    pub(crate) generator: Box<dyn Generator + Send>,
    pub(crate) sink: Sink,
    pub(crate) deck: Arc<Deck>,
    /// Where generator and sink run.
    pub(crate) cores: (usize, usize),
    run: u16,
}

/// What came of a trial.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Outcome {
    /// Packets a second intended; `None`: as fast as possible.
    pub(crate) rate: Option<f64>,
    pub(crate) seconds: f64,
    pub(crate) intended: u64,
    pub(crate) sent: u64,
    pub(crate) received: u64,
    /// Sent and not received.
    pub(crate) lost: u64,
    pub(crate) streams: Vec<StreamOutcome>,
    /// Frames that are no test packets of this run.
    pub(crate) foreign: u64,
    pub(crate) stale: u64,
    /// Frames that the sink's own ring had no room for.
    pub(crate) sink_missed: u64,
    /// The longest that a packet left after its time, in ns.
    pub(crate) late_ns: u64,
    pub(crate) latency_ns: Percentiles,
    /// Whether arrivals were stamped by the kernel.
    pub(crate) stamped: bool,
    #[serde(skip)]
    pub(crate) histogram: Histogram<u64>,
}

/// A stream's part.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct StreamOutcome {
    pub(crate) sent: u64,
    #[serde(flatten)]
    pub(crate) receipt: StreamReceipt,
}

impl Outcome {
    /// As the search wants it: what was intended and did not arrive is lost.
    pub(crate) fn trial(&self) -> mlr::Trial {
        let intended = self.intended.max(1) as f64;
        mlr::Trial {
            load: self.rate.unwrap_or(0.0),
            duration: self.seconds,
            loss_ratio: ((intended - self.received as f64) / intended).max(0.0),
        }
    }

    /// Whether the generator sent less than it should: the rate is beyond it.
    pub(crate) fn short(&self) -> bool {
        self.sent < self.intended
    }

    /// Packets a second that arrived.
    pub(crate) fn forwarded(&self) -> f64 {
        self.received as f64 / self.seconds.max(1e-9)
    }

    fn sum(&self, of: impl Fn(&StreamReceipt) -> u64) -> u64 {
        self.streams.iter().map(|stream| of(&stream.receipt)).sum()
    }

    pub(crate) fn duplicates(&self) -> u64 {
        self.sum(|receipt| receipt.duplicates)
    }

    pub(crate) fn reordered(&self) -> u64 {
        self.sum(|receipt| receipt.reordered)
    }

    pub(crate) fn corrupted(&self) -> u64 {
        self.sum(|receipt| receipt.corrupted)
    }
}

impl Path {
    pub(crate) fn new(
        generator: Box<dyn Generator + Send>,
        sink: Sink,
        deck: Arc<Deck>,
        cores: (usize, usize),
    ) -> Self {
        Self { generator, sink, deck, cores, run: std::process::id() as u16 }
    }

    /// At a rate for a time.
    pub(crate) fn at(&mut self, rate: f64, duration: Duration) -> Result<Outcome, String> {
        self.measure(|run| Offer::at(run, rate, duration), duration)
    }

    /// As fast as the generator can.
    pub(crate) fn flood(&mut self, duration: Duration) -> Result<Outcome, String> {
        self.measure(|run| Offer::flood(run, duration), duration)
    }

    fn measure(&mut self, offer: impl Fn(u16) -> Offer, duration: Duration) -> Result<Outcome, String> {
        self.run = self.run.wrapping_add(1);
        let offer = offer(self.run);
        self.sink.drain();
        let Self { generator, sink, cores, .. } = self;
        let sent = AtomicU64::new(UNKNOWN);
        let (counted, receipt) = std::thread::scope(|scope| {
            let sink = scope.spawn(|| {
                let _ = pin::pin(Some(cores.1));
                sink.collect(offer.run, offer.rate.unwrap_or(5e6), &sent, QUIET)
            });
            // On a thread of its own: what is pinned hands that on to whatever it starts.
            let generator = scope.spawn(|| {
                let _ = pin::pin(Some(cores.0));
                generator.send(&offer)
            });
            let counted =
                generator.join().unwrap_or_else(|_| Err("the generator's thread panicked".to_owned()));
            sent.store(counted.as_ref().map_or(0, |counted| counted.packets), Ordering::Release);
            (counted, sink.join())
        });
        let receipt = receipt.map_err(|_| "the sink's thread panicked".to_owned())?;
        let counted = counted?;
        let intended = offer.rate.map_or(counted.packets, |_| offer.count);
        let seconds = offer.rate.map_or(counted.elapsed, |_| duration).as_secs_f64();
        Ok(self.outcome(offer.rate, seconds, intended, counted.packets, counted.late, receipt))
    }

    fn outcome(
        &self,
        rate: Option<f64>,
        seconds: f64,
        intended: u64,
        sent: u64,
        late: Duration,
        receipt: Receipt,
    ) -> Outcome {
        let received = receipt.received();
        let by_stream = self.deck.by_stream(sent).into_iter().zip(receipt.streams);
        Outcome {
            rate,
            seconds,
            intended,
            sent,
            received,
            lost: sent.saturating_sub(received),
            streams: by_stream.map(|(sent, receipt)| StreamOutcome { sent, receipt }).collect(),
            foreign: receipt.foreign,
            stale: receipt.stale,
            sink_missed: receipt.missed,
            late_ns: u64::try_from(late.as_nanos()).unwrap_or(u64::MAX),
            latency_ns: Percentiles::of(&receipt.latency),
            stamped: receipt.stamped,
            histogram: receipt.latency,
        }
    }
}

/// An outcome's histogram added to another.
pub(crate) fn add(all: &mut Histogram<u64>, outcome: &Outcome) {
    let _ = all.add(&outcome.histogram);
}

/// Histograms of several outcomes together.
pub(crate) fn together<'a>(outcomes: impl IntoIterator<Item = &'a Outcome>) -> Histogram<u64> {
    let mut all = latency::histogram();
    outcomes.into_iter().for_each(|outcome| add(&mut all, outcome));
    all
}
