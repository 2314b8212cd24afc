//! A closer look at IPv4 that is not plain: options, fragments, other protocols, and whatever is malformed.
//!
//! Every check that [`parse`](crate::packet::parse) makes of an untagged IPv4 packet, in its order, for the same reasons; but nothing
//! is filled that nobody reads of such a packet. A tenth of what an attacker sends is like that, or all of it.

use crate::packet::{FragmentKind, Malformed, ether_type, protocol};

use super::{PlainV4, Station, TURNING, is_multiple, is_odd_v4, le32, le64, sums_up};

/// What is edited in one piece, at the least, in bytes of the IP packet.
const SHORTEST: usize = 28;

/// A well-formed IPv4 packet to a station, with hops left, and addresses that are not looked at closer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OddV4 {
    /// As of a plain packet. The ports: those that the parser finds in a whole packet or a first fragment (of an ICMP echo its
    /// identifier, twice), else 0.
    pub plain: PlainV4,
    /// Which fragment it is.
    pub fragment: FragmentKind,
    /// The identification, as it stands in the header.
    pub id: u16,
}

/// What a closer look finds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look {
    /// To be passed, perhaps.
    Odd(OddV4),
    /// Well-formed, but to another station.
    Foreign,
    /// What the parser says.
    Malformed(Malformed),
    /// Not untagged IPv4, or one that needs more: to a group, at its last hop, from or to an address that is looked at closer.
    Other,
}

/// Looks at a frame, whether it is plain or not.
#[inline(always)]
pub fn look_v4(frame: &[u8], station: Station) -> Look {
    const ETHER_TYPE: [u8; 2] = ether_type::IPV4.to_be_bytes();
    let Some(header) = frame.first_chunk::<34>() else {
        let truncated = frame.get(12..14).is_none_or(|kind| kind == ETHER_TYPE);
        return if truncated { Look::Malformed(Malformed::Truncated) } else { Look::Other };
    };
    if header[12..14] != ETHER_TYPE {
        return Look::Other;
    }
    let len = match header_len(frame, header) {
        Ok(len) => len,
        Err(malformed) => return Look::Malformed(malformed),
    };
    let total = usize::from(u16::from_be_bytes([header[16], header[17]]));
    let Some(payload) = frame.get(14 + len..14 + total) else {
        let short = if total < len { Malformed::IpHeaderLength } else { Malformed::IpLength };
        return Look::Malformed(short);
    };
    let protocol = header[23];
    let field = u16::from_be_bytes([header[20], header[21]]);
    let Some(fragment) = fragment(field, len, payload.len(), protocol) else {
        return Look::Malformed(Malformed::Fragment);
    };
    let (ports, turning) = match fragment {
        FragmentKind::Later => (0, false),
        _ => match transport(payload, protocol, fragment) {
            Some(found) => found,
            None => return Look::Malformed(Malformed::Transport),
        },
    };
    let (first, addresses) = (le64(header, 0), le64(header, 26));
    let destination = (addresses >> 32) as u8;
    if (first & 1 != 0) | (destination >> 4 == 14) | (addresses >> 32 == 0xffff_ffff) {
        return Look::Other;
    }
    if !station.is(first) {
        return Look::Foreign;
    }
    if (header[22] <= 1) | is_odd_v4(addresses as u8) | is_odd_v4(destination) | (total < SHORTEST) {
        return Look::Other;
    }
    let plain = PlainV4 { addresses, ports, total: total as u16, class: header[15], protocol, turning };
    Look::Odd(OddV4 { plain, fragment, id: u16::from_be_bytes([header[18], header[19]]) })
}

/// The length of an IPv4 header in bytes, if version, length and checksum are right.
#[inline(always)]
fn header_len(frame: &[u8], header: &[u8; 34]) -> Result<usize, Malformed> {
    let first = header[14];
    if first == 0x45 {
        return if sums_up(header) { Ok(20) } else { Err(Malformed::IpChecksum) };
    }
    if first >> 4 != 4 {
        return Err(Malformed::IpVersion);
    }
    let len = usize::from(first & 0x0f) * 4;
    let Some(options) = frame.get(34..14 + len).filter(|options| !options.is_empty()) else {
        return Err(Malformed::IpHeaderLength);
    };
    // Fifteen words of 32 bits: nothing is carried out of the sum.
    let fixed = [14, 18, 22, 26, 30].map(|at| u64::from(le32(header, at)));
    let words = options.chunks_exact(4).filter_map(|word| word.first_chunk());
    let sum = words.fold(fixed.iter().sum(), |sum: u64, word| sum + u64::from(u32::from_le_bytes(*word)));
    if is_multiple(sum) { Ok(len) } else { Err(Malformed::IpChecksum) }
}

/// Which fragment a packet with this field is, behind `before` bytes of header. `None`: none that there may be.
#[inline(always)]
fn fragment(field: u16, before: usize, payload: usize, protocol: u8) -> Option<FragmentKind> {
    if field & 0x3fff == 0 {
        return Some(FragmentKind::Whole);
    }
    let (offset, more) = (usize::from(field & 0x1fff) * 8, field & 0x2000 != 0);
    let past_the_end = before + offset + payload > 65535;
    let ragged = more & (payload % 8 != 0);
    let over_tcp_flags = (offset == 8) & (protocol == protocol::TCP);
    let kind = if offset == 0 { FragmentKind::First } else { FragmentKind::Later };
    (!(past_the_end | ragged | over_tcp_flags)).then_some(kind)
}

/// The ports of a whole packet or a first fragment, as they stand in the header, and whether it is a turning point of a TCP
/// connection. `None`: its header is not whole, or says of a length what cannot be.
#[inline(always)]
fn transport(payload: &[u8], protocol: u8, fragment: FragmentKind) -> Option<(u32, bool)> {
    let ports = |header: &[u8; 8]| le32(header, 0);
    match protocol {
        protocol::UDP => {
            let header = payload.first_chunk::<8>()?;
            // The length is the whole datagram's, of which a first fragment carries a part.
            let len = usize::from(u16::from_be_bytes([header[4], header[5]]));
            let beyond = (len > payload.len()) & (fragment == FragmentKind::Whole);
            (!((len < 8) | beyond)).then(|| (ports(header), false))
        }
        protocol::TCP => {
            let header = payload.first_chunk::<20>()?;
            let len = usize::from(header[12] >> 4) * 4;
            let fits = (len >= 20) & (len <= payload.len());
            fits.then(|| (le32(header, 0), header[13] & TURNING != 0))
        }
        protocol::ICMP => {
            let header = payload.first_chunk::<8>()?;
            let id = u32::from(u16::from_le_bytes([header[4], header[5]]));
            let echo = matches!(header[0], 0 | 8);
            Some((if echo { id | id << 16 } else { 0 }, false))
        }
        protocol::SCTP => {
            let header = payload.first_chunk::<12>()?;
            Some((le32(header, 0), false))
        }
        _ => Some((0, false)),
    }
}

#[cfg(test)]
pub(in crate::packet) mod tests;
