//! Scenarios: weir with real sockets, Linux as the peer. Each reads like a specification; the sites that several of them play
//! in are in [`sites`].

#![allow(clippy::expect_used)] // A step of a scenario that fails is a failed test.

mod bridge;
mod cross_connect;
mod hop;
mod lifecycle;
mod mtu;
mod nat;
mod queues;
mod reload;
mod router;
mod services;
mod shared;
mod sites;
mod vlan;
mod vxlan_bridged;
mod vxlan_routed;
