//! weir's binding of the system's DPDK: EAL, a mempool over memory that is not DPDK's, and Ethernet devices. Only what weir's ports
//! need; no `rte_` type leaves it.
//!
//! Without the feature `link` the crate is empty, and needs no DPDK.
#![cfg(feature = "link")]
#![allow(unsafe_code)]

mod device;
mod eal;
mod error;
mod log;
mod mbuf;
mod mempool;
mod sys;
mod thread;

pub use device::{About, Device, Link, Obtained, Settings, Stats};
pub use eal::{Eal, version};
pub use error::Error;
pub use log::{Level, set_log};
pub use mbuf::{HEADROOM, Mbuf};
pub use mempool::{Chunks, Mempool, Places};
pub use thread::{enter, flush, inside, number};
