use proptest::prelude::*;

use crate::packet::builder::Packet;
use crate::packet::{PacketFlags, checksum, fragment_id, parse};

use super::*;

/// What a closer look has to find, from what the parser says.
pub(in crate::packet) fn parser_says(frame: &[u8], station: Station) -> Look {
    if frame.get(12..14).is_some_and(|kind| kind != [8, 0]) {
        return Look::Other;
    }
    let meta = match parse(frame) {
        Ok(meta) => meta,
        Err(malformed) => return Look::Malformed(malformed),
    };
    if meta.flags.intersects(PacketFlags::ETHER_GROUP | PacketFlags::IP_GROUP) {
        return Look::Other;
    }
    let number = |at: usize| u64::from_le_bytes(*frame[at..].first_chunk().unwrap());
    if !station.is(number(0)) {
        return Look::Foreign;
    }
    if meta.ttl <= 1 || is_odd_v4(frame[26]) || is_odd_v4(frame[30]) || meta.l3_len < 28 {
        return Look::Other;
    }
    let ports = [meta.source_port, meta.destination_port].map(|port| u32::from(port.to_be()));
    let plain = PlainV4 {
        addresses: number(26),
        ports: ports[0] | ports[1] << 16,
        total: meta.l3_len,
        class: meta.traffic_class,
        protocol: meta.protocol,
        turning: meta.tcp_flags & TURNING != 0,
    };
    let id = u16::from_be_bytes([frame[18], frame[19]]);
    assert!(fragment_id(frame, &meta).is_none_or(|of| of == u32::from(id)));
    Look::Odd(OddV4 { plain, fragment: meta.fragment, id })
}

const STATION: [u8; 6] = [2, 0, 0, 0, 1, 0];

fn looked_at(frame: &[u8]) -> Look {
    look_v4(frame, Station::new(weir_config::MacAddress(STATION)))
}

fn said(frame: &[u8]) -> Look {
    parser_says(frame, Station::new(weir_config::MacAddress(STATION)))
}

/// Of every kind that makes a difference.
fn packet(kind: u8, options: usize, fragment: Option<(u16, bool)>, len: usize) -> Vec<u8> {
    let packet = Packet::ethernet([2, 0, 0, 0, 1, 2], STATION).ipv4("10.1.0.2", "10.2.0.9");
    let packet = packet.options(&vec![1; options]).identification(0x1234);
    let packet = match fragment {
        Some((units, more)) => packet.fragment(units * 8, more),
        None => packet,
    };
    let packet = match kind {
        0 => packet.udp(4000, 443),
        1 => packet.tcp(4000, 443),
        2 => packet.tcp(4000, 443).flags(2),
        3 => packet.echo_request(7, 1),
        4 => packet.icmp(3, 4, [1, 2, 3, 4]),
        5 => packet.sctp(7, 8, 9),
        6 => packet.protocol(17),
        _ => packet.protocol(47),
    };
    packet.payload(&vec![7; len]).build()
}

fn mend(frame: &mut [u8]) {
    let len = usize::from(frame.get(14).copied().unwrap_or_default() & 15) * 4;
    if let Some(header) = frame.get_mut(14..14 + len.max(20)) {
        header[10..12].fill(0);
        let sum = checksum::checksum(header);
        header[10..12].copy_from_slice(&sum.to_be_bytes());
    }
}

#[test]
fn what_is_told_of_each_kind_is_what_the_parser_says() {
    let fragments =
        [None, Some((0, true)), Some((0, false)), Some((1, true)), Some((3, false)), Some((8191, false))];
    let mut found = [0; 4];
    for kind in 0..8 {
        for options in [0, 4, 20, 40] {
            for fragment in fragments {
                for len in [0, 3, 8, 24, 60] {
                    let whole = packet(kind, options, fragment, len);
                    for cut in 0..=whole.len() {
                        let look = looked_at(&whole[..cut]);
                        assert_eq!(look, said(&whole[..cut]), "{kind} {options} {fragment:?} {len} {cut}");
                        found[match look {
                            Look::Odd(_) => 0,
                            Look::Foreign => 1,
                            Look::Malformed(_) => 2,
                            Look::Other => 3,
                        }] += 1;
                    }
                }
            }
        }
    }
    assert!(found[0] > 500 && found[2] > 500, "{found:?}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4096))]

    /// Whatever is done to a packet, headers and lengths above all.
    #[test]
    fn a_closer_look_finds_what_the_parser_finds(
        (kind, options, len) in (0u8..8, 0usize..11, 0usize..40),
        fragment in prop_oneof![Just(None), (0u16..8192, any::<bool>()).prop_map(Some), any::<bool>().prop_map(|more| Some((0, more)))],
        changes in proptest::collection::vec((prop_oneof![4 => 12usize..50, 1 => 0usize..90], any::<u8>()), 0..4),
        (right, cut) in (prop_oneof![3 => Just(true), 1 => Just(false)], prop_oneof![3 => Just(0usize), 1 => 0usize..90]),
    ) {
        let mut frame = packet(kind, options * 4, fragment, len);
        for (at, value) in changes {
            if let Some(byte) = frame.get_mut(at) {
                *byte = value;
            }
        }
        if right {
            mend(&mut frame);
        }
        frame.truncate(frame.len().saturating_sub(cut));
        prop_assert_eq!(looked_at(&frame), said(&frame), "{:?}", frame);
    }

    /// A sum that is right comes in every form; one that is nearly right is none.
    #[test]
    fn a_wrong_checksum_is_found_behind_options_too(
        body in proptest::collection::vec(any::<u8>(), 40), options in 1usize..11, off in 1u16..,
    ) {
        let mut frame = packet(0, options * 4, None, 8);
        frame[34..34 + options * 4].copy_from_slice(&body[..options * 4]);
        mend(&mut frame);
        prop_assert!(matches!(looked_at(&frame), Look::Odd(_)));
        let sum = u16::from_be_bytes([frame[24], frame[25]]);
        let wrong = sum.wrapping_add(off);
        frame[24..26].copy_from_slice(&wrong.to_be_bytes());
        prop_assert_eq!(looked_at(&frame), said(&frame));
    }
}
