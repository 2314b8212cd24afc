//! Service functions: what a chain is made of (RFC 7665). One folder each; [`list`] is the one place that names them all.

pub mod firewall;
pub mod list;
pub mod policer;

use std::sync::Arc;

pub use list::build;

use crate::decision::{FieldSet, FlowView, PathBuilder, RulesShape, Step};
use policer::MeterAllocator;

/// A service function. It decides about the first packet of a flow; what it wants done to later ones it says as edits.
pub trait ServiceFunction: Send + Sync {
    /// Its name in the configuration.
    fn name(&self) -> &str;

    /// Its kind, as the configuration calls it: `firewall`, `policer`.
    fn kind(&self) -> &'static str;

    /// The header fields that its decisions depend on. Two packets that agree in these (and in scope, network layer and
    /// fragment kind) get the same decision; the flow key keeps no more than what some function consults.
    fn consults(&self) -> FieldSet;

    /// Decides about the first packet of a flow. Adds its edits to `path`; never touches the packet. `path.tuple()` is the
    /// packet's tuple after the edits of earlier hops.
    fn decide(&self, flow: &FlowView<'_>, path: &mut PathBuilder) -> Step;

    /// What its rules were compiled into; `None` if it has none.
    fn rules(&self) -> Option<RulesShape> {
        None
    }
}

/// What service functions build on that outlives a generation of the configuration.
#[derive(Clone, Debug)]
pub struct BuildContext {
    /// Token buckets.
    pub meters: Arc<MeterAllocator>,
}
