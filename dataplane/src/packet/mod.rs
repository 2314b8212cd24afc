//! Packets: header views over bytes, the burst parser, checksums, builders.
//!
//! Nothing here knows ports, scopes or decisions. No function panics on any bytes.

pub mod builder;
pub mod checksum;
pub mod crc32c;
pub mod ecn;
pub mod edit;
mod embedded;
pub mod hash;
mod meta;
mod parse;
pub mod plain;
pub mod view;

pub use embedded::{Embedded, embedded_tuple, fragment_id, is_error, is_icmp_error};
pub use parse::{parse, parse_into};

pub use meta::{FragmentKind, L3, Meta, PacketFlags};

/// Why bytes are not a packet that weir handles.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Malformed {
    /// Shorter than the header that should stand there.
    Truncated,
    /// IP version is not what the EtherType says (RFC 1812 section 5.2.2, RFC 8200 section 3).
    IpVersion,
    /// IPv4 IHL below 5, or longer than the packet.
    IpHeaderLength,
    /// Wrong IPv4 header checksum.
    IpChecksum,
    /// IP total or payload length beyond the frame.
    IpLength,
    /// IPv6 extension headers broken, or more than [`MAX_EXTENSIONS`].
    IpExtension,
    /// A fragment whose offset and length run past 65535 bytes.
    Fragment,
    /// TCP data offset below 5 or beyond the packet; UDP length below 8 or beyond the packet.
    Transport,
    /// More than two VLAN tags.
    VlanTags,
}

/// The most IPv6 extension headers that are walked.
pub const MAX_EXTENSIONS: usize = 8;

/// EtherTypes (IEEE 802).
pub mod ether_type {
    /// IPv4.
    pub const IPV4: u16 = 0x0800;
    /// ARP.
    pub const ARP: u16 = 0x0806;
    /// IPv6.
    pub const IPV6: u16 = 0x86dd;
    /// 802.1Q C-VLAN tag.
    pub const VLAN: u16 = 0x8100;
    /// 802.1ad S-VLAN tag.
    pub const QINQ: u16 = 0x88a8;
}

/// IP protocol numbers.
pub mod protocol {
    /// ICMP.
    pub const ICMP: u8 = 1;
    /// TCP.
    pub const TCP: u8 = 6;
    /// UDP.
    pub const UDP: u8 = 17;
    /// ICMPv6.
    pub const ICMPV6: u8 = 58;
    /// SCTP.
    pub const SCTP: u8 = 132;
}

/// TCP flag bits.
pub mod tcp_flags {
    /// FIN.
    pub const FIN: u8 = 0x01;
    /// SYN.
    pub const SYN: u8 = 0x02;
    /// RST.
    pub const RST: u8 = 0x04;
    /// PSH.
    pub const PSH: u8 = 0x08;
    /// ACK.
    pub const ACK: u8 = 0x10;
    /// URG.
    pub const URG: u8 = 0x20;
}
