//! `weir show`: what the running weir says of itself.

mod config;
mod counters;
mod lists;

use clap::{Args, Subcommand};
use hyper::Method;
use serde_json::Value;

pub(super) use counters::counters as packet_counters;

use super::{Output, SocketArgument};
use crate::client;

const EXAMPLES: &str = "Examples:
  weir show ports
  weir show counters
  weir show drops --all
  weir show flows --limit 20
  weir show routes --json | jq '.routes[].prefix'";

/// Show the state of the running weir: tables for people, --json for programs
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Show {
    #[command(subcommand)]
    what: What,
    /// The API's answer as JSON instead of a table
    #[arg(long, global = true)]
    json: bool,
    #[command(flatten)]
    socket: SocketArgument,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Ports: device, driver, XDP mode obtained and modes refused, queues and who polls them
    Ports,
    /// Worker threads: core, generation, loops, flows, packets held
    Workers,
    /// Packet counters by verdict, and whether every packet is accounted for
    Counters,
    /// Dropped packets by reason, each with what it means
    Drops {
        /// Also the reasons that never occurred
        #[arg(long)]
        all: bool,
    },
    /// Routes as compiled, by VRF
    Routes,
    /// Neighbours (ARP and ND): static, learned, and the kernel's on shared ports
    Neighbours,
    /// Tunnel endpoints with their MTU and the underlay's next hop
    Tunnels,
    /// Bridge entries: which MAC address is behind which member
    #[command(visible_alias = "macs")]
    Bridge,
    /// Flow-table entries: key, program, packets
    Flows(Limit),
    /// Sessions: the shared state of connections
    Sessions(Limit),
    /// Address translation: bindings, and ports of external addresses in use
    Nat(Limit),
    /// Chains: their hops in order; of attached hops the interfaces, the state, and what went out and came back
    Chains,
    /// The compiled pipeline: which header fields are in each scope's flow key, and why
    Pipeline,
    /// Every bounded table: entries in use, and the bound
    #[command(visible_alias = "tables")]
    Memory,
    /// The running configuration as it was written; --json adds the model with all defaults
    Config,
    /// The version of the running weir and of this program
    Version,
    /// Whether weir is well: ports up, workers alive
    Health,
}

#[derive(Debug, Args)]
struct Limit {
    /// At most so many entries
    #[arg(long, value_name = "NUMBER", default_value_t = crate::api::DEFAULT_LIMIT)]
    limit: usize,
}

impl Show {
    pub(super) fn execute(self) -> Output {
        let path = self.what.path();
        match client::request(&self.socket.socket, Method::GET, &path, None) {
            Ok(answer) if self.json => Output::json(&answer),
            Ok(answer) => Output::done(self.what.render(&answer)),
            Err(error) => error.into(),
        }
    }
}

impl What {
    fn path(&self) -> String {
        let name = match self {
            Self::Ports => "ports",
            Self::Workers => "workers",
            Self::Counters | Self::Drops { .. } => "counters",
            Self::Routes => "routes",
            Self::Neighbours => "neighbours",
            Self::Tunnels => "tunnels",
            Self::Bridge => "macs",
            Self::Flows(limit) => return format!("/v1/flows?limit={}", limit.limit),
            Self::Sessions(limit) => return format!("/v1/sessions?limit={}", limit.limit),
            Self::Nat(limit) => return format!("/v1/nat?limit={}", limit.limit),
            Self::Chains => "chains",
            Self::Pipeline => "pipeline",
            Self::Memory => "tables",
            Self::Config => "config",
            Self::Version => "version",
            Self::Health => "health",
        };
        format!("/v1/{name}")
    }

    fn render(&self, answer: &Value) -> String {
        match self {
            Self::Ports => lists::ports(answer),
            Self::Workers => lists::workers(answer),
            Self::Counters => counters::counters(answer),
            Self::Drops { all } => counters::drops(answer, *all),
            Self::Routes => lists::routes(answer),
            Self::Neighbours => lists::neighbours(answer),
            Self::Tunnels => lists::tunnels(answer),
            Self::Bridge => lists::bridge(answer),
            Self::Flows(limit) => lists::flows(answer, limit.limit),
            Self::Sessions(limit) => lists::sessions(answer, limit.limit),
            Self::Nat(limit) => lists::nat(answer, limit.limit),
            Self::Chains => lists::chains(answer),
            Self::Pipeline => lists::pipeline(answer),
            Self::Memory => lists::memory(answer),
            Self::Config => config::config(answer),
            Self::Version => config::version(answer),
            Self::Health => config::health(answer),
        }
    }
}
