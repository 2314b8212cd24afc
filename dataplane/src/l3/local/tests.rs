use std::sync::Arc;

use proptest::prelude::*;

use super::super::interface::tests::interface;
use super::*;
use crate::decision::AdjacencyTable;
use crate::packet::builder::Packet;
use crate::packet::view::ethernet;
use crate::packet::{parse, tcp_flags};

const SECOND: u64 = 1_000_000_000;

struct Weir {
    interface: Interface,
    other: Interface,
    neighbours: NeighbourTable,
    limiter: RateLimiter,
}

impl Weir {
    fn new(rate: u32) -> Self {
        Self {
            interface: interface(&["10.1.0.1/24", "2001:db8:1::1/64"]),
            other: interface(&["10.2.0.1/24", "2001:db8:2::1/64"]),
            neighbours: NeighbourTable::new(Arc::new(AdjacencyTable::new(8)), 8),
            limiter: RateLimiter::new(rate),
        }
    }

    /// What becomes of a frame, and the answer with an Ethernet header in front.
    fn take(&self, frame: &[u8]) -> (Handled, Vec<u8>) {
        let meta = parse(frame).unwrap();
        let destination = icmp::addresses(frame, &meta).unwrap().1;
        let owner = if self.other.owns(destination) { &self.other } else { &self.interface };
        let at = Reception {
            interface: &self.interface,
            owner,
            neighbours: &self.neighbours,
            limiter: &self.limiter,
            now: 10 * SECOND,
        };
        let mut out = vec![1];
        let handled = receive(frame, &meta, at, &mut out);
        assert_eq!(handled.reply == Reply::None, out.is_empty());
        if handled.reply == Reply::Packet {
            let ether_type = if out[0] >> 4 == 4 { [8, 0] } else { [0x86, 0xdd] };
            out.splice(..0, [0; 12].into_iter().chain(ether_type));
        }
        (handled, out)
    }

    /// Type and code of the ICMP answer, and the address it comes from.
    fn answer(&self, frame: &[u8]) -> Option<(u8, u8, String)> {
        let (handled, out) = self.take(frame);
        (handled.reply == Reply::Packet).then(|| {
            let meta = parse(&out).unwrap();
            assert_eq!(checksum::verify_transport(&out, &meta), Some(true));
            (meta.icmp_type, meta.icmp_code, icmp::addresses(&out, &meta).unwrap().0.to_string())
        })
    }
}

fn ethernet() -> Packet {
    Packet::ethernet("02:00:00:00:00:09", "02:00:00:00:00:01")
}

fn v4(destination: &str) -> Packet {
    ethernet().ipv4("10.1.0.9", destination)
}

fn v6(destination: &str) -> Packet {
    ethernet().ipv6("2001:db8:1::9", destination)
}

const NOTHING_LISTENS: Verdict = Verdict::Dropped(DropReason::LocalUnsupported);

/// RFC 1122 section 3.2.2.6, RFC 1812 section 4.3.3.6; RFC 4443 section 4.2.
#[test]
fn an_echo_request_is_answered_from_the_address_asked() {
    let weir = Weir::new(10);
    for own in ["10.1.0.1", "10.2.0.1"] {
        assert_eq!(weir.answer(&v4(own).echo_request(1, 2).build()), Some((0, 0, own.into())));
    }
    for own in ["2001:db8:1::1", "2001:db8:2::1", "fe80::ff:fe00:1"] {
        assert_eq!(weir.answer(&v6(own).echo_request(1, 2).build()), Some((129, 0, own.into())));
    }
    assert_eq!(weir.take(&v4("10.1.0.1").echo_request(1, 2).build()).0.verdict, Verdict::Consumed);
}

/// RFC 4443 section 4.2; RFC 4291 section 2.6: an anycast or group address is never a source.
#[test]
fn an_echo_to_an_ipv6_group_or_anycast_address_is_answered_from_a_unicast_address() {
    let weir = Weir::new(10);
    for asked in ["ff02::1", "ff02::2", "2001:db8:1::"] {
        let answer = weir.answer(&v6(asked).echo_request(1, 2).build());
        assert_eq!(answer, Some((129, 0, "2001:db8:1::1".into())), "{asked}");
    }
    let link_local = ethernet().ipv6("fe80::9", "ff02::1").echo_request(1, 2).build();
    assert_eq!(weir.answer(&link_local), Some((129, 0, "fe80::ff:fe00:1".into())));
}

/// RFC 1122 section 3.2.2.6.
#[test]
fn an_echo_to_an_ipv4_group_is_consumed_in_silence() {
    let weir = Weir::new(10);
    assert_eq!(weir.take(&v4("224.0.0.1").echo_request(1, 2).build()).0, Handled::CONSUMED);
}

/// RFC 1122 section 4.1.3.1; RFC 4443 section 3.1.
#[test]
fn udp_gets_port_unreachable() {
    let weir = Weir::new(10);
    let (handled, _) = weir.take(&v4("10.1.0.1").udp(1, 2).build());
    assert_eq!((handled.verdict, handled.reply), (NOTHING_LISTENS, Reply::Packet));
    assert_eq!(weir.answer(&v4("10.1.0.1").udp(1, 2).build()), Some((3, 3, "10.1.0.1".into())));
    let answer = weir.answer(&v6("2001:db8:1::1").udp(1, 2).build());
    assert_eq!(answer, Some((1, 4, "2001:db8:1::1".into())));
    // RFC 8200 section 8.1: over IPv6 the checksum may not be left out.
    let frame = v6("2001:db8:1::1").udp(1, 2).without_checksum().build();
    assert_eq!(weir.take(&frame).0, Handled::dropped(DropReason::LocalUnsupported));
}

#[test]
fn tcp_gets_a_reset() {
    let weir = Weir::new(10);
    let (handled, out) = weir.take(&v4("10.1.0.1").tcp(1, 22).flags(tcp_flags::SYN).build());
    assert_eq!((handled.verdict, handled.reply), (NOTHING_LISTENS, Reply::Packet));
    assert_eq!(parse(&out).unwrap().tcp_flags, tcp_flags::RST | tcp_flags::ACK);
}

/// RFC 1122 section 3.2.2.1; RFC 4443 section 3.4.
#[test]
fn another_protocol_is_refused() {
    let weir = Weir::new(10);
    let frame = v4("10.1.0.1").protocol(89).payload(&[0; 24]).build();
    assert_eq!(weir.answer(&frame), Some((3, 2, "10.1.0.1".into())));
    let frame = v6("2001:db8:1::1").protocol(89).payload(&[0; 24]).build();
    assert_eq!(weir.answer(&frame), Some((4, 1, "2001:db8:1::1".into())));
}

/// RFC 1812 section 4.3.2.8.
#[test]
fn answers_that_nobody_asked_for_are_limited() {
    let weir = Weir::new(3);
    let frame = v4("10.1.0.1").udp(1, 2).build();
    let answered = (0..10).filter(|_| weir.take(&frame).0.reply == Reply::Packet).count();
    assert_eq!((answered, weir.limiter.suppressed()), (3, 7));
}

#[test]
fn errors_and_replies_are_consumed() {
    let weir = Weir::new(10);
    for frame in [
        v4("10.1.0.1").icmp(3, 1, [0; 4]).payload(&[0; 28]).build(),
        v4("10.1.0.1").echo_reply(1, 2).build(),
        v6("2001:db8:1::1").icmp(1, 0, [0; 4]).payload(&[0; 48]).build(),
        v6("ff02::1").icmp(130, 0, [0; 4]).payload(&[0; 16]).build(),
    ] {
        assert_eq!(weir.take(&frame).0, Handled::CONSUMED);
    }
}

#[test]
fn an_icmp_message_with_a_wrong_checksum_is_dropped() {
    let mut frame = v4("10.1.0.1").echo_request(1, 2).payload(b"data").build();
    *frame.last_mut().unwrap() ^= 1;
    assert_eq!(Weir::new(10).take(&frame).0, Handled::dropped(DropReason::IcmpInvalid));
}

#[test]
fn a_source_that_cannot_be_answered_is_dropped() {
    let weir = Weir::new(10);
    for source in ["0.0.0.0", "127.0.0.1", "255.255.255.255", "10.1.0.1", "10.1.0.255"] {
        let frame = ethernet().ipv4(source, "10.1.0.1").echo_request(1, 2).build();
        assert_eq!(weir.take(&frame).0, Handled::dropped(DropReason::IpAddress), "{source}");
    }
    let frame = ethernet().ipv6("::", "2001:db8:1::1").udp(1, 2).build();
    assert_eq!(weir.take(&frame).0, Handled::dropped(DropReason::IpAddress));
}

#[test]
fn a_fragment_is_dropped() {
    let frame = v4("10.1.0.1").echo_request(1, 2).payload(&[0; 16]).fragment(0, true).build();
    assert_eq!(Weir::new(10).take(&frame).0, Handled::dropped(DropReason::LocalUnsupported));
}

#[test]
fn a_solicitation_is_answered_with_a_frame() {
    let weir = Weir::new(10);
    let mut out = Vec::new();
    let alice = Interface { mac: "02:00:00:00:00:09".parse().unwrap(), ..interface(&["2001:db8:1::9/64"]) };
    assert!(nd::solicitation(&alice, "2001:db8:1::1".parse().unwrap(), None, &mut out));
    let (handled, reply) = weir.take(&out);
    assert_eq!((handled.verdict, handled.reply), (Verdict::Consumed, Reply::Frame));
    assert_eq!(ethernet::Header::read(&reply).unwrap().destination, alice.mac);
    assert_eq!(weir.neighbours.len(), 1);
}

#[test]
fn a_group_is_received_only_where_weir_listens() {
    let interface = interface(&["10.1.0.1/24", "2001:db8:1::1/64"]);
    for ip in ["224.0.0.1", "224.0.0.2", "ff02::1", "ff02::2", "ff02::1:ff00:1", "fe80::ff:fe00:1"] {
        assert!(interface.receives(ip.parse().unwrap()), "{ip}");
    }
    for ip in ["224.0.0.5", "255.255.255.255", "10.1.0.1", "ff02::5", "ff0e::1", "fe80::9"] {
        assert!(!interface.receives(ip.parse().unwrap()), "{ip}");
    }
}

proptest! {
    /// Any bytes behind a sound IP header: no panic, and an answer, if there is one, is sound.
    #[test]
    fn any_payload_is_dealt_with(
        v6_packet: bool,
        protocol in prop_oneof![Just(1u8), Just(6), Just(17), Just(58), any::<u8>()],
        head in prop_oneof![Just(vec![135u8, 0]), Just(vec![136, 0]), Just(vec![8, 0]), Just(vec![128, 0]), Just(vec![])],
        rest in prop::collection::vec(any::<u8>(), 0..80),
        ttl in prop_oneof![Just(255u8), any::<u8>()],
        to_group: bool,
    ) {
        let packet = match (v6_packet, to_group) {
            (false, false) => v4("10.1.0.1"),
            (false, true) => v4("224.0.0.1"),
            (true, false) => v6("2001:db8:1::1"),
            (true, true) => v6("ff02::1"),
        };
        let payload = [head, rest].concat();
        let mut frame = packet.ttl(ttl).protocol(protocol).payload(&payload).build();
        let Ok(meta) = parse(&frame) else { return Ok(()) };
        checksum::fill_transport(&mut frame, &meta);
        let (handled, out) = Weir::new(10).take(&frame);
        if handled.reply != Reply::None {
            let meta = parse(&out).unwrap();
            prop_assert_eq!(checksum::verify_transport(&out, &meta), Some(true));
        }
    }

    /// The same for bytes in place of an ARP packet.
    #[test]
    fn any_arp_packet_is_dealt_with(bytes in prop::collection::vec(any::<u8>(), 20), sound: bool) {
        let weir = Weir::new(10);
        let head: [u8; 8] = if sound { [0, 1, 8, 0, 6, 4, 0, 1] } else { [0, 1, 8, 0, 6, 4, 1, 1] };
        let frame = ethernet().ether_type(0x0806).payload(&[&head[..], &bytes].concat()).build();
        let meta = parse(&frame).unwrap();
        let mut out = Vec::new();
        super::super::arp::handle(&frame, &meta, &weir.interface, &weir.neighbours, 0, &mut out);
    }
}
