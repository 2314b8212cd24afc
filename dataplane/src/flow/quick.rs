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
    /// Length of the IP packet in bytes.
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
}

impl Ready<'_> {
    /// Whether the program may be replayed in one piece on a packet with options, or on a fragment: their ports are elsewhere, or
    /// are not part of what the outer source port is made of.
    #[inline]
    pub fn takes_odd(&self) -> bool {
        !self.steps.intersects(Steps::REWRITE | Steps::ENCAPSULATE)
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
        Some(Ready { shared, first, steps, mtu: shared.mtu, inner, outer })
    }

    /// Forwards a plain IPv6 packet of `total` bytes.
    #[inline(always)]
    pub fn quick_v6(&self, frame: &mut Frame, total: u16, ready: &Ready<'_>) -> Quick {
        if (ready.steps != Steps::FORWARD) | (total > ready.mtu) || !frame.truncate(usize::from(total) + 14) {
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
            return Quick::Otherwise;
        }
        if ready.steps == Steps::FORWARD {
            return reframe(frame, known, ready, None);
        }
        if ready.steps.intersects(Steps::METER | Steps::REWRITE) {
            return Quick::Otherwise;
        }
        self.encapsulate_plain(frame, known, ready, None)
    }

    /// Forwards a plain IPv4 packet of a flow.
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
        self.fill_outer(headers, outer, total, known, known.addresses, ready.first);
        Quick::Send
    }

    /// Fills in what is a packet's own in its outer headers. `total` is the length of the outer packet in bytes.
    #[inline(always)]
    fn fill_outer<const N: usize>(
        &self,
        headers: &mut [u8; N],
        outer: &Encapsulation,
        total: u16,
        known: &Known,
        addresses: u64,
        first: u64,
    ) {
        let hash = hash::flow_hash_v4(addresses, known.protocol, known.ports.swap_bytes(), self.seed);
        let class = ecn::outer_traffic_class(outer.dscp, Some(known.class));
        // Two sums in one: the carries are folded once.
        let sum = u32::from(outer.ip_sum) + u32::from(total) + u32::from(class);
        let sum = (sum & 0xffff) + (sum >> 16);
        headers[..8].copy_from_slice(&first.to_le_bytes());
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
        self.fill_outer(headers, outer, total, known, addresses, ready.first);
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

/// One hop less, and new addresses and ports: everything but TCP's checksum, which stands further behind.
#[inline(always)]
fn edit_header(header: &mut [u8; 28], rewrite: Option<&CompactRewrite>, protocol: u8) {
    let sum = u16::from_be_bytes([header[10], header[11]]);
    let [ttl, kind] = [header[8].wrapping_sub(1), header[9]];
    let Some(new) = rewrite else {
        let [high, low] = ONE_HOP.apply(sum).to_be_bytes();
        // In one store, as it is read next.
        header[8..12].copy_from_slice(&[ttl, kind, high, low]);
        return;
    };
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
