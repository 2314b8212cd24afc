//! What is measured: where packets come from, what they look like, and what weir is configured to do with them.

use std::fmt::Write as _;
use std::fs::File;
use std::io::BufWriter;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use pcap_file::pcap::{PcapPacket, PcapWriter};
use weir_dataplane::packet::builder::Packet;

/// Where packets come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    /// Buffers of 64 bytes that nobody wrote.
    Null,
    /// A capture, over and over.
    Capture,
    /// Round and round between a generator and the device under test, over two memif links.
    Memif,
}

/// What weir does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Work {
    /// From one port to the other as they are.
    CrossConnect,
    /// By so many routes, each of 24 bits.
    Routes(u32),
    /// Through a stateful firewall and a policer into a VXLAN tunnel.
    Chain,
}

/// One case.
#[derive(Clone, Copy, Debug)]
pub(super) struct Case {
    pub(super) name: &'static str,
    pub(super) title: &'static str,
    pub(super) source: Source,
    flows: u32,
    work: Work,
    /// Whether testpmd's io mode is its counterpart.
    pub(super) testpmd: bool,
    /// Whether l3fwd is.
    pub(super) l3fwd: bool,
    /// Open vSwitch's counterpart, as `pipeline --peers` sets it up.
    pub(super) ovs: Option<&'static str>,
}

const IO: Case = Case {
    name: "",
    title: "",
    source: Source::Null,
    flows: 1,
    work: Work::CrossConnect,
    testpmd: true,
    l3fwd: false,
    ovs: None,
};
const ROUTE: Case = Case {
    source: Source::Capture,
    work: Work::Routes(1),
    testpmd: false,
    l3fwd: true,
    ovs: Some("W2"),
    ..IO
};
const CHAIN: Case =
    Case { source: Source::Capture, work: Work::Chain, testpmd: false, l3fwd: false, ovs: Some("W5"), ..IO };
/// Most routes that l3fwd holds.
const L3FWD_ROUTES: u32 = 1024;
/// Many.
const MANY: u32 = 100_000;

/// All cases, in the order in which they are reported.
pub(super) const ALL: &[Case] = &[
    Case { name: "io-null", title: "port to port, net_null", ..IO },
    Case { name: "io-pcap", title: "port to port, net_pcap", source: Source::Capture, ..IO },
    Case { name: "io-memif", title: "port to port and back, net_memif", source: Source::Memif, ..IO },
    Case { name: "route-1", title: "IPv4, 1 flow, 1 route", ..ROUTE },
    Case {
        name: "route-100k",
        title: "IPv4, 100 k flows, 100 k routes",
        flows: MANY,
        work: Work::Routes(MANY),
        ..ROUTE
    },
    Case { name: "chain-1", title: "firewall, policer, VXLAN; 1 flow", ..CHAIN },
    Case { name: "chain-100k", title: "firewall, policer, VXLAN; 100 k flows", flows: MANY, ..CHAIN },
];

/// The cases of these names.
///
/// # Errors
/// A name that none has.
pub(super) fn chosen(names: &[String]) -> Result<Vec<&'static Case>, String> {
    if let Some(name) = names.iter().find(|name| *name != "all" && ALL.iter().all(|case| case.name != **name))
    {
        let known: Vec<_> = ALL.iter().map(|case| case.name).collect();
        return Err(format!("no case is called {name}; there are all, {}", known.join(", ")));
    }
    let wanted = |case: &&Case| names.iter().any(|name| name == "all" || name == case.name);
    Ok(ALL.iter().filter(wanted).collect())
}

/// Networks of 24 bits in 10.128.0.0/9, which whoever has one route for all destinations has it for.
const NETWORKS: u32 = 1 << 15;

/// The destination of a flow: one in each /24 from 10.128.0.0 on.
fn destination(flow: u32) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 128, 0, 2)).wrapping_add(flow << 8))
}

impl Case {
    /// Where its capture is.
    pub(super) fn capture(&self, folder: &Path) -> PathBuf {
        folder.join(format!("{}.pcap", self.name))
    }

    /// Packets of its capture: the flows in an order that no prefetcher guesses.
    fn packets(&self) -> impl Iterator<Item = Vec<u8>> {
        let count = self.flows.max(1024);
        let mut order: Vec<u32> = (0..count).map(|at| at % self.flows).collect();
        fastrand::Rng::with_seed(u64::from(count)).shuffle(&mut order);
        order.into_iter().map(|flow| {
            let (network, port) = match self.work {
                Work::Chain => (flow % NETWORKS, 4000 + (flow / NETWORKS) as u16),
                Work::CrossConnect | Work::Routes(_) => (flow, 4000),
            };
            Packet::ethernet([2, 0, 0, 0, 1, 2], [2, 0, 0, 0, 1, 0])
                .ipv4(Ipv4Addr::new(10, 1, 0, 2), destination(network))
                .udp(port, 443)
                .payload(&[0; 22])
                .build()
        })
    }

    /// Writes its capture, and one without packets.
    ///
    /// # Errors
    /// The path, and what could not be done.
    pub(super) fn write_capture(&self, folder: &Path) -> Result<(), String> {
        write(&folder.join("empty.pcap"), std::iter::empty())?;
        if self.source == Source::Capture {
            write(&self.capture(folder), self.packets())?;
        }
        Ok(())
    }

    /// Buffers that its source needs: `net_pcap` keeps the whole capture in them.
    pub(super) fn buffers(&self) -> u32 {
        (self.flows + 16_384).next_power_of_two().max(32_768)
    }

    /// DPDK's devices for a program that forwards between two: first the one that packets come from.
    pub(super) fn devices(&self, folder: &Path) -> [String; 2] {
        let file = |path: PathBuf| path.display().to_string();
        let memif = |n| {
            let socket = file(folder.join("memif.sock"));
            format!("net_memif{n},role=server,id={n},socket={socket},socket-abstract=no")
        };
        match self.source {
            Source::Null => ["net_null0,size=64".to_owned(), "net_null1,no-rx=1".to_owned()],
            Source::Capture => [
                format!("net_pcap0,rx_pcap={},infinite_rx=1", file(self.capture(folder))),
                format!("net_pcap1,rx_pcap={}", file(folder.join("empty.pcap"))),
            ],
            Source::Memif => [memif(0), memif(1)],
        }
    }

    /// l3fwd's routes, in the format of its `--rule_ipv4`. It holds 1024: where there are more, it gets one that covers them.
    pub(super) fn l3fwd_routes(&self) -> String {
        let Work::Routes(count) = self.work else { return String::new() };
        let mut text = String::new();
        if count > L3FWD_ROUTES {
            return "R8.0.0.0/5 1\n".to_owned();
        }
        for route in 0..count {
            let [a, b, c, _] = destination(route).octets();
            let _ = writeln!(text, "R{a}.{b}.{c}.0/24 1");
        }
        text
    }

    /// weir's configuration.
    pub(super) fn configuration(&self, core: usize, folder: &Path) -> String {
        let [near, far] = self.devices(folder);
        let (frames, flows) = (self.buffers() + 16_384, (2 * self.flows).max(65_536));
        let mut text = format!(
            "[workers]\ncores = [{core}]\nidle = \"spin\"\n[memory]\nframes = {frames}\n[limits]\nflows = {flows}\nsessions = {flows}\n\
             [port.in]\ndevice = \"vdev:{near}\"\nmode = \"dedicated\"\nmac = \"02:00:00:00:01:00\"\n"
        );
        let far = format!(
            "[port.out]\ndevice = \"vdev:{far}\"\nmode = \"dedicated\"\nmac = \"02:00:00:00:02:00\"\n"
        );
        if self.work == Work::CrossConnect {
            return text + &far + "[cross-connect.wire]\nends = [\"in\", \"out\"]\n";
        }
        text += "addresses = [\"10.1.0.1/24\"]\n";
        text += &far;
        text += "addresses = [\"192.0.2.1/24\"]\n\
                 [[neighbour]]\nport = \"out\"\nip = \"192.0.2.2\"\nmac = \"02:00:00:00:02:02\"\n";
        match self.work {
            Work::CrossConnect => {}
            Work::Routes(count) => {
                for route in 0..count {
                    let [a, b, c, _] = destination(route).octets();
                    let _ = writeln!(
                        text,
                        "[[vrf.default.route]]\nprefix = \"{a}.{b}.{c}.0/24\"\nvia = {{ ip = \"192.0.2.2\" }}"
                    );
                }
            }
            Work::Chain => text += CHAINED,
        }
        text
    }
}

const CHAINED: &str = r#"
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
rules = [ { allow = "udp", from = "10.0.0.0/8", to-port = 443 } ]
[service.contract.policer]
rules = [ { rate = "400Gbit/s" } ]
[chain.all]
hops = ["edge", "contract"]
[[classify]]
from = "port.in"
chain = "all"
"#;

fn write(path: &Path, packets: impl Iterator<Item = Vec<u8>>) -> Result<(), String> {
    let failed = |error: &dyn std::fmt::Display| format!("cannot write {}: {error}", path.display());
    let file = File::create(path).map_err(|error| failed(&error))?;
    let mut writer = PcapWriter::new(BufWriter::new(file)).map_err(|error| failed(&error))?;
    for (at, frame) in packets.enumerate() {
        let packet = PcapPacket::new(Duration::from_micros(at as u64), frame.len() as u32, &frame);
        writer.write_packet(&packet).map_err(|error| failed(&error))?;
    }
    writer.into_writer().into_inner().map_err(|error| failed(&error.into_error()))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use weir_dataplane::worker::Engine;

    use super::*;

    #[test]
    fn weir_accepts_the_configuration_of_every_case() {
        for case in ALL {
            let text = case.configuration(0, Path::new("/tmp/x"));
            let loaded = weir_config::load_str(case.name, &text);
            assert!(loaded.is_ok(), "{}: {}", case.name, loaded.unwrap_err());
        }
    }

    #[test]
    fn every_packet_of_every_capture_leaves_by_the_far_port() {
        for case in ALL.iter().filter(|case| case.source == Source::Capture) {
            let config =
                weir_config::load_str(case.name, &case.configuration(0, Path::new("/tmp/x"))).unwrap();
            let mut engine = Engine::new(&config.config).unwrap();
            let (packets, mut sent) = (case.packets().collect::<Vec<_>>(), 0);
            for burst in packets.chunks(64) {
                let burst: Vec<&[u8]> = burst.iter().map(Vec::as_slice).collect();
                engine.receive("in", &burst, |port, _| sent += usize::from(port == "out"));
            }
            assert_eq!(sent, packets.len(), "{}: {:?}", case.name, engine.counters());
        }
    }

    #[test]
    fn captures_hold_each_flow_and_frames_of_64_bytes() {
        let case = chosen(&["route-100k".to_owned()]).unwrap()[0];
        let mut destinations: Vec<_> =
            case.packets().map(|frame| (frame.len(), frame[30..34].to_vec())).collect();
        assert!(destinations.iter().all(|(len, _)| *len == 64));
        destinations.sort();
        destinations.dedup();
        assert_eq!(destinations.len(), 100_000);
        assert!(chosen(&["nothing".to_owned()]).is_err());
    }
}
