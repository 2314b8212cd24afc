//! What replay needs to encapsulate: the outer headers of one remote VTEP, built once.

use std::net::IpAddr;

use super::{EndpointId, ScopeId};
use crate::packet::{checksum, ecn, protocol};
use weir_config::DscpModel;

/// The outer headers towards one remote VTEP. Replay copies them into the headroom and patches length, DSCP/ECN,
/// checksum and UDP source port.
#[derive(Clone, Debug)]
pub struct Encapsulation {
    /// Which endpoint this is.
    pub endpoint: EndpointId,
    /// The tunnel's scope.
    pub scope: ScopeId,
    /// Remote VTEP.
    pub remote: IpAddr,
    /// Local VTEP.
    pub local: IpAddr,
    /// Outer IP, UDP and VXLAN headers: 36 bytes over IPv4, 56 over IPv6, in the first `len` bytes. Lengths, checksum and
    /// source port are zero; the IPv4 checksum field holds nothing.
    pub header: [u8; 56],
    /// Valid bytes of `header`.
    pub len: u8,
    /// IPv4 only: ones' complement sum (folded, not inverted) of the IP header with total length, TOS and checksum zero.
    pub ip_sum: u16,
    /// How the outer DSCP is chosen.
    pub dscp: DscpModel,
}

impl Encapsulation {
    /// Whether the underlay is IPv4.
    pub fn is_v4(&self) -> bool {
        self.len == 36
    }

    /// Bytes by which an inner *IP packet* grows to the outer IP packet: outer headers and the inner Ethernet header,
    /// 50 over IPv4 and 70 over IPv6.
    pub fn overhead(&self) -> u16 {
        u16::from(self.len) + 14
    }

    /// Writes the outer IP, UDP and VXLAN headers to the first `len` bytes of `out`: those directly in front of the inner
    /// Ethernet frame, behind the outer Ethernet header.
    ///
    /// `inner_len` is the length of the inner Ethernet frame in bytes. `inner_traffic_class` is that of the inner IP
    /// packet, `None` if it is none: the outer takes ECN (RFC 6040 section 4.1) and, by the DSCP model, DSCP (RFC 2983)
    /// from it. Over IPv6 the source port also is the flow label, so that routers that hash addresses and label
    /// spread flows too (RFC 6438). False, and nothing done, if `out` is shorter or the result were past 65535 bytes.
    #[inline(always)]
    pub fn write_outer(
        &self,
        out: &mut [u8],
        inner_len: u16,
        inner_traffic_class: Option<u8>,
        source_port: u16,
    ) -> bool {
        let traffic_class = ecn::outer_traffic_class(self.dscp, inner_traffic_class);
        // UDP and VXLAN headers are 8 bytes each.
        let Some(udp_len) = inner_len.checked_add(16) else { return false };
        if self.is_v4() {
            let Some(total) = udp_len.checked_add(20) else { return false };
            let (Some(out), Some(template)) = (out.first_chunk_mut::<36>(), self.header.first_chunk::<36>())
            else {
                return false;
            };
            *out = *template;
            out[1] = traffic_class;
            [out[2], out[3]] = total.to_be_bytes();
            let sum = checksum::add(checksum::add(self.ip_sum, total), u16::from(traffic_class));
            [out[10], out[11]] = (!sum).to_be_bytes();
            [out[20], out[21]] = source_port.to_be_bytes();
            [out[24], out[25]] = udp_len.to_be_bytes();
        } else {
            let Some(out) = out.first_chunk_mut::<56>() else { return false };
            *out = self.header;
            [out[0], out[1]] = [0x60 | traffic_class >> 4, traffic_class << 4];
            [out[2], out[3]] = source_port.to_be_bytes();
            [out[4], out[5]] = udp_len.to_be_bytes();
            [out[40], out[41]] = source_port.to_be_bytes();
            [out[44], out[45]] = udp_len.to_be_bytes();
        }
        true
    }

    /// Computes the outer UDP checksum of a whole outer packet, from its IP header on, whose headers
    /// [`write_outer`](Self::write_outer) wrote. Over IPv6 a receiver drops a zero checksum unless it was told otherwise
    /// (RFC 8200 section 8.1, RFC 6935); over IPv4 it stays zero (RFC 7348 section 5).
    #[inline]
    pub fn fill_udp_checksum(&self, packet: &mut [u8]) {
        if self.is_v4() {
            return;
        }
        let Some(udp_len) = packet.get(44..46).map(|len| u16::from_be_bytes([len[0], len[1]])) else {
            return;
        };
        // Both addresses stand directly in front of the UDP header: one run of bytes.
        let Some(summed) = packet.get(8..) else { return };
        let sum = checksum::add(checksum::sum(summed), u16::from(protocol::UDP));
        let sum = checksum::udp(!checksum::add(sum, udp_len));
        if let Some(field) = packet.get_mut(46..48) {
            field.copy_from_slice(&sum.to_be_bytes());
        }
    }
}
