//! What is sent: a few packets, each several times, unchanged or mutated.

use std::net::Ipv4Addr;

use proptest::prelude::*;
use weir_dataplane::packet::builder::Packet;
use weir_dataplane::packet::protocol;
use weir_dataplane::packet::tcp_flags::{ACK, FIN, RST, SYN};

use super::bindings::{Bindings, Owner};
use super::common::site::{BLUE, HOST, INNER, LAN, OTHER, PORTS, Site, VTEP, WAN, repair};

/// Kinds of packets for sites that translate nothing, and for those that do.
pub(super) const UNTRANSLATED: std::ops::Range<u8> = 0..24;
pub(super) const ALL: std::ops::Range<u8> = 0..31;
/// A TCP connection that is opened, and used.
const CONNECTION: u8 = 23;

/// Somebody who may have a port, while nobody has one for sure.
const NOBODY: Owner = (protocol::UDP, Ipv4Addr::new(192, 0, 2, 7), (Ipv4Addr::new(10, 1, 0, 2), 4000));

/// What happens to a valid packet before it is sent.
#[derive(Clone, Debug)]
enum Mutation {
    None,
    /// One byte changes; with `repair` the IPv4 header checksum is made right again.
    Byte {
        at: usize,
        value: u8,
        repair: bool,
    },
    Truncate(usize),
    Tag(u16),
}

/// A packet, and how it is sent.
#[derive(Clone, Debug)]
pub(super) struct Step {
    /// Which of the site's packets.
    kind: u8,
    /// Small differences between packets of one kind.
    variant: u8,
    /// IP payload and TTL.
    len: usize,
    ttl: u8,
    class: u8,
    mutation: Mutation,
    /// By which port it comes, if not the right one.
    port: Option<usize>,
    /// How often it is sent.
    times: usize,
    /// Milliseconds that pass before.
    pub(super) wait: u64,
}

/// A few packets, each sent several times, unchanged or mutated: so that flows are hit.
pub(super) fn steps(kinds: std::ops::Range<u8>) -> impl Strategy<Value = Vec<Step>> {
    let mutation = prop_oneof![
        6 => Just(Mutation::None),
        2 => (0usize..120, any::<u8>(), any::<bool>())
            .prop_map(|(at, value, repair)| Mutation::Byte { at, value, repair }),
        1 => (0usize..120).prop_map(Mutation::Truncate),
        2 => prop_oneof![Just(0u16), Just(7), Just(10), Just(20), any::<u16>()].prop_map(Mutation::Tag),
    ];
    let len = prop_oneof![6 => 0usize..64, 1 => 1380usize..1490];
    let ttl = prop_oneof![8 => Just(64u8), 1 => 0u8..3, 1 => any::<u8>()];
    let class = prop_oneof![2 => Just(0u8), 1 => any::<u8>()];
    let port = proptest::option::weighted(0.1, 0..PORTS.len());
    let wait = prop_oneof![8 => Just(0u64), 1 => 1u64..2000];
    let palette = proptest::collection::vec((kinds, 0u8..6, len), 1..5);
    let step = (any::<proptest::sample::Index>(), ttl, class, mutation, port, 1usize..4, wait);
    (palette, proptest::collection::vec(step, 1..30)).prop_map(|(palette, steps)| {
        let step = |(which, ttl, class, mutation, port, times, wait): (
            proptest::sample::Index,
            _,
            _,
            _,
            _,
            _,
            _,
        )| {
            let (kind, variant, len) = *which.get(&palette);
            Step { kind, variant, len, ttl, class, mutation, port, times, wait }
        };
        steps.into_iter().map(step).collect()
    })
}

/// One of several hosts; the last has no neighbour entry.
fn v4(subnet: &str, variant: u8) -> Ipv4Addr {
    format!("{subnet}.{}", [2, 2, 2, 3, 2, 9][usize::from(variant % 6)]).parse().unwrap()
}

fn v6(subnet: &str, variant: u8) -> std::net::Ipv6Addr {
    format!("2001:db8:{subnet}::{}", [2, 2, 2, 3, 2, 9][usize::from(variant % 6)]).parse().unwrap()
}

fn transport(packet: Packet, step: &Step) -> Packet {
    let payload = vec![step.variant; step.len];
    match step.variant {
        0 => packet.udp(4000, 53),
        1 => packet.udp(4000 + u16::from(step.class), 4001),
        2 => packet.tcp(4000, 80).flags([SYN, SYN | ACK, ACK, FIN | ACK, RST][step.len % 5]),
        3 => packet.echo_request(7, 1),
        4 => packet.fragment(u16::from(step.class & 3) * 8, step.class & 1 == 0).udp(4000, 53),
        _ => packet.tcp(4000, 113).flags(SYN),
    }
    .payload(&payload)
}

impl Step {
    /// A packet of a TCP connection to a server on `wan`: its first ones open it, then both sides send in turn.
    fn connection(&self, bindings: &Bindings, owners: &[Owner], time: usize) -> (&'static str, Packet) {
        let inside = (
            v4(if self.variant & 1 == 0 { "10.1.0" } else { "10.10.0" }, 0),
            4000 + u16::from(self.variant / 2),
        );
        let flags = if time < 2 { SYN } else { 0 } | if time > 0 { ACK } else { 0 };
        let packet = if time % 2 == 0 {
            let frame = Packet::ethernet(HOST, LAN);
            let frame = if self.variant & 1 == 0 { frame } else { frame.vlan(10) };
            frame.ipv4(inside.0, "10.2.0.2").tcp(inside.1, 80)
        } else {
            let owner = owners.iter().find(|owner| (owner.0, owner.2) == (protocol::TCP, inside));
            let (host, port) = owner.map_or(inside, |owner| (owner.1, bindings.port(owner)));
            Packet::ethernet(VTEP, WAN).ipv4("10.2.0.2", host).tcp(80, port)
        };
        let packet = packet.ttl(self.ttl).traffic_class(self.class).flags(flags).payload(&vec![7; self.len]);
        (if time % 2 == 0 { "lan" } else { "wan" }, packet)
    }

    /// What an ICMP error quotes of a packet: of some the first time too little to tell its ports.
    fn quote(&self, packet: &Packet, time: usize) -> Vec<u8> {
        let mut quote = packet.build_network();
        if time == 0 && self.class & 2 != 0 {
            quote.truncate(22);
        }
        quote
    }

    /// A packet that a translator is asked about: from behind it, or to somebody whom it gave a port.
    fn about_translation(
        &self,
        bindings: &Bindings,
        owners: &[Owner],
        time: usize,
    ) -> (&'static str, Packet) {
        let finish = |packet: Packet| packet.ttl(self.ttl).traffic_class(self.class);
        let at = usize::from(self.variant ^ self.class).checked_rem(owners.len());
        let owner = at.map_or(NOBODY, |at| owners[at]);
        let ((protocol, outside, inside), port) = (owner, bindings.port(&owner));
        // Whom it talks to, or a stranger.
        let (host, service) = match bindings.remote(&owner) {
            (host, service) if self.class & 4 == 0 => (host, service),
            (_, service) => (v4("10.2.0", self.class & 1), service + u16::from(self.class & 1)),
        };
        let flags = [SYN, SYN | ACK, ACK, FIN | ACK, RST][self.len % 5];
        let replied = |frame: Packet, port: u16| match protocol {
            protocol::TCP => frame.tcp(service, port).flags(flags),
            protocol::ICMP => frame.echo_reply(port, 1),
            _ => frame.udp(service, port),
        };
        let payload = vec![self.variant; self.len];
        match self.kind {
            // By masquerade; and another host that may want the same ports.
            24 => {
                let packet = Packet::ethernet(HOST, LAN).vlan(10).ipv4("10.10.0.2", host);
                ("lan", transport(finish(packet), self))
            }
            25 => ("lan", transport(finish(Packet::ethernet(HOST, LAN).ipv4(v4("10.1.0", 3), host)), self)),
            26 => {
                let packet = Packet::ethernet(VTEP, WAN).ipv4(host, outside);
                ("wan", finish(replied(packet, port)).payload(&payload))
            }
            27 => {
                let hairpin = Packet::ethernet(HOST, LAN).ipv4("10.1.0.2", outside);
                ("lan", finish(replied(hairpin, port)).payload(&payload))
            }
            // To forwarded ports, and to a host that is forwarded whole.
            28 => {
                let to = [("192.0.2.7", 53), ("192.0.2.7", 61), ("192.0.2.8", 53), ("192.0.2.8", 80)];
                let (to, port) = to[usize::from(self.class & 3)];
                let packet = finish(Packet::ethernet(VTEP, WAN).ipv4(host, to));
                let tcp = self.variant & 1 == 1;
                let packet = if tcp { packet.tcp(9, port).flags(SYN) } else { packet.udp(9, port) };
                ("wan", packet.payload(&payload))
            }
            // An error about what somebody with a port sent; and one of his own about what came to it.
            29 => {
                let sent = Packet::ethernet(HOST, LAN).ipv4(outside, host);
                let sent = match protocol {
                    protocol::TCP => sent.tcp(port, service).flags(flags),
                    protocol::ICMP => sent.echo_request(port, 1),
                    _ => sent.udp(port, service),
                };
                let error = Packet::ethernet(VTEP, WAN).ipv4("10.2.0.3", outside).ttl(self.ttl);
                ("wan", error.icmp(3, 3, [0; 4]).payload(&self.quote(&sent, time)))
            }
            _ => {
                let came = replied(Packet::ethernet(HOST, LAN).ipv4(host, inside.0), inside.1);
                let error = Packet::ethernet(HOST, LAN).ipv4(inside.0, host).ttl(self.ttl);
                ("lan", error.icmp(3, 3, [0; 4]).payload(&self.quote(&came, time)))
            }
        }
    }

    /// How many packets it is.
    pub(super) fn packets(&self) -> usize {
        if self.kind == CONNECTION { self.times + 3 } else { self.times }
    }

    /// The port and the frame, the `time`-th of the step. `owners` of `bindings` may be sent to.
    pub(super) fn frame(
        &self,
        site: Site,
        bindings: &Bindings,
        owners: &[Owner],
        time: usize,
    ) -> (&'static str, Vec<u8>) {
        let finish = |packet: Packet| {
            let packet = packet.ttl(self.ttl).traffic_class(self.class);
            transport(packet, self)
        };
        let routed = |mac: &str, gateway: &str| Packet::ethernet(mac, gateway);
        let bridged = || match self.variant {
            0 => Packet::ethernet(HOST, OTHER),
            1 => Packet::ethernet(OTHER, HOST),
            2 => Packet::ethernet(HOST, "ff:ff:ff:ff:ff:ff"),
            _ => Packet::ethernet("02:00:00:00:00:0c", HOST),
        };
        let (port, packet) = match self.kind {
            0 => ("lan", finish(routed(HOST, LAN).ipv4("10.1.0.2", v4("10.2.0", self.variant)))),
            1 => ("lan", finish(routed(HOST, LAN).ipv6("2001:db8:1::2", v6("2", self.variant)))),
            2 => ("wan", finish(routed(VTEP, WAN).ipv4(v4("10.2.0", self.variant), "10.1.0.2"))),
            3 => ("wan", finish(routed(VTEP, WAN).ipv6(v6("2", self.variant), "2001:db8:1::2"))),
            4 => ("lan", finish(routed(HOST, LAN).vlan(10).ipv4("10.10.0.2", v4("10.1.0", self.variant)))),
            5 => ("lan", finish(routed(HOST, LAN).ipv4("10.1.0.2", v4("10.10.0", self.variant)))),
            6 => ("lan", finish(routed(HOST, LAN).ipv4("10.1.0.2", v4("10.9.0", self.class)))),
            7 => ("lan", finish(routed(HOST, LAN).ipv6("2001:db8:1::2", v6("9:1", self.class)))),
            8 => ("lan", finish(routed(HOST, LAN).ipv4("10.1.0.2", "10.66.0.1"))),
            9 => ("lan", finish(routed(HOST, LAN).ipv4("10.1.0.2", "172.16.0.1"))),
            10 => ("blue", finish(routed(HOST, BLUE).ipv4("10.3.0.2", v4("10.4.0", self.variant)))),
            11 => ("blue", finish(routed(HOST, BLUE).ipv6("2001:db8:3::2", v6("4", self.variant)))),
            12 => {
                let inner =
                    finish(routed("02:00:00:00:04:01", INNER).ipv4(v4("10.4.0", self.variant), "10.3.0.2"));
                ("wan", site.outer(100, &inner.build()).traffic_class(self.class >> 1))
            }
            13 => {
                let inner = finish(bridged().ipv4("10.5.0.1", "10.5.0.2"));
                ("wan", site.outer(5000, &inner.build()).traffic_class(self.class >> 1))
            }
            14 => {
                let inner = finish(bridged().ipv6("2001:db8:5::1", "2001:db8:5::2"));
                ("wan", site.outer(5001, &inner.build()).traffic_class(self.class >> 1))
            }
            15 => {
                let port = ["one", "two", "wire", "left"][usize::from(self.class & 3)];
                (port, finish(bridged().ipv4("10.5.0.1", "10.5.0.2")))
            }
            16 => ("two", finish(bridged().vlan(20).ipv4("10.5.0.1", "10.5.0.2"))),
            17 => {
                // An ICMP error about what `lan` may have sent, or not.
                let sent = Packet::ethernet(HOST, LAN).ipv4("10.1.0.2", "10.2.0.2");
                let quote = match self.variant {
                    0 | 1 => sent.udp(4000, 53),
                    2 => sent.udp(4000, 4001 + u16::from(self.class & 1)),
                    3 => sent.tcp(4000, 80).flags(SYN),
                    4 => sent.echo_request(7, 1),
                    _ => sent.udp(9, 9),
                };
                let error = routed(VTEP, WAN).ipv4(v4("10.2.0", self.class & 1), "10.1.0.2").ttl(self.ttl);
                ("wan", error.icmp(3, 3, [0; 4]).payload(&self.quote(&quote, time)))
            }
            // To a neighbour that does not answer.
            18 => ("lan", finish(routed(HOST, LAN).ipv4("10.1.0.2", v4("10.1.0", 3)))),
            19 => {
                let own = ["10.1.0.1", "10.2.0.1", "10.1.0.255", "224.0.0.1"][usize::from(self.class & 3)];
                ("lan", finish(routed(HOST, LAN).ipv4("10.1.0.2", own)))
            }
            20 => ("lan", finish(routed(HOST, LAN).ipv6("64:ff9b::10.9.9.9", v6("2", self.variant)))),
            21 => (
                "lan",
                finish(routed(HOST, LAN).ipv6(["fe80::a", "::1"][usize::from(self.class & 1)], v6("2", 0))),
            ),
            22 => ("right", finish(bridged().vlan(7).ipv6("2001:db8:5::1", "2001:db8:5::2"))),
            CONNECTION => self.connection(bindings, owners, time),
            _ => self.about_translation(bindings, owners, time),
        };
        let mut frame = packet.build();
        match self.mutation {
            Mutation::None => {}
            // It would be another's port in one engine, and nobody's in the other.
            Mutation::Byte { at, .. } if self.kind >= CONNECTION && (14..42).contains(&at) => {}
            Mutation::Byte { at, value, repair: mend } => {
                if let Some(byte) = frame.get_mut(at) {
                    *byte = value;
                }
                if mend {
                    repair(&mut frame);
                }
            }
            Mutation::Truncate(len) => frame.truncate(len),
            Mutation::Tag(tci) => {
                let [a, b] = tci.to_be_bytes();
                frame.splice(12..12, [0x81, 0, a, b]);
            }
        }
        (self.port.map_or(port, |port| PORTS[port]), frame)
    }
}
