//! The kernel's links, addresses and neighbours as this process knows them: messages in, changes out. No I/O.
//!
//! A full dump is bracketed by [`View::begin`] and [`View::finish`]: what was known before and did not turn up in
//! between is gone. So a dump after an overrun repairs whatever the lost messages would have said.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::address::{AddressAttribute, AddressFlags, AddressMessage};
use netlink_packet_route::link::{InfoData, InfoVlan, LinkAttribute, LinkFlags, LinkInfo, LinkMessage};
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState,
};
use weir_config::MacAddress;

use crate::engine::DeviceEvent;

/// A change that the rest of control wants to know of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KernelEvent {
    /// A device came, went, or its carrier changed.
    Device {
        /// Device name.
        device: String,
        /// What happened.
        event: DeviceEvent,
    },
    /// A neighbour's MAC address is now this one; `None`: it is gone or failed.
    Neighbour {
        /// Device name.
        device: String,
        /// The neighbour's address.
        ip: IpAddr,
        /// Its MAC address.
        mac: Option<MacAddress>,
    },
    /// A device's own addresses changed.
    Addresses {
        /// Device name.
        device: String,
    },
}

/// What is known of one device.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Link {
    name: String,
    /// IFF_UP and IFF_LOWER_UP.
    carrier: bool,
    /// For a VLAN device: the interface index of the device below, and the VLAN id.
    vlan: Option<(u32, u16)>,
}

/// Links, addresses and neighbours.
#[derive(Debug, Default)]
pub struct View {
    links: BTreeMap<u32, Link>,
    addresses: BTreeMap<u32, BTreeSet<IpNet>>,
    neighbours: BTreeMap<(u32, IpAddr), MacAddress>,
    /// What a dump under way has shown so far.
    seen: Option<Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    links: BTreeSet<u32>,
    addresses: BTreeSet<(u32, IpNet)>,
    neighbours: BTreeSet<(u32, IpAddr)>,
}

impl View {
    /// A full dump begins.
    pub(crate) fn begin(&mut self) {
        self.seen = Some(Seen::default());
    }

    /// The full dump is complete: forgets what it did not show, and tells so.
    pub(crate) fn finish(&mut self) -> Vec<KernelEvent> {
        let Some(seen) = self.seen.take() else { return Vec::new() };
        let mut events = Vec::new();
        let lost: Vec<_> =
            self.neighbours.keys().filter(|key| !seen.neighbours.contains(key)).copied().collect();
        for (index, ip) in lost {
            self.set_neighbour(index, ip, None, &mut events);
        }
        let lost: Vec<_> = self
            .addresses
            .iter()
            .flat_map(|(index, set)| set.iter().map(|net| (*index, *net)))
            .filter(|entry| !seen.addresses.contains(entry))
            .collect();
        for (index, net) in lost {
            self.remove_address(index, net, &mut events);
        }
        let lost: Vec<_> = self.links.keys().filter(|index| !seen.links.contains(index)).copied().collect();
        for index in lost {
            self.remove_link(index, &mut events);
        }
        events
    }

    /// Takes in one message of the kernel.
    pub(crate) fn take(&mut self, message: &RouteNetlinkMessage) -> Vec<KernelEvent> {
        let mut events = Vec::new();
        match message {
            RouteNetlinkMessage::NewLink(link) => self.new_link(link, &mut events),
            RouteNetlinkMessage::DelLink(link) => self.remove_link(link.header.index, &mut events),
            RouteNetlinkMessage::NewAddress(address) => self.new_address(address, &mut events),
            RouteNetlinkMessage::DelAddress(address) => {
                if let Some(net) = own_address(address) {
                    self.remove_address(address.header.index, net, &mut events);
                }
            }
            RouteNetlinkMessage::NewNeighbour(neighbour) => self.neighbour(neighbour, false, &mut events),
            RouteNetlinkMessage::DelNeighbour(neighbour) => self.neighbour(neighbour, true, &mut events),
            _ => {}
        }
        events
    }

    /// The addresses of a device, without loopback and link-local ones, in order.
    pub fn addresses(&self, device: &str) -> Vec<IpNet> {
        let Some(index) = self.index(device) else { return Vec::new() };
        self.addresses
            .get(&index)
            .map(|set| set.iter().filter(|net| is_routable(net.addr())).copied().collect())
            .unwrap_or_default()
    }

    /// The resolved neighbours on a device.
    pub fn neighbours(&self, device: &str) -> Vec<(IpAddr, MacAddress)> {
        let Some(index) = self.index(device) else { return Vec::new() };
        self.neighbours
            .iter()
            .filter(|((neighbour_index, _), _)| *neighbour_index == index)
            .map(|((_, ip), mac)| (*ip, *mac))
            .collect()
    }

    /// The interface index of a device.
    pub fn index(&self, device: &str) -> Option<u32> {
        self.links.iter().find(|(_, link)| link.name == device).map(|(index, _)| *index)
    }

    /// Whether a device exists and has a carrier; `None`: it does not exist.
    pub fn carrier(&self, device: &str) -> Option<bool> {
        self.links.values().find(|link| link.name == device).map(|link| link.carrier)
    }

    /// The kernel's VLAN device on top of `device` for `vid`, by whatever name.
    pub fn vlan_device(&self, device: &str, vid: u16) -> Option<&str> {
        let below = self.index(device)?;
        self.links.values().find(|link| link.vlan == Some((below, vid))).map(|link| link.name.as_str())
    }

    /// The interface index of the kernel's VLAN device for `<device>.<vid>`, by whatever name.
    pub(crate) fn vlan_by_name(&self, name: &str) -> Option<u32> {
        let (device, vid) = name.rsplit_once('.')?;
        self.index(self.vlan_device(device, vid.parse().ok()?)?)
    }

    fn new_link(&mut self, message: &LinkMessage, events: &mut Vec<KernelEvent>) {
        let index = message.header.index;
        let Some(link) = read_link(message) else { return };
        if let Some(seen) = &mut self.seen {
            seen.links.insert(index);
        }
        let device = |name: &str, event| KernelEvent::Device { device: name.to_owned(), event };
        match self.links.get(&index) {
            Some(old) if old.name == link.name => {
                if old.carrier != link.carrier {
                    events.push(device(&link.name, carrier_event(link.carrier)));
                }
            }
            Some(old) => {
                events.push(device(&old.name, DeviceEvent::Vanished));
                self.tell_new_link(index, &link, events);
            }
            None => self.tell_new_link(index, &link, events),
        }
        self.links.insert(index, link);
    }

    /// Tells of a device that is new by name, with all that is already known of it.
    fn tell_new_link(&self, index: u32, link: &Link, events: &mut Vec<KernelEvent>) {
        let device = link.name.clone();
        events.push(KernelEvent::Device { device: device.clone(), event: DeviceEvent::Appeared });
        events.push(KernelEvent::Device { device: device.clone(), event: carrier_event(link.carrier) });
        if self.addresses.contains_key(&index) {
            events.push(KernelEvent::Addresses { device: device.clone() });
        }
        for ((_, ip), mac) in
            self.neighbours.iter().filter(|((neighbour_index, _), _)| *neighbour_index == index)
        {
            events.push(KernelEvent::Neighbour { device: device.clone(), ip: *ip, mac: Some(*mac) });
        }
    }

    fn remove_link(&mut self, index: u32, events: &mut Vec<KernelEvent>) {
        let lost: Vec<_> = self.neighbours.keys().filter(|(at, _)| *at == index).map(|(_, ip)| *ip).collect();
        for ip in lost {
            self.set_neighbour(index, ip, None, events);
        }
        let had_addresses = self.addresses.remove(&index).is_some();
        if let Some(link) = self.links.remove(&index) {
            if had_addresses {
                events.push(KernelEvent::Addresses { device: link.name.clone() });
            }
            events.push(KernelEvent::Device { device: link.name, event: DeviceEvent::Vanished });
        }
    }

    fn new_address(&mut self, message: &AddressMessage, events: &mut Vec<KernelEvent>) {
        let Some(net) = own_address(message) else { return };
        let index = message.header.index;
        // An address in duplicate detection, or that failed it, is not ours yet (RFC 4862 section 5.4).
        if address_flags(message).intersects(AddressFlags::Tentative | AddressFlags::Dadfailed) {
            self.remove_address(index, net, events);
            return;
        }
        if let Some(seen) = &mut self.seen {
            seen.addresses.insert((index, net));
        }
        if self.addresses.entry(index).or_default().insert(net) {
            self.tell_addresses(index, events);
        }
    }

    fn remove_address(&mut self, index: u32, net: IpNet, events: &mut Vec<KernelEvent>) {
        let Some(set) = self.addresses.get_mut(&index) else { return };
        if set.remove(&net) {
            if set.is_empty() {
                self.addresses.remove(&index);
            }
            self.tell_addresses(index, events);
        }
    }

    fn tell_addresses(&self, index: u32, events: &mut Vec<KernelEvent>) {
        if let Some(link) = self.links.get(&index) {
            let event = KernelEvent::Addresses { device: link.name.clone() };
            if events.last() != Some(&event) {
                events.push(event);
            }
        }
    }

    fn neighbour(&mut self, message: &NeighbourMessage, deleted: bool, events: &mut Vec<KernelEvent>) {
        let Some(ip) = neighbour_address(message) else { return };
        let index = message.header.ifindex;
        let mac = if deleted { None } else { usable_mac(message) };
        if let (Some(seen), Some(_)) = (&mut self.seen, mac) {
            seen.neighbours.insert((index, ip));
        }
        self.set_neighbour(index, ip, mac, events);
    }

    fn set_neighbour(
        &mut self,
        index: u32,
        ip: IpAddr,
        mac: Option<MacAddress>,
        events: &mut Vec<KernelEvent>,
    ) {
        let before = match mac {
            Some(mac) => self.neighbours.insert((index, ip), mac),
            None => self.neighbours.remove(&(index, ip)),
        };
        if before == mac {
            return;
        }
        if let Some(link) = self.links.get(&index) {
            events.push(KernelEvent::Neighbour { device: link.name.clone(), ip, mac });
        }
    }
}

fn carrier_event(carrier: bool) -> DeviceEvent {
    if carrier { DeviceEvent::CarrierUp } else { DeviceEvent::CarrierDown }
}

/// Loopback and IPv6 link-local addresses are no addresses to route with: every link has the latter.
fn is_routable(ip: IpAddr) -> bool {
    !ip.is_loopback() && !matches!(ip, IpAddr::V6(v6) if v6.is_unicast_link_local())
}

fn read_link(message: &LinkMessage) -> Option<Link> {
    let mut name = None;
    let mut below = None;
    let mut vid = None;
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(text) => name = Some(text.clone()),
            LinkAttribute::Link(index) => below = Some(*index),
            LinkAttribute::LinkInfo(infos) => vid = vid.or_else(|| vlan_id(infos)),
            _ => {}
        }
    }
    let flags = message.header.flags;
    Some(Link {
        name: name?,
        carrier: flags.contains(LinkFlags::Up | LinkFlags::LowerUp),
        vlan: below.zip(vid),
    })
}

fn vlan_id(infos: &[LinkInfo]) -> Option<u16> {
    infos.iter().find_map(|info| match info {
        LinkInfo::Data(InfoData::Vlan(parts)) => parts.iter().find_map(|part| match part {
            InfoVlan::Id(vid) => Some(*vid),
            _ => None,
        }),
        _ => None,
    })
}

/// The device's own address: IFA_LOCAL where it is given (it is the peer's that IFA_ADDRESS names then).
fn own_address(message: &AddressMessage) -> Option<IpNet> {
    let mut local = None;
    let mut address = None;
    for attribute in &message.attributes {
        match attribute {
            AddressAttribute::Local(ip) => local = Some(*ip),
            AddressAttribute::Address(ip) => address = Some(*ip),
            _ => {}
        }
    }
    let own = local.or(address)?;
    // With a peer, the prefix is the peer's, and only the address itself is ours.
    let prefix = if address.is_some_and(|peer| peer != own) {
        if own.is_ipv4() { 32 } else { 128 }
    } else {
        message.header.prefix_len
    };
    IpNet::new(own, prefix).ok()
}

fn address_flags(message: &AddressMessage) -> AddressFlags {
    let wide = message.attributes.iter().find_map(|attribute| match attribute {
        AddressAttribute::Flags(flags) => Some(*flags),
        _ => None,
    });
    wide.unwrap_or(AddressFlags::from_bits_retain(u32::from(message.header.flags.bits())))
}

fn neighbour_address(message: &NeighbourMessage) -> Option<IpAddr> {
    message.attributes.iter().find_map(|attribute| match attribute {
        NeighbourAttribute::Destination(NeighbourAddress::Inet(ip)) => Some(IpAddr::V4(*ip)),
        NeighbourAttribute::Destination(NeighbourAddress::Inet6(ip)) => Some(IpAddr::V6(*ip)),
        _ => None,
    })
}

/// The MAC address, if the entry's state lets one send to it (RFC 4861 section 7.3.2).
fn usable_mac(message: &NeighbourMessage) -> Option<MacAddress> {
    let usable = matches!(
        message.header.state,
        NeighbourState::Reachable
            | NeighbourState::Stale
            | NeighbourState::Delay
            | NeighbourState::Probe
            | NeighbourState::Permanent
    );
    let mac = message.attributes.iter().find_map(|attribute| match attribute {
        NeighbourAttribute::LinkLayerAddress(bytes) => <[u8; 6]>::try_from(bytes.as_slice()).ok(),
        _ => None,
    });
    mac.filter(|_| usable).map(MacAddress)
}

#[cfg(test)]
#[path = "view_tests.rs"]
mod tests;
