//! The real data plane behind [`Engine`].

use std::net::IpAddr;
use std::sync::Arc;

use tracing::{info, warn};
use weir_config::{Config, MacAddress};
use weir_dataplane::worker::status::{
    ChainStatus, Counters, FlowStatus, MacStatus, NatStatus, NeighbourStatus, PipelineStatus, PortStatus,
    ProcessMemory, RouteStatus, RulesStatus, SessionStatus, TableStatus, TunnelStatus, WorkerStatus,
};
use weir_dataplane::worker::{ApplyError as Refused, Dataplane, WorkerStart};

use crate::engine::{ApplyError, DeviceEvent, Engine};

/// A data plane that has no configuration yet and touches nothing; its worker threads begin with `worker_start`.
pub fn start(worker_start: WorkerStart) -> Arc<dyn Engine> {
    Arc::new(Dataplane::with_worker_start(worker_start))
}

macro_rules! pass_on {
    ($($name:ident($($argument:ident: $kind:ty)?) -> $result:ty;)*) => { $(
        fn $name(&self $(, $argument: $kind)?) -> $result {
            Dataplane::$name(self $(, $argument)?)
        }
    )* };
}

impl Engine for Dataplane {
    pass_on! {
        generation() -> u64;
        config() -> Arc<Config>;
        huge_pages() -> bool;
        ports() -> Vec<PortStatus>;
        workers() -> Vec<WorkerStatus>;
        turns() -> Vec<u64>;
        counters() -> Counters;
        routes() -> Vec<RouteStatus>;
        neighbours() -> Vec<NeighbourStatus>;
        tunnels() -> Vec<TunnelStatus>;
        macs() -> Vec<MacStatus>;
        flows(limit: usize) -> Vec<FlowStatus>;
        sessions(limit: usize) -> Vec<SessionStatus>;
        nat(limit: usize) -> NatStatus;
        pipeline() -> Vec<PipelineStatus>;
        chains() -> Vec<ChainStatus>;
        rules() -> Vec<RulesStatus>;
        tables() -> Vec<TableStatus>;
        process_memory() -> ProcessMemory;
        take_kernel_requests() -> Vec<(String, IpAddr)>;
        service() -> ();
        quiet(quiet: bool) -> ();
    }

    fn stop(&self) {
        let Some(stopped) = Dataplane::stop(self) else { return };
        let (frames, free) = (stopped.frames, stopped.free_frames);
        if free == frames {
            info!("all {frames} frames came back");
        } else {
            warn!("{free} of {frames} frames came back: the others were lost while weir ran");
        }
    }

    fn apply(&self, config: &Config) -> Result<u64, ApplyError> {
        Dataplane::apply(self, config).map_err(|error| ApplyError {
            at: match &error {
                Refused::DoesNotFit(what) => what.at.map(str::to_owned).into(),
                _ => Vec::new(),
            },
            text: error.to_string(),
        })
    }

    fn kernel_neighbour(&self, interface: &str, ip: IpAddr, mac: Option<MacAddress>) {
        if let Some(device) = device_of(&Dataplane::config(self), interface) {
            Dataplane::kernel_neighbour(self, &device, ip, mac);
        }
    }

    fn device_changed(&self, device: &str, _event: DeviceEvent) {
        Dataplane::device_changed(self, device);
    }
}

/// The data plane's name for the device behind an interface: `eth1`, or `eth1.100` for a VLAN, whatever the kernel's
/// VLAN device is called.
fn device_of(config: &Config, interface: &str) -> Option<String> {
    if let Some(port) = config.ports.get(interface) {
        return port.device.clone();
    }
    let (port, vid) = interface.rsplit_once('.')?;
    let device = config.ports.get(port)?.device.as_deref()?;
    Some(format!("{device}.{vid}"))
}
