//! Ports of external addresses: who has which, and which are free (RFC 4787 section 4.2, RFC 6056).
//!
//! A port is handed out as a [`Lease`] and comes back when the lease is dropped; no port is given to two at a time (RFC
//! 4787 REQ-3). It rests for a while then (RFC 6888 REQ-8): what still arrives for the last owner must not reach the next,
//! and no worker's cached program translates to it any more when it is given away.

use std::collections::VecDeque;
use std::net::Ipv4Addr;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use weir_config::PortRange;

use super::slots::Index;
use super::table::Inner;
use crate::decision::{Lock, Nanos, VrfId};
use crate::packet::protocol;
use crate::service::Show;

/// How long a port rests between two owners (RFC 6888 REQ-8), in nanoseconds.
pub(super) const REST: Nanos = 120_000_000_000;
/// The last of the well-known ports, which are for servers (RFC 6335 section 6).
const WELL_KNOWN: u16 = 1023;
const WORDS: usize = 1024;
/// Ports whose lowest bit is 0, and those whose is 1.
const PARITY: [u64; 2] = [0x5555_5555_5555_5555, 0xaaaa_aaaa_aaaa_aaaa];

/// Protocols whose ports (of ICMP: identifiers) are handed out, each from a space of its own.
pub(super) const PROTOCOLS: [u8; 4] = [protocol::TCP, protocol::UDP, protocol::ICMP, protocol::SCTP];

/// Index of a protocol's space; `None` if it has no ports.
pub(super) fn space(ip_protocol: u8) -> Option<usize> {
    PROTOCOLS.iter().position(|known| *known == ip_protocol)
}

/// One external address, with its ports.
#[derive(Debug)]
pub(super) struct ExternalAddress {
    /// The address.
    pub(super) ip: Ipv4Addr,
    /// The VRF that it is an address in.
    pub(super) vrf: VrfId,
    /// The table that it belongs to.
    pub(super) table: Weak<Inner>,
    spaces: [Lock<Space>; 4],
    clock: Arc<AtomicU64>,
}

/// Who has a port: where the table keeps the binding.
pub(super) type Owner = NonZeroU32;

/// What a port's owner is found by: a number of its own for each port. Eight neighbours are side by side, on a cache line or two;
/// those of other ports are far away.
fn mark(port: u16) -> u32 {
    let group = u32::from(port >> 3).wrapping_mul(SPREAD) & GROUPS;
    (group << 14 & GROUPS | group >> 15) << 3 | u32::from(port & 7)
}

/// The port of a mark.
fn port_of(mark: u32) -> u16 {
    let group = mark >> 3;
    let group = (group >> 14 | group << 15) & GROUPS;
    ((group.wrapping_mul(GATHER) & GROUPS) << 3 | mark & 7) as u16
}

/// The bits of a mark that groups of ports are told apart by: 29.
const GROUPS: u32 = u32::MAX >> 3;
/// Odd, so that it has an inverse.
const SPREAD: u32 = 0x9e37_79b1;
/// Its inverse modulo 2^32, hence modulo 2^29.
const GATHER: u32 = 0x0e8b_2f51;
const _: () = assert!(SPREAD.wrapping_mul(GATHER) == 1);

/// The ports of one protocol.
#[derive(Debug, Default)]
struct Space {
    /// One bit for each port that is handed out or rests; nothing before the first.
    taken: Vec<u64>,
    in_use: u32,
    /// Ports that rest, and until when, in that order.
    resting: VecDeque<(Nanos, u16)>,
    /// Who has a port, under its mark.
    owners: Index,
}

/// What is wanted of a port.
pub(super) struct Wanted<'a> {
    /// The port to be kept if it is free; its parity and its class (well-known or not) are kept if they can be
    /// (RFC 4787 REQ-3, REQ-4).
    pub(super) port: u16,
    /// Ports that may be given.
    pub(super) range: PortRange,
    /// Where the search begins (RFC 6056 section 3.3).
    pub(super) random: u16,
    /// Of a port that may not be given, the last one from there on that may not: they are passed over at once.
    pub(super) reserved: &'a dyn Fn(u16) -> Option<u16>,
    /// Who will have it.
    pub(super) owner: Owner,
}

impl Wanted<'_> {
    /// The part of the range that is of the same class as the port.
    fn class(&self) -> (u16, u16) {
        let PortRange { first, last } = self.range;
        if self.port <= WELL_KNOWN {
            (first, last.min(WELL_KNOWN))
        } else {
            (first.max(WELL_KNOWN + 1), last)
        }
    }

    /// Where the search in a part of the range begins; `None` if there is nothing in it.
    fn begin(&self, first: u16, last: u16) -> Option<u16> {
        let size = u32::from(last).checked_sub(u32::from(first))? + 1;
        Some(first + (u32::from(self.random) % size) as u16)
    }
}

/// A port of an address, given to one owner. Dropping it gives the port back. In this order, so that where a `Result` has it, no
/// reason shares bytes with a part of something wider, which would be read in pieces then, and late.
#[derive(Debug)]
#[repr(C)]
pub(super) struct Lease {
    pub(super) address: Arc<ExternalAddress>,
    space: u8,
    /// Whether anybody has heard of it, so that it has to rest.
    pub(super) known: std::sync::atomic::AtomicBool,
    pub(super) port: u16,
    pub(super) owner: Owner,
}

const _: () = assert!(size_of::<Lease>() == 16);

impl Lease {
    /// The number of the protocol's space.
    pub(super) fn space(&self) -> usize {
        self.space.into()
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let rest = *self.known.get_mut();
        self.address.give_back(self.space(), self.port, self.owner, rest);
    }
}

impl ExternalAddress {
    /// An address, all of whose ports are free. `clock` is the engine's, as far as anybody has told.
    pub(super) fn new(vrf: VrfId, ip: Ipv4Addr, clock: Arc<AtomicU64>, table: Weak<Inner>) -> Self {
        Self { ip, vrf, table, spaces: Default::default(), clock }
    }

    /// Hands out a port of a protocol. `None` if none is free.
    pub(super) fn lease(self: &Arc<Self>, space: usize, wanted: &Wanted<'_>) -> Option<Lease> {
        let port = self.spaces.get(space)?.lock().take(wanted, self.clock.load(Ordering::Relaxed))?;
        let space = u8::try_from(space).ok()?;
        Some(Lease { address: Arc::clone(self), space, port, owner: wanted.owner, known: false.into() })
    }

    /// Shows where the search for a port will begin, if nobody is at it.
    pub(super) fn look_ahead(&self, space: usize, wanted: &Wanted<'_>, show: Show<'_>) {
        if let Some(space) = self.spaces.get(space).and_then(Lock::try_lock) {
            let (first, last) = wanted.class();
            let begin = wanted.begin(first, last).unwrap_or(wanted.port);
            for port in [wanted.port, begin] {
                show(space.taken.as_ptr().wrapping_add(usize::from(port) / 64).cast());
            }
        }
    }

    /// The port that would be handed out now, if nobody is at it. Shows where its owner will be entered.
    pub(super) fn foresee(&self, space: usize, wanted: &Wanted<'_>, show: Show<'_>) -> Option<u16> {
        let space = self.spaces.get(space)?.try_lock()?;
        let port = space.choose(wanted)?;
        show(space.owners.home(mark(port)).cast());
        Some(port)
    }

    /// Who has a port.
    pub(super) fn owner(&self, space: usize, port: u16) -> Option<Owner> {
        self.spaces.get(space)?.lock().owner(port)
    }

    /// Everybody who has a port of a protocol, in the order of the ports.
    pub(super) fn owners(&self, space: usize) -> Vec<(u16, Owner)> {
        let Some(space) = self.spaces.get(space) else { return Vec::new() };
        let mut owners: Vec<_> = space
            .lock()
            .owners
            .iter()
            .filter_map(|(mark, owner)| Some((port_of(mark), Owner::new(owner + 1)?)))
            .collect();
        owners.sort_unstable();
        owners
    }

    /// Ports of a protocol in use, and at rest.
    pub(super) fn usage(&self, space: usize) -> (u32, u32) {
        let Some(space) = self.spaces.get(space) else { return (0, 0) };
        let space = space.lock();
        (space.in_use, u32::try_from(space.resting.len()).unwrap_or(u32::MAX))
    }

    /// Whether no port is in use or at rest. What is kept of ports of which none is goes.
    pub(super) fn is_idle(&self, now: Nanos) -> bool {
        let idle = |space: &Lock<Space>| {
            let mut space = space.lock();
            space.wake(now);
            let idle = space.in_use == 0 && space.resting.is_empty();
            if idle {
                *space = Space::default();
            }
            idle
        };
        self.spaces.iter().filter(|space| !idle(space)).count() == 0
    }

    fn give_back(&self, space: usize, port: u16, owner: Owner, rest: bool) {
        let Some(space) = self.spaces.get(space) else { return };
        let now = self.clock.load(Ordering::Relaxed);
        let mut space = space.lock();
        space.owners.remove(mark(port), owner.get() - 1);
        space.in_use = space.in_use.saturating_sub(1);
        if rest {
            space.resting.push_back((now.saturating_add(REST), port));
        } else {
            space.set(port, false);
        }
    }
}

impl Space {
    /// Frees the ports that have rested enough.
    fn wake(&mut self, now: Nanos) {
        while let Some((_, port)) = self.resting.front().copied().filter(|(ready, _)| *ready <= now) {
            self.resting.pop_front();
            self.set(port, false);
        }
    }

    fn take(&mut self, wanted: &Wanted<'_>, now: Nanos) -> Option<u16> {
        if self.taken.is_empty() {
            self.taken = vec![0; WORDS];
        }
        self.wake(now);
        let port = self.choose(wanted)?;
        self.set(port, true);
        self.owners.insert(mark(port), wanted.owner.get() - 1);
        self.in_use += 1;
        Some(port)
    }

    fn owner(&self, port: u16) -> Option<Owner> {
        self.owners.numbers(mark(port)).next().and_then(|number| Owner::new(number + 1))
    }

    /// The port itself; one of its class and parity; of its class; any.
    fn choose(&self, wanted: &Wanted<'_>) -> Option<u16> {
        let PortRange { first, last } = wanted.range;
        let port = wanted.port;
        if (first..=last).contains(&port) && !self.is_taken(port) && (wanted.reserved)(port).is_none() {
            return Some(port);
        }
        let parity = PARITY.get(usize::from(port & 1)).copied().unwrap_or(u64::MAX);
        let class = wanted.class();
        // Most find one near where they begin.
        if let Some(found) = self.near(class, parity, wanted) {
            return Some(found);
        }
        [(class, parity), (class, u64::MAX), ((first, last), parity), ((first, last), u64::MAX)]
            .into_iter()
            .find_map(|((first, last), mask)| self.search(first, last, mask, wanted))
    }

    /// The first free port of a class whose bit is in `mask`, among those that stand in one word with the one where the search
    /// begins.
    #[inline]
    fn near(&self, (first, last): (u16, u16), mask: u64, wanted: &Wanted<'_>) -> Option<u16> {
        let start = wanted.begin(first, last)?;
        let free = !*self.taken.get(usize::from(start) / 64)? & mask & u64::MAX << (start % 64);
        if free == 0 {
            return None;
        }
        let port = start - start % 64 + free.trailing_zeros() as u16;
        (port <= last && (wanted.reserved)(port).is_none()).then_some(port)
    }

    /// A free port from `first` to `last` whose bit is in `mask`: the first from a random one on, round the end.
    fn search(&self, first: u16, last: u16, mask: u64, wanted: &Wanted<'_>) -> Option<u16> {
        let start = wanted.begin(first, last)?;
        self.scan(start, last, mask, wanted).or_else(|| self.scan(first, start.checked_sub(1)?, mask, wanted))
    }

    fn scan(&self, first: u16, last: u16, mask: u64, wanted: &Wanted<'_>) -> Option<u16> {
        let mut port = self.first_free(first, last, mask)?;
        while let Some(until) = (wanted.reserved)(port) {
            port = self.first_free(until.max(port).checked_add(1)?, last, mask)?;
        }
        Some(port)
    }

    /// The first port from `first` to `last` that is neither handed out nor rests, and whose bit is in `mask`.
    fn first_free(&self, first: u16, last: u16, mask: u64) -> Option<u16> {
        if first > last {
            return None;
        }
        let (from, to) = (usize::from(first) / 64, usize::from(last) / 64);
        for (index, taken) in self.taken.iter().enumerate().take(to + 1).skip(from) {
            let mut free = !taken & mask;
            if index == from {
                free &= u64::MAX << (first % 64);
            }
            if index == to {
                free &= u64::MAX >> (63 - last % 64);
            }
            if free != 0 {
                return Some((index * 64) as u16 + free.trailing_zeros() as u16);
            }
        }
        None
    }

    fn is_taken(&self, port: u16) -> bool {
        self.taken.get(usize::from(port) / 64).is_some_and(|word| word >> (port % 64) & 1 == 1)
    }

    fn set(&mut self, port: u16, taken: bool) {
        if let Some(word) = self.taken.get_mut(usize::from(port) / 64) {
            let bit = 1 << (port % 64);
            *word = if taken { *word | bit } else { *word & !bit };
        }
    }
}

#[cfg(test)]
mod tests;
