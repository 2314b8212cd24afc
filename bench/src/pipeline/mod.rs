//! The engine in memory: frames from templates, through [`Engine::process`], back to the pool.
//!
//! Each workload is measured beside its own *null* pipeline, which receives and frees the same frames and does nothing
//! between; its cost is subtracted.
//!
//! [`Engine::process`]: weir_dataplane::worker::Engine::process

mod measure;
mod report;
mod workload;

use std::path::PathBuf;

use crate::common::machine::Machine;
use crate::common::{clock, pin, record};

/// Measures what a packet costs the engine, in memory.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Workloads by name (route/1000) or kind (route); all of them without any
    #[arg(value_name = "WORKLOAD")]
    workloads: Vec<String>,
    /// Repeats of each workload
    #[arg(long, value_name = "N", default_value_t = 31, value_parser = clap::value_parser!(u32).range(11..))]
    repeats: u32,
    /// Packets in each repeat; at least one pass over the flows
    #[arg(long, value_name = "N", default_value_t = 131_072)]
    packets: usize,
    /// The core to run on; the last one of the affinity mask unless told otherwise
    #[arg(long, value_name = "N")]
    core: Option<usize>,
    /// Write the record (machine, commit, every repeat)
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

impl Args {
    fn wants(&self, workload: &workload::Workload) -> bool {
        let name = workload.name();
        let kind = name.split('/').next();
        self.workloads.is_empty() || self.workloads.iter().any(|w| *w == name || Some(&**w) == kind)
    }
}

/// Measures and prints.
pub(crate) fn run(args: &Args) -> Result<(), String> {
    let machine = Machine::probe(Some(pin::pin(args.core)?));
    let chosen: Vec<_> = workload::all().into_iter().filter(|workload| args.wants(workload)).collect();
    if chosen.is_empty() {
        return Err(format!("no workload is called {:?}", args.workloads));
    }
    let mut beds = Vec::new();
    for workload in &chosen {
        beds.push(measure::Bed::new(workload)?);
    }
    // Interleaved, so that what disturbs the machine for a while disturbs all workloads alike.
    for _ in 0..args.repeats {
        for bed in &mut beds {
            bed.repeat(args.packets)?;
        }
    }
    let result =
        report::Record::new(machine, clock::ticks_per_ns(), args.repeats as usize, args.packets, &beds);
    if let Some(path) = &args.json {
        record::write(path, &result)?;
    }
    record::say(&result.table())
}
