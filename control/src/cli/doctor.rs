//! `weir doctor`: what on this machine keeps weir from running, or from running well.

use std::path::PathBuf;

use clap::Args;
use serde_json::json;
use weir_dataplane::io::WITH_DPDK;

use super::node::NodeArguments;
use super::{Output, REFUSED, USAGE, check};
use crate::configuration;
use crate::devices;
use crate::doctor::{self, Finding, Level};
use crate::system::System;

const EXAMPLES: &str =
    "Nothing is changed: the commands that would help are printed. Without --config only the
machine is looked at, with it also the devices and cores that the file names.

Exit codes:
  0  weir can run; with --strict: and there is no warning
  1  something keeps weir from running (`problem`), or the file is not valid

Examples:
  sudo weir doctor --config /etc/weir/weir.toml
  weir doctor --json | jq '.findings[] | select(.level == \"warning\")'";

/// Look for what keeps weir from running, or from running well, and say what would help
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Doctor {
    /// The configuration (TOML) whose ports and cores are looked at
    #[arg(long, short, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The findings as JSON
    #[arg(long)]
    json: bool,
    /// Exit with 1 if there is a warning, too
    #[arg(long)]
    strict: bool,
    #[command(flatten)]
    node: NodeArguments,
}

impl Doctor {
    pub(super) fn execute(self) -> Output {
        let identity = match self.node.identity() {
            Ok(identity) => identity,
            Err(message) => return Output::failed(USAGE, format!("weir: {message}")),
        };
        let load = |file: PathBuf| configuration::from_file(&file, &identity);
        let mut config = match self.config.map(load).transpose() {
            Ok(loaded) => loaded.map(|loaded| loaded.config),
            Err(refusal) => return check::refused(&refusal),
        };
        let system = System::default();
        let resolve = |config| devices::resolve(config, |name| std::env::var(name).ok(), &system, WITH_DPDK);
        let unknown = config.as_mut().map_or(Ok(()), resolve).err().unwrap_or_default();
        let mut findings = doctor::examine(&system, config.as_ref());
        let problem = |text| Finding { about: "ports".into(), level: Level::Problem, text, fix: Vec::new() };
        findings.extend(unknown.into_iter().map(problem));
        let worst = findings.iter().map(|finding| finding.level).max().unwrap_or(Level::Good);
        let limit = if self.strict { Level::Warning } else { Level::Problem };
        let code = if worst >= limit { REFUSED } else { 0 };
        let output = if self.json {
            Output::json(&json!({ "worst": worst, "findings": findings }))
        } else {
            Output::done(text(&findings, worst))
        };
        Output { code, ..output }
    }
}

fn text(findings: &[Finding], worst: Level) -> String {
    let mut lines = Vec::new();
    for finding in findings {
        lines.push(format!("{:<8} {}: {}", finding.level.name(), finding.about, finding.text));
        lines.extend(finding.fix.iter().map(|command| format!("           {command}")));
    }
    lines.push(String::new());
    lines.push(match worst {
        Level::Problem => "weir will not run like this".to_owned(),
        Level::Warning => "weir runs; the warnings cost speed or steadiness".to_owned(),
        Level::Good | Level::Note => "weir can run".to_owned(),
    });
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_that_help_stand_below_what_they_help_against() {
        let finding = Finding {
            about: "memory".into(),
            level: Level::Warning,
            text: "0 of 0 huge pages".into(),
            fix: vec!["sysctl -w vm.nr_hugepages=16".into()],
        };
        assert_eq!(
            text(&[finding], Level::Warning),
            "warning  memory: 0 of 0 huge pages\n           sysctl -w vm.nr_hugepages=16\n\n\
             weir runs; the warnings cost speed or steadiness"
        );
    }
}
