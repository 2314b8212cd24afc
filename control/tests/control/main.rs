//! weir's control as a whole: the binary and the daemon, around a data plane that is a fake.

mod api;
mod cli;
mod common;
mod daemon;
mod log;
mod signals;
