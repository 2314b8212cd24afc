//! Network namespaces: made, entered by threads, swept when their owner died.

use std::fs::File;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::JoinHandle;

use nix::sched::{CloneFlags, setns};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

const DIRECTORY: &str = "/run/netns";
const PREFIX: &str = "weirlab-";
static NEXT: AtomicU32 = AtomicU32::new(0);

/// A network namespace, deleted on drop.
#[derive(Debug)]
pub(crate) struct Namespace {
    name: String,
}

impl Namespace {
    /// Makes one with a name that no other process and no other lab uses, loopback up and IPv6 quiet.
    pub(crate) fn new() -> Self {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("{PREFIX}{}-{number}", std::process::id());
        let namespace = Self { name };
        run(Command::new("ip").args(["netns", "add", &namespace.name]));
        namespace.ip("link set lo up");
        // Addresses are usable at once, and nothing is sent that a test did not ask for.
        for (key, value) in [("accept_dad", "0"), ("accept_ra", "0"), ("router_solicitations", "0")] {
            namespace.sysctl(&format!("net/ipv6/conf/all/{key}"), value);
            namespace.sysctl(&format!("net/ipv6/conf/default/{key}"), value);
        }
        namespace
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// A command that will run inside.
    pub(crate) fn command(&self, program: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name, program]).stdin(Stdio::null());
        command
    }

    /// Runs `ip ARGUMENTS` inside; fails if it fails.
    #[track_caller]
    pub(crate) fn ip(&self, arguments: &str) -> String {
        run(Command::new("ip").args(["-n", &self.name]).args(arguments.split_whitespace()))
    }

    /// Writes `/proc/sys/KEY`.
    pub(crate) fn sysctl(&self, key: &str, value: &str) {
        let (path, value) = (format!("/proc/sys/{key}"), value.to_owned());
        let written = self.inside(move || std::fs::write(&path, value).map_err(|e| format!("{path}: {e}")));
        if let Err(error) = written {
            panic!("{error}");
        }
    }

    /// Runs `work` on a thread of its own inside and waits for its result.
    pub(crate) fn inside<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        match self.spawn(work).join() {
            Ok(value) => value,
            Err(cause) => std::panic::resume_unwind(cause),
        }
    }

    /// Runs `work` on a thread of its own inside. Sockets that it opens stay in the namespace.
    pub(crate) fn spawn<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> JoinHandle<T> {
        let path = Path::new(DIRECTORY).join(&self.name);
        std::thread::spawn(move || {
            let file = File::open(&path).unwrap_or_else(|e| panic!("cannot open {}: {e}", path.display()));
            setns(file, CloneFlags::CLONE_NEWNET).expect("enter a network namespace");
            work()
        })
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        delete(&self.name);
    }
}

/// Deletes the namespaces of labs whose process is gone, and what still runs inside them.
pub(crate) fn sweep() {
    let Ok(entries) = std::fs::read_dir(DIRECTORY) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let owner = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').next());
        if let Some(owner) = owner.filter(|pid| !Path::new("/proc").join(pid).exists()) {
            eprintln!("sweeping {name}: its process {owner} is gone");
            delete(&name);
        }
    }
}

fn delete(name: &str) {
    if let Ok(output) = Command::new("ip").args(["netns", "pids", name]).output() {
        for pid in String::from_utf8_lossy(&output.stdout).lines().filter_map(|line| line.trim().parse().ok())
        {
            // The test process itself may still have a thread inside: it ends by itself.
            if pid != std::process::id() as i32 {
                let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
            }
        }
    }
    let _ = Command::new("ip").args(["netns", "del", name]).stderr(Stdio::null()).status();
}

/// Runs a command and returns what it printed; fails with its error output if it fails.
#[track_caller]
pub(crate) fn run(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|e| panic!("cannot run {command:?}: {e}"));
    assert!(
        output.status.success(),
        "{command:?} failed ({}): {}",
        output.status,
        String::from_utf8_lossy(&output.stderr).trim()
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}
