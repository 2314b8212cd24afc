//! The data plane behind [`Engine`].

use std::net::IpAddr;
use std::sync::Arc;

use weir_config::{Config, MacAddress};
use weir_dataplane::worker::Dataplane;
use weir_dataplane::worker::status::{
    Counters, FlowStatus, MacStatus, NeighbourStatus, PipelineStatus, PortStatus, RouteStatus, SessionStatus,
    TableStatus, TunnelStatus, WorkerStatus,
};

use crate::engine::{ApplyError, DeviceEvent, Engine, StartError};

/// The data plane, without a configuration yet.
///
/// # Errors
/// None today; what cannot be had shows when the first configuration is applied.
pub fn start() -> Result<Arc<dyn Engine>, StartError> {
    Ok(Arc::new(Dataplane::default()))
}

impl Engine for Dataplane {
    fn apply(&self, config: &Config) -> Result<u64, ApplyError> {
        Self::apply(self, config).map_err(|error| ApplyError(error.to_string()))
    }

    fn generation(&self) -> u64 {
        Self::generation(self)
    }

    fn config(&self) -> Arc<Config> {
        Self::config(self)
    }

    fn ports(&self) -> Vec<PortStatus> {
        Self::ports(self)
    }

    fn workers(&self) -> Vec<WorkerStatus> {
        Self::workers(self)
    }

    fn counters(&self) -> Counters {
        Self::counters(self)
    }

    fn routes(&self) -> Vec<RouteStatus> {
        Self::routes(self)
    }

    fn neighbours(&self) -> Vec<NeighbourStatus> {
        Self::neighbours(self)
    }

    fn tunnels(&self) -> Vec<TunnelStatus> {
        Self::tunnels(self)
    }

    fn macs(&self) -> Vec<MacStatus> {
        Self::macs(self)
    }

    fn flows(&self, limit: usize) -> Vec<FlowStatus> {
        Self::flows(self, limit)
    }

    fn sessions(&self, limit: usize) -> Vec<SessionStatus> {
        Self::sessions(self, limit)
    }

    fn pipeline(&self) -> Vec<PipelineStatus> {
        Self::pipeline(self)
    }

    fn tables(&self) -> Vec<TableStatus> {
        Self::tables(self)
    }

    fn kernel_neighbour(&self, interface: &str, ip: IpAddr, mac: Option<MacAddress>) {
        Self::kernel_neighbour(self, interface, ip, mac);
    }

    fn device_changed(&self, device: &str, _event: DeviceEvent) {
        Self::device_changed(self, device);
    }

    fn take_kernel_requests(&self) -> Vec<(String, IpAddr)> {
        Self::take_kernel_requests(self)
    }

    fn service(&self) {
        Self::service(self);
    }

    fn stop(&self) {
        Self::stop(self);
    }
}
