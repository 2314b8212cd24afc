//! A table of routes shaped like the Internet's, always the same for the same size and seed.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

/// Prefix lengths with their share of the table in thousandths, roughly as in a full table of the Internet; the rest is /24.
const SHARES: &[(u8, usize)] = &[
    (12, 1),
    (13, 1),
    (14, 2),
    (15, 2),
    (16, 14),
    (17, 8),
    (18, 14),
    (19, 26),
    (20, 46),
    (21, 53),
    (22, 113),
    (23, 103),
];
/// First octets without routes: special ones, and those of the benchmark's own subnets.
const RESERVED: &[u8] = &[10, 100, 127, 169, 172, 192, 198, 203];

/// `count` different prefixes of global unicast IPv4 addresses, ascending.
pub(in crate::pipeline) fn internet(count: usize, random: &mut fastrand::Rng) -> Vec<Ipv4Net> {
    let mut prefixes = BTreeSet::new();
    for &(length, share) in SHARES {
        let wanted = prefixes.len() + count * share / 1000;
        draw(&mut prefixes, length, wanted, random);
    }
    draw(&mut prefixes, 24, count, random);
    prefixes.into_iter().collect()
}

/// Adds prefixes of `length` until there are `wanted` in all.
fn draw(prefixes: &mut BTreeSet<Ipv4Net>, length: u8, wanted: usize, random: &mut fastrand::Rng) {
    while prefixes.len() < wanted {
        let address = Ipv4Addr::from_bits(random.u32(0x0100_0000..0xe000_0000));
        let [first, ..] = address.octets();
        if let (false, Ok(prefix)) = (RESERVED.contains(&first), Ipv4Net::new(address, length)) {
            prefixes.insert(prefix.trunc());
        }
    }
}

/// `count` addresses, each in one of `routes`, both picked at random.
pub(in crate::pipeline) fn destinations(
    routes: &[Ipv4Net],
    count: usize,
    random: &mut fastrand::Rng,
) -> Vec<u32> {
    let mut addresses = Vec::with_capacity(count);
    while addresses.len() < count {
        let Some(route) = random.choice(routes) else { break };
        addresses.push(route.network().to_bits() | (random.u32(..) & route.hostmask().to_bits()));
    }
    addresses
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_has_the_size_asked_for_and_is_always_the_same() {
        let make = || internet(10_000, &mut fastrand::Rng::with_seed(3));
        let routes = make();
        assert_eq!(routes.len(), 10_000);
        assert_eq!(routes, make());
    }

    #[test]
    fn more_than_half_of_the_prefixes_are_24_long_and_none_is_longer() {
        let routes = internet(10_000, &mut fastrand::Rng::with_seed(3));
        let of = |length| routes.iter().filter(|route| route.prefix_len() == length).count();
        assert!((5_500..6_500).contains(&of(24)), "{}", of(24));
        assert_eq!((of(16), of(22), of(20)), (140, 1130, 460));
        assert!(routes.iter().all(|route| (12..=24).contains(&route.prefix_len())));
    }

    #[test]
    fn each_destination_is_in_a_route() {
        let mut random = fastrand::Rng::with_seed(5);
        let routes = internet(1_000, &mut random);
        for address in destinations(&routes, 1_000, &mut random) {
            let address = Ipv4Addr::from_bits(address);
            assert!(routes.iter().any(|route| route.contains(&address)), "{address}");
        }
    }
}
