//! DPDK ports, without privilege and without huge pages where that is possible: virtual devices, in this process and with DPDK's
//! testpmd as the peer.
#![allow(
    unsafe_code,
    unreachable_pub,
    missing_docs,
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout
)]

mod devices;
mod frames;
mod peers;
mod relay;
mod support;
mod threads;
mod workers;
