//! Edits against rebuilding the packet from its description.

use std::net::{Ipv4Addr, Ipv6Addr};

use proptest::prelude::*;

use super::super::builder::Packet;
use super::super::{ecn, parse};
use super::*;

const A: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
const B: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);
const A6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
const B6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 2);

fn v4(source: Ipv4Addr, destination: Ipv4Addr) -> Packet {
    Packet::ethernet([2; 6], [4; 6]).ipv4(source, destination)
}

fn v6(source: Ipv6Addr, destination: Ipv6Addr) -> Packet {
    Packet::ethernet([2; 6], [4; 6]).ipv6(source, destination)
}

/// A transport header by number, with these ports (or this identifier).
fn transport(packet: Packet, kind: u8, source: u16, destination: u16, payload: &[u8]) -> Packet {
    let packet = match kind {
        0 => packet.tcp(source, destination),
        1 => packet.udp(source, destination),
        2 => packet.sctp(source, destination, 7),
        3 => packet.echo_request(source, 1),
        4 => packet.udp(source, destination).without_checksum(),
        _ => packet.protocol(47),
    };
    packet.payload(payload)
}

proptest! {
    #[test]
    fn a_rewritten_packet_equals_one_built_so(
        six in any::<bool>(),
        kind in 0..6u8,
        hosts in any::<[u8; 4]>(),
        ports in any::<[u16; 4]>(),
        payload in proptest::collection::vec(any::<u8>(), 0..100),
        padding in 0..80usize,
    ) {
        let [p, q, new_p, new_q] = ports;
        // An echo has one identifier, which either edit sets.
        let (new_q, built_q) = if kind == 3 { (p, q) } else { (new_q, new_q) };
        let make = |a: u8, b: u8, p, q| {
            let packet = if six {
                v6(Ipv6Addr::from(u128::MAX - u128::from(a)), Ipv6Addr::from(u128::from(b)))
            } else {
                v4([10, 255, 0, a].into(), [255, 0, 0, b].into())
            };
            transport(packet, kind, p, q, &payload).pad_to(padding).build()
        };
        let mut frame = make(hosts[0], hosts[1], p, q);
        let built = make(hosts[2], hosts[3], new_p, built_q);
        let meta = parse(&frame).unwrap();
        let (source, destination): (IpAddr, IpAddr) = if six {
            (Ipv6Addr::from(u128::MAX - u128::from(hosts[2])).into(), Ipv6Addr::from(u128::from(hosts[3])).into())
        } else {
            ([10, 255, 0, hosts[2]].into(), [255, 0, 0, hosts[3]].into())
        };
        prop_assert!(set_source(&mut frame, &meta, source, new_p));
        prop_assert!(set_destination(&mut frame, &meta, destination, new_q));
        prop_assert_eq!(frame, built);
    }

    #[test]
    fn a_decremented_ttl_equals_one_built_so(ttl in 1..=255u8, class in any::<u8>(), six in any::<bool>()) {
        let make = |ttl, class| {
            let packet = if six { v6(A6, B6) } else { v4(A, B) };
            packet.ttl(ttl).traffic_class(class).udp(1, 2).build()
        };
        let mut frame = make(ttl, 0);
        let meta = parse(&frame).unwrap();
        prop_assert!(decrement_ttl(&mut frame, &meta));
        prop_assert!(ecn::set_traffic_class(&mut frame, &meta, class));
        prop_assert_eq!(frame, make(ttl - 1, class));
    }

    #[test]
    fn edits_of_any_bytes_with_any_meta_never_panic_and_do_nothing_when_refused(
        mut bytes in proptest::collection::vec(any::<u8>(), 0..120),
        offsets in any::<[u8; 2]>(),
        l3_len in 0..200u16,
        l3 in prop_oneof![Just(L3::V4), Just(L3::V6), Just(L3::Other)],
        protocol in prop_oneof![Just(1u8), Just(6), Just(17), Just(58), Just(132), any::<u8>()],
        icmp_type in prop_oneof![Just(8u8), Just(128), any::<u8>()],
        port in any::<u16>(),
    ) {
        let meta = Meta {
            l3_offset: u16::from(offsets[0]),
            l4_offset: u16::from(offsets[1]),
            l3_len,
            l3,
            protocol,
            icmp_type,
            flags: PacketFlags::TRANSPORT,
            ..Meta::default()
        };
        let before = bytes.clone();
        let mut done = decrement_ttl(&mut bytes, &meta);
        done |= set_source(&mut bytes, &meta, A.into(), port);
        done |= set_destination(&mut bytes, &meta, A6.into(), port);
        done |= ecn::set_ecn(&mut bytes, &meta, 3);
        if !done {
            prop_assert_eq!(bytes, before);
        }
    }
}

#[test]
fn a_ttl_of_zero_is_left_alone() {
    for mut frame in [v4(A, B).ttl(0).udp(1, 2).build(), v6(A6, B6).ttl(0).udp(1, 2).build()] {
        let before = frame.clone();
        let meta = parse(&frame).unwrap();
        assert!(!decrement_ttl(&mut frame, &meta));
        assert_eq!(frame, before);
    }
}

#[test]
fn a_udp_checksum_of_zero_stays_zero_over_ipv4_and_ipv6() {
    for (mut frame, ip) in [
        (v4(A, B).udp(1, 2).without_checksum().build(), IpAddr::from(B)),
        (v6(A6, B6).udp(1, 2).without_checksum().build(), IpAddr::from(B6)),
    ] {
        let meta = parse(&frame).unwrap();
        assert!(set_source(&mut frame, &meta, ip, 9));
        let at = usize::from(meta.l4_offset) + 6;
        assert_eq!(frame[at..at + 2], [0, 0]);
    }
}

#[test]
fn an_updated_udp_checksum_of_zero_is_sent_as_ffff() {
    // Choose the port so that the sum after the edit is 0xffff (RFC 768: the checksum 0 means "none").
    let frame = v4(A, B).udp(1, 2).payload(b"x").build();
    let meta = parse(&frame).unwrap();
    let sum = u16::from_be_bytes([frame[40], frame[41]]);
    let mut edited = frame.clone();
    assert!(set_source(&mut edited, &meta, A.into(), 1 + sum));
    assert_eq!(edited[40..42], [0xff, 0xff]);
    assert_eq!(checksum::verify_transport(&edited, &parse(&edited).unwrap()), Some(true));
}

#[test]
fn the_first_fragment_is_rewritten_whole_and_later_ones_in_their_address_only() {
    let payload = [9u8; 64];
    // The checksum of the reassembled datagram: as if the first fragment's transport were the whole.
    let first = |a, p| v4(a, B).identification(5).fragment(0, true).udp(p, 2).payload(&payload).build();
    let mut frame = first(A, 1);
    let meta = parse(&frame).unwrap();
    assert!(set_source(&mut frame, &meta, B.into(), 9));
    assert_eq!(frame, first(B, 9));

    let later = |a| v4(a, B).identification(5).fragment(72, false).udp(0, 0).payload(&payload).build();
    let mut frame = later(A);
    let meta = parse(&frame).unwrap();
    assert_eq!(meta.fragment, FragmentKind::Later);
    assert!(set_source(&mut frame, &meta, B.into(), 9));
    assert_eq!(frame, later(B));
}

#[test]
fn an_address_of_the_other_family_is_refused() {
    let mut frame = v4(A, B).udp(1, 2).build();
    let before = frame.clone();
    let meta = parse(&frame).unwrap();
    assert!(!set_source(&mut frame, &meta, A6.into(), 1));
    assert_eq!(frame, before);
}

#[test]
fn the_port_of_an_sctp_first_fragment_is_refused_but_its_address_may_change() {
    let mut frame = v4(A, B).fragment(0, true).sctp(1, 2, 3).payload(&[0; 12]).build();
    let before = frame.clone();
    let meta = parse(&frame).unwrap();
    assert!(!set_source(&mut frame, &meta, B.into(), 9));
    assert_eq!(frame, before);
    assert!(set_source(&mut frame, &meta, B.into(), 1));
    assert_eq!(frame[26..30], B.octets());
}

#[test]
fn a_wrong_checksum_stays_wrong() {
    for kind in [0, 1, 2] {
        let mut frame = transport(v4(A, B), kind, 1, 2, b"payload").build();
        let last = frame.len() - 1;
        frame[last] ^= 0x40;
        let meta = parse(&frame).unwrap();
        assert!(set_source(&mut frame, &meta, B.into(), 9));
        frame[last] ^= 0x40;
        assert_eq!(frame, transport(v4(B, B), kind, 9, 2, b"payload").build(), "transport {kind}");
    }
}

#[test]
fn an_icmpv6_error_follows_a_change_of_address() {
    let error = |a| v6(a, B6).icmp(2, 0, [0, 0, 5, 0]).payload(&[1; 48]).build();
    let mut frame = error(A6);
    let meta = parse(&frame).unwrap();
    assert!(set_source(&mut frame, &meta, B6.into(), 0));
    assert_eq!(frame, error(B6));
}

#[test]
fn ethernet_addresses_are_set() {
    let mut frame = v4(A, B).udp(1, 2).build();
    assert!(set_macs(&mut frame, MacAddress([6; 6]), MacAddress([8; 6])));
    assert_eq!(frame[..12], [6, 6, 6, 6, 6, 6, 8, 8, 8, 8, 8, 8]);
    assert!(!set_macs(&mut frame[..11], MacAddress([0; 6]), MacAddress([0; 6])));
}

/// RFC 9293 section 3.7.1, RFC 6691 section 2: the MTU less the fixed headers. The option may stand at an odd offset, where
/// the checksum takes its bytes the other way round (RFC 1071 section 2).
#[test]
fn a_larger_segment_size_is_lowered_wherever_its_option_stands() {
    let mss = |size: u16| [2, 4, (size >> 8) as u8, size as u8];
    let (timestamps, padding) = ([8, 10, 0, 0, 0, 1, 0, 0, 0, 0], [1; 3]);
    for (packet, headers) in [(v4(A, B), 40), (v6(A6, B6), 60)] {
        for front in [&[][..], &padding[..1], &padding[..2], &padding, &timestamps, &[4, 2]] {
            let syn = |size| {
                let mut options = [front, &mss(size)].concat();
                options.resize(options.len().next_multiple_of(4), 1);
                packet.clone().tcp(1, 2).flags(2).tcp_options(&options).build()
            };
            for mtu in [1450_u16, 0xff, 1430, 576] {
                let mut frame = syn(1460);
                let meta = parse(&frame).unwrap();
                assert!(clamp_mss(&mut frame, &meta, mtu), "{front:?}");
                assert_eq!(frame, syn(mtu - headers), "{front:?}, to {mtu}");
                assert!(!clamp_mss(&mut frame, &meta, mtu), "it is small enough");
            }
        }
    }
}

#[test]
fn a_segment_without_a_sound_segment_size_stays_as_it_is() {
    for options in
        [&[][..], &[0, 2, 4, 255], &[2, 3, 255, 255], &[8, 0, 2, 4], &[1, 1, 1, 2], &[3, 200, 0, 0]]
    {
        let before = v4(A, B).tcp(1, 2).flags(2).tcp_options(options).build();
        let mut frame = before.clone();
        assert!(!clamp_mss(&mut frame, &parse(&before).unwrap(), 576), "{options:?}");
        assert_eq!(frame, before);
    }
    let mut udp = v4(A, B).udp(1, 2).payload(&[2, 4, 255, 255]).build();
    let meta = parse(&udp).unwrap();
    assert!(!clamp_mss(&mut udp, &meta, 576));
}

proptest! {
    /// RFC 5508 section 4.2: an edited quote is the packet that was built so, as far as it was quoted.
    #[test]
    fn an_edited_quote_equals_one_built_so(
        kind in 0..5u8,
        hosts in any::<[u8; 4]>(),
        ports in any::<[u16; 4]>(),
        payload in proptest::collection::vec(any::<u8>(), 0..60),
        // Half a checksum cannot be followed: TCP's lacks its carry then, and of SCTP's CRC every byte depends on all.
        cut in (28..100usize).prop_filter("cuts a checksum in two", |cut| !matches!(cut, 29..=31 | 37)),
        options in any::<bool>(),
    ) {
        let [p, q, new_p, new_q] = ports;
        let built_q = if kind == 3 { new_p } else { new_q };
        let quote = |a: u8, b: u8, p, q| {
            let packet = v4([10, 255, 0, a].into(), [255, 0, 0, b].into());
            let packet = if options { packet.options(&[1, 1, 1, 0]) } else { packet };
            let bytes = transport(packet, kind, p, q, &payload).build_network();
            bytes.get(..cut + 4 * usize::from(options)).unwrap_or(&bytes).to_vec()
        };
        let error = |quote: &[u8]| v4(A, B).icmp(3, 3, [0; 4]).payload(quote).build();
        let mut frame = error(&quote(hosts[0], hosts[1], p, q));
        let built = error(&quote(hosts[2], hosts[3], new_p, built_q));
        let meta = parse(&frame).unwrap();
        let ends = |at: usize, host: u8, port| ([[10, 255, 0, host], [255, 0, 0, host]][at].into(), port);
        let done = set_quoted(&mut frame, &meta, ends(0, hosts[2], new_p), ends(1, hosts[3], built_q));
        prop_assert!(done);
        prop_assert_eq!(&frame, &built);
        // And back again: the first one, bit for bit.
        let old_q = if kind == 3 { p } else { q };
        let done = set_quoted(&mut frame, &meta, ends(0, hosts[0], p), ends(1, hosts[1], old_q));
        prop_assert!(done);
        prop_assert_eq!(frame, error(&quote(hosts[0], hosts[1], p, q)));
    }

    #[test]
    fn no_bytes_behind_an_error_make_editing_its_quote_panic(
        bytes in proptest::collection::vec(any::<u8>(), 0..80),
        kind in prop_oneof![Just(3u8), Just(5), Just(11), any::<u8>()],
    ) {
        let mut frame = v4(A, B).icmp(kind, 0, [0; 4]).payload(&bytes).build();
        let before = frame.clone();
        let meta = parse(&frame).unwrap();
        if set_quoted(&mut frame, &meta, (A, 1), (B, 2)) {
            prop_assert_eq!(checksum::verify_transport(&frame, &meta), Some(true));
        } else {
            prop_assert_eq!(frame, before);
        }
    }
}
