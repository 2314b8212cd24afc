//! The seeded flow hash: VXLAN source ports (RFC 7348 section 5) and equal-cost paths (RFC 2992).
//!
//! Folded multiplication: two 64-bit words, 128-bit product, halves XORed. The seed keeps outsiders from aiming.

use super::{FragmentKind, L3, Meta};

const A: u64 = 0x9e37_79b9_7f4a_7c15;
const B: u64 = 0xd6e8_feb8_6659_fd93;

/// Both halves of a product: each bit of either number moves all of them.
#[inline(always)]
pub(crate) const fn fold(a: u64, b: u64) -> u64 {
    let product = a as u128 * b as u128;
    product as u64 ^ (product >> 64) as u64
}

#[inline(always)]
const fn word(bytes: [u8; 8]) -> u64 {
    u64::from_le_bytes(bytes)
}

/// Hash of a packet's flow: addresses, protocol and ports. All fragments of a packet hash alike: addresses and
/// protocol only (over IPv6 addresses only, since only the first fragment names the protocol for sure, RFC 8200
/// section 4.5). What is not IP: MAC addresses and EtherType.
#[inline(always)]
pub fn flow_hash(frame: &[u8], meta: &Meta, seed: u64) -> u64 {
    let ports = match meta.fragment {
        FragmentKind::Whole => u64::from(meta.source_port) << 16 | u64::from(meta.destination_port),
        FragmentKind::First | FragmentKind::Later => 0,
    };
    let upper = u64::from(meta.protocol) << 32 | ports;
    let packet = frame.get(usize::from(meta.l3_offset)..).unwrap_or_default();
    match meta.l3 {
        L3::V4 => {
            let Some(header) = packet.first_chunk::<20>() else { return seed };
            let [.., a, b, c, d, e, f, g, h] = *header;
            finish(fold(word([a, b, c, d, e, f, g, h]) ^ seed ^ A, upper ^ B), seed)
        }
        L3::V6 => {
            let Some(header) = packet.first_chunk::<40>() else { return seed };
            let upper = if meta.fragment == FragmentKind::Whole { upper } else { 0 };
            let mut hash = upper ^ B;
            let mut key = seed ^ A;
            for pair in header.split_at(8).1.chunks_exact(16) {
                let (Some(low), Some(high)) = (pair.first_chunk(), pair.last_chunk()) else { continue };
                hash = fold(word(*low) ^ key, word(*high) ^ hash);
                key = key.rotate_left(29);
            }
            finish(hash, seed)
        }
        L3::Other | L3::Arp => {
            let Some(&[a, b, c, d, e, f, g, h, i, j, k, l, ..]) = frame.first_chunk::<14>() else {
                return seed;
            };
            let rest = u64::from(u32::from_le_bytes([i, j, k, l])) << 16 | u64::from(meta.ether_type);
            finish(fold(word([a, b, c, d, e, f, g, h]) ^ seed ^ A, rest ^ B), seed)
        }
    }
}

/// [`flow_hash`] of a whole IPv4 packet of TCP or UDP. `addresses` are source and destination as they stand in the header, read
/// as one little-endian number; `ports` the source port (high half) and the destination port.
#[inline(always)]
pub const fn flow_hash_v4(addresses: u64, protocol: u8, ports: u32, seed: u64) -> u64 {
    finish(fold(addresses ^ seed ^ A, ((protocol as u64) << 32 | ports as u64) ^ B), seed)
}

#[inline(always)]
const fn finish(hash: u64, seed: u64) -> u64 {
    fold(hash ^ B, seed ^ A | 1)
}

/// A tunnel's UDP source port for a flow: 49152 to 65535 (RFC 7348 section 5), from the low bits of the hash.
#[inline]
pub const fn source_port(hash: u64) -> u16 {
    0xc000 | (hash & 0x3fff) as u16
}

/// One of `n` equal-cost paths, below `n` (0 for `n` = 0), from the high bits of the hash.
#[inline]
pub const fn pick(hash: u64, n: usize) -> usize {
    ((hash as u128 * n as u128) >> 64) as usize
}

#[cfg(test)]
mod tests {
    use super::super::builder::Packet;
    use super::super::{Meta, parse};
    use super::*;

    fn hash(frame: &[u8]) -> u64 {
        flow_hash(frame, &parse(frame).unwrap(), 7)
    }

    fn udp(port: u16) -> Packet {
        Packet::ethernet([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]).ipv4("10.0.0.1", "10.0.0.2").udp(port, 53)
    }

    #[test]
    fn all_packets_of_a_flow_hash_alike_whatever_their_payload_and_ttl() {
        assert_eq!(hash(&udp(9).payload(b"a").build()), hash(&udp(9).ttl(3).payload(b"bcd").build()));
        assert_ne!(hash(&udp(9).build()), hash(&udp(10).build()));
    }

    #[test]
    fn all_fragments_of_a_packet_hash_alike() {
        let payload = [1u8; 64];
        let first = udp(9).fragment(0, true).payload(&payload).build();
        let later = udp(9).fragment(72, false).payload(&payload).build();
        assert_eq!(hash(&first), hash(&later));
        let v6 = |offset, more| {
            Packet::ethernet([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2])
                .ipv6("2001:db8::1", "2001:db8::2")
                .fragment(offset, more)
                .udp(1, 2)
                .payload(&payload)
                .build()
        };
        assert_eq!(hash(&v6(0, true)), hash(&v6(72, false)));
    }

    #[test]
    fn every_field_of_the_tuple_moves_the_hash() {
        let p = |a: &str, b: &str| Packet::ethernet([2; 6], [4; 6]).ipv6(a, b);
        let frames = [
            p("fd::1", "fd::2").udp(1, 2).build(),
            p("fd::2", "fd::1").udp(1, 2).build(),
            p("fd::1", "fd::2").udp(2, 1).build(),
            p("fd::1", "fd::2").tcp(1, 2).build(),
            p("fd::1", "fd:0:0:1::2").udp(1, 2).build(),
            Packet::ethernet([2; 6], [4; 6]).ether_type(0x88b5).build(),
            Packet::ethernet([2; 6], [4; 6]).ether_type(0x88b6).build(),
            Packet::ethernet([4; 6], [2; 6]).ether_type(0x88b6).build(),
        ];
        let mut hashes: Vec<u64> = frames.iter().map(|frame| hash(frame)).collect();
        hashes.sort_unstable();
        hashes.dedup();
        assert_eq!(hashes.len(), frames.len());
    }

    #[test]
    fn source_ports_and_paths_spread_evenly() {
        let mut ports = std::collections::HashSet::new();
        let mut paths = [0usize; 5];
        for port in 1..=5000 {
            let hash = hash(&udp(port).build());
            assert!(source_port(hash) >= 49152);
            ports.insert(source_port(hash));
            paths[pick(hash, 5)] += 1;
        }
        // 5000 balls into 16384 bins: about 4310 bins are hit.
        assert!(ports.len() > 4150, "{}", ports.len());
        assert!(paths.iter().all(|count| (880..1120).contains(count)), "{paths:?}");
    }

    #[test]
    fn bytes_that_do_not_fit_their_meta_do_no_harm() {
        let meta = Meta { l3: L3::V6, l3_offset: 60000, ..Meta::default() };
        assert_eq!(flow_hash(&[], &meta, 5), 5);
    }
}
