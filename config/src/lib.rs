//! weir's configuration: TOML text → typed model with places → validated [`Config`] → difference.
//!
//! Nothing here touches a device, a socket or a packet; the only I/O is reading files.
//!
//! The four steps are [`load_str`] (or [`load`], [`from_json`], [`from_environment`]) up to the validated
//! [`Config`], and [`diff`] against the running one. Every error is a [`Diagnostic`] with its place and a
//! stable code; [`CODES`] lists the codes. [`schema()`] describes the file for editors.

mod build;
mod check;
mod codes;
mod device;
mod diagnostic;
mod diff;
mod environment;
mod load;
mod mac;
pub mod model;
mod names;
mod nat;
mod node;
mod render;
mod schema;
mod sink;
mod text;
mod tree;
mod validate;

pub use codes::{CODES, Code};
pub use device::DeviceName;
pub use diagnostic::{Diagnostic, Diagnostics, Excerpt, Related, Severity};
pub use diff::{Change, ChangeKind, diff};
pub use environment::from_environment;
pub use load::{
    LoadError, Loaded, does_not_fit, from_json, load, load_json, load_json_for, load_str,
    load_str_everywhere, load_str_for,
};
pub use mac::{MacAddress, MacAddressError};
pub use model::*;
pub use node::Identity;
pub use render::to_json;
pub use schema::{manual, reference, schema};
