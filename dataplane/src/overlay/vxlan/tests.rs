//! Templates and what is written from them, against whole packets built from words and the parser.

use std::net::Ipv4Addr;

use proptest::prelude::*;

use super::*;
use crate::packet::builder::Packet;
use crate::packet::{L3, Meta, PacketFlags, checksum, parse};

fn remote(local: &str, remote: &str) -> Remote {
    Remote {
        endpoint: EndpointId(3),
        scope: ScopeId(4),
        local: local.parse().unwrap(),
        remote: remote.parse().unwrap(),
        vni: 0xab_cdef,
        udp_port: UDP_PORT,
        ttl: 64,
        dscp: DscpModel::Uniform,
    }
}

/// A frame that carries `inner` as replay would send it: outer Ethernet header, outer headers, inner frame.
fn encapsulated(remote: &Remote, inner: &[u8], source_port: u16) -> Vec<u8> {
    let encapsulation = encapsulation(remote).unwrap();
    let len = usize::from(encapsulation.len);
    let meta = parse(inner).unwrap();
    let class = meta.is_ip().then_some(meta.traffic_class);
    let mut frame = Packet::ethernet([2; 6], [4; 6])
        .ether_type(if encapsulation.is_v4() { 0x0800 } else { 0x86dd })
        .build();
    frame.resize(14 + len, 0xa5);
    assert!(encapsulation.write_outer(&mut frame[14..], inner.len() as u16, class, source_port));
    frame.extend_from_slice(inner);
    frame
}

fn inner(class: u8) -> Vec<u8> {
    Packet::ethernet([6; 6], [8; 6]).ipv4("10.0.0.1", "10.0.0.2").traffic_class(class).tcp(1, 2).build()
}

#[test]
fn a_header_is_read_whatever_its_reserved_bits_say() {
    assert_eq!(read_vni(&[0xff, 1, 2, 3, 0, 0, 100, 9]), Ok(100));
    assert_eq!(read_vni(&[0x08, 0, 0, 0, 0xff, 0xff, 0xff, 0]), Ok(VNI_MAX));
}

#[test]
fn a_header_without_the_i_flag_or_too_short_is_malformed() {
    assert_eq!(read_vni(&[0xf7, 0, 0, 0, 0, 0, 100, 0]), Err(DropReason::VxlanMalformed));
    assert_eq!(read_vni(&[0x08, 0, 0, 0, 0, 0, 100]), Err(DropReason::VxlanMalformed));
}

#[test]
fn the_outer_headers_over_ipv4_are_those_of_a_packet_built_whole() {
    let inner = inner(0);
    let frame = encapsulated(&remote("192.0.2.1", "192.0.2.2"), &inner, 50000);
    let built = Packet::ethernet([2; 6], [4; 6])
        .ipv4("192.0.2.1", "192.0.2.2")
        .dont_fragment()
        .udp(50000, 4789)
        .without_checksum()
        .vxlan(0xab_cdef, &inner)
        .build();
    assert_eq!(frame, built);
}

#[test]
fn the_outer_headers_over_ipv6_are_those_of_a_packet_built_whole_but_for_the_flow_label() {
    let inner = inner(0);
    let mut frame = encapsulated(&remote("2001:db8::1", "2001:db8::2"), &inner, 50000);
    let built = Packet::ethernet([2; 6], [4; 6])
        .ipv6("2001:db8::1", "2001:db8::2")
        .udp(50000, 4789)
        .without_checksum()
        .vxlan(0xab_cdef, &inner)
        .build();
    assert_eq!(frame[16..18], 50000u16.to_be_bytes(), "RFC 6438: the label tells flows apart");
    frame[16..18].fill(0);
    assert_eq!(frame, built);
}

#[test]
fn an_inner_packet_grows_by_50_bytes_over_ipv4_and_70_over_ipv6() {
    let inner =
        Packet::ethernet([6; 6], [8; 6]).ipv4("10.0.0.1", "10.0.0.2").udp(1, 2).payload(&[0; 1422]).build();
    assert_eq!(parse(&inner).unwrap().l3_len, 1450);
    for (ends, len) in [(("192.0.2.1", "192.0.2.2"), 1500), (("fd::1", "fd::2"), 1520)] {
        let remote = remote(ends.0, ends.1);
        let frame = encapsulated(&remote, &inner, 50000);
        assert_eq!(parse(&frame).unwrap().l3_len, len);
        assert_eq!(encapsulation(&remote).unwrap().overhead(), len - 1450);
    }
}

#[test]
fn families_that_differ_and_vnis_beyond_24_bits_are_refused() {
    assert!(encapsulation(&remote("192.0.2.1", "fd::2")).is_none());
    assert!(encapsulation(&Remote { vni: VNI_MAX + 1, ..remote("fd::1", "fd::2") }).is_none());
}

#[test]
fn a_packet_that_would_be_too_long_or_a_slice_too_short_is_refused() {
    for (ends, room) in [(("192.0.2.1", "192.0.2.2"), 36), (("fd::1", "fd::2"), 56)] {
        let encapsulation = encapsulation(&remote(ends.0, ends.1)).unwrap();
        let mut out = [0; 56];
        assert!(!encapsulation.write_outer(&mut out[..room - 1], 100, None, 50000));
        assert!(!encapsulation.write_outer(&mut out, 65530, None, 50000));
        assert_eq!(out, [0; 56]);
        assert!(encapsulation.write_outer(&mut out[..room], 100, None, 50000));
    }
}

proptest! {
    #[test]
    fn whatever_is_encapsulated_parses_with_a_right_checksum_and_the_inner_frame_unchanged(
        six in any::<bool>(),
        hosts in any::<[u8; 2]>(),
        ttl in 1..=255u8,
        class in any::<u8>(),
        pipe in proptest::option::of(0..64u8),
        port in 49152..=65535u16,
        vni in 0..=VNI_MAX,
        len in 0..1400usize,
    ) {
        let dscp = pipe.map_or(DscpModel::Uniform, DscpModel::Pipe);
        let (local, far) = if six { ("fd::1", "fd::2") } else { ("192.0.2.1", "255.255.0.2") };
        let remote = Remote { ttl, dscp, vni, ..remote(local, far) };
        let inner = Packet::ethernet([6; 6], [8; 6])
            .ipv4(Ipv4Addr::from([10, 0, 0, hosts[0]]), Ipv4Addr::from([10, 0, 0, hosts[1]]))
            .traffic_class(class)
            .udp(1, 2)
            .payload(&vec![0; len])
            .build();
        let frame = encapsulated(&remote, &inner, port);
        // The parser checks the IPv4 header checksum and every length.
        let meta: Meta = parse(&frame).unwrap();
        prop_assert_eq!(meta.l3, if six { L3::V6 } else { L3::V4 });
        prop_assert_eq!((meta.source_port, meta.destination_port), (port, UDP_PORT));
        prop_assert_eq!(meta.ttl, ttl);
        prop_assert_eq!(meta.ecn(), class & 3);
        prop_assert_eq!(meta.dscp(), pipe.unwrap_or(class >> 2));
        prop_assert!(six || meta.flags.contains(PacketFlags::DF));
        prop_assert_eq!(meta.end(), frame.len());
        let payload = usize::from(meta.l4_offset) + 8;
        prop_assert_eq!(read_vni(&frame[payload..]), Ok(vni));
        prop_assert_eq!(&frame[payload + 8..], &inner[..]);
        prop_assert_eq!(checksum::verify_transport(&frame, &meta), Some(true));
    }
}
