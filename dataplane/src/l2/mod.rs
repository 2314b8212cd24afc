//! Bridge domains: learning, ageing, forwarding, flooding (IEEE 802.1Q clause 8), with VXLAN tunnels as members (RFC 7348).

mod bridge;
mod table;

pub use bridge::{Bridge, Forward};
pub use table::{LearnPolicy, Learned, MacCounters, MacEntry, MacTable};

use crate::decision::{EndpointId, ScopeId};

/// A member of a bridge domain: a port, a VLAN of a port, or one remote VTEP of a tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Member {
    /// The interface.
    pub scope: ScopeId,
    /// The remote VTEP, if the interface is a tunnel.
    pub endpoint: Option<EndpointId>,
}

impl Member {
    /// Whether it is behind a tunnel.
    pub const fn is_tunnel(self) -> bool {
        self.endpoint.is_some()
    }
}
