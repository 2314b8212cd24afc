//! One neighbour, and what a message may change of it.

use std::net::IpAddr;

use weir_config::MacAddress;

use super::SECOND;
use crate::decision::{AdjacencyId, Nanos, ScopeId};

/// What is known of a neighbour (RFC 4861 section 7.3.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NeighbourState {
    /// Asked for, no answer yet.
    Incomplete,
    /// Confirmed not long ago.
    Reachable,
    /// Known, but not confirmed for long: used, and verified if it is used.
    Stale,
    /// Being verified by unicast; still used.
    Probe,
    /// Nobody answered; tried again after a hold-down.
    Failed,
    /// Configured: never changed by a message.
    Static,
    /// Told by the kernel, which owns the interface.
    Kernel,
    /// The one far end of a tunnel with a fixed remote MAC address, under the address 0.0.0.0.
    PointToPoint,
}

impl NeighbourState {
    /// Its name for people and programs.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Incomplete => "incomplete",
            Self::Reachable => "reachable",
            Self::Stale => "stale",
            Self::Probe => "probe",
            Self::Failed => "failed",
            Self::Static => "static",
            Self::Kernel => "kernel",
            Self::PointToPoint => "point-to-point",
        }
    }
}

/// How a neighbour was heard of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Learned {
    /// It asked for one of our addresses: an ARP request (RFC 826) or a neighbour solicitation (RFC 4861 section 7.2.3).
    /// Makes an entry.
    Request,
    /// An ARP reply to us. Makes none.
    Reply,
    /// An ARP message that is not to us: changes a known entry (RFC 826's merge flag, RFC 5227 section 2.3), makes none.
    Gratuitous,
    /// A neighbour advertisement with a link-layer address (RFC 4861 section 7.2.5). Makes none.
    Advertisement {
        /// The S flag.
        solicited: bool,
        /// The O flag.
        overrides: bool,
    },
    /// The kernel of a shared port says so.
    Kernel,
    /// The configuration says so.
    Static,
}

impl Learned {
    /// Whether an unknown neighbour gets an entry.
    pub(super) fn creates(self) -> bool {
        matches!(self, Self::Request | Self::Kernel | Self::Static)
    }

    /// The state of an entry that is new or has a new MAC address.
    pub(super) fn state(self) -> NeighbourState {
        match self {
            Self::Static => NeighbourState::Static,
            Self::Kernel => NeighbourState::Kernel,
            Self::Advertisement { solicited: true, .. } => NeighbourState::Reachable,
            _ => NeighbourState::Stale,
        }
    }
}

/// One entry, for display and for choosing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NeighbourInfo {
    /// Interface.
    pub scope: ScopeId,
    /// Address.
    pub ip: IpAddr,
    /// MAC address, once resolved.
    pub mac: Option<MacAddress>,
    /// State.
    pub state: NeighbourState,
    /// Seconds since it was last confirmed; since it was made, if it never was.
    pub age: u64,
    /// Second of the engine's clock at which it was last used.
    pub last_used: u32,
    /// Its adjacency.
    pub adjacency: AdjacencyId,
}

#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) scope: ScopeId,
    pub(super) ip: IpAddr,
    pub(super) mac: Option<MacAddress>,
    pub(super) state: NeighbourState,
    /// It had a MAC address once.
    pub(super) heard: bool,
    /// The kernel owns the interface.
    pub(super) kernel: bool,
    /// When the state was entered.
    pub(super) since: Nanos,
    /// When it was made or last confirmed.
    pub(super) confirmed: Nanos,
    /// When the timer runs out: the key in the table's queue.
    pub(super) due: Nanos,
    /// When a failed entry may be tried again.
    pub(super) retry_at: Nanos,
    /// Solicitations sent in this state.
    pub(super) tries: u8,
    /// Failures in a row.
    pub(super) failures: u8,
}

/// What a message makes of an entry.
pub(super) struct Update {
    pub(super) mac: MacAddress,
    pub(super) state: NeighbourState,
}

impl Entry {
    pub(super) fn new(scope: ScopeId, ip: IpAddr, now: Nanos) -> Self {
        Self {
            scope,
            ip,
            mac: None,
            state: NeighbourState::Incomplete,
            heard: false,
            kernel: false,
            since: now,
            confirmed: now,
            due: Nanos::MAX,
            retry_at: 0,
            tries: 0,
            failures: 0,
        }
    }

    /// What a message with this MAC address changes; `None`: nothing.
    pub(super) fn update(&self, mac: MacAddress, how: Learned) -> Option<Update> {
        use NeighbourState::{Failed, Incomplete, Probe, Reachable, Stale, Static};
        let same = self.mac == Some(mac);
        let state = match how {
            Learned::Kernel if self.state == Static => return None,
            Learned::Static | Learned::Kernel => how.state(),
            _ if self.state == Static || self.kernel || self.state == NeighbourState::Kernel => return None,
            // It was asked for: confirmed. Otherwise it is worth what a gratuitous message is worth.
            Learned::Reply if matches!(self.state, Incomplete | Probe) || (same && self.state != Failed) => {
                Reachable
            }
            Learned::Advertisement { solicited, overrides } => {
                return self.advertised(mac, solicited, overrides);
            }
            Learned::Reply | Learned::Request | Learned::Gratuitous => {
                if same && matches!(self.state, Reachable | Stale | Probe) {
                    return None;
                }
                Stale
            }
        };
        Some(Update { mac, state })
    }

    /// RFC 4861 section 7.2.5.
    fn advertised(&self, mac: MacAddress, solicited: bool, overrides: bool) -> Option<Update> {
        use NeighbourState::{Reachable, Stale};
        let confirmed = if solicited { Reachable } else { Stale };
        let Some(old) = self.mac else { return Some(Update { mac, state: confirmed }) };
        if old == mac {
            return solicited.then_some(Update { mac, state: Reachable });
        }
        if overrides {
            return Some(Update { mac, state: confirmed });
        }
        // Another address that may not override: doubt the old one, but keep it.
        (self.state == Reachable).then_some(Update { mac: old, state: Stale })
    }

    pub(super) fn info(&self, adjacency: AdjacencyId, last_used: u32, now: Nanos) -> NeighbourInfo {
        NeighbourInfo {
            scope: self.scope,
            ip: self.ip,
            mac: self.mac,
            state: self.state,
            age: now.saturating_sub(self.confirmed) / SECOND,
            last_used,
            adjacency,
        }
    }
}
