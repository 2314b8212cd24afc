//! The control side of a port: what control may ask of it, whichever kind it is.

use std::fmt;
use std::io;

use weir_config::MacAddress;

use super::afxdp::{SteerError, Steering, XdpObtained};

/// An open port, as the control thread holds it; its [`PortQueue`](super::PortQueue)s are with the workers. Dropping it
/// gives the device back, once its queues are closed.
pub trait Port: Send {
    /// What the port is and got when it was opened.
    fn info(&self) -> &PortInfo;

    /// The device's link now. A device found gone makes its queues' `alive()` false.
    fn link(&self) -> LinkState;

    /// Whether the device was found gone, by the port or by one of its queues.
    fn gone(&self) -> bool;

    /// Changes what a port takes that is shared with the kernel. A port that takes everything has nothing to do.
    ///
    /// # Errors
    /// [`SteerError`] when there is no room for all entries.
    fn steer(&mut self, steering: &Steering) -> Result<(), SteerError> {
        let _ = steering;
        Ok(())
    }

    /// Takes frames to other MAC addresses too, or no more.
    ///
    /// # Errors
    /// What the device says; the port takes what it took before then.
    fn set_promiscuous(&mut self, promiscuous: bool) -> io::Result<()>;

    /// Counters of the port as a whole, since it was opened; what is counted by queue is with the queues.
    fn counters(&self) -> PortCounters;
}

/// What moves a port's frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backend {
    /// AF_XDP sockets, in the XDP mode obtained.
    AfXdp(XdpObtained),
    /// A poll-mode driver of DPDK.
    Dpdk,
}

impl Backend {
    /// `AF_XDP` or `DPDK`.
    pub fn name(self) -> &'static str {
        match self {
            Self::AfXdp(_) => "AF_XDP",
            Self::Dpdk => "DPDK",
        }
    }

    /// The XDP mode obtained.
    pub fn xdp(self) -> Option<XdpObtained> {
        match self {
            Self::AfXdp(mode) => Some(mode),
            Self::Dpdk => None,
        }
    }
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AfXdp(mode) => write!(f, "AF_XDP {mode}"),
            Self::Dpdk => f.write_str("DPDK"),
        }
    }
}

/// What a port is and got.
#[derive(Clone, Debug)]
pub struct PortInfo {
    /// Device name: a network device's, or `pci:…` and `vdev:…` as configured.
    pub device: String,
    /// Driver, such as "veth" or "net_memif"; "unknown" if it does not say.
    pub driver: String,
    /// What moves the frames.
    pub backend: Backend,
    /// Interface index, 0 where there is no network device.
    pub ifindex: u32,
    /// The device's MAC address.
    pub mac: MacAddress,
    /// Largest L3 packet in bytes.
    pub mtu: u32,
    /// NUMA node, −1 if the device has none.
    pub numa: i32,
    /// Receive queues, each with a [`PortQueue`](super::PortQueue).
    pub queues: u32,
    /// Transmit queues. If there are fewer than receive queues, the surplus queues cannot send.
    pub tx_queues: u32,
    /// What was said to each better mode, a line each.
    pub refused: Vec<String>,
    /// What the operator should know, a line each.
    pub warnings: Vec<String>,
    /// Whether there was a carrier when the port was opened.
    pub carrier: bool,
}

/// A device's link, now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinkState {
    /// Whether the device is still the one that was opened.
    pub present: bool,
    /// Whether it is up and has a carrier.
    pub carrier: bool,
    /// Largest L3 packet in bytes; 0 if the device is gone.
    pub mtu: u32,
}

/// Counters of a port as a whole, in frames.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PortCounters {
    /// Taken by the XDP program for weir.
    pub redirected: u64,
    /// Left by it to the kernel.
    pub passed: u64,
    /// Taken by it, but by a queue without a socket.
    pub no_socket: u64,
    /// Dropped by a device that counts for all its queues together: its rings or frames had run out.
    pub missed: u64,
    /// Received broken, as the device says.
    pub errors: u64,
}
