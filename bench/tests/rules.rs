//! Generated rule sets, compiled, against asking each rule in turn.

use weir_bench::rules::{Generator, Kind, Numbers};
use weir_config::{MacAddress, Match};
use weir_dataplane::decision::{Direction, Domain, FlowView, Matcher, Rule, RuleSet, ScopeId, Tuple, VrfId};
use weir_dataplane::packet::{L3, Meta, PacketFlags};

#[test]
fn three_thousand_rules_of_every_kind_are_found_as_one_by_one() {
    for kind in Kind::ALL {
        for v6 in [false, true] {
            agrees(kind, v6, 3_000, 250);
        }
    }
}

#[test]
fn a_seed_means_the_same_rules_every_time() {
    let rules = || Generator::new(Kind::Ipc, false, 50, 3).rules(50);
    assert_eq!(rules(), rules());
    assert_ne!(rules(), Generator::new(Kind::Ipc, false, 50, 4).rules(50));
}

fn agrees(kind: Kind, v6: bool, count: usize, packets: usize) {
    let mut generator = Generator::new(kind, v6, count, 11);
    let matches = generator.rules(count);
    let rules: Vec<_> = matches.iter().map(|matches| Rule { scopes: None, matches }).collect();
    let set = RuleSet::build(&rules);
    let shape = if v6 { set.shape().v6 } else { set.shape().v4 };
    assert!(shape.tables > 0 && shape.regions < 3 * count, "{kind:?}: {shape:?}");
    let matchers: Vec<_> = matches.iter().map(Matcher::new).collect();
    let (mut numbers, mut hits) = (Numbers::new(5), 0);
    for _ in 0..packets {
        let of = if numbers.chance(80) {
            &matches[numbers.below(count as u64) as usize]
        } else {
            &Match::default()
        };
        let (source, destination, protocol, source_port, destination_port) = generator.packet(of);
        let tuple = Tuple { source, destination, protocol, source_port, destination_port };
        let l3 = if v6 { L3::V6 } else { L3::V4 };
        let meta = Meta { l3, protocol, flags: PacketFlags::TRANSPORT, tcp_flags: 2, ..Meta::default() };
        let view = FlowView {
            scope: ScopeId(1),
            domain: Domain::Vrf(VrfId(0)),
            ether_source: MacAddress::default(),
            ether_destination: MacAddress::default(),
            tuple: Some(&tuple),
            meta: &meta,
            direction: Direction::Forward,
            established: false,
            now: 1,
            translations: weir_dataplane::decision::Translations::none(),
            ways: &weir_dataplane::decision::NoWays,
        };
        let expected = matchers.iter().position(|matcher| matcher.matches(&view, Some(&tuple)));
        assert_eq!(set.lookup(&view, Some(&tuple)), expected, "{kind:?}: {tuple:?}");
        hits += usize::from(expected.is_some());
    }
    assert!(hits > packets / 2, "{kind:?}: only {hits} of {packets} packets match anything");
}
