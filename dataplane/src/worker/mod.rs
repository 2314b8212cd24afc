//! Workers: the run loop around the engine, what it counts and what it tells. The only room that knows both packets' I/O
//! and their meaning.

mod admit;
mod ahead;
mod announce;
mod apply;
mod at_once;
mod capture;
mod chains;
mod core;
mod cores;
mod counters;
mod dataplane;
mod devices;
mod display;
mod engine;
mod error;
mod flood;
mod held;
mod idle;
mod in_place;
mod lane;
mod local;
mod memory;
mod odd;
mod own;
mod pass;
mod ports;
mod relay;
mod run;
mod show;
mod slow;
mod stage;
pub mod status;
mod tables;
mod tick;
mod too_big;

pub use self::core::{Core, CoreParts};
pub use capture::{ReplayError, ReplaySummary, replay};
pub use cores::CoresError;
pub use counters::{Counter, CounterBlock};
pub use dataplane::{Dataplane, WorkerStart};
pub use engine::{Engine, EngineError, START};
pub use error::ApplyError;
pub use memory::DoesNotFit;
