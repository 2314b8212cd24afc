//! Routing: RIB and FIB, interfaces, neighbours (ARP and ND), ICMP, fragmentation, packets to weir itself.

mod fib;
mod interface;
mod neighbour;
mod rib;

pub use fib::{Fib, Hop, Target};
pub use interface::{Interface, link_local, multicast_mac, solicited_node, source_in_vrf};
pub use neighbour::{
    Learned, Learning, NeighbourAction, NeighbourInfo, NeighbourState, NeighbourTable, REUSE_AFTER, TableFull,
};
pub use rib::{Origin, Rib, RouteError, describe};
