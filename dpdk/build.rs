//! Binds the system's DPDK: generates declarations from `src/shim.h` and compiles `src/shim.c`. Without the feature `link` nothing is
//! done and nothing is needed.

fn main() -> Result<(), String> {
    println!("cargo::rerun-if-changed=build.rs");
    #[cfg(feature = "link")]
    link::bind()?;
    Ok(())
}

#[cfg(feature = "link")]
mod link {
    use std::env;
    use std::path::PathBuf;
    use std::process::Command;

    const HEADER: &str = "src/shim.h";
    const SOURCE: &str = "src/shim.c";
    /// Oldest DPDK whose names the shim uses.
    const OLDEST: &str = "22.11";
    /// The libraries that hold what the shim and the declarations name. Drivers are plugins, which EAL loads.
    const LIBRARIES: &[&str] = &["rte_ethdev", "rte_mempool", "rte_mbuf", "rte_eal"];
    /// What is declared to Rust.
    const FUNCTIONS: &[&str] = &[
        "weir_.*",
        "rte_eal_init",
        "rte_thread_(un)?register",
        "rte_dev_probe",
        "rte_eth_dev_(start|stop|close|socket_id)",
        "rte_eth_(promiscuous|allmulticast)_(en|dis)able",
        "rte_eth_tx_done_cleanup",
        "rte_version",
    ];

    pub(super) fn bind() -> Result<(), String> {
        for file in [HEADER, SOURCE] {
            println!("cargo::rerun-if-changed={file}");
        }
        println!("cargo::rerun-if-env-changed=PKG_CONFIG_PATH");
        let version = pkg_config(&["--modversion"])?;
        pkg_config(&["--atleast-version", OLDEST]).map_err(|_| {
            format!("weir's DPDK ports need DPDK {OLDEST} or newer, and `libdpdk` is {}", version.trim())
        })?;
        let text = pkg_config(&["--cflags"])?;
        let flags: Vec<&str> = text.split_whitespace().collect();
        let mut compiler = cc::Build::new();
        compiler.file(SOURCE).define("ALLOW_EXPERIMENTAL_API", None).warnings(true).opt_level(3);
        // The inline functions of DPDK are not ours to mend.
        for flag in flags.iter().copied().chain(["-Wno-deprecated-declarations", "-Wno-unused-parameter"]) {
            compiler.flag(flag);
        }
        compiler.try_compile("weir_dpdk_shim").map_err(|error| format!("{SOURCE}: {error}"))?;

        for flag in pkg_config(&["--libs-only-L"])?.split_whitespace() {
            println!("cargo::rustc-link-search=native={}", flag.trim_start_matches("-L"));
        }
        for library in LIBRARIES {
            println!("cargo::rustc-link-lib={library}");
        }

        let mut builder = bindgen::Builder::default()
            .header(HEADER)
            .clang_args(&flags)
            .clang_arg("-DALLOW_EXPERIMENTAL_API")
            .allowlist_var("WEIR_.*")
            .allowlist_type("weir_.*")
            .opaque_type("rte_(mbuf|mempool|device)")
            .default_enum_style(bindgen::EnumVariation::Consts)
            .prepend_enum_name(false)
            .generate_comments(false)
            .derive_default(true)
            .layout_tests(true);
        for function in FUNCTIONS {
            builder = builder.allowlist_function(function);
        }
        let out = env::var_os("OUT_DIR").ok_or("OUT_DIR is not set: run through cargo")?;
        builder
            .generate()
            .map_err(|error| format!("{HEADER}: {error}"))?
            .write_to_file(PathBuf::from(out).join("sys.rs"))
            .map_err(|error| format!("the declarations cannot be written: {error}"))
    }

    fn pkg_config(arguments: &[&str]) -> Result<String, String> {
        let output = Command::new("pkg-config").args(arguments).arg("libdpdk").output().map_err(|error| {
            format!("`pkg-config` cannot be run: {error} (Debian: apt install pkg-config)")
        })?;
        if !output.status.success() {
            return Err(format!(
                "weir's feature `dpdk` needs DPDK with its headers (Debian: apt install libdpdk-dev): {}",
                String::from_utf8_lossy(&output.stderr).trim()
            ));
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}
