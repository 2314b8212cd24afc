//! Rule sets of any size, made from a seed, after the kinds that ClassBench (Taylor and Turner, INFOCOM 2005) found in
//! use: access lists, firewalls, and chains of the kernel's packet filter. Prefixes nest and cluster, ports are well known,
//! ranges or any; the kinds differ in how much is left open.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use weir_config::{MacAddress, Match, PortRange};
use weir_dataplane::decision::{Direction, Domain, FlowView, NoWays, ScopeId, Translations, Tuple, VrfId};
use weir_dataplane::packet::{L3, Meta, PacketFlags, tcp_flags};

/// Different packets.
const PACKETS: usize = 30_000;

/// A small generator of numbers (SplitMix64), so that a seed means the same everywhere.
#[derive(Clone, Debug)]
pub struct Numbers(u64);

impl Numbers {
    /// Starts with `seed`.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number.
    pub fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    /// A number below `bound`; 0 if that is 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.draw()) * u128::from(bound)) >> 64) as u64
    }

    /// True in `percent` of a hundred cases.
    pub fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    /// Two numbers of 64 bits as one.
    fn wide(&mut self) -> u128 {
        u128::from(self.draw()) << 64 | u128::from(self.draw())
    }

    fn of<T: Copy + Default>(&mut self, list: &[T]) -> T {
        list.get(self.below(list.len() as u64) as usize).copied().unwrap_or_default()
    }
}

/// What a rule set is like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Access lists: destinations are hosts or small networks, destination ports mostly known.
    Acl,
    /// Firewalls: many sources or destinations are left open; ranges of ports.
    Firewall,
    /// Chains of a host's packet filter: between the two, both addresses mostly given.
    Ipc,
}

impl Kind {
    /// All kinds.
    pub const ALL: [Self; 3] = [Self::Acl, Self::Firewall, Self::Ipc];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Acl => "acl",
            Self::Firewall => "fw",
            Self::Ipc => "ipc",
        }
    }

    /// Of a hundred rules: sources left open, destinations left open, source ports given, destination ports left open,
    /// destination ports that are ranges.
    fn mix(self) -> [u64; 5] {
        match self {
            Self::Acl => [15, 2, 2, 25, 15],
            Self::Firewall => [45, 25, 25, 25, 25],
            Self::Ipc => [15, 15, 12, 40, 12],
        }
    }
}

const KNOWN_PORTS: [u16; 24] = [
    20, 21, 22, 23, 25, 53, 67, 80, 110, 123, 135, 139, 143, 161, 179, 389, 443, 445, 514, 993, 1433, 1521,
    3306, 8080,
];

/// Makes rules of a kind.
#[derive(Clone, Debug)]
pub struct Generator {
    kind: Kind,
    v6: bool,
    numbers: Numbers,
    /// Networks in which the prefixes lie: bits from the top, and length.
    sites: Vec<(u128, u8)>,
}

impl Generator {
    /// For about `rules` rules of one family.
    pub fn new(kind: Kind, v6: bool, rules: usize, seed: u64) -> Self {
        let mut numbers = Numbers::new(seed);
        let sites = (0..(rules / 40).clamp(4, 4096))
            .map(|_| {
                let len =
                    if v6 { numbers.of(&[32, 40, 48, 48, 56]) } else { numbers.of(&[12, 16, 16, 18, 20]) };
                let bits = numbers.wide();
                // 2000::/3; 1.0.0.0 to 223.255.255.255, skewed to a few first bytes, as allocations are.
                let bits = if v6 {
                    bits >> 3 | 1 << 125
                } else {
                    let first = [10, 172, 192, 198, 203, 62, 130, 89][(bits >> 90) as usize % 8] as u128;
                    bits & (u128::MAX >> 8) | first << 120
                };
                (bits & ones(len), len)
            })
            .collect();
        Self { kind, v6, numbers, sites }
    }

    /// The next rule.
    pub fn rule(&mut self) -> Match {
        let [any_from, any_to, from_port, any_to_port, range] = self.kind.mix();
        let mut rule = Match::default();
        if !self.numbers.chance(any_from) {
            rule.from = vec![self.prefix(false)];
        }
        if rule.from.is_empty() || !self.numbers.chance(any_to) {
            rule.to = vec![self.prefix(true)];
        }
        rule.protocol = match self.numbers.below(100) {
            0..60 => Some(6),
            60..85 => Some(17),
            85..90 => Some(if self.v6 { 58 } else { 1 }),
            _ => None,
        };
        if matches!(rule.protocol, Some(6 | 17)) {
            if self.numbers.chance(from_port) {
                rule.from_ports = vec![self.ports(30)];
            }
            if !self.numbers.chance(any_to_port) {
                rule.to_ports = vec![self.ports(range)];
            }
        }
        if rule.protocol == Some(6) && self.numbers.chance(2) {
            rule.tcp_flags = Some(weir_config::TcpFlagsMatch { set: 2, mask: 0x12 });
        }
        if self.numbers.chance(2) && !rule.to_ports.is_empty() {
            let more = self.ports(range);
            rule.to_ports.push(more);
        }
        rule
    }

    /// `count` rules.
    pub fn rules(&mut self, count: usize) -> Vec<Match> {
        (0..count).map(|_| self.rule()).collect()
    }

    fn ports(&mut self, range: u64) -> PortRange {
        if self.numbers.chance(range) {
            return match self.numbers.below(4) {
                0 | 1 => PortRange { first: 1024, last: u16::MAX },
                2 => PortRange { first: 0, last: 1023 },
                _ => {
                    let first = self.numbers.below(60_000) as u16;
                    PortRange { first, last: first + self.numbers.below(5000) as u16 }
                }
            };
        }
        let port = if self.numbers.chance(70) {
            self.numbers.of(&KNOWN_PORTS)
        } else {
            self.numbers.below(65_536) as u16
        };
        PortRange { first: port, last: port }
    }

    /// A prefix within one of the sites; sites with low numbers are named more often.
    fn prefix(&mut self, destination: bool) -> IpNet {
        let skew = self.numbers.below(self.sites.len() as u64 + 1);
        let at = self.numbers.below(skew.max(1));
        let (site, least) = self.sites.get(at as usize).copied().unwrap_or((0, 0));
        let len: u8 = match (self.v6, destination && self.kind == Kind::Acl) {
            (false, true) => self.numbers.of(&[32, 32, 32, 32, 30, 28, 27, 24, 24, 23]),
            (false, false) => self.numbers.of(&[32, 32, 32, 29, 27, 26, 24, 24, 22, 20, 16, 16, 12, 8]),
            (true, true) => self.numbers.of(&[128, 128, 128, 128, 64, 64, 64, 56]),
            (true, false) => self.numbers.of(&[128, 128, 64, 64, 64, 60, 56, 48, 48, 40, 32]),
        };
        let bits = (site | self.numbers.wide() & !ones(least)) & ones(len);
        if self.v6 {
            Ipv6Net::new(Ipv6Addr::from(bits), len).unwrap_or_default().into()
        } else {
            Ipv4Net::new(Ipv4Addr::from((bits >> 96) as u32), len).unwrap_or_default().into()
        }
    }

    /// Addresses, protocol and ports of a packet: mostly one that `rule` matches.
    pub fn packet(&mut self, rule: &Match) -> (IpAddr, IpAddr, u8, u16, u16) {
        let from = self.within(rule.from.first());
        let to = self.within(rule.to.first());
        let protocol = rule.protocol.unwrap_or_else(|| self.numbers.of(&[6, 17]));
        let ports = [rule.from_ports.first(), rule.to_ports.first()].map(|range| {
            let range = range.copied().unwrap_or(PortRange { first: 0, last: u16::MAX });
            range.first + self.numbers.below(u64::from(range.last - range.first) + 1) as u16
        });
        let has_ports = matches!(protocol, 6 | 17 | 132);
        let [from_port, to_port] = if has_ports { ports } else { [0; 2] };
        (from, to, protocol, from_port, to_port)
    }

    fn within(&mut self, prefix: Option<&IpNet>) -> IpAddr {
        let any = if self.v6 { IpNet::V6(Ipv6Net::default()) } else { IpNet::V4(Ipv4Net::default()) };
        let bits = self.numbers.wide();
        match prefix.copied().unwrap_or(any) {
            IpNet::V4(net) => {
                let host = (bits >> 96) as u32 & u32::from(net.hostmask());
                IpAddr::V4((u32::from(net.network()) | host).into())
            }
            IpNet::V6(net) => {
                let host = bits & u128::from(net.hostmask());
                IpAddr::V6((u128::from(net.network()) | host).into())
            }
        }
    }
}

fn ones(len: u8) -> u128 {
    if len == 0 { 0 } else { u128::MAX << (128 - u32::from(len)) }
}

/// `size` rules, and packets for them: the same for the same seed.
pub fn input(kind: Kind, v6: bool, size: usize, seed: u64) -> (Vec<Match>, Vec<(Meta, Tuple)>) {
    let mut generator = Generator::new(kind, v6, size, seed);
    let matches = generator.rules(size);
    let packets = packets(&mut generator, &matches, v6, seed);
    (matches, packets)
}

/// Nine of ten made from some rule.
fn packets(generator: &mut Generator, rules: &[Match], v6: bool, seed: u64) -> Vec<(Meta, Tuple)> {
    let mut numbers = Numbers::new(seed);
    let other = Match::default();
    let l3 = if v6 { L3::V6 } else { L3::V4 };
    (0..PACKETS)
        .map(|_| {
            let from_rule = numbers.chance(90);
            let rule = rules.get(numbers.below(rules.len() as u64) as usize).filter(|_| from_rule);
            let (source, destination, protocol, source_port, destination_port) =
                generator.packet(rule.unwrap_or(&other));
            let flags = PacketFlags::TRANSPORT;
            let meta = Meta { l3, protocol, flags, tcp_flags: tcp_flags::SYN, ..Meta::default() };
            (meta, Tuple { source, destination, protocol, source_port, destination_port })
        })
        .collect()
}

/// A packet as a rule set is asked about it.
pub fn view<'a>(meta: &'a Meta, tuple: &'a Tuple) -> FlowView<'a> {
    FlowView {
        scope: ScopeId(1),
        domain: Domain::Vrf(VrfId(0)),
        ether_source: MacAddress::default(),
        ether_destination: MacAddress::default(),
        tuple: Some(tuple),
        meta,
        direction: Direction::Forward,
        established: false,
        now: 1,
        translations: Translations::none(),
        ways: &NoWays,
    }
}
