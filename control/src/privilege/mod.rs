//! What the daemon may do: it gives up every capability that it will not need, all ways of gaining others, and the system
//! calls that it never makes. `docs/security.md` says why each one that is kept is needed.
//!
//! Capabilities and filters belong to threads, and a thread starts with its creator's. So the process is settled while it
//! has one thread, and each worker gives up the rest when it starts.

pub mod calls;
mod capability;
mod filter;

use std::io;
use std::path::Path;

use clap::ValueEnum;
use tracing::{info, warn};

pub use capability::KEPT;
pub use filter::FilterError;

/// What becomes of a system call that is on no list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Seccomp {
    /// It fails with EPERM.
    Refuse,
    /// The process is killed with SIGSYS, and the kernel logs the call.
    Kill,
    /// It is made, and the kernel logs it.
    Log,
    /// No filter.
    Off,
}

/// Why the process cannot be settled.
#[derive(Debug, thiserror::Error)]
pub enum SettleError {
    /// Capabilities could not be given up.
    #[error("cannot give up capabilities: {0}")]
    Capabilities(io::Error),
    /// The kernel does not set no_new_privs.
    #[error("cannot give up gaining privileges: {0}")]
    NoNewPrivileges(io::Error),
    /// The filter was refused.
    #[error(
        "cannot filter system calls: {0}; the kernel needs CONFIG_SECCOMP_FILTER, or run with --seccomp off"
    )]
    Filter(#[from] FilterError),
}

/// Settles the process: call it while it has one thread. `config` and `socket` are the files it will need.
///
/// # Errors
/// [`SettleError`]; the process may have given up some of its privileges then, and should end.
pub fn settle(seccomp: Seccomp, config: Option<&Path>, socket: &Path) -> Result<(), SettleError> {
    let kept = capability::reduce(config, socket).map_err(SettleError::Capabilities)?;
    rustix::thread::set_no_new_privs(true).map_err(|error| SettleError::NoNewPrivileges(error.into()))?;
    match seccomp {
        Seccomp::Off => warn!("no system call is refused: --seccomp off"),
        action => filter::install(action, &calls::control())?,
    }
    let filter = seccomp.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default();
    info!("privileges: {}; no new ones; seccomp: {filter}", capability::list(kept));
    Ok(())
}

/// Settles the calling worker thread: no capability, and only the system calls of a worker.
///
/// # Errors
/// What the kernel refuses.
pub fn settle_worker(seccomp: Seccomp) -> io::Result<()> {
    capability::renounce()?;
    if seccomp == Seccomp::Off {
        return Ok(());
    }
    filter::install(seccomp, &calls::worker()).map_err(|error| io::Error::other(error.to_string()))
}
