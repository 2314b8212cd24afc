use std::collections::{HashMap, HashSet};
use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::{Ipv4Net, Ipv6Net};
use proptest::prelude::*;

use super::*;

fn hops(scope: u16) -> Target {
    Target::Hops(Box::new([Hop { scope: ScopeId(scope), gateway: None }]))
}

fn fib(routes: &[(&str, u16)]) -> Fib {
    Fib::build(routes.iter().map(|(prefix, scope)| (prefix.parse().unwrap(), hops(*scope)))).unwrap()
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
    assert!(fib.is_empty() && fib.memory() < 8192, "{} bytes", fib.memory());
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
    let fib = Fib::build(routes).unwrap();
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
    assert!(fib.memory() < 32 << 10, "{} bytes", fib.memory());
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

const CHOICES: [Choice; 3] = [Choice::Suited, Choice::Direct, Choice::Trees];

/// Bursts and single look-ups agree with the reference.
fn check(fib: &Fib, routes: &[(IpNet, Target)], addresses: &[IpAddr]) -> Result<(), TestCaseError> {
    let (mut v4, mut v6) = (Vec::new(), Vec::new());
    for ip in addresses {
        prop_assert_eq!(fib.lookup(*ip), scan(routes, *ip), "{}", ip);
        match ip {
            IpAddr::V4(ip) => v4.push(ip.to_bits()),
            IpAddr::V6(ip) => v6.push(ip.to_bits()),
        }
    }
    let mut numbers = vec![u32::MAX; v4.len()];
    fib.lookup_burst_v4(&v4, &mut numbers);
    prop_assert!(v4.iter().zip(&numbers).all(|(ip, number)| fib.lookup_v4(*ip) == *number));
    let warm = v4.iter().map(|ip| match fib.warm_v4() {
        Some(WarmV4::Sparse(sparse)) => sparse.number(*ip),
        Some(WarmV4::Other(fib)) => fib.number(*ip),
        None => fib.lookup_v4(*ip),
    });
    prop_assert_eq!(warm.collect::<Vec<_>>(), numbers);
    let mut numbers = vec![u32::MAX; v6.len()];
    fib.lookup_burst_v6(&v6, &mut numbers);
    prop_assert!(v6.iter().zip(&numbers).all(|(ip, number)| fib.lookup_v6(*ip) == *number));
    Ok(())
}

fn anywhere() -> impl Strategy<Value = Vec<IpAddr>> {
    let v4 = prop::collection::vec(v4_bits().prop_map(|bits| IpAddr::from(Ipv4Addr::from_bits(bits))), 50);
    let v6 = prop::collection::vec(v6_bits().prop_map(|bits| IpAddr::from(Ipv6Addr::from_bits(bits))), 50);
    (v4, v6).prop_map(|(v4, v6)| [v4, v6].concat())
}

proptest! {
    #[test]
    fn lookup_agrees_with_a_linear_scan(
        routes in prop_oneof![prop::collection::vec(route(), 0..40), prop::collection::vec(route(), 600..700)],
        anywhere in anywhere(),
    ) {
        let fib = Fib::build(routes.clone()).unwrap();
        check(&fib, &routes, &[anywhere, probes(&routes)].concat())?;
    }
}

proptest! {
    // Tables of 64 MB and millions of entries: a few cases take their time.
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn every_structure_agrees_with_a_linear_scan(
        routes in prop::collection::vec(route(), 0..300),
        choice in prop::sample::select(CHOICES.to_vec()),
        anywhere in anywhere(),
    ) {
        let fib = Fib::build_as(routes.clone(), choice).unwrap();
        check(&fib, &routes, &[anywhere, probes(&routes)].concat())?;
    }

    /// Whatever is added, replaced and removed, in whatever order, it is as if built from what is left.
    #[test]
    fn routes_added_and_removed_one_by_one_agree_with_a_linear_scan(
        start in prop::collection::vec(route(), 0..60),
        steps in prop::collection::vec((route(), 0..4u8, any::<prop::sample::Index>()), 1..160),
        choice in prop::sample::select(CHOICES.to_vec()),
        anywhere in anywhere(),
    ) {
        let mut fib = Fib::build_as(start.clone(), choice).unwrap();
        let mut left: HashMap<IpNet, Target> = HashMap::new();
        for (prefix, target) in &start {
            left.insert(prefix.trunc(), target.clone());
        }
        let all: Vec<IpNet> = start.iter().chain(steps.iter().map(|(route, ..)| route)).map(|(net, _)| net.trunc()).collect();
        for (at, ((prefix, target), what, which)) in steps.iter().enumerate() {
            // A fresh route, another target for a known prefix, or a removal, of one that is there or not.
            let prefix = if *what == 0 { *prefix } else { *which.get(&all) };
            if *what < 2 {
                fib.insert(prefix, target).unwrap();
                left.insert(prefix.trunc(), target.clone());
            } else {
                prop_assert_eq!(fib.remove(prefix).unwrap(), left.remove(&prefix.trunc()).is_some());
            }
            prop_assert_eq!(fib.len(), left.len());
            if at % 40 == 39 || at + 1 == steps.len() {
                let routes: Vec<(IpNet, Target)> = left.iter().map(|(net, target)| (*net, target.clone())).collect();
                let changed: Vec<(IpNet, Target)> = all.iter().map(|net| (*net, hops(0))).collect();
                check(&fib, &routes, &[&*anywhere, &probes(&changed)].concat())?;
                let different: HashSet<&Target> = left.values().collect();
                prop_assert!(fib.numbers() > different.len());
            }
        }
        for prefix in all {
            fib.remove(prefix).unwrap();
        }
        prop_assert!(fib.is_empty());
        prop_assert!(anywhere.iter().all(|ip| fib.lookup(*ip).is_none()));
        prop_assert_eq!(fib.nodes_left(), 2);
    }
}

/// A number goes to another target once no route leads to the first any more.
#[test]
fn numbers_of_targets_are_dense_and_used_again() {
    let mut fib = fib(&[("10.0.0.0/8", 1), ("10.1.0.0/16", 2), ("10.0.0.0/8", 3), ("2001:db8::/32", 2)]);
    let of = |fib: &Fib, ip: &str| fib.lookup_v4(ip.parse::<Ipv4Addr>().unwrap().to_bits());
    assert_eq!(of(&fib, "11.0.0.1"), NO_ROUTE);
    assert_eq!(fib.target(NO_ROUTE), None);
    fib.insert(net("10.2.0.0/16"), &hops(4)).unwrap();
    assert_eq!(of(&fib, "10.2.0.1"), 1);
    assert_eq!(fib.numbers(), 4);
    fib.remove(net("10.1.0.0/16")).unwrap();
    fib.insert(net("10.3.0.0/16"), &hops(2)).unwrap();
    assert_eq!(of(&fib, "10.3.0.1"), fib.lookup_v6(0x2001_0db8 << 96));
    assert_eq!(fib.numbers(), 4);
}

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

/// `count` prefixes of IPv4 of 20 to 24 bits, none twice.
fn many(count: u32) -> impl Iterator<Item = IpNet> {
    (0..count).map(|n| {
        let bits = n.wrapping_mul(0x9e37_79b1) & 0xffff_f000 | ((n % 13) << 8);
        Ipv4Net::new(Ipv4Addr::from_bits(bits), 24 - (n % 13 == 0) as u8 * 4).unwrap().into()
    })
}

#[test]
fn the_structure_follows_the_number_of_routes() {
    let mut fib = Fib::build(std::iter::empty::<(IpNet, Target)>()).unwrap();
    let structure = |fib: &Fib| fib.families()[0].structure;
    assert_eq!(structure(&fib), "DIR-24-8, 16 bits, sparse");
    for (n, prefix) in many(20_000).enumerate() {
        fib.insert(prefix, &hops(n as u16 % 50)).unwrap();
    }
    assert_eq!(structure(&fib), "DIR-24-8, 16 bits");
    // More targets than fit into 16 bits.
    for (n, prefix) in many(40_000).enumerate() {
        fib.insert(prefix, &Target::Hops(Box::new([Hop { scope: ScopeId(n as u16), gateway: None }])))
            .unwrap();
    }
    assert_eq!(structure(&fib), "DIR-24-8, 32 bits");
    let last = many(40_000).last().unwrap();
    assert_eq!(fib.lookup(last.network()).unwrap().hops()[0].scope.0, 39_999);
    for prefix in many(39_999) {
        fib.remove(prefix).unwrap();
    }
    assert_eq!((structure(&fib), fib.len()), ("DIR-24-8, 32 bits, sparse", 1));
    assert_eq!(fib.lookup(last.network()).unwrap().hops()[0].scope.0, 39_999);
}

/// Short prefixes would fill pages and pages of a table of 24 bits.
#[test]
fn few_but_short_prefixes_take_a_tree() {
    let fib = fib(&[("0.0.0.0/1", 1), ("128.0.0.0/2", 2), ("10.0.0.0/24", 3), ("2000::/3", 4)]);
    let [v4, v6] = fib.families();
    assert_eq!((v4.structure, v6.structure), ("tree", "trees"));
    assert!(fib.memory() < 8192, "{} bytes", fib.memory());
    let ips = ["1.0.0.0", "130.0.0.0", "10.0.0.7", "3000::1"];
    assert_eq!(ips.map(|ip| scope_of(&fib, ip)), [Some(1), Some(2), Some(3), Some(4)]);
    assert_eq!(["192.0.0.0", "4000::"].map(|ip| scope_of(&fib, ip)), [None, None]);
}

/// So many long prefixes, so far apart, that groups of 256 would take a gigabyte.
#[test]
fn host_routes_all_over_the_place_take_a_tree() {
    let hosts = (0..200_000u32).map(|n| {
        let host = Ipv4Addr::from_bits(n.wrapping_mul(0x9e37_79b1));
        (IpNet::from(Ipv4Net::new(host, 32).unwrap()), hops(n as u16 % 7))
    });
    let mut fib = Fib::build(hosts).unwrap();
    assert_eq!(fib.families()[0].structure, "tree");
    assert!(fib.memory() < 32 << 20, "{}", fib.memory());
    for n in 0..200_000u32 {
        let host = n.wrapping_mul(0x9e37_79b1);
        assert_eq!(fib.target(fib.lookup_v4(host)), Some(&hops(n as u16 % 7)));
        if n % 50 == 0 {
            let host = IpNet::from(Ipv4Net::new(Ipv4Addr::from_bits(host), 32).unwrap());
            assert!(fib.remove(host).unwrap());
            assert_eq!(fib.lookup(host.addr()), None);
        }
    }
}
