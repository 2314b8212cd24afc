//! Measures the compiled rules of firewall and classifier: time to compile, memory, and a look-up, by kind and number of rules.
//!
//!     cargo run --release -p weir-bench --example rules [KIND] [RULES]…

use std::hint::black_box;
use std::io::Write;
use std::time::Instant;

use weir_bench::rules::{Kind, input, view};
use weir_dataplane::decision::{FlowView, Matcher, Rule, RuleSet, Tuple};

fn main() -> std::io::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let sizes: Vec<usize> = arguments.iter().filter_map(|text| text.parse().ok()).collect();
    let sizes = if sizes.is_empty() { vec![10, 100, 1_000, 10_000, 100_000] } else { sizes };
    let kinds: Vec<Kind> =
        Kind::ALL.into_iter().filter(|kind| arguments.iter().any(|a| a == kind.name())).collect();
    let kinds = if kinds.is_empty() { Kind::ALL.to_vec() } else { kinds };
    let mut out = std::io::stdout();
    writeln!(out, "kind  ip   rules  compile ms  KiB  ns/look-up (min)  linear ns  shape")?;
    for kind in kinds {
        for v6 in [false, true] {
            for size in &sizes {
                writeln!(out, "{}", measure(kind, v6, *size))?;
            }
        }
    }
    Ok(())
}

fn measure(kind: Kind, v6: bool, size: usize) -> String {
    let (matches, packets) = input(kind, v6, size, 7 + size as u64);
    let rules: Vec<Rule<'_>> = matches.iter().map(|matches| Rule { scopes: None, matches }).collect();
    let start = Instant::now();
    let set = RuleSet::build(&rules);
    let compile = start.elapsed();
    let views: Vec<FlowView<'_>> = packets.iter().map(|(meta, tuple)| view(meta, tuple)).collect();
    let matchers: Vec<Matcher> = matches.iter().map(Matcher::new).collect();
    let mut linear = 0;
    for (number, view) in views.iter().take(20_000_000 / size.max(200)).enumerate() {
        let tuple = view.tuple;
        let start = Instant::now();
        let expected = black_box(matchers.iter().position(|matcher| matcher.matches(view, tuple)));
        linear += start.elapsed().as_nanos() as usize;
        assert_eq!(set.lookup(view, tuple), expected, "packet {number}: {tuple:?}");
    }
    let null = fastest(&views, |view, tuple| {
        tuple.map_or(0, |tuple| usize::from(tuple.protocol) + view.now as usize)
    });
    let best = fastest(&views, |view, tuple| set.lookup(view, tuple).unwrap_or(0)) - null;
    let shape = set.shape();
    format!(
        "{:4}  v{}  {size:6}  {:10.1}  {:6}  {best:8.1}  {:8}  {}",
        kind.name(),
        if v6 { 6 } else { 4 },
        compile.as_secs_f64() * 1e3,
        shape.bytes / 1024,
        linear / views.len().min(20_000_000 / size.max(200)),
        if v6 { shape.v6 } else { shape.v4 }.why(),
    )
}

/// Nanoseconds of the fastest of some passes over all packets, for one packet.
fn fastest(views: &[FlowView<'_>], ask: impl Fn(&FlowView<'_>, Option<&Tuple>) -> usize) -> f64 {
    let mut best = f64::MAX;
    for _ in 0..9 {
        let start = Instant::now();
        for view in views {
            black_box(ask(black_box(view), view.tuple));
        }
        best = best.min(start.elapsed().as_nanos() as f64 / views.len() as f64);
    }
    best
}
