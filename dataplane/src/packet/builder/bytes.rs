//! The bytes of a described packet: headers in their order, lengths and checksums.

use super::{Network, Packet, Transport};
use crate::packet::view::{arp, ethernet, icmp, ipv4, ipv6, tcp, udp};
use crate::packet::{checksum, crc32c, protocol};

impl Packet {
    /// The frame, from its Ethernet header on.
    pub fn build(&self) -> Vec<u8> {
        let mut frame = self.link();
        match &self.network {
            Network::None => frame.extend_from_slice(&self.payload),
            Network::Arp(packet) => append(&mut frame, arp::LEN, |bytes| packet.write(bytes)),
            Network::V4(header) => self.build_ipv4(&mut frame, *header),
            Network::V6(header) => self.build_ipv6(&mut frame, *header),
        }
        frame.resize(frame.len().max(self.padding), 0);
        frame
    }

    /// The packet without its Ethernet header and tags, as an ICMP error quotes it.
    pub fn build_network(&self) -> Vec<u8> {
        self.build().split_off(ethernet::LEN + ethernet::VLAN_LEN * self.tags.len())
    }

    fn link(&self) -> Vec<u8> {
        let mut frame = Vec::with_capacity(128 + self.payload.len());
        append(&mut frame, ethernet::LEN, |bytes| self.ethernet.write(bytes));
        frame.truncate(12);
        for (ether_type, tci) in &self.tags {
            frame.extend_from_slice(&ether_type.to_be_bytes());
            frame.extend_from_slice(&tci.to_be_bytes());
        }
        frame.extend_from_slice(&self.ethernet.ether_type.to_be_bytes());
        frame
    }

    fn build_ipv4(&self, frame: &mut Vec<u8>, mut header: ipv4::Header) {
        let pseudo =
            |number, len: usize| checksum::pseudo_v4(header.source, header.destination, number, len as u16);
        let body = self.body(&pseudo);
        if let Some((offset, more)) = self.fragment {
            (header.fragment_offset, header.more_fragments) = (offset, more);
        }
        header.total_len = (ipv4::LEN + self.options.len() + body.len()) as u16;
        let start = frame.len();
        append(frame, ipv4::LEN, |bytes| header.write(bytes));
        frame.extend_from_slice(&self.options);
        if let Some(whole) = frame.get_mut(start..) {
            if let Some(first) = whole.first_mut() {
                *first = 0x45 + (self.options.len() / 4) as u8;
            }
            write_checksum(whole, 10, checksum::Sum::new(), 0);
        }
        frame.extend_from_slice(&body);
    }

    fn build_ipv6(&self, frame: &mut Vec<u8>, mut header: ipv6::Header) {
        let pseudo =
            |number, len: usize| checksum::pseudo_v6(header.source, header.destination, number, len as u32);
        let body = self.body(&pseudo);
        let mut chain = self.extensions.clone();
        if let Some((offset, more)) = self.fragment {
            let [high, low] = (offset & 0xfff8 | u16::from(more)).to_be_bytes();
            chain.push((44, vec![high, low, 0, 0, 0, 1]));
        }
        let last = header.next_header;
        let mut kinds = chain.iter().map(|(kind, _)| *kind).chain([last]);
        header.next_header = kinds.next().unwrap_or(last);
        let mut extensions = Vec::new();
        for ((kind, data), next) in chain.iter().zip(kinds) {
            let len = match kind {
                44 => 0,
                51 => (data.len() + 2) / 4 - 2,
                _ => (data.len() + 2) / 8 - 1,
            };
            extensions.extend_from_slice(&[next, len as u8]);
            extensions.extend_from_slice(data);
        }
        header.payload_len = (extensions.len() + body.len()) as u16;
        append(frame, ipv6::LEN, |bytes| header.write(bytes));
        frame.extend_from_slice(&extensions);
        frame.extend_from_slice(&body);
    }

    /// Transport header and payload.
    fn body(&self, pseudo: &dyn Fn(u8, usize) -> checksum::Sum) -> Vec<u8> {
        if self.fragment.is_some_and(|(offset, _)| offset > 0) {
            return self.payload.clone();
        }
        let mut body = Vec::new();
        match &self.transport {
            Transport::None => {}
            Transport::Udp { source, destination, .. } => {
                let len = (udp::LEN + self.payload.len()) as u16;
                let header =
                    udp::Header { source_port: *source, destination_port: *destination, len, checksum: 0 };
                append(&mut body, udp::LEN, |bytes| header.write(bytes));
            }
            Transport::Tcp(header) => {
                append(&mut body, tcp::LEN, |bytes| header.write(bytes));
                body.extend_from_slice(&self.tcp_options);
            }
            Transport::Sctp { source, destination, tag } => {
                body.extend_from_slice(&source.to_be_bytes());
                body.extend_from_slice(&destination.to_be_bytes());
                body.extend_from_slice(&tag.to_be_bytes());
                body.extend_from_slice(&[0; 4]);
            }
            Transport::Icmp(header) => append(&mut body, icmp::LEN, |bytes| header.write(bytes)),
        }
        body.extend_from_slice(&self.payload);
        let len = body.len();
        match &self.transport {
            Transport::Udp { checksum: true, .. } => {
                write_checksum(&mut body, 6, pseudo(protocol::UDP, len), 0xffff);
            }
            Transport::Tcp(_) => write_checksum(&mut body, 16, pseudo(protocol::TCP, len), 0),
            Transport::Icmp(_) if matches!(self.network, Network::V6(_)) => {
                write_checksum(&mut body, 2, pseudo(protocol::ICMPV6, len), 0);
            }
            Transport::Icmp(_) => write_checksum(&mut body, 2, checksum::Sum::new(), 0),
            Transport::Sctp { .. } => {
                let crc = crc32c::crc32c(&body).to_le_bytes();
                if let Some(place) = body.get_mut(8..12) {
                    place.copy_from_slice(&crc);
                }
            }
            Transport::None | Transport::Udp { checksum: false, .. } => {}
        }
        body
    }
}

/// Appends `len` bytes that `write` fills.
fn append(bytes: &mut Vec<u8>, len: usize, write: impl FnOnce(&mut [u8]) -> Option<()>) {
    let start = bytes.len();
    bytes.resize(start + len, 0);
    let written = bytes.get_mut(start..).and_then(write);
    debug_assert!(written.is_some(), "a header longer than its length");
}

/// Computes the checksum of `bytes` and `pseudo` into the field at `at`; `zero` is what a result of 0 is sent as.
fn write_checksum(bytes: &mut [u8], at: usize, pseudo: checksum::Sum, zero: u16) {
    if let Some(place) = bytes.get_mut(at..at + 2) {
        place.fill(0);
    }
    let sum = pseudo.bytes(bytes).checksum();
    let sum = if sum == 0 { zero } else { sum };
    if let Some(place) = bytes.get_mut(at..at + 2) {
        place.copy_from_slice(&sum.to_be_bytes());
    }
}
