//! Reads what callgrind writes (Valgrind manual, "Callgrind Format Specification").

use std::collections::HashMap;

/// What was collected.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Profile {
    /// Packets that were processed meanwhile.
    pub(super) packets: u64,
    /// Instructions.
    pub(super) total: u64,
    /// Name, instructions with calls, own instructions; the largest first.
    pub(super) functions: Vec<(String, u64, u64)>,
}

/// Reads a profile with one kind of event, instructions.
///
/// # Errors
/// What is not as the format says.
pub(super) fn parse(text: &str, packets: u64) -> Result<Profile, String> {
    // Names are given once, as `(7) name`, and meant later by `(7)`.
    let mut names: HashMap<&str, &str> = HashMap::new();
    let mut counts: HashMap<&str, (u64, u64)> = HashMap::new();
    let (mut current, mut call, mut total) = ("", false, None);
    for line in text.lines() {
        if let Some(events) = line.strip_prefix("events: ") {
            if events.trim() != "Ir" {
                return Err(format!("events are {events:?} instead of instructions (Ir)"));
            }
        } else if let Some(value) = line.strip_prefix("totals: ") {
            total = value.trim().parse().ok();
        } else if let Some(name) = line.strip_prefix("fn=") {
            current = resolve(&mut names, name);
        } else if let Some(name) = line.strip_prefix("cfn=") {
            resolve(&mut names, name);
        } else if line.starts_with("calls=") {
            call = true;
        } else if line.starts_with(|c: char| c.is_ascii_digit() || matches!(c, '+' | '-' | '*')) {
            // Position and cost; after `calls=`, the cost of the call.
            let cost = line.split_whitespace().nth(1).and_then(|cost| cost.parse().ok()).unwrap_or(0);
            let (inclusive, own): &mut (u64, u64) = counts.entry(current).or_default();
            *inclusive += cost;
            if !call {
                *own += cost;
            }
            call = false;
        }
    }
    let total = total.ok_or("there are no totals")?;
    let mut functions: Vec<_> =
        counts.into_iter().map(|(name, (inclusive, own))| (readable(name), inclusive, own)).collect();
    functions.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    Ok(Profile { packets, total, functions })
}

/// The full name of `(7) name` or `(7)`.
fn resolve<'t>(names: &mut HashMap<&'t str, &'t str>, text: &'t str) -> &'t str {
    match text.split_once(' ') {
        Some((number, name)) if number.starts_with('(') => {
            names.insert(number, name);
            name
        }
        _ => names.get(text).copied().unwrap_or(text),
    }
}

/// Without the hash that the compiler appends.
fn readable(name: &str) -> String {
    match name.rsplit_once("::h") {
        Some((path, hash)) if hash.len() == 16 && hash.chars().all(|c| c.is_ascii_hexdigit()) => {
            path.to_owned()
        }
        _ => name.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAMPLE: &str = "\
# callgrind format
version: 1
creator: callgrind-3.19.0
positions: line
events: Ir
summary: 130

ob=(1) /target/release/weir-bench
fl=(1) bench/src/pipeline/bed.rs
fn=(1) weir_bench::pipeline::bed::Bed::measured_burst::h0123456789abcdef
10 20
+2 10
cfn=(2) weir_dataplane::worker::core::Core::process
calls=1 40
* 100

fn=(2)
40 60
fi=(3) core.rs
41 15
cfn=(3) memcpy
calls=2 7
-1 25

fn=(3)
7 25

totals: 130
";

    #[test]
    fn calls_count_for_the_caller_with_what_is_called() {
        let profile = parse(SAMPLE, 10).unwrap();
        assert_eq!((profile.total, profile.packets), (130, 10));
        assert_eq!(
            profile.functions,
            [
                ("weir_bench::pipeline::bed::Bed::measured_burst".to_owned(), 130, 30),
                ("weir_dataplane::worker::core::Core::process".to_owned(), 100, 75),
                ("memcpy".to_owned(), 25, 25),
            ]
        );
    }

    #[test]
    fn other_events_are_refused() {
        assert!(parse("events: Ir Dr\ntotals: 1 1\n", 1).unwrap_err().contains("Ir Dr"));
        assert!(parse("events: Ir\n", 1).unwrap_err().contains("totals"));
    }
}
