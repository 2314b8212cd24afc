//! Ports of fragmented packets: only a first fragment carries them (RFC 791 section 3.2, RFC 8200 section 4.5).
//!
//! Where ports decide, a first fragment leaves a note and the later ones take their ports from it. A later fragment that
//! comes before its first finds no note. Slow path only.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Mutex;

use crate::decision::{Domain, Nanos, Tuple};
use crate::packet::{FragmentKind, Meta, fragment_id};

/// How long a note lives: RFC 791's suggested lower bound for reassembly is 15 s; RFC 8200's upper bound is 60 s.
const LIFETIME: Nanos = 30_000_000_000;

/// What fragments of one packet share.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Key {
    domain: Domain,
    source: IpAddr,
    destination: IpAddr,
    protocol: u8,
    id: u32,
}

impl Key {
    fn new(domain: Domain, tuple: &Tuple, id: u32) -> Self {
        let Tuple { source, destination, protocol, .. } = *tuple;
        Self { domain, source, destination, protocol, id }
    }
}

#[derive(Clone, Copy, Debug)]
struct Note {
    ports: (u16, u16),
    expires: Nanos,
}

/// Notes of first fragments: bounded; when full, expired notes go first, else the new one is not made.
#[derive(Debug)]
pub struct FragmentTable {
    notes: Mutex<Notes>,
    capacity: usize,
}

#[derive(Debug, Default)]
struct Notes {
    by_key: HashMap<Key, Note, ahash::RandomState>,
    /// No note expires earlier: a full table is not searched before, so that a flood of first fragments costs little.
    earliest: Nanos,
}

impl Notes {
    fn forget_expired(&mut self, now: Nanos) {
        if now < self.earliest {
            return;
        }
        self.by_key.retain(|_, note| note.expires > now);
        self.earliest = self.by_key.values().map(|note| note.expires).min().unwrap_or(0);
    }
}

impl FragmentTable {
    /// A table of at most `capacity` notes.
    pub fn new(capacity: usize) -> Self {
        Self { notes: Mutex::default(), capacity }
    }

    /// Memory of `notes` notes, in bytes, about: it is taken as they come.
    pub fn bytes_for(notes: usize) -> usize {
        notes * 2 * (size_of::<(Key, Note)>() + 1)
    }

    /// Notes in use, expired ones that were not yet needed included, and the bound.
    pub fn usage(&self) -> (u64, u64) {
        let used = self.notes.lock().map_or(0, |notes| notes.by_key.len());
        (used as u64, self.capacity as u64)
    }

    /// Notes the ports of a first fragment, gives them to later ones. False if a later fragment's first is unknown.
    pub fn restore(&self, domain: Domain, packet: &[u8], meta: &Meta, tuple: &mut Tuple, now: Nanos) -> bool {
        let Some(id) = fragment_id(packet, meta) else { return true };
        match meta.fragment {
            FragmentKind::Whole => true,
            FragmentKind::First => {
                self.note(domain, tuple, id, now);
                true
            }
            FragmentKind::Later => match self.ports(domain, tuple, id, now) {
                Some((source, destination)) => {
                    (tuple.source_port, tuple.destination_port) = (source, destination);
                    true
                }
                None => false,
            },
        }
    }

    /// Notes the ports of a first fragment.
    pub fn note(&self, domain: Domain, tuple: &Tuple, id: u32, now: Nanos) {
        let Ok(mut notes) = self.notes.lock() else { return };
        if notes.by_key.len() >= self.capacity {
            notes.forget_expired(now);
            if notes.by_key.len() >= self.capacity {
                return;
            }
        }
        let ports = (tuple.source_port, tuple.destination_port);
        notes.by_key.insert(Key::new(domain, tuple, id), Note { ports, expires: now + LIFETIME });
    }

    /// The (source, destination) ports of the packet that a later fragment belongs to.
    pub fn ports(&self, domain: Domain, tuple: &Tuple, id: u32, now: Nanos) -> Option<(u16, u16)> {
        let notes = self.notes.lock().ok()?;
        notes
            .by_key
            .get(&Key::new(domain, tuple, id))
            .filter(|note| note.expires > now)
            .map(|note| note.ports)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decision::VrfId;

    #[test]
    fn later_fragments_take_the_ports_of_their_first_until_the_note_expires() {
        let table = FragmentTable::new(1);
        let domain = Domain::Vrf(VrfId(0));
        let first = Tuple {
            source: [10, 0, 0, 1].into(),
            destination: [10, 0, 0, 2].into(),
            protocol: 17,
            source_port: 7,
            destination_port: 53,
        };
        let later = Tuple { source_port: 0, destination_port: 0, ..first };
        table.note(domain, &first, 9, 1_000);
        assert_eq!(table.ports(domain, &later, 9, 2_000), Some((7, 53)));
        assert_eq!(table.ports(domain, &later, 8, 2_000), None);
        assert_eq!(table.ports(Domain::Vrf(VrfId(1)), &later, 9, 2_000), None);
        table.note(domain, &first, 10, 2_000);
        assert_eq!(table.ports(domain, &later, 10, 2_000), None, "the table is full");
        assert_eq!(table.usage(), (1, 1));
        assert_eq!(table.ports(domain, &later, 9, 1_000 + LIFETIME), None);
        table.note(domain, &first, 10, 1_000 + LIFETIME);
        assert_eq!(table.ports(domain, &later, 10, 1_000 + LIFETIME), Some((7, 53)));
        table.note(domain, &first, 11, 1_000 + 2 * LIFETIME - 1);
        assert_eq!(table.ports(domain, &later, 11, 1_000 + 2 * LIFETIME - 1), None, "full again");
        table.note(domain, &first, 11, 1_000 + 2 * LIFETIME);
        assert_eq!(table.ports(domain, &later, 11, 1_000 + 2 * LIFETIME), Some((7, 53)));
    }
}
