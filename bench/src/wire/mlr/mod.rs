//! Multiple Loss Ratio search (RFC 9971): the throughput of a system for several goals at once, by the terms of RFC 2544 where a goal's
//! loss ratio is zero, and robust against single bad trials.
//!
//! Definitions are those of the RFC's section 4 and of its appendices on load classification and conditional throughput. Which load is
//! tried next is the implementation's affair: `search.rs`.

mod classify;
mod search;

#[cfg(test)]
mod reference;
#[cfg(test)]
mod tests;

pub(crate) use classify::{Class, classify, conditional_throughput};
pub(crate) use search::{GoalResult, Search};

use serde::Serialize;

/// What is searched for (Search Goal, section 4.6).
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct Goal {
    /// A trial with more loss is a high-loss trial.
    pub(crate) loss_ratio: f64,
    /// Which part of the time may be high-loss at a lower bound.
    pub(crate) exceed_ratio: f64,
    /// The relevant bounds may be this far apart, as a part of the upper one.
    pub(crate) width: f64,
    /// Seconds of a full-length trial; shorter ones are short.
    pub(crate) final_trial: f64,
    /// Seconds of full-length trials at a load that suffice for a decision.
    pub(crate) duration_sum: f64,
}

/// What came of a trial (section 4.5).
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct Trial {
    /// Intended packets a second.
    pub(crate) load: f64,
    /// Intended seconds.
    pub(crate) duration: f64,
    /// Packets that did not arrive, as a part of those intended: what the generator could not send counts as lost.
    pub(crate) loss_ratio: f64,
}
