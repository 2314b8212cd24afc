//! Where and from what the figures were taken.

use std::process::Command;

use serde::{Deserialize, Serialize};

use super::clock;

/// Features of the processor that decide about packet code; those that it has are listed.
const CPU_FEATURES: &[&str] =
    &["sse4_2", "avx2", "bmi2", "avx512f", "avx512bw", "avx512vbmi", "gfni", "vaes"];

/// The machine and the build.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Machine {
    /// The commit of the sources.
    pub(crate) commit: String,
    /// Whether the sources, documentation apart, differed from it.
    pub(crate) dirty: bool,
    /// RFC 3339, in UTC, to the second.
    pub(crate) date: String,
    pub(crate) kernel: String,
    /// The processor's name, as it gives it.
    pub(crate) cpu: String,
    /// Cores of the machine.
    pub(crate) cpus: usize,
    /// The core that the benchmark was pinned to, if it was.
    pub(crate) core: Option<usize>,
    /// The rate of the time-stamp counter.
    pub(crate) tsc_ghz: f64,
    /// Those of the processor's features that matter here.
    pub(crate) cpu_features: Vec<String>,
    /// What the compiler was allowed to use, and the profile.
    pub(crate) flags: Vec<String>,
    pub(crate) huge_pages: HugePages,
    /// Load averages over 1, 5 and 15 minutes at the start: others' work disturbs the figures.
    pub(crate) load: String,
    /// weir's version.
    pub(crate) version: String,
}

/// The pool of 2 MB pages at the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct HugePages {
    pub(crate) total: usize,
    pub(crate) free: usize,
}

impl Machine {
    /// Looks at the machine; `core` is where the benchmark runs.
    pub(crate) fn probe(core: Option<usize>) -> Self {
        let cpuinfo = read("/proc/cpuinfo");
        let line = |name: &str| cpuinfo.lines().find_map(|line| line.strip_prefix(name)?.split_once(": "));
        let has: Vec<_> = line("flags").map_or("", |(_, flags)| flags).split(' ').collect();
        let now = jiff::Timestamp::now();
        Self {
            commit: git(&["rev-parse", "HEAD"]).unwrap_or_else(|| "unknown".to_owned()),
            // What a run itself writes does not count.
            dirty: git(&[
                "status",
                "--porcelain",
                "--untracked-files=no",
                "--",
                ":/",
                ":(exclude,top)docs",
                ":(exclude,top)*.md",
            ])
            .is_none_or(|changes| !changes.is_empty()),
            date: jiff::Timestamp::from_second(now.as_second()).unwrap_or(now).to_string(),
            kernel: read("/proc/sys/kernel/osrelease"),
            cpu: line("model name").map_or(std::env::consts::ARCH, |(_, name)| name).to_owned(),
            cpus: cpuinfo.lines().filter(|line| line.starts_with("processor")).count().max(1),
            core,
            tsc_ghz: super::record::round(clock::ticks_per_ns(), 4),
            cpu_features: CPU_FEATURES
                .iter()
                .filter(|name| has.contains(name))
                .map(|&name| name.into())
                .collect(),
            flags: build_flags(),
            huge_pages: HugePages::probe(),
            load: read("/proc/loadavg").split(' ').take(3).collect::<Vec<_>>().join(" "),
            version: env!("CARGO_PKG_VERSION").to_owned(),
        }
    }

    /// The first twelve digits of the commit, marked if the sources differed from it.
    pub(crate) fn short_commit(&self) -> String {
        let commit = self.commit.get(..12).unwrap_or(&self.commit);
        format!("{commit}{}", if self.dirty { " and changes" } else { "" })
    }

    /// Two lines for people.
    pub(crate) fn describe(&self) -> String {
        let core = self.core.map_or("not pinned".to_owned(), |core| format!("pinned to core {core}"));
        format!(
            "weir {} {}, {}, {}\n{}, {} cores, {core}, counter {:.3} GHz, kernel {}, load {}, 2 MB pages {} of {} free",
            self.version,
            self.short_commit(),
            self.flags.join(" "),
            self.date,
            self.cpu,
            self.cpus,
            self.tsc_ghz,
            self.kernel,
            self.load,
            self.huge_pages.free,
            self.huge_pages.total,
        )
    }
}

impl HugePages {
    /// Asks the kernel.
    pub(crate) fn probe() -> Self {
        let number = |name| read(&format!("/sys/kernel/mm/hugepages/hugepages-2048kB/{name}")).parse();
        Self {
            total: number("nr_hugepages").unwrap_or_default(),
            free: number("free_hugepages").unwrap_or_default(),
        }
    }
}

fn build_flags() -> Vec<String> {
    let profile = if cfg!(debug_assertions) { "debug" } else { "release" };
    let level = if cfg!(target_feature = "avx512f") {
        "with AVX-512"
    } else if cfg!(target_feature = "avx2") {
        "with AVX2"
    } else {
        "baseline"
    };
    vec![profile.to_owned(), format!("{} {level}", std::env::consts::ARCH)]
}

fn read(path: &str) -> String {
    std::fs::read_to_string(path).unwrap_or_default().trim().to_owned()
}

/// What git says about the sources that this was built from. They may be another user's.
fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git")
        .args(["-c", "safe.directory=*", "-C", env!("CARGO_MANIFEST_DIR")])
        .args(arguments)
        .output()
        .ok()
        .filter(|output| output.status.success())?;
    Some(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
