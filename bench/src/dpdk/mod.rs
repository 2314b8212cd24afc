//! weir's binary over DPDK devices, beside DPDK's own programs and Open vSwitch over the same devices, on the same core.
//!
//! Packets come from `net_null`, which hands out empty buffers, from `net_pcap`, which plays a capture as fast as it is asked, or
//! go round over two `net_memif` links to a generator on the other core. What is counted is what leaves, against the wall clock, so
//! a figure holds everything: source, engine, driver, loop.

mod case;
mod process;
mod testpmd;
mod weir;

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::common::clock;
use crate::common::machine::Machine;
use crate::common::pin::other_than;
use crate::common::record;
use crate::common::stats::Summary;
use crate::pipeline::peers::ovs::Ovs;
use case::{Case, Source};

/// Measure weir over DPDK devices beside testpmd, l3fwd and Open vSwitch
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Args {
    /// Cases, separated by commas: io-null, io-pcap, io-memif, route-1, route-100k, chain-1, chain-100k, or all
    #[arg(long, value_name = "NAMES", value_delimiter = ',', default_value = "all")]
    case: Vec<String>,
    /// weir's binary, built with DPDK
    #[arg(long, value_name = "FILE", default_value = "target/dpdk/release/weir")]
    weir: PathBuf,
    /// DPDK's l3fwd, if it is to be measured: a path, or a name to look for
    #[arg(long, value_name = "FILE")]
    l3fwd: Option<PathBuf>,
    /// Repeats of each case, in turn
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    repeats: u32,
    /// Milliseconds that each is measured for
    #[arg(long, value_name = "MS", default_value_t = 700)]
    time: u64,
    /// The core to forward on [default: the last one]
    #[arg(long, value_name = "N")]
    core: Option<usize>,
    /// Leave Open vSwitch out
    #[arg(long)]
    no_ovs: bool,
    /// Write the record: machine, commit, every repeat
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// Where and how everything runs.
#[derive(Clone, Debug)]
struct Setting {
    core: usize,
    /// For control threads and the generator.
    other: usize,
    weir: PathBuf,
    l3fwd: Option<PathBuf>,
    time: Duration,
    folder: PathBuf,
}

/// The record of a run.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) machine: Machine,
    pub(crate) results: Vec<Line>,
}

/// One program on one case: cycles a packet, source and sink included.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Line {
    pub(crate) case: String,
    pub(crate) title: String,
    pub(crate) program: String,
    pub(crate) cycles: f64,
    pub(crate) mpps: f64,
    pub(crate) spread: f64,
    /// This program's cycles over weir's: above 1, weir is faster.
    pub(crate) against_weir: Option<f64>,
    pub(crate) repeats: Vec<f64>,
}

/// Measures and prints.
pub(crate) fn run(args: &Args) -> Result<(), String> {
    let chosen = case::chosen(&args.case)?;
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    let core = args.core.unwrap_or(cpus.saturating_sub(1));
    let folder = tempfile::tempdir().map_err(|error| format!("cannot make a folder: {error}"))?;
    let setting = Setting {
        core,
        other: other_than(core).unwrap_or(core),
        weir: args.weir.clone(),
        l3fwd: args.l3fwd.clone(),
        time: Duration::from_millis(args.time),
        folder: folder.path().to_owned(),
    };
    let machine = Machine::probe(Some(core));
    record::say(&machine.describe())?;
    let ovs = if args.no_ovs { None } else { switch(&setting, &chosen)? };
    let mut samples: Vec<(&Case, &'static str, Vec<f64>)> = Vec::new();
    for case in &chosen {
        case.write_capture(&setting.folder)?;
    }
    for _ in 0..args.repeats {
        for case in &chosen {
            for (program, cycles) in once(case, &setting, ovs.as_ref())? {
                match samples.iter_mut().find(|(of, by, _)| of.name == case.name && *by == program) {
                    Some((.., values)) => values.push(cycles),
                    None => samples.push((case, program, vec![cycles])),
                }
            }
        }
    }
    let record = Record { results: lines(&samples), machine };
    if let Some(path) = &args.json {
        record::write(path, &record)?;
    }
    record::say(&table(&record.results))
}

/// Open vSwitch, if a case asks for it and it can be had.
fn switch(setting: &Setting, cases: &[&Case]) -> Result<Option<Ovs>, String> {
    if cases.iter().all(|case| case.ovs.is_none()) {
        return Ok(None);
    }
    match Ovs::start(setting.core) {
        Ok(ovs) => Ok(Some(ovs)),
        Err(error) => record::say(&format!("without Open vSwitch: {error}")).map(|()| None),
    }
}

/// Every program once on a case: its name, and its cycles a packet.
fn once(case: &Case, setting: &Setting, ovs: Option<&Ovs>) -> Result<Vec<(&'static str, f64)>, String> {
    let mut results = Vec::new();
    if case.testpmd {
        results.push(("testpmd io", testpmd::measure(case, setting)?));
    }
    results.push(("weir", weir::measure(case, setting)?));
    if let (Some(l3fwd), Source::Capture) = (&setting.l3fwd, case.source) {
        if case.l3fwd {
            match testpmd::measure_l3fwd(l3fwd, case, setting) {
                Ok(cycles) => results.push(("l3fwd", cycles)),
                // It has bounds on memory and routes of its own.
                Err(error) => {
                    let first = error.get(..300).unwrap_or(&error);
                    record::say(&format!("{}: without l3fwd: {first}", case.name))?;
                }
            }
        }
    }
    if let (Some(ovs), Some(workload)) = (ovs, case.ovs) {
        match ovs.measure(workload, &case.capture(&setting.folder)) {
            Ok(cycles) => results.push(("Open vSwitch", cycles)),
            // Its pools do not hold every capture.
            Err(error) => {
                let first = error.lines().next().unwrap_or_default();
                record::say(&format!("{}: without Open vSwitch: {first}", case.name))?;
            }
        }
    }
    Ok(results)
}

fn lines(samples: &[(&Case, &'static str, Vec<f64>)]) -> Vec<Line> {
    let middle = |values: &[f64]| Summary::new(values.iter().copied());
    let of_weir = |case: &Case| {
        let found = samples.iter().find(|(of, by, _)| of.name == case.name && *by == "weir");
        found.map(|(.., values)| middle(values).median)
    };
    let line = |(case, program, values): &(&Case, &'static str, Vec<f64>)| {
        let summary = middle(values);
        let against = of_weir(case).filter(|_| *program != "weir").map(|weir| summary.median / weir);
        Line {
            case: case.name.to_owned(),
            title: case.title.to_owned(),
            program: (*program).to_owned(),
            cycles: record::round(summary.median, 1),
            mpps: record::round(1000.0 * clock::ticks_per_ns() / summary.median, 2),
            spread: record::round(summary.spread(), 3),
            against_weir: against.map(|ratio| record::round(ratio, 2)),
            repeats: values.iter().map(|value| record::round(*value, 1)).collect(),
        }
    };
    samples.iter().map(line).collect()
}

fn table(lines: &[Line]) -> String {
    let mut text = format!(
        "\n{:<11} {:<46} {:<13} {:>8} {:>7} {:>7} {:>8}\n",
        "case", "what", "program", "cycles", "Mpps", "spread", "× weir"
    );
    for line in lines {
        let against = line.against_weir.map_or("-".to_owned(), |ratio| format!("{ratio:.2}"));
        text += &format!(
            "{:<11} {:<46} {:<13} {:>8.1} {:>7.2} {:>6.1}% {against:>8}\n",
            line.case,
            line.title,
            line.program,
            line.cycles,
            line.mpps,
            100.0 * line.spread
        );
    }
    text + "\nCycles a packet, source, sink and loop included. × weir: how many times as long as weir it takes.\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_that_takes_twice_as_long_is_two_times_weir() {
        let case = &case::ALL[0];
        let samples = [(case, "testpmd io", vec![80.0, 80.0, 90.0]), (case, "weir", vec![40.0, 41.0, 40.0])];
        let lines = lines(&samples);
        assert_eq!((lines[0].cycles, lines[0].against_weir), (80.0, Some(2.0)));
        assert_eq!((lines[1].cycles, lines[1].against_weir), (40.0, None));
        let text = table(&lines);
        assert!(text.contains("testpmd io") && text.contains("2.00"), "{text}");
    }
}
