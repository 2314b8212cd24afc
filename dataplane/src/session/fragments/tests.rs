use std::collections::HashMap;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::*;

const DOMAIN: Domain = Domain::Vrf(VrfId(0));

fn first(host: u8, ports: (u16, u16)) -> Tuple {
    Tuple {
        source: [10, 0, 0, host].into(),
        destination: [10, 0, 1, 2].into(),
        protocol: 17,
        source_port: ports.0,
        destination_port: ports.1,
    }
}

fn later(host: u8) -> Tuple {
    first(host, (0, 0))
}

#[test]
fn later_fragments_take_the_ports_of_their_first_until_the_note_expires() {
    let table = FragmentTable::new(64, 1);
    let first = first(1, (7, 53));
    table.note(DOMAIN, &first, 9, 1_000);
    assert_eq!(table.ports(DOMAIN, &later(1), 9, 2_000), Some((7, 53)));
    let other = |change: fn(&mut Tuple)| {
        let mut tuple = later(1);
        change(&mut tuple);
        table.ports(DOMAIN, &tuple, 9, 2_000)
    };
    assert_eq!(table.ports(DOMAIN, &later(1), 8, 2_000), None, "another packet");
    assert_eq!(table.ports(Domain::Vrf(VrfId(1)), &later(1), 9, 2_000), None, "another VRF");
    assert_eq!(table.ports(Domain::Bridge(BridgeId(0)), &later(1), 9, 2_000), None, "no VRF");
    assert_eq!(other(|tuple| tuple.source = [10, 0, 0, 3].into()), None, "another source");
    assert_eq!(other(|tuple| tuple.destination = [10, 0, 0, 3].into()), None, "another destination");
    assert_eq!(other(|tuple| tuple.protocol = 6), None, "another protocol");
    assert_eq!(
        other(|tuple| {
            tuple.source = IpAddr::V6(u128::from(0x0a00_0001u32).into());
            tuple.destination = IpAddr::V6(u128::from(0x0a00_0102u32).into());
        }),
        None,
        "another family"
    );
    assert_eq!(table.usage(), (1, 64));
    assert_eq!(table.ports(DOMAIN, &later(1), 9, 1_000 + LIFETIME - 1), Some((7, 53)));
    assert_eq!(table.ports(DOMAIN, &later(1), 9, 1_000 + LIFETIME), None);
}

#[test]
fn a_used_up_identification_means_the_newest_packet() {
    let table = FragmentTable::new(64, 1);
    table.note(DOMAIN, &first(1, (7, 53)), 9, 1_000);
    table.note(DOMAIN, &first(1, (8, 54)), 9, 2_000);
    assert_eq!(table.ports(DOMAIN, &later(1), 9, 3_000), Some((8, 54)));
    assert_eq!(table.usage().0, 1, "in the place of the other");
}

#[test]
fn the_oldest_note_gives_way_where_there_is_no_room() {
    let table = FragmentTable::new(WAYS, 1);
    for id in 0..=WAYS as u32 {
        table.note(DOMAIN, &first(1, (7, 53)), id, 1_000 + u64::from(id));
    }
    assert_eq!(table.usage(), (4, 4));
    assert_eq!(table.ports(DOMAIN, &later(1), 0, 2_000), None, "it made room");
    for id in 1..=WAYS as u32 {
        assert_eq!(table.ports(DOMAIN, &later(1), id, 2_000), Some((7, 53)), "{id}");
    }
    // What is out of time goes before what is not.
    let now = 1_002 + LIFETIME;
    table.note(DOMAIN, &first(1, (7, 53)), 9, now);
    table.note(DOMAIN, &first(1, (7, 53)), 10, now);
    for id in [3, 4, 9, 10] {
        assert_eq!(table.ports(DOMAIN, &later(1), id, now), Some((7, 53)), "{id}");
    }
}

/// As a worker sees it that reads while another writes.
#[test]
fn a_note_that_is_half_of_another_is_none() {
    let table = FragmentTable::new(64, 1);
    table.note(DOMAIN, &first(1, (7, 53)), 9, 1_000);
    let line = table.lines.iter().find(|line| line.expires() != 0).unwrap();
    for word in 0..8 {
        let was = line.0[word].fetch_xor(1 << 7, Ordering::Relaxed);
        assert_eq!(table.ports(DOMAIN, &later(1), 9, 2_000), None, "word {word}");
        line.0[word].store(was, Ordering::Relaxed);
    }
    assert_eq!(table.ports(DOMAIN, &later(1), 9, 2_000), Some((7, 53)));
}

#[test]
fn workers_that_write_to_one_line_at_once_mix_nothing() {
    let table = FragmentTable::new(WAYS, 1);
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for worker in 0..2u32 {
            let (table, stop) = (&table, &stop);
            scope.spawn(move || {
                for round in (0..).take_while(|_| !stop.load(Ordering::Relaxed)) {
                    let id = (2 * round + worker) % 16;
                    table.note(DOMAIN, &first(1, (id as u16, !id as u16)), id, u64::from(round));
                }
            });
        }
        // As long as it takes until the others have run beside this one for a while.
        let (mut found, begun) = (0, Instant::now());
        let mut mixed = None;
        for (look, id) in (0..16).cycle().enumerate() {
            if let Some(ports) = table.ports(DOMAIN, &later(1), id, 0) {
                mixed = mixed.or((ports != (id as u16, !id as u16)).then_some((id, ports)));
                found += 1;
            }
            let enough = look > 200_000 && found > 1000;
            if enough || mixed.is_some() || begun.elapsed() > Duration::from_secs(60) {
                break;
            }
        }
        stop.store(true, Ordering::Relaxed);
        assert_eq!(mixed, None);
        assert!(found > 1000, "only {found} were ever whole");
    });
}

proptest! {
    /// A map is the slow twin, as long as there is room.
    #[test]
    fn it_holds_what_a_map_would(
        actions in proptest::collection::vec(
            (any::<bool>(), 0u8..4, 0u32..16, any::<(u16, u16)>(), 0..LIFETIME / 20), 1..200),
        seed in any::<u64>(),
    ) {
        let table = FragmentTable::new(4096, seed);
        let mut map = HashMap::new();
        let mut now = 1;
        for (note, host, id, ports, elapsed) in actions {
            now += elapsed;
            if note {
                table.note(DOMAIN, &first(host, ports), id, now);
                map.insert((host, id), (ports, now + LIFETIME));
            } else {
                let expected = map.get(&(host, id)).filter(|(_, expires)| *expires > now);
                prop_assert_eq!(table.ports(DOMAIN, &later(host), id, now), expected.map(|(ports, _)| *ports));
            }
        }
        prop_assert_eq!(table.usage().0, map.len() as u64);
    }
}
