//! A lab with real sockets and no hardware: hosts, wires and boxes in network namespaces on veth pairs.
//!
//! A scenario reads like a specification:
//!
//! ```no_run
//! use weir_hw_tests::Lab;
//! # const WEST: &str = "";
//! # const EAST: &str = "";
//! let lab = Lab::new();
//! let (alice, bob) = (lab.host("10.1.0.2/24 2001:db8:1::2/64"), lab.host("10.2.0.2/24 2001:db8:2::2/64"));
//! let (west, east) = (lab.weir(WEST), lab.weir(EAST));
//! lab.wire(&alice, &west, "pods");
//! lab.wire(&west, &east, "underlay");
//! lab.wire(&east, &bob, "pods");
//! alice.ping(&bob).size(1400).count(10).expect_all();
//! alice.tcp(&bob).expect_bytes(10_000_000);
//! west.counters().expect("dropped.packet_too_big", 0);
//! ```
//!
//! - A [`Node`] is a network namespace: a host, a Linux router, a switch, or a box that runs weir.
//! - A [`Wire`] is a veth pair; it has the same interface name at both ends (a switch numbers its own).
//! - A [`Nic`] is a real or emulated network card, lent to a node by its PCI address.
//! - The boxes start at the first verb (a ping, a stream, a look at counters) or at [`Lab::start`].
//! - When the lab is dropped it checks that every weir still lives and accounts for every packet, and deletes everything;
//!   after a failure it first prints the topology, each weir's counters and log, and where the captures are.
//!
//! Transmit offloads are off on every interface, so that checksums and packet sizes on the wire are real.
//! The lab needs root.

// An expectation that does not hold is a panic: this is what a test library is for.
#![allow(clippy::panic, clippy::unwrap_used, clippy::expect_used)]

mod capture;
mod counters;
mod lab;
mod namespace;
mod nic;
mod node;
mod ping;
mod process;
mod tcp;
mod udp;
mod weir;
mod wire;

pub use capture::Capture;
pub use counters::Counters;
pub use lab::Lab;
pub use nic::{Nic, driver_of, interface_of, write_sysfs};
pub use node::{Destination, Node};
pub use ping::{Ping, PingReport};
pub use process::{Finished, weir_binary};
pub use tcp::{Tcp, TcpReport, TcpTransfer};
pub use udp::{Udp, UdpReport, UdpStream};
pub use weir::WeirBox;
pub use wire::Wire;

use std::time::{Duration, Instant};

/// Tries `attempt` until it gives a value, for at most `patience`.
pub fn eventually<T>(patience: Duration, mut attempt: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = Instant::now() + patience;
    loop {
        if let Some(value) = attempt() {
            return Some(value);
        }
        if Instant::now() >= deadline {
            return None;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}
