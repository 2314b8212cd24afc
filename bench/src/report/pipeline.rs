//! The engine in memory: `weir-bench pipeline`.

use std::fmt::Write as _;

use super::{number, origin};
use crate::common::stats::median;
use crate::pipeline::report::{Figures, Record};

/// Where the figures come from.
fn about(record: &Record) -> String {
    let settings = &record.settings;
    let t0 = match record.t0_cycles {
        Some(t0) => {
            let median = median(record.t0_repeats.iter().copied());
            format!("; T0, DPDK's `testpmd io`, cost {t0:.1} cycles in the same run (median {median:.1})")
        }
        None => String::new(),
    };
    format!(
        "{}; one core, {}-byte frames in {} pages, {} repeats{t0}.\n",
        origin(&record.machine),
        settings.frames,
        settings.frame_pages,
        settings.repeats,
    )
}

/// How many times as long the peer takes.
fn times(figures: &Figures, peer: Option<f64>) -> String {
    peer.map_or("–".to_owned(), |peer| format!("{:.1}×", peer / figures.pipeline_cycles))
}

/// For whoever wants to know roughly.
pub(super) fn summary(record: &Record) -> String {
    let mut text = String::from(
        "\n| | what the engine does | cycles a packet | ns | million packets a second | ÷ T0 | Open vSwitch takes |\n\
         | --- | --- | ---: | ---: | ---: | ---: | ---: |\n",
    );
    for figures in record.results.iter().filter(|figures| !figures.hostile) {
        let burst = if figures.burst == 1 { ", one packet at a time" } else { "" };
        let _ = writeln!(
            text,
            "| {} | {}{burst} | {:.0} | {:.1} | {:.1} | {} | {} |",
            figures.workload,
            figures.title,
            figures.pipeline_cycles,
            figures.ns,
            1_000.0 / figures.ns,
            number(figures.ratio_t0, 2),
            times(figures, figures.peers.ovs),
        );
    }
    let _ = write!(text, "\n{}\n", about(record));
    text
}

/// Everything.
pub(super) fn figures(record: &Record) -> String {
    let mut text = format!("\n{}\n", about(record));
    text.push_str(
        "| workload | what it is | flows, order | burst | cycles | ns | spread | mean | null | ÷ T0 | aim | testpmd | Open vSwitch |\n\
         | --- | --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |\n",
    );
    for figures in &record.results {
        let _ = writeln!(
            text,
            "| {}{} | {} | {}, {} | {} | {:.1} | {:.2} | {:.1} % | {:.1} | {:.1} | {} | {} | {} | {} |",
            figures.workload,
            if figures.hostile { " hostile" } else { "" },
            figures.title,
            figures.flows,
            figures.order,
            figures.burst,
            figures.pipeline_cycles,
            figures.ns,
            figures.spread * 100.0,
            figures.mean_cycles,
            figures.null_cycles,
            number(figures.ratio_t0, 2),
            number(figures.aim_cycles.filter(|_| !figures.hostile), 0),
            number(figures.peers.testpmd, 1),
            number(figures.peers.ovs, 1),
        );
    }
    text.push('\n');
    for first in record.results.iter().filter(|figures| figures.first_packets) {
        let _ = writeln!(text, "{}: {:.2} million new flows a second.\n", first.title, 1_000.0 / first.ns);
    }
    text
}
