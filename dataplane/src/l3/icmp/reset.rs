//! TCP resets for connections that weir refuses (RFC 9293 section 3.10.7.1).

use super::addresses;
use crate::l3::originate::Ip;
use crate::l3::sanity::is_host;
use crate::packet::view::tcp;
use crate::packet::{FragmentKind, Meta, PacketFlags, checksum, protocol, tcp_flags};

/// Writes the reset that answers a TCP segment, from the segment's destination to its source, to `out` (replacing what
/// it held): an IP packet. False if nothing may be answered: a reset, a fragment, a wrong checksum, a group address.
pub fn tcp_reset(frame: &[u8], meta: &Meta, out: &mut Vec<u8>) -> bool {
    out.clear();
    build(frame, meta, out).is_some()
}

fn build(frame: &[u8], meta: &Meta, out: &mut Vec<u8>) -> Option<()> {
    let (source, destination) = addresses(frame, meta)?;
    let group = meta.flags.intersects(PacketFlags::ETHER_GROUP | PacketFlags::IP_GROUP);
    let answerable = meta.protocol == protocol::TCP
        && meta.fragment == FragmentKind::Whole
        && meta.tcp_flags & tcp_flags::RST == 0
        && !group
        && is_host(source)
        && is_host(destination)
        && checksum::verify_transport(frame, meta) == Some(true);
    let segment = frame.get(usize::from(meta.l4_offset)..meta.end()).filter(|_| answerable)?;
    let header = tcp::Header::read(segment)?;
    let (sequence, acknowledgment, flags) = if header.flags & tcp_flags::ACK != 0 {
        (header.acknowledgment, 0, tcp_flags::RST)
    } else {
        // SEG.LEN: SYN and FIN take one each.
        let data = segment.len().checked_sub(usize::from(header.header_len))? as u32;
        let syn = u32::from(header.flags & tcp_flags::SYN != 0);
        let fin = u32::from(header.flags & tcp_flags::FIN != 0);
        (0, header.sequence.wrapping_add(data + syn + fin), tcp_flags::RST | tcp_flags::ACK)
    };
    let mut reset = [0u8; tcp::LEN];
    tcp::Header {
        source_port: header.destination_port,
        destination_port: header.source_port,
        sequence,
        acknowledgment,
        header_len: tcp::LEN as u8,
        flags,
        window: 0,
        checksum: 0,
        urgent: 0,
    }
    .write(&mut reset)?;
    Ip::new(destination, source, protocol::TCP).append(out, &[&reset], 16).then_some(())
}
