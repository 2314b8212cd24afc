//! The parser: one pass over a frame from its Ethernet header on, which fills a [`Meta`].
//!
//! IEEE 802.3, 802.1Q, 802.1ad; RFC 791 and RFC 1812 section 5.2.2 (IPv4); RFC 8200 (IPv6); RFC 9293 (TCP), RFC 768
//! (UDP), RFC 9260 (SCTP), RFC 792 (ICMP), RFC 4443 (ICMPv6).
//!
//! An untagged whole IPv4 or IPv6 packet without options is straight-line code; what is rare stands in functions of its
//! own. Nothing here judges addresses: a bridge forwards a DHCP request from 0.0.0.0.

use super::{FragmentKind, L3, MAX_EXTENSIONS, Malformed, Meta, PacketFlags, ether_type, protocol};

/// Length of an untagged Ethernet header in bytes.
const ETHERNET: usize = 14;

/// Parses one frame.
///
/// Beyond each header's own rules:
/// - A whole packet or first fragment must carry its TCP, UDP, SCTP, ICMP or ICMPv6 header whole. A *first fragment*
///   too short for that, and a TCP fragment at offset 8, are how filters are evaded (RFC 1858 section 3, RFC 3128,
///   RFC 7112 section 5); no sender has reason to make them, and they are refused.
/// - A fragment with more to follow carries a multiple of 8 bytes (RFC 791 section 3.1, RFC 8200 section 4.5).
/// - Bytes after the IP packet are padding: [`PacketFlags::PADDED`]; [`Meta::end`] is where the packet ends.
/// - IEEE 802.3 length frames and unknown EtherTypes are [`L3::Other`].
///
/// # Errors
/// [`Malformed`], the first thing that is wrong.
#[inline]
pub fn parse(frame: &[u8]) -> Result<Meta, Malformed> {
    let mut meta = Meta::default();
    parse_into(frame, &mut meta)?;
    Ok(meta)
}

/// As [`parse`], written in place: for a burst's array, where moving a fresh [`Meta`] costs as much as filling it.
/// What `meta` held before does not matter; after an error it says as much as was learned.
///
/// # Errors
/// [`Malformed`], the first thing that is wrong.
#[inline(always)]
pub fn parse_into(frame: &[u8], meta: &mut Meta) -> Result<(), Malformed> {
    let Some(ethernet) = frame.first_chunk::<ETHERNET>() else { return Err(Malformed::Truncated) };
    *meta = Meta {
        l3_offset: ETHERNET as u16,
        l4_offset: ETHERNET as u16,
        ether_type: be16(ethernet, 12),
        ..Meta::default()
    };
    // Flags are gathered in a register and stored once.
    let mut flags = PacketFlags::empty();
    flags.set(PacketFlags::ETHER_GROUP, ethernet[0] & 1 != 0);
    match be16(ethernet, 12) {
        ether_type::IPV4 => ipv4(frame, meta, ETHERNET, flags),
        ether_type::IPV6 => ipv6(frame, meta, ETHERNET, flags),
        _ => other(frame, meta, flags),
    }
}

/// Big-endian 16 bits of a header of known length; the constant offset is checked when compiled.
#[inline(always)]
fn be16<const N: usize>(header: &[u8; N], at: usize) -> u16 {
    u16::from_be_bytes([header[at], header[at + 1]])
}

/// VLAN tags, ARP, and what is neither.
#[inline(never)]
fn other(frame: &[u8], meta: &mut Meta, flags: PacketFlags) -> Result<(), Malformed> {
    let mut at = ETHERNET;
    while matches!(meta.ether_type, ether_type::VLAN | ether_type::QINQ) {
        let tag = frame.get(at..).and_then(|rest| rest.first_chunk::<4>()).ok_or(Malformed::Truncated)?;
        match meta.vlan_tags {
            0 => meta.outer_tci = be16(tag, 0),
            1 => meta.inner_tci = be16(tag, 0),
            _ => return Err(Malformed::VlanTags),
        }
        meta.vlan_tags += 1;
        meta.ether_type = be16(tag, 2);
        at += 4;
    }
    meta.l3_offset = at as u16;
    meta.l4_offset = at as u16;
    meta.flags = flags;
    match meta.ether_type {
        ether_type::IPV4 => ipv4(frame, meta, at, flags),
        ether_type::IPV6 => ipv6(frame, meta, at, flags),
        ether_type::ARP => arp(frame, meta, at),
        _ => Ok(()),
    }
}

/// RFC 826: the fixed part, and addresses as long as it says.
fn arp(frame: &[u8], meta: &mut Meta, at: usize) -> Result<(), Malformed> {
    let packet = frame.get(at..).ok_or(Malformed::Truncated)?;
    let fixed = packet.first_chunk::<8>().ok_or(Malformed::Truncated)?;
    if packet.len() < 8 + 2 * (usize::from(fixed[4]) + usize::from(fixed[5])) {
        return Err(Malformed::Truncated);
    }
    meta.l3 = L3::Arp;
    Ok(())
}

#[inline(always)]
fn ipv4(frame: &[u8], meta: &mut Meta, at: usize, flags: PacketFlags) -> Result<(), Malformed> {
    let Some(rest) = frame.get(at..) else { return Err(Malformed::Truncated) };
    let Some(header) = rest.first_chunk::<20>() else { return Err(Malformed::Truncated) };
    if header[0] == 0x45 {
        if super::checksum::sum_header(header) != 0xffff {
            return Err(Malformed::IpChecksum);
        }
        ipv4_packet(rest, header, 20, meta, at, flags)
    } else {
        ipv4_options(rest, header, meta, at, flags)
    }
}

/// What follows the first byte and the checksum; inlined with a constant `header_len` for the common case.
#[inline(always)]
fn ipv4_packet(
    rest: &[u8],
    header: &[u8; 20],
    header_len: usize,
    meta: &mut Meta,
    at: usize,
    mut flags: PacketFlags,
) -> Result<(), Malformed> {
    let total = usize::from(be16(header, 2));
    let Some(transport) = rest.get(header_len..total) else {
        return Err(length_error(header_len, total));
    };
    meta.l3 = L3::V4;
    meta.l3_len = total as u16;
    meta.l4_offset = (at + header_len) as u16;
    meta.traffic_class = header[1];
    meta.ttl = header[8];
    meta.protocol = header[9];
    let fragment = be16(header, 6);
    flags.set(PacketFlags::DF, fragment & 0x4000 != 0);
    flags.set(PacketFlags::PADDED, rest.len() > total);
    flags.set(PacketFlags::IP_GROUP, (header[16] >> 4 == 14) | (header[16..20] == [0xff; 4]));
    if fragment & 0x3fff != 0 {
        let offset = usize::from(fragment & 0x1fff) * 8;
        meta.flags = flags;
        return fragmented(transport, meta, offset, fragment & 0x2000 != 0, header_len);
    }
    upper_layer(transport, meta, header[9], flags)
}

/// An IPv4 header whose first byte is not 0x45: options, or something wrong.
#[cold]
#[inline(never)]
fn ipv4_options(
    rest: &[u8],
    header: &[u8; 20],
    meta: &mut Meta,
    at: usize,
    flags: PacketFlags,
) -> Result<(), Malformed> {
    if header[0] >> 4 != 4 {
        return Err(Malformed::IpVersion);
    }
    let header_len = usize::from(header[0] & 0x0f) * 4;
    let whole = rest.get(..header_len).filter(|_| header_len > 20).ok_or(Malformed::IpHeaderLength)?;
    if super::checksum::sum(whole) != 0xffff {
        return Err(Malformed::IpChecksum);
    }
    ipv4_packet(rest, header, header_len, meta, at, flags | PacketFlags::OPTIONS)
}

#[cold]
#[inline(never)]
fn length_error(header_len: usize, total: usize) -> Malformed {
    if total >= header_len { Malformed::IpLength } else { Malformed::IpHeaderLength }
}

#[inline(always)]
fn ipv6(frame: &[u8], meta: &mut Meta, at: usize, mut flags: PacketFlags) -> Result<(), Malformed> {
    let Some(rest) = frame.get(at..) else { return Err(Malformed::Truncated) };
    let Some(header) = rest.first_chunk::<40>() else { return Err(Malformed::Truncated) };
    if header[0] >> 4 != 6 {
        return Err(Malformed::IpVersion);
    }
    let total = usize::from(be16(header, 4)) + 40;
    let (Some(payload), Ok(l3_len)) = (rest.get(40..total), u16::try_from(total)) else {
        return Err(Malformed::IpLength);
    };
    meta.l3 = L3::V6;
    meta.l3_len = l3_len;
    meta.l4_offset = (at + 40) as u16;
    meta.traffic_class = header[0] << 4 | header[1] >> 4;
    meta.ttl = header[7];
    meta.protocol = header[6];
    flags.set(PacketFlags::PADDED, rest.len() > total);
    flags.set(PacketFlags::IP_GROUP, header[24] == 0xff);
    if extension(header[6]) {
        meta.flags = flags | PacketFlags::EXTENSIONS;
        return ipv6_extensions(payload, meta);
    }
    upper_layer(payload, meta, header[6], flags)
}

/// IPv6 extension headers (RFC 8200 section 4).
mod next_header {
    pub(super) const HOP_BY_HOP: u8 = 0;
    pub(super) const ROUTING: u8 = 43;
    pub(super) const FRAGMENT: u8 = 44;
    pub(super) const AUTHENTICATION: u8 = 51;
    pub(super) const DESTINATION: u8 = 60;
}

/// Whether a next header is walked over. ESP (50) and No Next Header (59) end the chain: what follows cannot be read.
#[inline(always)]
fn extension(next: u8) -> bool {
    use next_header::{AUTHENTICATION, DESTINATION, FRAGMENT, HOP_BY_HOP, ROUTING};
    matches!(next, HOP_BY_HOP | ROUTING | FRAGMENT | AUTHENTICATION | DESTINATION)
}

/// Walks the extension headers: at most [`MAX_EXTENSIONS`], hop-by-hop options only in the first place (RFC 8200
/// section 4.1), one fragment header.
#[cold]
#[inline(never)]
fn ipv6_extensions(payload: &[u8], meta: &mut Meta) -> Result<(), Malformed> {
    let mut rest = payload;
    let mut fragment_seen = false;
    for index in 0..MAX_EXTENSIONS {
        let kind = meta.protocol;
        if !extension(kind) {
            return upper_layer(rest, meta, meta.protocol, meta.flags);
        }
        let header = rest.first_chunk::<8>().ok_or(Malformed::IpExtension)?;
        let len = match kind {
            next_header::FRAGMENT => 8,
            next_header::AUTHENTICATION => (usize::from(header[1]) + 2) * 4,
            _ => (usize::from(header[1]) + 1) * 8,
        };
        rest = rest.get(len..).ok_or(Malformed::IpExtension)?;
        meta.protocol = header[0];
        meta.l4_offset += len as u16;
        match kind {
            next_header::HOP_BY_HOP if index > 0 => return Err(Malformed::IpExtension),
            next_header::HOP_BY_HOP => meta.flags |= PacketFlags::HOP_BY_HOP,
            next_header::FRAGMENT if fragment_seen => return Err(Malformed::IpExtension),
            next_header::FRAGMENT => {
                fragment_seen = true;
                let field = be16(header, 2);
                let (offset, more) = (usize::from(field & 0xfff8), field & 1 != 0);
                let before = payload.len() - rest.len() - len;
                check_fragment(rest, meta, offset, more, before)?;
                if meta.fragment == FragmentKind::Later {
                    return Ok(());
                }
            }
            _ => {}
        }
    }
    if extension(meta.protocol) {
        Err(Malformed::IpExtension)
    } else {
        upper_layer(rest, meta, meta.protocol, meta.flags)
    }
}

/// Sets the fragment kind and checks the rules of fragments. `before`: bytes of the reassembled packet, as its length
/// field counts them, in front of the fragmentable part.
fn check_fragment(
    payload: &[u8],
    meta: &mut Meta,
    offset: usize,
    more: bool,
    before: usize,
) -> Result<(), Malformed> {
    meta.fragment = match (offset, more) {
        (0, false) => FragmentKind::Whole,
        (0, true) => FragmentKind::First,
        _ => FragmentKind::Later,
    };
    let past_the_end = before + offset + payload.len() > 65535;
    let ragged = more && payload.len() % 8 != 0;
    let over_tcp_flags = offset == 8 && meta.protocol == protocol::TCP;
    if past_the_end || ragged || over_tcp_flags { Err(Malformed::Fragment) } else { Ok(()) }
}

/// An IPv4 fragment.
#[cold]
#[inline(never)]
fn fragmented(
    payload: &[u8],
    meta: &mut Meta,
    offset: usize,
    more: bool,
    before: usize,
) -> Result<(), Malformed> {
    check_fragment(payload, meta, offset, more, before)?;
    if meta.fragment == FragmentKind::Later {
        Ok(())
    } else {
        upper_layer(payload, meta, meta.protocol, meta.flags)
    }
}

/// The transport header of a whole packet or a first fragment.
#[inline(always)]
fn upper_layer(transport: &[u8], meta: &mut Meta, protocol: u8, flags: PacketFlags) -> Result<(), Malformed> {
    match protocol {
        protocol::TCP => {
            let Some(header) = transport.first_chunk::<20>() else { return Err(Malformed::Transport) };
            let header_len = usize::from(header[12] >> 4) * 4;
            if header_len < 20 || header_len > transport.len() {
                return Err(Malformed::Transport);
            }
            meta.source_port = be16(header, 0);
            meta.destination_port = be16(header, 2);
            meta.tcp_flags = header[13];
        }
        protocol::UDP => {
            let Some(header) = transport.first_chunk::<8>() else { return Err(Malformed::Transport) };
            let len = usize::from(be16(header, 4));
            // The length is the whole datagram's, of which a first fragment carries a part.
            if len < 8 || (len > transport.len() && meta.fragment == FragmentKind::Whole) {
                return Err(Malformed::Transport);
            }
            meta.source_port = be16(header, 0);
            meta.destination_port = be16(header, 2);
        }
        _ => {
            meta.flags = flags;
            return control(transport, meta);
        }
    }
    meta.flags = flags | PacketFlags::TRANSPORT;
    Ok(())
}

/// ICMP, ICMPv6, SCTP, and protocols that weir does not look into.
#[inline(never)]
fn control(transport: &[u8], meta: &mut Meta) -> Result<(), Malformed> {
    match (meta.protocol, meta.l3) {
        (protocol::ICMP, L3::V4) => {
            // Every ICMP message has 8 bytes (RFC 792).
            let header = transport.first_chunk::<8>().ok_or(Malformed::Transport)?;
            icmp(header, meta, matches!(header[0], 0 | 8));
        }
        (protocol::ICMPV6, L3::V6) => {
            let header = transport.first_chunk::<4>().ok_or(Malformed::Transport)?;
            if let Some(header) = transport.first_chunk::<8>() {
                icmp(header, meta, matches!(header[0], 128 | 129));
            } else if matches!(header[0], 128 | 129) {
                return Err(Malformed::Transport);
            } else {
                (meta.icmp_type, meta.icmp_code) = (header[0], header[1]);
            }
        }
        (protocol::SCTP, _) => {
            let header = transport.first_chunk::<12>().ok_or(Malformed::Transport)?;
            meta.source_port = be16(header, 0);
            meta.destination_port = be16(header, 2);
        }
        _ => return Ok(()),
    }
    meta.flags |= PacketFlags::TRANSPORT;
    Ok(())
}

/// Type and code; an echo's identifier stands for both ports.
fn icmp(header: &[u8; 8], meta: &mut Meta, echo: bool) {
    (meta.icmp_type, meta.icmp_code) = (header[0], header[1]);
    if echo {
        meta.source_port = be16(header, 4);
        meta.destination_port = meta.source_port;
    }
}

#[cfg(test)]
mod tests;
