//! Admission: what every received frame goes through before its flow is looked up.
//!
//! Parsed, looked inside if it is addressed to a VTEP of ours, its scope found, its key cut. Plain packets in the fast lane
//! ([`lane`](super::lane)) need none of it.

use crate::chain::{Lane, Pipeline, Scope, Tables};
use crate::decision::{Domain, DropReason, PortId, ScopeId, Tuple};
use crate::flow::{FlowKey, Place, Slot};
use crate::overlay::Decap;
use crate::packet::{self, FragmentKind, L3, Malformed, Meta, PacketFlags};
use crate::session::session_domain;
use crate::snapshot::Snapshot;

use super::core::Core;
use super::lane::View;
use super::odd::compact_key;

/// A packet that was admitted: parsed, decapsulated if it was ours to decapsulate, its scope found.
pub(super) struct Admitted {
    pub(super) meta: Meta,
    /// Whether its scope belongs to a bridge domain.
    pub(super) bridged: bool,
    /// Where its program is kept: nowhere for ARP and multicast.
    pub(super) place: Place,
    /// Of a whole key.
    pub(super) hash: u64,
    /// Where its flow may be.
    pub(super) guess: Slot,
    pub(super) scope: ScopeId,
}

impl Admitted {
    /// A place that nothing was put into yet.
    pub(super) fn none() -> Self {
        let (meta, place, guess, scope) = (Meta::default(), Place::Nowhere, Slot::NONE, ScopeId(0));
        Self { meta, bridged: false, place, hash: 0, guess, scope }
    }
}

/// The scopes of a port, with the one found last: nearly always the next one too.
pub(super) struct Ingress<'a> {
    pipeline: &'a Pipeline,
    port: PortId,
    vlan: u16,
    scope: Option<&'a Scope>,
    /// The fast lane of untagged frames.
    pub(super) view: Option<View<'a>>,
    /// That of the tunnel that a packet came by last.
    pub(super) inner: Option<View<'a>>,
}

impl<'a> Ingress<'a> {
    pub(super) fn new(snapshot: &'a Snapshot, port: PortId) -> Self {
        let pipeline = &snapshot.pipeline;
        let scope = pipeline.scope_of(port, 0);
        let view = scope.and_then(|scope| View::of(snapshot, scope));
        Self { pipeline, port, vlan: 0, scope, view, inner: None }
    }

    /// The scope of a frame with this VLAN id (0: untagged).
    #[inline]
    fn scope(&mut self, vlan: u16) -> Result<&'a Scope, DropReason> {
        if vlan != self.vlan {
            self.vlan = vlan;
            self.scope = self.pipeline.scope_of(self.port, vlan);
        }
        match self.scope {
            Some(scope) => Ok(scope),
            None => Err(self.unknown()),
        }
    }

    #[cold]
    fn unknown(&self) -> DropReason {
        let scopes = self.pipeline.by_port.get(self.port.index());
        let configured = scopes.is_some_and(|scopes| !scopes.is_empty());
        if configured { DropReason::UnknownVlan } else { DropReason::NotConfigured }
    }
}

impl Core {
    /// Parses a frame, looks through the outer headers if it is addressed to a VTEP of ours, finds its scope and where its
    /// program is kept. Returns what is to be taken off, in bytes, and how many are left then; nothing, and nothing.
    ///
    /// # Errors
    /// Why the frame is to be dropped.
    #[inline]
    pub(super) fn admit(
        &self,
        snapshot: &Snapshot,
        ingress: &mut Ingress<'_>,
        frame: &[u8],
        place: &mut Admitted,
    ) -> Result<(u16, u16), DropReason> {
        let Admitted { meta, bridged, place, hash, scope: scope_id, .. } = place;
        packet::parse_into(frame, meta).map_err(malformed)?;
        let mut scope = ingress.scope(meta.vlan())?;
        let (mut slow, mut packet, mut outer) = (false, frame, (0, 0));
        if let Domain::Vrf(vrf) = scope.domain {
            slow = admit_routed(scope, frame, meta)?;
            if !slow {
                let vteps = snapshot.pipeline.vteps_of(vrf);
                if let Some(decap) = vteps.and_then(|vteps| vteps.lookup(frame, meta)) {
                    let Decap { scope: inner, endpoint, strip, inner_len, outer_ecn } = decap?;
                    packet = look_inside(strip, inner_len, frame, meta)?;
                    outer = (strip as u16, inner_len as u16);
                    (meta.outer_ecn, meta.endpoint) = (outer_ecn, endpoint.0);
                    scope = snapshot.pipeline.scope(inner).ok_or(DropReason::NotConfigured)?;
                    if matches!(scope.domain, Domain::Vrf(_)) {
                        slow = admit_routed(scope, packet, meta)?;
                    }
                }
            }
        }
        if let Domain::Hop(_) = scope.domain {
            slow = admit_returned(meta)?;
        }
        (*scope_id, *bridged) = (scope.id, matches!(scope.domain, Domain::Bridge(_)));
        *place = if slow { Place::Nowhere } else { self.place(&snapshot.tables, scope, packet, meta) };
        if let Place::Whole(_, of) = place {
            *hash = *of;
            self.flows.whole.prefetch_bucket(*of);
        }
        Ok(outer)
    }

    /// Where the program of a parsed packet is kept.
    #[inline(always)]
    pub(super) fn place(&self, tables: &Tables, scope: &Scope, packet: &[u8], meta: &mut Meta) -> Place {
        if scope.lane == Lane::Flows && meta.l3 == L3::V4 {
            if let Some(key) = compact_key(tables, scope, packet, meta, self.now) {
                return Place::Compact(key, self.flows.compact.hash(&key));
            }
            if meta.flags.contains(PacketFlags::PORTS_UNKNOWN) {
                return Place::Nowhere;
            }
        }
        if scope.chained && meta.fragment != FragmentKind::Whole {
            // Its walk does this too, but others of the burst may be looked at before it walks.
            let domain = session_domain(scope.id, scope.domain);
            let known = |mut tuple| tables.fragments.restore(domain, packet, meta, &mut tuple, self.now);
            if !Tuple::of(packet, meta).is_none_or(known) {
                meta.flags |= PacketFlags::PORTS_UNKNOWN;
            }
        }
        let key = FlowKey::new(scope.id, packet, meta, &scope.mask);
        Place::Whole(key, self.flows.whole.hash(&key))
    }
}

/// Checks that every packet on a routed interface needs, whatever its flow: says whether the packet is for the slow path
/// (ARP, groups, sources to be looked at).
#[inline]
fn admit_routed(scope: &Scope, frame: &[u8], meta: &Meta) -> Result<bool, DropReason> {
    // One tag at the most: that of the scope, or a priority tag (VLAN id 0, IEEE 802.1Q clause 9.6). A second one names a
    // VLAN within the interface's own. No tag is in the flow key, so every packet is looked at.
    if meta.vlan_tags > 1 {
        return Err(DropReason::UnknownVlan);
    }
    let group = meta.flags.intersects(PacketFlags::ETHER_GROUP | PacketFlags::IP_GROUP);
    if group || meta.l3 == L3::Arp {
        return Ok(true);
    }
    match frame.first_chunk::<6>() {
        Some(destination) if *destination == scope.mac.0 => {}
        _ => return Err(DropReason::NotForUs),
    }
    Ok(suspicious_source(frame, meta))
}

/// Checks that every packet from an attached hop needs. It comes back with the Ethernet addresses that it was sent with, or with
/// whatever the hop has put there: who sent it there is told by its session. Says whether the packet is for the slow path.
#[inline]
fn admit_returned(meta: &Meta) -> Result<bool, DropReason> {
    if meta.vlan_tags > 1 {
        return Err(DropReason::UnknownVlan);
    }
    let group = meta.flags.intersects(PacketFlags::ETHER_GROUP | PacketFlags::IP_GROUP);
    Ok(group || !meta.is_ip())
}

/// Whether the source may be one that is never forwarded (RFC 1812 section 5.3.7), or a link-local one: the walk looks
/// closer. A flow key without the source cannot tell.
#[inline]
fn suspicious_source(packet: &[u8], meta: &Meta) -> bool {
    let at = usize::from(meta.l3_offset);
    match meta.l3 {
        L3::V4 => match packet.get(at + 12..at + 14) {
            Some([first, second]) => packet::plain::is_odd_v4(*first) && (*first != 169 || *second == 254),
            _ => true,
        },
        L3::V6 => packet.get(at + 8).is_none_or(|first| matches!(first, 0 | 0xfe | 0xff)),
        L3::Arp | L3::Other => false,
    }
}

/// Parses the inner frame of a packet that is addressed to one of our VTEPs, and returns it.
// Numbers, not a [`Decap`]: they come in registers.
#[inline(never)]
fn look_inside<'a>(
    strip: usize,
    inner_len: usize,
    frame: &'a [u8],
    meta: &mut Meta,
) -> Result<&'a [u8], DropReason> {
    let inner = frame.get(strip..strip + inner_len).ok_or(DropReason::VxlanMalformed)?;
    packet::parse_into(inner, meta).map_err(malformed)?;
    if meta.vlan_tags > 0 {
        return Err(DropReason::VxlanInnerVlan);
    }
    Ok(inner)
}

/// Out of the way of what is well-formed.
#[cold]
fn malformed(malformed: Malformed) -> DropReason {
    malformed.into()
}
