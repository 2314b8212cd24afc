//! Order statistics of repeats.

use serde::{Deserialize, Serialize};

/// Order statistics of some values, all in the values' unit. `NaN` where there is no value.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Summary {
    /// The smallest.
    pub(crate) least: f64,
    /// A quarter of the values is not larger.
    pub(crate) lower_quartile: f64,
    /// The median; of an even number of values, the mean of the two in the middle.
    pub(crate) median: f64,
    /// A quarter of the values is not smaller.
    pub(crate) upper_quartile: f64,
    /// The largest.
    pub(crate) most: f64,
    /// The mean.
    pub(crate) mean: f64,
}

impl Summary {
    /// Of `values`, in any order.
    pub(crate) fn new(values: impl IntoIterator<Item = f64>) -> Self {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_unstable_by(f64::total_cmp);
        let mean = values.iter().sum::<f64>() / values.len() as f64;
        Self {
            least: quantile(&values, 0.0),
            lower_quartile: quantile(&values, 0.25),
            median: quantile(&values, 0.5),
            upper_quartile: quantile(&values, 0.75),
            most: quantile(&values, 1.0),
            mean,
        }
    }

    /// The distance of the quartiles as a share of the median: 0.03 is 3 %.
    pub(crate) fn spread(&self) -> f64 {
        (self.upper_quartile - self.lower_quartile) / self.median
    }
}

/// The `share` quantile (0 to 1) of sorted values, interpolated linearly between neighbours. `NaN` of none.
pub(crate) fn quantile(sorted: &[f64], share: f64) -> f64 {
    let Some(last) = sorted.len().checked_sub(1) else { return f64::NAN };
    let place = share.clamp(0.0, 1.0) * last as f64;
    let below = place.floor();
    let at = |index: f64| sorted.get(index as usize).copied().unwrap_or(f64::NAN);
    let (low, high) = (at(below), at((below + 1.0).min(last as f64)));
    low + (high - low) * (place - below)
}

/// The median of `values`, in any order.
pub(crate) fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    Summary::new(values).median
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quartiles_are_interpolated_between_neighbours() {
        let summary = Summary::new([4.0, 1.0, 3.0, 2.0, 5.0]);
        assert_eq!((summary.least, summary.most, summary.mean), (1.0, 5.0, 3.0));
        assert_eq!((summary.lower_quartile, summary.median, summary.upper_quartile), (2.0, 3.0, 4.0));
        let even = Summary::new([1.0, 2.0, 3.0, 10.0]);
        assert_eq!((even.lower_quartile, even.median, even.upper_quartile), (1.75, 2.5, 4.75));
    }

    #[test]
    fn the_spread_is_a_share_of_the_median() {
        assert_eq!(Summary::new([10.0, 10.0, 10.0]).spread(), 0.0);
        assert_eq!(Summary::new([8.0, 9.0, 10.0, 11.0, 12.0]).spread(), 0.2);
    }

    #[test]
    fn one_outlier_does_not_move_the_median() {
        assert_eq!(median([5.0, 5.0, 1e9, 5.0, 5.0]), 5.0);
    }

    #[test]
    fn no_values_have_no_statistics() {
        assert!(Summary::new([]).median.is_nan());
        assert_eq!(Summary::new([7.0]).upper_quartile, 7.0);
    }
}
