//! IPv4 longest-prefix match: a search tree while there are few routes, DIR-24-8 when there are many.

use super::direct::{Direct, Entry, Full};
use super::routes::{Routes, Segment};
use super::tree::{Root, Trees};
use crate::frame::TablePages;

/// From so many ranges of addresses on (a route makes at most two) a table of 24 bits is built instead of a tree.
/// Measured: docs/decisions/0003.
const DIRECT_FROM: usize = 4096;
/// Addresses looked up side by side.
const BURST: usize = 64;

/// What the routes were compiled into.
#[derive(Debug)]
enum Table {
    Tree(Trees, Root),
    /// 32 MB: values and groups below 2^15.
    Narrow(Direct<u16>),
    /// 64 MB.
    Wide(Direct<u32>),
}

/// The routes of a VRF.
#[derive(Debug)]
pub(super) struct TableV4 {
    routes: Routes<u32>,
    table: Table,
    /// What is said where the table says nothing.
    default: u32,
    /// Ranges when the structure was chosen.
    built: usize,
    direct_from: usize,
}

impl TableV4 {
    /// Of prefixes without host bits; of equal ones the last counts. No value is 0 or above 2^30.
    /// `direct_from`: from so many ranges on a table of 24 bits is built; `None`: from where that is faster.
    pub(super) fn build(prefixes: Vec<((u32, u8), u32)>, direct_from: Option<usize>) -> Result<Self, Full> {
        Self::compile(Routes::new(prefixes), direct_from.unwrap_or(DIRECT_FROM))
    }

    fn compile(routes: Routes<u32>, direct_from: usize) -> Result<Self, Full> {
        let segments = routes.segments();
        let default = routes.default_value();
        let table = Table::choose(&segments, direct_from)?;
        Ok(Self { table, default, built: segments.len(), direct_from, routes })
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
        if prefix.1 == 0 {
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
        let segments = self.routes.segments();
        self.built = segments.len();
        self.table = Table::choose(&segments, self.direct_from)?;
        Ok(())
    }

    /// Whether another structure would suit the routes better by far.
    fn outgrown(&self) -> bool {
        // Also: nearly all of what the nodes were made for is gone.
        let fewer = self.routes.len() == 0 || self.routes.len() < self.built / 16;
        match self.table {
            Table::Tree(..) => fewer || self.routes.len() >= self.direct_from.max(self.built),
            Table::Narrow(_) | Table::Wide(_) => self.routes.len() < self.direct_from / 8,
        }
    }

    /// What was chosen.
    pub(super) fn structure(&self) -> &'static str {
        match self.table {
            Table::Tree(..) => "tree",
            Table::Narrow(_) => "DIR-24-8, 16 bits",
            Table::Wide(_) => "DIR-24-8, 32 bits",
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
    fn choose(segments: &[Segment<u32>], direct_from: usize) -> Result<Self, Full> {
        if segments.len() >= direct_from {
            let greatest = segments.iter().map(|(_, value)| *value).max().unwrap_or(0);
            if greatest < <u16 as Entry>::LIMIT {
                if let Ok(direct) = Direct::build(segments) {
                    return Ok(Self::Narrow(direct));
                }
            }
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
            Self::Narrow(_) if value >= <u16 as Entry>::LIMIT => return Err(Full),
            Self::Narrow(direct) => direct.assign(first, last, value)?,
            Self::Wide(direct) => direct.assign(first, last, value)?,
        }
        Ok(())
    }
}
