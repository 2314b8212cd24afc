//! Tests of the session table; the last one against a naive model.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Barrier;

use proptest::prelude::*;

use super::tcp::{TIMEOUTS, Tracker};
use super::*;
use crate::decision::{ChainId, Direction, SessionId, Translations, Tuple, VrfId};
use crate::packet::{protocol, tcp_flags};

const SECOND: Nanos = 1_000_000_000;
const BLUE: Domain = Domain::Vrf(VrfId(1));
const SYN: u8 = tcp_flags::SYN;
const ACK: u8 = tcp_flags::ACK;

fn tuple(ip_protocol: u8, host: u8, port: u16) -> Tuple {
    Tuple {
        source: IpAddr::V4(Ipv4Addr::new(10, 1, 0, host)),
        destination: IpAddr::V4(Ipv4Addr::new(10, 2, 0, 1)),
        protocol: ip_protocol,
        source_port: port,
        destination_port: 80,
    }
}

fn make(table: &SessionTable, tuple: Tuple, flags: u8, now: Nanos) -> Result<Created, Refused> {
    open(table, tuple, tuple.reversed(), flags, now)
}

fn open(
    table: &SessionTable,
    forward: Tuple,
    reply: Tuple,
    tcp_flags: u8,
    now: Nanos,
) -> Result<Created, Refused> {
    table.create(from(Direction::Forward, &forward, &reply, tcp_flags), now)
}

/// A session whose first packet goes in `direction`.
fn from<'a>(direction: Direction, forward: &'a Tuple, reply: &'a Tuple, tcp_flags: u8) -> NewSession<'a> {
    let (timeouts, translations) = (None, Translations::default());
    let chain = Some(ChainId(3));
    NewSession { domain: BLUE, forward, reply, direction, chain, cuts: 0, tcp_flags, timeouts, translations }
}

fn drain(table: &SessionTable, now: Nanos) {
    while table.tick(now, 16) == 16 {}
}

fn establish(table: &SessionTable, tuple: Tuple, now: Nanos) -> SessionId {
    let id = make(table, tuple, SYN, now).unwrap().id;
    assert_eq!(table.observe(id, Direction::Reverse, SYN | ACK, now), Some(SessionState::SynReceived));
    assert!(!table.is_established(id));
    assert_eq!(table.observe(id, Direction::Forward, ACK, now), Some(SessionState::Established));
    assert!(table.is_established(id));
    id
}

#[test]
fn a_reply_finds_its_session_and_its_chain_after_edits() {
    let table = SessionTable::new(8);
    let forward = tuple(protocol::UDP, 2, 5000);
    let edited = Tuple { source: "203.0.113.7".parse().unwrap(), source_port: 6000, ..forward };
    let id = open(&table, forward, edited.reversed(), 0, 0).unwrap().id;
    let reply = table.lookup(BLUE, &edited.reversed(), 0, 1).unwrap();
    assert_eq!((reply.id, reply.direction, reply.chain), (id, Direction::Reverse, Some(ChainId(3))));
    assert_eq!(table.lookup(BLUE, &forward, 0, 1).unwrap().direction, Direction::Forward);
    assert_eq!(table.lookup(BLUE, &forward.reversed(), 0, 1), None);
    assert_eq!(table.lookup(Domain::Vrf(VrfId(2)), &forward, 0, 1), None);
}

#[test]
fn both_ends_of_a_cross_connect_share_their_sessions() {
    let (a, b) = (ScopeId(4), ScopeId(9));
    assert_eq!(session_domain(a, Domain::CrossConnect(b)), session_domain(b, Domain::CrossConnect(a)));
    assert_eq!(session_domain(a, BLUE), BLUE);
}

#[test]
fn an_icmp_error_is_related_to_the_session_of_the_packet_it_quotes() {
    // RFC 5508 section 4: the embedded packet is the one as it left, after edits.
    let table = SessionTable::new(8);
    let forward = tuple(protocol::UDP, 2, 5000);
    let edited = Tuple { source: "203.0.113.7".parse().unwrap(), source_port: 6000, ..forward };
    let id = open(&table, forward, edited.reversed(), 0, 0).unwrap().id;
    let found = table.lookup_related(BLUE, &edited, 1).unwrap();
    assert_eq!((found.id, found.direction), (id, Direction::Reverse));
    // About a reply as it left towards the first sender.
    let found = table.lookup_related(BLUE, &forward.reversed(), 1).unwrap();
    assert_eq!((found.id, found.direction), (id, Direction::Forward));
    assert_eq!(table.lookup_related(BLUE, &tuple(protocol::UDP, 9, 9), 1), None);
}

#[test]
fn a_packet_from_and_to_the_same_address_and_port_has_one_key() {
    let table = SessionTable::new(8);
    let mut same = tuple(protocol::UDP, 2, 80);
    same.destination = same.source;
    make(&table, same, 0, 0).unwrap();
    assert_eq!(table.lookup(BLUE, &same, 0, 1).unwrap().direction, Direction::Forward);
    drain(&table, 3600 * SECOND);
    assert_eq!(table.counters().in_use, 0);
    assert_eq!(table.lookup(BLUE, &same, 0, 3600 * SECOND), None);
}

#[test]
fn timeouts_depend_on_protocol_and_tcp_state() {
    // RFC 5382 REQ-5, RFC 4787 REQ-5, RFC 5508 REQ-2.
    for (ip_protocol, seconds) in
        [(protocol::UDP, 300), (protocol::ICMP, 60), (protocol::ICMPV6, 60), (protocol::TCP, 240), (47, 300)]
    {
        let table = SessionTable::new(8);
        let key = tuple(ip_protocol, 2, 1);
        make(&table, key, SYN, 5 * SECOND).unwrap();
        drain(&table, (seconds + 5) * SECOND - 1);
        assert_eq!(table.counters().in_use, 1, "protocol {ip_protocol}");
        assert!(table.lookup(BLUE, &key, ACK, (seconds + 5) * SECOND - 1).is_some());
        drain(&table, (seconds + 5) * SECOND);
        assert_eq!(table.counters().in_use, 0, "protocol {ip_protocol}");
    }
    let table = SessionTable::new(8);
    establish(&table, tuple(protocol::TCP, 2, 1), 0);
    drain(&table, 7439 * SECOND);
    assert_eq!(table.counters().in_use, 1);
    drain(&table, 7440 * SECOND);
    assert_eq!(
        table.counters(),
        SessionCounters { in_use: 0, capacity: 8, created: 1, refused: 0, expired: 1 }
    );
}

#[test]
fn a_touched_session_lives_on() {
    let table = SessionTable::new(8);
    let id = make(&table, tuple(protocol::ICMP, 2, 1), 0, 0).unwrap().id;
    for second in 1..600 {
        assert!(table.touch(id, second * SECOND));
        drain(&table, second * SECOND);
    }
    assert_eq!(table.counters().in_use, 1);
    drain(&table, 659 * SECOND);
    assert!(!table.touch(id, 659 * SECOND), "60 seconds after the last touch it is gone");
}

#[test]
fn a_jump_of_hours_expires_in_bounded_batches_and_a_lookup_does_not_wait_for_them() {
    let table = SessionTable::new(1000);
    for port in 0..1000 {
        make(&table, tuple(protocol::UDP, 2, port), 0, u64::from(port) * SECOND / 20).unwrap();
    }
    let now = 3 * 3600 * SECOND;
    assert_eq!(table.lookup(BLUE, &tuple(protocol::UDP, 2, 999), 0, now), None);
    assert_eq!(table.tick(now, 100), 100);
    assert_eq!(table.counters().in_use, 900);
    drain(&table, now);
    assert_eq!(table.counters().in_use, 0);
    assert_eq!(table.counters().expired, 1000);
}

#[test]
fn a_full_table_refuses_and_counts() {
    let table = SessionTable::new(2);
    make(&table, tuple(protocol::UDP, 1, 1), 0, 0).unwrap();
    make(&table, tuple(protocol::UDP, 2, 1), 0, 0).unwrap();
    assert_eq!(make(&table, tuple(protocol::UDP, 3, 1), 0, SECOND), Err(Refused::Full));
    assert_eq!(table.counters().refused, 1);
    assert!(!make(&table, tuple(protocol::UDP, 2, 1), 0, SECOND).unwrap().new);
    // Once the others are out of time there is room, also if nobody called tick.
    assert!(make(&table, tuple(protocol::UDP, 3, 1), 0, 400 * SECOND).unwrap().new);
}

#[test]
fn a_slot_rests_before_another_session_gets_it() {
    let table = SessionTable::new(1);
    let first = make(&table, tuple(protocol::ICMP, 1, 1), 0, 0).unwrap().id;
    drain(&table, 60 * SECOND);
    let second = make(&table, tuple(protocol::ICMP, 2, 1), 0, 60 * SECOND).unwrap().id;
    assert_ne!(first, second);
    assert!(!table.touch(first, 60 * SECOND));
    drain(&table, 119 * SECOND);
    table.remove(second, 119 * SECOND);
    assert_eq!(make(&table, tuple(protocol::ICMP, 3, 1), 0, 119 * SECOND), Err(Refused::Full));
    let third = make(&table, tuple(protocol::ICMP, 3, 1), 0, 120 * SECOND).unwrap().id;
    assert_eq!(third, first);
}

#[test]
fn two_connections_that_edits_make_one_are_not_both_taken() {
    let table = SessionTable::new(8);
    let reply = tuple(protocol::UDP, 9, 9).reversed();
    open(&table, tuple(protocol::UDP, 1, 1), reply, 0, 0).unwrap();
    let second = open(&table, tuple(protocol::UDP, 2, 2), reply, 0, 0);
    assert_eq!(second, Err(Refused::ReplyTaken));
}

#[test]
fn a_reset_removes_nothing_at_once() {
    // RFC 7857 section 2.2; four minutes as RFC 5382 REQ-5.
    let table = SessionTable::new(8);
    let key = tuple(protocol::TCP, 2, 1);
    let id = establish(&table, key, 0);
    assert_eq!(table.observe(id, Direction::Reverse, tcp_flags::RST, SECOND), Some(SessionState::Closed));
    assert!(!table.is_established(id));
    assert!(!table.touch(id, SECOND), "its packets walk again");
    assert_eq!(table.lookup(BLUE, &key, ACK, 240 * SECOND).unwrap().state, SessionState::Closed);
    assert_eq!(table.lookup(BLUE, &key, ACK, 241 * SECOND), None);
}

#[test]
fn a_syn_opens_a_closing_connection_anew_from_either_side() {
    // RFC 9293 section 3.6.1; rules decide about it as about any new connection.
    let table = SessionTable::new(8);
    let key = tuple(protocol::TCP, 2, 1);
    let old = establish(&table, key, 0);
    assert!(table.lookup(BLUE, &key, SYN, SECOND).is_some(), "not while it is established");
    table.observe(old, Direction::Forward, tcp_flags::FIN | ACK, SECOND);
    assert!(table.lookup(BLUE, &key, ACK, SECOND).is_some());
    assert_eq!(table.lookup(BLUE, &key.reversed(), SYN, SECOND), None);
    let new = make(&table, key.reversed(), SYN, SECOND).unwrap();
    assert!(new.new);
    assert_ne!(new.id, old);
    assert!(!table.touch(old, SECOND));
    let found = table.lookup(BLUE, &key, ACK, SECOND).unwrap();
    assert_eq!((found.id, found.direction, found.state), (new.id, Direction::Reverse, SessionState::SynSent));
    assert_eq!(table.counters().in_use, 1);
    drain(&table, 7500 * SECOND);
    assert_eq!(table.counters().in_use, 0);
}

#[test]
fn workers_that_race_make_one_session() {
    let table = SessionTable::new(4096);
    let barrier = Barrier::new(4);
    let ids: Vec<Vec<SessionId>> = std::thread::scope(|scope| {
        let worker = |number: usize| {
            let (table, barrier) = (&table, &barrier);
            move || {
                barrier.wait();
                (0..1000)
                    .map(|port| {
                        let key = tuple(protocol::UDP, 2, port);
                        let key = if number % 2 == 0 { key } else { key.reversed() };
                        make(table, key, 0, 0).unwrap().id
                    })
                    .collect()
            }
        };
        let threads: Vec<_> = (0..4).map(|number| scope.spawn(worker(number))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert!(ids.iter().all(|other| *other == ids[0]));
    assert_eq!(table.counters().in_use, 1000);
    assert_eq!(table.counters().created, 1000);
}

#[test]
fn entries_tell_what_is_there() {
    let table = SessionTable::new(8);
    let key = tuple(protocol::TCP, 2, 1);
    let id = establish(&table, key, 0);
    make(&table, tuple(protocol::UDP, 2, 1), 0, 0).unwrap();
    let entries = table.entries(10 * SECOND, 10);
    assert_eq!(entries.len(), 2);
    assert_eq!(table.entries(10 * SECOND, 1).len(), 1);
    let entry = entries.iter().find(|entry| entry.id == id).unwrap();
    assert_eq!((entry.forward, entry.reply, entry.state.name()), (key, key.reversed(), "ESTABLISHED"));
    assert_eq!((entry.age, entry.expires), (10 * SECOND, 7430 * SECOND));
}

/// A session of the naive model: a list that is searched from end to end.
#[derive(Clone, Debug)]
struct Model {
    forward: Tuple,
    reply: Tuple,
    tracker: Tracker,
    last_seen: Nanos,
}

impl Model {
    fn alive(&self, now: Nanos) -> bool {
        self.last_seen + self.tracker.state().timeout(self.forward.protocol, &TIMEOUTS) > now
    }

    fn direction(&self, key: &Tuple) -> Option<Direction> {
        if self.forward == *key {
            Some(Direction::Forward)
        } else {
            (self.reply == *key).then_some(Direction::Reverse)
        }
    }
}

fn packets() -> impl Strategy<Value = (u64, Tuple, bool, u8, bool)> {
    let flags = prop::sample::select(vec![SYN, SYN | ACK, ACK, ACK, tcp_flags::FIN | ACK, tcp_flags::RST]);
    let protocols = prop::sample::select(vec![protocol::TCP, protocol::TCP, protocol::UDP, protocol::ICMP]);
    let waits = prop_oneof![8 => 0u64..30, 3 => 30u64..400, 1 => 400u64..9000];
    (waits, protocols, 0u8..3, any::<bool>(), flags, any::<bool>()).prop_map(
        |(wait, protocol, host, reverse, flags, tick)| (wait, tuple(protocol, host, 7), reverse, flags, tick),
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn the_table_agrees_with_a_list_that_is_searched(packets in prop::collection::vec(packets(), 1..150)) {
        let table = SessionTable::new(1024);
        let mut model: Vec<(SessionId, Model)> = Vec::new();
        let mut now = 0;
        for (wait, key, reverse, flags, tick) in packets {
            now += wait * SECOND;
            let key = if reverse { key.reversed() } else { key };
            let flags = if key.protocol == protocol::TCP { flags } else { 0 };
            if tick {
                drain(&table, now);
            }
            model.retain(|(_, session)| session.alive(now));
            let known = model.iter_mut().find_map(|(id, session)| Some((*id, session.direction(&key)?, session)));
            let expected = known.filter(|(_, _, session)| !(session.tracker.state().is_closing() && opens(flags)));
            let found = table.lookup(BLUE, &key, flags, now);
            prop_assert_eq!(found.map(|f| (f.id, f.direction)), expected.as_ref().map(|e| (e.0, e.1)));
            if let Some((id, direction, session)) = expected {
                session.last_seen = now;
                let state = session.tracker.observe(direction, flags);
                prop_assert_eq!(table.observe(id, direction, flags, now), Some(state));
                prop_assert_eq!(table.touch(id, now), state.is_established());
            } else {
                let created = make(&table, key, flags, now).unwrap();
                prop_assert!(created.new);
                model.retain(|(_, session)| session.direction(&key).is_none());
                let tracker = Tracker::new(key.protocol, flags, Direction::Forward);
                model.push((created.id, Model { forward: key, reply: key.reversed(), tracker, last_seen: now }));
            }
        }
        drain(&table, now);
        drain(&table, now + 200 * SECOND);
        model.retain(|(_, session)| session.alive(now + 200 * SECOND));
        prop_assert!(table.counters().in_use as usize >= model.len());
        prop_assert_eq!(
            table.entries(now, 1000).into_iter().filter(|entry| entry.expires > 200 * SECOND).count(),
            model.len()
        );
    }
}
