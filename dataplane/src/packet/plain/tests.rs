use std::net::Ipv4Addr;

use proptest::prelude::*;

use super::super::builder::Packet;
use super::super::{FragmentKind, L3, Meta, parse};
use super::*;

const STATION: [u8; 6] = [2, 0, 0, 0, 1, 0];

fn station() -> Station {
    Station::new(MacAddress(STATION))
}

fn to_us() -> Packet {
    Packet::ethernet([2, 0, 0, 0, 1, 2], STATION)
}

fn udp_v4() -> Packet {
    to_us().ipv4("10.1.0.2", "10.2.0.9").udp(4000, 443).payload(&[7; 18])
}

fn tcp_v6() -> Packet {
    to_us().ipv6("2001:db8:1::2", "2001:db8:2::9").tcp(4000, 443).payload(&[7; 18])
}

#[test]
fn what_is_read_is_what_stands_there() {
    let plain = plain_v4(&udp_v4().traffic_class(0xb9).build(), station()).unwrap();
    assert_eq!(plain.destination(), 0x0a02_0009);
    assert_eq!((plain.addresses as u32).swap_bytes(), 0x0a01_0002);
    assert_eq!((plain.ports.swap_bytes(), plain.destination_port()), (4000 << 16 | 443, 443));
    assert_eq!((plain.total, plain.class, plain.protocol, plain.turning), (46, 0xb9, 17, false));
    let plain = plain_v6(&tcp_v6().build(), station()).unwrap();
    assert_eq!(plain.destination, 0x2001_0db8_0002_0000_0000_0000_0000_0009);
    assert_eq!(plain.total, 78);
}

proptest! {
    #[test]
    fn what_the_parser_learns_of_a_plain_packet_is_known_without_it(
        (tcp, flags, ttl, class) in (any::<bool>(), any::<u8>(), 2u8.., any::<u8>()),
        (source, destination, ports) in (any::<[u8; 4]>(), any::<[u8; 4]>(), any::<(u16, u16)>()),
        (len, padding, fragment) in (0usize..80, 0usize..9, 0u8..4),
    ) {
        let packet = to_us().ipv4(Ipv4Addr::from(source), Ipv4Addr::from(destination)).ttl(ttl).traffic_class(class);
        let packet = match tcp {
            true => packet.tcp(ports.0, ports.1).flags(flags),
            false => packet.udp(ports.0, ports.1),
        };
        let mut frame = packet.payload(&vec![7; len]).build();
        // Don't-fragment and the reserved bit; the header's sum is made right again.
        frame[20] = fragment << 6;
        frame[24..26].fill(0);
        let sum = !crate::packet::checksum::sum(&frame[14..34]);
        frame[24..26].copy_from_slice(&sum.to_be_bytes());
        frame.resize(frame.len() + padding, 0);
        let odd = is_odd_v4(source[0]) || is_odd_v4(destination[0]);
        for plain in [plain_v4(&frame, station()), bridged_v4(&frame)] {
            if let Some(plain) = plain {
                prop_assert_eq!(Meta::of_plain(&frame, &plain), parse(&frame).unwrap());
            } else {
                prop_assert!(odd || fragment & 2 != 0, "nothing is odd about {:?}", frame);
            }
        }
    }
}

#[test]
fn the_turning_points_of_a_connection_are_told() {
    for (flags, turning) in
        [(tcp_flags::ACK, false), (tcp_flags::SYN, true), (tcp_flags::FIN | 16, true), (4, true)]
    {
        let frame = to_us().ipv4("10.1.0.2", "10.2.0.9").tcp(1, 2).flags(flags).build();
        assert_eq!(plain_v4(&frame, station()).unwrap().turning, turning);
    }
}

#[test]
fn what_needs_a_closer_look_is_not_plain() {
    let v4 = || to_us().ipv4("10.1.0.2", "10.2.0.9");
    let frames = [
        ("foreign station", Packet::ethernet([2; 6], [2; 6]).ipv4("10.1.0.2", "10.2.0.9").udp(1, 2).build()),
        ("tagged", to_us().vlan(5).ipv4("10.1.0.2", "10.2.0.9").udp(1, 2).build()),
        ("options", v4().options(&[1, 1, 1, 0]).udp(1, 2).build()),
        ("first fragment", v4().fragment(0, true).udp(1, 2).payload(&[0; 16]).build()),
        ("later fragment", v4().fragment(64, false).udp(1, 2).payload(&[0; 16]).build()),
        ("last hop", udp_v4().ttl(1).build()),
        ("no hop", udp_v4().ttl(0).build()),
        ("group", to_us().ipv4("10.1.0.2", "224.0.0.9").udp(1, 2).build()),
        ("loopback source", to_us().ipv4("127.0.0.1", "10.2.0.9").udp(1, 2).build()),
        ("icmp", v4().echo_request(1, 2).build()),
        ("truncated", udp_v4().build()[..50].to_vec()),
        ("arp", to_us().ether_type(0x0806).payload(&[0; 40]).build()),
    ];
    for (what, frame) in frames {
        assert_eq!(plain_v4(&frame, station()), None, "{what}");
    }
    let v6 = || to_us().ipv6("2001:db8:1::2", "2001:db8:2::9");
    let frames = [
        ("extension", v6().extension(0, &[1, 4, 0, 0, 0, 0]).udp(1, 2).build()),
        ("link-local", to_us().ipv6("fe80::1", "2001:db8:2::9").udp(1, 2).build()),
        ("group", to_us().ipv6("2001:db8:1::2", "ff0e::1").udp(1, 2).build()),
        ("last hop", v6().ttl(1).udp(1, 2).payload(&[0; 30]).build()),
        ("icmp", v6().echo_request(1, 2).payload(&[0; 30]).build()),
        ("truncated", tcp_v6().build()[..90].to_vec()),
    ];
    for (what, frame) in frames {
        assert_eq!(plain_v6(&frame, station()), None, "{what}");
    }
}

fn base(kind: u8) -> Vec<u8> {
    match kind {
        0 => udp_v4().build(),
        1 => to_us().ipv4("10.1.0.2", "10.2.0.9").tcp(4000, 443).payload(&[7; 18]).build(),
        2 => tcp_v6().build(),
        _ => to_us().ipv6("2001:db8:1::2", "2001:db8:2::9").udp(1, 2).payload(&[3; 9]).build(),
    }
}

proptest! {
    /// The parser is the slow twin: what is plain it accepts, and reads alike.
    #[test]
    fn the_parser_agrees_about_what_is_plain(
        kind in 0u8..4,
        edits in proptest::collection::vec((0usize..80, any::<u8>()), 0..4),
        cut in 0usize..30,
        mend in any::<bool>(),
    ) {
        let mut frame = base(kind);
        for (at, value) in edits {
            if let Some(byte) = frame.get_mut(at) {
                *byte = value;
            }
        }
        frame.truncate(frame.len() - cut.saturating_sub(20));
        if mend && frame.len() >= 34 {
            frame[24..26].fill(0);
            let sum = super::super::checksum::checksum(&frame[14..34]);
            if kind < 2 {
                frame[24..26].copy_from_slice(&sum.to_be_bytes());
            }
        }
        if let Some(plain) = plain_v4(&frame, station()) {
            let meta = parse(&frame).unwrap();
            prop_assert_eq!((meta.l3, meta.fragment, meta.vlan_tags, meta.l4_offset), (L3::V4, FragmentKind::Whole, 0, 34));
            prop_assert_eq!((meta.l3_len, meta.traffic_class, meta.protocol), (plain.total, plain.class, plain.protocol));
            let ports = u32::from(meta.source_port) << 16 | u32::from(meta.destination_port);
            prop_assert_eq!(ports, plain.ports.swap_bytes());
            prop_assert_eq!(meta.tcp_flags & TURNING != 0, plain.turning);
            prop_assert!(meta.ttl > 1);
        }
        if let Some(plain) = plain_v6(&frame, station()) {
            let meta = parse(&frame).unwrap();
            prop_assert_eq!((meta.l3, meta.fragment, meta.vlan_tags, meta.l4_offset), (L3::V6, FragmentKind::Whole, 0, 54));
            prop_assert_eq!(meta.l3_len, plain.total);
            prop_assert!(meta.ttl > 1);
        }
    }
}
