//! Golden tests: each `tests/diagnostics/<name>.toml` gives exactly the text in `<name>.txt`.
//!
//! `WEIR_BLESS=1 cargo test -p weir-config` writes the texts anew.

#![allow(clippy::unwrap_used, clippy::panic)] // Helpers of tests, outside test functions.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use weir_config::{CODES, Diagnostics, Severity, load_str, load_str_everywhere};

/// Codes that no short text can give: of the file system, of environment variables, of too many findings.
const ELSEWHERE: &[&str] = &["unreadable", "bad-route", "too-many", "does-not-fit"];

fn cases() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/diagnostics");
    let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "toml"));
    files.sort();
    files
}

fn run(file: &Path) -> Diagnostics {
    let name = file.file_name().unwrap().to_str().unwrap();
    // As `weir check` sees a file for many nodes.
    let load = if name.starts_with("everywhere") { load_str_everywhere } else { load_str };
    match load(name, &std::fs::read_to_string(file).unwrap()) {
        Ok(loaded) => Diagnostics(loaded.warnings),
        Err(diagnostics) => diagnostics,
    }
}

#[test]
fn every_finding_reads_as_it_is_written_down() {
    let bless = std::env::var_os("WEIR_BLESS").is_some();
    let mut wrong = Vec::new();
    for file in cases() {
        let actual = format!("{}\n", run(&file));
        let golden = file.with_extension("txt");
        if bless {
            std::fs::write(&golden, &actual).unwrap();
        }
        if std::fs::read_to_string(&golden).unwrap_or_default() != actual {
            wrong.push(format!("--- {} should be:\n{actual}", golden.display()));
        }
    }
    assert!(wrong.is_empty(), "{}\nregenerate with WEIR_BLESS=1 cargo test -p weir-config", wrong.join("\n"));
}

#[test]
fn every_code_is_shown_by_a_golden_test() {
    let shown: BTreeSet<_> = cases().iter().flat_map(|f| run(f).0).map(|d| d.code).collect();
    let missing: Vec<_> =
        CODES.iter().map(|code| code.name).filter(|c| !shown.contains(c) && !ELSEWHERE.contains(c)).collect();
    assert_eq!(missing, Vec::<&str>::new());
}

#[test]
fn every_finding_has_its_place_and_its_line() {
    for diagnostic in cases().iter().flat_map(|file| run(file).0) {
        assert!(diagnostic.line > 0 && diagnostic.column > 0, "{diagnostic}");
        assert!(diagnostic.excerpt.is_some(), "{diagnostic}");
        assert!(!diagnostic.message.ends_with('.'), "{diagnostic}");
        assert!(diagnostic.related.iter().all(|related| related.line > 0), "{diagnostic}");
    }
}

#[test]
fn warnings_alone_do_not_refuse_a_configuration() {
    let text = "[service.spare.firewall]\n";
    let loaded = load_str("spare.toml", text).unwrap();
    assert_eq!(loaded.warnings.len(), 1);
    assert_eq!(loaded.warnings[0].severity, Severity::Warning);
}
