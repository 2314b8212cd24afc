//! What is written is read again, and too few bytes are refused.

use proptest::prelude::*;

use super::*;

/// Writes into exactly `len` bytes, reads back, and sees one byte less refused both ways.
fn round_trip<T: PartialEq + std::fmt::Debug>(
    value: &T,
    len: usize,
    write: impl Fn(&T, &mut [u8]) -> Option<()>,
    read: impl Fn(&[u8]) -> Option<T>,
) {
    let mut bytes = vec![0xa5; len];
    assert_eq!(write(value, &mut bytes), Some(()));
    assert_eq!(read(&bytes).as_ref(), Some(value));
    assert_eq!(read(&bytes[..len - 1]), None);
    assert_eq!(write(value, &mut bytes[..len - 1]), None);
}

proptest! {
    #[test]
    fn headers_are_read_as_they_were_written(
        macs in any::<[[u8; 6]; 2]>(),
        v4 in any::<[[u8; 4]; 2]>(),
        v6 in any::<[[u8; 16]; 2]>(),
        words in any::<[u16; 5]>(),
        longs in any::<[u32; 2]>(),
        bytes in any::<[u8; 4]>(),
        bits in any::<[bool; 2]>(),
    ) {
        let value = ethernet::Header {
            destination: MacAddress(macs[0]),
            source: MacAddress(macs[1]),
            ether_type: words[0],
        };
        round_trip(&value, ethernet::LEN, ethernet::Header::write, ethernet::Header::read);

        let mut value = ipv4::Header {
            header_len: 20,
            traffic_class: bytes[0],
            total_len: words[0],
            identification: words[1],
            dont_fragment: bits[0],
            more_fragments: bits[1],
            fragment_offset: words[2] & 0xfff8,
            ttl: bytes[1],
            protocol: bytes[2],
            checksum: 0,
            source: v4[0].into(),
            destination: v4[1].into(),
        };
        // The checksum is computed by the writer.
        let mut written = [0; 20];
        value.write(&mut written).unwrap();
        value.checksum = ipv4::Header::read(&written).unwrap().checksum;
        prop_assert_eq!(super::super::checksum::sum_header(&written), 0xffff);
        round_trip(&value, ipv4::LEN, ipv4::Header::write, ipv4::Header::read);

        let value = ipv6::Header {
            traffic_class: bytes[0],
            flow_label: longs[0] & 0xf_ffff,
            payload_len: words[0],
            next_header: bytes[1],
            hop_limit: bytes[2],
            source: v6[0].into(),
            destination: v6[1].into(),
        };
        round_trip(&value, ipv6::LEN, ipv6::Header::write, ipv6::Header::read);

        let value =
            udp::Header { source_port: words[0], destination_port: words[1], len: words[2], checksum: words[3] };
        round_trip(&value, udp::LEN, udp::Header::write, udp::Header::read);

        let value = tcp::Header {
            source_port: words[0],
            destination_port: words[1],
            sequence: longs[0],
            acknowledgment: longs[1],
            header_len: bytes[0] & 0x3c,
            flags: bytes[1],
            window: words[2],
            checksum: words[3],
            urgent: words[4],
        };
        round_trip(&value, tcp::LEN, tcp::Header::write, tcp::Header::read);

        let value = icmp::Header { kind: bytes[0], code: bytes[1], checksum: words[0], rest: v4[0] };
        round_trip(&value, icmp::LEN, icmp::Header::write, icmp::Header::read);

        let value = arp::Packet {
            operation: words[0],
            sender_mac: MacAddress(macs[0]),
            sender_ip: v4[0].into(),
            target_mac: MacAddress(macs[1]),
            target_ip: v4[1].into(),
        };
        round_trip(&value, arp::LEN, arp::Packet::write, arp::Packet::read);

        let value = vxlan::Header { vni_valid: bits[0], vni: longs[0] >> 8 };
        round_trip(&value, vxlan::LEN, vxlan::Header::write, vxlan::Header::read);
    }
}

#[test]
fn headers_of_another_version_or_medium_are_not_read() {
    let mut bytes = [0u8; 40];
    bytes[0] = 0x55;
    assert_eq!(ipv4::Header::read(&bytes), None);
    assert_eq!(ipv6::Header::read(&bytes), None);
    // ARP for a medium that is not Ethernet.
    bytes[..8].copy_from_slice(&[0, 6, 8, 0, 6, 4, 0, 1]);
    assert_eq!(arp::Packet::read(&bytes), None);
}
