//! The in-memory benchmark of the engine: frames from templates, through [`Engine::process`], back to the pool.
//!
//! Each workload is measured beside its own *null* pipeline, which receives and frees the same frames and does nothing
//! between; its cost is subtracted. What is measured and what is not: `docs/benchmarking.md`.
//!
//! [`Engine::process`]: weir_dataplane::worker::Engine::process

mod clock;
mod machine;
mod measure;
mod options;
mod report;
pub mod rules;
mod workload;

use std::io::Write;
use std::process::ExitCode;

use options::{Mode, Options};

/// Runs the benchmark with the process's arguments.
pub fn main() -> ExitCode {
    match Options::parse(std::env::args().skip(1)) {
        Ok(Mode::Help) => finish(say(options::HELP)),
        Ok(Mode::Smoke(options)) => finish(smoke(&options)),
        Ok(Mode::Measure(options)) => finish(measure(&options)),
        Err(error) => finish(Err(error)),
    }
}

fn finish(result: Result<(), String>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn say(text: &str) -> Result<(), String> {
    match writeln!(std::io::stdout(), "{}", text.trim_end()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error.to_string()),
        _ => Ok(()),
    }
}

/// Every workload once, with few flows: does it run, and do its checks hold?
fn smoke(options: &Options) -> Result<(), String> {
    let few = workload::all().into_iter().filter(|workload| workload.flows <= 1_000);
    for workload in few.filter(|workload| options.wants(workload)) {
        let mut bed = measure::Bed::new(&workload)?;
        bed.repeat(4_096)?;
        say(&format!("{}: ok", workload.name()))?;
    }
    Ok(())
}

fn measure(options: &Options) -> Result<(), String> {
    let mut machine = machine::Machine::probe();
    machine.core = options.pin();
    let chosen: Vec<_> = workload::all().into_iter().filter(|workload| options.wants(workload)).collect();
    if chosen.is_empty() {
        return Err(format!("no workload is called {:?}", options.filters));
    }
    let calibration = clock::Calibration::start();
    let mut beds = Vec::new();
    for workload in &chosen {
        beds.push(measure::Bed::new(workload)?);
    }
    // Interleaved, so that what disturbs the machine for a while disturbs all workloads alike.
    for _ in 0..options.repeats {
        for bed in &mut beds {
            bed.repeat(options.packets)?;
        }
    }
    let record = report::Record::new(machine, calibration.finish(), options, &beds);
    if let Some(path) = &options.json {
        let text = serde_json::to_string_pretty(&record).map_err(|error| error.to_string())?;
        std::fs::write(path, text + "\n").map_err(|error| format!("{}: {error}", path.display()))?;
    }
    say(&record.table())
}
