//! What can go wrong with an AF_XDP port, in words for the operator.

use std::fmt::Write as _;
use std::io;

use super::steering::Entry;

/// Why a device cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// There is no such device in this network namespace.
    #[error("there is no network device `{device}` in this network namespace; `ip link` lists them")]
    NoDevice {
        /// The name asked for.
        device: String,
    },
    /// The process lacks privileges.
    #[error("port on `{device}`: cannot {action}: missing {}; grant it, or run as root", missing.join(" and "))]
    Capability {
        /// The device.
        device: String,
        /// What needs the privilege.
        action: &'static str,
        /// The capabilities that are missing; CAP_BPF can stand in for CAP_SYS_ADMIN.
        missing: Vec<&'static str>,
    },
    /// The device's packets do not fit a frame.
    #[error(
        "device `{device}` has an MTU of {mtu}, but a frame of {frame_size} bytes holds an MTU of at most {limit}; {}",
        remedy(*mtu, *frame_size, *limit, device)
    )]
    Mtu {
        /// The device.
        device: String,
        /// Its MTU in bytes.
        mtu: u32,
        /// The largest MTU whose frames fit, in bytes.
        limit: u32,
        /// memory.frame-size in bytes.
        frame_size: u16,
    },
    /// Chunks that the kernel takes on huge pages only.
    #[error(
        "device `{device}`: AF_XDP takes frames of {frame_size} bytes on huge pages only; set memory.huge-pages = \"require\" (Linux 6.4 and newer), or memory.frame-size = 4096"
    )]
    FrameSize {
        /// The device.
        device: String,
        /// memory.frame-size in bytes.
        frame_size: u16,
    },
    /// The frame pool cannot fill the receive rings.
    #[error(
        "device `{device}`: its {queues} queues need {needed} frames and {available} are free; raise memory.frames"
    )]
    Frames {
        /// The device.
        device: String,
        /// Its receive queues.
        queues: u32,
        /// Frames that the fill rings hold.
        needed: u32,
        /// Free frames.
        available: u32,
    },
    /// The kernel takes no XDP program or binds no socket in any mode that was allowed.
    #[error("device `{device}` cannot be opened for AF_XDP: {}", refused.join("; "))]
    Refused {
        /// The device.
        device: String,
        /// What was said to each attempt.
        refused: Vec<String>,
    },
    /// The XDP program cannot be loaded.
    #[error("weir's XDP program cannot be loaded: {reason}")]
    Program {
        /// What libbpf or the verifier said.
        reason: String,
    },
    /// The XDP program is another's, and its map of sockets cannot be had.
    #[error("device `{device}`: {reason}")]
    Foreign {
        /// The device.
        device: String,
        /// What the device plugin or the kernel said.
        reason: String,
    },
    /// Anything else that the kernel refused.
    #[error("device `{device}`: cannot {action}: {source}")]
    Io {
        /// The device.
        device: String,
        /// What was tried.
        action: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
}

/// Why steering could not be changed. What was applied before stays applied.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} {entry} on device `{device}`: {reason}")]
pub struct SteerError {
    pub(super) device: String,
    pub(super) action: &'static str,
    pub(super) entry: Entry,
    pub(super) reason: String,
}

fn remedy(mtu: u32, frame_size: u16, limit: u32, device: &str) -> String {
    let larger = super::port::largest_mtu(4096);
    let mut text = String::new();
    if frame_size < 4096 && mtu <= larger {
        let _ = write!(text, "set memory.frame-size = 4096 (up to {larger}) or ");
    }
    let _ = write!(text, "lower the MTU: `ip link set {device} mtu {limit}`");
    text
}

/// A privilege that AF_XDP ports need: its number in capabilities(7), its name.
pub(super) type Capability = (u32, &'static str);

pub(super) const NET_ADMIN: Capability = (12, "CAP_NET_ADMIN");
pub(super) const NET_RAW: Capability = (13, "CAP_NET_RAW");
const IPC_LOCK: Capability = (14, "CAP_IPC_LOCK");
const SYS_ADMIN: Capability = (21, "CAP_SYS_ADMIN");
const BPF: Capability = (39, "CAP_BPF");

/// The effective capabilities of this process; every one where the kernel does not say.
fn effective() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    effective_in(&status).unwrap_or(u64::MAX)
}

fn effective_in(status: &str) -> Option<u64> {
    let text = status.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
    u64::from_str_radix(text.trim(), 16).ok()
}

/// Which of the capabilities that every AF_XDP port needs are missing.
pub(super) fn missing_capabilities() -> Vec<&'static str> {
    missing_in(effective())
}

/// The same where somebody else loads the XDP program.
pub(super) fn missing_for_sockets() -> Vec<&'static str> {
    missing_in(effective() | 1 << NET_ADMIN.0 | 1 << BPF.0)
}

fn missing_in(effective: u64) -> Vec<&'static str> {
    let has = |(number, _): Capability| effective >> number & 1 == 1;
    let mut missing: Vec<_> = [NET_ADMIN, NET_RAW]
        .into_iter()
        .filter(|&capability| !has(capability))
        .map(|(_, name)| name)
        .collect();
    if !has(BPF) && !has(SYS_ADMIN) {
        missing.push(BPF.1);
    }
    missing
}

/// Whether memory may be pinned beyond RLIMIT_MEMLOCK.
pub(super) fn may_lock_memory() -> bool {
    effective() >> IPC_LOCK.0 & 1 == 1
}

/// What an errno means here, in words, with the kernel's own text.
pub(super) fn explain(error: &io::Error) -> String {
    let meaning = match error.raw_os_error() {
        Some(libc::EBUSY | libc::EEXIST) => {
            "another XDP program or socket has the device; `bpftool net show` and `ip link` name it"
        }
        Some(libc::EOPNOTSUPP) => "the driver does not support it",
        Some(libc::EINVAL) => "the driver does not accept it as the device is set up now",
        Some(libc::ENOBUFS) if !may_lock_memory() => {
            "the memory cannot be pinned within `ulimit -l`; CAP_IPC_LOCK lifts that limit"
        }
        Some(libc::ENOMEM) => "the kernel is out of memory or of hardware queues",
        Some(libc::EPERM) => "not permitted",
        Some(libc::ERANGE | libc::E2BIG | libc::EMSGSIZE) => {
            "the MTU is too large for XDP in a single buffer"
        }
        _ => return error.to_string(),
    };
    format!("{meaning} ({error})")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_missing_capability_is_named() {
        let status = "Name:\tweir\nCapPrm:\t0000000000000000\nCapEff:\t0000000000001000\n";
        let effective = effective_in(status).unwrap();
        assert_eq!(missing_in(effective), ["CAP_NET_RAW", "CAP_BPF"]);
        assert_eq!(missing_in(effective | 1 << 13 | 1 << 21), [] as [&str; 0]);
        assert_eq!(missing_in(1 << 39 | 1 << 13), ["CAP_NET_ADMIN"]);
    }

    #[test]
    fn an_mtu_that_does_not_fit_names_the_limit_and_the_remedy() {
        let text = |mtu, frame_size| {
            let limit = crate::io::afxdp::port::largest_mtu(frame_size);
            OpenError::Mtu { device: "eth1".into(), mtu, limit, frame_size }.to_string()
        };
        assert_eq!(
            text(3000, 2048),
            "device `eth1` has an MTU of 3000, but a frame of 2048 bytes holds an MTU of at most 1770; set \
             memory.frame-size = 4096 (up to 3818) or lower the MTU: `ip link set eth1 mtu 1770`"
        );
        assert!(text(9000, 4096).ends_with("at most 3818; lower the MTU: `ip link set eth1 mtu 3818`"));
        assert!(!text(9000, 2048).contains("frame-size = 4096"));
    }
}
