//! Ports over DPDK: a PCI function bound to vfio-pci, or one of DPDK's virtual devices (memif, vhost-user, af_packet, ring, pcap,
//! null).
//!
//! Frames stay in weir's own [`FrameMemory`](crate::frame::FrameMemory): DPDK gets a description of each chunk, an mbuf, and a mempool
//! whose account of free ones is weir's [`FramePool`](crate::frame::FramePool). So a frame moves between DPDK ports, and between DPDK
//! and AF_XDP ports, without a copy. `docs/decisions/0007-dpdk-over-our-own-frames.md` says why, and what it costs.
#![allow(unsafe_code)]

mod error;
mod pool;
mod port;
mod queue;
mod relay;
mod stale;

pub use error::OpenError;
pub use port::{DpdkOpenOptions, DpdkPort};
pub use queue::DpdkQueue;
pub use weir_dpdk::{Level, set_log, version};
