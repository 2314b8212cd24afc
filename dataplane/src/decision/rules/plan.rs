//! Chooses the structure from the rules: what is compared one by one, and where which bits of which fields are hashed.
//!
//! At each node the planner looks at a sample of the regions, tries tables over more and more bits of each field, and keeps
//! the one with the least estimated cost of a look-up: buckets that stay full, regions that are too wide for the table
//! and have to be asked besides, and copies all cost. If comparing the regions one by one is cheaper, they become a leaf. Deterministic:
//! equal rules make an equal structure.

use super::region::{Prefix, Region, leading_ones};
use super::tree::{Reach, Slot, Tree, hash, pack, transport};

/// Up to as many regions are compared one after the other without further thought.
const FEW: usize = 6;
/// Regions looked at when a table is chosen.
const SAMPLE: usize = 256;
/// Values tried for one field at a time.
const TRIED: usize = 8;
/// Most copies of one region in one table.
const MOST_COPIES: u32 = 8;
/// Most tables, one behind the other.
const DEEPEST: usize = 64;
/// Most slots of a table, as a power of two.
const MOST_BITS: u32 = 20;

/// Compiles regions, which stand in the order of their rules.
pub(super) fn plan<const W: usize>(regions: &[Region]) -> Tree<W> {
    let items: Vec<Item> =
        regions.iter().zip(0..).map(|(region, index)| Item { clip: *region, index }).collect();
    let mut planner =
        Planner { regions, tree: Tree::default(), copies_left: regions.len() + 1024, scratch: Vec::new() };
    let (root, reach) = planner.grow(items, 0);
    planner.tree.set_root(root, reach);
    planner.tree
}

/// A region, cut down to where it is in the tree.
#[derive(Clone, Copy, Debug)]
struct Item {
    clip: Region,
    /// Which region it is.
    index: u32,
}

/// Which bits a table hashes: leading bits of addresses and ports, all or nothing of protocol and scope.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Cut {
    from: u8,
    to: u8,
    from_port: u8,
    to_port: u8,
    protocol: bool,
    scope: bool,
}

impl Cut {
    fn mask<const W: usize>(&self) -> [u64; W] {
        let last = transport(
            port_mask(self.from_port),
            port_mask(self.to_port),
            if self.scope { u16::MAX } else { 0 },
            if self.protocol { u8::MAX } else { 0 },
            false,
        );
        pack(leading_ones(self.from), leading_ones(self.to), last)
    }

    /// Calls `each` with what the cut makes of a region: one piece for each value of the bits that it covers. False if these are too
    /// many.
    fn pieces(&self, region: &Region, most: u32, mut each: impl FnMut(Region)) -> bool {
        if self.protocol && region.protocol.is_none() || self.scope && region.scope.is_none() {
            return false;
        }
        let from = prefix_pieces(region.from, self.from);
        let to = prefix_pieces(region.to, self.to);
        let (first_from_port, from_ports) = port_pieces(region.from_ports, self.from_port);
        let (first_to_port, to_ports) = port_pieces(region.to_ports, self.to_port);
        let all = [from, to, from_ports, to_ports].iter().fold(1u32, |all, n| all.saturating_mul(*n));
        if all > most {
            return false;
        }
        for number in 0..all {
            let (a, left) = (number % from, number / from);
            let (b, left) = (left % to, left / to);
            let (c, d) = (left % from_ports, left / from_ports);
            each(Region {
                from: prefix_piece(region.from, self.from, a),
                to: prefix_piece(region.to, self.to, b),
                from_ports: port_piece(region.from_ports, self.from_port, first_from_port + c),
                to_ports: port_piece(region.to_ports, self.to_port, first_to_port + d),
                ..*region
            });
        }
        true
    }
}

/// How many values the leading `len` bits have within a prefix.
fn prefix_pieces(prefix: Prefix, len: u8) -> u32 {
    1u32.checked_shl(u32::from(len.saturating_sub(prefix.len))).unwrap_or(u32::MAX)
}

fn prefix_piece(prefix: Prefix, len: u8, number: u32) -> Prefix {
    if len <= prefix.len {
        return prefix;
    }
    Prefix { bits: prefix.bits | u128::from(number) << (128 - u32::from(len)), len }
}

fn port_mask(len: u8) -> u16 {
    if len == 0 { 0 } else { u16::MAX << (16 - u32::from(len.min(16))) }
}

/// The first value of the leading `len` bits within a range, and how many there are.
fn port_pieces((first, last): (u16, u16), len: u8) -> (u32, u32) {
    let shift = 16 - u32::from(len.min(16));
    let (first, last) = (u32::from(first) >> shift, u32::from(last) >> shift);
    (first, last.saturating_sub(first) + 1)
}

fn port_piece((first, last): (u16, u16), len: u8, value: u32) -> (u16, u16) {
    let shift = 16 - u32::from(len.min(16));
    let (lowest, highest) = (value << shift, (value << shift) + ((1 << shift) - 1));
    (first.max(lowest.min(0xffff) as u16), last.min(highest.min(0xffff) as u16))
}

/// Leading bits that all ports of a range have in common.
fn common_bits((first, last): (u16, u16)) -> u8 {
    (first ^ last).leading_zeros() as u8
}

/// The cost of comparing `n` regions one by one, in units of a table asked.
fn linear_cost(n: f64) -> f64 {
    0.8 + 0.12 * n
}

/// What `n` regions are expected to cost once the best is made of them.
fn expected_cost(n: f64) -> f64 {
    linear_cost(n).min(2.0 + 1.5 * (n / 8.0).max(1.0).log2())
}

struct Planner<'a, const W: usize> {
    regions: &'a [Region],
    tree: Tree<W>,
    /// Copies of regions that may still be made.
    copies_left: usize,
    scratch: Vec<u64>,
}

impl<const W: usize> Planner<'_, W> {
    /// Puts regions into the tree.
    fn grow(&mut self, items: Vec<Item>, depth: usize) -> (Slot, Reach) {
        if items.len() <= FEW || depth >= DEEPEST {
            return self.leaf(&items);
        }
        match self.choose(&items) {
            Some(cut) => self.table(items, &cut, depth),
            None => self.leaf(&items),
        }
    }

    fn leaf(&mut self, items: &[Item]) -> (Slot, Reach) {
        let regions = items.iter().filter_map(|item| self.regions.get(item.index as usize));
        (self.tree.add_leaf(regions), Reach { tables: 0, entries: items.len() })
    }

    fn table(&mut self, items: Vec<Item>, cut: &Cut, depth: usize) -> (Slot, Reach) {
        let mask = cut.mask::<W>();
        let (mut placed, mut rest) = (Vec::with_capacity(items.len()), Vec::new());
        for item in &items {
            let most = MOST_COPIES.min(self.copies_left.min(1 << 16) as u32 + 1);
            let before = placed.len();
            let put =
                |piece: Region| placed.push((key_hash::<W>(&piece, &mask), Item { clip: piece, ..*item }));
            if cut.pieces(&item.clip, most, put) {
                self.copies_left -= (placed.len() - before).saturating_sub(1).min(self.copies_left);
            } else {
                rest.push(*item);
            }
        }
        let bits = bits_for(placed.iter().map(|(hash, _)| *hash).collect());
        for (hash, _) in &mut placed {
            *hash &= (1 << bits) - 1;
        }
        // Stable: the rules' order stays.
        placed.sort_by_key(|(slot, _)| *slot);
        let buckets: Vec<_> =
            placed.chunk_by(|(a, _), (b, _)| a == b).map(|run| bucket(run, &items)).collect();
        drop(placed);
        let no_progress = |part: &[Item]| part.len() >= items.len();
        if no_progress(&rest) || buckets.iter().any(|(_, bucket)| no_progress(bucket)) {
            return self.leaf(&items);
        }
        let first = items.first().map_or(u32::MAX, |item| item.clip.order);
        drop(items);
        let table = self.tree.add_table(mask, bits);
        let mut reach = Reach::default();
        for (at, bucket) in buckets {
            let (slot, further) = self.grow(bucket, depth + 1);
            self.tree.set_slot(table, at, slot);
            reach = reach.or(further);
        }
        let (rest, further) = self.grow(rest, depth + 1);
        let reach = Reach { tables: 1, entries: 0 }.and(reach).and(further);
        (self.tree.close_table(table, rest, first), reach)
    }

    /// The table that makes look-ups cheapest; `None` if none is better than comparing one by one.
    fn choose(&mut self, items: &[Item]) -> Option<Cut> {
        let step = items.len().div_ceil(SAMPLE);
        let sample: Vec<Region> = items.iter().step_by(step).map(|item| item.clip).collect();
        let tried = Tried::of(&sample);
        let (mut best, mut cost) = (Cut::default(), linear_cost(items.len() as f64));
        loop {
            let before = best;
            for cut in tried.around(&before) {
                let found = self.cost(&sample, items.len(), &cut);
                if found < cost {
                    (best, cost) = (cut, found);
                }
            }
            if best == before {
                return (best != Cut::default()).then_some(best);
            }
        }
    }

    /// The estimated cost of a look-up with a table over `cut`, from a sample of `count` regions.
    fn cost(&mut self, sample: &[Region], count: usize, cut: &Cut) -> f64 {
        let mask = cut.mask::<W>();
        let hashes = &mut self.scratch;
        hashes.clear();
        let mut rest = 0usize;
        for region in sample {
            let put = |piece: Region| hashes.push(key_hash::<W>(&piece, &mask));
            rest += usize::from(!cut.pieces(region, MOST_COPIES, put));
        }
        if hashes.is_empty() {
            return f64::INFINITY;
        }
        hashes.sort_unstable();
        let (sampled, count) = (sample.len() as f64, count as f64);
        let scale = if sample.len() > 1 { (count - 1.0) / (sampled - 1.0) } else { 1.0 };
        let (mut cost, mut size) = (0.0, 0.0);
        for run in hashes.chunk_by(|a, b| a == b) {
            let run = run.len() as f64;
            let bucket = (run - 1.0) * scale + 1.0;
            cost += run * expected_cost(bucket);
            size += run * bucket;
        }
        let pieces = hashes.len() as f64;
        let covered = sampled - rest as f64;
        if rest == 0 && size / pieces > 0.9 * count {
            return f64::INFINITY;
        }
        let beside = if rest == 0 { 0.0 } else { expected_cost(rest as f64 / sampled * count) };
        1.0 + cost / pieces * covered / sampled + beside + (pieces / covered - 1.0) * 0.5
    }
}

/// A run of pieces with the same slot, each region once. Of a region that is there in several pieces, the whole counts.
fn bucket(run: &[(u64, Item)], items: &[Item]) -> (u32, Vec<Item>) {
    let mut bucket: Vec<Item> = Vec::with_capacity(run.len());
    for (_, item) in run {
        match bucket.last_mut().filter(|last| last.index == item.index) {
            Some(last) => {
                let whole = items.binary_search_by_key(&item.index, |whole| whole.index).ok();
                if let Some(whole) = whole.and_then(|at| items.get(at)) {
                    *last = *whole;
                }
            }
            None => bucket.push(*item),
        }
    }
    (run.first().map_or(0, |(slot, _)| *slot as u32), bucket)
}

fn key_hash<const W: usize>(piece: &Region, mask: &[u64; W]) -> u64 {
    let last = transport(
        piece.from_ports.0,
        piece.to_ports.0,
        piece.scope.unwrap_or_default(),
        piece.protocol.unwrap_or_default(),
        false,
    );
    hash(&pack(piece.from.bits, piece.to.bits, last), mask)
}

/// How many bits give most of these hashes a slot of their own; if they are few, all.
fn bits_for(mut hashes: Vec<u64>) -> u32 {
    hashes.sort_unstable();
    hashes.dedup();
    let bits = (hashes.len() * 3 / 2).next_power_of_two().trailing_zeros().clamp(1, MOST_BITS);
    if hashes.len() > 16 {
        return bits;
    }
    let apart = |bits: &u32| {
        let mut slots: Vec<u64> = hashes.iter().map(|hash| hash & ((1 << bits) - 1)).collect();
        slots.sort_unstable();
        slots.windows(2).all(|pair| pair.first() != pair.last())
    };
    (bits..=bits + 3).find(apart).unwrap_or(bits + 3)
}

/// Values of each field that occur in a sample, thinned out.
struct Tried {
    from: Vec<u8>,
    to: Vec<u8>,
    from_port: Vec<u8>,
    to_port: Vec<u8>,
    protocol: bool,
    scope: bool,
}

impl Tried {
    fn of(sample: &[Region]) -> Self {
        Self {
            from: thinned(sample.iter().map(|region| region.from.len)),
            to: thinned(sample.iter().map(|region| region.to.len)),
            from_port: thinned(sample.iter().map(|region| common_bits(region.from_ports))),
            to_port: thinned(sample.iter().map(|region| common_bits(region.to_ports))),
            protocol: sample.iter().any(|region| region.protocol.is_some()),
            scope: sample.iter().any(|region| region.scope.is_some()),
        }
    }

    /// Cuts that differ from `cut` in one field.
    fn around(&self, cut: &Cut) -> Vec<Cut> {
        let mut cuts = Vec::new();
        cuts.extend(self.from.iter().map(|from| Cut { from: *from, ..*cut }));
        cuts.extend(self.to.iter().map(|to| Cut { to: *to, ..*cut }));
        cuts.extend(self.from_port.iter().map(|from_port| Cut { from_port: *from_port, ..*cut }));
        cuts.extend(self.to_port.iter().map(|to_port| Cut { to_port: *to_port, ..*cut }));
        if self.protocol {
            cuts.push(Cut { protocol: !cut.protocol, ..*cut });
        }
        if self.scope {
            cuts.push(Cut { scope: !cut.scope, ..*cut });
        }
        cuts.retain(|other| other != cut);
        cuts
    }
}

/// At most [`TRIED`] of the values, and 0.
fn thinned(values: impl Iterator<Item = u8>) -> Vec<u8> {
    let mut values: Vec<u8> = values.chain([0]).collect();
    values.sort_unstable();
    values.dedup();
    let step = values.len().div_ceil(TRIED);
    // From the longest down, which tells most apart.
    values.iter().rev().step_by(step).copied().collect()
}
