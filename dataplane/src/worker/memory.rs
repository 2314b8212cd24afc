//! What tables take in memory: as they were made, and before they are made, so that limits that this machine cannot hold are refused at the
//! start, and not by the kernel's out-of-memory killer in the middle of the day.

use std::fmt;
use std::path::Path;

use weir_config::{Config, Limits, Memory};

use crate::decision::{AdjacencyTable, MeterTable};
use crate::flow::table::Entry;
use crate::flow::{CompactEntry, CompactTable, Flows, Rewrite};
use crate::frame::TablePages;
use crate::l2::MacTable;
use crate::l3::NeighbourTable;
use crate::service::nat::NatTable;
use crate::session::SessionTable;

use super::held::HeldQueue;

/// A tag bucket of the flow table.
const BUCKET: usize = 64;

/// Memory that one worker has for itself, in bytes.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Private {
    pub(super) flows: u64,
    /// Which pages the flows' largest table got.
    pub(super) flow_pages: Option<TablePages>,
    pub(super) held: u64,
    pub(super) meters: u64,
}

impl Private {
    /// That of a worker with these tables.
    pub(super) fn of(flows: &Flows, limits: &Limits, workers: usize) -> Self {
        Self {
            flows: flow_bytes(flows) as u64,
            flow_pages: Some(flows.compact.memory().pages()),
            ..Self::planned(limits, workers)
        }
    }

    /// That of one of `workers` workers.
    fn planned(limits: &Limits, workers: usize) -> Self {
        let meters = if workers > 1 { limits.meters as usize * size_of::<u64>() } else { 0 };
        Self {
            flows: planned_flow_bytes(limits.flows as usize) as u64,
            flow_pages: None,
            held: HeldQueue::bytes_for(limits.held_packets as usize) as u64,
            meters: meters as u64,
        }
    }
}

/// What a flow of whole keys takes besides its share of a bucket: entry, rewrite, and its place among the free ones.
const WHOLE: usize = size_of::<Entry>() + size_of::<Rewrite>() + size_of::<u32>();

/// Memory of a worker's flows, in bytes.
pub(super) fn flow_bytes(flows: &Flows) -> usize {
    let whole = flows.whole.capacity() * WHOLE + flows.whole.buckets() * BUCKET;
    let compact = flows.compact.memory().bytes() + CompactTable::bytes_beside(flows.compact.lines());
    whole + compact + flows.programs.memory()
}

/// The same, before they are made.
fn planned_flow_bytes(flows: usize) -> usize {
    let buckets = (flows.div_ceil(8) * 2).next_power_of_two();
    let lines = (flows.max(4) * 2).next_power_of_two();
    flows.max(8) * WHOLE
        + buckets * BUCKET
        + lines * size_of::<CompactEntry>()
        + CompactTable::bytes_beside(lines)
}

/// Tables that `limits` ask for, and bytes.
fn planned(limits: &Limits, workers: usize) -> Vec<(&'static str, u64)> {
    let private = Private::planned(limits, workers);
    let each = |bytes: u64| bytes.saturating_mul(workers as u64);
    let neighbours = limits.neighbours as usize;
    vec![
        ("flows", each(private.flows)),
        ("sessions", SessionTable::bytes_for(limits.sessions as usize) as u64),
        (
            "neighbours",
            (AdjacencyTable::bytes_for(2 * neighbours) + NeighbourTable::bytes_for(neighbours)) as u64,
        ),
        ("held-packets", each(private.held)),
        ("macs", MacTable::bytes_for(limits.macs as usize) as u64),
        ("nat-bindings", NatTable::bytes_for(limits.nat_bindings as usize) as u64),
        ("meters", MeterTable::bytes_for(limits.meters as usize) as u64 + each(private.meters)),
    ]
}

/// Why the memory of this machine does not suffice.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct DoesNotFit {
    /// The key that asks for most, as its path in the configuration.
    pub at: [&'static str; 2],
    /// What it asks for, in bytes.
    pub largest: u64,
    /// Entries that it is set to.
    pub entries: u64,
    /// What everything asks for together, in bytes.
    pub needed: u64,
    /// What there is, in bytes.
    pub available: u64,
    /// Workers, each with tables of its own.
    pub workers: usize,
}

impl fmt::Display for DoesNotFit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { at: [section, key], largest, entries, needed, available, workers } = self;
        write!(f, "{section}.{key} = {entries} takes {}", mebibytes(*largest))?;
        if *workers > 1 && matches!(*key, "flows" | "held-packets") {
            write!(f, " in {workers} workers")?;
        }
        write!(
            f,
            "; all of [{section}] {}, and there are {} left on this machine; lower {section}.{key}",
            mebibytes(*needed),
            mebibytes(*available)
        )
    }
}

fn mebibytes(bytes: u64) -> String {
    format!("{} MiB", bytes.div_ceil(1 << 20))
}

/// Whether tables as `limits` have them fit in `available` bytes.
fn fits(limits: &Limits, workers: usize, available: u64) -> Result<(), DoesNotFit> {
    let tables = planned(limits, workers);
    let needed = tables.iter().fold(0u64, |sum, (_, bytes)| sum.saturating_add(*bytes));
    if needed <= available {
        return Ok(());
    }
    let (key, largest) = tables.into_iter().max_by_key(|(_, bytes)| *bytes).unwrap_or(("flows", needed));
    let entries = match key {
        "flows" => limits.flows,
        "sessions" => limits.sessions,
        "neighbours" => limits.neighbours,
        "held-packets" => limits.held_packets,
        "macs" => limits.macs,
        "nat-bindings" => limits.nat_bindings,
        _ => limits.meters,
    };
    Err(DoesNotFit { at: ["limits", key], largest, entries: u64::from(entries), needed, available, workers })
}

/// Asks whether a configuration's tables fit into what this machine has left. Where the machine does not tell, they do.
pub(super) fn tables_fit(config: &Config, workers: usize) -> Result<(), DoesNotFit> {
    available().map_or(Ok(()), |available| fits(&config.limits, workers, available))
}

/// Asks whether frames fit, in reserved huge pages or besides.
pub(super) fn frames_fit(memory: &Memory) -> Result<(), DoesNotFit> {
    let bytes = u64::from(memory.frames) * u64::from(memory.frame_size);
    let reserved = match memory.huge_pages {
        weir_config::HugePages::Never => 0,
        _ => of_meminfo("HugePages_Free:", 2 << 20).unwrap_or(0),
    };
    match available() {
        Some(available) if bytes > available && bytes > reserved => Err(DoesNotFit {
            at: ["memory", "frames"],
            largest: bytes,
            entries: u64::from(memory.frames),
            needed: bytes,
            available: available.max(reserved),
            workers: 1,
        }),
        _ => Ok(()),
    }
}

/// Bytes that this process may still take: what the machine has left, its control group, or its limit of address space, whichever is least.
pub(super) fn available() -> Option<u64> {
    let machine = of_meminfo("MemAvailable:", 1024);
    [machine, of_control_group(), of_address_space()].into_iter().flatten().min()
}

/// What RLIMIT_AS leaves; `None` if there is no such limit.
fn of_address_space() -> Option<u64> {
    let limits = std::fs::read_to_string("/proc/self/limits").ok()?;
    let most = limits.lines().find_map(|line| line.strip_prefix("Max address space"))?;
    let most: u64 = most.split_whitespace().next()?.parse().ok()?;
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    Some(most.saturating_sub(field_of(&status, "VmSize:", 1024)?))
}

fn of_meminfo(field: &str, unit: u64) -> Option<u64> {
    field_of(&std::fs::read_to_string("/proc/meminfo").ok()?, field, unit)
}

/// The first number behind `field`, times `unit`.
fn field_of(text: &str, field: &str, unit: u64) -> Option<u64> {
    let line = text.lines().find(|line| line.starts_with(field))?;
    line.split_whitespace().nth(1)?.parse::<u64>().ok()?.checked_mul(unit)
}

/// What the control groups (version 2) that the process is in leave it; `None` if none has a limit.
fn of_control_group() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/self/cgroup").ok()?;
    let path = text.lines().find_map(|line| line.strip_prefix("0::/"))?;
    let root = Path::new("/sys/fs/cgroup");
    let number = |path: &Path| std::fs::read_to_string(path).ok()?.trim().parse::<u64>().ok();
    let folder = root.join(path);
    let within = folder.ancestors().take_while(|folder| folder.starts_with(root));
    within
        .filter_map(|group| {
            let most = number(&group.join("memory.max"))?;
            let used = number(&group.join("memory.current")).unwrap_or(0);
            // Cached files count as used and give way.
            let stat = std::fs::read_to_string(group.join("memory.stat")).unwrap_or_default();
            let cached = field_of(&stat, "inactive_file ", 1).unwrap_or(0);
            Some(most.saturating_sub(used.saturating_sub(cached)))
        })
        .min()
}

/// The process's own memory: resident, in reserved huge pages, in transparent ones; bytes.
pub(super) fn of_process() -> super::status::ProcessMemory {
    let read = |name: &str| std::fs::read_to_string(format!("/proc/self/{name}")).unwrap_or_default();
    let (status, maps) = (read("status"), read("smaps_rollup"));
    super::status::ProcessMemory {
        resident: field_of(&status, "VmRSS:", 1024).unwrap_or(0),
        huge: field_of(&status, "HugetlbPages:", 1024).unwrap_or(0),
        transparent: field_of(&maps, "AnonHugePages:", 1024).unwrap_or(0),
        available: available().unwrap_or(0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn what_flows_will_take_is_what_they_take() {
        for capacity in [8, 1000, 4096] {
            let flows = Flows::new(capacity, [1; 8]);
            assert_eq!(flow_bytes(&flows), planned_flow_bytes(capacity), "{capacity} flows");
        }
    }

    #[test]
    fn a_million_flows_of_addresses_and_ports_take_less_than_256_mib() {
        let tables = |flows: usize| {
            let lines = (flows.max(4) * 2).next_power_of_two();
            (lines * size_of::<CompactEntry>() + CompactTable::bytes_beside(lines)) as u64
        };
        assert!(tables(1 << 20) < 256 * MIB, "{} MiB", tables(1 << 20) / MIB);
    }

    #[test]
    fn tables_of_default_size_take_less_than_200_mib_with_two_workers() {
        let needed: u64 = planned(&Limits::default(), 2).iter().map(|(_, bytes)| bytes).sum();
        assert!(needed < 200 * MIB, "{} MiB: {:?}", needed / MIB, planned(&Limits::default(), 2));
    }

    #[test]
    fn limits_that_do_not_fit_name_what_asks_for_most() {
        let limits = Limits { sessions: 1 << 24, ..Limits::default() };
        assert_eq!(fits(&limits, 2, 1 << 50), Ok(()));
        let refused = fits(&limits, 2, 100 * MIB).unwrap_err();
        assert_eq!(refused.at, ["limits", "sessions"]);
        assert!(refused.largest > 1 << 30 && refused.needed > refused.largest, "{refused:?}");
        let text = refused.to_string();
        assert!(text.starts_with("limits.sessions = 16777216 takes "), "{text}");
        assert!(
            text.ends_with("and there are 100 MiB left on this machine; lower limits.sessions"),
            "{text}"
        );
    }

    #[test]
    fn this_machine_tells_what_it_has() {
        assert!(available().is_some_and(|bytes| bytes > MIB));
        let process = of_process();
        assert!(process.resident > MIB, "{process:?}");
    }
}
