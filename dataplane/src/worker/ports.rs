//! Ports as the control thread holds them: how a device is opened, and what its configuration asks of it.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use weir_config::{Config, DeviceName, Port, PortMode};

use crate::decision::PortId;
use crate::frame::FramePool;
use crate::io::afxdp::{AfXdpPort, OpenOptions, Steering};
use crate::io::{self, PortQueue};
use crate::snapshot::{PortFacts, Registry};

use super::error::ApplyError;
use super::run::MAX_PORTS;

/// One open port.
pub(super) struct OpenPort {
    pub(super) id: PortId,
    pub(super) settings: Port,
    /// `None` while the device is gone.
    pub(super) io: Option<Box<dyn io::Port>>,
    /// Whether it was there and had a carrier when that was looked at last.
    pub(super) carrier: bool,
    /// What it was when it was opened last.
    pub(super) info: io::PortInfo,
    /// The worker of each queue, by number.
    pub(super) queues: Vec<(u32, usize)>,
    pub(super) rebinds: u64,
    /// When a vanished device is looked for next.
    pub(super) next_try: Instant,
}

/// The queues of a port, by number, on their way to their workers.
pub(super) type Queues = Vec<(u32, Box<dyn PortQueue>)>;

/// How long to wait for a device that the kernel is still taking back from an earlier owner.
pub(super) const BUSY: Duration = Duration::from_secs(2);

/// Opens a port's device, with a queue for each of so many workers where that is ours to say. Waits at most `patience` for one that is busy, and for its carrier two and a half times that.
pub(super) fn open(
    name: &str,
    settings: &Port,
    registry: &mut Registry,
    pool: &Arc<FramePool>,
    ring: u32,
    workers: usize,
    patience: Duration,
) -> Result<(OpenPort, Queues), ApplyError> {
    let device = settings.device.clone().ok_or_else(|| ApplyError::NoDevice(name.to_owned()))?;
    let id = registry.port(name)?;
    if id.index() >= MAX_PORTS {
        return Err(ApplyError::TooManyPorts);
    }
    let opened = match DeviceName::parse(&device) {
        Some(DeviceName::Pci(devargs)) => open_dpdk(devargs, settings, pool, ring, workers),
        // Its peer may have fewer, and what is sent by the others would be lost.
        Some(DeviceName::Virtual(devargs)) => open_dpdk(devargs, settings, pool, ring, 1),
        _ => open_afxdp(device, settings, pool, ring, patience),
    };
    let (io, queues) = opened.map_err(|reason| ApplyError::Port { port: name.to_owned(), reason })?;
    let port = OpenPort {
        id,
        settings: settings.clone(),
        carrier: io.link().carrier,
        info: io.info().clone(),
        io: Some(io),
        queues: Vec::new(),
        rebinds: 0,
        next_try: Instant::now(),
    };
    Ok((port, queues))
}

/// Opens a network device through AF_XDP.
fn open_afxdp(
    device: String,
    settings: &Port,
    pool: &Arc<FramePool>,
    ring: u32,
    patience: Duration,
) -> Result<(Box<dyn io::Port>, Queues), String> {
    let mut options = OpenOptions::new(device, settings.mode, settings.xdp);
    options.xsk_map = settings.xsk_map;
    (options.rx_ring, options.tx_ring) = (ring, ring);
    options.promiscuous = promiscuous(settings);
    (options.busy_wait, options.carrier_wait) = (patience, options.carrier_wait.min(5 * patience / 2));
    let (port, queues) = AfXdpPort::open(&options, pool).map_err(|error| error.to_string())?;
    let queues = queues.into_iter().map(|queue| (queue.number(), Box::new(queue) as Box<dyn PortQueue>));
    Ok((Box::new(port), queues.collect()))
}

/// Opens a PCI function on vfio-pci, or a virtual device, through DPDK.
#[cfg(feature = "dpdk")]
fn open_dpdk(
    devargs: &str,
    settings: &Port,
    pool: &Arc<FramePool>,
    ring: u32,
    workers: usize,
) -> Result<(Box<dyn io::Port>, Queues), String> {
    use crate::io::dpdk::{DpdkOpenOptions, DpdkPort};
    let ring = u16::try_from(ring).unwrap_or(u16::MAX);
    let options = DpdkOpenOptions {
        token: settings.vfio_token.clone(),
        queues: settings.queues.unwrap_or_else(|| u16::try_from(workers).unwrap_or(1)),
        rx_ring: ring,
        tx_ring: ring,
        promiscuous: promiscuous(settings),
        mtu: settings.mtu,
        mac: settings.mac,
        ..DpdkOpenOptions::new(devargs)
    };
    let (port, queues) = DpdkPort::open(&options, pool).map_err(|error| error.to_string())?;
    let queues = queues.into_iter().map(|queue| (queue.number(), Box::new(queue) as Box<dyn PortQueue>));
    Ok((Box::new(port), queues.collect()))
}

#[cfg(not(feature = "dpdk"))]
fn open_dpdk(
    devargs: &str,
    _: &Port,
    _: &Arc<FramePool>,
    _: u32,
    _: usize,
) -> Result<(Box<dyn io::Port>, Queues), String> {
    Err(format!("{devargs} needs a weir built with DPDK, which this one is not"))
}

/// Entries of each ring, so that the fill rings of all queues (twice as long) take at most half of the frames there are: the
/// rest is for frames on their way and in private caches.
pub(super) fn ring_size<'a>(frames: usize, ports: impl IntoIterator<Item = &'a Port>) -> u32 {
    let queues: usize = ports.into_iter().map(receive_queues).sum();
    let share = u32::try_from(frames / (4 * queues.max(1))).unwrap_or(u32::MAX);
    (1 << share.clamp(64, 1024).ilog2()).min(1024)
}

/// Receive queues of a port's device, 1 if it cannot be told. Asked of the device: /sys may show another network namespace.
fn receive_queues(port: &Port) -> usize {
    match port.device.as_deref() {
        None => 0,
        Some(device) => {
            AfXdpPort::receive_queues(device).unwrap_or_else(|| port.queues.map_or(1, usize::from))
        }
    }
}

/// Whether a port has to take frames to foreign MAC addresses: bridges take those to other stations, and a MAC address of
/// our own choice is not one that the device's filter knows.
pub(super) fn promiscuous(settings: &Port) -> bool {
    let bridged =
        |attachment: &weir_config::Attachment| !matches!(attachment.domain, weir_config::Domain::Vrf(_));
    settings.mode == PortMode::Dedicated
        && (settings.mac.is_some() || bridged(&settings.attachment) || settings.vlans.values().any(bridged))
}

/// Whether two settings of a port mean the same device, opened the same way.
pub(super) fn same_device(a: &Port, b: &Port) -> bool {
    let opening = |port: &Port| {
        let vfio = port.vfio_token.clone();
        (port.device.clone(), port.mode, port.xdp, port.xsk_map, port.queues, vfio, dpdk_mtu(port))
    };
    opening(a) == opening(b)
}

/// The MTU that a device was opened with: DPDK's are given theirs, others have their own.
fn dpdk_mtu(port: &Port) -> Option<u16> {
    let netdev = matches!(port.device.as_deref().and_then(DeviceName::parse), Some(DeviceName::Netdev(_)));
    port.mtu.filter(|_| !netdev)
}

pub(super) fn facts_of(port: &OpenPort) -> PortFacts {
    PortFacts {
        mac: port.info.mac,
        mtu: u16::try_from(port.info.mtu).unwrap_or(u16::MAX),
        kernel_neighbours: port.settings.mode == PortMode::Shared,
        carrier: port.carrier,
    }
}

pub(super) fn facts(ports: &BTreeMap<String, OpenPort>) -> BTreeMap<String, PortFacts> {
    ports.iter().map(|(name, port)| (name.clone(), facts_of(port))).collect()
}

/// What a shared port takes: packets to VTEPs whose underlay is the port's VRF, and its configured prefixes.
pub(super) fn steering(config: &Config, port: &Port) -> Steering {
    let attachments = std::iter::once(&port.attachment).chain(port.vlans.values());
    let vrfs: Vec<&String> = attachments
        .filter_map(|attachment| match &attachment.domain {
            weir_config::Domain::Vrf(vrf) => Some(vrf),
            _ => None,
        })
        .collect();
    let mut vteps: Vec<(IpAddr, u16)> = config
        .tunnels
        .values()
        .filter(|tunnel| vrfs.contains(&&tunnel.underlay_vrf))
        .map(|tunnel| (tunnel.local, tunnel.udp_port))
        .collect();
    vteps.sort_unstable();
    vteps.dedup();
    let kept = if port.prefixes.is_empty() { Vec::new() } else { kept(config) };
    Steering { vteps, prefixes: port.prefixes.clone(), kept }
}

/// What weir never forwards, and a host lives by: link-local and group addresses.
const NEVER_FORWARDED: [IpNet; 5] = [
    IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(169, 254, 0, 0), 16)),
    IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(224, 0, 0, 0), 4)),
    IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::BROADCAST, 32)),
    IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0), 10)),
    IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::new(0xff00, 0, 0, 0, 0, 0, 0, 0), 8)),
];

/// What stays the kernel's within the prefixes of a shared port, be it a default route: the addresses of all shared
/// ports, which are the host's, with their broadcast addresses, and what is not forwarded anyway.
fn kept(config: &Config) -> Vec<IpNet> {
    let shared = config.ports.values().filter(|port| port.mode == PortMode::Shared);
    let attachments = shared.flat_map(|port| std::iter::once(&port.attachment).chain(port.vlans.values()));
    let mut kept = NEVER_FORWARDED.to_vec();
    for net in attachments.flat_map(|attachment| &attachment.addresses) {
        kept.push(net.addr().into());
        if let IpNet::V4(net) = net {
            kept.push(IpAddr::from(net.broadcast()).into());
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    fn steering_of(text: &str) -> Steering {
        let config = weir_config::load_str("t.toml", text).unwrap().config;
        steering(&config, &config.ports["up"])
    }

    #[test]
    fn a_shared_port_that_takes_everything_leaves_the_host_its_addresses() {
        let text = r#"
            [port.up]
            device = "eth0"
            addresses = ["192.0.2.1/24", "2001:db8::1/64"]
            prefixes = ["0.0.0.0/0", "::/0"]
            [port.up.vlan.5]
            addresses = ["198.51.100.1/24"]
            [port.other]
            device = "eth1"
            addresses = ["203.0.113.1/32"]
            [port.own]
            device = "eth2"
            mode = "dedicated"
            addresses = ["10.0.0.1/24"]
        "#;
        let kept: Vec<String> = steering_of(text).kept.iter().map(ToString::to_string).collect();
        for host in ["192.0.2.1/32", "192.0.2.255/32", "2001:db8::1/128", "198.51.100.1/32", "203.0.113.1/32"]
        {
            assert!(kept.contains(&host.to_owned()), "{host} is not in {kept:?}");
        }
        for needed in ["224.0.0.0/4", "255.255.255.255/32", "fe80::/10", "ff00::/8"] {
            assert!(kept.contains(&needed.to_owned()), "{needed} is not in {kept:?}");
        }
        assert!(!kept.contains(&"10.0.0.1/32".to_owned()), "an address of weir's own: {kept:?}");
    }

    #[test]
    fn a_shared_port_without_prefixes_needs_no_exceptions() {
        assert!(steering_of("[port.up]\ndevice = \"eth0\"\naddresses = [\"192.0.2.1/24\"]").kept.is_empty());
    }

    #[test]
    fn the_fill_rings_of_all_queues_take_at_most_half_of_the_frames() {
        let load = |count: usize| {
            let port = |n| format!("[port.p{n}]\ndevice = \"none-{n}\"\n");
            let text: String = (0..count).map(port).collect();
            weir_config::load_str("test.toml", &text).map(|loaded| loaded.config).unwrap()
        };
        for ports in [1, 2, 5, 8, 40, 64] {
            let ring = ring_size(16_384, load(ports).ports.values());
            assert!(ring.is_power_of_two() && (64..=1024).contains(&ring), "{ring}");
            assert!(ports as u32 * 2 * ring <= 8_192, "{ports} ports with rings of {ring}");
        }
        assert_eq!(ring_size(16_384, load(1).ports.values()), 1024);
    }
}
