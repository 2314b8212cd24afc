//! Rules of firewall, classifier and policer: which is the first that matches.

use std::hint::black_box;
use std::time::Instant;

use weir_dataplane::decision::{FlowView, Rule, RuleSet};

use super::report::{Figure, Table};
use super::{Effort, SEED, timed};
use crate::rules::{Kind, input, view};

/// Rule sets of all kinds and sizes.
pub(super) fn measure(effort: &Effort) -> Vec<Table> {
    let mut tables = Vec::new();
    for (kind, v6) in [(Kind::Acl, false), (Kind::Firewall, false), (Kind::Ipc, false), (Kind::Acl, true)] {
        tables.extend(effort.rules.iter().map(|size| one(kind, v6, *size, effort)));
    }
    tables
}

fn one(kind: Kind, v6: bool, size: usize, effort: &Effort) -> Table {
    let (matches, packets) = input(kind, v6, size, SEED);
    let rules: Vec<Rule<'_>> = matches.iter().map(|matches| Rule { scopes: None, matches }).collect();
    let begun = Instant::now();
    let set = RuleSet::build(&rules);
    let built = begun.elapsed();
    let views: Vec<FlowView<'_>> = packets.iter().map(|(meta, tuple)| view(meta, tuple)).collect();
    let mut lookups = Vec::new();
    for _ in 0..=effort.repeats {
        // A pass that only reads the packets is subtracted.
        let null = timed(views.len(), || {
            views.iter().map(|view| view.tuple.map_or(0, |tuple| usize::from(tuple.protocol))).sum::<usize>()
        });
        let whole = timed(views.len(), || {
            views.iter().map(|view| set.lookup(black_box(view), view.tuple).unwrap_or(0)).sum::<usize>()
        });
        lookups.push(whole - null);
    }
    let shape = set.shape();
    Table {
        table: "rules".into(),
        variant: format!("{} {}", kind.name(), if v6 { "IPv6" } else { "IPv4" }),
        size,
        structure: if v6 { shape.v6 } else { shape.v4 }.why(),
        pages: "heap".into(),
        bytes: shape.bytes,
        build_ms: built.as_secs_f64() * 1e3,
        figures: vec![Figure::new("look-up", lookups)],
    }
}
