//! DPDK's own tables, measured by DPDK's own tests: `dpdk-test` and `dpdk-test-acl` of Debian's package `dpdk`. The rules that
//! `dpdk-test-acl` gets, and the packets, are the very ones that weir's rules are measured with.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use weir_config::{Match, PortRange};

use super::{Args, Effort, SEED, What};
use crate::common::stats::Summary;
use crate::rules::{Kind, input};

/// Megabytes that the tests want: of huge pages where there are so many, else of others.
const MEMORY: usize = 900;
/// How long a test may take.
const PATIENCE: Duration = Duration::from_secs(240);
/// Entries of the table that `hash_perf_autotest` makes: 2^19 places, three quarters of them taken.
pub(super) const HASHED: usize = (1 << 19) * 3 / 4;
/// DPDK's hash table.
const HASH: &str = "DPDK rte_hash";
/// Packets that DPDK classifies in one call.
const STEP: usize = 64;
/// The most rules that `dpdk-test-acl` is asked to compile: its tries grow with the product of rules.
const MOST_RULES: usize = 10_000;

/// A figure of a peer.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct PeerFigure {
    pub(crate) peer: String,
    pub(crate) what: String,
    /// Entries of its table.
    pub(crate) size: usize,
    /// Cycles an operation: the median of the runs.
    pub(crate) cycles: f64,
    /// Each run's.
    pub(super) runs: Vec<f64>,
    pub(super) note: String,
    /// Which of ours it stands beside: table, variant, operation.
    pub(super) beside: Option<(String, String, String)>,
}

/// What one run of a test found: what, entries, cycles, and which of ours it stands beside.
type Found = (&'static str, usize, f64, Option<(&'static str, String, &'static str)>);

/// Runs what there is once, and adds to the figures of earlier runs.
pub(super) fn run(
    args: &Args,
    effort: &Effort,
    core: Option<usize>,
    all: &mut Vec<PeerFigure>,
) -> Result<(), String> {
    let core = core.unwrap_or(0);
    if args.wants(What::Fib) {
        let (text, note) = autotest("fib_perf_autotest", core, |_| false)?;
        add(all, "DPDK rte_fib", &note, fib(&text)?);
    }
    // Minutes: once is enough.
    let hashed = all.iter().any(|figure| figure.peer == HASH);
    if args.wants(What::Flow) && !args.quick && !hashed {
        let (text, note) = autotest("hash_perf_autotest", core, |text| hash(text).is_ok())?;
        add(all, HASH, &note, hash(&text)?);
    }
    if args.wants(What::Rules) {
        for &size in effort.rules.iter().filter(|size| **size <= MOST_RULES) {
            let cycles = acl(size, core)?;
            let beside = Some(("rules", "acl IPv4".to_owned(), "look-up"));
            let note = format!("the same rules and packets, {STEP} a call");
            add(all, "DPDK rte_acl", &note, vec![("look-up", size, cycles, beside)]);
        }
    }
    Ok(())
}

fn add(all: &mut Vec<PeerFigure>, peer: &str, note: &str, found: Vec<Found>) {
    for (what, size, cycles, beside) in found {
        let known = all.iter_mut().find(|f| f.peer == peer && f.what == what && f.size == size);
        if let Some(figure) = known {
            figure.runs.push(cycles);
            figure.cycles = Summary::new(figure.runs.iter().copied()).median;
            continue;
        }
        all.push(PeerFigure {
            peer: peer.into(),
            what: what.into(),
            size,
            cycles,
            runs: vec![cycles],
            note: note.into(),
            beside: beside.map(|(table, variant, figure)| (table.into(), variant, figure.into())),
        });
    }
}

/// Figures of `fib_perf_autotest`.
fn fib(text: &str) -> Result<Vec<Found>, String> {
    let number = |prefix: &str| after(text, prefix).ok_or_else(|| missing("fib_perf_autotest", prefix, text));
    let size = number("Unique added entries = ")? as usize;
    let beside = |figure| Some(("fib", "IPv4".to_owned(), figure));
    Ok(vec![
        ("burst look-up", size, number("BULK FIB Lookup: ")?, beside("burst")),
        ("add", size, number("Average FIB Add: ")?, beside("add")),
        ("delete", size, number("Average FIB Delete: ")?, beside("delete")),
    ])
}

/// Figures of `hash_perf_autotest`: of its first table (no locks, no data, hash not known beforehand), keys of 16 bytes.
fn hash(text: &str) -> Result<Vec<Found>, String> {
    let name = "hash_perf_autotest";
    let from =
        text.find("Results (in CPU cycles/operation)").ok_or_else(|| missing(name, "Results", text))?;
    let rows = text.get(from..).unwrap_or_default().lines();
    let row = rows.map(|line| line.split_whitespace().collect::<Vec<_>>()).find(|cells| {
        cells.first() == Some(&"16")
            && cells.len() >= 5
            && cells.iter().all(|cell| cell.parse::<f64>().is_ok())
    });
    let row = row.ok_or_else(|| missing(name, "the row of keys of 16 bytes", text))?;
    let cell = |at: usize| row.get(at).and_then(|cell| cell.parse().ok()).unwrap_or(f64::NAN);
    let size = HASHED;
    let beside = |figure| Some(("flow", "IPv4".to_owned(), figure));
    Ok(vec![
        ("add", size, cell(1), beside("insert")),
        ("look-up", size, cell(2), beside("single")),
        ("burst look-up", size, cell(3), beside("burst")),
        ("delete", size, cell(4), beside("delete")),
    ])
}

/// The number that follows a text.
fn after(text: &str, prefix: &str) -> Option<f64> {
    let rest = text.get(text.find(prefix)? + prefix.len()..)?;
    rest.split(|c: char| c.is_whitespace() || c == '(').next()?.parse().ok()
}

fn missing(test: &str, what: &str, text: &str) -> String {
    let tail: Vec<&str> = text.lines().rev().take(8).collect();
    let tail: Vec<&str> = tail.into_iter().rev().collect();
    format!("{test} of dpdk-test does not say \"{what}\"; it ends with:\n{}", tail.join("\n"))
}

/// Where DPDK's memory comes from, and what is to be said of it.
fn memory() -> (Vec<String>, String) {
    let free = std::fs::read_to_string("/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages");
    let free: usize = free.ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0);
    let size = format!("{MEMORY}");
    if free * 2 >= MEMORY {
        (vec!["--in-memory".into(), "-m".into(), size], "2 MB pages".into())
    } else {
        (vec!["--no-huge".into(), "-m".into(), size], "4 KB pages: too few huge ones are free".into())
    }
}

/// Runs one of `dpdk-test`'s tests, until it ends or has said enough; what it printed, and on which pages.
fn autotest(name: &str, core: usize, enough: impl Fn(&str) -> bool) -> Result<(String, String), String> {
    let (options, note) = memory();
    let mut command = Command::new("dpdk-test");
    command.args(["--no-pci", "--no-telemetry", "--file-prefix", "weir-bench", "-l"]);
    command.arg(core.to_string()).args(options);
    let text = converse(command, &format!("{name}\nquit\n"), enough)?;
    if text.contains("Test Failed") {
        return Err(missing(name, "Test OK", &text));
    }
    Ok((text, note))
}

/// Runs a program with `input`, until it ends or has said enough, for [`PATIENCE`] at most; its output.
fn converse(mut command: Command, input: &str, enough: impl Fn(&str) -> bool) -> Result<String, String> {
    let program = command.get_program().to_string_lossy().into_owned();
    let said = tempfile::NamedTempFile::new().map_err(|error| error.to_string())?;
    let out = said.reopen().map_err(|error| error.to_string())?;
    command.stdin(Stdio::piped()).stdout(out).stderr(Stdio::null());
    let mut child = command
        .spawn()
        .map_err(|error| format!("cannot run {program}: {error}; install it: apt-get install dpdk"))?;
    // Closed only when the program has ended, or it would stop at once.
    let mut stdin = child.stdin.take();
    if let Some(stdin) = &mut stdin {
        // One that ends early says why in its output.
        let _ = stdin.write_all(input.as_bytes());
    }
    let read = || std::fs::read_to_string(said.path()).map_err(|error| error.to_string());
    let begun = Instant::now();
    loop {
        std::thread::sleep(Duration::from_millis(50));
        if child.try_wait().map_err(|error| format!("{program}: {error}"))?.is_some() {
            return read();
        }
        let late = begun.elapsed() > PATIENCE;
        let text = read()?;
        if late || enough(&text) {
            let (_, _) = (child.kill(), child.wait());
            let seconds = PATIENCE.as_secs();
            return if late { Err(format!("{program} has not ended after {seconds} s")) } else { Ok(text) };
        }
    }
}

/// Cycles a packet of `dpdk-test-acl` with as many rules.
fn acl(size: usize, core: usize) -> Result<f64, String> {
    let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
    let (matches, packets) = input(Kind::Acl, false, size, SEED);
    let (rule_file, trace_file) = (folder.path().join("rules"), folder.path().join("trace"));
    let written: Vec<String> = matches.iter().filter_map(rule).collect();
    let mut trace = String::new();
    for (_, tuple) in &packets {
        if let (std::net::IpAddr::V4(from), std::net::IpAddr::V4(to)) = (tuple.source, tuple.destination) {
            let (ports, protocol) = ((tuple.source_port, tuple.destination_port), tuple.protocol);
            let _ = writeln!(trace, "{} {} {} {} {protocol}", from.to_bits(), to.to_bits(), ports.0, ports.1);
        }
    }
    let write = |path: &Path, text: &str| std::fs::write(path, text).map_err(|error| error.to_string());
    write(&rule_file, &(written.join("\n") + "\n"))?;
    write(&trace_file, &trace)?;
    let mut command = Command::new("dpdk-test-acl");
    command.args(["--no-pci", "--no-huge", "--no-telemetry", "-m", "1024", "-l"]).arg(core.to_string());
    command.args(["--file-prefix", "weir-bench", "--"]);
    command.arg(format!("--rulesf={}", rule_file.display()));
    command.arg(format!("--tracef={}", trace_file.display()));
    command.arg(format!("--rulenum={}", written.len() + 1)).arg(format!("--tracenum={}", packets.len() + 1));
    command.arg(format!("--tracestep={STEP}")).args(["--iter=20", "--bldcat=1", "--verbose=0"]);
    let text = converse(command, "", |_| false)?;
    let line = text.lines().find(|line| line.contains(" cycles/pkt"));
    let cycles = line.and_then(|line| line.split(" cycles/pkt").next()?.rsplit(' ').next()?.parse().ok());
    cycles.ok_or_else(|| missing("dpdk-test-acl", "cycles/pkt", &text))
}

/// A rule as `dpdk-test-acl` reads it; `None` for what it cannot say.
fn rule(matches: &Match) -> Option<String> {
    let prefix = |nets: &[ipnet::IpNet]| match nets {
        [] => Some("0.0.0.0/0".to_owned()),
        [net] => Some(net.to_string()),
        _ => None,
    };
    let ports = |ranges: &[PortRange]| match ranges {
        [] => Some("0 : 65535".to_owned()),
        [range] => Some(format!("{} : {}", range.first, range.last)),
        _ => None,
    };
    let protocol = matches.protocol.map_or("0x00/0x00".to_owned(), |number| format!("{number:#04x}/0xff"));
    let (from, to) = (prefix(&matches.from)?, prefix(&matches.to)?);
    Some(format!("@{from}\t{to}\t{}\t{}\t{protocol}", ports(&matches.from_ports)?, ports(&matches.to_ports)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_figures_of_rte_fib_are_read() {
        let text = "Unique added entries = 1076806\nAverage FIB Add: 2866.84 cycles\n\
                    BULK FIB Lookup: 128.6 cycles (fails = 12.5%)\nAverage FIB Delete: 7110.69 cycles\nTest OK\n";
        let found: Vec<_> =
            fib(text).unwrap().into_iter().map(|(what, size, cycles, _)| (what, size, cycles)).collect();
        assert_eq!(
            found,
            [
                ("burst look-up", 1_076_806, 128.6),
                ("add", 1_076_806, 2866.84),
                ("delete", 1_076_806, 7110.69)
            ]
        );
        assert!(fib("EAL: no memory").unwrap_err().contains("no memory"));
    }

    #[test]
    fn the_figures_of_rte_hash_are_those_of_keys_of_16_bytes_in_its_first_table() {
        let text = "Measuring performance, please wait....\nResults (in CPU cycles/operation)\n\n Operations without data\n\n\
                    Keysize           Add               Lookup            Lookup_bulk       Delete\n\
                    4                 101               51                41                61\n\
                    16                102               52                42                62\n";
        let found: Vec<_> =
            hash(text).unwrap().into_iter().map(|(what, _, cycles, _)| (what, cycles)).collect();
        assert_eq!(found, [("add", 102.0), ("look-up", 52.0), ("burst look-up", 42.0), ("delete", 62.0)]);
        assert!(hash("Measuring performance, please wait....").is_err());
    }

    #[test]
    fn runs_of_a_peer_are_joined() {
        let mut all = Vec::new();
        for cycles in [10.0, 20.0] {
            add(&mut all, "peer", "", vec![("look-up", 5, cycles, None)]);
        }
        assert_eq!((all.len(), all[0].cycles, all[0].runs.len()), (1, 15.0, 2));
    }

    #[test]
    fn a_rule_is_written_as_dpdk_reads_it() {
        let mut matches = Match { protocol: Some(6), ..Match::default() };
        matches.from.push("10.0.0.0/8".parse().unwrap());
        matches.to_ports.push(PortRange { first: 80, last: 90 });
        assert_eq!(rule(&matches).unwrap(), "@10.0.0.0/8\t0.0.0.0/0\t0 : 65535\t80 : 90\t0x06/0xff");
        assert_eq!(
            rule(&Match::default()).unwrap(),
            "@0.0.0.0/0\t0.0.0.0/0\t0 : 65535\t0 : 65535\t0x00/0x00"
        );
    }
}
