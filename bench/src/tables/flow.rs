//! The flow table of plain flows: what a worker looks nearly every packet up in.

use std::hint::black_box;
use std::time::Instant;

use weir_dataplane::decision::ScopeId;
use weir_dataplane::flow::{CompactEntry, CompactKey, CompactTable};
use weir_dataplane::frame::BURST;

use super::report::{Figure, Table};
use super::{Effort, SEED, timed};

/// Seeds of the table's hash.
const HASH: [u64; 2] = [0x9e37_79b9_7f4a_7c15, 0xbf58_476d_1ce4_e5b9];
/// Scope and protocol of all keys.
const SCOPE: ScopeId = ScopeId(3);
const UDP: u8 = 17;
/// The most flows that are added and removed to time that.
const CHANGES: usize = 10_000;

/// Tables of all sizes.
pub(super) fn measure(effort: &Effort) -> Result<Vec<Table>, String> {
    effort.flows.iter().map(|size| one(*size, effort)).collect()
}

fn one(size: usize, effort: &Effort) -> Result<Table, String> {
    let random = &mut fastrand::Rng::with_seed(SEED);
    let changes = (size / 10).clamp(1, CHANGES);
    let keys: Vec<CompactKey> = (0..size + changes).map(|number| key(number as u32, random)).collect();
    let (kept, extra) = keys.split_at(size);
    let begun = Instant::now();
    let mut table = CompactTable::new(size + changes, HASH);
    insert(&mut table, kept);
    let built = begun.elapsed();
    let evicted = table.evictions();
    let [mut bursts, mut singles, mut inserts, mut deletes] = [const { Vec::new() }; 4];
    for _ in 0..=effort.repeats {
        // Others each time: the same million out of ten would be found in fewer lines.
        let asked: Vec<CompactKey> =
            (0..effort.lookups).filter_map(|_| random.choice(kept).copied()).collect();
        bursts.push(timed(asked.len(), || burst(&table, &asked)));
        singles.push(timed(asked.len(), || single(&table, &asked)));
        inserts.push(timed(extra.len(), || insert(&mut table, extra)));
        deletes.push(timed(extra.len(), || delete(&mut table, extra)));
    }
    let missing = kept.iter().filter(|key| table.find(table.hash(key), key) == usize::MAX).count();
    // Four places are full now and then: the flow that was used longest ago gives way.
    if missing as u64 > table.evictions() || missing > size / 50 {
        return Err(format!("{missing} of {size} flows are not found, {} gave way", table.evictions()));
    }
    Ok(Table {
        table: "flow".into(),
        variant: "IPv4".into(),
        size,
        structure: format!("one line a flow, {evicted} gave way"),
        pages: table.memory().pages().name().into(),
        bytes: table.memory().bytes() + CompactTable::bytes_beside(table.lines()),
        build_ms: built.as_secs_f64() * 1e3,
        figures: vec![
            Figure::new("burst", bursts),
            Figure::new("single", singles),
            Figure::new("insert", inserts),
            Figure::new("delete", deletes),
        ],
    })
}

/// A key that no other number has.
fn key(number: u32, random: &mut fastrand::Rng) -> CompactKey {
    CompactKey::of(SCOPE, u64::from(number) << 32 | u64::from(random.u32(..)), random.u32(..), UDP)
}

fn insert(table: &mut CompactTable, keys: &[CompactKey]) -> usize {
    for key in keys {
        let hash = table.hash(key);
        table.insert(hash, CompactEntry { key: *key, ..CompactEntry::default() });
    }
    table.len()
}

fn delete(table: &mut CompactTable, keys: &[CompactKey]) -> usize {
    for key in keys {
        let hash = table.hash(key);
        table.remove(hash, key);
    }
    table.len()
}

#[inline(never)]
fn single(table: &CompactTable, keys: &[CompactKey]) -> usize {
    keys.iter().fold(0, |sum, key| sum ^ table.find(table.hash(key), key))
}

/// As workers do it: the lines of a burst are asked for before the first is read.
#[inline(never)]
fn burst(table: &CompactTable, keys: &[CompactKey]) -> usize {
    let mut sum = 0;
    let mut hashes = [0; BURST];
    for keys in keys.chunks(BURST) {
        for (hash, key) in hashes.iter_mut().zip(keys) {
            *hash = table.hash(key);
            table.prefetch(*hash);
        }
        for (hash, key) in hashes.iter().zip(keys) {
            table.prefetch_others(*hash, key);
        }
        for (hash, key) in hashes.iter().zip(keys) {
            sum ^= black_box(table.find(*hash, key));
        }
    }
    sum
}
