//! A DPDK program as a hop: DPDK's testpmd, as it runs in a container, takes frames from one memif link and gives them back by the
//! other. It needs no network card, but a weir that is built with DPDK.

use std::fs::File;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use weir_hw_tests::{Lab, Node, WeirBox, eventually};

use crate::afxdp::expect_a_clean_end;
use crate::vfio::drives_dpdk;

/// How long a link takes to come up on a busy machine.
const LINK: Duration = Duration::from_secs(30);

/// testpmd that swaps two memif links; killed on drop.
struct Inspector(Child);

impl Inspector {
    fn start(folder: &Path) -> Self {
        let console = File::create(folder.join("testpmd.log")).expect("make a log");
        let errors = console.try_clone().expect("share a log");
        let prefix = format!("--file-prefix=weir{}", std::process::id());
        let mut command = Command::new("dpdk-testpmd");
        command.args([
            "--lcores=0@0-1,1@0-1",
            "--no-pci",
            "--no-huge",
            "--no-shconf",
            "--no-telemetry",
            "-m",
            "128",
        ]);
        command.arg(prefix);
        for id in 0..2 {
            let socket = folder.join("dpi.sock");
            command.arg(format!(
                "--vdev=net_memif{id},role=client,id={id},socket={},socket-abstract=no",
                socket.display()
            ));
        }
        command.args(["--", "--nb-cores=1", "--forward-mode=io", "--total-num-mbufs=8192", "--no-flush-rx"]);
        // It forwards until its standard input says something.
        command.stdin(Stdio::piped()).stdout(console).stderr(errors);
        Self(command.spawn().unwrap_or_else(|e| panic!("dpdk-testpmd (Debian: dpdk-dev): {e}")))
    }
}

impl Drop for Inspector {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// alice ── weir ── bob, and in the chain of what alice begins a firewall, a DPDK program and a translator.
fn lab() -> (Lab, Node, Node, WeirBox) {
    let lab = Lab::new();
    let (alice, bob) = (lab.host("10.1.0.2/24"), lab.host("10.2.0.2/24"));
    let socket = lab.directory().join("dpi.sock");
    let arm = |name: &str, id| {
        format!(
            "[port.{name}]\ndevice = \"vdev:net_memif{id},role=server,id={id},socket={},socket-abstract=no\"\nmode = \"dedicated\"\n",
            socket.display()
        )
    };
    let weir = lab.weir(&format!(
        r#"
        {}
        {}
        [port.west]
        device = "west"
        mode = "dedicated"
        addresses = ["10.1.0.1/24"]
        [port.east]
        device = "east"
        mode = "dedicated"
        addresses = ["10.2.0.1/24"]
        [hop.dpi]
        attach = ["dpi-a", "dpi-b"]
        [service.edge.firewall]
        default = "drop"
        rules = [ {{ allow = "icmp" }}, {{ allow = "tcp" }}, {{ allow = "udp" }} ]
        [service.out.nat]
        snat = {{ from = "10.1.0.0/24", to = "masquerade" }}
        [chain.inspected]
        hops = ["edge", "dpi", "out"]
        [[classify]]
        from = "port.west"
        chain = "inspected"
        "#,
        arm("dpi-a", 0),
        arm("dpi-b", 1),
    ));
    lab.wire(&alice, &weir, "west");
    lab.wire(&weir, &bob, "east");
    lab.start();
    (lab, alice, bob, weir)
}

/// Waits until the hop is in this state, as `weir show chains` has it.
fn await_state(weir: &WeirBox, wanted: &str) {
    let state = || {
        let hops = weir.show("chains")["chains"][0]["hops"].clone();
        let hop = hops.as_array()?.iter().find(|hop| hop["state"].is_string())?;
        (hop["state"] == wanted).then_some(())
    };
    assert!(eventually(LINK, state).is_some(), "not {wanted}: {}", weir.show("chains"));
}

#[test]
fn a_dpdk_program_behind_memif_is_a_hop_and_may_be_started_again() {
    if !drives_dpdk() {
        return;
    }
    let (lab, alice, bob, weir) = lab();
    await_state(&weir, "down");
    alice.ping(&bob).expect_none();
    for _ in 0..2 {
        let inspector = Inspector::start(lab.directory());
        await_state(&weir, "up");
        alice.ping(&bob).expect_all_within(LINK);
        alice.ping(&bob).size(1500).df(true).count(5).expect_all();
        alice.tcp(&bob).expect_bytes(2_000_000);
        alice.udp(&bob).size(1400).count(1_000).rate(500).run().expect_every_one();
        drop(inspector);
        await_state(&weir, "down");
        alice.ping(&bob).expect_none();
        weir.counters().expect_conserved();
    }
    expect_a_clean_end(&weir);
}
