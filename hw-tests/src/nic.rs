//! Network cards: interfaces of PCI functions, lent to a node of the lab.

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::eventually;
use crate::lab::lock;
use crate::namespace::run;
use crate::node::NodeState;

/// How long a driver may take to make an interface, and a link to come up.
const PATIENCE: Duration = Duration::from_secs(20);
const FUNCTIONS: &str = "/sys/bus/pci/devices";

/// A card as the lab keeps it.
#[derive(Debug)]
pub(crate) struct NicState {
    pci: String,
    node: Arc<NodeState>,
    interface: String,
    /// What it was called before the lab had it.
    before: Mutex<String>,
}

/// The interface of a PCI function in the namespace of this process, if there is one.
pub fn interface_of(pci: &str) -> Option<String> {
    let function = Path::new(FUNCTIONS).join(pci);
    let children = std::fs::read_dir(&function).ok()?.flatten().map(|entry| entry.path());
    // A virtio device stands between the function and its interface.
    let mut parents: Vec<PathBuf> = children
        .filter(|path| path.file_name().is_some_and(|n| n.to_string_lossy().starts_with("virtio")))
        .collect();
    parents.push(function);
    let first = |directory: PathBuf| std::fs::read_dir(directory.join("net")).ok()?.flatten().next();
    parents.into_iter().find_map(first).map(|entry| entry.file_name().to_string_lossy().into_owned())
}

/// The kernel driver that has a PCI function.
pub fn driver_of(pci: &str) -> Option<String> {
    let target = std::fs::read_link(Path::new(FUNCTIONS).join(pci).join("driver")).ok()?;
    Some(target.file_name()?.to_string_lossy().into_owned())
}

/// Writes a file of sysfs.
#[track_caller]
pub fn write_sysfs(path: &str, value: &str) {
    std::fs::write(path, value).unwrap_or_else(|e| panic!("{value} > {path}: {e}"));
}

impl NicState {
    #[track_caller]
    pub(crate) fn new(pci: &str, node: Arc<NodeState>, name: &str) -> Self {
        let state =
            Self { pci: pci.to_owned(), node, interface: name.to_owned(), before: Mutex::new(String::new()) };
        state.plug();
        state
    }

    /// Moves the interface into the node and configures it there.
    #[track_caller]
    fn plug(&self) {
        let found = eventually(PATIENCE, || interface_of(&self.pci));
        let before = found.unwrap_or_else(|| panic!("{} has no interface here", self.pci));
        let namespace = self.node.namespace().name();
        run(Command::new("ip").args(["link", "set", &before, "down"]));
        run(Command::new("ip").args(["link", "set", &before, "name", &self.interface, "netns", namespace]));
        *lock(&self.before) = before;
        self.node.plug_card(&self.interface);
    }

    /// Waits until it passes frames.
    pub(crate) fn await_carrier(&self) {
        let up = eventually(PATIENCE, || {
            let link = self.node.namespace().ip(&format!("link show {}", self.interface));
            link.contains("state UP").then_some(())
        });
        assert!(up.is_some(), "{self} has no carrier");
    }

    /// Gives the interface back under its old name, if it is there.
    pub(crate) fn unplug(&self) {
        let namespace = self.node.namespace().name();
        let ip = |arguments: &[&str]| {
            let mut command = Command::new("ip");
            command.args(["-n", namespace, "link", "set", &self.interface]).args(arguments);
            let _ = command.stderr(Stdio::null()).status();
        };
        ip(&["down"]);
        ip(&["name", &lock(&self.before), "netns", &std::process::id().to_string()]);
    }
}

impl fmt::Display for NicState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let driver = driver_of(&self.pci).unwrap_or_else(|| "no driver".to_owned());
        write!(f, "{} {} ── card {} ({driver})", self.node.describe(), self.interface, self.pci)
    }
}

/// A card of the lab.
#[derive(Clone, Debug)]
pub struct Nic {
    state: Arc<NicState>,
}

impl Nic {
    pub(crate) fn new(state: Arc<NicState>) -> Self {
        Self { state }
    }

    /// Takes the kernel's driver away from it: its interface is gone.
    pub fn unbind(&self) {
        write_sysfs(&format!("{FUNCTIONS}/{}/driver/unbind", self.state.pci), &self.state.pci);
    }

    /// Gives it back to its driver, and the interface that this makes to its node, as before.
    pub fn bind(&self) {
        write_sysfs("/sys/bus/pci/drivers_probe", &self.state.pci);
        self.state.plug();
    }

    /// Waits until it passes frames.
    pub fn await_carrier(&self) {
        self.state.await_carrier();
    }
}
