//! Any bytes as a frame: the parser, and everything that trusts what it found.
#![no_main]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use weir_dataplane::decision::{EndpointId, ScopeId};
use weir_dataplane::overlay::{VtepEntry, VtepTable, underlay_error};
use weir_dataplane::packet::{L3, checksum, ecn, edit, hash, parse, parse_into, protocol};

const HERE: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
const THERE: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 2));
const HERE_6: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1));
const THERE_6: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 2));

static VTEPS: LazyLock<VtepTable> = LazyLock::new(|| {
    let entry = |local, remote, index| VtepEntry {
        local,
        udp_port: 4789,
        vni: 100,
        scope: ScopeId(index),
        remotes: vec![(remote, EndpointId(index))],
        check_udp: true,
    };
    VtepTable::new(&[entry(HERE, THERE, 0), entry(HERE_6, THERE_6, 1)])
});

fuzz_target!(|bytes: &[u8]| {
    let mut frame = bytes.to_vec();
    // Few random headers have a right checksum: correct it, so that what is behind it is reached.
    repair(&mut frame);
    for _ in 0..2 {
        let Ok(meta) = parse(&frame) else { return };
        let mut in_place = meta;
        assert_eq!(parse_into(&frame, &mut in_place), Ok(()));
        assert_eq!(in_place, meta);
        assert!(meta.end() <= frame.len());
        assert!(usize::from(meta.l4_offset) <= frame.len());
        if meta.is_ip() {
            assert!(usize::from(meta.l4_offset) <= meta.end());
        }
        let _ = hash::flow_hash(&frame, &meta, 1);
        let _ = checksum::verify_transport(&frame, &meta);
        let _ = underlay_error(&frame, &meta, &VTEPS);
        edits(&frame, &meta);
        // What a tunnel carries is a frame again.
        match VTEPS.lookup(&frame, &meta) {
            Some(Ok(decap)) => {
                assert!(decap.strip + decap.inner_len <= frame.len());
                frame.truncate(decap.strip + decap.inner_len);
                frame.drain(..decap.strip);
            }
            _ => return,
        }
    }
});

/// Edits keep a packet a packet: it parses again, as the same kind.
fn edits(frame: &[u8], meta: &weir_dataplane::packet::Meta) {
    let mut edited = frame.to_vec();
    let (source, destination) = if meta.l3 == L3::V6 { (HERE_6, THERE_6) } else { (HERE, THERE) };
    edit::decrement_ttl(&mut edited, meta);
    ecn::set_ecn(&mut edited, meta, 3);
    edit::set_source(&mut edited, meta, source, 7);
    edit::set_destination(&mut edited, meta, destination, 9);
    let again = parse(&edited).expect("an edited packet is a packet");
    assert_eq!((again.l3, again.l3_len, again.l4_offset), (meta.l3, meta.l3_len, meta.l4_offset));
    assert_eq!((again.protocol, again.fragment), (meta.protocol, meta.fragment));
    // A right transport checksum stays right, a wrong one wrong; but for an ICMP message that is zero all over, checksum
    // included, which sums to the other zero of ones' complement and is mended.
    let (before, after) = (checksum::verify_transport(frame, meta), checksum::verify_transport(&edited, &again));
    if meta.protocol != protocol::ICMP || before == Some(true) {
        assert_eq!(after, before);
    }
    checksum::fill_transport(&mut edited, &again);
    assert_ne!(checksum::verify_transport(&edited, &again), Some(false));
}

fn repair(frame: &mut [u8]) {
    let header_len = match frame {
        [_, _, _, _, _, _, _, _, _, _, _, _, 8, 0, first, ..] => usize::from(*first & 15) * 4,
        _ => return,
    };
    let Some(header) = frame.get_mut(14..14 + header_len.max(20)) else { return };
    header[10..12].fill(0);
    let sum = checksum::checksum(header);
    header[10..12].copy_from_slice(&sum.to_be_bytes());
}
