//! Packets too big for a tunnel, fragments, what the underlay teaches of its path, and the errors that routers owe.
#![allow(missing_docs, clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::collections::BTreeMap;

use common::Lab;
use common::site::{BLUE, FAR, HOST, INNER, LAN, OTHER, PLAIN, SIX, Site, WAN};
use common::sound::{assert_sound, told};
use weir_dataplane::packet::builder::Packet;
use weir_dataplane::packet::tcp_flags::{ACK, SYN};

/// From the host in `blue` to the far end of the tunnel: an IPv4 packet of `len` bytes.
fn four(len: usize) -> Packet {
    Packet::ethernet(HOST, BLUE).ipv4("10.3.0.2", "10.4.0.2").udp(4000, 4001).payload(&vec![7; len - 28])
}

/// The same over IPv6.
fn six(len: usize) -> Packet {
    let packet = Packet::ethernet(HOST, BLUE).ipv6("2001:db8:3::2", "2001:db8:4::2");
    packet.udp(4000, 4001).payload(&vec![7; len - 48])
}

impl Site {
    /// Bytes of a frame in front of the inner Ethernet frame.
    fn outer_len(self) -> usize {
        self.overhead()
    }
}

/// The largest IP packet that `make` gets through, by what the sender is told of a larger one.
fn learned(lab: &mut Lab, make: impl Fn(usize) -> Packet) -> Option<u16> {
    lab.inject("blue", &make(1500).build());
    match lab.take().as_slice() {
        [(port, frame)] if port == "blue" => Some(told(frame).mtu),
        _ => None,
    }
}

#[test]
fn a_sender_learns_the_exact_mtu_of_a_tunnel() {
    // RFC 1191 section 4, RFC 4459 section 3.1: 1500 less 50 over IPv4, less 70 over IPv6.
    for (site, mtu) in [(PLAIN, 1450), (SIX, 1430)] {
        let mut lab = Lab::new(&site.text());
        for (fits, over) in
            [(four(mtu).dont_fragment(), four(mtu + 1).dont_fragment()), (six(mtu), six(mtu + 1))]
        {
            let over = over.build();
            lab.inject("blue", &over);
            let sent = lab.take();
            assert_eq!(sent.len(), 1);
            assert_eq!(sent[0].0, "blue");
            let error = told(&sent[0].1);
            assert_eq!(usize::from(error.mtu), mtu);
            let v6 = over[12..14] == [0x86, 0xdd];
            assert_eq!(error.kind, if v6 { (2, 0) } else { (3, 4) });
            let (from, to) = if v6 { ("2001:db8:3::1", "2001:db8:3::2") } else { ("10.3.0.1", "10.3.0.2") };
            assert_eq!(error.source, from.parse::<std::net::IpAddr>().unwrap());
            assert_eq!(error.destination, to.parse::<std::net::IpAddr>().unwrap());
            // As much as 576 bytes over IPv4 and 1280 over IPv6 leave room for.
            let room = if v6 { 1280 - 48 } else { 576 - 28 };
            assert_eq!(error.quote, over[14..14 + room]);
            lab.inject("blue", &fits.build());
            let sent = lab.take();
            assert_eq!(sent.len(), 1);
            assert_eq!((sent[0].0.as_str(), sent[0].1.len()), ("wan", 1514), "fills the underlay exactly");
            assert_sound(&sent[0].1);
            assert_sound(&sent[0].1[site.outer_len()..]);
        }
        assert_eq!(lab.counters().dropped, BTreeMap::from([("packet_too_big", 2)]));
    }
}

#[test]
fn a_bridged_sender_learns_the_mtu_of_the_tunnel_too() {
    for (site, mtu) in [(PLAIN, 1450), (SIX, 1430)] {
        let mut lab = Lab::new(&site.text());
        let answer = Packet::ethernet(OTHER, HOST).ipv4("10.5.0.2", "10.5.0.1").udp(2, 1);
        lab.inject("wan", &site.outer(5000, &answer.build()).build());
        lab.take();
        let big = Packet::ethernet(HOST, OTHER).ipv4("10.5.0.1", "10.5.0.2").dont_fragment().udp(1, 2);
        lab.inject("one", &big.clone().payload(&vec![0; mtu + 1 - 28]).build());
        let sent = lab.take();
        assert_eq!(sent.len(), 1);
        assert_eq!(sent[0].0, "one");
        assert_eq!(sent[0].1[..6], [2, 0, 0, 0, 0, 0x0a], "to the sender's own address");
        let error = told(&sent[0].1);
        assert_eq!((error.kind, usize::from(error.mtu)), ((3, 4), mtu));
        lab.inject("one", &big.payload(&vec![0; mtu - 28]).build());
        let sent = lab.take();
        assert_eq!((sent.len(), sent[0].0.as_str(), sent[0].1.len()), (1, "wan", 1514));
    }
}

#[test]
fn a_sender_to_an_unknown_station_learns_the_mtu_as_well() {
    let mut lab = Lab::new(&PLAIN.text());
    let to = |mac| {
        let big = Packet::ethernet(HOST, mac).ipv4("10.5.0.1", "10.5.0.2").dont_fragment().udp(1, 2);
        big.payload(&[0; 1451 - 28]).build()
    };
    // Flooded to two members of the bridge domain, and too big for each of the two remote VTEPs.
    lab.inject("one", &to(OTHER));
    let sent = lab.take();
    let (errors, copies): (Vec<_>, Vec<_>) = sent.iter().partition(|(port, _)| port == "one");
    assert_eq!((errors.len(), copies.len()), (2, 2));
    for (_, frame) in errors {
        let error = told(frame);
        assert_eq!((error.kind, error.mtu), ((3, 4), 1450));
        assert_eq!(error.source, "10.5.0.2".parse::<std::net::IpAddr>().unwrap());
    }
    // RFC 1812 section 4.3.2.7: nothing about a link-level broadcast.
    lab.inject("one", &to("ff:ff:ff:ff:ff:ff"));
    let sent = lab.take();
    assert_eq!(sent.len(), 2, "the copies that fit: {sent:02x?}");
    assert_eq!(lab.counters().dropped, BTreeMap::from([("packet_too_big", 4)]));
}

#[test]
fn a_router_tells_the_mtu_of_the_next_link() {
    let text = PLAIN.text().replacen("[port.wan]", "[port.wan]\nmtu = 1400", 1);
    let mut lab = Lab::new(&text);
    let packet = |len: usize| {
        let packet = Packet::ethernet(HOST, LAN).ipv4("10.1.0.2", "10.2.0.2").dont_fragment();
        packet.udp(1, 2).payload(&vec![0; len - 28]).build()
    };
    lab.inject("lan", &packet(1401));
    lab.inject("lan", &packet(1400));
    let sent = lab.take();
    assert_eq!((sent.len(), sent[0].0.as_str(), sent[1].0.as_str()), (2, "lan", "wan"));
    let error = told(&sent[0].1);
    assert_eq!((error.kind, error.mtu), ((3, 4), 1400));
}

#[test]
fn fragments_into_a_tunnel_make_the_packet_again() {
    // RFC 791 section 3.2: DF is clear, so the inner packet is cut; the outer never is (RFC 7348 section 4.3).
    for site in [PLAIN, SIX] {
        let mut lab = Lab::new(&site.text());
        let payload: Vec<u8> = (0..1472u32).map(|n| n as u8).collect();
        let packet = four(1500).identification(77).payload(&payload).build();
        for _ in 0..2 {
            lab.inject("blue", &packet);
            let sent = lab.take();
            assert_eq!(sent.len(), 2);
            let mut data = Vec::new();
            for (at, (port, frame)) in sent.iter().enumerate() {
                assert_eq!(port, "wan");
                assert!(frame.len() <= 1514);
                assert_sound(frame);
                let inner = &frame[site.outer_len()..];
                assert_eq!(
                    inner[..14],
                    [[2, 0, 0, 0, 4, 1], [2, 0, 0, 0, 4, 0]].concat()[..]
                        .iter()
                        .copied()
                        .chain([8, 0])
                        .collect::<Vec<_>>()[..]
                );
                let ip = &inner[14..];
                assert_eq!(ip[4..6], [0, 77]);
                assert_eq!(ip[8], 63, "one hop");
                let field = u16::from_be_bytes([ip[6], ip[7]]);
                assert_eq!(usize::from(field & 0x1fff) * 8, data.len());
                assert_eq!(field & 0x2000 != 0, at == 0, "more fragments but for the last");
                data.extend_from_slice(&ip[20..]);
            }
            assert_eq!(data, packet[34..]);
        }
        let counters = lab.counters();
        assert_eq!((counters.received, counters.originated, counters.transmitted), (2, 2, 4));
    }
}

/// "Too big" from a router of the underlay, about an outer packet that weir sent.
fn underlay_error(site: Site, outer: &[u8], mtu: u16) -> Vec<u8> {
    let [a, b] = mtu.to_be_bytes();
    let quote = &outer[14..14 + if site.v6 { 600 } else { 56 }];
    if site.v6 {
        let router = Packet::ethernet("02:00:00:00:00:99", WAN).ipv6("2001:db8:ffff::9", "2001:db8:f::1");
        router.icmp(2, 0, [0, 0, a, b]).payload(quote).build()
    } else {
        let router = Packet::ethernet("02:00:00:00:00:99", WAN).ipv4("198.51.100.9", "192.0.2.1");
        router.icmp(3, 4, [0, 0, a, b]).payload(quote).build()
    }
}

#[test]
fn what_the_underlay_teaches_is_forgotten_after_ten_minutes() {
    // RFC 1191 section 6.3, RFC 8201 section 4, RFC 4459 section 3.2.
    for (site, mtu, learns) in [(PLAIN, 1450, 1350), (SIX, 1430, 1330)] {
        let mut lab = Lab::new(&site.text());
        let large = four(mtu).dont_fragment().build();
        lab.inject("blue", &large);
        let sent = lab.take();
        assert_eq!(sent.len(), 1);
        lab.inject("wan", &underlay_error(site, &sent[0].1, 1400));
        assert_eq!(lab.counters().consumed, 1);
        assert!(lab.take().is_empty());
        // The flow is cached, and follows all the same.
        lab.inject("blue", &large);
        let sent = lab.take();
        assert_eq!((sent.len(), sent[0].0.as_str(), told(&sent[0].1).mtu), (1, "blue", learns));
        assert_eq!(learned(&mut lab, six), Some(learns), "all packets to that VTEP");
        // The flow never rests, so its program is not simply forgotten.
        for _ in 0..119 {
            lab.wait_ms(5_000);
            lab.inject("blue", &four(100).build());
        }
        lab.take();
        assert_eq!(learned(&mut lab, |len| four(len).dont_fragment()), Some(learns), "after 595 seconds");
        lab.wait_ms(6_000);
        assert_eq!(learned(&mut lab, |len| four(len).dont_fragment()), Some(mtu as u16), "after 601 seconds");
        lab.inject("blue", &large);
        assert_eq!(lab.take()[0].0, "wan");
    }
}

#[test]
fn a_jump_of_the_clock_forgets_as_well() {
    let mut lab = Lab::new(&PLAIN.text());
    lab.inject("blue", &four(1450).dont_fragment().build());
    let sent = lab.take();
    lab.inject("wan", &underlay_error(PLAIN, &sent[0].1, 1000));
    assert_eq!(learned(&mut lab, |len| four(len).dont_fragment()), Some(950));
    lab.wait_ms(2 * 3600 * 1000);
    lab.take();
    assert_eq!(learned(&mut lab, |len| four(len).dont_fragment()), Some(1450));
}

#[test]
fn an_error_about_a_packet_that_weir_cannot_have_sent_teaches_nothing() {
    // RFC 5927 section 7.
    let mut lab = Lab::new(&PLAIN.text());
    lab.inject("blue", &four(1450).dont_fragment().build());
    let outer = lab.take().remove(0).1;
    let forge = |at: usize, value: u8| {
        let mut forged = outer.clone();
        forged[at] = value;
        underlay_error(PLAIN, &forged, 1000)
    };
    // Another source, remote, protocol, source port, destination port, VNI; and DF clear.
    for (at, value) in [(29, 9), (33, 9), (23, 6), (34, 1), (36, 0), (48, 1), (20, 0)] {
        lab.inject("wan", &forge(at, value));
        lab.take();
        assert_eq!(learned(&mut lab, |len| four(len).dont_fragment()), Some(1450), "byte {at}");
    }
    // No larger than before, and not below the floor.
    lab.inject("wan", &underlay_error(PLAIN, &outer, 1501));
    assert_eq!(learned(&mut lab, |len| four(len).dont_fragment()), Some(1450));
    lab.inject("wan", &underlay_error(PLAIN, &outer, 68));
    assert_eq!(learned(&mut lab, |len| four(len).dont_fragment()), Some(576 - 50));
    assert_eq!(learned(&mut lab, six), Some(1280), "never below 1280 (RFC 8200 section 5)");
}

#[test]
fn a_ttl_that_runs_out_is_told_from_the_address_towards_the_sender() {
    let mut lab = Lab::new(&PLAIN.text());
    let packet = Packet::ethernet(HOST, LAN).ipv4("10.1.0.2", "10.2.0.2").ttl(1).udp(1, 2).payload(b"hello");
    lab.inject("lan", &packet.build());
    let (port, frame) = lab.take().remove(0);
    let error = told(&frame);
    assert_eq!((port.as_str(), error.kind), ("lan", (11, 0)));
    assert_eq!(error.source, "10.1.0.1".parse::<std::net::IpAddr>().unwrap());
    assert_eq!(error.quote, packet.build_network());
}

#[test]
fn errors_go_back_through_the_tunnel_that_the_packet_came_from() {
    for site in [PLAIN, SIX] {
        let mut lab = Lab::new(&site.text());
        let inner = Packet::ethernet(FAR, INNER).ipv4("10.4.0.2", "10.3.0.2").ttl(1).udp(1, 2);
        lab.inject("wan", &site.outer(100, &inner.build()).build());
        let (port, frame) = lab.take().remove(0);
        assert_eq!(port, "wan");
        assert_sound(&frame);
        let error = told(&frame[site.outer_len()..]);
        assert_eq!(error.kind, (11, 0));
        assert_eq!(error.source, "10.255.0.1".parse::<std::net::IpAddr>().unwrap());
        assert_eq!(error.quote, inner.build_network());
    }
}

#[test]
fn errors_are_limited_to_the_rate() {
    // RFC 1812 section 4.3.2.8.
    let mut lab = Lab::new(&PLAIN.text().replacen("[limits]", "[limits]\nicmp-errors-per-second = 5", 1));
    let packet = Packet::ethernet(HOST, LAN).ipv4("10.1.0.2", "10.2.0.2").ttl(1).udp(1, 2).build();
    for _ in 0..20 {
        lab.inject("lan", &packet);
    }
    assert_eq!((lab.take().len(), lab.counters().icmp_limited), (5, 15));
    lab.wait_ms(400);
    lab.inject("lan", &packet);
    lab.inject("lan", &packet);
    lab.inject("lan", &packet);
    assert_eq!(lab.take().len(), 2);
    assert_eq!(lab.counters().dropped, BTreeMap::from([("ttl_expired", 23)]));
}

/// RFC 9293 section 3.7.1: whoever sends into the tunnel learns by the handshake what fits, though no ICMP error reach him.
#[test]
fn where_it_is_configured_syns_tell_a_segment_size_that_fits_both_ways() {
    const OFFERED: u16 = 1460;
    let syn = |packet: Packet, flags| packet.tcp(9, 80).flags(flags).tcp_options(&[2, 4, 0x05, 0xb4]).build();
    let told = |frame: &[u8], v6: bool| {
        assert_sound(frame);
        let at = if v6 { 76 } else { 56 };
        u16::from_be_bytes([frame[at], frame[at + 1]])
    };
    for (site, mtu, clamps) in [(PLAIN, 1450, true), (SIX, 1430, true), (PLAIN, 1450, false)] {
        let mut text = site.text();
        if clamps {
            text = text.replace("vni = 100\n", "vni = 100\nmss-clamp = true\n");
            text = text.replace("vni = 5000\n", "vni = 5000\nmss-clamp = true\n");
        }
        let fits = |headers: u16| if clamps { mtu - headers } else { OFFERED };
        let mut lab = Lab::new(&text);
        // By a walk, and then by replay.
        for _ in 0..2 {
            lab.inject("blue", &syn(Packet::ethernet(HOST, BLUE).ipv4("10.3.0.2", "10.4.0.2"), SYN));
            lab.inject(
                "blue",
                &syn(Packet::ethernet(HOST, BLUE).ipv6("2001:db8:3::2", "2001:db8:4::2"), SYN),
            );
            let answer = syn(Packet::ethernet(FAR, INNER).ipv4("10.4.0.2", "10.3.0.2"), SYN | ACK);
            lab.inject("wan", &site.outer(100, &answer).build());
            let sent = lab.take();
            let ports: Vec<_> = sent.iter().map(|(port, _)| port.as_str()).collect();
            assert_eq!(ports, ["wan", "wan", "blue"]);
            assert_eq!(told(&sent[0].1[site.outer_len()..], false), fits(40));
            assert_eq!(told(&sent[1].1[site.outer_len()..], true), fits(60));
            assert_eq!(told(&sent[2].1, false), fits(40));
            // The host on `one` is known once it has sent something.
            lab.inject("one", &syn(Packet::ethernet(HOST, OTHER).ipv4("10.5.0.1", "10.5.0.2"), ACK));
            lab.take();
            let answer = syn(Packet::ethernet(OTHER, HOST).ipv4("10.5.0.2", "10.5.0.1"), SYN | ACK);
            lab.inject("wan", &site.outer(5000, &answer).build());
            lab.inject("one", &syn(Packet::ethernet(HOST, OTHER).ipv4("10.5.0.1", "10.5.0.2"), SYN));
            lab.inject("one", &syn(Packet::ethernet(HOST, OTHER).ipv4("10.5.0.1", "10.5.0.2"), ACK));
            let sent = lab.take();
            let inner = |at: usize| &sent[at].1[site.outer_len()..];
            assert_eq!(sent.iter().map(|(port, _)| port.as_str()).collect::<Vec<_>>(), ["one", "wan", "wan"]);
            assert_eq!(told(&sent[0].1, false), fits(40));
            assert_eq!(told(inner(1), false), fits(40));
            assert_eq!(told(inner(2), false), OFFERED, "not a SYN");
        }
    }
}

/// What is kept with a route is done to packets of all interfaces; how large a segment may be, the one that a SYN came by says.
#[test]
fn a_syn_out_of_a_tunnel_tells_what_fits_whoever_took_its_route_before() {
    let text = PLAIN.text().replace("vni = 100\n", "vni = 100\nmss-clamp = true\n");
    let mut lab = Lab::new(&format!(
        "{text}{}{}",
        "[[vrf.blue.route]]\nprefix = \"10.5.0.0/16\"\nvia = { ip = \"10.3.0.2\" }\n",
        "[[vrf.blue.route]]\nprefix = \"2001:db8:5::/48\"\nvia = { ip = \"2001:db8:3::2\" }\n",
    ));
    let syn = |packet: Packet| {
        let packet = packet.tcp(80, 9).flags(SYN | ACK).tcp_options(&[2, 4, 0x05, 0xb4]);
        packet.build()
    };
    for (from, far, to, option) in
        [("10.3.0.2", "10.4.0.2", "10.5.0.9", 56), ("2001:db8:3::2", "2001:db8:4::2", "2001:db8:5::9", 76)]
    {
        let packet = |source: &str, destination: &str, from: &str| {
            let frame = Packet::ethernet(source, destination);
            if option == 56 { frame.ipv4(from, to) } else { frame.ipv6(from, to) }
        };
        let own = packet(HOST, BLUE, from);
        let inner = syn(packet(FAR, INNER, far));
        let size = |frame: &[u8]| {
            assert_sound(frame);
            u16::from_be_bytes([frame[option], frame[option + 1]])
        };
        let headers = if option == 56 { 40 } else { 60 };
        // Each of them first, and each after the other.
        for _ in 0..3 {
            lab.inject("blue", &own.clone().udp(1, 2).build());
            lab.inject("wan", &PLAIN.outer(100, &inner).build());
            lab.inject("blue", &syn(own.clone()));
            let sent = lab.take();
            let ports: Vec<_> = sent.iter().map(|(port, _)| port.as_str()).collect();
            assert_eq!(ports, ["blue", "blue", "blue"]);
            assert_eq!((size(&sent[1].1), size(&sent[2].1)), (1450 - headers, 1460));
        }
        // Others of the connection are not looked at.
        let later = packet(FAR, INNER, far).tcp(80, 9).flags(ACK).tcp_options(&[2, 4, 0x05, 0xb4]).build();
        let frames = [&PLAIN.outer(100, &inner).build()[..], &PLAIN.outer(100, &later).build()];
        let mut sizes = Vec::new();
        lab.engine.receive("wan", &frames, |_, frame| sizes.push(size(frame)));
        assert_eq!(sizes, [1450 - headers, 1460]);
    }
}

/// RFC 4443 section 2.4 (e.3) would let a sender learn the MTU of a group's path; but whoever is only bridged would have to be
/// told from the group's address, which is nobody's to send from (RFC 4291 section 2.7).
#[test]
fn nobody_is_told_from_the_address_of_a_group() {
    let group = "33:33:00:00:00:01";
    let large = |to: &str, ip: &str| {
        let packet = Packet::ethernet(HOST, to).ipv6("2001:db8:5::1", ip).udp(1, 2);
        packet.payload(&[0; 1451 - 48]).build()
    };
    for (site, port) in [(PLAIN, "wire"), (PLAIN, "one"), (SIX, "wire"), (SIX, "one")] {
        let mut lab = Lab::new(&site.text());
        let answer = Packet::ethernet(OTHER, HOST).ipv6("2001:db8:5::2", "2001:db8:5::1").udp(2, 1);
        lab.inject("wan", &site.outer(5000, &answer.build()).build());
        lab.take();
        for to in [group, OTHER] {
            lab.inject(port, &large(to, "ff0e::1"));
            let sent = lab.take();
            assert!(sent.iter().all(|(sent, _)| sent != port), "{port}, {to}: {sent:02x?}");
        }
        lab.inject(port, &large(OTHER, "2001:db8:5::2"));
        assert_eq!(told(&lab.take()[0].1).kind, (2, 0), "from one to one");
    }
}

/// IEEE 802.3 clause 3.2.8: padding belongs to the frame, and no frame is longer than what it goes by takes.
#[test]
fn padding_makes_no_bridged_frame_longer_than_its_path_takes() {
    for (site, mtu) in [(PLAIN, 1450), (SIX, 1430)] {
        let mut lab = Lab::new(&site.text().replacen("[port.two]", "[port.two]\nmtu = 1400", 1));
        let third = "02:00:00:00:00:0c";
        let answer = Packet::ethernet(OTHER, HOST).ipv4("10.5.0.2", "10.5.0.1").udp(2, 1);
        lab.inject("wan", &site.outer(5000, &answer.build()).build());
        lab.inject("two", &Packet::ethernet(third, HOST).ipv4("10.5.0.3", "10.5.0.1").udp(2, 1).build());
        lab.take();
        // Over IPv4 plain, over IPv4 and not, over IPv6; whether the sender lets it be cut or not.
        let packets = |to: &str| {
            let frame = Packet::ethernet(HOST, to);
            let four = frame.clone().ipv4("10.5.0.1", "10.5.0.2");
            [
                four.clone().udp(1, 2),
                four.clone().dont_fragment().udp(1, 2),
                four.echo_request(1, 2),
                frame.ipv6("2001:db8:5::1", "2001:db8:5::2").udp(1, 2),
            ]
        };
        for (to, port, outer, fits) in [(third, "two", 0, 1414), (OTHER, "wan", site.outer_len(), mtu + 14)] {
            for packet in packets(to) {
                // By a walk, and then by replay.
                for _ in 0..2 {
                    for (padded, len) in [(fits, fits), (fits + 1, packet.build().len())] {
                        lab.inject("one", &packet.clone().pad_to(padded).build());
                        let sent = lab.take();
                        assert_eq!((sent.len(), sent[0].0.as_str()), (1, port), "{sent:02x?}");
                        assert_eq!(sent[0].1.len() - outer, len);
                        assert_sound(&sent[0].1[outer..]);
                    }
                }
            }
        }
        assert_eq!(lab.counters().dropped, BTreeMap::new());
    }
}
