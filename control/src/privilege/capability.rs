//! Capabilities: capabilities(7). Those that opening a port needs stay, for a reload may open one; all others go.

use std::fs::File;
use std::io::{self, ErrorKind};
use std::path::Path;

use rustix::fs::{Access, AtFlags, CWD, accessat};
use rustix::thread::{self, CapabilitySet, CapabilitySets};
use tracing::warn;

/// Each capability that is kept if the process has it, with its name.
pub const KEPT: &[(CapabilitySet, &str)] = &[
    (CapabilitySet::NET_ADMIN, "CAP_NET_ADMIN"),
    (CapabilitySet::NET_RAW, "CAP_NET_RAW"),
    (CapabilitySet::IPC_LOCK, "CAP_IPC_LOCK"),
    (CapabilitySet::BPF, "CAP_BPF"),
    (CapabilitySet::PERFMON, "CAP_PERFMON"),
];
/// Stands in for CAP_BPF where that is missing: kernels before 5.8.
const INSTEAD_OF_BPF: (CapabilitySet, &str) = (CapabilitySet::SYS_ADMIN, "CAP_SYS_ADMIN");
/// For files that their owner keeps to himself.
const READ_ANY: (CapabilitySet, &str) = (CapabilitySet::DAC_READ_SEARCH, "CAP_DAC_READ_SEARCH");
const WRITE_ANY: (CapabilitySet, &str) = (CapabilitySet::DAC_OVERRIDE, "CAP_DAC_OVERRIDE");
/// The last capability that Linux could have: a mask of 64.
const LAST: u32 = 63;

/// Gives up all capabilities but those of [`KEPT`] and what the process's own files need; returns those that are left.
pub(super) fn reduce(config: Option<&Path>, socket: &Path) -> io::Result<CapabilitySet> {
    let have = thread::capabilities(None)?.permitted;
    let mut keep = wanted(have);
    // Tried out with the effective set alone, which can be raised again.
    set(keep, have)?;
    if config.is_some_and(|path| denied(File::open(path).map(drop))) && have.contains(READ_ANY.0) {
        warn!("CAP_DAC_READ_SEARCH is kept: the configuration's owner lets nobody else read it");
        keep |= READ_ANY.0;
    }
    if denied(writable(socket)) && have.contains(WRITE_ANY.0) {
        warn!("CAP_DAC_OVERRIDE is kept: the owner of the socket's directory lets nobody else write there");
        keep |= WRITE_ANY.0;
    }
    shrink_bounding_set(keep, have)?;
    set(keep, keep)?;
    Ok(keep)
}

/// Gives up every capability of the calling thread.
pub(super) fn renounce() -> io::Result<()> {
    set(CapabilitySet::empty(), CapabilitySet::empty())
}

/// The names of a set.
pub(super) fn list(set: CapabilitySet) -> String {
    let all = KEPT.iter().chain([&INSTEAD_OF_BPF, &READ_ANY, &WRITE_ANY]);
    let names: Vec<_> =
        all.filter(|(capability, _)| set.contains(*capability)).map(|(_, name)| *name).collect();
    if names.is_empty() { "no capability".to_owned() } else { names.join(" ") }
}

fn wanted(have: CapabilitySet) -> CapabilitySet {
    let all = KEPT.iter().fold(CapabilitySet::empty(), |all, (capability, _)| all | *capability);
    let keep = have & all;
    if keep.contains(CapabilitySet::BPF) { keep } else { keep | (have & INSTEAD_OF_BPF.0) }
}

/// The inheritable set, and with it the ambient one, becomes empty: weir starts no program.
fn set(effective: CapabilitySet, permitted: CapabilitySet) -> io::Result<()> {
    let sets = CapabilitySets { effective, permitted, inheritable: CapabilitySet::empty() };
    Ok(thread::set_capabilities(None, sets)?)
}

/// Out of the bounding set goes what is not kept. Without CAP_SETPCAP it cannot be changed: no_new_privs holds all the same.
fn shrink_bounding_set(keep: CapabilitySet, have: CapabilitySet) -> io::Result<()> {
    if !have.contains(CapabilitySet::SETPCAP) {
        return Ok(());
    }
    set(keep | CapabilitySet::SETPCAP, have)?;
    let all = (0..=LAST).map(|bit| CapabilitySet::from_bits_retain(1 << bit));
    for capability in all.filter(|capability| !keep.contains(*capability)) {
        match thread::remove_capability_from_bounding_set(capability) {
            // Beyond the last one that this kernel knows.
            Err(rustix::io::Errno::INVAL) => break,
            other => other?,
        }
    }
    Ok(())
}

fn denied(result: io::Result<()>) -> bool {
    result.is_err_and(|error| error.kind() == ErrorKind::PermissionDenied)
}

/// Whether the socket's file can be made, and removed: in its directory, or in the nearest one that exists.
fn writable(socket: &Path) -> io::Result<()> {
    let socket = std::path::absolute(socket)?;
    for directory in socket.ancestors().skip(1) {
        match accessat(CWD, directory, Access::WRITE_OK | Access::EXEC_OK, AtFlags::EACCESS) {
            Err(rustix::io::Errno::NOENT) => {}
            other => return Ok(other?),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_ports_need_is_kept_and_sys_admin_only_in_place_of_bpf() {
        let all = CapabilitySet::from_bits_retain((1 << 41) - 1);
        assert_eq!(list(wanted(all)), "CAP_NET_ADMIN CAP_NET_RAW CAP_IPC_LOCK CAP_BPF CAP_PERFMON");
        let old = all - CapabilitySet::BPF - CapabilitySet::PERFMON;
        assert_eq!(list(wanted(old)), "CAP_NET_ADMIN CAP_NET_RAW CAP_IPC_LOCK CAP_SYS_ADMIN");
        assert_eq!(list(wanted(CapabilitySet::CHOWN)), "no capability");
    }
}
