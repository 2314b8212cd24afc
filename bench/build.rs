//! Compiles the packet generator with clang; `src/wire/generator/live.rs` embeds it.

use std::env;
use std::path::PathBuf;
use std::process::Command;

const SOURCE: &str = "bpf/generate.bpf.c";
const FLAGS: [&str; 9] = ["-target", "bpf", "-mcpu=v2", "-O2", "-g", "-Wall", "-Werror", "-nostdinc", "-c"];

fn main() -> Result<(), String> {
    println!("cargo::rerun-if-changed={SOURCE}");
    println!("cargo::rerun-if-env-changed=CLANG");
    let clang = env::var("CLANG").unwrap_or_else(|_| "clang".into());
    let out = env::var_os("OUT_DIR").ok_or("OUT_DIR is not set: run through cargo")?;
    let object = PathBuf::from(out).join("generate.bpf.o");
    let status =
        Command::new(&clang).args(FLAGS).args([SOURCE, "-o"]).arg(&object).status().map_err(|error| {
            format!(
                "the packet generator is compiled with clang, and `{clang}` cannot be run: {error}. \
                 Install it (Debian: apt install clang) or name it in the environment variable CLANG."
            )
        })?;
    if !status.success() {
        return Err(format!("`{clang}` could not compile bench/{SOURCE}: {status}"));
    }
    Ok(())
}
