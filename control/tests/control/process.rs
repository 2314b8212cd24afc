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
