//! DPDK's `testpmd`, forwarding between two `net_pcap` devices that play a capture over and over.

use std::io::{BufRead, BufReader, Read, Seek, Write};
use std::path::Path;
use std::process::Stdio;
use std::sync::mpsc;
use std::time::Duration;

use super::process::{missing, on_cores};
use crate::common::pin::other_than;

/// How long it forwards.
const MEASURED: Duration = Duration::from_millis(400);
/// Buffers, enough for two captures of ten thousand frames and what is on its way.
const BUFFERS: &str = "--total-num-mbufs=32768";
/// How long it may take to start.
const START: Duration = Duration::from_secs(20);

/// Runs `testpmd` once in a forwarding mode on `core` and gives its cycles a packet, source and sink included.
///
/// # Errors
/// When it is not installed or fails: its last words.
pub(super) fn run(mode: &str, capture: &Path, core: usize, huge: bool) -> Result<f64, String> {
    let mut errors = tempfile::tempfile().map_err(|error| format!("cannot make a file: {error}"))?;
    let stderr = errors.try_clone().map_err(|error| format!("cannot use a file: {error}"))?;
    let device = |n: usize| format!("--vdev=net_pcap{n},rx_pcap={},infinite_rx=1", capture.display());
    // Its control thread sleeps; it is put on another core if there is one.
    let control = other_than(core).unwrap_or(core);
    // Line by line, so that its prompt is seen.
    let mut child = on_cores(&[control, core], "stdbuf")
        .args(["-oL", "dpdk-testpmd", &format!("--lcores=0@{control},1@{core}"), "--no-pci", "-m", "300"])
        .arg(if huge { "--in-memory" } else { "--no-huge" })
        .args([device(0), device(1)])
        .args(["--", "--nb-cores=1", &format!("--forward-mode={mode}"), "--burst=32"])
        .args(["--record-core-cycles", "--no-flush-rx", BUFFERS])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(stderr)
        .spawn()
        .map_err(|error| missing("taskset", &error))?;
    let (Some(mut input), Some(output)) = (child.stdin.take(), child.stdout.take()) else {
        return Err("dpdk-testpmd has no standard streams".to_owned());
    };
    let (started, starts) = mpsc::channel();
    let reader = std::thread::spawn(move || {
        let mut reader = BufReader::new(output);
        let (mut text, mut line) = (String::new(), String::new());
        while matches!(reader.read_line(&mut line), Ok(n) if n > 0) {
            if line.contains("Press enter to exit") {
                let _ = started.send(());
            }
            text.push_str(&line);
            line.clear();
        }
        let _ = reader.read_to_string(&mut text);
        text
    });
    if starts.recv_timeout(START).is_ok() {
        std::thread::sleep(MEASURED);
        let _ = input.write_all(b"\n");
    } else {
        let _ = child.kill();
    }
    drop(input);
    let _ = child.wait();
    let text = reader.join().unwrap_or_default();
    cycles(&text).ok_or_else(|| {
        let mut said = String::new();
        let _ = errors.rewind().and_then(|()| errors.read_to_string(&mut said));
        let lines: Vec<_> = said.lines().chain(text.lines()).collect();
        let last = lines.get(lines.len().saturating_sub(6)..).unwrap_or_default().join(" / ");
        format!("dpdk-testpmd (`make bench-peers` installs it) did not report its cycles; it said: {last}")
    })
}

/// Cycles a packet, from what `--record-core-cycles` prints at the end. `None` if it is not there.
fn cycles(output: &str) -> Option<f64> {
    let (_, rest) = output.split_once("CPU cycles/packet=")?;
    rest.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// From DPDK 22.11.
    const SAMPLE: &str = "\
  +++++++++++++++ Accumulated forward statistics for all ports+++++++++++++++
  RX-packets: 54626432       RX-dropped: 0             RX-total: 54626432
  TX-packets: 54626432       TX-dropped: 0             TX-total: 54626432
  ++++++++++++++++++++++++++++++++++++++++++++++++++++++++++++++++++++++++++++

  CPU cycles/packet=42.95 (total cycles=2346205254 / total macswap packets=54626432) at 2600 MHz Clock

Done.
";

    #[test]
    fn the_cycles_that_testpmd_records_are_read() {
        assert_eq!(cycles(SAMPLE), Some(42.95));
    }

    #[test]
    fn no_cycles_are_read_of_a_run_that_failed() {
        assert_eq!(cycles("EAL: Cannot init EAL: Invalid argument\n"), None);
    }
}
