//! The program over DPDK devices: `weir-bench dpdk`.

use std::fmt::Write as _;

use super::{number, origin};
use crate::dpdk::{Line, Record};

/// A line for each case, weir's peers beside it.
pub(super) fn figures(record: &Record) -> String {
    let mut text = format!("\n{}.\n\n", origin(&record.machine));
    text.push_str(
        "| case | what it is | weir, cycles | Mpps | testpmd io | l3fwd | Open vSwitch |\n\
         | --- | --- | ---: | ---: | ---: | ---: | ---: |\n",
    );
    for weir in record.results.iter().filter(|line| line.program == "weir") {
        let beside = |program: &str| {
            let peer = record.results.iter().find(|line| line.case == weir.case && line.program == program);
            peer.map_or("–".to_owned(), against)
        };
        let _ = writeln!(
            text,
            "| `{}` | {} | {:.0} | {:.1} | {} | {} | {} |",
            weir.case,
            weir.title,
            weir.cycles,
            weir.mpps,
            beside("testpmd io"),
            beside("l3fwd"),
            beside("Open vSwitch"),
        );
    }
    text + "\nBehind each peer's cycles: how many times weir's they are.\n\n"
}

fn against(peer: &Line) -> String {
    format!("{:.0} ({}×)", peer.cycles, number(peer.against_weir, 2))
}
