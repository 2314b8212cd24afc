//! All address bindings (RFC 4787 section 4), over all translators, workers and generations: bounded, sharded by the host
//! behind the translator, consulted on walks only.
//!
//! A binding is held by the sessions that it translates; the tables only know where it is. When its last session ends it
//! takes itself out of them, and its port is given back ([`Lease`]).
//!
//! Locks are taken in this order: a shard, the list of addresses, the ports of an address. No binding is dropped under one.

use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock, Weak};

use ahash::RandomState;

use super::pool::{Pool, Reserved};
use super::ports::{ExternalAddress, Lease, PROTOCOLS, Wanted, lock, space};
use crate::decision::{ChainId, DropReason, Mapping, Nanos, Transport, VrfId};

const SHARDS: usize = 64;
/// How many addresses of a pool are tried for a host that has none yet.
const TRIES: u64 = 64;
/// How many hosts that it has sent to a binding remembers, for filtering.
const REMOTES: usize = 16;
const NO_CHAIN: u32 = u32::MAX;

/// A host behind a translator, as one pool sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct HostKey {
    vrf: VrfId,
    pool: u64,
    /// The address that it masquerades as; 0.0.0.0 with a pool, which chooses one.
    via: Ipv4Addr,
    ip: Ipv4Addr,
}

/// An address and port of such a host.
type InsideKey = (HostKey, u8, u16);

#[derive(Debug)]
struct Host {
    /// Its one external address (RFC 4787 REQ-2: paired).
    address: Arc<ExternalAddress>,
    bindings: u32,
}

#[derive(Debug, Default)]
struct Shard {
    hosts: HashMap<HostKey, Host, RandomState>,
    bindings: HashMap<InsideKey, Weak<Binding>, RandomState>,
}

/// A dynamic binding.
#[derive(Debug)]
pub(super) struct Binding {
    key: InsideKey,
    lease: Lease,
    rule: u64,
    service: Arc<str>,
    chain: AtomicU32,
    remotes: Mutex<Remotes>,
    table: Weak<Inner>,
}

/// The last hosts that a binding has sent to.
#[derive(Debug)]
struct Remotes {
    hosts: [Ipv4Addr; REMOTES],
    next: usize,
}

impl Binding {
    /// The chain of the session that it was made for.
    pub(super) fn chain(&self) -> Option<ChainId> {
        u16::try_from(self.chain.load(Ordering::Relaxed)).ok().map(ChainId)
    }
}

impl Mapping for Binding {
    fn rule(&self) -> u64 {
        self.rule
    }

    fn inside(&self) -> Transport {
        (self.key.0.ip, self.key.2)
    }

    fn outside(&self) -> Transport {
        (self.lease.address.ip, self.lease.port)
    }

    fn settle(&self, chain: Option<ChainId>, remote: Ipv4Addr) {
        self.lease.known.store(true, Ordering::Relaxed);
        let number = chain.map_or(NO_CHAIN, |chain| u32::from(chain.0));
        self.chain.store(number, Ordering::Relaxed);
        let mut remotes = lock(&self.remotes);
        let Remotes { hosts, next } = &mut *remotes;
        if !hosts.contains(&remote) {
            if let Some(place) = hosts.get_mut(*next % REMOTES) {
                *place = remote;
            }
            *next += 1;
        }
    }

    fn has_sent_to(&self, remote: Ipv4Addr) -> bool {
        lock(&self.remotes).hosts.contains(&remote)
    }
}

impl Drop for Binding {
    fn drop(&mut self) {
        let Some(table) = self.table.upgrade() else { return };
        let (host, ..) = self.key;
        if let Some(shard) = table.shard(&host) {
            let mut shard = lock(shard);
            let own = std::ptr::from_ref(self);
            if shard.bindings.get(&self.key).is_some_and(|known| std::ptr::eq(known.as_ptr(), own)) {
                shard.bindings.remove(&self.key);
            }
            if let Some(known) = shard.hosts.get_mut(&host) {
                known.bindings = known.bindings.saturating_sub(1);
                if known.bindings == 0 {
                    shard.hosts.remove(&host);
                }
            }
        }
        table.in_use.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What a binding is wanted for.
pub(super) struct Request<'a> {
    pub(super) vrf: VrfId,
    pub(super) pool: &'a Pool,
    /// The address to masquerade as.
    pub(super) via: Option<Ipv4Addr>,
    pub(super) rule: u64,
    pub(super) service: &'a Arc<str>,
    pub(super) protocol: u8,
    pub(super) inside: Transport,
    /// Most bindings of the host.
    pub(super) limit: u32,
    pub(super) reserved: &'a Reserved,
    pub(super) now: Nanos,
}

/// Counters and gauges.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NatCounters {
    /// Bindings now.
    pub in_use: u64,
    /// Most bindings.
    pub capacity: u64,
    /// Bindings made.
    pub created: u64,
    /// Bindings refused.
    pub refused: u64,
}

/// One binding for show.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BindingEntry {
    /// VRF.
    pub vrf: VrfId,
    /// Name of the translator that made it.
    pub service: String,
    /// IP protocol.
    pub protocol: u8,
    /// Behind the translator.
    pub inside: Transport,
    /// As the outside sees it.
    pub outside: Transport,
    /// Sessions that hold it.
    pub sessions: u64,
}

/// Use of one external address's ports for show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AddressEntry {
    /// VRF.
    pub vrf: VrfId,
    /// The address.
    pub address: Ipv4Addr,
    /// IP protocol.
    pub protocol: u8,
    /// Ports in use.
    pub in_use: u32,
    /// Ports that rest before they are given to somebody else.
    pub resting: u32,
}

#[derive(Debug)]
struct Inner {
    seed: RandomState,
    shards: Box<[Mutex<Shard>]>,
    addresses: RwLock<HashMap<(VrfId, Ipv4Addr), Arc<ExternalAddress>, RandomState>>,
    clock: Arc<AtomicU64>,
    capacity: usize,
    in_use: AtomicUsize,
    created: AtomicU64,
    refused: AtomicU64,
}

impl Inner {
    fn shard(&self, host: &HostKey) -> Option<&Mutex<Shard>> {
        self.shards.get((self.seed.hash_one(host) >> 58) as usize % SHARDS)
    }
}

/// The bindings of all translators.
#[derive(Debug)]
pub struct NatTable {
    inner: Arc<Inner>,
}

impl NatTable {
    /// A table of at most `capacity` bindings (`limits.nat-bindings`).
    pub fn new(capacity: usize, seed: u64) -> Self {
        let inner = Inner {
            seed: RandomState::with_seeds(seed, !seed, seed.rotate_left(21), 0x6e61_7434_3462_696e),
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            addresses: RwLock::default(),
            clock: Arc::default(),
            capacity,
            in_use: AtomicUsize::new(0),
            created: AtomicU64::new(0),
            refused: AtomicU64::new(0),
        };
        Self { inner: Arc::new(inner) }
    }

    /// Memory of `bindings` bindings, in bytes, about: it is taken as they come. Maps of external ports are not counted.
    pub fn bytes_for(bindings: usize) -> usize {
        let place = size_of::<(InsideKey, Weak<Binding>)>() + 1;
        // Reference counts stand in front of a binding; a map keeps up to half of its places free.
        bindings * (size_of::<Binding>() + 2 * size_of::<usize>() + 2 * place)
    }

    /// Tells the time, by which ports rest.
    pub fn tick(&self, now: Nanos) {
        self.inner.clock.fetch_max(now, Ordering::Relaxed);
    }

    /// The binding of an address and port behind a translator: the same for all destinations (RFC 4787 REQ-1). Made if
    /// need be.
    ///
    /// # Errors
    /// Why there is none.
    pub(super) fn outbound(&self, request: &Request<'_>) -> Result<Arc<Binding>, DropReason> {
        self.tick(request.now);
        let found = self.find_or_make(request);
        match &found {
            Ok((_, true)) => self.inner.created.fetch_add(1, Ordering::Relaxed),
            Ok((_, false)) => 0,
            Err(_) => self.inner.refused.fetch_add(1, Ordering::Relaxed),
        };
        found.map(|(binding, _)| binding)
    }

    /// The binding that has this external address and port.
    pub(super) fn inbound(&self, vrf: VrfId, ip_protocol: u8, outside: Transport) -> Option<Arc<Binding>> {
        let (ip, port) = outside;
        let addresses = self.inner.addresses.read().unwrap_or_else(PoisonError::into_inner);
        let address = addresses.get(&(vrf, ip)).map(Arc::clone);
        drop(addresses);
        address?.owner(space(ip_protocol)?, port)
    }

    fn find_or_make(&self, request: &Request<'_>) -> Result<(Arc<Binding>, bool), DropReason> {
        let Request { vrf, pool, via, protocol, inside: (ip, port), .. } = *request;
        let host = HostKey { vrf, pool: pool.id, via: via.unwrap_or(Ipv4Addr::UNSPECIFIED), ip };
        let key = (host, protocol, port);
        let ports = space(protocol).ok_or(DropReason::NatUntranslatable)?;
        let mut shard = lock(self.inner.shard(&host).ok_or(DropReason::InternalError)?);
        if let Some(binding) = shard.bindings.get(&key).and_then(Weak::upgrade) {
            return Ok((binding, false));
        }
        self.make_room()?;
        let lease = match self.lease(&shard, &host, ports, request) {
            Ok(lease) => lease,
            Err(reason) => {
                self.inner.in_use.fetch_sub(1, Ordering::Relaxed);
                return Err(reason);
            }
        };
        let (address, given) = (Arc::clone(&lease.address), lease.port);
        let known = shard.hosts.entry(host).or_insert(Host { address: Arc::clone(&address), bindings: 0 });
        known.bindings += 1;
        let binding = Arc::new(Binding {
            key,
            lease,
            rule: request.rule,
            service: Arc::clone(request.service),
            chain: AtomicU32::new(NO_CHAIN),
            remotes: Mutex::new(Remotes { hosts: [Ipv4Addr::UNSPECIFIED; REMOTES], next: 0 }),
            table: Arc::downgrade(&self.inner),
        });
        shard.bindings.insert(key, Arc::downgrade(&binding));
        address.publish(ports, given, Arc::downgrade(&binding));
        Ok((binding, true))
    }

    /// Counts one binding more, if there may be one more.
    fn make_room(&self) -> Result<(), DropReason> {
        let more = |used: usize| (used < self.inner.capacity).then_some(used + 1);
        let room = self.inner.in_use.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
        room.map(drop).map_err(|_| DropReason::NatTableFull)
    }

    /// A port for a host: of the address that it has, or else of the first of its pool that has one free.
    fn lease(
        &self,
        shard: &Shard,
        host: &HostKey,
        ports: usize,
        request: &Request<'_>,
    ) -> Result<Lease, DropReason> {
        let Request { pool, reserved, protocol, inside, .. } = *request;
        let random = self.inner.seed.hash_one((inside, protocol, self.inner.created.load(Ordering::Relaxed)));
        let of = |address: &Arc<ExternalAddress>| {
            let allowed = |port: u16| !reserved.is_for_another(address.ip, protocol, port, inside.0);
            let wanted =
                Wanted { port: inside.1, range: pool.ports, random: random as u16, allowed: &allowed };
            address.lease(ports, &wanted)
        };
        if let Some(known) = shard.hosts.get(host) {
            if known.bindings >= request.limit {
                return Err(DropReason::NatHostLimit);
            }
            return of(&known.address).ok_or(DropReason::NatPortsExhausted);
        }
        if request.limit == 0 {
            return Err(DropReason::NatHostLimit);
        }
        if let Some(ip) = request.via {
            return of(&self.address(host.vrf, ip)).ok_or(DropReason::NatPortsExhausted);
        }
        // The same host begins at the same address each time.
        let start = self.inner.seed.hash_one(host.ip);
        (0..pool.size().min(TRIES))
            .filter_map(|step| pool.nth(start.wrapping_add(step)))
            .find_map(|ip| of(&self.address(host.vrf, ip)))
            .ok_or(DropReason::NatPortsExhausted)
    }

    fn address(&self, vrf: VrfId, ip: Ipv4Addr) -> Arc<ExternalAddress> {
        let addresses = self.inner.addresses.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = addresses.get(&(vrf, ip)) {
            return Arc::clone(known);
        }
        drop(addresses);
        let mut addresses = self.inner.addresses.write().unwrap_or_else(PoisonError::into_inner);
        let new = || Arc::new(ExternalAddress::new(ip, Arc::clone(&self.inner.clock)));
        Arc::clone(addresses.entry((vrf, ip)).or_insert_with(new))
    }

    /// Forgets addresses of which no port is in use or at rest.
    pub fn forget_idle(&self, now: Nanos) {
        let mut addresses = self.inner.addresses.write().unwrap_or_else(PoisonError::into_inner);
        addresses.retain(|_, address| Arc::strong_count(address) > 1 || !address.is_idle(now));
    }

    /// Counters and gauges.
    pub fn counters(&self) -> NatCounters {
        NatCounters {
            in_use: self.inner.in_use.load(Ordering::Relaxed) as u64,
            capacity: self.inner.capacity as u64,
            created: self.inner.created.load(Ordering::Relaxed),
            refused: self.inner.refused.load(Ordering::Relaxed),
        }
    }

    /// Up to `limit` bindings for show, ordered by external address, protocol and port.
    pub fn entries(&self, limit: usize) -> Vec<BindingEntry> {
        let mut entries = Vec::new();
        for ((vrf, _), address) in self.sorted() {
            for (space, ip_protocol) in PROTOCOLS.into_iter().enumerate() {
                // Held by nobody but this line when they are let go: no lock is held here.
                let mut owners: Vec<_> = address.owners(space).iter().filter_map(Weak::upgrade).collect();
                owners.sort_by_key(|binding| binding.outside());
                entries.extend(owners.iter().map(|binding| BindingEntry {
                    vrf,
                    service: binding.service.to_string(),
                    protocol: ip_protocol,
                    inside: binding.inside(),
                    outside: binding.outside(),
                    sessions: Arc::strong_count(binding).saturating_sub(1) as u64,
                }));
                if entries.len() >= limit {
                    entries.truncate(limit);
                    return entries;
                }
            }
        }
        entries
    }

    /// Use of the ports of each external address that is in use.
    pub fn addresses(&self) -> Vec<AddressEntry> {
        let mut entries = Vec::new();
        for ((vrf, ip), address) in self.sorted() {
            for (space, ip_protocol) in PROTOCOLS.into_iter().enumerate() {
                let (in_use, resting) = address.usage(space);
                if in_use + resting > 0 {
                    entries.push(AddressEntry { vrf, address: ip, protocol: ip_protocol, in_use, resting });
                }
            }
        }
        entries
    }

    fn sorted(&self) -> Vec<((VrfId, Ipv4Addr), Arc<ExternalAddress>)> {
        let addresses = self.inner.addresses.read().unwrap_or_else(PoisonError::into_inner);
        let mut all: Vec<_> = addresses.iter().map(|(key, value)| (*key, Arc::clone(value))).collect();
        all.sort_by_key(|(key, _)| *key);
        all
    }
}
