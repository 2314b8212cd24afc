use std::collections::HashMap;

use proptest::prelude::*;

use super::*;

fn key(n: u64) -> CompactKey {
    CompactKey::of(ScopeId(3), n.wrapping_mul(0x1_0000_0001), n as u32, 17)
}

fn entry(key: CompactKey, program: u32, used: u32) -> CompactEntry {
    CompactEntry { key, program: ProgramId(program), used, packets: 1, bytes: 60, ..CompactEntry::default() }
}

#[test]
fn keys_say_what_they_are_the_keys_of() {
    let addresses = u64::from_le_bytes([10, 1, 0, 2, 10, 2, 0, 9]);
    let ports = u32::from_le_bytes([0x0f, 0xa0, 0x01, 0xbb]);
    let routed = CompactKey::of(ScopeId(0x1234), addresses, ports, 6);
    assert_eq!(
        routed.describe(),
        "source=10.1.0.2 destination=10.2.0.9 protocol=6 source-port=4000 destination-port=443"
    );
    assert_eq!((routed.scope(), routed.ether_source()), (ScopeId(0x1234), None));
    let (first, next) = (u64::from_le_bytes([2, 0, 0, 0, 0, 1, 2, 0]), u32::from_le_bytes([0, 0, 0, 2]));
    let bridged = CompactKey::bridged(ScopeId(7), EndpointId(4095), first, next);
    assert_eq!(bridged.describe(), "ether-source=02:00:00:00:00:02 ether-destination=02:00:00:00:00:01");
    assert_eq!(bridged.scope(), ScopeId(7));
    assert_ne!(bridged, CompactKey::bridged(ScopeId(7), EndpointId(0), first, next));
    let destination = CompactKey::of(ScopeId(1), addresses & !0xffff_ffff, 0, 0);
    assert_eq!(destination.describe(), "destination=10.2.0.9");
}

#[test]
fn a_rewrite_survives_being_made_compact() {
    let key = CompactKey::of(ScopeId(1), u64::from_le_bytes([10, 1, 0, 2, 10, 2, 0, 9]), 0x0102_0304, 17);
    let to = |ip: [u8; 4], port| Some((IpAddr::from(ip), port));
    for (source, destination) in [
        (to([203, 0, 113, 7], 40_000), None),
        (None, to([192, 0, 2, 1], 53)),
        (to([203, 0, 113, 7], 1), to([192, 0, 2, 1], 53)),
        (None, None),
    ] {
        let rewrite = Rewrite { source, destination, quoted: None };
        assert_eq!(CompactRewrite::new(&key, &rewrite).unwrap().expand(&key), rewrite);
    }
    let v6 = Rewrite { source: Some(("2001:db8::1".parse().unwrap(), 1)), destination: None, quoted: None };
    assert_eq!(CompactRewrite::new(&key, &v6), None);
}

#[test]
fn a_full_table_gives_up_what_was_used_longest_ago_and_never_grows() {
    let mut table = CompactTable::new(64, [3, 5]);
    for n in 0..1000 {
        let key = key(n);
        table.insert(table.hash(&key), entry(key, 1, n as u32));
        assert!(table.len() <= 64);
        assert!(table.entry(table.find(table.hash(&key), &key)).is_some(), "the newest is there");
    }
    assert_eq!((table.len() as u64, table.iter().count()), (64, 64));
    assert_eq!(table.evictions(), 1000 - 64);
}

/// Twice as many lines as flows, and four for each: taken as they are, every fiftieth new flow would find none free, of those that
/// come to a full table for others that go every twentieth.
#[test]
fn a_table_at_its_bound_has_room_for_all_but_one_flow_in_ten_thousand() {
    const FLOWS: usize = 1 << 16;
    let mut table = CompactTable::new(FLOWS, [0x9e37_79b9_7f4a_7c15, 0xd1b5_4a32_d192_ed03]);
    let (mut map, mut held, mut random) = (HashMap::new(), Vec::new(), 1u64);
    for n in 0..4 * FLOWS as u32 {
        while map.len() == FLOWS {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let gone: u32 = held.swap_remove((random >> 33) as usize % held.len());
            if let Some(key) = map.remove(&gone) {
                assert_eq!(table.remove(table.hash(&key), &key), Some(ProgramId(gone)));
            }
        }
        let key = key(u64::from(n));
        if let Some(ProgramId(gone)) = table.insert(table.hash(&key), entry(key, n, n)) {
            assert!(map.remove(&gone).is_some(), "{gone} was there");
        }
        map.insert(n, key);
        held.push(n);
        // What is not where it is looked for first is told anew by every pass.
        table.sweep(3, |_| true);
        assert_eq!(table.len(), map.len());
    }
    for (n, key) in &map {
        let found = table.entry(table.find(table.hash(key), key)).map(|entry| (entry.program, entry.packets));
        assert_eq!(found, Some((ProgramId(*n), 1)));
    }
    assert_eq!(table.iter().count(), map.len());
    assert!(table.evictions() * 10_000 < 4 * FLOWS as u64, "{} flows found no room", table.evictions());
}

#[derive(Clone, Debug)]
enum Action {
    Insert(u64, u32),
    Remove(u64),
    Sweep(u32),
    /// Looks at so many lines, and removes nothing.
    Pass(usize),
}

fn action() -> impl Strategy<Value = Action> {
    prop_oneof![
        4 => (0u64..200, 0u32..5).prop_map(|(key, program)| Action::Insert(key, program)),
        2 => (0u64..200).prop_map(Action::Remove),
        1 => (0u32..5).prop_map(Action::Sweep),
        2 => (1usize..600).prop_map(Action::Pass),
    ]
}

proptest! {
    /// A map is the slow twin, as long as nothing has to give way.
    #[test]
    fn it_holds_what_a_map_would(actions in proptest::collection::vec(action(), 1..300), seed in any::<[u64; 2]>()) {
        // So small that flows have to move.
        let mut table = CompactTable::new(256, seed);
        let mut map: HashMap<u64, (u32, u64)> = HashMap::new();
        for action in actions {
            match action {
                Action::Insert(n, program) => {
                    let key = key(n);
                    let old = table.insert(table.hash(&key), entry(key, program, 0));
                    let packets = map.get(&n).map_or(0, |(_, packets)| *packets) + 1;
                    prop_assert_eq!(old, map.insert(n, (program, packets)).map(|(program, _)| ProgramId(program)));
                }
                Action::Remove(n) => {
                    let key = key(n);
                    let old = table.remove(table.hash(&key), &key);
                    prop_assert_eq!(old, map.remove(&n).map(|(program, _)| ProgramId(program)));
                }
                Action::Sweep(program) => {
                    table.sweep(table.lines(), |entry| entry.program != ProgramId(program));
                    map.retain(|_, (kept, _)| *kept != program);
                }
                Action::Pass(lines) => table.sweep(lines, |_| true),
            }
            // Rarely nothing can move: then something gave way, and the case says nothing.
            prop_assume!(table.evictions() == 0);
            prop_assert_eq!(table.len(), map.len());
        }
        for n in 0..200 {
            let found = table.entry(table.find(table.hash(&key(n)), &key(n)));
            prop_assert_eq!(found.map(|entry| (entry.program.0, entry.packets)), map.get(&n).copied());
        }
    }
}
