//! Every table, its use and its memory, for `weir show memory`.

use crate::decision::{AdjacencyTable, MeterTable};
use crate::frame::{PageKind, TablePages};
use crate::l2::MacTable;
use crate::l3::NeighbourTable;
use crate::service::nat::NatTable;
use crate::session::{FragmentTable, SessionTable};
use crate::snapshot::Snapshot;

use super::counters::CounterBlock;
use super::dataplane::Running;
use super::memory::Private;
use super::status::{TableStatus, WorkerTableStatus};

/// All tables of a running data plane.
pub(super) fn tables(running: &Running, snapshot: &Snapshot) -> Vec<TableStatus> {
    let mut tables = private(running, snapshot);
    tables.extend(shared(running, snapshot));
    tables.extend(compiled(snapshot));
    tables.push(frames(running));
    tables
}

fn status(table: &str, (used, limit): (u64, u64), (bytes, bytes_used): (u64, u64)) -> TableStatus {
    let pages = TablePages::Heap.name().to_owned();
    TableStatus { table: table.to_owned(), used, limit, bytes, bytes_used, pages, workers: Vec::new() }
}

/// What `used` of `limit` entries take of `bytes`.
fn share(bytes: u64, used: u64, limit: u64) -> u64 {
    (u128::from(bytes) * u128::from(used) / u128::from(limit.max(1))) as u64
}

/// Tables of which each worker has its own.
fn private(running: &Running, snapshot: &Snapshot) -> Vec<TableStatus> {
    type Gauge = (&'static str, u64, fn(&CounterBlock) -> u64, fn(&Private) -> u64);
    let limits = &snapshot.config.limits;
    let gauges: [Gauge; 2] = [
        ("flows", u64::from(limits.flows), |counted| counted.flows.get(), |private| private.flows),
        ("held", u64::from(limits.held_packets), |counted| counted.held.get(), |private| private.held),
    ];
    let doors = running.doors();
    let table = |(table, limit, used, bytes): Gauge| {
        let workers: Vec<_> = doors
            .iter()
            .enumerate()
            .map(|(worker, door)| {
                let (used, bytes) = (used(&door.counters), bytes(&door.private));
                WorkerTableStatus { worker, used, bytes }
            })
            .collect();
        let sum = |of: fn(&WorkerTableStatus) -> u64| workers.iter().map(of).sum::<u64>();
        let (used, limit, bytes) =
            (sum(|worker| worker.used), limit * workers.len() as u64, sum(|worker| worker.bytes));
        TableStatus { workers, ..status(table, (used, limit), (bytes, share(bytes, used, limit))) }
    };
    let [mut flows, held] = gauges.map(table);
    if let Some(pages) = doors.iter().find_map(|door| door.private.flow_pages) {
        flows.pages = pages.name().to_owned();
    }
    vec![flows, held]
}

/// Tables that all workers share.
fn shared(running: &Running, snapshot: &Snapshot) -> Vec<TableStatus> {
    let (tables, limits) = (&snapshot.tables, &snapshot.config.limits);
    let (sessions, macs) = (tables.sessions.counters(), tables.macs.counters());
    let meters = running.shared.services.meters.counters();
    let (notes, most_notes) = tables.fragments.usage();
    let (nat, neighbours) = (tables.nat.counters(), tables.neighbours.len() as u64);
    let made = |table: &str, used: u64, limit: u64, bytes: usize| {
        status(table, (used, limit), (bytes as u64, share(bytes as u64, used, limit)))
    };
    let grown = |table: &str, used: u64, limit: u64, fixed: usize, bytes: usize| {
        status(table, (used, limit), ((fixed + bytes) as u64, bytes as u64))
    };
    let credits = running.doors().iter().map(|door| door.private.meters as usize).sum::<usize>();
    vec![
        made(
            "sessions",
            sessions.in_use,
            sessions.capacity,
            SessionTable::bytes_for(sessions.capacity as usize),
        ),
        grown(
            "neighbours",
            neighbours,
            u64::from(limits.neighbours),
            AdjacencyTable::bytes_for(tables.adjacencies.capacity()),
            NeighbourTable::bytes_for(neighbours as usize),
        ),
        grown("macs", macs.in_use, macs.capacity, 0, MacTable::bytes_for(macs.in_use as usize)),
        made(
            "meters",
            meters.in_use,
            meters.capacity,
            MeterTable::bytes_for(meters.capacity as usize) + credits,
        ),
        grown("nat-bindings", nat.in_use, nat.capacity, 0, NatTable::bytes_for(nat.in_use as usize)),
        made("fragments", notes, most_notes, FragmentTable::bytes_for(most_notes as usize)),
    ]
}

/// What the configuration was compiled into: routes and rules.
fn compiled(snapshot: &Snapshot) -> Vec<TableStatus> {
    let pipeline = &snapshot.pipeline;
    let families: Vec<_> = pipeline.vrfs.iter().flatten().flat_map(|vrf| vrf.fib.families()).collect();
    let routes = families.iter().map(|family| family.routes as u64).sum();
    let bytes = pipeline.vrfs.iter().flatten().map(|vrf| vrf.fib.memory() as u64).sum();
    // The largest table decides: it is the one whose pages matter.
    let pages =
        families.iter().max_by_key(|family| family.bytes).map_or(TablePages::Heap, |family| family.pages);
    let services = pipeline.services.iter().filter_map(|service| service.rules());
    let (rules, rule_bytes) = services
        .chain([pipeline.classifier.shape()])
        .fold((0, 0), |(rules, bytes), shape| (rules + shape.rules as u64, bytes + shape.bytes as u64));
    vec![
        TableStatus { pages: pages.name().to_owned(), ..status("routes", (routes, 0), (bytes, bytes)) },
        status("rules", (rules, 0), (rule_bytes, rule_bytes)),
    ]
}

fn frames(running: &Running) -> TableStatus {
    let memory = running.pool.memory();
    let (frames, bytes) = (u64::from(memory.frames()), memory.bytes() as u64);
    let used = frames - (running.pool.available() as u64).min(frames);
    let pages = match memory.pages() {
        PageKind::Huge => TablePages::Huge,
        PageKind::Normal => TablePages::Normal,
    };
    TableStatus {
        pages: pages.name().to_owned(),
        ..status("frames", (used, frames), (bytes, share(bytes, used, frames)))
    }
}
