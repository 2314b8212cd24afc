//! Packets that weir makes itself: headers in front of pieces, lengths and checksums filled in.

use std::net::IpAddr;

use weir_config::MacAddress;

use crate::packet::checksum::{Sum, pseudo_v4, pseudo_v6};
use crate::packet::view::{ethernet, ipv4, ipv6};
use crate::packet::{ether_type, protocol};

/// TTL and hop limit of what weir sends (RFC 1700's recommended default).
pub(crate) const TTL: u8 = 64;

/// The IP header of a packet that weir makes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ip {
    pub(crate) source: IpAddr,
    pub(crate) destination: IpAddr,
    pub(crate) protocol: u8,
    pub(crate) ttl: u8,
    pub(crate) traffic_class: u8,
    /// IPv4 only.
    pub(crate) identification: u16,
    /// IPv4 only. With it the identification means nothing (RFC 6864 section 4.1).
    pub(crate) dont_fragment: bool,
}

impl Ip {
    /// A header as most packets have it.
    pub(crate) fn new(source: IpAddr, destination: IpAddr, protocol: u8) -> Self {
        Self {
            source,
            destination,
            protocol,
            ttl: TTL,
            traffic_class: 0,
            identification: 0,
            dont_fragment: true,
        }
    }

    /// Appends the packet to `out`: this header, then the pieces of transport header and payload, whose checksum field,
    /// at `checksum_at` bytes, must be zero. False, and `out` as it was, if the families differ or the packet would be
    /// longer than its length field can say.
    pub(crate) fn append(&self, out: &mut Vec<u8>, pieces: &[&[u8]], checksum_at: usize) -> bool {
        let start = out.len();
        let done = self.try_append(out, pieces, checksum_at).is_some();
        if !done {
            out.truncate(start);
        }
        done
    }

    fn try_append(&self, out: &mut Vec<u8>, pieces: &[&[u8]], checksum_at: usize) -> Option<()> {
        let start = out.len();
        let len: usize = pieces.iter().map(|piece| piece.len()).sum();
        let (header_len, pseudo) = match (self.source, self.destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                let header = ipv4::Header {
                    header_len: ipv4::LEN as u8,
                    traffic_class: self.traffic_class,
                    total_len: u16::try_from(len + ipv4::LEN).ok()?,
                    identification: self.identification,
                    dont_fragment: self.dont_fragment,
                    more_fragments: false,
                    fragment_offset: 0,
                    ttl: self.ttl,
                    protocol: self.protocol,
                    checksum: 0,
                    source,
                    destination,
                };
                header.write(extend(out, ipv4::LEN)?)?;
                let pseudo = match self.protocol {
                    protocol::ICMP => Sum::new(),
                    _ => pseudo_v4(source, destination, self.protocol, len as u16),
                };
                (ipv4::LEN, pseudo)
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                let header = ipv6::Header {
                    traffic_class: self.traffic_class,
                    flow_label: 0,
                    payload_len: u16::try_from(len).ok()?,
                    next_header: self.protocol,
                    hop_limit: self.ttl,
                    source,
                    destination,
                };
                header.write(extend(out, ipv6::LEN)?)?;
                (ipv6::LEN, pseudo_v6(source, destination, self.protocol, len as u32))
            }
            _ => return None,
        };
        let mut sum = pseudo;
        for piece in pieces {
            sum = sum.bytes(piece);
            out.extend_from_slice(piece);
        }
        let field = out.get_mut(start + header_len + checksum_at..)?.first_chunk_mut::<2>()?;
        *field = sum.checksum().to_be_bytes();
        Some(())
    }
}

/// Appends an Ethernet header.
pub(crate) fn append_ethernet(
    out: &mut Vec<u8>,
    destination: MacAddress,
    source: MacAddress,
    ip: IpAddr,
) -> Option<()> {
    let ether_type = if ip.is_ipv4() { ether_type::IPV4 } else { ether_type::IPV6 };
    ethernet::Header { destination, source, ether_type }.write(extend(out, ethernet::LEN)?)
}

/// `len` more bytes at the end of `out`.
pub(crate) fn extend(out: &mut Vec<u8>, len: usize) -> Option<&mut [u8]> {
    let start = out.len();
    out.resize(start + len, 0);
    out.get_mut(start..)
}
