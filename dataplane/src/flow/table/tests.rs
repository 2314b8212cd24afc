//! The flow table against a map, and its bucket against a loop.

use std::collections::HashMap;

use proptest::prelude::*;

use super::*;

const SEED: [u64; 8] = [1, 2, 3, 4, 5, 6, 7, 8];

fn key(number: u64) -> FlowKey {
    FlowKey([7, 0, 0, 0, number, 0, number.rotate_left(32), 0])
}

fn insert(table: &mut FlowTable, number: u64, mtu: u16) -> Slot {
    let key = key(number);
    let program = Program { mtu, ..Program::default() };
    table.insert(&key, table.hash(&key), program, Rewrite::default(), 1, 1, 0)
}

fn mtu(table: &FlowTable, number: u64) -> Option<u16> {
    let key = key(number);
    let hash = table.hash(&key);
    let slot = table.find(&key, hash);
    // However it is looked up, the answer is the same.
    assert_eq!(table.find_guessed(table.guess(hash), &key, hash), slot);
    Some(table.entry(slot)?.program.mtu)
}

#[test]
fn a_guess_does_not_find_a_flow_that_was_removed_since() {
    let mut table = FlowTable::new(64, SEED);
    let slot = insert(&mut table, 1, 1500);
    let (key, hash) = (key(1), table.hash(&key(1)));
    let guess = table.guess(hash);
    assert_eq!((guess, table.find_guessed(guess, &key, hash)), (slot, slot));
    assert!(table.remove(&key, hash));
    assert_eq!(table.find_guessed(guess, &key, hash), Slot::NONE);
    // Its entry goes to another flow.
    insert(&mut table, 2, 1400);
    assert_eq!(table.find_guessed(guess, &key, hash), Slot::NONE);
    assert_eq!(mtu(&table, 2), Some(1400));
}

#[test]
fn a_full_table_evicts_and_never_grows() {
    let mut table = FlowTable::new(64, SEED);
    for number in 0..1_000 {
        insert(&mut table, number, 1500);
        assert_eq!(mtu(&table, number), Some(1500));
    }
    let found = (0..1_000).filter(|number| mtu(&table, *number).is_some()).count();
    assert_eq!((found, table.len()), (64, 64));
    assert_eq!(table.evictions(), 1_000 - 64);
}

proptest! {
    #[test]
    fn the_table_agrees_with_a_map(steps in proptest::collection::vec((0u64..200, any::<u16>(), any::<bool>()), 1..400)) {
        // Twice as many places as flows: nothing is evicted.
        let mut table = FlowTable::new(1024, SEED);
        let mut map = HashMap::new();
        for (number, mtu, put) in steps {
            if put {
                insert(&mut table, number, mtu);
                map.insert(number, mtu);
            } else {
                let key = key(number);
                prop_assert_eq!(table.remove(&key, table.hash(&key)), map.remove(&number).is_some());
            }
            prop_assert_eq!(table.len(), map.len());
        }
        for number in 0..200 {
            prop_assert_eq!(mtu(&table, number), map.get(&number).copied());
        }
        table.sweep(table.buckets(), |_| false);
        prop_assert!(table.is_empty() && (0..200).all(|number| mtu(&table, number).is_none()));
    }

    #[test]
    fn the_ways_with_a_tag_are_among_those_found_and_the_first_found_has_it(
        tags in proptest::array::uniform8(0u16..4),
        tag in 0u16..4,
        scale in prop::sample::select(vec![1u16, 0x1111, 0x5555]),
    ) {
        let lanes = tags.iter().rev().fold(0u128, |lanes, tag| lanes << 16 | u128::from(tag * scale));
        let bucket = Bucket { tags: lanes, entries: [0, 1, 2, 3, 4, 5, 6, 7] };
        let found = bucket.matching(tag * scale);
        prop_assert_eq!(bucket.first(found), tags.iter().position(|have| *have == tag).map(|way| way as u32));
        for (way, have) in tags.iter().enumerate() {
            prop_assert!(*have != tag || found >> (16 * way + 15) & 1 == 1);
        }
    }
}
