//! Network address translation of IPv4: traditional NAT with ports (RFC 3022), as RFC 4787 (UDP), RFC 5382 (TCP), RFC 5508
//! (ICMP) and RFC 7857 ask for.
//!
//! * *Mapping* is endpoint-independent: an address and port behind the translator has one external address and port,
//!   whatever it talks to (RFC 4787 REQ-1). Addresses are paired, ports never overloaded (REQ-2, REQ-3).
//! * *Filtering* is a choice (RFC 4787 REQ-8).
//! * What was decided about a session's first packet is kept by the session, and done to or undone on every other packet of
//!   it, on whichever worker, as long as the configuration has the rule.
//! * Hairpinning is by the external source address (RFC 4787 REQ-9).
//! * ICMP errors are translated with what they quote; they keep nothing alive and end nothing (RFC 5508 section 4.2).
//!
//! Only routed packets of IPv4 are translated; everything else passes as it is.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use weir_config::{AddressRange, Filtering, NatTimeouts};

use super::{BuildContext, External, ServiceFunction, Show};
use crate::decision::{
    ChainId, Direction, Domain, DropReason, FieldSet, FlowView, Mapping, PathBuilder, Side, Step, Timeouts,
    Translation, Tuple, VrfId, Ways,
};
use crate::packet::{FragmentKind, Meta, PacketFlags, protocol};
use crate::session::opens;

mod ahead;
mod binding;
mod pool;
mod ports;
mod rule;
mod show;
mod slots;
mod table;

#[cfg(test)]
mod tests;

pub use pool::Reserved;
pub use show::{AddressEntry, BindingEntry};
pub use table::{NatCounters, NatTable};

use ahead::Probable;
use binding::{Binding, ServiceNumber};
use rule::{Dnat, Snat, Target};
use table::Request;

/// ICMP echo (RFC 792): the only query whose identifier is translated.
const ECHO_REQUEST: u8 = 8;

/// A compiled translator.
#[derive(Debug)]
pub struct Nat {
    name: Box<str>,
    /// Of its name, in the table.
    number: ServiceNumber,
    snat: Box<[Snat]>,
    dnat: Box<[Dnat]>,
    filtering: Filtering,
    timeouts: Timeouts,
    limit: u32,
    /// Addresses that its bindings have.
    outside: External,
    table: Arc<NatTable>,
    reserved: Arc<Reserved>,
}

/// What becomes of a source.
struct Source {
    /// Why nothing does.
    refused: Option<DropReason>,
    /// What it is translated by; `None` if it keeps what it has.
    mapping: Option<Arc<dyn Mapping>>,
    /// By which rule.
    rule: u64,
}

impl Source {
    const KEPT: Self = Self { refused: None, mapping: None, rule: 0 };

    fn refused(reason: DropReason) -> Self {
        Self { refused: Some(reason), ..Self::KEPT }
    }
}

impl Nat {
    /// Compiles the translator `name`.
    pub fn new(name: &str, config: &weir_config::Nat, context: &BuildContext) -> Self {
        let snat: Box<[_]> = config.snat.iter().map(|rule| Snat::new(name, rule)).collect();
        let mut outside = External::default();
        for rule in &snat {
            match &rule.target {
                Target::Pool(pool) => outside.ranges.extend(pool.ranges()),
                Target::Masquerade(_) => outside.own = true,
                Target::Exempt => {}
            }
        }
        Self {
            name: name.into(),
            number: context.nat.number(name),
            snat,
            outside,
            dnat: config.dnat.iter().map(|rule| Dnat::new(name, rule)).collect(),
            filtering: config.filtering,
            timeouts: timeouts(&config.timeouts),
            limit: config.ports_per_host.unwrap_or(u32::MAX),
            table: Arc::clone(&context.nat),
            reserved: Arc::clone(&context.reserved),
        }
    }

    /// Does to a packet of a known session what was done to its first one, or undoes it.
    fn apply(&self, flow: &FlowView<'_>, path: &mut PathBuilder) -> Step {
        let own = || flow.translations.iter().filter(|translation| self.made(translation));
        if path.quoted().is_some() {
            return apply_to_error(own(), flow.direction, path);
        }
        for translation in own() {
            let asked = flow.direction == Direction::Reverse && translation.side == Side::Source;
            if asked && is_echo_request(flow.meta) {
                // Who pinged does not answer for others' pings (RFC 5508 REQ-1: the mapping is for replies).
                return Step::Drop(DropReason::NatNoBinding);
            }
            let (side, (ip, port)) = translation.applied(flow.direction);
            let Some(tuple) = path.tuple() else { break };
            let port = if has_ports(flow.meta, tuple) { port } else { tuple.end(side).1 };
            set(path, side, ip, port);
        }
        Step::Continue
    }

    /// Decides about the first packet of a connection.
    fn open(&self, vrf: VrfId, flow: &FlowView<'_>, path: &mut PathBuilder) -> Step {
        let Some(tuple) = path.tuple() else { return Step::Continue };
        let destination = match self.redirection(flow.meta, tuple) {
            Some(mapping) => Some(mapping),
            None => self.hairpin(vrf, flow.meta, tuple).map(|binding| -> Arc<dyn Mapping> { binding }),
        };
        let beyond = destination.as_ref().map_or(tuple.destination, |mapping| mapping.inside().0.into());
        let source = self.source(vrf, flow, tuple, destination.is_some(), beyond);
        if let Some(reason) = source.refused {
            return Step::Drop(reason);
        }
        if source.mapping.is_none() && destination.is_none() {
            return Step::Continue;
        }
        // A later fragment opens nothing: where its first one did, there is a session.
        if tuple.protocol == protocol::TCP && !opens(flow.meta.tcp_flags) {
            return Step::Drop(DropReason::NatNoSession);
        }
        if let Some(mapping) = destination {
            let seen = source.mapping.as_ref().map(|mapping| IpAddr::V4(mapping.outside().0));
            let translation = Translation { rule: mapping.rule(), mapping, side: Side::Destination };
            let IpAddr::V4(seen) = seen.unwrap_or(tuple.source) else { return Step::Continue };
            if !self.lets_in(&translation, seen) {
                // Its sender lets in what comes back from there all the same (RFC 4787 section 5): so two of them get through.
                if let (Some(mapping), IpAddr::V4(remote)) = (&source.mapping, tuple.destination) {
                    mapping.note(remote);
                }
                return Step::Drop(DropReason::NatFiltered);
            }
            let (ip, port) = translation.mapping.inside();
            let port = if has_ports(flow.meta, tuple) { port } else { tuple.destination_port };
            set(path, Side::Destination, ip, port);
            path.translate(translation.mapping, translation.side, translation.rule);
        }
        if let Some(mapping) = source.mapping {
            let (ip, port) = mapping.outside();
            set(path, Side::Source, ip, port);
            path.translate(mapping, Side::Source, source.rule);
        }
        path.set_timeouts(self.timeouts);
        Step::Continue
    }

    /// Where a rule sends packets with this destination.
    fn redirection(&self, meta: &Meta, tuple: &Tuple) -> Option<Arc<dyn Mapping>> {
        let rule = self.dnat.iter().find(|dnat| dnat.matches(meta, tuple))?;
        Some(Arc::new(rule.forwarding(tuple.destination_port)))
    }

    /// The binding of this translator that has this destination. An echo request is for nobody's binding.
    fn hairpin(&self, vrf: VrfId, meta: &Meta, tuple: &Tuple) -> Option<Arc<Binding>> {
        let IpAddr::V4(ip) = tuple.destination else { return None };
        let outside = self.outside.own || self.outside.contains(ip);
        if !outside || tuple.protocol == protocol::ICMP || !has_ports(meta, tuple) {
            return None;
        }
        let binding = self.table.inbound(vrf, tuple.protocol, (ip, tuple.destination_port))?;
        self.has_rule(binding.rule()).then_some(binding)
    }

    /// The binding that the source gets, and by which rule. `redirected` is a packet whose
    /// destination is translated; `beyond` is where it goes then.
    fn source(
        &self,
        vrf: VrfId,
        flow: &FlowView<'_>,
        tuple: &Tuple,
        redirected: bool,
        beyond: IpAddr,
    ) -> Source {
        let Some(rule) = self.snat.iter().find(|rule| rule.matcher.matches(flow, Some(tuple))) else {
            return Source::KEPT;
        };
        // What comes from outside to a forwarded port keeps its source. Who goes out and comes back does not: a host that the
        // rule names, or one behind the interface that the packet leaves by.
        let turns = || flow.ways.way(beyond).is_some_and(|way| way.scope == flow.scope);
        if redirected && !rule.names_sources && !turns() {
            return Source::KEPT;
        }
        let (pool, via) = match &rule.target {
            Target::Exempt => return Source::KEPT,
            Target::Pool(pool) => (pool, None),
            Target::Masquerade(pool) => {
                // Without a way, the forwarding says so.
                let Some(way) = flow.ways.way(beyond) else { return Source::KEPT };
                // RFC 4787 REQ-9: hairpinning is by the external address, and that is the one it came to.
                let hairpin = redirected && flow.ways.owns(tuple.destination);
                let address = if hairpin { Some(tuple.destination) } else { way.source };
                let Some(IpAddr::V4(address)) = address else {
                    return Source::refused(DropReason::NatNoAddress);
                };
                (pool, Some(address))
            }
        };
        if !is_translatable(flow.meta, tuple) {
            return Source::refused(DropReason::NatUntranslatable);
        }
        let IpAddr::V4(ip) = tuple.source else { return Source::KEPT };
        let request = Request {
            vrf,
            pool,
            via,
            rule: rule.id,
            service: self.number,
            remote: flow.tuple.and_then(|tuple| match tuple.destination {
                IpAddr::V4(remote) => Some(remote),
                IpAddr::V6(_) => None,
            }),
            protocol: tuple.protocol,
            inside: (ip, tuple.source_port),
            limit: self.limit,
            reserved: &self.reserved,
            now: flow.now,
        };
        match self.table.outbound(&request) {
            Ok(binding) => Source { refused: None, mapping: Some(binding), rule: rule.id },
            Err(reason) => Source::refused(reason),
        }
    }

    /// The binding that a new flow will most likely want. Most translators have one pool.
    fn probable(&self, vrf: VrfId, tuple: &Tuple) -> Option<Probable<'_>> {
        let pool = self.snat.iter().find_map(|rule| match &rule.target {
            Target::Pool(pool) => Some(pool),
            Target::Masquerade(_) | Target::Exempt => None,
        })?;
        let IpAddr::V4(ip) = tuple.source else { return None };
        let (inside, reserved) = ((ip, tuple.source_port), &*self.reserved);
        Some(Probable { vrf, pool, protocol: tuple.protocol, inside, reserved })
    }

    fn made(&self, translation: &Translation) -> bool {
        self.has_rule(translation.rule)
    }

    fn has_rule(&self, id: u64) -> bool {
        self.snat.iter().any(|rule| rule.id == id) || self.dnat.iter().any(|rule| rule.id == id)
    }

    fn masquerades(&self, id: u64) -> bool {
        self.snat.iter().any(|rule| rule.id == id && matches!(rule.target, Target::Masquerade(_)))
    }
}

impl ServiceFunction for Nat {
    fn name(&self) -> &str {
        &self.name
    }

    fn kind(&self) -> &'static str {
        "nat"
    }

    fn consults(&self) -> FieldSet {
        let rules = self.snat.iter().fold(FieldSet::empty(), |fields, rule| fields | rule.matcher.fields());
        FieldSet::FIVE_TUPLE | FieldSet::ICMP_TYPE | rules
    }

    fn decide(&self, flow: &FlowView<'_>, path: &mut PathBuilder) -> Step {
        let (Domain::Vrf(vrf), Some(tuple)) = (flow.domain, path.tuple()) else { return Step::Continue };
        if !tuple.source.is_ipv4() {
            return Step::Continue;
        }
        if !flow.translations.is_empty() {
            return self.apply(flow, path);
        }
        // A session that was not translated from the start cannot be later.
        if flow.established || flow.direction == Direction::Reverse {
            return Step::Continue;
        }
        self.open(vrf, flow, path)
    }

    fn external(&self) -> External {
        let mut external = self.outside.clone();
        external.ranges.extend(self.dnat.iter().map(|dnat| AddressRange::one(dnat.rule.to)));
        external
    }

    fn claims(&self, flow: &FlowView<'_>, tuple: &Tuple) -> bool {
        let Domain::Vrf(vrf) = flow.domain else { return false };
        self.dnat.iter().any(|dnat| dnat.matches(flow.meta, tuple))
            || self.hairpin(vrf, flow.meta, tuple).is_some()
    }

    fn keeps(&self, translation: &Translation, ways: &dyn Ways) -> bool {
        let masquerades = self.masquerades(translation.rule);
        self.made(translation) && (!masquerades || ways.owns(translation.mapping.outside().0.into()))
    }

    fn lets_in(&self, translation: &Translation, remote: Ipv4Addr) -> bool {
        self.made(translation)
            && match self.filtering {
                Filtering::EndpointIndependent => true,
                Filtering::AddressDependent => translation.mapping.has_sent_to(remote),
                // Whoever was sent to has a session, and is not asked about here; a forwarding is for everybody.
                Filtering::AddressAndPortDependent => {
                    self.dnat.iter().any(|rule| rule.id == translation.rule)
                }
            }
    }

    fn look_ahead(&self, vrf: VrfId, tuple: &Tuple, show: Show<'_>) {
        if let Some(probable) = self.probable(vrf, tuple) {
            self.table.look_ahead(&probable, show);
        }
    }

    fn foresee(&self, vrf: VrfId, tuple: &mut Tuple, show: Show<'_>) {
        let outside = self.probable(vrf, tuple).and_then(|probable| self.table.foresee(&probable, show));
        if let Some((ip, port)) = outside {
            tuple.set(Side::Source, ip.into(), port);
        }
    }

    fn timeouts(&self) -> Option<Timeouts> {
        Some(self.timeouts)
    }
}

impl NatTable {
    /// What a packet from outside to an external address and port would be translated by, in the reverse direction, if it
    /// opens a session: the binding that has them, and its chain.
    pub fn from_outside(
        &self,
        vrf: VrfId,
        meta: &Meta,
        tuple: &Tuple,
    ) -> Option<(Translation, Option<ChainId>)> {
        let IpAddr::V4(ip) = tuple.destination else { return None };
        if tuple.protocol == protocol::ICMP || !has_ports(meta, tuple) {
            return None;
        }
        let binding = self.inbound(vrf, tuple.protocol, (ip, tuple.destination_port))?;
        let (rule, chain) = (binding.rule(), binding.chain());
        Some((Translation { rule, mapping: binding, side: Side::Source }, chain))
    }
}

/// Translates an ICMP error: its own addresses, and the packet that it quotes, which went the other way.
fn apply_to_error<'a>(
    translations: impl Iterator<Item = &'a Translation>,
    direction: Direction,
    path: &mut PathBuilder,
) -> Step {
    let (Some(quoted), Some(_)) = (path.quoted(), path.tuple()) else { return Step::Continue };
    let mut turned = quoted.reversed();
    let ports = is_ported(quoted.protocol);
    for translation in translations {
        let (side, (ip, port)) = translation.applied(direction);
        turned = turned.with(side, ip.into(), if ports { port } else { turned.end(side).1 });
        set(path, side, ip, 0);
    }
    path.set_quoted(turned.reversed());
    Step::Continue
}

fn set(path: &mut PathBuilder, side: Side, ip: Ipv4Addr, port: u16) {
    match side {
        Side::Source => path.set_source(ip.into(), port),
        Side::Destination => path.set_destination(ip.into(), port),
    }
}

fn is_ported(ip_protocol: u8) -> bool {
    matches!(ip_protocol, protocol::TCP | protocol::UDP | protocol::SCTP | protocol::ICMP)
}

fn is_echo_request(meta: &Meta) -> bool {
    meta.protocol == protocol::ICMP
        && meta.flags.contains(PacketFlags::TRANSPORT)
        && meta.icmp_type == ECHO_REQUEST
}

/// Whether a packet has ports, or an identifier, in its tuple: its own, or those of its first fragment.
fn has_ports(meta: &Meta, tuple: &Tuple) -> bool {
    let present = meta.fragment == FragmentKind::Later || meta.flags.contains(PacketFlags::TRANSPORT);
    let echo = meta.fragment == FragmentKind::Later || matches!(meta.icmp_type, 0 | ECHO_REQUEST);
    present && is_ported(tuple.protocol) && (tuple.protocol != protocol::ICMP || echo)
}

/// Whether a packet may open a session whose source is translated.
fn is_translatable(meta: &Meta, tuple: &Tuple) -> bool {
    let later = meta.fragment == FragmentKind::Later;
    has_ports(meta, tuple) && (tuple.protocol != protocol::ICMP || later || is_echo_request(meta))
}

fn timeouts(config: &NatTimeouts) -> Timeouts {
    let seconds = |time: std::time::Duration| u32::try_from(time.as_secs()).unwrap_or(u32::MAX).max(1);
    Timeouts {
        tcp_established: seconds(config.tcp_established),
        tcp_transitory: seconds(config.tcp_transitory),
        udp: seconds(config.udp),
        icmp: seconds(config.icmp),
    }
}
