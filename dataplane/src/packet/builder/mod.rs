//! Whole packets from a few words: for tests, benches, and what weir originates.
//!
//! ```
//! use weir_dataplane::packet::{builder::Packet, parse};
//!
//! let frame = Packet::ethernet("02:00:00:00:00:01", "02:00:00:00:00:02")
//!     .vlan(5)
//!     .ipv4("10.0.0.1", "10.0.0.2")
//!     .ttl(3)
//!     .udp(1, 2)
//!     .payload(b"hello")
//!     .build();
//! assert_eq!(parse(&frame).map(|meta| meta.destination_port), Ok(2));
//! ```
//!
//! Lengths and checksums are right unless the caller says otherwise. It allocates: no place for it on the path of a packet.

mod bytes;

use std::net::{Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use weir_config::MacAddress;

use super::view::{arp, ethernet, icmp, ipv4, ipv6, tcp, vxlan};
use super::{ether_type, protocol};

/// A value, or its text.
pub trait Text<T> {
    /// The value.
    ///
    /// # Panics
    /// If the text is none: that is a mistake in the program, not in its input.
    fn value(self) -> T;
}

impl<T: FromStr> Text<T> for &str {
    #[track_caller]
    #[expect(clippy::panic, reason = "a wrong literal in a test or bench; nothing from the wire comes here")]
    fn value(self) -> T {
        let Ok(value) = self.parse() else { panic!("`{self}` is no {}", std::any::type_name::<T>()) };
        value
    }
}

impl Text<Self> for MacAddress {
    fn value(self) -> Self {
        self
    }
}

impl Text<MacAddress> for [u8; 6] {
    fn value(self) -> MacAddress {
        MacAddress(self)
    }
}

impl Text<Self> for Ipv4Addr {
    fn value(self) -> Self {
        self
    }
}

impl Text<Self> for Ipv6Addr {
    fn value(self) -> Self {
        self
    }
}

#[derive(Clone, Copy, Debug)]
enum Network {
    None,
    V4(ipv4::Header),
    V6(ipv6::Header),
    Arp(arp::Packet),
}

#[derive(Clone, Copy, Debug)]
enum Transport {
    None,
    Udp { source: u16, destination: u16, checksum: bool },
    Tcp(tcp::Header),
    Sctp { source: u16, destination: u16, tag: u32 },
    Icmp(icmp::Header),
}

/// A packet being described. Methods may come in any order after the layer they are about.
#[derive(Clone, Debug)]
pub struct Packet {
    ethernet: ethernet::Header,
    tags: Vec<(u16, u16)>,
    network: Network,
    options: Vec<u8>,
    extensions: Vec<(u8, Vec<u8>)>,
    fragment: Option<(u16, bool)>,
    transport: Transport,
    tcp_options: Vec<u8>,
    payload: Vec<u8>,
    padding: usize,
}

impl Packet {
    /// An Ethernet frame from `source` to `destination`.
    pub fn ethernet(source: impl Text<MacAddress>, destination: impl Text<MacAddress>) -> Self {
        Self {
            ethernet: ethernet::Header {
                destination: destination.value(),
                source: source.value(),
                ether_type: 0,
            },
            tags: Vec::new(),
            network: Network::None,
            options: Vec::new(),
            extensions: Vec::new(),
            fragment: None,
            transport: Transport::None,
            tcp_options: Vec::new(),
            payload: Vec::new(),
            padding: 0,
        }
    }

    /// An 802.1Q tag; the first call makes the outermost.
    pub fn vlan(self, tci: u16) -> Self {
        self.tag(ether_type::VLAN, tci)
    }

    /// A tag with any EtherType.
    pub fn tag(mut self, ether_type: u16, tci: u16) -> Self {
        self.tags.push((ether_type, tci));
        self
    }

    /// The EtherType of what is neither IP nor ARP, or a wrong one.
    pub fn ether_type(mut self, ether_type: u16) -> Self {
        self.ethernet.ether_type = ether_type;
        self
    }

    /// An IPv4 packet: TTL 64, DF clear.
    pub fn ipv4(mut self, source: impl Text<Ipv4Addr>, destination: impl Text<Ipv4Addr>) -> Self {
        self.ethernet.ether_type = ether_type::IPV4;
        self.network = Network::V4(ipv4::Header {
            header_len: 20,
            traffic_class: 0,
            total_len: 0,
            identification: 0,
            dont_fragment: false,
            more_fragments: false,
            fragment_offset: 0,
            ttl: 64,
            protocol: 0xff,
            checksum: 0,
            source: source.value(),
            destination: destination.value(),
        });
        self
    }

    /// An IPv6 packet: hop limit 64.
    pub fn ipv6(mut self, source: impl Text<Ipv6Addr>, destination: impl Text<Ipv6Addr>) -> Self {
        self.ethernet.ether_type = ether_type::IPV6;
        self.network = Network::V6(ipv6::Header {
            traffic_class: 0,
            flow_label: 0,
            payload_len: 0,
            next_header: 0xff,
            hop_limit: 64,
            source: source.value(),
            destination: destination.value(),
        });
        self
    }

    /// An ARP packet.
    pub fn arp(mut self, packet: arp::Packet) -> Self {
        self.ethernet.ether_type = ether_type::ARP;
        self.network = Network::Arp(packet);
        self
    }

    /// TTL or hop limit.
    pub fn ttl(mut self, ttl: u8) -> Self {
        match &mut self.network {
            Network::V4(header) => header.ttl = ttl,
            Network::V6(header) => header.hop_limit = ttl,
            _ => {}
        }
        self
    }

    /// TOS or traffic class: DSCP and ECN.
    pub fn traffic_class(mut self, value: u8) -> Self {
        match &mut self.network {
            Network::V4(header) => header.traffic_class = value,
            Network::V6(header) => header.traffic_class = value,
            _ => {}
        }
        self
    }

    /// IP protocol, where no transport header sets it.
    pub fn protocol(mut self, value: u8) -> Self {
        match &mut self.network {
            Network::V4(header) => header.protocol = value,
            Network::V6(header) => header.next_header = value,
            _ => {}
        }
        self
    }

    /// IPv4: sets DF.
    pub fn dont_fragment(mut self) -> Self {
        if let Network::V4(header) = &mut self.network {
            header.dont_fragment = true;
        }
        self
    }

    /// IPv4: identification.
    pub fn identification(mut self, value: u16) -> Self {
        if let Network::V4(header) = &mut self.network {
            header.identification = value;
        }
        self
    }

    /// IPv4 options, filled with zeros to a multiple of 4 bytes; at most 40.
    pub fn options(mut self, options: &[u8]) -> Self {
        self.options = options.to_vec();
        self.options.resize(options.len().min(40).next_multiple_of(4), 0);
        self
    }

    /// Makes it a fragment: `offset` in bytes. Later fragments carry the payload without a transport header. Over IPv6 the
    /// fragment header stands behind the other extension headers.
    pub fn fragment(mut self, offset: u16, more: bool) -> Self {
        self.fragment = Some((offset, more));
        self
    }

    /// An IPv6 extension header of this kind; `body` follows its next header and length bytes and is filled with zeros to
    /// a multiple of 8 bytes.
    pub fn extension(mut self, kind: u8, body: &[u8]) -> Self {
        let mut body = body.to_vec();
        body.resize((body.len() + 2).next_multiple_of(8) - 2, 0);
        self.extensions.push((kind, body));
        self
    }

    /// A UDP header.
    pub fn udp(mut self, source: u16, destination: u16) -> Self {
        self.transport = Transport::Udp { source, destination, checksum: true };
        self.protocol(protocol::UDP)
    }

    /// UDP: sends checksum 0, "none".
    pub fn without_checksum(mut self) -> Self {
        if let Transport::Udp { checksum, .. } = &mut self.transport {
            *checksum = false;
        }
        self
    }

    /// A TCP header: ACK set, window 65535.
    pub fn tcp(mut self, source: u16, destination: u16) -> Self {
        self.transport = Transport::Tcp(tcp::Header {
            source_port: source,
            destination_port: destination,
            sequence: 0,
            acknowledgment: 0,
            header_len: 20,
            flags: super::tcp_flags::ACK,
            window: 65535,
            checksum: 0,
            urgent: 0,
        });
        self.protocol(protocol::TCP)
    }

    /// TCP flags, bits as in [`tcp_flags`](super::tcp_flags).
    pub fn flags(self, flags: u8) -> Self {
        self.with_tcp(|header| header.flags = flags)
    }

    /// TCP sequence and acknowledgment numbers.
    pub fn sequence(self, sequence: u32, acknowledgment: u32) -> Self {
        self.with_tcp(|header| (header.sequence, header.acknowledgment) = (sequence, acknowledgment))
    }

    /// TCP window.
    pub fn window(self, window: u16) -> Self {
        self.with_tcp(|header| header.window = window)
    }

    /// TCP options, filled with zeros to a multiple of 4 bytes; at most 40.
    pub fn tcp_options(mut self, options: &[u8]) -> Self {
        self.tcp_options = options.to_vec();
        self.tcp_options.resize(options.len().min(40).next_multiple_of(4), 0);
        let len = 20 + self.tcp_options.len() as u8;
        self.with_tcp(|header| header.header_len = len)
    }

    fn with_tcp(mut self, edit: impl FnOnce(&mut tcp::Header)) -> Self {
        if let Transport::Tcp(header) = &mut self.transport {
            edit(header);
        }
        self
    }

    /// An SCTP common header; the payload is its chunks.
    pub fn sctp(mut self, source: u16, destination: u16, tag: u32) -> Self {
        self.transport = Transport::Sctp { source, destination, tag };
        self.protocol(protocol::SCTP)
    }

    /// An ICMP message over IPv4, an ICMPv6 message over IPv6. `rest` is what follows the checksum in the first 8 bytes.
    pub fn icmp(mut self, kind: u8, code: u8, rest: [u8; 4]) -> Self {
        self.transport = Transport::Icmp(icmp::Header { kind, code, checksum: 0, rest });
        let number = if matches!(self.network, Network::V6(_)) { protocol::ICMPV6 } else { protocol::ICMP };
        self.protocol(number)
    }

    /// An echo request.
    pub fn echo_request(self, identifier: u16, sequence: u16) -> Self {
        let kind = if matches!(self.network, Network::V6(_)) { 128 } else { 8 };
        self.echo(kind, identifier, sequence)
    }

    /// An echo reply.
    pub fn echo_reply(self, identifier: u16, sequence: u16) -> Self {
        let kind = if matches!(self.network, Network::V6(_)) { 129 } else { 0 };
        self.echo(kind, identifier, sequence)
    }

    fn echo(self, kind: u8, identifier: u16, sequence: u16) -> Self {
        let ([a, b], [c, d]) = (identifier.to_be_bytes(), sequence.to_be_bytes());
        self.icmp(kind, 0, [a, b, c, d])
    }

    /// The payload of the innermost layer.
    pub fn payload(mut self, payload: &[u8]) -> Self {
        self.payload = payload.to_vec();
        self
    }

    /// Makes the payload a VXLAN header and an inner Ethernet frame (RFC 7348 section 5).
    pub fn vxlan(mut self, vni: u32, inner: &[u8]) -> Self {
        self.payload = vec![0; vxlan::LEN];
        let _ = vxlan::Header { vni_valid: true, vni }.write(&mut self.payload);
        self.payload.extend_from_slice(inner);
        self
    }

    /// Fills the frame with zeros to at least this many bytes (60: the Ethernet minimum without FCS).
    pub fn pad_to(mut self, len: usize) -> Self {
        self.padding = len;
        self
    }
}
