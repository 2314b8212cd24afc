//! `weir apply`: gives the daemon a configuration.

use std::path::PathBuf;

use clap::Args;
use hyper::Method;
use serde_json::Value;

use super::{Output, SocketArgument, check};
use crate::client::{self, Payload};
use crate::configuration;

const EXAMPLES: &str =
    "The file is checked here first, then by the daemon; if either refuses it, nothing changes. The
daemon does not remember the file: `weir reload` and SIGHUP go back to what `weir run` was started
with.

Examples:
  weir apply --dry-run weir.toml
  weir apply weir.toml
  weir apply --json weir.toml | jq .generation";

/// Give the running weir a configuration, or show what it would change
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Apply {
    /// The configuration (TOML)
    file: PathBuf,
    /// Only show the differences to the running configuration
    #[arg(long)]
    dry_run: bool,
    /// The daemon's answer as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    socket: SocketArgument,
}

impl Apply {
    pub(super) fn execute(self) -> Output {
        let text = match configuration::read(&self.file) {
            Ok(text) => text,
            Err(refusal) => return check::refused(&refusal),
        };
        let name =
            std::path::absolute(&self.file).unwrap_or_else(|_| self.file.clone()).display().to_string();
        if let Err(refusal) = configuration::from_toml_everywhere(&self.file.display().to_string(), &text) {
            let output = check::refused(&refusal);
            return Output { stderr: output.stderr + "; nothing was changed", ..output };
        }
        let path = format!("/v1/config?dry-run={}&name={}", self.dry_run, encode(&name));
        let payload = Payload { content_type: "application/toml", text };
        match client::request(&self.socket.socket, Method::PUT, &path, Some(payload)) {
            Ok(answer) if self.json => Output::json(&answer),
            Ok(answer) => outcome(&answer),
            Err(error) => error.into(),
        }
    }
}

/// The outcome of a change in words.
pub(super) fn outcome(answer: &Value) -> Output {
    let texts = |name: &str| -> Vec<String> {
        let all = answer[name].as_array().map(Vec::as_slice).unwrap_or_default();
        all.iter().filter_map(|item| item["text"].as_str()).map(str::to_owned).collect()
    };
    let mut lines = texts("changes");
    let count = match lines.len() {
        0 => "no changes".to_owned(),
        1 => "1 change".to_owned(),
        more => format!("{more} changes"),
    };
    let generation = &answer["generation"];
    lines.push(if answer["dry_run"] == true {
        format!("dry run: {count}; generation {generation} goes on")
    } else {
        format!("applied: {count}; generation {generation} runs")
    });
    Output { stdout: lines.join("\n"), stderr: texts("warnings").join("\n"), code: 0 }
}

/// Percent-encodes all but what RFC 3986 section 2.3 leaves unreserved, and the slash.
fn encode(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'/' => {
                char::from(byte).to_string()
            }
            _ => format!("%{byte:02X}"),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_name_with_odd_characters_survives_the_query() {
        assert_eq!(encode("/a b/ü&x.toml"), "/a%20b/%C3%BC%26x.toml");
    }
}
