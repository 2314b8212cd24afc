//! weir's data plane: everything a packet touches.
//!
//! Rooms, from the top floor down; every import points down:
//!
//! ```text
//! worker
//! snapshot
//! chain
//! service  l3  l2  overlay  flow
//! session  decision  io
//! packet  frame
//! ```

pub mod chain;
pub mod decision;
pub mod flow;
pub mod frame;
pub mod io;
pub mod l2;
pub mod l3;
pub mod overlay;
pub mod packet;
pub mod service;
pub mod session;
pub mod snapshot;
pub mod worker;
