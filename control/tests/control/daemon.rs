//! The daemon's life: start, reload, stop, systemd, and what it hands on from the kernel.

use std::os::unix::net::UnixDatagram;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::common::{Daemon, Fake, eventually, in_a_child, ports};
use weir_control::daemon::{Failure, Signal};

#[test]
fn a_reload_takes_the_file_and_a_bad_file_leaves_the_generation_alone() {
    let daemon = Daemon::start(&ports(&["a"]));
    std::fs::write(daemon.file(), ports(&["a", "b"])).unwrap();
    daemon.signal(Signal::Reload);
    eventually("generation 2", || daemon.get("/v1/version")["generation"] == 2);

    std::fs::write(daemon.file(), "[port.a]\ndevise = \"wx0\"\n").unwrap();
    daemon.signal(Signal::Reload);
    let refused = "weir_config_changes_total{result=\"refused\"} 1";
    let metrics = || daemon.raw(b"GET /metrics HTTP/1.1\r\nhost: x\r\n\r\n").1;
    eventually("the refusal", || metrics().lines().any(|line| line == refused));
    let view = daemon.get("/v1/config");
    assert_eq!(view["generation"], 2);
    assert!(view["document"]["port"]["b"].is_object(), "{view}");
    assert_eq!(daemon.engine.applied.lock().unwrap().len(), 2);
}

#[test]
fn a_stop_drains_the_engine_and_removes_the_socket() {
    let mut daemon = Daemon::start(&ports(&["a"]));
    daemon.signal(Signal::Stop);
    daemon.join().unwrap();
    assert!(daemon.engine.was_told("stop"));
    assert!(!daemon.socket().exists());
}

#[test]
fn an_engine_that_does_not_stop_is_given_up_within_five_seconds() {
    let mut daemon = Daemon::start(&ports(&["a"]));
    *daemon.engine.stop_takes.lock().unwrap() = Duration::from_secs(8);
    let start = Instant::now();
    daemon.signal(Signal::Stop);
    assert!(matches!(daemon.join(), Err(Failure::StopTimedOut)));
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    assert!(!daemon.socket().exists());
}

#[test]
fn a_configuration_that_is_refused_at_start_ends_the_daemon_with_nothing_attached() {
    let engine = Arc::new(Fake::default());
    let mut daemon = Daemon::try_start("[prot.a]\n", engine.clone());
    match daemon.join() {
        Err(Failure::Refused(refusal)) => assert!(!refusal.diagnostics.is_empty()),
        other => panic!("{other:?}"),
    }
    assert!(engine.applied.lock().unwrap().is_empty());
    assert!(!daemon.socket().exists());

    let engine = Arc::new(Fake::default());
    *engine.refuse.lock().unwrap() = Some("port a: no device wx0".to_owned());
    let mut daemon = Daemon::try_start(&ports(&["a"]), engine.clone());
    let error = daemon.join().unwrap_err();
    assert_eq!(error.to_string(), "port a: no device wx0");
    assert!(engine.was_told("stop"), "whatever was opened before the refusal is given back");
}

#[test]
fn a_second_daemon_on_the_same_socket_is_refused_before_it_touches_a_device() {
    let first = Daemon::start(&ports(&["a"]));
    let engine = Arc::new(Fake::default());
    let options = weir_control::daemon::Options::new(
        weir_control::configuration::Source::File(first.file()),
        first.socket(),
        engine.clone(),
    );
    let (_signals, receiver) = tokio::sync::mpsc::channel(1);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let error = runtime.block_on(weir_control::daemon::run(options, receiver)).unwrap_err();
    assert!(error.to_string().starts_with("another weir is running"), "{error}");
    assert!(engine.applied.lock().unwrap().is_empty());
    assert_eq!(first.get("/v1/health")["status"], "ok");
}

#[test]
fn systemd_is_told_of_readiness_reloads_and_the_stop() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("notify");
    let systemd = UnixDatagram::bind(&path).unwrap();
    let name = "daemon::systemd_is_told_of_readiness_reloads_and_the_stop";
    if in_a_child(name, Command::new("env").arg(format!("NOTIFY_SOCKET={}", path.display()))) {
        let mut daemon = Daemon::start(&ports(&["a"]));
        daemon.signal(Signal::Reload);
        eventually("the reload", || daemon.get("/v1/version")["generation"] == 2);
        daemon.signal(Signal::Stop);
        daemon.join().unwrap();
        return;
    }
    systemd.set_nonblocking(true).unwrap();
    let mut told = Vec::new();
    let mut buffer = [0; 256];
    while let Ok(length) = systemd.recv(&mut buffer) {
        told.push(String::from_utf8_lossy(&buffer[..length]).into_owned());
    }
    let at = |what: &str| told.iter().position(|message| message.starts_with(what));
    let order = [at("READY=1\n"), at("RELOADING=1\nMONOTONIC_USEC="), at("STOPPING=1\n")];
    assert!(order[0] == Some(0) && order.is_sorted() && order[1].is_some(), "{told:?}");
}

fn ip(arguments: &str) {
    let output = Command::new("ip").args(arguments.split_whitespace()).output().unwrap();
    assert!(output.status.success(), "ip {arguments}: {}", crate::common::stderr(&output));
}

#[test]
fn a_shared_port_gets_its_addresses_and_neighbours_from_the_kernel() {
    if !Command::new("unshare").args(["-n", "true"]).status().is_ok_and(|status| status.success()) {
        eprintln!("skipped: network namespaces need root");
        return;
    }
    let name = "daemon::a_shared_port_gets_its_addresses_and_neighbours_from_the_kernel";
    if !in_a_child(name, Command::new("unshare").arg("-n")) {
        return;
    }
    ip("link add wa type veth peer name wb");
    ip("addr add 192.0.2.1/24 dev wa");
    ip("link set wa up");
    ip("link set wb up");
    ip("neigh add 192.0.2.9 lladdr 02:00:00:00:00:09 dev wa nud permanent");
    let daemon = Daemon::start("[port.up]\ndevice = \"wa\"\nmode = \"shared\"\n");
    let addresses = || {
        let applied = daemon.engine.applied.lock().unwrap();
        applied.last().unwrap().ports["up"]
            .attachment
            .addresses
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
    };
    assert_eq!(addresses(), ["192.0.2.1/24"]);
    let told = |text: &str| eventually(text, || daemon.engine.was_told(text));
    told("neighbour up 192.0.2.9 Some(02:00:00:00:00:09)");

    ip("neigh del 192.0.2.9 dev wa");
    told("neighbour up 192.0.2.9 None");
    ip("addr add 198.51.100.1/24 dev wa");
    eventually("the new address", || addresses() == ["192.0.2.1/24", "198.51.100.1/24"]);
    let view = daemon.get("/v1/config");
    assert!(view["document"]["port"]["up"]["addresses"].is_null(), "the document stays as written: {view}");
    assert!(view["effective"].to_string().contains("198.51.100.1/24"), "{view}");

    // Nobody answers, so the kernel's own question ends as a failure that it tells only of entries it had; that it
    // asked is seen in its table.
    daemon.engine.requests.lock().unwrap().push(("wa".to_owned(), "192.0.2.77".parse().unwrap()));
    eventually("the kernel's question", || {
        let output = Command::new("ip").args(["neigh", "show", "192.0.2.77", "dev", "wa"]).output().unwrap();
        let text = crate::common::stdout(&output);
        text.contains("INCOMPLETE") || text.contains("FAILED")
    });
    ip("link set wb down");
    told("device wa CarrierDown");
    ip("link del wa");
    told("device wa Vanished");
    eventually("no addresses any more", || addresses().is_empty());
}
