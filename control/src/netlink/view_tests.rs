//! The view against messages made by hand.

use netlink_packet_route::AddressFamily;
use netlink_packet_route::link::InfoKind;

use super::*;

fn link(index: u32, name: &str, up: bool) -> LinkMessage {
    let mut message = LinkMessage::default();
    message.header.index = index;
    if up {
        message.header.flags = LinkFlags::Up | LinkFlags::LowerUp;
    }
    message.attributes.push(LinkAttribute::IfName(name.to_owned()));
    message
}

fn vlan(index: u32, name: &str, below: u32, vid: u16) -> LinkMessage {
    let mut message = link(index, name, true);
    message.attributes.push(LinkAttribute::Link(below));
    message.attributes.push(LinkAttribute::LinkInfo(vec![
        LinkInfo::Kind(InfoKind::Vlan),
        LinkInfo::Data(InfoData::Vlan(vec![InfoVlan::Id(vid)])),
    ]));
    message
}

fn address(index: u32, net: &str) -> AddressMessage {
    let net: IpNet = net.parse().unwrap();
    let mut message = AddressMessage::default();
    message.header.index = index;
    message.header.prefix_len = net.prefix_len();
    message.attributes.push(AddressAttribute::Address(net.addr()));
    message
}

fn neighbour(index: u32, ip: &str, last: u8, state: NeighbourState) -> NeighbourMessage {
    let ip: IpAddr = ip.parse().unwrap();
    let mut message = NeighbourMessage::default();
    message.header.family = if ip.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    message.header.ifindex = index;
    message.header.state = state;
    message.attributes.push(NeighbourAttribute::Destination(ip.into()));
    message.attributes.push(NeighbourAttribute::LinkLayerAddress(vec![2, 0, 0, 0, 0, last]));
    message
}

fn mac(last: u8) -> MacAddress {
    MacAddress([2, 0, 0, 0, 0, last])
}

fn device(name: &str, event: DeviceEvent) -> KernelEvent {
    KernelEvent::Device { device: name.to_owned(), event }
}

fn resolved(name: &str, ip: &str, mac: Option<MacAddress>) -> KernelEvent {
    KernelEvent::Neighbour { device: name.to_owned(), ip: ip.parse().unwrap(), mac }
}

fn view_with(messages: &[RouteNetlinkMessage]) -> View {
    let mut view = View::default();
    for message in messages {
        view.take(message);
    }
    view
}

use RouteNetlinkMessage::{DelLink, DelNeighbour, NewAddress, NewLink, NewNeighbour};

#[test]
fn every_state_one_may_send_in_gives_the_mac_and_the_others_do_not() {
    use NeighbourState::{
        Delay, Failed, Incomplete, Noarp, None as Nothing, Permanent, Probe, Reachable, Stale,
    };
    for (state, usable) in [
        (Reachable, true),
        (Stale, true),
        (Delay, true),
        (Probe, true),
        (Permanent, true),
        (Failed, false),
        (Incomplete, false),
        (Noarp, false),
        (Nothing, false),
    ] {
        let mut view = view_with(&[NewLink(link(3, "eth1", true))]);
        let events = view.take(&NewNeighbour(neighbour(3, "192.0.2.9", 9, state)));
        let expected = if usable { vec![resolved("eth1", "192.0.2.9", Some(mac(9)))] } else { vec![] };
        assert_eq!(events, expected, "{state:?}");
    }
}

#[test]
fn a_neighbour_that_fails_or_is_deleted_is_told_once() {
    for end in [
        NewNeighbour(neighbour(3, "192.0.2.9", 9, NeighbourState::Failed)),
        DelNeighbour(neighbour(3, "192.0.2.9", 9, NeighbourState::Stale)),
    ] {
        let mut view = view_with(&[
            NewLink(link(3, "eth1", true)),
            NewNeighbour(neighbour(3, "192.0.2.9", 9, NeighbourState::Reachable)),
        ]);
        assert_eq!(view.take(&end), [resolved("eth1", "192.0.2.9", None)]);
        assert_eq!(view.take(&end), []);
    }
}

#[test]
fn a_refreshed_neighbour_is_no_news_and_a_moved_one_is() {
    let mut view = view_with(&[
        NewLink(link(3, "eth1", true)),
        NewNeighbour(neighbour(3, "2001:db8::9", 9, NeighbourState::Reachable)),
    ]);
    assert_eq!(view.take(&NewNeighbour(neighbour(3, "2001:db8::9", 9, NeighbourState::Stale))), []);
    assert_eq!(
        view.take(&NewNeighbour(neighbour(3, "2001:db8::9", 7, NeighbourState::Reachable))),
        [resolved("eth1", "2001:db8::9", Some(mac(7)))]
    );
}

#[test]
fn a_device_that_comes_back_under_a_new_index_vanishes_and_appears() {
    let mut view = view_with(&[NewLink(link(3, "eth1", true))]);
    assert_eq!(view.take(&DelLink(link(3, "eth1", true))), [device("eth1", DeviceEvent::Vanished)]);
    assert_eq!(
        view.take(&NewLink(link(8, "eth1", false))),
        [device("eth1", DeviceEvent::Appeared), device("eth1", DeviceEvent::CarrierDown)]
    );
    assert_eq!(view.take(&NewLink(link(8, "eth1", true))), [device("eth1", DeviceEvent::CarrierUp)]);
    assert_eq!(view.index("eth1"), Some(8));
}

#[test]
fn a_renamed_device_vanishes_under_its_old_name() {
    let mut view = view_with(&[NewLink(link(3, "eth1", true))]);
    let events = view.take(&NewLink(link(3, "wan", true)));
    assert_eq!(events[..2], [device("eth1", DeviceEvent::Vanished), device("wan", DeviceEvent::Appeared)]);
}

#[test]
fn a_dump_that_does_not_show_an_entry_removes_it() {
    let mut view = view_with(&[
        NewLink(link(3, "eth1", true)),
        NewLink(link(4, "eth2", true)),
        NewAddress(address(3, "192.0.2.1/24")),
        NewNeighbour(neighbour(3, "192.0.2.9", 9, NeighbourState::Reachable)),
        NewNeighbour(neighbour(3, "192.0.2.8", 8, NeighbourState::Reachable)),
    ]);
    view.begin();
    view.take(&NewLink(link(3, "eth1", true)));
    view.take(&NewNeighbour(neighbour(3, "192.0.2.8", 8, NeighbourState::Reachable)));
    assert_eq!(
        view.finish(),
        [
            resolved("eth1", "192.0.2.9", None),
            KernelEvent::Addresses { device: "eth1".to_owned() },
            device("eth2", DeviceEvent::Vanished),
        ]
    );
    assert_eq!(view.neighbours("eth1"), [("192.0.2.8".parse().unwrap(), mac(8))]);
}

#[test]
fn link_local_and_tentative_addresses_are_not_ours_to_route_with() {
    let mut tentative = address(3, "2001:db8::2/64");
    tentative.attributes.push(AddressAttribute::Flags(AddressFlags::Tentative));
    let mut view = view_with(&[
        NewLink(link(3, "eth1", true)),
        NewAddress(address(3, "192.0.2.1/24")),
        NewAddress(address(3, "fe80::1/64")),
        NewAddress(tentative),
    ]);
    assert_eq!(view.addresses("eth1"), ["192.0.2.1/24".parse::<IpNet>().unwrap()]);
    let mut settled = address(3, "2001:db8::2/64");
    settled.attributes.push(AddressAttribute::Flags(AddressFlags::Permanent));
    assert_eq!(view.take(&NewAddress(settled)), [KernelEvent::Addresses { device: "eth1".to_owned() }]);
}

#[test]
fn the_address_of_a_point_to_point_link_is_the_local_one() {
    let mut message = address(3, "192.0.2.2/24");
    message.attributes.push(AddressAttribute::Local("192.0.2.1".parse().unwrap()));
    let view = view_with(&[NewLink(link(3, "eth1", true)), NewAddress(message)]);
    assert_eq!(view.addresses("eth1"), ["192.0.2.1/32".parse::<IpNet>().unwrap()]);
}

mod completion {
    use std::collections::BTreeMap;

    use weir_config::{Attachment, Config, Domain, Port, PortMode, XdpMode, XskMap};

    use super::*;
    use crate::netlink::{complete, interfaces_of};

    fn attachment(addresses: &[&str]) -> Attachment {
        Attachment {
            domain: Domain::Vrf("default".to_owned()),
            addresses: addresses.iter().map(|text| text.parse().unwrap()).collect(),
        }
    }

    fn config(mode: PortMode, addresses: &[&str]) -> Config {
        let port = Port {
            device: Some("eth1".to_owned()),
            mode,
            xdp: XdpMode::Auto,
            xsk_map: XskMap::Own,
            queues: None,
            vfio_token: None,
            mac: None,
            mtu: None,
            prefixes: Vec::new(),
            attachment: attachment(addresses),
            vlans: BTreeMap::from([(7, attachment(&[]))]),
        };
        Config { ports: BTreeMap::from([("uplink".to_owned(), port)]), ..Config::default() }
    }

    fn kernel() -> View {
        view_with(&[
            NewLink(link(3, "eth1", true)),
            NewLink(vlan(4, "storage", 3, 7)),
            NewAddress(address(3, "192.0.2.1/24")),
            NewAddress(address(4, "198.51.100.1/24")),
        ])
    }

    #[test]
    fn a_shared_port_without_addresses_has_those_of_the_kernel() {
        let mut config = config(PortMode::Shared, &[]);
        complete(&mut config, &kernel());
        let port = &config.ports["uplink"];
        assert_eq!(port.attachment, attachment(&["192.0.2.1/24"]));
        assert_eq!(port.vlans[&7], attachment(&["198.51.100.1/24"]));
    }

    #[test]
    fn addresses_that_were_written_and_dedicated_ports_are_left_alone() {
        for before in [config(PortMode::Shared, &["203.0.113.1/24"]), config(PortMode::Dedicated, &[])] {
            let mut after = before.clone();
            complete(&mut after, &kernel());
            assert_eq!(after.ports["uplink"].attachment, before.ports["uplink"].attachment);
        }
    }

    #[test]
    fn neighbours_of_a_vlan_device_belong_to_the_interface_of_that_vlan() {
        let config = config(PortMode::Shared, &[]);
        assert_eq!(interfaces_of(&config, &kernel(), "eth1"), ["uplink"]);
        assert_eq!(interfaces_of(&config, &kernel(), "storage"), ["uplink.7"]);
        assert!(interfaces_of(&config, &kernel(), "eth9").is_empty());
    }
}
