//! What the table is asked for, and what it answers.

use super::tcp::SessionState;
use crate::decision::{ChainId, Direction, Domain, Nanos, SessionId, Timeouts, Translations, Tuple};

/// What a lookup finds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// The session.
    pub id: SessionId,
    /// In which direction of the session the packet goes.
    pub direction: Direction,
    /// The chain that the session's packets take.
    pub chain: Option<ChainId>,
    /// How many attached hops the chain had when the session was made.
    pub cuts: u8,
    /// The session's state.
    pub state: SessionState,
    /// What is translated, and how.
    pub translations: Translations,
}

/// A session to be made.
#[derive(Clone, Debug)]
pub struct NewSession<'a> {
    /// Where it is looked up: see [`super::session_domain`].
    pub domain: Domain,
    /// The tuple of a packet in the forward direction, as it comes in.
    pub forward: &'a Tuple,
    /// The tuple of a reply, as it comes in: the reverse of the forward one after all edits.
    pub reply: &'a Tuple,
    /// Direction of the packet that opens it.
    pub direction: Direction,
    /// Its chain.
    pub chain: Option<ChainId>,
    /// How many attached hops that has.
    pub cuts: u8,
    /// TCP flags of the packet that opens it; 0 for what is not TCP.
    pub tcp_flags: u8,
    /// How long it lives without traffic; `None`: as the standards have it.
    pub timeouts: Option<Timeouts>,
    /// What is translated, and how.
    pub translations: Translations,
}

/// What a creation made. In this order, so that where a `Result` has it, no reason shares bytes with a part of the number, which would
/// be read in pieces then, and late.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Created {
    /// The packet's direction in it: [`Direction::Forward`], unless another worker was first with the other direction.
    pub direction: Direction,
    /// False if another worker was first: the session is that worker's.
    pub new: bool,
    /// The session.
    pub id: SessionId,
}

/// Why no session was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// As many sessions as `limits.sessions` allows, or too many slots at rest.
    Full,
    /// Another session has the same reply tuple: the edits map two connections onto one.
    ReplyTaken,
}

/// Counters and gauges.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SessionCounters {
    /// Sessions now.
    pub in_use: u64,
    /// Most sessions.
    pub capacity: u64,
    /// Sessions made.
    pub created: u64,
    /// Creations refused.
    pub refused: u64,
    /// Sessions that ran out of time or whose connection was opened anew.
    pub expired: u64,
}

/// One session for show.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionEntry {
    /// Its slot.
    pub id: SessionId,
    /// Where it is looked up.
    pub domain: Domain,
    /// The first packet's tuple as it came in.
    pub forward: Tuple,
    /// A reply's tuple as it comes in.
    pub reply: Tuple,
    /// Its chain.
    pub chain: Option<ChainId>,
    /// Its state.
    pub state: SessionState,
    /// Nanoseconds since it was made.
    pub age: Nanos,
    /// Nanoseconds until it goes, without traffic.
    pub expires: Nanos,
}
