//! The classifier: ordered rules that send a new flow into a chain (RFC 7665 section 4.7).

use weir_config::Match;

use crate::decision::{ChainId, FieldSet, FlowView, Matcher, ScopeId, Tuple};

/// One rule.
#[derive(Clone, Debug)]
pub struct Rule {
    /// Scopes that it is about, sorted; `None`: all.
    scopes: Option<Box<[ScopeId]>>,
    matcher: Matcher,
    /// `None` sends matching flows past all chains.
    chain: Option<ChainId>,
}

impl Rule {
    /// Compiles a rule. `scopes` are those that `from` names, resolved: `None` if it names none and so means all; a
    /// rule whose `from` resolves to no scope never matches.
    pub fn new(scopes: Option<Vec<ScopeId>>, matches: &Match, chain: Option<ChainId>) -> Self {
        let scopes = scopes.map(|mut scopes| {
            scopes.sort_unstable();
            scopes.into()
        });
        Self { scopes, matcher: Matcher::new(matches), chain }
    }

    fn is_about(&self, scope: ScopeId) -> bool {
        self.scopes.as_ref().is_none_or(|scopes| scopes.binary_search(&scope).is_ok())
    }
}

/// The compiled rules; the first that matches decides.
#[derive(Clone, Debug, Default)]
pub struct Classifier {
    rules: Box<[Rule]>,
}

impl Classifier {
    /// Compiles rules in their order.
    pub fn new(rules: Vec<Rule>) -> Self {
        Self { rules: rules.into() }
    }

    /// The chain of a new flow; `None` if no rule matches, or the one that does sends it past all chains.
    pub fn classify(&self, view: &FlowView<'_>, tuple: Option<&Tuple>) -> Option<ChainId> {
        let matches = |rule: &&Rule| rule.is_about(view.scope) && rule.matcher.matches(view, tuple);
        self.rules.iter().find(matches)?.chain
    }

    /// The header fields that classifying packets of `scope` looks at.
    pub fn fields_for(&self, scope: ScopeId) -> FieldSet {
        self.reachable(scope).fold(FieldSet::empty(), |fields, rule| fields | rule.matcher.fields())
    }

    /// The chains that packets of `scope` may be sent into, in the order of the rules, each once.
    pub fn chains_for(&self, scope: ScopeId) -> Vec<ChainId> {
        let mut chains = Vec::new();
        for chain in self.reachable(scope).filter_map(|rule| rule.chain) {
            if !chains.contains(&chain) {
                chains.push(chain);
            }
        }
        chains
    }

    /// Rules about `scope`, up to the first that matches everything: those behind it are never asked.
    fn reachable(&self, scope: ScopeId) -> impl Iterator<Item = &Rule> {
        let mut done = false;
        self.rules.iter().filter(move |rule| rule.is_about(scope)).take_while(move |rule| {
            let asked = !done;
            done |= rule.matcher.matches_all();
            asked
        })
    }
}

#[cfg(test)]
mod tests {
    use weir_config::{MacAddress, PortRange};

    use super::*;
    use crate::decision::{Direction, Domain, VrfId};
    use crate::packet::{L3, Meta, PacketFlags, protocol};

    fn classify(classifier: &Classifier, scope: u16, ip: Option<(u8, u16)>) -> Option<u16> {
        let meta = Meta { l3: L3::V4, flags: PacketFlags::TRANSPORT, ..Meta::default() };
        let tuple = ip.map(|(protocol, port)| Tuple {
            source: "10.1.0.2".parse().unwrap(),
            destination: "10.2.0.2".parse().unwrap(),
            protocol,
            source_port: 40_000,
            destination_port: port,
        });
        let view = FlowView {
            scope: ScopeId(scope),
            domain: Domain::Vrf(VrfId(0)),
            ether_source: MacAddress::default(),
            ether_destination: MacAddress::default(),
            tuple,
            meta: &meta,
            direction: Direction::Forward,
            established: false,
            now: 0,
            translations: crate::decision::Translations::none(),
            ways: &crate::decision::NoWays,
        };
        classifier.classify(&view, tuple.as_ref()).map(|chain| chain.0)
    }

    fn to_port(port: u16) -> Match {
        Match { to_ports: vec![PortRange { first: port, last: port }], ..Match::default() }
    }

    fn scopes(scopes: &[u16]) -> Option<Vec<ScopeId>> {
        Some(scopes.iter().copied().map(ScopeId).collect())
    }

    fn classifier() -> Classifier {
        Classifier::new(vec![
            Rule::new(None, &to_port(22), None),
            Rule::new(scopes(&[3, 1]), &to_port(80), Some(ChainId(1))),
            Rule::new(scopes(&[1]), &Match::default(), Some(ChainId(2))),
            Rule::new(None, &Match { dscp: vec![46], ..Match::default() }, Some(ChainId(3))),
            Rule::new(scopes(&[]), &Match::default(), Some(ChainId(4))),
        ])
    }

    #[test]
    fn the_first_rule_that_matches_decides() {
        let rules = classifier();
        assert_eq!(classify(&rules, 1, Some((protocol::TCP, 80))), Some(1));
        assert_eq!(classify(&rules, 1, Some((protocol::TCP, 443))), Some(2));
        assert_eq!(classify(&rules, 1, Some((protocol::TCP, 22))), None);
        assert_eq!(classify(&rules, 3, Some((protocol::TCP, 80))), Some(1));
        assert_eq!(classify(&rules, 3, Some((protocol::TCP, 443))), None);
        assert_eq!(classify(&rules, 2, Some((protocol::TCP, 80))), None);
    }

    #[test]
    fn what_is_not_ip_matches_only_a_rule_that_says_nothing() {
        assert_eq!(classify(&classifier(), 1, None), Some(2));
        assert_eq!(classify(&classifier(), 3, None), None);
    }

    #[test]
    fn only_rules_that_can_be_asked_widen_the_key() {
        let ports = FieldSet::PROTOCOL | FieldSet::DESTINATION_PORT;
        assert_eq!(classifier().fields_for(ScopeId(1)), ports, "the rule on DSCP comes too late for scope 1");
        assert_eq!(classifier().fields_for(ScopeId(3)), ports | FieldSet::DSCP);
        assert_eq!(classifier().chains_for(ScopeId(1)), [ChainId(1), ChainId(2)]);
        assert_eq!(classifier().chains_for(ScopeId(2)), [ChainId(3)]);
        assert_eq!(Classifier::default().fields_for(ScopeId(1)), FieldSet::empty());
    }
}
