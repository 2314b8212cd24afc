//! `weir drain`: takes the daemon out of service before it is stopped.

use std::time::Duration;

use clap::Args;
use hyper::Method;

use super::{Output, SocketArgument};
use crate::client;

const EXAMPLES: &str =
    "While it drains, weir is not ready (`/readyz`, `weir show health`), takes no change of its
configuration and announces none of its addresses. Packets are forwarded as before, until SIGTERM.
Kubernetes runs `weir drain --wait 5` before it stops a pod.

Examples:
  weir drain
  weir drain --wait 5
  weir drain --undo";

/// Take the running weir out of service, so that others can take over before it is stopped
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Drain {
    /// Return only after this time, in seconds: for others to notice
    #[arg(long, value_name = "SECONDS", default_value_t = 0, value_parser = clap::value_parser!(u64).range(..=3600))]
    wait: u64,
    /// Put it back into service
    #[arg(long, conflicts_with = "wait")]
    undo: bool,
    #[command(flatten)]
    socket: SocketArgument,
}

impl Drain {
    pub(super) fn execute(self) -> Output {
        let method = if self.undo { Method::DELETE } else { Method::POST };
        match client::request(&self.socket.socket, method, "/v1/drain", None) {
            Ok(answer) => {
                std::thread::sleep(Duration::from_secs(self.wait));
                Output::done(answer["status"].as_str().unwrap_or("draining"))
            }
            Err(error) => error.into(),
        }
    }
}
