//! What the processes's threads may do, asked of the kernel and tried out.

use std::collections::BTreeSet;
use std::process::{Command, Stdio};
use std::time::Duration;

use weir_hw_tests::{Lab, Node, WeirBox, eventually};

use crate::tracer::Stopped;
use crate::{ROUTER, read, threads, worker};

/// CAP_NET_ADMIN, CAP_NET_RAW, CAP_IPC_LOCK, CAP_BPF and CAP_PERFMON.
const KEPT: u64 = 1 << 12 | 1 << 13 | 1 << 14 | 1 << 38 | 1 << 39;

fn router(lab: &Lab) -> (Node, WeirBox, Node) {
    let weir = lab.weir(ROUTER);
    let (left, right) = (lab.host("10.1.0.2/24"), lab.host("10.2.0.2/24"));
    lab.wire(&left, &weir, "left");
    lab.wire(&weir, &right, "right");
    lab.start();
    (left, weir, right)
}

/// A field of /proc/PID/task/TID/status.
fn status(pid: u32, tid: i32, field: &str) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/task/{tid}/status")).expect("the thread runs");
    let value = text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(":\t"));
    let value = value.unwrap_or_else(|| panic!("no {field} in {text}"));
    u64::from_str_radix(value.trim(), 16).expect("a number")
}

#[test]
fn a_running_weir_has_given_up_what_it_does_not_need_and_its_workers_everything() {
    let lab = Lab::new();
    let (_, weir, _) = router(&lab);
    let pid = weir.pid();
    let mut workers = 0;
    for (tid, name) in threads(pid) {
        let worker = name.starts_with("weir-worker-");
        workers += u32::from(worker);
        let kept = if worker { 0 } else { KEPT };
        for set in ["CapEff", "CapPrm"] {
            assert_eq!(status(pid, tid, set), kept, "{set} of {name}");
        }
        for set in ["CapInh", "CapAmb"] {
            assert_eq!(status(pid, tid, set), 0, "{set} of {name}");
        }
        assert_eq!(status(pid, tid, "CapBnd") & !KEPT, 0, "CapBnd of {name}");
        assert_eq!(status(pid, tid, "NoNewPrivs"), 1, "{name}");
        assert_eq!(status(pid, tid, "Seccomp"), 2, "{name} has a filter");
        assert_eq!(status(pid, tid, "Seccomp_filters"), if worker { 2 } else { 1 }, "{name}");
    }
    assert!(workers > 0);
}

#[cfg(target_arch = "x86_64")]
#[test]
fn a_call_that_is_not_a_workers_is_refused_to_a_worker_and_it_goes_on() {
    const EPERM: i64 = -1;
    /// Name, number, and arguments with which an unfiltered root would succeed or get another error.
    const FORBIDDEN: &[(&str, u64, [u64; 3])] = &[
        ("socket", 41, [2, 2, 0]),
        ("connect", 42, [0, 0, 0]),
        ("clone", 56, [0, 0, 0]),
        ("execve", 59, [0, 0, 0]),
        ("ptrace", 101, [0, 0, 0]),
        ("prctl", 157, [38, 0, 0]),
        ("openat", 257, [0, 0, 0]),
        ("bpf", 321, [0, 0, 0]),
        // A page that could be executed: mmap(0, 4096, PROT_READ | PROT_EXEC, …).
        ("mmap", 9, [0, 4096, 5]),
    ];
    let lab = Lab::new();
    let (left, weir, right) = router(&lab);
    let pid = weir.pid();
    let made = eventually(Duration::from_secs(10), || {
        let stopped = Stopped::stop(worker(pid));
        // The same way with a call that is allowed: it works.
        let own = stopped.call(39, [0; 3])?;
        let results: Vec<_> =
            FORBIDDEN.iter().map(|(_, number, with)| stopped.call(*number, *with)).collect();
        Some((own, results))
    });
    let (own, results) = made.expect("a worker that waits in a system call");
    assert_eq!(own, i64::from(pid), "getpid");
    for ((name, ..), result) in FORBIDDEN.iter().zip(results) {
        assert_eq!(result, Some(EPERM), "{name}");
    }
    left.ping(&right).count(5).expect_all();
}

/// The calls that a list in docs/security.md names, below the heading.
fn listed(heading: &str) -> BTreeSet<String> {
    let page = read("docs/security.md");
    let rest = page.split_once(heading).unwrap_or_else(|| panic!("docs/security.md has no {heading}")).1;
    let block = rest.split("```").nth(1).expect("a list").trim_start_matches("text");
    block.split_whitespace().map(str::to_owned).collect()
}

#[test]
fn workers_under_load_make_only_the_calls_that_are_listed() {
    let lab = Lab::new();
    let (left, weir, right) = router(&lab);
    let trace = lab.directory().join("calls.txt");
    let mut strace = Command::new("strace")
        .args(["-qq", "-e", "signal=none", "-p", &worker(weir.pid()).to_string(), "-o"])
        .arg(&trace)
        .stderr(Stdio::null())
        .spawn()
        .expect("strace: `make setup` installs it");
    eventually(Duration::from_secs(10), || std::fs::metadata(&trace).ok().filter(|file| file.len() > 0));

    left.ping(&right).count(20).expect_all();
    left.tcp(&right).expect_bytes(2_000_000);
    for what in ["ports", "flows", "sessions", "workers", "pipeline", "memory"] {
        weir.show(what);
    }
    weir.reload(&ROUTER.replace(
        "[port.right]",
        "[[vrf.default.route]]\nprefix = \"10.9.0.0/16\"\nvia = { ip = \"10.2.0.2\" }\n[port.right]",
    ));
    // A port goes, and comes again.
    weir.reload(ROUTER.split("[port.right]").next().unwrap());
    weir.reload(ROUTER);
    left.ping(&right).count(20).expect_all();
    weir.terminate();
    strace.wait().expect("strace ends with the thread");

    let text = std::fs::read_to_string(&trace).expect("a trace");
    let made: BTreeSet<String> = text
        .lines()
        .filter_map(|line| line.split_once('(')?.0.split_whitespace().next_back().map(str::to_owned))
        .filter(|name| name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_'))
        .collect();
    for needed in ["poll", "sendto", "exit"] {
        assert!(made.contains(needed), "the trace is not a worker's: {made:?}");
    }
    let listed = listed("### Worker threads");
    let unknown: Vec<_> = made.difference(&listed).collect();
    assert!(unknown.is_empty(), "calls that docs/security.md does not list: {unknown:?}");
    let refused: Vec<_> = text.lines().filter(|line| line.contains("EPERM")).collect();
    assert!(refused.is_empty(), "refused: {refused:#?}");
}
