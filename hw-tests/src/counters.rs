//! weir's packet counters as `weir show counters --json` gives them, and what a test expects of them.

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use crate::eventually;
use crate::weir::WeirState;

/// How long a counter may take to reach the value that is expected of it.
const PATIENCE: Duration = Duration::from_secs(3);

/// The counters of a box, summed over its workers.
#[derive(Clone, Debug)]
pub struct Counters {
    weir: Arc<WeirState>,
    value: Value,
}

impl Counters {
    pub(crate) fn new(weir: Arc<WeirState>) -> Self {
        let value = weir.counters();
        Self { weir, value }
    }

    /// One counter by its path: `received`, `dropped.packet_too_big`, `flow_hits`. 0 where it never counted.
    pub fn get(&self, path: &str) -> u64 {
        get(&self.value, path)
    }

    /// Packets dropped for any reason.
    pub fn dropped(&self) -> u64 {
        dropped(&self.value)
    }

    /// Whether every packet is accounted for, as [`Counters::expect_conserved`] expects.
    pub fn is_conserved(&self) -> bool {
        conserved(&self.value).is_ok()
    }

    /// Expects an exact value, which the counter may take three seconds to reach.
    #[track_caller]
    pub fn expect(&self, path: &str, expected: u64) -> &Self {
        self.expect_that(path, &format!("exactly {expected}"), |n| n == expected)
    }

    /// Expects at least this value.
    #[track_caller]
    pub fn expect_at_least(&self, path: &str, least: u64) -> &Self {
        self.expect_that(path, &format!("at least {least}"), |n| n >= least)
    }

    /// Expects that `received + handed_in + originated = transmitted + Σ dropped + punted + consumed + handed_out + held`.
    #[track_caller]
    pub fn expect_conserved(&self) -> &Self {
        // Workers are not stopped to be asked: packets in the hands of one may be between two counters.
        let mut last = conserved(&self.value);
        eventually(PATIENCE, || {
            if last.is_err() {
                last = conserved(&self.weir.counters());
            }
            last.is_ok().then_some(())
        });
        if let Err(text) = last {
            panic!("{text}");
        }
        self
    }

    #[track_caller]
    fn expect_that(&self, path: &str, what: &str, test: impl Fn(u64) -> bool) -> &Self {
        let mut last = self.value.clone();
        let reached = eventually(PATIENCE, || {
            if test(get(&last, path)) {
                return Some(());
            }
            last = self.weir.counters();
            None
        });
        assert!(reached.is_some(), "expected {path} to be {what}, it is {}, of {last:#}", get(&last, path));
        self
    }
}

fn get(counters: &Value, path: &str) -> u64 {
    let found = path.split('.').try_fold(counters, |value, key| value.get(key));
    found.and_then(Value::as_u64).unwrap_or(0)
}

fn dropped(counters: &Value) -> u64 {
    let reasons = counters.get("dropped").and_then(Value::as_object);
    reasons.map_or(0, |reasons| reasons.values().filter_map(Value::as_u64).sum())
}

/// The law of conservation: every packet that came in or was made is accounted for exactly once.
pub(crate) fn conserved(counters: &Value) -> Result<(), String> {
    if counters.get("received").is_none() || counters.get("transmitted").is_none() {
        return Err(format!("these are no counters: {counters:#}"));
    }
    let sum = |names: &[&str]| names.iter().map(|name| get(counters, name)).sum::<u64>();
    let came = sum(&["received", "handed_in", "originated"]);
    let went = sum(&["transmitted", "punted", "consumed", "handed_out", "held"]) + dropped(counters);
    if came == went {
        return Ok(());
    }
    Err(format!("{came} packets came in or were made, but {went} are accounted for: {counters:#}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_packet_unaccounted_for_breaks_conservation() {
        let mut counters = serde_json::json!({
            "received": 10, "originated": 2, "transmitted": 6, "consumed": 2, "held": 1,
            "dropped": { "no_route": 2, "policed": 1 }
        });
        assert_eq!(conserved(&counters), Ok(()));
        counters["dropped"]["policed"] = 2.into();
        assert!(conserved(&counters).is_err());
    }

    #[test]
    fn a_reason_that_never_occurred_counts_zero() {
        let counters = serde_json::json!({ "dropped": { "no_route": 2 } });
        assert_eq!((get(&counters, "dropped.no_route"), get(&counters, "dropped.policed")), (2, 0));
    }
}
