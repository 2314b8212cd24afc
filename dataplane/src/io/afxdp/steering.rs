//! What a shared port takes from the kernel, and how a change of it is found.

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;

/// What a shared port takes besides nothing at all. A dedicated port takes everything and needs none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Steering {
    /// VTEP addresses with their UDP ports (RFC 7348): tunnel packets, and ICMP errors about them.
    pub vteps: Vec<(IpAddr, u16)>,
    /// Destination prefixes.
    pub prefixes: Vec<IpNet>,
    /// Destinations within them that stay the kernel's: the host's own addresses. The longer prefix wins; of one that
    /// stands in both, `prefixes`.
    pub kept: Vec<IpNet>,
}

/// One entry of a steering map.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Entry {
    Vtep(IpAddr, u16),
    Prefix(IpNet),
    Kept(IpNet),
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Vtep(address, port) => write!(f, "VTEP {address} UDP port {port}"),
            Self::Prefix(prefix) => write!(f, "prefix {prefix}"),
            Self::Kept(prefix) => write!(f, "exception {prefix}"),
        }
    }
}

/// Which map an entry stands in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Table {
    Vteps,
    Prefixes4,
    Prefixes6,
}

impl Steering {
    pub(super) fn entries(&self) -> BTreeSet<Entry> {
        let vteps = self.vteps.iter().map(|&(address, port)| Entry::Vtep(address, port));
        let prefixes = self.prefixes.iter().map(|prefix| Entry::Prefix(prefix.trunc()));
        let mut entries: BTreeSet<Entry> = vteps.chain(prefixes).collect();
        for prefix in self.kept.iter().map(IpNet::trunc) {
            if !entries.contains(&Entry::Prefix(prefix)) {
                entries.insert(Entry::Kept(prefix));
            }
        }
        entries
    }
}

impl Entry {
    pub(super) fn table(self) -> Table {
        match self {
            Self::Vtep(..) => Table::Vteps,
            Self::Prefix(IpNet::V4(_)) | Self::Kept(IpNet::V4(_)) => Table::Prefixes4,
            Self::Prefix(IpNet::V6(_)) | Self::Kept(IpNet::V6(_)) => Table::Prefixes6,
        }
    }

    /// The entry with the same key and the other value: one replaces the other in place.
    pub(super) fn opposite(self) -> Option<Self> {
        match self {
            Self::Vtep(..) => None,
            Self::Prefix(prefix) => Some(Self::Kept(prefix)),
            Self::Kept(prefix) => Some(Self::Prefix(prefix)),
        }
    }

    /// 1: taken; 0: the kernel's.
    pub(super) fn value(self) -> [u8; 1] {
        [u8::from(!matches!(self, Self::Kept(_)))]
    }

    /// The key as bpf/weir.bpf.c lays it out: `struct vtep`, `struct prefix4`, `struct prefix6`.
    pub(super) fn key(self) -> Vec<u8> {
        match self {
            Self::Vtep(address, port) => {
                let address = match address {
                    IpAddr::V4(v4) => v4.to_ipv6_mapped(),
                    IpAddr::V6(v6) => v6,
                };
                [&address.octets()[..], &port.to_be_bytes(), &[0, 0]].concat()
            }
            Self::Prefix(IpNet::V4(net)) | Self::Kept(IpNet::V4(net)) => {
                [u32::from(net.prefix_len()).to_ne_bytes(), net.addr().octets()].concat()
            }
            Self::Prefix(IpNet::V6(net)) | Self::Kept(IpNet::V6(net)) => {
                [&u32::from(net.prefix_len()).to_ne_bytes()[..], &net.addr().octets()].concat()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_have_the_layout_of_the_program() {
        let vtep = Entry::Vtep("192.0.2.1".parse().unwrap(), 4789);
        assert_eq!(vtep.key(), [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 192, 0, 2, 1, 0x12, 0xb5, 0, 0]);
        let prefix = Entry::Prefix("10.1.0.0/16".parse().unwrap());
        assert_eq!(prefix.key(), [16u32.to_ne_bytes(), [10, 1, 0, 0]].concat());
        let prefix6: IpNet = "2001:db8::/32".parse().unwrap();
        assert_eq!(Entry::Prefix(prefix6).key().len(), 20);
    }

    #[test]
    fn one_prefix_written_twice_is_one_entry() {
        let steering = Steering {
            vteps: vec![],
            prefixes: vec!["10.1.2.3/16".parse().unwrap(), "10.1.0.0/16".parse().unwrap()],
            kept: vec![],
        };
        assert_eq!(steering.entries().len(), 1);
    }

    #[test]
    fn a_destination_is_kept_unless_the_same_prefix_is_asked_for() {
        let (default, host): (IpNet, IpNet) = ("0.0.0.0/0".parse().unwrap(), "192.0.2.1/32".parse().unwrap());
        let mut steering = Steering { vteps: vec![], prefixes: vec![default], kept: vec![host] };
        assert_eq!(steering.entries(), BTreeSet::from([Entry::Prefix(default), Entry::Kept(host)]));
        steering.prefixes.push(host);
        assert_eq!(steering.entries(), BTreeSet::from([Entry::Prefix(default), Entry::Prefix(host)]));
        assert_eq!((Entry::Kept(host).value(), Entry::Prefix(host).value()), ([0], [1]));
        assert_eq!(Entry::Kept(host).key(), Entry::Prefix(host).key());
    }
}
