//! Rules of firewall, classifier and policer: which is the first that matches.

use std::hint::black_box;
use std::time::Instant;

use weir_config::{MacAddress, Match};
use weir_dataplane::decision::{
    Direction, Domain, FlowView, NoWays, Rule, RuleSet, ScopeId, Translations, Tuple, VrfId,
};
use weir_dataplane::packet::{L3, Meta, PacketFlags};

use super::report::{Figure, Table};
use super::{Effort, SEED, timed};
use crate::rules::{Generator, Kind, Numbers};

/// Different packets.
const PACKETS: usize = 30_000;
/// SYN.
const FIRST: u8 = 2;

/// Rule sets of all kinds and sizes.
pub(super) fn measure(effort: &Effort) -> Vec<Table> {
    let mut tables = Vec::new();
    for (kind, v6) in [(Kind::Acl, false), (Kind::Firewall, false), (Kind::Ipc, false), (Kind::Acl, true)] {
        tables.extend(effort.rules.iter().map(|size| one(kind, v6, *size, effort)));
    }
    tables
}

/// Rules, and packets for them.
pub(super) fn input(kind: Kind, v6: bool, size: usize) -> (Vec<Match>, Vec<(Meta, Tuple)>) {
    let mut generator = Generator::new(kind, v6, size, SEED);
    let matches = generator.rules(size);
    let packets = packets(&mut generator, &matches, v6);
    (matches, packets)
}

fn one(kind: Kind, v6: bool, size: usize, effort: &Effort) -> Table {
    let (matches, packets) = input(kind, v6, size);
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

/// Nine of ten made from some rule.
fn packets(generator: &mut Generator, rules: &[Match], v6: bool) -> Vec<(Meta, Tuple)> {
    let mut numbers = Numbers::new(SEED);
    let other = Match::default();
    let l3 = if v6 { L3::V6 } else { L3::V4 };
    (0..PACKETS)
        .map(|_| {
            let from_rule = numbers.chance(90);
            let rule = rules.get(numbers.below(rules.len() as u64) as usize).filter(|_| from_rule);
            let (source, destination, protocol, source_port, destination_port) =
                generator.packet(rule.unwrap_or(&other));
            let flags = PacketFlags::TRANSPORT;
            let meta = Meta { l3, protocol, flags, tcp_flags: FIRST, ..Meta::default() };
            (meta, Tuple { source, destination, protocol, source_port, destination_port })
        })
        .collect()
}

fn view<'a>(meta: &'a Meta, tuple: &'a Tuple) -> FlowView<'a> {
    FlowView {
        scope: ScopeId(1),
        domain: Domain::Vrf(VrfId(0)),
        ether_source: MacAddress::default(),
        ether_destination: MacAddress::default(),
        tuple: Some(tuple),
        meta,
        direction: Direction::Forward,
        established: false,
        now: 1,
        translations: Translations::none(),
        ways: &NoWays,
    }
}
