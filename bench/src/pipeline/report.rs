//! The record of a run, the table that people read, and the plot.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::path::Path;

use serde::{Deserialize, Serialize};
use weir_dataplane::frame::PageKind;

use super::bed::{Bed, Cost, Runs};
use super::{Args, Line};
use crate::common::machine::Machine;
use crate::common::plot::{self, BarPlot, Bars, LinePlot, Series};
use crate::common::record::round;
use crate::common::stats::Summary;

/// A whole run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) machine: Machine,
    /// What DPDK's `testpmd` in `io` mode costs in the same run, in cycles a packet; `null` without peers.
    pub(crate) t0_cycles: Option<f64>,
    /// Each repeat of it; the least counts.
    #[serde(default)]
    pub(crate) t0_repeats: Vec<f64>,
    pub(crate) results: Vec<Figures>,
    pub(crate) settings: Settings,
}

/// How it was measured.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Settings {
    /// Lengths of frames.
    pub(crate) frames: String,
    /// `inplace` or `copy`.
    pub(crate) source: String,
    /// Input frames.
    pub(crate) inputs: u32,
    /// Repeats of each line.
    pub(crate) repeats: u32,
    /// Packets of a repeat, or one pass over the flows.
    pub(crate) packets: usize,
    /// The pages that frames lay in.
    pub(crate) frame_pages: String,
    /// The pages that testpmd's buffers lay in.
    #[serde(default)]
    pub(crate) t0_pages: Option<String>,
}

/// One line of the results. Cycles are those of the time-stamp counter, a packet.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Figures {
    pub(crate) workload: String,
    pub(crate) burst: usize,
    /// The engine alone: median of the repeats' median bursts, less the null pipeline's.
    pub(crate) pipeline_cycles: f64,
    /// With source and sink.
    pub(crate) total_cycles: f64,
    /// `pipeline_cycles` in nanoseconds.
    pub(crate) ns: f64,
    /// `pipeline_cycles` ÷ T0.
    pub(crate) ratio_t0: Option<f64>,
    pub(crate) peers: PeerCosts,
    #[serde(default)]
    pub(crate) peer_repeats: PeerRepeats,
    /// `pipeline_cycles` of each repeat.
    pub(crate) repeats: Vec<f64>,
    /// Distance of the repeats' quartiles ÷ their median.
    pub(crate) spread: f64,
    /// Median of the repeats' means, less the null pipeline's.
    pub(crate) mean_cycles: f64,
    /// The null pipeline.
    pub(crate) null_cycles: f64,
    pub(crate) title: String,
    pub(crate) flows: usize,
    pub(crate) order: String,
    /// The hostile mix instead of the workload's packets.
    pub(crate) hostile: bool,
    /// Each packet is the first of its flow.
    pub(crate) first_packets: bool,
    /// What the project aims at.
    pub(crate) aim_cycles: Option<f64>,
}

/// What other engines need for the same packets, in cycles a packet, less T0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct PeerCosts {
    pub(crate) testpmd: Option<f64>,
    pub(crate) ovs: Option<f64>,
}

/// Each repeat of them, with their source and sink; the least counts.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct PeerRepeats {
    pub(crate) testpmd: Vec<f64>,
    pub(crate) ovs: Vec<f64>,
}

impl Record {
    /// Adds what peers cost.
    pub(super) fn compare(
        &mut self,
        t0: &[f64],
        huge: bool,
        peers: &BTreeMap<&'static str, (PeerCosts, PeerRepeats)>,
    ) {
        self.t0_repeats = t0.to_vec();
        self.settings.t0_pages = Some(kind(huge));
        let t0 = Summary::new(t0.iter().copied()).least;
        self.t0_cycles = Some(t0);
        for figures in &mut self.results {
            figures.ratio_t0 = Some(round(figures.pipeline_cycles / t0, 3));
            if let (false, super::BURST, Some((costs, repeats))) =
                (figures.hostile, figures.burst, peers.get(figures.workload.as_str()))
            {
                figures.peers = *costs;
                figures.peer_repeats.clone_from(repeats);
            }
        }
    }

    pub(super) fn new(machine: Machine, args: &Args, beds: &[Bed], lines: &[Line]) -> Self {
        let rate = machine.tsc_ghz;
        let huge = beds.iter().all(|bed| bed.pages == PageKind::Huge);
        let figures = |line: &Line| Some(Figures::new(beds.get(line.bed)?, line, rate));
        Self {
            machine,
            t0_cycles: None,
            t0_repeats: Vec::new(),
            results: lines.iter().filter_map(figures).collect(),
            settings: Settings {
                frames: args.frames.to_string(),
                source: format!("{:?}", args.source).to_lowercase(),
                inputs: args.inputs,
                repeats: args.repeats,
                packets: args.packets,
                frame_pages: kind(huge),
                t0_pages: None,
            },
        }
    }
}

fn kind(huge: bool) -> String {
    if huge { "2 MB" } else { "4 KB" }.to_owned()
}

/// The cost of the engine by repeat: each repeat less the median null, so that a disturbed repeat of the null pipeline does
/// not make the engine look fast.
fn engine(runs: &Runs, part: fn(&Cost) -> f64) -> (Summary, Vec<f64>, f64) {
    let null = Summary::new(runs.null.iter().map(part)).median;
    let repeats: Vec<f64> = runs.whole.iter().map(|cost| round(part(cost) - null, 2)).collect();
    (Summary::new(repeats.iter().copied()), repeats, null)
}

impl Figures {
    fn new(bed: &Bed, line: &Line, rate: f64) -> Self {
        let (typical, repeats, null) = engine(&line.runs, |cost| cost.typical);
        let (mean, ..) = engine(&line.runs, |cost| cost.mean);
        let workload = bed.workload;
        Self {
            workload: workload.name.to_owned(),
            burst: line.burst,
            pipeline_cycles: round(typical.median, 2),
            total_cycles: round(typical.median + null, 2),
            ns: round(typical.median / rate, 2),
            ratio_t0: None,
            peers: PeerCosts::default(),
            peer_repeats: PeerRepeats::default(),
            repeats,
            spread: round(typical.spread(), 4),
            mean_cycles: round(mean.median, 2),
            null_cycles: round(null, 2),
            title: workload.title.to_owned(),
            flows: workload.flows,
            order: format!("{:?}", bed.order).to_lowercase(),
            hostile: line.hostile,
            first_packets: workload.first,
            aim_cycles: workload.aim(line.burst),
        }
    }

    /// Its name in tables.
    pub(crate) fn label(&self) -> String {
        let hostile = if self.hostile { " hostile" } else { "" };
        let burst = if self.burst == super::BURST { String::new() } else { format!("/{}", self.burst) };
        format!("{}{burst}{hostile}", self.workload)
    }
}

/// The table.
pub(super) fn table(record: &Record) -> String {
    let settings = &record.settings;
    let mut text = format!(
        "{}\n{}-byte frames, source {}, {} input frames in {} pages, {} repeats, interleaved\n",
        record.machine.describe(),
        settings.frames,
        settings.source,
        settings.inputs,
        settings.frame_pages,
        settings.repeats,
    );
    let t0 = record.t0_cycles.map_or("not measured (--peers)".to_owned(), |t0| format!("{t0:.1} cycles"));
    let _ = write!(
        text,
        "T0, the cost of testpmd io: {t0}\n\nthe engine alone, a packet (null subtracted)\n\n\
         {:<17} {:>8} {:>8} {:>7} {:>8} {:>7} {:>7} {:>8} {:>8}  what it is\n",
        "workload", "cycles", "ns", "spread", "mean", "null", "÷ T0", "testpmd", "ovs",
    );
    let number = |value: Option<f64>, digits| value.map_or("–".to_owned(), |v| format!("{v:.digits$}"));
    for figures in &record.results {
        let times = |peer: Option<f64>| number(peer.map(|peer| peer / figures.pipeline_cycles), 2);
        let _ = writeln!(
            text,
            "{:<17} {:>8.1} {:>8.2} {:>6.1}% {:>8.1} {:>7.1} {:>7} {:>8} {:>8}  {}",
            figures.label(),
            figures.pipeline_cycles,
            figures.ns,
            figures.spread * 100.0,
            figures.mean_cycles,
            figures.null_cycles,
            number(figures.ratio_t0, 2),
            times(figures.peers.testpmd),
            times(figures.peers.ovs),
            figures.title,
        );
    }
    text.push_str(&remarks(record));
    text
}

/// What the table's lines say together.
fn remarks(record: &Record) -> String {
    let mut text = String::from(
        "\ncycles: median of the repeats' median bursts, which an interruption does not move; mean: of the repeats' means.\n\
         Where the two differ, the machine was disturbed. testpmd, ovs: how many times as long the peer takes.\n",
    );
    if record.settings.t0_pages.as_deref() == Some("4 KB") {
        text.push_str("T0 had no 2 MB pages, with which it is cheaper: ratios to it flatter weir.\n");
    }
    let t0 = Summary::new(record.t0_repeats.iter().copied());
    if t0.median > 1.1 * t0.least {
        let _ = writeln!(
            text,
            "T0 was {:.1} cycles at best and {:.1} in the middle: something else ran; ratios to peers flatter weir.",
            t0.least, t0.median
        );
    }
    for figures in &record.results {
        if figures.first_packets {
            let _ = writeln!(text, "{}: {:.2} M flows a second", figures.workload, 1_000.0 / figures.ns);
        }
        let good = |other: &&Figures| {
            other.workload == figures.workload && other.burst == figures.burst && !other.hostile
        };
        if let (true, Some(good)) = (figures.hostile, record.results.iter().find(good)) {
            let ratio = figures.pipeline_cycles / good.pipeline_cycles;
            let _ = writeln!(text, "{}: {ratio:.2} of what as many good packets cost", figures.label());
        }
    }
    text
}

/// Lines over the size of bursts if there are several sizes; otherwise bars, weir and its peers by workload.
///
/// # Errors
/// When the file cannot be written.
pub(super) fn plot(path: &Path, record: &Record) -> Result<(), String> {
    let sizes: BTreeSet<usize> = record.results.iter().map(|figures| figures.burst).collect();
    if sizes.len() > 2 { plot_bursts(path, record) } else { plot_workloads(path, record) }
}

fn plot_bursts(path: &Path, record: &Record) -> Result<(), String> {
    let mut series: Vec<Series> = Vec::new();
    for figures in record.results.iter().filter(|figures| !figures.hostile) {
        let point = (figures.burst as f64, figures.pipeline_cycles);
        match series.iter_mut().find(|series| series.name == figures.workload) {
            Some(known) => known.points.push(point),
            None => series.push(Series { name: figures.workload.clone(), points: vec![point] }),
        }
    }
    let plot = LinePlot {
        title: format!(
            "The engine's cost by size of bursts, {}-byte frames, one core",
            record.settings.frames
        ),
        x: "packets in a burst".to_owned(),
        y: "cycles a packet".to_owned(),
        log_x: true,
        log_y: false,
    };
    plot::lines(path, &plot, &series)
}

fn plot_workloads(path: &Path, record: &Record) -> Result<(), String> {
    let results: Vec<&Figures> = record.results.iter().filter(|f| !f.hostile && !f.first_packets).collect();
    let bars = |name: &str, value: &dyn Fn(&Figures) -> Option<f64>| Bars {
        name: name.to_owned(),
        values: results.iter().map(|figures| value(figures)).collect(),
    };
    let all = [
        bars("weir", &|figures| Some(figures.pipeline_cycles)),
        bars("testpmd", &|figures| figures.peers.testpmd),
        bars("Open vSwitch", &|figures| figures.peers.ovs),
    ];
    let shown: Vec<Bars> = all.into_iter().filter(|bars| bars.values.iter().any(Option::is_some)).collect();
    let title = format!("Cycles a packet, {}-byte frames, one core", record.settings.frames);
    let groups = results.iter().map(|figures| figures.label()).collect();
    plot::bars(path, &BarPlot { title, y: "cycles a packet".to_owned(), groups }, &shown)
}
