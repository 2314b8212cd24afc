//! `weir schema`: the JSON Schema of the configuration.

use clap::Args;

use super::Output;

const EXAMPLES: &str =
    "Editors that know JSON Schema for TOML (taplo, for one) complete and check weir's files with it.

Example:
  weir schema > weir.schema.json";

/// Print the JSON Schema of the configuration file
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Schema {}

impl Schema {
    pub(super) fn execute(self) -> Output {
        Output::json(&weir_config::schema())
    }
}
