//! The compact flow table: plain IPv4 flows of TCP and UDP under a five-tuple key, one cache line each.
//!
//! A flow's place follows from its hash alone: the line that the hash names, its neighbour (which processors like to bring along),
//! or the same with the hash's other half. So a flow is found, compared and replayed from one line. Where all four are taken, a flow in one of
//! them moves to another of its own. Keyed with a random seed.

use std::net::{IpAddr, Ipv4Addr};

use weir_config::{HugePages, MacAddress};

use super::strays::Strays;
use crate::decision::{End, EndpointId, ScopeId, SessionId};
use crate::frame::{Plain, TableMemory};
use crate::packet::FragmentKind;
use crate::packet::checksum::Delta;
use crate::packet::plain::PlainV4;

use super::programs::ProgramId;
use super::{Program, Rewrite};

/// More flows than this do not lie in a second-level cache.
const SCATTERED: usize = 16 << 10;
/// In the second word of every key, so that no key is zero.
const TAKEN: u64 = 1 << 63;
/// Where a fragment's kind is in the second word.
const FRAGMENT: u32 = 56;
/// In the second word of a bridged key.
const BRIDGED: u64 = 1 << 62;

/// What tells flows apart, in 16 bytes: a scope, and a five-tuple or two MAC addresses.
///
/// | word | routed | bridged |
/// | --- | --- | --- |
/// | 0 | IP source and destination, as they stand in the header | Ethernet destination, first two bytes of the source |
/// | 1 | both ports, as they stand in the header; scope (16 bits), protocol (8), fragment kind (2) | the rest of the source; scope (16), tunnel endpoint that it came from (12) |
///
/// The scope says which of them it is; the highest two bits do too.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CompactKey(pub [u64; 2]);

impl CompactKey {
    /// The key of a plain packet.
    #[inline(always)]
    pub fn new(scope: ScopeId, plain: &PlainV4) -> Self {
        Self::of(scope, plain.addresses, plain.ports, plain.protocol)
    }

    /// The key of a packet with these addresses and ports, as they stand in its headers.
    #[inline(always)]
    pub fn of(scope: ScopeId, addresses: u64, ports: u32, protocol: u8) -> Self {
        Self([addresses, u64::from(ports) | u64::from(scope.0) << 32 | u64::from(protocol) << 48 | TAKEN])
    }

    /// The key of fragments of this kind, whose packets have this key. A later fragment has the ports of its first.
    #[inline(always)]
    #[must_use]
    pub fn of_fragments(self, kind: FragmentKind) -> Self {
        Self([self.0[0], self.0[1] | (kind as u64) << FRAGMENT])
    }

    /// The key of a bridged frame that begins with these 12 bytes, and came from `endpoint`, below 4096.
    #[inline(always)]
    pub fn bridged(scope: ScopeId, endpoint: EndpointId, first: u64, next: u32) -> Self {
        let endpoint = u64::from(endpoint.0 & 0xfff) << 48;
        Self([first, u64::from(next) | u64::from(scope.0) << 32 | endpoint | BRIDGED | TAKEN])
    }

    /// The Ethernet source of a bridged key.
    pub fn ether_source(&self) -> Option<MacAddress> {
        if self.0[1] & BRIDGED == 0 {
            return None;
        }
        let ([.., a, b], [c, d, e, f]) = (self.0[0].to_le_bytes(), (self.0[1] as u32).to_le_bytes());
        Some(MacAddress([a, b, c, d, e, f]))
    }

    /// Whether it is this key. As numbers: compared as bytes they would be stored and read again, in one piece.
    #[inline(always)]
    pub fn is(&self, key: &Self) -> bool {
        (self.0[0] ^ key.0[0]) | (self.0[1] ^ key.0[1]) == 0
    }

    /// Keyed hash: one folded multiplication.
    #[inline(always)]
    pub fn hash(&self, seed: [u64; 2]) -> u64 {
        let product = u128::from(self.0[0] ^ seed[0]) * u128::from(self.0[1] ^ seed[1]);
        product as u64 ^ (product >> 64) as u64
    }

    /// The ingress scope.
    #[inline(always)]
    pub fn scope(&self) -> ScopeId {
        ScopeId((self.0[1] >> 32) as u16)
    }

    /// Both ports, as they stand in the header.
    #[inline(always)]
    pub fn ports(&self) -> u32 {
        self.0[1] as u32
    }

    /// The IP protocol.
    #[inline(always)]
    pub fn protocol(&self) -> u8 {
        (self.0[1] >> 48) as u8
    }

    /// Where the packet goes.
    pub fn end(&self) -> End {
        if self.0[1] & BRIDGED != 0 {
            return End::NONE;
        }
        let port = u16::from_be((self.ports() >> 16) as u16);
        End::new([self.0[0] >> 32, 0], self.protocol(), port)
    }

    fn ends(&self) -> [(Ipv4Addr, u16); 2] {
        ends(self.0[0], self.0[1] as u32)
    }

    /// The key in words.
    pub fn describe(&self) -> String {
        if let Some(source) = self.ether_source() {
            let [a, b, c, d, e, f, ..] = self.0[0].to_le_bytes();
            return format!("ether-source={source} ether-destination={}", MacAddress([a, b, c, d, e, f]));
        }
        let [(source, from), (destination, to)] = self.ends();
        let protocol = self.protocol();
        if protocol == 0 {
            return format!("destination={destination}");
        }
        let fragment = match self.0[1] >> FRAGMENT & 3 {
            0 => "",
            1 => " fragment=first",
            _ => " fragment=later",
        };
        format!(
            "source={source} destination={destination} protocol={protocol} source-port={from} destination-port={to}{fragment}"
        )
    }
}

/// Addresses and ports, as they stand in headers, one by one.
fn ends(addresses: u64, ports: u32) -> [(Ipv4Addr, u16); 2] {
    let [a, b, c, d, e, f, g, h] = addresses.to_le_bytes();
    let [i, j, k, l] = ports.to_le_bytes();
    let end = |ip: [u8; 4], port: [u8; 2]| (Ipv4Addr::from(ip), u16::from_be_bytes(port));
    [end([a, b, c, d], [i, j]), end([e, f, g, h], [k, l])]
}

/// New addresses and ports of a flow, and what that does to its checksums.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CompactRewrite {
    /// Source and destination, as they go into the header.
    pub addresses: u64,
    /// Source and destination port, as they go into the header.
    pub ports: u32,
    /// For the IPv4 header checksum.
    pub ip: Delta,
    /// For the TCP or UDP checksum.
    pub transport: Delta,
}

impl CompactRewrite {
    /// What `rewrite` makes of a packet with this key; `None` if it has addresses of the other family.
    pub fn new(key: &CompactKey, rewrite: &Rewrite) -> Option<Self> {
        if rewrite.quoted.is_some() {
            return None;
        }
        let mut ends = key.ends();
        for (end, new) in ends.iter_mut().zip([rewrite.source, rewrite.destination]) {
            match new {
                Some((IpAddr::V4(ip), port)) => *end = (ip, port),
                Some((IpAddr::V6(_), _)) => return None,
                None => {}
            }
        }
        let [([a, b, c, d], [i, j]), ([e, f, g, h], [k, l])] =
            ends.map(|(ip, port)| (ip.octets(), port.to_be_bytes()));
        let (addresses, ports) = ([a, b, c, d, e, f, g, h], [i, j, k, l]);
        let ip = Delta::NONE.bytes(&key.0[0].to_le_bytes(), &addresses);
        let transport = ip.bytes(&(key.0[1] as u32).to_le_bytes(), &ports);
        Some(Self {
            addresses: u64::from_le_bytes(addresses),
            ports: u32::from_le_bytes(ports),
            ip,
            transport,
        })
    }

    /// The same in words of the general replay.
    pub fn expand(&self, key: &CompactKey) -> Rewrite {
        let [old_source, old_destination] = key.ends();
        let [source, destination] = ends(self.addresses, self.ports);
        let changed = |new: (Ipv4Addr, u16), old| (new != old).then_some((IpAddr::V4(new.0), new.1));
        let (source, destination) = (changed(source, old_source), changed(destination, old_destination));
        Rewrite { source, destination, quoted: None }
    }
}

/// One flow: one cache line.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C, align(64))]
pub struct CompactEntry {
    /// All zero: free.
    pub key: CompactKey,
    /// What to do.
    pub program: ProgramId,
    /// Session, if the program has one.
    pub session: SessionId,
    /// Epoch of the forwarding tables at the walk or the last look-up.
    pub epoch: u32,
    /// Milliseconds of the engine's clock at the last packet.
    pub used: u32,
    /// Packets replayed.
    pub packets: u64,
    /// Bytes replayed.
    pub bytes: u64,
    /// New addresses and ports, if the program rewrites.
    pub rewrite: CompactRewrite,
}

impl CompactEntry {
    /// Counts one packet.
    #[inline(always)]
    pub fn count(&mut self, bytes: usize, now_ms: u32) {
        self.packets += 1;
        self.bytes += bytes as u64;
        self.used = now_ms;
    }

    /// The program as it was compiled.
    pub fn program(&self, shared: &Program) -> Program {
        Program { session: self.session, ..*shared }
    }

    #[inline(always)]
    fn is_free(&self) -> bool {
        self.key.0[1] == 0
    }
}

// SAFETY: numbers, without padding, a niche or a destructor, aligned to a cache line; all bits zero is a free entry.
#[allow(unsafe_code)]
unsafe impl Plain for CompactEntry {}

/// A worker's compact flow table.
pub struct CompactTable {
    entries: TableMemory<CompactEntry>,
    mask: usize,
    len: usize,
    capacity: usize,
    seed: [u64; 2],
    evictions: u64,
    sweep_at: usize,
    strays: Strays,
}

impl std::fmt::Debug for CompactTable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CompactTable").field("capacity", &self.capacity).field("len", &self.len).finish()
    }
}

impl CompactTable {
    /// A table of at most `capacity` flows, hashed with `seed`: twice as many lines, so that few flows are not where they
    /// are looked for first, and one finds no room in a hundred thousand. If there is not enough memory, a smaller one.
    pub fn new(capacity: usize, seed: [u64; 2]) -> Self {
        let mut lines = (capacity.max(4) * 2).next_power_of_two();
        let entries = loop {
            match TableMemory::zeroed(lines, HugePages::Auto) {
                Ok(entries) => break entries,
                Err(_) => lines /= 2,
            }
        };
        let capacity = capacity.min(lines / 2);
        let strays = Strays::new(lines);
        Self { entries, mask: lines - 1, len: 0, capacity, seed, evictions: 0, sweep_at: 0, strays }
    }

    /// Flows now.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Flows that gave way to others since start.
    pub fn evictions(&self) -> u64 {
        self.evictions
    }

    /// Lines, as [`sweep`](Self::sweep) counts them.
    pub fn lines(&self) -> usize {
        self.entries.len()
    }

    /// The table's hash of a key.
    #[inline(always)]
    pub fn hash(&self, key: &CompactKey) -> u64 {
        key.hash(self.seed)
    }

    /// The lines where a flow may be, the likeliest first.
    #[inline(always)]
    fn places(&self, hash: u64) -> [usize; 4] {
        let (first, second) = (hash as usize & self.mask, (hash >> 32) as usize & self.mask);
        [first, first ^ 1, second, second ^ 1]
    }

    /// Asks the processor for the line where a flow most likely is.
    #[inline(always)]
    pub fn prefetch(&self, hash: u64) {
        self.entries.prefetch(hash as usize & self.mask);
    }

    /// Whether there are so many flows that a look-up misses the caches, and not a few are not where they are looked for first.
    #[inline(always)]
    pub fn is_scattered(&self) -> bool {
        self.len > SCATTERED
    }

    /// Asks for the lines of a flow that is not where it most likely is, if it may be there.
    #[inline(always)]
    pub fn prefetch_others(&self, hash: u64, key: &CompactKey) {
        let [first, beside, second, last] = self.places(hash);
        if self.entries.get(first).is_some_and(|entry| !entry.key.is(key)) && self.strays.may_be_of(first) {
            for line in [beside, second, last] {
                self.entries.prefetch(line);
            }
        }
    }

    /// Whether a flow is not where it most likely is: elsewhere, or new.
    #[inline(always)]
    pub fn is_elsewhere(&self, hash: u64, key: &CompactKey) -> bool {
        self.entries.get(hash as usize & self.mask).is_some_and(|entry| entry.key != *key)
    }

    /// The line of a flow; past the end if there is none.
    #[inline(always)]
    pub fn find(&self, hash: u64, key: &CompactKey) -> usize {
        let first = hash as usize & self.mask;
        match self.entries.get(first) {
            Some(entry) if entry.key.is(key) => first,
            _ if self.strays.may_be_of(first) => self.find_beside(hash, key),
            _ => usize::MAX,
        }
    }

    /// The entry of a flow, to count with.
    #[inline(always)]
    pub fn find_mut(&mut self, hash: u64, key: &CompactKey) -> Option<&mut CompactEntry> {
        let first = hash as usize & self.mask;
        if self.entries.get(first).is_some_and(|entry| entry.key.is(key)) {
            return self.entries.get_mut(first);
        }
        if !self.strays.may_be_of(first) {
            return None;
        }
        let line = self.find_beside(hash, key);
        self.entries.get_mut(line)
    }

    #[inline(never)]
    fn find_beside(&self, hash: u64, key: &CompactKey) -> usize {
        let [_, beside, second, last] = self.places(hash);
        let here = |line: &usize| self.entries.get(*line).is_some_and(|entry| entry.key.is(key));
        [beside, second, last].into_iter().find(here).unwrap_or(usize::MAX)
    }

    /// The entry of a line.
    #[inline(always)]
    pub fn entry(&self, line: usize) -> Option<&CompactEntry> {
        self.entries.get(line)
    }

    /// The entry of a line, to count with.
    #[inline(always)]
    pub fn entry_mut(&mut self, line: usize) -> Option<&mut CompactEntry> {
        self.entries.get_mut(line)
    }

    /// Inserts a flow or replaces what it does, and returns what it did before, and what the flow did that gave way.
    pub fn insert(&mut self, hash: u64, entry: CompactEntry) -> Option<ProgramId> {
        let found = self.find(hash, &entry.key);
        if let Some(place) = self.entries.get_mut(found) {
            let old = place.program;
            let (packets, bytes) = (place.packets + entry.packets, place.bytes + entry.bytes);
            *place = CompactEntry { packets, bytes, ..entry };
            return Some(old);
        }
        let places = self.places(hash);
        let full = self.len >= self.capacity;
        let state = |line: &usize| self.entries.get(*line);
        let mut free = places.into_iter().find(|line| state(line).is_some_and(CompactEntry::is_free));
        if free.is_none() && !full {
            free = self.make_room(places);
        }
        let state = |line: &usize| self.entries.get(*line);
        if let (Some(line), false) = (free, full) {
            self.len += 1;
            self.strays.note(places[0], line);
            *self.entries.get_mut(line)? = entry;
            return None;
        }
        // What was used longest ago gives way; if all the places are free in a full table, whatever comes next.
        let oldest = places
            .into_iter()
            .filter(|line| state(line).is_some_and(|held| !held.is_free()))
            .max_by_key(|line| state(line).map(|held| entry.used.wrapping_sub(held.used)));
        self.evictions += 1;
        let Some(line) = oldest else {
            let gone = self.take_any();
            self.strays.note(places[0], free?);
            *self.entries.get_mut(free?)? = entry;
            return gone;
        };
        self.strays.note(places[0], line);
        let place = self.entries.get_mut(line)?;
        Some(std::mem::replace(place, entry).program)
    }

    /// Makes one of four lines free, all of which are taken: its flow moves to another line where it is looked for, or takes that of a
    /// flow which moves in turn.
    #[cold]
    #[inline(never)]
    fn make_room(&mut self, lines: [usize; 4]) -> Option<usize> {
        // Backwards: what is found first stays.
        let near = lines.into_iter().rev().find(|line| self.vacate(*line, 0));
        near.or_else(|| lines.into_iter().rev().find(|line| self.vacate(*line, 1)))
    }

    /// Moves the flow of a line that is taken, and at most `others` others. False, and nothing has moved, if it has nowhere to go.
    fn vacate(&mut self, line: usize, others: u32) -> bool {
        let Some(held) = self.entries.get(line).copied() else { return false };
        let places = self.places(self.hash(&held.key));
        let is_free = |line: &usize| self.entries.get(*line).is_some_and(CompactEntry::is_free);
        let free = places.into_iter().find(is_free);
        let to = match others.checked_sub(1) {
            None => free,
            // Its neighbour was asked already, or is.
            Some(others) => free.or_else(|| {
                places.into_iter().filter(|place| place ^ line > 1).find(|place| self.vacate(*place, others))
            }),
        };
        let Some(to) = to else { return false };
        self.strays.note(places[0], to);
        if let Some(place) = self.entries.get_mut(to) {
            *place = held;
        }
        if let Some(place) = self.entries.get_mut(line) {
            *place = CompactEntry::default();
        }
        true
    }

    /// Takes the next flow out, from where the sweep stands; the table's length stays, for another that comes.
    fn take_any(&mut self) -> Option<ProgramId> {
        for _ in 0..self.entries.len() {
            self.advance();
            let place = self.entries.get_mut(self.sweep_at)?;
            if !place.is_free() {
                return Some(std::mem::take(place).program);
            }
        }
        None
    }

    /// Removes a flow and returns what it did.
    pub fn remove(&mut self, hash: u64, key: &CompactKey) -> Option<ProgramId> {
        let found = self.find(hash, key);
        let place = self.entries.get_mut(found)?;
        self.len -= 1;
        Some(std::mem::take(place).program)
    }

    /// Visits `lines` lines, from where the last sweep stopped. `keep` sees each flow; false removes it.
    pub fn sweep(&mut self, lines: usize, mut keep: impl FnMut(&CompactEntry) -> bool) {
        for _ in 0..lines.min(self.entries.len()) {
            self.advance();
            let Some(place) = self.entries.get_mut(self.sweep_at) else { break };
            if place.is_free() {
                continue;
            }
            if keep(place) {
                self.strays.seen(place.key.hash(self.seed) as usize & self.mask, self.sweep_at);
            } else {
                *place = CompactEntry::default();
                self.len -= 1;
            }
        }
    }

    /// Goes on to the next line.
    fn advance(&mut self) {
        self.sweep_at = (self.sweep_at + 1) & self.mask;
        if self.sweep_at == 0 {
            self.strays.turn();
        }
    }

    /// Every flow.
    pub fn iter(&self) -> impl Iterator<Item = &CompactEntry> {
        self.entries.iter().filter(|entry| !entry.is_free())
    }

    /// Memory beside the entries of a table of so many lines, in bytes.
    pub const fn bytes_beside(lines: usize) -> usize {
        Strays::bytes_for(lines)
    }

    /// The memory that the table lies in.
    pub fn memory(&self) -> &TableMemory<CompactEntry> {
        &self.entries
    }
}

const _: () = assert!(size_of::<CompactEntry>() == 64);

#[cfg(test)]
mod tests;
