//! The preflight: looks at the machine, and at what a configuration asks of it, explains what it finds and says which
//! commands would change it. Changes nothing.

mod cores;
mod functions;
mod kernel;
mod links;
mod memory;
mod ports;

use serde::Serialize;
use weir_config::Config;

use crate::system::System;

/// How grave a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// As it should be.
    Good,
    /// Worth knowing.
    Note,
    /// weir runs, but slower, less steadily, or without something that was asked for.
    Warning,
    /// weir will not run like this.
    Problem,
}

impl Level {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Good => "good",
            Self::Note => "note",
            Self::Warning => "warning",
            Self::Problem => "problem",
        }
    }
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What it is about: `kernel`, `capabilities`, `memory`, `cores`, `port uplink`, ….
    pub about: String,
    /// How grave it is.
    pub level: Level,
    /// What was found, and what that means.
    pub text: String,
    /// Commands that would change it, in order; empty where none would.
    pub fix: Vec<String>,
}

/// Collects findings.
#[derive(Debug, Default)]
pub(crate) struct Findings(Vec<Finding>);

impl Findings {
    pub(crate) fn add(&mut self, about: &str, level: Level, text: impl Into<String>) {
        self.add_with(about, level, text, Vec::new());
    }

    pub(crate) fn add_with(&mut self, about: &str, level: Level, text: impl Into<String>, fix: Vec<String>) {
        self.0.push(Finding { about: about.to_owned(), level, text: text.into(), fix });
    }
}

/// Looks at everything. Without `config`, only at the machine.
pub fn examine(system: &System, config: Option<&Config>) -> Vec<Finding> {
    let mut findings = Findings::default();
    let defaults = Config::default();
    kernel::examine(system, &mut findings);
    memory::examine(system, config.unwrap_or(&defaults), &mut findings);
    let workers = cores::examine(system, config.unwrap_or(&defaults), &mut findings);
    if let Some(config) = config {
        ports::examine(system, config, &workers, &mut findings);
    }
    findings.0
}
