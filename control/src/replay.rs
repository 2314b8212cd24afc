//! The engine over captures: what the data plane offers, in the shape that the command line prints.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Serialize;
use weir_config::Config;
use weir_dataplane::worker::status::Counters;

/// What a replay did.
#[derive(Clone, Debug, Serialize)]
pub struct Summary {
    /// Every port.
    pub ports: Vec<PortSummary>,
    /// Packet counters.
    pub counters: Counters,
}

/// What a replay did at one port.
#[derive(Clone, Debug, Serialize)]
pub struct PortSummary {
    /// Its name.
    pub port: String,
    /// Frames read from its capture.
    pub frames_in: u64,
    /// Frames written.
    pub frames_out: u64,
    /// The capture that was written.
    pub capture: PathBuf,
}

/// Why a replay could not be done; its text is for people.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ReplayError(pub String);

/// Replays.
///
/// # Errors
/// As it says.
pub fn replay(
    _config: &Config,
    _inputs: &BTreeMap<String, PathBuf>,
    _out: &Path,
) -> Result<Summary, ReplayError> {
    Err(ReplayError("not wired".to_owned()))
}
