//! The classifier, and the walk: in which order the stages are asked about the first packet of a flow.

mod attached;
pub mod classifier;
mod forward;
pub mod pipeline;
mod translated;
mod walk;

pub use forward::LastWay;
pub use pipeline::{AttachedHop, Chain, Endpoint, Epochs, Lane, Pipeline, Scope, ScopeKind, Tables, Vrf};
pub use walk::{Walk, Walker};
