//! The container image under a real runtime, started as the manifests say: with their arguments, environment, capabilities, root
//! file system and volumes, in the network of a "host" that is a namespace of the lab.
//!
//! `scripts/ship/image.sh` builds and unpacks the image and runs this test with `WEIR_BUNDLE` and `WEIR_MANIFEST`.

#![allow(clippy::expect_used, clippy::panic)] // A step that fails is a failed test.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};
use weir_hw_tests::{Lab, Node, eventually, weir_binary};

const PATIENCE: Duration = Duration::from_secs(20);
const NODE: &str = "worker-1";

const CONFIGURATION: &str = r#"
    [port.west]
    device = "env:DEVICES[0]"
    mode = "dedicated"
    addresses = ["10.1.0.1/24"]

    [port.east]
    device = "env:DEVICES[1]"
    mode = "dedicated"
    addresses = ["10.9.0.1/24"]

    [node.worker-1.port.east]
    addresses = ["10.2.0.1/24"]

    [node."app.kubernetes.io/name=weir".port.west]
    mtu = 1400
"#;

/// A container made of a manifest by hand, as the kubelet and a runtime would.
struct Container {
    id: String,
    host: Node,
    directory: PathBuf,
    child: Child,
}

impl Container {
    /// Writes the bundle's config.json and starts it in the network of `host`.
    fn start(host: &Node, directory: &Path, image: &Path, manifest: &Value) -> Self {
        let id = format!("weirlab-{}", std::process::id());
        let bundle = directory.join("bundle");
        fs::create_dir(&bundle).expect("make a bundle");
        let text = fs::read_to_string(image.join("config.json")).expect("read the image's config.json");
        let mut config: Value = serde_json::from_str(&text).expect("parse the image's config.json");
        let pod = &manifest["DaemonSet"]["spec"]["template"];
        complete(&mut config, pod, directory, &image.join("rootfs"));
        fs::write(bundle.join("config.json"), config.to_string()).expect("write config.json");
        let log = fs::File::create(directory.join("container.log")).expect("make a log");
        let child = runc(host, directory)
            .args(["run", "--bundle"])
            .args([bundle.as_os_str(), id.as_ref()])
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("share the log"))
            .stderr(log)
            .spawn()
            .expect("run runc");
        Self { id, host: host.clone(), directory: directory.to_owned(), child }
    }

    fn runc(&self, arguments: &[&str]) -> String {
        let mut words = arguments.to_vec();
        words.insert(1, &self.id);
        let output = runc(&self.host, &self.directory).args(words).output();
        let output = output.expect("run runc");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "runc {arguments:?}: {text}{said}\n{}", self.log());
        text
    }

    fn pid(&self) -> u64 {
        let state: Value = serde_json::from_str(&self.runc(&["state"])).expect("the state as JSON");
        state["pid"].as_u64().expect("a process id")
    }

    fn log(&self) -> String {
        fs::read_to_string(self.directory.join("container.log")).unwrap_or_default()
    }

    /// `weir show WHAT --json` over the socket in the pod's volume.
    fn show(&self, what: &str) -> Option<Value> {
        let socket = self.directory.join("run/weir.sock");
        let output =
            Command::new(weir_binary()).args(["show", what, "--json", "--socket"]).arg(socket).output();
        serde_json::from_slice(&output.expect("run weir").stdout).ok()
    }

    /// Status and text of a probe, asked from the host's network as the kubelet asks.
    fn probe(&self, container: &Value, probe: &str) -> (u32, String) {
        let get = &container[probe]["httpGet"];
        let (host, port) = (get["host"].as_str().expect("a host"), &get["port"]);
        let path = get["path"].as_str().expect("a path");
        let script = format!(
            "exec 3<>/dev/tcp/{host}/{port} && printf 'GET {path} HTTP/1.1\\r\\nhost: weir\\r\\n\\r\\n' >&3 && cat <&3"
        );
        let output = self.host.command("bash").args(["-c", &script]).output().expect("run bash");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let status = text.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0);
        (status, text.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap_or_default())
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the container said:\n{}", self.log());
        }
        let mut delete = runc(&self.host, &self.directory);
        let _ = delete.args(["delete", "--force", &self.id]).stderr(Stdio::null()).status();
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// runc, in the network of `host` and the mounts of this process: entering a network namespace by its name would hide the control
/// groups.
fn runc(host: &Node, directory: &Path) -> Command {
    let mut command = host.command("nsenter");
    command.arg(format!("--mount=/proc/{}/ns/mnt", std::process::id()));
    command.args(["runc", "--root"]).arg(directory.join("runc"));
    command
}

/// What a runtime adds to the image's configuration from the pod.
fn complete(config: &mut Value, pod: &Value, directory: &Path, root: &Path) {
    let container = &pod["spec"]["containers"][0];
    let context = &container["securityContext"];
    let environment = environment(container);
    let expand = |text: &str| {
        environment
            .iter()
            .fold(text.to_owned(), |text, (name, value)| text.replace(&format!("$({name})"), value))
    };
    let process = &mut config["process"];
    // The image's entry point, and the manifest's arguments in place of the image's own.
    let entry = process["args"][0].clone();
    let arguments = container["args"].as_array().expect("arguments").iter().filter_map(Value::as_str);
    process["args"] = std::iter::once(entry).chain(arguments.map(|text| json!(expand(text)))).collect();
    let variables = environment.iter().map(|(name, value)| json!(format!("{name}={value}")));
    process["env"].as_array_mut().expect("the image's environment").extend(variables);
    process["terminal"] = json!(false);
    process["user"] = json!({ "uid": context["runAsUser"], "gid": 0 });
    let capabilities: Vec<String> = capabilities(context);
    process["capabilities"] =
        json!({ "bounding": capabilities, "effective": capabilities, "permitted": capabilities });
    process["noNewPrivileges"] = json!(context["allowPrivilegeEscalation"] == false);
    process.as_object_mut().expect("an object").remove("rlimits");
    config["root"] = json!({ "path": root, "readonly": context["readOnlyRootFilesystem"] });
    config["mounts"] = mounts(pod, container, directory);
    // The host's network: no namespace of its own. Control groups are not this test's matter.
    config["linux"] = json!({
        "namespaces": [{ "type": "pid" }, { "type": "ipc" }, { "type": "uts" }, { "type": "mount" }],
        "maskedPaths": ["/proc/kcore", "/proc/keys", "/proc/timer_list"],
        "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"],
    });
    config.as_object_mut().expect("an object").remove("hooks");
}

fn capabilities(context: &Value) -> Vec<String> {
    assert_eq!(context["capabilities"]["drop"], json!(["ALL"]));
    let added = context["capabilities"]["add"].as_array().expect("capabilities");
    added.iter().filter_map(Value::as_str).map(|name| format!("CAP_{name}")).collect()
}

/// The manifest's variables, and what a device plugin would set.
fn environment(container: &Value) -> Vec<(String, String)> {
    let variable = |entry: &Value| {
        let value = match entry["valueFrom"]["fieldRef"]["fieldPath"].as_str() {
            Some("spec.nodeName") => NODE.to_owned(),
            Some(other) => panic!("nobody knows {other}"),
            None => entry["value"].as_str().expect("a value").to_owned(),
        };
        (entry["name"].as_str().expect("a name").to_owned(), value)
    };
    let mut all: Vec<_> = container["env"].as_array().expect("variables").iter().map(variable).collect();
    all.push(("DEVICES".to_owned(), "west,east".to_owned()));
    all
}

/// What every container has, and the pod's volumes as directories of the test.
fn mounts(pod: &Value, container: &Value, directory: &Path) -> Value {
    let mut mounts = vec![
        json!({ "destination": "/proc", "type": "proc", "source": "proc" }),
        json!({ "destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755"] }),
        json!({ "destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["nosuid", "noexec", "nodev", "ro"] }),
    ];
    let volumes = pod["spec"]["volumes"].as_array().expect("volumes");
    for mount in container["volumeMounts"].as_array().expect("mounts") {
        let volume =
            volumes.iter().find(|volume| volume["name"] == mount["name"]).expect("the mount's volume");
        let source = directory.join(volume["name"].as_str().expect("a name"));
        if volume["configMap"].is_object() {
            configmap(&source, CONFIGURATION, 1);
            symlink("..data/weir.toml", source.join("weir.toml")).expect("link the file");
        } else {
            fs::create_dir(&source).expect("make a volume");
        }
        if volume["downwardAPI"].is_object() {
            let labels = pod["metadata"]["labels"].as_object().expect("labels");
            let text: String = labels.iter().map(|(key, value)| format!("{key}={value}\n")).collect();
            fs::write(source.join("labels"), text).expect("write the labels");
        }
        let access = if mount["readOnly"] == true { "ro" } else { "rw" };
        mounts.push(json!({
            "destination": mount["mountPath"], "type": "bind", "source": source, "options": ["rbind", access],
        }));
    }
    Value::Array(mounts)
}

/// Swaps the content of a ConfigMap's directory, as the kubelet does.
fn configmap(directory: &Path, text: &str, version: u32) {
    let name = format!("..version_{version}");
    fs::create_dir_all(directory.join(&name)).expect("make a version");
    fs::write(directory.join(&name).join("weir.toml"), text).expect("write a file");
    symlink(&name, directory.join("..data_tmp")).expect("link the version");
    fs::rename(directory.join("..data_tmp"), directory.join("..data")).expect("swap the link");
}

/// A line of /proc/PID/status.
fn status(pid: u64, key: &str) -> String {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).expect("read the status");
    let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
    line.unwrap_or_else(|| panic!("no {key}")).trim().to_owned()
}

#[test]
#[ignore = "needs the image: `make ship` runs it"]
fn the_image_forwards_packets_with_what_the_manifests_grant_and_drains_and_stops_as_process_1() {
    let variable =
        |name| PathBuf::from(std::env::var_os(name).unwrap_or_else(|| panic!("{name} is not set")));
    let image = variable("WEIR_BUNDLE");
    let manifest = fs::read_to_string(variable("WEIR_MANIFEST")).expect("read the manifest");
    let manifest: Value = serde_json::from_str(&manifest).expect("parse the manifest");
    let pod = &manifest["DaemonSet"]["spec"]["template"]["spec"];
    let (container, context) = (&pod["containers"][0], &pod["containers"][0]["securityContext"]);
    assert_eq!(pod["hostNetwork"], true);

    let lab = Lab::new();
    let (alice, bob, host) = (lab.host("10.1.0.2/24"), lab.host("10.2.0.2/24"), lab.linux(""));
    lab.wire(&alice, &host, "west");
    lab.wire(&host, &bob, "east");
    lab.start();
    let mut weir = Container::start(&host, lab.directory(), &image, &manifest);
    for probe in ["startupProbe", "livenessProbe", "readinessProbe"] {
        let answered = eventually(PATIENCE, || (weir.probe(container, probe).0 == 200).then_some(()));
        assert!(answered.is_some(), "{probe}: {:?}", weir.probe(container, probe));
    }

    // It is process 1, alone, and has what the manifest grants and no more.
    let pid = weir.pid();
    assert!(status(pid, "NSpid").ends_with("\t1"), "{}", status(pid, "NSpid"));
    let granted: u64 = capabilities(context).iter().map(|name| 1 << number(name)).sum();
    assert_eq!(status(pid, "CapBnd"), format!("{granted:016x}"));
    // What it does not need once it runs it has given up: CAP_SYS_NICE.
    let kept = granted & !(1 << number("CAP_SYS_NICE"));
    assert_eq!(status(pid, "CapPrm"), format!("{kept:016x}"));
    assert_eq!(
        (status(pid, "NoNewPrivs").as_str(), status(pid, "CapInh").as_str()),
        ("1", "0000000000000000")
    );
    let mounts = fs::read_to_string(format!("/proc/{pid}/mountinfo")).expect("read the mounts");
    assert!(mounts.lines().any(|line| line.contains(" / / ro,") || line.contains(" / ro,")), "{mounts}");

    // The sections of its node and of its labels apply.
    let ports = weir.show("config").expect("the configuration")["effective"]["port"].clone();
    assert_eq!(ports["east"]["addresses"], json!(["10.2.0.1/24"]));
    assert_eq!(ports["west"]["mtu"], 1400);

    alice.ping(&bob).count(20).expect_all();
    bob.tcp(&alice).expect_bytes(1_000_000);
    let counters = weir.show("counters").expect("the counters");
    assert_eq!(counters["conservation"]["holds"], true, "{counters}");
    assert!(counters["counters"]["transmitted"].as_u64() >= Some(40), "{counters}");

    let larger = CONFIGURATION.replace("1400", "1450");
    configmap(&lab.directory().join("config"), &larger, 2);
    let reloaded = eventually(PATIENCE, || {
        (weir.show("config")?["effective"]["port"]["west"]["mtu"] == 1450).then_some(())
    });
    assert!(reloaded.is_some(), "the ConfigMap was swapped for nothing");

    // What the kubelet does before it stops a pod.
    let stop = container["lifecycle"]["preStop"]["exec"]["command"].as_array().expect("a preStop hook");
    let mut words = vec!["exec"];
    words.extend(stop.iter().filter_map(Value::as_str));
    weir.runc(&words);
    assert_eq!(weir.probe(container, "readinessProbe"), (503, "draining\n".to_owned()));
    assert_eq!(weir.probe(container, "livenessProbe").0, 200);
    alice.ping(&bob).count(5).expect_all();

    weir.runc(&["kill", "TERM"]);
    let ended = eventually(PATIENCE, || weir.child.try_wait().ok().flatten());
    assert_eq!(ended.and_then(|status| status.code()), Some(0), "{}", weir.log());
    assert!(weir.log().contains("stopped"), "{}", weir.log());
    assert!(!host.ip("-d link show west").contains("xdp"), "the program is still attached");
}

/// The number of a capability (capabilities(7), linux/capability.h).
fn number(name: &str) -> u32 {
    match name {
        "CAP_NET_ADMIN" => 12,
        "CAP_NET_RAW" => 13,
        "CAP_IPC_LOCK" => 14,
        "CAP_SYS_NICE" => 23,
        "CAP_PERFMON" => 38,
        "CAP_BPF" => 39,
        other => panic!("{other} is none that weir needs"),
    }
}
