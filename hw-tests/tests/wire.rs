//! The benchmark's generator and sink, and weir between them: every packet is accounted for, and nothing is left behind.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::Value;
use weir_hw_tests::{eventually, weir_binary};

fn wire() -> Command {
    let weir = weir_binary();
    let bench = weir.with_file_name("weir-bench");
    assert!(bench.is_file(), "no weir-bench beside {}: run `cargo build` first", weir.display());
    let mut command = Command::new(bench);
    command.arg("wire").arg("--weir").arg(weir);
    command
}

/// Runs it to its end and returns the record.
fn record(arguments: &str, more: &[&Path]) -> Value {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("record.json");
    let mut command = wire();
    command.args(arguments.split_whitespace()).args(more).arg("--json").arg(&path);
    let output = command.stdin(Stdio::null()).output().unwrap();
    let said =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{said}");
    serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap()
}

fn number(of: &Value, key: &str) -> u64 {
    of[key].as_u64().unwrap_or_else(|| panic!("no number {key} in {of}"))
}

/// The one trial of the one device under test.
fn trial(record: &Value) -> &Value {
    let device = &record["devices"][0];
    assert!(device["error"].is_null(), "{device}");
    &device["trials"][0]
}

/// What must hold of any trial through one queue of weir.
fn assert_accounted_for(trial: &Value) {
    assert_eq!(number(trial, "sent"), number(trial, "received") + number(trial, "lost"), "{trial}");
    let streams = trial["streams"].as_array().unwrap();
    let sum = |key: &str| streams.iter().map(|stream| number(stream, key)).sum::<u64>();
    assert_eq!((sum("sent"), sum("received")), (number(trial, "sent"), number(trial, "received")), "{trial}");
    for key in ["duplicates", "reordered", "corrupted"] {
        assert_eq!(sum(key), 0, "{key}: {trial}");
    }
    for key in ["stale", "sink_missed"] {
        assert_eq!(number(trial, key), 0, "{key}: {trial}");
    }
}

#[test]
fn every_packet_through_weir_arrives_once_in_order_and_whole() {
    let record = record("--devices-under-test weir-adaptive --rate 2000 --trial 1 --flows 10", &[]);
    let trial = trial(&record);
    assert_accounted_for(trial);
    assert_eq!(
        (number(trial, "intended"), number(trial, "sent"), number(trial, "lost")),
        (2000, 2000, 0),
        "{trial}"
    );
    assert_eq!(number(&trial["latency_ns"], "count"), 2000);
    assert_eq!(trial["stamped"], true);
}

#[test]
fn streams_of_several_kinds_are_counted_apart_through_a_tunnel_and_afxdp() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("streams.toml");
    let addresses = "source-mac = \"02:00:00:00:0a:01\"\ndestination-mac = \"02:00:00:00:0d:01\"\nsource = \"198.18.0.2\"\n\
        destination = { from = \"198.19.64.1\", count = 50, order = \"random\" }\n";
    let text = format!(
        "[stream.a]\nshare = 3\nflows = 50\nsize = \"imix\"\n{addresses}\
         [stream.b]\nprotocol = \"tcp\"\nsize = [80, 1400]\n{addresses}"
    );
    std::fs::write(&path, text).unwrap();
    let record = record(
        "--devices-under-test weir-adaptive --vxlan --generator afxdp --rate 2000 --trial 1 --streams",
        &[path.as_path()],
    );
    let trial = trial(&record);
    assert_accounted_for(trial);
    let streams = trial["streams"].as_array().unwrap();
    let received: Vec<_> = streams.iter().map(|stream| number(stream, "received")).collect();
    // One frame in twelve, or nearly, has 1514 bytes, which leaves no room for a tunnel in 1500: weir says so to its sender, and it is
    // lost. Packet n is of flow n % 50, and each pass over the flows starts one length further; the deck has 600 packets of the stream.
    let long = (0..1500u64).map(|n| n % 600).filter(|n| (n + n / 50) % 12 == 6).count() as u64;
    assert_eq!(number(trial, "sent"), 2000);
    assert_eq!(number(&streams[0], "sent"), 1500);
    assert_eq!(received, [1500 - long, 500], "{trial}");
}

#[test]
fn an_idle_run_tells_what_adaptive_idling_costs() {
    let record = record("--devices-under-test weir,weir-adaptive --idle --trial 0.3 --repeats 1", &[]);
    let devices = record["devices"].as_array().unwrap();
    let medians: Vec<_> = devices
        .iter()
        .map(|device| {
            assert!(device["error"].is_null(), "{device}");
            let latencies = device["latency"].as_array().unwrap();
            let loads: Vec<_> = latencies.iter().map(|latency| latency["load"].as_str().unwrap()).collect();
            assert_eq!(loads, ["idle", "asleep"]);
            assert!(latencies.iter().all(|latency| number(&latency["ns"], "count") > 0), "{device}");
            number(&latencies[0]["ns"], "p50") as f64
        })
        .collect();
    let cost = record["adaptive_idle_cost_us"].as_f64().unwrap();
    assert!((cost - (medians[1] - medians[0]) / 1e3).abs() < 0.01, "{cost} µs of {medians:?} ns");
}

fn start(arguments: &str) -> Child {
    let mut command = wire();
    command
        .args(arguments.split_whitespace())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command.spawn().unwrap()
}

/// The running weir that a process has started.
fn weir_of(parent: u32) -> Option<PathBuf> {
    let parent = format!("PPid:\t{parent}\n");
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    let mut children = processes.map(|entry| entry.path()).filter(|process| {
        std::fs::read_to_string(process.join("status")).is_ok_and(|status| status.contains(&parent))
    });
    children
        .find(|process| std::fs::read_to_string(process.join("comm")).is_ok_and(|name| name.trim() == "weir"))
}

#[test]
fn a_benchmark_that_is_killed_leaves_no_weir_behind() {
    let mut bench = start("--devices-under-test weir-adaptive --rate 1000 --trial 60");
    let weir = eventually(Duration::from_secs(20), || weir_of(bench.id())).expect("weir was started");
    bench.kill().unwrap();
    bench.wait().unwrap();
    let gone = eventually(Duration::from_secs(5), || (!weir.exists()).then_some(()));
    assert!(gone.is_some(), "{} still runs", weir.display());
}
