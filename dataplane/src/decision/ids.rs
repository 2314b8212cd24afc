//! Small numbers that stand for configured things. Names are interned once for the life of the process, so a number
//! means the same thing in every generation.

/// A moment: nanoseconds of the engine's clock (monotonic; in a replay, the capture's own time).
pub type Nanos = u64;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(pub $inner);

        impl $name {
            /// As an index.
            #[inline]
            pub const fn index(self) -> usize {
                self.0 as usize
            }
        }
    };
}

id!(/// A port.
    PortId(u16));
id!(/// A scope, that is an interface: an untagged port, a VLAN of a port, or a tunnel. Packets come in by it and leave by it.
    ScopeId(u16));
id!(/// A VRF.
    VrfId(u16));
id!(/// A bridge domain.
    BridgeId(u16));
id!(/// One remote VTEP of a tunnel.
    EndpointId(u16));
id!(/// A chain.
    ChainId(u16));
id!(/// An attached hop where it stands: in this chain, in this VRF. Elsewhere it has another number.
    HopId(u16));
id!(/// An entry of the adjacency table.
    AdjacencyId(u32));
id!(/// A token bucket.
    MeterId(u32));
id!(/// A session's slot in the session table.
    SessionId(u32));

/// What a scope belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Domain {
    /// A routed interface of a VRF.
    Vrf(VrfId),
    /// A member of a bridge domain.
    Bridge(BridgeId),
    /// One end of a cross-connect; the value is the other end.
    CrossConnect(ScopeId),
    /// An interface of an attached hop. Of a session: made where packets go on that came back from it.
    Hop(HopId),
}
