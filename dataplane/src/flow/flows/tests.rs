use super::*;
use crate::decision::{AdjacencyId, AdjacencyTable, MeterTable, ScopeId};
use crate::flow::Egress;

const SEED: [u64; 8] = [1, 2, 3, 4, 5, 6, 7, 8];
const STAMP: Stamp = Stamp { generation: 1, epoch: 0, now_ms: 0 };

fn program(mtu: u16) -> Program {
    Program { ops: Ops::FORWARD, mtu, adjacency: AdjacencyId(0), ..Program::default() }
}

fn place(flows: &Flows, n: u64) -> Place {
    let key = CompactKey::of(ScopeId(1), n, n as u32, 6);
    Place::Compact(key, flows.compact.hash(&key))
}

/// Calls `test` with a replay of one egress and one adjacency.
fn with_replay(test: impl FnOnce(&Replay<'_>)) {
    let (adjacencies, meters) = (AdjacencyTable::new(1), MeterTable::new(1, 1));
    test(&Replay {
        egress: &[Egress::default()],
        endpoints: &[],
        inner: &[],
        adjacencies: &adjacencies,
        meters: &meters,
        seed: 0,
    });
}

#[test]
fn a_program_is_kept_once_for_all_flows_that_have_it_and_goes_with_the_last() {
    with_replay(|replay| {
        let mut flows = Flows::new(64, SEED);
        let places: Vec<_> = (0..20).map(|n| place(&flows, n)).collect();
        for (at, place) in places.iter().enumerate() {
            let program = program(1000 + (at % 2) as u16);
            flows.put(place, &program, &Rewrite::default(), STAMP, 60, replay);
        }
        assert_eq!((flows.compact.len(), flows.programs.len()), (20, 2));
        // A flow's program changes: the other loses one.
        flows.put(&places[0], &program(2000), &Rewrite::default(), STAMP, 60, replay);
        assert_eq!((flows.compact.len(), flows.programs.len()), (20, 3));
        let lines = flows.compact.lines();
        flows.sweep_compact(lines, |_, shared| shared.program.mtu == 2000);
        assert_eq!((flows.compact.len(), flows.programs.len()), (1, 1));
        flows.remove(&places[0]);
        assert!(flows.compact.is_empty() && flows.programs.is_empty());
    });
}

#[test]
fn flows_that_give_way_give_their_programs_back() {
    with_replay(|replay| {
        let mut flows = Flows::new(16, SEED);
        for n in 0..500 {
            let place = place(&flows, n);
            flows.put(&place, &program(n as u16), &Rewrite::default(), STAMP, 60, replay);
            assert_eq!(flows.compact.len(), flows.programs.len());
        }
        assert_eq!(flows.programs.len(), 16);
    });
}

#[test]
fn routes_are_forgotten_when_they_are_numbered_anew() {
    with_replay(|replay| {
        let mut flows = Flows::new(16, SEED);
        let place = Place::Route(VrfId(2), 5);
        flows.put(&place, &program(1500), &Rewrite::default(), STAMP, 60, replay);
        assert_eq!(flows.get(&place).map(|cached| cached.program), Some(program(1500)));
        assert_eq!(
            flows.routes().map(|(vrf, target, shared)| (vrf, target, shared.packets)).collect::<Vec<_>>(),
            [(VrfId(2), 5, 1)]
        );
        flows.renumber(2);
        assert!(flows.get(&place).is_none() && flows.programs.is_empty());
    });
}

#[test]
fn a_session_is_a_flow_s_own_and_no_program_s() {
    with_replay(|replay| {
        let mut flows = Flows::new(16, SEED);
        let (one, other) = (place(&flows, 1), place(&flows, 2));
        let with =
            |session| Program { ops: Ops::FORWARD | Ops::SESSION, session: SessionId(session), ..program(9) };
        flows.put(&one, &with(1), &Rewrite::default(), STAMP, 60, replay);
        flows.put(&other, &with(2), &Rewrite::default(), STAMP, 60, replay);
        assert_eq!(flows.programs.len(), 1);
        let session = |place| flows.get(place).map(|cached| cached.program);
        assert_eq!((session(&one), session(&other)), (Some(with(1)), Some(with(2))));
    });
}
