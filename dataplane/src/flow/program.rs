//! A program: the compiled decisions of one walk, small enough to stand beside the key.

use std::net::IpAddr;

use bitflags::bitflags;

use crate::decision::{AdjacencyId, DropReason, EndpointId, MeterId, ScopeId, SessionId, Transport};

bitflags! {
    /// What a program does, in the order in which replay does it.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct Ops: u16 {
        /// Drop, with the program's reason.
        const DROP = 1 << 0;
        /// TCP packets with SYN, FIN or RST walk, so that the session's state is followed.
        const WATCH_TCP = 1 << 1;
        /// Spend tokens.
        const METER = 1 << 2;
        /// Rewrite addresses or ports.
        const REWRITE = 1 << 3;
        /// Routed: replace the Ethernet header.
        const ROUTE = 1 << 4;
        /// Push a tunnel's outer headers.
        const ENCAPSULATE = 1 << 5;
        /// The inner Ethernet destination is the adjacency `inner`, else the endpoint's fixed MAC.
        const INNER_ADJACENCY = 1 << 6;
        /// The program belongs to a session, kept alive by sweeps.
        const SESSION = 1 << 7;
        /// Bridged or cross-connected: replace the VLAN tag of the ingress scope by that of the egress scope.
        const RETAG = 1 << 8;
        /// The outermost tag belongs to the ingress scope and is taken off.
        const POP_TAG = 1 << 9;
        /// Forwarded by a router, not made by it: decrement TTL or hop limit.
        const DECREMENT_TTL = 1 << 10;
        /// TCP SYNs announce no larger segments than fit `clamp`.
        const CLAMP_MSS = 1 << 11;
        /// Changes nothing in a packet.
        const ASIDE = Self::WATCH_TCP.bits() | Self::METER.bits() | Self::SESSION.bits();
        /// Forwarded by a router into a tunnel whose far end has a fixed MAC.
        const TUNNEL = Self::FORWARD.bits() | Self::ENCAPSULATE.bits();
        /// Only forwarded by a router.
        const FORWARD = Self::ROUTE.bits() | Self::DECREMENT_TTL.bits();
    }
}

/// Most meters of one program.
pub const MAX_METERS: usize = 4;

/// The compiled decisions of one walk: one cache line together with the entry's counters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct Program {
    /// What it does.
    pub ops: Ops,
    /// Scope that it leaves by: for a tunnel, the scope of the underlay.
    pub egress: ScopeId,
    /// Next hop: outside, if encapsulated.
    pub adjacency: AdjacencyId,
    /// Next hop inside a routed tunnel without a fixed MAC.
    pub inner: AdjacencyId,
    /// Tunnel endpoint, with [`Ops::ENCAPSULATE`].
    pub endpoint: EndpointId,
    /// Largest L3 length that leaves whole, in bytes, before encapsulation.
    pub mtu: u16,
    /// Drop reason, with [`Ops::DROP`].
    pub reason: DropReason,
    /// Number of meters.
    pub meter_count: u8,
    /// Meters (ids below 65536).
    pub meters: [u16; MAX_METERS],
    /// With [`Ops::CLAMP_MSS`]: the IP packet in bytes that a segment may fill at most.
    pub clamp: u16,
    /// Session, with [`Ops::SESSION`].
    pub session: SessionId,
}

impl Program {
    /// A program that drops.
    pub fn drop(reason: DropReason) -> Self {
        Self { ops: Ops::DROP, reason, ..Self::default() }
    }

    /// Adds a meter. False if there is no room for one more.
    pub fn push_meter(&mut self, meter: MeterId) -> bool {
        let Ok(id) = u16::try_from(meter.0) else { return false };
        let Some(place) = self.meters.get_mut(usize::from(self.meter_count)) else { return false };
        *place = id;
        self.meter_count += 1;
        self.ops |= Ops::METER;
        true
    }

    /// The program in words.
    pub fn describe(&self, names: &dyn Fn(ScopeId) -> String, rewrite: Option<&Rewrite>) -> String {
        if self.ops.contains(Ops::DROP) {
            return format!("drop {}", self.reason.name());
        }
        let mut words = Vec::new();
        for meter in self.meters.iter().take(usize::from(self.meter_count)) {
            words.push(format!("meter {meter}"));
        }
        if let Some(rewrite) = rewrite.filter(|_| self.ops.contains(Ops::REWRITE)) {
            if let Some((ip, port)) = rewrite.source {
                words.push(format!("source {ip} port {port}"));
            }
            if let Some((ip, port)) = rewrite.destination {
                words.push(format!("destination {ip} port {port}"));
            }
        }
        if self.ops.contains(Ops::DECREMENT_TTL) {
            words.push("decrement ttl".into());
        }
        if self.ops.contains(Ops::ENCAPSULATE) {
            words.push(format!("encapsulate endpoint {}", self.endpoint.0));
        }
        if self.ops.contains(Ops::CLAMP_MSS) && self.clamp != u16::MAX {
            words.push(format!("clamp mss to mtu {}", self.clamp));
        }
        words.push(format!("send {} mtu {}", names(self.egress), self.mtu));
        if self.ops.contains(Ops::WATCH_TCP) {
            words.push("watch tcp flags".into());
        }
        words.join(", ")
    }
}

impl Default for Program {
    fn default() -> Self {
        Self {
            ops: Ops::empty(),
            egress: ScopeId(0),
            adjacency: AdjacencyId(u32::MAX),
            inner: AdjacencyId(u32::MAX),
            endpoint: EndpointId(0),
            mtu: u16::MAX,
            reason: DropReason::InternalError,
            meter_count: 0,
            meters: [0; MAX_METERS],
            clamp: u16::MAX,
            session: SessionId(u32::MAX),
        }
    }
}

/// New addresses and ports, beside the flow table: only programs with [`Ops::REWRITE`] have one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rewrite {
    /// New source address and port.
    pub source: Option<(IpAddr, u16)>,
    /// New destination address and port.
    pub destination: Option<(IpAddr, u16)>,
    /// New source and destination of the packet that an ICMP error quotes.
    pub quoted: Option<(Transport, Transport)>,
}
