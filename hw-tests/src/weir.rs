//! A box that runs weir: started in its own namespace, asked over its socket, reloaded, ended in all the ways there are.

use std::io::{Read, Write};
use std::ops::Deref;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::counters::conserved;
use crate::lab::lock;
use crate::node::NodeState;
use crate::process::{Finished, Process, weir_binary};
use crate::{Counters, Node, eventually};

/// How long weir may take until it answers, and until its ports are open.
const START: Duration = Duration::from_secs(20);
/// How long it may take to drain and end.
const STOP: Duration = Duration::from_secs(10);

/// What outlives a handle: the process and its files.
#[derive(Debug)]
pub(crate) struct WeirState {
    node: Arc<NodeState>,
    configuration: PathBuf,
    environment: Vec<(String, String)>,
    /// Whether the environment takes the configuration file's place.
    by_environment: bool,
    socket: PathBuf,
    log: PathBuf,
    process: Mutex<Option<Process>>,
    started: AtomicBool,
}

impl WeirState {
    pub(crate) fn new(node: Arc<NodeState>, directory: &Path, configuration: &str) -> Self {
        let label = node.label();
        let file = |suffix: &str| directory.join(format!("{label}{suffix}"));
        let state = Self {
            environment: Vec::new(),
            by_environment: false,
            configuration: file(".toml"),
            socket: file(".sock"),
            log: file(".log"),
            node,
            process: Mutex::default(),
            started: AtomicBool::new(false),
        };
        state.write(configuration);
        state
    }

    /// A box configured by its environment alone.
    pub(crate) fn by_environment(node: Arc<NodeState>, directory: &Path, variables: &[(&str, &str)]) -> Self {
        Self { by_environment: true, ..Self::new(node, directory, "").with(variables) }
    }

    /// With these variables in its environment.
    pub(crate) fn with(self, variables: &[(&str, &str)]) -> Self {
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        Self { environment: variables.iter().map(owned).collect(), ..self }
    }

    fn write(&self, configuration: &str) {
        std::fs::write(&self.configuration, configuration).expect("write a configuration");
    }

    /// Starts the process if it never was; whether it did so.
    pub(crate) fn start_once(&self) -> bool {
        let first = !self.started.swap(true, Ordering::SeqCst);
        if first {
            self.start();
        }
        first
    }

    /// Whether the process was ever started.
    pub(crate) fn was_started(&self) -> bool {
        self.started.load(Ordering::SeqCst)
    }

    fn start(&self) {
        let binary = weir_binary();
        let mut command = self.node.namespace().command(&binary.display().to_string());
        command.arg("run").arg("--socket").arg(&self.socket);
        if !self.by_environment {
            command.arg("--config").arg(&self.configuration);
        }
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        *lock(&self.process) = Some(Process::start(&mut command, &self.log));
    }

    /// Waits until the socket answers and no port is still being opened.
    pub(crate) fn await_ready(&self) {
        let ready = eventually(START, || {
            assert!(self.alive(), "weir ended at its start");
            UnixStream::connect(&self.socket).ok()?;
            let ports = self.ask("ports").ok()?;
            (!ports.to_string().contains("\"opening\"")).then_some(())
        });
        assert!(ready.is_some(), "weir is not ready after {START:?}: {:?}", self.ask("ports"));
    }

    /// Whether the process runs.
    pub(crate) fn alive(&self) -> bool {
        lock(&self.process).as_mut().is_some_and(|process| process.exited().is_none())
    }

    fn client(&self, arguments: &[&str]) -> Result<String, String> {
        let mut command = Command::new(weir_binary());
        let output = command.args(arguments).arg("--socket").arg(&self.socket).output();
        let output = output.map_err(|e| e.to_string())?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
    }

    fn ask(&self, what: &str) -> Result<Value, String> {
        let text = self.client(&["show", what, "--json"])?;
        serde_json::from_str(&text).map_err(|e| format!("{e} in {text}"))
    }

    /// `weir show WHAT --json`.
    #[track_caller]
    pub(crate) fn show(&self, what: &str) -> Value {
        self.ask(what).unwrap_or_else(|e| panic!("weir show {what}: {e}"))
    }

    /// The counters summed over the workers.
    #[track_caller]
    pub(crate) fn counters(&self) -> Value {
        self.ask_counters().unwrap_or_else(|e| panic!("weir show counters: {e}"))
    }

    fn ask_counters(&self) -> Result<Value, String> {
        let answer = self.ask("counters")?;
        Ok(answer.get("counters").cloned().unwrap_or(answer))
    }

    /// At the end of a scenario: a weir that ran must still run, and account for every packet.
    pub(crate) fn final_check(&self) -> Result<(), String> {
        if lock(&self.process).is_none() {
            return Ok(());
        }
        let label = self.node.label();
        if !self.alive() {
            return Err(format!("{label} ended although nobody asked it to"));
        }
        // A packet may sit between two counters only while it is in a worker's hands: ask again before complaining.
        let mut last = Ok(());
        eventually(Duration::from_secs(2), || {
            last = self.ask_counters().and_then(|counters| conserved(&counters));
            last.is_ok().then_some(())
        });
        last.map_err(|text| format!("{label}: {text}"))
    }

    /// For a failed scenario: counters and the end of the log.
    pub(crate) fn report(&self) -> String {
        let label = self.node.label();
        let counters = match self.alive().then(|| self.ask_counters()) {
            None => "not running".to_owned(),
            Some(Ok(counters)) => format!("{counters:#}"),
            Some(Err(error)) => error,
        };
        let log = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<_> = log.lines().collect();
        let tail = lines[lines.len().saturating_sub(60)..].join("\n    ");
        format!("  {label} counters: {counters}\n  {label} log:\n    {tail}\n")
    }

    /// Ends the process however it can, at the end of the lab.
    pub(crate) fn stop(&self) {
        if let Some(mut process) = lock(&self.process).take() {
            process.signal(Signal::SIGTERM);
            process.wait(Duration::from_secs(3));
        }
    }
}

/// A box that runs weir. It is a [`Node`] too: its kernel can have addresses and send.
#[derive(Clone, Debug)]
pub struct WeirBox {
    node: Node,
    state: Arc<WeirState>,
}

impl Deref for WeirBox {
    type Target = Node;

    fn deref(&self) -> &Node {
        &self.node
    }
}

impl WeirBox {
    pub(crate) fn new(node: Node, state: Arc<WeirState>) -> Self {
        Self { node, state }
    }

    fn ready(&self) -> &Arc<WeirState> {
        self.node.lab().start();
        &self.state
    }

    /// Its counters now.
    #[track_caller]
    pub fn counters(&self) -> Counters {
        Counters::new(Arc::clone(self.ready()))
    }

    /// What `weir show WHAT --json` says: `ports`, `workers`, `routes`, `neighbours`, `tunnels`, `bridge`, …
    #[track_caller]
    pub fn show(&self, what: &str) -> Value {
        self.ready().show(what)
    }

    /// What `weir show WHAT` says to people.
    #[track_caller]
    pub fn show_text(&self, what: &str) -> String {
        self.ready().client(&["show", what]).unwrap_or_else(|e| panic!("weir show {what}: {e}"))
    }

    /// `weir apply` with a new configuration; fails if weir refuses it.
    #[track_caller]
    pub fn apply(&self, configuration: &str) {
        if let Err(error) = self.try_apply(configuration) {
            panic!("weir apply: {error}");
        }
    }

    /// `weir apply` with a new configuration; what weir said if it refused it.
    pub fn try_apply(&self, configuration: &str) -> Result<(), String> {
        let state = self.ready();
        let path = state.configuration.with_extension("apply.toml");
        std::fs::write(&path, configuration).expect("write a configuration");
        let path = path.display().to_string();
        state.client(&["apply", &path]).map(drop)
    }

    /// Rewrites the configuration file and sends SIGHUP; waits until every worker runs a newer generation.
    #[track_caller]
    pub fn reload(&self, configuration: &str) {
        let state = self.ready();
        let before = self.generation();
        state.write(configuration);
        if let Some(process) = lock(&state.process).as_ref() {
            process.signal(Signal::SIGHUP);
        }
        let picked_up = eventually(Duration::from_secs(5), || (self.generation() > before).then_some(()));
        assert!(picked_up.is_some(), "no new generation after SIGHUP; it stays at {before}");
    }

    /// The process's number.
    #[track_caller]
    pub fn pid(&self) -> u32 {
        lock(&self.ready().process).as_ref().map(Process::pid).expect("weir runs")
    }

    /// SIGHUP, with whatever the configuration file holds now.
    pub fn hang_up(&self, configuration: &str) {
        self.ready().write(configuration);
        if let Some(process) = lock(&self.state.process).as_ref() {
            process.signal(Signal::SIGHUP);
        }
    }

    /// The oldest generation that a worker runs.
    #[track_caller]
    pub fn generation(&self) -> u64 {
        let workers = self.show("workers");
        let list = workers.get("workers").and_then(Value::as_array);
        let generations = list.into_iter().flatten().filter_map(|worker| worker.get("generation")?.as_u64());
        generations.min().unwrap_or_else(|| panic!("no worker tells its generation: {workers}"))
    }

    /// SIGKILL: no chance to clean up.
    pub fn kill9(&self) {
        self.ready();
        if let Some(mut process) = lock(&self.state.process).take() {
            process.signal(Signal::SIGKILL);
            process.wait(STOP);
        }
    }

    /// SIGTERM; expects that it drains and ends with exit code 0.
    #[track_caller]
    pub fn terminate(&self) {
        self.ready();
        if let Some(mut process) = lock(&self.state.process).take() {
            process.signal(Signal::SIGTERM);
            process.wait(STOP).expect_code(0);
        }
    }

    /// Starts it again after [`WeirBox::kill9`] or [`WeirBox::terminate`].
    pub fn restart(&self) {
        self.state.start();
        self.state.await_ready();
    }

    /// Runs `weir run` in the foreground with this box's configuration, through `wrapper` (such as `setpriv …`), and waits for it
    /// to end by itself: for configurations and privileges that it must refuse.
    pub fn run_refused(&self, wrapper: &[&str]) -> Finished {
        let binary = weir_binary().display().to_string();
        let mut words = wrapper.iter().copied().chain([binary.as_str()]);
        let mut command = self.node.command(words.next().unwrap_or_default());
        command.args(words).arg("run").arg("--config").arg(&self.state.configuration);
        command.arg("--socket").arg(&self.state.socket);
        Process::start(&mut command, &self.state.log.with_extension("refused.log")).wait(START)
    }

    /// What it has logged.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.state.log).unwrap_or_default()
    }

    /// Where its control socket is.
    pub fn socket(&self) -> &Path {
        &self.state.socket
    }

    /// Where its configuration file is.
    pub fn configuration(&self) -> &Path {
        &self.state.configuration
    }

    /// Writes raw bytes to the control socket and returns what comes back within two seconds.
    pub fn say(&self, bytes: &[u8]) -> String {
        let mut stream = UnixStream::connect(&self.ready().socket).expect("connect to weir's socket");
        stream.set_read_timeout(Some(Duration::from_secs(2))).expect("set a timeout");
        stream.write_all(bytes).expect("write to weir's socket");
        let (mut answer, mut buffer) = (Vec::new(), [0; 4096]);
        while let Ok(n @ 1..) = stream.read(&mut buffer) {
            answer.extend_from_slice(&buffer[..n]);
        }
        String::from_utf8_lossy(&answer).into_owned()
    }

    /// Share of one core that the process used over `time`, in percent.
    pub fn cpu_percent(&self, time: Duration) -> f64 {
        let before = self.cpu_ticks();
        std::thread::sleep(time);
        let ticks = self.cpu_ticks() - before;
        // USER_HZ is 100 on every Linux that weir runs on.
        ticks as f64 / time.as_secs_f64()
    }

    fn cpu_ticks(&self) -> u64 {
        let pid = self.pid();
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("read /proc/PID/stat");
        // Fields 14 and 15, counted after the name, which may hold anything.
        let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
        fields.skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum()
    }
}
