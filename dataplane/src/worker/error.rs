//! Why a configuration could not be put in force.

use super::cores;
use super::memory::DoesNotFit;
use super::run::MAX_PORTS;

/// Why the data plane could not be started, or a configuration not be put in force.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// A port could not be opened.
    #[error("port {port}: {reason}")]
    Port {
        /// Its name.
        port: String,
        /// What is wrong, and what to do.
        reason: String,
    },
    /// A port without a device: only `weir replay` can drive it.
    #[error("port {0}: no device is given; add `device = \"…\"`")]
    NoDevice(String),
    /// It cannot be compiled here.
    #[error("{0}")]
    Compile(#[from] crate::snapshot::CompileError),
    /// No memory for frames.
    #[error("{0}")]
    Memory(#[from] crate::frame::MemoryError),
    /// Limits that this machine's memory cannot hold.
    #[error("{0}")]
    DoesNotFit(#[from] DoesNotFit),
    /// The cores asked for cannot be had.
    #[error("{0}")]
    Cores(#[from] cores::CoresError),
    /// Settings that a running instance cannot change.
    #[error("{0} cannot be changed while weir runs; restart it")]
    NeedsRestart(String),
    /// A thread or descriptor could not be had.
    #[error("cannot start worker {worker}: {reason}")]
    Worker {
        /// Its number.
        worker: usize,
        /// What the kernel said.
        reason: String,
    },
    /// More ports than a process can have.
    #[error("more than {MAX_PORTS} ports in the life of the process; restart weir")]
    TooManyPorts,
    /// It was stopped.
    #[error("the data plane was stopped")]
    Stopped,
}
