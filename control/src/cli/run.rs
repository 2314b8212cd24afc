//! `weir run`: the daemon in the foreground.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;

use super::node::NodeArguments;
use super::{Output, REFUSED, SocketArgument, USAGE};
use crate::configuration::Source;
use crate::daemon::{self, Failure, Options};
use crate::dataplane;
use crate::engine::Engine;
use crate::privilege::{self, Seccomp};

const EXAMPLES: &str = "Signals:
  SIGHUP           read the configuration again; if anything is wrong with it, nothing changes
  SIGTERM, SIGINT  drain, detach, remove the socket, exit

Without --config, a plain router is read from the environment:
  INTERFACES  comma-separated devices
  ROUTES      comma-separated: PREFIX NEXTHOP | PREFIX IFNAME | PREFIX dev IFNAME |
              PREFIX NEXTHOP IFNAME | PREFIX blackhole

Examples:
  weir run --config /etc/weir/weir.toml
  weir run --config weir.toml --socket /tmp/weir.sock --log debug
  weir run --config /etc/weir/weir.toml --watch --health 127.0.0.1:9640 --node worker-1
  INTERFACES=eth0,eth1 ROUTES='10.0.0.0/24 172.16.0.1,10.1.0.0/16 eth1' weir run";

/// Threads for what may block: the engine, files.
const BLOCKING_THREADS: usize = 16;
/// How long such a thread may take to end at exit.
const SHUTDOWN_TIME: Duration = Duration::from_millis(200);

/// Run the appliance in the foreground
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Run {
    /// The configuration (TOML); without it, INTERFACES and ROUTES of the environment
    #[arg(long, short, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Load the file again whenever it is replaced, also by the kubelet, which swaps a ConfigMap's directory
    #[arg(long, requires = "config")]
    watch: bool,
    /// Answer probes over HTTP here: /startz, /livez, /readyz, and /metrics; whoever can reach it can read them
    #[arg(long, value_name = "ADDRESS:PORT")]
    health: Option<SocketAddr>,
    #[command(flatten)]
    node: NodeArguments,
    #[command(flatten)]
    socket: SocketArgument,
    /// What to log to stderr: error, warn, info, debug, trace, or directives such as info,weir_control::netlink=debug
    #[arg(long, value_name = "FILTER", default_value = "info")]
    log: String,
    /// What becomes of system calls that weir is not known to make: they fail, the process is killed, they are only logged by
    /// the kernel, or nothing
    #[arg(long, value_enum, value_name = "ACTION", default_value_t = Seccomp::Refuse)]
    seccomp: Seccomp,
}

impl Run {
    pub(super) fn execute(self) -> Output {
        let variable = |name| std::env::var(name).ok().filter(|text: &String| !text.trim().is_empty());
        let source = match source(self.config, variable("INTERFACES"), variable("ROUTES")) {
            Ok(source) => source,
            Err(message) => return Output::failed(USAGE, format!("weir: {message}")),
        };
        if let Err(error) = daemon::start_logging(&self.log) {
            return Output::failed(USAGE, format!("weir: {error}"));
        }
        let identity = match self.node.identity() {
            Ok(identity) => identity,
            Err(message) => return Output::failed(USAGE, format!("weir: {message}")),
        };
        let config = match &source {
            Source::File(path) => Some(path.as_path()),
            Source::Environment { .. } => None,
        };
        // The process has one thread here: the privileges of the others are those of the one that starts them.
        if let Err(error) = privilege::settle(self.seccomp, config, &self.socket.socket) {
            return Output::failed(REFUSED, format!("weir: {error}"));
        }
        let seccomp = self.seccomp;
        let (health, watch) = (self.health, self.watch);
        let options =
            |engine| Options { identity, health, watch, ..Options::new(source, self.socket.socket, engine) };
        match run(seccomp, options) {
            Ok(()) => Output::default(),
            // Why it was refused is in the log, line by line.
            Err(Failure::Refused(_)) => Output { code: REFUSED, ..Output::default() },
            Err(failure) => Output::failed(REFUSED, format!("weir: {failure}")),
        }
    }
}

fn source(
    config: Option<PathBuf>,
    interfaces: Option<String>,
    routes: Option<String>,
) -> Result<Source, &'static str> {
    match (config, interfaces) {
        (Some(path), _) => Ok(Source::File(path)),
        (None, Some(interfaces)) => {
            Ok(Source::Environment { interfaces, routes: routes.unwrap_or_default() })
        }
        (None, None) if routes.is_some() => {
            Err("ROUTES is set, but INTERFACES is not: name the devices to route between")
        }
        (None, None) => {
            Err("nothing to run: give --config FILE, or set INTERFACES (and ROUTES) in the environment")
        }
    }
}

fn run(seccomp: Seccomp, options: impl FnOnce(Arc<dyn Engine>) -> Options) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(BLOCKING_THREADS)
        .thread_name("weir-blocking")
        .build()
        .map_err(Failure::Runtime)?;
    let result = runtime.block_on(async {
        let signals = daemon::signals().map_err(Failure::Signals)?;
        let engine = dataplane::start(Arc::new(move |_| privilege::settle_worker(seccomp)));
        daemon::run(options(engine), signals).await
    });
    runtime.shutdown_timeout(SHUTDOWN_TIME);
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_preferred_to_the_environment_and_one_of_them_is_needed() {
        let text = |text: &str| Some(text.to_owned());
        assert_eq!(source(Some("a".into()), text("eth0"), None), Ok(Source::File("a".into())));
        assert_eq!(
            source(None, text("eth0"), text("::/0 eth0")),
            Ok(Source::Environment { interfaces: "eth0".into(), routes: "::/0 eth0".into() })
        );
        assert!(source(None, None, text("::/0 eth0")).unwrap_err().contains("INTERFACES is not"));
        assert!(source(None, None, None).unwrap_err().contains("nothing to run"));
    }
}
