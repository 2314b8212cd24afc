//! Latencies: HdrHistograms, their percentiles, their files.

use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::Path;

use hdrhistogram::Histogram;
use hdrhistogram::serialization::V2DeflateSerializer;
use hdrhistogram::serialization::interval_log::IntervalLogWriterBuilder;
use serde::Serialize;

/// Largest latency that is told apart from larger ones: ten seconds.
const MOST: u64 = 10_000_000_000;

/// An empty histogram of ns, three digits kept.
#[allow(clippy::expect_used)]
pub(crate) fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, MOST, 3)
        .expect("constants that are allowed: 1 ≤ low, 2 low ≤ high, at most 5 digits")
}

/// What is reported of a histogram, in ns.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub(crate) struct Percentiles {
    pub(crate) count: u64,
    pub(crate) least: u64,
    pub(crate) p50: u64,
    pub(crate) p90: u64,
    pub(crate) p99: u64,
    pub(crate) p999: u64,
    pub(crate) most: u64,
    pub(crate) mean: f64,
}

impl Percentiles {
    pub(crate) fn of(histogram: &Histogram<u64>) -> Self {
        if histogram.is_empty() {
            return Self::default();
        }
        Self {
            count: histogram.len(),
            least: histogram.min(),
            p50: histogram.value_at_quantile(0.5),
            p90: histogram.value_at_quantile(0.9),
            p99: histogram.value_at_quantile(0.99),
            p999: histogram.value_at_quantile(0.999),
            most: histogram.max(),
            mean: histogram.mean(),
        }
    }
}

/// Points of a percentile plot: x is 1 / (1 − quantile), so that each further nine has the same room; y in µs.
pub(crate) fn curve(histogram: &Histogram<u64>) -> Vec<(f64, f64)> {
    let last = histogram.len() as f64;
    let quantiles =
        std::iter::successors(Some(1.0f64), |x| Some(x * 1.3)).take_while(|x| *x <= last.max(1.0));
    quantiles.map(|x| (x, histogram.value_at_quantile(1.0 - 1.0 / x) as f64 / 1e3)).collect()
}

/// Writes `NAME.hgrm` (the percentile distribution that HdrHistogram's plotter reads, in µs).
///
/// # Errors
/// The path, and what the system said.
pub(crate) fn write_hgrm(path: &Path, histogram: &Histogram<u64>) -> Result<(), String> {
    let write = || -> std::io::Result<()> {
        let mut file = BufWriter::new(File::create(path)?);
        writeln!(
            file,
            "{:>12} {:>14} {:>10} {:>14}\n",
            "Value", "Percentile", "TotalCount", "1/(1-Percentile)"
        )?;
        for step in histogram.iter_quantiles(5) {
            let (value, quantile) = (step.value_iterated_to() as f64 / 1e3, step.quantile_iterated_to());
            let count = histogram.count_between(0, step.value_iterated_to());
            let inverse = 1.0 / (1.0 - quantile);
            writeln!(file, "{value:12.3} {quantile:2.12} {count:10} {inverse:14.2}")?;
        }
        let (mean, deviation) = (histogram.mean() / 1e3, histogram.stdev() / 1e3);
        writeln!(file, "#[Mean    = {mean:12.3}, StdDeviation   = {deviation:12.3}]")?;
        let (most, count) = (histogram.max() as f64 / 1e3, histogram.len());
        writeln!(file, "#[Max     = {most:12.3}, Total count    = {count:12}]")?;
        writeln!(file, "#[Buckets = {:12}, SubBuckets     = {:12}]", histogram.buckets(), 2048)?;
        file.flush()
    };
    write().map_err(|error| format!("{}: {error}", path.display()))
}

/// Writes an interval log (`.hlog`, HdrHistogram's format 1.3), one tagged histogram for each name.
///
/// # Errors
/// The path, and what went wrong.
pub(crate) fn write_log(path: &Path, histograms: &[(String, &Histogram<u64>)]) -> Result<(), String> {
    let fail = |error: String| format!("{}: {error}", path.display());
    let mut file = BufWriter::new(File::create(path).map_err(|e| fail(e.to_string()))?);
    let mut serializer = V2DeflateSerializer::new();
    let mut builder = IntervalLogWriterBuilder::new();
    builder.add_comment("weir-bench wire; latencies in ns");
    let mut log = builder.begin_log_with(&mut file, &mut serializer).map_err(|e| fail(e.to_string()))?;
    for (name, histogram) in histograms {
        use hdrhistogram::serialization::interval_log::Tag;
        let tag: String = name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
        let zero = std::time::Duration::ZERO;
        let written = log.write_histogram(*histogram, zero, zero, Tag::new(&tag));
        written.map_err(|error| fail(format!("{error:?}")))?;
    }
    file.flush().map_err(|e| fail(e.to_string()))
}
