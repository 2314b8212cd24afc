//! An unmodified Linux guest as a hop of a chain: weir gives it two vhost-user network cards, and it bridges them. WEIR_GUEST
//! names a program that runs such a guest, given the two sockets, until it is killed.

use std::fs::File;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use weir_hw_tests::{Lab, Node, WeirBox};

use crate::afxdp::expect_a_clean_end;
use crate::cards::skipped;
use crate::vfio::drives_dpdk;

/// How long a guest may take from its start until it passes packets: it is emulated.
const BOOT: Duration = Duration::from_secs(150);

/// A guest that runs; killed on drop.
struct Guest(Child);

impl Guest {
    /// Its console goes to `guest.log` beside the sockets, where a failed lab leaves it.
    fn start(program: &str, sockets: &[PathBuf; 2]) -> Self {
        let console = File::create(sockets[0].with_file_name("guest.log")).expect("make a log");
        let errors = console.try_clone().expect("share a log");
        let mut command = Command::new(program);
        command.args(sockets).stdin(Stdio::null()).stdout(console).stderr(errors);
        Self(command.spawn().unwrap_or_else(|e| panic!("{program}: {e}")))
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// alice ── weir ── bob, and the guest in the chain of what alice begins: it goes to the guest's first card, and on when it comes back
/// by the second.
fn lab() -> Option<(Lab, String, [PathBuf; 2], Node, Node, WeirBox)> {
    let Some(program) = std::env::var("WEIR_GUEST").ok().filter(|value| !value.is_empty()) else {
        skipped("set WEIR_GUEST to a program that runs a guest: hw-tests/vm/guest-in-the-wire.sh");
        return None;
    };
    if !drives_dpdk() {
        return None;
    }
    let lab = Lab::new();
    let (alice, bob) = (lab.host("10.1.0.2/24 2001:db8:1::2/64"), lab.host("10.2.0.2/24 2001:db8:2::2/64"));
    let sockets = ["first", "second"].map(|name| lab.directory().join(format!("{name}.vhost")));
    let [first, second] = &sockets;
    let weir = lab.weir(&format!(
        r#"
        [port.west]
        device = "west"
        mode = "dedicated"
        addresses = ["10.1.0.1/24", "2001:db8:1::1/64"]
        [port.east]
        device = "east"
        mode = "dedicated"
        addresses = ["10.2.0.1/24", "2001:db8:2::1/64"]
        [port.first]
        device = "vdev:net_vhost0,iface={}"
        mode = "dedicated"
        [port.second]
        device = "vdev:net_vhost1,iface={}"
        mode = "dedicated"
        [hop.guest]
        attach = ["first", "second"]
        [service.edge.firewall]
        default = "drop"
        rules = [{{ allow = "icmp" }}, {{ allow = "icmp6" }}, {{ allow = "tcp" }}, {{ allow = "udp" }}]
        [chain.inspected]
        hops = ["edge", "guest"]
        [[classify]]
        from = "port.west"
        chain = "inspected"
        "#,
        first.display(),
        second.display()
    ));
    lab.wire(&alice, &weir, "west");
    lab.wire(&weir, &bob, "east");
    lab.start();
    Some((lab, program, sockets, alice, bob, weir))
}

#[test]
fn a_guest_is_a_hop_of_a_chain_and_may_be_started_again() {
    let Some((_lab, program, sockets, alice, bob, weir)) = lab() else { return };
    for _ in 0..2 {
        let guest = Guest::start(&program, &sockets);
        alice.ping(&bob).expect_all_within(BOOT);
        alice.ping(&bob).size(1500).df(true).count(5).expect_all();
        alice.ping(&bob).v6().size(1500).df(true).count(5).expect_all();
        let mut capture = bob.capture("east");
        alice.tcp(&bob).expect_bytes(2_000_000);
        alice.tcp(&bob).v6().expect_bytes(2_000_000);
        capture.assert_clean_capture();
        alice.udp(&bob).size(1400).count(1_000).rate(500).run().expect_every_one();
        // Killed under traffic.
        let stream = alice.udp(&bob).rate(1_000).count(2_000).start();
        std::thread::sleep(Duration::from_millis(500));
        drop(guest);
        drop(stream.finish());
        weir.counters().expect_conserved();
    }
    expect_a_clean_end(&weir);
}
