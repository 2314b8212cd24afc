//! Service functions: what a chain is made of (RFC 7665). One folder each; [`list`] is the one place that names them all.

pub mod firewall;
pub mod list;
pub mod nat;
pub mod policer;

use std::net::Ipv4Addr;
use std::sync::Arc;

pub use list::build;

use weir_config::AddressRange;

use crate::decision::{
    FieldSet, FlowView, PathBuilder, RulesShape, Step, Timeouts, Translation, Tuple, VrfId, Ways,
};
use nat::{NatTable, Reserved};
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

    /// Addresses that packets are sent to which this function translates.
    fn external(&self) -> External {
        External::default()
    }

    /// Whether a packet to one of those, of no session, is to be translated by this function if it comes this way.
    fn claims(&self, _flow: &FlowView<'_>, _tuple: &Tuple) -> bool {
        false
    }

    /// Whether the rule that made a session's translation is still there, and may go on with it.
    fn keeps(&self, _translation: &Translation, _ways: &dyn Ways) -> bool {
        false
    }

    /// Whether `remote` may open a session from outside over a binding that this function made.
    fn lets_in(&self, _translation: &Translation, _remote: Ipv4Addr) -> bool {
        false
    }

    /// Shows what deciding about a new flow of this VRF will probably read or write that is in no cache: for asking the processor
    /// for it ahead of time.
    fn look_ahead(&self, _vrf: VrfId, _tuple: &Tuple, _show: Show<'_>) {}

    /// Makes of `tuple` what it will probably be after the edits, from what [`look_ahead`](Self::look_ahead) has shown a while ago, and
    /// shows what follows from that.
    fn foresee(&self, _vrf: VrfId, _tuple: &mut Tuple, _show: Show<'_>) {}

    /// How long sessions live that are opened so.
    fn timeouts(&self) -> Option<Timeouts> {
        None
    }
}

/// Is shown where something lies. It may be anything by then: an address is not for reading.
pub type Show<'a> = &'a dyn Fn(*const u8);

/// External addresses: those that packets come to which are translated.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct External {
    /// Addresses.
    pub ranges: Vec<AddressRange>,
    /// Whether weir's own addresses are among them.
    pub own: bool,
}

impl External {
    /// Whether `ip` is among the addresses.
    #[inline]
    pub fn contains(&self, ip: Ipv4Addr) -> bool {
        self.ranges.iter().any(|range| range.contains(ip))
    }
}

/// What service functions build on that outlives a generation of the configuration.
#[derive(Clone, Debug)]
pub struct BuildContext {
    /// Token buckets.
    pub meters: Arc<MeterAllocator>,
    /// Address bindings.
    pub nat: Arc<NatTable>,
    /// Ports that are not handed out, in the generation that is being compiled.
    pub reserved: Arc<Reserved>,
}

#[cfg(test)]
impl BuildContext {
    /// Token buckets, and of everything else as little as can be.
    fn of_meters(meters: Arc<MeterAllocator>) -> Self {
        Self { meters, nat: Arc::new(NatTable::new(1, 1)), reserved: Arc::default() }
    }
}
