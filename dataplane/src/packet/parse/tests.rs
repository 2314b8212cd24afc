//! The parser against golden packets, against etherparse, and against damage.

mod reference;

use super::super::builder::Packet;
use super::super::{checksum, tcp_flags};
use super::*;

fn v4() -> Packet {
    Packet::ethernet([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]).ipv4("10.0.0.1", "10.0.0.2")
}

fn v6() -> Packet {
    Packet::ethernet([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]).ipv6("2001:db8::1", "2001:db8::2")
}

/// Corrects the IPv4 header checksum of an untagged frame.
fn resum(frame: &mut [u8]) {
    let len = usize::from(frame[14] & 0x0f) * 4;
    frame[24..26].fill(0);
    let sum = checksum::checksum(&frame[14..14 + len]);
    frame[24..26].copy_from_slice(&sum.to_be_bytes());
}

#[test]
fn a_tcp_packet_over_ipv4_is_read() {
    let frame = v4().ttl(63).traffic_class(0xb9).dont_fragment().tcp(1000, 443).flags(tcp_flags::SYN).build();
    let meta = parse(&frame).unwrap();
    assert_eq!(
        meta,
        Meta {
            l3_offset: 14,
            l4_offset: 34,
            l3_len: 40,
            ether_type: ether_type::IPV4,
            source_port: 1000,
            destination_port: 443,
            flags: PacketFlags::DF | PacketFlags::TRANSPORT,
            l3: L3::V4,
            protocol: protocol::TCP,
            ttl: 63,
            traffic_class: 0xb9,
            tcp_flags: tcp_flags::SYN,
            ..Meta::default()
        }
    );
    assert_eq!((meta.dscp(), meta.ecn(), meta.end()), (46, 1, 54));
}

#[test]
fn a_udp_packet_over_ipv6_is_read() {
    let frame = v6().ttl(7).traffic_class(0x2a).udp(53, 5353).payload(b"abc").build();
    assert_eq!(
        parse(&frame),
        Ok(Meta {
            l3_offset: 14,
            l4_offset: 54,
            l3_len: 51,
            ether_type: ether_type::IPV6,
            source_port: 53,
            destination_port: 5353,
            flags: PacketFlags::TRANSPORT,
            l3: L3::V6,
            protocol: protocol::UDP,
            ttl: 7,
            traffic_class: 0x2a,
            ..Meta::default()
        })
    );
}

#[test]
fn parsing_in_place_forgets_what_stood_there() {
    let mut meta = parse(&v6().tcp(1, 2).build()).unwrap();
    let frame = v4().protocol(47).build();
    parse_into(&frame, &mut meta).unwrap();
    assert_eq!(Ok(meta), parse(&frame));
}

#[test]
fn one_and_two_vlan_tags_are_read_and_a_third_is_refused() {
    let one = parse(&v4().vlan(0x2005).udp(1, 2).build()).unwrap();
    assert_eq!((one.vlan_tags, one.outer_tci, one.vlan(), one.l3_offset), (1, 0x2005, 5, 18));
    assert_eq!((one.ether_type, one.destination_port), (ether_type::IPV4, 2));

    let two = parse(&v6().tag(ether_type::QINQ, 100).vlan(7).udp(1, 2).build()).unwrap();
    assert_eq!((two.vlan_tags, two.outer_tci, two.inner_tci, two.l3_offset), (2, 100, 7, 22));
    assert_eq!(two.l4_offset, 62);

    let three = v4().vlan(1).vlan(2).vlan(3).udp(1, 2).build();
    assert_eq!(parse(&three), Err(Malformed::VlanTags));
}

#[test]
fn an_untagged_packet_has_no_vlan() {
    assert_eq!(parse(&v4().udp(1, 2).build()).unwrap().vlan(), 0);
}

#[test]
fn ethernet_padding_is_found_and_the_packet_ends_before_it() {
    let meta = parse(&v4().udp(1, 2).payload(b"x").pad_to(60).build()).unwrap();
    assert!(meta.flags.contains(PacketFlags::PADDED));
    assert_eq!(meta.end(), 14 + 20 + 8 + 1);
    let meta = parse(&v6().udp(1, 2).pad_to(80).build()).unwrap();
    assert!(meta.flags.contains(PacketFlags::PADDED));
    assert_eq!(meta.end(), 62);
    assert!(!parse(&v6().udp(1, 2).build()).unwrap().flags.contains(PacketFlags::PADDED));
}

#[test]
fn group_addresses_are_flagged() {
    let group = |packet: Packet| {
        parse(&packet.udp(1, 2).build()).unwrap().flags & (PacketFlags::ETHER_GROUP | PacketFlags::IP_GROUP)
    };
    let to = |mac: [u8; 6]| Packet::ethernet([2, 0, 0, 0, 0, 1], mac);
    let both = PacketFlags::ETHER_GROUP | PacketFlags::IP_GROUP;
    assert_eq!(group(to([1, 0, 0x5e, 0, 0, 5]).ipv4("10.0.0.1", "224.0.0.5")), both);
    assert_eq!(group(to([0xff; 6]).ipv4("0.0.0.0", "255.255.255.255")), both);
    assert_eq!(group(to([0x33, 0x33, 0, 0, 0, 1]).ipv6("fe80::1", "ff02::1")), both);
    assert_eq!(group(to([2; 6]).ipv4("10.0.0.1", "239.255.255.255")), PacketFlags::IP_GROUP);
    assert_eq!(group(to([2; 6]).ipv4("10.0.0.1", "240.0.0.1")), PacketFlags::empty());
    assert_eq!(group(to([2; 6]).ipv4("10.0.0.1", "255.255.255.254")), PacketFlags::empty());
}

#[test]
fn what_is_neither_ip_nor_arp_is_other() {
    let lldp = parse(&Packet::ethernet([2; 6], [1; 6]).ether_type(0x88cc).payload(&[0; 46]).build()).unwrap();
    assert_eq!((lldp.l3, lldp.ether_type, lldp.l3_len), (L3::Other, 0x88cc, 0));
    let spanning_tree = Packet::ethernet([2; 6], [1; 6]).ether_type(38).payload(&[0; 46]).build();
    assert_eq!(parse(&spanning_tree).unwrap().l3, L3::Other);
}

#[test]
fn arp_is_recognised_and_a_short_one_refused() {
    let packet = super::super::view::arp::Packet {
        operation: 1,
        sender_mac: Default::default(),
        sender_ip: [10, 0, 0, 1].into(),
        target_mac: Default::default(),
        target_ip: [10, 0, 0, 2].into(),
    };
    let frame = Packet::ethernet([2; 6], [0xff; 6]).arp(packet).build();
    assert_eq!(parse(&frame).unwrap().l3, L3::Arp);
    assert_eq!(parse(&frame[..41]), Err(Malformed::Truncated));
    assert_eq!(super::super::view::arp::Packet::read(&frame[14..]), Some(packet));
}

#[test]
fn ipv4_options_are_flagged_and_their_checksum_is_checked() {
    let mut frame = v4().options(&[0x94, 4, 0, 0]).udp(1, 2).build();
    let meta = parse(&frame).unwrap();
    assert!(meta.flags.contains(PacketFlags::OPTIONS));
    assert_eq!((meta.l4_offset, meta.destination_port), (38, 2));
    frame[36] ^= 1;
    assert_eq!(parse(&frame), Err(Malformed::IpChecksum));
}

/// RFC 1812 section 5.2.2.
#[test]
fn the_ipv4_header_is_validated() {
    let good = v4().udp(1, 2).payload(&[0; 20]).build();
    let damaged = |at: usize, value: u8| {
        let mut frame = good.clone();
        frame[at] = value;
        resum(&mut frame);
        parse(&frame).unwrap_err()
    };
    assert_eq!(damaged(14, 0x65), Malformed::IpVersion);
    assert_eq!(damaged(14, 0x44), Malformed::IpHeaderLength);
    assert_eq!(damaged(17, 200), Malformed::IpLength);
    assert_eq!(damaged(17, 19), Malformed::IpHeaderLength);
    assert_eq!(damaged(17, 27), Malformed::Transport);
    let mut frame = good.clone();
    frame[22] ^= 1;
    assert_eq!(parse(&frame), Err(Malformed::IpChecksum));
    // IHL 15 needs 60 bytes of header; 48 are there.
    let mut frame = good.clone();
    frame[14] = 0x4f;
    assert_eq!(parse(&frame), Err(Malformed::IpHeaderLength));
    assert_eq!(parse(&good[..33]), Err(Malformed::Truncated));
    assert_eq!(parse(&good[..13]), Err(Malformed::Truncated));
    assert_eq!(parse(&good[..61]), Err(Malformed::IpLength));
}

#[test]
fn the_ipv6_header_is_validated() {
    let good = v6().udp(1, 2).payload(&[0; 20]).build();
    assert_eq!(parse(&good[..53]), Err(Malformed::Truncated));
    assert_eq!(parse(&good[..81]), Err(Malformed::IpLength));
    let mut frame = good.clone();
    frame[14] = 0x45;
    assert_eq!(parse(&frame), Err(Malformed::IpVersion));
}

#[test]
fn an_ipv6_packet_of_more_than_65535_bytes_is_refused() {
    let mut frame = v6().protocol(59).payload(&[0; 65500]).build();
    assert_eq!(parse(&frame), Err(Malformed::IpLength));
    frame[18..20].copy_from_slice(&65495u16.to_be_bytes());
    assert_eq!(parse(&frame).unwrap().l3_len, 65535);
}

#[test]
fn transport_headers_are_validated() {
    for base in [v4(), v6()] {
        let tcp = base.clone().tcp(1, 2).build();
        let at = usize::from(parse(&tcp).unwrap().l4_offset);
        for offset in [0x00, 0x40, 0x60, 0xf0] {
            let mut frame = tcp.clone();
            frame[at + 12] = offset;
            assert_eq!(parse(&frame), Err(Malformed::Transport), "TCP data offset {offset:02x}");
        }
        for (len, expected) in [(0, false), (7, false), (8, true), (12, true), (13, false), (0xffff, false)] {
            let mut frame = base.clone().udp(1, 2).payload(&[0; 4]).build();
            frame[at + 4..at + 6].copy_from_slice(&(len as u16).to_be_bytes());
            assert_eq!(parse(&frame).is_ok(), expected, "UDP length {len}");
        }
        for (protocol, needed) in [(6, 20), (17, 8), (132, 12)] {
            let short = base.clone().protocol(protocol).payload(&vec![0; needed - 1]).build();
            assert_eq!(parse(&short), Err(Malformed::Transport), "protocol {protocol}");
        }
    }
    assert_eq!(parse(&v4().protocol(1).payload(&[8; 7]).build()), Err(Malformed::Transport));
    assert_eq!(parse(&v6().protocol(58).payload(&[1; 3]).build()), Err(Malformed::Transport));
    assert_eq!(parse(&v6().protocol(58).payload(&[128; 7]).build()), Err(Malformed::Transport));
    assert_eq!(parse(&v6().protocol(58).payload(&[1; 4]).build()).map(|meta| meta.icmp_type), Ok(1));
}

#[test]
fn icmp_errors_have_no_ports_and_echoes_have_their_identifier_twice() {
    for base in [v4(), v6()] {
        for frame in [base.clone().echo_request(77, 1).build(), base.clone().echo_reply(77, 1).build()] {
            let meta = parse(&frame).unwrap();
            assert_eq!((meta.source_port, meta.destination_port), (77, 77));
            assert!(meta.flags.contains(PacketFlags::TRANSPORT));
        }
        let error = parse(&base.icmp(3, 4, [0, 9, 5, 0]).payload(&[0; 28]).build()).unwrap();
        assert_eq!((error.icmp_type, error.icmp_code, error.source_port), (3, 4, 0));
    }
}

#[test]
fn icmp_over_the_wrong_family_is_an_unknown_protocol() {
    let meta = parse(&v6().protocol(protocol::ICMP).payload(&[8, 0]).build()).unwrap();
    assert!(!meta.flags.contains(PacketFlags::TRANSPORT));
    let meta = parse(&v4().protocol(protocol::ICMPV6).payload(&[8, 0]).build()).unwrap();
    assert!(!meta.flags.contains(PacketFlags::TRANSPORT));
}

#[test]
fn sctp_ports_are_read() {
    let meta = parse(&v4().sctp(5, 6, 1).payload(&[0; 4]).build()).unwrap();
    assert_eq!((meta.source_port, meta.destination_port), (5, 6));
}

#[test]
fn unknown_protocols_pass_without_a_transport_header() {
    for frame in
        [v4().protocol(47).build(), v6().protocol(50).payload(&[0; 3]).build(), v6().protocol(59).build()]
    {
        let meta = parse(&frame).unwrap();
        assert!(!meta.flags.contains(PacketFlags::TRANSPORT));
        assert_eq!((meta.source_port, meta.destination_port), (0, 0));
    }
}

#[test]
fn ipv4_fragments_are_told_apart() {
    let first = parse(&v4().fragment(0, true).udp(1, 2).payload(&[0; 16]).build()).unwrap();
    assert_eq!((first.fragment, first.destination_port), (FragmentKind::First, 2));
    assert!(first.flags.contains(PacketFlags::TRANSPORT));
    for more in [true, false] {
        let later = parse(&v4().fragment(1480, more).udp(1, 2).payload(&[0; 16]).build()).unwrap();
        assert_eq!((later.fragment, later.destination_port), (FragmentKind::Later, 0));
        assert!(!later.flags.contains(PacketFlags::TRANSPORT));
        assert_eq!(later.protocol, protocol::UDP);
    }
}

#[test]
fn a_first_fragment_may_carry_a_part_of_a_longer_udp_datagram() {
    let mut frame = v4().fragment(0, true).udp(1, 2).payload(&[0; 16]).build();
    frame[38..40].copy_from_slice(&4000u16.to_be_bytes());
    assert_eq!(parse(&frame).unwrap().fragment, FragmentKind::First);
}

#[test]
fn a_fragment_past_65535_bytes_is_refused() {
    let at =
        |offset, len: usize| parse(&v4().fragment(offset, false).udp(1, 2).payload(&vec![0; len]).build());
    assert!(at(65504, 11).is_ok());
    assert_eq!(at(65504, 12), Err(Malformed::Fragment));
    let at = |offset, len: usize| {
        parse(&v6().extension(60, &[]).fragment(offset, false).udp(1, 2).payload(&vec![0; len]).build())
    };
    // RFC 8200 section 4.5: the reassembled payload length counts the 8 bytes of destination options.
    assert!(at(65520, 7).is_ok());
    assert_eq!(at(65520, 8), Err(Malformed::Fragment));
}

#[test]
fn a_fragment_with_more_to_follow_carries_a_multiple_of_8_bytes() {
    assert_eq!(parse(&v4().fragment(1480, true).payload(&[0; 9]).build()), Err(Malformed::Fragment));
    assert_eq!(parse(&v6().fragment(1480, true).payload(&[0; 9]).build()), Err(Malformed::Fragment));
    assert!(parse(&v6().fragment(1480, false).payload(&[0; 9]).build()).is_ok());
}

/// RFC 1858 sections 3.1 and 3.2, RFC 3128, RFC 7112 section 5.
#[test]
fn tiny_and_overlapping_first_fragments_are_refused() {
    for base in [v4(), v6()] {
        let tiny = base.clone().fragment(0, true).protocol(6).payload(&[0; 8]).build();
        assert_eq!(parse(&tiny), Err(Malformed::Transport));
        let over = base.clone().fragment(8, false).protocol(6).payload(&[0; 32]).build();
        assert_eq!(parse(&over), Err(Malformed::Fragment));
        let udp = base.clone().fragment(8, false).protocol(17).payload(&[0; 32]).build();
        assert!(parse(&udp).is_ok());
    }
}

#[test]
fn ipv6_fragments_are_told_apart() {
    let first =
        parse(&v6().extension(60, &[]).fragment(0, true).udp(1, 2).payload(&[0; 16]).build()).unwrap();
    assert_eq!((first.fragment, first.destination_port, first.l4_offset), (FragmentKind::First, 2, 70));
    let later = parse(&v6().fragment(1448, false).udp(1, 2).payload(&[0; 16]).build()).unwrap();
    assert_eq!((later.fragment, later.destination_port, later.l4_offset), (FragmentKind::Later, 0, 62));
    assert_eq!(later.protocol, protocol::UDP);
}

/// RFC 6946, RFC 8200 section 4.5.
#[test]
fn an_atomic_fragment_is_a_whole_packet() {
    let meta = parse(&v6().fragment(0, false).udp(1, 2).build()).unwrap();
    assert_eq!((meta.fragment, meta.destination_port), (FragmentKind::Whole, 2));
    assert!(meta.flags.contains(PacketFlags::EXTENSIONS | PacketFlags::TRANSPORT));
}

#[test]
fn ipv6_extension_headers_are_walked() {
    let meta = parse(
        &v6()
            .extension(0, &[5, 2])
            .extension(43, &[0; 20])
            .extension(60, &[])
            .extension(51, &[0; 22])
            .tcp(1, 2)
            .build(),
    )
    .unwrap();
    assert!(meta.flags.contains(PacketFlags::EXTENSIONS | PacketFlags::HOP_BY_HOP | PacketFlags::TRANSPORT));
    assert_eq!((meta.protocol, meta.destination_port), (protocol::TCP, 2));
    assert_eq!(meta.l4_offset, 54 + 8 + 24 + 8 + 24);
}

#[test]
fn esp_behind_extension_headers_ends_the_walk() {
    let meta = parse(&v6().extension(60, &[]).protocol(50).payload(&[0; 8]).build()).unwrap();
    assert_eq!((meta.protocol, meta.l4_offset), (50, 62));
}

#[test]
fn eight_extension_headers_are_walked_and_a_ninth_is_refused() {
    let chain = |n| (0..n).fold(v6(), |packet, _| packet.extension(60, &[])).udp(1, 2).build();
    assert_eq!(parse(&chain(MAX_EXTENSIONS)).unwrap().destination_port, 2);
    assert_eq!(parse(&chain(MAX_EXTENSIONS + 1)), Err(Malformed::IpExtension));
}

#[test]
fn broken_extension_headers_are_refused() {
    let hop_by_hop_second = v6().extension(60, &[]).extension(0, &[]).udp(1, 2).build();
    assert_eq!(parse(&hop_by_hop_second), Err(Malformed::IpExtension));
    let two_fragment_headers = v6().extension(44, &[0, 0, 0, 0, 0, 1]).fragment(0, false).udp(1, 2).build();
    assert_eq!(parse(&two_fragment_headers), Err(Malformed::IpExtension));
    let mut long = v6().extension(60, &[]).udp(1, 2).build();
    long[55] = 2;
    assert_eq!(parse(&long), Err(Malformed::IpExtension));
    let cut = v6().protocol(60).payload(&[17, 0, 0, 0]).build();
    assert_eq!(parse(&cut), Err(Malformed::IpExtension));
}
