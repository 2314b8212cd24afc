//! Which binding a new flow will most likely get, before it is asked about: for asking the processor for what lies in no cache.

use std::net::Ipv4Addr;

use super::pool::{Pool, Reserved};
use super::ports::{ExternalAddress, Owner, Wanted, space};
use super::table::{HostKey, Inner, NatTable, shard_of};
use crate::decision::{Lock, Transport, VrfId};
use crate::service::Show;

/// A binding that will probably be wanted.
#[derive(Clone, Copy)]
pub(super) struct Probable<'a> {
    pub(super) vrf: VrfId,
    pub(super) pool: &'a Pool,
    pub(super) protocol: u8,
    pub(super) inside: Transport,
    pub(super) reserved: &'a Reserved,
}

impl NatTable {
    /// Shows where looking for the binding of an address and port of a host will begin, where it will be put if it is the host's
    /// first, and where the search for a port will begin, unless somebody is at it.
    pub(super) fn look_ahead(&self, probable: &Probable<'_>, show: Show<'_>) {
        let (host, inside) = self.hashes(probable);
        if let Some(shard) = self.inner.shards.get(shard_of(host)).and_then(Lock::try_lock) {
            show(shard.hosts.home(host as u32).cast());
            show(shard.bindings.home(inside as u32).cast());
            shard.hosts.show_next(show);
            shard.bindings.show_next(show);
        }
        self.with_ports(probable, (host, inside), |address, space, wanted| {
            address.look_ahead(space, wanted, show);
        });
    }

    /// What the binding of an address and port of a host will most likely be, if it is the host's first. Shows where its owner
    /// will be entered.
    pub(super) fn foresee(&self, probable: &Probable<'_>, show: Show<'_>) -> Option<Transport> {
        self.with_ports(probable, self.hashes(probable), |address, space, wanted| {
            Some((address.ip, address.foresee(space, wanted, show)?))
        })?
    }

    fn hashes(&self, probable: &Probable<'_>) -> (u64, u64) {
        let Probable { vrf, pool, protocol, inside: (ip, port), .. } = *probable;
        let host = self.inner.hash(&HostKey { vrf, pool: pool.id, via: Ipv4Addr::UNSPECIFIED, ip });
        (host, self.inner.inside_hash(host, protocol, port))
    }

    /// Says of which address and space a port will most likely be, and what will be wanted of it.
    fn with_ports<R>(
        &self,
        probable: &Probable<'_>,
        (host, inside): (u64, u64),
        ask: impl FnOnce(&ExternalAddress, usize, &Wanted<'_>) -> R,
    ) -> Option<R> {
        let Probable { vrf, pool, protocol, inside: (ip, port), reserved } = *probable;
        let address = pool.known(vrf, host)?;
        let reserved = |port: u16| reserved.for_another(address.ip, protocol, port, ip);
        let random = Inner::random(inside);
        let wanted = Wanted { port, range: pool.ports, random, reserved: &reserved, owner: Owner::MIN };
        Some(ask(address, space(protocol)?, &wanted))
    }
}
