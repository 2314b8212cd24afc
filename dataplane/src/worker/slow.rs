//! What replay leaves to the slow path: packets too big, out of TTL, without a resolved next hop; floods; and the packets
//! that weir makes itself.

use std::net::IpAddr;

use crate::chain::{Scope, ScopeKind, Walker};
use crate::decision::{AdjacencyId, Domain, DropReason, EndpointId, Link, Nanos, ScopeId, Tuple, VrfId};
use crate::flow::{Exception, Ops, Outcome, Program, Rewrite};
use crate::frame::Frame;
use crate::l2::Member;
use crate::l3::icmp::{self, IcmpError};
use crate::l3::{self, NeighbourAction};
use crate::packet::{self, L3, Meta, PacketFlags, hash};
use crate::snapshot::Snapshot;

use super::core::Core;
use super::held::{Held, Origin};

impl Core {
    /// Deals with whatever replay did not send.
    #[cold]
    pub(super) fn unusual(
        &mut self,
        snapshot: &Snapshot,
        frame: Frame,
        meta: Meta,
        origin: Origin,
        outcome: Outcome,
        program: &Program,
        rewrite: &Rewrite,
    ) {
        match outcome {
            Outcome::Send(port) => self.stage.push(port, frame),
            Outcome::Drop(reason) => self.refuse(snapshot, frame, &meta, origin, reason),
            Outcome::Exception(Exception::TtlExpired) => {
                self.refuse(snapshot, frame, &meta, origin, DropReason::TtlExpired);
            }
            Outcome::Exception(Exception::TooBig) => {
                self.too_big(snapshot, frame, &meta, origin, program, rewrite);
            }
            Outcome::Exception(Exception::Unresolved(adjacency)) => {
                self.hold(frame, meta, origin, adjacency);
            }
            Outcome::Exception(Exception::Failed(adjacency)) => {
                self.ask_again(snapshot, &frame, &meta, origin, rewrite);
                if snapshot.tables.adjacencies.link(adjacency) == Link::Failed {
                    self.refuse(snapshot, frame, &meta, origin, DropReason::NeighbourUnreachable);
                } else {
                    // It is asked for again: the packet waits like one whose flow is new.
                    self.hold(frame, meta, origin, adjacency);
                }
            }
        }
    }

    /// Drops a packet, and tells its sender where a router tells.
    pub(super) fn refuse(
        &mut self,
        snapshot: &Snapshot,
        frame: Frame,
        meta: &Meta,
        origin: Origin,
        reason: DropReason,
    ) {
        if let Origin::Received(scope) = origin {
            let error = match reason {
                DropReason::TtlExpired => Some(IcmpError::TimeExceeded),
                DropReason::NoRoute => Some(IcmpError::NetUnreachable),
                DropReason::NeighbourUnreachable => Some(IcmpError::HostUnreachable),
                DropReason::FirewallRejected => Some(IcmpError::AdminProhibited),
                _ => None,
            };
            debug_assert_eq!(error.is_some(), reason.is_told(), "{}", reason.name());
            if let (Some(error), Some(scope)) = (error, snapshot.pipeline.scope(scope)) {
                self.tell(snapshot, scope, frame.bytes(), meta, error);
            }
        }
        self.drop_frame(frame, reason);
    }

    /// A packet larger than its path: IPv4 without DF is fragmented (RFC 791 section 3.2), of everything else the sender
    /// learns the MTU (RFC 1191, RFC 8201).
    fn too_big(
        &mut self,
        snapshot: &Snapshot,
        frame: Frame,
        meta: &Meta,
        origin: Origin,
        program: &Program,
        rewrite: &Rewrite,
    ) {
        if meta.l3 == L3::V4 && !meta.flags.contains(PacketFlags::DF) {
            return self.fragment(snapshot, frame, meta, origin, program, rewrite);
        }
        let ingress = match origin {
            Origin::Received(scope) => Some(scope),
            Origin::Member { flooded, .. } => flooded,
            Origin::Originated(_) => None,
        };
        if let Some(scope) = ingress.and_then(|scope| snapshot.pipeline.scope(scope)) {
            self.tell(snapshot, scope, frame.bytes(), meta, IcmpError::TooBig { mtu: program.mtu });
        }
        self.drop_frame(frame, DropReason::PacketTooBig);
    }

    /// Sends a packet in fragments. The first takes the packet's verdict; the others count as originated.
    fn fragment(
        &mut self,
        snapshot: &Snapshot,
        frame: Frame,
        meta: &Meta,
        origin: Origin,
        program: &Program,
        rewrite: &Rewrite,
    ) {
        let bytes = frame.bytes();
        let l3_at = usize::from(meta.l3_offset);
        let (Some(head), Some(ip)) = (bytes.get(..l3_at), bytes.get(l3_at..meta.end())) else {
            return self.drop_frame(frame, DropReason::FragmentationFailed);
        };
        let mut pieces: Vec<Vec<u8>> = Vec::new();
        let cut = l3::fragment(ip, program.mtu, |piece| pieces.push([head, piece].concat()));
        if cut.is_err() {
            return self.drop_frame(frame, DropReason::FragmentationFailed);
        }
        let mut original = Some(frame);
        for piece in pieces {
            let target = match original.take() {
                Some(frame) => Some(frame),
                None => {
                    self.counters.originated.add(1);
                    self.cache.alloc()
                }
            };
            let Some(mut target) = target else {
                self.counters.count_drop(DropReason::NoFrames);
                continue;
            };
            let mut piece_meta = Meta::default();
            if !target.write(&piece) || packet::parse_into(target.bytes(), &mut piece_meta).is_err() {
                self.drop_frame(target, DropReason::FragmentationFailed);
                continue;
            }
            (piece_meta.outer_ecn, piece_meta.endpoint) = (meta.outer_ecn, meta.endpoint);
            let outcome = self.run(snapshot, &mut target, &piece_meta, program, rewrite);
            match outcome {
                Outcome::Send(port) => self.stage.push(port, target),
                Outcome::Exception(Exception::TooBig) => {
                    self.drop_frame(target, DropReason::FragmentationFailed);
                }
                other => self.unusual(snapshot, target, piece_meta, origin, other, program, rewrite),
            }
        }
        if let Some(frame) = original {
            self.drop_frame(frame, DropReason::FragmentationFailed);
        }
    }

    /// Holds a packet until its next hop is resolved.
    fn hold(&mut self, frame: Frame, meta: Meta, origin: Origin, adjacency: AdjacencyId) {
        if let Err(frame) = self.held.hold(frame, meta, origin, adjacency, self.now) {
            self.drop_frame(frame, DropReason::NeighbourQueueFull);
        }
        self.counters.held.set(self.held.len() as u64);
    }

    /// Takes up the held packets whose next hop was resolved, and answers those whose next hop failed.
    pub(super) fn release(&mut self, snapshot: &Snapshot) {
        while let Some((held, link)) = self.held.take(&snapshot.tables.adjacencies, self.now) {
            if let Link::Resolved(_) = link {
                self.go_on(snapshot, held);
            } else {
                let Held { frame, meta, origin, .. } = held;
                self.refuse(snapshot, frame, &meta, origin, DropReason::NeighbourUnreachable);
            }
        }
        self.answer_asks(snapshot);
        self.counters.held.set(self.held.len() as u64);
    }

    /// Takes up everything that is held: a new generation may send it elsewhere.
    pub(super) fn release_all(&mut self, snapshot: &Snapshot) {
        if self.held.is_empty() {
            return;
        }
        let held: Vec<Held> = self.held.drain().collect();
        for packet in held {
            self.go_on(snapshot, packet);
        }
        self.answer_asks(snapshot);
        self.counters.held.set(self.held.len() as u64);
    }

    /// Takes a held packet up where it was left.
    fn go_on(&mut self, snapshot: &Snapshot, held: Held) {
        let Held { frame, meta, origin, .. } = held;
        match origin {
            Origin::Received(scope) => self.resume(snapshot, frame, meta, scope),
            Origin::Originated(vrf) => self.send_routed(snapshot, vrf, frame, &meta),
            Origin::Member { member, pop_tag, flooded } => {
                self.send_to_member(snapshot, frame, &meta, member, pop_tag, flooded);
            }
        }
    }

    /// Drops what is held: the engine stops.
    pub fn abandon_held(&mut self) {
        let held: Vec<_> = self.held.drain().collect();
        for packet in held {
            self.drop_frame(packet.frame, DropReason::NeighbourUnreachable);
        }
        self.counters.held.set(0);
    }

    /// Asks for the next hop of a packet once more; the table says whether it is time.
    fn ask_again(
        &mut self,
        snapshot: &Snapshot,
        frame: &Frame,
        meta: &Meta,
        origin: Origin,
        rewrite: &Rewrite,
    ) {
        let asks = std::mem::take(&mut self.asks);
        let walker =
            Walker { pipeline: &snapshot.pipeline, tables: &snapshot.tables, asks: &asks, last_way: None };
        let hash = hash::flow_hash(frame.bytes(), meta, snapshot.tables.seed);
        match origin {
            Origin::Received(scope) => {
                if let Some(scope) = snapshot.pipeline.scope(scope) {
                    let mut program = Program::default();
                    walker.forward_again(scope, frame.bytes(), meta, &mut program, rewrite, self.now);
                }
            }
            Origin::Originated(vrf) => {
                if let Some(tuple) = Tuple::of(frame.bytes(), meta) {
                    let _ = walker.route(vrf, tuple.destination, hash, self.now);
                }
            }
            Origin::Member { member, pop_tag, .. } => {
                let _ = walker.to_member(pop_tag, member, hash, self.now);
            }
        }
        self.asks = asks;
        self.answer_asks(snapshot);
    }

    /// Sends what the neighbour table asked for during a walk.
    pub(super) fn answer_asks(&mut self, snapshot: &Snapshot) {
        loop {
            let Some(action) = self.asks.get_mut().pop() else { return };
            self.neighbour_action(snapshot, action);
        }
    }

    /// Does what the neighbour table wants done.
    pub fn neighbour_action(&mut self, snapshot: &Snapshot, action: NeighbourAction) {
        match action {
            NeighbourAction::Solicit { scope, ip, unicast_to } => {
                let Some(known) = snapshot.pipeline.scope(scope) else { return };
                let Some(interface) = &known.interface else { return };
                let mut out = std::mem::take(&mut self.scratch);
                out.clear();
                if l3::solicit(interface, ip, unicast_to, &mut out) {
                    self.emit(snapshot, known, None, &out);
                }
                self.scratch = out;
            }
            NeighbourAction::AskKernel { scope, ip } => snapshot.ask_kernel(scope, ip),
            NeighbourAction::Failed { .. } | NeighbourAction::Expired { .. } => {}
        }
    }

    /// Sends an Ethernet frame that weir made out of `scope`; of a tunnel with several remotes, to `endpoint`.
    pub(super) fn emit(
        &mut self,
        snapshot: &Snapshot,
        scope: &Scope,
        endpoint: Option<EndpointId>,
        bytes: &[u8],
    ) {
        self.counters.originated.add(1);
        let Some((frame, meta)) = self.make(bytes) else { return };
        let endpoint = endpoint.or_else(|| match &scope.kind {
            ScopeKind::Tunnel(endpoints) => endpoints.first().copied(),
            ScopeKind::Port => None,
        });
        self.send_to_member(snapshot, frame, &meta, Member { scope: scope.id, endpoint }, false, None);
    }

    /// A frame with these bytes, parsed. Counts the drop if there is none, or if they do not parse.
    fn make(&mut self, bytes: &[u8]) -> Option<(Frame, Meta)> {
        let Some(mut frame) = self.cache.alloc() else {
            self.counters.count_drop(DropReason::NoFrames);
            return None;
        };
        let mut meta = Meta::default();
        if !frame.write(bytes) || packet::parse_into(frame.bytes(), &mut meta).is_err() {
            self.drop_frame(frame, DropReason::InternalError);
            return None;
        }
        Some((frame, meta))
    }

    /// Routes an IP packet that weir made, in `vrf`.
    pub(super) fn originate(&mut self, snapshot: &Snapshot, vrf: VrfId, ip: &[u8]) {
        self.originate_by(snapshot, vrf, ip, |walker, tuple, now| {
            walker.route(vrf, tuple.destination, 0, now)
        });
    }

    fn originate_by(
        &mut self,
        snapshot: &Snapshot,
        vrf: VrfId,
        ip: &[u8],
        way: impl FnOnce(&Walker<'_>, Tuple, Nanos) -> Result<Program, DropReason>,
    ) {
        self.counters.originated.add(1);
        let v6 = ip.first().is_some_and(|first| first >> 4 == 6);
        let kind = if v6 { packet::ether_type::IPV6 } else { packet::ether_type::IPV4 };
        let [a, b] = kind.to_be_bytes();
        let bytes = [&[0; 12][..], &[a, b], ip].concat();
        if let Some((frame, meta)) = self.make(&bytes) {
            self.send_by(snapshot, vrf, frame, &meta, way);
        }
    }

    /// Sends an IP packet that weir made to a neighbour on `scope`: a link-local destination needs no route.
    pub(super) fn originate_on(&mut self, snapshot: &Snapshot, scope: &Scope, ip: &[u8]) {
        let Domain::Vrf(vrf) = scope.domain else { return };
        let id = scope.id;
        self.originate_by(snapshot, vrf, ip, |walker, tuple, now| {
            walker.towards(id, tuple.destination, 0, now)
        });
    }

    fn send_routed(&mut self, snapshot: &Snapshot, vrf: VrfId, frame: Frame, meta: &Meta) {
        let hash = hash::flow_hash(frame.bytes(), meta, snapshot.tables.seed);
        self.send_by(snapshot, vrf, frame, meta, |walker, tuple, now| {
            walker.route(vrf, tuple.destination, hash, now)
        });
    }

    fn send_by(
        &mut self,
        snapshot: &Snapshot,
        vrf: VrfId,
        mut frame: Frame,
        meta: &Meta,
        way: impl FnOnce(&Walker<'_>, Tuple, Nanos) -> Result<Program, DropReason>,
    ) {
        let Some(tuple) = Tuple::of(frame.bytes(), meta) else {
            return self.drop_frame(frame, DropReason::InternalError);
        };
        let asks = std::mem::take(&mut self.asks);
        let walker =
            Walker { pipeline: &snapshot.pipeline, tables: &snapshot.tables, asks: &asks, last_way: None };
        let result = way(&walker, tuple, self.now);
        self.asks = asks;
        match result {
            Ok(program) => {
                let rewrite = Rewrite::default();
                let outcome = self.run(snapshot, &mut frame, meta, &program, &rewrite);
                let origin = Origin::Originated(vrf);
                self.unusual(snapshot, frame, *meta, origin, outcome, &program, &rewrite);
            }
            Err(reason) => self.drop_frame(frame, reason),
        }
        self.answer_asks(snapshot);
    }

    /// Tells the sender of `packet`, which came in by `scope`, that it could not be passed; within the rate limit.
    pub(super) fn tell(
        &mut self,
        snapshot: &Snapshot,
        scope: &Scope,
        packet: &[u8],
        meta: &Meta,
        error: IcmpError,
    ) {
        let Some(tuple) = Tuple::of(packet, meta) else { return };
        if icmp::may_answer(error, packet, meta).is_err() {
            return;
        }
        if !self.icmp.allow(self.now) {
            self.counters.icmp_limited.add(1);
            return;
        }
        let source = match scope.domain {
            Domain::Vrf(vrf) => self.error_source(snapshot, vrf, scope, tuple.source),
            Domain::Hop(_) => source_behind_hop(snapshot, scope, packet, tuple.source),
            // Without an address of its own in the bridge domain the answer comes, as Linux does it, from the address that
            // the packet was sent to.
            Domain::Bridge(_) | Domain::CrossConnect(_) => Some(tuple.destination),
        };
        let Some(source) = source else { return };
        let mut out = std::mem::take(&mut self.scratch);
        out.clear();
        let made = if error == IcmpError::AdminProhibited && tuple.protocol == packet::protocol::TCP {
            icmp::tcp_reset(packet, meta, &mut out)
        } else {
            icmp::error(error, packet, meta, source, &mut out).is_ok()
        };
        if made {
            match scope.domain {
                Domain::Vrf(vrf) => self.originate(snapshot, vrf, &out),
                // The hop sees the error too, and on its other side it is translated as what it is about was.
                Domain::Bridge(_) | Domain::CrossConnect(_) | Domain::Hop(_) => {
                    self.send_back(snapshot, scope, packet, meta, &out);
                }
            }
        }
        self.scratch = out;
    }

    /// Source of an ICMP error: an address of the interface that it leaves by (RFC 1812 section 4.3.2.4).
    fn error_source(&self, snapshot: &Snapshot, vrf: VrfId, ingress: &Scope, to: IpAddr) -> Option<IpAddr> {
        let asks = std::cell::RefCell::default();
        let walker =
            Walker { pipeline: &snapshot.pipeline, tables: &snapshot.tables, asks: &asks, last_way: None };
        let (egress, _) = walker.next_hop(vrf, to, 0).ok()?;
        let egress = snapshot.pipeline.scope(egress)?.interface.as_ref()?;
        let all = snapshot.pipeline.scopes.iter().flatten().filter_map(|scope| scope.interface.as_ref());
        let preferred = ingress.interface.iter();
        l3::source_in_vrf(egress, preferred.chain(all), to)
    }

    /// Sends an IP packet back to the Ethernet source of a bridged packet, out of the interface that it came in by.
    fn send_back(&mut self, snapshot: &Snapshot, scope: &Scope, packet: &[u8], meta: &Meta, ip: &[u8]) {
        // The scope's own tag is put on when the frame leaves; further ones go back as they came.
        let kept = if scope.vlan != 0 && meta.vlan_tags > 0 { 16 } else { 12 };
        let tags = packet.get(kept..usize::from(meta.l3_offset));
        let (Some(to), Some(from), Some(tags)) = (packet.get(6..12), packet.get(..6), tags) else { return };
        let bytes = [to, from, tags, ip].concat();
        let endpoint = matches!(scope.kind, ScopeKind::Tunnel(_)).then_some(EndpointId(meta.endpoint));
        self.emit(snapshot, scope, endpoint, &bytes);
    }

    /// Sends a frame to every other member of its bridge domain. The last copy is the frame itself and takes its verdict;
    /// the others count as originated.
    pub(super) fn flood(
        &mut self,
        snapshot: &Snapshot,
        scope: &Scope,
        mut frame: Frame,
        meta: &Meta,
        program: Program,
        rewrite: Rewrite,
    ) {
        let Domain::Bridge(id) = scope.domain else {
            return self.drop_frame(frame, DropReason::InternalError);
        };
        let Some(bridge) = snapshot.pipeline.bridge(id) else {
            return self.drop_frame(frame, DropReason::NotConfigured);
        };
        let endpoint = matches!(scope.kind, ScopeKind::Tunnel(_)).then_some(EndpointId(meta.endpoint));
        let ingress = Member { scope: scope.id, endpoint };
        let targets: Vec<Member> = bridge.flood_targets(ingress).collect();
        let Some((last, others)) = targets.split_last() else {
            return self.drop_frame(frame, DropReason::BridgeNoMember);
        };
        // Meters are spent, and addresses rewritten, once, whatever the number of copies. By no interface: no tag is put on.
        let once = program.ops & (Ops::METER | Ops::REWRITE);
        if !once.is_empty() {
            let gate = Program { ops: once, egress: ScopeId(u16::MAX), ..program };
            if let Outcome::Drop(reason) = self.run(snapshot, &mut frame, meta, &gate, &rewrite) {
                return self.drop_frame(frame, reason);
            }
        }
        let pop_tag = scope.vlan != 0;
        // To a group nobody answers (RFC 1812 section 4.3.2.7), and there is no address to answer from.
        let flooded = (!meta.flags.contains(PacketFlags::ETHER_GROUP)).then_some(scope.id);
        for member in others {
            self.counters.originated.add(1);
            match self.make(frame.bytes()) {
                Some((copy, mut copy_meta)) => {
                    (copy_meta.outer_ecn, copy_meta.endpoint) = (meta.outer_ecn, meta.endpoint);
                    self.send_to_member(snapshot, copy, &copy_meta, *member, pop_tag, flooded);
                }
                None => continue,
            }
        }
        self.send_to_member(snapshot, frame, meta, *last, pop_tag, flooded);
    }

    /// Sends a frame to one member, its Ethernet header kept.
    fn send_to_member(
        &mut self,
        snapshot: &Snapshot,
        mut frame: Frame,
        meta: &Meta,
        member: Member,
        pop_tag: bool,
        flooded: Option<ScopeId>,
    ) {
        let asks = std::mem::take(&mut self.asks);
        let walker =
            Walker { pipeline: &snapshot.pipeline, tables: &snapshot.tables, asks: &asks, last_way: None };
        let hash = hash::flow_hash(frame.bytes(), meta, snapshot.tables.seed);
        let result = walker.to_member(pop_tag, member, hash, self.now);
        self.asks = asks;
        match result {
            Ok(program) => {
                let rewrite = Rewrite::default();
                let outcome = self.run(snapshot, &mut frame, meta, &program, &rewrite);
                let origin = Origin::Member { member, pop_tag, flooded };
                self.unusual(snapshot, frame, *meta, origin, outcome, &program, &rewrite);
            }
            Err(reason) => self.drop_frame(frame, reason),
        }
    }
}

/// Source of an ICMP error about a packet that came back from an attached hop: an address of the interface that it came to weir
/// by, which its Ethernet destination tells; else of any of the VRF.
fn source_behind_hop(snapshot: &Snapshot, scope: &Scope, packet: &[u8], to: IpAddr) -> Option<IpAddr> {
    let vrf = snapshot.pipeline.vrf_of(scope)?;
    let all = snapshot.pipeline.scopes.iter().flatten().filter_map(|scope| scope.interface.as_ref());
    let of_vrf = || all.clone().filter(|interface| interface.vrf == vrf);
    let sent_to = of_vrf().find(|interface| packet.get(..6) == Some(&interface.mac.0));
    l3::source_in_vrf(sent_to.or_else(|| of_vrf().next())?, of_vrf(), to)
}
