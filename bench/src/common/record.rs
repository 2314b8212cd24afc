//! Records of runs in JSON, and what goes to standard output.

use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;

/// Writes `record` to `path`, readable by people too.
///
/// # Errors
/// The path, and what the system said.
pub(crate) fn write(path: &Path, record: &impl Serialize) -> Result<(), String> {
    let text = serde_json::to_string_pretty(record).map_err(|error| error.to_string())?;
    std::fs::write(path, text + "\n").map_err(|error| format!("cannot write {}: {error}", path.display()))
}

/// Does what `--json [FILE]` asks for; without FILE the record goes to standard output, and true says that nothing else may.
///
/// # Errors
/// The path, and what the system said.
pub(crate) fn save(json: Option<&Option<PathBuf>>, record: &impl Serialize) -> Result<bool, String> {
    match json {
        Some(Some(path)) => write(path, record).map(|()| false),
        Some(None) => {
            let text = serde_json::to_string_pretty(record).map_err(|error| error.to_string())?;
            say(&text).map(|()| true)
        }
        None => Ok(false),
    }
}

/// Reads a record that [`write`] wrote.
///
/// # Errors
/// The path, and what is wrong with it.
pub(crate) fn read<T: DeserializeOwned>(path: &Path) -> Result<T, String> {
    let text = std::fs::read_to_string(path).map_err(|e| format!("cannot read {}: {e}", path.display()))?;
    serde_json::from_str(&text).map_err(|error| format!("{}: {error}", path.display()))
}

/// Prints `text` to standard output; that nobody listens any more is no error.
///
/// # Errors
/// What the system said.
pub(crate) fn say(text: &str) -> Result<(), String> {
    match writeln!(std::io::stdout(), "{}", text.trim_end()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(error.to_string()),
        _ => Ok(()),
    }
}

/// Tells something beside the results, on standard error: standard output may be a record.
pub(crate) fn remark(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// Rounded to `digits` decimal places, so that records are readable. `NaN` becomes null in JSON.
pub(crate) fn round(value: f64, digits: i32) -> f64 {
    let scale = 10f64.powi(digits);
    (value * scale).round() / scale
}
