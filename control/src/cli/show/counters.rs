//! `weir show counters` and `weir show drops`.

use serde_json::Value;
use weir_dataplane::decision::DropReason;

use crate::cli::table::Align::{Left, Right};
use crate::cli::table::{Table, cell};

/// What came in and what became of it, drops by reason, events, and the conservation of packets.
pub(in crate::cli) fn counters(answer: &Value) -> String {
    let counters = &answer["counters"];
    let number = |key: &str| counters[key].as_u64().unwrap_or(0);
    let dropped = dropped_in_all(counters);
    let balance = &answer["conservation"];
    let (entered, left) = (balance["entered"].as_u64().unwrap_or(0), balance["left"].as_u64().unwrap_or(0));
    let table = |title: &'static str, unit: &'static str, rows: &[(&str, u64)]| {
        let mut table = Table::new(&[(title, Left), (unit, Right)]);
        for (name, value) in rows {
            table.row([(*name).to_owned(), value.to_string()]);
        }
        table.render("")
    };
    let mut text = table(
        "IN",
        "PACKETS",
        &[
            ("received", number("received")),
            ("originated", number("originated")),
            ("handed in", number("handed_in")),
            ("in all", entered),
        ],
    );
    text += "\n";
    text += &table(
        "OUT",
        "PACKETS",
        &[
            ("transmitted", number("transmitted")),
            ("dropped", dropped),
            ("punted", number("punted")),
            ("consumed", number("consumed")),
            ("handed out", number("handed_out")),
            ("held now", number("held")),
            ("in all", left),
        ],
    );
    if dropped > 0 {
        text += &format!("\n{}", drops(answer, false));
    }
    text += "\n";
    text += &table(
        "EVENT",
        "COUNT",
        &[
            ("flow hits", number("flow_hits")),
            ("flow misses", number("flow_misses")),
            ("flow evictions", number("flow_evictions")),
            ("ICMP errors over the rate limit", number("icmp_limited")),
            ("address conflicts", number("address_conflicts")),
            ("MAC moves", number("mac_moves")),
            ("MAC addresses refused", number("mac_refused")),
        ],
    );
    text + &conservation(balance["holds"] == true, entered, left)
}

/// Whether every packet is accounted for.
fn conservation(holds: bool, entered: u64, left: u64) -> String {
    if holds {
        return format!("\nconservation: {entered} in, {left} out: holds\n");
    }
    format!(
        "\nconservation: {entered} in, {left} out: differs by {} (while packets flow, those between two counters; at \
         rest, a defect)\n",
        i128::from(entered) - i128::from(left)
    )
}

fn dropped_in_all(counters: &Value) -> u64 {
    counters["dropped"].as_object().map_or(0, |reasons| reasons.values().filter_map(Value::as_u64).sum())
}

/// Drops by reason, in the order of the reasons; those of a newer daemon that this program does not know come last.
pub(super) fn drops(answer: &Value, all: bool) -> String {
    let dropped = &answer["counters"]["dropped"];
    let mut table = Table::new(&[("REASON", Left), ("PACKETS", Right), ("MEANING", Left)]);
    for reason in DropReason::ALL {
        let packets = dropped[reason.name()].as_u64().unwrap_or(0);
        if all || packets > 0 {
            table.row([reason.name().to_owned(), packets.to_string(), reason.describe().to_owned()]);
        }
    }
    for (name, packets) in dropped.as_object().into_iter().flatten() {
        if !DropReason::ALL.iter().any(|reason| reason.name() == name) {
            table.row([cell(&Value::from(name.as_str())), cell(packets), "-".to_owned()]);
        }
    }
    table.render("nothing was dropped")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn answer(received: u64, holds: bool) -> Value {
        json!({
            "counters": { "received": received, "transmitted": 6, "dropped": { "no_route": 3, "novel": 1 } },
            "conservation": { "entered": received, "left": 10, "holds": holds },
        })
    }

    #[test]
    fn both_sides_are_summed_up_and_it_is_said_whether_they_are_equal() {
        let text = counters(&answer(10, true));
        assert!(text.starts_with("IN          PACKETS\nreceived         10\n"), "{text}");
        assert!(text.contains("transmitted        6\ndropped            4\n"), "{text}");
        assert_eq!(text.matches("in all            10\n").count(), 1, "{text}");
        assert!(text.ends_with("\nconservation: 10 in, 10 out: holds\n"), "{text}");
        assert!(counters(&answer(12, false)).contains("12 in, 10 out: differs by 2 "));
    }

    #[test]
    fn every_drop_has_its_meaning_and_an_unknown_one_is_not_hidden() {
        let text = drops(&answer(10, true), false);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(
            lines,
            [
                "REASON    PACKETS  MEANING",
                "no_route        3  no route to the destination",
                "novel           1  -"
            ]
        );
        assert_eq!(drops(&answer(10, true), true).lines().count(), 2 + DropReason::COUNT);
    }
}
