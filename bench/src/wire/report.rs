//! What a run found: for people, and for the record.

use std::fmt::Write as _;
use std::path::Path as FilePath;

use serde::Serialize;

use super::deck::Deck;
use super::dut::Kind;
use super::latency::{self, Percentiles};
use super::measure::{IDLE, Latency, Subject};
use super::mlr::GoalResult;
use super::options::{Args, Cores};
use super::selftest::SelfTest;
use super::trial::Outcome;
use crate::common::machine::Machine;
use crate::common::plot::{self, BarPlot, Bars, LinePlot, Series};
use crate::common::record::{self, round};

/// A whole run.
#[derive(Serialize)]
pub(crate) struct Report {
    machine: Machine,
    cores: Cores,
    setting: Setting,
    self_test: Option<SelfTest>,
    /// Packets a second that generator and sink can do without loss.
    ceiling: f64,
    devices: Vec<Device>,
    /// After `silence_us` without a packet: how much longer the median packet takes through a worker that may sleep than through
    /// one that spins, in µs.
    adaptive_idle_cost_us: Option<f64>,
    /// What could not be measured and why.
    refused: Vec<String>,
    notes: Vec<String>,
}

#[derive(Serialize)]
struct Setting {
    packets: usize,
    streams: Vec<String>,
    mean_bytes: f64,
    vxlan: bool,
    trial_seconds: f64,
    duration_sum: f64,
    silence_us: f64,
    long_silence_us: f64,
}

#[derive(Serialize)]
struct Device {
    name: String,
    version: String,
    notes: Vec<String>,
    throughput: Vec<GoalResult>,
    /// The generator or the sink may be what bounds the throughput.
    bounded_by_generator: bool,
    latency: Vec<Latency>,
    /// Part of a core that its process used while nothing was sent.
    cpu_while_idle: Option<f64>,
    error: Option<String>,
    trials: Vec<Outcome>,
}

impl Report {
    pub(crate) fn new(
        args: &Args,
        cores: &Cores,
        deck: &Deck,
        own: SelfTest,
        subjects: &[Subject],
        refused: Vec<String>,
    ) -> Self {
        let ceiling = own.ceiling;
        let report = Self::without_self_test(args, cores, deck, ceiling, subjects);
        Self { self_test: Some(own), refused, ..report }
    }

    pub(crate) fn without_self_test(
        args: &Args,
        cores: &Cores,
        deck: &Deck,
        ceiling: f64,
        subjects: &[Subject],
    ) -> Self {
        let mut notes = vec![cores.describe()];
        if virtual_machine() {
            notes.push("A shared virtual machine: nothing past the 99th percentile is credible.".to_owned());
        }
        if args.tx.is_none() {
            notes.push(
                "Over veth the kernel's copying bounds everything that stands on AF_XDP: compare weir with testpmd, \
                 which is a bare forwarder; no figure here is a line rate."
                    .to_owned(),
            );
        }
        let devices: Vec<_> = subjects.iter().map(device).collect();
        Self {
            machine: Machine::probe(Some(cores.device)),
            cores: cores.clone(),
            setting: Setting {
                packets: deck.cards.len(),
                streams: deck.streams.iter().map(|stream| stream.name.clone()).collect(),
                mean_bytes: round(deck.mean(), 1),
                vxlan: args.vxlan,
                trial_seconds: args.trial,
                duration_sum: args.duration_sum(),
                silence_us: args.silence,
                long_silence_us: args.long_silence,
            },
            self_test: None,
            ceiling,
            adaptive_idle_cost_us: adaptive_idle_cost(&devices),
            devices,
            refused: Vec::new(),
            notes,
        }
    }

    /// An error if nothing was measured.
    pub(crate) fn verdict(&self) -> Result<(), String> {
        let failed: Vec<_> = self
            .devices
            .iter()
            .filter_map(|device| Some(format!("{}: {}", device.name, device.error.as_ref()?)))
            .collect();
        if failed.is_empty() { Ok(()) } else { Err(failed.join("\n")) }
    }

    /// Writes what was asked for.
    pub(crate) fn save(&self, args: &Args) -> Result<(), String> {
        if let Some(path) = &args.json {
            record::write(path, self)?;
        }
        let Some(directory) = &args.out else { return Ok(()) };
        std::fs::create_dir_all(directory)
            .map_err(|e| format!("cannot make {}: {e}", directory.display()))?;
        record::write(&directory.join("wire.json"), self)?;
        self.save_latencies(directory)?;
        self.plot(directory)
    }

    /// Every latency with its name.
    fn latencies(&self) -> Vec<(String, &Latency)> {
        let own = self.self_test.iter().filter_map(|own| own.idle.as_ref());
        let own = own.map(|idle| ("self-test-idle".to_owned(), idle));
        let devices = self.devices.iter().flat_map(|device| {
            device.latency.iter().map(|latency| {
                let load = latency.load.replace(" %", "");
                (format!("{}-{load}", device.name), latency)
            })
        });
        own.chain(devices).collect()
    }

    /// Each histogram of latencies, and behind it that of the machine's stalls meanwhile.
    fn save_latencies(&self, directory: &FilePath) -> Result<(), String> {
        let latencies = self.latencies();
        let both = latencies.iter().flat_map(|(name, latency)| {
            [(name.clone(), &latency.histogram), (format!("{name}-stalls"), &latency.stalls)]
        });
        let histograms: Vec<_> = both.collect();
        for (name, histogram) in &histograms {
            latency::write_hgrm(&directory.join(format!("{name}.hgrm")), histogram)?;
        }
        latency::write_log(&directory.join("latency.hlog"), &histograms)
    }

    fn plot(&self, directory: &FilePath) -> Result<(), String> {
        let latencies = self.latencies();
        let mut stalls = latency::histogram();
        for (_, latency) in &latencies {
            let _ = stalls.add(&latency.stalls);
        }
        let all = latencies.iter().map(|(name, latency)| (name.clone(), &latency.histogram));
        let series: Vec<_> = all
            .chain([("the machine's stalls".to_owned(), &stalls)])
            .map(|(name, histogram)| Series { name, points: latency::curve(histogram) })
            .collect();
        let about = LinePlot {
            title: "Latency by percentile".into(),
            x: "1 / (1 − quantile): 2 is the median, 100 the 99th percentile".into(),
            y: "µs".into(),
            log_x: true,
            log_y: true,
        };
        plot::lines(&directory.join("wire-latency.svg"), &about, &series)?;
        let devices: Vec<_> = self.devices.iter().filter(|device| !device.throughput.is_empty()).collect();
        if devices.is_empty() {
            return Ok(());
        }
        let about = BarPlot {
            title: format!("Throughput, {} bytes", self.setting.mean_bytes),
            y: "million packets a second".into(),
            groups: devices.iter().map(|device| device.name.clone()).collect(),
        };
        let goals = devices.iter().map(|device| device.throughput.len()).max().unwrap_or(0);
        let bars: Vec<_> = (0..goals)
            .map(|goal| Bars {
                name: devices
                    .iter()
                    .find_map(|device| device.throughput.get(goal))
                    .map(|result| format!("loss up to {} %", round(result.goal.loss_ratio * 100.0, 3)))
                    .unwrap_or_default(),
                values: devices
                    .iter()
                    .map(|device| Some(device.throughput.get(goal)?.conditional_throughput? / 1e6))
                    .collect(),
            })
            .collect();
        plot::bars(&directory.join("wire-throughput.svg"), &about, &bars)
    }

    /// For people.
    pub(crate) fn text(&self) -> String {
        let mut text = format!("{}\n", self.machine.describe());
        let Setting { packets, mean_bytes, .. } = self.setting;
        let _ = writeln!(
            text,
            "{packets} different packets of {mean_bytes} bytes on average, without frame check sequence"
        );
        for note in &self.notes {
            let _ = writeln!(text, "{note}");
        }
        if let Some(own) = &self.self_test {
            let flood = own.flood.sent as f64 / own.flood.seconds;
            let _ = writeln!(
                text,
                "\nSelf-test, back to back: {} to {}.\nCeiling {} Mpps; in a flood {} Mpps sent, {} received.",
                own.generator,
                own.sink,
                millions(own.ceiling),
                millions(flood),
                millions(own.flood.forwarded()),
            );
            if let Some(Latency { ns, .. }) = &own.idle {
                let (p50, p99) = (micros(ns.p50), micros(ns.p99));
                let _ = writeln!(
                    text,
                    "Own part of an idle latency: {p50} µs at the median, {p99} at the 99th percentile."
                );
            }
        }
        self.trials_text(&mut text);
        self.throughput_text(&mut text);
        self.latency_text(&mut text);
        if let Some(cost) = self.adaptive_idle_cost_us {
            let _ = writeln!(
                text,
                "\nAfter {} µs of silence adaptive idling costs {cost:.1} µs at the median: weir-adaptive beside weir, idle.",
                self.setting.silence_us
            );
        }
        for device in &self.devices {
            let _ = writeln!(text, "\n{}: {}; {}", device.name, device.version, device.notes.join("; "));
            if let Some(cpu) = device.cpu_while_idle {
                let _ = writeln!(text, "  uses {:.1} % of a core while nothing is sent", cpu * 100.0);
            }
            if let Some(error) = &device.error {
                let _ = writeln!(text, "  FAILED: {error}");
            }
        }
        for refused in &self.refused {
            let _ = writeln!(text, "\n{refused}");
        }
        text
    }

    fn trials_text(&self, text: &mut String) {
        let fixed = self.devices.iter().filter(|device| device.throughput.is_empty());
        for (device, outcome) in
            fixed.flat_map(|device| device.trials.iter().map(move |trial| (device, trial)))
        {
            let _ = writeln!(
                text,
                "\n{}: {} packets intended, {} sent, {} received, {} lost, {} doubled, {} reordered, {} changed, {} missed by \
                 the sink; latency {} µs at the median, {} at the 99th percentile",
                device.name,
                outcome.intended,
                outcome.sent,
                outcome.received,
                outcome.lost,
                outcome.duplicates(),
                outcome.reordered(),
                outcome.corrupted(),
                outcome.sink_missed,
                micros(outcome.latency_ns.p50),
                micros(outcome.latency_ns.p99)
            );
        }
    }

    fn throughput_text(&self, text: &mut String) {
        if self.devices.iter().all(|device| device.throughput.is_empty()) {
            return;
        }
        let _ = writeln!(
            text,
            "\nThroughput in Mpps (RFC 9971; conditional throughput, between relevant lower and upper bound)\n{:<16} {:>8} {:>10} {:>10} {:>10}  trials",
            "", "loss", "throughput", "lower", "upper"
        );
        for device in &self.devices {
            for result in &device.throughput {
                let show = |rate: Option<f64>| rate.map_or("-".to_owned(), millions);
                let mut remarks = String::new();
                if device.bounded_by_generator {
                    remarks += "  BOUNDED BY THE GENERATOR";
                }
                if !result.regular {
                    remarks += "  irregular";
                }
                let loss = format!("{} %", round(result.goal.loss_ratio * 100.0, 3));
                let _ = writeln!(
                    text,
                    "{:<16} {loss:>8} {:>10} {:>10} {:>10}  {:>6}{remarks}",
                    device.name,
                    show(result.conditional_throughput),
                    show(result.bounds.lower),
                    show(result.bounds.upper),
                    device.trials.len()
                );
            }
        }
    }

    fn latency_text(&self, text: &mut String) {
        if self.devices.iter().all(|device| device.latency.is_empty()) {
            return;
        }
        let _ = writeln!(
            text,
            "\nLatency in µs from the intended departure, and the machine's stalls meanwhile\n{:<16} {:>6} {:>9} {:>8} {:>8} {:>8} {:>8} {:>7}  {:>12}",
            "", "load", "pps", "least", "p50", "p90", "p99", "lost", "stall p99"
        );
        for device in &self.devices {
            for latency in &device.latency {
                let Percentiles { least, p50, p90, p99, .. } = latency.ns;
                let _ = writeln!(
                    text,
                    "{:<16} {:>6} {:>9.0} {:>8} {:>8} {:>8} {:>8} {:>7}  {:>12}",
                    device.name,
                    latency.load,
                    latency.rate,
                    micros(least),
                    micros(p50),
                    micros(p90),
                    micros(p99),
                    latency.lost,
                    micros(latency.hiccups_ns.p99)
                );
            }
        }
    }
}

/// In µs, if both were measured.
fn adaptive_idle_cost(devices: &[Device]) -> Option<f64> {
    let median = |kind: Kind| {
        let device = devices.iter().find(|device| device.name == kind.name())?;
        let idle = device.latency.iter().find(|latency| latency.load == IDLE)?;
        (idle.ns.count > 0).then_some(idle.ns.p50 as f64 / 1e3)
    };
    Some(round(median(Kind::WeirAdaptive)? - median(Kind::Weir)?, 2))
}

fn device(subject: &Subject) -> Device {
    Device {
        name: subject.name.clone(),
        version: subject.version.clone(),
        notes: subject.notes.clone(),
        throughput: subject.throughput.clone(),
        bounded_by_generator: subject.bounded,
        latency: subject.latencies.clone(),
        cpu_while_idle: subject.cpu_idle,
        error: subject.error.clone(),
        trials: subject.trials.clone(),
    }
}

fn millions(rate: f64) -> String {
    format!("{:.4}", rate / 1e6)
}

fn micros(ns: u64) -> String {
    format!("{:.1}", ns as f64 / 1e3)
}

fn virtual_machine() -> bool {
    std::fs::read_to_string("/proc/cpuinfo").is_ok_and(|text| text.contains(" hypervisor"))
}
