//! Open vSwitch with DPDK: a private database and daemon in a network namespace of their own, a bridge for each measurement.
//!
//! W2 rewrites addresses and TTL behind one destination match. W4 matches five-tuples, a hundred rules without state, so
//! does less than weir. W5 does W2's and sends the packet into a VXLAN tunnel.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::PAGES;
use super::process::{Daemon, on_cores, run};
use crate::common::machine::HugePages;
use crate::common::pin::other_than;

/// The daemon with DPDK in it, as Debian installs it.
const VSWITCHD: &str = "/usr/lib/openvswitch-switch-dpdk/ovs-vswitchd-dpdk";
const SCHEMA: &str = "/usr/share/openvswitch/vswitch.ovsschema";
/// How long it forwards before it is measured, and how long it is measured.
const WARM_UP: Duration = Duration::from_millis(500);
const MEASURED: Duration = Duration::from_millis(500);
/// A capture without packets: header of the format, version 2.4, Ethernet.
const EMPTY: [u8; 24] =
    [0xd4, 0xc3, 0xb2, 0xa1, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0, 0, 1, 0, 0, 0];

/// What a router does to a packet.
const ROUTED: &str = "dec_ttl,mod_dl_src:02:00:00:00:02:00,mod_dl_dst:02:00:00:00:02:02";

/// A running switch.
pub(crate) struct Ovs {
    core: usize,
    // In this order they end.
    switch: Daemon,
    _database: Daemon,
    folder: TempDir,
}

impl Ovs {
    /// Starts database and switch, forwarding on `core`.
    ///
    /// # Errors
    /// When something is not installed, or does not start.
    pub(crate) fn start(core: usize) -> Result<Self, String> {
        if HugePages::probe().free < 2 * PAGES {
            return Err(format!("it needs {} free 2 MB pages (sysctl vm.nr_hugepages)", 2 * PAGES));
        }
        if !Path::new(VSWITCHD).exists() {
            return Err(format!("{VSWITCHD} is not installed; `make bench-peers` installs it"));
        }
        let folder = tempfile::tempdir().map_err(|error| format!("cannot make a folder: {error}"))?;
        let path = |name: &str| folder.path().join(name);
        std::fs::write(path("empty.pcap"), EMPTY).map_err(|error| error.to_string())?;
        run(Command::new("ovsdb-tool").arg("create").arg(path("conf.db")).arg(SCHEMA))?;
        let socket = format!("unix:{}", path("db.sock").display());
        let control = other_than(core).unwrap_or(core);
        let database = Daemon::start(
            within(on_cores(&[control], "ovsdb-server").arg(path("conf.db")), folder.path())
                .arg(format!("--remote=p{socket}"))
                .arg(format!("--unixctl={}", path("ovsdb.ctl").display())),
        )?;
        until("the database of Open vSwitch", || path("db.sock").exists())?;
        run(Command::new("ovs-vsctl")
            .arg(format!("--db={socket}"))
            .args(["--no-wait", "init", "--", "set", "Open_vSwitch", ".", "other_config:dpdk-init=true"])
            .arg("other_config:dpdk-extra=--no-pci --in-memory")
            // Its pools would take whatever there is.
            .args(["other_config:dpdk-socket-mem=300", "other_config:dpdk-socket-limit=300"])
            .arg(format!("other_config:pmd-cpu-mask={:#x}", 1u64 << core))
            .arg(format!("other_config:dpdk-lcore-mask={:#x}", 1u64 << control)))?;
        // In a network namespace, so that the devices it makes go with it.
        let switch = Daemon::start(
            within(
                on_cores(&[control, core], "unshare").args(["--net", VSWITCHD]).arg(&socket),
                folder.path(),
            )
            .arg(format!("--unixctl={}", path("switch.ctl").display())),
        )?;
        let ovs = Self { core, switch, _database: database, folder };
        until("Open vSwitch", || ovs.control(&["version"]).is_ok())?;
        Ok(ovs)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn database(&self, arguments: &[&str]) -> Result<String, String> {
        let socket = format!("--db=unix:{}", self.path("db.sock").display());
        run(Command::new("ovs-vsctl").args([&socket, "--timeout=20"]).args(arguments))
    }

    fn control(&self, arguments: &[&str]) -> Result<String, String> {
        let socket = self.path("switch.ctl");
        run(Command::new("ovs-appctl").args(["--timeout=20", "-t"]).arg(socket).args(arguments))
    }

    fn flows(&self, bridge: &str, flows: &str) -> Result<(), String> {
        let (file, socket) = (self.path("flows"), format!("unix:{}", self.path(bridge).display()));
        std::fs::write(&file, flows).map_err(|error| error.to_string())?;
        run(Command::new("ovs-ofctl").args(["replace-flows", &format!("{socket}.mgmt")]).arg(file)).map(drop)
    }

    fn address(&self, arguments: &[&str]) -> Result<(), String> {
        let namespace = self.switch.id().to_string();
        run(Command::new("nsenter").args(["-t", &namespace, "-n", "ip"]).args(arguments)).map(drop)
    }

    fn bridge(&self, name: &str) -> Result<(), String> {
        self.database(&["add-br", name, "--", "set", "bridge", name, "datapath_type=netdev"]).map(drop)
    }

    /// A port that plays a capture.
    fn port(&self, bridge: &str, name: &str, number: u16, devargs: &str) -> Result<(), String> {
        let devargs = format!("options:dpdk-devargs=net_pcap{number},{devargs}");
        let number = format!("ofport_request={number}");
        let port = ["add-port", bridge, name, "--", "set", "Interface", name, "type=dpdk", &devargs, &number];
        self.database(&port).map(drop)
    }

    /// Cycles a packet, source and sink included, of the workload's counterpart, fed with `capture`.
    ///
    /// # Errors
    /// What a command said, or that packets did not leave.
    pub(crate) fn measure(&self, workload: &str, capture: &Path) -> Result<f64, String> {
        let result = self.measure_once(workload, capture);
        // Without ports the forwarding thread sleeps.
        for bridge in ["inner", "outer"] {
            self.database(&["--if-exists", "del-br", bridge])?;
        }
        result
    }

    fn measure_once(&self, workload: &str, capture: &Path) -> Result<f64, String> {
        let sink = format!("rx_pcap={}", self.path("empty.pcap").display());
        self.bridge("inner")?;
        if workload == "W5" {
            self.tunnel(&sink)?;
        } else {
            self.port("inner", "sink", 2, &sink)?;
            self.flows("inner", &if workload == "W4" { filter() } else { route("output:2") })?;
        }
        self.port("inner", "source", 1, &format!("rx_pcap={},infinite_rx=1", capture.display()))?;
        std::thread::sleep(WARM_UP);
        self.control(&["dpif-netdev/pmd-stats-clear"])?;
        std::thread::sleep(MEASURED);
        let statistics = self.control(&["dpif-netdev/pmd-stats-show"])?;
        let devices = self.control(&["dpctl/show", "-s"])?;
        match (cycles(&statistics, self.core), sent(&devices, "sink")) {
            (Some(cycles), Some(sent)) if sent > 0 => Ok(cycles),
            _ => Err(format!("Open vSwitch forwarded nothing for {workload}:\n{statistics}\n{devices}")),
        }
    }

    /// Routed into a VXLAN tunnel over a second bridge.
    fn tunnel(&self, sink: &str) -> Result<(), String> {
        self.bridge("outer")?;
        self.address(&["addr", "add", "192.0.2.1/24", "dev", "outer"])?;
        self.address(&["link", "set", "outer", "up"])?;
        self.port("outer", "sink", 2, sink)?;
        self.flows("outer", "priority=9,in_port=LOCAL,actions=output:2\n")?;
        let vxlan = ["type=vxlan", "options:remote_ip=192.0.2.2", "options:key=100", "ofport_request=9"];
        self.database(
            &[&["add-port", "inner", "far", "--", "set", "Interface", "far"], &vxlan[..]].concat(),
        )?;
        self.control(&["tnl/arp/set", "outer", "192.0.2.2", "02:00:00:00:02:02"])?;
        self.flows("inner", &route("output:9"))
    }
}

/// One route.
fn route(output: &str) -> String {
    format!("ip,nw_dst=10.128.0.0/9,actions={ROUTED},{output}\n")
}

/// A hundred rules over five-tuples, of which the last matches.
fn filter() -> String {
    let mut text = String::new();
    for rule in 1..100 {
        let (port, priority) = (1024 + rule, 200 - rule);
        let _ =
            writeln!(text, "priority={priority},udp,nw_src=172.16.{rule}.0/24,tp_dst={port},actions=drop");
    }
    text + &format!("priority=100,udp,nw_src=10.0.0.0/8,tp_dst=443,actions={ROUTED},output:2\n")
}

/// Has the command keep its files in `folder`.
fn within<'c>(command: &'c mut Command, folder: &Path) -> &'c mut Command {
    for variable in ["OVS_RUNDIR", "OVS_DBDIR", "OVS_LOGDIR", "OVS_SYSCONFDIR"] {
        command.env(variable, folder);
    }
    command.arg("--no-chdir")
}

/// Waits until `done`, at most ten seconds.
fn until(what: &str, done: impl Fn() -> bool) -> Result<(), String> {
    let end = Instant::now() + Duration::from_secs(10);
    while !done() {
        if Instant::now() > end {
            return Err(format!("{what} did not start within ten seconds"));
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    Ok(())
}

/// Cycles a packet of the forwarding thread on `core`, from `dpif-netdev/pmd-stats-show`.
fn cycles(output: &str, core: usize) -> Option<f64> {
    let thread = format!("core_id {core}:");
    let (_, rest) = output.split_once(&thread)?;
    let (_, rest) = rest.split_once("avg processing cycles per packet: ")?;
    rest.split_whitespace().next()?.parse().ok()
}

/// Packets that a port has sent, from `dpctl/show -s`.
fn sent(output: &str, port: &str) -> Option<u64> {
    let (_, rest) = output.split_once(&format!(": {port} ("))?;
    let (_, rest) = rest.split_once("TX packets:")?;
    rest.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// From Open vSwitch 3.1.
    const STATISTICS: &str = "\
pmd thread numa_id 0 core_id 1:
  packets received: 5269280
  emc hits: 5269280
  avg. packets per output batch: 32.00
  idle cycles: 0 (0.00%)
  processing cycles: 2595973510 (100.00%)
  avg cycles per packet: 500.00 (2634640000/5269280)
  avg processing cycles per packet: 492.66 (2595973510/5269280)
main thread:
  packets received: 0
";
    const DEVICES: &str = "\
netdev@ovs-netdev:
  port 2: sink (dpdk: configured_rx_queues=1, mtu=1500, rx_csum_offload=false)
    RX packets:0 errors:0 dropped:0 overruns:? frame:?
    TX packets:15616000 errors:0 dropped:0 aborted:? carrier:?
  port 3: source (dpdk: configured_rx_queues=1, mtu=1500, rx_csum_offload=false)
    RX packets:15616448 errors:0 dropped:0 overruns:? frame:?
    TX packets:0 errors:0 dropped:0 aborted:? carrier:?
";

    #[test]
    fn processing_cycles_of_the_forwarding_thread_are_read() {
        assert_eq!(cycles(STATISTICS, 1), Some(492.66));
        assert_eq!(cycles(STATISTICS, 0), None);
    }

    #[test]
    fn packets_sent_are_read_by_port() {
        assert_eq!((sent(DEVICES, "sink"), sent(DEVICES, "source")), (Some(15_616_000), Some(0)));
        assert_eq!(sent(DEVICES, "other"), None);
    }

    #[test]
    fn the_last_of_a_hundred_rules_matches_the_workloads_packets() {
        let rules = filter();
        assert_eq!(rules.lines().count(), 100);
        assert!(rules.lines().last().is_some_and(|rule| rule.contains("nw_src=10.0.0.0/8,tp_dst=443")));
    }
}
