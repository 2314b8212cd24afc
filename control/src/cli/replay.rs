//! `weir replay`: the engine over captures, without a device.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use clap::Args;
use serde_json::json;
use weir_config::Config;
use weir_dataplane::worker::{ReplaySummary, replay};

use super::node::NodeArguments;
use super::table::Align::{Left, Right};
use super::table::Table;
use super::{Output, REFUSED, USAGE, check};
use crate::configuration;
use crate::daemon::Conservation;

const EXAMPLES: &str =
    "Frames enter in the order of their timestamps, and the engine's clock follows them, so a run is
deterministic: the same configuration and captures give the same bytes. Needs no privilege. MAC,
addresses and MTU of the ports come from the file. Captures are pcap or pcapng with Ethernet frames;
a capture is written for every port, DIR/<port>.pcap.

Examples:
  weir replay --config weir.toml --in pods=pods.pcap --out out/
  weir replay --config weir.toml --in pods=a.pcap --in uplink=b.pcap --out out/ --json";

/// Run captures through a configuration and write what each port would send
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Replay {
    /// The configuration (TOML)
    #[arg(long, short, value_name = "FILE")]
    config: PathBuf,
    /// A capture and the port that its frames enter by; may be given for several ports
    #[arg(long = "in", value_name = "PORT=FILE", required = true)]
    inputs: Vec<Input>,
    /// The directory that captures are written to; made if it does not exist
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// The summary as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    node: NodeArguments,
}

/// One `PORT=FILE`.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Input {
    port: String,
    file: PathBuf,
}

impl FromStr for Input {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.split_once('=') {
            Some((port, file)) if !port.is_empty() && !file.is_empty() => {
                Ok(Self { port: port.to_owned(), file: file.into() })
            }
            _ => Err("write PORT=FILE, such as pods=pods.pcap"),
        }
    }
}

impl Replay {
    pub(super) fn execute(self) -> Output {
        let identity = match self.node.identity() {
            Ok(identity) => identity,
            Err(message) => return Output::failed(USAGE, format!("weir: {message}")),
        };
        let loaded = match configuration::from_file(&self.config, &identity) {
            Ok(loaded) => loaded,
            Err(refusal) => return check::refused(&refusal),
        };
        let mut inputs: Vec<(String, PathBuf)> = Vec::new();
        for input in self.inputs {
            if inputs.iter().any(|(port, _)| *port == input.port) {
                return Output::failed(REFUSED, format!("weir: --in: port {:?} is given twice", input.port));
            }
            inputs.push((input.port, input.file));
        }
        match replay(&loaded.config, &inputs, &self.out) {
            Ok(summary) if self.json => {
                let balance = Conservation::of(&summary.counters);
                Output::json(&json!({ "summary": summary, "conservation": balance }))
            }
            Ok(summary) => Output::done(render(&loaded.config, &self.out, &summary)),
            Err(error) => Output::failed(REFUSED, format!("weir: {error}")),
        }
    }
}

fn render(config: &Config, out: &Path, summary: &ReplaySummary) -> String {
    let mut ports = Table::new(&[("PORT", Left), ("READ", Right), ("WRITTEN", Right), ("CAPTURE", Left)]);
    for port in config.ports.keys() {
        let count = |frames: &BTreeMap<String, u64>| frames.get(port).copied().unwrap_or(0).to_string();
        let capture = out.join(format!("{port}.pcap")).display().to_string();
        ports.row([port.clone(), count(&summary.read), count(&summary.written), capture]);
    }
    let mut text = ports.render("no ports");
    let seconds = Duration::from_nanos(summary.duration).as_secs_f64();
    text += &format!("\nthe captures cover {seconds:.6} s\n");
    if summary.truncated > 0 {
        text += &format!("cut off by the capture, replayed as they are: {} frames\n", summary.truncated);
    }
    if summary.oversize > 0 {
        text += &format!("larger than `memory.frame-size` holds, left out: {} frames\n", summary.oversize);
    }
    let counters =
        json!({ "counters": summary.counters, "conservation": Conservation::of(&summary.counters) });
    format!("{text}\n{}", super::show::packet_counters(&counters))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_input_is_a_port_and_a_file() {
        assert_eq!("a=b=c.pcap".parse(), Ok(Input { port: "a".into(), file: "b=c.pcap".into() }));
        for wrong in ["a", "=b", "a=", ""] {
            assert!(wrong.parse::<Input>().is_err(), "{wrong}");
        }
    }
}
