//! Which load is tried next.
//!
//! The first trial is at the largest load, the second at the rate that the first one forwarded. Then goals are served one after the
//! other, each by way of coarser targets that halve their width and lengthen their duration sum, so that few trials are spent far from
//! the result. Within a target: loads between the bounds that are undecided are tried again; a missing bound is looked for outwards in
//! doubling steps; between two bounds the interval is halved, on a logarithmic scale. All goals see all trials.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{Class, Goal, Trial, classify, conditional_throughput};

/// Coarser targets before a goal's own.
const COARSER: u32 = 3;

/// The relevant bounds of a goal (RFC 9971, section 4.7), in packets a second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub(crate) struct Bounds {
    /// The largest load below `upper` that is a lower bound.
    pub(crate) lower: Option<f64>,
    /// The smallest load that is an upper bound.
    pub(crate) upper: Option<f64>,
}

/// What was found for a goal (Goal Result, section 4.8).
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct GoalResult {
    pub(crate) goal: Goal,
    pub(crate) bounds: Bounds,
    /// Of the relevant lower bound.
    pub(crate) conditional_throughput: Option<f64>,
    /// Both bounds exist and are as close as the goal wants. Otherwise the largest load is a lower bound, the smallest one is an upper
    /// bound, or the search was ended early.
    pub(crate) regular: bool,
}

/// A search in progress. The caller measures what [`next`](Self::next) asks for and [`record`](Self::record)s it, so that several
/// systems can be searched in turns.
#[derive(Clone, Debug)]
pub(crate) struct Search {
    goals: Vec<Goal>,
    least: u64,
    most: u64,
    /// Trials by load in packets a second, rounded.
    trials: BTreeMap<u64, Vec<Trial>>,
    goal: usize,
    /// Coarser targets that are still to come before the goal's own.
    coarser: u32,
    /// Factor of the next step outwards, in widths of the target.
    step: u32,
    count: usize,
    limit: usize,
}

impl Search {
    /// Searches between `least` and `most` packets a second, in at most `limit` trials.
    pub(crate) fn new(goals: Vec<Goal>, least: f64, most: f64, limit: usize) -> Self {
        let least = least.round().max(1.0) as u64;
        let most = (most.round() as u64).max(least);
        let trials = BTreeMap::new();
        Self { goals, least, most, trials, goal: 0, coarser: COARSER, step: 1, count: 0, limit }
    }

    /// Load and seconds of the next trial; `None` when the search is over.
    pub(crate) fn next(&mut self) -> Option<(f64, f64)> {
        if self.count >= self.limit {
            return None;
        }
        while let Some(goal) = self.goals.get(self.goal).copied() {
            // Where nothing is certain, the first goal would use up all trials: a part of them is kept for each later one.
            let later = self.goals.len() - self.goal - 1;
            if self.count >= self.limit - later * (self.limit / (2 * self.goals.len())) {
                (self.goal, self.coarser, self.step) = (self.goal + 1, COARSER, 1);
                continue;
            }
            let target = self.target(&goal);
            if let Some(load) = self.load_for(&target) {
                return Some((load as f64, goal.final_trial));
            }
            self.step = 1;
            if self.coarser > 0 {
                self.coarser -= 1;
            } else {
                self.goal += 1;
                self.coarser = COARSER;
            }
        }
        None
    }

    /// Adds what came of a trial.
    pub(crate) fn record(&mut self, trial: Trial) {
        self.count += 1;
        self.trials.entry(trial.load.round() as u64).or_default().push(trial);
    }

    /// What is known so far, for each goal.
    pub(crate) fn results(&self) -> Vec<GoalResult> {
        self.goals.iter().map(|goal| self.result(goal)).collect()
    }

    /// Every trial, by load.
    pub(crate) fn trials(&self) -> impl Iterator<Item = &Trial> {
        self.trials.values().flatten()
    }

    fn result(&self, goal: &Goal) -> GoalResult {
        let (lower, upper) = self.bounds(goal);
        let bounds = Bounds { lower: lower.map(|load| load as f64), upper: upper.map(|load| load as f64) };
        let at = lower.and_then(|load| self.trials.get(&load));
        GoalResult {
            goal: *goal,
            bounds,
            conditional_throughput: bounds
                .lower
                .zip(at)
                .map(|(load, trials)| conditional_throughput(goal, load, trials)),
            regular: match (lower, upper) {
                (Some(lower), Some(upper)) => near(lower, upper, goal.width),
                _ => false,
            },
        }
    }

    /// The goal, wider and with less time for each load while coarser targets are to come.
    fn target(&self, goal: &Goal) -> Goal {
        let part = f64::from(COARSER - self.coarser) / f64::from(COARSER);
        Goal {
            width: (goal.width * f64::from(1 << self.coarser)).min(0.5),
            duration_sum: goal.final_trial * (goal.duration_sum / goal.final_trial).powf(part),
            ..*goal
        }
    }

    /// Relevant lower and upper bound.
    fn bounds(&self, goal: &Goal) -> (Option<u64>, Option<u64>) {
        let of = |wanted: Class| {
            self.trials
                .iter()
                .filter(move |(_, trials)| classify(goal, trials) == wanted)
                .map(|(load, _)| *load)
        };
        let upper = of(Class::Upper).next();
        let lower = of(Class::Lower).take_while(|load| upper.is_none_or(|upper| *load < upper)).last();
        (lower, upper)
    }

    /// The next load for a target; `None` when it is reached, or cannot be.
    fn load_for(&mut self, target: &Goal) -> Option<u64> {
        if self.trials.is_empty() {
            return Some(self.most);
        }
        match self.bounds(target) {
            (Some(lower), Some(upper)) if near(lower, upper, target.width) => None,
            (Some(lower), Some(upper)) => {
                self.most_tried(target, lower + 1, upper - 1).or_else(|| between(lower, upper))
            }
            (Some(lower), None) if lower >= self.most => None,
            (Some(lower), None) => {
                let outer = ((lower as f64 / self.stride(target)).ceil() as u64).clamp(lower + 1, self.most);
                Some(self.undecided(target, lower + 1, outer).next().unwrap_or(outer))
            }
            (None, Some(upper)) if upper <= self.least => None,
            (None, Some(upper)) if self.count == 1 => Some(self.forwarded().clamp(self.least, upper - 1)),
            (None, Some(upper)) => {
                let outer =
                    ((upper as f64 * self.stride(target)).floor() as u64).clamp(self.least, upper - 1);
                Some(self.undecided(target, outer, upper - 1).next_back().unwrap_or(outer))
            }
            (None, None) => self.reopened(target),
        }
    }

    /// The factor of the next step outwards; the one after it will be twice as far.
    fn stride(&mut self, target: &Goal) -> f64 {
        let stride = (1.0 - target.width).powi(self.step as i32);
        self.step = (self.step * 2).min(1 << 12);
        stride
    }

    /// What the first trial, at the largest load, forwarded.
    fn forwarded(&self) -> u64 {
        self.trials().next().map_or(0.0, |trial| trial.load * (1.0 - trial.loss_ratio)).round() as u64
    }

    fn undecided(&self, target: &Goal, from: u64, to: u64) -> impl DoubleEndedIterator<Item = u64> {
        let target = *target;
        let range = (from <= to).then(|| self.trials.range(from..=to));
        let open = range.into_iter().flatten().filter(move |(_, t)| classify(&target, t) == Class::Undecided);
        open.map(|(load, _)| *load)
    }

    fn most_tried(&self, target: &Goal, from: u64, to: u64) -> Option<u64> {
        self.undecided(target, from, to).max_by_key(|load| self.trials.get(load).map_or(0, Vec::len))
    }

    /// No load is decided any more, now that the target wants more time: the coarser target's bounds are tried first.
    fn reopened(&self, target: &Goal) -> Option<u64> {
        let (lower, upper) = self.bounds(&Goal { duration_sum: target.final_trial, ..*target });
        let open =
            lower.into_iter().chain(upper).find(|load| self.undecided(target, *load, *load).next().is_some());
        open.or_else(|| self.most_tried(target, self.least, self.most))
    }
}

/// Whether the bounds are as close as `width` asks, or neighbours.
fn near(lower: u64, upper: u64, width: f64) -> bool {
    upper - lower <= 1 || (upper - lower) as f64 / upper as f64 <= width
}

/// The logarithmic middle of two loads, strictly between them.
fn between(lower: u64, upper: u64) -> Option<u64> {
    let middle = (lower as f64 * upper as f64).sqrt().round() as u64;
    (upper - lower > 1).then(|| middle.clamp(lower + 1, upper - 1))
}
