//! DPDK's own tables, measured by DPDK's own tests: `dpdk-test` and `dpdk-test-acl` of Debian's package `dpdk`.

use serde::Serialize;

use super::Args;

/// A figure of a peer.
#[derive(Debug, Serialize)]
pub(super) struct PeerFigure {
    pub(super) peer: String,
    pub(super) what: String,
    /// Entries of its table.
    pub(super) size: usize,
    /// Cycles an operation: the mean over the runs.
    pub(super) cycles: f64,
    /// Each run's.
    pub(super) runs: Vec<f64>,
    pub(super) note: String,
    /// Which of ours it stands beside: table, variant, operation.
    pub(super) beside: Option<(String, String, String)>,
}

/// Runs what there is once, and adds to the figures of earlier runs.
pub(super) fn run(_args: &Args, _core: Option<usize>, _figures: &mut Vec<PeerFigure>) -> Result<(), String> {
    Ok(())
}
