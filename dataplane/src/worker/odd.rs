//! What a burst has among plain packets: malformed ones, and packets with options, fragments, other protocols.
//!
//! The parser looks at them while the burst is scanned. So what is malformed is dropped at once, for the parser's own reason, and
//! what is merely odd goes on with the plain packets around it: neither stops the burst.

use crate::chain::{Lane, Scope, Tables};
use crate::decision::{DropReason, Nanos, ScopeId, Tuple};
use crate::flow::{CompactKey, Known};
use crate::frame::Frame;
use crate::packet::{self, FragmentKind, Meta, PacketFlags, plain, protocol, tcp_flags};
use crate::session::session_domain;

use super::core::Core;
use super::lane::{Kind, Routes, Tag, View, Work, is_v6};
use super::pass::Under;

/// TCP flags that tell of a connection's beginning or end.
const TURNING: u8 = tcp_flags::SYN | tcp_flags::FIN | tcp_flags::RST;
/// The least that is edited in one piece, in bytes of the IP packet.
const SHORTEST: u16 = 28;

impl Core {
    /// Looks closer at what is not plain among frames from `at` on, until one is for the parser alone. Drops what is malformed, and
    /// closes the gap. Says how many frames are left of those that it came past, and whether it stopped.
    #[inline(never)]
    pub(super) fn look_closer(
        &mut self,
        under: &Under<'_>,
        view: &View<'_>,
        frames: &mut Vec<Frame>,
        at: usize,
        work: &mut [Work],
    ) -> (usize, bool) {
        let (mut kept, mut next) = (0, 0);
        let tables = &under.snapshot.tables;
        let scope = under.snapshot.pipeline.scope(view.scope);
        while let (Some(frame), Some(place)) = (frames.get(at + next), work.get_mut(next)) {
            if place.tag.is(Kind::Parsed) {
                // What is bridged may be malformed inside.
                let malformed = plain::malformed_v4(frame.bytes()).filter(|_| view.lane != Lane::Bridge);
                if let Some(malformed) = malformed {
                    self.counters.count_drop(malformed.into());
                    next += 1;
                    continue;
                }
                view.classify(tables, scope, self.now, frame.bytes(), place);
                match place.tag.kind() {
                    Kind::Parsed => break,
                    Kind::Dropped => {
                        self.counters.count_drop(place.reason);
                        next += 1;
                        continue;
                    }
                    Kind::Flow => {
                        place.hash = self.flows.compact.hash(&place.odd_key());
                        self.flows.compact.prefetch(place.hash);
                    }
                    _ => {}
                }
            }
            if kept != next {
                let moved = *place;
                if let Some(place) = work.get_mut(kept) {
                    *place = moved;
                }
                frames.swap(at + kept, at + next);
            }
            kept += 1;
            next += 1;
        }
        if kept < next {
            frames.drain(at + kept..at + next).for_each(|frame| self.cache.free(frame));
        }
        (kept, next < work.len())
    }
}

impl View<'_> {
    /// Says of a frame that is not plain whether it is malformed, or how it is passed nevertheless; leaves it to the parser if it
    /// is neither. Of what it drops, admission would say the same.
    #[inline(always)]
    pub(super) fn classify(
        &self,
        tables: &Tables,
        scope: Option<&Scope>,
        now: Nanos,
        frame: &[u8],
        work: &mut Work,
    ) {
        // Nothing twice: what is well-formed here is for the parser anyway.
        let v4 = frame.get(12..14).is_none_or(|kind| kind == [8, 0]);
        if self.lane == Lane::Bridge || !v4 {
            let routes = self.routes.filter(|_| self.lane == Lane::Routes && is_v6(frame));
            if let Some(Routes { fib, .. }) = routes {
                self.put_v6(fib, frame, work);
            }
            return;
        }
        let mut meta = Meta::default();
        let refuse = |work: &mut Work, reason| {
            (work.tag, work.reason) = (Tag::new(ScopeId(0), Kind::Dropped, false), reason);
        };
        if let Err(malformed) = packet::parse_into(frame, &mut meta) {
            return refuse(work, malformed.into());
        }
        let group = meta.flags.intersects(PacketFlags::ETHER_GROUP | PacketFlags::IP_GROUP);
        if group {
            return;
        }
        let Some(header) = frame.first_chunk::<34>() else { return };
        let [a, b, c, d, e, f, g, h, ..] = *header;
        if !self.station.is(u64::from_le_bytes([a, b, c, d, e, f, g, h])) {
            return refuse(work, DropReason::NotForUs);
        }
        let odd = plain::is_odd_v4(header[26]) | plain::is_odd_v4(header[30]) | (meta.ttl <= 1);
        // UDP may be for a tunnel.
        let tunnelled = self.vteps.is_some() && meta.protocol == protocol::UDP;
        if odd | tunnelled | (meta.l3_len < SHORTEST) {
            return;
        }
        let [.., a, b, c, d, e, f, g, h] = *header;
        let addresses = u64::from_le_bytes([a, b, c, d, e, f, g, h]);
        let turning = meta.protocol == protocol::TCP && meta.tcp_flags & TURNING != 0;
        let (total, class, protocol) = (meta.l3_len, meta.traffic_class, meta.protocol);
        match (self.lane, self.routes, scope) {
            (Lane::Routes, Some(Routes { fib, .. }), _) => {
                // As the hash of what goes into a tunnel has them.
                let ports = if meta.fragment == FragmentKind::Whole { ports_of(&meta) } else { 0 };
                work.known = Known { addresses, total, class, protocol, ports };
                (work.strip, work.tag) = (0, Tag::new(self.scope, Kind::RouteV4, turning));
                fib.prefetch_v4(plain::destination_v4(addresses));
            }
            (Lane::Flows, _, Some(scope)) => {
                let Some(key) = compact_key(tables, scope, frame, &mut meta, now) else { return };
                work.known = Known { addresses, total, class, protocol, ports: key.ports() };
                let tag = Tag::new(self.scope, Kind::Flow, turning);
                (work.strip, work.tag) = (0, tag.odd(meta.fragment));
            }
            _ => {}
        }
    }
}

/// Both ports as they stand in the header.
fn ports_of(meta: &Meta) -> u32 {
    u32::from(meta.source_port.swap_bytes()) | u32::from(meta.destination_port.swap_bytes()) << 16
}

/// The compact key of an IPv4 packet of TCP or UDP: what plain ones of its flow have too; of a fragment, what others of its kind
/// have. A first fragment leaves a note of its ports; a later one whose ports are not known has no key, and is marked.
pub(super) fn compact_key(
    tables: &Tables,
    scope: &Scope,
    packet: &[u8],
    meta: &mut Meta,
    now: Nanos,
) -> Option<CompactKey> {
    if !matches!(meta.protocol, protocol::TCP | protocol::UDP) {
        return None;
    }
    let addresses = packet.get(usize::from(meta.l3_offset) + 12..)?.first_chunk::<8>()?;
    let ports = match meta.fragment {
        FragmentKind::Whole => ports_of(meta),
        // Without a chain no port decides about a fragment: which of several ways it goes, all fragments' addresses say.
        _ if !scope.chained => 0,
        FragmentKind::First | FragmentKind::Later => {
            let mut tuple = Tuple::of(packet, meta)?;
            let domain = session_domain(scope.id, scope.domain);
            if !tables.fragments.restore(domain, packet, meta, &mut tuple, now) {
                // Others of the burst are looked at before this one walks: its first may be among them.
                meta.flags |= PacketFlags::PORTS_UNKNOWN;
                return None;
            }
            let (from, to) = (tuple.source_port, tuple.destination_port);
            u32::from(from.swap_bytes()) | u32::from(to.swap_bytes()) << 16
        }
    };
    let key = CompactKey::of(scope.id, u64::from_le_bytes(*addresses), ports, meta.protocol);
    Some(key.of_fragments(meta.fragment))
}
