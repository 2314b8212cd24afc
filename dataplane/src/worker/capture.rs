//! Captures through the engine: `weir replay`. Frames enter in the order of their timestamps, and the engine's clock
//! follows them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use weir_config::Config;

use crate::io::pcap::{CaptureError, CaptureReader, CaptureRecord, CaptureWriter};

use super::engine::{Engine, EngineError, START};
use super::status::Counters;

/// Why captures could not be replayed.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// A capture cannot be read or written.
    #[error("{0}")]
    Capture(#[from] CaptureError),
    /// The engine cannot be made.
    #[error("{0}")]
    Engine(#[from] EngineError),
    /// An input names a port that the configuration does not have.
    #[error("no port is named {0:?} in the configuration; it has: {1}")]
    UnknownPort(String, String),
    /// An output would replace an input.
    #[error("the output would replace the input {0}; write to another directory")]
    Overwrites(PathBuf),
    /// The output directory cannot be made.
    #[error("{path}: {source}")]
    Directory {
        /// The directory.
        path: PathBuf,
        /// What the kernel said.
        source: std::io::Error,
    },
}

/// What a replay did.
#[derive(Clone, Debug, Default, serde::Serialize)]
pub struct ReplaySummary {
    /// Frames read, by port.
    pub read: BTreeMap<String, u64>,
    /// Frames written, by port.
    pub written: BTreeMap<String, u64>,
    /// Frames that no chunk of `memory.frame-size` holds, and were left out.
    pub oversize: u64,
    /// Frames that the capture had cut off, replayed as they are.
    pub truncated: u64,
    /// Time covered by the captures, in nanoseconds.
    pub duration: u64,
    /// The engine's counters at the end.
    pub counters: Counters,
}

/// How long the engine goes on after the last frame, so that timers (ARP retries, held packets) come to an end.
const SETTLE: u64 = 10_000_000_000;

/// Sends the captures `inputs` (port name, file) through an engine that runs `config`, and writes what leaves by each port
/// to `<out>/<port>.pcap`.
///
/// # Errors
/// [`ReplayError`].
pub fn replay(
    config: &Config,
    inputs: &[(String, PathBuf)],
    out: &Path,
) -> Result<ReplaySummary, ReplayError> {
    for (port, _) in inputs {
        if !config.ports.contains_key(port) {
            let known: Vec<&str> = config.ports.keys().map(String::as_str).collect();
            return Err(ReplayError::UnknownPort(port.clone(), known.join(", ")));
        }
    }
    let mut records: Vec<(usize, CaptureRecord)> = Vec::new();
    for (at, (_, path)) in inputs.iter().enumerate() {
        for record in CaptureReader::open(path)? {
            records.push((at, record?));
        }
    }
    // Stable: frames of the same moment enter in the order of the inputs.
    records.sort_by_key(|(_, record)| record.timestamp);
    let mut engine = Engine::new(config)?;
    std::fs::create_dir_all(out)
        .map_err(|source| ReplayError::Directory { path: out.to_path_buf(), source })?;
    spare_inputs(config, inputs, out)?;
    let mut writers = Writers::create(config, out)?;
    let first = records.first().map_or(0, |(_, record)| record.timestamp);
    let last = records.last().map_or(0, |(_, record)| record.timestamp);
    let wall = |engine: u64| engine.saturating_sub(START) + first;
    let mut summary = ReplaySummary { duration: last - first, ..ReplaySummary::default() };
    for (input, record) in &records {
        let Some((port, _)) = inputs.get(*input) else { continue };
        *summary.read.entry(port.clone()).or_default() += 1;
        summary.truncated += u64::from(record.truncated());
        engine.advance(record.timestamp - first + START, |port, at, bytes| {
            writers.write(port, wall(at), bytes)
        });
        let received = engine.receive(port, &[&record.bytes], |port, bytes| {
            writers.write(port, record.timestamp, bytes);
        });
        summary.oversize += u64::from(received == 0);
    }
    let end = engine.now() + SETTLE;
    engine.advance(end, |port, at, bytes| writers.write(port, wall(at), bytes));
    summary.counters = engine.counters();
    summary.written = writers.finish()?;
    Ok(summary)
}

/// Refuses to write where a capture was read.
fn spare_inputs(config: &Config, inputs: &[(String, PathBuf)], out: &Path) -> Result<(), ReplayError> {
    let outputs: Vec<PathBuf> = config
        .ports
        .keys()
        .filter_map(|port| std::fs::canonicalize(out.join(format!("{port}.pcap"))).ok())
        .collect();
    let replaced = |path: &PathBuf| std::fs::canonicalize(path).is_ok_and(|path| outputs.contains(&path));
    match inputs.iter().find(|(_, path)| replaced(path)) {
        Some((_, path)) => Err(ReplayError::Overwrites(path.clone())),
        None => Ok(()),
    }
}

/// One capture for each port. The first error is kept and told at the end.
struct Writers {
    by_port: BTreeMap<String, (CaptureWriter, u64)>,
    failed: Option<CaptureError>,
}

impl Writers {
    fn create(config: &Config, out: &Path) -> Result<Self, ReplayError> {
        let mut by_port = BTreeMap::new();
        for port in config.ports.keys() {
            by_port.insert(port.clone(), (CaptureWriter::create(out.join(format!("{port}.pcap")))?, 0));
        }
        Ok(Self { by_port, failed: None })
    }

    fn write(&mut self, port: &str, timestamp: u64, bytes: &[u8]) {
        if let Some((writer, count)) = self.by_port.get_mut(port) {
            match writer.write(timestamp, bytes) {
                Ok(()) => *count += 1,
                Err(error) => self.failed = self.failed.take().or(Some(error)),
            }
        }
    }

    fn finish(self) -> Result<BTreeMap<String, u64>, ReplayError> {
        if let Some(error) = self.failed {
            return Err(error.into());
        }
        let mut written = BTreeMap::new();
        for (port, (writer, count)) in self.by_port {
            writer.finish()?;
            written.insert(port, count);
        }
        Ok(written)
    }
}
