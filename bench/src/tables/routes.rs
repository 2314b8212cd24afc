//! Routes shaped like the Internet's, and addresses to look up; always the same for the same size.

use std::collections::HashSet;
use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use weir_dataplane::decision::ScopeId;
use weir_dataplane::l3::{Hop, Target};

/// IPv4 prefix lengths with their share in ten-thousandths: those of the table that DPDK's `fib_perf_autotest` makes.
const SHARES4: &[(u8, usize)] = &[
    (8, 1),
    (11, 1),
    (12, 4),
    (13, 7),
    (14, 20),
    (15, 34),
    (16, 644),
    (17, 121),
    (18, 220),
    (19, 641),
    (20, 579),
    (21, 451),
    (22, 672),
    (23, 793),
    (24, 5423),
    (25, 25),
    (26, 52),
    (27, 60),
    (28, 66),
    (29, 120),
    (30, 56),
    (32, 10),
];
/// IPv6 prefix lengths with their share in ten-thousandths, roughly as in a full table of the Internet.
const SHARES6: &[(u8, usize)] = &[
    (20, 1),
    (24, 10),
    (28, 60),
    (29, 250),
    (30, 50),
    (31, 20),
    (32, 1200),
    (33, 200),
    (34, 200),
    (35, 100),
    (36, 450),
    (37, 60),
    (38, 200),
    (39, 60),
    (40, 800),
    (41, 80),
    (42, 250),
    (43, 80),
    (44, 900),
    (45, 120),
    (46, 350),
    (47, 220),
    (48, 4250),
    (56, 30),
    (64, 50),
    (128, 9),
];
/// The blocks of the regional registries that IPv6 allocations lie in.
const REGISTRIES: [u128; 6] = [0x2001, 0x2400, 0x2600, 0x2800, 0x2a00, 0x2c00];
/// Different next hops.
const TARGETS: u16 = 100;

/// A family of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Family {
    V4,
    V6,
}

impl Family {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        }
    }
}

/// `count` different prefixes, in random order.
pub(super) fn prefixes(family: Family, count: usize, random: &mut fastrand::Rng) -> Vec<IpNet> {
    let mut seen = HashSet::with_capacity(count);
    let mut all = Vec::with_capacity(count);
    let allocations: Vec<u128> = (0..(count / 12).max(8)).map(|_| allocation(random)).collect();
    let shares = if family == Family::V4 { SHARES4 } else { SHARES6 };
    while all.len() < count {
        let mut drawn = random.usize(..10_000);
        let chosen = shares.iter().find(|(_, share)| {
            let found = drawn < *share;
            drawn = drawn.saturating_sub(*share);
            found
        });
        let length = chosen.map_or(24, |(length, _)| *length);
        let prefix: Option<IpNet> = match family {
            Family::V4 => {
                let address = Ipv4Addr::from_bits(random.u32(0x0100_0000..0xe000_0000));
                Ipv4Net::new(address, length).ok().map(|net| net.trunc().into())
            }
            Family::V6 => {
                let allocated = random.choice(&allocations).copied().unwrap_or_default();
                // Networks number their parts from the front: low numbers are commoner.
                let inside = random.u128(..) >> 32 >> random.u32(..12);
                let address = Ipv6Addr::from_bits(allocated | inside & (u128::MAX >> 32));
                Ipv6Net::new(address, length).ok().map(|net| net.trunc().into())
            }
        };
        all.extend(prefix.filter(|prefix| seen.insert(*prefix)));
    }
    all
}

/// A /32 within a registry's block.
fn allocation(random: &mut fastrand::Rng) -> u128 {
    let registry = random.choice(REGISTRIES).unwrap_or(0x2001);
    (registry << 112) | (u128::from(random.u32(..)) & 0x000f_ffff) << 96
}

/// A next hop for each prefix, out of a hundred.
pub(super) fn targets(prefixes: &[IpNet], random: &mut fastrand::Rng) -> Vec<(IpNet, Target)> {
    let targets: Vec<Target> =
        (0..TARGETS).map(|n| Target::Hops(Box::new([Hop { scope: ScopeId(n), gateway: None }]))).collect();
    prefixes
        .iter()
        .map(|prefix| (*prefix, random.choice(&targets).cloned().unwrap_or(Target::Blackhole)))
        .collect()
}

/// `count` addresses, each within a route, both picked at random.
pub(super) fn destinations(routes: &[IpNet], count: usize, random: &mut fastrand::Rng) -> Vec<u128> {
    let pick = |route: &IpNet, random: &mut fastrand::Rng| match route {
        IpNet::V4(net) => u128::from(net.network().to_bits() | random.u32(..) & net.hostmask().to_bits()),
        IpNet::V6(net) => net.network().to_bits() | random.u128(..) & net.hostmask().to_bits(),
    };
    (0..count).filter_map(|_| random.choice(routes).map(|route| pick(route, random))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_as_large_as_asked_for_always_the_same_and_mostly_of_the_commonest_length() {
        for (family, length, share) in [(Family::V4, 24, 0.54), (Family::V6, 48, 0.42)] {
            let make = || prefixes(family, 20_000, &mut fastrand::Rng::with_seed(3));
            let made = make();
            assert_eq!(made.len(), 20_000);
            assert_eq!(made, make());
            assert_eq!(made.iter().collect::<HashSet<_>>().len(), 20_000);
            let common = made.iter().filter(|net| net.prefix_len() == length).count() as f64 / 20_000.0;
            assert!((share - 0.05..share + 0.05).contains(&common), "{common}");
            let random = &mut fastrand::Rng::with_seed(4);
            let sent = destinations(&made, 100, random);
            assert_eq!(sent.len(), 100);
        }
    }
}
