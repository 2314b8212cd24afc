//! Keeps the house in order: which room may import which, where `unsafe` may stand, what the data plane may depend on.
//! Read from the sources, so that an import in the wrong direction fails here before it is reviewed.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Each room with the rooms that it may import. Every arrow points down; stages never import each other.
const ALLOWED: &[(&str, &[&str])] = &[
    ("frame", &[]),
    ("packet", &[]),
    ("io", &["frame", "packet"]),
    ("decision", &["packet"]),
    ("session", &["decision", "packet"]),
    ("service", &["session", "decision", "packet"]),
    ("l3", &["session", "decision", "packet", "frame"]),
    ("l2", &["session", "decision", "packet"]),
    ("overlay", &["session", "decision", "packet"]),
    ("flow", &["session", "decision", "packet", "frame"]),
    ("chain", &["service", "l3", "l2", "overlay", "flow", "session", "decision", "packet", "frame"]),
    (
        "snapshot",
        &["chain", "service", "l3", "l2", "overlay", "flow", "session", "decision", "io", "packet", "frame"],
    ),
    (
        "worker",
        &[
            "snapshot", "chain", "service", "l3", "l2", "overlay", "flow", "session", "decision", "io",
            "packet", "frame",
        ],
    ),
];

/// Rooms in which `unsafe` may stand.
const UNSAFE: &[&str] = &["frame", "io", "flow"];

/// What has no place in the data plane, by any path.
const FOREIGN: &[&str] =
    &["tokio", "serde_json", "hyper", "axum", "clap", "toml", "schemars", "kube", "reqwest"];

/// Longest file, in lines. The aim is 500; beyond this a file holds more than one thing.
const LONGEST: usize = 700;

#[test]
fn every_import_points_down() {
    let mut wrong = Vec::new();
    for file in sources() {
        let Some(room) = file.room() else { continue };
        let Some((_, allowed)) = ALLOWED.iter().find(|(name, _)| *name == room) else {
            wrong.push(format!("{}: the room `{room}` stands on no floor", file.path.display()));
            continue;
        };
        for imported in file.rooms_imported() {
            if imported != room && !allowed.contains(&imported.as_str()) {
                wrong.push(format!("{}: `{room}` imports `{imported}`", file.path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "imports in the wrong direction:\n{}", wrong.join("\n"));
}

#[test]
fn service_functions_do_not_know_each_other() {
    let folders: BTreeSet<String> =
        children(&source().join("service")).iter().filter_map(|path| stem(path)).collect();
    for file in sources().iter().filter(|file| file.room().as_deref() == Some("service")) {
        let own = file
            .path
            .strip_prefix(source().join("service"))
            .ok()
            .and_then(|path| stem(path.iter().next()?.as_ref()));
        let others = folders.iter().filter(|name| Some(*name) != own.as_ref() && *name != "mod");
        for other in others.filter(|_| own.as_deref() != Some("mod")) {
            let name = format!("service::{other}");
            assert!(!file.code.contains(&name), "{} knows {name}", file.path.display());
        }
    }
}

#[test]
fn unsafe_code_stands_only_where_memory_is_handled() {
    for file in sources() {
        let uses = words(&file.code).any(|word| word == "unsafe");
        let may = file.room().is_some_and(|room| UNSAFE.contains(&room.as_str()));
        assert!(!uses || may, "{} holds unsafe code", file.path.display());
    }
}

#[test]
fn the_data_plane_depends_on_nothing_that_serves_control() {
    let manifest = read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml"));
    let dependencies = manifest.split("[dev-dependencies]").next().unwrap_or_default();
    for name in FOREIGN {
        let depends = dependencies.lines().any(|line| line.split(['.', '=', ' ']).next() == Some(name));
        assert!(!depends, "the data plane depends on {name}");
    }
    for file in sources() {
        let foreign =
            words(&file.code).find(|word| FOREIGN.contains(word) && file.code.contains(&format!("{word}::")));
        assert!(foreign.is_none(), "{} uses {foreign:?}", file.path.display());
    }
}

#[test]
fn every_file_says_what_it_is_for_and_stays_readable() {
    for file in sources() {
        let opens = read(&file.path).starts_with("//!");
        assert!(opens, "{} does not open with what it is for", file.path.display());
    }
    for path in files(&source()) {
        let lines = read(&path).lines().count();
        assert!(lines <= LONGEST, "{} has {lines} lines", path.display());
    }
}

#[test]
fn this_test_sees_grouped_and_nested_imports_and_ignores_comments_and_tests() {
    let text = "//! crate::a\nuse crate::{b::X, c::{d, e}};\n// crate::f\nfn g() -> crate::h::I { \"crate::j\" }\n\
                pub(in crate::k) use self::l;\n#[cfg(test)]\nmod tests { use crate::m; }\n";
    let file = Source { path: source().join("worker/x.rs"), code: code(text) };
    assert_eq!(file.rooms_imported().into_iter().collect::<Vec<_>>(), ["b", "c", "h", "k"]);
    assert!(words(&code("let a = 'x'; /* unsafe */ unsafe {}")).any(|word| word == "unsafe"));
    assert!(
        !words(&code("#![allow(unsafe_code)] // unsafe\nlet s = \"unsafe\";")).any(|word| word == "unsafe")
    );
}

struct Source {
    path: PathBuf,
    code: String,
}

impl Source {
    /// The room: the first folder or file under `src`; none for `lib.rs`.
    fn room(&self) -> Option<String> {
        let inside = self.path.strip_prefix(source()).ok()?;
        stem(inside.iter().next()?.as_ref()).filter(|name| name != "lib")
    }

    fn rooms_imported(&self) -> BTreeSet<String> {
        let mut rooms = BTreeSet::new();
        for after in self.code.split("crate::").skip(1) {
            let heads = if let Some(group) = after.strip_prefix('{') {
                group_heads(group)
            } else {
                vec![first_word(after)]
            };
            rooms.extend(heads.into_iter().filter(|name| !name.is_empty()).map(str::to_owned));
        }
        rooms
    }
}

/// The first names of `{a::b, c::{d, e}}`, given what follows the opening brace.
fn group_heads(group: &str) -> Vec<&str> {
    let (mut depth, mut start, mut heads) = (0, 0, Vec::new());
    for (at, letter) in group.char_indices() {
        match letter {
            '{' => depth += 1,
            '}' if depth == 0 => {
                heads.push(first_word(&group[start..at]));
                break;
            }
            '}' => depth -= 1,
            ',' if depth == 0 => {
                heads.push(first_word(&group[start..at]));
                start = at + 1;
            }
            _ => {}
        }
    }
    heads
}

fn first_word(text: &str) -> &str {
    words(text).next().unwrap_or_default()
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|letter: char| !letter.is_alphanumeric() && letter != '_').filter(|word| !word.is_empty())
}

/// The text without comments, strings and what follows an inline test module.
fn code(text: &str) -> String {
    let text = text.find("#[cfg(test)]\nmod tests {").map_or(text, |end| &text[..end]);
    let mut kept = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(letter) = rest.chars().next() {
        let skip = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            rest.find("*/").map_or(rest.len(), |end| end + 2)
        } else if rest.starts_with("'\"'") {
            3
        } else if letter == '"' {
            string_length(rest)
        } else {
            kept.push(letter);
            letter.len_utf8()
        };
        rest = &rest[skip..];
    }
    kept
}

/// Bytes of the string literal that `text` begins with, quotes included.
fn string_length(text: &str) -> usize {
    let mut escaped = false;
    for (at, letter) in text.char_indices().skip(1) {
        match letter {
            '"' if !escaped => return at + 1,
            '\\' => escaped = !escaped,
            _ => escaped = false,
        }
    }
    text.len()
}

fn source() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

/// Every file but those that hold tests only.
fn sources() -> Vec<Source> {
    let is_test = |path: &PathBuf| {
        path.iter().filter_map(|part| part.to_str()).any(|part| part == "tests")
            || path.to_string_lossy().ends_with("tests.rs")
    };
    let files = files(&source());
    assert!(files.len() > 10, "the sources were not found");
    files
        .into_iter()
        .filter(|path| !is_test(path))
        .map(|path| Source { code: code(&read(&path)), path })
        .collect()
}

fn files(directory: &Path) -> Vec<PathBuf> {
    let (folders, files): (Vec<_>, Vec<_>) = children(directory).into_iter().partition(|path| path.is_dir());
    let below = folders.iter().flat_map(|folder| self::files(folder));
    below.chain(files.into_iter().filter(|path| path.extension().is_some_and(|end| end == "rs"))).collect()
}

fn children(directory: &Path) -> Vec<PathBuf> {
    std::fs::read_dir(directory)
        .map(|entries| entries.flatten().map(|entry| entry.path()).collect())
        .unwrap_or_default()
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

fn stem(path: &Path) -> Option<String> {
    Some(path.file_stem()?.to_str()?.to_owned())
}
