use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::{Ipv4Net, Ipv6Net};
use proptest::prelude::*;

use super::*;

fn hops(scope: u16) -> Target {
    Target::Hops(Box::new([Hop { scope: ScopeId(scope), gateway: None }]))
}

fn fib(routes: &[(&str, u16)]) -> Fib {
    Fib::build(routes.iter().map(|(prefix, scope)| (prefix.parse().unwrap(), hops(*scope))))
}

fn scope_of(fib: &Fib, ip: &str) -> Option<u16> {
    fib.lookup(ip.parse().unwrap()).map(|target| target.hops()[0].scope.0)
}

/// The obvious reference: of the prefixes that hold the address the longest, of equal ones the last.
fn scan(routes: &[(IpNet, Target)], ip: IpAddr) -> Option<&Target> {
    let mut best: Option<&(IpNet, Target)> = None;
    for route in routes {
        if route.0.contains(&ip) && best.is_none_or(|best| best.0.prefix_len() <= route.0.prefix_len()) {
            best = Some(route);
        }
    }
    best.map(|route| &route.1)
}

#[test]
fn an_empty_table_has_no_route_and_no_memory() {
    let fib = fib(&[]);
    assert_eq!(fib.lookup("10.0.0.1".parse().unwrap()), None);
    assert_eq!(fib.lookup("::1".parse().unwrap()), None);
    assert_eq!(fib.memory(), 0);
}

/// RFC 1812 section 5.2.4.3: the longest match wins.
#[test]
fn the_longest_prefix_wins() {
    let fib = fib(&[
        ("0.0.0.0/0", 0),
        ("10.0.0.0/8", 8),
        ("10.1.0.0/16", 16),
        ("10.1.2.0/24", 24),
        ("10.1.2.3/32", 32),
        ("10.1.2.0/23", 23),
    ]);
    assert_eq!(scope_of(&fib, "11.0.0.1"), Some(0));
    assert_eq!(scope_of(&fib, "10.2.0.1"), Some(8));
    assert_eq!(scope_of(&fib, "10.1.0.1"), Some(16));
    assert_eq!(scope_of(&fib, "10.1.3.1"), Some(23));
    assert_eq!(scope_of(&fib, "10.1.2.1"), Some(24));
    assert_eq!(scope_of(&fib, "10.1.2.3"), Some(32));
}

/// RFC 3021: a /31 has two hosts and no broadcast.
#[test]
fn both_addresses_of_a_31_are_found() {
    let fib = fib(&[("10.0.0.2/31", 1), ("10.0.0.4/32", 2)]);
    assert_eq!(scope_of(&fib, "10.0.0.1"), None);
    assert_eq!(scope_of(&fib, "10.0.0.2"), Some(1));
    assert_eq!(scope_of(&fib, "10.0.0.3"), Some(1));
    assert_eq!(scope_of(&fib, "10.0.0.4"), Some(2));
    assert_eq!(scope_of(&fib, "10.0.0.5"), None);
}

/// RFC 7608: prefixes of every length, also past 64 bits; RFC 6164: /127.
#[test]
fn every_ipv6_prefix_length_is_matched() {
    let base: Ipv6Addr = "2001:db8:a5a5:a5a5:a5a5:a5a5:a5a5:a5a5".parse().unwrap();
    let routes: Vec<(IpNet, Target)> =
        (0..=128).map(|len| (Ipv6Net::new(base, len).unwrap().into(), hops(u16::from(len)))).collect();
    let fib = Fib::build(routes);
    for len in 0..=128u32 {
        // The first `len` bits as the base, the next one not.
        let address = if len == 128 { base.to_bits() } else { base.to_bits() ^ (1 << (127 - len)) };
        let target = fib.lookup(Ipv6Addr::from_bits(address).into()).unwrap();
        assert_eq!(target.hops()[0].scope.0, len as u16);
    }
}

#[test]
fn of_equal_prefixes_the_last_counts() {
    let fib = fib(&[("10.0.0.0/8", 1), ("10.9.9.9/8", 2), ("2001:db8::/32", 3), ("2001:db8::1/32", 4)]);
    assert_eq!(scope_of(&fib, "10.0.0.1"), Some(2));
    assert_eq!(scope_of(&fib, "2001:db8::1"), Some(4));
}

#[test]
fn a_small_table_is_small() {
    let fib = fib(&[("0.0.0.0/0", 0), ("10.1.0.0/24", 1), ("10.1.0.1/32", 2), ("::/0", 0)]);
    assert!(fib.memory() < 8192, "{} bytes", fib.memory());
}

#[test]
fn equal_cost_hops_share_flows_evenly_and_keep_each_flow() {
    let hops: Box<[Hop]> = (0..3).map(|n| Hop { scope: ScopeId(n), gateway: None }).collect();
    let target = Target::Hops(hops);
    let mut counts = [0; 3];
    for hash in 0..30_000u64 {
        let hop = target.select(hash).unwrap();
        assert_eq!(target.select(hash), Some(hop));
        counts[hop.scope.index()] += 1;
    }
    assert!(counts.iter().all(|count| (9_000..11_000).contains(count)), "{counts:?}");
}

#[test]
fn a_target_without_hops_selects_none() {
    for target in [Target::Blackhole, Target::Local(ScopeId(1)), Target::Broadcast(ScopeId(1))] {
        assert_eq!(target.select(7), None);
    }
}

/// Few distinct bits, so that prefixes nest and collide often.
fn v4_bits() -> impl Strategy<Value = u32> {
    prop_oneof![
        any::<u32>(),
        (0u32..64).prop_map(|n| 0x0a00_0000 | n.wrapping_mul(0x0101_0101) & 0x0103_0303)
    ]
}

fn v6_bits() -> impl Strategy<Value = u128> {
    prop_oneof![
        any::<u128>(),
        any::<u128>().prop_map(|n| (0x2001_0db8 << 96) | (n & (0x0101 << 60 | 0x8003)))
    ]
}

fn route() -> impl Strategy<Value = (IpNet, Target)> {
    let v4 = (v4_bits(), 0..=32u8)
        .prop_map(|(bits, len)| IpNet::from(Ipv4Net::new(Ipv4Addr::from_bits(bits), len).unwrap()));
    let v6 = (v6_bits(), 0..=128u8)
        .prop_map(|(bits, len)| IpNet::from(Ipv6Net::new(Ipv6Addr::from_bits(bits), len).unwrap()));
    (prop_oneof![v4, v6], 0..20u16).prop_map(|(prefix, scope)| (prefix, hops(scope)))
}

/// Addresses near a route's ends as well as anywhere.
fn probes(routes: &[(IpNet, Target)]) -> Vec<IpAddr> {
    let mut probes = Vec::new();
    for (prefix, _) in routes {
        match prefix {
            IpNet::V4(prefix) => {
                let (first, last) = (prefix.network().to_bits(), prefix.broadcast().to_bits());
                for bits in [first, last, first.wrapping_sub(1), last.wrapping_add(1)] {
                    probes.push(Ipv4Addr::from_bits(bits).into());
                }
            }
            IpNet::V6(prefix) => {
                let (first, last) = (prefix.network().to_bits(), prefix.broadcast().to_bits());
                for bits in [first, last, first.wrapping_sub(1), last.wrapping_add(1)] {
                    probes.push(Ipv6Addr::from_bits(bits).into());
                }
            }
        }
    }
    probes
}

proptest! {
    /// The trie agrees with a linear scan, for small tables (8-8-8-8) and larger ones (16-8-8).
    #[test]
    fn lookup_agrees_with_a_linear_scan(
        routes in prop_oneof![prop::collection::vec(route(), 0..40), prop::collection::vec(route(), 600..700)],
        v4 in prop::collection::vec(v4_bits(), 50),
        v6 in prop::collection::vec(v6_bits(), 50),
    ) {
        let fib = Fib::build(routes.clone());
        let anywhere = v4.into_iter().map(|bits| IpAddr::from(Ipv4Addr::from_bits(bits)))
            .chain(v6.into_iter().map(|bits| IpAddr::from(Ipv6Addr::from_bits(bits))));
        for ip in anywhere.chain(probes(&routes)) {
            prop_assert_eq!(fib.lookup(ip), scan(&routes, ip), "{}", ip);
        }
    }
}
