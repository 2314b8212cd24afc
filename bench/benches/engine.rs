//! `cargo bench -p weir-bench`: what a packet of a cached flow costs the engine, in memory. See `docs/benchmarking.md`.

fn main() -> std::process::ExitCode {
    weir_bench::main()
}
