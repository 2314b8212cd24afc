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
use std::sync::{Arc, PoisonError, RwLock, Weak};

use ahash::RandomState;

use super::binding::{Binding, NO_CHAIN, Remotes, ServiceNumber};
use super::pool::{Pool, Reserved};
use super::ports::{ExternalAddress, Lease, Owner, Wanted, space};
use super::slots::Slots;
use crate::decision::{DropReason, Lock, Nanos, Transport, VrfId};
use crate::packet::hash::fold;

const SHARDS: usize = 64;
/// How many addresses of a pool are tried for a host that has none yet.
const TRIES: u64 = 64;

/// A host behind a translator, as one pool sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct HostKey {
    pub(super) vrf: VrfId,
    pub(super) pool: u64,
    /// The address that it masquerades as; 0.0.0.0 with a pool, which chooses one.
    pub(super) via: Ipv4Addr,
    pub(super) ip: Ipv4Addr,
}

#[derive(Debug)]
pub(super) struct Host {
    key: HostKey,
    /// What it was put into its slot with.
    hash: u32,
    /// Its one external address (RFC 4787 REQ-2: paired).
    address: Arc<ExternalAddress>,
    bindings: u32,
}

/// What a binding is found by: the slot of its host, its protocol, its port.
type InsideKey = (u32, u8, u16);

/// A binding, as its shard knows it.
#[derive(Debug)]
pub(super) struct Held {
    key: InsideKey,
    binding: Weak<Binding>,
}

const _: () = assert!(size_of::<Option<Held>>() == 16);

#[derive(Debug, Default)]
pub(super) struct Shard {
    pub(super) hosts: Slots<Host>,
    pub(super) bindings: Slots<Held>,
    /// Bindings made.
    created: u64,
}

/// The shard of a host with this hash.
pub(super) fn shard_of(host: u64) -> usize {
    (host >> 58) as usize % SHARDS
}

/// Where a binding is kept: the number of its shard, and its slot there. `None` if that is beyond all bounds.
fn owner(shard: usize, slot: u32) -> Option<Owner> {
    let number = u32::try_from(shard).ok()?.checked_add(slot.checked_mul(SHARDS as u32)?)?;
    Owner::new(number.checked_add(1)?)
}

fn split(owner: Owner) -> (usize, u32) {
    let number = owner.get() - 1;
    (number as usize % SHARDS, number / SHARDS as u32)
}

/// What a binding is wanted for.
pub(super) struct Request<'a> {
    pub(super) vrf: VrfId,
    pub(super) pool: &'a Pool,
    /// The address to masquerade as.
    pub(super) via: Option<Ipv4Addr>,
    pub(super) rule: u64,
    pub(super) service: ServiceNumber,
    pub(super) protocol: u8,
    pub(super) inside: Transport,
    /// Whom it is for a packet to.
    pub(super) remote: Option<Ipv4Addr>,
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

#[derive(Debug)]
pub(super) struct Inner {
    /// What hosts and bindings are hashed with.
    keys: [u64; 4],
    pub(super) shards: Box<[Lock<Shard>]>,
    /// Names of translators, by number. There are as many as a configuration ever had.
    names: RwLock<Vec<Arc<str>>>,
    pub(super) addresses: RwLock<HashMap<(VrfId, Ipv4Addr), Arc<ExternalAddress>, RandomState>>,
    clock: Arc<AtomicU64>,
    capacity: usize,
    in_use: AtomicUsize,
    refused: AtomicU64,
}

impl Inner {
    /// Of a host: the highest bits choose its shard, the lower half is what it is found by there.
    pub(super) fn hash(&self, host: &HostKey) -> u64 {
        let [a, b, c, d] = self.keys;
        let HostKey { vrf, pool, via, ip } = *host;
        let inside = u64::from(vrf.0) << 32 | u64::from(ip.to_bits());
        fold(fold(inside ^ a, pool ^ b) ^ u64::from(via.to_bits()) ^ c, d | 1)
    }

    /// Of an address and port of a host with this hash.
    pub(super) fn inside_hash(&self, host: u64, ip_protocol: u8, port: u16) -> u64 {
        let [a, .., d] = self.keys;
        fold(host ^ (u64::from(ip_protocol) << 16 | u64::from(port)) ^ d, a | 1)
    }

    /// Where a port for an address and port with this hash is looked for, and in which order addresses of a pool for a host: keyed,
    /// as RFC 6056 section 3.3.3 has it, and the same each time, so that it can be known beforehand.
    pub(super) fn random(hash: u64) -> u16 {
        (hash >> 40) as u16
    }

    /// Forgets a binding that ends, and its host with the last one. `hash`: of its address and port.
    pub(super) fn let_go(&self, owner: Owner, hash: u32, host: u32) {
        let (number, slot) = split(owner);
        if let Some(shard) = self.shards.get(number) {
            let mut shard = shard.lock();
            shard.bindings.remove(hash, slot);
            if let Some(known) = shard.hosts.get_mut(host) {
                known.bindings = known.bindings.saturating_sub(1);
                if known.bindings == 0 {
                    let hash = known.hash;
                    shard.hosts.remove(hash, host);
                }
            }
        }
        self.in_use.fetch_sub(1, Ordering::Relaxed);
    }

    /// The binding that a port's owner is; what is there by now may be another.
    fn held(&self, owner: Owner) -> Option<Arc<Binding>> {
        let (number, slot) = split(owner);
        // The lock is gone when a binding is let go.
        let binding =
            self.shards.get(number)?.lock().bindings.get(slot).map(|held| Weak::clone(&held.binding));
        binding?.upgrade()
    }

    /// The binding that has a port of an address.
    pub(super) fn has(
        &self,
        address: &Arc<ExternalAddress>,
        space: usize,
        port: u16,
    ) -> Option<Arc<Binding>> {
        let own = |binding: &Arc<Binding>| {
            let lease = &binding.lease;
            Arc::ptr_eq(&lease.address, address) && (lease.space(), lease.port) == (space, port)
        };
        self.held(address.owner(space, port)?).filter(own)
    }
}

/// The bindings of all translators.
#[derive(Debug)]
pub struct NatTable {
    pub(super) inner: Arc<Inner>,
}

impl NatTable {
    /// A table of at most `capacity` bindings (`limits.nat-bindings`).
    pub fn new(capacity: usize, seed: u64) -> Self {
        let random = RandomState::with_seeds(seed, !seed, seed.rotate_left(21), 0x6e61_7434_3462_696e);
        let inner = Inner {
            keys: [0u64, 1, 2, 3].map(|number| random.hash_one(number)),
            shards: (0..SHARDS).map(|_| Lock::default()).collect(),
            names: RwLock::default(),
            addresses: RwLock::default(),
            clock: Arc::default(),
            capacity,
            in_use: AtomicUsize::new(0),
            refused: AtomicU64::new(0),
        };
        Self { inner: Arc::new(inner) }
    }

    /// Memory of `bindings` bindings, in bytes, about: it is taken as they come. Maps of external ports are not counted.
    pub fn bytes_for(bindings: usize) -> usize {
        // Reference counts stand in front of a binding. Most hosts may have but one.
        let counts = 2 * size_of::<usize>();
        bindings * (size_of::<Binding>() + counts + Slots::<Held>::EACH + Slots::<Host>::EACH)
    }

    /// The number of a translator's name.
    pub(super) fn number(&self, name: &str) -> ServiceNumber {
        let mut names = self.inner.names.write().unwrap_or_else(PoisonError::into_inner);
        let known = names.iter().position(|known| **known == *name);
        let number = known.unwrap_or_else(|| {
            names.push(name.into());
            names.len() - 1
        });
        ServiceNumber(number as u32)
    }

    /// The name of a translator.
    pub(super) fn name(&self, ServiceNumber(number): ServiceNumber) -> Option<Arc<str>> {
        let names = self.inner.names.read().unwrap_or_else(PoisonError::into_inner);
        names.get(number as usize).map(Arc::clone)
    }

    /// Tells the time, by which ports rest.
    pub fn tick(&self, now: Nanos) {
        if self.inner.clock.load(Ordering::Relaxed) < now {
            self.inner.clock.fetch_max(now, Ordering::Relaxed);
        }
    }

    /// The binding of an address and port behind a translator: the same for all destinations (RFC 4787 REQ-1). Made if
    /// need be.
    ///
    /// # Errors
    /// Why there is none.
    pub(super) fn outbound(&self, request: &Request<'_>) -> Result<Arc<Binding>, DropReason> {
        self.tick(request.now);
        let found = self.find_or_make(request);
        if found.is_err() {
            self.inner.refused.fetch_add(1, Ordering::Relaxed);
        }
        found
    }

    /// The binding that has this external address and port.
    pub(super) fn inbound(&self, vrf: VrfId, ip_protocol: u8, outside: Transport) -> Option<Arc<Binding>> {
        let (ip, port) = outside;
        let addresses = self.inner.addresses.read().unwrap_or_else(PoisonError::into_inner);
        let address = addresses.get(&(vrf, ip)).map(Arc::clone);
        drop(addresses);
        self.inner.has(&address?, space(ip_protocol)?, port)
    }

    fn find_or_make(&self, request: &Request<'_>) -> Result<Arc<Binding>, DropReason> {
        let Request { vrf, pool, via, protocol, inside: (ip, port), .. } = *request;
        let host = HostKey { vrf, pool: pool.id, via: via.unwrap_or(Ipv4Addr::UNSPECIFIED), ip };
        let ports = space(protocol).ok_or(DropReason::NatUntranslatable)?;
        let hash = self.inner.hash(&host);
        let number = shard_of(hash);
        let inside_hash = self.inner.inside_hash(hash, protocol, port);
        let mut shard = self.inner.shards.get(number).ok_or(DropReason::InternalError)?.lock();
        let known = shard.hosts.find(hash as u32, |slot, known: &Host| (known.key == host).then_some(slot));
        if let Some(of_host) = known {
            let key = (of_host, protocol, port);
            let own = |_, held: &Held| if held.key == key { held.binding.upgrade() } else { None };
            if let Some(binding) = shard.bindings.find(inside_hash as u32, own) {
                return Ok(binding);
            }
        }
        self.make_room()?;
        let made = self.make(&mut shard, number, &host, known, (hash, inside_hash), ports, request);
        if made.is_err() {
            self.inner.in_use.fetch_sub(1, Ordering::Relaxed);
        }
        made
    }

    /// Makes a binding. `known`: its host's slot; `hashes`: of its host, and of its address and port.
    #[allow(clippy::too_many_arguments)]
    fn make(
        &self,
        shard: &mut Shard,
        number: usize,
        host: &HostKey,
        known: Option<u32>,
        hashes: (u64, u64),
        ports: usize,
        request: &Request<'_>,
    ) -> Result<Arc<Binding>, DropReason> {
        let owner = owner(number, shard.bindings.next()).ok_or(DropReason::NatTableFull)?;
        let lease =
            self.lease(known.and_then(|slot| shard.hosts.get(slot)), owner, host, ports, hashes, request)?;
        let place = match known {
            Some(slot) => slot,
            None => {
                let (address, hash) = (Arc::clone(&lease.address), hashes.0 as u32);
                shard.hosts.insert(hash, Host { key: *host, hash, address, bindings: 0 })
            }
        };
        if let Some(host) = shard.hosts.get_mut(place) {
            host.bindings += 1;
        }
        let hash = hashes.1 as u32;
        let binding = Arc::new(Binding {
            inside: request.inside,
            lease,
            rule: request.rule.into(),
            service: request.service,
            chain: AtomicU32::new(NO_CHAIN),
            remotes: Remotes::new(request.remote),
            hash,
            host: place,
        });
        let key = (place, request.protocol, request.inside.1);
        shard.bindings.insert(hash, Held { key, binding: Arc::downgrade(&binding) });
        shard.created += 1;
        Ok(binding)
    }

    /// Counts one binding more, if there may be one more.
    fn make_room(&self) -> Result<(), DropReason> {
        let more = |used: usize| (used < self.inner.capacity).then_some(used + 1);
        let room = self.inner.in_use.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
        room.map(drop).map_err(|_| DropReason::NatTableFull)
    }

    /// A port for a host: of the address that it has, or else of the first of its pool that has one free. `known`: the host as
    /// it is known.
    fn lease(
        &self,
        known: Option<&Host>,
        owner: Owner,
        host: &HostKey,
        ports: usize,
        hashes: (u64, u64),
        request: &Request<'_>,
    ) -> Result<Lease, DropReason> {
        let Request { pool, reserved, protocol, inside, .. } = *request;
        let random = Inner::random(hashes.1);
        let of = |address: &Arc<ExternalAddress>| {
            let reserved = |port: u16| reserved.for_another(address.ip, protocol, port, inside.0);
            let wanted = Wanted { port: inside.1, range: pool.ports, random, reserved: &reserved, owner };
            address.lease(ports, &wanted)
        };
        if let Some(known) = known {
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
        let find = |ip| self.address(host.vrf, ip);
        (0..pool.size().min(TRIES))
            .filter_map(|step| pool.address(host.vrf, hashes.0.wrapping_add(step), find))
            .find_map(|address| of(&address))
            .ok_or(DropReason::NatPortsExhausted)
    }

    fn address(&self, vrf: VrfId, ip: Ipv4Addr) -> Arc<ExternalAddress> {
        let addresses = self.inner.addresses.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = addresses.get(&(vrf, ip)) {
            return Arc::clone(known);
        }
        drop(addresses);
        let mut addresses = self.inner.addresses.write().unwrap_or_else(PoisonError::into_inner);
        let Inner { clock, .. } = &*self.inner;
        let new = || Arc::new(ExternalAddress::new(vrf, ip, Arc::clone(clock), Arc::downgrade(&self.inner)));
        Arc::clone(addresses.entry((vrf, ip)).or_insert_with(new))
    }

    /// Forgets addresses of which no port is in use or at rest.
    pub fn forget_idle(&self, now: Nanos) {
        let mut addresses = self.inner.addresses.write().unwrap_or_else(PoisonError::into_inner);
        // Pools keep those that they know of; of these only what is kept of their ports goes.
        addresses.retain(|_, address| !address.is_idle(now) || Arc::strong_count(address) > 1);
    }

    /// Counters and gauges.
    pub fn counters(&self) -> NatCounters {
        NatCounters {
            in_use: self.inner.in_use.load(Ordering::Relaxed) as u64,
            capacity: self.inner.capacity as u64,
            created: self.inner.shards.iter().map(|shard| shard.lock().created).sum(),
            refused: self.inner.refused.load(Ordering::Relaxed),
        }
    }
}
