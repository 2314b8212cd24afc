//! `weir check`: validates a file and touches nothing else.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use serde_json::json;

use super::node::NodeArguments;
use super::{Output, REFUSED, USAGE};
use crate::configuration::{self, Loaded, Refusal};
use crate::daemon::Told;

const EXAMPLES: &str =
    "Every error is reported at once, as `file:line:column: error[code]: text` with the source line.
No device is touched and no daemon is asked. A file with `[node]` sections is checked as every node
that has one sees it, or as the one that is named.

Examples:
  weir check /etc/weir/weir.toml
  weir check --node worker-1 /etc/weir/weir.toml
  weir check --format json weir.toml | jq '.diagnostics[].code'";

/// Check a configuration file: exit 0 if it is valid, 1 if not
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Check {
    /// The configuration (TOML)
    file: PathBuf,
    /// Text for people, or JSON for programs
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
    #[command(flatten)]
    node: NodeArguments,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Format {
    Text,
    Json,
}

impl Check {
    pub(super) fn execute(self) -> Output {
        let result = match self.node.identity() {
            Ok(identity) if identity.is_unknown() => configuration::from_file_everywhere(&self.file),
            Ok(identity) => configuration::from_file(&self.file, &identity),
            Err(message) => return Output::failed(USAGE, format!("weir: {message}")),
        };
        match self.format {
            Format::Text => text(result),
            Format::Json => json(result),
        }
    }
}

fn text(result: Result<Loaded, Refusal>) -> Output {
    match result {
        Ok(loaded) => {
            let warnings: Vec<String> = loaded.warnings.iter().map(ToString::to_string).collect();
            let stdout = format!("{}: valid", loaded.origin);
            Output { stdout, stderr: warnings.join("\n"), code: 0 }
        }
        Err(refusal) => refused(&refusal),
    }
}

/// Every diagnostic, then the summary.
pub(super) fn refused(refusal: &Refusal) -> Output {
    let mut lines: Vec<String> = refusal.diagnostics.iter().map(ToString::to_string).collect();
    lines.push(format!("weir: {refusal}"));
    Output::failed(REFUSED, lines.join("\n"))
}

fn json(result: Result<Loaded, Refusal>) -> Output {
    let told = |all: Vec<weir_config::Diagnostic>| all.into_iter().map(Told::from).collect::<Vec<_>>();
    match result {
        Ok(loaded) => Output::json(&json!({ "valid": true, "diagnostics": told(loaded.warnings) })),
        Err(refusal) => {
            let value = json!({
                "valid": false,
                "code": refusal.code,
                "message": refusal.message,
                "diagnostics": told(refusal.diagnostics),
            });
            Output { code: REFUSED, ..Output::json(&value) }
        }
    }
}
