//! What can go wrong with DPDK, in words for the operator.

use std::io;

/// Why DPDK cannot be used, or a device cannot.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// EAL, DPDK's run time, could not be initialised. It is tried once in the life of a process.
    #[error("DPDK cannot be initialised: {reason}{}", said(.log))]
    Init {
        /// What was refused.
        reason: String,
        /// What EAL logged meanwhile.
        log: Vec<String>,
    },
    /// Another VF token than the one that EAL was initialised with.
    #[error(
        "its VF token differs from that of a device opened earlier, and DPDK {version} takes one token in the life of a process; restart weir, and give all VFs of a process one token"
    )]
    Token {
        /// DPDK's version.
        version: String,
    },
    /// No device could be made of the arguments.
    #[error("DPDK cannot probe `{devargs}`: {reason}{}", said(.log))]
    Probe {
        /// What was asked for.
        devargs: String,
        /// What was refused.
        reason: String,
        /// What EAL and the driver logged meanwhile.
        log: Vec<String>,
    },
    /// The device is in use in this process.
    #[error("`{device}` is open already in this process")]
    Busy {
        /// Its name.
        device: String,
    },
    /// A device refused something.
    #[error("DPDK device `{device}`: cannot {action}: {reason}{}", said(.log))]
    Device {
        /// Its name.
        device: String,
        /// What was tried.
        action: String,
        /// What was refused.
        reason: String,
        /// What EAL and the driver logged meanwhile.
        log: Vec<String>,
    },
    /// There is no memory for the mempool.
    #[error("DPDK has no memory for a pool of {frames} frames: {reason}")]
    Mempool {
        /// Frames of the pool.
        frames: u32,
        /// What was refused.
        reason: String,
    },
}

fn said(log: &[String]) -> String {
    if log.is_empty() { String::new() } else { format!("; DPDK said: {}", log.join("; ")) }
}

/// The text of a return value that is a negated errno. Some calls return −1 and leave the errno elsewhere.
pub(crate) fn reason(code: i32) -> String {
    // SAFETY: reads a variable of the calling thread.
    let code = if code == -1 { -unsafe { crate::sys::weir_errno() } } else { code };
    io::Error::from_raw_os_error(code.saturating_neg()).to_string()
}
