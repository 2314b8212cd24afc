//! The compiled rules against the obvious reference: each matcher asked in turn.

use std::net::IpAddr;

use ipnet::IpNet;
use proptest::prelude::*;
use weir_config::{MacAddress, PortRange, TcpFlagsMatch};

use super::*;
use crate::decision::{Direction, Domain, VrfId};
use crate::packet::{FragmentKind, L3, Meta, PacketFlags};

/// A rule that owns its parts.
type Owned = (Option<Vec<ScopeId>>, Match);

/// A packet: scope, what the parser found, tuple.
type Packet = (ScopeId, Meta, Option<Tuple>);

fn build(rules: &[Owned]) -> RuleSet {
    let rules: Vec<_> =
        rules.iter().map(|(scopes, matches)| Rule { scopes: scopes.as_deref(), matches }).collect();
    RuleSet::build(&rules)
}

fn view(packet: &Packet) -> FlowView<'_> {
    FlowView {
        scope: packet.0,
        domain: Domain::Vrf(VrfId(0)),
        ether_source: MacAddress::default(),
        ether_destination: MacAddress::default(),
        tuple: packet.2.as_ref(),
        meta: &packet.1,
        direction: Direction::Forward,
        established: false,
        now: 0,
        translations: crate::decision::Translations::none(),
        ways: &crate::decision::NoWays,
    }
}

fn reference(rules: &[Owned], packet: &Packet) -> Option<usize> {
    rules.iter().position(|(scopes, matches)| {
        scopes.as_ref().is_none_or(|scopes| scopes.contains(&packet.0))
            && Matcher::new(matches).matches(&view(packet), packet.2.as_ref())
    })
}

fn found(set: &RuleSet, packet: &Packet) -> Option<usize> {
    set.lookup(&view(packet), packet.2.as_ref())
}

/// Few values, so that prefixes nest and rules overlap, beside a few far off.
fn ip(v6: bool) -> impl Strategy<Value = IpAddr> {
    (0u8..3, 0u8..3, prop::sample::select(vec![0u8, 1, 63, 64, 128, 255])).prop_map(move |(a, b, c)| {
        if v6 {
            let (a, b, c) = (u16::from(a), u16::from(b), u16::from(c));
            IpAddr::from([0x2001, 0xdb8, a, b, 0, 0, 0, c])
        } else {
            IpAddr::from([10 + a, b, 0, c])
        }
    })
}

fn nets() -> impl Strategy<Value = Vec<IpNet>> {
    let net = any::<bool>().prop_flat_map(|v6| {
        let most = if v6 { 128u8 } else { 32 };
        (ip(v6), prop_oneof![Just(most), 0..=most]).prop_map(|(ip, len)| IpNet::new(ip, len).unwrap().trunc())
    });
    prop_oneof![3 => Just(Vec::new()), 4 => prop::collection::vec(net.clone(), 1..2), 1 => prop::collection::vec(net, 2..16)]
}

fn port() -> impl Strategy<Value = u16> {
    prop_oneof![0u16..6, Just(1023), Just(1024), Just(65_535), any::<u16>()]
}

fn ranges() -> impl Strategy<Value = Vec<PortRange>> {
    let range = prop_oneof![
        (port(), port()).prop_map(|(a, b)| PortRange { first: a.min(b), last: a.max(b) }),
        port().prop_map(|port| PortRange { first: port, last: port }),
    ];
    prop_oneof![3 => Just(Vec::new()), 3 => prop::collection::vec(range.clone(), 1..2), 1 => prop::collection::vec(range, 2..9)]
}

fn rule() -> impl Strategy<Value = Owned> {
    let scopes = prop::option::weighted(0.4, prop::collection::vec((0u16..6).prop_map(ScopeId), 0..4));
    let protocols = prop::option::of(prop::sample::select(vec![1u8, 6, 17, 47, 58, 132]));
    let flags = (0u8..4, 0u8..4).prop_map(|(set, mask)| TcpFlagsMatch { set: set & mask, mask });
    let few = |most: u8| prop_oneof![9 => Just(Vec::new()), 1 => prop::collection::vec(0..most, 1..3)];
    let rest = (few(4), prop::option::weighted(0.1, flags), few(6));
    (scopes, protocols, nets(), nets(), ranges(), ranges(), rest).prop_map(
        |(scopes, protocol, from, to, from_ports, to_ports, (dscp, tcp_flags, icmp_types))| {
            (scopes, Match { protocol, from, to, from_ports, to_ports, dscp, tcp_flags, icmp_types })
        },
    )
}

fn packet() -> impl Strategy<Value = Packet> {
    let protocols = prop::sample::select(vec![1u8, 6, 6, 6, 17, 47, 58, 132]);
    let fragments = prop::sample::select(vec![
        FragmentKind::Whole,
        FragmentKind::Whole,
        FragmentKind::First,
        FragmentKind::Later,
    ]);
    let kinds =
        (prop::sample::select(vec![Some(false), Some(false), Some(true), Some(true), None]), protocols);
    let ips = (ip(false), ip(false), ip(true), ip(true));
    let bits = (0u8..4, 0u8..4, 0u8..6, any::<bool>());
    (0u16..6, kinds, ips, port(), port(), fragments, bits).prop_map(
        |(scope, (family, protocol), (a, b, c, d), source_port, destination_port, fragment, bits)| {
            let (tcp, dscp, icmp_type, transport) = bits;
            let Some(v6) = family else { return (ScopeId(scope), Meta::default(), None) };
            let meta = Meta {
                l3: if v6 { L3::V6 } else { L3::V4 },
                protocol,
                fragment,
                flags: if transport { PacketFlags::TRANSPORT } else { PacketFlags::empty() },
                tcp_flags: tcp,
                icmp_type,
                traffic_class: dscp << 2,
                ..Meta::default()
            };
            let (source, destination) = if v6 { (c, d) } else { (a, b) };
            (
                ScopeId(scope),
                meta,
                Some(Tuple { source, destination, protocol, source_port, destination_port }),
            )
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(160))]

    #[test]
    fn a_compiled_list_finds_the_rule_that_asking_one_by_one_finds(
        rules in prop::collection::vec(rule(), 0..200),
        packets in prop::collection::vec(packet(), 60),
    ) {
        let set = build(&rules);
        for packet in &packets {
            prop_assert_eq!(found(&set, packet), reference(&rules, packet), "{:?}", packet);
        }
        let fields = rules.iter().fold(FieldSet::empty(), |all, (_, rule)| all | Matcher::new(rule).fields());
        prop_assert_eq!(set.fields(), fields);
    }
}

fn net(text: &str) -> Vec<IpNet> {
    vec![text.parse().unwrap()]
}

fn tcp(from: &str, to: &str, port: u16) -> Packet {
    let meta = Meta { l3: L3::V4, protocol: 6, flags: PacketFlags::TRANSPORT, ..Meta::default() };
    let (source, destination) = (from.parse().unwrap(), to.parse().unwrap());
    (
        ScopeId(1),
        meta,
        Some(Tuple { source, destination, protocol: 6, source_port: 40_000, destination_port: port }),
    )
}

#[test]
fn few_rules_are_compared_and_many_are_hashed() {
    let host =
        |n: u32| (None, Match { to: vec![IpNet::from(IpAddr::from(n.to_be_bytes()))], ..Match::default() });
    let few: Vec<_> = (0..5).map(|n| host(0x0a00_0000 + n)).collect();
    assert_eq!(build(&few).shape().v4.algorithm(), "linear");
    assert_eq!(build(&few).shape().v6.algorithm(), "none");
    let many: Vec<_> = (0..5000).map(|n| host(0x0a00_0000 + n * 7)).collect();
    let shape = build(&many).shape().v4;
    assert_eq!(
        (shape.algorithm(), shape.tables, shape.most_tables, shape.regions),
        ("tuple-space tree", 1, 1, 5000)
    );
    assert!(shape.most_regions <= 16, "{shape:?}");
}

#[test]
fn rules_that_nothing_tells_apart_are_compared_one_by_one() {
    let range = |n: u16| PortRange { first: n, last: 60_000 + n };
    let rules: Vec<_> =
        (0..100).map(|n| (None, Match { to_ports: vec![range(n)], ..Match::default() })).collect();
    let set = build(&rules);
    assert_eq!(set.shape().v4.algorithm(), "linear");
    assert_eq!(found(&set, &tcp("10.0.0.1", "10.0.0.2", 60_050)), Some(50));
}

#[test]
fn a_rule_with_long_lists_takes_no_more_than_its_share_of_memory() {
    let nets: Vec<IpNet> = (0..200u8).map(|n| IpNet::from(IpAddr::from([10, n, 0, 1]))).collect();
    let ports: Vec<PortRange> = (0..100).map(|n| PortRange { first: 10 * n, last: 10 * n }).collect();
    let rule = Match { from: nets.clone(), to: nets, to_ports: ports, ..Match::default() };
    let set = build(&[(None, rule)]);
    assert!(set.shape().v4.regions <= 128, "{:?}", set.shape());
    assert_eq!(found(&set, &tcp("10.7.0.1", "10.199.0.1", 990)), Some(0));
    assert_eq!(found(&set, &tcp("10.7.0.1", "10.200.0.1", 990)), None);
    assert_eq!(found(&set, &tcp("10.7.0.1", "10.199.0.1", 995)), None);
}

#[test]
fn a_rule_for_each_of_many_interfaces_is_found_by_the_interface() {
    let rules: Vec<Owned> = (0..2000).map(|n| (Some(vec![ScopeId(n)]), Match::default())).collect();
    let set = build(&rules);
    assert!(set.shape().v4.most_regions <= 16, "{:?}", set.shape());
    for scope in [0, 1, 1234, 1999] {
        let mut packet = tcp("10.0.0.1", "10.0.0.2", 80);
        packet.0 = ScopeId(scope);
        assert_eq!(found(&set, &packet), Some(usize::from(scope)));
        assert_eq!(found(&set, &(ScopeId(scope), Meta::default(), None)), Some(usize::from(scope)));
    }
    assert_eq!(found(&set, &(ScopeId(2000), Meta::default(), None)), None);
}

#[test]
fn an_earlier_wide_rule_goes_before_a_later_narrow_one() {
    let mut rules: Vec<Owned> = (0..200u8)
        .map(|n| (None, Match { to: net(&format!("10.0.{n}.1/32")), ..Match::default() }))
        .collect();
    rules.insert(
        100,
        (
            None,
            Match {
                to: net("10.0.0.0/16"),
                to_ports: vec![PortRange { first: 80, last: 80 }],
                ..Match::default()
            },
        ),
    );
    let set = build(&rules);
    assert_eq!(found(&set, &tcp("192.0.2.1", "10.0.99.1", 80)), Some(99));
    assert_eq!(found(&set, &tcp("192.0.2.1", "10.0.150.1", 80)), Some(100));
    assert_eq!(found(&set, &tcp("192.0.2.1", "10.0.150.1", 81)), Some(151));
}
