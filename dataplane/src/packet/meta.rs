//! What the parser learns of one packet: at most one cache line, filled once a packet.

use bitflags::bitflags;

use super::plain::PlainV4;
use super::{ether_type, protocol};

/// Network layer of a packet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum L3 {
    /// Neither of the others: bridged, never routed.
    #[default]
    Other = 0,
    /// IPv4.
    V4 = 4,
    /// IPv6.
    V6 = 6,
    /// ARP.
    Arp = 1,
}

/// Which fragment a packet is (RFC 791, RFC 8200 section 4.5).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum FragmentKind {
    /// Not a fragment (also an IPv6 atomic fragment: offset 0, M 0).
    #[default]
    Whole = 0,
    /// Offset 0, more to come: carries the transport header.
    First = 1,
    /// Offset above 0: carries no transport header.
    Later = 2,
}

bitflags! {
    /// Properties of a packet.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct PacketFlags: u16 {
        /// IPv4 with options.
        const OPTIONS = 1 << 0;
        /// IPv6 with at least one extension header.
        const EXTENSIONS = 1 << 1;
        /// IPv4 don't-fragment.
        const DF = 1 << 2;
        /// Ethernet destination is a group address.
        const ETHER_GROUP = 1 << 3;
        /// IP destination is multicast or 255.255.255.255.
        const IP_GROUP = 1 << 4;
        /// The transport header is there whole: ports, TCP flags or ICMP type are valid.
        const TRANSPORT = 1 << 5;
        /// IPv6 with a hop-by-hop options header.
        const HOP_BY_HOP = 1 << 6;
        /// Padding after the IP packet was found.
        const PADDED = 1 << 7;
        /// A later fragment whose first was not seen before it. Not the parser's to say.
        const PORTS_UNKNOWN = 1 << 8;
    }
}

/// What the parser learns of one packet. Offsets are bytes from the start of the frame (the Ethernet header).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C, align(64))]
pub struct Meta {
    /// Start of the network header.
    pub l3_offset: u16,
    /// Start of the transport header (after IPv4 options, IPv6 extensions). For a later fragment: of its payload.
    pub l4_offset: u16,
    /// IP packet length: IPv4 total length; IPv6 payload length + 40. 0 for [`L3::Other`] and ARP.
    pub l3_len: u16,
    /// EtherType after all VLAN tags.
    pub ether_type: u16,
    /// Outermost VLAN tag's TCI; meaningful if `vlan_tags > 0`.
    pub outer_tci: u16,
    /// Second VLAN tag's TCI; meaningful if `vlan_tags > 1`.
    pub inner_tci: u16,
    /// Source port (TCP, UDP, SCTP); for an ICMP or ICMPv6 echo its identifier; else 0.
    pub source_port: u16,
    /// Destination port (TCP, UDP, SCTP); for an ICMP or ICMPv6 echo its identifier too; else 0.
    pub destination_port: u16,
    /// Flags.
    pub flags: PacketFlags,
    /// Number of VLAN tags, 0 to 2.
    pub vlan_tags: u8,
    /// Network layer.
    pub l3: L3,
    /// IP protocol, after IPv6 extension headers.
    pub protocol: u8,
    /// TTL or hop limit.
    pub ttl: u8,
    /// IPv4 TOS or IPv6 traffic class: DSCP (6 bits), ECN (2 bits).
    pub traffic_class: u8,
    /// TCP flags, if TCP.
    pub tcp_flags: u8,
    /// ICMP or ICMPv6 type, if ICMP.
    pub icmp_type: u8,
    /// ICMP or ICMPv6 code, if ICMP.
    pub icmp_code: u8,
    /// Which fragment.
    pub fragment: FragmentKind,
    /// ECN of the outer header that was taken off (RFC 6040), 0 if none was.
    pub outer_ecn: u8,
    /// Number of the tunnel endpoint that the outer header came from, if one was taken off.
    pub endpoint: u16,
}

impl Meta {
    /// What the parser would learn of a frame that carries this plain packet: its checks are not made again.
    pub fn of_plain(frame: &[u8], plain: &PlainV4) -> Self {
        let PlainV4 { addresses, ports, total, class, protocol, .. } = *plain;
        let Some(head) = frame.first_chunk::<34>() else { return Self::default() };
        let [.., to_a, to_b, to_c, to_d] = addresses.to_le_bytes();
        let to = [to_a, to_b, to_c, to_d];
        let mut flags = PacketFlags::TRANSPORT;
        flags.set(PacketFlags::ETHER_GROUP, head[0] & 1 != 0);
        flags.set(PacketFlags::DF, head[20] & 0x40 != 0);
        flags.set(PacketFlags::PADDED, frame.len() - 14 > usize::from(total));
        flags.set(PacketFlags::IP_GROUP, to_a >> 4 == 14 || to == [0xff; 4]);
        let tcp_flags = if protocol == protocol::TCP { frame.get(47).copied() } else { None };
        Self {
            l3_offset: 14,
            l4_offset: 34,
            l3_len: total,
            ether_type: ether_type::IPV4,
            source_port: u16::from_be(ports as u16),
            destination_port: u16::from_be((ports >> 16) as u16),
            flags,
            l3: L3::V4,
            protocol,
            ttl: head[22],
            traffic_class: class,
            tcp_flags: tcp_flags.unwrap_or(0),
            ..Self::default()
        }
    }

    /// DSCP, 0 to 63.
    #[inline]
    pub fn dscp(&self) -> u8 {
        self.traffic_class >> 2
    }

    /// ECN, 0 to 3.
    #[inline]
    pub fn ecn(&self) -> u8 {
        self.traffic_class & 3
    }

    /// Whether the packet is IPv4 or IPv6.
    #[inline]
    pub fn is_ip(&self) -> bool {
        matches!(self.l3, L3::V4 | L3::V6)
    }

    /// Where the IP packet ends, in bytes from the start of the frame: trim a [`PacketFlags::PADDED`] frame to it.
    /// Without an IP packet, where the network header starts.
    #[inline]
    pub fn end(&self) -> usize {
        usize::from(self.l3_offset) + usize::from(self.l3_len)
    }

    /// VLAN id of the outermost tag, or 0.
    #[inline]
    pub fn vlan(&self) -> u16 {
        if self.vlan_tags == 0 { 0 } else { self.outer_tci & 0x0fff }
    }
}
