//! What was measured: as a record, as text, as plots.

use std::fmt::Write;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::peers::PeerFigure;
use crate::common::machine::Machine;
use crate::common::plot::{self, LinePlot, Series};
use crate::common::record::round;
use crate::common::stats::Summary;

/// A whole run.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) machine: Machine,
    pub(crate) tables: Vec<Table>,
    pub(crate) peers: Vec<PeerFigure>,
}

/// One table of one size.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Table {
    /// `fib`, `flow`, `rules`.
    pub(crate) table: String,
    /// What is the same for all its sizes: the family, the kind of rules.
    pub(crate) variant: String,
    /// Routes, flows or rules.
    pub(crate) size: usize,
    /// What the table was compiled into.
    pub(super) structure: String,
    /// Which pages it got.
    pub(super) pages: String,
    /// In memory.
    pub(crate) bytes: usize,
    /// Milliseconds to build it.
    pub(super) build_ms: f64,
    pub(crate) figures: Vec<Figure>,
}

/// One operation.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Figure {
    pub(crate) what: String,
    /// Ticks of the time-stamp counter an operation.
    pub(crate) cycles: Summary,
    /// Each repeat, in ticks an operation.
    pub(super) repeats: Vec<f64>,
}

impl Figure {
    /// Whether it changes the table.
    pub(crate) fn changes(&self) -> bool {
        ["add", "delete", "insert"].contains(&self.what.as_str())
    }

    /// Of repeats, the first of which warmed up.
    pub(super) fn new(what: &str, repeats: Vec<f64>) -> Self {
        let repeats: Vec<f64> = repeats.into_iter().skip(1).map(|ticks| round(ticks, 2)).collect();
        Self { what: what.into(), cycles: Summary::new(repeats.iter().copied()), repeats }
    }
}

impl Record {
    /// For people.
    pub(super) fn text(&self) -> String {
        let mut text = self.machine.describe();
        let _ = writeln!(text, "\n\ncycles an operation (median; least)\n");
        let mut heading = None;
        for table in &self.tables {
            if heading != Some((&table.table, &table.variant)) {
                heading = Some((&table.table, &table.variant));
                let _ = write!(text, "\n{:<22}", format!("{} {}", table.table, table.variant));
                for figure in &table.figures {
                    let _ = write!(text, "{:>18}", figure.what);
                }
                let _ = writeln!(text, "{:>10}{:>10}  structure, pages", "MB", "build ms");
            }
            let _ = write!(text, "{:>22}", table.size);
            for figure in &table.figures {
                let cell = format!("{:.1} ({:.1})", figure.cycles.median, figure.cycles.least);
                let _ = write!(text, "{cell:>18}");
            }
            let megabytes = table.bytes as f64 / 1e6;
            let _ = writeln!(
                text,
                "{megabytes:>10.2}{:>10.1}  {}, {}",
                table.build_ms, table.structure, table.pages
            );
        }
        let _ = writeln!(text, "\nchanges, millions a second");
        for table in self.tables.iter().filter(|table| table.figures.iter().any(Figure::changes)) {
            let _ = write!(text, "{:<12}{:>10}", format!("{} {}", table.table, table.variant), table.size);
            for figure in table.figures.iter().filter(|figure| figure.changes()) {
                let _ = write!(text, "  {} {:.2}", figure.what, self.millions_a_second(figure));
            }
            text.push('\n');
        }
        if !self.peers.is_empty() {
            let _ = writeln!(text, "\npeers, in the same run (each before and after)");
        }
        for peer in &self.peers {
            let runs: Vec<_> = peer.runs.iter().map(|run| format!("{run:.1}")).collect();
            let ratio = self.beside(peer).map_or(String::new(), |(ours, table)| {
                let size = table.size;
                format!("   weir, {} of {size}: {ours:.1} = {:.2} ×", table.variant, ours / peer.cycles)
            });
            let _ = writeln!(
                text,
                "{:<44}{:>10.1} cycles  ({}) {}{ratio}",
                format!("{}, {}, {}", peer.peer, peer.what, peer.size),
                peer.cycles,
                runs.join(", "),
                peer.note,
            );
        }
        text
    }

    /// How often a second an operation can be done.
    pub(crate) fn millions_a_second(&self, figure: &Figure) -> f64 {
        self.machine.tsc_ghz * 1e3 / figure.cycles.median
    }

    /// Our figure that a peer's is comparable to: of the table of the nearest size, by the ratio.
    pub(crate) fn beside(&self, peer: &PeerFigure) -> Option<(f64, &Table)> {
        let (table, variant, what) = peer.beside.as_ref()?;
        let of_kind = self.tables.iter().filter(|t| &t.table == table && t.variant.starts_with(&**variant));
        let ratio = |t: &&Table| (t.size.max(1) as f64 / peer.size.max(1) as f64).ln().abs();
        let nearest = of_kind.min_by(|a, b| ratio(a).total_cmp(&ratio(b)))?;
        let figure = nearest.figures.iter().find(|figure| &figure.what == what)?;
        Some((figure.cycles.median, nearest))
    }

    /// One plot for each kind of table into a folder: `tables-fib.svg` and so on.
    pub(super) fn plot(&self, folder: &Path) -> Result<(), String> {
        let mut kinds: Vec<&str> = self.tables.iter().map(|table| table.table.as_str()).collect();
        kinds.dedup();
        for kind in kinds {
            let mut series: Vec<Series> = Vec::new();
            for table in self.tables.iter().filter(|table| table.table == kind) {
                for figure in &table.figures {
                    let name = format!("{} {}", table.variant, figure.what);
                    let point = (table.size as f64, figure.cycles.median);
                    match series.iter_mut().find(|series| series.name == name) {
                        Some(known) => known.points.push(point),
                        None => series.push(Series { name, points: vec![point] }),
                    }
                }
            }
            // Changes cost some hundred times what look-ups do: they stand in the table.
            series.retain(|series| !["add", "delete", "insert"].iter().any(|w| series.name.ends_with(w)));
            let around = LinePlot {
                title: format!("{kind}: look-ups"),
                x: if kind == "fib" {
                    "routes"
                } else if kind == "flow" {
                    "flows"
                } else {
                    "rules"
                }
                .into(),
                y: "cycles a look-up".into(),
                log_x: true,
                log_y: true,
            };
            plot::lines(&folder.join(format!("tables-{kind}.svg")), &around, &series)?;
        }
        Ok(())
    }
}
