//! Frames to every member of a bridge domain, and a frame to one of them.

use crate::chain::{Scope, ScopeKind, Walker};
use crate::decision::{Domain, DropReason, EndpointId, ScopeId};
use crate::flow::{Ops, Outcome, Program, Rewrite};
use crate::frame::Frame;
use crate::l2::Member;
use crate::packet::{Meta, PacketFlags, hash};
use crate::snapshot::Snapshot;

use super::core::Core;
use super::held::Origin;

impl Core {
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
    pub(super) fn send_to_member(
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
