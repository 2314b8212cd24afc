//! DIR-24-8 (Gupta, Lin, McKeown: Routing Lookups in Hardware at Memory Access Speeds, 1998) over 32 bits: a table of all
//! values of the first 24 bits, and groups of 256 for those where longer prefixes differ. One cache miss for most look-ups,
//! two for the others, however many routes there are.
//!
//! With few routes the table is *sparse*: on ordinary pages, of which only those take memory that hold something else than
//! zero. With many it lies on huge pages.

use weir_config::HugePages;

use super::routes::Segment;
use crate::frame::{Plain, TableMemory, TablePages};

/// Entries of the table of 24 bits.
pub(super) const TOP: usize = 1 << 24;
/// Entries of a group.
pub(super) const GROUP: usize = 256;

/// An entry: a value, or the number of a group.
pub(super) trait Entry: Plain + PartialEq + std::fmt::Debug {
    /// An entry below it is a value; others name groups, from this on.
    const VALUES: u32;
    /// The most groups there can be.
    const GROUPS: u32;
    fn of(bits: u32) -> Self;
    fn bits(self) -> u32;
}

impl Entry for u16 {
    const VALUES: u32 = 1 << 14;
    const GROUPS: u32 = 3 << 14;
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
    const VALUES: u32 = 1 << 31;
    // 64 MB of groups. Where more are needed, prefixes are so long and so far apart that a tree is smaller.
    const GROUPS: u32 = 1 << 16;
    #[inline(always)]
    fn of(bits: u32) -> Self {
        bits
    }
    #[inline(always)]
    fn bits(self) -> u32 {
        self
    }
}

/// From so many ranges of addresses on (a route makes at most two) the table lies on huge pages, all of it in memory.
const DENSE_FROM: usize = 2048;
/// Bytes of other than zero that a table may have in memory otherwise.
const SPARSE: usize = 4 << 20;
/// Bytes of a page.
const PAGE: usize = 4096;

/// No room for a group: another structure has to take the routes.
#[derive(Debug)]
pub(super) struct Full;

#[derive(Debug)]
pub(super) struct Direct<E: Entry> {
    top: TableMemory<E>,
    groups: TableMemory<E>,
    huge: HugePages,
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

    /// Whether a table of these segments is to be had for what it is worth: there are many, or they take few pages.
    pub(super) fn suits(segments: &[Segment<u32>]) -> bool {
        let (mut pages, mut from) = (0, 0u32);
        for &(end, value) in segments {
            if value != 0 {
                pages += 1 + ((end >> 8) - (from >> 8)) as usize * size_of::<E>() / PAGE;
            }
            from = end.wrapping_add(1);
        }
        let groups = Self::groups_needed(segments);
        let sparse = pages * PAGE + groups * GROUP * size_of::<E>() <= SPARSE;
        groups < E::GROUPS as usize && (sparse || segments.len() >= DENSE_FROM)
    }

    /// Of segments in order that end with the last address.
    ///
    /// # Errors
    /// More groups than there can be, or no memory.
    pub(super) fn build(segments: &[Segment<u32>]) -> Result<Self, Full> {
        let groups = Self::groups_needed(segments);
        if groups >= E::GROUPS as usize {
            return Err(Full);
        }
        let huge = if segments.len() >= DENSE_FROM { HugePages::Auto } else { HugePages::Never };
        let table = |len| TableMemory::zeroed(len, huge).map_err(|_| Full);
        let (top, groups) = (table(TOP)?, table((groups + groups / 8 + 2) * GROUP)?);
        let mut direct = Self { top, groups, huge, made: 0, free: Vec::new() };
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

    /// Whether it is built for many routes.
    #[inline]
    pub(super) fn is_dense(&self) -> bool {
        self.huge != HugePages::Never
    }

    /// The two tables, as a tight loop looks addresses up.
    #[inline]
    pub(super) fn tables(&self) -> Option<(&[E; TOP], &[E])> {
        Some((self.top.first_chunk()?, &self.groups))
    }

    #[inline(always)]
    pub(super) fn prefetch(&self, address: u32) {
        self.top.prefetch((address >> 8) as usize);
    }

    #[inline(always)]
    pub(super) fn lookup(&self, address: u32) -> u32 {
        let bits = self.top.get((address >> 8) as usize).map_or(0, |entry| entry.bits());
        if bits < E::VALUES { bits } else { self.in_group(bits - E::VALUES, address) }
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
            if bits >= E::VALUES {
                grouped |= 1 << (at & 63);
                let group = (bits - E::VALUES) as usize;
                self.groups.prefetch(group * GROUP + (address & 0xff) as usize);
            }
        }
        while grouped != 0 {
            let at = grouped.trailing_zeros() as usize;
            grouped &= grouped - 1;
            if let (Some(address), Some(value)) = (addresses.get(at), values.get_mut(at)) {
                *value = self.in_group(*value - E::VALUES, *address);
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
            for entry in entries.iter().filter(|entry| entry.bits() >= E::VALUES) {
                free.push(entry.bits() - E::VALUES);
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
        let is_group = bits >= E::VALUES;
        if high - low == GROUP - 1 {
            if is_group {
                self.free.push(bits - E::VALUES);
            }
            self.set_top(slot, value);
            return Ok(());
        }
        if !is_group && bits == value {
            return Ok(());
        }
        let group = if is_group { bits - E::VALUES } else { self.group_of(bits)? };
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
            self.set_top(slot, E::VALUES + group);
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
            None if self.made >= E::GROUPS => return Err(Full),
            None => {
                if (self.made as usize + 1) * GROUP > self.groups.len() {
                    let more = (self.groups.len() * 2).min(E::GROUPS as usize * GROUP);
                    self.groups.resize(more, self.huge).map_err(|_| Full)?;
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
