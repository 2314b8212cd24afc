//! weir, from its binary.

use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use super::case::{Case, Source};
use super::process::{Program, cycles, file};
use super::{Setting, testpmd};

/// How long it forwards before it is measured.
const WARM_UP: Duration = Duration::from_millis(700);

/// Runs weir once on a case and gives its cycles a packet.
///
/// # Errors
/// What it says, or that it forwarded nothing.
pub(super) fn measure(case: &Case, setting: &Setting) -> Result<f64, String> {
    let folder = &setting.folder;
    let (config, socket) = (file(folder, "weir.toml"), file(folder, "weir.sock"));
    let text = case.configuration(setting.core, folder);
    std::fs::write(&config, text).map_err(|error| format!("cannot write {}: {error}", config.display()))?;
    let mut command = Command::new(&setting.weir);
    command.arg("run").arg("--config").arg(&config).arg("--socket").arg(&socket);
    let mut weir = Program::start(&mut command, file(folder, "weir.log"))?;
    let count = |name: &str, what: &str| -> Result<u64, String> {
        let show =
            Command::new(&setting.weir).args(["show", "ports", "--json", "--socket"]).arg(&socket).output();
        let show = show.map_err(|error| format!("{}: {error}", setting.weir.display()))?;
        let answer: Value = serde_json::from_slice(&show.stdout)
            .map_err(|_| String::from_utf8_lossy(&show.stderr).trim().to_owned())?;
        let ports = answer["ports"].as_array().cloned().unwrap_or_default();
        let port = ports.iter().find(|port| port["name"] == name);
        let port = port.ok_or_else(|| format!("it has no port `{name}`"))?;
        let queues = port["queues"].as_array().cloned().unwrap_or_default();
        Ok(queues.iter().filter_map(|queue| queue[what].as_u64()).sum())
    };
    let sent = || count("out", "tx_frames");
    weir.until(|_| sent().is_ok())?;
    let generator = match case.source {
        Source::Memif => Some(testpmd::generator(setting)?),
        Source::Null | Source::Capture => None,
    };
    std::thread::sleep(WARM_UP);
    let both = || Ok::<_, String>((count("in", "rx_frames")?, sent()?));
    let before = both()?;
    let result =
        cycles(setting.time, sent).map_err(|error| format!("weir, {}: {error}\n{}", case.name, weir.said()));
    let after = both()?;
    drop(generator);
    // Its far end takes everything: what is not sent was dropped, and no figure of forwarding.
    if case.source != Source::Memif {
        let (received, sent) = (after.0.saturating_sub(before.0), after.1.saturating_sub(before.1));
        if received.saturating_sub(sent) > received / 100 {
            return Err(format!("weir, {}: it sent {sent} of {received} packets", case.name));
        }
    }
    result
}
