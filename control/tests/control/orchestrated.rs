//! weir under an orchestrator, as a process with the real data plane: probes, draining, a ConfigMap that the kubelet swaps,
//! devices by environment variables.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::common::{Daemon, Fake, eventually, in_a_child, ports, stderr, stdout, weir, write};
use crate::process::{CONFIG, ip, show, signal, with_a_wire};

const HEALTH: &str = "127.0.0.1:9640";

/// A weir that logs into a file and is killed when it is dropped.
struct Weir {
    child: Child,
    directory: PathBuf,
}

impl Weir {
    fn start(directory: &Path, config: &Path, arguments: &[&str], environment: &[(&str, &str)]) -> Self {
        let log = std::fs::File::create(directory.join("log")).unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_weir"))
            .args(["run", "--config", config.to_str().unwrap()])
            .args(["--socket", directory.join("weir.sock").to_str().unwrap()])
            .args(arguments)
            .envs(environment.iter().copied())
            .stderr(log)
            .spawn()
            .unwrap();
        let weir = Self { child, directory: directory.to_owned() };
        eventually("an answer", || show(&weir.socket(), "health").is_some());
        weir
    }

    fn socket(&self) -> PathBuf {
        self.directory.join("weir.sock")
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.directory.join("log")).unwrap()
    }

    fn generation(&self) -> u64 {
        show(&self.socket(), "version").unwrap()["generation"].as_u64().unwrap()
    }

    fn address(&self) -> String {
        show(&self.socket(), "config").unwrap()["effective"]["port"]["a"]["addresses"][0]
            .as_str()
            .unwrap()
            .to_owned()
    }

    /// `weir ARGUMENTS` against this one: exit code and text.
    fn client(&self, arguments: &[&str]) -> (Option<i32>, String) {
        let output = weir(&[arguments, &["--socket", self.socket().to_str().unwrap()]].concat());
        (output.status.code(), stdout(&output) + &stderr(&output))
    }
}

impl Drop for Weir {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Status and body of a probe; status 0 if nobody answers.
fn probe(address: &str, path: &str) -> (u16, String) {
    let Ok(mut stream) = TcpStream::connect(address) else { return (0, String::new()) };
    stream.write_all(format!("GET {path} HTTP/1.1\r\nhost: weir\r\n\r\n").as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let status = answer.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0);
    (status, answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap_or_default())
}

/// A directory as the kubelet makes it of a ConfigMap: the files are links into `..data`, which is a link itself.
struct ConfigMap {
    directory: PathBuf,
    version: u32,
}

impl ConfigMap {
    fn new(directory: PathBuf, text: &str) -> Self {
        std::fs::create_dir(&directory).unwrap();
        let mut map = Self { directory, version: 0 };
        map.update(text);
        symlink("..data/weir.toml", map.file()).unwrap();
        map
    }

    fn file(&self) -> PathBuf {
        self.directory.join("weir.toml")
    }

    /// As the kubelet's atomic writer does it: a new directory, a new link to it under another name, a rename over `..data`,
    /// and the old directory removed.
    fn update(&mut self, text: &str) {
        let old = format!("..2026_11_20_{}", self.version);
        self.version += 1;
        let new = format!("..2026_11_20_{}", self.version);
        std::fs::create_dir(self.directory.join(&new)).unwrap();
        std::fs::write(self.directory.join(&new).join("weir.toml"), text).unwrap();
        symlink(&new, self.directory.join("..data_tmp")).unwrap();
        std::fs::rename(self.directory.join("..data_tmp"), self.directory.join("..data")).unwrap();
        let _ = std::fs::remove_dir_all(self.directory.join(old));
    }
}

fn config(address: &str) -> String {
    CONFIG.replace("10.0.0.1", address)
}

#[test]
fn probes_follow_the_port_and_draining_and_answer_nothing_else() {
    if !with_a_wire("orchestrated::probes_follow_the_port_and_draining_and_answer_nothing_else") {
        return;
    }
    ip("link set lo up");
    let directory = tempfile::tempdir().unwrap();
    let file = PathBuf::from(write(directory.path(), "weir.toml", CONFIG));
    let mut weir = Weir::start(directory.path(), &file, &["--health", HEALTH], &[]);
    for path in ["/startz", "/livez", "/readyz"] {
        eventually(path, || probe(HEALTH, path) == (200, "ok\n".to_owned()));
    }
    assert!(probe(HEALTH, "/metrics").1.contains("weir_config_current 1\n"));
    // Nothing of the socket's is here.
    for path in ["/v1/config", "/v1/health", "/v1/drain", "/"] {
        assert_eq!(probe(HEALTH, path).0, 404, "{path}");
    }

    ip("link set wb down");
    eventually("not ready without a carrier", || {
        let (status, text) = probe(HEALTH, "/readyz");
        status == 503 && text.contains("port a (wa)")
    });
    assert_eq!(probe(HEALTH, "/livez").0, 200, "a cable that was pulled is no reason to be killed");
    ip("link set wb up");
    eventually("ready again", || probe(HEALTH, "/readyz").0 == 200);

    assert_eq!(weir.client(&["drain"]), (Some(0), "draining\n".to_owned()));
    assert_eq!(probe(HEALTH, "/readyz"), (503, "draining\n".to_owned()));
    assert_eq!((probe(HEALTH, "/livez").0, probe(HEALTH, "/startz").0), (200, 200));
    assert!(probe(HEALTH, "/metrics").1.contains("weir_draining 1\n"));
    let (code, text) = weir.client(&["reload"]);
    assert!(code == Some(1) && text.contains("draining and takes no change"), "{code:?} {text}");
    assert_eq!(weir.generation(), 1);
    assert_eq!(weir.client(&["drain", "--undo"]), (Some(0), "ok\n".to_owned()));
    assert_eq!(probe(HEALTH, "/readyz").0, 200);
    assert_eq!(weir.client(&["reload"]).0, Some(0));

    weir.client(&["drain"]);
    signal(&weir.child, "TERM");
    assert_eq!(weir.child.wait().unwrap().code(), Some(0));
    assert_eq!(probe(HEALTH, "/livez").0, 0, "nobody listens any more");
}

#[test]
fn a_health_address_that_is_taken_ends_the_start_before_a_device_is_touched() {
    if !with_a_wire("orchestrated::a_health_address_that_is_taken_ends_the_start_before_a_device_is_touched")
    {
        return;
    }
    ip("link set lo up");
    let _taken = std::net::TcpListener::bind(HEALTH).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let file = write(directory.path(), "weir.toml", CONFIG);
    let socket = directory.path().join("weir.sock");
    let output = weir(&["run", "--config", &file, "--socket", socket.to_str().unwrap(), "--health", HEALTH]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("listening for probes on 127.0.0.1:9640: "), "{}", stderr(&output));
    assert!(!stderr(&output).contains("port a"), "{}", stderr(&output));
}

#[test]
fn a_worker_that_stands_still_fails_the_liveness_probe() {
    let engine = Arc::new(Fake::default());
    let daemon = Daemon::try_start(&ports(&["a"]), engine.clone());
    eventually("an answer", || daemon.socket().exists());
    let health = || daemon.get("/v1/health");
    eventually("health", || health()["status"] == "ok");
    let live = || probe(&daemon.health.to_string(), "/livez");
    assert_eq!(live().0, 200);
    engine.stuck.store(true, Ordering::Relaxed);
    eventually("the finding", || live() == (503, "worker 0 has not looped for 5 s\n".to_owned()));
    engine.stuck.store(false, Ordering::Relaxed);
    eventually("recovery", || live().0 == 200);
}

/// The kubelet's swap, with a good file, a bad one and a good one again.
#[test]
fn a_configmap_that_the_kubelet_swaps_is_loaded_and_a_bad_one_is_refused_with_its_place() {
    if !with_a_wire(
        "orchestrated::a_configmap_that_the_kubelet_swaps_is_loaded_and_a_bad_one_is_refused_with_its_place",
    ) {
        return;
    }
    ip("link set lo up");
    let directory = tempfile::tempdir().unwrap();
    let mut map = ConfigMap::new(directory.path().join("etc"), CONFIG);
    let weir = Weir::start(directory.path(), &map.file(), &["--watch", "--health", HEALTH], &[]);
    let metric = |line: &str| probe(HEALTH, "/metrics").1.lines().any(|have| have == line);
    eventually("the watch", || metric("weir_config_watched 1"));

    map.update(&config("10.0.0.2"));
    // What a change did is told bit by bit: the generation first, the metric and the log last.
    eventually("the new address", || weir.address() == "10.0.0.2/24");
    assert_eq!(weir.generation(), 2);

    map.update(&config("10.0.0.3").replace("mode", "mood"));
    eventually("the metric", || metric("weir_config_current 0"));
    assert!(metric("weir_config_changes_total{result=\"refused\"} 1"));
    assert_eq!((weir.generation(), weir.address()), (2, "10.0.0.2/24".to_owned()));
    let place = format!("{}:3:1: error[unknown-key]", map.file().display());
    eventually(&place, || weir.log().contains(&place));
    eventually("the word on what goes on", || weir.log().contains("generation 2 goes on"));
    assert_eq!(probe(HEALTH, "/readyz").0, 200, "what runs goes on running");

    map.update(&config("10.0.0.4"));
    eventually("generation 3", || weir.generation() == 3);
    eventually("the metric", || metric("weir_config_current 1"));
    // The same text again is no change.
    map.update(&config("10.0.0.4"));
    map.update(&config("10.0.0.5"));
    eventually("the last text", || weir.address() == "10.0.0.5/24");
}

#[test]
fn a_file_that_is_replaced_written_or_linked_anew_is_loaded_also_after_its_directory_was_gone() {
    if !with_a_wire(
        "orchestrated::a_file_that_is_replaced_written_or_linked_anew_is_loaded_also_after_its_directory_was_gone",
    ) {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let etc = directory.path().join("etc");
    std::fs::create_dir(&etc).unwrap();
    let file = PathBuf::from(write(&etc, "weir.toml", CONFIG));
    let weir = Weir::start(directory.path(), &file, &["--watch"], &[]);
    let is = |address: &str| eventually(address, || weir.address() == format!("{address}/24"));

    write(&etc, "weir.toml.new", &config("10.0.0.2"));
    std::fs::rename(etc.join("weir.toml.new"), &file).unwrap();
    is("10.0.0.2");
    write(&etc, "weir.toml", &config("10.0.0.3"));
    is("10.0.0.3");
    let other = write(directory.path(), "other.toml", &config("10.0.0.4"));
    std::fs::remove_file(&file).unwrap();
    symlink(other, &file).unwrap();
    is("10.0.0.4");
    // Other files beside it are nobody's business.
    let before = weir.generation();
    write(&etc, "other.toml", "nonsense");

    std::fs::rename(&etc, directory.path().join("away")).unwrap();
    eventually("the loss", || weir.log().contains("went away"));
    std::fs::create_dir(&etc).unwrap();
    write(&etc, "weir.toml", &config("10.0.0.5"));
    is("10.0.0.5");
    assert_eq!(weir.generation(), before + 1);
}

#[test]
fn a_subpath_mount_never_changes_and_that_is_said() {
    const TEST: &str = "orchestrated::a_subpath_mount_never_changes_and_that_is_said";
    if !with_a_wire(TEST) {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let source = write(directory.path(), "source.toml", CONFIG);
    let file = PathBuf::from(write(directory.path(), "weir.toml", ""));
    // As the kubelet mounts one file of a volume. The mount goes with the test's mount namespace.
    let script = format!("mount --bind '{source}' '{}' && exec \"$@\"", file.display());
    let socket = directory.path().join("weir.sock");
    let log = std::fs::File::create(directory.path().join("log")).unwrap();
    let child = Command::new("unshare")
        .args([
            "--mount",
            "sh",
            "-c",
            &script,
            "sh",
            env!("CARGO_BIN_EXE_weir"),
            "run",
            "--watch",
            "--config",
        ])
        .args([file.to_str().unwrap(), "--socket", socket.to_str().unwrap()])
        .stderr(log)
        .spawn()
        .unwrap();
    let weir = Weir { child, directory: directory.path().to_owned() };
    eventually("an answer", || show(&weir.socket(), "health").is_some());
    assert!(
        weir.log().contains("is mounted by itself, as a `subPath` mount is: it never changes"),
        "{}",
        weir.log()
    );
    assert!(!weir.log().contains("is watched"), "{}", weir.log());
    assert_eq!(weir.address(), "10.0.0.1/24");
}

#[test]
fn a_device_is_found_by_the_environment_and_a_node_by_its_name() {
    if !with_a_wire("orchestrated::a_device_is_found_by_the_environment_and_a_node_by_its_name") {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let text = format!(
        "{}\n[node.worker-1.port.a]\naddresses = [\"10.0.0.7/24\"]\n[node.\"rack=west\".port.a]\nmtu = 1400\n",
        CONFIG.replace("\"wa\"", "\"env:AFXDP_DEVICES_POOL[1]\"")
    );
    let file = PathBuf::from(write(directory.path(), "weir.toml", &text));
    let environment =
        [("AFXDP_DEVICES_POOL", "nosuch0,wa"), ("WEIR_NODE", "worker-1"), ("WEIR_NODE_LABELS", "rack=west")];
    let weir = Weir::start(directory.path(), &file, &[], &environment);
    assert_eq!(weir.address(), "10.0.0.7/24");
    let port = show(&weir.socket(), "ports").unwrap()["ports"][0].clone();
    assert_eq!((port["device"].as_str(), port["state"].as_str()), (Some("wa"), Some("up")), "{port}");
    let document = show(&weir.socket(), "config").unwrap();
    assert_eq!(document["document"]["port"]["a"]["device"], "env:AFXDP_DEVICES_POOL[1]");
    assert_eq!(document["effective"]["port"]["a"]["mtu"], 1400);
    drop(weir);

    let output = Command::new(env!("CARGO_BIN_EXE_weir"))
        .args(["run", "--config", file.to_str().unwrap(), "--socket"])
        .arg(directory.path().join("weir.sock"))
        .env("AFXDP_DEVICES_POOL", "wa")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let said = stderr(&output);
    assert!(
        said.contains("port `a`: device = \"env:AFXDP_DEVICES_POOL[1]\": AFXDP_DEVICES_POOL holds 1 device"),
        "{said}"
    );
}

#[test]
fn check_sees_a_file_as_all_nodes_do_or_as_one() {
    if !in_a_child("orchestrated::check_sees_a_file_as_all_nodes_do_or_as_one", &mut Command::new("env")) {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let text = format!("{CONFIG}\n[node.worker-1.port.a]\nvrf = \"red\"\n");
    let file = write(directory.path(), "weir.toml", &text);
    let all = weir(&["check", &file]);
    assert_eq!(all.status.code(), Some(1));
    assert!(
        stderr(&all).contains(":7:7: error[unknown-reference]: there is no VRF `red`"),
        "{}",
        stderr(&all)
    );
    assert_eq!(weir(&["check", "--node", "worker-1", &file]).status.code(), Some(1));
    assert_eq!(weir(&["check", "--node", "worker-2", &file]).status.code(), Some(0));
    assert_eq!(weir(&["check", "--node-label", "rack", &file]).status.code(), Some(2));
}
