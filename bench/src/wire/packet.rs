//! Builds the packets of a stream, and prepares captured ones: pattern in the payload, room for a signature at the end, checksums
//! that hold whatever the signature says.

use std::net::IpAddr;

use etherparse::{
    Ethernet2Header, IpHeaders, IpNumber, Ipv4Header, Ipv6Header, PacketBuilder, PacketBuilderStep,
    SlicedPacket, TransportSlice, VlanId,
};
use weir_config::MacAddress;

use super::signature::{self, LENGTH};
use super::stream::{Protocol, Stream, Tuple};

/// IANA's port for VXLAN.
const VXLAN_PORT: u16 = 4789;

/// A packet without its signature: zeros stand in its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Template {
    pub(crate) bytes: Vec<u8>,
    /// Payload bytes in front of the signature, which follow the pattern.
    pub(crate) filled: usize,
}

/// The packet of a stream's flow in `size` bytes, tunnel headers on top of that.
///
/// # Errors
/// When headers and signature do not fit.
pub(crate) fn build(stream: &Stream, flow: u32, size: usize) -> Result<Template, String> {
    let tuple = stream.tuple(flow);
    let inner_macs = stream.vxlan.as_ref().map_or((stream.source_mac, stream.destination_mac), |vxlan| {
        (
            vxlan.source_mac.unwrap_or(stream.source_mac),
            vxlan.destination_mac.unwrap_or(stream.destination_mac),
        )
    });
    // The outermost frame has the VLAN tag.
    let inner_vlan = stream.vlan.filter(|_| stream.vxlan.is_none());
    let headers = overhead(&tuple, stream.protocol, inner_vlan.is_some());
    let payload = size.checked_sub(headers).filter(|payload| *payload >= LENGTH).ok_or_else(|| {
        format!(
            "stream.{}: {size} bytes are too few for {headers} bytes of headers and a signature of {LENGTH}",
            stream.name
        )
    })?;
    let filled = payload - LENGTH;
    let mut body = vec![0; payload];
    signature::fill(&mut body, filled);
    let bytes = frame(inner_macs, inner_vlan, &tuple, stream.ttl, stream.protocol, &body)?;
    let Some(vxlan) = &stream.vxlan else { return Ok(Template { bytes, filled }) };
    // RFC 7348, section 5: flags with the I bit, VNI; the source port carries the flow's entropy.
    let mut body = (0x0800_0000u32).to_be_bytes().to_vec();
    body.extend((vxlan.vni << 8).to_be_bytes());
    body.extend(&bytes);
    let outer = Tuple {
        source: vxlan.source,
        destination: vxlan.destination,
        source_port: 49_152 + (flow % 16_384) as u16,
        destination_port: VXLAN_PORT,
    };
    let macs = (stream.source_mac, stream.destination_mac);
    let bytes = frame(macs, stream.vlan, &outer, 64, Protocol::Udp, &body)?;
    Ok(Template { bytes, filled })
}

fn overhead(tuple: &Tuple, protocol: Protocol, vlan: bool) -> usize {
    let ip = if tuple.source.is_ipv4() { Ipv4Header::MIN_LEN } else { Ipv6Header::LEN };
    let transport = match protocol {
        Protocol::Udp => 8,
        Protocol::Tcp => 20,
    };
    Ethernet2Header::LEN + if vlan { 4 } else { 0 } + ip + transport
}

fn frame(
    (source, destination): (MacAddress, MacAddress),
    vlan: Option<u16>,
    tuple: &Tuple,
    ttl: u8,
    protocol: Protocol,
    payload: &[u8],
) -> Result<Vec<u8>, String> {
    let ethernet = PacketBuilder::ethernet2(source.0, destination.0);
    let ip = headers(tuple, ttl)?;
    let builder = match vlan {
        Some(vlan) => ethernet.single_vlan(VlanId::try_new(vlan).map_err(|e| e.to_string())?).ip(ip),
        None => ethernet.ip(ip),
    };
    transport(builder, tuple, protocol, payload)
}

fn headers(tuple: &Tuple, ttl: u8) -> Result<IpHeaders, String> {
    // Length and protocol are filled in when the packet is written.
    match (tuple.source, tuple.destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            let header = Ipv4Header::new(0, ttl, IpNumber::UDP, source.octets(), destination.octets());
            Ok(IpHeaders::Ipv4(header.map_err(|e| e.to_string())?, Default::default()))
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            let header = Ipv6Header {
                hop_limit: ttl,
                source: source.octets(),
                destination: destination.octets(),
                ..Default::default()
            };
            Ok(IpHeaders::Ipv6(header, Default::default()))
        }
        (source, destination) => Err(format!("{source} and {destination} are not of one family")),
    }
}

fn transport(
    builder: PacketBuilderStep<IpHeaders>,
    tuple: &Tuple,
    protocol: Protocol,
    payload: &[u8],
) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    let (from, to) = (tuple.source_port, tuple.destination_port);
    let written = match protocol {
        Protocol::Udp => builder.udp(from, to).write(&mut bytes, payload),
        Protocol::Tcp => builder.tcp(from, to, 1, 0xffff).ack(1).write(&mut bytes, payload),
    };
    written.map_err(|error| error.to_string())?;
    Ok(bytes)
}

/// Makes a test packet of a captured one: its UDP or TCP payload becomes pattern and signature. `None` if it has no such payload of
/// at least 18 bytes, or is a fragment.
pub(crate) fn adopt(captured: &[u8]) -> Option<Template> {
    let (start, kept, checksum, udp) = {
        let packet = SlicedPacket::from_ethernet(captured).ok()?;
        if packet.is_ip_payload_fragmented() {
            return None;
        }
        let (payload, header, field, used) = match packet.transport? {
            TransportSlice::Udp(udp) => (udp.payload(), 8, 6, udp.checksum() != 0),
            TransportSlice::Tcp(tcp) => (tcp.payload(), tcp.header_slice().len(), 16, true),
            _ => return None,
        };
        let start = (payload.as_ptr() as usize).checked_sub(captured.as_ptr() as usize)?;
        (start, payload.len(), used.then_some((start - header) + field), field == 6)
    };
    let filled = kept.checked_sub(LENGTH)?;
    // Ethernet padding goes: the signature stands at the end.
    let mut bytes = captured.get(..start + kept)?.to_vec();
    let before = signature::sum(bytes.get(start..)?);
    bytes.get_mut(start..)?.fill(0);
    signature::fill(&mut bytes, filled);
    let after = signature::sum(bytes.get(start..)?);
    if let Some(field) = checksum {
        // RFC 1624, equation 3. A payload starts at an even distance from its header.
        let old = u16::from_be_bytes(bytes.get(field..field + 2)?.try_into().ok()?);
        let sum = u32::from(!old) + u32::from(!before) + u32::from(after);
        let sum = (sum & 0xffff) + (sum >> 16);
        let new = !(((sum & 0xffff) + (sum >> 16)) as u16);
        // In UDP zero says that there is none.
        let new = if udp && new == 0 { 0xffff } else { new };
        bytes.get_mut(field..field + 2)?.copy_from_slice(&new.to_be_bytes());
    }
    Some(Template { bytes, filled })
}

#[cfg(test)]
mod tests {
    use etherparse::{PacketHeaders, TransportHeader};
    use proptest::prelude::*;

    use super::super::signature::Signature;
    use super::super::stream;
    use super::*;

    fn stream(more: &str, source: &str, destination: &str) -> Stream {
        let text = format!(
            "[stream.a]\nsource-mac = \"02:00:00:00:0a:01\"\ndestination-mac = \"02:00:00:00:0d:01\"\n\
             source = \"{source}\"\ndestination = \"{destination}\"\n{more}"
        );
        stream::parse(&text).unwrap().remove(0)
    }

    fn sign(template: &mut Template, sequence: u32) {
        let signature = Signature { run: 3, stream: 1, sequence, time: 123_456_789 };
        let at = template.bytes.len() - LENGTH;
        template.bytes[at..].copy_from_slice(&signature.encode());
    }

    /// Whether the checksum of layer 4 is right, computed afresh.
    fn right_checksum(packet: &[u8]) -> bool {
        let headers = PacketHeaders::from_ethernet_slice(packet).unwrap();
        let payload = headers.payload.slice();
        let net = headers.net.unwrap();
        match (headers.transport.unwrap(), net.ipv4_ref(), net.ipv6_ref()) {
            (TransportHeader::Udp(udp), Some((ip, _)), _) => {
                udp.calc_checksum_ipv4(ip, payload).unwrap() == udp.checksum
            }
            (TransportHeader::Udp(udp), _, Some((ip, _))) => {
                udp.calc_checksum_ipv6(ip, payload).unwrap() == udp.checksum
            }
            (TransportHeader::Tcp(tcp), Some((ip, _)), _) => {
                tcp.calc_checksum_ipv4(ip, payload).unwrap() == tcp.checksum
            }
            (TransportHeader::Tcp(tcp), _, Some((ip, _))) => {
                tcp.calc_checksum_ipv6(ip, payload).unwrap() == tcp.checksum
            }
            _ => false,
        }
    }

    proptest! {
        #[test]
        fn signed_packets_have_right_checksums_and_lengths(size in 100usize..1500, sequence: u32, tcp: bool, v6: bool) {
            let (source, destination) = if v6 { ("2001:db8::1", "2001:db8::2") } else { ("198.18.0.2", "198.19.64.1") };
            let stream = stream(if tcp { "protocol = \"tcp\"" } else { "" }, source, destination);
            let mut template = build(&stream, 0, size).unwrap();
            prop_assert_eq!(template.bytes.len(), size);
            sign(&mut template, sequence);
            prop_assert!(right_checksum(&template.bytes));
            prop_assert!(signature::intact(&template.bytes, template.filled));
        }

        #[test]
        fn a_captured_packet_keeps_its_headers_and_a_right_checksum(
            payload in prop::collection::vec(any::<u8>(), 18..200), tcp: bool, sequence: u32
        ) {
            let mut captured = Vec::new();
            let builder = PacketBuilder::ethernet2([2; 6], [4; 6]).ipv4([10, 0, 0, 1], [10, 0, 0, 2], 9);
            match tcp {
                true => builder.tcp(1, 2, 3, 4).write(&mut captured, &payload).unwrap(),
                false => builder.udp(1, 2).write(&mut captured, &payload).unwrap(),
            }
            let header = captured.len() - payload.len();
            let mut adopted = adopt(&captured).unwrap();
            sign(&mut adopted, sequence);
            prop_assert!(right_checksum(&adopted.bytes));
            prop_assert_eq!(&adopted.bytes[..34], &captured[..34]);
            prop_assert_eq!(adopted.bytes.len() - LENGTH - adopted.filled, header);
        }

        #[test]
        fn whatever_was_captured_adopting_it_does_not_panic(bytes in prop::collection::vec(any::<u8>(), 0..120)) {
            let _ = adopt(&bytes);
        }
    }

    #[test]
    fn sixty_bytes_hold_ipv4_udp_and_a_signature() {
        let stream = stream("size = 60", "198.18.0.2", "198.19.64.1");
        let template = build(&stream, 0, 60).unwrap();
        assert_eq!((template.bytes.len(), template.filled), (60, 0));
    }

    #[test]
    fn what_is_too_short_for_its_headers_is_told() {
        let error = build(&stream("", "2001:db8::1", "2001:db8::2"), 0, 64).unwrap_err();
        assert!(error.contains("stream.a: 64 bytes are too few for 62 bytes of headers"), "{error}");
    }

    #[test]
    fn a_tunnel_is_put_around_the_whole_frame() {
        let more =
            "vlan = 7\n[stream.a.vxlan]\nsource = \"192.0.2.2\"\ndestination = \"192.0.2.1\"\nvni = 258";
        let template = build(&stream(more, "198.18.0.2", "198.19.64.1"), 5, 64).unwrap();
        assert_eq!(template.bytes.len(), 64 + 4 + 50);
        let packet = SlicedPacket::from_ethernet(&template.bytes).unwrap();
        assert_eq!(packet.vlan_ids()[0].value(), 7);
        let Some(TransportSlice::Udp(udp)) = packet.transport else { panic!("no UDP") };
        assert_eq!((udp.source_port(), udp.destination_port()), (49_157, 4789));
        assert_eq!(udp.payload()[..8], [8, 0, 0, 0, 0, 1, 2, 0]);
        assert!(right_checksum(&template.bytes));
        assert!(right_checksum(&udp.payload()[8..]));
    }

    #[test]
    fn a_packet_without_room_for_a_signature_is_not_adopted() {
        let mut captured = Vec::new();
        let builder = PacketBuilder::ethernet2([2; 6], [4; 6]).ipv4([10, 0, 0, 1], [10, 0, 0, 2], 9);
        builder.udp(1, 2).write(&mut captured, &[0; 17]).unwrap();
        assert_eq!(adopt(&captured), None);
    }
}
