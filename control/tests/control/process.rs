//! `weir run` as a process, with the real data plane on a veth pair in a network namespace of its own.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::common::{eventually, in_a_child, stderr, stdout, weir, write};

pub(crate) const CONFIG: &str =
    "[port.a]\ndevice = \"wa\"\nmode = \"dedicated\"\naddresses = [\"10.0.0.1/24\"]\n";

/// True in a child that has a network namespace with a veth pair, `wa` and `wb`.
pub(crate) fn with_a_wire(test: &str) -> bool {
    if !Command::new("unshare").args(["-n", "true"]).status().is_ok_and(|status| status.success()) {
        eprintln!("skipped: network namespaces need root");
        return false;
    }
    // A bare name is one of this file.
    let test = if test.contains("::") { test.to_owned() } else { format!("process::{test}") };
    if !in_a_child(&test, Command::new("unshare").arg("-n")) {
        return false;
    }
    let queues = "numrxqueues 1 numtxqueues 1";
    ip(&format!("link add wa {queues} type veth peer name wb {queues}"));
    ip("link set wa up");
    ip("link set wb up");
    true
}

pub(crate) fn ip(arguments: &str) {
    let output = Command::new("ip").args(arguments.split_whitespace()).output().unwrap();
    assert!(output.status.success(), "ip {arguments}: {}", stderr(&output));
}

fn start(config: &str, socket: &Path) -> Child {
    let child = Command::new(env!("CARGO_BIN_EXE_weir"))
        .args(["run", "--config", config, "--socket", socket.to_str().unwrap()])
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    eventually("an answer", || show(socket, "health").is_some());
    child
}

pub(crate) fn show(socket: &Path, what: &str) -> Option<Value> {
    let output = weir(&["show", what, "--json", "--socket", socket.to_str().unwrap()]);
    serde_json::from_str(&stdout(&output)).ok()
}

pub(crate) fn signal(child: &Child, name: &str) {
    assert!(Command::new("kill").args(["-s", name, &child.id().to_string()]).status().unwrap().success());
}

#[test]
fn hangup_reloads_terminate_exits_with_0_and_a_killed_weir_leaves_no_obstacle() {
    if !with_a_wire("hangup_reloads_terminate_exits_with_0_and_a_killed_weir_leaves_no_obstacle") {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let config = write(directory.path(), "weir.toml", CONFIG);
    let socket = directory.path().join("run/weir.sock");
    let mut child = start(&config, &socket);
    assert_eq!(show(&socket, "ports").unwrap()["ports"][0]["driver"], "veth");

    write(directory.path(), "weir.toml", &CONFIG.replace("10.0.0.1", "10.0.0.9"));
    signal(&child, "HUP");
    eventually("generation 2", || show(&socket, "version").unwrap()["generation"] == 2);
    assert!(show(&socket, "routes").unwrap().to_string().contains("10.0.0.9/32"));

    signal(&child, "KILL");
    child.wait().unwrap();
    assert!(socket.exists(), "nobody could remove it");
    let mut child = start(&config, &socket);

    let begin = Instant::now();
    signal(&child, "TERM");
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert!(begin.elapsed() < Duration::from_secs(5), "{:?}", begin.elapsed());
    assert!(!socket.exists());
}

#[test]
fn weir_goes_on_when_the_reader_of_its_log_goes_away() {
    if !with_a_wire("weir_goes_on_when_the_reader_of_its_log_goes_away") {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let config = write(directory.path(), "weir.toml", CONFIG);
    let socket = directory.path().join("weir.sock");
    let path = socket.to_str().unwrap();
    let mut child = Command::new(env!("CARGO_BIN_EXE_weir"))
        .args(["run", "--config", &config, "--socket", path])
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stderr.take());
    eventually("an answer", || show(&socket, "health").is_some());
    let output = weir(&["apply", &config, "--socket", path]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    signal(&child, "TERM");
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn a_missing_device_is_named_and_nothing_stays_behind() {
    if !with_a_wire("a_missing_device_is_named_and_nothing_stays_behind") {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let more = "[port.b]\ndevice = \"nosuch0\"\nmode = \"dedicated\"\naddresses = [\"10.1.0.1/24\"]\n";
    let config = write(directory.path(), "weir.toml", &format!("{CONFIG}{more}"));
    let socket = directory.path().join("weir.sock");
    let output = weir(&["run", "--config", &config, "--socket", socket.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    assert_eq!(stderr(&output).matches("nosuch0").count(), 1, "said once: {}", stderr(&output));
    assert!(!socket.exists());

    // The running generation outlives a device that is missing later.
    let good = write(directory.path(), "good.toml", CONFIG);
    let mut child = start(&good, &socket);
    let output = weir(&["apply", &config, "--socket", socket.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(1), "{}", stdout(&output));
    assert!(stderr(&output).contains("nosuch0"), "{}", stderr(&output));
    assert_eq!(show(&socket, "health").unwrap()["status"], "ok");
    assert_eq!(show(&socket, "version").unwrap()["generation"], 1);
    signal(&child, "INT");
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn an_instance_of_default_size_takes_less_than_300_mib_and_says_what_for() {
    if !with_a_wire("an_instance_of_default_size_takes_less_than_300_mib_and_says_what_for") {
        return;
    }
    const MIB: u64 = 1 << 20;
    let directory = tempfile::tempdir().unwrap();
    let config = write(directory.path(), "weir.toml", CONFIG);
    let socket = directory.path().join("weir.sock");
    let mut child = start(&config, &socket);
    let answer = show(&socket, "memory").unwrap();
    let told = |key: &str| answer["process"][key].as_u64().unwrap();
    assert!(told("resident") + told("huge") < 300 * MIB, "{answer:#}");
    // The kernel's own figure, read from outside.
    let status = std::fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    let seen = 1024 * line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap();
    assert!(seen.abs_diff(told("resident")) < 32 * MIB, "{seen} seen, {answer:#}");
    let table = |name: &str| {
        let tables = answer["tables"].as_array().unwrap();
        tables.iter().find(|table| table["table"] == name).unwrap().clone()
    };
    for name in ["flows", "sessions", "frames", "neighbours", "routes"] {
        let table = table(name);
        let (bytes, used) = (table["bytes"].as_u64().unwrap(), table["bytes_used"].as_u64().unwrap());
        assert!(bytes > 0 && used <= bytes, "{table:#}");
    }
    let flows = table("flows");
    let workers = flows["workers"].as_array().unwrap();
    let sum: u64 = workers.iter().map(|worker| worker["bytes"].as_u64().unwrap()).sum();
    assert_eq!(Some(sum), flows["bytes"].as_u64());
    assert!(["2 MB", "4 KB"].contains(&table("frames")["pages"].as_str().unwrap()), "{answer:#}");
    signal(&child, "TERM");
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn limits_that_the_machine_cannot_hold_are_refused_at_their_place() {
    if !with_a_wire("limits_that_the_machine_cannot_hold_are_refused_at_their_place") {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let config = write(directory.path(), "weir.toml", &format!("[limits]\nflows = 16777216\n{CONFIG}"));
    let socket = directory.path().join("weir.sock");
    let mut command = Command::new("prlimit");
    let output = command
        .args(["--as=4294967296", env!("CARGO_BIN_EXE_weir"), "run", "--config", &config, "--socket"])
        .arg(&socket)
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    let text = stderr(&output);
    assert!(text.contains("weir.toml:2:9: error[does-not-fit]: limits.flows = 16777216 takes "), "{text}");
    assert!(text.contains("lower limits.flows"), "{text}");
    assert!(!socket.exists());
    // Nothing is lost: the interface is as it was, and a configuration that fits starts.
    let good = write(directory.path(), "weir.toml", CONFIG);
    let mut child = start(&good, &socket);
    signal(&child, "TERM");
    assert_eq!(child.wait().unwrap().code(), Some(0));
}
