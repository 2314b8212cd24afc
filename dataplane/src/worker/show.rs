//! What the data plane tells when control asks: status values made from the live tables.

use std::sync::Arc;

use weir_config::{Config, PortMode};

use crate::chain::{Scope, ScopeKind, Walker};
use crate::decision::{Domain, EndpointId, RulesShape, TreeShape, Tuple};
use crate::l3::describe;
use crate::service::nat::{AddressEntry, BindingEntry};
use crate::snapshot::Snapshot;

use super::dataplane::{Dataplane, Running};
use super::status::{
    AddressStatus, BindingStatus, Counters, FlowStatus, MacStatus, NatStatus, NeighbourStatus,
    PipelineStatus, PortStatus, ProcessMemory, QueueStatus, RouteStatus, RuleLookupStatus, RulesStatus,
    SessionStatus, TableStatus, TunnelStatus, WorkerStatus,
};

const SECOND: u64 = 1_000_000_000;

impl Dataplane {
    pub(super) fn ask<T: Default>(&self, answer: impl FnOnce(&Running, &Snapshot) -> T) -> T {
        let guard = self.lock();
        match &*guard {
            Some(running) => answer(running, &running.common.snapshots.load_full()),
            None => T::default(),
        }
    }

    /// The running generation; 0 before the first.
    pub fn generation(&self) -> u64 {
        self.ask(|_, snapshot| snapshot.generation)
    }

    /// The running configuration.
    pub fn config(&self) -> Arc<Config> {
        self.ask(|_, snapshot| Some(Arc::clone(&snapshot.config))).unwrap_or_default()
    }

    /// Whether frame memory lies in huge pages.
    pub fn huge_pages(&self) -> bool {
        self.ask(|running, _| running.huge_pages())
    }

    /// Every port.
    pub fn ports(&self) -> Vec<PortStatus> {
        self.ask(|running, _| {
            let counters = running.queue_counters();
            running
                .ports
                .iter()
                .map(|(name, port)| {
                    let info = &port.info;
                    let state = match &port.io {
                        None => "gone",
                        Some(io) if io.link().carrier => "up",
                        Some(_) => "no carrier",
                    };
                    let queues = port.queues.iter().map(|(queue, worker)| {
                        let counted = counters
                            .iter()
                            .find(|(id, number, _)| (*id, number) == (port.id, queue))
                            .map(|(_, _, counters)| *counters)
                            .unwrap_or_default();
                        QueueStatus {
                            queue: *queue,
                            worker: *worker,
                            rx_frames: counted.rx_frames,
                            rx_bytes: counted.rx_bytes,
                            tx_frames: counted.tx_frames,
                            tx_bytes: counted.tx_bytes,
                            rx_missed: counted.rx_missed,
                            invalid: counted.invalid,
                            copies: counted.copies,
                        }
                    });
                    let counted = port.io.as_ref().map(|io| io.counters()).unwrap_or_default();
                    PortStatus {
                        name: name.clone(),
                        device: info.device.clone(),
                        mode: match port.settings.mode {
                            PortMode::Shared => "shared",
                            PortMode::Dedicated => "dedicated",
                        },
                        state,
                        driver: info.driver.clone(),
                        backend: info.backend.name(),
                        xdp: info.backend.xdp().map(|mode| mode.to_string()).unwrap_or_default(),
                        refused: info.refused.clone(),
                        warnings: info.warnings.clone(),
                        ifindex: info.ifindex,
                        mac: port.settings.mac.unwrap_or(info.mac),
                        mtu: port.settings.mtu.unwrap_or(u16::try_from(info.mtu).unwrap_or(u16::MAX)),
                        numa: info.numa,
                        rebinds: port.rebinds,
                        redirected: counted.redirected,
                        passed: counted.passed,
                        no_socket: counted.no_socket,
                        missed: counted.missed,
                        errors: counted.errors,
                        queues: queues.collect(),
                    }
                })
                .collect()
        })
    }

    /// Every worker.
    pub fn workers(&self) -> Vec<WorkerStatus> {
        self.ask(|running, _| {
            let worker = |(worker, door): (usize, &Arc<super::run::Door>)| {
                let counted = &door.counters;
                let mut counters = Counters::default();
                counted.add_to(&mut counters);
                WorkerStatus {
                    worker,
                    core: door.core,
                    generation: counted.generation.get(),
                    loops: counted.loops.get(),
                    sleeps: counted.sleeps.get(),
                    flows: counted.flows.get(),
                    flow_capacity: door.flow_capacity as u64,
                    held: counted.held.get(),
                    counters,
                }
            };
            running.doors().iter().enumerate().map(worker).collect()
        })
    }

    /// Counters, summed over the workers.
    pub fn counters(&self) -> Counters {
        self.ask(|running, snapshot| {
            let mut sum = Counters::default();
            for door in running.doors() {
                door.counters.add_to(&mut sum);
            }
            let macs = snapshot.tables.macs.counters();
            (sum.mac_moves, sum.mac_refused) = (macs.moved, macs.refused);
            // One bucket for all workers, and some of what it holds back is held back below the workers.
            sum.icmp_limited = running.icmp.suppressed();
            sum
        })
    }

    /// Routes as compiled.
    pub fn routes(&self) -> Vec<RouteStatus> {
        self.ask(|_, snapshot| {
            let device = |scope| match snapshot.pipeline.scope(scope) {
                Some(Scope { name, kind: ScopeKind::Tunnel(_), .. }) => format!("tunnel {name}"),
                _ => format!("dev {}", snapshot.pipeline.scope_name(scope)),
            };
            let rib = |(vrf, rib): &(String, Arc<crate::l3::Rib>)| {
                rib.routes()
                    .map(|(prefix, origin, target)| RouteStatus {
                        vrf: vrf.clone(),
                        prefix,
                        origin: origin.name(),
                        via: describe(target, &device),
                    })
                    .collect::<Vec<_>>()
            };
            snapshot.ribs.iter().flat_map(rib).collect()
        })
    }

    /// Neighbours.
    pub fn neighbours(&self) -> Vec<NeighbourStatus> {
        self.ask(|running, snapshot| {
            let entries = snapshot.tables.neighbours.entries(running.common.clock.now());
            let status = |info: crate::l3::NeighbourInfo| NeighbourStatus {
                interface: running.registry.scope_name(info.scope).unwrap_or("?").to_owned(),
                ip: info.ip,
                mac: info.mac,
                state: info.state.name(),
                age: info.age,
            };
            entries.into_iter().map(status).collect()
        })
    }

    /// Tunnel endpoints.
    pub fn tunnels(&self) -> Vec<TunnelStatus> {
        self.ask(|running, snapshot| {
            let now = running.common.clock.now();
            let mut all = Vec::new();
            for (name, tunnel) in &snapshot.config.tunnels {
                let Some(scope) = running.registry.scope(name).and_then(|id| snapshot.pipeline.scope(id))
                else {
                    continue;
                };
                let ScopeKind::Tunnel(endpoints) = &scope.kind else { continue };
                for (endpoint, remote) in endpoints.iter().zip(&tunnel.remotes) {
                    let (mtu, underlay) = underlay(snapshot, scope, *endpoint, now);
                    all.push(TunnelStatus {
                        name: name.clone(),
                        local: tunnel.local,
                        remote: *remote,
                        vni: tunnel.vni,
                        udp_port: tunnel.udp_port,
                        domain: domain_name(running, snapshot, scope.domain),
                        mtu,
                        learned_mtu: snapshot.tables.path_mtu.current(*endpoint, now),
                        underlay,
                    });
                }
            }
            all
        })
    }

    /// Bridge entries.
    pub fn macs(&self) -> Vec<MacStatus> {
        self.ask(|running, snapshot| {
            let entries = snapshot.tables.macs.entries(running.common.clock.now(), usize::MAX);
            let status = |entry: crate::l2::MacEntry| MacStatus {
                bridge: running.registry.bridge_name(entry.bridge).unwrap_or("?").to_owned(),
                mac: entry.mac,
                interface: running.registry.scope_name(entry.member.scope).unwrap_or("?").to_owned(),
                remote: entry
                    .member
                    .endpoint
                    .and_then(|endpoint| snapshot.pipeline.endpoints.get(endpoint.index()))
                    .map(|endpoint| endpoint.remote),
                age: entry.idle / SECOND,
            };
            entries.into_iter().map(status).collect()
        })
    }

    /// At most `limit` flow-table entries.
    pub fn flows(&self, limit: usize) -> Vec<FlowStatus> {
        self.ask(|running, _| running.flows(limit))
    }

    /// At most `limit` sessions.
    pub fn sessions(&self, limit: usize) -> Vec<SessionStatus> {
        self.ask(|running, snapshot| {
            let entries = snapshot.tables.sessions.entries(running.common.clock.now(), limit);
            let status = |entry: crate::session::SessionEntry| {
                let Tuple { source, destination, protocol, source_port, destination_port } = entry.forward;
                SessionStatus {
                    domain: domain_name(running, snapshot, entry.domain),
                    protocol: protocol_name(protocol),
                    source: endpoint_name(source, source_port),
                    destination: endpoint_name(destination, destination_port),
                    state: entry.state.name().to_owned(),
                    chain: entry.chain.and_then(|id| running.registry.chain_name(id)).map(str::to_owned),
                    expires: entry.expires / SECOND,
                }
            };
            entries.into_iter().map(status).collect()
        })
    }

    /// Address translation: at most `limit` bindings, and the use of external addresses.
    pub fn nat(&self, limit: usize) -> NatStatus {
        self.ask(|running, snapshot| {
            let vrf = |id| running.registry.vrf_name(id).unwrap_or("?").to_owned();
            let ends = |(ip, port): crate::decision::Transport| endpoint_name(ip.into(), port);
            let binding = |entry: BindingEntry| BindingStatus {
                vrf: vrf(entry.vrf),
                service: entry.service,
                protocol: protocol_name(entry.protocol),
                inside: ends(entry.inside),
                outside: ends(entry.outside),
                sessions: entry.sessions,
            };
            let address = |entry: AddressEntry| AddressStatus {
                vrf: vrf(entry.vrf),
                address: entry.address,
                protocol: protocol_name(entry.protocol),
                in_use: entry.in_use,
                resting: entry.resting,
            };
            let nat = &snapshot.tables.nat;
            NatStatus {
                bindings: nat.entries(limit).into_iter().map(binding).collect(),
                addresses: nat.addresses().into_iter().map(address).collect(),
            }
        })
    }

    /// The compiled pipeline, scope by scope.
    pub fn pipeline(&self) -> Vec<PipelineStatus> {
        self.ask(|running, snapshot| {
            let status = |scope: &Scope| PipelineStatus {
                interface: scope.name.clone(),
                domain: domain_name(running, snapshot, scope.domain),
                key: crate::snapshot::field_names(scope.fields).into_iter().map(str::to_owned).collect(),
                why: scope.why.clone(),
            };
            snapshot.pipeline.scopes.iter().flatten().map(status).collect()
        })
    }

    /// What every list of rules was compiled into: the classifier's, and those of service functions.
    pub fn rules(&self) -> Vec<RulesStatus> {
        self.ask(|_, snapshot| {
            let pipeline = &snapshot.pipeline;
            let services = pipeline.services.iter().filter_map(|service| {
                Some(rules_status(format!("{} {}", service.kind(), service.name()), service.rules()?))
            });
            let classifier = rules_status("classify".to_owned(), pipeline.classifier.shape());
            [classifier].into_iter().chain(services).filter(|rules| rules.rules > 0).collect()
        })
    }

    /// The use of every table, and what it takes in memory.
    pub fn tables(&self) -> Vec<TableStatus> {
        self.ask(super::tables::tables)
    }

    /// The process's memory.
    pub fn process_memory(&self) -> ProcessMemory {
        super::memory::of_process()
    }
}

/// Inner MTU of a tunnel endpoint, and its underlay's next hop in words.
fn underlay(snapshot: &Snapshot, scope: &Scope, endpoint: EndpointId, now: u64) -> (u16, String) {
    let asks = std::cell::RefCell::default();
    let walker =
        Walker { pipeline: &snapshot.pipeline, tables: &snapshot.tables, asks: &asks, last_way: None };
    let Some(remote) = snapshot.pipeline.endpoints.get(endpoint.index()) else { return (0, "?".into()) };
    match walker.next_hop(remote.underlay, remote.remote, 0) {
        Ok((egress, next_hop)) => {
            let name = snapshot.pipeline.scope_name(egress);
            let mtu = walker.tunnel_mtu(scope, endpoint, egress, now);
            (mtu, format!("via {next_hop} dev {name}"))
        }
        Err(reason) => (0, reason.describe().to_owned()),
    }
}

fn domain_name(running: &Running, snapshot: &Snapshot, domain: Domain) -> String {
    match domain {
        Domain::Vrf(id) => format!("vrf {}", running.registry.vrf_name(id).unwrap_or("?")),
        Domain::Bridge(id) => format!("bridge {}", running.registry.bridge_name(id).unwrap_or("?")),
        Domain::CrossConnect(other) => format!("cross-connect {}", snapshot.pipeline.scope_name(other)),
        Domain::Hop(id) => {
            let hop = snapshot.pipeline.hop(id).map_or("?", |hop| hop.name.as_str());
            format!("hop {hop}")
        }
    }
}

fn protocol_name(protocol: u8) -> String {
    match protocol {
        1 => "icmp".into(),
        6 => "tcp".into(),
        17 => "udp".into(),
        58 => "icmp6".into(),
        132 => "sctp".into(),
        other => other.to_string(),
    }
}

fn endpoint_name(ip: std::net::IpAddr, port: u16) -> String {
    match ip {
        std::net::IpAddr::V4(ip) => format!("{ip}:{port}"),
        std::net::IpAddr::V6(ip) => format!("[{ip}]:{port}"),
    }
}

fn rules_status(of: String, shape: RulesShape) -> RulesStatus {
    let family = |family, tree: TreeShape| RuleLookupStatus {
        family,
        algorithm: tree.algorithm(),
        why: tree.why(),
        regions: tree.regions as u64,
        tables: tree.tables as u64,
        most_tables: tree.most_tables as u64,
        most_regions: tree.most_regions as u64,
    };
    RulesStatus {
        of,
        rules: shape.rules as u64,
        bytes: shape.bytes as u64,
        families: vec![family("ipv4", shape.v4), family("ipv6", shape.v6)],
    }
}
