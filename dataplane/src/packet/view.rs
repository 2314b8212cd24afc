//! Headers as plain values: each is read from the front of a byte slice and written to the front of one.
//!
//! `read` answers `None` if the bytes are too few or say another version; `write` answers `None`, and may have written a
//! part, if the slice is too short. Neither computes checksums: see [`checksum`](super::checksum).

use std::net::{Ipv4Addr, Ipv6Addr};

use weir_config::MacAddress;

/// Takes bytes off the front of a slice, field by field.
struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (field, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*field)
    }

    fn u8(&mut self) -> Option<u8> {
        self.take::<1>().map(u8::from_be_bytes)
    }

    fn u16(&mut self) -> Option<u16> {
        self.take::<2>().map(u16::from_be_bytes)
    }

    fn u32(&mut self) -> Option<u32> {
        self.take::<4>().map(u32::from_be_bytes)
    }

    fn mac(&mut self) -> Option<MacAddress> {
        self.take::<6>().map(MacAddress)
    }
}

/// Puts bytes at the front of a slice, field by field.
struct Writer<'a>(&'a mut [u8]);

impl Writer<'_> {
    fn put<const N: usize>(&mut self, field: [u8; N]) -> Option<()> {
        let (place, rest) = std::mem::take(&mut self.0).split_first_chunk_mut::<N>()?;
        *place = field;
        self.0 = rest;
        Some(())
    }

    fn u16(&mut self, value: u16) -> Option<()> {
        self.put(value.to_be_bytes())
    }

    fn u32(&mut self, value: u32) -> Option<()> {
        self.put(value.to_be_bytes())
    }
}

/// Ethernet II (IEEE 802.3), untagged.
pub mod ethernet {
    use super::{MacAddress, Reader, Writer};

    /// Length in bytes.
    pub const LEN: usize = 14;
    /// Length of a VLAN tag in bytes.
    pub const VLAN_LEN: usize = 4;

    /// An Ethernet header.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Header {
        /// Destination.
        pub destination: MacAddress,
        /// Source.
        pub source: MacAddress,
        /// EtherType, or that of the outermost VLAN tag.
        pub ether_type: u16,
    }

    impl Header {
        /// Reads the header at the start of `bytes`.
        #[inline]
        pub fn read(bytes: &[u8]) -> Option<Self> {
            let mut r = Reader(bytes);
            Some(Self { destination: r.mac()?, source: r.mac()?, ether_type: r.u16()? })
        }

        /// Writes the header to the start of `bytes`.
        #[inline]
        pub fn write(&self, bytes: &mut [u8]) -> Option<()> {
            let mut w = Writer(bytes);
            w.put(self.destination.0)?;
            w.put(self.source.0)?;
            w.u16(self.ether_type)
        }
    }
}

/// IPv4 (RFC 791).
pub mod ipv4 {
    use super::{Ipv4Addr, Reader, Writer};

    /// Length without options in bytes.
    pub const LEN: usize = 20;

    /// An IPv4 header; options are not read, and not written.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Header {
        /// Length of header and options in bytes, from IHL; 20 when written.
        pub header_len: u8,
        /// TOS: DSCP and ECN.
        pub traffic_class: u8,
        /// Total length in bytes.
        pub total_len: u16,
        /// Identification.
        pub identification: u16,
        /// Don't fragment.
        pub dont_fragment: bool,
        /// More fragments.
        pub more_fragments: bool,
        /// Fragment offset in bytes, a multiple of 8.
        pub fragment_offset: u16,
        /// TTL.
        pub ttl: u8,
        /// Protocol.
        pub protocol: u8,
        /// Header checksum, as read; `write` computes it.
        pub checksum: u16,
        /// Source.
        pub source: Ipv4Addr,
        /// Destination.
        pub destination: Ipv4Addr,
    }

    impl Header {
        /// Reads the header at the start of `bytes`; `None` also if the version is not 4.
        pub fn read(bytes: &[u8]) -> Option<Self> {
            let mut r = Reader(bytes);
            let first = r.u8()?;
            let (traffic_class, total_len, identification, fragment) =
                (r.u8()?, r.u16()?, r.u16()?, r.u16()?);
            (first >> 4 == 4).then_some(())?;
            Some(Self {
                header_len: (first & 0x0f) * 4,
                traffic_class,
                total_len,
                identification,
                dont_fragment: fragment & 0x4000 != 0,
                more_fragments: fragment & 0x2000 != 0,
                fragment_offset: (fragment & 0x1fff) << 3,
                ttl: r.u8()?,
                protocol: r.u8()?,
                checksum: r.u16()?,
                source: r.take::<4>()?.into(),
                destination: r.take::<4>()?.into(),
            })
        }

        /// Writes a header without options, its checksum computed, to the start of `bytes`.
        pub fn write(&self, bytes: &mut [u8]) -> Option<()> {
            let header = bytes.first_chunk_mut::<LEN>()?;
            let mut w = Writer(header.as_mut_slice());
            w.put([0x45, self.traffic_class])?;
            w.u16(self.total_len)?;
            w.u16(self.identification)?;
            let flags = u16::from(self.dont_fragment) << 14 | u16::from(self.more_fragments) << 13;
            w.u16(flags | self.fragment_offset >> 3)?;
            w.put([self.ttl, self.protocol, 0, 0])?;
            w.put(self.source.octets())?;
            w.put(self.destination.octets())?;
            let checksum = !super::super::checksum::sum_header(header);
            [header[10], header[11]] = checksum.to_be_bytes();
            Some(())
        }
    }
}

/// IPv6 (RFC 8200).
pub mod ipv6 {
    use super::{Ipv6Addr, Reader, Writer};

    /// Length of the fixed header in bytes.
    pub const LEN: usize = 40;

    /// An IPv6 header, without extension headers.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Header {
        /// Traffic class: DSCP and ECN.
        pub traffic_class: u8,
        /// Flow label, 20 bits.
        pub flow_label: u32,
        /// Payload length in bytes, extension headers included.
        pub payload_len: u16,
        /// Next header.
        pub next_header: u8,
        /// Hop limit.
        pub hop_limit: u8,
        /// Source.
        pub source: Ipv6Addr,
        /// Destination.
        pub destination: Ipv6Addr,
    }

    impl Header {
        /// Reads the header at the start of `bytes`; `None` also if the version is not 6.
        pub fn read(bytes: &[u8]) -> Option<Self> {
            let mut r = Reader(bytes);
            let first = r.u32()?;
            (first >> 28 == 6).then_some(())?;
            Some(Self {
                traffic_class: (first >> 20) as u8,
                flow_label: first & 0xf_ffff,
                payload_len: r.u16()?,
                next_header: r.u8()?,
                hop_limit: r.u8()?,
                source: r.take::<16>()?.into(),
                destination: r.take::<16>()?.into(),
            })
        }

        /// Writes the header to the start of `bytes`.
        pub fn write(&self, bytes: &mut [u8]) -> Option<()> {
            let mut w = Writer(bytes);
            w.u32(6 << 28 | u32::from(self.traffic_class) << 20 | self.flow_label & 0xf_ffff)?;
            w.u16(self.payload_len)?;
            w.put([self.next_header, self.hop_limit])?;
            w.put(self.source.octets())?;
            w.put(self.destination.octets())
        }
    }
}

/// UDP (RFC 768).
pub mod udp {
    use super::{Reader, Writer};

    /// Length in bytes.
    pub const LEN: usize = 8;

    /// A UDP header.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Header {
        /// Source port.
        pub source_port: u16,
        /// Destination port.
        pub destination_port: u16,
        /// Length of header and payload in bytes.
        pub len: u16,
        /// Checksum, 0 for none.
        pub checksum: u16,
    }

    impl Header {
        /// Reads the header at the start of `bytes`.
        pub fn read(bytes: &[u8]) -> Option<Self> {
            let mut r = Reader(bytes);
            Some(Self {
                source_port: r.u16()?,
                destination_port: r.u16()?,
                len: r.u16()?,
                checksum: r.u16()?,
            })
        }

        /// Writes the header to the start of `bytes`.
        pub fn write(&self, bytes: &mut [u8]) -> Option<()> {
            let mut w = Writer(bytes);
            w.u16(self.source_port)?;
            w.u16(self.destination_port)?;
            w.u16(self.len)?;
            w.u16(self.checksum)
        }
    }
}

/// TCP (RFC 9293).
pub mod tcp {
    use super::{Reader, Writer};

    /// Length without options in bytes.
    pub const LEN: usize = 20;

    /// A TCP header; options are not read, and not written.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Header {
        /// Source port.
        pub source_port: u16,
        /// Destination port.
        pub destination_port: u16,
        /// Sequence number.
        pub sequence: u32,
        /// Acknowledgment number.
        pub acknowledgment: u32,
        /// Length of header and options in bytes, a multiple of 4; the writer of options sets it above 20.
        pub header_len: u8,
        /// Flags, bits as in [`tcp_flags`](super::super::tcp_flags).
        pub flags: u8,
        /// Window, unscaled.
        pub window: u16,
        /// Checksum.
        pub checksum: u16,
        /// Urgent pointer.
        pub urgent: u16,
    }

    impl Header {
        /// Reads the header at the start of `bytes`.
        pub fn read(bytes: &[u8]) -> Option<Self> {
            let mut r = Reader(bytes);
            Some(Self {
                source_port: r.u16()?,
                destination_port: r.u16()?,
                sequence: r.u32()?,
                acknowledgment: r.u32()?,
                header_len: (r.u8()? >> 4) * 4,
                flags: r.u8()?,
                window: r.u16()?,
                checksum: r.u16()?,
                urgent: r.u16()?,
            })
        }

        /// Writes the header to the start of `bytes`.
        pub fn write(&self, bytes: &mut [u8]) -> Option<()> {
            let mut w = Writer(bytes);
            w.u16(self.source_port)?;
            w.u16(self.destination_port)?;
            w.u32(self.sequence)?;
            w.u32(self.acknowledgment)?;
            w.put([(self.header_len / 4) << 4, self.flags])?;
            w.u16(self.window)?;
            w.u16(self.checksum)?;
            w.u16(self.urgent)
        }
    }
}

/// ICMP (RFC 792) and ICMPv6 (RFC 4443): one shape.
pub mod icmp {
    use super::{Reader, Writer};

    /// Length in bytes.
    pub const LEN: usize = 8;

    /// The first 8 bytes of an ICMP or ICMPv6 message.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Header {
        /// Type.
        pub kind: u8,
        /// Code.
        pub code: u8,
        /// Checksum.
        pub checksum: u16,
        /// What the type makes of it: identifier and sequence, unused and next-hop MTU, MTU, pointer.
        pub rest: [u8; 4],
    }

    impl Header {
        /// Reads the header at the start of `bytes`.
        pub fn read(bytes: &[u8]) -> Option<Self> {
            let mut r = Reader(bytes);
            Some(Self { kind: r.u8()?, code: r.u8()?, checksum: r.u16()?, rest: r.take()? })
        }

        /// Writes the header to the start of `bytes`.
        pub fn write(&self, bytes: &mut [u8]) -> Option<()> {
            let mut w = Writer(bytes);
            w.put([self.kind, self.code])?;
            w.u16(self.checksum)?;
            w.put(self.rest)
        }
    }
}

/// ARP for IPv4 over Ethernet (RFC 826).
pub mod arp {
    use super::{Ipv4Addr, MacAddress, Reader, Writer};

    /// Length in bytes.
    pub const LEN: usize = 28;
    /// Operation: request.
    pub const REQUEST: u16 = 1;
    /// Operation: reply.
    pub const REPLY: u16 = 2;

    /// An ARP packet.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Packet {
        /// [`REQUEST`] or [`REPLY`].
        pub operation: u16,
        /// Sender's MAC address.
        pub sender_mac: MacAddress,
        /// Sender's IP address; 0.0.0.0 in a probe (RFC 5227).
        pub sender_ip: Ipv4Addr,
        /// Target's MAC address; zero in a request.
        pub target_mac: MacAddress,
        /// Target's IP address.
        pub target_ip: Ipv4Addr,
    }

    impl Packet {
        /// Reads the packet at the start of `bytes`; `None` also if it is not about IPv4 over Ethernet.
        pub fn read(bytes: &[u8]) -> Option<Self> {
            let mut r = Reader(bytes);
            (r.take::<6>()? == [0, 1, 8, 0, 6, 4]).then_some(())?;
            Some(Self {
                operation: r.u16()?,
                sender_mac: r.mac()?,
                sender_ip: r.take::<4>()?.into(),
                target_mac: r.mac()?,
                target_ip: r.take::<4>()?.into(),
            })
        }

        /// Writes the packet to the start of `bytes`.
        pub fn write(&self, bytes: &mut [u8]) -> Option<()> {
            let mut w = Writer(bytes);
            w.put([0, 1, 8, 0, 6, 4])?;
            w.u16(self.operation)?;
            w.put(self.sender_mac.0)?;
            w.put(self.sender_ip.octets())?;
            w.put(self.target_mac.0)?;
            w.put(self.target_ip.octets())
        }
    }
}

/// VXLAN (RFC 7348 section 5).
pub mod vxlan {
    use super::{Reader, Writer};

    /// Length in bytes.
    pub const LEN: usize = 8;
    /// The I flag in the first byte: the VNI is valid.
    pub const FLAG_VNI: u8 = 0x08;

    /// A VXLAN header. Reserved bits are ignored when read and 0 when written.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Header {
        /// The I flag.
        pub vni_valid: bool,
        /// VXLAN network identifier, 24 bits.
        pub vni: u32,
    }

    impl Header {
        /// Reads the header at the start of `bytes`.
        #[inline]
        pub fn read(bytes: &[u8]) -> Option<Self> {
            let mut r = Reader(bytes);
            Some(Self { vni_valid: r.u32()? >> 24 & u32::from(FLAG_VNI) != 0, vni: r.u32()? >> 8 })
        }

        /// Writes the header to the start of `bytes`.
        pub fn write(&self, bytes: &mut [u8]) -> Option<()> {
            let mut w = Writer(bytes);
            w.put([if self.vni_valid { FLAG_VNI } else { 0 }, 0, 0, 0])?;
            w.u32(self.vni << 8)
        }
    }
}

#[cfg(test)]
mod tests;
