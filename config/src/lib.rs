//! weir's configuration: TOML text → typed model with places → validated [`Config`] → difference.
//!
//! Nothing here touches a device, a socket or a packet; the only I/O is reading files.

mod mac;
pub mod model;

pub use mac::{MacAddress, MacAddressError};
pub use model::*;
