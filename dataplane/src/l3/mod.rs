//! Routing: RIB and FIB, interfaces, neighbours (ARP and ND), ICMP, fragmentation, packets to weir itself.

pub mod arp;
mod extension;
mod fib;
mod fragment;
mod handled;
pub mod icmp;
mod interface;
pub mod local;
pub mod nd;
mod neighbour;
mod originate;
mod rib;
pub mod sanity;

pub use fib::{Choice, Fib, FibFamily, FibFull, Hop, LookUpV4, NO_ROUTE, Sparse, Target, WarmV4};
pub use fragment::{NotFragmented, fragment};
pub use handled::{Conflict, Handled, Reply};
pub use interface::{Interface, link_local, multicast_mac, solicited_node, source_in_vrf};
pub use neighbour::{
    Learned, Learning, NeighbourAction, NeighbourInfo, NeighbourState, NeighbourTable, REUSE_AFTER, TableFull,
};
pub use rib::{Origin, Rib, RouteError, describe};

use std::net::IpAddr;

use weir_config::MacAddress;

/// Writes an ARP request or a neighbour solicitation for `ip`, from its Ethernet header on, to `out` (replacing what it
/// held). False if the interface has no address to ask from.
pub fn solicit(interface: &Interface, ip: IpAddr, unicast_to: Option<MacAddress>, out: &mut Vec<u8>) -> bool {
    match ip {
        IpAddr::V4(ip) => arp::request(interface, ip, unicast_to, out),
        IpAddr::V6(ip) => nd::solicitation(interface, ip, unicast_to, out),
    }
}
