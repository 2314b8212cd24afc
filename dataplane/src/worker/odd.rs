//! What a burst has among plain packets: malformed ones, and packets with options, fragments, other protocols.
//!
//! They are looked at closer while the burst is scanned. So what is malformed is dropped at once, for the parser's own reason, and
//! what is merely odd goes on with the plain packets around it: neither stops the burst.

use crate::chain::{Lane, Scope, Tables};
use crate::decision::{DropReason, Nanos, ScopeId, Tuple};
use crate::flow::CompactKey;
use crate::frame::Frame;
use crate::packet::plain::{self, Look, OddV4};
use crate::packet::{FragmentKind, Meta, PacketFlags, protocol};
use crate::session::session_domain;

use super::core::Core;
use super::lane::{Kind, Routes, Tag, View, Work, is_v6, tuple_of};
use super::pass::Under;

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
            self.cache.free_all(frames.drain(at + kept..at + next));
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
        if self.lane == Lane::Bridge {
            return;
        }
        let refuse = |work: &mut Work, reason| {
            (work.tag, work.reason) = (Tag::new(ScopeId(0), Kind::Dropped, false), reason);
        };
        let odd = match plain::look_v4(frame, self.station) {
            Look::Odd(odd) => odd,
            Look::Foreign => return refuse(work, DropReason::NotForUs),
            Look::Malformed(malformed) => return refuse(work, malformed.into()),
            Look::Other => {
                let routes = self.routes.filter(|_| self.lane == Lane::Routes && is_v6(frame));
                if let Some(Routes { fib, .. }) = routes {
                    self.put_v6(fib, frame, work);
                }
                return;
            }
        };
        let OddV4 { mut plain, fragment, .. } = odd;
        // UDP may be for a tunnel.
        if self.vteps.is_some() && plain.protocol == protocol::UDP {
            return;
        }
        match (self.lane, self.routes, scope) {
            (Lane::Routes, Some(Routes { fib, .. }), _) => {
                // As the hash of what goes into a tunnel has them.
                if fragment != FragmentKind::Whole {
                    plain.ports = 0;
                }
                work.put(self.scope, Kind::RouteV4, &plain);
                fib.prefetch_v4(plain.destination());
            }
            (Lane::Flows, _, Some(scope)) => {
                let Some(ports) = ports_in_key(tables, scope, &odd, now) else { return };
                plain.ports = ports;
                work.put(self.scope, Kind::Flow, &plain);
                work.tag = work.tag.odd(fragment);
            }
            _ => {}
        }
    }
}

/// The ports in the key of a packet's flow, as [`compact_key`] has them. `None`: it has none, and is for the parser.
#[inline(always)]
fn ports_in_key(tables: &Tables, scope: &Scope, odd: &OddV4, now: Nanos) -> Option<u32> {
    if !matches!(odd.plain.protocol, protocol::TCP | protocol::UDP) {
        return None;
    }
    if odd.fragment == FragmentKind::Whole {
        return Some(odd.plain.ports);
    }
    if !scope.chained {
        return Some(0);
    }
    let domain = session_domain(scope.id, scope.domain);
    let mut tuple = tuple_of(odd.plain.addresses, odd.plain.ports, odd.plain.protocol);
    let known = tables.fragments.exchange(domain, odd.fragment, odd.id.into(), &mut tuple, now);
    known.then(|| ports_between(tuple.source_port, tuple.destination_port))
}

/// Both ports as they stand in a header.
fn ports_between(source: u16, destination: u16) -> u32 {
    u32::from(source.swap_bytes()) | u32::from(destination.swap_bytes()) << 16
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
        FragmentKind::Whole => ports_between(meta.source_port, meta.destination_port),
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
            ports_between(tuple.source_port, tuple.destination_port)
        }
    };
    let key = CompactKey::of(scope.id, u64::from_le_bytes(*addresses), ports, meta.protocol);
    Some(key.of_fragments(meta.fragment))
}
