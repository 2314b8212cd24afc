//! Writes records' figures into the pages that show them, between markers, so that nobody copies figures by hand.
//!
//! ```text
//! <!-- weir-bench report: summary -->      or `figures`: every column; `tables`; `dpdk`; `wire`
//! …
//! <!-- end of report -->
//! ```

mod dpdk;
mod pipeline;
mod tables;
mod wire;

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use crate::common::machine::Machine;
use crate::common::record;

const BEGIN: &str = "<!-- weir-bench report: ";
const END: &str = "<!-- end of report -->";

/// Write records' figures into Markdown pages, between their markers
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Args {
    /// The folder of the records pipeline.json, tables.json, dpdk.json and wire.json; those that no page shows need not be there
    #[arg(long, value_name = "FOLDER")]
    from: PathBuf,
    /// The pages
    #[arg(required = true, value_name = "PAGE")]
    pages: Vec<PathBuf>,
}

/// Rewrites the pages.
pub(crate) fn run(args: &Args) -> Result<(), String> {
    for path in &args.pages {
        let failed = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
        let page = std::fs::read_to_string(path).map_err(|error| failed(&error))?;
        let page = filled(&page, &args.from).map_err(|error| failed(&error))?;
        std::fs::write(path, page).map_err(|error| failed(&error))?;
    }
    Ok(())
}

/// The page with its sections generated anew from the records in a folder.
fn filled(page: &str, from: &Path) -> Result<String, String> {
    let (mut text, mut rest) = (String::new(), page);
    while let Some((before, behind)) = rest.split_once(BEGIN) {
        let (kind, behind) = behind.split_once(" -->\n").ok_or("a marker does not end")?;
        let (_, behind) = behind.split_once(END).ok_or_else(|| format!("{END} is missing"))?;
        let section = section(kind, from)?;
        let _ = write!(text, "{before}{BEGIN}{kind} -->\n{section}{END}");
        rest = behind;
    }
    if text.is_empty() {
        return Err(format!("it has no marker {BEGIN}…"));
    }
    Ok(text + rest)
}

fn section(kind: &str, from: &Path) -> Result<String, String> {
    match kind {
        "summary" => Ok(pipeline::summary(&record::read(&from.join("pipeline.json"))?)),
        "figures" => Ok(pipeline::figures(&record::read(&from.join("pipeline.json"))?)),
        "tables" => Ok(tables::figures(&record::read(&from.join("tables.json"))?)),
        "dpdk" => Ok(dpdk::figures(&record::read(&from.join("dpdk.json"))?)),
        "wire" => Ok(wire::figures(&record::read(&from.join("wire.json"))?)),
        _ => Err(format!("there is no report {kind:?}: it is summary, figures, tables, dpdk or wire")),
    }
}

/// When, of which code, how to tell whether that is today's, and on which machine.
fn origin(machine: &Machine) -> String {
    format!(
        "{}, commit {} (`git diff --stat {} -- dataplane config bench` lists what has changed since): {} ({} cores), time-stamp counter {:.3} GHz, Linux {}, load {}, {}",
        machine.date.split('T').next().unwrap_or_default(),
        machine.short_commit(),
        machine.commit.get(..12).unwrap_or(&machine.commit),
        machine.cpu,
        machine.cpus,
        machine.tsc_ghz,
        machine.kernel,
        machine.load,
        machine.flags.join(", "),
    )
}

fn number(value: Option<f64>, digits: usize) -> String {
    value.map_or("–".to_owned(), |value| format!("{value:.digits$}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn root() -> PathBuf {
        PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..")
    }

    fn records() -> PathBuf {
        root().join("docs/benchmarks")
    }

    #[test]
    fn the_pages_show_what_the_checked_in_records_say() {
        for page in ["README.md", "docs/benchmarking.md"] {
            let text = std::fs::read_to_string(root().join(page)).unwrap();
            let generated = filled(&text, &records()).unwrap();
            assert!(
                text == generated,
                "{page} has other figures than the records in docs/benchmarks; `make bench-pages` writes them"
            );
        }
    }

    #[test]
    fn only_what_is_between_the_markers_changes() {
        let page =
            format!("before\n{BEGIN}summary -->\nold\n{END}\nbetween\n{BEGIN}figures -->\n{END}\nafter\n");
        let text = filled(&page, &records()).unwrap();
        assert!(text.starts_with("before\n") && text.ends_with("\nafter\n") && text.contains("\nbetween\n"));
        assert!(!text.contains("\nold\n"));
        assert_eq!(filled(&text, &records()).unwrap(), text);
    }

    #[test]
    fn every_result_has_its_line() {
        let rows = |text: &str| text.lines().filter(|line| line.starts_with("| ")).count();
        let record: crate::pipeline::report::Record = record::read(&records().join("pipeline.json")).unwrap();
        let good = record.results.iter().filter(|figures| !figures.hostile).count();
        assert_eq!(rows(&pipeline::summary(&record)), 2 + good);
        assert_eq!(rows(&pipeline::figures(&record)), 2 + record.results.len());
        let record: crate::dpdk::Record = record::read(&records().join("dpdk.json")).unwrap();
        let cases = record.results.iter().filter(|line| line.program == "weir").count();
        assert_eq!(rows(&dpdk::figures(&record)), 2 + cases);
        let record: crate::tables::report::Record = record::read(&records().join("tables.json")).unwrap();
        let shown =
            record.tables.iter().filter(|t| t.table != "rules" || t.variant.starts_with("acl")).count();
        assert_eq!(rows(&tables::figures(&record)), 4 * 2 + shown + record.peers.len());
    }

    #[test]
    fn a_page_without_markers_is_refused() {
        let refused = |page: &str| filled(page, &records()).unwrap_err();
        assert!(refused("nothing\n").contains("no marker"));
        assert!(refused(&format!("{BEGIN}summary -->\n")).contains("missing"));
        assert!(refused(&format!("{BEGIN}poem -->\n{END}")).contains("poem"));
        let nowhere = filled(&format!("{BEGIN}wire -->\n{END}"), Path::new("/nowhere")).unwrap_err();
        assert!(nowhere.contains("/nowhere/wire.json"), "{nowhere}");
    }
}
