//! The tables of `docs/configuration.md`.

use std::fmt::Write as _;

use super::{Key, Kind, Need, Rule, Table, tables};

/// The reference of all sections and keys, as Markdown.
pub fn reference() -> String {
    let mut out = String::new();
    for table in tables() {
        section(table, &mut out);
    }
    out
}

fn section(table: &Table, out: &mut String) {
    let title =
        if table.title.starts_with("the ") { "The file".to_owned() } else { format!("`{}`", table.title) };
    let _ = write!(out, "### {title}\n\n{}\n\n", table.doc);
    for rule in table.rules {
        if let Some(text) = describe(rule, table) {
            let _ = write!(out, "{text}\n\n");
        }
    }
    out.push_str("| key | takes | default | meaning |\n| --- | --- | --- | --- |\n");
    for key in table.keys {
        let _ = writeln!(
            out,
            "| `{}` | {} | {} | {} |",
            key.name,
            takes(&key.kind),
            default(key, table),
            escape(key.doc)
        );
    }
    out.push('\n');
}

fn list(keys: &[&str], word: &str) -> String {
    let quoted: Vec<_> = keys.iter().map(|key| format!("`{key}`")).collect();
    match quoted.split_last() {
        Some((last, [])) => last.clone(),
        Some((last, rest)) => format!("{} {word} {last}", rest.join(", ")),
        None => String::new(),
    }
}

pub(super) fn describe(rule: &Rule, table: &Table) -> Option<String> {
    let most = |keys: &[&str]| table.rules.iter().any(|r| matches!(r, Rule::AtMostOne(k) if *k == keys));
    let least = |keys: &[&str]| table.rules.iter().any(|r| matches!(r, Rule::AtLeastOne(k) if *k == keys));
    match rule {
        Rule::AtLeastOne(keys) if most(keys) => {
            Some(format!("Exactly one of {} is given.", list(keys, "and")))
        }
        Rule::AtLeastOne(keys) => Some(format!("At least one of {} is given.", list(keys, "and"))),
        Rule::AtMostOne(keys) if least(keys) => None,
        Rule::AtMostOne(keys) => Some(format!("At most one of {} is given.", list(keys, "and"))),
    }
}

pub(super) fn default(key: &Key, table: &Table) -> String {
    let grouped = table.rules.iter().any(|r| matches!(r, Rule::AtLeastOne(keys) if keys.contains(&key.name)));
    match key.need {
        Need::Required if grouped => "one of the group".to_owned(),
        Need::Required => "**required**".to_owned(),
        Need::Default(value) => format!("`{value}`"),
        Need::Optional(text) => escape(text),
    }
}

pub(super) fn takes(kind: &Kind) -> String {
    match kind {
        Kind::Integer { min, max: i64::MAX } => format!("an integer, at least {min}"),
        Kind::Table(table) | Kind::Named(_, table) | Kind::Records(table) => format!("`{}`", table.title),
        Kind::OneOrMany(of) if of.table().is_some() => format!("{}, or a list of those", takes(of)),
        Kind::List { of, .. } if of.table().is_some() => format!("a list of {}", takes(of)),
        Kind::Either(kinds) => kinds.iter().map(takes).collect::<Vec<_>>().join(", or "),
        Kind::OneOrMany(of) => format!("{}, or a list of those", takes(of)),
        other => escape(&other.describe()),
    }
}

/// Keeps `<name>` and `|` from being markup, outside code spans.
fn escape(text: &str) -> String {
    let parts = text.split('`').enumerate();
    let escaped = parts.map(|(index, part)| match index % 2 {
        0 => part.replace('<', "\\<").replace('|', "\\|"),
        _ => part.replace('|', "\\|"),
    });
    escaped.collect::<Vec<_>>().join("`")
}
