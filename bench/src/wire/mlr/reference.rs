//! The same systems as the reference implementation (PyPI package MLRsearch 1.2.1) was given, and what it found.
//!
//! Recorded by running it over these loss curves with goals of 0 and 0.5 %, exceed ratio 0.5, width 0.5 %, trials of 1 s, duration sum
//! 9 s, two preceding targets, loads from 1,000 to 4,000,000, no warm-up.

use super::tests::{goal, ideal, search};

/// Curve, capacity, goal's loss ratio; the reference's relevant lower and upper bound and conditional throughput.
const REFERENCE: [(&str, f64, f64, f64, f64, f64); 12] = [
    ("ideal", 1_234_567.0, 0.0, 1_231_939.0, 1_238_128.0, 1_231_939.0),
    ("ideal", 1_234_567.0, 0.005, 1_238_128.0, 1_244_349.0, 1_234_567.0),
    ("ideal", 3_900_000.0, 0.0, 3_881_514.0, 3_901_015.0, 3_881_514.0),
    ("ideal", 3_900_000.0, 0.005, 3_901_015.0, 3_920_614.0, 3_900_000.0),
    ("ideal", 50_000.0, 0.0, 49_848.0, 50_098.0, 49_848.0),
    ("ideal", 50_000.0, 0.005, 50_098.0, 50_350.0, 50_000.0),
    ("soft", 1_000_000.0, 0.0, 796_593.0, 800_595.0, 796_593.0),
    ("soft", 1_000_000.0, 0.005, 1_003_122.0, 1_008_162.0, 1_000_000.0),
    ("spiky", 1_000_000.0, 0.0, 998_108.0, 1_003_122.0, 998_108.0),
    ("spiky", 1_000_000.0, 0.005, 1_003_122.0, 1_008_162.0, 1_000_000.0),
    ("slope", 800_000.0, 0.0, 796_593.0, 800_595.0, 796_593.0),
    ("slope", 800_000.0, 0.005, 812_722.0, 816_805.0, 809_491.0),
];

fn curve(name: &str, capacity: f64) -> Box<dyn FnMut(f64, usize) -> f64> {
    let ideal = ideal(capacity);
    match name {
        "ideal" => Box::new(ideal),
        // A thousandth is lost from four fifths of the capacity on.
        "soft" => {
            Box::new(move |load, n| if load > 0.8 * capacity { ideal(load, n).max(0.001) } else { 0.0 })
        }
        "spiky" => Box::new(move |load, n| if n % 4 == 3 { 0.1 } else { ideal(load, n) }),
        "slope" => Box::new(move |load, _| match load {
            load if load < capacity => 0.0,
            load if load < 2.0 * capacity => (load - capacity) / capacity * 0.25,
            load => (1.0 - 1.5 * capacity / load).max(0.25),
        }),
        _ => panic!("no curve is called {name}"),
    }
}

#[test]
fn bounds_and_throughput_agree_with_the_reference_implementation() {
    for (name, capacity, loss_ratio, lower, upper, throughput) in REFERENCE {
        let (results, _) = search(vec![goal(0.0, 9.0), goal(0.005, 9.0)], curve(name, capacity));
        let result = results.iter().find(|result| result.goal.loss_ratio == loss_ratio).unwrap();
        let what = format!("{name} {capacity} at {loss_ratio}: {result:?}");
        assert!(result.regular, "{what}");
        let (ours_lower, ours_upper) = (result.bounds.lower.unwrap(), result.bounds.upper.unwrap());
        // Both intervals enclose the true value, each is half a percent wide.
        assert!(ours_lower <= upper && ours_upper >= lower, "{what}: the reference found {lower} to {upper}");
        let ours = result.conditional_throughput.unwrap();
        assert!((ours - throughput).abs() / throughput < 0.01, "{what}: the reference found {throughput}");
    }
}
