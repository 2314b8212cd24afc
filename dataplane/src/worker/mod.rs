//! Workers: the run loop around the engine, what it counts and what it tells. The only room that knows both packets' I/O
//! and their meaning.

mod core;
mod counters;
mod display;
mod held;
mod local;
mod run;
mod slow;
mod stage;
pub mod status;
mod tick;

pub use self::core::{Core, CoreParts};
pub use counters::{Counter, CounterBlock};
