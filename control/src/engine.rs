//! What control asks of the data plane: one trait, so that the API and the daemon can be tested without a device.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use weir_config::{Config, MacAddress};
use weir_dataplane::worker::status::{
    ChainStatus, Counters, FlowStatus, MacStatus, NatStatus, NeighbourStatus, PipelineStatus, PortStatus,
    ProcessMemory, RouteStatus, RulesStatus, SessionStatus, TableStatus, TunnelStatus, WorkerStatus,
};

/// Why a configuration could not be put in force; its text is for people.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct ApplyError {
    /// What is wrong, and what to do.
    pub text: String,
    /// The keys in the configuration that lead to what is wrong; empty if no one place is.
    pub at: Vec<String>,
}

impl From<String> for ApplyError {
    fn from(text: String) -> Self {
        Self { text, at: Vec::new() }
    }
}

/// What became of a network device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceEvent {
    /// It exists (again), perhaps with a new interface index.
    Appeared,
    /// It was deleted, or renamed away.
    Vanished,
    /// It has a carrier and is up.
    CarrierUp,
    /// It lost its carrier, or was set down.
    CarrierDown,
}

impl fmt::Display for DeviceEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Appeared => "appeared",
            Self::Vanished => "vanished",
            Self::CarrierUp => "carrier",
            Self::CarrierDown => "no carrier",
        })
    }
}

/// The data plane, internally synchronised. Any call may take a moment (it may wait for a device), so control calls it
/// from threads that may block.
pub trait Engine: Send + Sync {
    /// Compiles and publishes `config`; returns the new generation. On error the running generation is untouched.
    fn apply(&self, config: &Config) -> Result<u64, ApplyError>;
    /// The running generation; 0 before the first.
    fn generation(&self) -> u64;
    /// The running configuration, complete with what the kernel gave.
    fn config(&self) -> Arc<Config>;
    /// Whether frame memory lies in huge pages.
    fn huge_pages(&self) -> bool;
    /// Every port.
    fn ports(&self) -> Vec<PortStatus>;
    /// Every worker.
    fn workers(&self) -> Vec<WorkerStatus>;
    /// How often each worker has gone round: a number that stands still is that of a stuck worker. Never waits for a device.
    fn turns(&self) -> Vec<u64>;
    /// Counters, summed over the workers.
    fn counters(&self) -> Counters;
    /// Routes as compiled.
    fn routes(&self) -> Vec<RouteStatus>;
    /// Neighbours.
    fn neighbours(&self) -> Vec<NeighbourStatus>;
    /// Tunnel endpoints.
    fn tunnels(&self) -> Vec<TunnelStatus>;
    /// Bridge entries.
    fn macs(&self) -> Vec<MacStatus>;
    /// At most `limit` flow-table entries.
    fn flows(&self, limit: usize) -> Vec<FlowStatus>;
    /// At most `limit` sessions.
    fn sessions(&self, limit: usize) -> Vec<SessionStatus>;
    /// Address translation: at most `limit` bindings, and the use of external addresses.
    fn nat(&self, limit: usize) -> NatStatus;
    /// The compiled pipeline, scope by scope.
    fn pipeline(&self) -> Vec<PipelineStatus>;
    /// Chains with their hops.
    fn chains(&self) -> Vec<ChainStatus>;
    /// What rules were compiled into.
    fn rules(&self) -> Vec<RulesStatus>;
    /// The use of every table, and what it takes in memory.
    fn tables(&self) -> Vec<TableStatus>;
    /// The process's memory.
    fn process_memory(&self) -> ProcessMemory;
    /// The kernel's neighbour on an interface of a shared port; `None`: it is gone or failed.
    fn kernel_neighbour(&self, interface: &str, ip: IpAddr, mac: Option<MacAddress>);
    /// A device changed that a port may be bound to.
    fn device_changed(&self, device: &str, event: DeviceEvent);
    /// Neighbours that the kernel should resolve: device and address. Each is told once.
    fn take_kernel_requests(&self) -> Vec<(String, IpAddr)>;
    /// Housekeeping of the control thread, every 100 ms.
    fn service(&self);
    /// Stops announcing addresses of weir's own, or goes on with it; packets are forwarded either way.
    fn quiet(&self, quiet: bool);
    /// Drains and detaches.
    fn stop(&self);
}
