//! The weir-bench binary.

use std::process::ExitCode;

fn main() -> ExitCode {
    weir_bench::main()
}
