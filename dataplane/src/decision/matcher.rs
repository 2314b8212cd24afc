//! The one matcher of rules: a compiled [`weir_config::Match`], used by the classifier and by service functions.
//!
//! Every given part must hold. A packet that is not IP matches only a rule that says nothing. Ports belong to TCP, UDP
//! and SCTP alone (an ICMP echo's identifier is not a port), TCP flags to TCP, ICMP types to ICMP and ICMPv6. A later
//! fragment carries no transport header (RFC 791 section 3.2, RFC 8200 section 4.5): a rule that names TCP flags or ICMP
//! types does not match it, and one that names ports only if its tuple has those of its first fragment, put there by the
//! engine.

use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use weir_config::{Match, PortRange, TcpFlagsMatch};

use super::{FieldSet, FlowView, Tuple};
use crate::packet::{FragmentKind, Meta, PacketFlags, protocol};

/// A compiled match.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Matcher {
    protocol: Option<u8>,
    from: Prefixes,
    to: Prefixes,
    from_ports: Box<[PortRange]>,
    to_ports: Box<[PortRange]>,
    /// Bit n: DSCP n matches. `None`: all do.
    dscp: Option<u64>,
    tcp_flags: Option<TcpFlagsMatch>,
    icmp_types: Box<[u8]>,
}

/// Prefixes by family; both empty and `any`: all addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Prefixes {
    any: bool,
    v4: Box<[Ipv4Net]>,
    v6: Box<[Ipv6Net]>,
}

impl Default for Prefixes {
    fn default() -> Self {
        Self::new(&[])
    }
}

impl Prefixes {
    fn new(prefixes: &[IpNet]) -> Self {
        let v4 = prefixes.iter().filter_map(|net| if let IpNet::V4(net) = net { Some(*net) } else { None });
        let v6 = prefixes.iter().filter_map(|net| if let IpNet::V6(net) = net { Some(*net) } else { None });
        Self { any: prefixes.is_empty(), v4: v4.collect(), v6: v6.collect() }
    }

    fn contain(&self, ip: IpAddr) -> bool {
        self.any
            || match ip {
                IpAddr::V4(ip) => self.v4.iter().any(|net| net.contains(&ip)),
                IpAddr::V6(ip) => self.v6.iter().any(|net| net.contains(&ip)),
            }
    }

    /// Whether an address is looked at. A prefix of length 0 asks for the family alone, and that is in every key.
    fn consult(&self) -> bool {
        self.v4.iter().any(|net| net.prefix_len() > 0) || self.v6.iter().any(|net| net.prefix_len() > 0)
    }
}

impl Matcher {
    /// Compiles `matches`.
    pub fn new(matches: &Match) -> Self {
        let dscp = matches.dscp.iter().filter(|value| **value < 64).fold(0u64, |set, value| set | 1 << value);
        Self {
            protocol: matches.protocol,
            from: Prefixes::new(&matches.from),
            to: Prefixes::new(&matches.to),
            from_ports: matches.from_ports.clone().into(),
            to_ports: matches.to_ports.clone().into(),
            dscp: (!matches.dscp.is_empty()).then_some(dscp),
            tcp_flags: matches.tcp_flags,
            icmp_types: matches.icmp_types.clone().into(),
        }
    }

    /// Whether the packet matches. `tuple` is the packet's tuple after the edits of earlier hops
    /// ([`super::PathBuilder::tuple`]), `None` for what is not IP.
    pub fn matches(&self, view: &FlowView<'_>, tuple: Option<&Tuple>) -> bool {
        let Some(tuple) = tuple else { return self.matches_all() };
        self.protocol.is_none_or(|protocol| protocol == tuple.protocol)
            && self.from.contain(tuple.source)
            && self.to.contain(tuple.destination)
            && self.dscp.is_none_or(|set| set >> view.meta.dscp() & 1 == 1)
            && self.matches_transport(view.meta, tuple)
    }

    /// Whether the source prefixes hold `ip`.
    pub fn matches_source(&self, ip: IpAddr) -> bool {
        self.from.contain(ip)
    }

    /// Whether nothing is asked, so that everything matches, IP or not.
    pub fn matches_all(&self) -> bool {
        self.protocol.is_none()
            && self.from.any
            && self.to.any
            && self.dscp.is_none()
            && !self.asks_ports()
            && self.tcp_flags.is_none()
            && self.icmp_types.is_empty()
    }

    /// The header fields that [`Matcher::matches`] really looks at.
    pub fn fields(&self) -> FieldSet {
        let transport = self.asks_ports() || self.tcp_flags.is_some() || !self.icmp_types.is_empty();
        let mut fields = FieldSet::empty();
        fields.set(FieldSet::PROTOCOL, self.protocol.is_some() || transport);
        fields.set(FieldSet::IP_SOURCE, self.from.consult());
        fields.set(FieldSet::IP_DESTINATION, self.to.consult());
        fields.set(FieldSet::SOURCE_PORT, !self.from_ports.is_empty());
        fields.set(FieldSet::DESTINATION_PORT, !self.to_ports.is_empty());
        fields.set(FieldSet::DSCP, self.dscp.is_some());
        fields.set(FieldSet::TCP_FLAGS, self.tcp_flags.is_some());
        fields.set(FieldSet::ICMP_TYPE, !self.icmp_types.is_empty());
        fields
    }

    /// Memory behind the matcher's own size, in bytes.
    pub(super) fn heap_bytes(&self) -> usize {
        let prefixes = |prefixes: &Prefixes| size_of_val(&*prefixes.v4) + size_of_val(&*prefixes.v6);
        prefixes(&self.from)
            + prefixes(&self.to)
            + size_of_val(&*self.from_ports)
            + size_of_val(&*self.to_ports)
            + size_of_val(&*self.icmp_types)
    }

    fn asks_ports(&self) -> bool {
        !(self.from_ports.is_empty() && self.to_ports.is_empty())
    }

    fn matches_transport(&self, meta: &Meta, tuple: &Tuple) -> bool {
        let later = meta.fragment == FragmentKind::Later;
        let present = !later && meta.flags.contains(PacketFlags::TRANSPORT);
        let restored = later && (tuple.source_port, tuple.destination_port) != (0, 0);
        let ports = !self.asks_ports()
            || ((present || restored)
                && matches!(tuple.protocol, protocol::TCP | protocol::UDP | protocol::SCTP)
                && in_ranges(&self.from_ports, tuple.source_port)
                && in_ranges(&self.to_ports, tuple.destination_port));
        let flags = self.tcp_flags.is_none_or(|wanted| {
            present && tuple.protocol == protocol::TCP && meta.tcp_flags & wanted.mask == wanted.set
        });
        let icmp = self.icmp_types.is_empty()
            || (present
                && matches!(tuple.protocol, protocol::ICMP | protocol::ICMPV6)
                && self.icmp_types.contains(&meta.icmp_type));
        ports && flags && icmp
    }
}

fn in_ranges(ranges: &[PortRange], port: u16) -> bool {
    ranges.is_empty() || ranges.iter().any(|range| (range.first..=range.last).contains(&port))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decision::{Direction, Domain, ScopeId, VrfId};
    use crate::packet::L3;
    use weir_config::MacAddress;

    fn matched(matches: &Match, meta: &Meta, tuple: Option<Tuple>) -> bool {
        let view = FlowView {
            scope: ScopeId(1),
            domain: Domain::Vrf(VrfId(0)),
            ether_source: MacAddress::default(),
            ether_destination: MacAddress::default(),
            tuple: tuple.as_ref(),
            meta,
            direction: Direction::Forward,
            established: false,
            now: 0,
            translations: crate::decision::Translations::none(),
            ways: &crate::decision::NoWays,
        };
        Matcher::new(matches).matches(&view, tuple.as_ref())
    }

    fn tcp(to_port: u16) -> (Meta, Tuple) {
        packet(protocol::TCP, 40_000, to_port)
    }

    fn packet(protocol: u8, source_port: u16, destination_port: u16) -> (Meta, Tuple) {
        let meta = Meta {
            l3: L3::V4,
            protocol,
            source_port,
            destination_port,
            flags: PacketFlags::TRANSPORT,
            ..Meta::default()
        };
        let tuple = Tuple {
            source: "10.1.0.2".parse().unwrap(),
            destination: "10.2.0.2".parse().unwrap(),
            protocol,
            source_port,
            destination_port,
        };
        (meta, tuple)
    }

    fn port(port: u16) -> Vec<PortRange> {
        vec![PortRange { first: port, last: port }]
    }

    #[test]
    fn an_empty_match_matches_even_what_is_not_ip() {
        assert!(matched(&Match::default(), &Meta::default(), None));
        let rule = Match { dscp: vec![0], ..Match::default() };
        assert!(!matched(&rule, &Meta::default(), None));
        assert_eq!(Matcher::new(&Match::default()).fields(), FieldSet::empty());
    }

    #[test]
    fn a_port_range_is_inclusive_at_both_ends() {
        let rule = Match { to_ports: vec![PortRange { first: 80, last: 82 }], ..Match::default() };
        for (port, expected) in [(79, false), (80, true), (81, true), (82, true), (83, false)] {
            let (meta, tuple) = tcp(port);
            assert_eq!(matched(&rule, &meta, Some(tuple)), expected, "port {port}");
        }
    }

    #[test]
    fn the_identifier_of_an_icmp_echo_is_not_a_port() {
        let (meta, tuple) = packet(protocol::ICMP, 80, 80);
        assert!(!matched(&Match { to_ports: port(80), ..Match::default() }, &meta, Some(tuple)));
    }

    #[test]
    fn a_later_fragment_matches_by_ports_only_if_those_of_its_first_are_known() {
        // RFC 791 section 3.2: only the fragment at offset 0 carries the transport header.
        let (mut meta, mut tuple) = tcp(80);
        meta.fragment = FragmentKind::Later;
        meta.flags = PacketFlags::empty();
        meta.tcp_flags = 0;
        (meta.source_port, meta.destination_port) = (0, 0);
        assert!(matched(&Match { to_ports: port(80), ..Match::default() }, &meta, Some(tuple)));
        let flags = Some(TcpFlagsMatch { set: 0, mask: 2 });
        assert!(!matched(&Match { tcp_flags: flags, ..Match::default() }, &meta, Some(tuple)));
        (tuple.source_port, tuple.destination_port) = (0, 0);
        assert!(!matched(&Match { to_ports: port(0), ..Match::default() }, &meta, Some(tuple)));
        assert!(matched(&Match { protocol: Some(6), ..Match::default() }, &meta, Some(tuple)));
    }

    #[test]
    fn a_prefix_matches_its_own_family_only() {
        let (meta, tuple) = tcp(80);
        let rule = |prefix: &str| Match { from: vec![prefix.parse().unwrap()], ..Match::default() };
        assert!(matched(&rule("10.1.0.0/24"), &meta, Some(tuple)));
        assert!(!matched(&rule("10.1.1.0/24"), &meta, Some(tuple)));
        assert!(!matched(&rule("::/0"), &meta, Some(tuple)));
        assert_eq!(Matcher::new(&rule("::/0")).fields(), FieldSet::empty());
        assert_eq!(Matcher::new(&rule("10.1.0.0/24")).fields(), FieldSet::IP_SOURCE);
    }

    #[test]
    fn tcp_flags_are_compared_under_their_mask() {
        let rule = Match { tcp_flags: Some(TcpFlagsMatch { set: 2, mask: 0x12 }), ..Match::default() };
        for (flags, expected) in [(0x02, true), (0x42, true), (0x12, false), (0x10, false)] {
            let (mut meta, tuple) = tcp(80);
            meta.tcp_flags = flags;
            assert_eq!(matched(&rule, &meta, Some(tuple)), expected, "flags {flags:#x}");
        }
        assert_eq!(Matcher::new(&rule).fields(), FieldSet::TCP_FLAGS | FieldSet::PROTOCOL);
    }

    #[test]
    fn dscp_and_icmp_types_are_sets() {
        let (mut meta, tuple) = packet(protocol::ICMPV6, 7, 7);
        meta.traffic_class = 46 << 2 | 1;
        meta.icmp_type = 128;
        let rule = Match { dscp: vec![0, 46], icmp_types: vec![128, 129], ..Match::default() };
        assert!(matched(&rule, &meta, Some(tuple)));
        meta.icmp_type = 3;
        assert!(!matched(&rule, &meta, Some(tuple)));
    }
}
