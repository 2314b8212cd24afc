//! What a stage may say: steps, verdicts, drop reasons, fields, edits; and the shared cells that edits point at.
//!
//! Decisions are values. Stages make them, `chain` collects them, `flow` compiles and replays them; nobody else edits
//! bytes and nobody else counts.

mod adjacency;
mod apart;
mod field;
mod ids;
mod lock;
mod matcher;
mod meter;
mod openings;
mod path;
mod reason;
mod rules;
mod translation;
mod tunnel;
mod view;

pub use adjacency::{AdjacencyTable, Link};
pub use apart::Apart;
pub use field::FieldSet;
pub use ids::{
    AdjacencyId, BridgeId, ChainId, Domain, EndpointId, HopId, MeterId, Nanos, PortId, ScopeId, SessionId,
    VrfId,
};
pub use lock::{Lock, Locked};
pub use matcher::Matcher;
pub use meter::{MeterCache, MeterSpec, MeterTable};
pub use openings::{End, Openings};
pub use path::{Edit, PathBuilder};
pub use reason::{DropReason, Step, Verdict};
pub use rules::{Rule, RuleSet, RulesShape, TreeShape};
pub use translation::{Mapping, NoWays, Side, Timeouts, Translation, Translations, Transport, Way, Ways};
pub use tunnel::Encapsulation;
pub use view::{Direction, FlowView, Tuple};
