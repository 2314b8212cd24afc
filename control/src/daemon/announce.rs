//! Says what was obtained: workers and memory at start, a port whenever its device was opened.

use std::collections::BTreeMap;

use tracing::{info, warn};
use weir_config::{Config, HugePages};
use weir_dataplane::worker::status::PortStatus;

use crate::engine::{DeviceEvent, Engine};

/// Which ports were told of.
#[derive(Debug, Default)]
pub(crate) struct Announcer {
    generation: u64,
    /// What makes a port another one: interface index, XDP mode, how often it was bound again.
    ports: BTreeMap<String, (u32, String, u64)>,
    /// What the states of ports over DPDK were.
    states: BTreeMap<String, &'static str>,
}

impl Announcer {
    /// Logs what the engine got for ports that are new, or whose device was opened again, one line a port, and which ports
    /// were closed. Looks only if the generation has changed, as it does with every such port.
    pub(crate) fn ports(&mut self, engine: &dyn Engine) {
        let generation = engine.generation();
        if generation == self.generation {
            return;
        }
        self.generation = generation;
        let ports = engine.ports();
        let seen = |port: &PortStatus| (port.ifindex, port.xdp.clone(), port.rebinds);
        for port in ports.iter().filter(|port| self.ports.get(&port.name) != Some(&seen(port))) {
            announce(port);
        }
        for name in self.ports.keys().filter(|name| !ports.iter().any(|port| port.name == **name)) {
            info!("port {name}: closed; its device is free");
        }
        // An engine that has stopped is at no generation.
        if ports.is_empty() && generation > 0 {
            warn!("the configuration has no port: nothing is received or sent");
        }
        self.ports = ports.iter().map(|port| (port.name.clone(), seen(port))).collect();
    }

    /// Logs devices of DPDK's that went away, came back, lost or got their carrier. The kernel tells of all others.
    pub(crate) fn devices(&mut self, ports: &[PortStatus]) {
        let ours = || ports.iter().filter(|port| port.backend == "DPDK");
        for port in ours() {
            let before = self.states.get(&port.name).copied();
            if let Some(event) = before.and_then(|before| event(before, port.state)) {
                info!("device {}: {event}", port.device);
            }
        }
        self.states = ours().map(|port| (port.name.clone(), port.state)).collect();
    }
}

/// What happened to a device between two states of its port, as the kernel's events of network devices are called.
fn event(before: &str, now: &str) -> Option<DeviceEvent> {
    match (before, now) {
        (before, now) if before == now => None,
        (_, "gone") => Some(DeviceEvent::Vanished),
        ("gone", _) => Some(DeviceEvent::Appeared),
        (_, "up") => Some(DeviceEvent::CarrierUp),
        (_, "no carrier") => Some(DeviceEvent::CarrierDown),
        _ => None,
    }
}

fn announce(port: &PortStatus) {
    let queues: Vec<String> =
        port.queues.iter().map(|queue| format!("{}→{}", queue.queue, queue.worker)).collect();
    let numa = if port.numa < 0 { "none".to_owned() } else { port.numa.to_string() };
    info!(
        "port {}: device {} ({}), {}, driver {}, {}, MAC {}, MTU {}, NUMA node {numa}, queues → workers: {}",
        port.name,
        port.device,
        port.state,
        port.mode,
        port.driver,
        format!("{} {}", port.backend, port.xdp).trim_end(),
        port.mac,
        port.mtu,
        queues.join(" "),
    );
    for warning in &port.warnings {
        warn!("port {}: {warning}", port.name);
    }
    for refused in &port.refused {
        info!("port {}: not obtained: {refused}", port.name);
    }
}

/// Logs workers and memory.
pub(crate) fn machine(engine: &dyn Engine) {
    for worker in engine.workers() {
        info!("worker {}: core {}, at most {} flows", worker.worker, worker.core, worker.flow_capacity);
    }
    info!("{}", memory(&engine.config(), engine.huge_pages()));
}

fn memory(config: &Config, huge: bool) -> String {
    let asked = match config.memory.huge_pages {
        HugePages::Auto => "auto",
        HugePages::Require => "require",
        HugePages::Never => "never",
    };
    let got = if huge { "obtained" } else { "not obtained" };
    let memory = &config.memory;
    format!("memory: {} frames of {} B; huge pages: {asked}, {got}", memory.frames, memory.frame_size)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_of_dpdk_that_goes_and_comes_back_is_told_of_as_the_kernel_tells_of_others() {
        let states = ["up", "up", "no carrier", "up", "gone", "gone", "no carrier", "gone", "up"];
        let events: Vec<_> =
            states.windows(2).filter_map(|pair| Some(event(pair[0], pair[1])?.to_string())).collect();
        assert_eq!(events, ["no carrier", "carrier", "vanished", "appeared", "vanished", "appeared"]);
    }

    #[test]
    fn huge_pages_that_were_not_obtained_are_not_claimed() {
        let config = Config::default();
        let text = "memory: 16384 frames of 2048 B; huge pages: auto, ";
        assert_eq!(memory(&config, false), format!("{text}not obtained"));
        assert_eq!(memory(&config, true), format!("{text}obtained"));
    }
}
