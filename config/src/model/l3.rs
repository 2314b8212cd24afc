//! VRFs with their static routes and neighbours.

use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::MacAddress;

/// The VRF that always exists and that ports and tunnels belong to unless they say otherwise.
pub const DEFAULT_VRF: &str = "default";

/// `[vrf.<name>]`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Vrf {
    /// Static routes. A prefix that stands several times is an equal-cost multipath route.
    pub routes: Vec<Route>,
}

/// `[[vrf.<name>.route]]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Route {
    /// Destination.
    pub prefix: IpNet,
    /// Where to; more than one is equal-cost multipath. Empty is never valid.
    pub via: Vec<NextHop>,
}

/// One next hop of a route.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum NextHop {
    /// A gateway; the interface is the connected one unless named.
    Gateway {
        /// The gateway's address, of the route's own family.
        ip: IpAddr,
        /// Interface name, if given.
        interface: Option<String>,
    },
    /// Directly on this interface (port, `<port>.<vid>`): destinations are neighbours there.
    Interface(String),
    /// Into this routed tunnel. Inside, the far end is `remote_mac` of the tunnel, or destinations are
    /// neighbours there.
    Tunnel(String),
    /// Dropped and counted.
    Blackhole,
}

/// `[[neighbour]]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StaticNeighbour {
    /// Interface name: a port, `<port>.<vid>` or a tunnel.
    pub interface: String,
    /// The neighbour's IP address.
    pub ip: IpAddr,
    /// The neighbour's MAC address.
    pub mac: MacAddress,
}
