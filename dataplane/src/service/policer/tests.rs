//! Tests of the policer and its buckets.

use std::net::IpAddr;

use weir_config::{MacAddress, Match, PolicerRule, PortRange};

use super::*;
use crate::decision::{Domain, Edit, MeterCache, MeterId, MeterTable, Nanos, ScopeId, Tuple, VrfId};
use crate::packet::{L3, Meta, PacketFlags, protocol};

const SECOND: Nanos = 1_000_000_000;

fn context(meters: usize) -> (Arc<MeterTable>, BuildContext) {
    let table = Arc::new(MeterTable::new(meters, 1));
    let meters = Arc::new(MeterAllocator::new(Arc::clone(&table)));
    (table, BuildContext::of_meters(meters))
}

fn rule(matches: Match, per: PolicerScope) -> PolicerRule {
    PolicerRule { matches, rate: Rate::BitsPerSecond(8_000_000), burst: 15_000, per }
}

fn to_port(port: u16) -> Match {
    Match { to_ports: vec![PortRange { first: port, last: port }], ..Match::default() }
}

fn policer(rules: &[PolicerRule], context: &BuildContext) -> Policer {
    Policer::new("limit", &weir_config::Policer { rules: rules.to_vec() }, context)
}

fn tuple(host: u8, to_port: u16) -> Tuple {
    Tuple {
        source: IpAddr::from([10, 1, 0, host]),
        destination: IpAddr::from([10, 2, 0, 1]),
        protocol: protocol::UDP,
        source_port: 40_000,
        destination_port: to_port,
    }
}

fn ask(
    policer: &Policer,
    tuple: Option<Tuple>,
    direction: Direction,
    now: Nanos,
) -> Result<Option<MeterId>, Step> {
    let meta = Meta { l3: L3::V4, flags: PacketFlags::TRANSPORT, ..Meta::default() };
    let view = FlowView {
        scope: ScopeId(1),
        domain: Domain::Vrf(VrfId(0)),
        ether_source: MacAddress::default(),
        ether_destination: MacAddress::default(),
        tuple: tuple.as_ref(),
        meta: &meta,
        direction,
        established: direction == Direction::Reverse,
        now,
        translations: decision::Translations::none(),
        ways: &decision::NoWays,
    };
    let mut path = PathBuilder::default();
    path.reset(tuple.as_ref());
    match (policer.decide(&view, &mut path), path.edits()) {
        (Step::Continue, []) => Ok(None),
        (Step::Continue, [Edit::Meter(id)]) => Ok(Some(*id)),
        (step, []) => Err(step),
        (step, edits) => panic!("{step:?} with {edits:?}"),
    }
}

fn meter(policer: &Policer, tuple: Tuple, direction: Direction, now: Nanos) -> Option<MeterId> {
    ask(policer, Some(tuple), direction, now).unwrap()
}

#[test]
fn the_first_rule_that_matches_gives_the_bucket_and_the_rest_is_not_policed() {
    let (_, context) = context(8);
    let policer = policer(
        &[
            rule(to_port(80), PolicerScope::Rule),
            rule(to_port(443), PolicerScope::Rule),
            rule(to_port(80), PolicerScope::Rule),
        ],
        &context,
    );
    let web = meter(&policer, tuple(1, 80), Direction::Forward, 0);
    assert!(web.is_some());
    assert_eq!(meter(&policer, tuple(2, 80), Direction::Forward, 0), web);
    assert_ne!(meter(&policer, tuple(1, 443), Direction::Forward, 0), web);
    assert_eq!(meter(&policer, tuple(1, 22), Direction::Forward, 0), None);
    assert_eq!(context.meters.counters().in_use, 2);
}

#[test]
fn a_reply_is_policed_only_if_its_own_header_matches() {
    let (_, context) = context(8);
    let policer = policer(&[rule(to_port(80), PolicerScope::Rule)], &context);
    assert!(meter(&policer, tuple(1, 80), Direction::Forward, 0).is_some());
    assert_eq!(meter(&policer, tuple(1, 80).reversed(), Direction::Reverse, 0), None);
}

#[test]
fn each_source_has_its_bucket_for_both_directions() {
    let (_, context) = context(8);
    let policer = policer(&[rule(Match::default(), PolicerScope::Source)], &context);
    let first = meter(&policer, tuple(1, 80), Direction::Forward, 0);
    assert_eq!(meter(&policer, tuple(1, 443), Direction::Forward, 0), first);
    assert_eq!(meter(&policer, tuple(1, 80).reversed(), Direction::Reverse, 0), first);
    assert_ne!(meter(&policer, tuple(2, 80), Direction::Forward, 0), first);
    assert_eq!(policer.consults(), FieldSet::IP_SOURCE | FieldSet::IP_DESTINATION);
    assert_eq!(ask(&policer, None, Direction::Forward, 0), Ok(None));
}

#[test]
fn a_rate_in_bits_counts_bytes_of_l3_packets() {
    let (table, context) = context(8);
    let policer = policer(&[rule(Match::default(), PolicerScope::Rule)], &context);
    let id = meter(&policer, tuple(1, 80), Direction::Forward, SECOND).unwrap();
    let mut cache = MeterCache::new(&table);
    let mut spend = |now| cache.spend(&table, id, 1500, now);
    assert!((0..10).all(|_| spend(SECOND)), "a burst of 15000 bytes");
    assert!(!spend(SECOND));
    assert!(spend(SECOND + 1_500_000), "8 Mbit/s are 1500 bytes in 1.5 ms");
    assert!(!spend(SECOND + 1_500_000));
}

#[test]
fn a_reload_refills_no_bucket_unless_its_rule_changed() {
    let (_, context) = context(8);
    let rules = [rule(to_port(80), PolicerScope::Rule), rule(to_port(443), PolicerScope::Source)];
    let ids = |rules: &[PolicerRule]| {
        let policer = policer(rules, &context);
        [tuple(1, 80), tuple(1, 443)].map(|tuple| meter(&policer, tuple, Direction::Forward, 0).unwrap())
    };
    let before = ids(&rules);
    assert_eq!(ids(&rules), before);
    let mut changed = rules.clone();
    changed[1].burst += 1;
    let after = ids(&changed);
    assert_eq!(after[0], before[0]);
    assert_ne!(after[1], before[1]);
}

#[test]
fn a_full_table_drops_with_its_own_reason_until_a_bucket_is_idle() {
    let (table, context) = context(2);
    let policer = policer(&[rule(Match::default(), PolicerScope::Source)], &context);
    let first = meter(&policer, tuple(1, 80), Direction::Forward, 0).unwrap();
    let second = meter(&policer, tuple(2, 80), Direction::Forward, 0).unwrap();
    let third = |now| ask(&policer, Some(tuple(3, 80)), Direction::Forward, now);
    assert_eq!(third(59 * SECOND), Err(Step::Drop(DropReason::MeterTableFull)));
    assert_eq!(context.meters.counters().refused, 1);
    // Sweeps saw programs of the first at 59 s; a packet of the second was policed later than a minute ago.
    table.touch(first, 59);
    assert_eq!(third(60 * SECOND), Ok(Some(second)));
    let entries = context.meters.entries(10);
    assert_eq!(
        entries.iter().map(|entry| entry.source.unwrap()).collect::<Vec<_>>(),
        [tuple(1, 0).source, tuple(3, 0).source]
    );
}

#[test]
fn a_bucket_that_is_not_full_again_is_not_given_away() {
    let (table, context) = context(1);
    let slow = PolicerRule {
        rate: Rate::PacketsPerSecond(1),
        burst: 600,
        ..rule(Match::default(), PolicerScope::Source)
    };
    let policer = policer(&[slow], &context);
    let id = meter(&policer, tuple(1, 80), Direction::Forward, 0).unwrap();
    let mut cache = MeterCache::new(&table);
    assert!((0..600).all(|_| cache.spend(&table, id, 100, 0)));
    let other = |now| ask(&policer, Some(tuple(2, 80)), Direction::Forward, now);
    assert_eq!(other(599 * SECOND), Err(Step::Drop(DropReason::MeterTableFull)));
    assert_eq!(other(600 * SECOND), Ok(Some(id)));
}
