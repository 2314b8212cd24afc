//! What a stage sees of the first packet of a flow.

use std::net::IpAddr;

use weir_config::MacAddress;

use super::{Domain, Nanos, ScopeId, Translations, Ways};
use crate::packet::{L3, Meta};

/// Addresses, protocol and ports. For an ICMP echo both ports are the identifier; without a transport header both are 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Tuple {
    /// Source address.
    pub source: IpAddr,
    /// Destination address.
    pub destination: IpAddr,
    /// IP protocol.
    pub protocol: u8,
    /// Source port.
    pub source_port: u16,
    /// Destination port.
    pub destination_port: u16,
}

impl Tuple {
    /// The tuple of a reply.
    pub fn reversed(self) -> Self {
        Self {
            source: self.destination,
            destination: self.source,
            protocol: self.protocol,
            source_port: self.destination_port,
            destination_port: self.source_port,
        }
    }
}

/// Direction of a packet within its session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Direction {
    /// As the session's first packet.
    Forward,
    /// A reply.
    Reverse,
}

impl Direction {
    /// The other one.
    #[must_use]
    pub const fn turned(self) -> Self {
        match self {
            Self::Forward => Self::Reverse,
            Self::Reverse => Self::Forward,
        }
    }
}

/// The first packet of a flow, as a stage sees it.
#[derive(Clone, Copy, Debug)]
pub struct FlowView<'a> {
    /// Where it came in.
    pub scope: ScopeId,
    /// What the scope belongs to.
    pub domain: Domain,
    /// Ethernet source.
    pub ether_source: MacAddress,
    /// Ethernet destination.
    pub ether_destination: MacAddress,
    /// IP tuple, as it came in; `None` for what is not IP. After earlier hops' edits: `PathBuilder::tuple`.
    pub tuple: Option<&'a Tuple>,
    /// What the parser found.
    pub meta: &'a Meta,
    /// Direction within its session.
    pub direction: Direction,
    /// Whether a session that earlier packets made vouches for it (also ICMP errors about such a session).
    pub established: bool,
    /// When.
    pub now: Nanos,
    /// The translations of its session; none for a new one.
    pub translations: &'a Translations,
    /// The routing around it.
    pub ways: &'a dyn Ways,
}

impl Tuple {
    /// The tuple of a parsed packet; `None` if it is not IP.
    pub fn of(packet: &[u8], meta: &Meta) -> Option<Self> {
        let at = usize::from(meta.l3_offset);
        let (source, destination) = match meta.l3 {
            L3::V4 => {
                let source: [u8; 4] = packet.get(at + 12..at + 16)?.try_into().ok()?;
                let destination: [u8; 4] = packet.get(at + 16..at + 20)?.try_into().ok()?;
                (IpAddr::from(source), IpAddr::from(destination))
            }
            L3::V6 => {
                let source: [u8; 16] = packet.get(at + 8..at + 24)?.try_into().ok()?;
                let destination: [u8; 16] = packet.get(at + 24..at + 40)?.try_into().ok()?;
                (IpAddr::from(source), IpAddr::from(destination))
            }
            L3::Other | L3::Arp => return None,
        };
        Some(Self {
            source,
            destination,
            protocol: meta.protocol,
            source_port: meta.source_port,
            destination_port: meta.destination_port,
        })
    }
}

impl From<crate::packet::Embedded> for Tuple {
    fn from(quoted: crate::packet::Embedded) -> Self {
        let crate::packet::Embedded { source, destination, protocol, source_port, destination_port } = quoted;
        Self { source, destination, protocol, source_port, destination_port }
    }
}
