//! `weir show config`, `version` and `health`.

use serde_json::Value;

use crate::cli::table::{cell, items};

/// The configuration as it was written, in TOML again.
pub(super) fn config(answer: &Value) -> String {
    let head = format!("# generation {}, from {}\n", answer["generation"], cell(&answer["origin"]));
    let document = &answer["document"];
    match toml::to_string_pretty(document) {
        Ok(text) => format!("{head}\n{text}"),
        // JSON may hold what TOML cannot say, such as null.
        Err(_) => format!("{head}{}\n", serde_json::to_string_pretty(document).unwrap_or_default()),
    }
}

pub(super) fn version(answer: &Value) -> String {
    format!(
        "daemon:  weir {} (generation {}, pid {})\nprogram: weir {}\n",
        cell(&answer["version"]),
        answer["generation"],
        answer["pid"],
        env!("CARGO_PKG_VERSION")
    )
}

pub(super) fn health(answer: &Value) -> String {
    let mut text = format!("{} (generation {})\n", cell(&answer["status"]), answer["generation"]);
    for problem in items(&answer["problems"]) {
        text += &format!("  {}\n", cell(problem));
    }
    text
}
