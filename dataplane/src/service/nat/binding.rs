//! A dynamic binding (RFC 4787 section 4.1), and whom it has sent to (section 5).

use std::net::Ipv4Addr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use super::ports::Lease;
use crate::decision::{ChainId, Mapping, Transport};

/// How many hosts that it has sent to a binding remembers beside the first, for filtering.
const REMOTES: usize = 15;
/// Instead of the number of a chain.
pub(super) const NO_CHAIN: u32 = u32::MAX;

/// A dynamic binding.
#[derive(Debug)]
pub(super) struct Binding {
    pub(super) inside: Transport,
    pub(super) lease: Lease,
    /// Of its last session, as the chain.
    pub(super) rule: AtomicU64,
    pub(super) service: ServiceNumber,
    pub(super) chain: AtomicU32,
    pub(super) remotes: Remotes,
    /// What its shard keeps it by; where its host is.
    pub(super) hash: u32,
    pub(super) host: u32,
}

/// A number for the name of a translator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ServiceNumber(pub(super) u32);

/// The hosts that a binding has sent to: the first, and the last of all others. Most have but one.
#[derive(Debug)]
pub(super) struct Remotes {
    first: AtomicU32,
    others: OnceLock<Box<Others>>,
}

#[derive(Debug, Default)]
struct Others {
    hosts: [AtomicU32; REMOTES],
    next: AtomicU32,
}

impl Remotes {
    pub(super) fn new(first: Option<Ipv4Addr>) -> Self {
        Self { first: first.map_or(0, Ipv4Addr::to_bits).into(), others: OnceLock::new() }
    }

    fn contains(&self, host: Ipv4Addr) -> bool {
        let is = |known: &AtomicU32| known.load(Ordering::Acquire) == host.to_bits();
        is(&self.first) || self.others.get().is_some_and(|others| others.hosts.iter().any(is))
    }

    fn add(&self, host: Ipv4Addr) {
        if self.contains(host)
            || self.first.compare_exchange(0, host.to_bits(), Ordering::AcqRel, Ordering::Relaxed).is_ok()
        {
            return;
        }
        let others = self.others.get_or_init(Box::default);
        let at = others.next.fetch_add(1, Ordering::Relaxed) as usize % REMOTES;
        if let Some(place) = others.hosts.get(at) {
            place.store(host.to_bits(), Ordering::Release);
        }
    }
}

impl Binding {
    /// The chain of its last session.
    pub(super) fn chain(&self) -> Option<ChainId> {
        u16::try_from(self.chain.load(Ordering::Relaxed)).ok().map(ChainId)
    }
}

impl Mapping for Binding {
    fn rule(&self) -> u64 {
        self.rule.load(Ordering::Relaxed)
    }

    fn inside(&self) -> Transport {
        self.inside
    }

    fn outside(&self) -> Transport {
        (self.lease.address.ip, self.lease.port)
    }

    fn settle(&self, rule: u64, chain: Option<ChainId>, remote: Ipv4Addr) {
        self.lease.known.store(true, Ordering::Relaxed);
        self.rule.store(rule, Ordering::Relaxed);
        let number = chain.map_or(NO_CHAIN, |chain| u32::from(chain.0));
        self.chain.store(number, Ordering::Relaxed);
        self.remotes.add(remote);
    }

    fn note(&self, remote: Ipv4Addr) {
        self.remotes.add(remote);
    }

    fn has_sent_to(&self, remote: Ipv4Addr) -> bool {
        self.remotes.contains(remote)
    }
}

impl Drop for Binding {
    fn drop(&mut self) {
        if let Some(table) = self.lease.address.table.upgrade() {
            table.let_go(self.lease.owner, self.hash, self.host);
        }
    }
}
