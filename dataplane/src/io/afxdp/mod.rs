//! AF_XDP ports (Linux, Documentation/networking/af_xdp.rst): frames straight from and to a device's queues.
//!
//! [`AfXdpPort::open`] attaches weir's XDP program to a device by a bpf link, so that the kernel takes it off when the
//! process dies, and binds one socket to every receive queue. The [`AfXdpQueue`]s go to workers; the port stays with the
//! control thread. Every socket uses the one [`FrameMemory`](crate::frame::FrameMemory), so a frame received on one port
//! leaves by another without a copy.
//!
//! The rings are our own: `docs/decisions/0001-own-af-xdp-rings.md` says why.
#![allow(unsafe_code)]

mod device;
mod error;
mod opening;
mod plugin;
mod port;
mod program;
mod queue;
mod ring;
mod socket;
mod steering;

pub use error::{OpenError, SteerError};
pub use port::{AfXdpPort, OpenOptions, XdpObtained, arrival, largest_mtu};
pub use queue::AfXdpQueue;
pub use steering::Steering;
