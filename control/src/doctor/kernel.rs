//! The kernel, what it was built with, and what this process may do.

use rustix::net::{AddressFamily, SocketType, socket};
use rustix::thread::CapabilitySet;

use super::{Findings, Level};
use crate::privilege::KEPT;
use crate::system::System;

/// The oldest kernel that weir's XDP program runs on.
const OLDEST: (u32, u32) = (5, 15);
/// The first kernel with netdev-genl's `xdp-features`.
const TELLS_FEATURES: (u32, u32) = (6, 3);

pub(super) fn examine(system: &System, findings: &mut Findings) {
    version(system, findings);
    bpf(system, findings);
    if system.is_this() {
        sockets(findings);
        capabilities(findings);
    }
    let jit = system.value::<u32>("/proc/sys/net/core/bpf_jit_enable");
    if jit == Some(0) {
        findings.add_with(
            "kernel",
            Level::Warning,
            "net.core.bpf_jit_enable is 0: weir's XDP program is interpreted for every packet",
            vec!["sysctl -w net.core.bpf_jit_enable=1".into()],
        );
    }
}

fn version(system: &System, findings: &mut Findings) {
    let release = system.text("/proc/sys/kernel/osrelease").unwrap_or_default();
    let mut parts = release.split(['.', '-']).map(|part| part.parse().unwrap_or(0));
    let version = (parts.next().unwrap_or(0), parts.next().unwrap_or(0));
    let (level, text) = if version < OLDEST {
        let (major, minor) = OLDEST;
        (Level::Problem, format!("Linux {release}: weir needs {major}.{minor} or newer"))
    } else if version < TELLS_FEATURES {
        (Level::Note, format!("Linux {release}: it does not tell which XDP modes a driver offers (6.3 does)"))
    } else {
        (Level::Good, format!("Linux {release}"))
    };
    findings.add("kernel", level, text);
}

fn bpf(system: &System, findings: &mut Findings) {
    // The file is there if and only if the kernel was built with the bpf system call.
    if system.has("/proc/sys/kernel/unprivileged_bpf_disabled") {
        findings.add("kernel", Level::Good, "BPF programs can be loaded (CONFIG_BPF_SYSCALL)");
    } else {
        findings.add(
            "kernel",
            Level::Problem,
            "no BPF: the kernel was built without CONFIG_BPF_SYSCALL, and weir needs an XDP program",
        );
    }
}

fn sockets(findings: &mut Findings) {
    let family = AddressFamily::from_raw(u16::try_from(libc::AF_XDP).unwrap_or_default());
    match socket(family, SocketType::RAW, None) {
        Ok(_) => findings.add("kernel", Level::Good, "AF_XDP sockets can be made"),
        Err(rustix::io::Errno::AFNOSUPPORT) => findings.add(
            "kernel",
            Level::Problem,
            "no AF_XDP: the kernel was built without CONFIG_XDP_SOCKETS, or a seccomp filter or RestrictAddressFamilies= forbids it",
        ),
        Err(error) => findings.add("kernel", Level::Warning, format!("an AF_XDP socket cannot be made: {error}")),
    }
}

fn capabilities(findings: &mut Findings) {
    let about = "capabilities";
    let Ok(have) = rustix::thread::capabilities(None).map(|sets| sets.effective) else { return };
    let mut missing: Vec<&str> =
        KEPT.iter().filter(|(capability, _)| !have.contains(*capability)).map(|(_, name)| *name).collect();
    if have.contains(CapabilitySet::SYS_ADMIN) {
        missing.retain(|name| *name != "CAP_BPF");
    }
    if missing.is_empty() {
        findings.add(about, Level::Good, "this process has all that weir needs");
        return;
    }
    let only_lock = missing == ["CAP_IPC_LOCK"];
    findings.add_with(
        about,
        if only_lock { Level::Warning } else { Level::Problem },
        format!(
            "started from here, weir would miss {}; the systemd unit grants them, whoever asks the doctor",
            missing.join(", ")
        ),
        vec!["sudo weir doctor".into()],
    );
}
