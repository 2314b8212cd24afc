//! The sink: takes every frame of a device by AF_XDP, finds test packets by their signatures, counts by stream, measures latencies.
//!
//! The time of arrival is the one at which the kernel's XDP program saw the frame (or, where a driver leaves no room for it, the one at
//! which the sink took the burst): so the sink may nap without a trace in the latencies.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use serde::Serialize;
use weir_dataplane::frame::{BURST, Frame, FrameCache};
use weir_dataplane::io::afxdp::{AfXdpPort, AfXdpQueue, arrival};
use weir_dataplane::io::{Port, PortQueue};

use super::clock::now;
use super::deck::Deck;
use super::port;
use super::signature::{self, Signature};
use super::tracker::Tracker;
use super::{latency, stop};

/// Entries of the receive ring.
const RING: u32 = 8192;
/// The sink naps for as long as an eighth of the ring takes to fill, within these bounds.
const SHORTEST_NAP: Duration = Duration::from_micros(100);
const LONGEST_NAP: Duration = Duration::from_millis(2);
/// A sequence number beyond this is damage.
const MOST: u32 = 1 << 30;
/// Not yet known: the generator is still sending.
pub(crate) const UNKNOWN: u64 = u64::MAX;

/// Receives on one device.
pub(crate) struct Sink {
    port: AfXdpPort,
    queues: Vec<AfXdpQueue>,
    cache: FrameCache,
    deck: Arc<Deck>,
    burst: Vec<Frame>,
}

/// What arrived in a trial.
#[derive(Clone, Debug)]
pub(crate) struct Receipt {
    pub(crate) streams: Vec<StreamReceipt>,
    /// Frames without a signature, or with a damaged one: others' traffic, mostly.
    pub(crate) foreign: u64,
    /// Test packets of an earlier trial.
    pub(crate) stale: u64,
    /// Frames that the sink's own ring had no room for: a result with some of these says nothing about the device under test.
    pub(crate) missed: u64,
    /// ns from the intended departure to the arrival.
    pub(crate) latency: Histogram<u64>,
    /// Whether arrivals are the kernel's.
    pub(crate) stamped: bool,
}

/// What arrived of a stream.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct StreamReceipt {
    pub(crate) name: String,
    pub(crate) received: u64,
    pub(crate) duplicates: u64,
    pub(crate) reordered: u64,
    /// Packets whose payload was changed; they count as received.
    pub(crate) corrupted: u64,
}

impl Receipt {
    /// Packets of all streams, each counted once.
    pub(crate) fn received(&self) -> u64 {
        self.streams.iter().map(|stream| stream.received).sum()
    }
}

/// A trial's state while frames come in.
struct Tally {
    run: u16,
    trackers: Vec<Tracker>,
    corrupted: Vec<u64>,
    foreign: u64,
    stale: u64,
    unstamped: u64,
    latency: Histogram<u64>,
}

impl Tally {
    fn new(run: u16, streams: usize) -> Self {
        let (trackers, corrupted) = (vec![Tracker::default(); streams], vec![0; streams]);
        Self { run, trackers, corrupted, foreign: 0, stale: 0, unstamped: 0, latency: latency::histogram() }
    }

    #[inline]
    fn count(&mut self, frame: &mut Frame, deck: &Deck, taken: u64) {
        let stamp = arrival(frame);
        let Some(signature) = Signature::decode(frame.bytes()) else {
            self.foreign += 1;
            return;
        };
        let stream = usize::from(signature.stream);
        let (Some(tracker), Some(info)) = (self.trackers.get_mut(stream), deck.streams.get(stream)) else {
            self.foreign += 1;
            return;
        };
        if signature.run != self.run || signature.sequence > MOST {
            self.stale += 1;
            return;
        }
        if !tracker.arrived(signature.sequence) {
            return;
        }
        let filled = info.filled.get(signature.sequence as usize % info.filled.len().max(1));
        if !signature::intact(frame.bytes(), filled.copied().unwrap_or(0).into()) {
            if let Some(count) = self.corrupted.get_mut(stream) {
                *count += 1;
            }
        }
        self.unstamped += u64::from(stamp.is_none());
        let latency = stamp.unwrap_or(taken).saturating_sub(signature.time);
        self.latency.saturating_record(latency.max(1));
    }

    fn received(&self) -> u64 {
        self.trackers.iter().map(|tracker| tracker.received).sum()
    }
}

impl Sink {
    /// Opens the device.
    pub(crate) fn open(device: &str, deck: Arc<Deck>) -> Result<Self, String> {
        let (port, queues, cache) = port::open(device, RING, true)?;
        Ok(Self { port, queues, cache, deck, burst: Vec::with_capacity(BURST) })
    }

    /// What it is, for the record.
    pub(crate) fn describe(&self) -> String {
        let info = self.port.info();
        format!("{} on {} ({}, queues: {})", info.backend, info.device, info.driver, info.queues)
    }

    /// The device's name.
    pub(crate) fn device(&self) -> String {
        self.port.info().device.clone()
    }

    /// Takes packets of trial `run` until all of `sent` have arrived (it says [`UNKNOWN`] while they are being sent), or after the last
    /// was sent nothing has arrived for `quiet`. `rate` is what to expect, in packets a second.
    pub(crate) fn collect(&mut self, run: u16, rate: f64, sent: &AtomicU64, quiet: Duration) -> Receipt {
        let nap =
            Duration::from_secs_f64(f64::from(RING / 8) / rate.max(1.0)).clamp(SHORTEST_NAP, LONGEST_NAP);
        let missed = self.missed();
        let mut tally = Tally::new(run, self.deck.streams.len());
        let mut last = Instant::now();
        loop {
            let count = self.poll(&mut tally);
            let wanted = sent.load(Ordering::Acquire);
            if count > 0 || wanted == UNKNOWN {
                last = Instant::now();
            }
            if count < BURST {
                if tally.received() >= wanted
                    || last.elapsed() > quiet
                    || (stop::requested() && wanted != UNKNOWN)
                {
                    break;
                }
                std::thread::sleep(nap);
            }
        }
        self.receipt(tally, missed)
    }

    /// Throws away what has arrived.
    pub(crate) fn drain(&mut self) {
        let mut tally = Tally::new(0, 0);
        while self.poll(&mut tally) > 0 {}
    }

    fn poll(&mut self, tally: &mut Tally) -> usize {
        let mut count = 0;
        for queue in &mut self.queues {
            let received = queue.receive(&mut self.burst, BURST, &mut self.cache);
            count += received;
            if received > 0 {
                let taken = now();
                for mut frame in self.burst.drain(..) {
                    tally.count(&mut frame, &self.deck, taken);
                    self.cache.free(frame);
                }
            }
            queue.service(&mut self.cache);
        }
        count
    }

    fn missed(&self) -> u64 {
        // The kernel is asked now and then only: a thousand empty polls make sure.
        self.queues.iter().map(|queue| queue.counters().rx_missed).sum()
    }

    fn receipt(&mut self, tally: Tally, missed: u64) -> Receipt {
        for _ in 0..1100 {
            for queue in &mut self.queues {
                if queue.receive(&mut self.burst, BURST, &mut self.cache) > 0 {
                    self.burst.drain(..).for_each(|frame| self.cache.free(frame));
                }
            }
        }
        let streams = self.deck.streams.iter().zip(&tally.trackers).zip(&tally.corrupted);
        let streams = streams.map(|((info, tracker), corrupted)| StreamReceipt {
            name: info.name.clone(),
            received: tracker.received,
            duplicates: tracker.duplicates,
            reordered: tracker.reordered,
            corrupted: *corrupted,
        });
        Receipt {
            streams: streams.collect(),
            foreign: tally.foreign,
            stale: tally.stale,
            missed: self.missed().saturating_sub(missed),
            stamped: tally.unstamped == 0,
            latency: tally.latency,
        }
    }
}
