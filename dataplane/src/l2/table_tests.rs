//! Tests of the table of learned addresses.

use super::*;
use crate::decision::EndpointId;

const SECOND: Nanos = 1_000_000_000;
const LAN: BridgeId = BridgeId(1);
const POLICY: LearnPolicy = LearnPolicy { ageing: 300 * SECOND, per_member: None };

fn mac(last: u8) -> MacAddress {
    MacAddress([2, 0, 0, 0, 0, last])
}

fn port(scope: u16) -> Member {
    Member { scope: ScopeId(scope), endpoint: None }
}

#[test]
fn an_address_is_learned_in_its_own_bridge_domain() {
    let table = MacTable::new(8);
    assert_eq!(table.learn(LAN, mac(1), port(1), POLICY, 0), Learned::New);
    assert_eq!(table.learn(LAN, mac(1), port(1), POLICY, 1), Learned::Same);
    assert_eq!(table.lookup(LAN, mac(1), 2), Some(port(1)));
    assert_eq!(table.lookup(BridgeId(2), mac(1), 2), None);
    assert_eq!(table.epoch(), 0, "a new address makes no cached decision wrong");
}

#[test]
fn group_addresses_are_not_learned() {
    // IEEE 802.1Q clause 8.7.1.
    let table = MacTable::new(8);
    let group = MacAddress([1, 0, 0x5e, 0, 0, 1]);
    assert_eq!(table.learn(LAN, group, port(1), POLICY, 0), Learned::Refused);
    assert_eq!(table.learn(LAN, MacAddress::BROADCAST, port(1), POLICY, 0), Learned::Refused);
    assert_eq!(table.learn(LAN, MacAddress::default(), port(1), POLICY, 0), Learned::Refused);
    assert_eq!(table.counters().in_use, 0);
}

#[test]
fn an_address_that_moves_is_counted_and_moves_the_epoch() {
    let table = MacTable::new(8);
    table.learn(LAN, mac(1), port(1), POLICY, 0);
    assert_eq!(table.learn(LAN, mac(1), port(2), POLICY, 1), Learned::Moved);
    assert_eq!(table.lookup(LAN, mac(1), 2), Some(port(2)));
    assert_eq!((table.counters().moved, table.epoch()), (1, 1));
    let remote = |number| Member { scope: ScopeId(9), endpoint: Some(EndpointId(number)) };
    assert_eq!(table.learn(LAN, mac(1), remote(1), POLICY, 1), Learned::Moved);
    assert_eq!(table.learn(LAN, mac(1), remote(2), POLICY, 1), Learned::Moved);
}

#[test]
fn an_address_ages_out_unless_it_is_seen_or_touched() {
    // IEEE 802.1Q clause 8.8.3: 300 seconds unless configured otherwise.
    let table = MacTable::new(8);
    for host in 1..=3 {
        table.learn(LAN, mac(host), port(1), POLICY, 0);
    }
    table.touch(LAN, mac(2), ScopeId(1), 200 * SECOND);
    table.touch(LAN, mac(3), ScopeId(7), 200 * SECOND);
    assert_eq!(table.age(300 * SECOND - 1, 100), 0);
    assert_eq!(table.lookup(LAN, mac(1), 300 * SECOND), None, "out of time, though not yet removed");
    assert_eq!(table.age(300 * SECOND, 100), 2);
    assert_eq!(table.lookup(LAN, mac(2), 300 * SECOND), Some(port(1)));
    assert_eq!(table.epoch(), 1);
    table.touch(LAN, mac(2), ScopeId(1), 600 * SECOND);
    assert_eq!(table.age(600 * SECOND, 100), 1, "too late to be kept");
}

#[test]
fn ageing_goes_round_in_bounded_batches() {
    let table = MacTable::new(100);
    for host in 0..100 {
        table.learn(LAN, mac(host), port(1), POLICY, 0);
    }
    let batches: Vec<u64> = (0..11).map(|_| table.age(7200 * SECOND, 10)).collect();
    assert_eq!(batches, [10, 10, 10, 10, 10, 10, 10, 10, 10, 10, 0]);
}

#[test]
fn a_full_table_refuses_and_counts() {
    let table = MacTable::new(2);
    table.learn(LAN, mac(1), port(1), POLICY, 0);
    table.learn(LAN, mac(2), port(1), POLICY, 0);
    assert_eq!(table.learn(LAN, mac(3), port(1), POLICY, 1), Learned::Refused);
    assert_eq!(table.counters().refused, 1);
    assert_eq!(table.learn(LAN, mac(2), port(2), POLICY, 1), Learned::Moved, "a move needs no room");
    assert_eq!(table.learn(LAN, mac(3), port(1), POLICY, 300 * SECOND), Learned::New, "one was out of time");
}

#[test]
fn one_member_cannot_take_all_the_room() {
    let table = MacTable::new(8);
    let policy = LearnPolicy { per_member: Some(2), ..POLICY };
    assert_eq!(table.learn(LAN, mac(1), port(1), policy, 0), Learned::New);
    assert_eq!(table.learn(LAN, mac(2), port(1), policy, 0), Learned::New);
    assert_eq!(table.learn(LAN, mac(3), port(1), policy, 0), Learned::Refused);
    assert_eq!(table.learn(LAN, mac(3), port(2), policy, 0), Learned::New);
    assert_eq!(table.learn(LAN, mac(3), port(1), policy, 0), Learned::Refused, "nor by moving");
    assert_eq!(table.lookup(LAN, mac(3), 0), Some(port(2)));
    assert_eq!(table.learn(LAN, mac(1), port(2), policy, 0), Learned::Moved);
    assert_eq!(table.learn(LAN, mac(4), port(1), policy, 0), Learned::New);
}

#[test]
fn flushing_forgets_one_member_or_one_bridge_domain() {
    let table = MacTable::new(8);
    table.learn(LAN, mac(1), port(1), POLICY, 0);
    table.learn(LAN, mac(2), port(2), POLICY, 0);
    table.learn(BridgeId(2), mac(3), port(3), POLICY, 0);
    table.flush_member(ScopeId(8));
    assert_eq!(table.epoch(), 0, "nothing was there");
    table.flush_member(ScopeId(1));
    assert_eq!((table.lookup(LAN, mac(1), 0), table.lookup(LAN, mac(2), 0)), (None, Some(port(2))));
    table.flush_bridge(LAN);
    let entries = table.entries(0, 10);
    assert_eq!(entries.len(), 1);
    assert_eq!((entries[0].bridge, entries[0].mac, entries[0].expires), (BridgeId(2), mac(3), 300 * SECOND));
    assert_eq!(table.epoch(), 2);
}
