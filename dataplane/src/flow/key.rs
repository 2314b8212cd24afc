//! The flow key: 64 bytes cut from a packet, masked to the fields that the stages behind its scope consult.

use weir_config::MacAddress;

use crate::decision::{End, FieldSet, ScopeId};
use crate::packet::{FragmentKind, L3, Meta};

/// A flow key of 64 bytes, one cache line.
///
/// | word | content |
/// | --- | --- |
/// | 0 | scope (16 bits), L3, fragment kind, protocol, DSCP, TCP flags (8 each), 0 |
/// | 1 | source port, EtherType, destination port (16 each), ICMP type, ICMP code (8 each) |
/// | 2 | Ethernet destination (48), tunnel endpoint that it came from (16) |
/// | 3 | Ethernet source (48) |
/// | 4, 5 | IP source |
/// | 6, 7 | IP destination |
#[derive(Clone, Copy, Debug, Default, Eq)]
#[repr(C, align(64))]
pub struct FlowKey(pub [u64; 8]);

impl PartialEq for FlowKey {
    /// Without branches and without a call, which comparing arrays would be.
    #[inline]
    fn eq(&self, other: &Self) -> bool {
        self.0.iter().zip(&other.0).fold(0, |differing, (a, b)| differing | (a ^ b)) == 0
    }
}

/// Which bits of a [`FlowKey`] count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C, align(64))]
pub struct FlowMask(pub [u64; 8]);

impl FlowMask {
    /// The mask that keeps `fields`, and always the scope, the network layer and the fragment kind.
    pub fn new(fields: FieldSet) -> Self {
        let on = |field: FieldSet, bits: u64| if fields.contains(field) { bits } else { 0 };
        Self([
            0x0000_0000_ffff_ffff
                | on(FieldSet::PROTOCOL, 0xff << 32)
                | on(FieldSet::DSCP, 0xff << 40)
                | on(FieldSet::TCP_FLAGS, 0xff << 48),
            on(FieldSet::SOURCE_PORT, 0xffff)
                | on(FieldSet::DESTINATION_PORT, 0xffff << 32)
                | on(FieldSet::ETHER_TYPE, 0xffff << 16)
                | on(FieldSet::ICMP_TYPE, 0xffff << 48),
            on(FieldSet::ETHER_DESTINATION, u64::MAX),
            on(FieldSet::ETHER_SOURCE, u64::MAX),
            on(FieldSet::IP_SOURCE, u64::MAX),
            on(FieldSet::IP_SOURCE, u64::MAX),
            on(FieldSet::IP_DESTINATION, u64::MAX),
            on(FieldSet::IP_DESTINATION, u64::MAX),
        ])
    }
}

/// Eight bytes from `at`, or zero past the end.
#[inline(always)]
fn word(packet: &[u8], at: usize) -> u64 {
    packet.get(at..).and_then(|rest| rest.first_chunk()).map_or(0, |bytes| u64::from_le_bytes(*bytes))
}

impl FlowKey {
    /// The key of no packet: the highest byte of the first word is always zero.
    pub const NONE: Self = Self([u64::MAX; 8]);

    /// The masked key of a parsed packet.
    #[inline(always)]
    pub fn new(scope: ScopeId, packet: &[u8], meta: &Meta, mask: &FlowMask) -> Self {
        let w0 = u64::from(scope.0)
            | (meta.l3 as u64) << 16
            | (meta.fragment as u64) << 24
            | u64::from(meta.protocol) << 32
            | u64::from(meta.dscp()) << 40
            | u64::from(meta.tcp_flags) << 48;
        let m = &mask.0;
        // What the mask leaves out altogether is not gathered: most scopes keep no ports or no MAC addresses.
        let w1 = if m[1] == 0 {
            0
        } else {
            // The ports stand apart: the parser wrote each by itself, and one read of both would wait for the writes.
            u64::from(meta.source_port)
                | u64::from(meta.ether_type) << 16
                | u64::from(meta.destination_port) << 32
                | u64::from(meta.icmp_type) << 48
                | u64::from(meta.icmp_code) << 56
        };
        let (w2, w3) = if m[2] | m[3] == 0 {
            (0, 0)
        } else {
            const MAC: u64 = 0x0000_ffff_ffff_ffff;
            (word(packet, 0) & MAC | u64::from(meta.endpoint) << 48, word(packet, 6) & MAC)
        };
        let at = usize::from(meta.l3_offset);
        let ip = match meta.l3 {
            L3::V4 => {
                let both = word(packet, at + 12);
                [both & 0xffff_ffff, 0, both >> 32, 0]
            }
            L3::V6 => {
                [word(packet, at + 8), word(packet, at + 16), word(packet, at + 24), word(packet, at + 32)]
            }
            L3::Arp | L3::Other => [0; 4],
        };
        Self([
            w0 & m[0],
            w1 & m[1],
            w2 & m[2],
            w3 & m[3],
            ip[0] & m[4],
            ip[1] & m[5],
            ip[2] & m[6],
            ip[3] & m[7],
        ])
    }

    /// Keyed hash: NH (the universal hash of UMAC, RFC 4418 section 5.2, in 64-bit words) with one folded multiplication
    /// at the end, so that all bits depend on all words. MAC addresses and IP source add nothing if they are zero, as they
    /// mostly are masked to be; that they are is as unlikely to collide with what they are not as any other difference.
    #[inline(always)]
    pub fn hash(&self, seed: &[u64; 8]) -> u64 {
        let (k, s) = (&self.0, seed);
        let product =
            |a: usize, b: usize| u128::from(k[a].wrapping_add(s[a])) * u128::from(k[b].wrapping_add(s[b]));
        let mut sum = product(0, 1).wrapping_add(product(6, 7));
        if k[2] | k[3] != 0 {
            sum = sum.wrapping_add(product(2, 3));
        }
        if k[4] | k[5] != 0 {
            sum = sum.wrapping_add(product(4, 5));
        }
        let last = u128::from(sum as u64 ^ s[0]) * u128::from((sum >> 64) as u64 ^ 0x9e37_79b9_7f4a_7c15);
        last as u64 ^ (last >> 64) as u64
    }

    /// The ingress scope.
    pub fn scope(&self) -> ScopeId {
        ScopeId(self.0[0] as u16)
    }

    /// Where the packet goes; meaningful if the mask keeps it, the protocol and the port.
    pub fn end(&self) -> End {
        End::new([self.0[6], self.0[7]], (self.0[0] >> 32) as u8, (self.0[1] >> 32) as u16)
    }

    /// Ethernet source; meaningful if the mask keeps it.
    pub fn ether_source(&self) -> MacAddress {
        mac(self.0[3])
    }

    /// Ethernet destination; meaningful if the mask keeps it.
    pub fn ether_destination(&self) -> MacAddress {
        mac(self.0[2])
    }

    /// The key in words: only what the mask keeps.
    pub fn describe(&self, fields: FieldSet) -> String {
        use std::fmt::Write;
        let mut text = String::new();
        let mut put = |name: &str, value: &dyn std::fmt::Display| {
            let _ = write!(text, "{}{name}={value}", if text.is_empty() { "" } else { " " });
        };
        let k = &self.0;
        let l3 = (k[0] >> 16) as u8;
        if fields.contains(FieldSet::ETHER_SOURCE) {
            put("ether-source", &mac(k[3]));
        }
        if fields.contains(FieldSet::ETHER_DESTINATION) {
            put("ether-destination", &mac(k[2]));
        }
        if fields.contains(FieldSet::ETHER_TYPE) {
            put("ether-type", &format_args!("{:#06x}", (k[1] >> 16) as u16));
        }
        let address = |low: u64, high: u64| -> Option<std::net::IpAddr> {
            match l3 {
                4 => Some(std::net::IpAddr::from((low as u32).to_le_bytes())),
                6 => {
                    let mut bytes = [0; 16];
                    bytes[..8].copy_from_slice(&low.to_le_bytes());
                    bytes[8..].copy_from_slice(&high.to_le_bytes());
                    Some(bytes.into())
                }
                _ => None,
            }
        };
        if let (true, Some(ip)) = (fields.contains(FieldSet::IP_SOURCE), address(k[4], k[5])) {
            put("source", &ip);
        }
        if let (true, Some(ip)) = (fields.contains(FieldSet::IP_DESTINATION), address(k[6], k[7])) {
            put("destination", &ip);
        }
        if fields.contains(FieldSet::PROTOCOL) && l3 >= 4 {
            put("protocol", &((k[0] >> 32) as u8));
        }
        if fields.contains(FieldSet::SOURCE_PORT) && l3 >= 4 {
            put("source-port", &(k[1] as u16));
        }
        if fields.contains(FieldSet::DESTINATION_PORT) && l3 >= 4 {
            put("destination-port", &((k[1] >> 32) as u16));
        }
        if fields.contains(FieldSet::DSCP) && l3 >= 4 {
            put("dscp", &((k[0] >> 40) as u8));
        }
        if fields.contains(FieldSet::TCP_FLAGS) && l3 >= 4 {
            put("tcp-flags", &format_args!("{:#04x}", (k[0] >> 48) as u8));
        }
        if fields.contains(FieldSet::ICMP_TYPE) && matches!((k[0] >> 32) as u8, 1 | 58) {
            put("icmp-type", &((k[1] >> 48) as u8));
        }
        match (k[0] >> 24) as u8 {
            kind if kind == FragmentKind::First as u8 => put("fragment", &"first"),
            kind if kind == FragmentKind::Later as u8 => put("fragment", &"later"),
            _ => {}
        }
        if text.is_empty() {
            // Every key tells these apart, also where no stage asks for a field.
            text += match l3 {
                kind if kind == L3::V4 as u8 => "IPv4",
                kind if kind == L3::V6 as u8 => "IPv6",
                kind if kind == L3::Arp as u8 => "ARP",
                _ => "other",
            };
        }
        text
    }
}

fn mac(word: u64) -> MacAddress {
    let [a, b, c, d, e, f, _, _] = word.to_le_bytes();
    MacAddress([a, b, c, d, e, f])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_without_fields_says_what_it_is_the_key_of() {
        let key = |l3: L3| FlowKey([(l3 as u64) << 16, 0, 0, 0, 0, 0, 0, 0]).describe(FieldSet::empty());
        assert_eq!([L3::V4, L3::V6, L3::Arp, L3::Other].map(key), ["IPv4", "IPv6", "ARP", "other"]);
    }
}
