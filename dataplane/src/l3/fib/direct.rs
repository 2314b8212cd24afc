//! DIR-24-8 (Gupta, Lin, McKeown: Routing Lookups in Hardware at Memory Access Speeds, 1998) over 32 bits: a table of all
//! values of the first 24 bits, and groups of 256 for those where longer prefixes differ. One cache miss for most look-ups,
//! two for the others, however many routes there are.

use weir_config::HugePages;

use super::routes::Segment;
use crate::frame::{Plain, TableMemory, TablePages};

/// Entries of the table of 24 bits.
const TOP: usize = 1 << 24;
/// Entries of a group.
const GROUP: usize = 256;

/// An entry: a value, or the number of a group.
pub(super) trait Entry: Plain + PartialEq + std::fmt::Debug {
    /// The most groups there can be; values lie below it too.
    const LIMIT: u32;
    /// Set in an entry that names a group.
    const IS_GROUP: u32;
    fn of(bits: u32) -> Self;
    fn bits(self) -> u32;
}

impl Entry for u16 {
    const LIMIT: u32 = 1 << 15;
    const IS_GROUP: u32 = 1 << 15;
    #[inline(always)]
    fn of(bits: u32) -> Self {
        bits as Self
    }
    #[inline(always)]
    fn bits(self) -> u32 {
        u32::from(self)
    }
}

impl Entry for u32 {
    // 64 MB of groups. Where more are needed, prefixes are so long and so far apart that a tree is smaller.
    const LIMIT: u32 = 1 << 16;
    const IS_GROUP: u32 = 1 << 31;
    #[inline(always)]
    fn of(bits: u32) -> Self {
        bits
    }
    #[inline(always)]
    fn bits(self) -> u32 {
        self
    }
}

/// No room for a group: another structure has to take the routes.
#[derive(Debug)]
pub(super) struct Full;

#[derive(Debug)]
pub(super) struct Direct<E: Entry> {
    top: TableMemory<E>,
    groups: TableMemory<E>,
    /// Groups in use or free: all below this number.
    made: u32,
    free: Vec<u32>,
}

impl<E: Entry> Direct<E> {
    /// Groups that a table of these segments needs.
    pub(super) fn groups_needed(segments: &[Segment<u32>]) -> usize {
        let mut slots: Vec<u32> =
            segments.iter().filter(|(end, _)| end & 0xff != 0xff).map(|(end, _)| end >> 8).collect();
        slots.dedup();
        slots.len()
    }

    /// Of segments in order that end with the last address.
    ///
    /// # Errors
    /// More groups than there can be, or no memory.
    pub(super) fn build(segments: &[Segment<u32>]) -> Result<Self, Full> {
        let groups = Self::groups_needed(segments);
        if groups >= E::LIMIT as usize {
            return Err(Full);
        }
        let table = |len| TableMemory::zeroed(len, HugePages::Auto).map_err(|_| Full);
        let mut direct =
            Self { top: table(TOP)?, groups: table((groups + 16) * GROUP)?, made: 0, free: Vec::new() };
        let mut from = 0;
        for &(end, value) in segments {
            if value != 0 {
                direct.assign(from, end, value)?;
            }
            from = end.wrapping_add(1);
        }
        direct.top.map_for_reading();
        direct.groups.map_for_reading();
        Ok(direct)
    }

    #[inline(always)]
    pub(super) fn prefetch(&self, address: u32) {
        self.top.prefetch((address >> 8) as usize);
    }

    #[inline(always)]
    pub(super) fn lookup(&self, address: u32) -> u32 {
        let bits = self.top.get((address >> 8) as usize).map_or(0, |entry| entry.bits());
        if bits & E::IS_GROUP == 0 { bits } else { self.in_group(bits & !E::IS_GROUP, address) }
    }

    #[inline(always)]
    fn in_group(&self, group: u32, address: u32) -> u32 {
        self.groups.get(group as usize * GROUP + (address & 0xff) as usize).map_or(0, |entry| entry.bits())
    }

    /// Looks all up, at most 64; the lines of the table have been prefetched by the caller or are by now.
    #[inline]
    pub(super) fn lookup_burst(&self, addresses: &[u32], values: &mut [u32]) {
        for address in addresses {
            self.prefetch(*address);
        }
        // A group's line is asked for before the first is read.
        let mut grouped = 0u64;
        for (at, (address, value)) in addresses.iter().zip(values.iter_mut()).enumerate() {
            let bits = self.top.get((address >> 8) as usize).map_or(0, |entry| entry.bits());
            *value = bits;
            if bits & E::IS_GROUP != 0 {
                grouped |= 1 << (at & 63);
                let group = (bits & !E::IS_GROUP) as usize;
                self.groups.prefetch(group * GROUP + (address & 0xff) as usize);
            }
        }
        while grouped != 0 {
            let at = grouped.trailing_zeros() as usize;
            grouped &= grouped - 1;
            if let (Some(address), Some(value)) = (addresses.get(at), values.get_mut(at)) {
                *value = self.in_group(*value & !E::IS_GROUP, *address);
            }
        }
    }

    /// Gives the addresses from `first` to `last` a value.
    ///
    /// # Errors
    /// [`Full`]; the table is then to be thrown away.
    pub(super) fn assign(&mut self, first: u32, last: u32, value: u32) -> Result<(), Full> {
        let (mut slot, end) = ((first >> 8) as usize, (last >> 8) as usize);
        let (low, high) = ((first & 0xff) as usize, (last & 0xff) as usize);
        if slot == end {
            return self.assign_within(slot, low, high, value);
        }
        if low != 0 {
            self.assign_within(slot, low, GROUP - 1, value)?;
            slot += 1;
        }
        let whole = if high == GROUP - 1 { end + 1 } else { end };
        let Self { top, free, .. } = self;
        if let Some(entries) = top.get_mut(slot..whole) {
            for entry in entries.iter().filter(|entry| entry.bits() & E::IS_GROUP != 0) {
                free.push(entry.bits() & !E::IS_GROUP);
            }
            entries.fill(E::of(value));
        }
        if whole == end {
            self.assign_within(end, 0, high, value)?;
        }
        Ok(())
    }

    /// The same for the addresses from `low` to `high` of one entry.
    fn assign_within(&mut self, slot: usize, low: usize, high: usize, value: u32) -> Result<(), Full> {
        let bits = self.top.get(slot).map_or(0, |entry| entry.bits());
        let is_group = bits & E::IS_GROUP != 0;
        if high - low == GROUP - 1 {
            if is_group {
                self.free.push(bits & !E::IS_GROUP);
            }
            self.set_top(slot, value);
            return Ok(());
        }
        if !is_group && bits == value {
            return Ok(());
        }
        let group = if is_group { bits & !E::IS_GROUP } else { self.group_of(bits)? };
        let start = group as usize * GROUP;
        let mut uniform = false;
        if let Some(entries) = self.groups.get_mut(start..start + GROUP) {
            entries.iter_mut().skip(low).take(high - low + 1).for_each(|entry| *entry = E::of(value));
            uniform = entries.iter().all(|entry| entry.bits() == value);
        }
        if uniform {
            self.free.push(group);
            self.set_top(slot, value);
        } else {
            self.set_top(slot, group | E::IS_GROUP);
        }
        Ok(())
    }

    fn set_top(&mut self, slot: usize, bits: u32) {
        if let Some(entry) = self.top.get_mut(slot) {
            *entry = E::of(bits);
        }
    }

    /// A group all of whose entries are `value`.
    fn group_of(&mut self, value: u32) -> Result<u32, Full> {
        let group = match self.free.pop() {
            Some(group) => group,
            None if self.made >= E::LIMIT => return Err(Full),
            None => {
                if (self.made as usize + 1) * GROUP > self.groups.len() {
                    let more = (self.groups.len() * 2).min(E::LIMIT as usize * GROUP);
                    self.groups.resize(more, HugePages::Auto).map_err(|_| Full)?;
                }
                self.made += 1;
                self.made - 1
            }
        };
        let start = group as usize * GROUP;
        self.groups.get_mut(start..start + GROUP).ok_or(Full)?.fill(E::of(value));
        Ok(group)
    }

    /// Bytes in memory.
    pub(super) fn memory(&self) -> usize {
        self.top.resident() + self.groups.resident()
    }

    pub(super) fn pages(&self) -> TablePages {
        self.top.pages()
    }
}
