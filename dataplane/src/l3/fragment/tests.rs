use proptest::prelude::*;

use super::*;
use crate::packet::builder::Packet;
use crate::packet::parse;

fn packet() -> Packet {
    Packet::ethernet("02:00:00:00:00:09", "02:00:00:00:00:01")
        .ipv4("10.1.0.9", "10.2.0.9")
        .identification(0x1234)
}

fn data(len: usize) -> Vec<u8> {
    (0..len).map(|n| (n * 7 % 251) as u8).collect()
}

fn cut(packet: &[u8], mtu: u16) -> Result<Vec<Vec<u8>>, NotFragmented> {
    let mut pieces = Vec::new();
    let count = fragment(packet, mtu, |piece| pieces.push(piece.to_vec()))?;
    assert_eq!(count, pieces.len());
    Ok(pieces)
}

/// Puts the data back together and checks what RFC 791 section 3.2 says of each fragment; the first offset and the last MF.
fn reassemble(pieces: &[Vec<u8>], mtu: u16) -> (Vec<u8>, u16, bool) {
    let headers: Vec<_> = pieces.iter().map(|piece| ipv4::Header::read(piece).unwrap()).collect();
    let (first, last) = (headers[0], *headers.last().unwrap());
    let mut data = Vec::new();
    for (piece, header) in pieces.iter().zip(&headers) {
        let frame = [&[0; 12][..], &[8, 0], piece].concat();
        assert!(parse(&frame).is_ok(), "{:?}", parse(&frame));
        assert!(piece.len() <= usize::from(mtu));
        assert_eq!(piece.len(), usize::from(header.total_len));
        assert_eq!(usize::from(header.fragment_offset - first.fragment_offset), data.len());
        assert_eq!(
            (header.identification, header.ttl, header.protocol, header.source, header.destination),
            (first.identification, first.ttl, first.protocol, first.source, first.destination)
        );
        data.extend_from_slice(&piece[usize::from(header.header_len)..]);
    }
    assert!(headers[..headers.len() - 1].iter().all(|header| header.more_fragments));
    (data, first.fragment_offset, last.more_fragments)
}

#[test]
fn a_packet_that_fits_stays_whole() {
    let whole = packet().udp(1, 2).payload(&data(100)).dont_fragment().build_network();
    assert_eq!(cut(&whole, 128), Ok(vec![whole.clone()]));
}

/// RFC 791 section 3.2, the example procedure.
#[test]
fn fragments_reassemble_to_the_original() {
    let whole = packet().udp(1, 2).payload(&data(3000)).build_network();
    let pieces = cut(&whole, 1500).unwrap();
    assert_eq!(pieces.iter().map(Vec::len).collect::<Vec<_>>(), [1500, 1500, 68]);
    assert_eq!(reassemble(&pieces, 1500), (whole[20..].to_vec(), 0, false));
}

/// RFC 1191 section 3: that is what the too-big error is for.
#[test]
fn a_packet_with_df_is_not_fragmented() {
    let whole = packet().udp(1, 2).payload(&data(2000)).dont_fragment().build_network();
    assert_eq!(cut(&whole, 1500), Err(NotFragmented::DontFragment));
}

#[test]
fn an_mtu_without_room_for_8_bytes_is_refused() {
    let whole = packet().udp(1, 2).payload(&data(2000)).build_network();
    assert_eq!(cut(&whole, 27), Err(NotFragmented::MtuTooSmall));
    assert_eq!(cut(&whole, 0), Err(NotFragmented::MtuTooSmall));
    assert!(cut(&whole, 28).is_ok());
}

/// RFC 791 section 3.1: an option without the copied flag is in the first fragment only.
#[test]
fn options_are_copied_as_their_flag_says() {
    let record_route = [7, 7, 4, 0, 0, 0, 0];
    let router_alert = [0x94, 4, 0, 0];
    let options = [&[1][..], &record_route, &router_alert].concat();
    let whole = packet().options(&options).udp(1, 2).payload(&data(200)).build_network();
    let pieces = cut(&whole, 100).unwrap();
    assert_eq!(pieces[0][20..32], whole[20..32]);
    for later in &pieces[1..] {
        assert_eq!((later[0], &later[20..24]), (0x46, &router_alert[..]));
    }
    assert_eq!(reassemble(&pieces, 100).0, whole[32..]);
}

#[test]
fn broken_options_are_refused() {
    for options in [[0x94, 0, 0, 0], [0x94, 1, 0, 0], [0x94, 9, 0, 0], [1, 1, 1, 0x94]] {
        let whole = packet().options(&options).udp(1, 2).payload(&data(200)).build_network();
        assert_eq!(cut(&whole, 100), Err(NotFragmented::Malformed), "{options:?}");
    }
    assert_eq!(cut(&[], 100), Err(NotFragmented::Malformed));
    assert_eq!(cut(&[0x45; 19], 100), Err(NotFragmented::Malformed));
}

#[test]
fn a_fragment_is_cut_further() {
    let middle = packet().udp(1, 2).payload(&data(800)).fragment(1600, true).build_network();
    let pieces = cut(&middle, 300).unwrap();
    assert_eq!(reassemble(&pieces, 300), (middle[20..].to_vec(), 1600, true));
}

proptest! {
    #[test]
    fn fragments_always_reassemble(
        len in 0usize..9000, mtu in 68u16..2000, nops in 0usize..=40, offset in 0u16..100, more: bool,
    ) {
        let len = if more { len & !7 } else { len };
        let options = vec![1; nops];
        let fragmented = offset > 0 || more;
        let described = packet().options(&options).protocol(200).payload(&data(len));
        let described = if fragmented { described.fragment(offset * 8, more) } else { described };
        let whole = described.build_network();
        let header_len = usize::from(whole[0] & 15) * 4;
        let pieces = cut(&whole, mtu).unwrap();
        let (data, first, last) = reassemble(&pieces, mtu);
        prop_assert_eq!(&data[..], &whole[header_len..]);
        prop_assert_eq!((first, last), (offset * 8, more));
        // No more fragments than needed, but for the multiple of 8.
        let room = (usize::from(mtu) - header_len) & !7;
        prop_assert!(pieces.len() <= len.div_ceil(room).max(1));
    }
}
