//! IPv6 longest-prefix match of any length (RFC 7608), 32 bits at a time.
//!
//! The first layer says for each value of an address's first 32 bits what holds there, or names a tree over the next 32
//! bits, and so on. Trees exist only where prefixes differ in those bits, so that a route to a /32 takes one layer, to a
//! /48 or /64 two. The first layer is DIR-24-8, sparse with few routes, or a tree where that would take
//! too much memory.

use super::Choice;
use super::direct::{Direct, Full};
use super::routes::{Routes, Segment, push_segment};
use super::tree::{LAYER, Root, Trees};
use crate::frame::TablePages;

/// Addresses looked up side by side.
const BURST: usize = 64;
/// So few routes that what they were compiled into is not reconsidered.
const FEW: usize = 512;

#[derive(Debug)]
enum First {
    Tree(Root),
    Direct(Direct<u32>),
}

/// The routes of a VRF.
#[derive(Debug)]
pub(super) struct TableV6 {
    routes: Routes<u128>,
    trees: Trees,
    first: First,
    /// What is said where the layers say nothing.
    default: u32,
    /// Routes when the structure was chosen, and the most since.
    built: usize,
    peak: usize,
    choice: Choice,
}

impl TableV6 {
    /// Of prefixes without host bits; of equal ones the last counts. No value is 0 or above 2^30.
    pub(super) fn build(prefixes: Vec<((u128, u8), u32)>, choice: Choice) -> Result<Self, Full> {
        Self::compile(Routes::new(prefixes), choice)
    }

    fn compile(routes: Routes<u128>, choice: Choice) -> Result<Self, Full> {
        let (default, built) = (routes.default_value(), routes.len());
        let (trees, first) = choose(&routes, choice)?;
        Ok(Self { routes, trees, first, default, built, peak: built, choice })
    }

    /// The value of the longest prefix that holds the address; 0 if there is none.
    #[inline(always)]
    pub(super) fn lookup(&self, address: u128) -> u32 {
        let word = (address >> 96) as u32;
        let value = match &self.first {
            First::Tree(root) => self.trees.lookup(*root, word),
            First::Direct(direct) => direct.lookup(word),
        };
        let value = if value & LAYER == 0 { value } else { self.trees.lookup_layers(value, address << 32) };
        if value == 0 { self.default } else { value }
    }

    /// Asks for the line that the look-up will need first.
    #[inline(always)]
    pub(super) fn prefetch(&self, address: u128) {
        if let First::Direct(direct) = &self.first {
            direct.prefetch((address >> 96) as u32);
        }
    }

    /// Looks all up.
    #[inline]
    pub(super) fn lookup_burst(&self, addresses: &[u128], values: &mut [u32]) {
        if !self.is_dense() && matches!(self.first, First::Direct(_)) {
            // What is used of it stays in the cache.
            for (value, address) in values.iter_mut().zip(addresses) {
                *value = self.lookup(*address);
            }
            return;
        }
        for (addresses, values) in addresses.chunks(BURST).zip(values.chunks_mut(BURST)) {
            match &self.first {
                First::Tree(root) => {
                    self.trees.lookup_burst(*root, addresses.iter().copied(), values);
                }
                First::Direct(direct) => {
                    let mut words = [0; BURST];
                    for (word, address) in words.iter_mut().zip(addresses) {
                        *word = (address >> 96) as u32;
                    }
                    direct.lookup_burst(words.get(..addresses.len()).unwrap_or_default(), values);
                    self.trees.descend(addresses, values);
                }
            }
            for value in values.iter_mut().filter(|value| **value == 0) {
                *value = self.default;
            }
        }
    }

    /// Adds or replaces a route; returns the value it had.
    pub(super) fn insert(&mut self, prefix: (u128, u8), value: u32) -> Result<Option<u32>, Full> {
        let old = self.routes.insert(prefix, value);
        self.update(prefix, value)?;
        Ok(old)
    }

    /// Removes a route; returns the value it had.
    pub(super) fn remove(&mut self, prefix: (u128, u8)) -> Result<Option<u32>, Full> {
        let old = self.routes.remove(prefix);
        if old.is_some() {
            self.update(prefix, self.routes.around(prefix))?;
        }
        Ok(old)
    }

    /// Brings the layers up to date: what `prefix` alone covers has a new value.
    fn update(&mut self, prefix: (u128, u8), value: u32) -> Result<(), Full> {
        self.default = self.routes.default_value();
        // The last route to go takes with it what others have left.
        if prefix.1 == 0 && self.routes.len() > 0 {
            return Ok(());
        }
        if !self.outgrown() {
            let mut done = Ok(());
            let Self { routes, trees, first, .. } = self;
            routes.gaps(prefix, |from, to| {
                if done.is_ok() {
                    done = Layers { trees, first }.assign(None, 0, (from, to), value).map(|_| ());
                }
            });
            if done.is_ok() {
                return Ok(());
            }
        }
        (self.trees, self.first) = choose(&self.routes, self.choice)?;
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
        matches!(&self.first, First::Direct(direct) if direct.is_dense())
    }

    /// What was chosen.
    pub(super) fn structure(&self) -> &'static str {
        match &self.first {
            First::Tree(_) => "trees",
            First::Direct(direct) if direct.is_dense() => "DIR-24-8 and trees",
            First::Direct(_) => "DIR-24-8, sparse, and trees",
        }
    }

    /// Bytes of the layers in memory.
    pub(super) fn memory(&self) -> usize {
        let first = if let First::Direct(direct) = &self.first { direct.memory() } else { 0 };
        self.trees.memory() + first
    }

    /// Nodes of the trees, and one for a table of 24 bits.
    #[cfg(test)]
    pub(super) fn nodes(&self) -> usize {
        self.trees.nodes() + usize::from(matches!(self.first, First::Direct(_)))
    }

    pub(super) fn pages(&self) -> TablePages {
        match &self.first {
            First::Tree(_) => self.trees.pages(),
            First::Direct(direct) => direct.pages().min(self.trees.pages()),
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

/// Compiles all routes.
fn choose(routes: &Routes<u128>, choice: Choice) -> Result<(Trees, First), Full> {
    let segments = routes.segments();
    let mut trees = Trees::new(segments.len())?;
    let first = layer(&mut trees, &segments, 0, 0)?;
    if choice.direct(|| Direct::<u32>::suits(&first)) {
        if let Ok(direct) = Direct::build(&first) {
            return Ok((trees, First::Direct(direct)));
        }
    }
    let root = trees.build(&first)?;
    Ok((trees, First::Tree(root)))
}

/// Word `at` (0 to 3) of an address.
fn word(address: u128, at: u32) -> u32 {
    (address >> (96 - 32 * at)) as u32
}

/// Bits of an address behind word `at`.
fn behind(at: u32) -> u128 {
    u128::MAX.checked_shr(32 * (at + 1)).unwrap_or(0)
}

/// The ranges of one layer, at word `at`, of segments that begin at `from` and all lie in the same layer; makes the trees
/// below it.
fn layer(
    trees: &mut Trees,
    segments: &[Segment<u128>],
    at: u32,
    mut from: u128,
) -> Result<Vec<Segment<u32>>, Full> {
    let mut ranges = Vec::new();
    let low = behind(at);
    let mut rest = segments;
    while let Some(&(end, value)) = rest.first() {
        // `from` is the first address of its word.
        if end & low == low {
            push_segment(&mut ranges, word(end, at), value);
            rest = rest.get(1..).unwrap_or_default();
            from = end.wrapping_add(1);
            continue;
        }
        if word(end, at) > word(from, at) {
            push_segment(&mut ranges, word(end, at) - 1, value);
            from = end & !low;
        }
        // Several values within this word.
        let last = from | low;
        let inside = rest.partition_point(|(end, _)| *end < last);
        let mut part: Vec<Segment<u128>> = rest.get(..=inside).unwrap_or(rest).to_vec();
        if let Some(through) = part.last_mut() {
            through.0 = last;
        }
        let below = layer(trees, &part, at + 1, from)?;
        push_segment(&mut ranges, word(from, at), LAYER | trees.build(&below)?);
        let whole = rest.get(inside).is_some_and(|(end, _)| *end == last);
        rest = rest.get(inside + usize::from(whole)..).unwrap_or_default();
        from = last.wrapping_add(1);
    }
    Ok(ranges)
}

/// The layers, to change.
struct Layers<'a> {
    trees: &'a mut Trees,
    first: &'a mut First,
}

impl Layers<'_> {
    /// Gives a range of addresses that has had one value until now another one, in the layer of word `at`: the tree
    /// `root`, or the first layer. Returns the tree's name, which may be new.
    fn assign(
        &mut self,
        root: Option<Root>,
        at: u32,
        (from, to): (u128, u128),
        value: u32,
    ) -> Result<Option<Root>, Full> {
        let low = behind(at);
        let (mut first, mut last) = (word(from, at), word(to, at));
        let mut root = root;
        let (begins, ends) = (from & low == 0, to & low == low);
        if first == last && !(begins && ends) {
            return self.assign_within(root, at, (from, to), value);
        }
        if !begins {
            root = self.assign_within(root, at, (from, from | low), value)?;
            first += 1;
        }
        if !ends {
            root = self.assign_within(root, at, (to & !low, to), value)?;
            match last.checked_sub(1) {
                Some(before) if before >= first => last = before,
                _ => return Ok(root),
            }
        }
        if first <= last { self.set(root, first, last, value) } else { Ok(root) }
    }

    /// The same for a part of the addresses that share word `at`.
    fn assign_within(
        &mut self,
        root: Option<Root>,
        at: u32,
        range: (u128, u128),
        value: u32,
    ) -> Result<Option<Root>, Full> {
        let own = word(range.0, at);
        let old = match (&*self.first, root) {
            (_, Some(root)) => self.trees.lookup(root, own),
            (First::Tree(root), None) => self.trees.lookup(*root, own),
            (First::Direct(direct), None) => direct.lookup(own),
        };
        if old == value {
            return Ok(root);
        }
        let tree = if old & LAYER == 0 { self.trees.build(&[(u32::MAX, old)])? } else { old & !LAYER };
        let tree = self.assign(Some(tree), at + 1, range, value)?.ok_or(Full)?;
        match self.trees.uniform(tree) {
            Some(value) => {
                self.trees.release(tree);
                self.set(root, own, own, value)
            }
            None if LAYER | tree == old => Ok(root),
            None => self.set(root, own, own, LAYER | tree),
        }
    }

    fn set(&mut self, root: Option<Root>, first: u32, last: u32, value: u32) -> Result<Option<Root>, Full> {
        match (&mut *self.first, root) {
            (_, Some(root)) => return self.trees.assign(root, first, last, value).map(Some),
            (First::Tree(root), None) => *root = self.trees.assign(*root, first, last, value)?,
            (First::Direct(direct), None) => direct.assign(first, last, value)?,
        }
        Ok(root)
    }
}
