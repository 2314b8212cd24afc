//! A walk over IPv6 extension headers (RFC 8200 section 4) that the parser has found sound.

use crate::packet::MAX_EXTENSIONS;

/// What the extension headers of a packet say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Walk {
    /// Where, in bytes from the start of the packet, the field stands that names the upper-layer protocol.
    pub(crate) next_header_at: usize,
    /// Whether there is a fragment header, be it of an atomic fragment.
    pub(crate) fragment: bool,
}

/// Walks a packet that begins with its IPv6 header. `None` if it ends too soon.
pub(crate) fn walk(packet: &[u8]) -> Option<Walk> {
    let mut walk = Walk { next_header_at: 6, fragment: false };
    let mut at = 40;
    for _ in 0..=MAX_EXTENSIONS {
        let next = *packet.get(walk.next_header_at)?;
        let header = |at: usize| packet.get(at..)?.first_chunk::<2>().copied();
        let len = match next {
            0 | 43 | 60 => (usize::from(header(at)?[1]) + 1) * 8,
            44 => 8,
            51 => (usize::from(header(at)?[1]) + 2) * 4,
            _ => return Some(walk),
        };
        walk.fragment |= next == 44;
        walk.next_header_at = at;
        at += len;
    }
    None
}
