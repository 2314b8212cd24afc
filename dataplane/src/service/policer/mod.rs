//! A policer: token buckets (the committed bucket of RFC 2697) for what its rules match.
//!
//! The first rule that matches a packet decides which bucket it spends from; what no rule matches is not policed. A rule is
//! about a packet's own header, in its own direction: replies are policed only if a rule matches *them*. Of two
//! directions that match the same rule, both spend from its bucket.
//!
//! With `per = "source"` each host has a bucket of its own, by the source address of its session's first packet, so that
//! what it sends and what it is sent, where both match, count together. What is not IP has no source and is not policed
//! by such a rule.

use std::sync::Arc;

use weir_config::{PolicerScope, Rate};

use super::{BuildContext, ServiceFunction};
use crate::decision::{
    self, Direction, DropReason, FieldSet, FlowView, MeterSpec, PathBuilder, RuleSet, RulesShape, Step,
};

mod allocator;

#[cfg(test)]
mod tests;

pub use allocator::{MeterAllocator, MeterCounters, MeterEntry};

use allocator::RuleKey;

/// A compiled policer.
#[derive(Debug)]
pub struct Policer {
    name: String,
    matches: RuleSet,
    rules: Box<[Rule]>,
    meters: Arc<MeterAllocator>,
}

#[derive(Debug)]
struct Rule {
    key: Arc<RuleKey>,
    per: PolicerScope,
}

impl Policer {
    /// Compiles the policer `name`. Its buckets are found again by name, rule number and rate, so that a reload that
    /// changes none of them refills none.
    pub fn new(name: &str, config: &weir_config::Policer, context: &BuildContext) -> Self {
        let rule = |(number, rule): (usize, &weir_config::PolicerRule)| Rule {
            key: Arc::new(RuleKey { service: name.to_owned(), rule: number, spec: spec(rule) }),
            per: rule.per,
        };
        let matches: Vec<_> =
            config.rules.iter().map(|rule| decision::Rule { scopes: None, matches: &rule.matches }).collect();
        Self {
            name: name.to_owned(),
            matches: RuleSet::build(&matches),
            rules: config.rules.iter().enumerate().map(rule).collect(),
            meters: Arc::clone(&context.meters),
        }
    }
}

/// A rate in bits counts bytes of L3 packets.
fn spec(rule: &weir_config::PolicerRule) -> MeterSpec {
    match rule.rate {
        Rate::BitsPerSecond(bits) => MeterSpec { rate: (bits / 8).max(1), burst: rule.burst, packets: false },
        Rate::PacketsPerSecond(packets) => MeterSpec { rate: packets, burst: rule.burst, packets: true },
    }
}

impl ServiceFunction for Policer {
    fn name(&self) -> &str {
        &self.name
    }

    fn kind(&self) -> &'static str {
        "policer"
    }

    fn consults(&self) -> FieldSet {
        self.rules.iter().fold(self.matches.fields(), |fields, rule| {
            let by_source = FieldSet::IP_SOURCE | FieldSet::IP_DESTINATION;
            let bucket = if rule.per == PolicerScope::Source { by_source } else { FieldSet::empty() };
            fields | bucket
        })
    }

    fn decide(&self, flow: &FlowView<'_>, path: &mut PathBuilder) -> Step {
        let tuple = path.tuple();
        let matching = self.matches.lookup(flow, tuple);
        let Some(rule) = matching.and_then(|rule| self.rules.get(rule)) else {
            return Step::Continue;
        };
        let source = match (rule.per, tuple, flow.direction) {
            (PolicerScope::Rule, _, _) => None,
            (PolicerScope::Source, None, _) => return Step::Continue,
            (PolicerScope::Source, Some(tuple), Direction::Forward) => Some(tuple.source),
            (PolicerScope::Source, Some(tuple), Direction::Reverse) => Some(tuple.destination),
        };
        match self.meters.meter(&rule.key, source, flow.now) {
            Some(meter) => {
                path.meter(meter);
                Step::Continue
            }
            None => Step::Drop(DropReason::MeterTableFull),
        }
    }

    fn rules(&self) -> Option<RulesShape> {
        Some(self.matches.shape())
    }
}
