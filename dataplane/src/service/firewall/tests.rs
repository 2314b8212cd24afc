//! Tests of the firewall; the last two compare it with a naive reading of its configuration.

use std::net::IpAddr;

use ipnet::IpNet;
use proptest::prelude::*;
use weir_config::{FirewallRule, MacAddress, Match, PortRange, TcpFlagsMatch};

use super::*;
use crate::decision::{BridgeId, Matcher, ScopeId, VrfId};
use crate::packet::{PacketFlags, tcp_flags};

const VRF: Domain = Domain::Vrf(VrfId(0));
const LAN: Domain = Domain::Bridge(BridgeId(0));

/// A packet and how the engine sees it.
#[derive(Clone, Debug)]
struct Packet {
    meta: Meta,
    tuple: Option<Tuple>,
    domain: Domain,
    direction: Direction,
    established: bool,
}

impl Packet {
    fn new(ip_protocol: u8, to_port: u16) -> Self {
        let tuple = Tuple {
            source: "10.1.0.2".parse().unwrap(),
            destination: "10.2.0.2".parse().unwrap(),
            protocol: ip_protocol,
            source_port: 40_000,
            destination_port: to_port,
        };
        let meta =
            Meta { l3: L3::V4, protocol: ip_protocol, flags: PacketFlags::TRANSPORT, ..Meta::default() };
        Self { meta, tuple: Some(tuple), domain: VRF, direction: Direction::Forward, established: false }
    }

    fn tcp(to_port: u16, flags: u8) -> Self {
        let mut packet = Self::new(protocol::TCP, to_port);
        packet.meta.tcp_flags = flags;
        packet
    }

    fn icmp(l3: L3, icmp_type: u8) -> Self {
        let mut packet = Self::new(if l3 == L3::V4 { protocol::ICMP } else { protocol::ICMPV6 }, 7);
        (packet.meta.l3, packet.meta.icmp_type) = (l3, icmp_type);
        packet
    }

    fn not_ip(l3: L3) -> Self {
        Self { meta: Meta { l3, ..Meta::default() }, tuple: None, ..Self::new(0, 0) }
    }

    fn known(self, direction: Direction) -> Self {
        Self { direction, established: true, ..self }
    }

    fn within(self, domain: Domain) -> Self {
        Self { domain, ..self }
    }

    fn view(&self) -> FlowView<'_> {
        FlowView {
            scope: ScopeId(1),
            domain: self.domain,
            ether_source: MacAddress::default(),
            ether_destination: MacAddress::default(),
            tuple: self.tuple.as_ref(),
            meta: &self.meta,
            direction: self.direction,
            established: self.established,
            now: 0,
            translations: crate::decision::Translations::none(),
            ways: &crate::decision::NoWays,
        }
    }

    /// The step.
    fn ask(&self, config: &weir_config::Firewall) -> Step {
        let mut path = PathBuilder::default();
        path.reset(self.tuple.as_ref());
        let step = Firewall::new("edge", config).decide(&self.view(), &mut path);
        assert!(path.edits().is_empty());
        step
    }
}

fn firewall(default: Action, rules: &[(Action, Match)]) -> weir_config::Firewall {
    let rules =
        rules.iter().map(|(action, matches)| FirewallRule { action: *action, matches: matches.clone() });
    weir_config::Firewall { default, rules: rules.collect(), tcp_pickup: false }
}

fn to_port(ip_protocol: u8, port: u16) -> Match {
    let to_ports = vec![PortRange { first: port, last: port }];
    Match { protocol: Some(ip_protocol), to_ports, ..Match::default() }
}

const DENIED: Step = Step::Drop(DropReason::FirewallDenied);
const PASSES: Step = Step::Continue;

#[test]
fn the_first_rule_that_matches_decides_and_else_the_default() {
    let udp = protocol::UDP;
    let config = firewall(
        Action::Deny,
        &[
            (Action::Allow, to_port(udp, 53)),
            (Action::Reject, to_port(udp, 54)),
            (Action::Deny, to_port(udp, 53)),
        ],
    );
    assert_eq!(Packet::new(udp, 53).ask(&config), PASSES);
    assert_eq!(Packet::new(udp, 54).ask(&config), Step::Reject(DropReason::FirewallRejected));
    assert_eq!(Packet::new(udp, 55).ask(&config), DENIED);
    assert_eq!(Packet::new(protocol::SCTP, 53).ask(&config), DENIED);
}

#[test]
fn what_belongs_to_a_session_passes_without_asking_the_rules() {
    let config = firewall(Action::Deny, &[]);
    assert_eq!(Packet::tcp(80, tcp_flags::ACK).ask(&config), DENIED);
    assert_eq!(Packet::tcp(80, tcp_flags::ACK).known(Direction::Forward).ask(&config), PASSES);
    assert_eq!(Packet::tcp(80, tcp_flags::ACK).known(Direction::Reverse).ask(&config), PASSES);
}

#[test]
fn a_tcp_packet_that_opens_nothing_and_belongs_to_none_is_dropped() {
    // RFC 9293 section 3.5: a connection opens with a SYN that acknowledges nothing.
    let mut config = firewall(Action::Allow, &[]);
    let none = Step::Drop(DropReason::FirewallNoSession);
    assert_eq!(Packet::tcp(80, tcp_flags::SYN).ask(&config), PASSES);
    for flags in [0, tcp_flags::ACK, tcp_flags::SYN | tcp_flags::ACK, tcp_flags::SYN | tcp_flags::FIN] {
        assert_eq!(Packet::tcp(80, flags).ask(&config), none, "flags {flags:#x}");
    }
    config.tcp_pickup = true;
    assert_eq!(Packet::tcp(80, tcp_flags::ACK).ask(&config), PASSES);
}

#[test]
fn a_session_of_a_ping_vouches_for_replies_and_not_for_pings_the_other_way() {
    let config = firewall(Action::Deny, &[]);
    for (l3, request, reply) in [(L3::V4, 8, 0), (L3::V6, 128, 129)] {
        assert_eq!(Packet::icmp(l3, reply).known(Direction::Reverse).ask(&config), PASSES);
        assert_eq!(Packet::icmp(l3, request).known(Direction::Forward).ask(&config), PASSES);
        assert_eq!(Packet::icmp(l3, request).known(Direction::Reverse).ask(&config), DENIED);
        assert_eq!(Packet::icmp(l3, reply).ask(&config), DENIED);
    }
    // An error about a session of any kind is related to it (RFC 5508 section 4).
    assert_eq!(Packet::icmp(L3::V4, 3).known(Direction::Reverse).ask(&config), PASSES);
}

#[test]
fn arp_and_neighbour_discovery_pass_where_weir_only_bridges() {
    let config = firewall(Action::Deny, &[]);
    let cross = Domain::CrossConnect(ScopeId(2));
    for domain in [LAN, cross] {
        assert_eq!(Packet::not_ip(L3::Arp).within(domain).ask(&config), PASSES);
        // RFC 4861 section 4.
        for icmp_type in 133..=137 {
            assert_eq!(Packet::icmp(L3::V6, icmp_type).within(domain).ask(&config), PASSES);
        }
        assert_eq!(Packet::icmp(L3::V6, 132).within(domain).ask(&config), DENIED);
        assert_eq!(Packet::icmp(L3::V4, 135).within(domain).ask(&config), DENIED);
        let mut fragment = Packet::icmp(L3::V6, 135).within(domain);
        fragment.meta.fragment = FragmentKind::First;
        assert_eq!(fragment.ask(&config), DENIED, "RFC 6980 section 5");
    }
    assert_eq!(Packet::icmp(L3::V6, 135).ask(&config), DENIED);
}

#[test]
fn what_else_is_not_ip_follows_the_default_and_opens_no_session() {
    let other = Packet::not_ip(L3::Other).within(LAN);
    let rules = [(Action::Deny, Match { protocol: Some(6), ..Match::default() })];
    assert_eq!(other.ask(&firewall(Action::Allow, &rules)), PASSES);
    assert_eq!(other.ask(&firewall(Action::Deny, &[])), DENIED);
    let rejected = Step::Drop(DropReason::FirewallRejected);
    assert_eq!(other.ask(&firewall(Action::Reject, &[])), rejected);
}

/// Whether an address lies in a prefix, bit by bit.
fn naive_contains(net: &IpNet, ip: IpAddr) -> bool {
    let bits = |ip: IpAddr| -> Vec<bool> {
        let bytes = match ip {
            IpAddr::V4(ip) => ip.octets().to_vec(),
            IpAddr::V6(ip) => ip.octets().to_vec(),
        };
        bytes.iter().flat_map(|byte| (0..8).rev().map(move |bit| byte >> bit & 1 == 1)).collect()
    };
    let (net_bits, ip_bits) = (bits(net.addr()), bits(ip));
    let len = usize::from(net.prefix_len());
    net_bits.len() == ip_bits.len() && net_bits[..len] == ip_bits[..len]
}

/// A rule read word by word.
fn naive_matches(rule: &Match, packet: &Packet) -> bool {
    let Some(tuple) = packet.tuple else { return *rule == Match::default() };
    let has_ports = [6, 17, 132].contains(&tuple.protocol);
    let is_icmp = [1, 58].contains(&tuple.protocol);
    if rule.protocol.is_some() && rule.protocol != Some(tuple.protocol) {
        return false;
    }
    for (nets, ip) in [(&rule.from, tuple.source), (&rule.to, tuple.destination)] {
        if !nets.is_empty() && !nets.iter().any(|net| naive_contains(net, ip)) {
            return false;
        }
    }
    for (ranges, port) in [(&rule.from_ports, tuple.source_port), (&rule.to_ports, tuple.destination_port)] {
        let within = ranges.iter().any(|range| range.first <= port && port <= range.last);
        let named = !ranges.is_empty();
        if named && (!has_ports || !within) {
            return false;
        }
    }
    if !rule.dscp.is_empty() && !rule.dscp.contains(&(packet.meta.traffic_class / 4)) {
        return false;
    }
    if let Some(flags) = rule.tcp_flags {
        if tuple.protocol != 6 || packet.meta.tcp_flags & flags.mask != flags.set {
            return false;
        }
    }
    rule.icmp_types.is_empty() || (is_icmp && rule.icmp_types.contains(&packet.meta.icmp_type))
}

fn naive(config: &weir_config::Firewall, packet: &Packet) -> Step {
    let action = config.rules.iter().find(|rule| naive_matches(&rule.matches, packet));
    let flags = packet.meta.tcp_flags;
    let syn = flags & 2 != 0 && flags & 0x15 == 0;
    match action.map_or(config.default, |rule| rule.action) {
        Action::Allow if packet.meta.protocol == 6 && !syn && !config.tcp_pickup => {
            Step::Drop(DropReason::FirewallNoSession)
        }
        Action::Allow => Step::Continue,
        Action::Deny => Step::Drop(DropReason::FirewallDenied),
        Action::Reject => Step::Reject(DropReason::FirewallRejected),
    }
}

fn ips() -> impl Strategy<Value = (L3, IpAddr, IpAddr)> {
    let v4 = (0u8..4, 0u8..4)
        .prop_map(|(a, b)| (L3::V4, IpAddr::from([10, a, 0, b]), IpAddr::from([10, b, 0, a * 64])));
    let v6 = (0u16..4, 0u16..4).prop_map(|(a, b)| {
        (
            L3::V6,
            IpAddr::from([0x2001, 0xdb8, a, 0, 0, 0, 0, b]),
            IpAddr::from([0x2001, 0xdb8, b, 0, 0, 0, 0, a]),
        )
    });
    prop_oneof![v4, v6]
}

fn any_packet() -> impl Strategy<Value = Packet> {
    let protocols = prop::sample::select(vec![1u8, 6, 6, 17, 47, 58, 132]);
    (ips(), protocols, 0u16..6, 0u16..6, 0u8..64, 0u8..4, 0u8..6).prop_map(
        |((l3, source, destination), ip_protocol, source_port, destination_port, tcp, dscp, icmp_type)| {
            let icmp = ip_protocol == 1 || ip_protocol == 58;
            let meta = Meta {
                l3,
                protocol: ip_protocol,
                flags: PacketFlags::TRANSPORT,
                tcp_flags: if ip_protocol == 6 { tcp } else { 0 },
                icmp_type: if icmp { icmp_type } else { 0 },
                traffic_class: dscp << 2,
                ..Meta::default()
            };
            let tuple = Tuple { source, destination, protocol: ip_protocol, source_port, destination_port };
            Packet {
                meta,
                tuple: Some(tuple),
                domain: VRF,
                direction: Direction::Forward,
                established: false,
            }
        },
    )
}

fn nets() -> impl Strategy<Value = Vec<IpNet>> {
    let net = (ips(), 0u8..=32, any::<bool>()).prop_map(|((_, a, b), len, first)| {
        let ip = if first { a } else { b };
        IpNet::new(ip, if ip.is_ipv4() { len } else { len * 4 }).unwrap()
    });
    prop_oneof![3 => Just(Vec::new()), 2 => prop::collection::vec(net, 1..3)]
}

fn ranges() -> impl Strategy<Value = Vec<PortRange>> {
    let range = (0u16..6, 0u16..3).prop_map(|(first, len)| PortRange { first, last: first + len });
    prop_oneof![3 => Just(Vec::new()), 1 => prop::collection::vec(range, 1..3)]
}

fn matches() -> impl Strategy<Value = Match> {
    let flags = (any::<u8>(), any::<u8>())
        .prop_map(|(set, mask)| TcpFlagsMatch { set: set & mask & 3, mask: mask & 3 });
    let few = |most: u8| prop_oneof![4 => Just(Vec::new()), 1 => prop::collection::vec(0..most, 1..3)];
    let protocols = prop::option::of(prop::sample::select(vec![1u8, 6, 17, 47, 58, 132]));
    let flags = prop_oneof![4 => Just(None), 1 => flags.prop_map(Some)];
    (protocols, nets(), nets(), ranges(), ranges(), few(4), flags, few(6)).prop_map(
        |(protocol, from, to, from_ports, to_ports, dscp, tcp_flags, icmp_types)| Match {
            protocol,
            from,
            to,
            from_ports,
            to_ports,
            dscp,
            tcp_flags,
            icmp_types,
        },
    )
}

fn any_firewall() -> impl Strategy<Value = weir_config::Firewall> {
    let action = || prop::sample::select(vec![Action::Allow, Action::Deny, Action::Reject]);
    let rule = (action(), matches()).prop_map(|(action, matches)| FirewallRule { action, matches });
    (action(), prop::collection::vec(rule, 0..6), any::<bool>())
        .prop_map(|(default, rules, tcp_pickup)| weir_config::Firewall { default, rules, tcp_pickup })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn the_compiled_firewall_agrees_with_a_naive_one(
        config in any_firewall(),
        packets in prop::collection::vec(any_packet(), 1..20),
    ) {
        for packet in packets {
            prop_assert_eq!(packet.ask(&config), naive(&config, &packet), "{:?}", packet);
        }
    }

    #[test]
    fn packets_that_agree_in_what_a_rule_consults_are_decided_alike(
        rule in matches(),
        packet in any_packet(),
        other in any_packet(),
    ) {
        let fields = Matcher::new(&rule).fields();
        let (Some(mut tuple), Some(wanted)) = (other.tuple, packet.tuple) else { unreachable!() };
        let mut twin = other.clone();
        if fields.contains(FieldSet::IP_SOURCE) { tuple.source = wanted.source }
        if fields.contains(FieldSet::IP_DESTINATION) { tuple.destination = wanted.destination }
        if fields.contains(FieldSet::PROTOCOL) { tuple.protocol = wanted.protocol }
        if fields.contains(FieldSet::SOURCE_PORT) { tuple.source_port = wanted.source_port }
        if fields.contains(FieldSet::DESTINATION_PORT) { tuple.destination_port = wanted.destination_port }
        if fields.contains(FieldSet::DSCP) { twin.meta.traffic_class = packet.meta.traffic_class }
        if fields.contains(FieldSet::TCP_FLAGS) { twin.meta.tcp_flags = packet.meta.tcp_flags }
        if fields.contains(FieldSet::ICMP_TYPE) { twin.meta.icmp_type = packet.meta.icmp_type }
        // The network layer is in every key.
        prop_assume!(tuple.source.is_ipv4() == wanted.source.is_ipv4());
        prop_assume!(tuple.destination.is_ipv4() == wanted.destination.is_ipv4());
        twin.tuple = Some(tuple);
        let matcher = Matcher::new(&rule);
        let matches = |packet: &Packet| matcher.matches(&packet.view(), packet.tuple.as_ref());
        prop_assert_eq!(matches(&packet), matches(&twin));
    }
}
