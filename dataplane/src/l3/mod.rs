//! Routing: RIB and FIB, interfaces, neighbours (ARP and ND), ICMP, fragmentation, packets to weir itself.

mod fib;

pub use fib::{Fib, Hop, Target};
