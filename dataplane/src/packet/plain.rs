//! The plain packet: untagged, whole, IPv4 without options or IPv6 without extensions, TCP or UDP. Nearly every packet is one.
//!
//! Recognised in a few dozen instructions, by wide reads at constant places, and with every check that
//! [`parse`](super::parse) makes of such a packet (RFC 1812 section 5.2.2, RFC 8200, RFC 768, RFC 9293); besides, that it may
//! be forwarded as far as TTL and addresses say (RFC 1812 sections 5.2.3, 5.3.1 and 5.3.7, RFC 4291 section 2.5). What is not
//! plain is not wrong: the parser knows.

use weir_config::MacAddress;

use super::{protocol, tcp_flags};

pub use closer::{Look, OddV4, look_v4};

mod closer;
#[cfg(test)]
pub(super) use closer::tests::parser_says;

/// TCP flags that tell of a connection's beginning or end.
const TURNING: u8 = tcp_flags::SYN | tcp_flags::FIN | tcp_flags::RST;

/// An Ethernet destination, as the first eight bytes of a frame are compared with it: in the highest six.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Station(u64);

impl Station {
    /// For frames to `mac`.
    pub fn new(mac: MacAddress) -> Self {
        let [a, b, c, d, e, f] = mac.0;
        Self(u64::from_le_bytes([0, 0, a, b, c, d, e, f]))
    }

    /// Whether a frame that begins with these bytes, read as a little-endian number, is for this station.
    #[inline(always)]
    pub fn is(self, first: u64) -> bool {
        first << 16 == self.0
    }
}

/// A plain IPv4 packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlainV4 {
    /// Source and destination as they stand in the header, read as one little-endian number.
    pub addresses: u64,
    /// Source and destination port, likewise.
    pub ports: u32,
    /// Length of the IP packet in bytes.
    pub total: u16,
    /// Type of service: DSCP (6 bits), ECN (2 bits).
    pub class: u8,
    /// TCP or UDP.
    pub protocol: u8,
    /// TCP with SYN, FIN or RST.
    pub turning: bool,
}

impl PlainV4 {
    /// The destination address in host order.
    #[inline(always)]
    pub fn destination(&self) -> u32 {
        destination_v4(self.addresses)
    }

    /// The UDP or TCP destination port in host order.
    #[inline(always)]
    pub fn destination_port(&self) -> u16 {
        ((self.ports >> 16) as u16).swap_bytes()
    }
}

/// The destination address in host order, of both addresses read as one little-endian number.
#[inline(always)]
pub fn destination_v4(addresses: u64) -> u32 {
    ((addresses >> 32) as u32).swap_bytes()
}

/// A plain IPv6 packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlainV6 {
    /// The destination address.
    pub destination: u128,
    /// Length of the IP packet in bytes, the header included.
    pub total: u16,
    /// UDP destination port, 0 for TCP.
    pub udp_port: u16,
}

/// First bytes of IPv4 addresses that are looked at closer: this network, loopback, link-local, multicast and beyond.
const ODD_V4: [bool; 256] = {
    let mut table = [false; 256];
    let mut first = 0;
    while first < 256 {
        table[first] = matches!(first, 0 | 127 | 169 | 224..);
        first += 1;
    }
    table
};

/// Whether an IPv4 address with this first byte is looked at closer.
#[inline(always)]
pub(crate) fn is_odd_v4(first: u8) -> bool {
    ODD_V4[usize::from(first)]
}

// Through a slice: of an array of single bytes the compiler makes single reads, and puts them together again.
#[inline(always)]
fn le64<const N: usize>(header: &[u8; N], at: usize) -> u64 {
    header.get(at..).and_then(|rest| rest.first_chunk()).map_or(0, |bytes| u64::from_le_bytes(*bytes))
}

#[inline(always)]
fn le32<const N: usize>(header: &[u8; N], at: usize) -> u32 {
    header.get(at..).and_then(|rest| rest.first_chunk()).map_or(0, |bytes| u32::from_le_bytes(*bytes))
}

/// Whether a sum is a multiple of 0xffff: times the inverse of that, modulo 2^64, it is the quotient then, and larger otherwise.
#[inline(always)]
const fn is_multiple(sum: u64) -> bool {
    const INVERSE: u64 = 0xfffe_fffe_fffe_ffff;
    sum.wrapping_mul(INVERSE) <= u64::MAX / 0xffff
}

const _: () = assert!(
    is_multiple(0)
        && is_multiple(0xffff)
        && is_multiple(5 * 0xffff)
        && !is_multiple(0xfffe)
        && !is_multiple(1)
);
const _: () = assert!(is_multiple(0xffff * 0x4_0003) && !is_multiple(0xffff * 0x4_0003 + 1));

/// Whether a frame is a plain IPv4 packet to `station`.
#[inline(always)]
pub fn plain_v4(frame: &[u8], station: Station) -> Option<PlainV4> {
    v4::<true>(frame, station)
}

/// Whether a frame carries a plain IPv4 packet from one station to one other, whatever its TTL and addresses.
#[inline(always)]
pub fn bridged_v4(frame: &[u8]) -> Option<PlainV4> {
    v4::<false>(frame, Station::default())
}

/// The first 12 bytes of a frame, both its MAC addresses: eight and four.
#[inline(always)]
pub fn stations(frame: &[u8]) -> (u64, u32) {
    let header = frame.first_chunk::<12>().copied().unwrap_or_default();
    (le64(&header, 0), le32(&header, 8))
}

#[inline(always)]
fn v4<const ROUTED: bool>(frame: &[u8], station: Station) -> Option<PlainV4> {
    // Ethernet, IPv4, UDP: the least there is.
    let header = frame.first_chunk::<42>()?;
    // EtherType 0x0800, version 4, header length 5; shifted, not masked, so that it is one read.
    let kind = le32(header, 12);
    let first = le64(header, 0);
    // The lowest bit of an address's first byte says that it is a group's.
    let wanted = if ROUTED { station.is(first) } else { first & 0x0001_0000_0000_0001 == 0 };
    if !(wanted & (kind << 8 == 0x4500_0800)) {
        return None;
    }
    let total = u16::from_be_bytes([header[16], header[17]]);
    // More fragments, and the offset: with what is in front of them, so that it is one test.
    let fragment = le32(header, 18) & 0xff3f_0000;
    let (ttl, protocol) = (header[22], header[23]);
    let addresses = le64(header, 26);
    let odd = ROUTED & ((ttl <= 1) | is_odd_v4(addresses as u8) | is_odd_v4((addresses >> 32) as u8));
    let fits = usize::from(total) + 14 <= frame.len();
    if !(sums_up(header) & (fragment == 0) & fits & !odd) {
        return None;
    }
    let (class, ports) = ((kind >> 24) as u8, le32(header, 34));
    let turning = if protocol == protocol::UDP {
        let len = u32::from(u16::from_be_bytes([header[38], header[39]]));
        if len < 8 || len + 20 > u32::from(total) {
            return None;
        }
        false
    } else {
        tcp(frame.get(34..)?, 20, total, protocol)?
    };
    Some(PlainV4 { addresses, ports, total, class, protocol, turning })
}

/// Whether the IPv4 header behind an Ethernet header, if it has no options, has the right checksum.
#[inline(always)]
fn sums_up<const N: usize>(header: &[u8; N]) -> bool {
    // The sum is a multiple of 0xffff, whatever the order of bytes (RFC 1071 section 2 (B)), and never zero here. So is that of words
    // of 64 bits: what is carried out of them comes in again at the other end.
    let (sum, carry) = le64(header, 14).overflowing_add(le64(header, 22));
    let (sum, again) = sum.overflowing_add(u64::from(le32(header, 30)) + u64::from(carry));
    is_multiple(sum.wrapping_add(u64::from(again)))
}

/// Whether a frame is a plain IPv6 packet to `station`.
#[inline(always)]
pub fn plain_v6(frame: &[u8], station: Station) -> Option<PlainV6> {
    let header = frame.first_chunk::<62>()?;
    // EtherType 0x86dd, version 6.
    if !station.is(le64(header, 0)) || le32(header, 12) & 0x00f0_ffff != 0x0060_dd86 {
        return None;
    }
    // Payload length, next header, hop limit.
    let second = le32(header, 18);
    let payload = usize::from((second as u16).swap_bytes());
    let (protocol, hop_limit) = ((second >> 16) as u8, (second >> 24) as u8);
    let odd = |first: u8| matches!(first, 0 | 0xfe | 0xff);
    let total = u16::try_from(payload + 40).ok()?;
    if (hop_limit <= 1) | (payload + 54 > frame.len()) | odd(header[22]) | odd(header[38]) {
        return None;
    }
    let udp_port = if protocol == protocol::UDP {
        let len = usize::from(u16::from_be_bytes([header[58], header[59]]));
        if len < 8 || len > payload {
            return None;
        }
        u16::from_be_bytes([header[56], header[57]])
    } else {
        tcp(frame.get(54..)?, 40, total, protocol)?;
        0
    };
    let (high, low) = (le64(header, 38).swap_bytes(), le64(header, 46).swap_bytes());
    Some(PlainV6 { destination: u128::from(high) << 64 | u128::from(low), total, udp_port })
}

/// Whether it is TCP with a whole header, behind `before` bytes of a packet of `total`; then, whether it is a turning point of
/// its connection.
#[inline(always)]
fn tcp(rest: &[u8], before: u32, total: u16, protocol: u8) -> Option<bool> {
    if protocol != protocol::TCP {
        return None;
    }
    let header = rest.first_chunk::<20>()?;
    let len = u32::from(header[12] >> 4) * 4;
    if len < 20 || len + before > u32::from(total) {
        return None;
    }
    Some(header[13] & TURNING != 0)
}

#[cfg(test)]
mod tests;
