//! The flow table in words.

use crate::snapshot::{Snapshot, fields_of};

use super::core::Core;
use super::status::FlowStatus;

/// At most `limit` flows of a worker.
pub(super) fn flows(worker: usize, core: &Core, snapshot: &Snapshot, limit: usize) -> Vec<FlowStatus> {
    let now_ms = crate::flow::table::milliseconds(core.now);
    let table = core.flows();
    let names = |scope| snapshot.pipeline.scope_name(scope);
    let current = |generation: u32| generation == snapshot.generation as u32;
    table
        .iter()
        .filter(|(_, entry)| current(entry.generation))
        .take(limit)
        .map(|(slot, entry)| FlowStatus {
            worker,
            interface: names(entry.key.scope()),
            key: entry.key.describe(fields_of(snapshot, entry.key.scope())),
            program: entry.program.describe(&names, table.rewrite(slot)),
            packets: entry.packets,
            bytes: entry.bytes,
            idle: u64::from(now_ms.wrapping_sub(entry.used)) / 1000,
        })
        .collect()
}
