//! Network namespaces without a name, that are gone when the process is, however it ends; devices in them; commands in them.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;

use nix::sched::{CloneFlags, unshare};

type Work = Box<dyn FnOnce() + Send>;

/// A network namespace and a thread in it. Processes that it starts are in there too.
pub(crate) struct Namespace {
    work: Option<Sender<Work>>,
    thread: Option<JoinHandle<()>>,
    path: PathBuf,
}

impl Namespace {
    /// Moves the calling thread into a new one, and stands for it: whatever that thread starts from now on is in there.
    pub(crate) fn here() -> Result<Self, String> {
        unshare(CloneFlags::CLONE_NEWNET).map_err(refused)?;
        let namespace = Self { work: None, thread: None, path: path_of(nix::unistd::gettid()) };
        namespace.quiet()?;
        Ok(namespace)
    }

    /// Makes one with a thread of its own.
    pub(crate) fn new() -> Result<Self, String> {
        let (work, todo) = channel::<Work>();
        let (tell, told) = channel();
        let thread = std::thread::spawn(move || {
            let made = unshare(CloneFlags::CLONE_NEWNET).map(|()| nix::unistd::gettid());
            let failed = made.is_err();
            let _ = tell.send(made);
            if !failed {
                todo.iter().for_each(|work| work());
            }
        });
        let id = told.recv().map_err(|error| error.to_string())?;
        let path = path_of(id.map_err(refused)?);
        let namespace = Self { work: Some(work), thread: Some(thread), path };
        namespace.quiet()?;
        Ok(namespace)
    }

    /// Loopback up, and nothing is sent that was not asked for.
    fn quiet(&self) -> Result<(), String> {
        self.ip("link set lo up")?;
        for key in ["accept_dad", "accept_ra", "router_solicitations"] {
            // A kernel without IPv6 sends none anyhow.
            let _ = self.sysctl(&format!("ipv6/conf/default/{key}"), "0");
        }
        Ok(())
    }

    /// Does `work` inside and returns what it returns.
    pub(crate) fn inside<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, String> + Send + 'static,
    ) -> Result<T, String> {
        let Some(thread) = &self.work else { return work() };
        let (tell, told) = channel();
        let work: Work = Box::new(move || {
            let _ = tell.send(work());
        });
        let gone = || "the network namespace's thread has ended".to_owned();
        thread.send(work).map_err(|_| gone())?;
        told.recv().map_err(|_| gone())?
    }

    /// `ip ARGUMENTS` inside.
    pub(crate) fn ip(&self, arguments: &str) -> Result<(), String> {
        let arguments = arguments.to_owned();
        self.inside(move || run(Command::new("ip").args(arguments.split_whitespace())).map(drop))
    }

    /// Runs a command inside, to its end.
    pub(crate) fn run(&self, mut command: Command) -> Result<String, String> {
        self.inside(move || run(&mut command))
    }

    /// Writes /proc/sys/net/KEY inside.
    pub(crate) fn sysctl(&self, key: &str, value: &str) -> Result<(), String> {
        let (path, value) = (format!("/proc/sys/net/{key}"), value.to_owned());
        self.inside(move || std::fs::write(&path, value).map_err(|error| format!("{path}: {error}")))
    }

    /// Starts a command inside that dies with this process.
    pub(crate) fn spawn(&self, command: &Command, log: PathBuf) -> Result<Child, String> {
        let program = command.get_program().to_owned();
        let mut wrapped = Command::new("setpriv");
        wrapped.args(["--pdeathsig", "KILL", "--"]).arg(&program).args(command.get_args());
        self.inside(move || {
            let log = std::fs::File::create(&log).map_err(|e| format!("{}: {e}", log.display()))?;
            let both = log.try_clone().map_err(|error| error.to_string())?;
            let child = wrapped.stdin(Stdio::null()).stdout(log).stderr(both).spawn();
            child.map_err(|error| format!("cannot run {}: {error}", Path::new(&program).display()))
        })
    }

    /// A wire: a veth pair with one queue, `here` in this namespace and `there` in the other, both up, checksums as on a real one.
    pub(crate) fn wire(&self, here: &str, other: &Self, there: &str) -> Result<(), String> {
        let queues = "numrxqueues 1 numtxqueues 1";
        let netns = other.path.display();
        self.ip(&format!("link add {here} {queues} type veth peer name {there} netns {netns} {queues}"))?;
        let ends = [(self, here), (other, there)];
        for (namespace, device) in ends {
            namespace.ip(&format!("link set {device} up"))?;
        }
        for (namespace, device) in ends {
            // Receive offload switches the device's polling on, without which it takes no frames that are redirected to it. It must be
            // up by then.
            let mut ethtool = Command::new("ethtool");
            ethtool.args(["-K", device, "tx", "off", "gro", "on"]);
            namespace.run(ethtool)?;
        }
        Ok(())
    }
}

fn refused(error: nix::Error) -> String {
    format!("cannot make a network namespace: {error}; this needs root")
}

fn path_of(thread: nix::unistd::Pid) -> PathBuf {
    format!("/proc/{}/task/{thread}/ns/net", std::process::id()).into()
}

impl Drop for Namespace {
    fn drop(&mut self) {
        self.work = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Runs a command to its end; what it printed, or what went wrong.
pub(crate) fn run(command: &mut Command) -> Result<String, String> {
    let name = format!("{command:?}").replace('"', "");
    let output =
        command.stdin(Stdio::null()).output().map_err(|error| format!("cannot run {name}: {error}"))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    Err(format!("{name}: {}: {}", output.status, String::from_utf8_lossy(&output.stderr).trim()))
}

/// Index of a device in the calling thread's namespace.
pub(crate) fn ifindex(device: &str) -> Result<u32, String> {
    nix::net::if_::if_nametoindex(device).map_err(|_| format!("there is no device {device}"))
}

/// Kernel driver of a device in the calling thread's namespace; empty if that cannot be told.
pub(crate) fn driver(device: &str) -> String {
    let output = run(Command::new("ethtool").args(["-i", device])).unwrap_or_default();
    output.lines().find_map(|line| line.strip_prefix("driver: ")).unwrap_or_default().to_owned()
}
