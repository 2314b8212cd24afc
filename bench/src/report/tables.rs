//! The tables alone: `weir-bench tables`.

use std::fmt::Write as _;

use super::{number, origin};
use crate::tables::report::{Record, Table};

/// Tables of all sizes, but of one kind of rules; then what DPDK's cost.
pub(super) fn figures(record: &Record) -> String {
    let mut text = format!(
        "\n{}; one core. Cycles an operation, medians; changes also in millions a second.\n",
        origin(&record.machine)
    );
    let mut kind = None;
    let shown = |table: &&Table| table.table != "rules" || table.variant.starts_with("acl");
    for table in record.tables.iter().filter(shown) {
        if kind != Some(&table.table) {
            kind = Some(&table.table);
            heading(&mut text, table);
        }
        let _ = write!(text, "| {} {} | {} |", table.table, table.variant, table.size);
        for figure in &table.figures {
            let cycles = number(Some(figure.cycles.median), 1);
            let _ = match figure.changes() {
                true => write!(text, " {cycles} ({:.2} M/s) |", record.millions_a_second(figure)),
                false => write!(text, " {cycles} |"),
            };
        }
        let _ = writeln!(text, " {:.1} |", table.bytes as f64 / 1e6);
    }
    if !record.peers.is_empty() {
        peers(&mut text, record);
    }
    text.push('\n');
    text
}

fn heading(text: &mut String, table: &Table) {
    text.push_str("\n| table | entries |");
    table.figures.iter().for_each(|figure| text.push_str(&format!(" {} |", figure.what)));
    text.push_str(" MB |\n| --- | ---: |");
    table.figures.iter().for_each(|_| text.push_str(" ---: |"));
    text.push_str(" ---: |\n");
}

fn peers(text: &mut String, record: &Record) {
    text.push_str(
        "\n| DPDK's table | entries | operation | cycles | weir's | entries of weir's |\n\
         | --- | ---: | --- | ---: | ---: | ---: |\n",
    );
    for peer in &record.peers {
        let ours = record.beside(peer);
        let _ = writeln!(
            text,
            "| {} | {} | {} | {} | {} | {} |",
            peer.peer,
            peer.size,
            peer.what,
            number(Some(peer.cycles), 1),
            number(ours.map(|(cycles, _)| cycles), 1),
            ours.map_or("–".to_owned(), |(_, table)| table.size.to_string()),
        );
    }
}
