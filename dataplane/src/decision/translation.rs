//! Address translations of a session: what a function did to its first packet, so that it is done to every packet of the
//! session, and undone for replies, whichever worker meets them.

use std::fmt::Debug;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use super::{ChainId, Direction, ScopeId, Tuple};
use crate::packet::protocol;

/// An address with a port (of an ICMP query: its identifier), on one side of a translator.
pub type Transport = (Ipv4Addr, u16);

/// One address binding of a translator (RFC 4787's mapping). It lives as long as a session holds it: when the last one
/// lets go, its external port is given back.
pub trait Mapping: Debug + Send + Sync {
    /// Which rule gave it to its last session: the same number for the same rule of the same service in every generation.
    fn rule(&self) -> u64;

    /// Behind the translator.
    fn inside(&self) -> Transport;

    /// As the outside sees it.
    fn outside(&self) -> Transport;

    /// A session of this chain, opened by its owner towards `remote`, holds it by this rule now. Takes no lock: whoever calls may
    /// hold some.
    fn settle(&self, rule: u64, chain: Option<ChainId>, remote: Ipv4Addr);

    /// Its owner has sent to `remote`, though no session came of it.
    fn note(&self, remote: Ipv4Addr);

    /// Whether its owner has sent to `remote`.
    fn has_sent_to(&self, remote: Ipv4Addr) -> bool;
}

/// Which end of a session's first packet is translated. As wide as what stands beside it, so that a [`Translation`] is moved in whole
/// words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub enum Side {
    /// The source: from inside to outside.
    Source,
    /// The destination: from outside to inside.
    Destination,
}

/// One translation of a session.
#[derive(Clone, Debug)]
pub struct Translation {
    /// The binding.
    pub mapping: Arc<dyn Mapping>,
    /// Which end.
    pub side: Side,
    /// By which rule: as [`Mapping::rule`], which is that of the binding's last session.
    pub rule: u64,
}

impl PartialEq for Translation {
    fn eq(&self, other: &Self) -> bool {
        let parts = |of: &Self| (of.side, of.rule, of.mapping.inside(), of.mapping.outside());
        parts(self) == parts(other)
    }
}

impl Eq for Translation {}

/// The translations of a session: of its source, of its destination, or both (hairpinning, RFC 4787 section 6).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Translations {
    entries: [Option<Translation>; 2],
}

/// None, to refer to.
static NONE: Translations = Translations { entries: [None, None] };

impl Translations {
    /// No translation.
    pub fn none() -> &'static Self {
        &NONE
    }

    /// Adds one. False if there is no room.
    #[inline]
    pub fn push(&mut self, translation: Translation) -> bool {
        match self.entries.iter_mut().find(|entry| entry.is_none()) {
            Some(place) => {
                *place = Some(translation);
                true
            }
            None => false,
        }
    }

    /// All, in the order in which they were made.
    pub fn iter(&self) -> impl Iterator<Item = &Translation> {
        self.entries.iter().flatten()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.entries.iter().all(Option::is_none)
    }
}

impl Translation {
    /// The end of a packet in `direction` that it changes, and what it becomes.
    pub fn applied(&self, direction: Direction) -> (Side, Transport) {
        match (self.side, direction) {
            (Side::Source, Direction::Forward) => (Side::Source, self.mapping.outside()),
            (Side::Destination, Direction::Forward) => (Side::Destination, self.mapping.inside()),
            (Side::Source, Direction::Reverse) => (Side::Destination, self.mapping.inside()),
            (Side::Destination, Direction::Reverse) => (Side::Source, self.mapping.outside()),
        }
    }
}

impl Tuple {
    /// The tuple with one end replaced. An ICMP query has one identifier, which stands for both ports.
    #[must_use]
    pub fn with(mut self, side: Side, ip: IpAddr, port: u16) -> Self {
        self.set(side, ip, port);
        self
    }

    /// Replaces one end, as [`with`](Self::with) does.
    pub fn set(&mut self, side: Side, ip: IpAddr, port: u16) {
        match side {
            Side::Source => (self.source, self.source_port) = (ip, port),
            Side::Destination => (self.destination, self.destination_port) = (ip, port),
        }
        if matches!(self.protocol, protocol::ICMP | protocol::ICMPV6) {
            (self.source_port, self.destination_port) = (port, port);
        }
    }

    /// The address and the port of one end.
    pub fn end(&self, side: Side) -> (IpAddr, u16) {
        match side {
            Side::Source => (self.source, self.source_port),
            Side::Destination => (self.destination, self.destination_port),
        }
    }
}

/// How long sessions live without traffic, in seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// TCP connections that are established.
    pub tcp_established: u32,
    /// TCP connections that open or close.
    pub tcp_transitory: u32,
    /// UDP, and what has none of its own.
    pub udp: u32,
    /// ICMP queries.
    pub icmp: u32,
}

/// A way that a packet could take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Way {
    /// The interface that it leaves by.
    pub scope: ScopeId,
    /// weir's address there, for the next hop.
    pub source: Option<IpAddr>,
}

/// What a stage may ask of the routing around it.
pub trait Ways: Debug {
    /// The way to `destination` from where the packet is; `None` if there is none.
    fn way(&self, destination: IpAddr) -> Option<Way>;

    /// Whether `ip` is one of weir's own addresses there.
    fn owns(&self, ip: IpAddr) -> bool;
}

/// Routing that leads nowhere.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoWays;

impl Ways for NoWays {
    fn way(&self, _: IpAddr) -> Option<Way> {
        None
    }

    fn owns(&self, _: IpAddr) -> bool {
        false
    }
}
