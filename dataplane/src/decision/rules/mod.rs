//! Ordered rules, first match wins: which of up to a hundred thousand a packet matches. The firewall and the classifier
//! share it.
//!
//! Each rule becomes one or a few *regions* ([`region`]): a prefix of each address, a range of each port, a protocol and
//! a scope. What a region cannot say (TCP flags, DSCP, ICMP types, very long lists) the rule's own [`Matcher`] is asked,
//! once a region fits. Regions of each family go into a structure of their own ([`tree`]), which the rules choose
//! ([`plan`]): a few are compared one after the other; many stand behind *tables*, each of them a hash table over some
//! leading bits of some fields, in the manner of tuple-space search (Srinivasan, Suri and Varghese, SIGCOMM 1999) with the
//! merged tuples of TupleMerge (Daly et al., ToN 2019). Unlike there, a bucket that is too full has tables of its own, and
//! what a table's bits are too many for stands behind the table's *rest*; so it is a tree, without a copy of a rule but a
//! bounded few. Everything carries the number of its first rule: what comes after the match in hand is not visited.

mod plan;
mod region;
mod tree;

#[cfg(test)]
mod tests;

use weir_config::Match;

use self::region::Expansion;
pub use self::tree::TreeShape;
use self::tree::{Tree, key_words};
use super::{FieldSet, FlowView, Matcher, ScopeId, Tuple};

/// A rule as it is compiled.
#[derive(Clone, Copy, Debug)]
pub struct Rule<'a> {
    /// Scopes that it is about; `None`: all. An empty list matches nothing.
    pub scopes: Option<&'a [ScopeId]>,
    /// What else must hold.
    pub matches: &'a Match,
}

/// What no region can say: asked when one fits.
#[derive(Clone, Debug)]
struct Exact {
    scopes: Option<Box<[ScopeId]>>,
    matcher: Matcher,
}

impl Exact {
    fn matches(&self, view: &FlowView<'_>, tuple: &Tuple) -> bool {
        self.scopes.as_ref().is_none_or(|scopes| scopes.binary_search(&view.scope).is_ok())
            && self.matcher.matches(view, Some(tuple))
    }
}

/// Compiled rules.
#[derive(Clone, Debug, Default)]
pub struct RuleSet {
    rules: usize,
    v4: Tree<2>,
    v6: Tree<5>,
    exact: Box<[Exact]>,
    /// For what is not IP: the first rule that asks for nothing but a scope, by scope, sorted.
    bare: Box<[(ScopeId, u32)]>,
    /// The first rule that asks for nothing.
    catch_all: Option<u32>,
    fields: FieldSet,
}

impl RuleSet {
    /// Compiles rules in their order. Takes about 10 µs a rule, and memory in proportion to the rules: see
    /// [`RuleSet::shape`].
    pub fn build(rules: &[Rule<'_>]) -> Self {
        let mut expansion = Expansion::new(rules.len());
        for rule in rules {
            expansion.add(rule);
        }
        let Expansion { v4, v6, exact, mut bare, catch_all, fields, .. } = expansion;
        // Stable, so the first rule of each scope stays in front.
        bare.sort_by_key(|(scope, _)| *scope);
        bare.dedup_by_key(|(scope, _)| *scope);
        Self {
            rules: rules.len(),
            v4: plan::plan(&v4),
            v6: plan::plan(&v6),
            exact: exact.into(),
            bare: bare.into(),
            catch_all,
            fields,
        }
    }

    /// The index of the first rule that a packet matches. `tuple` is the packet's tuple after the edits of earlier hops,
    /// `None` for what is not IP.
    pub fn lookup(&self, view: &FlowView<'_>, tuple: Option<&Tuple>) -> Option<usize> {
        let Some(tuple) = tuple else { return self.lookup_bare(view.scope) };
        let fits = |exact: u32| match self.exact.get(exact as usize) {
            Some(exact) => exact.matches(view, tuple),
            None => true,
        };
        let found = match key_words(view, tuple) {
            tree::Key::V4(key) => self.v4.first(&key, fits),
            tree::Key::V6(key) => self.v6.first(&key, fits),
        };
        found.map(|order| order as usize)
    }

    fn lookup_bare(&self, scope: ScopeId) -> Option<usize> {
        let of_scope = self.bare.binary_search_by_key(&scope, |(scope, _)| *scope).ok();
        let of_scope = of_scope.and_then(|at| self.bare.get(at)).map(|(_, order)| *order);
        let first = match (of_scope, self.catch_all) {
            (Some(of_scope), Some(catch_all)) => of_scope.min(catch_all),
            (one, other) => one.or(other)?,
        };
        Some(first as usize)
    }

    /// The header fields that look-ups depend on.
    pub fn fields(&self) -> FieldSet {
        self.fields
    }

    /// Number of rules.
    pub fn len(&self) -> usize {
        self.rules
    }

    /// Whether there is no rule.
    pub fn is_empty(&self) -> bool {
        self.rules == 0
    }

    /// What the rules were compiled into.
    pub fn shape(&self) -> RulesShape {
        let exact = self.exact.iter().map(|exact| size_of::<Exact>() + exact.matcher.heap_bytes());
        RulesShape {
            rules: self.rules,
            v4: self.v4.shape(),
            v6: self.v6.shape(),
            bytes: self.v4.bytes() + self.v6.bytes() + exact.sum::<usize>() + size_of_val(&*self.bare),
        }
    }
}

/// What rules were compiled into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RulesShape {
    /// Rules.
    pub rules: usize,
    /// The structure for IPv4.
    pub v4: TreeShape,
    /// The structure for IPv6.
    pub v6: TreeShape,
    /// Memory in bytes.
    pub bytes: usize,
}
