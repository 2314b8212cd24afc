//! Measures the first packet of a flow: the walk, the session, the flow's entry, and the replay. A firewall with 1,000 rules, routed into
//! a VXLAN tunnel; each packet is of a flow of its own. In memory, without what a port costs.
//!
//!     cargo run --release -p weir-bench --example first_packet [FLOWS]

use std::io::Write;
use std::net::Ipv4Addr;
use std::time::Instant;

use ipnet::IpNet;
use weir_bench::rules::{Generator, Kind, Numbers};
use weir_config::{Action, Config, FirewallRule, Match, Service};
use weir_dataplane::decision::PortId;
use weir_dataplane::frame::{BURST, Frame};
use weir_dataplane::io::PortQueue;
use weir_dataplane::io::memory::TemplateQueue;
use weir_dataplane::packet::builder::Packet;
use weir_dataplane::worker::Engine;

const BASE: &str = r#"
[limits]
flows = 262144
sessions = 262144
[memory]
frames = 4096
[port.in]
mode = "dedicated"
mac = "02:00:00:00:01:00"
addresses = ["10.1.0.1/24"]
[port.out]
mode = "dedicated"
mac = "02:00:00:00:02:00"
addresses = ["192.0.2.1/24"]
[[neighbour]]
port = "out"
ip = "192.0.2.2"
mac = "02:00:00:00:02:02"
[tunnel.far.vxlan]
local = "192.0.2.1"
remote = "192.0.2.2"
vni = 100
addresses = ["10.255.0.1/30"]
remote-mac = "02:00:00:00:03:02"
mac = "02:00:00:00:03:01"
[[vrf.default.route]]
prefix = "10.128.0.0/9"
via = { tunnel = "far" }
[service.edge.firewall]
default = "drop"
[chain.all]
hops = ["edge"]
[[classify]]
from = "port.in"
chain = "all"
"#;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let flows: usize = std::env::args().nth(1).and_then(|text| text.parse().ok()).unwrap_or(100_000);
    let mut engine = Engine::new(&configuration()?)?;
    let port = engine.port("in").ok_or("no port")?;
    let mut queue = TemplateQueue::new(&frames(flows), 128);
    let mut burst = Vec::with_capacity(BURST);
    let bursts = flows / BURST;
    let mut null = f64::MAX;
    for _ in 0..3 {
        let start = Instant::now();
        for _ in 0..bursts {
            queue.receive(&mut burst, BURST, engine.cache());
            queue.transmit(&mut burst, engine.cache());
        }
        null = null.min(start.elapsed().as_nanos() as f64 / (bursts * BURST) as f64);
    }
    let before = engine.counters();
    let costs = first_packets(&mut engine, port, &mut queue, &mut burst, bursts);
    let after = engine.counters();
    let (sent, hits) = (after.transmitted - before.transmitted, after.flow_hits - before.flow_hits);
    let (low, middle) = (costs[costs.len() / 10], costs[costs.len() / 2]);
    let mean = costs.iter().sum::<f64>() / costs.len() as f64;
    writeln!(
        std::io::stdout(),
        "{flows} flows: {sent} sent, {hits} hits; ns a first packet: fastest tenth {:.0}, median {:.0}, mean {:.0} (receive and \
         free alone: {null:.0}, subtracted)",
        low - null,
        middle - null,
        mean - null
    )?;
    Ok(())
}

/// Nanoseconds a packet by burst, sorted. On its own, so that a profiler can find it.
#[inline(never)]
fn first_packets(
    engine: &mut Engine,
    port: PortId,
    queue: &mut TemplateQueue,
    burst: &mut Vec<Frame>,
    bursts: usize,
) -> Vec<f64> {
    let mut costs = Vec::with_capacity(bursts);
    for _ in 0..bursts {
        let start = Instant::now();
        queue.receive(burst, BURST, engine.cache());
        engine.process(port, burst, |_, frames, cache| {
            queue.transmit(frames, cache);
        });
        costs.push(start.elapsed().as_nanos() as f64 / BURST as f64);
    }
    costs.sort_by(f64::total_cmp);
    costs
}

fn configuration() -> Result<Config, Box<dyn std::error::Error>> {
    let mut config = weir_config::load_str("first.toml", BASE)?.config;
    let Some(Service::Firewall(firewall)) = config.services.get_mut("edge") else {
        return Err("no firewall".into());
    };
    let mut generator = Generator::new(Kind::Firewall, false, 1_000, 1);
    let ours: IpNet = "10.128.0.0/9".parse()?;
    let elsewhere = |net: &IpNet| !net.contains(&ours) && !ours.contains(net);
    // What is sent here matches none of the others: a look-up has to rule them all out.
    let rules = generator
        .rules(4_000)
        .into_iter()
        .filter(|rule| !rule.to.is_empty() && rule.to.iter().all(elsewhere));
    let deny = |matches| FirewallRule { action: Action::Deny, matches };
    firewall.rules = rules.take(999).map(deny).collect();
    let wanted = Match { protocol: Some(17), to: vec![ours], ..Match::default() };
    firewall.rules.push(FirewallRule { action: Action::Allow, matches: wanted });
    Ok(config)
}

/// Each of another flow: ports and destinations at random.
fn frames(flows: usize) -> Vec<Vec<u8>> {
    let mut numbers = Numbers::new(9);
    (0..flows as u32)
        .map(|flow| {
            let [_, a, b, c] = flow.wrapping_mul(0x9e37_79b1).to_be_bytes();
            let [.., low, high] = numbers.draw().to_be_bytes();
            Packet::ethernet([2, 0, 0, 0, 1, 2], [2, 0, 0, 0, 1, 0])
                .ipv4(Ipv4Addr::new(10, 1, 0, 2), Ipv4Addr::new(10, 128 | a, b, c))
                .udp(u16::from_be_bytes([low | 4, high]), 443)
                .payload(&[0; 22])
                .build()
        })
        .collect()
}
