//! Compiles the XDP program with clang; `src/io/afxdp/program.rs` embeds it.

use std::env;
use std::path::PathBuf;
use std::process::Command;

const SOURCE: &str = "bpf/weir.bpf.c";

fn main() -> Result<(), String> {
    println!("cargo::rerun-if-changed={SOURCE}");
    println!("cargo::rerun-if-env-changed=CLANG");
    let clang = env::var("CLANG").unwrap_or_else(|_| "clang".into());
    let here = env::var("CARGO_MANIFEST_DIR").map_err(|error| format!("CARGO_MANIFEST_DIR: {error}"))?;
    let out = env::var_os("OUT_DIR").ok_or("OUT_DIR is not set: run through cargo")?;
    let object = PathBuf::from(out).join("weir.bpf.o");
    let status = Command::new(&clang)
        .args([
            "-target",
            "bpf",
            "-mcpu=v2",
            "-O2",
            "-g",
            "-Wall",
            "-Werror",
            "-nostdinc",
            // The object tells where its source lies, and is to be the same wherever it is built.
            &format!("-ffile-prefix-map={here}=/weir/dataplane"),
            "-fdebug-compilation-dir=/weir/dataplane",
            "-c",
            SOURCE,
            "-o",
        ])
        .arg(&object)
        .status()
        .map_err(|error| {
            format!(
                "weir's XDP program is compiled with clang, and `{clang}` cannot be run: {error}. \
                 Install it (Debian: apt install clang) or name it in the environment variable CLANG."
            )
        })?;
    if !status.success() {
        return Err(format!("`{clang}` could not compile dataplane/{SOURCE}: {status}"));
    }
    Ok(())
}
