//! Packets addressed to weir itself: ARP, neighbour discovery, ICMP, and ICMP errors about its tunnels.

use crate::chain::Scope;
use crate::decision::{Domain, DropReason, Tuple, Verdict, VrfId};
use crate::frame::Frame;
use crate::l3::local::{Reception, receive};
use crate::l3::{Handled, Interface, Reply, Target, arp};
use crate::packet::{L3, Meta, PacketFlags};
use crate::snapshot::Snapshot;

use super::core::Core;

impl Core {
    /// Deals with a packet that the walk found to be addressed to weir.
    pub(super) fn local(&mut self, snapshot: &Snapshot, scope: &Scope, frame: Frame, meta: &Meta) {
        let (Some(interface), Domain::Vrf(vrf)) = (&scope.interface, scope.domain) else {
            return self.drop_frame(frame, DropReason::InternalError);
        };
        if self.underlay_error(snapshot, vrf, &frame, meta) {
            self.counters.consumed.add(1);
            return self.cache.free(frame);
        }
        let mut out = std::mem::take(&mut self.scratch);
        out.clear();
        let handled = match meta.l3 {
            L3::Arp => {
                arp::handle(frame.bytes(), meta, interface, &snapshot.tables.neighbours, self.now, &mut out)
            }
            _ => self.receive(snapshot, scope, interface, &frame, meta, &mut out),
        };
        match handled.verdict {
            Verdict::Dropped(reason) => self.drop_frame(frame, reason),
            _ => {
                self.counters.consumed.add(1);
                self.cache.free(frame);
            }
        }
        if handled.conflict.is_some() {
            self.counters.address_conflicts.add(1);
        }
        match handled.reply {
            Reply::None => {}
            Reply::Frame => self.emit(snapshot, scope, None, &out),
            Reply::Packet if is_link_local(&out) => self.originate_on(snapshot, scope, &out),
            Reply::Packet => self.originate(snapshot, vrf, &out),
        }
        self.scratch = out;
    }

    /// An IP packet to one of weir's addresses, or to a group.
    fn receive(
        &self,
        snapshot: &Snapshot,
        scope: &Scope,
        interface: &Interface,
        frame: &Frame,
        meta: &Meta,
        out: &mut Vec<u8>,
    ) -> Handled {
        let dropped =
            |reason| Handled { verdict: Verdict::Dropped(reason), reply: Reply::None, conflict: None };
        let Some(tuple) = Tuple::of(frame.bytes(), meta) else { return dropped(DropReason::InternalError) };
        let group = meta.flags.contains(PacketFlags::IP_GROUP);
        if group && !interface.receives(tuple.destination) {
            return dropped(DropReason::MulticastNotRouted);
        }
        // A unicast packet in a link-level group frame is discarded (RFC 1812 section 5.3.4).
        if !group && meta.flags.contains(PacketFlags::ETHER_GROUP) {
            return dropped(DropReason::NotForUs);
        }
        let Domain::Vrf(vrf) = scope.domain else { return dropped(DropReason::InternalError) };
        let owner = match snapshot.pipeline.vrf(vrf).and_then(|vrf| vrf.fib.lookup(tuple.destination)) {
            Some(Target::Broadcast(_)) => return dropped(DropReason::MulticastNotRouted),
            Some(Target::Local(owner)) => snapshot
                .pipeline
                .scope(*owner)
                .and_then(|scope| scope.interface.as_ref())
                .unwrap_or(interface),
            _ => interface,
        };
        let neighbours = &snapshot.tables.neighbours;
        let at = Reception { interface, owner, neighbours, limiter: &self.icmp, now: self.now };
        receive(frame.bytes(), meta, at, out)
    }

    /// Takes in an ICMP error about a tunnel's outer packet: it lowers the MTU towards that endpoint for a time.
    fn underlay_error(&self, snapshot: &Snapshot, vrf: VrfId, frame: &Frame, meta: &Meta) -> bool {
        let vteps = snapshot.pipeline.vteps_of(vrf);
        let about = vteps.and_then(|vteps| crate::overlay::underlay_error(frame.bytes(), meta, vteps));
        let Some(about) = about else { return false };
        for endpoint in about.endpoints {
            snapshot.tables.path_mtu.lower(*endpoint, about.mtu, self.now);
        }
        true
    }
}

/// Whether an IP packet goes to a link-local address.
fn is_link_local(ip: &[u8]) -> bool {
    ip.first().is_some_and(|first| first >> 4 == 6)
        && ip.get(24..26).is_some_and(|address| matches!(address, [0xfe, 0x80..=0xbf]))
}
