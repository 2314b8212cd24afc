//! The record of a run, and the table that people read.

use std::fmt::Write;

use serde::Serialize;

use super::measure::{Bed, Cost};
use super::workload::FRAME;
use crate::common::machine::Machine;
use crate::common::stats::Summary;

/// A whole run.
#[derive(Serialize)]
pub(crate) struct Record {
    machine: Machine,
    /// Ticks of the time-stamp counter a nanosecond.
    ticks_per_nanosecond: f64,
    burst: usize,
    frame: usize,
    packets: usize,
    repeats: usize,
    workloads: Vec<Figures>,
}

/// One workload's figures, in nanoseconds a packet.
#[derive(Serialize)]
struct Figures {
    name: String,
    flows: usize,
    /// The engine alone: each repeat's whole minus the median null.
    engine: Summary,
    /// The same of median bursts.
    engine_typical: Summary,
    /// Receive and free alone.
    null: Summary,
    raw: Raw,
}

/// Each repeat, in nanoseconds a packet.
#[derive(Serialize)]
struct Raw {
    whole: Vec<f64>,
    null: Vec<f64>,
    whole_typical: Vec<f64>,
    null_typical: Vec<f64>,
}

impl Figures {
    fn new(bed: &Bed, rate: f64) -> Self {
        let each = |costs: &[Cost], part: fn(&Cost) -> f64| -> Vec<f64> {
            costs.iter().map(|cost| part(cost) / rate).collect()
        };
        let raw = Raw {
            whole: each(&bed.whole, |cost| cost.mean),
            null: each(&bed.null, |cost| cost.mean),
            whole_typical: each(&bed.whole, |cost| cost.typical),
            null_typical: each(&bed.null, |cost| cost.typical),
        };
        // A disturbed repeat of the null pipeline does not make the engine look fast.
        let less = |whole: &[f64], null: &[f64]| {
            let null = Summary::new(null.iter().copied()).median;
            Summary::new(whole.iter().map(|whole| whole - null))
        };
        Self {
            name: bed.workload.name(),
            flows: bed.workload.flows,
            engine: less(&raw.whole, &raw.null),
            engine_typical: less(&raw.whole_typical, &raw.null_typical),
            null: Summary::new(raw.null_typical.iter().copied()),
            raw,
        }
    }
}

impl Record {
    pub(crate) fn new(machine: Machine, rate: f64, repeats: usize, packets: usize, beds: &[Bed]) -> Self {
        Self {
            machine,
            ticks_per_nanosecond: rate,
            burst: weir_dataplane::frame::BURST,
            frame: FRAME,
            packets,
            repeats,
            workloads: beds.iter().map(|bed| Figures::new(bed, rate)).collect(),
        }
    }

    /// The table.
    pub(crate) fn table(&self) -> String {
        let mut text = String::new();
        let _ = writeln!(
            text,
            "{}\n\
             {}-byte frames, bursts of {}, {} repeats of {} packets, interleaved\n\n\
             nanoseconds (cycles) a packet of a cached flow, receive and free (null) subtracted\n\n\
             {:<26} {:>14} {:>13} {:>7} {:>14} {:>7} {:>7}",
            self.machine.describe(),
            self.frame,
            self.burst,
            self.repeats,
            self.packets,
            "workload/flows",
            "median",
            "quartiles",
            "least",
            "median burst",
            "Mpps",
            "null",
        );
        for figures in &self.workloads {
            let (engine, typical) = (figures.engine, figures.engine_typical);
            let both = |ns: f64| format!("{ns:.1} ({:.0})", ns * self.ticks_per_nanosecond);
            let _ = writeln!(
                text,
                "{:<26} {:>14} {:>13} {:>7.1} {:>14} {:>7.1} {:>7.1}",
                figures.name,
                both(engine.median),
                format!("{:.1}–{:.1}", engine.lower_quartile, engine.upper_quartile),
                engine.least,
                both(typical.median),
                1_000.0 / typical.median,
                figures.null.median,
            );
        }
        text.push_str(
            "\nmedian: of the repeats' means. median burst: median of the repeats' median bursts, which an interruption\n\
             does not move; where the two differ, the machine was disturbed. Mpps: of the median burst, engine alone.\n",
        );
        text
    }
}
