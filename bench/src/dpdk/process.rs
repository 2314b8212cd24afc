//! A program under test: it ends with this value, and what it said can be told.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::common::clock;

/// How long a program may take to start.
const START: Duration = Duration::from_secs(30);

/// A running program.
pub(super) struct Program {
    pub(super) child: Child,
    log: PathBuf,
}

impl Program {
    /// Starts it; what it says goes to `log`.
    ///
    /// # Errors
    /// When it cannot be started.
    pub(super) fn start(command: &mut Command, log: PathBuf) -> Result<Self, String> {
        let name = command.get_program().to_string_lossy().into_owned();
        let file = File::create(&log).map_err(|error| format!("cannot write {}: {error}", log.display()))?;
        let copy = file.try_clone().map_err(|error| error.to_string())?;
        let child = command.stdin(Stdio::piped()).stdout(file).stderr(copy).spawn();
        let child = child.map_err(|error| format!("cannot start {name}: {error}"))?;
        Ok(Self { child, log })
    }

    /// What it has said so far.
    pub(super) fn said(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// The last lines of what it has said.
    pub(super) fn last_words(&self) -> String {
        let said = self.said();
        let lines: Vec<_> = said.lines().collect();
        lines.get(lines.len().saturating_sub(20)..).unwrap_or_default().join(" / ")
    }

    /// Gives it a line.
    ///
    /// # Errors
    /// When it does not listen.
    pub(super) fn tell(&mut self, line: &str) -> Result<(), String> {
        let input = self.child.stdin.as_mut().ok_or("it has no standard input")?;
        writeln!(input, "{line}").and_then(|()| input.flush()).map_err(|error| error.to_string())
    }

    /// Waits until `ready`.
    ///
    /// # Errors
    /// When it ends or takes too long: its last words.
    pub(super) fn until(&mut self, ready: impl Fn(&str) -> bool) -> Result<(), String> {
        let end = Instant::now() + START;
        loop {
            let said = self.said();
            if ready(&said) {
                return Ok(());
            }
            let ended = !matches!(self.child.try_wait(), Ok(None));
            if ended || Instant::now() > end {
                let last = self.last_words();
                let how = if ended { "ended" } else { "did not start" };
                return Err(format!("{}: {how}; it said: {last}", self.log.display()));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let id = i32::try_from(self.child.id()).unwrap_or(0);
        let asked = id > 0 && kill(Pid::from_raw(id), Signal::SIGTERM).is_ok();
        let end = Instant::now() + Duration::from_secs(5);
        while asked && Instant::now() < end {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Cycles for each thing that `count` counts, over `time`.
///
/// # Errors
/// What `count` says, or that nothing was counted.
pub(super) fn cycles(time: Duration, mut count: impl FnMut() -> Result<u64, String>) -> Result<f64, String> {
    let (from, started) = (count()?, Instant::now());
    std::thread::sleep(time);
    let (to, took) = (count()?, started.elapsed());
    match to.saturating_sub(from) {
        0 => Err("nothing was forwarded".to_owned()),
        packets => Ok(took.as_nanos() as f64 * clock::ticks_per_ns() / packets as f64),
    }
}

/// A file of the run.
pub(super) fn file(folder: &Path, name: &str) -> PathBuf {
    folder.join(name)
}
