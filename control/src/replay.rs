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
    /// Frames left out because no frame of `memory.frame-size` holds them.
    pub oversize: u64,
    /// Frames that the capture had cut off, replayed as they are.
    pub truncated: u64,
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

/// Sends captures, by port, through the engine and writes one capture for each port.
///
/// # Errors
/// A capture cannot be read or written, or the configuration cannot be compiled.
pub fn replay(
    config: &Config,
    inputs: &BTreeMap<String, PathBuf>,
    out: &Path,
) -> Result<Summary, ReplayError> {
    let inputs: Vec<_> = inputs.iter().map(|(port, path)| (port.clone(), path.clone())).collect();
    let done =
        weir_dataplane::worker::replay(config, &inputs, out).map_err(|error| ReplayError(error.to_string()))?;
    let ports = config.ports.keys().map(|port| PortSummary {
        port: port.clone(),
        frames_in: done.read.get(port).copied().unwrap_or(0),
        frames_out: done.written.get(port).copied().unwrap_or(0),
        capture: out.join(format!("{port}.pcap")),
    });
    Ok(Summary {
        ports: ports.collect(),
        oversize: done.oversize,
        truncated: done.truncated,
        counters: done.counters,
    })
}
