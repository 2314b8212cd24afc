//! Packets that should not be: each is dropped for exactly the reason that its kind has.
#![allow(missing_docs, clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::collections::{BTreeMap, BTreeSet};

use common::Lab;
use common::site::{
    BLUE, CHAINED, FAR, HOST, INNER, LAN, OTHER, PLAIN, SIX, Sent, Site, VTEP, WAN, between6, bridged, from,
    inner, lan, lan6, repair, to,
};
use common::sound::{assert_sound, told};
use weir_dataplane::decision::DropReason as Reason;
use weir_dataplane::packet::builder::Packet;
use weir_dataplane::packet::tcp_flags::{ACK, SYN};

/// Packets of which exactly one is dropped: for this reason.
struct Case {
    reason: Reason,
    text: String,
    frames: Vec<Sent>,
    /// Type and code of the ICMP error that its sender gets.
    told: Option<(u8, u8)>,
}

fn on(site: Site, reason: Reason, frames: Vec<Sent>) -> Case {
    Case { reason, text: site.text(), frames, told: None }
}

/// One packet on the plain site.
fn one(reason: Reason, port: &'static str, frame: Vec<u8>) -> Case {
    on(PLAIN, reason, vec![(port, frame)])
}

impl Case {
    fn told(mut self, kind: u8, code: u8) -> Self {
        self.told = Some((kind, code));
        self
    }

    fn with(mut self, was: &str, becomes: &str) -> Self {
        assert!(self.text.contains(was));
        self.text = self.text.replacen(was, becomes, 1);
        self
    }
}

/// A frame with one byte changed; its IPv4 header checksum right again.
fn patch(packet: &Packet, at: usize, value: u8) -> Vec<u8> {
    let mut frame = packet.build();
    frame[at] = value;
    repair(&mut frame);
    frame
}

fn malformed() -> Vec<Case> {
    let udp = || lan().udp(1, 2).payload(b"hello");
    let cut = |packet: Packet, len: usize| packet.build()[..len].to_vec();
    let mut long = udp().build();
    long[17] += 1;
    repair(&mut long);
    let mut sum = udp().build();
    sum[24] ^= 1;
    let nine = (0..9).fold(lan6().udp(1, 2), |packet, _| packet.extension(60, &[]));
    vec![
        one(Reason::Truncated, "lan", vec![]),
        one(Reason::Truncated, "lan", cut(udp(), 13)),
        one(Reason::Truncated, "lan", cut(udp(), 33)),
        one(Reason::Truncated, "lan", cut(lan6().udp(1, 2), 53)),
        one(Reason::Truncated, "lan", cut(udp().vlan(10), 16)),
        one(Reason::IpVersion, "lan", patch(&udp(), 14, 0x55)),
        one(Reason::IpVersion, "lan", patch(&lan6().udp(1, 2), 14, 0x40)),
        one(Reason::IpHeaderLength, "lan", patch(&udp(), 14, 0x44)),
        one(Reason::IpHeaderLength, "lan", patch(&lan().udp(1, 2), 14, 0x4f)),
        one(Reason::IpChecksum, "lan", sum),
        one(Reason::IpLength, "lan", long),
        one(Reason::IpLength, "lan", patch(&lan6().udp(1, 2), 19, 9)),
        one(Reason::IpExtension, "lan", nine.build()),
        // RFC 1858, RFC 791: the last byte would be beyond 65535.
        one(Reason::BadFragment, "lan", lan().fragment(65528, false).protocol(17).payload(&[0; 64]).build()),
        one(Reason::BadTransport, "lan", patch(&lan().tcp(1, 2), 46, 0x40)),
        one(Reason::VlanTags, "lan", udp().vlan(10).vlan(1).vlan(2).build()),
    ]
}

fn link() -> Vec<Case> {
    let arp = |hardware: u8| {
        Packet::ethernet(HOST, "ff:ff:ff:ff:ff:ff").ether_type(0x0806).payload(&[
            0, hardware, 8, 0, 6, 4, 0, 1, 2, 0, 0, 0, 0, 10, 10, 1, 0, 2, 0, 0, 0, 0, 0, 0, 10, 1, 0, 1,
        ])
    };
    vec![
        one(Reason::UnknownVlan, "lan", to("10.2.0.2").vlan(99).build()),
        one(Reason::UnknownVlan, "lan", to("10.2.0.2").vlan(10).vlan(5).build()),
        // The same when a flow with one tag is known: the tag within is not part of its key.
        on(
            PLAIN,
            Reason::UnknownVlan,
            vec![
                ("lan", to("10.2.0.2").vlan(10).build()),
                ("lan", to("10.2.0.2").vlan(10).build()),
                ("lan", to("10.2.0.2").vlan(10).vlan(5).build()),
            ],
        ),
        one(Reason::ArpInvalid, "lan", arp(6).build()),
        one(
            Reason::NotForUs,
            "lan",
            Packet::ethernet(HOST, WAN).ipv4("10.1.0.2", "10.2.0.2").udp(1, 2).build(),
        ),
        // RFC 1812 section 5.3.4: an IP unicast packet in a link-level broadcast.
        one(
            Reason::NotForUs,
            "lan",
            Packet::ethernet(HOST, "ff:ff:ff:ff:ff:ff").ipv4("10.1.0.2", "10.1.0.1").udp(1, 2).build(),
        ),
        one(
            Reason::UnsupportedEtherType,
            "lan",
            Packet::ethernet(HOST, LAN).ether_type(0x88b5).payload(&[0; 46]).build(),
        ),
    ]
}

fn routing() -> Vec<Case> {
    let mut cases = vec![
        one(Reason::NoRoute, "lan", to("172.16.0.1").build()).told(3, 0),
        one(Reason::NoRoute, "lan", between6("2001:db8:1::2", "2001:db9::1").build()).told(1, 0),
        one(Reason::Blackhole, "lan", to("10.66.0.1").build()),
        one(Reason::Blackhole, "lan", between6("2001:db8:1::2", "2001:db8:66::1").build()),
        // RFC 1812 section 5.3.1, RFC 8200 section 3.
        one(Reason::TtlExpired, "lan", to("10.2.0.2").ttl(1).build()).told(11, 0),
        one(Reason::TtlExpired, "lan", to("10.2.0.2").ttl(0).build()).told(11, 0),
        one(Reason::TtlExpired, "lan", between6("2001:db8:1::2", "2001:db8:2::2").ttl(1).build()).told(3, 0),
        // RFC 1812 section 4.3.2.7: no error about an error.
        one(Reason::TtlExpired, "lan", lan().ttl(1).icmp(3, 1, [0; 4]).payload(&[0; 28]).build()),
        one(Reason::TtlExpired, "lan", lan().ttl(1).fragment(8, false).protocol(17).payload(&[0; 8]).build()),
        one(Reason::MulticastNotRouted, "lan", {
            Packet::ethernet(HOST, "01:00:5e:01:01:01").ipv4("10.1.0.2", "239.1.1.1").udp(1, 2).build()
        }),
        one(Reason::MulticastNotRouted, "lan", {
            Packet::ethernet(HOST, "33:33:00:00:00:99").ipv6("2001:db8:1::2", "ff0e::99").udp(1, 2).build()
        }),
        // RFC 2644: a directed broadcast.
        one(Reason::MulticastNotRouted, "lan", to("10.2.0.255").build()),
        one(Reason::FragmentationFailed, "blue", {
            let oversize = Packet::ethernet(HOST, BLUE).ipv4("10.3.0.2", "10.4.0.2").udp(1, 2);
            oversize.options(&[7, 0, 0, 0]).payload(&[0; 1460]).build()
        }),
    ];
    for martian in ["0.0.0.1", "127.0.0.1", "169.254.1.1", "240.0.0.1", "224.0.0.1", "255.255.255.255"] {
        cases.push(one(Reason::IpAddress, "lan", from(martian).build()));
    }
    for martian in ["0.0.0.1", "127.0.0.1", "169.254.1.1", "240.0.0.1"] {
        cases.push(one(Reason::IpAddress, "lan", to(martian).build()));
    }
    for martian in ["::1", "::", "fe80::7", "::ffff:10.1.0.2", "ff02::1"] {
        cases.push(one(Reason::IpAddress, "lan", between6(martian, "2001:db8:2::2").build()));
    }
    for martian in ["::1", "fe80::7", "::ffff:10.1.0.2"] {
        cases.push(one(Reason::IpAddress, "lan", between6("2001:db8:1::2", martian).build()));
    }
    cases
}

fn local() -> Vec<Case> {
    let mut echo = to("10.1.0.1").echo_request(1, 1).build();
    echo[36] ^= 0xff;
    let solicit = |hops| {
        let target: [u8; 16] = "2001:db8:1::1".parse::<std::net::Ipv6Addr>().unwrap().octets();
        between6("2001:db8:1::2", "2001:db8:1::1").icmp(135, 0, [0; 4]).ttl(hops).payload(&target).build()
    };
    let unknown = |port: u16| to("10.1.0.77").udp(port, 2).build();
    vec![
        one(Reason::NdInvalid, "lan", solicit(64)),
        one(Reason::IcmpInvalid, "lan", echo),
        one(Reason::LocalUnsupported, "lan", to("10.1.0.1").udp(1, 9).build()).told(3, 3),
        one(Reason::LocalUnsupported, "lan", between6("2001:db8:1::2", "2001:db8:1::1").build()).told(1, 4),
        one(
            Reason::LocalUnsupported,
            "lan",
            to("10.1.0.1").protocol(99).payload(&[0; 8]).sctp(1, 2, 3).build(),
        )
        .told(3, 2),
        // To the address of another interface; TTL is not looked at.
        one(Reason::LocalUnsupported, "lan", to("192.0.2.1").udp(1, 9).ttl(1).build()).told(3, 3),
        // RFC 4861 section 7.2.2: a small queue for each neighbour, here 64 packets.
        on(PLAIN, Reason::NeighbourQueueFull, (0..65).map(|port| ("wan", unknown(port))).collect())
            .with_mac(WAN),
        on(
            PLAIN,
            Reason::NeighbourTableFull,
            (2..4).map(|host| ("lan", to(&format!("10.2.0.{}", 100 + host)).build())).collect(),
        )
        .with("neighbours = 256", "neighbours = 15"),
    ]
}

impl Case {
    /// The same packets to another gateway.
    fn with_mac(mut self, gateway: &str) -> Self {
        let mac: weir_config::MacAddress = gateway.parse().unwrap();
        for (_, frame) in &mut self.frames {
            frame[..6].copy_from_slice(&mac.0);
        }
        self
    }
}

fn chained() -> Vec<Case> {
    let lan_to = |port| lan().udp(9, port).build();
    vec![
        on(CHAINED, Reason::FirewallDenied, vec![("lan", lan_to(9))]),
        // To weir itself: no classifier is asked, so no firewall denies it.
        on(CHAINED, Reason::LocalUnsupported, vec![("lan", to("10.1.0.1").udp(9, 9).build())]).told(3, 3),
        on(CHAINED, Reason::FirewallRejected, vec![("lan", lan_to(113))]).told(3, 13),
        on(CHAINED, Reason::FirewallRejected, vec![("lan", lan().tcp(9, 113).flags(SYN).build())]),
        on(CHAINED, Reason::FirewallNoSession, vec![("lan", lan().tcp(9, 80).flags(ACK).build())]),
        on(
            CHAINED,
            Reason::FragmentUnknown,
            vec![("lan", lan().fragment(8, false).protocol(17).payload(&[0; 8]).build())],
        ),
        on(CHAINED, Reason::Policed, (0..6).map(|_| ("lan", lan_to(53))).collect()),
        on(
            CHAINED,
            Reason::SessionTableFull,
            vec![("lan", lan().udp(1, 4000).build()), ("lan", lan().udp(2, 4001).build())],
        )
        .with("sessions = 512", "sessions = 1"),
        on(
            CHAINED,
            Reason::MeterTableFull,
            vec![("lan", lan_to(53)), ("lan", from("10.1.0.3").udp(9, 53).build())],
        )
        .with("meters = 256", "meters = 1"),
    ]
}

fn tunnelled(site: Site) -> Vec<Case> {
    let wan = |packet: Packet| vec![("wan", packet.build())];
    let outer = |vni| site.outer(vni, &inner().build());
    let mut not_valid = outer(100).build();
    let at = if site.v6 { 62 } else { 42 };
    not_valid[at] = 0;
    let mut wrong_sum = site.underlay().udp(0xc123, 4789).vxlan(100, &inner().build()).build();
    wrong_sum[at - 1] ^= 1;
    let stranger = if site.v6 {
        Packet::ethernet(VTEP, WAN).ipv6("2001:db8:f::9", "2001:db8:f::1")
    } else {
        Packet::ethernet(VTEP, WAN).ipv4("192.0.2.9", "192.0.2.1")
    };
    let stranger = stranger.udp(0xc123, 4789).without_checksum().vxlan(100, &inner().build());
    let tagged = Packet::ethernet(FAR, INNER).vlan(3).ipv4("10.4.0.2", "10.3.0.2").udp(1, 2);
    let tail = |len: usize| site.outer(100, &inner().build()[..len]);
    vec![
        on(site, Reason::VxlanMalformed, vec![("wan", not_valid)]),
        on(
            site,
            Reason::VxlanMalformed,
            wan(site.underlay().udp(0xc123, 4789).without_checksum().payload(&[8, 0, 0, 0])),
        ),
        on(site, Reason::VxlanUnknownVni, wan(outer(99))),
        on(site, Reason::VxlanUnknownRemote, wan(stranger)),
        on(site, Reason::VxlanChecksum, vec![("wan", wrong_sum)]),
        on(
            site,
            Reason::VxlanFragment,
            wan(site.outer(100, &inner().payload(&[0; 6]).build()).fragment(0, true)),
        ),
        on(
            site,
            Reason::VxlanFragment,
            wan(site.underlay().fragment(8, false).protocol(17).payload(&[0; 8])),
        ),
        on(site, Reason::VxlanInnerVlan, wan(site.outer(100, &tagged.build()))),
        on(site, Reason::VxlanInnerVlan, wan(site.outer(5001, &tagged.build()))),
        // RFC 7348 section 6.1: nor is one sent.
        on(site, Reason::VxlanInnerVlan, vec![("wire", bridged(HOST, OTHER).vlan(5).build())]),
        // RFC 6040 section 4.2.
        on(site, Reason::EcnNotCapable, wan(outer(100).traffic_class(3))),
        on(
            site,
            Reason::EcnNotCapable,
            wan(site.outer(5001, &bridged(HOST, OTHER).build()).traffic_class(3)),
        ),
        on(site, Reason::NotForUs, wan(site.outer(100, &bridged(HOST, OTHER).build()))),
        on(site, Reason::Truncated, wan(tail(13))),
        on(site, Reason::IpLength, wan(tail(35))),
        on(site, Reason::TtlExpired, wan(site.outer(100, &inner().ttl(1).build()))),
    ]
}

fn bridging() -> Vec<Case> {
    let outer = |remote: u8, inner: &Packet| {
        let source = std::net::Ipv4Addr::new(192, 0, 2, remote);
        let frame =
            Packet::ethernet(VTEP, WAN).ipv4(source, "192.0.2.1").udp(0xc123, 4789).without_checksum();
        ("wan", frame.vxlan(5000, &inner.build()).build())
    };
    let learned = || ("one", bridged(OTHER, "02:00:00:00:00:99").build());
    vec![
        one(Reason::BridgeReserved, "one", bridged(HOST, "01:80:c2:00:00:0e").build()),
        one(Reason::BridgeSource, "one", bridged("03:00:00:00:00:01", OTHER).build()),
        on(PLAIN, Reason::BridgeSameMember, vec![learned(), ("one", bridged(HOST, OTHER).build())]),
        on(
            PLAIN,
            Reason::BridgeSplitHorizon,
            vec![outer(2, &bridged(OTHER, HOST)), outer(3, &bridged(HOST, OTHER))],
        ),
        one(Reason::BridgeNoMember, "one", bridged(HOST, OTHER).build())
            .with("[port.two]\nmode = \"dedicated\"\nbridge = \"br\"", "[port.two]\nmode = \"dedicated\"")
            .with("[port.two.vlan.20]\nbridge = \"br\"", "[bridge.other]")
            .with("vni = 5000\nbridge = \"br\"", "vni = 5000\nbridge = \"other\""),
        on(
            PLAIN,
            Reason::PacketTooBig,
            vec![
                ("two", bridged(OTHER, HOST).build()),
                ("one", Packet::ethernet(HOST, OTHER).ether_type(0x88b5).payload(&[0; 1501]).build()),
            ],
        ),
    ]
}

/// What no packet brings about by itself: a device, memory or another worker has to fail, or a timer has to run out.
const BEYOND: [Reason; 10] = [
    Reason::InterfaceDown,
    // A hop loses its carrier, or swallows packets: see `hops`.
    Reason::HopDown,
    Reason::HopNoSession,
    Reason::NoHeadroom,
    Reason::TransmitQueueFull,
    Reason::HandoffQueueFull,
    Reason::NoFrames,
    Reason::NotConfigured,
    Reason::InternalError,
    Reason::TunnelLoop,
];

/// A translator between `lan` and `wan`.
fn translating(nat: &str, classify: &str) -> String {
    let chain = "[chain.out]\nhops = [\"out\"]\n";
    format!("{}[service.out.nat]\n{nat}\n{chain}[[classify]]\n{classify}\nchain = \"out\"\n", PLAIN.text())
}

fn translated() -> Vec<Case> {
    let case = |reason, nat: &str, frames| Case {
        reason,
        text: translating(nat, "from = \"port.lan\""),
        frames,
        told: None,
    };
    let one = "snat = { to = \"192.0.2.7\" }";
    let few = "snat = { to = \"192.0.2.7\", ports = \"4000-4001\" }";
    let udp = |source: u16, destination: u16| ("lan", lan().udp(source, destination).build());
    let outside = |source: &str, port: u16| {
        let packet = Packet::ethernet("02:00:00:00:02:02", WAN).ipv4(source, "192.0.2.7");
        ("wan", packet.udp(9, port).build())
    };
    // The way to this destination leaves by an interface without an IPv4 address.
    let bare = r#"
[port.bare]
mode = "dedicated"
addresses = ["2001:db8:7::1/64"]
[[vrf.default.route]]
prefix = "10.77.0.0/16"
via = { port = "bare" }
"#;
    let masquerade = "snat = { to = \"masquerade\" }";
    let mut unnumbered = case(Reason::NatNoAddress, masquerade, vec![("lan", to("10.77.0.1").build())]);
    unnumbered.text.push_str(bare);
    let clash = "dnat = [{ protocol = \"udp\", to = \"192.0.2.7\", to-port = 53, forward = \"10.2.0.2\" }]";
    vec![
        case(Reason::NatNoBinding, one, vec![outside("10.2.0.2", 4000)]),
        case(Reason::NatFiltered, one, vec![udp(4000, 53), outside("10.2.0.3", 4000)]),
        case(Reason::NatNoSession, one, vec![("lan", lan().tcp(4000, 80).flags(ACK).build())]),
        case(Reason::NatUntranslatable, one, vec![("lan", lan().protocol(47).payload(&[0; 8]).build())]),
        case(Reason::NatPortsExhausted, few, vec![udp(1, 53), udp(2, 53), udp(3, 53)]),
        case(Reason::NatHostLimit, &format!("{one}\nports-per-host = 1"), vec![udp(1, 53), udp(2, 53)]),
        case(Reason::NatTableFull, one, vec![udp(1, 53), udp(2, 53)])
            .with("nat-bindings = 512", "nat-bindings = 1"),
        // The same host, by its own address and by a forwarded one: the replies could not be told apart.
        case(
            Reason::SessionClash,
            clash,
            vec![udp(7, 53), {
                ("lan", Packet::ethernet(HOST, LAN).ipv4("10.1.0.2", "192.0.2.7").udp(7, 53).build())
            }],
        ),
        unnumbered,
    ]
}

fn hopped() -> Vec<Case> {
    let hop =
        "[port.arm]\nmode = \"dedicated\"\n[hop.ids]\nattach = \"arm\"\n[chain.out]\nhops = [\"ids\"]\n";
    let text = format!("{}{hop}[[classify]]\nfrom = \"port.lan\"\nchain = \"out\"\n", PLAIN.text());
    let case = |packet: Packet| Case {
        reason: Reason::HopStray,
        text: text.clone(),
        frames: vec![("arm", packet.build())],
        told: None,
    };
    vec![
        case(lan().udp(1, 2)),
        case(lan6().tcp(1, 2).flags(SYN)),
        case(lan().ttl(1).udp(1, 2)),
        case(Packet::ethernet(HOST, "01:80:c2:00:00:00").ether_type(39).payload(&[0x42, 0x42, 3, 0, 0])),
    ]
}

#[test]
fn each_kind_of_bad_packet_is_dropped_for_its_own_reason() {
    let mut seen = BTreeSet::from(BEYOND);
    let mut wrong = Vec::new();
    let groups = [
        malformed(),
        link(),
        routing(),
        local(),
        chained(),
        tunnelled(PLAIN),
        tunnelled(SIX),
        bridging(),
        translated(),
        hopped(),
    ];
    for (number, case) in groups.into_iter().flatten().enumerate() {
        let mut lab = Lab::new(&case.text);
        for (port, frame) in &case.frames {
            lab.inject(port, frame);
        }
        let dropped = lab.counters().dropped;
        if dropped != BTreeMap::from([(case.reason.name(), 1)]) {
            wrong.push(format!("case {number}: {} expected, but {dropped:?}", case.reason.name()));
        }
        seen.insert(case.reason);
        let sent = lab.take();
        sent.iter().for_each(|(_, frame)| assert_sound(frame));
        if let Some(kind) = case.told {
            match sent.as_slice() {
                [(port, frame)] if *port == case.frames[0].0 => assert_eq!(told(frame).kind, kind),
                other => wrong.push(format!("case {number}: no answer but {other:02x?}")),
            }
        } else if case.frames.len() == 1 && case.reason == Reason::TtlExpired && case.frames[0].0 == "lan" {
            assert!(sent.is_empty(), "nobody is told of an error about an error: {sent:02x?}");
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    // NeighbourUnreachable takes time and has a test of its own.
    seen.insert(Reason::NeighbourUnreachable);
    let missing: Vec<_> = Reason::ALL.iter().filter(|reason| !seen.contains(reason)).collect();
    assert!(missing.is_empty(), "no packet for {missing:?}");
}
