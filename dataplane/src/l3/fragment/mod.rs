//! IPv4 fragmentation (RFC 791 section 3.2; RFC 1812 section 4.2.2.7). IPv6 routers do not fragment (RFC 8200 section 4.5).

use crate::packet::checksum;
use crate::packet::view::ipv4;

/// Why a packet cannot be fragmented.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotFragmented {
    /// Its DF bit is set.
    DontFragment,
    /// It is not a sound IPv4 packet.
    Malformed,
    /// The MTU leaves no room for 8 bytes of data.
    MtuTooSmall,
}

/// Cuts an IPv4 packet into fragments of at most `mtu` bytes and gives each to `emit`, in order; a packet that fits is
/// given as it is. Returns how many there were. Identification and TTL are kept, options as their copied flag says, and
/// the offset and MF of a packet that is a fragment already.
///
/// # Errors
/// [`NotFragmented`]; nothing was emitted then.
pub fn fragment(packet: &[u8], mtu: u16, mut emit: impl FnMut(&[u8])) -> Result<usize, NotFragmented> {
    let header = ipv4::Header::read(packet).ok_or(NotFragmented::Malformed)?;
    let header_len = usize::from(header.header_len);
    let packet = packet.get(..usize::from(header.total_len)).ok_or(NotFragmented::Malformed)?;
    let (whole, data) =
        packet.split_at_checked(header_len).filter(|_| header_len >= 20).ok_or(NotFragmented::Malformed)?;
    if packet.len() <= usize::from(mtu) {
        emit(packet);
        return Ok(1);
    }
    if header.dont_fragment {
        return Err(NotFragmented::DontFragment);
    }
    let reduced = copied_options(whole).ok_or(NotFragmented::Malformed)?;
    // The first header is never shorter than the others.
    let room = usize::from(mtu).saturating_sub(header_len) & !7;
    if room == 0 {
        return Err(NotFragmented::MtuTooSmall);
    }
    let (first, mut rest) = data.split_at_checked(room).ok_or(NotFragmented::Malformed)?;
    let mut out = Vec::with_capacity(usize::from(mtu));
    let mut offset = header.fragment_offset;
    write(&mut out, whole, first, offset, true);
    emit(&out);
    let mut count = 1;
    offset += first.len() as u16;
    let room = usize::from(mtu).saturating_sub(reduced.len()) & !7;
    while !rest.is_empty() {
        let fits = rest.len() <= usize::from(mtu).saturating_sub(reduced.len());
        let (piece, after) =
            rest.split_at_checked(if fits { rest.len() } else { room }).unwrap_or((rest, &[]));
        write(&mut out, &reduced, piece, offset, !after.is_empty() || header.more_fragments);
        emit(&out);
        count += 1;
        offset = offset.wrapping_add(piece.len() as u16);
        rest = after;
    }
    Ok(count)
}

/// The header of fragments after the first: options whose copied flag is set, padded with end-of-list to a multiple of 4
/// (RFC 791 section 3.1). `None` if the options are broken.
fn copied_options(whole: &[u8]) -> Option<Vec<u8>> {
    let (fixed, mut options) = whole.split_at_checked(ipv4::LEN)?;
    let mut header = fixed.to_vec();
    while let Some(&kind) = options.first() {
        let len = match kind {
            0 => break,
            1 => 1,
            _ => usize::from(*options.get(1)?),
        };
        let (option, after) = options.split_at_checked(len).filter(|_| len > usize::from(kind != 1))?;
        if kind & 0x80 != 0 {
            header.extend_from_slice(option);
        }
        options = after;
    }
    header.resize(header.len().next_multiple_of(4), 0);
    Some(header)
}

/// One fragment.
fn write(out: &mut Vec<u8>, header: &[u8], data: &[u8], offset: u16, more: bool) {
    out.clear();
    out.extend_from_slice(header);
    out.extend_from_slice(data);
    let total = (out.len() as u16).to_be_bytes();
    let field = (offset >> 3 | u16::from(more) << 13).to_be_bytes();
    let Some(front) = out.first_chunk_mut::<20>() else { return };
    front[0] = 0x40 | (header.len() / 4) as u8;
    [front[2], front[3]] = total;
    [front[6], front[7]] = field;
    [front[10], front[11]] = [0, 0];
    let Some(checksum) = out.get(..header.len()).map(checksum::checksum) else { return };
    if let Some(front) = out.first_chunk_mut::<20>() {
        [front[10], front[11]] = checksum.to_be_bytes();
    }
}

#[cfg(test)]
mod tests;
