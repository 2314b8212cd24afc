//! Bridge domains and cross-connects.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// `[bridge.<name>]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Bridge {
    /// How long a learned MAC address lives without traffic.
    pub ageing: Duration,
    /// Whether source addresses are learned.
    pub learning: bool,
    /// Most MAC addresses learned behind one member; absent: only `limits.macs` bounds them.
    pub macs_per_member: Option<u32>,
    /// Whether BPDUs of the spanning tree (to 01:80:c2:00:00:00) are flooded like other groups.
    pub forward_stp: bool,
    /// Whether LLDP (to 01:80:c2:00:00:0e) is flooded like other groups.
    pub forward_lldp: bool,
}

/// `[cross-connect.<name>]`: two interfaces joined back to back.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CrossConnect {
    /// The two interface names: a port, `<port>.<vid>` or a tunnel.
    pub ends: [String; 2],
}
