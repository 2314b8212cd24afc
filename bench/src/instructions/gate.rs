//! The comparison with the checked-in baseline.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::process::Command;

use serde::{Deserialize, Serialize};

use super::callgrind::Profile;
use crate::common::record::round;

/// A larger change, in either direction, has to be acknowledged: a gain that is not would hide the next loss.
const TOLERANCE: f64 = 0.02;

/// What to do when the gate does not open.
pub(super) const REMEDY: &str = "\
instruction counts differ from the baseline by more than 2 %
  If you did not mean to change what a packet costs: the list above says where to look; `weir-bench instructions` prints stages.
  If you did: `make bench-bless` writes the new counts to the baseline; commit it, and say in the commit why.";

/// Instructions a packet, by workload.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Baseline {
    /// The compiler: another one may come to other counts.
    pub(super) compiler: String,
    /// Counts to a tenth.
    pub(super) instructions: BTreeMap<String, f64>,
}

impl Baseline {
    pub(super) fn new(profiles: &[(String, Profile)]) -> Self {
        let version = Command::new("rustc").arg("--version").output();
        let compiler = version.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
        let each = |profile: &Profile| round(profile.total as f64 / profile.packets as f64, 1);
        Self {
            compiler: compiler.unwrap_or_default(),
            instructions: profiles.iter().map(|(name, profile)| (name.clone(), each(profile))).collect(),
        }
    }
}

/// Says how `now` differs from `baseline`, and whether that passes. `all`: `now` should have every workload.
pub(super) fn compare(baseline: &Baseline, now: &Baseline, all: bool) -> (String, bool) {
    let (mut text, mut passed) = (String::new(), true);
    if baseline.compiler != now.compiler {
        let _ = writeln!(text, "the baseline is of {}, this is {}", baseline.compiler, now.compiler);
    }
    for (name, count) in &now.instructions {
        let Some(before) = baseline.instructions.get(name) else {
            passed = false;
            let _ = writeln!(text, "{name}: {count:.1}, not in the baseline");
            continue;
        };
        let change = count / before - 1.0;
        // In tenths of a percent, so that what is printed decides.
        let fails = (change * 1000.0).round().abs() > TOLERANCE * 1000.0;
        passed &= !fails;
        let mark = if fails { "  <-- more than 2 %" } else { "" };
        let _ = writeln!(text, "{name}: {before:.1} -> {count:.1} ({:+.1} %){mark}", change * 100.0);
    }
    for name in baseline.instructions.keys().filter(|name| all && !now.instructions.contains_key(*name)) {
        passed = false;
        let _ = writeln!(text, "{name}: in the baseline, but not measured any more");
    }
    (text, passed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(counts: &[(&str, f64)]) -> Baseline {
        let instructions = counts.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect();
        Baseline { compiler: "rustc 1".to_owned(), instructions }
    }

    #[test]
    fn a_change_of_two_percent_passes_and_a_larger_one_fails_in_both_directions() {
        let baseline = of(&[("W2", 1000.0)]);
        for (count, passes) in
            [(1000.0, true), (1020.0, true), (980.0, true), (1021.0, false), (979.0, false)]
        {
            let (text, passed) = compare(&baseline, &of(&[("W2", count)]), true);
            assert_eq!(passed, passes, "{text}");
            assert_eq!(text.contains("more than 2 %"), !passes, "{text}");
        }
    }

    #[test]
    fn a_workload_that_came_or_went_has_to_be_acknowledged() {
        let (both, one) = (of(&[("W1", 10.0), ("W2", 20.0)]), of(&[("W1", 10.0)]));
        let (text, passed) = compare(&one, &both, true);
        assert!(!passed && text.contains("W2: 20.0, not in the baseline"), "{text}");
        let (text, passed) = compare(&both, &one, true);
        assert!(!passed && text.contains("W2: in the baseline"), "{text}");
        assert!(compare(&both, &one, false).1, "a part is compared alone");
    }

    #[test]
    fn another_compiler_is_named() {
        let other = Baseline { compiler: "rustc 2".to_owned(), ..of(&[("W1", 10.0)]) };
        let (text, passed) = compare(&of(&[("W1", 10.0)]), &other, true);
        assert!(passed && text.contains("rustc 1") && text.contains("rustc 2"), "{text}");
    }
}
