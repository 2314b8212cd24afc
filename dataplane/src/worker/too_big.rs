//! Packets larger than their path: fragments of IPv4 (RFC 791 section 3.2), or the MTU to the sender (RFC 1191, RFC 8201).

use crate::decision::DropReason;
use crate::flow::{Exception, Outcome, Program, Rewrite};
use crate::frame::Frame;
use crate::l3;
use crate::l3::icmp::IcmpError;
use crate::packet::{self, L3, Meta, PacketFlags};
use crate::snapshot::Snapshot;

use super::core::Core;
use super::held::Origin;

impl Core {
    /// A packet larger than its path: IPv4 without DF is fragmented (RFC 791 section 3.2), of everything else the sender
    /// learns the MTU (RFC 1191, RFC 8201).
    pub(super) fn too_big(
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
}
