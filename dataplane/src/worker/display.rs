//! The flow table in words.

use crate::decision::VrfId;
use crate::flow::Ops;
use crate::l3::Hop;
use crate::snapshot::{Snapshot, fields_of};

use super::core::Core;
use super::status::FlowStatus;

/// At most `limit` flows of a worker.
pub(super) fn flows(worker: usize, core: &Core, snapshot: &Snapshot, limit: usize) -> Vec<FlowStatus> {
    let now_ms = crate::flow::table::milliseconds(core.now);
    let flows = core.flows();
    let table = &flows.whole;
    let names = |scope| snapshot.pipeline.scope_name(scope);
    let current = |generation: u32| generation == snapshot.generation as u32;
    let idle = |used: u32| u64::from(now_ms.wrapping_sub(used)) / 1000;
    let compact = flows.compact.iter().filter_map(|entry| {
        let shared = flows.programs.get(entry.program).filter(|shared| current(shared.generation))?;
        let rewrite = shared.program.ops.contains(Ops::REWRITE).then(|| entry.rewrite.expand(&entry.key));
        Some(FlowStatus {
            worker,
            interface: names(entry.key.scope()),
            key: entry.key.describe(),
            program: shared.program.describe(&names, rewrite.as_ref()),
            packets: entry.packets,
            bytes: entry.bytes,
            idle: idle(entry.used),
        })
    });
    let routes =
        flows.routes().filter(|(_, _, shared)| current(shared.generation)).map(|(vrf, target, shared)| {
            FlowStatus {
                worker,
                interface: "any".to_owned(),
                key: route_key(snapshot, vrf, target),
                program: shared.program.describe(&names, None),
                packets: shared.packets,
                bytes: shared.bytes,
                idle: idle(shared.used),
            }
        });
    let whole = table.iter().filter(|(_, entry)| current(entry.generation)).map(|(slot, entry)| FlowStatus {
        worker,
        interface: names(entry.key.scope()),
        key: entry.key.describe(fields_of(snapshot, entry.key.scope())),
        program: entry.program.describe(&names, table.rewrite(slot)),
        packets: entry.packets,
        bytes: entry.bytes,
        idle: idle(entry.used),
    });
    routes.chain(compact).chain(whole).take(limit).collect()
}

/// Which packets a route's program is for: all that take it.
fn route_key(snapshot: &Snapshot, vrf: VrfId, target: u32) -> String {
    let Some(vrf) = snapshot.pipeline.vrf(vrf) else { return format!("vrf #{}", vrf.0) };
    let hop = vrf.fib.target(target).and_then(|target| target.hops().first());
    match hop {
        Some(Hop { gateway: Some(gateway), .. }) => format!("vrf={} via={gateway}", vrf.name),
        Some(hop) => format!("vrf={} via={}", vrf.name, snapshot.pipeline.scope_name(hop.scope)),
        None => format!("vrf={}", vrf.name),
    }
}
