//! Frames: packet buffers, each owned by exactly one holder. And the memory of large tables.
//!
//! A [`Frame`] is a move-only token for one chunk of a [`FrameMemory`]. Safe code cannot copy it, send it twice
//! or free it twice. Encapsulation writes into its headroom; decapsulation moves its start.
//!
//! ```text
//! chunk  |<------- headroom ------->|<---- len: the packet ---->|<--- tailroom --->|
//! ```
#![allow(unsafe_code)]

mod memory;
mod pool;
mod table_memory;
mod token;

pub use memory::{FrameMemory, MemoryError, PageKind};
pub use pool::{FrameCache, FramePool};
pub use table_memory::{Line, Plain, TableMemory, TablePages};
pub use token::Frame;

/// Bytes in front of a received or newly allocated packet: what the kernel leaves for XDP.
pub const HEADROOM: u16 = 256;

/// The most frames that one receive call returns.
pub const BURST: usize = 64;
/// Room of the vectors that bursts come in and ports' frames leave in: the same, so that they can change places.
pub const BURST_ROOM: usize = 4 * BURST;
