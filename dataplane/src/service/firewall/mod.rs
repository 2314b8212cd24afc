//! A stateful firewall: ordered rules decide about new connections; what belongs to a known one passes.
//!
//! Known connections come from the session table, which follows TCP states (RFC 9293) and relates ICMP errors to the session
//! that they are about (RFC 5508 section 4). A connection opens with a SYN: any other TCP packet that belongs to no
//! session is dropped, even where a rule would allow it, unless `tcp-pickup` is set.
//!
//! Within a bridge domain or a cross-connect, ARP (RFC 826) and Neighbour Discovery (RFC 4861: ICMPv6 types 133 to 137)
//! always pass: without them no IP packet could follow. Everything else that is not IP is treated as the first rule
//! that says nothing else, or the default, has it; it opens no session.

use weir_config::Action;

use super::ServiceFunction;
use crate::decision::{
    Direction, Domain, DropReason, FieldSet, FlowView, PathBuilder, Rule, RuleSet, RulesShape, Step, Tuple,
};
use crate::packet::{FragmentKind, L3, Meta, protocol};
use crate::session::opens;

#[cfg(test)]
mod tests;

/// ICMP and ICMPv6 echo types (RFC 792, RFC 4443).
mod icmp {
    pub(super) const ECHO_REPLY: u8 = 0;
    pub(super) const ECHO: u8 = 8;
    pub(super) const V6_ECHO: u8 = 128;
    pub(super) const V6_ECHO_REPLY: u8 = 129;
}

/// A compiled firewall.
#[derive(Clone, Debug)]
pub struct Firewall {
    name: String,
    rules: RuleSet,
    /// What each rule says.
    actions: Box<[Action]>,
    default: Action,
    tcp_pickup: bool,
}

impl Firewall {
    /// Compiles the firewall `name`.
    pub fn new(name: &str, config: &weir_config::Firewall) -> Self {
        let rules: Vec<_> =
            config.rules.iter().map(|rule| Rule { scopes: None, matches: &rule.matches }).collect();
        Self {
            name: name.to_owned(),
            rules: RuleSet::build(&rules),
            actions: config.rules.iter().map(|rule| rule.action).collect(),
            default: config.default,
            tcp_pickup: config.tcp_pickup,
        }
    }

    /// What the first matching rule, or else the default, says.
    fn action(&self, flow: &FlowView<'_>, tuple: Option<&Tuple>) -> Action {
        let matching = self.rules.lookup(flow, tuple);
        matching.and_then(|rule| self.actions.get(rule)).copied().unwrap_or(self.default)
    }

    fn allow(&self, flow: &FlowView<'_>, tuple: &Tuple) -> Step {
        if tuple.protocol == protocol::TCP && !self.tcp_pickup && !opens(flow.meta.tcp_flags) {
            return Step::Drop(DropReason::FirewallNoSession);
        }
        Step::Continue
    }
}

impl ServiceFunction for Firewall {
    fn name(&self) -> &str {
        &self.name
    }

    fn kind(&self) -> &'static str {
        "firewall"
    }

    fn consults(&self) -> FieldSet {
        FieldSet::FIVE_TUPLE | FieldSet::ICMP_TYPE | self.rules.fields()
    }

    fn rules(&self) -> Option<RulesShape> {
        Some(self.rules.shape())
    }

    fn decide(&self, flow: &FlowView<'_>, path: &mut PathBuilder) -> Step {
        if is_vouched_for(flow) || is_address_resolution(flow) {
            return Step::Continue;
        }
        let tuple = path.tuple();
        match (self.action(flow, tuple), tuple) {
            (Action::Allow, Some(tuple)) => self.allow(flow, tuple),
            (Action::Allow, None) => Step::Continue,
            (Action::Deny, _) => Step::Drop(DropReason::FirewallDenied),
            (Action::Reject, Some(_)) => Step::Reject(DropReason::FirewallRejected),
            // What is not IP cannot be answered.
            (Action::Reject, None) => Step::Drop(DropReason::FirewallRejected),
        }
    }
}

/// Whether a session that earlier packets made vouches for the packet. A session that a ping opened vouches for its replies, not
/// for pings the other way that happen to have the same identifier.
fn is_vouched_for(flow: &FlowView<'_>) -> bool {
    let known = flow.established || flow.direction == Direction::Reverse;
    known && echo_direction(flow.meta).is_none_or(|direction| direction == flow.direction)
}

/// The direction in which an echo belongs to the session that an echo request opened; `None` for everything else.
fn echo_direction(meta: &Meta) -> Option<Direction> {
    if meta.fragment == FragmentKind::Later {
        return None;
    }
    match (meta.l3, meta.protocol, meta.icmp_type) {
        (L3::V4, protocol::ICMP, icmp::ECHO) | (L3::V6, protocol::ICMPV6, icmp::V6_ECHO) => {
            Some(Direction::Forward)
        }
        (L3::V4, protocol::ICMP, icmp::ECHO_REPLY) | (L3::V6, protocol::ICMPV6, icmp::V6_ECHO_REPLY) => {
            Some(Direction::Reverse)
        }
        _ => None,
    }
}

/// Whether the packet is ARP or Neighbour Discovery between hosts on a link that weir only bridges. RFC 6980: Neighbour
/// Discovery in fragments is none.
fn is_address_resolution(flow: &FlowView<'_>) -> bool {
    let meta = flow.meta;
    let discovery = meta.l3 == L3::V6
        && meta.protocol == protocol::ICMPV6
        && meta.fragment == FragmentKind::Whole
        && (133..=137).contains(&meta.icmp_type);
    !matches!(flow.domain, Domain::Vrf(_)) && (meta.l3 == L3::Arp || discovery)
}
