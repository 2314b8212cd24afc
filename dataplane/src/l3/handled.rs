//! What became of a packet that was addressed to weir itself.

use std::net::IpAddr;

use weir_config::MacAddress;

use crate::decision::{DropReason, Verdict};

/// What to send in answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reply {
    /// Nothing.
    None,
    /// The buffer holds an IP packet: route it in the VRF of the interface that the packet came in by; if its destination
    /// is link-local, send it out of that interface.
    Packet,
    /// The buffer holds a frame from its Ethernet header on, without VLAN tags: send it out of the interface that the
    /// packet came in by.
    Frame,
}

/// Somebody else uses one of weir's own addresses (RFC 5227 section 2.4, RFC 4862 section 5.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// The address.
    pub ip: IpAddr,
    /// Who else uses it, or wants to.
    pub mac: MacAddress,
}

/// What became of a packet that was addressed to weir itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Handled {
    /// Its verdict: consumed or dropped.
    pub verdict: Verdict,
    /// What to send in answer.
    pub reply: Reply,
    /// A duplicate address, to be told to the operator.
    pub conflict: Option<Conflict>,
}

impl Handled {
    /// Dealt with, no answer.
    pub(crate) const CONSUMED: Self = Self { verdict: Verdict::Consumed, reply: Reply::None, conflict: None };

    pub(crate) const fn dropped(reason: DropReason) -> Self {
        Self { verdict: Verdict::Dropped(reason), reply: Reply::None, conflict: None }
    }

    pub(crate) const fn replied(reply: Reply) -> Self {
        Self { verdict: Verdict::Consumed, reply, conflict: None }
    }

    pub(crate) const fn conflict(ip: IpAddr, mac: MacAddress) -> Self {
        Self { verdict: Verdict::Consumed, reply: Reply::None, conflict: Some(Conflict { ip, mac }) }
    }
}
