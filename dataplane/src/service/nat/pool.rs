//! Pools of external addresses, and the ports of them that are somebody's for good.

use std::borrow::Cow;
use std::hash::Hash;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, OnceLock};

use ahash::RandomState;
use weir_config::{AddressRange, Config, PortRange, Service};

use super::ports::ExternalAddress;
use crate::decision::VrfId;
use crate::packet::protocol;

/// A number for a value: the same in every generation and after every start.
pub(super) fn digest(value: impl Hash) -> u64 {
    RandomState::with_seeds(1, 2, 3, 4).hash_one(value)
}

/// Of how many addresses a pool knows where their ports are.
const KNOWN: u64 = 4096;

/// The external addresses of a rule, with the ports that it hands out.
#[derive(Debug)]
pub(super) struct Pool {
    /// The same for the same addresses and ports.
    pub(super) id: u64,
    ranges: Box<[AddressRange]>,
    size: u64,
    /// The ports of its first addresses, in the VRF that first asked for them.
    known: Box<[OnceLock<Arc<ExternalAddress>>]>,
    /// Ports that are handed out.
    pub(super) ports: PortRange,
}

impl Pool {
    /// A pool; one without addresses is for masquerading.
    pub(super) fn new(ranges: &[AddressRange], ports: PortRange) -> Self {
        let size: u64 = ranges.iter().map(|range| range.size()).sum();
        let known = (0..size.min(KNOWN)).map(|_| OnceLock::new()).collect();
        Self { id: digest((ranges, ports)), ranges: ranges.into(), size, known, ports }
    }

    /// How many addresses.
    pub(super) fn size(&self) -> u64 {
        self.size
    }

    /// The ports of an address by number, counted round and round, if anybody has asked for them in this VRF.
    pub(super) fn known(&self, vrf: VrfId, number: u64) -> Option<&Arc<ExternalAddress>> {
        let known = self.known.get(number.checked_rem(self.size)? as usize)?;
        known.get().filter(|address| address.vrf == vrf)
    }

    /// The ports of an address by number, counted round and round; `find` finds them.
    pub(super) fn address(
        &self,
        vrf: VrfId,
        number: u64,
        find: impl Fn(Ipv4Addr) -> Arc<ExternalAddress>,
    ) -> Option<Cow<'_, Arc<ExternalAddress>>> {
        if let Some(known) = self.known(vrf, number) {
            return Some(Cow::Borrowed(known));
        }
        let found = find(self.nth(number)?);
        if let Some(place) = self.known.get(number.checked_rem(self.size)? as usize) {
            // Somebody else's VRF may have it.
            let _ = place.set(Arc::clone(&found));
        }
        Some(Cow::Owned(found))
    }

    /// An address by number, counted round and round.
    pub(super) fn nth(&self, number: u64) -> Option<Ipv4Addr> {
        let mut rest = number.checked_rem(self.size)?;
        for range in &self.ranges {
            if rest < range.size() {
                return u32::try_from(rest).ok().map(|rest| Ipv4Addr::from(u32::from(range.first) + rest));
            }
            rest -= range.size();
        }
        None
    }

    /// Its addresses.
    pub(super) fn ranges(&self) -> &[AddressRange] {
        &self.ranges
    }
}

/// Ports that are not handed out: those of forwardings, and weir's own VTEPs'.
#[derive(Clone, Debug, Default)]
pub struct Reserved {
    entries: Vec<Entry>,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    ip: Ipv4Addr,
    /// `None`: all.
    protocol: Option<u8>,
    ports: PortRange,
    /// The host that may have them all the same.
    host: Option<Ipv4Addr>,
}

impl Reserved {
    /// What a configuration reserves.
    pub fn new(config: &Config) -> Self {
        let mut entries = Vec::new();
        for tunnel in config.tunnels.values() {
            if let IpAddr::V4(ip) = tunnel.local {
                let ports = PortRange { first: tunnel.udp_port, last: tunnel.udp_port };
                entries.push(Entry { ip, protocol: Some(protocol::UDP), ports, host: None });
            }
        }
        for service in config.services.values() {
            let Service::Nat(nat) = service else { continue };
            entries.extend(nat.dnat.iter().map(|rule| Entry {
                ip: rule.to,
                protocol: rule.protocol,
                ports: rule.to_ports.unwrap_or(PortRange { first: 0, last: u16::MAX }),
                host: Some(rule.forward),
            }));
        }
        entries.dedup_by_key(|entry| (entry.ip, entry.protocol, entry.ports, entry.host));
        Self { entries }
    }

    /// If a port belongs to somebody else than `host`, the last one from it on that does.
    pub(super) fn for_another(
        &self,
        ip: Ipv4Addr,
        ip_protocol: u8,
        port: u16,
        host: Ipv4Addr,
    ) -> Option<u16> {
        let another = self.entries.iter().filter(|entry| {
            entry.ip == ip
                && entry.protocol.is_none_or(|known| known == ip_protocol)
                && (entry.ports.first..=entry.ports.last).contains(&port)
                && entry.host != Some(host)
        });
        another.map(|entry| entry.ports.last).max()
    }
}
