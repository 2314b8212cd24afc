//! The shared session table: what is known of each connection, over all workers. Consulted on walks only.
//!
//! A session is found by two keys: its first packet's tuple as it came in, and the tuple of a reply, that is the reverse
//! of the first one after all edits. Keys are spread over shards, each under its own lock; the sessions themselves lie in a
//! fixed array of slots that cached programs refer to by `SessionId`. A slot is given to another session only
//! [`GRACE`] after its last one went, when no idle program can point at it any more.
//!
//! TCP states follow RFC 9293; timeouts RFC 5382, RFC 4787, RFC 5508; an ICMP error finds its session by the packet that it
//! quotes (RFC 5508 section 4).

mod fragments;
mod shard;
mod slots;
mod table;
mod tcp;
mod terms;
mod ties;
mod wheel;

#[cfg(test)]
mod tests;

pub use fragments::FragmentTable;
pub use slots::Slot;
pub use table::SessionTable;
pub use tcp::{SessionState, opens};
pub use terms::{Created, Found, NewSession, Refused, SessionCounters, SessionEntry};

use crate::decision::{Domain, Nanos, ScopeId};

/// How long a slot rests between two sessions, in nanoseconds.
pub const GRACE: Nanos = 60_000_000_000;

/// The domain that sessions of packets from `scope` are looked up in: the VRF or bridge domain; for a cross-connect, whose
/// two ends must agree, the smaller of its two scopes; behind an attached hop, the hop.
pub fn session_domain(scope: ScopeId, domain: Domain) -> Domain {
    match domain {
        Domain::CrossConnect(other) => Domain::CrossConnect(scope.min(other)),
        Domain::Vrf(_) | Domain::Bridge(_) | Domain::Hop(_) => domain,
    }
}
