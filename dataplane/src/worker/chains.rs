//! What the data plane tells of chains when control asks.

use weir_config::Config;

use crate::chain::AttachedHop;
use crate::snapshot::Snapshot;

use super::dataplane::{Dataplane, Running};
use super::status::{ChainStatus, HopStatus, HopTraffic};

/// Packets and bytes received, packets and bytes sent.
type Carried = [u64; 4];

impl Dataplane {
    /// Every chain with its hops.
    pub fn chains(&self) -> Vec<ChainStatus> {
        self.ask(|running, snapshot| {
            let carried = running.carried();
            let config = &snapshot.config;
            let chain = |(name, chain): (&String, &weir_config::Chain)| ChainStatus {
                name: name.clone(),
                hops: chain.hops.iter().map(|hop| status(hop, config, snapshot, &carried)).collect(),
            };
            config.chains.iter().map(chain).collect()
        })
    }
}

impl Running {
    /// What each port has carried, over its queues.
    fn carried(&self) -> Vec<(String, Carried)> {
        let counted = self.queue_counters();
        let sum = |(name, port): (&String, &super::ports::OpenPort)| {
            let of_port = counted.iter().filter(|(id, _, _)| *id == port.id);
            let all = of_port.fold([0; 4], |[a, b, c, d], (_, _, queue)| {
                [a + queue.rx_frames, b + queue.rx_bytes, c + queue.tx_frames, d + queue.tx_bytes]
            });
            (name.clone(), all)
        };
        self.ports.iter().map(sum).collect()
    }
}

fn status(name: &str, config: &Config, snapshot: &Snapshot, carried: &[(String, Carried)]) -> HopStatus {
    let services = &snapshot.pipeline.services;
    if let Some(service) = services.iter().find(|service| service.name() == name) {
        let (kind, attach, traffic) = (service.kind(), Vec::new(), Vec::new());
        return HopStatus { name: name.to_owned(), kind, state: None, attach, traffic };
    }
    let attach = config.hops.get(name).map(|hop| hop.attach.clone()).unwrap_or_default();
    let hop = snapshot.pipeline.hops.iter().flatten().find(|hop| hop.name == name);
    HopStatus {
        name: name.to_owned(),
        kind: "attached",
        state: Some(hop.map_or("unused", state)),
        traffic: traffic(&attach, carried),
        attach,
    }
}

fn state(hop: &AttachedHop) -> &'static str {
    match (hop.up, hop.skipped) {
        (true, _) => "up",
        (false, true) => "open",
        (false, false) => "down",
    }
}

fn traffic(attach: &[String], carried: &[(String, Carried)]) -> Vec<HopTraffic> {
    let of = |end: &String| {
        let port = end.split('.').next().unwrap_or_default();
        carried.iter().find(|(name, _)| name == port).map_or([0; 4], |(_, carried)| *carried)
    };
    let between = |direction, out: &String, back: &String| {
        let ([_, _, out_packets, out_bytes], [back_packets, back_bytes, ..]) = (of(out), of(back));
        HopTraffic { direction, out_packets, out_bytes, back_packets, back_bytes }
    };
    match attach {
        [first, second] => vec![between("forward", first, second), between("reverse", second, first)],
        [one] => vec![between("both", one, one)],
        _ => Vec::new(),
    }
}
