//! Neighbours: which MAC address stands behind an IP address on an interface.
//!
//! Implements the neighbour unreachability detection of RFC 4861 section 7.3 for both families, and with it RFC 1122
//! section 2.3.2.1 (an ARP cache forgets what is out of date) and 2.3.2.2 (packets wait for an answer). All workers
//! share the table; it is asked on the slow path only. What a worker needs for each packet, the MAC address, lies in
//! the [`AdjacencyTable`], which programs point into.
//!
//! ```text
//!             resolve                 reply                 30 s ± 50 %            used
//!   (none) ───────────► incomplete ─────────► reachable ───────────────► stale ───────────► probe
//!                        │      ▲                 ▲                        │ 60 s unused      │ reply → reachable
//!          3 s no answer ▼      │ hold-down over  └── reply ───────────────┼──────────────────┤
//!                       failed ─┘                                          ▼                  ▼ 3 s no answer
//!                                                                        (none)           incomplete
//! ```
//!
//! Differences to RFC 4861: use is seen by [`AdjacencyTable::last_used`], which sweeps write, so that DELAY is the time
//! between two looks (5 s); a probe that fails falls back to multicast before it fails for good (RFC 7048); failure is
//! remembered for a hold-down that doubles from 2 s to 60 s, so that a scan of a subnet costs few solicitations.

mod entry;
mod timers;

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use weir_config::MacAddress;

use super::interface::Interface;
use crate::decision::{AdjacencyId, AdjacencyTable, Link, Nanos, ScopeId};
use entry::Entry;
pub use entry::{Learned, NeighbourInfo, NeighbourState};

const SECOND: Nanos = 1_000_000_000;
/// Time for which a freed adjacency stays unresolved before it is used again: programs of idle flows may still point
/// at it.
pub const REUSE_AFTER: Nanos = 60 * SECOND;

/// Neighbours that never answered may take this part of the table on one interface, and half of it on all: a scan of a subnet, which
/// anybody may make, leaves room for the neighbours of others, and for those that ask for us (RFC 6583 section 6.2).
const UNHEARD_SHARE: usize = 8;
/// The share is at least this.
const UNHEARD_LEAST: usize = 64;

/// What has to be done for a neighbour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NeighbourAction {
    /// Send an ARP request or a neighbour solicitation.
    Solicit {
        /// On this interface.
        scope: ScopeId,
        /// For this address.
        ip: IpAddr,
        /// To this MAC address; `None`: broadcast, or the solicited-node group.
        unicast_to: Option<MacAddress>,
    },
    /// Ask the kernel to resolve, or to verify, the address: it owns the interface.
    AskKernel {
        /// On this interface.
        scope: ScopeId,
        /// This address.
        ip: IpAddr,
    },
    /// Nobody answered: packets that wait for it are to be answered with host unreachable.
    Failed {
        /// On this interface.
        scope: ScopeId,
        /// This address.
        ip: IpAddr,
        /// Its adjacency.
        adjacency: AdjacencyId,
    },
    /// Not used for long: the entry is gone.
    Expired {
        /// On this interface.
        scope: ScopeId,
        /// This address.
        ip: IpAddr,
    },
}

/// No room for one more neighbour.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no room for one more neighbour")]
pub struct TableFull;

/// What [`NeighbourTable::learn`] did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Learning {
    /// A new entry.
    Created,
    /// A known neighbour confirmed, or resolved for the first time.
    Updated,
    /// A known neighbour has another MAC address now.
    Moved,
    /// Nothing changed: the entry may not be changed this way, or there is none and this way creates none.
    Ignored,
    /// No room.
    Refused,
}

/// All neighbours of all interfaces, bounded.
#[derive(Debug)]
pub struct NeighbourTable {
    adjacencies: Arc<AdjacencyTable>,
    inner: Mutex<Inner>,
    /// Moves whenever a waiting packet may go on.
    epoch: AtomicU64,
    /// When the earliest timer runs out.
    next_due: AtomicU64,
    /// Entries refused because the table was full.
    refused: AtomicU64,
}

#[derive(Debug)]
struct Inner {
    numbers: HashMap<(ScopeId, IpAddr), AdjacencyId, ahash::RandomState>,
    /// By adjacency number.
    slots: Vec<Option<Entry>>,
    /// When each entry wants to be looked at; one for each.
    due: BTreeSet<(Nanos, AdjacencyId)>,
    /// Freed slots, oldest first, and when they were freed.
    freed: VecDeque<(Nanos, AdjacencyId)>,
    limit: usize,
    /// Entries that never had a MAC address, by interface; and all.
    unheard: HashMap<ScopeId, usize, ahash::RandomState>,
    unheard_in_all: usize,
}

impl NeighbourTable {
    /// Memory of `entries` neighbours, in bytes, about: it is taken as they come.
    pub fn bytes_for(entries: usize) -> usize {
        let number = size_of::<((ScopeId, IpAddr), AdjacencyId)>();
        let due = size_of::<(Nanos, AdjacencyId)>();
        entries * (size_of::<Option<Entry>>() + 2 * number + 2 * due)
    }

    /// A table of at most `limit` neighbours. Freed adjacencies rest for a minute, so `adjacencies` may be given more room
    /// than `limit` to keep a busy table from refusing meanwhile.
    pub fn new(adjacencies: Arc<AdjacencyTable>, limit: usize) -> Self {
        let inner = Inner {
            numbers: HashMap::default(),
            slots: Vec::new(),
            due: BTreeSet::new(),
            freed: VecDeque::new(),
            limit: limit.min(adjacencies.capacity()),
            unheard: HashMap::default(),
            unheard_in_all: 0,
        };
        Self {
            adjacencies,
            inner: Mutex::new(inner),
            epoch: AtomicU64::new(0),
            next_due: AtomicU64::new(Nanos::MAX),
            refused: AtomicU64::new(0),
        }
    }

    /// The adjacencies that entries are written to.
    pub fn adjacencies(&self) -> &Arc<AdjacencyTable> {
        &self.adjacencies
    }

    /// The adjacency of `ip` on `interface`, made if it is not there, and what has to be sent for it now. Counts as use:
    /// call it for every packet whose adjacency is not resolved, so that a failed neighbour is tried again once its
    /// hold-down is over.
    ///
    /// # Errors
    /// No room for one more neighbour.
    pub fn resolve(
        &self,
        interface: &Interface,
        ip: IpAddr,
        now: Nanos,
    ) -> Result<(AdjacencyId, Option<NeighbourAction>), TableFull> {
        let mut inner = self.lock();
        if let Some(mac) = interface.point_to_point_mac {
            return self.point_to_point(&mut inner, interface.scope, ip, mac, now).map(|id| (id, None));
        }
        let Some(id) = inner.numbers.get(&(interface.scope, ip)).copied() else {
            if inner.is_scanned(interface.scope) {
                self.refused.fetch_add(1, Ordering::Relaxed);
                return Err(TableFull);
            }
            let id = self.allocate(&mut inner, interface.scope, ip, now)?;
            self.adjacencies.touch(id, seconds(now));
            inner.entry(id).ok_or(TableFull)?.kernel = interface.kernel_neighbours;
            let action = self.begin(&mut inner, id, now);
            return Ok((id, action));
        };
        self.adjacencies.touch(id, seconds(now));
        let entry = inner.entry(id).ok_or(TableFull)?;
        entry.kernel = interface.kernel_neighbours;
        let (state, mac) = (entry.state, entry.mac);
        if state == NeighbourState::Failed && entry.retry_at <= now {
            let action = self.begin(&mut inner, id, now);
            return Ok((id, action));
        }
        // The port was shared when the kernel told.
        if let (NeighbourState::Kernel, false, Some(mac)) = (state, interface.kernel_neighbours, mac) {
            self.settle(&mut inner, id, mac, NeighbourState::Stale, now);
        }
        Ok((id, None))
    }

    /// The adjacency of whatever is behind a tunnel with one far end: one entry for all, under the address 0.0.0.0,
    /// unless the configuration names this address.
    fn point_to_point(
        &self,
        inner: &mut Inner,
        scope: ScopeId,
        ip: IpAddr,
        mac: MacAddress,
        now: Nanos,
    ) -> Result<AdjacencyId, TableFull> {
        let far_end = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
        if let Some(id) = inner.numbers.get(&(scope, ip)).copied()
            && inner.entry(id).is_some_and(|entry| entry.state == NeighbourState::Static)
        {
            return Ok(id);
        }
        let id = match inner.numbers.get(&(scope, far_end)).copied() {
            Some(id) => id,
            None => self.allocate(inner, scope, far_end, now)?,
        };
        let entry = inner.entry(id).ok_or(TableFull)?;
        if entry.state != NeighbourState::PointToPoint || entry.mac != Some(mac) {
            self.settle(inner, id, mac, NeighbourState::PointToPoint, now);
        }
        self.adjacencies.touch(id, seconds(now));
        Ok(id)
    }

    /// Takes in what an ARP or ND message, the kernel or the configuration says of `ip`.
    pub fn learn(&self, scope: ScopeId, ip: IpAddr, mac: MacAddress, how: Learned, now: Nanos) -> Learning {
        if mac.is_group() || mac == MacAddress::default() || ip.is_unspecified() || ip.is_multicast() {
            return Learning::Ignored;
        }
        let mut inner = self.lock();
        let Some(id) = inner.numbers.get(&(scope, ip)).copied() else {
            if !how.creates() {
                return Learning::Ignored;
            }
            let Ok(id) = self.allocate(&mut inner, scope, ip, now) else { return Learning::Refused };
            self.adjacencies.touch(id, 0);
            self.settle(&mut inner, id, mac, how.state(), now);
            return Learning::Created;
        };
        let Some(entry) = inner.entry(id) else { return Learning::Ignored };
        let Some(update) = entry.update(mac, how) else { return Learning::Ignored };
        let moved = entry.mac.is_some_and(|old| update.mac != old);
        self.settle(&mut inner, id, update.mac, update.state, now);
        if moved { Learning::Moved } else { Learning::Updated }
    }

    /// A solicited answer came without a MAC address (RFC 4861 section 7.2.5): a known neighbour is reachable.
    pub fn confirm(&self, scope: ScopeId, ip: IpAddr, now: Nanos) -> Learning {
        let mut inner = self.lock();
        let Some(id) = inner.numbers.get(&(scope, ip)).copied() else { return Learning::Ignored };
        match inner.entry(id) {
            Some(Entry {
                mac: Some(mac),
                state: NeighbourState::Reachable | NeighbourState::Stale | NeighbourState::Probe,
                ..
            }) => {
                let mac = *mac;
                self.settle(&mut inner, id, mac, NeighbourState::Reachable, now);
                Learning::Updated
            }
            _ => Learning::Ignored,
        }
    }

    /// The kernel could not resolve `ip`, or removed it. An entry that it owns fails if it was being asked for. One that
    /// was resolved goes if it is not used; if it is, the kernel is asked again (by [`Self::tick`]), since it sees none of
    /// the packets that weir sends and may remove what weir still needs.
    pub fn kernel_failed(&self, scope: ScopeId, ip: IpAddr, now: Nanos) {
        let mut inner = self.lock();
        let Some(id) = inner.numbers.get(&(scope, ip)).copied() else { return };
        let Some(entry) = inner.entry(id).filter(|entry| entry.kernel) else { return };
        match entry.state {
            NeighbourState::Static | NeighbourState::Failed => {}
            NeighbourState::Incomplete => self.fail(&mut inner, id, now),
            _ if self.unused(id, now) => {
                self.free(&mut inner, id, now);
                self.bump();
            }
            _ => self.begin_soon(&mut inner, id, now),
        }
    }

    /// Removes the entry of `ip`, if there is one. Its adjacency is unresolved from now on.
    pub fn forget(&self, scope: ScopeId, ip: IpAddr, now: Nanos) -> bool {
        let mut inner = self.lock();
        let Some(id) = inner.numbers.get(&(scope, ip)).copied() else { return false };
        self.free(&mut inner, id, now);
        self.bump();
        true
    }

    /// Removes every entry that `keep` refuses: interfaces that are gone, static entries no longer configured.
    pub fn retain(&self, now: Nanos, mut keep: impl FnMut(&NeighbourInfo) -> bool) {
        let mut inner = self.lock();
        let gone: Vec<AdjacencyId> = inner
            .infos(&self.adjacencies, now)
            .filter(|info| !keep(info))
            .map(|info| info.adjacency)
            .collect();
        for id in &gone {
            self.free(&mut inner, *id, now);
        }
        if !gone.is_empty() {
            self.bump();
        }
    }

    /// Moves whenever an unresolved entry is resolved, fails or goes away: whoever holds packets looks at their
    /// adjacencies again. Held packets also need a time limit of their own.
    #[inline]
    pub fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Acquire)
    }

    /// Entries in use.
    pub fn len(&self) -> usize {
        self.lock().numbers.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The bound.
    pub fn limit(&self) -> usize {
        self.lock().limit
    }

    /// Entries refused because the table was full.
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// All entries, ordered by interface and address.
    pub fn entries(&self, now: Nanos) -> Vec<NeighbourInfo> {
        let mut all: Vec<_> = self.lock().infos(&self.adjacencies, now).collect();
        all.sort_unstable_by_key(|info| (info.scope, info.ip));
        all
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn bump(&self) {
        self.epoch.fetch_add(1, Ordering::Release);
    }

    /// A slot for a new, incomplete entry.
    fn allocate(
        &self,
        inner: &mut Inner,
        scope: ScopeId,
        ip: IpAddr,
        now: Nanos,
    ) -> Result<AdjacencyId, TableFull> {
        let Some(id) = inner.take_slot(self.adjacencies.capacity(), now) else {
            self.refused.fetch_add(1, Ordering::Relaxed);
            return Err(TableFull);
        };
        inner.numbers.insert((scope, ip), id);
        if let Some(slot) = inner.slots.get_mut(id.index()) {
            *slot = Some(Entry::new(scope, ip, now));
        }
        *inner.unheard.entry(scope).or_default() += 1;
        inner.unheard_in_all += 1;
        inner.due.insert((Nanos::MAX, id));
        self.adjacencies.set(id, Link::Unresolved);
        Ok(id)
    }

    fn free(&self, inner: &mut Inner, id: AdjacencyId, now: Nanos) {
        let Some(entry) = inner.slots.get_mut(id.index()).and_then(Option::take) else { return };
        inner.due.remove(&(entry.due, id));
        inner.numbers.remove(&(entry.scope, entry.ip));
        if !entry.heard {
            inner.no_more_unheard(entry.scope);
        }
        inner.freed.push_back((now, id));
        self.adjacencies.set(id, Link::Unresolved);
    }
}

impl Inner {
    fn entry(&mut self, id: AdjacencyId) -> Option<&mut Entry> {
        self.slots.get_mut(id.index())?.as_mut()
    }

    /// Whether so many neighbours of an interface, or of all, never answered that no more are asked for.
    fn is_scanned(&self, scope: ScopeId) -> bool {
        let share = |part: usize| (self.limit / part).max(UNHEARD_LEAST);
        let here = self.unheard.get(&scope).copied().unwrap_or_default();
        here >= share(UNHEARD_SHARE) || self.unheard_in_all >= share(2)
    }

    /// A neighbour of an interface was heard of for the first time, or is gone without.
    fn no_more_unheard(&mut self, scope: ScopeId) {
        self.unheard_in_all = self.unheard_in_all.saturating_sub(1);
        if let Some(here) = self.unheard.get_mut(&scope) {
            *here = here.saturating_sub(1);
            if *here == 0 {
                self.unheard.remove(&scope);
            }
        }
    }

    /// The oldest freed slot that rested long enough, else one that was never used.
    fn take_slot(&mut self, capacity: usize, now: Nanos) -> Option<AdjacencyId> {
        if self.numbers.len() >= self.limit {
            return None;
        }
        if let Some(&(freed, id)) = self.freed.front()
            && now.saturating_sub(freed) >= REUSE_AFTER
        {
            self.freed.pop_front();
            return Some(id);
        }
        (self.slots.len() < capacity).then(|| {
            self.slots.push(None);
            AdjacencyId(self.slots.len() as u32 - 1)
        })
    }

    fn infos<'a>(
        &'a self,
        adjacencies: &'a AdjacencyTable,
        now: Nanos,
    ) -> impl Iterator<Item = NeighbourInfo> + 'a {
        self.slots.iter().enumerate().filter_map(move |(index, slot)| {
            let id = AdjacencyId(index as u32);
            slot.as_ref().map(|entry| entry.info(id, adjacencies.last_used(id), now))
        })
    }
}

/// Whole seconds of the engine's clock, as adjacencies note use.
pub(crate) fn seconds(now: Nanos) -> u32 {
    (now / SECOND) as u32
}

#[cfg(test)]
mod tests;
