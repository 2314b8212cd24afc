//! Kubernetes' AF_XDP device plugin: a small one that speaks its documented handshake, attached an XDP program of its own to a
//! device, and hands out the map of that program; and a weir that has no right to load programs.

use std::os::fd::{AsFd, AsRawFd};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::{Arc, Mutex};

use libbpf_rs::{Link, MapCore as _, Object, ObjectBuilder};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use uds::UnixSeqpacketListener;

use crate::common::{eventually, stderr, weir, write};
use crate::process::{ip, show, with_a_wire};

/// What the plugin attaches: every frame of a queue that has a socket goes there.
const PROGRAM: &str = r#"
#define SEC(name) __attribute__((section(name), used))
struct xdp_md { unsigned data, data_end, data_meta, ingress_ifindex, rx_queue_index, egress_ifindex; };
static long (*const redirect_map)(void *map, unsigned long long key, unsigned long long flags) = (void *)51;
struct {
    int (*type)[17];
    int (*max_entries)[4];
    unsigned *key;
    unsigned *value;
} xsks_map SEC(".maps");
SEC("xdp") int xdp_afxdp(struct xdp_md *ctx) { return redirect_map(&xsks_map, ctx->rx_queue_index, 2); }
char _license[] SEC("license") = "Dual BSD/GPL";
"#;

/// The capabilities of a container that the `afxdp-device-plugin` manifests start.
const UNPRIVILEGED: [&str; 2] = ["--bounding-set=-all,+net_raw,+ipc_lock", "--inh-caps=-all"];

const CONFIG: &str = "[port.a]\ndevice = \"env:AFXDP_DEVICES[0]\"\nmode = \"dedicated\"\nxsk-map = \"plugin\"\n\
                      addresses = [\"10.0.0.1/24\"]\n";

/// The plugin's program on a device.
fn attach(directory: &Path, device: &str) -> (Object, Link) {
    let source = write(directory, "plugin.bpf.c", PROGRAM);
    let object = directory.join("plugin.bpf.o");
    let clang = std::env::var("CLANG").unwrap_or_else(|_| "clang".into());
    let compiled = Command::new(clang)
        .args(["-target", "bpf", "-mcpu=v2", "-O2", "-g", "-nostdinc", "-c", &source, "-o"])
        .arg(&object)
        .status();
    assert!(compiled.unwrap().success(), "clang could not compile the plugin's program");
    let object = ObjectBuilder::default().open_file(&object).unwrap().load().unwrap();
    let index = nix::net::if_::if_nametoindex(device).unwrap();
    let program = object.progs_mut().find(|program| program.name() == "xdp_afxdp").unwrap();
    let link = program.attach_xdp(i32::try_from(index).unwrap()).unwrap();
    (object, link)
}

/// The plugin's directory of a device, removed at the end.
struct Directory(PathBuf);

impl Directory {
    fn new(device: &str) -> Self {
        let path = Path::new("/tmp/afxdp_dp").join(device);
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Serves the handshake, version 0.1, for `device` to the pod `host`; remembers what it was asked.
fn serve(directory: &Directory, device: &str, host: &str, object: &Object) -> Arc<Mutex<Vec<String>>> {
    let listener = UnixSeqpacketListener::bind(directory.0.join("afxdp.sock")).unwrap();
    let map = object.maps().find(|map| map.name() == "xsks_map").unwrap();
    let map = map.as_fd().try_clone_to_owned().unwrap();
    let asked = Arc::new(Mutex::new(Vec::new()));
    let (connect, map_of) = (format!("/connect,{host}"), format!("/xsk_map_fd,{device}"));
    let heard = asked.clone();
    std::thread::spawn(move || {
        while let Ok((connection, _)) = listener.accept_unix_addr() {
            let mut known = false;
            let mut buffer = [0; 64];
            while let Ok(length @ 1..) = connection.recv(&mut buffer) {
                let message = String::from_utf8_lossy(&buffer[..length]).into_owned();
                let (answer, descriptor) = match message.as_str() {
                    "/version" => ("0.1", None),
                    "/fin" => ("/fin_ack", None),
                    text if text == connect => {
                        known = true;
                        ("/host_ok", None)
                    }
                    text if text.starts_with("/connect,") => ("/host_nak", None),
                    text if known && text == map_of => ("/fd_ack", Some(map.as_raw_fd())),
                    text if known && text.starts_with("/xsk_map_fd,") => ("/fd_nak", None),
                    _ => ("/nak", None),
                };
                heard.lock().unwrap().push(message);
                let sent = match descriptor {
                    Some(descriptor) => connection.send_fds(answer.as_bytes(), &[descriptor]).map(drop),
                    None => connection.send(answer.as_bytes()).map(drop),
                };
                sent.unwrap();
            }
        }
    });
    asked
}

fn host() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap().trim().to_owned()
}

fn start(directory: &Path, config: &str, device: &str) -> Child {
    let file = write(directory, "weir.toml", config);
    let child = Command::new("setpriv")
        .args(UNPRIVILEGED)
        .args([env!("CARGO_BIN_EXE_weir"), "run", "--config", &file, "--socket"])
        .arg(directory.join("weir.sock"))
        .env("AFXDP_DEVICES", device)
        .spawn()
        .unwrap();
    eventually("an answer", || show(&directory.join("weir.sock"), "health").is_some());
    child
}

/// Packets go through the plugin's program to weir and back, with exact counters.
fn forwards(directory: &Path, mut child: Child) {
    let socket = directory.join("weir.sock");
    let status = std::fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap();
    // CAP_NET_RAW and CAP_IPC_LOCK.
    assert!(status.contains("CapEff:\t0000000000006000\n"), "{status}");
    ip("addr add 10.0.0.2/24 dev wb");
    let ping =
        Command::new("ping").args(["-c", "5", "-i", "0.2", "-W", "5", "-I", "wb", "10.0.0.1"]).output();
    let ping = String::from_utf8_lossy(&ping.unwrap().stdout).into_owned();
    assert!(ping.contains("5 packets transmitted, 5 received"), "{ping}");
    let port = show(&socket, "ports").unwrap()["ports"][0].clone();
    assert_eq!((port["xdp"].as_str(), port["state"].as_str()), (Some("native copy"), Some("up")), "{port}");
    let counters = show(&socket, "counters").unwrap();
    assert!(counters["counters"]["consumed"].as_u64() >= Some(5), "{counters}");
    assert_eq!(counters["conservation"]["holds"], true, "{counters}");
    crate::process::signal(&child, "TERM");
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn a_weir_without_privileges_gets_its_socket_map_from_the_device_plugin() {
    if !with_a_wire("device_plugin::a_weir_without_privileges_gets_its_socket_map_from_the_device_plugin") {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let (object, _link) = attach(directory.path(), "wa");
    let plugin = Directory::new("wa");
    let asked = serve(&plugin, "wa", &host(), &object);
    let child = start(directory.path(), CONFIG, "wa");
    assert_eq!(
        *asked.lock().unwrap(),
        [format!("/connect,{}", host()), "/xsk_map_fd,wa".to_owned(), "/fin".to_owned()]
    );
    forwards(directory.path(), child);
    // The program is the plugin's: it stays, and the next weir gets the same map.
    assert!(ip_output("-d link show wa").contains("xdp"));
    let mut next = start(directory.path(), CONFIG, "wa");
    assert_eq!(asked.lock().unwrap().len(), 6);
    crate::process::signal(&next, "TERM");
    assert_eq!(next.wait().unwrap().code(), Some(0));
}

#[test]
fn a_plugin_that_refuses_is_told_with_what_it_said() {
    if !with_a_wire("device_plugin::a_plugin_that_refuses_is_told_with_what_it_said") {
        return;
    }
    rename("wr");
    let directory = tempfile::tempdir().unwrap();
    let file = write(directory.path(), "weir.toml", &CONFIG.replace("env:AFXDP_DEVICES[0]", "wr"));
    let socket = directory.path().join("weir.sock");
    let refused = || {
        let output = weir(&["run", "--config", &file, "--socket", socket.to_str().unwrap()]);
        assert_eq!(output.status.code(), Some(1));
        stderr(&output)
    };
    let said = refused();
    assert!(said.contains("the AF_XDP device plugin at /tmp/afxdp_dp/wr/afxdp.sock: No such file"), "{said}");

    let (object, link) = attach(directory.path(), "wr");
    let plugin = Directory::new("wr");
    let _asked = serve(&plugin, "wr", "another-pod", &object);
    let said = refused();
    assert!(said.contains(&format!("it does not know the pod `{}` (/host_nak)", host())), "{said}");
    drop(plugin);
    let plugin = Directory::new("wr");
    let _asked = serve(&plugin, "another-device", &host(), &object);
    let said = refused();
    assert!(said.contains("it gives no map for `wr` (/fd_nak)"), "{said}");
    drop(plugin);
    // A plugin that gives a map although its program was taken off.
    drop(link);
    let plugin = Directory::new("wr");
    let _asked = serve(&plugin, "wr", &host(), &object);
    let said = refused();
    assert!(said.contains("no XDP program is attached"), "{said}");
}

#[test]
fn a_pinned_map_is_as_good_as_one_from_the_socket() {
    if !with_a_wire("device_plugin::a_pinned_map_is_as_good_as_one_from_the_socket") {
        return;
    }
    rename("wp");
    let directory = tempfile::tempdir().unwrap();
    let (mut object, _link) = attach(directory.path(), "wp");
    let plugin = Directory::new("wp");
    // A BPF file system that only this thread and its children see.
    unshare(CloneFlags::CLONE_NEWNS).unwrap();
    let nothing: Option<&str> = None;
    mount(nothing, "/", nothing, MsFlags::MS_REC | MsFlags::MS_PRIVATE, nothing).unwrap();
    mount(Some("bpf"), &plugin.0, Some("bpf"), MsFlags::empty(), nothing).unwrap();
    let mut map = object.maps_mut().find(|map| map.name() == "xsks_map").unwrap();
    map.pin(plugin.0.join("xsks_map")).unwrap();
    let child = start(directory.path(), &CONFIG.replace("\"plugin\"", "\"pinned\""), "wp");
    forwards(directory.path(), child);
    nix::mount::umount(&plugin.0).unwrap();
}

/// Gives the device another name: the plugin's directory of a device is the machine's, whatever the network namespace.
fn rename(to: &str) {
    ip("link set wa down");
    ip(&format!("link set wa name {to}"));
    ip(&format!("link set {to} up"));
}

fn ip_output(arguments: &str) -> String {
    let output = Command::new("ip").args(arguments.split_whitespace()).output().unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned()
}
