//! Snapshots: a validated configuration, compiled, immutable, numbered by its generation.

mod compile;
mod external;
mod fields;
mod hops;
mod registry;

use std::net::IpAddr;
use std::sync::Arc;

use crossbeam_queue::ArrayQueue;
use weir_config::{Config, MacAddress};

use crate::chain::{Pipeline, Tables};
use crate::decision::{AdjacencyTable, MeterTable, ScopeId};
use crate::flow::Replay;
use crate::l2::MacTable;
use crate::l3::{NeighbourTable, Rib};
use crate::overlay::PathMtuTable;
use crate::service::BuildContext;
use crate::service::nat::NatTable;
use crate::service::policer::MeterAllocator;
use crate::session::{FragmentTable, SessionTable};

pub(crate) use fields::names as field_names;
pub use registry::Registry;

/// The fields that a scope's flow key keeps.
pub(crate) fn fields_of(snapshot: &Snapshot, scope: ScopeId) -> crate::decision::FieldSet {
    snapshot.pipeline.scope(scope).map(|scope| scope.fields).unwrap_or_default()
}

/// What the data plane knows of a port's device when it compiles a configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortFacts {
    /// The device's own MAC address.
    pub mac: MacAddress,
    /// The device's MTU in bytes.
    pub mtu: u16,
    /// Whether the kernel resolves neighbours there.
    pub kernel_neighbours: bool,
    /// Whether it is there, is up and has a carrier.
    pub carrier: bool,
}

/// Why a valid configuration cannot be compiled here.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CompileError {
    /// A static route leads nowhere with the addresses that the interfaces have.
    #[error("vrf {vrf}: route {prefix}: {reason}")]
    Route {
        /// VRF.
        vrf: String,
        /// Destination.
        prefix: String,
        /// Why.
        reason: String,
    },
    /// A VRF's routes do not fit into memory.
    #[error("vrf {vrf}: {reason}; lower the number of its routes, or give weir more memory")]
    Fib {
        /// VRF.
        vrf: String,
        /// Why.
        reason: String,
    },
    /// A port's configured MTU is more than its device carries.
    #[error(
        "port {port}: mtu {mtu} is more than the device's {device}; lower it, or raise the device's: `ip link set DEVICE mtu {mtu}`"
    )]
    Mtu {
        /// Port.
        port: String,
        /// Configured, in bytes.
        mtu: u16,
        /// The device's, in bytes.
        device: u16,
    },
    /// More names than there are numbers.
    #[error("too many {0}: at most 65535 names may be used in the life of the process; restart weir")]
    TooMany(&'static str),
    /// More endpoints than the path MTU table was made for.
    #[error("more than {0} tunnel endpoints")]
    TooManyEndpoints(usize),
}

/// What every generation shares.
#[derive(Debug)]
pub struct Shared {
    /// Tables.
    pub tables: Arc<Tables>,
    /// What service functions build on.
    pub services: BuildContext,
    /// Neighbours that the kernel is asked to resolve; bounded, what does not fit is asked again later.
    pub kernel_asks: Arc<ArrayQueue<(ScopeId, IpAddr)>>,
}

/// Most tunnel endpoints (remote VTEPs) in the life of a process.
pub const MAX_ENDPOINTS: usize = 4096;
/// Fragmented packets whose ports are remembered.
const FRAGMENTS: usize = 4096;

impl Shared {
    /// Empty tables with the bounds of `config`, for `workers` workers, seeded with `seed`.
    pub fn new(config: &Config, workers: usize, seed: u64) -> Self {
        let limits = &config.limits;
        // Freed adjacencies rest before they are used again: twice the room.
        let adjacencies = Arc::new(AdjacencyTable::new(2 * limits.neighbours as usize));
        let meters = Arc::new(MeterTable::new(limits.meters as usize, workers));
        let nat = Arc::new(NatTable::new(limits.nat_bindings as usize, seed));
        let tables = Tables {
            sessions: SessionTable::new(limits.sessions as usize),
            fragments: FragmentTable::new(FRAGMENTS, seed),
            neighbours: NeighbourTable::new(Arc::clone(&adjacencies), limits.neighbours as usize),
            adjacencies,
            macs: MacTable::new(limits.macs as usize),
            meters: Arc::clone(&meters),
            path_mtu: PathMtuTable::new(MAX_ENDPOINTS),
            nat: Arc::clone(&nat),
            seed,
        };
        Self {
            tables: Arc::new(tables),
            services: BuildContext {
                meters: Arc::new(MeterAllocator::new(meters)),
                nat,
                reserved: Arc::default(),
            },
            kernel_asks: Arc::new(ArrayQueue::new(256)),
        }
    }
}

/// One generation: immutable.
#[derive(Debug)]
pub struct Snapshot {
    /// Its number, from 1.
    pub generation: u64,
    /// The configuration that it was compiled from.
    pub config: Arc<Config>,
    /// The compiled configuration.
    pub pipeline: Pipeline,
    /// Routes as they are known, by VRF, for display.
    pub ribs: Vec<(String, Arc<Rib>)>,
    /// What generations share.
    pub tables: Arc<Tables>,
    kernel_asks: Arc<ArrayQueue<(ScopeId, IpAddr)>>,
}

/// The control thread holds every snapshot until no worker does: a worker never runs this.
#[cfg(debug_assertions)]
impl Drop for Snapshot {
    fn drop(&mut self) {
        let thread = std::thread::current();
        let on_a_worker = thread.name().is_some_and(|name| name.starts_with("weir-worker"));
        assert!(!on_a_worker, "generation {} was freed on a worker", self.generation);
    }
}

impl Snapshot {
    /// Everything that programs of this generation point at.
    #[inline]
    pub fn replay(&self) -> Replay<'_> {
        Replay {
            egress: &self.pipeline.egress,
            endpoints: &self.pipeline.encapsulations,
            inner: &self.pipeline.inner,
            adjacencies: &self.tables.adjacencies,
            meters: &self.tables.meters,
            seed: self.tables.seed,
        }
    }

    /// Asks the kernel to resolve `ip` on the device behind `scope`.
    pub fn ask_kernel(&self, scope: ScopeId, ip: IpAddr) {
        // A full queue loses the request; the neighbour table repeats it.
        let _ = self.kernel_asks.push((scope, ip));
    }
}
