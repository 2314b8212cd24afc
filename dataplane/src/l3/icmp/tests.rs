use proptest::prelude::*;

use super::*;
use crate::packet::builder::Packet;
use crate::packet::view::tcp;
use crate::packet::{parse, tcp_flags};

const KINDS: [IcmpError; 8] = [
    IcmpError::TimeExceeded,
    IcmpError::TooBig { mtu: 1400 },
    IcmpError::NetUnreachable,
    IcmpError::HostUnreachable,
    IcmpError::PortUnreachable,
    IcmpError::ProtocolUnreachable,
    IcmpError::AdminProhibited,
    IcmpError::ParameterProblem { code: 0, pointer: 8 },
];

fn ethernet() -> Packet {
    Packet::ethernet("02:00:00:00:00:09", "02:00:00:00:00:01")
}

fn v4() -> Packet {
    ethernet().ipv4("10.1.0.9", "10.2.0.9")
}

fn v6() -> Packet {
    ethernet().ipv6("2001:db8:1::9", "2001:db8:2::9")
}

fn own(meta: &Meta) -> IpAddr {
    if meta.l3 == L3::V6 { "2001:db8:1::1" } else { "10.1.0.1" }.parse().unwrap()
}

/// The error about a frame, as an IP packet.
fn about(kind: IcmpError, frame: &[u8]) -> Result<Vec<u8>, NoError> {
    let meta = parse(frame).unwrap();
    let mut out = vec![1, 2, 3];
    let result = error(kind, frame, &meta, own(&meta), &mut out);
    assert_eq!(result.is_err(), out.is_empty());
    result.map(|()| out)
}

/// Puts an Ethernet header in front, parses, and checks every checksum.
fn check(packet: &[u8]) -> (Vec<u8>, Meta) {
    let ether_type = if packet[0] >> 4 == 4 { [8, 0] } else { [0x86, 0xdd] };
    let frame = [&[0; 12][..], &ether_type, packet].concat();
    let meta = parse(&frame).unwrap();
    assert_eq!(meta.end(), frame.len());
    assert_eq!(checksum::verify_transport(&frame, &meta), Some(true));
    (frame, meta)
}

/// Type, code, rest and quote of an error.
fn parts(packet: &[u8]) -> (u8, u8, [u8; 4], Vec<u8>) {
    let (frame, meta) = check(packet);
    let at = usize::from(meta.l4_offset);
    (frame[at], frame[at + 1], frame[at + 4..at + 8].try_into().unwrap(), frame[at + 8..].to_vec())
}

/// RFC 792, RFC 1191 section 4, RFC 1812 section 5.2.7; RFC 4443 section 3.
#[test]
fn errors_have_the_types_and_codes_of_their_family() {
    let (old, new) = (v4().udp(1, 2).build(), v6().udp(1, 2).build());
    let numbers_v4 = [(11, 0), (3, 4), (3, 0), (3, 1), (3, 3), (3, 2), (3, 13), (12, 0)];
    let numbers_v6 = [(3, 0), (2, 0), (1, 0), (1, 3), (1, 4), (4, 1), (1, 1), (4, 0)];
    for (kind, (v4, v6)) in KINDS.into_iter().zip(numbers_v4.into_iter().zip(numbers_v6)) {
        let (icmp_type, code, _, quote) = parts(&about(kind, &old).unwrap());
        assert_eq!(((icmp_type, code), &quote[..]), (v4, &old[14..]), "{kind:?}");
        let (icmp_type, code, _, quote) = parts(&about(kind, &new).unwrap());
        assert_eq!(((icmp_type, code), &quote[..]), (v6, &new[14..]), "{kind:?}");
    }
}

#[test]
fn an_error_goes_from_us_to_the_source() {
    let frame = v4().udp(1, 2).build();
    let (answer, meta) = check(&about(IcmpError::TimeExceeded, &frame).unwrap());
    let addresses = addresses(&answer, &meta).unwrap();
    assert_eq!(addresses, ("10.1.0.1".parse().unwrap(), "10.1.0.9".parse().unwrap()));
    // RFC 1812 section 4.3.2.5.
    assert_eq!((meta.ttl, meta.traffic_class), (64, 0xc0));
}

/// RFC 1191 section 4; RFC 8201 section 4, RFC 8200 section 5: never below 1280.
#[test]
fn the_mtu_is_told_and_never_nonsense() {
    let (old, new) = (v4().udp(1, 2).build(), v6().udp(1, 2).build());
    let told =
        |mtu, frame: &[u8]| u32::from_be_bytes(parts(&about(IcmpError::TooBig { mtu }, frame).unwrap()).2);
    assert_eq!(told(1450, &old), 1450);
    assert_eq!(told(0, &old), 68);
    assert_eq!(told(1430, &new), 1430);
    assert_eq!(told(1000, &new), 1280);
}

/// RFC 4443 section 3.4: the pointer names the next header field that could not be understood.
#[test]
fn an_unknown_protocol_is_pointed_at() {
    let pointer =
        |frame: &[u8]| u32::from_be_bytes(parts(&about(IcmpError::ProtocolUnreachable, frame).unwrap()).2);
    assert_eq!(pointer(&v6().protocol(89).payload(&[0; 8]).build()), 6);
    let extended = v6().extension(0, &[]).extension(60, &[0; 14]).protocol(89).payload(&[0; 8]).build();
    assert_eq!(pointer(&extended), 48);
}

/// RFC 1812 section 4.3.2.3, RFC 4443 section 2.4 (c).
#[test]
fn as_much_is_quoted_as_the_limits_leave_room_for() {
    let old = v4().udp(1, 2).payload(&[7; 1400]).build();
    assert_eq!(about(IcmpError::TimeExceeded, &old).unwrap().len(), 576);
    let new = v6().udp(1, 2).payload(&[7; 1400]).build();
    assert_eq!(about(IcmpError::TimeExceeded, &new).unwrap().len(), 1280);
    // Ethernet padding is no part of the packet.
    let padded = v4().udp(1, 2).pad_to(60).build();
    assert_eq!(about(IcmpError::TimeExceeded, &padded).unwrap().len(), 20 + 8 + 28);
}

/// RFC 1122 section 3.2.2, RFC 4443 section 2.4 (e.1) and (e.2).
#[test]
fn no_error_is_about_an_error() {
    for icmp_type in [3, 4, 5, 11, 12] {
        let frame = v4().icmp(icmp_type, 0, [0; 4]).payload(&[0; 28]).build();
        assert_eq!(about(IcmpError::TimeExceeded, &frame), Err(NoError::AboutError), "{icmp_type}");
    }
    for icmp_type in [1, 2, 3, 4, 127, 137] {
        let frame = v6().icmp(icmp_type, 0, [0; 4]).payload(&[0; 48]).build();
        assert_eq!(about(IcmpError::TooBig { mtu: 1280 }, &frame), Err(NoError::AboutError), "{icmp_type}");
    }
    assert!(about(IcmpError::TimeExceeded, &v4().echo_request(1, 1).build()).is_ok());
    assert!(about(IcmpError::TimeExceeded, &v6().echo_request(1, 1).build()).is_ok());
}

/// RFC 1812 section 4.3.2.7.
#[test]
fn no_error_is_about_a_later_fragment() {
    let first = v4().udp(1, 2).payload(&[0; 16]).fragment(0, true).build();
    let later = v4().udp(1, 2).payload(&[0; 16]).fragment(24, false).build();
    assert!(about(IcmpError::TimeExceeded, &first).is_ok());
    assert_eq!(about(IcmpError::TimeExceeded, &later), Err(NoError::LaterFragment));
    let later = v6().udp(1, 2).payload(&[0; 16]).fragment(24, false).build();
    assert_eq!(about(IcmpError::TimeExceeded, &later), Err(NoError::LaterFragment));
    assert!(about(IcmpError::TooBig { mtu: 1280 }, &later).is_ok());
    let later = v6().echo_request(1, 2).payload(&[0; 16]).fragment(24, false).build();
    assert_eq!(about(IcmpError::TooBig { mtu: 1280 }, &later), Err(NoError::LaterFragment));
}

/// RFC 1812 section 4.3.2.7; RFC 4443 section 2.4 (e.3) to (e.5), with its two exceptions.
#[test]
fn no_error_is_about_a_group() {
    let group_mac = || Packet::ethernet("02:00:00:00:00:09", "ff:ff:ff:ff:ff:ff");
    let unknown_option = IcmpError::ParameterProblem { code: 2, pointer: 42 };
    for frame in [
        ethernet().ipv4("10.1.0.9", "224.1.1.1").udp(1, 2).build(),
        ethernet().ipv4("10.1.0.9", "255.255.255.255").udp(1, 2).build(),
        group_mac().ipv4("10.1.0.9", "10.2.0.9").udp(1, 2).build(),
    ] {
        for kind in KINDS.into_iter().chain([unknown_option]) {
            assert_eq!(about(kind, &frame), Err(NoError::Group));
        }
    }
    for frame in [
        ethernet().ipv6("2001:db8:1::9", "ff0e::1").udp(1, 2).build(),
        group_mac().ipv6("2001:db8:1::9", "2001:db8:2::9").udp(1, 2).build(),
    ] {
        assert_eq!(about(IcmpError::TimeExceeded, &frame), Err(NoError::Group));
        assert_eq!(about(IcmpError::ProtocolUnreachable, &frame), Err(NoError::Group));
        assert!(about(IcmpError::TooBig { mtu: 1280 }, &frame).is_ok());
        assert!(about(unknown_option, &frame).is_ok());
    }
}

/// RFC 1812 section 4.3.2.7; RFC 4443 section 2.4 (e.6).
#[test]
fn no_error_goes_to_what_is_not_one_host() {
    for source in ["0.0.0.0", "127.0.0.1", "224.0.0.5", "255.255.255.255", "240.0.0.1"] {
        let frame = ethernet().ipv4(source, "10.2.0.9").udp(1, 2).build();
        assert_eq!(about(IcmpError::TimeExceeded, &frame), Err(NoError::Source), "{source}");
    }
    for source in ["::", "::1", "ff02::1"] {
        let frame = ethernet().ipv6(source, "2001:db8:2::9").udp(1, 2).build();
        assert_eq!(about(IcmpError::TooBig { mtu: 1280 }, &frame), Err(NoError::Source), "{source}");
    }
}

#[test]
fn what_is_not_ip_gets_no_error() {
    let frame = ethernet().ether_type(0x88cc).payload(&[0; 50]).build();
    let meta = parse(&frame).unwrap();
    let source = "10.1.0.1".parse().unwrap();
    assert_eq!(error(IcmpError::TimeExceeded, &frame, &meta, source, &mut Vec::new()), Err(NoError::NotIp));
    // An address of the other family to send from.
    let frame = v6().udp(1, 2).build();
    let meta = parse(&frame).unwrap();
    assert_eq!(error(IcmpError::TimeExceeded, &frame, &meta, source, &mut Vec::new()), Err(NoError::NotIp));
}

fn echoed(frame: &[u8]) -> Option<(Vec<u8>, Meta)> {
    let (meta, mut out) = (parse(frame).unwrap(), vec![9]);
    let source = addresses(frame, &meta).unwrap().1;
    echo_reply(frame, &meta, source, &mut out).then(|| check(&out))
}

/// RFC 792, RFC 1122 section 3.2.2.6; RFC 4443 section 4.2.
#[test]
fn an_echo_reply_has_the_requests_identifier_sequence_and_data() {
    for request in [v4(), v6()] {
        let request = request.traffic_class(0x28).echo_request(0x1234, 7).payload(b"some odd data").build();
        let asked = parse(&request).unwrap();
        let (reply, meta) = echoed(&request).unwrap();
        let (from, to) = addresses(&request, &asked).unwrap();
        assert_eq!(addresses(&reply, &meta), Some((to, from)));
        assert_eq!(meta.icmp_type, if meta.l3 == L3::V6 { 129 } else { 0 });
        assert_eq!((meta.source_port, meta.traffic_class, meta.ttl), (0x1234, 0x28, 64));
        assert_eq!(reply[usize::from(meta.l4_offset) + 4..], request[usize::from(asked.l4_offset) + 4..]);
    }
}

#[test]
fn only_a_sound_echo_request_of_a_host_is_answered() {
    let mut wrong = v4().echo_request(1, 2).payload(b"data").build();
    *wrong.last_mut().unwrap() ^= 1;
    assert!(echoed(&wrong).is_none());
    assert!(echoed(&v4().echo_reply(1, 2).build()).is_none());
    assert!(echoed(&v6().echo_reply(1, 2).build()).is_none());
    assert!(echoed(&v4().udp(1, 2).build()).is_none());
    assert!(echoed(&ethernet().ipv4("224.0.0.9", "10.2.0.9").echo_request(1, 2).build()).is_none());
    assert!(echoed(&v4().echo_request(1, 2).payload(&[0; 16]).fragment(0, true).build()).is_none());
}

fn reset(frame: &[u8]) -> Option<(tcp::Header, Option<(IpAddr, IpAddr)>)> {
    let (meta, mut out) = (parse(frame).unwrap(), vec![9]);
    let answered = tcp_reset(frame, &meta, &mut out);
    assert_eq!(answered, !out.is_empty());
    answered.then(|| {
        let (answer, meta) = check(&out);
        (tcp::Header::read(&answer[usize::from(meta.l4_offset)..]).unwrap(), addresses(&answer, &meta))
    })
}

/// RFC 9293 section 3.10.7.1: with ACK off, sequence 0 and what was received is acknowledged.
#[test]
fn a_syn_is_reset_with_its_acknowledgment() {
    for packet in [v4(), v6()] {
        let frame = packet.tcp(1000, 443).flags(tcp_flags::SYN).sequence(u32::MAX, 77).build();
        let (header, addresses) = reset(&frame).unwrap();
        assert_eq!((header.source_port, header.destination_port), (443, 1000));
        assert_eq!((header.sequence, header.acknowledgment), (0, 0));
        assert_eq!((header.flags, header.window), (tcp_flags::RST | tcp_flags::ACK, 0));
        let (meta, swap) = (parse(&frame).unwrap(), addresses.map(|(from, to)| (to, from)));
        assert_eq!(swap, super::addresses(&frame, &meta));
    }
    let frame = v4().tcp(1, 2).flags(tcp_flags::FIN).sequence(100, 0).payload(&[0; 10]).build();
    assert_eq!(reset(&frame).unwrap().0.acknowledgment, 111);
}

/// RFC 9293 section 3.10.7.1: with ACK on, the sequence is the one acknowledged.
#[test]
fn a_segment_with_ack_is_reset_in_sequence() {
    let frame = v4().tcp(1000, 443).flags(tcp_flags::ACK).sequence(5, 77).payload(b"x").build();
    let (header, _) = reset(&frame).unwrap();
    assert_eq!((header.sequence, header.acknowledgment, header.flags), (77, 0, tcp_flags::RST));
}

#[test]
fn a_reset_is_not_answered() {
    assert!(reset(&v4().tcp(1, 2).flags(tcp_flags::RST).build()).is_none());
    assert!(reset(&v4().tcp(1, 2).flags(tcp_flags::RST | tcp_flags::ACK).build()).is_none());
    assert!(reset(&v4().udp(1, 2).build()).is_none());
    assert!(reset(&ethernet().ipv4("10.1.0.9", "224.0.0.9").tcp(1, 2).build()).is_none());
    assert!(reset(&v4().tcp(1, 2).payload(&[0; 20]).fragment(0, true).build()).is_none());
    let mut wrong = v4().tcp(1, 2).payload(b"x").build();
    *wrong.last_mut().unwrap() ^= 1;
    assert!(reset(&wrong).is_none());
}

proptest! {
    /// Whatever is in the packet: the error parses, its checksums are right, it is not too long, and it quotes the packet.
    #[test]
    fn an_error_is_always_sound(
        v6_packet: bool, udp: bool, kind in 0usize..8, len in 0usize..3000, seed: u8, options in 0usize..=40,
    ) {
        let payload: Vec<u8> = (0..len).map(|n| (n as u8).wrapping_mul(seed)).collect();
        let packet = if v6_packet { v6() } else { v4().options(&vec![1; options]) };
        let packet = if udp { packet.udp(1, 2) } else { packet.tcp(1, 2) };
        let frame = packet.payload(&payload).build();
        let answer = about(KINDS[kind], &frame).unwrap();
        let most = if v6_packet { MAX_V6 } else { MAX_V4 };
        prop_assert!(answer.len() <= most);
        let quote = parts(&answer).3;
        prop_assert_eq!(&quote[..], &frame[14..14 + quote.len()]);
        let whole = quote.len() == frame.len() - 14;
        prop_assert!(whole || answer.len() == most);
        // And no error is ever about it.
        let (frame, meta) = check(&answer);
        prop_assert_eq!(may_answer(IcmpError::TimeExceeded, &frame, &meta), Err(NoError::AboutError));
    }

    /// Bytes that merely parse never make anything panic.
    #[test]
    fn bytes_from_the_wire_never_panic(bytes in prop::collection::vec(any::<u8>(), 40..200), v6_packet: bool) {
        let ether_type = if v6_packet { [0x86, 0xdd] } else { [8, 0] };
        let mut frame = [&[2; 12][..], &ether_type, &bytes].concat();
        frame[14] = if v6_packet { 0x60 } else { 0x45 };
        let len = (bytes.len() - if v6_packet { 40 } else { 0 }) as u16;
        let at = if v6_packet { 18 } else { 16 };
        frame[at..at + 2].copy_from_slice(&len.to_be_bytes());
        if !v6_packet {
            frame[24..26].fill(0);
            let sum = checksum::checksum(&frame[14..34]);
            frame[24..26].copy_from_slice(&sum.to_be_bytes());
        }
        if let Ok(meta) = parse(&frame) {
            let mut out = Vec::new();
            for kind in KINDS {
                if error(kind, &frame, &meta, own(&meta), &mut out).is_ok() {
                    check(&out);
                }
            }
            echo_reply(&frame, &meta, own(&meta), &mut out);
            tcp_reset(&frame, &meta, &mut out);
        }
    }
}
