//! Ports of fragmented packets: only a first fragment carries them (RFC 791 section 3.2, RFC 8200 section 4.5).
//!
//! Where ports decide, a first fragment leaves a note and the later ones take their ports from it. A later fragment that
//! comes before its first finds no note.
//!
//! All workers share the notes, since fragments of one packet may come to several, and nobody locks them: a note is one cache line,
//! written and read with plain stores and loads, and ends in a keyed sum over all of it. A line that two workers wrote at once, or that is
//! being written, has a sum that does not fit, and counts as none.

use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::decision::{BridgeId, Domain, HopId, Nanos, ScopeId, Tuple, VrfId};
use crate::packet::hash::fold;
use crate::packet::{FragmentKind, Meta, PacketFlags, fragment_id};

/// How long a note lives: RFC 791's suggested lower bound for reassembly is 15 s; RFC 8200's upper bound is 60 s.
const LIFETIME: Nanos = 30_000_000_000;
/// Lines that a note may be in.
const WAYS: usize = 4;

/// What fragments of one packet share: both addresses; domain, protocol and identification.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Key([u64; 5]);

impl Key {
    fn new(domain: Domain, tuple: &Tuple, id: u32) -> Self {
        let (kind, number) = match domain {
            Domain::Vrf(VrfId(number)) => (0, number),
            Domain::Bridge(BridgeId(number)) => (1, number),
            Domain::CrossConnect(ScopeId(number)) => (2, number),
            Domain::Hop(HopId(number)) => (3, number),
        };
        let kind = kind << 1 | u64::from(tuple.source.is_ipv6());
        let rest = u64::from(number) | u64::from(tuple.protocol) << 16 | kind << 24 | u64::from(id) << 32;
        let [(a, b), (c, d)] = [tuple.source, tuple.destination].map(|ip| {
            let bits = match ip {
                IpAddr::V4(ip) => u128::from(ip.to_bits()),
                IpAddr::V6(ip) => ip.to_bits(),
            };
            (bits as u64, (bits >> 64) as u64)
        });
        Self([a, b, c, d, rest])
    }
}

/// The words of a key; its ports; when it expires (0: free); the sum.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Line([AtomicU64; 8]);

impl Line {
    /// The word with the identification is looked at first: it differs most often.
    fn holds(&self, key: &Key) -> bool {
        let ([a, b, c, d, e], [p, q, r, s, t, ..]) = (key.0, &self.0);
        [(t, e), (p, a), (r, c), (q, b), (s, d)]
            .into_iter()
            .all(|(word, value)| word.load(Ordering::Relaxed) == value)
    }

    fn expires(&self) -> Nanos {
        let [.., expires, _] = &self.0;
        expires.load(Ordering::Relaxed)
    }

    fn note(&self) -> Note {
        let [.., ports, expires, sum] = &self.0;
        let [ports, expires, sum] = [ports, expires, sum].map(|word| word.load(Ordering::Relaxed));
        Note { ports, expires, sum }
    }

    fn write(&self, key: &Key, note: &Note) {
        let [a, b, c, d, e] = key.0;
        for (word, value) in self.0.iter().zip([a, b, c, d, e, note.ports, note.expires, note.sum]) {
            word.store(value, Ordering::Relaxed);
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Note {
    /// Source and destination.
    ports: u64,
    expires: Nanos,
    sum: u64,
}

/// Notes of first fragments: bounded. Where there is no room for one more, the oldest gives way.
#[derive(Debug)]
pub struct FragmentTable {
    lines: Box<[Line]>,
    seed: [u64; 4],
}

impl FragmentTable {
    /// A table of `capacity` notes, or a few more, hashed with `seed`.
    pub fn new(capacity: usize, seed: u64) -> Self {
        let lines = capacity.next_power_of_two().max(WAYS);
        let random = ahash::RandomState::with_seeds(seed, 1, 2, 3);
        // Odd, hence never zero.
        let seed = [1u64, 2, 3, 4].map(|number| random.hash_one(number) | 1);
        Self { lines: (0..lines).map(|_| Line::default()).collect(), seed }
    }

    /// Memory of a table of `notes` notes, in bytes.
    pub fn bytes_for(notes: usize) -> usize {
        notes * size_of::<Line>()
    }

    /// Notes in use, expired ones that were not yet needed included, and the bound.
    pub fn usage(&self) -> (u64, u64) {
        let used = self.lines.iter().filter(|line| line.expires() != 0).count();
        (used as u64, self.lines.len() as u64)
    }

    /// Notes the ports of a first fragment, gives them to later ones. False if a later fragment's first is unknown.
    pub fn restore(&self, domain: Domain, packet: &[u8], meta: &Meta, tuple: &mut Tuple, now: Nanos) -> bool {
        let Some(id) = fragment_id(packet, meta) else { return true };
        // Its first may have come meanwhile: too late.
        let late = meta.fragment == FragmentKind::Later && meta.flags.contains(PacketFlags::PORTS_UNKNOWN);
        !late && self.exchange(domain, meta.fragment, id, tuple, now)
    }

    /// The same for the fragment of this kind of the packet with this identification.
    #[inline]
    pub fn exchange(
        &self,
        domain: Domain,
        kind: FragmentKind,
        id: u32,
        tuple: &mut Tuple,
        now: Nanos,
    ) -> bool {
        match kind {
            FragmentKind::Whole => {}
            FragmentKind::First => self.note(domain, tuple, id, now),
            FragmentKind::Later => match self.ports(domain, tuple, id, now) {
                Some(ports) => (tuple.source_port, tuple.destination_port) = ports,
                None => return false,
            },
        }
        true
    }

    /// Notes the ports of a first fragment.
    pub fn note(&self, domain: Domain, tuple: &Tuple, id: u32, now: Nanos) {
        let key = Key::new(domain, tuple, id);
        let hash = self.hash(&key);
        let (ports, expires) =
            (u64::from(tuple.source_port) << 16 | u64::from(tuple.destination_port), now + LIFETIME);
        let note = Note { ports, expires, sum: self.sum(hash, ports, expires) };
        let lines = self.set(hash);
        let own = lines.iter().find(|line| line.holds(&key));
        // Free lines and what is out of time expire before all others.
        if let Some(line) = own.or_else(|| lines.iter().min_by_key(|line| line.expires())) {
            line.write(&key, &note);
        }
    }

    /// The (source, destination) ports of the packet that a later fragment belongs to.
    pub fn ports(&self, domain: Domain, tuple: &Tuple, id: u32, now: Nanos) -> Option<(u16, u16)> {
        let key = Key::new(domain, tuple, id);
        let hash = self.hash(&key);
        let notes = self.set(hash).iter().filter(|line| line.holds(&key)).map(Line::note);
        let whole =
            notes.filter(|note| note.expires > now && note.sum == self.sum(hash, note.ports, note.expires));
        // Two workers may have made a note each: the newer one counts.
        let Note { ports, .. } = whole.max_by_key(|note| note.expires)?;
        Some(((ports >> 16) as u16, ports as u16))
    }

    /// Where the note of a key may be.
    fn set(&self, hash: u64) -> &[Line] {
        let sets = self.lines.len() / WAYS;
        let first = (hash as usize & (sets - 1)) * WAYS;
        self.lines.get(first..first + WAYS).unwrap_or_default()
    }

    fn hash(&self, key: &Key) -> u64 {
        let [a, b, c, d, e] = key.0;
        let [first, second, third, fourth] = self.seed;
        let mixed = fold(fold(a ^ first, b ^ second) ^ e, fold(c ^ second, d ^ third) ^ first);
        // Once more: identifications come one after the other, and multiples of a number may lie close together.
        fold(mixed ^ third, fourth)
    }

    fn sum(&self, hash: u64, ports: u64, expires: Nanos) -> u64 {
        let [.., third, fourth] = self.seed;
        fold(hash ^ ports ^ third, expires ^ fourth)
    }
}

const _: () = assert!(size_of::<Line>() == 64);

#[cfg(test)]
mod tests;
