//! A data plane that remembers what it was told, and a daemon around it on a socket of its own.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;
use tokio::sync::mpsc::Sender;
use weir_config::{Config, MacAddress};
use weir_control::configuration::Source;
use weir_control::daemon::{self, Failure, Options, Signal};
use weir_control::engine::{ApplyError, DeviceEvent, Engine};
use weir_dataplane::worker::status::{
    AddressStatus, BindingStatus, ChainStatus, Counters, FlowStatus, HopStatus, HopTraffic, MacStatus,
    NatStatus, NeighbourStatus, PipelineStatus, PortStatus, ProcessMemory, QueueStatus, RouteStatus,
    RuleLookupStatus, RulesStatus, SessionStatus, TableStatus, TunnelStatus, WorkerStatus, WorkerTableStatus,
};

/// The data plane's stand-in.
#[derive(Default)]
pub(crate) struct Fake {
    pub(crate) generation: AtomicU64,
    pub(crate) applied: Mutex<Vec<Config>>,
    pub(crate) told: Mutex<Vec<String>>,
    /// What `apply` refuses with, if anything.
    pub(crate) refuse: Mutex<Option<String>>,
    /// Kernel requests to hand out once.
    pub(crate) requests: Mutex<Vec<(String, IpAddr)>>,
    /// How long `routes` and `stop` take.
    pub(crate) routes_take: Mutex<Duration>,
    pub(crate) stop_takes: Mutex<Duration>,
    pub(crate) loops: AtomicU64,
    /// Whether the worker stands still.
    pub(crate) stuck: AtomicBool,
}

impl Fake {
    fn note(&self, text: String) {
        self.told.lock().unwrap().push(text);
    }

    pub(crate) fn was_told(&self, text: &str) -> bool {
        self.told.lock().unwrap().iter().any(|line| line == text)
    }
}

impl Engine for Fake {
    fn apply(&self, config: &Config) -> Result<u64, ApplyError> {
        if let Some(reason) = self.refuse.lock().unwrap().clone() {
            return Err(ApplyError::from(reason));
        }
        self.applied.lock().unwrap().push(config.clone());
        Ok(self.generation.fetch_add(1, Ordering::Relaxed) + 1)
    }

    fn generation(&self) -> u64 {
        self.generation.load(Ordering::Relaxed)
    }

    fn config(&self) -> Arc<Config> {
        Arc::new(self.applied.lock().unwrap().last().cloned().unwrap_or_default())
    }

    fn huge_pages(&self) -> bool {
        false
    }

    fn ports(&self) -> Vec<PortStatus> {
        let config = self.config();
        let port = |(name, port): (&String, &weir_config::Port)| PortStatus {
            name: name.clone(),
            device: port.device.clone().unwrap_or_default(),
            mode: "dedicated",
            state: "up",
            driver: "veth".to_owned(),
            backend: "AF_XDP",
            xdp: "native copy".to_owned(),
            refused: vec!["zero-copy: operation not supported".to_owned()],
            warnings: Vec::new(),
            ifindex: 7,
            mac: MacAddress([2, 0, 0, 0, 0, 1]),
            mtu: 1500,
            numa: -1,
            rebinds: 0,
            redirected: 10,
            passed: 0,
            no_socket: 0,
            missed: 0,
            errors: 0,
            queues: vec![QueueStatus {
                queue: 0,
                worker: 0,
                rx_frames: 10,
                rx_bytes: 1000,
                tx_frames: 6,
                tx_bytes: 600,
                rx_missed: 0,
                invalid: 0,
                copies: 0,
            }],
        };
        config.ports.iter().map(port).collect()
    }

    fn workers(&self) -> Vec<WorkerStatus> {
        vec![WorkerStatus {
            worker: 0,
            core: 1,
            generation: self.generation(),
            loops: self.loops.fetch_add(u64::from(!self.stuck.load(Ordering::Relaxed)), Ordering::Relaxed),
            sleeps: 0,
            flows: 2,
            flow_capacity: 131_072,
            held: 1,
            counters: self.counters(),
        }]
    }

    fn turns(&self) -> Vec<u64> {
        vec![self.loops.fetch_add(1, Ordering::Relaxed)]
    }

    fn counters(&self) -> Counters {
        let dropped = BTreeMap::from([("no_route", 3)]);
        Counters { received: 10, transmitted: 6, held: 1, dropped, flow_hits: 8, ..Counters::default() }
    }

    fn routes(&self) -> Vec<RouteStatus> {
        std::thread::sleep(*self.routes_take.lock().unwrap());
        vec![RouteStatus {
            vrf: "default".to_owned(),
            prefix: "10.0.0.0/8".parse().unwrap(),
            origin: "static",
            via: vec!["via 192.0.2.9 dev a".to_owned()],
        }]
    }

    fn neighbours(&self) -> Vec<NeighbourStatus> {
        vec![NeighbourStatus {
            interface: "a".to_owned(),
            ip: "192.0.2.9".parse().unwrap(),
            mac: None,
            state: "incomplete",
            age: 0,
        }]
    }

    fn tunnels(&self) -> Vec<TunnelStatus> {
        vec![TunnelStatus {
            name: "to-b".to_owned(),
            local: "192.0.2.1".parse().unwrap(),
            remote: "192.0.2.2".parse().unwrap(),
            vni: 100,
            udp_port: 4789,
            domain: "vrf blue".to_owned(),
            mtu: 1450,
            learned_mtu: None,
            underlay: "via 192.0.2.9 dev a".to_owned(),
        }]
    }

    fn macs(&self) -> Vec<MacStatus> {
        Vec::new()
    }

    fn flows(&self, limit: usize) -> Vec<FlowStatus> {
        let flow = |number| FlowStatus {
            worker: 0,
            interface: "a".to_owned(),
            key: format!("dst 10.0.0.{number}"),
            program: "route to a".to_owned(),
            packets: 5,
            bytes: 500,
            idle: 0,
        };
        (0..2).take(limit).map(flow).collect()
    }

    fn sessions(&self, limit: usize) -> Vec<SessionStatus> {
        let session = SessionStatus {
            domain: "default".to_owned(),
            protocol: "tcp".to_owned(),
            source: "10.0.0.1:1234".to_owned(),
            destination: "10.0.0.2:443".to_owned(),
            state: "established".to_owned(),
            chain: None,
            expires: 300,
        };
        vec![session].into_iter().take(limit).collect()
    }

    fn nat(&self, limit: usize) -> NatStatus {
        let binding = BindingStatus {
            vrf: "default".to_owned(),
            service: "out".to_owned(),
            protocol: "udp".to_owned(),
            inside: "10.1.0.2:5000".to_owned(),
            outside: "203.0.113.7:5000".to_owned(),
            sessions: 1,
        };
        let address = AddressStatus {
            vrf: "default".to_owned(),
            address: [203, 0, 113, 7].into(),
            protocol: "udp".to_owned(),
            in_use: 1,
            resting: 3,
        };
        NatStatus { bindings: vec![binding].into_iter().take(limit).collect(), addresses: vec![address] }
    }

    fn rules(&self) -> Vec<RulesStatus> {
        let lookup = RuleLookupStatus {
            family: "ipv4",
            algorithm: "linear",
            why: "comparing 2 one after the other is cheaper than hashing".to_owned(),
            regions: 2,
            tables: 0,
            most_tables: 0,
            most_regions: 2,
        };
        vec![RulesStatus { of: "firewall edge".to_owned(), rules: 2, bytes: 96, families: vec![lookup] }]
    }

    fn chains(&self) -> Vec<ChainStatus> {
        let traffic = |direction, out_packets| HopTraffic {
            direction,
            out_packets,
            out_bytes: 100 * out_packets,
            back_packets: out_packets - 1,
            back_bytes: 100 * out_packets - 100,
        };
        let service =
            HopStatus { name: "edge".into(), kind: "firewall", state: None, attach: vec![], traffic: vec![] };
        let attached = HopStatus {
            name: "ids".into(),
            kind: "attached",
            state: Some("up"),
            attach: vec!["ids-a".into(), "ids-b".into()],
            traffic: vec![traffic("forward", 7), traffic("reverse", 5)],
        };
        vec![ChainStatus { name: "web".to_owned(), hops: vec![service, attached] }]
    }

    fn pipeline(&self) -> Vec<PipelineStatus> {
        vec![PipelineStatus {
            interface: "a".to_owned(),
            domain: "vrf default".to_owned(),
            key: vec!["destination".to_owned()],
            why: vec!["destination: routing in vrf default".to_owned()],
        }]
    }

    fn tables(&self) -> Vec<TableStatus> {
        vec![TableStatus {
            table: "flows".to_owned(),
            used: 2,
            limit: 131_072,
            bytes: 40 << 20,
            bytes_used: 640,
            pages: "heap".to_owned(),
            workers: vec![WorkerTableStatus { worker: 0, used: 2, bytes: 40 << 20 }],
        }]
    }

    fn process_memory(&self) -> ProcessMemory {
        ProcessMemory { resident: 80 << 20, huge: 32 << 20, transparent: 2 << 20, available: 1 << 30 }
    }

    fn kernel_neighbour(&self, interface: &str, ip: IpAddr, mac: Option<MacAddress>) {
        self.note(format!("neighbour {interface} {ip} {mac:?}"));
    }

    fn device_changed(&self, device: &str, event: DeviceEvent) {
        self.note(format!("device {device} {event:?}"));
    }

    fn take_kernel_requests(&self) -> Vec<(String, IpAddr)> {
        std::mem::take(&mut self.requests.lock().unwrap())
    }

    fn service(&self) {}

    fn quiet(&self, quiet: bool) {
        self.note(format!("quiet {quiet}"));
    }

    fn stop(&self) {
        std::thread::sleep(*self.stop_takes.lock().unwrap());
        self.note("stop".to_owned());
    }
}

/// A daemon on a thread of its own, around a [`Fake`].
pub(crate) struct Daemon {
    pub(crate) engine: Arc<Fake>,
    pub(crate) directory: TempDir,
    /// Where it answers probes.
    pub(crate) health: SocketAddr,
    signals: Sender<Signal>,
    thread: Option<std::thread::JoinHandle<Result<(), Failure>>>,
}

/// A configuration with a dedicated port for each name.
pub(crate) fn ports(names: &[&str]) -> String {
    names
        .iter()
        .enumerate()
        .map(|(at, name)| {
            format!(
                "[port.{name}]\ndevice = \"wx{at}\"\nmode = \"dedicated\"\naddresses = [\"10.{at}.0.1/24\"]\n"
            )
        })
        .collect()
}

impl Daemon {
    /// Starts with this configuration, and waits until it answers.
    pub(crate) fn start(config: &str) -> Self {
        let daemon = Self::try_start(config, Arc::new(Fake::default()));
        let deadline = Instant::now() + Duration::from_secs(10);
        while UnixStream::connect(daemon.socket()).is_err() || daemon.engine.generation() == 0 {
            assert!(Instant::now() < deadline, "the daemon does not answer");
            std::thread::sleep(Duration::from_millis(5));
        }
        daemon
    }

    /// Starts without waiting.
    pub(crate) fn try_start(config: &str, engine: Arc<Fake>) -> Self {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("weir.toml"), config).unwrap();
        // A port that was free just now; loopback may be down in a namespace.
        let health = TcpListener::bind("0.0.0.0:0").unwrap().local_addr().unwrap();
        let source = Source::File(directory.path().join("weir.toml"));
        let options = Options {
            health: Some(health),
            ..Options::new(source, directory.path().join("weir.sock"), engine.clone())
        };
        let (signals, receiver) = tokio::sync::mpsc::channel(8);
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let result = runtime.block_on(daemon::run(options, receiver));
            runtime.shutdown_background();
            result
        });
        Self { engine, directory, health, signals, thread: Some(thread) }
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.directory.path().join("weir.sock")
    }

    pub(crate) fn file(&self) -> PathBuf {
        self.directory.path().join("weir.toml")
    }

    pub(crate) fn signal(&self, signal: Signal) {
        self.signals.blocking_send(signal).unwrap();
    }

    /// Waits for the end.
    pub(crate) fn join(&mut self) -> Result<(), Failure> {
        self.thread.take().unwrap().join().unwrap()
    }

    /// Runs `weir` with these arguments against this daemon.
    pub(crate) fn weir(&self, arguments: &[&str]) -> Output {
        let socket = self.socket();
        let mut all = arguments.to_vec();
        all.extend(["--socket", socket.to_str().unwrap()]);
        weir(&all)
    }

    /// Sends a request and reads status and JSON body.
    pub(crate) fn ask(&self, method: &str, path: &str, headers: &str, body: &[u8]) -> (u16, Value) {
        let length = body.len();
        let mut request =
            format!("{method} {path} HTTP/1.1\r\nhost: weir\r\ncontent-length: {length}\r\n{headers}\r\n")
                .into_bytes();
        request.extend(body);
        let (status, body) = self.raw(&request);
        (status, serde_json::from_str(&body).unwrap_or_else(|_| panic!("{path} gave no JSON: {body}")))
    }

    pub(crate) fn get(&self, path: &str) -> Value {
        let (status, body) = self.ask("GET", path, "", b"");
        assert_eq!(status, 200, "{path}: {body}");
        body
    }

    /// Sends bytes as they are; returns status and body, status 0 if the connection was closed without an answer.
    pub(crate) fn raw(&self, bytes: &[u8]) -> (u16, String) {
        let mut stream = UnixStream::connect(self.socket()).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        // The server may answer and close before it has read all of a body that it refuses.
        let _ = stream.write_all(bytes);
        let _ = stream.shutdown(Shutdown::Write);
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        let text = String::from_utf8_lossy(&answer).into_owned();
        let status = text.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0);
        let body = text.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap_or_default();
        (status, body)
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.signals.blocking_send(Signal::Stop);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Runs the `weir` binary.
pub(crate) fn weir(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_weir"))
        .args(arguments)
        .env_remove("INTERFACES")
        .env_remove("ROUTES")
        .output()
        .unwrap()
}

pub(crate) fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

pub(crate) fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Writes a file in a directory and returns its path.
pub(crate) fn write(directory: &Path, name: &str, text: &str) -> String {
    let path = directory.join(name);
    std::fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

/// Waits until a condition holds.
pub(crate) fn eventually(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !condition() {
        assert!(Instant::now() < deadline, "{what} did not happen");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Runs a test again in a process of its own, started by `command`; true in the child.
pub(crate) fn in_a_child(test: &str, command: &mut Command) -> bool {
    const CHILD: &str = "WEIR_TEST_CHILD";
    if std::env::var_os(CHILD).is_some() {
        return true;
    }
    command.arg(std::env::current_exe().unwrap()).args([test, "--exact", "--nocapture"]).env(CHILD, "1");
    let output = command.output().unwrap();
    let text = format!("{}{}", stdout(&output), stderr(&output));
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
    false
}
