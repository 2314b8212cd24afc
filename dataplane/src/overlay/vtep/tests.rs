//! The VTEP table against packets, and against a linear search.

use proptest::prelude::*;

use super::*;
use crate::packet::builder::Packet;
use crate::packet::parse;

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn table() -> VtepTable {
    let entry = |local: &str, vni, scope, remotes: &[(&str, u16)], check_udp| VtepEntry {
        local: ip(local),
        udp_port: 4789,
        vni,
        scope: ScopeId(scope),
        remotes: remotes.iter().map(|(remote, endpoint)| (ip(remote), EndpointId(*endpoint))).collect(),
        check_udp,
    };
    VtepTable::new(&[
        entry("192.0.2.1", 100, 1, &[("192.0.2.2", 10), ("192.0.2.3", 11)], false),
        entry("192.0.2.1", 200, 2, &[("192.0.2.2", 12)], true),
        entry("2001:db8::1", 100, 3, &[("2001:db8::2", 13)], true),
    ])
}

fn inner() -> Vec<u8> {
    Packet::ethernet([6; 6], [8; 6]).ipv4("10.0.0.1", "10.0.0.2").udp(1, 2).build()
}

fn outer(source: &str, destination: &str) -> Packet {
    let packet = Packet::ethernet([2; 6], [4; 6]);
    let packet = match (ip(source), ip(destination)) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => packet.ipv4(source, destination),
        (IpAddr::V6(source), IpAddr::V6(destination)) => packet.ipv6(source, destination),
        _ => unreachable!(),
    };
    packet.udp(50000, 4789).vxlan(100, &inner())
}

fn look_up(frame: &[u8]) -> Option<Result<Decap, DropReason>> {
    table().lookup(frame, &parse(frame).unwrap())
}

#[test]
fn a_packet_of_a_configured_remote_is_for_its_tunnel() {
    let frame = outer("192.0.2.3", "192.0.2.1").traffic_class(0xbb).build();
    let decap = look_up(&frame).unwrap().unwrap();
    let expected = Decap {
        scope: ScopeId(1),
        endpoint: EndpointId(11),
        strip: 14 + 36,
        inner_len: inner().len(),
        outer_ecn: 3,
    };
    assert_eq!(decap, expected);
    assert_eq!(frame[decap.strip..], inner());

    let frame = outer("2001:db8::2", "2001:db8::1").vlan(5).build();
    let decap = look_up(&frame).unwrap().unwrap();
    assert_eq!((decap.scope, decap.endpoint, decap.strip), (ScopeId(3), EndpointId(13), 18 + 56));
}

#[test]
fn padding_behind_the_datagram_is_not_part_of_the_inner_frame() {
    let frame = outer("192.0.2.2", "192.0.2.1").pad_to(200).build();
    assert_eq!(look_up(&frame).unwrap().unwrap().inner_len, inner().len());
}

#[test]
fn what_is_not_for_a_vtep_is_left_alone() {
    assert_eq!(look_up(&outer("192.0.2.2", "192.0.2.9").build()), None, "another address");
    assert_eq!(look_up(&outer("192.0.2.2", "192.0.2.1").udp(50000, 53).build()), None, "another port");
    assert_eq!(look_up(&outer("192.0.2.2", "192.0.2.1").tcp(50000, 4789).build()), None, "another protocol");
    assert_eq!(look_up(&Packet::ethernet([2; 6], [4; 6]).ether_type(0x88cc).build()), None, "not IP");
    let frame = outer("192.0.2.2", "192.0.2.1").build();
    assert_eq!(VtepTable::new(&[]).lookup(&frame, &parse(&frame).unwrap()), None);
    assert!(VtepTable::new(&[]).is_empty());
    assert!(!table().is_empty());
}

#[test]
fn an_unknown_vni_an_unknown_remote_and_a_missing_i_flag_are_refused() {
    let vni = outer("192.0.2.2", "192.0.2.1").vxlan(101, &inner()).build();
    assert_eq!(look_up(&vni), Some(Err(DropReason::VxlanUnknownVni)));
    // 192.0.2.3 is a remote of VNI 100 only.
    let remote = outer("192.0.2.3", "192.0.2.1").vxlan(200, &inner()).build();
    assert_eq!(look_up(&remote), Some(Err(DropReason::VxlanUnknownRemote)));
    let flag = outer("192.0.2.2", "192.0.2.1").payload(&[0, 0, 0, 0, 0, 0, 100, 0, 1, 2]).build();
    assert_eq!(look_up(&flag), Some(Err(DropReason::VxlanMalformed)));
    let short = outer("192.0.2.2", "192.0.2.1").payload(&[8, 0, 0, 0, 0, 0, 100]).build();
    assert_eq!(look_up(&short), Some(Err(DropReason::VxlanMalformed)));
    // The UDP length ends before the VXLAN header does, though the packet goes on.
    let mut cut = outer("192.0.2.2", "192.0.2.1").build();
    cut[38..40].copy_from_slice(&15u16.to_be_bytes());
    assert_eq!(look_up(&cut), Some(Err(DropReason::VxlanMalformed)));
}

/// RFC 7348 section 4.3: a VTEP may drop fragments.
#[test]
fn fragments_for_a_vtep_are_refused_and_others_left_alone() {
    let first = outer("192.0.2.2", "192.0.2.1").payload(&[8; 64]).fragment(0, true).build();
    assert_eq!(look_up(&first), Some(Err(DropReason::VxlanFragment)));
    let later = outer("192.0.2.2", "192.0.2.1").fragment(1480, false).build();
    assert_eq!(look_up(&later), Some(Err(DropReason::VxlanFragment)));
    let elsewhere = outer("192.0.2.2", "192.0.2.9").fragment(1480, false).build();
    assert_eq!(look_up(&elsewhere), None);
    let other_port = outer("192.0.2.2", "192.0.2.1").udp(1, 53).payload(&[8; 64]).fragment(0, true).build();
    assert_eq!(look_up(&other_port), None);
}

/// RFC 7348 section 5, RFC 6935 section 5.
#[test]
fn a_zero_outer_checksum_is_accepted_and_a_wrong_one_refused_where_it_is_checked() {
    for (source, destination, vni) in [("192.0.2.2", "192.0.2.1", 200), ("2001:db8::2", "2001:db8::1", 100)] {
        let packet = outer(source, destination).vxlan(vni, &inner());
        assert!(look_up(&packet.build()).unwrap().is_ok());
        let mut wrong = packet.build();
        let last = wrong.len() - 1;
        wrong[last] ^= 1;
        assert_eq!(look_up(&wrong), Some(Err(DropReason::VxlanChecksum)));
        assert!(look_up(&packet.without_checksum().build()).unwrap().is_ok());
    }
    let mut unchecked = outer("192.0.2.2", "192.0.2.1").build();
    let last = unchecked.len() - 1;
    unchecked[last] ^= 1;
    assert!(look_up(&unchecked).unwrap().is_ok());
}

#[test]
fn endpoints_of_one_path_are_found_together_whatever_their_vni() {
    let table = table();
    let path = |vni| table.path(ip("192.0.2.1"), ip("192.0.2.2"), 4789, vni);
    assert_eq!(path(None), [EndpointId(10), EndpointId(12)]);
    assert_eq!(path(Some(200)), [EndpointId(10), EndpointId(12)]);
    assert!(path(Some(300)).is_empty());
    assert!(table.path(ip("192.0.2.1"), ip("192.0.2.9"), 4789, None).is_empty());
    assert!(table.path(ip("192.0.2.1"), ip("192.0.2.2"), 4790, None).is_empty());
}

proptest! {
    /// The slow twin: a linear search over the entries.
    #[test]
    fn the_table_equals_a_linear_search(
        entries in proptest::collection::vec(
            (0..4u8, 0..2u16, 0..6u32, proptest::collection::btree_set(0..5u8, 0..4)), 0..24),
        packets in proptest::collection::vec((0..6u8, 0..5u8, 0..3u16, 0..8u32), 1..30),
    ) {
        let local = |n: u8| IpAddr::from(if n % 2 == 0 { [192, 0, 2, n] } else { [198, 51, 100, n] });
        let remote = |n: u8| IpAddr::from([203, 0, 113, n]);
        let entries: Vec<VtepEntry> = entries
            .into_iter()
            .enumerate()
            .map(|(index, (n, port, vni, remotes))| VtepEntry {
                local: local(n),
                udp_port: 4789 + port,
                vni,
                scope: ScopeId(index as u16),
                remotes: remotes.into_iter().map(|n| (remote(n), EndpointId(index as u16 * 8 + u16::from(n)))).collect(),
                check_udp: false,
            })
            .collect();
        let table = VtepTable::new(&entries);
        for (n, from, port, vni) in packets {
            let frame = outer(&remote(from).to_string(), &local(n).to_string())
                .udp(50000, 4789 + port)
                .vxlan(vni, &inner())
                .build();
            let mut ours = entries.iter().filter(|entry| entry.local == local(n) && entry.udp_port == 4789 + port);
            let expected = ours.clone().next().map(|_| {
                let entry = ours.find(|entry| entry.vni == vni).ok_or(DropReason::VxlanUnknownVni)?;
                let (_, endpoint) = entry
                    .remotes
                    .iter()
                    .find(|(ip, _)| *ip == remote(from))
                    .ok_or(DropReason::VxlanUnknownRemote)?;
                Ok((entry.scope, *endpoint))
            });
            let got = table.lookup(&frame, &parse(&frame).unwrap());
            prop_assert_eq!(got.map(|got| got.map(|decap| (decap.scope, decap.endpoint))), expected);
        }
    }

    /// The slow twin of what a path's headers say: the look-up.
    #[test]
    fn the_headers_of_a_path_are_those_that_the_look_up_takes(
        (vni, remote) in prop_oneof![Just((100, "192.0.2.2")), Just((100, "192.0.2.3")), Just((200, "192.0.2.2"))],
        damage in proptest::collection::vec((26usize..50, any::<u8>()), 0..3),
        sum in prop_oneof![3 => Just(0u16), 1 => any::<u16>()],
        (other_vni, other) in prop_oneof![4 => Just((100, "192.0.2.2")), 1 => Just((200, "192.0.2.2"))],
    ) {
        let build = |vni, remote: &str| outer(remote, "192.0.2.1").vxlan(vni, &inner()).build();
        let plain_of = |frame: &[u8]| {
            let mut ports = [0; 4];
            ports.copy_from_slice(&frame[34..38]);
            let mut addresses = [0; 8];
            addresses.copy_from_slice(&frame[26..34]);
            PlainV4 {
                addresses: u64::from_le_bytes(addresses),
                ports: u32::from_le_bytes(ports),
                total: 0,
                class: 0,
                protocol: protocol::UDP,
                turning: false,
            }
        };
        let (table, first) = (table(), {
            let mut frame = build(vni, remote);
            frame[40..42].fill(0);
            frame
        });
        let mut known = None;
        let of_path = table.lookup_plain(&first, &plain_of(&first), &mut known).unwrap();
        let path = PathHeaders::of(&first, &plain_of(&first), &known.unwrap()).unwrap();
        for same in [true, false] {
            let mut frame = if same { build(vni, remote) } else { build(other_vni, other) };
            frame[40..42].copy_from_slice(&sum.to_be_bytes());
            for (at, value) in &damage {
                frame[*at] = *value;
            }
            let expected = table.lookup_plain(&frame, &plain_of(&frame), &mut None);
            let expected = expected.filter(|decap| decap.endpoint == of_path.endpoint);
            prop_assert_eq!(path.inner_len(&frame, &plain_of(&frame)), expected.map(|decap| decap.inner_len));
        }
    }

    #[test]
    fn damaged_packets_never_panic_and_what_is_accepted_lies_within_the_frame(
        damage in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        cut in any::<prop::sample::Index>(),
        six in any::<bool>(),
    ) {
        let packet = if six { outer("2001:db8::2", "2001:db8::1") } else { outer("192.0.2.2", "192.0.2.1") };
        let mut frame = packet.build();
        let meta = parse(&frame).unwrap();
        // The meta of the whole packet, with other bytes behind it: worse than what can happen.
        for (at, value) in damage {
            let at = at.index(frame.len());
            frame[at] = value;
        }
        frame.truncate(cut.index(frame.len() + 1));
        if let Some(Ok(decap)) = table().lookup(&frame, &meta) {
            prop_assert!(decap.strip + decap.inner_len <= frame.len());
        }
    }
}
