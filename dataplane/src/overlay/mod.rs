//! Overlays: VXLAN (RFC 7348). Who is a VTEP, what arrives there, what leaves, and how large it may be.
//!
//! Encapsulation is decided here and written by `Encapsulation::write_outer` of the room `decision`; decapsulation is a
//! look-up in a [`VtepTable`] and a moved offset.

pub mod pmtu;
pub mod underlay_error;
pub mod vtep;
pub mod vxlan;

pub use pmtu::PathMtuTable;
pub use underlay_error::{UnderlayError, underlay_error};
pub use vtep::{Decap, Known, PathHeaders, Ports, VtepEntry, VtepTable};
pub use vxlan::{Remote, encapsulation};
