//! weir as a service of a machine: what it tells systemd, what it may do, what the doctor says.

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used)] // A step that fails is a failed test.

mod doctor;
mod documents;
mod privileges;
mod supervised;
mod tracer;

use std::path::PathBuf;

/// A router between two networks.
pub(crate) const ROUTER: &str = r#"
[port.left]
device = "left"
mode = "dedicated"
addresses = ["10.1.0.1/24"]

[port.right]
device = "right"
mode = "dedicated"
addresses = ["10.2.0.1/24"]
"#;

/// The threads of a process: number and name.
pub(crate) fn threads(pid: u32) -> Vec<(i32, String)> {
    let entries = std::fs::read_dir(format!("/proc/{pid}/task")).expect("the process runs");
    let name =
        |tid: &str| std::fs::read_to_string(format!("/proc/{pid}/task/{tid}/comm")).unwrap_or_default();
    let numbers = entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned());
    numbers.map(|tid| (tid.parse().expect("a number"), name(&tid).trim_end().to_owned())).collect()
}

/// The first worker of a process.
pub(crate) fn worker(pid: u32) -> i32 {
    let all = threads(pid);
    all.iter().find(|(_, name)| name == "weir-worker-0").unwrap_or_else(|| panic!("no worker in {all:?}")).0
}

pub(crate) fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..")
}

pub(crate) fn read(name: &str) -> String {
    std::fs::read_to_string(root().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}
