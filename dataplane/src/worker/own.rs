//! What weir makes itself, frames and IP packets, and how it is sent: by a program made on the spot. ICMP errors about packets that
//! were not passed are among it (RFC 1812 section 4.3.2).

use std::net::IpAddr;

use crate::chain::{Scope, ScopeKind, Walker};
use crate::decision::{Domain, DropReason, EndpointId, Nanos, Tuple, VrfId};
use crate::flow::{Program, Rewrite};
use crate::frame::Frame;
use crate::l2::Member;
use crate::l3::icmp::{self, IcmpError};
use crate::l3::{self, sanity};
use crate::packet::{self, Meta, PacketFlags, hash};
use crate::snapshot::Snapshot;

use super::core::Core;
use super::held::Origin;

impl Core {
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
    pub(super) fn make(&mut self, bytes: &[u8]) -> Option<(Frame, Meta)> {
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

    pub(super) fn send_routed(&mut self, snapshot: &Snapshot, vrf: VrfId, frame: Frame, meta: &Meta) {
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
        let routed = matches!(scope.domain, Domain::Vrf(_) | Domain::Hop(_));
        let group = meta.flags.intersects(PacketFlags::ETHER_GROUP | PacketFlags::IP_GROUP);
        if !routed && (group || !sanity::is_host(tuple.destination)) {
            // There is no address to answer from: no group, and nobody, may be a source (RFC 4291 sections 2.5.2 and 2.7).
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
