//! Bindings and the use of external addresses, for people.

use std::net::Ipv4Addr;
use std::sync::{Arc, PoisonError};

use super::ports::{ExternalAddress, PROTOCOLS};
use super::table::NatTable;
use crate::decision::{Mapping, Transport, VrfId};

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

impl NatTable {
    /// Up to `limit` bindings for show, ordered by external address, protocol and port.
    pub fn entries(&self, limit: usize) -> Vec<BindingEntry> {
        let mut entries = Vec::new();
        for ((vrf, _), address) in self.sorted() {
            for (space, ip_protocol) in PROTOCOLS.into_iter().enumerate() {
                // Held by nobody but this line when they are let go: no lock is held here.
                let owners = address.owners(space).into_iter();
                let owners = owners.filter_map(|(port, _)| self.inner.has(&address, space, port));
                entries.extend(owners.map(|binding| BindingEntry {
                    vrf,
                    service: self.name(binding.service).as_deref().unwrap_or_default().to_owned(),
                    protocol: ip_protocol,
                    inside: binding.inside(),
                    outside: binding.outside(),
                    sessions: Arc::strong_count(&binding).saturating_sub(1) as u64,
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
