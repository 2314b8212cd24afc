//! Admission: what every received frame goes through before its flow is looked up.
//!
//! Parsed, the outer headers taken off if it is addressed to a VTEP of ours, its scope found, its key cut.

use crate::chain::{Pipeline, Scope};
use crate::decision::{Domain, DropReason, PortId, ScopeId};
use crate::flow::{FlowKey, Slot};
use crate::frame::Frame;
use crate::overlay::Decap;
use crate::packet::{self, L3, Malformed, Meta, PacketFlags};
use crate::snapshot::Snapshot;

use super::core::Core;

/// A packet that was admitted: parsed, decapsulated if it was ours to decapsulate, its scope found.
pub(super) struct Admitted {
    pub(super) frame: Option<Frame>,
    pub(super) meta: Meta,
    pub(super) key: FlowKey,
    pub(super) hash: u64,
    /// Where its flow may be.
    pub(super) guess: Slot,
    pub(super) scope: ScopeId,
    /// Never looked up: ARP, multicast.
    pub(super) slow: bool,
}

impl Admitted {
    /// A place that nothing was put into yet.
    pub(super) fn none() -> Self {
        let (meta, key, guess, scope) = (Meta::default(), FlowKey::NONE, Slot::NONE, ScopeId(0));
        Self { frame: None, meta, key, hash: 0, guess, scope, slow: true }
    }
}

/// The scopes of a port, with the one found last: nearly always the next one too.
pub(super) struct Ingress<'a> {
    pipeline: &'a Pipeline,
    port: PortId,
    vlan: u16,
    scope: Option<&'a Scope>,
}

impl<'a> Ingress<'a> {
    pub(super) fn new(snapshot: &'a Snapshot, port: PortId) -> Self {
        let pipeline = &snapshot.pipeline;
        Self { pipeline, port, vlan: 0, scope: pipeline.scope_of(port, 0) }
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
    /// Parses a frame, takes the outer headers off if it is addressed to a VTEP of ours, finds its scope and its key.
    ///
    /// # Errors
    /// Why the frame is to be dropped.
    #[inline]
    pub(super) fn admit(
        &self,
        snapshot: &Snapshot,
        ingress: &mut Ingress<'_>,
        frame: &mut Frame,
        place: &mut Admitted,
    ) -> Result<(), DropReason> {
        let Admitted { meta, key, hash, scope: scope_id, slow, .. } = place;
        packet::parse_into(frame.bytes(), meta).map_err(malformed)?;
        let mut scope = ingress.scope(meta.vlan())?;
        *slow = false;
        if let Domain::Vrf(vrf) = scope.domain {
            *slow = admit_routed(scope, frame, meta)?;
            if !*slow {
                let vteps = snapshot.pipeline.vteps_of(vrf);
                if let Some(decap) = vteps.and_then(|vteps| vteps.lookup(frame.bytes(), meta)) {
                    let Decap { scope: inner, endpoint, strip, inner_len, outer_ecn } = decap?;
                    decapsulate(strip, inner_len, frame, meta)?;
                    (meta.outer_ecn, meta.endpoint) = (outer_ecn, endpoint.0);
                    scope = snapshot.pipeline.scope(inner).ok_or(DropReason::NotConfigured)?;
                    if matches!(scope.domain, Domain::Vrf(_)) {
                        *slow = admit_routed(scope, frame, meta)?;
                    }
                }
            }
        }
        *scope_id = scope.id;
        *key = FlowKey::new(scope.id, frame.bytes(), meta, &scope.mask);
        *hash = self.flows.hash(key);
        Ok(())
    }
}

/// Checks that every packet on a routed interface needs, whatever its flow: says whether the packet is for the slow path
/// (ARP, groups, sources to be looked at).
#[inline]
fn admit_routed(scope: &Scope, frame: &Frame, meta: &Meta) -> Result<bool, DropReason> {
    // One tag at the most: that of the scope, or a priority tag (VLAN id 0, IEEE 802.1Q clause 9.6). A second one names a
    // VLAN within the interface's own. No tag is in the flow key, so every packet is looked at.
    if meta.vlan_tags > 1 {
        return Err(DropReason::UnknownVlan);
    }
    let group = meta.flags.intersects(PacketFlags::ETHER_GROUP | PacketFlags::IP_GROUP);
    if group || meta.l3 == L3::Arp {
        return Ok(true);
    }
    match frame.bytes().first_chunk::<6>() {
        Some(destination) if *destination == scope.mac.0 => {}
        _ => return Err(DropReason::NotForUs),
    }
    Ok(suspicious_source(frame.bytes(), meta))
}

/// First bytes of IPv4 sources to be looked at: this network, loopback, link-local, and multicast and beyond.
const SUSPICIOUS_V4: [bool; 256] = {
    let mut table = [false; 256];
    let mut first = 0;
    while first < 256 {
        table[first] = matches!(first, 0 | 127 | 169 | 224..);
        first += 1;
    }
    table
};

/// Whether the source may be one that is never forwarded (RFC 1812 section 5.3.7), or a link-local one: the walk looks
/// closer. A flow key without the source cannot tell.
#[inline]
fn suspicious_source(packet: &[u8], meta: &Meta) -> bool {
    let at = usize::from(meta.l3_offset);
    match meta.l3 {
        L3::V4 => match packet.get(at + 12..at + 14) {
            Some([first, second]) => SUSPICIOUS_V4[usize::from(*first)] && (*first != 169 || *second == 254),
            _ => true,
        },
        L3::V6 => packet.get(at + 8).is_none_or(|first| matches!(first, 0 | 0xfe | 0xff)),
        L3::Arp | L3::Other => false,
    }
}

/// Takes the outer headers off a packet that is addressed to one of our VTEPs, and parses the inner frame.
// Numbers, not a [`Decap`]: they come in registers.
#[inline(never)]
fn decapsulate(strip: usize, inner_len: usize, frame: &mut Frame, meta: &mut Meta) -> Result<(), DropReason> {
    if !(frame.strip(strip) && frame.set_len(inner_len)) {
        return Err(DropReason::VxlanMalformed);
    }
    packet::parse_into(frame.bytes(), meta).map_err(malformed)?;
    if meta.vlan_tags > 0 {
        return Err(DropReason::VxlanInnerVlan);
    }
    Ok(())
}

/// Out of the way of what is well-formed.
#[cold]
fn malformed(malformed: Malformed) -> DropReason {
    malformed.into()
}
