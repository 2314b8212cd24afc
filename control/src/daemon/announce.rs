//! Says what was obtained: workers and memory at start, a port whenever its device was opened.

use std::collections::BTreeMap;

use tracing::{info, warn};
use weir_config::{Config, HugePages};
use weir_dataplane::worker::status::PortStatus;

use crate::engine::Engine;

/// Which ports were told of.
#[derive(Debug, Default)]
pub(crate) struct Announcer {
    generation: u64,
    /// What makes a port another one: interface index, XDP mode, how often it was bound again.
    ports: BTreeMap<String, (u32, String, u64)>,
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
    fn huge_pages_that_were_not_obtained_are_not_claimed() {
        let config = Config::default();
        let text = "memory: 16384 frames of 2048 B; huge pages: auto, ";
        assert_eq!(memory(&config, false), format!("{text}not obtained"));
        assert_eq!(memory(&config, true), format!("{text}obtained"));
    }
}
