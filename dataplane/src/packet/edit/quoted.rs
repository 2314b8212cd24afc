//! Edits of the IPv4 packet that an ICMP error quotes (RFC 5508 section 4.2, RFC 3022 section 4.3).
//!
//! The quote's addresses, ports and checksums are those that the packet would have on the error's way; the checksum of
//! the error itself follows. A quote is often cut short: what is not there is not edited. Its checksums are corrected, not
//! computed, so that one that was wrong stays wrong.

use std::net::Ipv4Addr;

use super::super::checksum::{self, Delta};
use super::super::{FragmentKind, L3, Meta, crc32c, is_icmp_error, protocol};

/// Sets both ends of the packet that an ICMP error quotes: address and port (of an ICMP echo: the identifier) of its source
/// and of its destination. False, and nothing done, if `frame` is no ICMP error that quotes ports.
#[cold]
pub fn set_quoted(
    frame: &mut [u8],
    meta: &Meta,
    source: (Ipv4Addr, u16),
    destination: (Ipv4Addr, u16),
) -> bool {
    set(frame, meta, source, destination).is_some()
}

fn set(
    frame: &mut [u8],
    meta: &Meta,
    (source, source_port): (Ipv4Addr, u16),
    (destination, destination_port): (Ipv4Addr, u16),
) -> Option<()> {
    let error = meta.l3 == L3::V4 && meta.protocol == protocol::ICMP && is_icmp_error(false, meta.icmp_type);
    if !error || meta.fragment != FragmentKind::Whole {
        return None;
    }
    let message = frame.get_mut(usize::from(meta.l4_offset)..meta.end())?;
    let (icmp, quote) = message.split_first_chunk_mut::<8>()?;
    let header_len = usize::from(*quote.first()? & 15) * 4;
    let (header, transport) = quote.split_at_mut_checked(header_len)?;
    let header = header.first_chunk_mut::<20>()?;
    let total = usize::from(u16::from_be_bytes([header[2], header[3]]));
    ports(header[9], transport)?;
    // Nothing fails from here on.
    let mut change = Change::default();
    let addresses = {
        let old =
            [header[12], header[13], header[14], header[15], header[16], header[17], header[18], header[19]];
        let ([a, b, c, d], [e, f, g, h]) = (source.octets(), destination.octets());
        let new = [a, b, c, d, e, f, g, h];
        [header[12], header[13], header[14], header[15], header[16], header[17], header[18], header[19]] =
            new;
        Delta::NONE.bytes(&old, &new)
    };
    change.add(addresses);
    let sum = u16::from_be_bytes([header[10], header[11]]);
    let corrected = addresses.apply(sum);
    [header[10], header[11]] = corrected.to_be_bytes();
    change.word(sum, corrected);
    let behind = total.saturating_sub(header_len);
    match header[9] {
        protocol::ICMP => set_identifier(transport, source_port, &mut change),
        protocol::SCTP => set_sctp(transport, source_port, destination_port, behind, &mut change),
        protocol::TCP => {
            let delta = set_ports(transport, source_port, destination_port, &mut change);
            correct(transport, 16, |sum| addresses.and(delta).apply(sum), &mut change);
        }
        protocol::UDP => {
            let delta = set_ports(transport, source_port, destination_port, &mut change);
            let new = |sum| if sum == 0 { 0 } else { checksum::udp(addresses.and(delta).apply(sum)) };
            correct(transport, 6, new, &mut change);
        }
        _ => {}
    }
    let sum = u16::from_be_bytes([icmp[2], icmp[3]]);
    [icmp[2], icmp[3]] = change.0.apply(sum).to_be_bytes();
    Some(())
}

/// All that changed in the error's message, for its own checksum. The quote begins at an even offset.
#[derive(Default)]
struct Change(Delta);

impl Change {
    fn add(&mut self, delta: Delta) {
        self.0 = self.0.and(delta);
    }

    fn word(&mut self, old: u16, new: u16) {
        self.0 = self.0.word(old, new);
    }
}

/// Whether what has to be there of a transport header to tell its ports is there.
fn ports(ip_protocol: u8, transport: &[u8]) -> Option<()> {
    let least = match ip_protocol {
        protocol::TCP | protocol::UDP | protocol::SCTP => 4,
        protocol::ICMP => 6,
        _ => 0,
    };
    (transport.len() >= least).then_some(())
}

fn set_ports(transport: &mut [u8], source: u16, destination: u16, change: &mut Change) -> Delta {
    let Some(place) = transport.first_chunk_mut::<4>() else { return Delta::NONE };
    let ([a, b], [c, d]) = (source.to_be_bytes(), destination.to_be_bytes());
    let delta = Delta::NONE.bytes(place, &[a, b, c, d]);
    *place = [a, b, c, d];
    change.add(delta);
    delta
}

/// Corrects the checksum at `at`, if the quote reaches that far.
fn correct(transport: &mut [u8], at: usize, new: impl FnOnce(u16) -> u16, change: &mut Change) {
    let Some(place) = transport.get_mut(at..).and_then(|rest| rest.first_chunk_mut::<2>()) else { return };
    let old = u16::from_be_bytes(*place);
    let new = new(old);
    *place = new.to_be_bytes();
    change.word(old, new);
}

/// An echo's identifier.
fn set_identifier(transport: &mut [u8], identifier: u16, change: &mut Change) {
    let Some(head) = transport.first_chunk_mut::<6>() else { return };
    if !matches!(head[0], 0 | 8) {
        return;
    }
    let old = u16::from_be_bytes([head[4], head[5]]);
    [head[4], head[5]] = identifier.to_be_bytes();
    let sum = u16::from_be_bytes([head[2], head[3]]);
    let corrected = checksum::update16(sum, old, identifier);
    [head[2], head[3]] = corrected.to_be_bytes();
    change.word(old, identifier);
    change.word(sum, corrected);
}

/// SCTP's CRC32c covers the whole packet (RFC 9260 section 6.8), of which only the length need be known here.
fn set_sctp(transport: &mut [u8], source: u16, destination: u16, len: usize, change: &mut Change) {
    let Some(old) = transport.first_chunk::<4>().copied() else { return };
    set_ports(transport, source, destination, change);
    let ([a, b], [c, d]) = (source.to_be_bytes(), destination.to_be_bytes());
    let Some(place) = transport.get_mut(8..).and_then(|rest| rest.first_chunk_mut::<4>()) else { return };
    let Some(behind) = len.checked_sub(4) else { return };
    let crc = crc32c::update(u32::from_le_bytes(*place), old, [a, b, c, d], behind).to_le_bytes();
    change.add(Delta::NONE.bytes(place, &crc));
    *place = crc;
}
