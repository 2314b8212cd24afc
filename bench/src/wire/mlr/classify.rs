//! Is a load a lower bound, an upper bound, or undecided (RFC 9971, section 4.6 and the appendix on load classification); and the
//! conditional throughput of a lower bound (appendix on conditional throughput).

use super::{Goal, Trial};

/// Classification of a load for a goal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Class {
    Lower,
    Upper,
    Undecided,
}

/// Classifies a load by all trials there.
///
/// Optimistic and pessimistic: if all time that is still missing from the duration sum were low-loss, or high-loss, would the
/// high-loss time stay within the exceed ratio? Where both say the same, the load is decided. Short high-loss trials count as far as
/// they are more than short low-loss ones make up for.
pub(crate) fn classify(goal: &Goal, trials: &[Trial]) -> Class {
    let seconds = |full: bool, high: bool| -> f64 {
        let chosen = trials.iter().filter(|trial| {
            (trial.duration >= goal.final_trial) == full && (trial.loss_ratio > goal.loss_ratio) == high
        });
        chosen.map(|trial| trial.duration).sum()
    };
    let full_low = seconds(true, false);
    let balancing = seconds(false, false) * goal.exceed_ratio / (1.0 - goal.exceed_ratio);
    let high = seconds(true, true) + (seconds(false, true) - balancing).max(0.0);
    let whole = (full_low + high).max(goal.duration_sum);
    let allowed = whole * goal.exceed_ratio;
    let optimistic = high <= allowed;
    let pessimistic = whole - full_low <= allowed;
    match (optimistic, pessimistic) {
        (true, true) => Class::Lower,
        (false, false) => Class::Upper,
        _ => Class::Undecided,
    }
}

/// The forwarding rate, in packets a second, that a lower bound's full-length trials show: the load less the loss ratio at the goal's
/// quantile of time, missing time counting as lost.
pub(crate) fn conditional_throughput(goal: &Goal, load: f64, trials: &[Trial]) -> f64 {
    let mut full: Vec<_> = trials.iter().filter(|trial| trial.duration >= goal.final_trial).collect();
    full.sort_by(|a, b| a.loss_ratio.total_cmp(&b.loss_ratio));
    let whole = full.iter().map(|trial| trial.duration).sum::<f64>().max(goal.duration_sum);
    let mut remaining = whole * (1.0 - goal.exceed_ratio);
    let mut quantile = None;
    for trial in full {
        if quantile.is_some() && remaining <= 0.0 {
            break;
        }
        quantile = Some(trial.loss_ratio);
        remaining -= trial.duration;
    }
    let loss = quantile.filter(|_| remaining <= 0.0).unwrap_or(1.0);
    load * (1.0 - loss)
}
