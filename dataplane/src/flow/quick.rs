//! Replay of shared programs on plain packets, each in one piece: here every instruction counts.
//!
//! The same edits as in [`Replay::run`], which is their slow twin: a packet that this refuses is as it was, and goes there.

use crate::decision::{DropReason, Encapsulation, MeterCache, Nanos};
use crate::frame::Frame;
use crate::packet::checksum::{self, Delta};
use crate::packet::{ecn, hash, protocol};

use super::Replay;
use super::compact::{CompactEntry, CompactRewrite};
use super::programs::{Shared, Steps};
use super::replay::source_port;

/// What became of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quick {
    /// Edited; goes out by the program's port.
    Send,
    /// To be dropped.
    Drop(DropReason),
    /// As it was: [`Replay::run`] knows what to do.
    Otherwise,
}

/// What is known of a plain IPv4 packet.
#[derive(Clone, Copy, Debug)]
pub struct Known {
    /// Length of the IP packet in bytes; of a bridged frame, of all behind its Ethernet header.
    pub total: u16,
    /// Type of service.
    pub class: u8,
    /// TCP or UDP.
    pub protocol: u8,
    /// Source and destination as they stand in the header.
    pub addresses: u64,
    /// Ports as they stand in the header.
    pub ports: u32,
}

/// The change of TTL and protocol when a router takes one off the TTL.
const ONE_HOP: Delta = Delta::NONE.word(0x100, 0);

/// A shared program made ready to be replayed on some packets in a row: its next hops looked up.
#[derive(Clone, Copy, Debug)]
pub struct Ready<'a> {
    /// The program.
    pub shared: &'a Shared,
    /// The first eight bytes of a frame to the next hop: its address, and two bytes of our own.
    first: u64,
    steps: Steps,
    mtu: u16,
    /// The address of the next hop inside a tunnel.
    inner: Option<u64>,
    outer: Option<&'a Encapsulation>,
    /// Of the outer type of service: what is taken from the inner one, and what is set.
    class: (u8, u8),
}

impl Ready<'_> {
    /// Whether the program may be replayed in one piece on a packet with options, or on a fragment: their ports are elsewhere, or
    /// are not part of what the outer source port is made of.
    #[inline]
    pub fn takes_odd(&self) -> bool {
        !self.steps.intersects(Steps::REWRITE | Steps::ENCAPSULATE)
    }

    /// What becomes of a packet that is too long for the program.
    #[cold]
    fn drop_or_otherwise(&self) -> Quick {
        self.shared.drops().map_or(Quick::Otherwise, Quick::Drop)
    }
}

/// What forwarding by a router is made of, where there is nothing else to be done: a [`Ready`] program of one step.
#[derive(Clone, Copy, Debug, Default)]
pub struct Forward {
    first: u64,
    tail: u32,
    mtu: u16,
}

impl Forward {
    /// Of a program that only forwards.
    #[inline]
    pub fn of(ready: &Ready<'_>) -> Option<Self> {
        let only = ready.steps == Steps::FORWARD;
        only.then_some(Self { first: ready.first, tail: ready.shared.mac_tail, mtu: ready.mtu })
    }

    /// Forwards an IP packet of `total` bytes behind `strip` bytes of outer headers, which go, and an Ethernet header. False, and
    /// nothing done, if it is too long.
    #[inline(always)]
    pub fn pass(&self, frame: &mut Frame, v6: bool, strip: usize, total: u16) -> bool {
        let len = usize::from(total) + 14;
        if (total > self.mtu) | (strip + len > frame.len()) {
            return false;
        }
        let Some(header) = frame.bytes_mut().get_mut(strip..).and_then(|bytes| bytes.first_chunk_mut::<34>())
        else {
            return false;
        };
        header[..8].copy_from_slice(&self.first.to_le_bytes());
        header[8..12].copy_from_slice(&self.tail.to_le_bytes());
        if v6 {
            header[21] = header[21].wrapping_sub(1);
        } else if let Some(word) = header.get_mut(22..).and_then(|rest| rest.first_chunk_mut()) {
            *word = one_hop_less(u32::from_le_bytes(*word)).to_le_bytes();
        }
        // Neither is refused: the frame is long enough.
        frame.strip(strip) && frame.truncate(len)
    }
}

impl<'a> Replay<'a> {
    /// Makes a program ready. `None`: it is not one of those that are replayed in one piece, or its next hop is not resolved.
    #[inline]
    pub fn ready(&self, shared: &'a Shared) -> Option<Ready<'a>> {
        let steps = shared.steps;
        if steps.is_empty() {
            return None;
        }
        if steps == Steps::DROP {
            // Any packet is too long: where that is looked at, what is dropped is told apart, and what is sent pays nothing for it.
            return Some(Ready { shared, first: 0, steps, mtu: 0, inner: None, outer: None, class: (0, 0) });
        }
        // What is bridged from port to port has no next hop.
        let first = match steps.contains(Steps::CARRY) && !steps.contains(Steps::ENCAPSULATE) {
            true => 0,
            false => self.adjacencies.resolved(shared.adjacency)? | shared.mac_head,
        };
        let inner = match steps.contains(Steps::INNER_ADJACENCY) {
            true => Some(self.adjacencies.resolved(shared.inner)?),
            false => None,
        };
        let outer = match steps.contains(Steps::ENCAPSULATE) {
            true => Some(self.endpoints.get(usize::from(shared.endpoint))?),
            false => None,
        };
        let class = outer.map_or((0, 0), |outer| {
            let class = |inner| ecn::outer_traffic_class(outer.dscp, Some(inner));
            (class(0xff) ^ class(0), class(0))
        });
        Some(Ready { shared, first, steps, mtu: shared.mtu, inner, outer, class })
    }

    /// Forwards a plain IPv6 packet of `total` bytes.
    #[inline(always)]
    pub fn quick_v6(&self, frame: &mut Frame, total: u16, ready: &Ready<'_>) -> Quick {
        if total > ready.mtu {
            return ready.drop_or_otherwise();
        }
        if ready.steps != Steps::FORWARD || !frame.truncate(usize::from(total) + 14) {
            return Quick::Otherwise;
        }
        let Some(header) = frame.bytes_mut().first_chunk_mut::<22>() else { return Quick::Otherwise };
        header[..8].copy_from_slice(&ready.first.to_le_bytes());
        header[8..12].copy_from_slice(&ready.shared.mac_tail.to_le_bytes());
        header[21] = header[21].wrapping_sub(1);
        Quick::Send
    }

    /// Forwards a plain IPv4 packet by a program that rewrites nothing and spends nothing.
    #[inline(always)]
    pub fn quick_route(&self, frame: &mut Frame, known: &Known, ready: &Ready<'_>) -> Quick {
        if known.total > ready.mtu {
            return ready.drop_or_otherwise();
        }
        if ready.steps == Steps::FORWARD {
            return reframe(frame, known, ready, None);
        }
        if ready.steps.intersects(Steps::METER | Steps::REWRITE) {
            return Quick::Otherwise;
        }
        self.encapsulate_plain(frame, known, ready, None)
    }

    /// Forwards a plain IPv4 packet of a flow whose program does not just drop.
    #[inline(always)]
    pub fn quick_flow(
        &self,
        frame: &mut Frame,
        known: &Known,
        ready: &Ready<'_>,
        entry: &CompactEntry,
        meters: &mut MeterCache,
        now: Nanos,
    ) -> Quick {
        if known.total > ready.mtu {
            return Quick::Otherwise;
        }
        if ready.steps.contains(Steps::METER) {
            // Nothing is spent on a packet that may not go.
            if frame.headroom() < 50 {
                return Quick::Otherwise;
            }
            for meter in ready.shared.meters() {
                if !meters.spend(self.meters, meter, known.total, now) {
                    return Quick::Drop(DropReason::Policed);
                }
            }
        }
        if ready.steps == Steps::CARRY.union(Steps::ENCAPSULATE) {
            return self.carry_into_tunnel(frame, known, ready);
        }
        if ready.steps.contains(Steps::CARRY) {
            return self.carry(frame, known, ready);
        }
        let rewrite = ready.steps.contains(Steps::REWRITE).then_some(&entry.rewrite);
        if ready.steps.contains(Steps::ENCAPSULATE) {
            self.encapsulate_plain(frame, known, ready, rewrite)
        } else {
            reframe(frame, known, ready, rewrite)
        }
    }

    /// Sends a bridged frame as it is, or with [outer Ethernet][outer IP, UDP, VXLAN] in front.
    #[inline(always)]
    fn carry(&self, frame: &mut Frame, known: &Known, ready: &Ready<'_>) -> Quick {
        if ready.steps.intersects(Steps::REWRITE) {
            return Quick::Otherwise;
        }
        if !ready.steps.contains(Steps::ENCAPSULATE) {
            return Quick::Send;
        }
        self.carry_into_tunnel(frame, known, ready)
    }

    #[inline(always)]
    fn carry_into_tunnel(&self, frame: &mut Frame, known: &Known, ready: &Ready<'_>) -> Quick {
        let (Some(outer), Ok(inner)) = (ready.outer, u16::try_from(frame.len())) else {
            return Quick::Otherwise;
        };
        let Some(total) = inner.checked_add(36) else { return Quick::Otherwise };
        let grown = frame.grow_front(50);
        let Some(headers) = frame.bytes_mut().first_chunk_mut::<50>().filter(|_| grown) else {
            return Quick::Drop(DropReason::NoHeadroom);
        };
        let Some(template) = ready.shared.headers.first_chunk::<50>() else { return Quick::Otherwise };
        *headers = *template;
        self.fill_outer(headers, outer, ready, total, known, known.addresses);
        Quick::Send
    }

    /// Fills in what is a packet's own in its outer headers. `total` is the length of the outer packet in bytes.
    #[inline(always)]
    fn fill_outer<const N: usize>(
        &self,
        headers: &mut [u8; N],
        outer: &Encapsulation,
        ready: &Ready<'_>,
        total: u16,
        known: &Known,
        addresses: u64,
    ) {
        let hash = hash::flow_hash_v4(addresses, known.protocol, known.ports.swap_bytes(), self.seed);
        let class = known.class & ready.class.0 | ready.class.1;
        // Two sums in one: the carries are folded once.
        let sum = u32::from(outer.ip_sum) + u32::from(total) + u32::from(class);
        let sum = (sum & 0xffff) + (sum >> 16);
        headers[..8].copy_from_slice(&ready.first.to_le_bytes());
        headers[15] = class;
        headers[16..18].copy_from_slice(&total.to_be_bytes());
        headers[24..26].copy_from_slice(&(!(sum as u16)).to_be_bytes());
        headers[34..36].copy_from_slice(&source_port(hash).to_be_bytes());
        headers[38..40].copy_from_slice(&(total - 20).to_be_bytes());
    }

    /// Pushes [outer Ethernet][outer IP, UDP, VXLAN][inner Ethernet] in front of the packet.
    #[inline(always)]
    fn encapsulate_plain(
        &self,
        frame: &mut Frame,
        known: &Known,
        ready: &Ready<'_>,
        rewrite: Option<&CompactRewrite>,
    ) -> Quick {
        let (Some(outer), Some(total)) = (ready.outer, known.total.checked_add(50)) else {
            return Quick::Otherwise;
        };
        let grown = frame.truncate(usize::from(known.total) + 14) && frame.grow_front(50);
        // What is in front of the IP packet, and the headers that were looked at.
        let bytes = frame.bytes_mut().first_chunk_mut::<92>().filter(|_| grown);
        let Some(bytes) = bytes else { return Quick::Drop(DropReason::NoHeadroom) };
        let (headers, header) = bytes.split_at_mut(64);
        let (Some(headers), Some(header)) = (headers.first_chunk_mut::<64>(), header.first_chunk_mut::<28>())
        else {
            return Quick::Otherwise;
        };
        let addresses = rewrite.map_or(known.addresses, |new| new.addresses);
        edit_header(header, rewrite, known.protocol);
        *headers = ready.shared.headers;
        self.fill_outer(headers, outer, ready, total, known, addresses);
        if let Some(mac) = ready.inner {
            headers[50..54].copy_from_slice(&(mac as u32).to_le_bytes());
            headers[54..56].copy_from_slice(&((mac >> 32) as u16).to_le_bytes());
        }
        if rewrite.is_some() {
            edit_tcp(frame.bytes_mut(), 64, rewrite, known.protocol);
        }
        Quick::Send
    }
}

/// Replaces the Ethernet addresses and edits the IP packet behind them.
#[inline(always)]
fn reframe(frame: &mut Frame, known: &Known, ready: &Ready<'_>, rewrite: Option<&CompactRewrite>) -> Quick {
    if !frame.truncate(usize::from(known.total) + 14) {
        return Quick::Otherwise;
    }
    let Some(bytes) = frame.bytes_mut().first_chunk_mut::<42>() else { return Quick::Otherwise };
    let (ethernet, header) = bytes.split_at_mut(14);
    let Some(header) = header.first_chunk_mut::<28>() else { return Quick::Otherwise };
    edit_header(header, rewrite, known.protocol);
    ethernet[..8].copy_from_slice(&ready.first.to_le_bytes());
    ethernet[8..12].copy_from_slice(&ready.shared.mac_tail.to_le_bytes());
    if rewrite.is_some() {
        edit_tcp(frame.bytes_mut(), 14, rewrite, known.protocol);
    }
    Quick::Send
}

/// TTL, protocol and checksum as they stand in the header, read as one little-endian number, after one hop. There was a hop left.
///
/// [`ONE_HOP`] in one addition: the TTL's byte loses one, the checksum's first byte gains one, and what is carried out of its second
/// comes in again (RFC 1624 equation 3: of both zeros it is the one that is all zeros).
#[inline(always)]
fn one_hop_less(word: u32) -> u32 {
    let carry = if word >= 0xfffe_0000 { 0x0001_0000 } else { 0 };
    word.wrapping_add(0x0000_ffff).wrapping_add(carry)
}

/// One hop less, and new addresses and ports: everything but TCP's checksum, which stands further behind.
#[inline(always)]
fn edit_header(header: &mut [u8; 28], rewrite: Option<&CompactRewrite>, protocol: u8) {
    let Some(new) = rewrite else {
        // As one word: of an array of single bytes the compiler makes single reads.
        if let Some(word) = header.get_mut(8..).and_then(|rest| rest.first_chunk_mut()) {
            *word = one_hop_less(u32::from_le_bytes(*word)).to_le_bytes();
        }
        return;
    };
    let sum = u16::from_be_bytes([header[10], header[11]]);
    let [ttl, kind] = [header[8].wrapping_sub(1), header[9]];
    let [high, low] = new.ip.and(ONE_HOP).apply(sum).to_be_bytes();
    header[8..12].copy_from_slice(&[ttl, kind, high, low]);
    header[12..20].copy_from_slice(&new.addresses.to_le_bytes());
    header[20..24].copy_from_slice(&new.ports.to_le_bytes());
    if protocol == protocol::UDP {
        let sum = u16::from_be_bytes([header[26], header[27]]);
        if sum != 0 {
            header[26..28].copy_from_slice(&checksum::udp(new.transport.apply(sum)).to_be_bytes());
        }
    }
}

/// TCP's checksum follows new addresses and ports. The IP packet is at `at`.
#[inline(always)]
fn edit_tcp(frame: &mut [u8], at: usize, rewrite: Option<&CompactRewrite>, protocol: u8) {
    let (Some(new), protocol::TCP) = (rewrite, protocol) else { return };
    if let Some(field) = frame.get_mut(at + 36..at + 38) {
        let sum = u16::from_be_bytes([field[0], field[1]]);
        field.copy_from_slice(&new.transport.apply(sum).to_be_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 1624 section 3, equation 3, for every checksum there is.
    #[test]
    fn one_hop_less_changes_the_checksum_as_a_router_does() {
        for sum in 0..=u16::MAX {
            for [ttl, protocol] in [[2, 6], [64, 17], [255, 255]] {
                let ([high, low], [new_high, new_low]) =
                    (sum.to_be_bytes(), ONE_HOP.apply(sum).to_be_bytes());
                let new = one_hop_less(u32::from_le_bytes([ttl, protocol, high, low])).to_le_bytes();
                assert_eq!(new, [ttl - 1, protocol, new_high, new_low], "{sum:#06x}");
            }
        }
    }
}
