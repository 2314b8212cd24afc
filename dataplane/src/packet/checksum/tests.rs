//! Checksums against a naive reference.

use proptest::prelude::*;

use super::super::builder::Packet;
use super::super::parse;
use super::*;

/// RFC 1071 section 4.1, one word at a time.
fn naive(bytes: &[u8]) -> u16 {
    let mut sum = 0u32;
    for pair in bytes.chunks(2) {
        sum += u32::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]));
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

/// Whether two checksums mean the same: 0 and 0xffff both are zero in ones' complement.
fn same(a: u16, b: u16) -> bool {
    a == b || (a.min(b) == 0 && a.max(b) == 0xffff)
}

#[test]
fn the_example_of_rfc_1071_section_3_holds() {
    assert_eq!(sum(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]), 0xddf2);
}

#[test]
fn the_example_of_rfc_1624_section_4_gives_zero_not_ffff() {
    // HC = 0xDD2F, a field changes from 0x5555 to 0x3285: equation 3 gives 0x0000 (equation 2 would give 0xFFFF).
    assert_eq!(update16(0xdd2f, 0x5555, 0x3285), 0x0000);
}

#[test]
fn all_zero_and_all_one_bytes_sum_as_rfc_1071_says() {
    for len in [0, 1, 2, 20, 31, 32, 33, 64, 1500] {
        assert_eq!(sum(&vec![0; len]), 0, "{len} zero bytes");
        assert_eq!(sum(&vec![0xff; len]), naive(&vec![0xff; len]), "{len} bytes of ones");
    }
}

#[test]
fn a_change_from_all_ones_to_all_zeros_and_back_is_followed() {
    for (old, new) in [(0u16, 0xffffu16), (0xffff, 0), (0, 0), (0xffff, 0xffff)] {
        for fixed in [0x0001u16, 0x1234, 0xfffe, 0xffff] {
            let before = checksum(&[old.to_be_bytes(), fixed.to_be_bytes()].concat());
            let after = checksum(&[new.to_be_bytes(), fixed.to_be_bytes()].concat());
            assert!(same(update16(before, old, new), after), "{old:04x} -> {new:04x} beside {fixed:04x}");
        }
    }
}

#[test]
fn a_udp_checksum_of_zero_is_sent_as_ffff() {
    assert_eq!(udp(0), 0xffff);
    assert_eq!(udp(1), 1);
    // A payload that makes the sum 0xffff, so the checksum 0 (RFC 768).
    let packet = |payload: [u8; 2]| {
        Packet::ethernet([2; 6], [4; 6]).ipv4("10.0.0.1", "10.0.0.2").udp(1, 2).payload(&payload)
    };
    let bare = packet([0, 0]).build();
    let frame = packet([bare[40], bare[41]]).build();
    assert_eq!(frame[40..42], [0xff, 0xff]);
    assert_eq!(verify_transport(&frame, &parse(&frame).unwrap()), Some(true));
}

#[test]
fn a_udp_checksum_that_was_not_sent_counts_as_right() {
    let frame =
        Packet::ethernet([2; 6], [4; 6]).ipv4("10.0.0.1", "10.0.0.2").udp(1, 2).without_checksum().build();
    assert_eq!(verify_transport(&frame, &parse(&frame).unwrap()), Some(true));
}

fn any_transport() -> impl Strategy<Value = Packet> {
    let base = prop_oneof![
        any::<([u8; 4], [u8; 4])>().prop_map(|(a, b)| {
            Packet::ethernet([2; 6], [4; 6]).ipv4(Ipv4Addr::from(a), Ipv4Addr::from(b))
        }),
        any::<([u8; 16], [u8; 16])>().prop_map(|(a, b)| {
            Packet::ethernet([2; 6], [4; 6]).ipv6(Ipv6Addr::from(a), Ipv6Addr::from(b))
        }),
    ];
    (base, 0..3, any::<(u16, u16)>(), proptest::collection::vec(any::<u8>(), 0..80)).prop_map(
        |(packet, kind, (a, b), payload)| {
            let packet = match kind {
                0 => packet.tcp(a, b),
                1 => packet.udp(a, b),
                _ => packet.echo_request(a, b),
            };
            packet.payload(&payload)
        },
    )
}

#[test]
fn headers_whose_words_carry_everywhere_or_nowhere_are_summed_right() {
    for a in [0x00, 0x01, 0x7f, 0x80, 0xff] {
        for b in [0x00, 0x01, 0x7f, 0x80, 0xff] {
            for at in 0..20 {
                let mut header = [a; 20];
                header[at..].fill(b);
                assert_eq!(sum_header(&header), naive(&header), "{header:?}");
            }
        }
    }
}

proptest! {
    #[test]
    fn sums_equal_the_naive_ones(bytes in proptest::collection::vec(any::<u8>(), 0..2000)) {
        prop_assert_eq!(sum(&bytes), naive(&bytes));
        if let Some(header) = bytes.first_chunk::<20>() {
            prop_assert_eq!(sum_header(header), naive(header));
        }
    }

    #[test]
    fn a_sum_in_pieces_equals_the_sum_of_the_whole(
        bytes in proptest::collection::vec(any::<u8>(), 0..200),
        cuts in proptest::collection::vec(any::<prop::sample::Index>(), 0..5),
    ) {
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
        cuts.extend([0, bytes.len()]);
        cuts.sort_unstable();
        let pieces = cuts.windows(2).fold(Sum::new(), |sum, cut| sum.bytes(&bytes[cut[0]..cut[1]]));
        prop_assert!(same(pieces.value(), naive(&bytes)));
    }

    #[test]
    fn incremental_updates_equal_a_full_recomputation(
        mut bytes in proptest::collection::vec(prop_oneof![Just(0u8), Just(0xff), any::<u8>()], 2..200),
        at in any::<prop::sample::Index>(),
        new in proptest::collection::vec(prop_oneof![Just(0u8), Just(0xff), any::<u8>()], 0..40),
    ) {
        let before = checksum(&bytes);
        let at = at.index(bytes.len());
        let len = new.len().min(bytes.len() - at);
        let old = bytes[at..at + len].to_vec();
        bytes[at..at + len].copy_from_slice(&new[..len]);
        let updated = update_bytes(before, &old, &new[..len], at % 2 == 1);
        prop_assert!(same(updated, checksum(&bytes)));
    }

    #[test]
    fn word_updates_equal_byte_updates(sum in any::<u16>(), old in any::<u32>(), new in any::<u32>()) {
        prop_assert!(same(
            update32(sum, old, new),
            update_bytes(sum, &old.to_be_bytes(), &new.to_be_bytes(), false)
        ));
        let (old, new) = (old as u16, new as u16);
        prop_assert_eq!(update16(sum, old, new), update_bytes(sum, &old.to_be_bytes(), &new.to_be_bytes(), false));
    }

    #[test]
    fn transport_checksums_verify_and_a_flipped_bit_does_not(
        packet in any_transport(),
        at in any::<prop::sample::Index>(),
        bit in 0..8u8,
    ) {
        let frame = packet.build();
        let meta = parse(&frame).unwrap();
        prop_assert_eq!(verify_transport(&frame, &meta), Some(true));

        let mut filled = frame.clone();
        prop_assert!(fill_transport(&mut filled, &meta));
        prop_assert_eq!(&filled, &frame);

        // A flip in the payload, or in the ports: a single bit never keeps the sum.
        let mut flipped = frame.clone();
        let l4 = usize::from(meta.l4_offset);
        let at = if meta.protocol == protocol::UDP { l4 + at.index(4) } else { l4 + at.index(frame.len() - l4) };
        flipped[at] ^= 1 << bit;
        prop_assert_eq!(verify_transport(&flipped, &meta), Some(false));
    }
}
