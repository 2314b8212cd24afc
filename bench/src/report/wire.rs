//! Packets over a wire: `weir-bench wire`.

use std::fmt::Write as _;

use serde::Deserialize;

use super::{number, origin};
use crate::common::machine::Machine;

/// What is read of its record.
#[derive(Debug, Deserialize)]
pub(super) struct Record {
    machine: Machine,
    setting: Setting,
    self_test: Option<SelfTest>,
    devices: Vec<Device>,
    /// Absent of runs without one of the two.
    adaptive_idle_cost_us: Option<f64>,
    notes: Vec<String>,
}

#[derive(Debug, Deserialize)]
struct Setting {
    mean_bytes: f64,
    silence_us: f64,
}

#[derive(Debug, Deserialize)]
struct SelfTest {
    ceiling: f64,
    idle: Option<Latency>,
}

#[derive(Debug, Deserialize)]
struct Device {
    name: String,
    throughput: Vec<Throughput>,
    bounded_by_generator: bool,
    latency: Vec<Latency>,
    cpu_while_idle: Option<f64>,
}

#[derive(Debug, Deserialize)]
struct Throughput {
    goal: Goal,
    bounds: Bounds,
    conditional_throughput: Option<f64>,
    regular: bool,
}

impl Throughput {
    /// What keeps it from being a finding.
    fn remarks(&self, device: &Device) -> String {
        let bounded = device.bounded_by_generator.then_some("bounded by the generator");
        let irregular = (!self.regular).then_some("irregular");
        bounded.into_iter().chain(irregular).collect::<Vec<_>>().join(", ")
    }
}

#[derive(Debug, Deserialize)]
struct Goal {
    loss_ratio: f64,
}

#[derive(Debug, Deserialize)]
struct Bounds {
    lower: Option<f64>,
    upper: Option<f64>,
}

#[derive(Debug, Deserialize)]
struct Latency {
    load: String,
    rate: f64,
    sent: u64,
    lost: u64,
    ns: Percentiles,
    hiccups_ns: Percentiles,
}

#[derive(Debug, Deserialize)]
struct Percentiles {
    p50: u64,
    p99: u64,
}

/// Throughput, then latency, by device under test.
pub(super) fn figures(record: &Record) -> String {
    let mut text = format!("\n{}; {:.0}-byte packets.\n", origin(&record.machine), record.setting.mean_bytes);
    for note in &record.notes {
        let _ = writeln!(text, "{note}");
    }
    if let Some(own) = &record.self_test {
        let idle = own.idle.as_ref().map_or(String::new(), |idle| {
            format!("; their own part of an idle latency is {} µs at the median", micros(idle.ns.p50))
        });
        let _ = writeln!(
            text,
            "Generator and sink back to back reach {} Mpps without loss{idle}.",
            millions(Some(own.ceiling))
        );
    }
    text.push_str(
        "\n| throughput, Mpps | loss | conditional throughput | lower bound | upper bound | |\n\
         | --- | ---: | ---: | ---: | ---: | --- |\n",
    );
    for device in &record.devices {
        for result in &device.throughput {
            let _ = writeln!(
                text,
                "| {} | {} % | {} | {} | {} | {} |",
                device.name,
                number(Some(result.goal.loss_ratio * 100.0), 1),
                millions(result.conditional_throughput),
                millions(result.bounds.lower),
                millions(result.bounds.upper),
                result.remarks(device),
            );
        }
    }
    if record.devices.iter().any(|device| device.throughput.iter().any(|result| !result.regular)) {
        text.push_str(
            "\nIrregular: the trials were used up before both bounds were known as closely as the goal wants.\n",
        );
    }
    text.push_str(
        "\n| latency, µs | load | kpps | lost | p50 | p99 | the machine's stalls, p99 | of a core while nothing is sent |\n\
         | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |\n",
    );
    for device in &record.devices {
        for latency in &device.latency {
            let idle = latency.load == "idle";
            let cpu = device.cpu_while_idle.filter(|_| idle).map(|cpu| format!("{:.0} %", cpu * 100.0));
            let _ = writeln!(
                text,
                "| {} | {} | {} | {} | {} | {} | {} | {} |",
                device.name,
                latency.load,
                number(Some(latency.rate / 1e3), 1),
                lost(latency),
                micros(latency.ns.p50),
                micros(latency.ns.p99),
                micros(latency.hiccups_ns.p99),
                cpu.unwrap_or_default(),
            );
        }
    }
    if let Some(cost) = record.adaptive_idle_cost_us {
        let _ = writeln!(
            text,
            "\nAfter {:.1} ms of silence adaptive idling costs {cost:.1} µs at the median.",
            record.setting.silence_us / 1e3
        );
    }
    text.push('\n');
    text
}

/// The part of the packets that did not arrive, if there is one.
fn lost(latency: &Latency) -> String {
    match latency.lost {
        0 => "0".to_owned(),
        lost => format!("{:.2} %", lost as f64 * 100.0 / latency.sent.max(1) as f64),
    }
}

fn millions(rate: Option<f64>) -> String {
    number(rate.map(|rate| rate / 1e6), 3)
}

fn micros(ns: u64) -> String {
    format!("{:.1}", ns as f64 / 1e3)
}
