//! Watches the configuration file and reloads when it was replaced: by an editor, by `mv`, or by the kubelet, which swaps the
//! link `..data` in the directory of a ConfigMap.
//!
//! The directory is watched and not the file (inotify(7)), for a file that is replaced is another file.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify, InotifyEvent};
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::time::sleep;
use tracing::{error, info, warn};

use super::manager::Manager;
use super::{blocking, reload};
use crate::configuration;

/// The link that the kubelet swaps.
const DATA: &str = "..data";
/// How long events may trickle in before the file is read: a swap is several.
const SETTLING: Duration = Duration::from_millis(100);
/// How often a directory that went away is looked for.
const AGAIN: Duration = Duration::from_secs(1);

/// What metrics tell of the file.
#[derive(Debug)]
pub(crate) struct Watched {
    watching: AtomicBool,
    current: AtomicBool,
}

impl Default for Watched {
    fn default() -> Self {
        Self { watching: AtomicBool::new(false), current: AtomicBool::new(true) }
    }
}

impl Watched {
    /// Whether a change of the file will be noticed.
    pub(crate) fn is_watching(&self) -> bool {
        self.watching.load(Ordering::Relaxed)
    }

    /// Whether the source's last content could be put in force.
    pub(crate) fn is_current(&self) -> bool {
        self.current.load(Ordering::Relaxed)
    }

    pub(crate) fn set_current(&self, current: bool) {
        self.current.store(current, Ordering::Relaxed);
    }
}

/// A file that is watched.
pub(super) struct Watch {
    path: PathBuf,
    directory: PathBuf,
    /// What happens in the directory; absent if watching could not begin.
    events: Option<Receiver<InotifyEvent>>,
    /// What it said when it was read last.
    last: Option<String>,
}

impl Watch {
    /// Begins to watch: what happens to the file from now on will be noticed by [`run`](Self::run). `None` if nothing ever
    /// can happen to it.
    pub(super) fn begin(path: PathBuf) -> Option<Self> {
        if is_mounted_alone(&path) {
            warn!(
                "{} is mounted by itself, as a `subPath` mount is: it never changes, and is not watched; mount the \
                 ConfigMap as a directory instead",
                path.display()
            );
            return None;
        }
        let directory = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
            _ => PathBuf::from("."),
        };
        let events = open(&directory);
        Some(Self { path, directory, events, last: None })
    }

    /// Reloads whenever the file was replaced, until the daemon goes.
    pub(super) async fn run(mut self, manager: Arc<Manager>) {
        loop {
            if let Some(events) = self.events.take() {
                manager.watched.watching.store(true, Ordering::Relaxed);
                info!("{} is watched: it is loaded again when it is replaced", self.path.display());
                self.follow(&manager, events).await;
                manager.watched.watching.store(false, Ordering::Relaxed);
                warn!("{} went away: it is watched again when it is back", self.directory.display());
            }
            while !self.directory.is_dir() {
                sleep(AGAIN).await;
            }
            self.events = open(&self.directory);
            if self.events.is_none() {
                sleep(AGAIN).await;
                continue;
            }
            self.reload_if_changed(&manager).await;
        }
    }

    /// Reloads whenever the file was replaced, until the directory goes.
    async fn follow(&mut self, manager: &Arc<Manager>, mut events: Receiver<InotifyEvent>) {
        while let Some(event) = events.recv().await {
            if !is_replacement(&event, &self.path) {
                continue;
            }
            sleep(SETTLING).await;
            while events.try_recv().is_ok() {}
            self.reload_if_changed(manager).await;
        }
    }

    /// Reloads, unless the file says what it said before.
    async fn reload_if_changed(&mut self, manager: &Arc<Manager>) {
        let now = text(&self.path).await;
        if now.is_none() {
            error!(
                "{} cannot be read; generation {} goes on",
                self.path.display(),
                manager.engine.generation()
            );
            manager.watched.set_current(false);
        } else if now != self.last && !manager.is_draining() && !manager.is_stopping() {
            info!("{} was replaced", self.path.display());
            reload(manager.clone()).await;
        }
        self.last = now;
    }
}

/// Watches a directory on a thread of its own, which waits in read(2); says so if that cannot be. What comes out ends when the
/// directory goes.
fn open(directory: &Path) -> Option<Receiver<InotifyEvent>> {
    let events = AddWatchFlags::IN_CREATE
        | AddWatchFlags::IN_MOVED_TO
        | AddWatchFlags::IN_CLOSE_WRITE
        | AddWatchFlags::IN_DELETE_SELF
        | AddWatchFlags::IN_MOVE_SELF
        | AddWatchFlags::IN_ONLYDIR;
    let opened = (|| {
        let inotify = Inotify::init(InitFlags::IN_CLOEXEC)?;
        inotify.add_watch(directory, events)?;
        let (sender, receiver) = channel(64);
        std::thread::Builder::new().name("weir-watch".into()).spawn(move || read(&inotify, &sender))?;
        Ok(receiver)
    })();
    opened.inspect_err(|error: &io::Error| warn!("{} cannot be watched: {error}", directory.display())).ok()
}

fn read(inotify: &Inotify, sender: &Sender<InotifyEvent>) {
    let gone = AddWatchFlags::IN_DELETE_SELF | AddWatchFlags::IN_MOVE_SELF | AddWatchFlags::IN_IGNORED;
    loop {
        let events = match inotify.read_events() {
            Ok(events) => events,
            Err(Errno::EINTR) => continue,
            Err(_) => return,
        };
        for event in events {
            if event.mask.intersects(gone) || sender.blocking_send(event).is_err() {
                return;
            }
        }
    }
}

/// Whether an event says that the file has its new content now. A file that is created to be written is not yet whole; a link
/// is.
fn is_replacement(event: &InotifyEvent, path: &Path) -> bool {
    if event.mask.contains(AddWatchFlags::IN_Q_OVERFLOW) {
        return true;
    }
    let name = event.name.as_deref();
    let made = AddWatchFlags::IN_CREATE | AddWatchFlags::IN_MOVED_TO;
    if name == Some(OsStr::new(DATA)) {
        return event.mask.intersects(made);
    }
    if name.is_none() || name != path.file_name() {
        return false;
    }
    event.mask.intersects(AddWatchFlags::IN_MOVED_TO | AddWatchFlags::IN_CLOSE_WRITE) || path.is_symlink()
}

async fn text(path: &Path) -> Option<String> {
    let path = path.to_owned();
    blocking(move || configuration::read(&path).ok()).await
}

/// Whether the file is itself a mount point, as a `subPath` mount of Kubernetes is: what is mounted there stays, whatever
/// becomes of the ConfigMap.
fn is_mounted_alone(path: &Path) -> bool {
    let Ok(path) = std::fs::canonicalize(path) else { return false };
    let mounts = std::fs::read("/proc/self/mountinfo").unwrap_or_default();
    mount_points(&mounts).any(|mount| mount == path)
}

/// The mount points in /proc/self/mountinfo (proc(5)): the fifth word of each line, with white space as octal numbers.
fn mount_points(mountinfo: &[u8]) -> impl Iterator<Item = PathBuf> + '_ {
    mountinfo.split(|&byte| byte == b'\n').filter_map(|line| {
        let word = line.split(|&byte| byte == b' ').nth(4)?;
        Some(PathBuf::from(std::ffi::OsString::from_vec(unescape(word))))
    })
}

fn unescape(word: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(word.len());
    let mut rest = word;
    while let [first, more @ ..] = rest {
        let octal = more
            .get(..3)
            .filter(|_| *first == b'\\')
            .and_then(|digits| u8::from_str_radix(OsStr::from_bytes(digits).to_str()?, 8).ok());
        out.push(octal.unwrap_or(*first));
        rest = more.get(if octal.is_some() { 3 } else { 0 }..).unwrap_or_default();
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mount_points_are_read_with_their_spaces() {
        let text = b"36 35 98:0 /m1 /etc/weir/weir.toml rw,noatime master:1 - ext3 /dev/root rw\n\
                     37 35 0:5 / /a\\040b\\134c rw - tmpfs none rw\n";
        let points: Vec<PathBuf> = mount_points(text).collect();
        assert_eq!(points, [PathBuf::from("/etc/weir/weir.toml"), PathBuf::from("/a b\\c")]);
    }

    #[test]
    fn the_root_is_a_mount_point_and_a_file_in_a_directory_is_none() {
        assert!(is_mounted_alone(Path::new("/")));
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("weir.toml");
        std::fs::write(&path, "").unwrap();
        assert!(!is_mounted_alone(&path));
        assert!(!is_mounted_alone(&directory.path().join("missing")));
    }
}
