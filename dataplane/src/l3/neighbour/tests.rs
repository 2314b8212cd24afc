use proptest::prelude::*;

use super::super::interface::tests::interface;
use super::*;

const MAC: MacAddress = MacAddress([2, 0, 0, 0, 0, 9]);
const OTHER: MacAddress = MacAddress([2, 0, 0, 0, 0, 10]);
const SCOPE: ScopeId = ScopeId(1);
/// Not 0, so that "never used" and "used now" differ.
const T0: Nanos = 1_000 * SECOND;

fn ip(last: u8) -> IpAddr {
    [10, 1, 0, last].into()
}

fn table(limit: usize) -> NeighbourTable {
    NeighbourTable::new(Arc::new(AdjacencyTable::new(limit)), limit)
}

fn port() -> Interface {
    interface(&["10.1.0.1/24"])
}

fn tick(table: &NeighbourTable, now: Nanos) -> Vec<NeighbourAction> {
    let mut actions = Vec::new();
    table.tick(now, &mut |action| actions.push(action));
    actions
}

/// Ticks every half second up to `until`; what happened, with the time since `T0` in seconds.
fn run(table: &NeighbourTable, from: Nanos, until: Nanos) -> Vec<(u64, NeighbourAction)> {
    let mut all = Vec::new();
    let mut now = from;
    while now <= until {
        all.extend(tick(table, now).into_iter().map(|action| ((now - T0) / SECOND, action)));
        now += SECOND / 2;
    }
    all
}

fn ask(unicast_to: Option<MacAddress>) -> NeighbourAction {
    NeighbourAction::Solicit { scope: SCOPE, ip: ip(9), unicast_to }
}

fn state(table: &NeighbourTable) -> NeighbourState {
    table.entries(T0)[0].state
}

fn reachable(table: &NeighbourTable) -> AdjacencyId {
    let (id, _) = table.resolve(&port(), ip(9), T0).unwrap();
    assert_eq!(table.learn(SCOPE, ip(9), MAC, Learned::Reply, T0), Learning::Updated);
    id
}

/// RFC 4861 section 10: MAX_MULTICAST_SOLICIT is 3, RETRANS_TIMER 1 s; RFC 1122 section 2.3.2.1: at most one a second.
#[test]
fn an_unanswered_neighbour_is_asked_for_three_times_and_fails() {
    let table = table(4);
    let epoch = table.epoch();
    let (id, action) = table.resolve(&port(), ip(9), T0).unwrap();
    assert_eq!(action, Some(ask(None)));
    assert_eq!(table.resolve(&port(), ip(9), T0), Ok((id, None)), "asked for once only");
    let failed = NeighbourAction::Failed { scope: SCOPE, ip: ip(9), adjacency: id };
    assert_eq!(run(&table, T0, T0 + 4 * SECOND), [(1, ask(None)), (2, ask(None)), (3, failed)]);
    assert_eq!(table.adjacencies().link(id), Link::Failed);
    assert_ne!(table.epoch(), epoch);
}

#[test]
fn a_failed_neighbour_is_tried_again_after_a_hold_down_that_doubles() {
    let table = table(4);
    table.resolve(&port(), ip(9), T0).unwrap();
    let mut failures = Vec::new();
    let mut now = T0;
    while now < T0 + 220 * SECOND {
        now += SECOND / 10;
        let failed = tick(&table, now).iter().any(|action| matches!(action, NeighbourAction::Failed { .. }));
        if failed {
            failures.push((now - T0) / SECOND);
        }
        // Traffic goes on all the time.
        table.resolve(&port(), ip(9), now).unwrap();
    }
    // Each round of asking takes 3 s; between them 2, 4, 8, 16, 32, 60 and again 60 s of hold-down.
    assert_eq!(failures, [3, 8, 15, 26, 45, 80, 143, 206]);
}

#[test]
fn a_failed_neighbour_in_use_is_asked_for_again_by_the_timer() {
    let table = table(4);
    let (id, _) = table.resolve(&port(), ip(9), T0).unwrap();
    run(&table, T0, T0 + 3 * SECOND);
    table.adjacencies().touch(id, seconds(T0 + 4 * SECOND));
    let actions = run(&table, T0 + 4 * SECOND, T0 + 8 * SECOND);
    assert_eq!(actions.first(), Some(&(5, ask(None))));
}

#[test]
fn an_answer_resolves_the_adjacency_in_place_and_moves_the_epoch() {
    let table = table(4);
    let (id, _) = table.resolve(&port(), ip(9), T0).unwrap();
    let epoch = table.epoch();
    assert_eq!(table.learn(SCOPE, ip(9), MAC, Learned::Reply, T0), Learning::Updated);
    assert_eq!(table.adjacencies().link(id), Link::Resolved(MAC));
    assert_eq!(state(&table), NeighbourState::Reachable);
    assert_ne!(table.epoch(), epoch);
}

/// RFC 4861 section 7.3.3: a stale entry that is used is verified by unicast, and stays usable meanwhile.
#[test]
fn a_used_neighbour_is_verified_by_unicast_before_it_expires() {
    let table = table(4);
    let id = reachable(&table);
    let mut now = T0;
    let mut first = None;
    while first.is_none() && now < T0 + 60 * SECOND {
        now += SECOND / 2;
        table.adjacencies().touch(id, seconds(now));
        first = tick(&table, now).first().copied();
        assert_eq!(table.adjacencies().link(id), Link::Resolved(MAC));
    }
    assert_eq!(first, Some(ask(Some(MAC))));
    // REACHABLE_TIME varied by 0.5 to 1.5, and the delay of 5 s.
    assert!((15..=51).contains(&((now - T0) / SECOND)), "{}", (now - T0) / SECOND);
    assert_eq!(table.learn(SCOPE, ip(9), MAC, Learned::Reply, now), Learning::Updated);
    assert_eq!(state(&table), NeighbourState::Reachable);
}

/// RFC 4861 section 7.3.3, RFC 7048: three unicast probes, then address resolution anew, then failure.
#[test]
fn a_neighbour_that_went_away_fails_after_probes() {
    let table = table(4);
    let id = reachable(&table);
    let mut actions = Vec::new();
    let mut now = T0;
    while now < T0 + 62 * SECOND {
        now += SECOND / 2;
        if now < T0 + 52 * SECOND {
            table.adjacencies().touch(id, seconds(now));
        }
        actions.extend(tick(&table, now));
        if table.adjacencies().link(id) == Link::Failed {
            break;
        }
    }
    let failed = NeighbourAction::Failed { scope: SCOPE, ip: ip(9), adjacency: id };
    let (probe, multicast) = (ask(Some(MAC)), ask(None));
    assert_eq!(actions, [probe, probe, probe, multicast, multicast, multicast, failed]);
}

#[test]
fn an_unused_neighbour_expires_without_being_asked() {
    let table = table(4);
    let id = reachable(&table);
    let actions = run(&table, T0 + SECOND, T0 + 130 * SECOND);
    assert_eq!(actions.len(), 1);
    assert_eq!(actions[0].1, NeighbourAction::Expired { scope: SCOPE, ip: ip(9) });
    assert!(actions[0].0 >= 75, "stale for a minute: {actions:?}");
    assert!(table.is_empty());
    assert_eq!(table.adjacencies().link(id), Link::Unresolved);
}

#[test]
fn a_jump_of_two_hours_runs_each_timer_once() {
    let table = table(4);
    reachable(&table);
    assert_eq!(tick(&table, T0 + 7_200 * SECOND), []);
    assert_eq!(state(&table), NeighbourState::Stale);
}

#[test]
fn a_freed_adjacency_rests_for_a_minute() {
    let table = NeighbourTable::new(Arc::new(AdjacencyTable::new(2)), 2);
    let id = reachable(&table);
    assert!(table.forget(SCOPE, ip(9), T0));
    let (next, _) = table.resolve(&port(), ip(10), T0).unwrap();
    assert_ne!(next, id);
    assert_eq!(table.resolve(&port(), ip(11), T0 + REUSE_AFTER - 1), Err(TableFull));
    assert_eq!(table.resolve(&port(), ip(11), T0 + REUSE_AFTER).map(|(id, _)| id), Ok(id));
}

#[test]
fn a_full_table_refuses_and_counts() {
    let table = table(1);
    reachable(&table);
    assert_eq!(table.resolve(&port(), ip(10), T0), Err(TableFull));
    assert_eq!(table.learn(SCOPE, ip(10), MAC, Learned::Request, T0), Learning::Refused);
    assert_eq!((table.len(), table.limit(), table.refused()), (1, 1, 2));
    assert!(table.resolve(&port(), ip(9), T0).is_ok(), "a known neighbour stays usable");
}

/// RFC 6583: anybody may have weir ask for every address of a subnet.
#[test]
fn a_scan_leaves_room_for_those_who_answer_and_for_other_interfaces() {
    let table = table(1024);
    let mut other = port();
    other.scope = ScopeId(SCOPE.0 + 1);
    let address = |number: u32| IpAddr::V4(Ipv4Addr::from(0x0a01_0100 + number));
    let known = reachable(&table);
    let scan = |interface: &Interface, at: Nanos| {
        (0..2000).filter(|n| table.resolve(interface, address(*n), at).is_ok()).count()
    };
    assert_eq!(scan(&port(), T0), 128, "an eighth");
    assert_eq!(table.resolve(&port(), address(3000), T0), Err(TableFull));
    assert_eq!(table.resolve(&port(), ip(9), T0).map(|(id, _)| id), Ok(known), "who is known stays");
    assert_eq!(
        table.learn(SCOPE, address(3000), MAC, Learned::Request, T0),
        Learning::Created,
        "who asks is learned"
    );
    // Whoever answers makes room for one more, and does not take it again when it is silent later.
    table.learn(SCOPE, address(0), MAC, Learned::Reply, T0);
    assert!(table.resolve(&port(), address(3001), T0).is_ok());
    assert_eq!(table.resolve(&port(), address(3002), T0), Err(TableFull));
    assert!(table.forget(SCOPE, address(0), T0));
    assert_eq!(table.resolve(&port(), address(3002), T0), Err(TableFull));
    assert!(table.forget(SCOPE, address(1), T0));
    assert!(table.resolve(&port(), address(3002), T0).is_ok());
    // Others have theirs; all scans together leave half of the table.
    assert_eq!(scan(&other, T0), 128);
    for scope in 2..9 {
        other.scope = ScopeId(SCOPE.0 + scope);
        scan(&other, T0);
    }
    let unheard = table.entries(T0).iter().filter(|entry| entry.mac.is_none()).count();
    assert_eq!(unheard, 512);
    // Nobody goes on asking: nothing stays.
    for second in 1..200 {
        table.tick(T0 + second * SECOND, &mut |_| {});
    }
    assert!(table.entries(T0).iter().all(|entry| entry.mac.is_some()));
    assert_eq!(scan(&port(), T0 + 200 * SECOND), 128);
}

/// RFC 826: who asks for us is remembered, to answer at once; it is not confirmed yet.
#[test]
fn a_request_makes_a_stale_entry() {
    let table = table(4);
    assert_eq!(table.learn(SCOPE, ip(9), MAC, Learned::Request, T0), Learning::Created);
    assert_eq!(state(&table), NeighbourState::Stale);
    let (id, action) = table.resolve(&port(), ip(9), T0).unwrap();
    assert_eq!((table.adjacencies().link(id), action), (Link::Resolved(MAC), None));
}

/// RFC 826, RFC 5227 section 2.3.
#[test]
fn a_gratuitous_message_moves_a_known_neighbour_and_makes_none() {
    let table = table(4);
    assert_eq!(table.learn(SCOPE, ip(9), MAC, Learned::Gratuitous, T0), Learning::Ignored);
    assert!(table.is_empty());
    let id = reachable(&table);
    assert_eq!(table.learn(SCOPE, ip(9), OTHER, Learned::Gratuitous, T0), Learning::Moved);
    assert_eq!(table.adjacencies().link(id), Link::Resolved(OTHER));
    assert_eq!(state(&table), NeighbourState::Stale);
}

#[test]
fn a_reply_that_nobody_asked_for_makes_no_entry() {
    let table = table(4);
    assert_eq!(table.learn(SCOPE, ip(9), MAC, Learned::Reply, T0), Learning::Ignored);
    assert!(table.is_empty());
}

/// RFC 4861 section 7.2.5 and its appendix C.
#[test]
fn an_advertisement_obeys_the_override_and_solicited_flags() {
    let said = |solicited, overrides| Learned::Advertisement { solicited, overrides };
    let table = table(4);
    let id = reachable(&table);
    // Another address without O: the old one is doubted, not replaced.
    assert_eq!(table.learn(SCOPE, ip(9), OTHER, said(true, false), T0), Learning::Updated);
    assert_eq!(table.adjacencies().link(id), Link::Resolved(MAC));
    assert_eq!(state(&table), NeighbourState::Stale);
    assert_eq!(table.learn(SCOPE, ip(9), OTHER, said(true, false), T0), Learning::Ignored);
    // With O it replaces, and S confirms it.
    assert_eq!(table.learn(SCOPE, ip(9), OTHER, said(false, true), T0), Learning::Moved);
    assert_eq!(state(&table), NeighbourState::Stale);
    assert_eq!(table.learn(SCOPE, ip(9), OTHER, said(true, true), T0), Learning::Updated);
    assert_eq!(state(&table), NeighbourState::Reachable);
    // Unsolicited, the same address: nothing new.
    assert_eq!(table.learn(SCOPE, ip(9), OTHER, said(false, true), T0), Learning::Ignored);
    // Incomplete and unsolicited: stale.
    let (_, _) = table.resolve(&port(), ip(10), T0).unwrap();
    table.learn(SCOPE, ip(10), MAC, said(false, true), T0);
    assert_eq!(table.entries(T0)[1].state, NeighbourState::Stale);
    // Without an address only a solicited answer confirms, and only what is known.
    assert_eq!(table.confirm(SCOPE, ip(10), T0), Learning::Updated);
    assert_eq!(table.entries(T0)[1].state, NeighbourState::Reachable);
    assert_eq!(table.confirm(SCOPE, ip(11), T0), Learning::Ignored);
}

#[test]
fn no_message_changes_a_static_neighbour() {
    let table = table(4);
    assert_eq!(table.learn(SCOPE, ip(9), MAC, Learned::Static, T0), Learning::Created);
    let hows = [Learned::Request, Learned::Reply, Learned::Gratuitous, Learned::Kernel];
    for how in hows.into_iter().chain([Learned::Advertisement { solicited: true, overrides: true }]) {
        assert_eq!(table.learn(SCOPE, ip(9), OTHER, how, T0), Learning::Ignored, "{how:?}");
    }
    assert_eq!(run(&table, T0, T0 + 300 * SECOND), []);
    assert_eq!(state(&table), NeighbourState::Static);
    assert_eq!(table.learn(SCOPE, ip(9), OTHER, Learned::Static, T0), Learning::Moved);
}

#[test]
fn the_kernel_is_asked_on_a_shared_port_and_only_it_is_believed() {
    let table = table(4);
    let shared = Interface { kernel_neighbours: true, ..port() };
    let asked = NeighbourAction::AskKernel { scope: SCOPE, ip: ip(9) };
    let (id, action) = table.resolve(&shared, ip(9), T0).unwrap();
    assert_eq!(action, Some(asked));
    assert_eq!(table.learn(SCOPE, ip(9), OTHER, Learned::Reply, T0), Learning::Ignored);
    assert_eq!(tick(&table, T0 + SECOND), [asked]);
    assert_eq!(table.learn(SCOPE, ip(9), MAC, Learned::Kernel, T0), Learning::Updated);
    assert_eq!(table.adjacencies().link(id), Link::Resolved(MAC));
    assert_eq!(table.learn(SCOPE, ip(9), OTHER, Learned::Gratuitous, T0), Learning::Ignored);
    // In use: the kernel is asked to verify. Not in use: left alone.
    table.adjacencies().touch(id, seconds(T0 + 10 * SECOND));
    assert_eq!(tick(&table, T0 + 50 * SECOND), [asked]);
    assert_eq!(tick(&table, T0 + 100 * SECOND), []);
}

#[test]
fn what_the_kernel_removes_is_asked_for_again_if_it_is_used() {
    let table = table(4);
    let shared = Interface { kernel_neighbours: true, ..port() };
    let asked = NeighbourAction::AskKernel { scope: SCOPE, ip: ip(9) };
    let (id, _) = table.resolve(&shared, ip(9), T0).unwrap();
    // Not resolved yet: the kernel gave up.
    table.kernel_failed(SCOPE, ip(9), T0);
    assert_eq!(table.adjacencies().link(id), Link::Failed);
    table.learn(SCOPE, ip(9), MAC, Learned::Kernel, T0);
    // In use: the same adjacency is resolved anew.
    table.adjacencies().touch(id, seconds(T0 + 80 * SECOND));
    table.kernel_failed(SCOPE, ip(9), T0 + 100 * SECOND);
    assert_eq!(table.adjacencies().link(id), Link::Unresolved);
    assert_eq!(tick(&table, T0 + 100 * SECOND), [asked]);
    table.learn(SCOPE, ip(9), MAC, Learned::Kernel, T0 + 101 * SECOND);
    assert_eq!(table.adjacencies().link(id), Link::Resolved(MAC));
    // Not in use, though its timer goes on: gone.
    assert_eq!(run(&table, T0 + 101 * SECOND, T0 + 300 * SECOND).len(), 0);
    table.kernel_failed(SCOPE, ip(9), T0 + 300 * SECOND);
    assert!(table.is_empty());
}

#[test]
fn a_tunnel_with_one_far_end_needs_no_resolution_and_one_entry() {
    let table = table(4);
    let tunnel = Interface { point_to_point_mac: Some(MAC), ..port() };
    let (id, action) = table.resolve(&tunnel, ip(9), T0).unwrap();
    assert_eq!((table.adjacencies().link(id), action), (Link::Resolved(MAC), None));
    assert_eq!(table.resolve(&tunnel, "2001:db8::1".parse().unwrap(), T0), Ok((id, None)));
    assert_eq!(table.len(), 1);
    let moved = Interface { point_to_point_mac: Some(OTHER), ..port() };
    assert_eq!(table.resolve(&moved, ip(7), T0), Ok((id, None)));
    assert_eq!(table.adjacencies().link(id), Link::Resolved(OTHER));
    // It is no static entry that a reload removes; it goes when nobody uses it.
    assert_eq!(state(&table), NeighbourState::PointToPoint);
    table.adjacencies().touch(id, seconds(T0 + 50 * SECOND));
    assert_eq!(run(&table, T0, T0 + 109 * SECOND), []);
    run(&table, T0 + 110 * SECOND, T0 + 120 * SECOND);
    assert!(table.is_empty());
}

#[test]
fn a_static_neighbour_in_a_tunnel_with_one_far_end_is_kept() {
    let table = table(4);
    let tunnel = Interface { point_to_point_mac: Some(MAC), ..port() };
    table.learn(SCOPE, ip(9), OTHER, Learned::Static, T0);
    let (named, _) = table.resolve(&tunnel, ip(9), T0).unwrap();
    let (other, _) = table.resolve(&tunnel, ip(8), T0).unwrap();
    assert_eq!(table.adjacencies().link(named), Link::Resolved(OTHER));
    assert_eq!(table.adjacencies().link(other), Link::Resolved(MAC));
}

#[test]
fn a_group_address_is_nobodys_mac() {
    let table = table(4);
    for mac in [MacAddress::BROADCAST, MacAddress([1, 0, 0x5e, 0, 0, 1]), MacAddress::default()] {
        assert_eq!(table.learn(SCOPE, ip(9), mac, Learned::Request, T0), Learning::Ignored);
    }
}

#[test]
fn entries_of_a_removed_interface_are_dropped_at_once() {
    let table = table(4);
    let id = reachable(&table);
    let epoch = table.epoch();
    table.retain(T0, |info| info.scope != SCOPE);
    assert!(table.is_empty());
    assert_eq!(table.adjacencies().link(id), Link::Unresolved);
    assert_ne!(table.epoch(), epoch);
}

#[test]
fn nothing_is_due_in_an_empty_table() {
    assert_eq!(table(4).next_due(), Nanos::MAX);
}

#[test]
fn an_entry_learned_at_the_clocks_zero_is_not_taken_for_used() {
    let table = table(4);
    table.learn(SCOPE, ip(9), MAC, Learned::Request, 0);
    assert_eq!(tick(&table, 6 * SECOND), []);
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Resolve(u8),
    Learn(u8, u8, Learned),
    Use(u8),
    Forget(u8),
    KernelFailed(u8),
    Wait(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let how = prop_oneof![
        Just(Learned::Request),
        Just(Learned::Reply),
        Just(Learned::Gratuitous),
        (any::<bool>(), any::<bool>())
            .prop_map(|(solicited, overrides)| Learned::Advertisement { solicited, overrides }),
        Just(Learned::Kernel),
        Just(Learned::Static),
    ];
    prop_oneof![
        4 => (0..6u8).prop_map(Step::Resolve),
        4 => (0..6u8, 1..4u8, how).prop_map(|(ip, mac, how)| Step::Learn(ip, mac, how)),
        2 => (0..6u8).prop_map(Step::Use),
        1 => (0..6u8).prop_map(Step::Forget),
        1 => (0..6u8).prop_map(Step::KernelFailed),
        4 => (1..70_000u64).prop_map(|milliseconds| Step::Wait(milliseconds * 1_000_000)),
    ]
}

proptest! {
    /// Whatever happens: the bound holds, every entry has one timer, its adjacency says what its state says, and a freed
    /// adjacency is unresolved for a minute.
    #[test]
    fn the_table_stays_consistent(steps in prop::collection::vec(step(), 1..120)) {
        let table = NeighbourTable::new(Arc::new(AdjacencyTable::new(5)), 4);
        let port = port();
        let mut now = T0;
        let mut freed: HashMap<AdjacencyId, Nanos> = HashMap::new();
        for step in steps {
            let before: Vec<_> = table.entries(now).iter().map(|info| info.adjacency).collect();
            match step {
                Step::Resolve(n) => drop(table.resolve(&port, ip(n), now)),
                Step::Learn(n, mac, how) => {
                    table.learn(SCOPE, ip(n), MacAddress([2, 0, 0, 0, 1, mac]), how, now);
                }
                Step::Use(n) => {
                    if let Some(info) = table.entries(now).iter().find(|info| info.ip == ip(n)) {
                        table.adjacencies().touch(info.adjacency, seconds(now));
                    }
                }
                Step::Forget(n) => drop(table.forget(SCOPE, ip(n), now)),
                Step::KernelFailed(n) => table.kernel_failed(SCOPE, ip(n), now),
                Step::Wait(time) => {
                    now += time;
                    tick(&table, now);
                    prop_assert!(table.next_due() > now);
                }
            }
            let entries = table.entries(now);
            for id in before.iter().filter(|id| entries.iter().all(|info| info.adjacency != **id)) {
                freed.insert(*id, now);
            }
            prop_assert!(entries.len() <= 4);
            let inner = table.lock();
            prop_assert_eq!(inner.due.len(), entries.len());
            prop_assert_eq!(inner.numbers.len(), entries.len());
            for info in &entries {
                let expected = match (info.state, info.mac) {
                    (NeighbourState::Failed, None) => Link::Failed,
                    (NeighbourState::Incomplete, None) => Link::Unresolved,
                    (NeighbourState::Failed | NeighbourState::Incomplete, Some(_)) | (_, None) => {
                        return Err(TestCaseError::fail(format!("{info:?}")));
                    }
                    (_, Some(mac)) => Link::Resolved(mac),
                };
                prop_assert_eq!(table.adjacencies().link(info.adjacency), expected);
                if let Some(at) = freed.remove(&info.adjacency) {
                    prop_assert!(now - at >= REUSE_AFTER, "reused after {} ns", now - at);
                }
            }
            for id in freed.keys() {
                prop_assert_eq!(table.adjacencies().link(*id), Link::Unresolved);
            }
        }
    }
}
