//! The wire: a packet generator and a sink around a device under test. Throughput by RFC 2544's terms with MLRsearch (RFC 9971),
//! latency open loop, side by side.

mod clock;
mod deck;
mod dut;
mod generator;
mod hiccup;
mod lab;
mod latency;
mod measure;
mod mlr;
mod options;
mod packet;
mod port;
mod report;
mod selftest;
mod side;
mod signature;
mod sink;
mod stop;
mod stream;
mod tracker;
mod trial;

use std::sync::Arc;

use crate::common::record;

pub(crate) use options::Args;

/// Measures and prints.
pub(crate) fn run(args: &Args) -> Result<(), String> {
    stop::watch()?;
    args.check()?;
    let cores = options::Cores::choose(args)?;
    let deck = Arc::new(args.deck()?);
    if deck.skipped > 0 {
        record::say(&format!("{} captured packets cannot carry a signature and are left out", deck.skipped))?;
    }
    let result = match (&args.tx, &args.rx) {
        (Some(tx), Some(rx)) => side::external(args, &cores, &deck, tx, rx)?,
        _ => side::by_side(args, &cores, &deck)?,
    };
    result.save(args)?;
    record::say(&result.text())?;
    result.verdict()?;
    // What was measured until then has been told.
    stop::check()
}
