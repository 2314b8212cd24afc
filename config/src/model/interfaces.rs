//! Ports, and what their interfaces and those of tunnels belong to.

use std::collections::BTreeMap;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::MacAddress;

/// `[port.<name>]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Port {
    /// The name of the network device (`eth1`); absent for a port that only `weir replay` drives.
    pub device: Option<String>,
    /// Whether the device is weir's alone.
    pub mode: PortMode,
    /// Best XDP mode to try first; worse ones are tried after it and the one obtained is printed.
    pub xdp: XdpMode,
    /// Whose XDP program brings the frames.
    pub xsk_map: XskMap,
    /// How many queues to ask a DPDK device for; one for each worker, as far as it has them, if
    /// absent; of a virtual device one.
    pub queues: Option<u16>,
    /// The token of a VF on vfio-pci whose PF is on vfio-pci too.
    pub vfio_token: Option<String>,
    /// The MAC address to use instead of the device's own.
    pub mac: Option<MacAddress>,
    /// Largest L3 packet in bytes; the device's own if absent (1500 where there is no device).
    pub mtu: Option<u16>,
    /// In shared mode: destination prefixes that weir takes besides its tunnels.
    pub prefixes: Vec<IpNet>,
    /// Where untagged frames belong.
    pub attachment: Attachment,
    /// Where tagged frames belong, by 802.1Q VLAN id; the interface is called `<port>.<vid>`.
    pub vlans: BTreeMap<u16, Attachment>,
}

/// `port.mode`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PortMode {
    /// The kernel keeps the device; weir takes only what it owns. Neighbours come from the kernel.
    Shared,
    /// The device is weir's alone.
    Dedicated,
}

/// `port.xsk-map`: whose XDP program brings a port's frames, and so whose map the sockets are put into.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum XskMap {
    /// weir's own.
    #[default]
    Own,
    /// The AF_XDP device plugin's, asked for over its socket.
    Plugin,
    /// The AF_XDP device plugin's, pinned in a BPF file system.
    Pinned,
}

/// `port.xdp`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum XdpMode {
    /// Zero-copy, else native copy, else generic.
    Auto,
    /// Native copy, else generic.
    Native,
    /// Generic only.
    Generic,
}

/// Where an interface (an untagged port, a VLAN of a port, a tunnel) belongs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Attachment {
    /// The VRF or the bridge domain.
    pub domain: Domain,
    /// Own addresses with their prefix lengths; only in a VRF.
    pub addresses: Vec<IpNet>,
}

/// What an interface belongs to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Domain {
    /// A routed interface of this VRF.
    Vrf(String),
    /// A member of this bridge domain.
    Bridge(String),
    /// One end of this cross-connect.
    CrossConnect(String),
    /// It serves this attached hop alone.
    Hop(String),
}
