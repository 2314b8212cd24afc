//! Tests on network cards: those of a virtual machine (`make lab`), or real ones, named by the environment. Without them
//! every test says that it is skipped.

#![allow(clippy::expect_used, clippy::panic)] // A step of a scenario that fails is a failed test.

mod afxdp;
mod cards;
mod functions;
mod guest;
mod memif;
mod vfio;
