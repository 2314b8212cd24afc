//! The run loop and what it tells.

pub mod status;
