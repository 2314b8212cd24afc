//! `docs/counters.md` is in step with the code: every counter and every drop reason, in the code's own words.
//!
//! `WEIR_BLESS=1 cargo test -p weir-dataplane --test counters_page` writes it anew.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

use std::fmt::Write;
use std::path::Path;

use weir_dataplane::decision::DropReason;

/// The status types, as they are written: their documentation is that of the page.
const STATUS: &str = include_str!("../src/worker/status.rs");

const HEAD: &str = "\
# Counters and drop reasons

<!-- Written by `WEIR_BLESS=1 cargo test -p weir-dataplane --test counters_page`; edit the sources, not this page. -->

`weir show counters` prints them, `weir show drops --all` every drop reason, `/metrics` of the control socket the same for Prometheus, and
`--json` the same for programs. Names are the same everywhere; counters start at zero with the process and only grow, gauges (\"now\") do not.
Those of a port and its queues start anew when its device is opened again.

## Every packet ends once

    received + originated + handed in
      = transmitted + dropped (all reasons) + punted + consumed + handed out + held

This holds exactly, for each worker and for their sum, whenever the worker is between bursts. `weir show counters` adds both sides up and says
whether they are equal. While packets flow the numbers of one burst may be half counted when they are read; at rest a difference is a defect.

";

/// One type of the page: title, name in the source, how it is reached.
const TYPES: [(&str, &str, &str); 4] = [
    (
        "Packets",
        "Counters",
        "`weir show counters`; `weir_packets_in_total{source}`, `weir_packets_total{verdict}`",
    ),
    ("Ports", "PortStatus", "`weir show ports`; `weir_port_*{port}`"),
    ("Queues", "QueueStatus", "`weir show ports`; `weir_port_*_total{port,queue}`"),
    ("Workers", "WorkerStatus", "`weir show workers`; `weir_worker_*`"),
];

/// (field, documentation) of a struct of `worker/status.rs`.
fn fields(name: &str) -> Vec<(&'static str, String)> {
    let (_, rest) = STATUS.split_once(&format!("pub struct {name} {{\n")).expect("a status type");
    let (body, _) = rest.split_once("\n}").expect("its end");
    let mut fields = Vec::new();
    let mut text = String::new();
    for line in body.lines().map(str::trim) {
        if let Some(doc) = line.strip_prefix("/// ") {
            let space = if text.is_empty() { "" } else { " " };
            let _ = write!(text, "{space}{doc}");
        } else if let Some((field, _)) = line.strip_prefix("pub ").and_then(|line| line.split_once(':')) {
            fields.push((field, std::mem::take(&mut text)));
        }
    }
    fields
}

fn page() -> String {
    let mut page = HEAD.to_owned();
    for (title, name, reached) in TYPES {
        let _ = write!(page, "## {title}\n\n{reached}\n\n| name | meaning |\n| --- | --- |\n");
        for (field, text) in fields(name) {
            let _ = writeln!(page, "| `{field}` | {text} |");
        }
        page.push('\n');
    }
    page += "## Drop reasons\n\n`weir show drops`; `weir_dropped_packets_total{reason}`. A packet is dropped for exactly one reason.\n\n";
    page += "| reason | a packet was |\n| --- | --- |\n";
    for reason in DropReason::ALL {
        let _ = writeln!(page, "| `{}` | {} |", reason.name(), reason.describe());
    }
    page
}

#[test]
fn the_page_of_counters_is_in_step() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/counters.md");
    if std::env::var_os("WEIR_BLESS").is_some() {
        std::fs::write(&path, page()).unwrap();
    }
    let actual = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        actual == page(),
        "docs/counters.md is out of step with the code.\n\
         Regenerate it: WEIR_BLESS=1 cargo test -p weir-dataplane --test counters_page"
    );
}

#[test]
fn every_counter_and_every_reason_says_what_it_means() {
    for (_, name, _) in TYPES {
        for (field, text) in fields(name) {
            assert!(!text.is_empty(), "{name}::{field} has no documentation");
        }
    }
    let mut names: Vec<&str> = DropReason::ALL.iter().map(|reason| reason.name()).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), DropReason::COUNT, "two reasons have one name");
    let bad = |name: &&str| !name.chars().all(|c| c.is_ascii_lowercase() || c == '_');
    assert_eq!(names.iter().find(|name| bad(name)), None);
}

/// Every page of the documentation is listed in its index, and every link within the documentation leads somewhere.
#[test]
fn the_index_lists_every_page_and_no_link_is_dead() {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs");
    let index = std::fs::read_to_string(docs.join("README.md")).unwrap();
    for folder in ["", "decisions"] {
        let Ok(files) = std::fs::read_dir(docs.join(folder)) else { continue };
        for file in files {
            let name = file.unwrap().file_name().into_string().unwrap();
            let link = if folder.is_empty() { name.clone() } else { format!("{folder}/{name}") };
            if !name.ends_with(".md") || link == "README.md" {
                continue;
            }
            assert!(index.contains(&format!("({link})")), "docs/README.md does not list {link}");
            let text = std::fs::read_to_string(docs.join(&link)).unwrap();
            for target in text.split("](").skip(1).filter_map(|rest| rest.split([')', '#']).next()) {
                if target.is_empty() || target.contains("://") || target.contains(' ') {
                    continue;
                }
                assert!(docs.join(folder).join(target).exists(), "docs/{link} links to {target}");
            }
        }
    }
}
