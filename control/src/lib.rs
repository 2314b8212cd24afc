//! weir's control: command line, daemon, socket API, netlink, metrics.
//!
//! Nothing here touches the bytes of a packet; the data plane is reached through [`engine::Engine`] alone.

pub mod api;
pub mod cli;
pub mod client;
pub mod configuration;
pub mod daemon;
pub mod dataplane;
pub mod devices;
pub mod doctor;
pub mod engine;
pub mod netlink;
pub mod privilege;
pub mod system;
