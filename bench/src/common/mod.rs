//! What the benchmarks share: the machine's description, time, statistics, pinning, records, plots.
// Each subcommand uses its own part of it.
#![allow(dead_code)]

pub(crate) mod clock;
pub(crate) mod machine;
pub(crate) mod pin;
pub(crate) mod plot;
pub(crate) mod record;
pub(crate) mod stats;
