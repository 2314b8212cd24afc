//! `GET /metrics`: the Prometheus text format, version 0.0.4.

use std::fmt::{Display, Write};
use std::sync::Arc;

use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use weir_dataplane::decision::DropReason;
use weir_dataplane::worker::status::{
    ChainStatus, Counters, NatStatus, PortStatus, QueueStatus, TableStatus, WorkerStatus,
};

use crate::daemon::{Manager, blocking};

pub(crate) async fn metrics(State(manager): State<Arc<Manager>>) -> impl IntoResponse {
    let text = blocking(move || render(&manager)).await;
    ([(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text)
}

fn render(manager: &Manager) -> String {
    let mut page = Page::default();
    let engine = &manager.engine;
    page.family("weir_build_info", "gauge", "The version that runs; always 1.");
    page.sample("weir_build_info", &[("version", &env!("CARGO_PKG_VERSION"))], 1);
    page.family("weir_generation", "gauge", "Generation of the running configuration.");
    page.sample("weir_generation", &[], engine.generation());
    let (applied, refused) = manager.tally();
    page.family("weir_config_changes_total", "counter", "Configurations put in force, and refused.");
    page.sample("weir_config_changes_total", &[("result", &"applied")], applied);
    page.sample("weir_config_changes_total", &[("result", &"refused")], refused);
    let watched = &manager.watched;
    page.family(
        "weir_config_current",
        "gauge",
        "1 if what the configuration's source said last is in force, 0 if it was refused or cannot be read.",
    );
    page.sample("weir_config_current", &[], u8::from(watched.is_current()));
    page.family(
        "weir_config_watched",
        "gauge",
        "1 if the configuration file is loaded again when it is replaced.",
    );
    page.sample("weir_config_watched", &[], u8::from(watched.is_watching()));
    page.family("weir_draining", "gauge", "1 while weir is taken out of service.");
    page.sample("weir_draining", &[], u8::from(manager.is_draining()));
    packets(&mut page, &engine.counters());
    ports(&mut page, &engine.ports());
    workers(&mut page, &engine.workers());
    tables(&mut page, &engine.tables());
    nat(&mut page, &engine.nat(0));
    hops(&mut page, &engine.chains());
    page.text
}

fn packets(page: &mut Page, counters: &Counters) {
    page.family("weir_packets_in_total", "counter", "Packets that came into being for weir, by where from.");
    for (source, value) in [
        ("received", counters.received),
        ("originated", counters.originated),
        ("handed_in", counters.handed_in),
    ] {
        page.sample("weir_packets_in_total", &[("source", &source)], value);
    }
    let dropped: u64 = counters.dropped.values().sum();
    page.family("weir_packets_total", "counter", "Packets by verdict.");
    for (verdict, value) in [
        ("transmitted", counters.transmitted),
        ("dropped", dropped),
        ("punted", counters.punted),
        ("consumed", counters.consumed),
        ("handed_out", counters.handed_out),
    ] {
        page.sample("weir_packets_total", &[("verdict", &verdict)], value);
    }
    page.family("weir_packets_held", "gauge", "Packets held for ARP or ND now.");
    page.sample("weir_packets_held", &[], counters.held);
    page.family("weir_dropped_packets_total", "counter", "Dropped packets by reason.");
    for reason in DropReason::ALL {
        let value = counters.dropped.get(reason.name()).copied().unwrap_or(0);
        page.sample("weir_dropped_packets_total", &[("reason", &reason.name())], value);
    }
    for (name, help, value) in [
        ("weir_flow_hits_total", "Flow-table hits.", counters.flow_hits),
        ("weir_flow_misses_total", "Flow-table misses.", counters.flow_misses),
        ("weir_flow_evictions_total", "Flow entries evicted to make room.", counters.flow_evictions),
        ("weir_icmp_limited_total", "ICMP errors not sent because of the rate limit.", counters.icmp_limited),
        (
            "weir_address_conflicts_total",
            "ARP and ND messages that showed somebody else to use one of weir's addresses.",
            counters.address_conflicts,
        ),
        ("weir_mac_moves_total", "MAC addresses seen to move between bridge members.", counters.mac_moves),
        (
            "weir_mac_refused_total",
            "MAC addresses not learned because a bound was reached.",
            counters.mac_refused,
        ),
    ] {
        page.family(name, "counter", help);
        page.sample(name, &[], value);
    }
}

/// Name, help text and value of a counter of ports.
type PortMetric = (&'static str, &'static str, fn(&PortStatus) -> u64);

const PORT_METRICS: [PortMetric; 5] = [
    ("weir_port_redirected_frames_total", "Frames that the XDP program took for weir.", |port| {
        port.redirected
    }),
    ("weir_port_passed_frames_total", "Frames that the XDP program passed to the kernel.", |port| {
        port.passed
    }),
    (
        "weir_port_no_socket_frames_total",
        "Frames for weir that came by a queue without a socket and went to the kernel.",
        |port| port.no_socket,
    ),
    ("weir_port_missed_frames_total", "Frames that the device dropped, all its queues together.", |port| {
        port.missed
    }),
    ("weir_port_error_frames_total", "Frames received broken, as the device says.", |port| port.errors),
];

/// Name, help text and value of a counter of queues.
type QueueMetric = (&'static str, &'static str, fn(&QueueStatus) -> u64);

const QUEUE_METRICS: [QueueMetric; 7] = [
    ("weir_port_rx_frames_total", "Frames received.", |queue| queue.rx_frames),
    ("weir_port_rx_bytes_total", "Bytes received.", |queue| queue.rx_bytes),
    ("weir_port_tx_frames_total", "Frames sent.", |queue| queue.tx_frames),
    ("weir_port_tx_bytes_total", "Bytes sent.", |queue| queue.tx_bytes),
    (
        "weir_port_rx_missed_total",
        "Frames that the kernel or device dropped before weir saw them.",
        |queue| queue.rx_missed,
    ),
    ("weir_port_invalid_total", "Descriptors that the kernel refused.", |queue| queue.invalid),
    ("weir_port_copies_total", "Frames copied between memories.", |queue| queue.copies),
];

fn ports(page: &mut Page, ports: &[PortStatus]) {
    page.family("weir_port_up", "gauge", "1 while the port is up.");
    for port in ports {
        let labels: [(&str, &dyn Display); 2] = [("port", &port.name), ("device", &port.device)];
        page.sample("weir_port_up", &labels, u8::from(port.state == "up"));
    }
    page.family("weir_port_info", "gauge", "What was obtained for the port; always 1.");
    for port in ports {
        let labels: [(&str, &dyn Display); 7] = [
            ("port", &port.name),
            ("device", &port.device),
            ("mode", &port.mode),
            ("driver", &port.driver),
            ("backend", &port.backend),
            ("xdp", &port.xdp),
            ("numa", &port.numa),
        ];
        page.sample("weir_port_info", &labels, 1);
    }
    page.family("weir_port_rebinds_total", "counter", "How often the device vanished and was bound again.");
    for port in ports {
        page.sample("weir_port_rebinds_total", &[("port", &port.name)], port.rebinds);
    }
    for (name, help, value) in PORT_METRICS {
        page.family(name, "counter", help);
        for port in ports {
            page.sample(name, &[("port", &port.name)], value(port));
        }
    }
    for (name, help, value) in QUEUE_METRICS {
        page.family(name, "counter", help);
        for port in ports {
            for queue in &port.queues {
                page.sample(name, &[("port", &port.name), ("queue", &queue.queue)], value(queue));
            }
        }
    }
}

fn workers(page: &mut Page, workers: &[WorkerStatus]) {
    page.family("weir_worker_loops_total", "counter", "Loops of the worker: advances while it lives.");
    for worker in workers {
        let labels: [(&str, &dyn Display); 2] = [("worker", &worker.worker), ("core", &worker.core)];
        page.sample("weir_worker_loops_total", &labels, worker.loops);
    }
    page.family("weir_worker_sleeps_total", "counter", "How often the worker slept or blocked.");
    for worker in workers {
        page.sample("weir_worker_sleeps_total", &[("worker", &worker.worker)], worker.sleeps);
    }
    page.family("weir_worker_generation", "gauge", "Generation that the worker runs.");
    for worker in workers {
        page.sample("weir_worker_generation", &[("worker", &worker.worker)], worker.generation);
    }
    page.family("weir_worker_flows", "gauge", "Flow-table entries in use.");
    for worker in workers {
        page.sample("weir_worker_flows", &[("worker", &worker.worker)], worker.flows);
    }
    page.family("weir_worker_flow_capacity", "gauge", "Bound of the flow table.");
    for worker in workers {
        page.sample("weir_worker_flow_capacity", &[("worker", &worker.worker)], worker.flow_capacity);
    }
}

fn nat(page: &mut Page, nat: &NatStatus) {
    let help = "Ports of an external address that address translation has given out.";
    page.family("weir_nat_ports_in_use", "gauge", help);
    for entry in &nat.addresses {
        page.sample(
            "weir_nat_ports_in_use",
            &[("vrf", &entry.vrf), ("address", &entry.address), ("protocol", &entry.protocol)],
            u64::from(entry.in_use),
        );
    }
}

fn hops(page: &mut Page, chains: &[ChainStatus]) {
    page.family("weir_hop_up", "gauge", "1 if packets can be sent to an attached hop, 0 if not.");
    for chain in chains {
        for hop in &chain.hops {
            if let Some(state) = hop.state {
                let labels: [(&str, &dyn Display); 2] = [("chain", &chain.name), ("hop", &hop.name)];
                page.sample("weir_hop_up", &labels, u8::from(state == "up"));
            }
        }
    }
}

fn tables(page: &mut Page, tables: &[TableStatus]) {
    page.family("weir_table_used", "gauge", "Entries in use of a bounded table.");
    for table in tables {
        page.sample("weir_table_used", &[("table", &table.table)], table.used);
    }
    page.family("weir_table_limit", "gauge", "Bound of a table.");
    for table in tables {
        page.sample("weir_table_limit", &[("table", &table.table)], table.limit);
    }
}

/// A page under construction.
#[derive(Default)]
struct Page {
    text: String,
}

impl Page {
    // Writing to a String cannot fail, so the results below carry nothing.

    fn family(&mut self, name: &str, kind: &str, help: &str) {
        let _ = write!(self.text, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
    }

    fn sample(&mut self, name: &str, labels: &[(&str, &dyn Display)], value: impl Display) {
        self.text.push_str(name);
        for (at, (label, text)) in labels.iter().enumerate() {
            let opening = if at == 0 { '{' } else { ',' };
            let _ = write!(self.text, "{opening}{label}=\"{}\"", escape(&text.to_string()));
        }
        if !labels.is_empty() {
            self.text.push('}');
        }
        let _ = writeln!(self.text, " {value}");
    }
}

/// Label values escape backslash, quote and newline.
fn escape(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn label_values_are_escaped() {
        let mut page = Page::default();
        page.sample("m", &[("a", &"x\"y\\z\n"), ("b", &2)], 3);
        assert_eq!(page.text, "m{a=\"x\\\"y\\\\z\\n\",b=\"2\"} 3\n");
    }

    #[test]
    fn reasons_that_never_occurred_are_there_with_zero() {
        let mut page = Page::default();
        let mut counters = Counters::default();
        counters.dropped.insert("no_route", 7);
        packets(&mut page, &counters);
        for reason in DropReason::ALL {
            let value = if *reason == DropReason::NoRoute { 7 } else { 0 };
            let line = format!("weir_dropped_packets_total{{reason=\"{}\"}} {value}\n", reason.name());
            assert!(page.text.contains(&line), "{line}");
        }
        assert!(page.text.contains("weir_packets_total{verdict=\"dropped\"} 7\n"));
    }
}
