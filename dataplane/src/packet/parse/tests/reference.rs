//! What the parser says, beside what etherparse says; and that nothing makes it panic.

use etherparse::{LaxSlicedPacket, NetSlice, SlicedPacket, TransportSlice, VlanSlice};
use proptest::prelude::*;

use crate::packet::plain::{self, Station};

use super::*;

/// Packets of every kind that the builder makes.
fn any_packet() -> impl Strategy<Value = Packet> {
    let network = (any::<bool>(), 0..3u16, any::<[u8; 2]>(), 1..=255u8, any::<u8>()).prop_map(
        |(six, tags, hosts, ttl, class)| {
            let base = Packet::ethernet([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]);
            let base = (0..tags).fold(base, |packet, tag| packet.vlan(tag + 9));
            let base = if six {
                base.ipv6(
                    std::net::Ipv6Addr::from(u128::from(hosts[0])),
                    std::net::Ipv6Addr::from(u128::from(hosts[1])),
                )
            } else {
                base.ipv4(
                    std::net::Ipv4Addr::from([10, 0, 0, hosts[0]]),
                    std::net::Ipv4Addr::from([10, 0, 1, hosts[1]]),
                )
            };
            base.ttl(ttl).traffic_class(class)
        },
    );
    let extensions = proptest::collection::vec((prop_oneof![Just(43u8), Just(60)], 0..30usize), 0..4);
    let fragment = prop_oneof![
        3 => Just(None),
        1 => Just(Some((0u16, true))),
        1 => (2..100u16, any::<bool>()).prop_map(|(units, more)| Some((units * 8, more))),
        1 => Just(Some((0, false))),
    ];
    (network, extensions, fragment, 0..7, any::<[u16; 2]>(), 0..12usize, 0..100usize).prop_map(
        |(packet, extensions, fragment, kind, [p, q], len, padding)| {
            let packet = extensions
                .into_iter()
                .fold(packet, |packet, (kind, len)| packet.extension(kind, &vec![0; len]));
            let packet = match fragment {
                Some((offset, more)) => packet.fragment(offset, more),
                None => packet,
            };
            let packet = match kind {
                0 => packet.tcp(p, q).tcp_options(&[1; 4]),
                1 => packet.udp(p, q),
                2 => packet.echo_request(p, q),
                3 => packet.icmp(3, 4, [0; 4]),
                4 => packet.sctp(p, q, 1).payload(&[0; 4]),
                5 => packet.dont_fragment().options(&[1; 8]).tcp(p, q),
                _ => packet.protocol(47),
            };
            // A fragment with more to follow has a multiple of 8 bytes.
            let header = match (fragment, kind) {
                (Some((1.., _)), _) => 0,
                (_, 4) => 12,
                (_, 5) => 20,
                _ => 8,
            };
            let payload = len * 8 + (8 - header % 8) % 8;
            packet.payload(&vec![7; payload]).pad_to(padding)
        },
    )
}

/// What etherparse says, in the words of [`Meta`]; `None` where it refuses what weir reads.
fn reference(frame: &[u8]) -> Option<Meta> {
    let sliced = SlicedPacket::from_ethernet(frame).ok()?;
    let mut meta = Meta { vlan_tags: sliced.vlan_ids().len() as u8, ..Meta::default() };
    match sliced.vlan() {
        Some(VlanSlice::SingleVlan(tag)) => meta.outer_tci = tag.vlan_identifier().value(),
        Some(VlanSlice::DoubleVlan(tags)) => {
            meta.outer_tci = tags.outer.vlan_identifier().value();
            meta.inner_tci = tags.inner.vlan_identifier().value();
        }
        None => {}
    }
    meta.l3_offset = 14 + 4 * u16::from(meta.vlan_tags);
    match sliced.net.as_ref()? {
        NetSlice::Ipv4(ip) => {
            let header = ip.header();
            meta.l3 = L3::V4;
            meta.ether_type = ether_type::IPV4;
            meta.l3_len = header.total_len();
            meta.l4_offset = meta.l3_offset + u16::from(header.ihl()) * 4;
            meta.protocol = header.protocol().0;
            meta.ttl = header.ttl();
            meta.traffic_class = header.dcp().value() << 2 | header.ecn().value();
            meta.flags.set(PacketFlags::DF, header.dont_fragment());
            meta.flags.set(PacketFlags::OPTIONS, !header.options().is_empty());
            meta.fragment = match (header.fragments_offset().value(), header.more_fragments()) {
                (0, false) => FragmentKind::Whole,
                (0, true) => FragmentKind::First,
                _ => FragmentKind::Later,
            };
        }
        NetSlice::Ipv6(ip) => {
            let header = ip.header();
            meta.l3 = L3::V6;
            meta.ether_type = ether_type::IPV6;
            meta.l3_len = header.payload_length() + 40;
            meta.protocol = ip.payload().ip_number.0;
            meta.ttl = header.hop_limit();
            meta.traffic_class = header.traffic_class();
            let extensions = ip.extensions().slice().len() as u16;
            meta.l4_offset = meta.l3_offset + 40 + extensions;
            meta.flags.set(PacketFlags::EXTENSIONS, extensions > 0);
            for extension in ip.extensions().clone() {
                if let etherparse::Ipv6ExtensionSlice::Fragment(fragment) = extension {
                    meta.fragment = match (fragment.fragment_offset().value(), fragment.more_fragments()) {
                        (0, false) => FragmentKind::Whole,
                        (0, true) => FragmentKind::First,
                        _ => FragmentKind::Later,
                    };
                }
            }
        }
        _ => return None,
    }
    let end = usize::from(meta.l3_offset + meta.l3_len);
    meta.flags.set(PacketFlags::PADDED, frame.len() > end);
    // etherparse reads no transport header of a fragment: what a first one carries is read from the rest.
    let transport = match meta.fragment {
        FragmentKind::Whole => sliced.transport,
        FragmentKind::Later => None,
        FragmentKind::First => {
            let rest = &frame[usize::from(meta.l4_offset)..end];
            match meta.protocol {
                protocol::TCP => Some(TransportSlice::Tcp(etherparse::TcpSlice::from_slice(rest).ok()?)),
                protocol::UDP => Some(TransportSlice::Udp(etherparse::UdpSlice::from_slice(rest).ok()?)),
                protocol::ICMP if meta.l3 == L3::V4 => {
                    Some(TransportSlice::Icmpv4(etherparse::Icmpv4Slice::from_slice(rest).ok()?))
                }
                protocol::ICMPV6 if meta.l3 == L3::V6 => {
                    Some(TransportSlice::Icmpv6(etherparse::Icmpv6Slice::from_slice(rest).ok()?))
                }
                _ => None,
            }
        }
    };
    reference_transport(&mut meta, transport.as_ref());
    Some(meta)
}

fn reference_transport(meta: &mut Meta, transport: Option<&TransportSlice<'_>>) {
    use etherparse::{Icmpv4Type, Icmpv6Type};
    let Some(transport) = transport else { return };
    meta.flags |= PacketFlags::TRANSPORT;
    match transport {
        // weir does not look into IGMP.
        TransportSlice::Igmp(_) => meta.flags -= PacketFlags::TRANSPORT,
        TransportSlice::Udp(udp) => {
            (meta.source_port, meta.destination_port) = (udp.source_port(), udp.destination_port());
        }
        TransportSlice::Tcp(tcp) => {
            (meta.source_port, meta.destination_port) = (tcp.source_port(), tcp.destination_port());
            let bits =
                [tcp.fin(), tcp.syn(), tcp.rst(), tcp.psh(), tcp.ack(), tcp.urg(), tcp.ece(), tcp.cwr()];
            meta.tcp_flags = bits.into_iter().rev().fold(0, |flags, bit| flags << 1 | u8::from(bit));
        }
        TransportSlice::Icmpv4(icmp) => {
            (meta.icmp_type, meta.icmp_code) = (icmp.type_u8(), icmp.code_u8());
            if let Icmpv4Type::EchoRequest(echo) | Icmpv4Type::EchoReply(echo) = icmp.icmp_type() {
                (meta.source_port, meta.destination_port) = (echo.id, echo.id);
            }
        }
        TransportSlice::Icmpv6(icmp) => {
            (meta.icmp_type, meta.icmp_code) = (icmp.type_u8(), icmp.code_u8());
            if let Icmpv6Type::EchoRequest(echo) | Icmpv6Type::EchoReply(echo) = icmp.icmp_type() {
                (meta.source_port, meta.destination_port) = (echo.id, echo.id);
            }
        }
    }
}

/// Bytes that etherparse judges by rules of its own are cut down to what both say.
fn comparable(mut meta: Meta) -> Meta {
    meta.flags -= PacketFlags::ETHER_GROUP | PacketFlags::IP_GROUP | PacketFlags::HOP_BY_HOP;
    (meta.outer_tci, meta.inner_tci) = (meta.outer_tci & 0xfff, meta.inner_tci & 0xfff);
    if meta.protocol == protocol::SCTP {
        // etherparse knows no SCTP.
        (meta.source_port, meta.destination_port) = (0, 0);
        meta.flags -= PacketFlags::TRANSPORT;
    }
    meta
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1024))]

    #[test]
    fn the_parser_agrees_with_etherparse_on_valid_packets(packet in any_packet()) {
        let frame = packet.build();
        let meta = parse(&frame);
        prop_assert!(meta.is_ok(), "{meta:?}");
        let reference = reference(&frame);
        prop_assert!(reference.is_some(), "etherparse refuses: {:?}", SlicedPacket::from_ethernet(&frame).err());
        prop_assert_eq!(comparable(meta.unwrap()), reference.unwrap());
    }

    #[test]
    fn damaged_packets_never_panic_and_what_is_accepted_lies_within_the_frame(
        packet in any_packet(),
        damage in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        cut in any::<prop::sample::Index>(),
        truncate in any::<bool>(),
        repair in any::<bool>(),
    ) {
        let mut frame = packet.build();
        for (at, value) in damage {
            let at = at.index(frame.len());
            frame[at] = value;
        }
        if truncate {
            frame.truncate(cut.index(frame.len() + 1));
        }
        // With the header checksum repaired, damage reaches the code behind it.
        if repair && frame.len() > 74 && frame[12..14] == [8, 0] {
            resum(&mut frame);
        }
        // What looks closer at IPv4 without the parser says the same.
        let station = Station::new(weir_config::MacAddress([2, 0, 0, 0, 0, 2]));
        prop_assert_eq!(plain::look_v4(&frame, station), plain::parser_says(&frame, station), "{:?}", frame);
        if let Ok(meta) = parse(&frame) {
            prop_assert!(meta.end() <= frame.len());
            prop_assert!(usize::from(meta.l4_offset) <= frame.len());
            if meta.is_ip() {
                prop_assert!(usize::from(meta.l4_offset) <= meta.end());
                prop_assert_eq!(meta.flags.contains(PacketFlags::PADDED), meta.end() < frame.len());
                // The oracle reads the same addresses' layer, even of what it would not accept whole.
                let lax = LaxSlicedPacket::from_ethernet(&frame).unwrap();
                prop_assert!(lax.net.is_some());
            }
            // etherparse takes 0x9100, which no standard gives to it, for a VLAN tag too.
            if let Some(reference) = reference(&frame).filter(|_| meta.ether_type != 0x9100) {
                prop_assert_eq!(meta.l3_offset, reference.l3_offset);
                prop_assert_eq!(meta.l3_len, reference.l3_len);
                prop_assert_eq!(meta.fragment, reference.fragment);
            }
        }
    }

    #[test]
    fn any_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = parse(&bytes);
    }
}
