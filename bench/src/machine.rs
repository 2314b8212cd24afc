//! Where and from what the figures were taken.

use serde::Serialize;

/// The machine and the build.
#[derive(Serialize)]
pub(crate) struct Machine {
    pub(crate) commit: String,
    pub(crate) kernel: String,
    pub(crate) cpu: String,
    pub(crate) cpus: usize,
    /// The core that the benchmark was pinned to, if it was.
    pub(crate) core: Option<usize>,
    /// Load averages over 1, 5 and 15 minutes at the start: others' work disturbs the figures.
    pub(crate) load: String,
    /// Seconds since the Unix epoch.
    pub(crate) time: u64,
    pub(crate) version: &'static str,
}

impl Machine {
    pub(crate) fn probe() -> Self {
        let cpuinfo = read("/proc/cpuinfo");
        let model = cpuinfo.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
        Self {
            commit: commit().unwrap_or_else(|| "unknown".to_owned()),
            kernel: read("/proc/sys/kernel/osrelease"),
            cpu: model.map_or(std::env::consts::ARCH, |(_, name)| name).to_owned(),
            cpus: std::thread::available_parallelism().map_or(1, usize::from),
            core: None,
            load: read("/proc/loadavg").split(' ').take(3).collect::<Vec<_>>().join(" "),
            time: std::time::UNIX_EPOCH.elapsed().map_or(0, |since| since.as_secs()),
            version: env!("CARGO_PKG_VERSION"),
        }
    }
}

fn read(path: &str) -> String {
    std::fs::read_to_string(path).unwrap_or_default().trim().to_owned()
}

/// The commit of the sources, marked if they differ from it.
fn commit() -> Option<String> {
    let output = std::process::Command::new("git")
        .args([
            "-C",
            env!("CARGO_MANIFEST_DIR"),
            "describe",
            "--always",
            "--dirty",
            "--abbrev=40",
            "--exclude=*",
        ])
        .output()
        .ok()
        .filter(|output| output.status.success())?;
    Some(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
