//! Replay: does to a packet what its flow's program says. The one place that edits packets which weir forwards.

use weir_config::MacAddress;

use crate::decision::{AdjacencyId, AdjacencyTable, DropReason, Encapsulation, Link, MeterCache, MeterId};
use crate::decision::{MeterTable, Nanos, PortId};
use crate::frame::Frame;
use crate::packet::{Meta, ecn, edit, ether_type, hash, tcp_flags};

use super::{Ops, Program, Rewrite};

/// What replay needs of a scope that packets leave by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Egress {
    /// Port.
    pub port: PortId,
    /// 802.1Q VLAN id to tag with; 0: untagged.
    pub vlan: u16,
    /// Own MAC address.
    pub mac: MacAddress,
}

/// Inner Ethernet addresses of a routed tunnel, by endpoint.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct InnerLink {
    /// Own inner MAC address.
    pub source: MacAddress,
    /// The far end's fixed MAC address; else the program's inner adjacency gives it.
    pub destination: MacAddress,
}

/// What replay cannot do by itself: the packet is as it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exception {
    /// TTL or hop limit would reach zero.
    TtlExpired,
    /// Larger than the program's MTU.
    TooBig,
    /// The next hop has no MAC address yet.
    Unresolved(AdjacencyId),
    /// The next hop does not answer.
    Failed(AdjacencyId),
}

/// What became of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Edited; goes out by this port.
    Send(PortId),
    /// To be dropped.
    Drop(DropReason),
    /// Not edited; the slow path deals with it.
    Exception(Exception),
}

/// Everything that programs point at.
#[derive(Clone, Copy, Debug)]
pub struct Replay<'a> {
    /// By scope.
    pub egress: &'a [Egress],
    /// By endpoint.
    pub endpoints: &'a [Encapsulation],
    /// By endpoint.
    pub inner: &'a [InnerLink],
    /// Next hops.
    pub adjacencies: &'a AdjacencyTable,
    /// Token buckets.
    pub meters: &'a MeterTable,
    /// Seed of the inner-flow hash that tunnels' source ports come from; equal on all workers.
    pub seed: u64,
}

impl Replay<'_> {
    /// The commonest program, [`Ops::FORWARD`], on a packet without tags for a port without tags: in one piece, since here
    /// every instruction counts. The frame is given back as it was if anything is otherwise: [`run`](Self::run) knows.
    // By value, so that the token stays in registers.
    #[inline(always)]
    pub fn forward(
        &self,
        mut frame: Frame,
        meta: &Meta,
        program: &Program,
    ) -> Result<(PortId, Frame), Frame> {
        if program.ops != Ops::FORWARD {
            return Err(frame);
        }
        let Some(egress) = self.egress.get(program.egress.index()) else { return Err(frame) };
        let plain = (meta.l3_offset == 14) & (meta.outer_ecn == 0) & meta.is_ip() & (egress.vlan == 0);
        if !(plain & (meta.ttl > 1) & (meta.l3_len <= program.mtu)) {
            return Err(frame);
        }
        let Link::Resolved(mac) = self.adjacencies.link(program.adjacency) else { return Err(frame) };
        if !frame.truncate(meta.end()) {
            return Err(frame);
        }
        // The EtherType stays.
        let Some((ethernet, packet)) = frame.bytes_mut().split_first_chunk_mut::<14>() else {
            return Err(frame);
        };
        let Some(header) = packet.first_chunk_mut() else { return Err(frame) };
        edit::decrement_header_ttl(header, meta.l3);
        ethernet[..6].copy_from_slice(&mac.0);
        ethernet[6..12].copy_from_slice(&egress.mac.0);
        Ok((egress.port, frame))
    }

    /// [`Ops::TUNNEL`], perhaps metered, on a packet without tags, over IPv4 to a port without tags: in one piece, as
    /// [`forward`](Self::forward). The frame is given back as it was if anything is otherwise.
    #[inline(always)]
    pub fn tunnel(
        &self,
        mut frame: Frame,
        meta: &Meta,
        program: &Program,
        meters: &mut MeterCache,
        now: Nanos,
    ) -> Result<(Outcome, Frame), Frame> {
        if program.ops.difference(Ops::ASIDE) != Ops::TUNNEL {
            return Err(frame);
        }
        let Some(egress) = self.egress.get(program.egress.index()) else { return Err(frame) };
        let Some(outer) = self.endpoints.get(program.endpoint.index()) else { return Err(frame) };
        let Some(link) = self.inner.get(program.endpoint.index()) else { return Err(frame) };
        let plain = (meta.l3_offset == 14) & (meta.outer_ecn == 0) & meta.is_ip() & (egress.vlan == 0);
        let fits = (meta.l3_len <= program.mtu) & (meta.end() <= frame.len()) & (frame.headroom() >= 50);
        if !(plain & fits & (meta.ttl > 1) & outer.is_v4()) {
            return Err(frame);
        }
        let Link::Resolved(mac) = self.adjacencies.link(program.adjacency) else { return Err(frame) };
        // The hash reads the packet where the parser saw it, so before its start moves.
        let source_port = source_port(hash::flow_hash(frame.bytes(), meta, self.seed));
        if program.ops.contains(Ops::METER) && !self.spend(program, meters, meta.l3_len, now) {
            return Ok((Outcome::Drop(DropReason::Policed), frame));
        }
        let grown = frame.truncate(meta.end()) && frame.grow_front(50);
        // [outer Ethernet][outer IP, UDP, VXLAN][inner Ethernet][packet]
        let headers = frame.bytes_mut().split_first_chunk_mut::<64>().filter(|_| grown);
        let Some((headers, packet)) = headers else {
            return Ok((Outcome::Drop(DropReason::NoHeadroom), frame));
        };
        if let Some(header) = packet.first_chunk_mut() {
            edit::decrement_header_ttl(header, meta.l3);
        }
        fill_ethernet(headers, 0, mac, egress.mac, ether_type::IPV4);
        let inner_len = meta.l3_len.saturating_add(14);
        outer.write_outer(&mut headers[14..50], inner_len, Some(meta.traffic_class), source_port);
        fill_ethernet(headers, 50, link.destination, link.source, meta.ether_type);
        Ok((Outcome::Send(egress.port), frame))
    }

    /// Spends tokens of all the program's meters. False if one has too few.
    #[inline(always)]
    fn spend(&self, program: &Program, meters: &mut MeterCache, l3_len: u16, now: Nanos) -> bool {
        let mut ids = program.meters.iter().take(usize::from(program.meter_count));
        ids.all(|id| meters.spend(self.meters, MeterId(u32::from(*id)), l3_len, now))
    }

    /// Does what `program` says to the packet in `frame`: any program, any packet. `rewrite` is asked only by a program
    /// with [`Ops::REWRITE`].
    #[inline(never)]
    pub fn run(
        &self,
        frame: &mut Frame,
        meta: &Meta,
        program: &Program,
        rewrite: impl FnOnce() -> Rewrite,
        meters: &mut MeterCache,
        now: Nanos,
    ) -> Outcome {
        let ops = program.ops;
        if ops.contains(Ops::DROP) {
            return Outcome::Drop(program.reason);
        }
        if ops.contains(Ops::DECREMENT_TTL) && meta.ttl <= 1 {
            return Outcome::Exception(Exception::TtlExpired);
        }
        let l3_len = if meta.is_ip() { usize::from(meta.l3_len) } else { l2_payload(frame, meta) };
        if l3_len > usize::from(program.mtu) {
            return Outcome::Exception(Exception::TooBig);
        }
        if !ops.contains(Ops::ROUTE) && l2_payload(frame, meta) > usize::from(program.mtu) {
            // What is behind the IP packet is nobody's (IEEE 802.3 clause 3.2.8): it does not make a frame longer than its path takes.
            frame.truncate(meta.end());
        }
        // Everything that can refuse comes before the first edit and the first token spent.
        // Into a tunnel a priority tag (VLAN id 0, IEEE 802.1Q clause 9.6) goes too: it names no VLAN.
        let pops = ops.contains(Ops::POP_TAG) || ops.contains(Ops::ENCAPSULATE) && meta.vlan() == 0;
        let kept_tags = meta.vlan_tags.saturating_sub(u8::from(pops));
        if ops.contains(Ops::ENCAPSULATE) && !ops.contains(Ops::ROUTE) && kept_tags > 0 {
            // RFC 7348 section 6.1: a VTEP does not send inner frames with a VLAN tag.
            return Outcome::Drop(DropReason::VxlanInnerVlan);
        }
        let mut outer_mac = MacAddress::default();
        if ops.intersects(Ops::ROUTE | Ops::ENCAPSULATE) && program.adjacency.0 != u32::MAX {
            match self.resolve(program.adjacency) {
                Ok(mac) => outer_mac = mac,
                Err(exception) => return Outcome::Exception(exception),
            }
        }
        let mut inner_mac = None;
        if ops.contains(Ops::INNER_ADJACENCY) {
            match self.resolve(program.inner) {
                Ok(mac) => inner_mac = Some(mac),
                Err(exception) => return Outcome::Exception(exception),
            }
        }
        let mut ecn_set = None;
        if meta.outer_ecn != 0 && meta.is_ip() {
            match ecn::decapsulate(meta.ecn(), meta.outer_ecn) {
                ecn::Decapsulated::Keep => {}
                ecn::Decapsulated::Set(value) => ecn_set = Some(value),
                ecn::Decapsulated::Drop => return Outcome::Drop(DropReason::EcnNotCapable),
            }
        }
        if ops.contains(Ops::METER) {
            let len = u16::try_from(l3_len).unwrap_or(u16::MAX);
            if !self.spend(program, meters, len, now) {
                return Outcome::Drop(DropReason::Policed);
            }
        }
        let mut class = meta.traffic_class;
        if let Some(value) = ecn_set {
            class = class & !3 | value;
            ecn::set_traffic_class(frame.bytes_mut(), meta, class);
        }
        if ops.contains(Ops::REWRITE) {
            // A packet that cannot be rewritten must not leave as it came.
            if !self::rewrite(frame.bytes_mut(), meta, &rewrite()) {
                return Outcome::Drop(DropReason::NatUntranslatable);
            }
        }
        if ops.contains(Ops::CLAMP_MSS) && meta.tcp_flags & tcp_flags::SYN != 0 {
            edit::clamp_mss(frame.bytes_mut(), meta, program.clamp);
        }
        if ops.contains(Ops::DECREMENT_TTL) {
            edit::decrement_ttl(frame.bytes_mut(), meta);
        }
        let egress = self.egress.get(program.egress.index()).copied().unwrap_or_default();
        let done = if ops.contains(Ops::ENCAPSULATE) {
            self.encapsulate(frame, meta, program, class, inner_mac, outer_mac, egress)
        } else if ops.contains(Ops::ROUTE) {
            reframe(frame, meta, outer_mac, egress)
        } else {
            retag(frame, meta, ops, egress.vlan)
        };
        if done { Outcome::Send(egress.port) } else { Outcome::Drop(DropReason::NoHeadroom) }
    }

    #[inline]
    fn resolve(&self, adjacency: AdjacencyId) -> Result<MacAddress, Exception> {
        match self.adjacencies.link(adjacency) {
            Link::Resolved(mac) => Ok(mac),
            Link::Unresolved => Err(Exception::Unresolved(adjacency)),
            Link::Failed => Err(Exception::Failed(adjacency)),
        }
    }

    /// Pushes the tunnel's headers: [outer Ethernet][outer IP, UDP, VXLAN][inner Ethernet][packet].
    #[inline(always)]
    #[allow(clippy::too_many_arguments)]
    fn encapsulate(
        &self,
        frame: &mut Frame,
        meta: &Meta,
        program: &Program,
        class: u8,
        inner_mac: Option<MacAddress>,
        outer_mac: MacAddress,
        egress: Egress,
    ) -> bool {
        let Some(outer) = self.endpoints.get(program.endpoint.index()) else { return false };
        // The hash reads the packet where the parser saw it, so before its start moves.
        let source_port = source_port(hash::flow_hash(frame.bytes(), meta, self.seed));
        let inner_class = meta.is_ip().then_some(class);
        if program.ops.contains(Ops::ROUTE) {
            let link = self.inner.get(program.endpoint.index()).copied().unwrap_or_default();
            let inner = Egress { mac: link.source, ..Egress::default() };
            let destination = inner_mac.unwrap_or(link.destination);
            if !reframe(frame, meta, destination, inner) {
                return false;
            }
        } else if !retag(frame, meta, program.ops | Ops::POP_TAG, 0) {
            return false;
        }
        let Ok(inner_len) = u16::try_from(frame.len()) else { return false };
        let len = usize::from(outer.len);
        if !frame.grow_front(len) {
            return false;
        }
        if let Some(header) = frame.bytes_mut().get_mut(..len) {
            outer.write_outer(header, inner_len, inner_class, source_port);
        }
        outer.fill_udp_checksum(frame.bytes_mut());
        let kind = if outer.is_v4() { ether_type::IPV4 } else { ether_type::IPV6 };
        push_ethernet(frame, outer_mac, egress, kind)
    }
}

/// Rewrites addresses and ports. False if the packet does not take them.
#[inline]
fn rewrite(packet: &mut [u8], meta: &Meta, rewrite: &Rewrite) -> bool {
    rewrite.source.is_none_or(|(ip, port)| edit::set_source(packet, meta, ip, port))
        && rewrite.destination.is_none_or(|(ip, port)| edit::set_destination(packet, meta, ip, port))
        && rewrite.quoted.is_none_or(|(from, to)| edit::set_quoted(packet, meta, from, to))
}

/// A tunnel's UDP source port (RFC 7348 section 5), from the high bits of a flow's hash.
#[inline]
pub(super) fn source_port(hash: u64) -> u16 {
    0xc000 | (hash >> 48) as u16 & 0x3fff
}

/// Bytes behind the Ethernet header and its tags.
#[inline]
fn l2_payload(frame: &Frame, meta: &Meta) -> usize {
    frame.len().saturating_sub(usize::from(meta.l3_offset))
}

/// Replaces the Ethernet header and its tags, and takes off padding behind the IP packet.
#[inline]
fn reframe(frame: &mut Frame, meta: &Meta, destination: MacAddress, egress: Egress) -> bool {
    if meta.l3_offset == 14 && egress.vlan == 0 {
        // The new header is as long as the old one.
        return frame.set_len(meta.end()) && write_ethernet(frame, destination, egress.mac, meta.ether_type);
    }
    frame.strip(usize::from(meta.l3_offset))
        && frame.set_len(usize::from(meta.l3_len))
        && push_ethernet(frame, destination, egress, meta.ether_type)
}

/// Writes an Ethernet header at a constant place.
#[inline(always)]
fn fill_ethernet<const N: usize>(
    headers: &mut [u8; N],
    at: usize,
    destination: MacAddress,
    source: MacAddress,
    kind: u16,
) {
    headers[at..at + 6].copy_from_slice(&destination.0);
    headers[at + 6..at + 12].copy_from_slice(&source.0);
    headers[at + 12..at + 14].copy_from_slice(&kind.to_be_bytes());
}

/// Writes the first 14 bytes of a frame.
#[inline]
fn write_ethernet(frame: &mut Frame, destination: MacAddress, source: MacAddress, kind: u16) -> bool {
    let Some(header) = frame.bytes_mut().first_chunk_mut::<14>() else { return false };
    fill_ethernet(header, 0, destination, source, kind);
    true
}

/// Writes an Ethernet header, tagged if the egress scope is a VLAN.
#[inline]
fn push_ethernet(frame: &mut Frame, destination: MacAddress, egress: Egress, kind: u16) -> bool {
    if egress.vlan == 0 {
        return frame.grow_front(14) && write_ethernet(frame, destination, egress.mac, kind);
    }
    if !(frame.grow_front(18) && write_ethernet(frame, destination, egress.mac, ether_type::VLAN)) {
        return false;
    }
    if let Some(tag) = frame.bytes_mut().get_mut(14..18) {
        let ([a, b], [c, d]) = (egress.vlan.to_be_bytes(), kind.to_be_bytes());
        tag.copy_from_slice(&[a, b, c, d]);
    }
    true
}

/// Takes the ingress scope's tag off and puts the egress scope's on; the rest of the frame stays as it is.
#[inline]
fn retag(frame: &mut Frame, meta: &Meta, ops: Ops, vlan: u16) -> bool {
    if ops.contains(Ops::POP_TAG) && meta.vlan_tags > 0 {
        let Some(head) = frame.bytes_mut().get_mut(..16) else { return false };
        head.copy_within(0..12, 4);
        frame.strip(4);
    }
    if vlan != 0 {
        if !frame.grow_front(4) {
            return false;
        }
        let Some(head) = frame.bytes_mut().get_mut(..16) else { return false };
        head.copy_within(4..16, 0);
        let [a, b] = ether_type::VLAN.to_be_bytes();
        let [c, d] = vlan.to_be_bytes();
        head[12..16].copy_from_slice(&[a, b, c, d]);
    }
    true
}
