//! Child processes: where the weir binary is, output to files, signals, a bounded wait.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::eventually;

/// The weir binary: `WEIR_BIN`, else `weir` in the target directory that this test was built into.
pub fn weir_binary() -> PathBuf {
    if let Some(path) = std::env::var_os("WEIR_BIN") {
        return path.into();
    }
    let here = std::env::current_exe().expect("path of this program");
    let found =
        here.ancestors().skip(1).take(2).map(|directory| directory.join("weir")).find(|p| p.is_file());
    found.unwrap_or_else(|| {
        panic!("no weir binary beside {}: run `cargo build` first, or set WEIR_BIN", here.display())
    })
}

/// What became of a command that was waited for.
#[derive(Clone, Debug)]
pub struct Finished {
    /// Its exit code; `None` if a signal ended it.
    pub code: Option<i32>,
    /// What it wrote to both outputs.
    pub output: String,
}

impl Finished {
    /// Expects this exit code.
    #[track_caller]
    pub fn expect_code(&self, code: i32) -> &Self {
        assert_eq!(self.code, Some(code), "unexpected exit; it said:\n{}", self.output);
        self
    }

    /// Expects that it failed by itself: an exit code that is not 0, and no signal.
    #[track_caller]
    pub fn expect_failure(&self) -> &Self {
        assert!(
            matches!(self.code, Some(1..=99)),
            "expected an orderly failure, got {:?}:\n{}",
            self.code,
            self.output
        );
        self
    }

    /// Expects that its output holds `text`.
    #[track_caller]
    pub fn expect_text(&self, text: &str) -> &Self {
        assert!(self.output.contains(text), "expected {text:?} in:\n{}", self.output);
        self
    }
}

/// A child with its outputs in one file. Killed on drop.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts `command`, appending both outputs to `log`.
    pub(crate) fn start(command: &mut Command, log: &Path) -> Self {
        let file = File::options().create(true).append(true).open(log).expect("open a log file");
        let both = file.try_clone().expect("share a log file");
        let child = command.stdout(file).stderr(both).spawn();
        let child = child.unwrap_or_else(|e| panic!("cannot run {command:?}: {e}"));
        Self { child, log: log.to_owned() }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn output(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    pub(crate) fn exited(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let _ = kill(Pid::from_raw(self.pid() as i32), signal);
    }

    /// Waits for its end; past `patience` it is killed, and the result has no code.
    pub(crate) fn wait(&mut self, patience: Duration) -> Finished {
        let status = eventually(patience, || self.exited());
        if status.is_none() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
        Finished { code: status.and_then(|s| s.code()), output: self.output() }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
