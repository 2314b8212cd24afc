//! Whether a frame that weir made is sound, by a parser that is not weir's.

use etherparse::{NetHeaders, PacketHeaders, TransportHeader};
use weir_dataplane::packet::{checksum, parse};

/// An IPv4 address in words.
pub(crate) fn dotted(bytes: &[u8]) -> String {
    bytes.iter().map(u8::to_string).collect::<Vec<_>>().join(".")
}

/// Addresses and ports of an IPv4 packet in words. Its transport checksum is right.
pub(crate) fn ends(frame: &[u8]) -> String {
    let meta = parse(frame).unwrap();
    assert_ne!(checksum::verify_transport(frame, &meta), Some(false), "{frame:02x?}");
    let (source, destination) = (dotted(&frame[26..30]), dotted(&frame[30..34]));
    format!("{source}:{} > {destination}:{}", meta.source_port, meta.destination_port)
}

/// Parses a frame and verifies the IP header and transport checksums (a UDP checksum of 0 counts as none).
///
/// # Panics
/// If it is malformed, or a checksum is wrong.
pub(crate) fn assert_sound(frame: &[u8]) {
    let headers = PacketHeaders::from_ethernet_slice(frame).unwrap_or_else(|e| panic!("{e}: {frame:02x?}"));
    let payload = headers.payload.slice();
    match (&headers.net, &headers.transport) {
        (Some(NetHeaders::Ipv4(ip, _)), transport) => {
            assert_eq!(ip.header_checksum, ip.calc_header_checksum(), "IPv4 header of {frame:02x?}");
            let (source, destination) = (ip.source, ip.destination);
            match transport {
                Some(TransportHeader::Udp(udp)) if udp.checksum != 0 => {
                    let sum = udp.calc_checksum_ipv4_raw(source, destination, payload).unwrap();
                    assert_eq!(udp.checksum, sum, "UDP of {frame:02x?}");
                }
                Some(TransportHeader::Tcp(tcp)) => {
                    let sum = tcp.calc_checksum_ipv4_raw(source, destination, payload).unwrap();
                    assert_eq!(tcp.checksum, sum, "TCP of {frame:02x?}");
                }
                Some(TransportHeader::Icmpv4(icmp)) => {
                    assert_eq!(icmp.checksum, icmp.icmp_type.calc_checksum(payload), "ICMP of {frame:02x?}");
                }
                _ => {}
            }
        }
        (Some(NetHeaders::Ipv6(ip, _)), transport) => {
            let (source, destination) = (ip.source, ip.destination);
            match transport {
                Some(TransportHeader::Udp(udp)) if udp.checksum != 0 => {
                    let sum = udp.calc_checksum_ipv6_raw(source, destination, payload).unwrap();
                    assert_eq!(udp.checksum, sum, "UDP of {frame:02x?}");
                }
                Some(TransportHeader::Tcp(tcp)) => {
                    let sum = tcp.calc_checksum_ipv6_raw(source, destination, payload).unwrap();
                    assert_eq!(tcp.checksum, sum, "TCP of {frame:02x?}");
                }
                Some(TransportHeader::Icmpv6(icmp)) => {
                    let sum = icmp.icmp_type.calc_checksum(source, destination, payload).unwrap();
                    assert_eq!(icmp.checksum, sum, "ICMPv6 of {frame:02x?}");
                }
                _ => {}
            }
        }
        _ => {}
    }
}

/// An ICMP or ICMPv6 error.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Told {
    /// Type and code.
    pub(crate) kind: (u8, u8),
    /// The last two bytes before the quotation: the MTU of a "too big".
    pub(crate) mtu: u16,
    /// Who tells, and whom.
    pub(crate) source: std::net::IpAddr,
    pub(crate) destination: std::net::IpAddr,
    /// Of the packet it is about: its IP header and what follows.
    pub(crate) quote: Vec<u8>,
}

/// Reads an untagged frame as an ICMP error; it must be a sound one.
pub(crate) fn told(frame: &[u8]) -> Told {
    assert_sound(frame);
    let headers = PacketHeaders::from_ethernet_slice(frame).unwrap();
    let (at, source, destination) = match &headers.net {
        Some(NetHeaders::Ipv4(ip, _)) => (34, ip.source.into(), ip.destination.into()),
        Some(NetHeaders::Ipv6(ip, _)) => (54, ip.source.into(), ip.destination.into()),
        other => panic!("no IP: {other:?}"),
    };
    assert!(
        matches!(headers.transport, Some(TransportHeader::Icmpv4(_) | TransportHeader::Icmpv6(_))),
        "no ICMP: {frame:02x?}"
    );
    let message = &frame[at..];
    Told {
        kind: (message[0], message[1]),
        mtu: u16::from_be_bytes([message[6], message[7]]),
        source,
        destination,
        quote: message[8..].to_vec(),
    }
}
