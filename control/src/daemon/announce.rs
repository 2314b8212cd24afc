//! Says at start what was obtained: ports, workers, memory.

use tracing::info;
use weir_config::{Config, HugePages};

use crate::engine::Engine;

/// Logs what the engine got, one line a port.
pub(crate) fn announce(engine: &dyn Engine) {
    let config = engine.config();
    for port in engine.ports() {
        let queues: Vec<String> =
            port.queues.iter().map(|queue| format!("{}→{}", queue.queue, queue.worker)).collect();
        let numa = if port.numa < 0 { "none".to_owned() } else { port.numa.to_string() };
        info!(
            "port {}: device {} ({}), {}, driver {}, XDP {}, MAC {}, MTU {}, NUMA node {numa}, \
             queues → workers: {}",
            port.name,
            port.device,
            port.state,
            port.mode,
            port.driver,
            port.xdp,
            port.mac,
            port.mtu,
            queues.join(" "),
        );
        for refused in &port.refused {
            info!("port {}: not obtained: {refused}", port.name);
        }
    }
    for worker in engine.workers() {
        info!("worker {}: core {}, at most {} flows", worker.worker, worker.core, worker.flow_capacity);
    }
    info!("{}", memory(&config, engine.huge_pages()));
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
