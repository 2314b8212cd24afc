//! Instructions a packet, counted by Valgrind's callgrind: the same on a busy machine as on a quiet one. The gate against
//! regressions.
//!
//! Each workload runs in a process of its own under callgrind, which looks only at what `pipeline` calls
//! `measured_burst`. Valgrind has no AVX-512.

mod callgrind;
mod gate;

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::common::record;
use crate::pipeline;
use callgrind::Profile;
use gate::Baseline;

/// Packets counted of each workload; a multiple of the burst.
const PACKETS: usize = 2048;
/// The function that callgrind collects, with what it calls.
const COLLECTED: &str = "measured_burst";

/// Count instructions a packet with callgrind, and compare them with a baseline
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Args {
    /// Compare with this baseline, and fail if a workload differs by more than 2 %
    #[arg(long, value_name = "FILE")]
    baseline: Option<PathBuf>,
    /// Write the baseline instead of comparing with it
    #[arg(long, requires = "baseline")]
    bless: bool,
    /// Workloads, separated by commas [default: all that are counted]
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    workload: Vec<String>,
    /// Keep callgrind's profiles in this folder
    #[arg(long, value_name = "FOLDER")]
    keep: Option<PathBuf>,
}

/// Run a workload once for a profiler
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct CountArgs {
    /// The workload
    #[arg(long)]
    workload: String,
}

/// What callgrind runs.
pub(crate) fn count(args: &CountArgs) -> Result<(), String> {
    record::say(&pipeline::count(&args.workload, PACKETS)?.to_string())
}

/// Counts, prints, and compares or blesses.
pub(crate) fn run(args: &Args) -> Result<(), String> {
    let all = pipeline::counted();
    if let Some(name) = args.workload.iter().find(|name| !all.contains(name)) {
        return Err(format!("instructions of {name} are not counted; there are {}", all.join(", ")));
    }
    let wanted = |name: &String| args.workload.is_empty() || args.workload.contains(name);
    let names: Vec<_> = all.into_iter().filter(wanted).collect();
    let scratch = tempfile::tempdir().map_err(|error| format!("cannot make a folder: {error}"))?;
    let folder = args.keep.as_deref().unwrap_or(scratch.path());
    std::fs::create_dir_all(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    let profiles = profile_all(&names, folder)?;
    let mut text = String::new();
    for (name, profile) in &profiles {
        text.push_str(&stages(name, profile));
    }
    record::say(&text)?;
    let counts = Baseline::new(&profiles);
    match &args.baseline {
        None => Ok(()),
        Some(path) if args.bless => {
            record::write(path, &counts)?;
            record::say(&format!("{}: written", path.display()))
        }
        Some(path) => {
            let (told, passed) = gate::compare(&record::read(path)?, &counts, args.workload.is_empty());
            record::say(&told)?;
            if passed { Ok(()) } else { Err(gate::REMEDY.to_owned()) }
        }
    }
}

/// Profiles, in the order of `names`; as many at once as there are cores.
fn profile_all(names: &[String], folder: &Path) -> Result<Vec<(String, Profile)>, String> {
    let next = AtomicUsize::new(0);
    let done = Mutex::new(Vec::new());
    let work = || {
        while let Some((at, name)) =
            Some(next.fetch_add(1, Ordering::Relaxed)).and_then(|at| Some((at, names.get(at)?)))
        {
            let profile = profile(name, folder);
            done.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push((at, name.clone(), profile));
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| (0..threads).for_each(|_| drop(scope.spawn(work))));
    let mut done = done.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    done.sort_by_key(|(at, ..)| *at);
    done.into_iter().map(|(_, name, profile)| Ok((name, profile?))).collect()
}

/// Profiles one workload.
fn profile(name: &str, folder: &Path) -> Result<Profile, String> {
    let program = std::env::current_exe().map_err(|error| format!("cannot find this program: {error}"))?;
    let file = folder.join(format!("callgrind.{name}"));
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--collect-atstart=no", &format!("--toggle-collect=*{COLLECTED}*")])
        .arg(format!("--callgrind-out-file={}", file.display()))
        .arg(program)
        .args(["count", "--workload", name])
        .output()
        .map_err(|error| format!("cannot start valgrind (Debian's package has this name): {error}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        return Err(format!("{name} under valgrind: {}\n{said}", output.status));
    }
    let packets: u64 = String::from_utf8_lossy(&output.stdout)
        .trim()
        .parse()
        .map_err(|_| format!("{name} under valgrind did not say how many packets it ran\n{said}"))?;
    let text = std::fs::read_to_string(&file).map_err(|error| format!("{}: {error}", file.display()))?;
    let profile = callgrind::parse(&text, packets).map_err(|error| format!("{}: {error}", file.display()))?;
    if profile.total == 0 {
        return Err(format!("{name}: callgrind collected nothing: no function is called {COLLECTED}"));
    }
    Ok(profile)
}

/// A workload's functions with what they call, in instructions a packet: those above a fortieth of the whole.
fn stages(name: &str, profile: &Profile) -> String {
    let each = |count: u64| count as f64 / profile.packets as f64;
    let mut text = format!("{name}: {:.1} instructions a packet\n", each(profile.total));
    for (function, inclusive, own) in &profile.functions {
        // Callers have none of their own: collecting begins further down.
        if *inclusive * 40 >= profile.total && *own > 0 && !function.contains(COLLECTED) {
            let _ =
                writeln!(text, "  {:>8.1} with calls {:>8.1} own  {function}", each(*inclusive), each(*own));
        }
    }
    text
}
