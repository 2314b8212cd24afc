//! `weir reload`: has the daemon read its configuration again.

use clap::Args;
use hyper::Method;

use super::{Output, SocketArgument, apply};
use crate::client;

const EXAMPLES: &str = "The same as SIGHUP, but the errors are shown here. If anything is wrong, nothing
changes and the exit code is 1.

Examples:
  weir reload
  weir reload --json";

/// Have the running weir read its configuration file again
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Reload {
    /// The daemon's answer as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    socket: SocketArgument,
}

impl Reload {
    pub(super) fn execute(self) -> Output {
        match client::request(&self.socket.socket, Method::POST, "/v1/reload", None) {
            Ok(answer) if self.json => Output::json(&answer),
            Ok(answer) => apply::outcome(&answer),
            Err(error) => error.into(),
        }
    }
}
