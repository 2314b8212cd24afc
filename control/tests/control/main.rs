//! weir's control as a whole: the binary and the daemon, around a data plane that is a fake.

// Helpers of tests fail by panicking, as tests do.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod api;
mod cli;
mod common;
mod daemon;
mod device_plugin;
mod log;
mod orchestrated;
mod process;
mod signals;
