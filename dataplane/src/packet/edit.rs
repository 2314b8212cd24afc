//! In-place edits with incremental checksums (RFC 1624 equation 3).
//!
//! Every function is total: it answers false, and has done nothing, where the bytes do not fit the [`Meta`] or the edit
//! does not fit the packet. A wrong checksum stays wrong, so the receiver still notices what was damaged before.
//! The `Meta` keeps what the parser found; it is not updated.

mod quoted;

use std::net::IpAddr;

use weir_config::MacAddress;

use super::checksum::{self, Delta};
use super::{FragmentKind, L3, Meta, PacketFlags, crc32c, protocol};

pub use quoted::set_quoted;

/// Sets the Ethernet addresses.
#[inline]
pub fn set_macs(frame: &mut [u8], destination: MacAddress, source: MacAddress) -> bool {
    let Some((to, rest)) = frame.split_first_chunk_mut::<6>() else { return false };
    let Some(from) = rest.first_chunk_mut::<6>() else { return false };
    *to = destination.0;
    *from = source.0;
    true
}

/// Decrements TTL or hop limit. False if the packet is not IP, or if it is 0 already. That 1 is not forwarded (RFC 1812
/// section 5.3.1, RFC 8200 section 3) is for the caller to see.
#[inline]
pub fn decrement_ttl(frame: &mut [u8], meta: &Meta) -> bool {
    let Some(packet) = frame.get_mut(usize::from(meta.l3_offset)..) else { return false };
    let Some(header) = packet.first_chunk_mut::<12>() else { return false };
    decrement_header_ttl(header, meta.l3)
}

/// [`decrement_ttl`] on the start of an IP header.
#[inline(always)]
pub fn decrement_header_ttl(header: &mut [u8; 12], l3: L3) -> bool {
    match l3 {
        L3::V4 => {
            let Some(ttl) = header[8].checked_sub(1) else { return false };
            let sum = u16::from_be_bytes([header[10], header[11]]);
            header[8] = ttl;
            // What changes is the difference, whatever the TTL was.
            [header[10], header[11]] = checksum::update16(sum, 0x100, 0).to_be_bytes();
            true
        }
        L3::V6 => {
            let Some(hop_limit) = header[7].checked_sub(1) else { return false };
            header[7] = hop_limit;
            true
        }
        L3::Other | L3::Arp => false,
    }
}

/// Lowers the maximum segment size that a SYN announces to what fits an IP packet of `mtu` bytes: less the fixed IP and TCP
/// headers (RFC 9293 section 3.7.1, RFC 6691 section 2). A smaller one stays; where there is none, none is added. False if
/// nothing was changed.
#[cold]
pub fn clamp_mss(frame: &mut [u8], meta: &Meta, mtu: u16) -> bool {
    clamp(frame, meta, mtu).is_some()
}

fn clamp(frame: &mut [u8], meta: &Meta, mtu: u16) -> Option<()> {
    let headers = match meta.l3 {
        L3::V4 => 40,
        L3::V6 => 60,
        L3::Other | L3::Arp => return None,
    };
    if meta.protocol != protocol::TCP || !meta.flags.contains(PacketFlags::TRANSPORT) {
        return None;
    }
    let most = mtu.saturating_sub(headers);
    let segment = frame.get_mut(usize::from(meta.l4_offset)..)?;
    let (header, rest) = segment.split_first_chunk_mut::<20>()?;
    let options = rest.get_mut(..(usize::from(header[12] >> 4) * 4).checked_sub(20)?)?;
    let at = mss_option(options)?;
    let value = options.get_mut(at..)?.first_chunk_mut::<2>()?;
    if u16::from_be_bytes(*value) <= most {
        return None;
    }
    let new = most.to_be_bytes();
    let delta = Delta::NONE.piece(value, &new, at % 2 != 0);
    *value = new;
    let sum = u16::from_be_bytes([header[16], header[17]]);
    [header[16], header[17]] = delta.apply(sum).to_be_bytes();
    Some(())
}

/// Where the value of the maximum segment size option (kind 2, length 4) stands in the options of a TCP header.
fn mss_option(options: &[u8]) -> Option<usize> {
    let mut at = 0;
    loop {
        match (*options.get(at)?, options.get(at + 1)) {
            (0, _) => return None,
            (1, _) => at += 1,
            (2, Some(4)) => return Some(at + 2),
            (_, Some(len)) if *len >= 2 => at += usize::from(*len),
            _ => return None,
        }
    }
}

/// Which end of the packet is rewritten: 0 the source, 1 the destination.
type Side = usize;

/// Sets source address and port (of an ICMP or ICMPv6 echo: the identifier, if it differs from the parsed one).
///
/// Checksums of IPv4, TCP, UDP, ICMP and ICMPv6 follow, SCTP's CRC32c too; a UDP checksum of 0 stays 0. A later fragment
/// has no port to set, and gets its address only; other protocols likewise. False if `ip` is of the other family, or if
/// the port of an SCTP *first fragment* would change, whose CRC covers bytes that are not here.
#[inline]
pub fn set_source(frame: &mut [u8], meta: &Meta, ip: IpAddr, port: u16) -> bool {
    set_end::<0>(frame, meta, ip, port).is_some()
}

/// Sets destination address and port; otherwise as [`set_source`]. The transport checksum is corrected for the destination
/// in the IPv6 header, which is not the one it covers while a routing header has segments left (RFC 8200 section 8.1).
#[inline]
pub fn set_destination(frame: &mut [u8], meta: &Meta, ip: IpAddr, port: u16) -> bool {
    set_end::<1>(frame, meta, ip, port).is_some()
}

#[inline]
fn set_end<const SIDE: Side>(frame: &mut [u8], meta: &Meta, ip: IpAddr, port: u16) -> Option<()> {
    let (l3, l4) = (usize::from(meta.l3_offset), usize::from(meta.l4_offset));
    let packet = frame.get_mut(l3..)?;
    let (header, transport) = packet.split_at_mut_checked(l4.checked_sub(l3)?)?;
    match (meta.l3, ip) {
        (L3::V4, IpAddr::V4(ip)) => {
            let header = header.first_chunk_mut::<20>()?;
            let address = header.get_mut(12 + 4 * SIDE..)?.first_chunk_mut::<4>()?;
            let new = ip.octets();
            let delta = Delta::NONE.bytes(address, &new);
            set_port::<SIDE>(transport, meta, port, delta)?;
            *address = new;
            let sum = u16::from_be_bytes([header[10], header[11]]);
            [header[10], header[11]] = delta.apply(sum).to_be_bytes();
        }
        (L3::V6, IpAddr::V6(ip)) => {
            let address = header.get_mut(8 + 16 * SIDE..)?.first_chunk_mut::<16>()?;
            let new = ip.octets();
            set_port::<SIDE>(transport, meta, port, Delta::NONE.bytes(address, &new))?;
            *address = new;
        }
        _ => return None,
    }
    Some(())
}

/// Sets the port and corrects the transport checksum for it and for `addresses`, the change of the pseudo-header.
#[inline]
fn set_port<const SIDE: Side>(transport: &mut [u8], meta: &Meta, port: u16, addresses: Delta) -> Option<()> {
    if !meta.flags.contains(PacketFlags::TRANSPORT) {
        return Some(());
    }
    match meta.protocol {
        protocol::TCP => {
            let header = transport.first_chunk_mut::<18>()?;
            let delta = replace_word(header, 2 * SIDE, port, addresses);
            let sum = u16::from_be_bytes([header[16], header[17]]);
            [header[16], header[17]] = delta.apply(sum).to_be_bytes();
        }
        protocol::UDP => {
            let header = transport.first_chunk_mut::<8>()?;
            let delta = replace_word(header, 2 * SIDE, port, addresses);
            let sum = u16::from_be_bytes([header[6], header[7]]);
            if sum != 0 {
                [header[6], header[7]] = checksum::udp(delta.apply(sum)).to_be_bytes();
            }
        }
        protocol::ICMP => {
            let header = transport.first_chunk_mut::<8>()?;
            if matches!(meta.icmp_type, 0 | 8) && port != meta.source_port {
                set_identifier(header, port, Delta::NONE);
            }
        }
        protocol::ICMPV6 if matches!(meta.icmp_type, 128 | 129) => {
            let header = transport.first_chunk_mut::<8>()?;
            let identifier =
                if port == meta.source_port { u16::from_be_bytes([header[4], header[5]]) } else { port };
            set_identifier(header, identifier, addresses);
        }
        protocol::ICMPV6 => {
            let header = transport.first_chunk_mut::<4>()?;
            let sum = u16::from_be_bytes([header[2], header[3]]);
            [header[2], header[3]] = addresses.apply(sum).to_be_bytes();
        }
        protocol::SCTP => return set_sctp_port::<SIDE>(transport, meta, port),
        _ => {}
    }
    Some(())
}

/// Sets an echo's identifier.
fn set_identifier(header: &mut [u8; 8], identifier: u16, addresses: Delta) {
    let delta = replace_word(header, 4, identifier, addresses);
    let sum = u16::from_be_bytes([header[2], header[3]]);
    [header[2], header[3]] = delta.apply(sum).to_be_bytes();
}

/// Replaces the 16-bit word at `at` and adds the change to `delta`.
#[inline(always)]
fn replace_word<const N: usize>(header: &mut [u8; N], at: usize, new: u16, delta: Delta) -> Delta {
    let old = u16::from_be_bytes([header[at], header[at + 1]]);
    [header[at], header[at + 1]] = new.to_be_bytes();
    delta.word(old, new)
}

/// SCTP's CRC32c covers the packet without a pseudo-header (RFC 9260 section 6.8): an address changes nothing in it.
#[cold]
fn set_sctp_port<const SIDE: Side>(transport: &mut [u8], meta: &Meta, port: u16) -> Option<()> {
    let len = meta.end().checked_sub(usize::from(meta.l4_offset)).filter(|len| *len <= transport.len())?;
    let header = transport.first_chunk_mut::<12>()?;
    let old = [header[0], header[1], header[2], header[3]];
    let mut new = old;
    [new[2 * SIDE], new[2 * SIDE + 1]] = port.to_be_bytes();
    if new == old {
        return Some(());
    }
    if meta.fragment != FragmentKind::Whole {
        return None;
    }
    let crc = u32::from_le_bytes([header[8], header[9], header[10], header[11]]);
    let crc = crc32c::update(crc, old, new, len.checked_sub(4)?);
    [header[0], header[1], header[2], header[3]] = new;
    [header[8], header[9], header[10], header[11]] = crc.to_le_bytes();
    Some(())
}

#[cfg(test)]
mod tests;
