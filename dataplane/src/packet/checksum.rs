//! The Internet checksum (RFC 1071), its incremental update (RFC 1624 equation 3), and the transport checksums with
//! their pseudo-headers (RFC 768, RFC 9293 section 3.1, RFC 8200 section 8.1).
//!
//! A *sum* is the folded ones' complement sum, not inverted; a *checksum* is its complement, as it stands in a header.
//! Both are in host order: write them with `to_be_bytes`.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::{L3, Meta, PacketFlags, protocol};

/// Ones' complement sum of two sums.
#[inline]
pub const fn add(a: u16, b: u16) -> u16 {
    let (sum, carry) = a.overflowing_add(b);
    sum + carry as u16
}

/// Folds a wide sum into 16 bits.
#[inline]
const fn fold(sum: u64) -> u16 {
    let sum = (sum & 0xffff_ffff) + (sum >> 32);
    let sum = (sum & 0xffff_ffff) + (sum >> 32);
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    sum as u16
}

/// Folded sum of bytes that begin at an even offset; an odd last byte counts as if a zero followed (RFC 1071 section 4.1).
///
/// The loop adds little-endian 32-bit words and swaps once at the end (RFC 1071 section 2 (B)).
#[inline]
pub fn sum(bytes: &[u8]) -> u16 {
    let blocks = bytes.chunks_exact(32);
    let words = blocks.remainder().chunks_exact(4);
    let mut last = [0u8; 4];
    for (to, from) in last.iter_mut().zip(words.remainder()) {
        *to = *from;
    }
    let mut sum = u64::from(u32::from_le_bytes(last));
    for block in blocks {
        for chunk in block.chunks_exact(4) {
            sum += word(chunk);
        }
    }
    for chunk in words {
        sum += word(chunk);
    }
    fold(sum).swap_bytes()
}

/// A 4-byte chunk as a little-endian word.
#[inline(always)]
fn word(chunk: &[u8]) -> u64 {
    chunk.first_chunk().map_or(0, |word| u64::from(u32::from_le_bytes(*word)))
}

/// Folded sum of a 20-byte IPv4 header; a right one sums to 0xffff.
#[inline]
pub fn sum_header(header: &[u8; 20]) -> u16 {
    let mut sum = 0u64;
    for chunk in header.chunks_exact(4) {
        sum += word(chunk);
    }
    // At most 5 * (2^32 - 1).
    let sum = (sum & 0xffff) + ((sum >> 16) & 0xffff) + (sum >> 32);
    let sum = (sum & 0xffff) + (sum >> 16);
    (((sum & 0xffff) + (sum >> 16)) as u16).swap_bytes()
}

/// Checksum of `bytes` that stand at an even offset. The checksum field in them must be zero; over bytes with a right
/// checksum the result is 0.
#[inline]
pub fn checksum(bytes: &[u8]) -> u16 {
    !sum(bytes)
}

/// A sum over several pieces, each of any length: the parity of the offset is kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sum {
    value: u16,
    odd: bool,
}

impl Sum {
    /// Nothing summed yet.
    pub const fn new() -> Self {
        Self { value: 0, odd: false }
    }

    /// Adds a piece.
    #[inline]
    #[must_use]
    pub fn bytes(self, piece: &[u8]) -> Self {
        let sum = sum(piece);
        // At an odd offset, high and low bytes change places (RFC 1071 section 2 (B)).
        let sum = if self.odd { sum.swap_bytes() } else { sum };
        Self { value: add(self.value, sum), odd: self.odd ^ (piece.len() & 1 == 1) }
    }

    /// Adds a 16-bit word; the offset must be even.
    #[inline]
    #[must_use]
    pub const fn word(self, word: u16) -> Self {
        Self { value: add(self.value, word), odd: self.odd }
    }

    /// The sum so far, folded and not inverted.
    pub const fn value(self) -> u16 {
        self.value
    }

    /// The checksum.
    pub const fn checksum(self) -> u16 {
        !self.value
    }
}

/// What a change of header fields does to a checksum: the sum of ~m + m' over all changed words.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Delta(u16);

impl Delta {
    /// Nothing changed.
    pub const NONE: Self = Self(0);

    /// Adds the change of a 16-bit word at an even offset.
    #[inline]
    #[must_use]
    pub const fn word(self, old: u16, new: u16) -> Self {
        Self(add(self.0, add(!old, new)))
    }

    /// Adds the change of `N` bytes at an even offset (`N` even).
    #[inline]
    #[must_use]
    pub fn bytes<const N: usize>(self, old: &[u8; N], new: &[u8; N]) -> Self {
        Self(add(self.0, add(!sum(old), sum(new))))
    }

    /// Adds the change of a piece at any offset; `odd` says that the offset is odd. Pieces of different length
    /// count as if the shorter were filled with zeros.
    #[must_use]
    pub fn piece(self, old: &[u8], new: &[u8], odd: bool) -> Self {
        let delta = add(!sum(old), sum(new));
        Self(add(self.0, if odd { delta.swap_bytes() } else { delta }))
    }

    /// Adds another change.
    #[inline]
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(add(self.0, other.0))
    }

    /// The checksum after the change: HC' = ~(~HC + ~m + m') (RFC 1624 section 3, equation 3).
    #[inline]
    pub const fn apply(self, checksum: u16) -> u16 {
        !add(!checksum, self.0)
    }
}

/// The checksum after a 16-bit word changed (RFC 1624 equation 3).
#[inline]
pub const fn update16(checksum: u16, old: u16, new: u16) -> u16 {
    Delta::NONE.word(old, new).apply(checksum)
}

/// The checksum after a 32-bit word at an even offset changed.
#[inline]
pub const fn update32(checksum: u16, old: u32, new: u32) -> u16 {
    Delta::NONE.word((old >> 16) as u16, (new >> 16) as u16).word(old as u16, new as u16).apply(checksum)
}

/// The checksum after a piece at any offset changed; `odd` says that the offset is odd.
pub fn update_bytes(checksum: u16, old: &[u8], new: &[u8], odd: bool) -> u16 {
    Delta::NONE.piece(old, new, odd).apply(checksum)
}

/// Sum of the IPv4 pseudo-header; `len` is the length of the transport header and payload in bytes.
#[inline]
pub fn pseudo_v4(source: Ipv4Addr, destination: Ipv4Addr, protocol: u8, len: u16) -> Sum {
    Sum::new().bytes(&source.octets()).bytes(&destination.octets()).word(u16::from(protocol)).word(len)
}

/// Sum of the IPv6 pseudo-header (RFC 8200 section 8.1); `len` is the upper-layer packet length in bytes.
#[inline]
pub fn pseudo_v6(source: Ipv6Addr, destination: Ipv6Addr, protocol: u8, len: u32) -> Sum {
    Sum::new()
        .bytes(&source.octets())
        .bytes(&destination.octets())
        .word((len >> 16) as u16)
        .word(len as u16)
        .word(u16::from(protocol))
}

/// What a computed UDP checksum is sent as: 0 means "none", so 0 goes out as 0xffff (RFC 768).
#[inline]
pub const fn udp(checksum: u16) -> u16 {
    if checksum == 0 { 0xffff } else { checksum }
}

/// Where the checksum stands in the transport header; `None` if the protocol has none that this module computes.
const fn field(protocol: u8) -> Option<usize> {
    match protocol {
        protocol::TCP => Some(16),
        protocol::UDP => Some(6),
        protocol::ICMP | protocol::ICMPV6 => Some(2),
        _ => None,
    }
}

/// Sum over the transport header and payload of a whole packet, pseudo-header included where the protocol has one,
/// and the offset of the checksum field in the frame.
#[inline(never)]
fn sum_transport(frame: &[u8], meta: &Meta) -> Option<(u16, usize)> {
    if !meta.flags.contains(PacketFlags::TRANSPORT) || meta.fragment != super::FragmentKind::Whole {
        return None;
    }
    let (l3, l4) = (usize::from(meta.l3_offset), usize::from(meta.l4_offset));
    let field = l4 + field(meta.protocol)?;
    let transport = frame.get(l4..meta.end())?;
    let transport = if meta.protocol == protocol::UDP {
        let [high, low] = *transport.get(4..)?.first_chunk()?;
        transport.get(..usize::from(u16::from_be_bytes([high, low])))?
    } else {
        transport
    };
    let pseudo = match (meta.l3, meta.protocol) {
        (_, protocol::ICMP) => Sum::new(),
        (L3::V4, _) => {
            let addresses = frame.get(l3 + 12..l3 + 20)?;
            Sum::new().bytes(addresses).word(meta.protocol.into()).word(transport.len() as u16)
        }
        (L3::V6, _) => {
            let addresses = frame.get(l3 + 8..l3 + 40)?;
            Sum::new().bytes(addresses).word(meta.protocol.into()).word(transport.len() as u16)
        }
        _ => return None,
    };
    Some((pseudo.bytes(transport).value(), field))
}

/// Whether the TCP, UDP, ICMP or ICMPv6 checksum of a whole packet is right. A UDP checksum of 0 ("none") counts as
/// right. `None` if there is none to check: another protocol, a fragment, or no transport header.
#[inline]
pub fn verify_transport(frame: &[u8], meta: &Meta) -> Option<bool> {
    let datagram = meta.protocol == protocol::UDP
        && meta.flags.contains(PacketFlags::TRANSPORT)
        && meta.fragment == super::FragmentKind::Whole;
    let field = usize::from(meta.l4_offset) + 6;
    if datagram && frame.get(field..field + 2) == Some(&[0, 0]) {
        return Some(true);
    }
    let (sum, _) = sum_transport(frame, meta)?;
    Some(sum == 0xffff)
}

/// Computes and writes the TCP, UDP, ICMP or ICMPv6 checksum of a whole packet. False, and nothing done, if there is
/// none to write: another protocol, a fragment, or no transport header.
pub fn fill_transport(frame: &mut [u8], meta: &Meta) -> bool {
    let Some((sum, field)) = sum_transport(frame, meta) else { return false };
    let Some(place) = frame.get_mut(field..).and_then(|rest| rest.first_chunk_mut::<2>()) else {
        return false;
    };
    let checksum = Delta::NONE.word(u16::from_be_bytes(*place), 0).apply(!sum);
    let checksum = if meta.protocol == protocol::UDP { udp(checksum) } else { checksum };
    *place = checksum.to_be_bytes();
    true
}

#[cfg(test)]
mod tests;
