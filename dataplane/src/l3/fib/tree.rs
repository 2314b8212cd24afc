//! Search trees over ranges of 32-bit addresses, one cache line a node: for tables with few routes, and for the many small
//! ones that an IPv6 table is made of.
//!
//! A leaf holds the ends of up to eight ranges and their values; an inner node the ends of what its up to sixteen children
//! cover, and where these lie, side by side. A look-up counts how many ends lie below the address: a few comparisons of
//! whole vectors a node, and no branch that depends on the address. All leaves of a tree are equally deep.
//!
//! Leaves are built three quarters full. One that overflows has the smallest subtree around it rebuilt that has room.
//! Trees share one pool of nodes. A [`Root`] names a tree.

use weir_config::HugePages;

use super::direct::Full;
use super::routes::{Segment, push_segment};
use crate::frame::{Line, TableMemory, TablePages};

/// Ranges of a leaf, and how many it is built with.
const LEAF: usize = 8;
const LEAF_FILL: usize = 6;
/// Children of an inner node, and how many it is built with.
const FAN: usize = 16;
const FAN_FILL: usize = 12;
/// Lane of an inner node that says where its children are: their first node, and the logarithm of how many have room.
const CHILDREN: usize = 15;

/// Bits of a node's number.
const NODE_BITS: u32 = 27;
const NODE: u32 = (1 << NODE_BITS) - 1;

/// Set in a value that names a tree over the next 32 bits of an address.
pub(super) const LAYER: u32 = 1 << 30;
/// Addresses looked up side by side.
const BURST: usize = 64;
/// Trees of more nodes than so many do not stay in a second-level cache: look-ups go down them side by side, so that their
/// misses overlap.
const WARM: u32 = 4096;

/// A tree: the number of its first node, and above [`NODE_BITS`] how many levels of inner nodes it has (at most 7).
pub(super) type Root = u32;

/// Addresses as signed numbers in the same order: what vectors of the oldest processors compare.
#[inline(always)]
fn key(address: u32) -> i32 {
    (address ^ 1 << 31) as i32
}

fn address(key: i32) -> u32 {
    key as u32 ^ 1 << 31
}

/// Which child of an inner node covers a key, counted from 0.
#[inline(always)]
fn child_at(node: &Line, key: i32) -> u32 {
    // Ends are in order: those below the key are the first ones. The last lane is no end.
    (!(node.below(key) & 0x7fff)).trailing_zeros()
}

/// The child of an inner node that covers a key.
#[inline(always)]
fn child(node: &Line, key: i32) -> u32 {
    (node.0[CHILDREN] as u32 & NODE) + child_at(node, key)
}

/// The value that a leaf has for a key.
#[inline(always)]
fn value(node: &Line, key: i32) -> u32 {
    // The last end is at or above all that the leaf covers, and not kept.
    let at = (!(node.below_in_first_half(key) & 0x7f)).trailing_zeros() as usize;
    node.0[LEAF + (at & (LEAF - 1))] as u32
}

/// How many ranges of a leaf, or children of an inner node, are in use: the last one's end is not kept, and all lanes
/// from there on hold the greatest.
fn used(ends: &[i32]) -> usize {
    1 + ends.iter().take_while(|end| **end != i32::MAX).count()
}

/// The number of ranges that a subtree under `levels` levels of inner nodes is built with at most.
fn room(levels: u32) -> usize {
    match levels {
        0 => LEAF,
        _ => FAN * fill(levels - 1),
    }
}

/// The number that each of an inner node's children is built with.
fn fill(levels: u32) -> usize {
    LEAF_FILL * FAN_FILL.pow(levels)
}

/// Nodes of all trees.
#[derive(Debug)]
pub(super) struct Trees {
    nodes: TableMemory<Line>,
    /// Nodes ever taken: all from here on are blank.
    made: u32,
    /// Free runs of 1, 2, 4, 8 and 16 nodes.
    free: [Vec<u32>; 5],
    /// Nodes in free runs.
    idle: usize,
}

impl Trees {
    /// Room for about so many ranges to begin with.
    pub(super) fn new(ranges: usize) -> Result<Self, Full> {
        let nodes = (ranges / 4).max(4);
        let nodes = TableMemory::zeroed(nodes, HugePages::Auto).map_err(|_| Full)?;
        Ok(Self { nodes, made: 0, free: Default::default(), idle: 0 })
    }

    #[inline(always)]
    pub(super) fn lookup(&self, root: Root, address: u32) -> u32 {
        let key = key(address);
        let mut at = root & NODE;
        for _ in 0..root >> NODE_BITS {
            at = self.nodes.get(at as usize).map_or(0, |node| child(node, key));
        }
        self.nodes.get(at as usize).map_or(0, |node| value(node, key))
    }

    /// The value behind `value`, which names a tree, for the bits of an address that follow, moved to the front.
    #[inline]
    pub(super) fn lookup_layers(&self, mut value: u32, mut rest: u128) -> u32 {
        while value & LAYER != 0 {
            value = self.lookup(value & !LAYER, (rest >> 96) as u32);
            rest <<= 32;
        }
        value
    }

    /// Looks addresses up, at most 64, in the tree `root` and those below it.
    #[inline]
    pub(super) fn lookup_burst(
        &self,
        root: Root,
        addresses: impl Iterator<Item = u128> + Clone,
        values: &mut [u32],
    ) {
        if self.made <= WARM {
            for (value, address) in values.iter_mut().zip(addresses) {
                *value = self.lookup_layers(root | LAYER, address);
            }
            return;
        }
        let mut words = [0; BURST];
        for ((word, address), value) in words.iter_mut().zip(addresses).zip(values.iter_mut()) {
            *word = address;
            *value = root | LAYER;
        }
        self.descend_from(&mut words, values);
    }

    /// Follows values that name trees, for addresses whose first word has been looked up, at most 64 of them.
    #[inline]
    pub(super) fn descend(&self, addresses: &[u128], values: &mut [u32]) {
        if self.made <= WARM {
            for (value, address) in values.iter_mut().zip(addresses) {
                *value = self.lookup_layers(*value, address << 32);
            }
            return;
        }
        let mut words = [0; BURST];
        for ((word, address), value) in words.iter_mut().zip(addresses).zip(values.iter()) {
            *word = address << 32;
            if value & LAYER != 0 {
                self.prefetch(value & !LAYER);
            }
        }
        self.descend_from(&mut words, values);
    }

    /// The same, side by side: each takes one step in turn, and the node it will need next is on its way meanwhile.
    fn descend_from(&self, words: &mut [u128; BURST], values: &mut [u32]) {
        let mut going = values
            .iter()
            .take(BURST)
            .enumerate()
            .fold(0u64, |going, (at, value)| going | u64::from(value & LAYER != 0) << at);
        while going != 0 {
            let mut turn = going;
            while turn != 0 {
                let at = turn.trailing_zeros() as usize;
                turn &= turn - 1;
                let (Some(value), Some(rest)) = (values.get_mut(at), words.get_mut(at)) else { return };
                match self.step(*value & !LAYER, (*rest >> 96) as u32) {
                    Ok(below) => *value = below | LAYER,
                    Err(found) => {
                        *value = found;
                        *rest <<= 32;
                        if found & LAYER == 0 {
                            going &= !(1 << at);
                        } else {
                            self.prefetch(found & !LAYER);
                        }
                    }
                }
            }
        }
    }

    /// One step down from `root`: the subtree, or the value if `root` is a leaf.
    #[inline(always)]
    pub(super) fn step(&self, root: Root, address: u32) -> Result<Root, u32> {
        let Some(node) = self.nodes.get((root & NODE) as usize) else { return Err(0) };
        let levels = root >> NODE_BITS;
        if levels == 0 {
            return Err(value(node, key(address)));
        }
        let at = child(node, key(address));
        self.nodes.prefetch(at as usize);
        Ok(at | (levels - 1) << NODE_BITS)
    }

    #[inline(always)]
    pub(super) fn prefetch(&self, root: Root) {
        self.nodes.prefetch((root & NODE) as usize);
    }

    /// A tree of these segments, in order, the last of which ends with the last address.
    pub(super) fn build(&mut self, segments: &[Segment<u32>]) -> Result<Root, Full> {
        let node = self.take(0)?;
        self.build_root(node, segments)
    }

    fn build_root(&mut self, node: u32, segments: &[Segment<u32>]) -> Result<Root, Full> {
        let levels = (0..8).find(|levels| segments.len() <= room(*levels)).ok_or(Full)?;
        self.build_at(node, levels, segments)?;
        Ok(node | levels << NODE_BITS)
    }

    fn build_at(&mut self, node: u32, levels: u32, segments: &[Segment<u32>]) -> Result<(), Full> {
        let mut line = Line([i32::MAX; 16]);
        if levels == 0 {
            write_leaf(&mut line, segments);
        } else {
            let count = segments.len();
            let children = count.div_ceil(fill(levels - 1)).max(1);
            let class = children.next_power_of_two().trailing_zeros();
            let first = self.take(class)?;
            for at in 0..children {
                let (from, to) = (at * count / children, (at + 1) * count / children);
                let part = segments.get(from..to).unwrap_or_default();
                self.build_at(first + at as u32, levels - 1, part)?;
                if let (Some(lane), Some((end, _))) = (line.0.get_mut(at), part.last()) {
                    *lane = if at + 1 < children { key(*end) } else { i32::MAX };
                }
            }
            line.0[CHILDREN] = (first | class << NODE_BITS) as i32;
        }
        *self.nodes.get_mut(node as usize).ok_or(Full)? = line;
        Ok(())
    }

    /// Gives the addresses from `first` to `last` a value. The tree may get another name.
    ///
    /// # Errors
    /// [`Full`] when there is no memory; the tree is then to be thrown away.
    pub(super) fn assign(&mut self, mut root: Root, first: u32, last: u32, value: u32) -> Result<Root, Full> {
        let mut from = first;
        loop {
            let leaf = self.find(root, from);
            let to = leaf.end.min(last);
            let mut ranges = Vec::with_capacity(LEAF + 2);
            let mut start = leaf.start;
            for (end, old) in self.ranges(leaf.node, leaf.end) {
                if end < from || start > to {
                    push_segment(&mut ranges, end, old);
                } else {
                    if start < from {
                        push_segment(&mut ranges, from - 1, old);
                    }
                    push_segment(&mut ranges, end.min(to), value);
                    if end > to {
                        push_segment(&mut ranges, end, old);
                    }
                }
                start = end.wrapping_add(1);
            }
            if ranges.len() <= LEAF {
                write_leaf(self.nodes.get_mut(leaf.node as usize).ok_or(Full)?, &ranges);
            } else {
                root = self.overflow(root, &leaf, &ranges)?;
            }
            if to == last {
                return Ok(root);
            }
            from = to + 1;
        }
    }

    /// The leaf that covers an address, and the inner nodes above it.
    fn find(&self, root: Root, address: u32) -> Leaf {
        let mut leaf = Leaf { node: root & NODE, start: 0, end: u32::MAX, above: Vec::new() };
        for levels in (1..=root >> NODE_BITS).rev() {
            let Some(node) = self.nodes.get(leaf.node as usize) else { break };
            leaf.above.push((leaf.node, levels, leaf.end));
            let at = child_at(node, key(address)) as usize;
            if let Some(before) = at.checked_sub(1).and_then(|at| node.0.get(at)) {
                leaf.start = self::address(*before).wrapping_add(1);
            }
            if let Some(end) = node.0.get(at).filter(|end| at < CHILDREN && **end != i32::MAX) {
                leaf.end = self::address(*end);
            }
            leaf.node = (node.0[CHILDREN] as u32 & NODE) + at as u32;
        }
        leaf
    }

    /// The ranges of a leaf that covers addresses up to `end`.
    fn ranges(&self, leaf: u32, end: u32) -> impl Iterator<Item = Segment<u32>> + use<> {
        let lanes = self.nodes.get(leaf as usize).map_or([0; 16], |node| node.0);
        let count = lanes.get(..LEAF - 1).map_or(1, used);
        (0..count).map(move |at| {
            let (own, value) = (lanes.get(at), lanes.get(at + LEAF));
            let own = if at + 1 == count { end } else { own.map_or(end, |own| address(*own)) };
            (own, value.map_or(0, |value| *value as u32))
        })
    }

    /// Rebuilds the smallest subtree around a leaf that has room for `ranges` in it.
    #[cold]
    fn overflow(&mut self, root: Root, leaf: &Leaf, ranges: &[Segment<u32>]) -> Result<Root, Full> {
        let mut all = Vec::new();
        for &(node, levels, end) in leaf.above.iter().rev() {
            all.clear();
            self.collect(node, levels, end, (leaf.node, ranges), &mut all);
            if all.len() <= room(levels) {
                self.release_below(node, levels);
                self.build_at(node, levels, &all)?;
                return Ok(root);
            }
        }
        if leaf.above.is_empty() {
            all.extend_from_slice(ranges);
        }
        self.release_below(root & NODE, root >> NODE_BITS);
        self.build_root(root & NODE, &all)
    }

    /// Appends the ranges of a subtree that covers addresses up to `end`; those of one leaf are given.
    fn collect(
        &self,
        node: u32,
        levels: u32,
        end: u32,
        other: (u32, &[Segment<u32>]),
        all: &mut Vec<Segment<u32>>,
    ) {
        if levels == 0 {
            let put = |(end, value)| push_segment(all, end, value);
            if node == other.0 {
                other.1.iter().copied().for_each(put);
            } else {
                self.ranges(node, end).for_each(put);
            }
            return;
        }
        let Some(Line(lanes)) = self.nodes.get(node as usize) else { return };
        let ends = lanes.get(..CHILDREN).unwrap_or_default();
        let (first, count) = (lanes[CHILDREN] as u32 & NODE, used(ends));
        for at in 0..count {
            let own = ends.get(at).filter(|_| at + 1 < count).map_or(end, |own| address(*own));
            self.collect(first + at as u32, levels - 1, own, other, all);
        }
    }

    /// The value of all addresses, if they have one in common.
    pub(super) fn uniform(&self, root: Root) -> Option<u32> {
        if root >> NODE_BITS == 0 {
            let mut ranges = self.ranges(root & NODE, u32::MAX);
            let first = ranges.next()?;
            return ranges.next().is_none().then_some(first.1);
        }
        let mut at = root;
        // Most trees of several levels differ in their first leaf.
        while let Ok(below) = self.step(at, 0) {
            at = below;
        }
        if self.ranges(at & NODE, u32::MAX).nth(1).is_some() {
            return None;
        }
        let mut all = Vec::new();
        self.collect(root & NODE, root >> NODE_BITS, u32::MAX, (u32::MAX, &[]), &mut all);
        match *all {
            [(_, value)] => Some(value),
            _ => None,
        }
    }

    /// Frees a tree.
    pub(super) fn release(&mut self, root: Root) {
        self.release_below(root & NODE, root >> NODE_BITS);
        self.give(root & NODE, 0);
    }

    fn release_below(&mut self, node: u32, levels: u32) {
        if levels == 0 {
            return;
        }
        let Some(&Line(lanes)) = self.nodes.get(node as usize) else { return };
        let (first, class) = (lanes[CHILDREN] as u32 & NODE, lanes[CHILDREN] as u32 >> NODE_BITS);
        for at in 0..lanes.get(..CHILDREN).map_or(0, used) {
            self.release_below(first + at as u32, levels - 1);
        }
        self.give(first, class);
    }

    /// A run of 2^`class` nodes.
    fn take(&mut self, class: u32) -> Result<u32, Full> {
        let run = self.free.get_mut(class as usize).and_then(Vec::pop);
        if let Some(node) = run {
            self.idle -= 1 << class;
            return Ok(node);
        }
        let (node, made) = (self.made, self.made + (1 << class));
        if made > NODE {
            return Err(Full);
        }
        if made as usize > self.nodes.len() {
            let more = (self.nodes.len() * 2).max(made as usize);
            self.nodes.resize(more, HugePages::Auto).map_err(|_| Full)?;
        }
        self.made = made;
        Ok(node)
    }

    fn give(&mut self, node: u32, class: u32) {
        if let Some(runs) = self.free.get_mut(class as usize) {
            runs.push(node);
            self.idle += 1 << class;
        }
    }

    /// Nodes in use.
    #[cfg(test)]
    pub(super) fn nodes(&self) -> usize {
        self.made as usize - self.idle
    }

    /// Bytes in memory.
    pub(super) fn memory(&self) -> usize {
        self.nodes.resident()
    }

    pub(super) fn pages(&self) -> TablePages {
        self.nodes.pages()
    }
}

/// Where an address is.
struct Leaf {
    node: u32,
    /// What it covers.
    start: u32,
    end: u32,
    /// The inner nodes on the way, from the root: number, levels, last address covered.
    above: Vec<(u32, u32, u32)>,
}

/// Writes at most [`LEAF`] ranges.
fn write_leaf(node: &mut Line, ranges: &[Segment<u32>]) {
    let mut lanes = [i32::MAX; 16];
    let last = ranges.last().map_or(0, |(_, value)| *value);
    for at in 0..LEAF {
        let range = ranges.get(at);
        if let (Some(lane), Some((end, _))) = (lanes.get_mut(at), range.filter(|_| at + 1 < ranges.len())) {
            *lane = key(*end);
        }
        if let Some(lane) = lanes.get_mut(at + LEAF) {
            *lane = range.map_or(last, |(_, value)| *value) as i32;
        }
    }
    node.0 = lanes;
}
