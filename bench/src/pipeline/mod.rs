//! What a packet costs the engine, in memory: frames from [`source`], through [`Engine::process`], back again.
//!
//! Each workload is measured beside its own *null* pipeline, which receives and gives back the same frames and does
//! nothing between; its cost is subtracted.
//!
//! [`Engine::process`]: weir_dataplane::worker::Engine::process

mod bed;
mod capture;
mod input;
pub(crate) mod peers;
pub(crate) mod report;
mod source;
mod workload;

use std::path::PathBuf;

use weir_dataplane::frame::BURST;

use crate::common::machine::Machine;
use crate::common::{pin, record};
use bed::{Bed, Runs};
pub(crate) use input::{Lengths, Order};
pub(crate) use source::Mode;
use workload::Workload;

/// Measure what a packet costs the engine, in memory
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Args {
    /// Workloads, separated by commas; W1 to W9 with their variants, or all
    #[arg(long, value_name = "NAMES", value_delimiter = ',', default_value = "all")]
    workload: Vec<String>,
    /// Packets in a burst, separated by commas [default: 64, and 1 for W2]
    #[arg(long, value_name = "SIZES", value_delimiter = ',', value_parser = clap::value_parser!(u16).range(1..=64))]
    burst: Vec<u16>,
    /// Bytes of a frame, 1500 for IP packets of this length, or imix
    #[arg(long, value_name = "LENGTH", default_value = "64")]
    frames: Lengths,
    /// In which order flows have packets [default: the workload's own]
    #[arg(long)]
    order: Option<Order>,
    /// What a packet costs before the engine sees it
    #[arg(long, default_value = "inplace")]
    source: Mode,
    /// Input frames
    #[arg(long, value_name = "N", default_value_t = 1024, value_parser = clap::value_parser!(u32).range(128..=1 << 20))]
    inputs: u32,
    /// Repeats of each workload
    #[arg(long, value_name = "N", default_value_t = 21, value_parser = clap::value_parser!(u32).range(11..))]
    repeats: u32,
    /// Packets in each repeat; at least one pass over the flows
    #[arg(long, value_name = "N", default_value_t = 65_536)]
    packets: usize,
    /// The core to run on [default: the last one of the affinity mask]
    #[arg(long, value_name = "N")]
    core: Option<usize>,
    /// Measure DPDK's testpmd and Open vSwitch in turn with weir, and calibrate by testpmd (T0)
    #[arg(long)]
    peers: bool,
    /// Measure the hostile mix (truncated, options, fragments, bad sums) too
    #[arg(long)]
    hostile: bool,
    /// Write the record: machine, commit, every repeat; to standard output, and nothing else there, without FILE
    #[arg(long, value_name = "FILE", num_args = 0..=1)]
    json: Option<Option<PathBuf>>,
    /// Draw the results (SVG)
    #[arg(long, value_name = "FILE")]
    plot: Option<PathBuf>,
    /// Write the input of the one workload chosen as a capture, and measure nothing
    #[arg(long, value_name = "FILE")]
    pcap: Option<PathBuf>,
}

/// What all beds have in common.
#[derive(Clone, Copy, Debug)]
struct Setup {
    lengths: Lengths,
    order: Option<Order>,
    source: Mode,
    /// Input frames.
    inputs: usize,
}

impl Args {
    fn setup(&self) -> Setup {
        Setup { lengths: self.frames, order: self.order, source: self.source, inputs: self.inputs as usize }
    }

    fn chosen(&self) -> Result<Vec<&'static Workload>, String> {
        let known = |name: &str| workload::ALL.iter().any(|workload| workload.name == name);
        if let Some(name) = self.workload.iter().find(|name| *name != "all" && !known(name)) {
            let names: Vec<_> = workload::ALL.iter().map(|workload| workload.name).collect();
            return Err(format!("no workload is called {name}; there are all, {}", names.join(", ")));
        }
        let wanted = |name| self.workload.iter().any(|wanted| wanted == "all" || wanted == name);
        Ok(workload::ALL.iter().filter(|workload| wanted(workload.name)).collect())
    }

    /// Sizes of bursts of this workload.
    fn bursts(&self, workload: &Workload) -> Vec<usize> {
        match (self.burst.as_slice(), workload.name) {
            ([], "W2") => vec![BURST, 1],
            ([], _) => vec![BURST],
            (sizes, _) => sizes.iter().map(|&size| usize::from(size)).collect(),
        }
    }
}

/// Runs `packets` packets of a workload through the engine, cached flows apart from a few, for a profiler that looks at
/// `measured_burst`; says how many it saw.
pub(crate) fn count(name: &str, packets: usize) -> Result<u64, String> {
    let setup = Setup { lengths: Lengths::Fixed(64), order: None, source: Mode::Inplace, inputs: 1024 };
    let (of, hostile) = name.strip_suffix(HOSTILE).map_or((name, false), |of| (of, true));
    let workload = workload::ALL.iter().find(|workload| workload.name == of);
    let workload = workload.filter(|workload| workload.hostile || !hostile);
    let workload = workload.ok_or_else(|| format!("instructions of {name} are not counted"))?;
    let mut bed =
        if hostile { Bed::with_hostile_mix(workload, &setup)? } else { Bed::new(workload, &setup)? };
    bed.count(packets)?;
    Ok(bed.measured)
}

/// What is counted: workloads, and the hostile mix on some.
pub(crate) fn counted() -> Vec<String> {
    let hostile = workload::ALL.iter().filter(|workload| workload.hostile);
    let hostile = hostile.map(|workload| format!("{}{HOSTILE}", workload.name));
    // The largest first: they take longest, and others can be counted meanwhile.
    let (large, small): (Vec<&Workload>, Vec<_>) = workload::ALL.iter().partition(|workload| workload.large);
    let names = large.into_iter().rev().chain(small).map(|workload| workload.name.to_owned());
    names.chain(hostile).collect()
}

/// Behind a workload's name: the hostile mix on it.
const HOSTILE: &str = "-hostile";

/// One line of the results while it is measured.
struct Line {
    bed: usize,
    burst: usize,
    hostile: bool,
    runs: Runs,
}

/// Measures and prints.
pub(crate) fn run(args: &Args) -> Result<(), String> {
    let (chosen, setup) = (args.chosen()?, args.setup());
    if let Some(path) = &args.pcap {
        let [workload] = chosen.as_slice() else {
            return Err("--pcap writes the input of one workload: choose it by --workload".to_owned());
        };
        return capture::write(path, &Bed::new(workload, &setup)?, setup.inputs.max(workload.flows));
    }
    let machine = Machine::probe(Some(pin::pin(args.core)?));
    let (mut beds, mut lines) = (Vec::new(), Vec::new());
    for workload in chosen {
        let line = |burst, hostile, bed| Line { bed, burst, hostile, runs: Runs::default() };
        lines.extend(args.bursts(workload).into_iter().map(|burst| line(burst, false, beds.len())));
        beds.push(Bed::new(workload, &setup)?);
        if args.hostile && workload.hostile {
            lines.push(line(BURST, true, beds.len()));
            beds.push(Bed::with_hostile_mix(workload, &setup)?);
        }
    }
    let mut peers = match (args.peers, machine.core) {
        (true, Some(_)) if !peers::installed() => {
            record::remark(
                "without peers and T0: dpdk-testpmd is not installed; `make bench-peers` installs it",
            );
            None
        }
        (true, Some(core)) => Some(peers::Peers::start(core, &beds, &setup)?),
        _ => None,
    };
    // Interleaved, so that what disturbs the machine for a while disturbs all workloads alike.
    for _ in 0..args.repeats {
        if let Some(peers) = &mut peers {
            peers.repeat()?;
        }
        for line in &mut lines {
            if let Some(bed) = beds.get_mut(line.bed) {
                bed.repeat(line.burst, args.packets, &mut line.runs)?;
            }
        }
    }
    let mut result = report::Record::new(machine, args, &beds, &lines);
    if let Some(peers) = peers {
        let (t0, costs) = peers.costs();
        result.compare(t0, peers.huge(), &costs);
    }
    if let Some(path) = &args.plot {
        report::plot(path, &result)?;
    }
    if record::save(args.json.as_ref(), &result)? { Ok(()) } else { record::say(&report::table(&result)) }
}

#[cfg(test)]
mod tests;
