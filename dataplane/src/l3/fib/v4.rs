//! IPv4 longest-prefix match: DIR-24-8, sparse with few routes; a search tree where that would take too much memory.

use super::Choice;
use super::direct::{Direct, Entry, Full, GROUP, TOP};
use super::routes::{Routes, Segment};
use super::tree::{Root, Trees};
use crate::frame::TablePages;

/// Addresses looked up side by side.
const BURST: usize = 64;
/// So few routes that what they were compiled into is not reconsidered.
const FEW: usize = 512;

/// What the routes were compiled into.
#[derive(Debug)]
enum Table {
    Tree(Trees, Root),
    /// 32 MB and the groups: values below 2^14.
    Narrow(Direct<u16>),
    /// 64 MB.
    Wide(Direct<u32>),
}

/// Looks IPv4 addresses up in a tight loop.
pub trait LookUpV4: Copy {
    /// The number of the target of an address in host order.
    fn number(self, destination: u32) -> u32;
}

/// A sparse table of 16 bits, as nearly all routers with few routes have it.
#[derive(Clone, Copy, Debug)]
pub struct Sparse<'a> {
    top: &'a [u16; TOP],
    groups: &'a [u16],
    default: u32,
}

impl LookUpV4 for Sparse<'_> {
    #[inline(always)]
    fn number(self, destination: u32) -> u32 {
        let bits = u32::from(self.top[(destination >> 8) as usize]);
        let value = match bits.checked_sub(<u16 as Entry>::VALUES) {
            None => bits,
            Some(group) => {
                let at = group as usize * GROUP + (destination & 0xff) as usize;
                self.groups.get(at).map_or(0, |value| u32::from(*value))
            }
        };
        if value == 0 { self.default } else { value }
    }
}

/// The routes of a VRF.
#[derive(Debug)]
pub(super) struct TableV4 {
    routes: Routes<u32>,
    table: Table,
    /// What is said where the table says nothing.
    default: u32,
    /// Routes when the structure was chosen, and the most since.
    built: usize,
    peak: usize,
    choice: Choice,
}

impl TableV4 {
    /// Of prefixes without host bits; of equal ones the last counts. No value is 0 or above 2^30.
    pub(super) fn build(prefixes: Vec<((u32, u8), u32)>, choice: Choice) -> Result<Self, Full> {
        Self::compile(Routes::new(prefixes), choice)
    }

    fn compile(routes: Routes<u32>, choice: Choice) -> Result<Self, Full> {
        let segments = routes.segments();
        let default = routes.default_value();
        let table = Table::choose(&segments, choice)?;
        Ok(Self { table, default, built: routes.len(), peak: routes.len(), choice, routes })
    }

    /// The value of the longest prefix that holds the address; 0 if there is none.
    #[inline(always)]
    pub(super) fn lookup(&self, address: u32) -> u32 {
        let value = match &self.table {
            Table::Tree(trees, root) => trees.lookup(*root, address),
            Table::Narrow(direct) => direct.lookup(address),
            Table::Wide(direct) => direct.lookup(address),
        };
        if value == 0 { self.default } else { value }
    }

    /// The table, if it is a sparse one of 16 bits.
    #[inline]
    pub(super) fn sparse(&self) -> Option<Sparse<'_>> {
        let Table::Narrow(direct) = &self.table else { return None };
        let (top, groups) = direct.tables().filter(|_| !direct.is_dense())?;
        Some(Sparse { top, groups, default: self.default })
    }

    /// Asks for the line that the look-up will need first. A tree's first nodes are warm: nothing is asked for.
    #[inline(always)]
    pub(super) fn prefetch(&self, address: u32) {
        match &self.table {
            Table::Tree(..) => {}
            Table::Narrow(direct) => direct.prefetch(address),
            Table::Wide(direct) => direct.prefetch(address),
        }
    }

    /// Looks all up.
    #[inline]
    pub(super) fn lookup_burst(&self, addresses: &[u32], values: &mut [u32]) {
        if !self.is_dense() && !matches!(self.table, Table::Tree(..)) {
            // What is used of it stays in the cache.
            for (value, address) in values.iter_mut().zip(addresses) {
                *value = self.lookup(*address);
            }
            return;
        }
        for (addresses, values) in addresses.chunks(BURST).zip(values.chunks_mut(BURST)) {
            match &self.table {
                Table::Tree(trees, root) => {
                    trees.lookup_burst(
                        *root,
                        addresses.iter().map(|address| u128::from(*address) << 96),
                        values,
                    );
                }
                Table::Narrow(direct) => direct.lookup_burst(addresses, values),
                Table::Wide(direct) => direct.lookup_burst(addresses, values),
            }
            for value in values.iter_mut().filter(|value| **value == 0) {
                *value = self.default;
            }
        }
    }

    /// Adds or replaces a route; returns the value it had.
    pub(super) fn insert(&mut self, prefix: (u32, u8), value: u32) -> Result<Option<u32>, Full> {
        let old = self.routes.insert(prefix, value);
        self.update(prefix, value)?;
        Ok(old)
    }

    /// Removes a route; returns the value it had.
    pub(super) fn remove(&mut self, prefix: (u32, u8)) -> Result<Option<u32>, Full> {
        let old = self.routes.remove(prefix);
        if old.is_some() {
            self.update(prefix, self.routes.around(prefix))?;
        }
        Ok(old)
    }

    /// Brings the table up to date: what `prefix` alone covers has a new value.
    fn update(&mut self, prefix: (u32, u8), value: u32) -> Result<(), Full> {
        self.default = self.routes.default_value();
        // The last route to go takes with it what others have left.
        if prefix.1 == 0 && self.routes.len() > 0 {
            return Ok(());
        }
        if !self.outgrown() {
            let mut done = Ok(());
            let Self { routes, table, .. } = self;
            routes.gaps(prefix, |first, last| {
                if done.is_ok() {
                    done = table.assign(first, last, value);
                }
            });
            if done.is_ok() {
                return Ok(());
            }
        }
        self.table = Table::choose(&self.routes.segments(), self.choice)?;
        (self.built, self.peak) = (self.routes.len(), self.routes.len());
        Ok(())
    }

    /// Whether another structure, or the same built anew, would suit the routes better by far.
    fn outgrown(&mut self) -> bool {
        let routes = self.routes.len();
        self.peak = self.peak.max(routes);
        routes < self.peak / 16 || routes == 0 || !self.is_dense() && routes >= 2 * self.built.max(FEW)
    }

    pub(super) fn is_dense(&self) -> bool {
        match &self.table {
            Table::Tree(..) => false,
            Table::Narrow(direct) => direct.is_dense(),
            Table::Wide(direct) => direct.is_dense(),
        }
    }

    /// What was chosen.
    pub(super) fn structure(&self) -> &'static str {
        match &self.table {
            Table::Tree(..) => "tree",
            Table::Narrow(direct) if direct.is_dense() => "DIR-24-8, 16 bits",
            Table::Narrow(_) => "DIR-24-8, 16 bits, sparse",
            Table::Wide(direct) if direct.is_dense() => "DIR-24-8, 32 bits",
            Table::Wide(_) => "DIR-24-8, 32 bits, sparse",
        }
    }

    /// Bytes of the table in memory.
    pub(super) fn memory(&self) -> usize {
        match &self.table {
            Table::Tree(trees, _) => trees.memory(),
            Table::Narrow(direct) => direct.memory(),
            Table::Wide(direct) => direct.memory(),
        }
    }

    /// Nodes of the tree; one for a table of 24 bits.
    #[cfg(test)]
    pub(super) fn nodes(&self) -> usize {
        if let Table::Tree(trees, _) = &self.table { trees.nodes() } else { 1 }
    }

    pub(super) fn pages(&self) -> TablePages {
        match &self.table {
            Table::Tree(trees, _) => trees.pages(),
            Table::Narrow(direct) => direct.pages(),
            Table::Wide(direct) => direct.pages(),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.routes.len()
    }

    /// What the routes say, one after the other.
    pub(super) fn values(&self) -> impl Iterator<Item = u32> {
        self.routes.values()
    }
}

impl Table {
    fn choose(segments: &[Segment<u32>], choice: Choice) -> Result<Self, Full> {
        let greatest = segments.iter().map(|(_, value)| *value).max().unwrap_or(0);
        let narrow = greatest < <u16 as Entry>::VALUES;
        if narrow && choice.direct(|| Direct::<u16>::suits(segments)) {
            if let Ok(direct) = Direct::build(segments) {
                return Ok(Self::Narrow(direct));
            }
        }
        if choice.direct(|| Direct::<u32>::suits(segments)) {
            if let Ok(direct) = Direct::build(segments) {
                return Ok(Self::Wide(direct));
            }
        }
        let mut trees = Trees::new(segments.len())?;
        let root = trees.build(segments)?;
        Ok(Self::Tree(trees, root))
    }

    fn assign(&mut self, first: u32, last: u32, value: u32) -> Result<(), Full> {
        match self {
            Self::Tree(trees, root) => *root = trees.assign(*root, first, last, value)?,
            Self::Narrow(_) if value >= <u16 as Entry>::VALUES => return Err(Full),
            Self::Narrow(direct) => direct.assign(first, last, value)?,
            Self::Wide(direct) => direct.assign(first, last, value)?,
        }
        Ok(())
    }
}
