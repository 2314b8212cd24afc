//! weir's benchmarks. One subcommand a folder; what they share is in `common`.
//!
//! What is measured, how, and what is not: `docs/benchmarking.md`.

mod common;
mod dpdk;
mod instructions;
mod pipeline;
mod report;
pub mod rules;
mod scale;
mod tables;
mod wire;

use std::io::Write;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Benchmarks of weir: what a packet costs, beside other packet engines on the same machine.
#[derive(Debug, Parser)]
#[command(name = "weir-bench", version, propagate_version = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

// A subcommand is a folder with `Args` and `run`, a variant here, and a line in `main`.
#[derive(Debug, Subcommand)]
enum Command {
    Pipeline(pipeline::Args),
    Dpdk(dpdk::Args),
    Tables(tables::Args),
    Scale(scale::Args),
    Instructions(instructions::Args),
    Report(report::Args),
    #[command(hide = true)]
    Count(instructions::CountArgs),
    Wire(wire::Args),
}

/// Runs the subcommand that the process's arguments ask for.
pub fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Pipeline(args) => pipeline::run(&args),
        Command::Dpdk(args) => dpdk::run(&args),
        Command::Tables(args) => tables::run(&args),
        Command::Scale(args) => scale::run(&args),
        Command::Instructions(args) => instructions::run(&args),
        Command::Report(args) => report::run(&args),
        Command::Count(args) => instructions::count(&args),
        Command::Wire(args) => wire::run(&args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "error: {error}");
            ExitCode::FAILURE
        }
    }
}
