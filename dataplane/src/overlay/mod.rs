//! Overlays: VXLAN (RFC 7348). Who is a VTEP, what arrives there, what leaves, and how large it may be.
//!
//! Encapsulation is decided here and written by `decision::Encapsulation::write_outer`; decapsulation is a look-up in a
//! `VtepTable` and a moved offset.

pub mod vxlan;

pub use vxlan::encapsulation;
