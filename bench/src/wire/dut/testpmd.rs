//! DPDK's testpmd over AF_XDP: a bare forwarder that rewrites MAC addresses.

use std::process::Command;

use super::{SINK, Setting, Started, await_ready};
use crate::wire::lab::{self, Namespace};

pub(super) fn start(
    setting: &Setting,
    namespace: &Namespace,
    input: &str,
    output: &str,
) -> Result<Started, String> {
    if setting.vxlan {
        return Err("it cannot encapsulate".to_owned());
    }
    let log = setting.directory.join("testpmd.log");
    // Its messages go to a file, where they would be kept back.
    let mut command = Command::new("stdbuf");
    command.args(["-oL", "dpdk-testpmd"]);
    let lcores = format!("0@{},1@{}", setting.other_core, setting.core);
    command.args([
        "--no-pci",
        "--no-huge",
        "--no-shconf",
        "-m",
        "256",
        "--no-telemetry",
        "--lcores",
        &lcores,
    ]);
    command.args(["--file-prefix", &format!("weir-bench-{}", std::process::id())]);
    command.args(["--vdev", &format!("net_af_xdp0,iface={input}")]);
    command.args(["--vdev", &format!("net_af_xdp1,iface={output}")]);
    command.args(["--", "--forward-mode=mac", "--nb-cores=1", "--burst=64", "--total-num-mbufs=16384"]);
    command.args(["--no-mlockall", "--auto-start", "--stats-period=3600", "--rxd=1024", "--txd=1024"]);
    command.arg(format!("--eth-peer=1,{SINK}"));
    let mut child = namespace.spawn(&command, log.clone())?;
    let started = || std::fs::read_to_string(&log).is_ok_and(|text| text.contains("start packet forwarding"));
    await_ready(&mut child, &log, started)?;
    let version = lab::run(Command::new("dpkg-query").args(["-W", "-f", "${Version}", "dpdk"]));
    let notes = vec![
        format!("one forwarding core, {}, that spins", setting.core),
        "rewrites MAC addresses only: no routing, no checks, no TTL".to_owned(),
    ];
    Ok(Started { version: format!("DPDK {}", version.unwrap_or_default()), notes, child: Some(child) })
}
