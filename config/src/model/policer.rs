//! `[service.<name>.policer]`: how much passes.

use serde::{Deserialize, Serialize};

use super::Match;

/// A policer: token buckets.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Policer {
    /// Ordered rules, first match wins; what no rule matches is not policed.
    pub rules: Vec<PolicerRule>,
}

/// One rule of a policer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PolicerRule {
    /// What to match.
    pub matches: Match,
    /// The committed rate.
    pub rate: Rate,
    /// Depth of the bucket, in bytes or packets as the rate is in bits or packets.
    pub burst: u64,
    /// One bucket for the rule, or one for each source address.
    pub per: PolicerScope,
}

/// A rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Rate {
    /// Bits a second of L3 packets (IP header and payload).
    BitsPerSecond(u64),
    /// Packets a second.
    PacketsPerSecond(u64),
}

/// What shares a bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PolicerScope {
    /// Everything that the rule matches.
    Rule,
    /// Each source address (of the session's first packet).
    Source,
}
