//! The structure that rules are looked up in, and the look-up.

use std::array;

use super::region::{Region, address_bits, leading_ones};
use crate::decision::{FlowView, Tuple};
use crate::packet::{FragmentKind, PacketFlags, protocol};

/// The number of no rule.
pub(super) const NONE: u32 = u32::MAX;
/// Marks a target as a leaf: the rest of it is an index into the entries.
const LEAF: u32 = 1 << 31;
/// Marks the last entry of a leaf.
const LAST: u32 = 1 << 31;
/// Nothing but the region must hold.
const NO_EXACT: u32 = LAST - 1;

/// A packet's fields, packed as the entries' are.
pub(super) enum Key {
    /// Source and destination; transport.
    V4([u64; 2]),
    /// Source, destination, two words each; transport.
    V6([u64; 5]),
}

/// Packs fields of either family. Addresses stand in the uppermost bits.
pub(super) fn pack<const W: usize>(from: u128, to: u128, transport: u64) -> [u64; W] {
    let mut words = [0; W];
    let (upper, lower) = (|bits: u128| (bits >> 64) as u64, |bits: u128| bits as u64);
    match &mut words[..] {
        [addresses, last] => {
            *addresses = upper(from) & 0xffff_ffff_0000_0000 | upper(to) >> 32;
            *last = transport;
        }
        [a, b, c, d, last] => {
            (*a, *b, *c, *d, *last) = (upper(from), lower(from), upper(to), lower(to), transport);
        }
        _ => {}
    }
    words
}

/// Packs what is not an address. `ports` tells whether the packet has ports that rules may name.
pub(super) fn transport(from_port: u16, to_port: u16, scope: u16, protocol: u8, ports: bool) -> u64 {
    u64::from(from_port) << 48
        | u64::from(to_port) << 32
        | u64::from(scope) << 16
        | u64::from(protocol) << 8
        | u64::from(ports)
}

/// A packet's key. Ports as [`crate::decision::Matcher`] has them: of TCP, UDP and SCTP alone, of a later fragment only if
/// its tuple has those of its first.
pub(super) fn key_words(view: &FlowView<'_>, tuple: &Tuple) -> Key {
    let present = if view.meta.fragment == FragmentKind::Later {
        (tuple.source_port, tuple.destination_port) != (0, 0)
    } else {
        view.meta.flags.contains(PacketFlags::TRANSPORT)
    };
    let has_ports = present && matches!(tuple.protocol, protocol::TCP | protocol::UDP | protocol::SCTP);
    let (from_port, to_port) = if has_ports { (tuple.source_port, tuple.destination_port) } else { (0, 0) };
    let last = transport(from_port, to_port, view.scope.0, tuple.protocol, has_ports);
    let (from, to) = (address_bits(tuple.source), address_bits(tuple.destination));
    if tuple.source.is_ipv4() { Key::V4(pack(from, to, last)) } else { Key::V6(pack(from, to, last)) }
}

/// Where a look-up goes on, and the first rule that it may find there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Slot {
    pub(super) first: u32,
    target: u32,
}

impl Slot {
    pub(super) const EMPTY: Self = Self { first: NONE, target: 0 };
}

/// A hash table over the bits under `mask`; what does not set all of these is behind `rest`.
#[derive(Clone, Debug)]
struct Table<const W: usize> {
    mask: [u64; W],
    slots: u32,
    /// Number of slots, a power of two, less one.
    last: u32,
    rest: Slot,
}

/// One region.
#[derive(Clone, Copy, Debug)]
struct Entry<const W: usize> {
    value: [u64; W],
    mask: [u64; W],
    from_ports: (u16, u16),
    to_ports: (u16, u16),
    order: u32,
    /// Index of what else must hold, and whether this is the leaf's last entry.
    exact: u32,
}

impl<const W: usize> Entry<W> {
    fn new(region: &Region) -> Self {
        let mask = transport(
            0,
            0,
            if region.scope.is_some() { u16::MAX } else { 0 },
            if region.protocol.is_some() { u8::MAX } else { 0 },
            region.needs_ports,
        );
        let value = transport(
            0,
            0,
            region.scope.unwrap_or_default(),
            region.protocol.unwrap_or_default(),
            region.needs_ports,
        );
        Self {
            value: pack(region.from.bits, region.to.bits, value),
            mask: pack(leading_ones(region.from.len), leading_ones(region.to.len), mask),
            from_ports: region.from_ports,
            to_ports: region.to_ports,
            order: region.order,
            exact: region.exact.unwrap_or(NO_EXACT),
        }
    }

    #[inline]
    fn contains(&self, key: &[u64; W], from_port: u16, to_port: u16) -> bool {
        // An array made by index is unrolled, which iterators over three of them are not: a fifth of the time.
        let words: [u64; W] = array::from_fn(|word| (key[word] ^ self.value[word]) & self.mask[word]);
        let differs = words.into_iter().fold(0, |all, word| all | word);
        // Bitwise: four comparisons without a branch.
        let ports = (self.from_ports.0 <= from_port)
            & (from_port <= self.from_ports.1)
            & (self.to_ports.0 <= to_port)
            & (to_port <= self.to_ports.1);
        (differs == 0) & ports
    }
}

/// Hashes masked words. Unkeyed: what it spreads are the rules' own values, and a packet finds no more than they put there.
#[inline]
pub(super) fn hash<const W: usize>(key: &[u64; W], mask: &[u64; W]) -> u64 {
    let words: [u64; W] = array::from_fn(|word| key[word] & mask[word]);
    let mut hash: u64 = 0x9e37_79b9_7f4a_7c15;
    for word in words {
        let product = u128::from(hash ^ word) * 0xd6e8_feb8_6659_fd93_u128;
        hash = (product >> 64) as u64 ^ product as u64;
    }
    hash
}

/// How far a look-up may have to go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Reach {
    pub(super) tables: usize,
    pub(super) entries: usize,
}

impl Reach {
    /// Either of two, whichever is more.
    pub(super) fn or(self, other: Self) -> Self {
        let weight = |reach: &Self| 2 * reach.tables + reach.entries;
        if weight(&other) > weight(&self) { other } else { self }
    }

    /// One after the other.
    pub(super) fn and(self, other: Self) -> Self {
        Self { tables: self.tables + other.tables, entries: self.entries + other.entries }
    }
}

/// Regions of one family, compiled.
#[derive(Clone, Debug)]
pub(super) struct Tree<const W: usize> {
    root: Slot,
    tables: Vec<Table<W>>,
    slots: Vec<Slot>,
    entries: Vec<Entry<W>>,
    reach: Reach,
}

impl<const W: usize> Default for Tree<W> {
    fn default() -> Self {
        Self {
            root: Slot::EMPTY,
            tables: Vec::new(),
            slots: Vec::new(),
            entries: Vec::new(),
            reach: Reach::default(),
        }
    }
}

impl<const W: usize> Tree<W> {
    /// The number of the first rule that has a region around `key` of which `fits` says that the rest holds too.
    #[inline]
    pub(super) fn first(&self, key: &[u64; W], fits: impl Fn(u32) -> bool) -> Option<u32> {
        let mut best = NONE;
        self.visit(self.root, key, &fits, &mut best);
        (best != NONE).then_some(best)
    }

    fn visit(&self, mut slot: Slot, key: &[u64; W], fits: &impl Fn(u32) -> bool, best: &mut u32) {
        while slot.first < *best {
            if slot.target & LEAF != 0 {
                return self.scan(slot.target & !LEAF, key, fits, best);
            }
            let Some(table) = self.tables.get(slot.target as usize) else { return };
            let at = table.slots + (hash(key, &table.mask) as u32 & table.last);
            let bucket = self.slots.get(at as usize).copied().unwrap_or(Slot::EMPTY);
            // Where the earlier rules are first: the other may then not be worth a visit.
            let (near, far) =
                if bucket.first <= table.rest.first { (bucket, table.rest) } else { (table.rest, bucket) };
            if far.first != NONE {
                self.visit(near, key, fits, best);
                slot = far;
            } else {
                slot = near;
            }
        }
    }

    fn scan(&self, at: u32, key: &[u64; W], fits: &impl Fn(u32) -> bool, best: &mut u32) {
        let transport = key.last().copied().unwrap_or_default();
        let (from_port, to_port) = ((transport >> 48) as u16, (transport >> 32) as u16);
        for entry in self.entries.get(at as usize..).unwrap_or_default() {
            if entry.order >= *best {
                return;
            }
            if entry.contains(key, from_port, to_port) {
                let exact = entry.exact & !LAST;
                if exact == NO_EXACT || fits(exact) {
                    *best = entry.order;
                    return;
                }
            }
            if entry.exact & LAST != 0 {
                return;
            }
        }
    }

    /// Sets where look-ups begin, and how far they may have to go.
    pub(super) fn set_root(&mut self, root: Slot, reach: Reach) {
        (self.root, self.reach) = (root, reach);
        self.tables.shrink_to_fit();
        self.slots.shrink_to_fit();
        self.entries.shrink_to_fit();
    }

    /// Adds a leaf of regions in the order of their rules.
    pub(super) fn add_leaf<'a>(&mut self, regions: impl Iterator<Item = &'a Region>) -> Slot {
        let at = self.entries.len();
        self.entries.extend(regions.map(Entry::new));
        let Some(first) = self.entries.get(at).map(|entry| entry.order) else { return Slot::EMPTY };
        if let Some(entry) = self.entries.last_mut() {
            entry.exact |= LAST;
        }
        Slot { first, target: at as u32 | LEAF }
    }

    /// Adds a table; its slots are set one by one.
    pub(super) fn add_table(&mut self, mask: [u64; W], bits: u32) -> usize {
        let slots = self.slots.len() as u32;
        self.slots.resize(self.slots.len() + (1 << bits), Slot::EMPTY);
        self.tables.push(Table { mask, slots, last: (1 << bits) - 1, rest: Slot::EMPTY });
        self.tables.len() - 1
    }

    pub(super) fn set_slot(&mut self, table: usize, at: u32, slot: Slot) {
        let Some(table) = self.tables.get(table) else { return };
        if let Some(place) = self.slots.get_mut((table.slots + at) as usize) {
            *place = slot;
        }
    }

    /// Sets the rest of a table, and tells where the table is found.
    pub(super) fn close_table(&mut self, table: usize, rest: Slot, first: u32) -> Slot {
        if let Some(table) = self.tables.get_mut(table) {
            table.rest = rest;
        }
        Slot { first: first.min(rest.first), target: table as u32 }
    }

    /// Memory in bytes.
    pub(super) fn bytes(&self) -> usize {
        self.tables.capacity() * size_of::<Table<W>>()
            + self.slots.capacity() * size_of::<Slot>()
            + self.entries.capacity() * size_of::<Entry<W>>()
    }

    pub(super) fn shape(&self) -> TreeShape {
        TreeShape {
            regions: self.entries.len(),
            tables: self.tables.len(),
            most_tables: self.reach.tables,
            most_regions: self.reach.entries,
        }
    }
}

/// What the rules of one family were compiled into.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TreeShape {
    /// Regions, with copies.
    pub regions: usize,
    /// Hash tables; 0: regions are compared one after the other.
    pub tables: usize,
    /// Most tables that a look-up asks.
    pub most_tables: usize,
    /// Most regions that a look-up then compares.
    pub most_regions: usize,
}

impl TreeShape {
    /// Its name.
    pub fn algorithm(&self) -> &'static str {
        match (self.tables, self.regions) {
            (0, 0) => "none",
            (0, _) => "linear",
            _ => "tuple-space tree",
        }
    }

    /// Why it is that, in words.
    pub fn why(&self) -> String {
        match (self.tables, self.regions) {
            (0, 0) => "no rule is about such packets".to_owned(),
            (0, regions) => format!("comparing {regions} one after the other is cheaper than hashing"),
            (tables, regions) => format!(
                "{regions} regions behind {tables} tables; a look-up asks at most {} tables and compares at most {}",
                self.most_tables, self.most_regions
            ),
        }
    }
}
