//! `weir show counters` and `weir show drops`.

use serde_json::Value;
use weir_dataplane::decision::DropReason;

use crate::cli::table::Align::{Left, Right};
use crate::cli::table::{Table, cell};

/// Every counter, and the conservation of packets.
pub(in crate::cli) fn counters(answer: &Value) -> String {
    let counters = &answer["counters"];
    let number = |key: &str| counters[key].as_u64().unwrap_or(0);
    let dropped = dropped_in_all(counters);
    let mut table = Table::new(&[("COUNTER", Left), ("PACKETS", Right)]);
    for (title, value) in [
        ("received", number("received")),
        ("originated", number("originated")),
        ("handed in", number("handed_in")),
        ("transmitted", number("transmitted")),
        ("dropped", dropped),
        ("punted", number("punted")),
        ("consumed", number("consumed")),
        ("handed out", number("handed_out")),
        ("held", number("held")),
    ] {
        table.row([title.to_owned(), value.to_string()]);
    }
    let mut events = Table::new(&[("EVENT", Left), ("COUNT", Right)]);
    for (title, key) in [
        ("flow hits", "flow_hits"),
        ("flow misses", "flow_misses"),
        ("flow evictions", "flow_evictions"),
        ("ICMP errors over the rate limit", "icmp_limited"),
        ("address conflicts", "address_conflicts"),
        ("MAC moves", "mac_moves"),
        ("MAC addresses refused", "mac_refused"),
    ] {
        events.row([title.to_owned(), number(key).to_string()]);
    }
    let mut text = table.render("");
    if dropped > 0 {
        text += &format!("\n{}", drops(answer, false));
    }
    text + &format!("\n{}\n{}", events.render(""), conservation(answer))
}

/// The equation with its numbers.
fn conservation(answer: &Value) -> String {
    let counters = &answer["counters"];
    let number = |key: &str| counters[key].as_u64().unwrap_or(0);
    let balance = &answer["conservation"];
    let (entered, left) = (balance["entered"].as_u64().unwrap_or(0), balance["left"].as_u64().unwrap_or(0));
    let verdict = if balance["holds"] == true {
        "holds".to_owned()
    } else {
        format!(
            "differs by {} (while packets flow, those between two counters; at rest, a defect)",
            i128::from(entered) - i128::from(left)
        )
    };
    format!(
        "conservation: received {} + originated {} + handed in {} = {entered}\n\
         \x20             transmitted {} + dropped {} + punted {} + consumed {} + handed out {} + held {} = {left}\n\
         \x20             {verdict}\n",
        number("received"),
        number("originated"),
        number("handed_in"),
        number("transmitted"),
        dropped_in_all(counters),
        number("punted"),
        number("consumed"),
        number("handed_out"),
        number("held"),
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
    fn the_equation_is_shown_with_its_numbers_and_whether_it_holds() {
        let text = counters(&answer(10, true));
        assert!(text.contains("received 10 + originated 0 + handed in 0 = 10\n"), "{text}");
        assert!(
            text.contains("transmitted 6 + dropped 4 + punted 0 + consumed 0 + handed out 0 + held 0 = 10\n")
        );
        assert!(text.ends_with("              holds\n"), "{text}");
        assert!(counters(&answer(12, false)).contains("differs by 2 "));
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
