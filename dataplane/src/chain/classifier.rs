//! The classifier: ordered rules that send a new flow into a chain (RFC 7665 section 4.7).

use std::collections::HashSet;

use weir_config::Match;

use crate::decision::{self, ChainId, FieldSet, FlowView, Matcher, RuleSet, RulesShape, ScopeId, Tuple};

/// One rule.
#[derive(Clone, Debug)]
pub struct Rule<'a> {
    /// Scopes that it is about, sorted; `None`: all.
    scopes: Option<Box<[ScopeId]>>,
    matches: &'a Match,
    /// `None` sends matching flows past all chains.
    chain: Option<ChainId>,
}

impl<'a> Rule<'a> {
    /// A rule. `scopes` are those that `from` names, resolved: `None` if it names none and so means all; a
    /// rule whose `from` resolves to no scope never matches.
    pub fn new(scopes: Option<Vec<ScopeId>>, matches: &'a Match, chain: Option<ChainId>) -> Self {
        let scopes = scopes.map(|mut scopes| {
            scopes.sort_unstable();
            scopes.into()
        });
        Self { scopes, matches, chain }
    }
}

/// What is to be known of rules besides which one a packet matches; of rules that are alike in it, only the first is kept.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Outline {
    scopes: Option<Box<[ScopeId]>>,
    fields: FieldSet,
    chain: Option<ChainId>,
    /// Whether it matches everything of its scopes.
    matches_all: bool,
}

impl Outline {
    fn is_about(&self, scope: ScopeId) -> bool {
        self.scopes.as_ref().is_none_or(|scopes| scopes.binary_search(&scope).is_ok())
    }
}

/// The compiled rules; the first that matches decides.
#[derive(Clone, Debug, Default)]
pub struct Classifier {
    rules: RuleSet,
    /// The rules' chains.
    chains: Box<[Option<ChainId>]>,
    outlines: Box<[Outline]>,
    sure: Sure,
}

/// Scopes whose first rule matches everything: there is nothing to look up.
#[derive(Clone, Debug, Default)]
struct Sure {
    /// By scope: the answer, if it is sure.
    scopes: Box<[Option<Answer>]>,
    /// Of every other scope.
    others: Option<Answer>,
}

/// What a classifier says: a chain, or none.
type Answer = Option<ChainId>;

impl Sure {
    fn new(outlines: &[Outline]) -> Self {
        let named = outlines.iter().flat_map(|rule| rule.scopes.iter().flatten());
        let count = named.map(|scope| scope.index() + 1).max().unwrap_or(0);
        // The outer level says whether a rule is about the scope.
        let mut scopes: Vec<Option<Option<Answer>>> = vec![None; count];
        let mut others = None;
        for rule in outlines {
            let answer = rule.matches_all.then_some(rule.chain);
            match &rule.scopes {
                Some(about) => about.iter().for_each(|scope| {
                    if let Some(place) = scopes.get_mut(scope.index()) {
                        place.get_or_insert(answer);
                    }
                }),
                None => {
                    scopes.iter_mut().for_each(|place| {
                        place.get_or_insert(answer);
                    });
                    others = Some(answer);
                    break;
                }
            }
        }
        // What no rule is about goes into no chain.
        let sure = |place: Option<Option<Answer>>| place.unwrap_or(Some(None));
        Self { scopes: scopes.into_iter().map(sure).collect(), others: sure(others) }
    }

    fn answer(&self, scope: ScopeId) -> Option<Answer> {
        self.scopes.get(scope.index()).copied().unwrap_or(self.others)
    }
}

impl Classifier {
    /// Compiles rules in their order.
    pub fn new(rules: &[Rule<'_>]) -> Self {
        let matches: Vec<_> = rules
            .iter()
            .map(|rule| decision::Rule { scopes: rule.scopes.as_deref(), matches: rule.matches })
            .collect();
        let (mut outlines, mut known) = (Vec::new(), HashSet::new());
        for rule in rules {
            let matcher = Matcher::new(rule.matches);
            let (fields, matches_all) = (matcher.fields(), matcher.matches_all());
            let outline = Outline { scopes: rule.scopes.clone(), fields, chain: rule.chain, matches_all };
            if known.insert(outline.clone()) {
                outlines.push(outline);
            }
        }
        Self {
            rules: RuleSet::build(&matches),
            chains: rules.iter().map(|rule| rule.chain).collect(),
            sure: Sure::new(&outlines),
            outlines: outlines.into(),
        }
    }

    /// The chain of a new flow; `None` if no rule matches, or the one that does sends it past all chains.
    pub fn classify(&self, view: &FlowView<'_>, tuple: Option<&Tuple>) -> Option<ChainId> {
        if let Some(answer) = self.sure.answer(view.scope) {
            return answer;
        }
        self.look_up(view, tuple)
    }

    /// The chain of all new flows of a scope, if its first rule matches everything.
    pub fn sure(&self, scope: ScopeId) -> Option<ChainId> {
        self.sure.answer(scope).flatten()
    }

    fn look_up(&self, view: &FlowView<'_>, tuple: Option<&Tuple>) -> Option<ChainId> {
        self.rules.lookup(view, tuple).and_then(|rule| self.chains.get(rule).copied().flatten())
    }

    /// The header fields that classifying packets of `scope` looks at.
    pub fn fields_for(&self, scope: ScopeId) -> FieldSet {
        self.reachable(scope).fold(FieldSet::empty(), |fields, rule| fields | rule.fields)
    }

    /// The chains that packets of `scope` may be sent into, in the order of the rules, each once.
    pub fn chains_for(&self, scope: ScopeId) -> Vec<ChainId> {
        let mut known = HashSet::new();
        self.reachable(scope).filter_map(|rule| rule.chain).filter(|chain| known.insert(*chain)).collect()
    }

    /// What the rules were compiled into.
    pub fn shape(&self) -> RulesShape {
        self.rules.shape()
    }

    /// Rules about `scope`, up to the first that matches everything: those behind it are never asked.
    fn reachable(&self, scope: ScopeId) -> impl Iterator<Item = &Outline> {
        let mut done = false;
        self.outlines.iter().filter(move |rule| rule.is_about(scope)).take_while(move |rule| {
            let asked = !done;
            done |= rule.matches_all;
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

    /// What it says; the same as its rules say.
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
            tuple: tuple.as_ref(),
            meta: &meta,
            direction: Direction::Forward,
            established: false,
            now: 0,
            translations: decision::Translations::none(),
            ways: &decision::NoWays,
        };
        let chain = classifier.classify(&view, tuple.as_ref());
        assert_eq!(chain, classifier.look_up(&view, tuple.as_ref()));
        chain.map(|chain| chain.0)
    }

    fn to_port(port: u16) -> Match {
        Match { to_ports: vec![PortRange { first: port, last: port }], ..Match::default() }
    }

    fn scopes(scopes: &[u16]) -> Option<Vec<ScopeId>> {
        Some(scopes.iter().copied().map(ScopeId).collect())
    }

    fn classifier() -> Classifier {
        let (ssh, web, all) = (to_port(22), to_port(80), Match::default());
        let expedited = Match { dscp: vec![46], ..Match::default() };
        Classifier::new(&[
            Rule::new(None, &ssh, None),
            Rule::new(scopes(&[3, 1]), &web, Some(ChainId(1))),
            Rule::new(scopes(&[1]), &all, Some(ChainId(2))),
            Rule::new(None, &expedited, Some(ChainId(3))),
            Rule::new(scopes(&[]), &all, Some(ChainId(4))),
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
    fn a_scope_whose_first_rule_matches_everything_is_not_looked_up() {
        let (web, all) = (to_port(80), Match::default());
        let rules = [
            Rule::new(scopes(&[2, 5]), &all, Some(ChainId(1))),
            Rule::new(scopes(&[3]), &web, Some(ChainId(2))),
            Rule::new(scopes(&[3, 5]), &all, Some(ChainId(3))),
        ];
        let catch_all = Rule::new(None, &all, Some(ChainId(4)));
        let (few, more) = (Classifier::new(&rules), [&rules[..], &[catch_all]].concat());
        let more = Classifier::new(&more);
        for scope in 0..8 {
            for ip in [None, Some((protocol::TCP, 80)), Some((protocol::TCP, 81))] {
                let last = if matches!(scope, 2 | 3 | 5) { classify(&few, scope, ip) } else { Some(4) };
                assert_eq!(classify(&more, scope, ip), last);
            }
        }
        for rules in [&few, &more] {
            let unsure: Vec<u16> =
                (0..8).filter(|scope| rules.sure.answer(ScopeId(*scope)).is_none()).collect();
            assert_eq!(unsure, [3]);
        }
        assert_eq!(
            [2, 3, 5, 6].map(|scope| few.sure(ScopeId(scope)).map(|chain| chain.0)),
            [Some(1), None, Some(1), None]
        );
        assert_eq!(classify(&few, 5, None), Some(1), "the first rule of the scope decides");
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
