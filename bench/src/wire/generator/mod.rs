//! Generators: they send the packets of a deck at a rate by the clock, or as fast as they can.
//!
//! They are open loop: packet n is due at start + n / rate whatever became of the others, and says so in its signature. A generator
//! that falls behind sends what is due as fast as it can; what it has not sent when the time is up was not sent.

mod afxdp;
mod live;
mod run;

use std::sync::Arc;
use std::time::Duration;

use super::clock::now;
use super::deck::Deck;
use super::stop;

pub(crate) use afxdp::AfXdp;
pub(crate) use live::Live;

/// Below this many packets a second each is sent at once, and none is given up.
const LOW: f64 = 50_000.0;

/// One trial's packets.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Offer {
    /// Number of the trial.
    pub(crate) run: u16,
    /// Packets a second; `None`: as fast as possible.
    pub(crate) rate: Option<f64>,
    /// Packets wanted.
    pub(crate) count: u64,
    /// After this long nothing is sent.
    pub(crate) limit: Duration,
}

impl Offer {
    /// `rate` packets a second for `duration`, and a hundredth more to catch up in. At a low rate the generator is not what is short:
    /// there is time enough to wait for its core.
    pub(crate) fn at(run: u16, rate: f64, duration: Duration) -> Self {
        let count = (rate * duration.as_secs_f64()).round().max(1.0) as u64;
        let grace = match rate < LOW {
            true => Duration::from_secs(2),
            false => (duration / 100).max(Duration::from_millis(5)),
        };
        Self { run, rate: Some(rate), count, limit: duration + grace }
    }

    /// As fast as possible for `duration`.
    pub(crate) fn flood(run: u16, duration: Duration) -> Self {
        Self { run, rate: None, count: u64::MAX, limit: duration }
    }
}

/// What was sent.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Sent {
    pub(crate) packets: u64,
    /// From the first packet's time to the last one's.
    pub(crate) elapsed: Duration,
    /// The longest that a packet left after its time.
    pub(crate) late: Duration,
}

/// A way to send.
pub(crate) trait Generator {
    /// What it is, for the record.
    fn describe(&self) -> String;

    /// Sends, on the calling thread, until everything is sent, the time is up, or the user wants to stop.
    fn send(&mut self, offer: &Offer) -> Result<Sent, String>;
}

/// How packets are sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Kind {
    /// Live frames where the kernel has them and the device takes them, else AF_XDP
    #[default]
    Auto,
    /// A BPF program run with live frames (Linux 5.18); fastest on veth
    Live,
    /// An AF_XDP socket; on any device
    Afxdp,
}

/// What a sleeping thread may oversleep: the kernel's timer slack, and waking up.
const MARGIN: u64 = 150_000;

/// Sleeps if `due` is far enough for it; the rest is for polling.
fn sleep_until_shortly_before(due: u64) {
    let ahead = due.saturating_sub(now());
    if ahead > 2 * MARGIN {
        // Now and then the user is asked whether to go on.
        std::thread::sleep(Duration::from_nanos((ahead - MARGIN).min(100_000_000)));
    }
}

/// A generator of `deck` out of `device`.
pub(crate) fn open(kind: Kind, device: &str, deck: &Arc<Deck>) -> Result<Box<dyn Generator + Send>, String> {
    let afxdp = || AfXdp::open(device, Arc::clone(deck)).map(|it| Box::new(it) as Box<dyn Generator + Send>);
    let live = || Live::open(device, deck).map(|it| Box::new(it) as Box<dyn Generator + Send>);
    match kind {
        Kind::Live => live(),
        Kind::Afxdp => afxdp(),
        // Physical drivers take live frames only while they have an XDP program of their own.
        Kind::Auto if super::lab::driver(device) == "veth" => live().or_else(|_| afxdp()),
        Kind::Auto => afxdp(),
    }
}
