//! Routed interfaces: an untagged port, a VLAN of a port, or a tunnel, with weir's own addresses there.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use weir_config::MacAddress;

use crate::decision::{ScopeId, VrfId};

/// One routed interface.
#[derive(Clone, Debug, PartialEq)]
pub struct Interface {
    /// Its scope.
    pub scope: ScopeId,
    /// The VRF that its packets are routed in.
    pub vrf: VrfId,
    /// Its name in the configuration.
    pub name: String,
    /// Own MAC address.
    pub mac: MacAddress,
    /// Own addresses with the lengths of their subnets' prefixes.
    pub addresses: Vec<IpNet>,
    /// Largest IP packet in bytes.
    pub mtu: u16,
    /// Own link-local address: see [`link_local`].
    pub link_local: Ipv6Addr,
    /// A shared port: the kernel answers and resolves ARP and ND there.
    pub kernel_neighbours: bool,
    /// A tunnel with a fixed far end: every neighbour has this MAC address, nothing is resolved.
    pub point_to_point_mac: Option<MacAddress>,
    /// Addresses of its subnets that packets come to which weir translates, from the first to the last: it answers ARP for
    /// them, though they are no addresses of its own.
    pub proxied: Vec<(Ipv4Addr, Ipv4Addr)>,
}

/// The link-local address of a MAC address: fe80::/64 with the modified EUI-64 (RFC 4291 appendix A).
pub fn link_local(mac: MacAddress) -> Ipv6Addr {
    let MacAddress([a, b, c, d, e, f]) = mac;
    Ipv6Addr::from([0xfe, 0x80, 0, 0, 0, 0, 0, 0, a ^ 0x02, b, c, 0xff, 0xfe, d, e, f])
}

/// The multicast group in which the owner of `address` listens for solicitations (RFC 4291 section 2.7.1).
pub fn solicited_node(address: Ipv6Addr) -> Ipv6Addr {
    let [.., d, e, f] = address.octets();
    Ipv6Addr::from([0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, d, e, f])
}

/// The Ethernet group address of an IP multicast group (RFC 1112 section 6.4, RFC 2464 section 7).
pub fn multicast_mac(group: IpAddr) -> MacAddress {
    match group {
        IpAddr::V4(group) => {
            let [_, b, c, d] = group.octets();
            MacAddress([0x01, 0x00, 0x5e, b & 0x7f, c, d])
        }
        IpAddr::V6(group) => {
            let [.., c, d, e, f] = group.octets();
            MacAddress([0x33, 0x33, c, d, e, f])
        }
    }
}

/// Whether `ip` means something on one link only: 169.254/16 (RFC 3927), fe80::/10 (RFC 4291 section 2.5.6).
pub(crate) fn is_link_local(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    }
}

impl Interface {
    /// Whether `ip` is one of the interface's own addresses, its link-local address included.
    pub fn owns(&self, ip: IpAddr) -> bool {
        ip == IpAddr::V6(self.link_local) || self.addresses.iter().any(|own| own.addr() == ip)
    }

    /// Whether weir answers ARP for `ip` here: an own address, or one that it translates.
    pub fn answers_for(&self, ip: Ipv4Addr) -> bool {
        let proxied = || self.proxied.iter().any(|(first, last)| (*first..=*last).contains(&ip));
        self.owns(ip.into()) || proxied() && self.subnet_of(ip.into()).is_some()
    }

    /// The own address, with its prefix length, whose subnet holds `ip`: the longest such. Link-local IPv6 addresses
    /// are on every link.
    pub fn subnet_of(&self, ip: IpAddr) -> Option<IpNet> {
        if let IpAddr::V6(v6) = ip
            && v6.is_unicast_link_local()
        {
            return IpNet::new(self.link_local.into(), 64).ok();
        }
        self.addresses.iter().filter(|own| own.contains(&ip)).max_by_key(|own| own.prefix_len()).copied()
    }

    /// The address to send from to `destination`: the own address in the destination's subnet, else the first of its
    /// family; link-local for link-local destinations and groups (RFC 6724 section 5, rule 2). `None` if the interface
    /// has none: see [`source_in_vrf`].
    pub fn source_for(&self, destination: IpAddr) -> Option<IpAddr> {
        if let IpAddr::V6(v6) = destination
            && (v6.is_unicast_link_local() || is_link_scope_multicast(v6))
        {
            return Some(self.link_local.into());
        }
        self.subnet_of(destination)
            .or_else(|| {
                self.addresses.iter().find(|own| own.addr().is_ipv4() == destination.is_ipv4()).copied()
            })
            .map(|own| own.addr())
    }

    /// Whether `ip` is the broadcast address of a subnet here, in its all-ones form or the obsolete all-zeros form (RFC
    /// 1122 section 3.3.6). A /31 and a /32 have none (RFC 3021).
    pub fn is_directed_broadcast(&self, ip: IpAddr) -> bool {
        let IpAddr::V4(ip) = ip else { return false };
        self.addresses.iter().any(|own| match own {
            IpNet::V4(own) => broadcasts(own).is_some_and(|ends| ends.contains(&ip)),
            IpNet::V6(_) => false,
        })
    }

    /// Whether `ip` is the subnet-router anycast address of a subnet here (RFC 4291 section 2.6.1); a /127 and a /128
    /// have none (RFC 6164).
    pub fn is_subnet_router_anycast(&self, ip: IpAddr) -> bool {
        self.anycasts().any(|anycast| ip == IpAddr::V6(anycast)) && !self.owns(ip)
    }

    /// Whether weir listens to this IPv6 group here: all nodes, all routers, and the solicited-node groups of its own
    /// addresses (RFC 4291 section 2.8).
    pub fn listens_to(&self, group: Ipv6Addr) -> bool {
        let all = [
            Ipv6Addr::new(0xff01, 0, 0, 0, 0, 0, 0, 1),
            Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1),
            Ipv6Addr::new(0xff01, 0, 0, 0, 0, 0, 0, 2),
            Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 2),
            Ipv6Addr::new(0xff05, 0, 0, 0, 0, 0, 0, 2),
        ];
        all.contains(&group)
            || self.own_v6().any(|own| solicited_node(own) == group)
            || self.anycasts().any(|own| solicited_node(own) == group)
    }

    /// Own IPv6 addresses, link-local first.
    fn own_v6(&self) -> impl Iterator<Item = Ipv6Addr> {
        let global = self.addresses.iter().filter_map(|own| match own {
            IpNet::V6(own) => Some(own.addr()),
            IpNet::V4(_) => None,
        });
        std::iter::once(self.link_local).chain(global)
    }

    /// Subnet-router anycast addresses.
    fn anycasts(&self) -> impl Iterator<Item = Ipv6Addr> {
        self.addresses.iter().filter_map(|own| match own {
            IpNet::V6(own) => anycast(own),
            IpNet::V4(_) => None,
        })
    }
}

/// The address to send an ICMP error from (RFC 1812 section 4.3.2.4): of the interface it leaves by, else of another of
/// the same VRF, since an error from no address helps nobody.
pub fn source_in_vrf<'a>(
    egress: &Interface,
    others: impl IntoIterator<Item = &'a Interface>,
    destination: IpAddr,
) -> Option<IpAddr> {
    egress.source_for(destination).or_else(|| {
        others
            .into_iter()
            .filter(|other| other.vrf == egress.vrf)
            .find_map(|other| other.source_for(destination).filter(|ip| !is_link_local(*ip)))
    })
}

/// Directed broadcast and network address of an IPv4 subnet that has them.
pub(crate) fn broadcasts(subnet: &ipnet::Ipv4Net) -> Option<[Ipv4Addr; 2]> {
    (subnet.prefix_len() <= 30).then(|| [subnet.broadcast(), subnet.network()])
}

/// Subnet-router anycast address of an IPv6 subnet that has one.
pub(crate) fn anycast(subnet: &ipnet::Ipv6Net) -> Option<Ipv6Addr> {
    (subnet.prefix_len() <= 126).then(|| subnet.network())
}

/// Interface-local and link-local scope (RFC 4291 section 2.7).
fn is_link_scope_multicast(ip: Ipv6Addr) -> bool {
    let [first, second, ..] = ip.octets();
    first == 0xff && matches!(second & 0x0f, 1 | 2)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// An interface with these addresses, MAC 02:00:00:00:00:01, scope 1.
    pub(crate) fn interface(addresses: &[&str]) -> Interface {
        let mac = MacAddress([2, 0, 0, 0, 0, 1]);
        Interface {
            scope: ScopeId(1),
            vrf: VrfId(0),
            name: "pods".into(),
            mac,
            addresses: addresses.iter().map(|text| text.parse().unwrap()).collect(),
            mtu: 1500,
            link_local: link_local(mac),
            kernel_neighbours: false,
            point_to_point_mac: None,
            proxied: Vec::new(),
        }
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    /// RFC 4291 appendix A.
    #[test]
    fn a_link_local_address_is_made_from_the_mac() {
        let mac = "34:56:78:9a:bc:de".parse().unwrap();
        assert_eq!(IpAddr::V6(link_local(mac)), ip("fe80::3656:78ff:fe9a:bcde"));
    }

    /// RFC 4291 section 2.7.1 gives this very example.
    #[test]
    fn a_solicited_node_group_keeps_the_last_24_bits() {
        let IpAddr::V6(address) = ip("4037::01:800:200e:8c6c") else { unreachable!() };
        assert_eq!(IpAddr::V6(solicited_node(address)), ip("ff02::1:ff0e:8c6c"));
        assert_eq!(multicast_mac(solicited_node(address).into()).to_string(), "33:33:ff:0e:8c:6c");
        assert_eq!(multicast_mac(ip("239.129.2.3")).to_string(), "01:00:5e:01:02:03");
    }

    #[test]
    fn the_source_is_in_the_subnet_of_the_destination() {
        let interface = interface(&["10.1.0.1/24", "10.2.0.1/24", "2001:db8::1/64", "2001:db8:1::1/64"]);
        assert_eq!(interface.source_for(ip("10.2.0.9")), Some(ip("10.2.0.1")));
        assert_eq!(interface.source_for(ip("192.0.2.1")), Some(ip("10.1.0.1")));
        assert_eq!(interface.source_for(ip("2001:db8:1::9")), Some(ip("2001:db8:1::1")));
        assert_eq!(interface.source_for(ip("2001:db8:9::9")), Some(ip("2001:db8::1")));
        assert_eq!(interface.source_for(ip("fe80::9")), Some(ip("fe80::ff:fe00:1")));
    }

    #[test]
    fn an_interface_without_addresses_borrows_one_of_its_vrf() {
        let (bare, mut other) = (interface(&[]), interface(&["10.1.0.1/24", "2001:db8::1/64"]));
        assert_eq!(bare.source_for(ip("10.9.0.1")), None);
        assert_eq!(source_in_vrf(&bare, [&other], ip("10.9.0.1")), Some(ip("10.1.0.1")));
        assert_eq!(source_in_vrf(&bare, [&other], ip("2001:db8:9::1")), Some(ip("2001:db8::1")));
        other.vrf = VrfId(1);
        assert_eq!(source_in_vrf(&bare, [&other], ip("10.9.0.1")), None);
    }

    /// RFC 3021 section 2.1: a /31 has no broadcast address; RFC 1122 section 3.3.6: the old form is a broadcast too.
    #[test]
    fn only_subnets_with_room_have_a_broadcast_address() {
        let interface = interface(&["10.1.0.1/24", "10.2.0.0/31", "10.3.0.1/32", "10.4.0.1/30"]);
        for broadcast in ["10.1.0.255", "10.1.0.0", "10.4.0.3", "10.4.0.0"] {
            assert!(interface.is_directed_broadcast(ip(broadcast)), "{broadcast}");
        }
        for host in ["10.1.0.1", "10.2.0.0", "10.2.0.1", "10.3.0.1", "10.4.0.2"] {
            assert!(!interface.is_directed_broadcast(ip(host)), "{host}");
        }
    }

    /// RFC 6164 section 5.1: the subnet-router anycast address is disabled on a /127.
    #[test]
    fn a_127_has_no_anycast_address() {
        let interface = interface(&["2001:db8::1/64", "2001:db8:1::1/127"]);
        assert!(interface.is_subnet_router_anycast(ip("2001:db8::")));
        assert!(!interface.is_subnet_router_anycast(ip("2001:db8:1::")));
    }

    #[test]
    fn an_interface_listens_to_the_groups_of_its_addresses_only() {
        let interface = interface(&["2001:db8::a1:b2c3/64"]);
        for group in ["ff02::1", "ff02::2", "ff02::1:ffa1:b2c3", "ff02::1:ff00:1", "ff02::1:ff00:0"] {
            let IpAddr::V6(group) = ip(group) else { unreachable!() };
            assert!(interface.listens_to(group), "{group}");
        }
        for group in ["ff02::5", "ff02::1:ff00:9", "ff0e::1"] {
            let IpAddr::V6(group) = ip(group) else { unreachable!() };
            assert!(!interface.listens_to(group), "{group}");
        }
    }
}
