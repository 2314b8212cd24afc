//! When the process that holds a port is killed, the kernel has the interface back.
#![allow(clippy::unwrap_used)]

mod support;

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::Duration;

use support::{Memory, SOON, Wire, privileged};
use weir_config::{PortMode, XdpMode};
use weir_dataplane::io::Port;
use weir_dataplane::io::afxdp::OpenOptions;

/// Names the device to the child.
const DEVICE: &str = "WEIR_TEST_HOLD_DEVICE";

/// Not a test by itself: the child of the test below.
#[test]
#[allow(clippy::print_stdout)]
fn child_that_holds_a_port() {
    let Ok(device) = std::env::var(DEVICE) else { return };
    let memory = Memory::new(8192);
    let mut options = OpenOptions::new(device, PortMode::Dedicated, XdpMode::Auto);
    options.promiscuous = true;
    let _held = memory.open(&options);
    println!("\nholding");
    std::thread::sleep(Duration::from_secs(60));
}

#[test]
fn a_killed_process_gives_its_interface_back_to_the_kernel() {
    if !privileged("a_killed_process_gives_its_interface_back_to_the_kernel") {
        return;
    }
    let wire = Wire::new(2);
    support::run(&format!("ip address add 192.0.2.1/24 dev {}", wire.device));
    wire.there(&format!("ip address add 192.0.2.2/24 dev {}", wire.peer));
    let ping =
        || support::try_run(&format!("ip netns exec {} ping -c 2 -i 0.1 -W 1 192.0.2.1", wire.namespace));
    assert!(ping().is_ok());

    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child_that_holds_a_port", "--nocapture"])
        .env(DEVICE, &wire.device)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(lines.map_while(Result::ok).any(|line| line == "holding"), "the child could not open the port");
    let promiscuous =
        || support::run(&format!("ip -d link show dev {}", wire.device)).contains("promiscuity 1");
    assert!(wire.has_xdp() && promiscuous());
    assert!(ping().is_err(), "the kernel answers although the port is held");

    child.kill().unwrap();
    child.wait().unwrap();
    // The kernel detaches in the background.
    let end = std::time::Instant::now() + SOON;
    while wire.has_xdp() && std::time::Instant::now() < end {
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(!wire.has_xdp());
    assert!(!promiscuous());
    assert!(ping().is_ok());

    // And the next process can have it at once.
    let memory = Memory::new(8192);
    let (port, _queues) = memory.open(&wire.options(PortMode::Dedicated, XdpMode::Auto));
    assert!(port.link().carrier);
}
