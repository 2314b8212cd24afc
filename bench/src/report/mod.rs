//! Writes a record's figures into the pages that show them, between markers, so that nobody copies figures by hand.
//!
//! ```text
//! <!-- weir-bench report: summary -->      or `figures`: every column
//! …
//! <!-- end of report -->
//! ```

use std::fmt::Write as _;
use std::path::PathBuf;

use crate::common::record;
use crate::common::stats::median;
use crate::pipeline::report::{Figures, Record};

const BEGIN: &str = "<!-- weir-bench report: ";
const END: &str = "<!-- end of report -->";

/// Write a record's figures into Markdown pages, between their markers
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Args {
    /// The record that `weir-bench pipeline --json` wrote
    #[arg(long, value_name = "FILE")]
    json: PathBuf,
    /// The pages
    #[arg(required = true, value_name = "PAGE")]
    pages: Vec<PathBuf>,
}

/// Rewrites the pages.
pub(crate) fn run(args: &Args) -> Result<(), String> {
    let figures: Record = record::read(&args.json)?;
    for path in &args.pages {
        let failed = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
        let page = std::fs::read_to_string(path).map_err(|error| failed(&error))?;
        let page = filled(&page, &figures).map_err(|error| failed(&error))?;
        std::fs::write(path, page).map_err(|error| failed(&error))?;
    }
    Ok(())
}

/// The page with its sections generated anew.
fn filled(page: &str, record: &Record) -> Result<String, String> {
    let (mut text, mut rest) = (String::new(), page);
    while let Some((before, behind)) = rest.split_once(BEGIN) {
        let (kind, behind) = behind.split_once(" -->\n").ok_or("a marker does not end")?;
        let (_, behind) = behind.split_once(END).ok_or_else(|| format!("{END} is missing"))?;
        let section = match kind {
            "summary" => summary(record),
            "figures" => figures(record),
            _ => return Err(format!("there is no report {kind:?}: it is summary or figures")),
        };
        let _ = write!(text, "{before}{BEGIN}{kind} -->\n{section}{END}");
        rest = behind;
    }
    if text.is_empty() {
        return Err(format!("it has no marker {BEGIN}…"));
    }
    Ok(text + rest)
}

/// Where the figures come from.
fn origin(record: &Record) -> String {
    let (machine, settings) = (&record.machine, &record.settings);
    let day = machine.date.split('T').next().unwrap_or_default();
    let t0 = match record.t0_cycles {
        Some(t0) => {
            let median = median(record.t0_repeats.iter().copied());
            format!("; T0, DPDK's `testpmd io`, cost {t0:.1} cycles in the same run (median {median:.1})")
        }
        None => String::new(),
    };
    format!(
        "{day}, commit {}: {} ({} cores, one used), time-stamp counter {:.3} GHz, Linux {}, load {}, {}; {}-byte frames \
         in {} pages, {} repeats{t0}.\n",
        machine.short_commit(),
        machine.cpu,
        machine.cpus,
        machine.tsc_ghz,
        machine.kernel,
        machine.load,
        machine.flags.join(", "),
        settings.frames,
        settings.frame_pages,
        settings.repeats,
    )
}

fn number(value: Option<f64>, digits: usize) -> String {
    value.map_or("–".to_owned(), |value| format!("{value:.digits$}"))
}

/// How many times as long the peer takes.
fn times(figures: &Figures, peer: Option<f64>) -> String {
    peer.map_or("–".to_owned(), |peer| format!("{:.1}×", peer / figures.pipeline_cycles))
}

/// For whoever wants to know roughly.
fn summary(record: &Record) -> String {
    let mut text = String::from(
        "\n| | what the engine does | cycles a packet | ns | million packets a second | ÷ T0 | Open vSwitch takes |\n\
         | --- | --- | ---: | ---: | ---: | ---: | ---: |\n",
    );
    for figures in record.results.iter().filter(|figures| !figures.hostile) {
        let burst = if figures.burst == 1 { ", one packet at a time" } else { "" };
        let _ = writeln!(
            text,
            "| {} | {}{burst} | {:.0} | {:.1} | {:.1} | {} | {} |",
            figures.workload,
            figures.title,
            figures.pipeline_cycles,
            figures.ns,
            1_000.0 / figures.ns,
            number(figures.ratio_t0, 2),
            times(figures, figures.peers.ovs),
        );
    }
    let _ = write!(text, "\n{}\n", origin(record));
    text
}

/// Everything.
fn figures(record: &Record) -> String {
    let mut text = format!("\n{}\n", origin(record));
    text.push_str(
        "| workload | what it is | flows, order | burst | cycles | ns | spread | mean | null | ÷ T0 | aim | testpmd | Open vSwitch |\n\
         | --- | --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |\n",
    );
    for figures in &record.results {
        let _ = writeln!(
            text,
            "| {}{} | {} | {}, {} | {} | {:.1} | {:.2} | {:.1} % | {:.1} | {:.1} | {} | {} | {} | {} |",
            figures.workload,
            if figures.hostile { " hostile" } else { "" },
            figures.title,
            figures.flows,
            figures.order,
            figures.burst,
            figures.pipeline_cycles,
            figures.ns,
            figures.spread * 100.0,
            figures.mean_cycles,
            figures.null_cycles,
            number(figures.ratio_t0, 2),
            number(figures.aim_cycles.filter(|_| !figures.hostile), 0),
            number(figures.peers.testpmd, 1),
            number(figures.peers.ovs, 1),
        );
    }
    text.push('\n');
    for first in record.results.iter().filter(|figures| figures.first_packets) {
        let _ = writeln!(text, "{}: {:.2} million new flows a second.\n", first.title, 1_000.0 / first.ns);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked_in() -> (PathBuf, Record) {
        let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..");
        let record = record::read(&root.join("docs/benchmarks/pipeline.json")).unwrap();
        (root, record)
    }

    #[test]
    fn the_pages_show_what_the_checked_in_record_says() {
        let (root, record) = checked_in();
        for page in ["README.md", "docs/benchmarking.md"] {
            let text = std::fs::read_to_string(root.join(page)).unwrap();
            let generated = filled(&text, &record).unwrap();
            assert!(
                text == generated,
                "{page} has other figures than docs/benchmarks/pipeline.json; `make bench-pages` writes them"
            );
        }
    }

    #[test]
    fn only_what_is_between_the_markers_changes() {
        let (_, record) = checked_in();
        let page =
            format!("before\n{BEGIN}summary -->\nold\n{END}\nbetween\n{BEGIN}figures -->\n{END}\nafter\n");
        let text = filled(&page, &record).unwrap();
        assert!(text.starts_with("before\n") && text.ends_with("\nafter\n") && text.contains("\nbetween\n"));
        assert!(!text.contains("\nold\n"));
        assert_eq!(filled(&text, &record).unwrap(), text);
        let rows = |text: &str| text.lines().filter(|line| line.starts_with("| ")).count();
        let good = record.results.iter().filter(|figures| !figures.hostile).count();
        assert_eq!(rows(&text), 4 + good + record.results.len());
    }

    #[test]
    fn a_page_without_markers_is_refused() {
        let (_, record) = checked_in();
        assert!(filled("nothing\n", &record).is_err());
        assert!(filled(&format!("{BEGIN}summary -->\n"), &record).unwrap_err().contains("missing"));
        assert!(filled(&format!("{BEGIN}poem -->\n{END}"), &record).unwrap_err().contains("poem"));
    }
}
