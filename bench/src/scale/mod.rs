//! What a packet costs as the work grows: more flows, routes, rules, hops of a chain, packets in a burst, workers.

mod axes;
mod bed;

use std::fmt::Write;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::common::machine::Machine;
use crate::common::plot::{self, LinePlot, Series};
use crate::common::record::{self, round};
use crate::common::stats::Summary;
use crate::common::{clock, pin};

/// Measure what a packet costs as the work grows
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Args {
    /// What grows
    #[arg(long, value_enum, value_delimiter = ',', default_value = "all")]
    axis: Vec<Wanted>,
    /// Fewer and smaller sizes, fewer repeats: under half a minute
    #[arg(long)]
    quick: bool,
    /// The core to run on [default: the last one of the affinity mask]
    #[arg(long, value_name = "N")]
    core: Option<usize>,
    /// Write the record: machine, commit, every repeat; to standard output, and nothing else there, without FILE
    #[arg(long, value_name = "FILE", num_args = 0..=1)]
    json: Option<Option<PathBuf>>,
    /// Draw one plot for each axis into this folder
    #[arg(long, value_name = "FOLDER")]
    plots: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Wanted {
    /// Flows, 1 to 10 M
    Flows,
    /// Routes, 1 to 1 M
    Routes,
    /// Firewall rules, 1 to 100 k
    Rules,
    /// Service functions in a chain, 0 to 16
    Chain,
    /// Packets in a burst, 1 to 64
    Burst,
    /// Workers, 1 to as many as there are cores
    Workers,
    /// All of them
    All,
}

/// What grows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Axis {
    Flows,
    Routes,
    Rules,
    Chain,
    Burst,
    Workers,
}

impl Axis {
    const ALL: [(Self, Wanted); 6] = [
        (Self::Flows, Wanted::Flows),
        (Self::Routes, Wanted::Routes),
        (Self::Rules, Wanted::Rules),
        (Self::Chain, Wanted::Chain),
        (Self::Burst, Wanted::Burst),
        (Self::Workers, Wanted::Workers),
    ];

    const fn name(self) -> &'static str {
        match self {
            Self::Flows => "flows",
            Self::Routes => "routes",
            Self::Rules => "rules",
            Self::Chain => "chain",
            Self::Burst => "burst",
            Self::Workers => "workers",
        }
    }

    /// In words, for the axis of a plot.
    const fn title(self) -> &'static str {
        match self {
            Self::Flows => "flows",
            Self::Routes => "routes",
            Self::Rules => "firewall rules",
            Self::Chain => "service functions in the chain",
            Self::Burst => "packets in a burst",
            Self::Workers => "workers",
        }
    }

    fn sizes(self, quick: bool, cores: usize) -> Vec<usize> {
        let all: &[usize] = match self {
            Self::Flows => &[1, 10, 100, 1_000, 10_000, 100_000, 1_000_000, 10_000_000],
            Self::Routes => &[1, 10, 100, 1_000, 10_000, 100_000, 1_000_000],
            Self::Rules => &[1, 10, 100, 1_000, 10_000, 100_000],
            Self::Chain => &[0, 1, 2, 4, 8, 16],
            Self::Burst => &[1, 2, 4, 8, 16, 32, 64],
            Self::Workers => return (1..=cores.max(1)).collect(),
        };
        let most = if quick { 10_000 } else { usize::MAX };
        all.iter().copied().filter(|size| *size <= most).collect()
    }

    fn log_x(self) -> bool {
        !matches!(self, Self::Chain | Self::Workers)
    }
}

/// How much is measured.
#[derive(Debug)]
struct Effort {
    repeats: usize,
    /// Packets in a repeat.
    packets: usize,
    /// The same where each begins a flow.
    firsts: usize,
    cores: Vec<usize>,
}

impl Effort {
    /// Flows for all repeats of first packets, and one to warm up.
    fn new_flows(&self) -> usize {
        (self.repeats + 1) * self.firsts
    }
}

/// A whole run.
#[derive(Debug, Serialize)]
struct Record {
    machine: Machine,
    lines: Vec<Line>,
}

/// One series of one axis.
#[derive(Debug, Serialize)]
struct Line {
    axis: Axis,
    series: String,
    points: Vec<Point>,
}

#[derive(Debug, Serialize)]
struct Point {
    size: usize,
    /// Ticks of the time-stamp counter a packet, source and sink subtracted.
    cycles: Summary,
    /// Source and sink alone.
    null_cycles: f64,
    ns: f64,
    /// Each repeat, source and sink subtracted.
    repeats: Vec<f64>,
}

impl Point {
    fn new(size: usize, costs: &[bed::Cost]) -> Self {
        // A disturbed repeat of the null pipeline does not make the engine look fast.
        let null = Summary::new(costs.iter().map(|cost| cost.null)).median;
        let repeats: Vec<f64> = costs.iter().map(|cost| round(cost.whole - null, 2)).collect();
        let cycles = Summary::new(repeats.iter().copied());
        let ns = round(cycles.median / clock::ticks_per_ns(), 2);
        Self { size, cycles, null_cycles: round(null, 2), ns, repeats }
    }
}

/// Measures and prints.
pub(crate) fn run(args: &Args) -> Result<(), String> {
    let cores = core_affinity::get_core_ids().unwrap_or_default().iter().map(|core| core.id).collect();
    let machine = Machine::probe(Some(pin::pin(args.core)?));
    let effort = if args.quick {
        Effort { repeats: 5, packets: 1 << 15, firsts: 1 << 12, cores }
    } else {
        Effort { repeats: 11, packets: 1 << 18, firsts: 1 << 14, cores }
    };
    let pool = bed::pool()?;
    let mut lines: Vec<Line> = Vec::new();
    for (axis, wanted) in Axis::ALL {
        if !args.axis.iter().any(|chosen| *chosen == wanted || *chosen == Wanted::All) {
            continue;
        }
        for size in axis.sizes(args.quick, effort.cores.len()) {
            let measured = axes::measure(axis, size, &effort, &pool);
            for (series, costs) in measured.map_err(|error| format!("{} {size}: {error}", axis.name()))? {
                let point = Point::new(size, &costs);
                match lines.iter_mut().find(|line| line.axis == axis && line.series == series) {
                    Some(line) => line.points.push(point),
                    None => lines.push(Line { axis, series: series.into(), points: vec![point] }),
                }
            }
        }
    }
    let result = Record { machine, lines };
    if let Some(folder) = &args.plots {
        result.plot(folder)?;
    }
    if record::save(args.json.as_ref(), &result)? { Ok(()) } else { record::say(&result.text()) }
}

impl Record {
    fn text(&self) -> String {
        let mut text = self.machine.describe();
        text += "\n\ncycles a packet of 64 bytes, source and sink subtracted: median, quartiles, least; nanoseconds\n";
        let mut axis = None;
        for line in &self.lines {
            if axis != Some(line.axis) {
                axis = Some(line.axis);
                let _ = writeln!(text, "\n{}", line.axis.title());
            }
            let _ = writeln!(text, "  {}", line.series);
            for point in &line.points {
                let cycles = &point.cycles;
                let _ = writeln!(
                    text,
                    "{:>12}{:>10.1}{:>18}{:>10.1}{:>10.1} ns",
                    point.size,
                    cycles.median,
                    format!("{:.1}–{:.1}", cycles.lower_quartile, cycles.upper_quartile),
                    cycles.least,
                    point.ns,
                );
            }
        }
        text
    }

    fn plot(&self, folder: &Path) -> Result<(), String> {
        std::fs::create_dir_all(folder)
            .map_err(|error| format!("cannot make {}: {error}", folder.display()))?;
        for (axis, _) in Axis::ALL {
            let of_axis = self.lines.iter().filter(|line| line.axis == axis);
            let series: Vec<Series> = of_axis
                .map(|line| Series {
                    name: line.series.clone(),
                    points: line.points.iter().map(|p| (p.size as f64, p.cycles.median)).collect(),
                })
                .collect();
            if series.is_empty() {
                continue;
            }
            let around = LinePlot {
                title: format!("What a packet costs by number of {}", axis.title()),
                x: axis.title().into(),
                y: "cycles a packet".into(),
                log_x: axis.log_x(),
                log_y: series.len() > 1 && matches!(axis, Axis::Rules | Axis::Chain),
            };
            plot::lines(&folder.join(format!("scale-{}.svg", axis.name())), &around, &series)?;
        }
        Ok(())
    }
}
