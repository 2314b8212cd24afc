//! Aligned tables for people, from JSON for programs.

use serde_json::Value;

/// Which side of its column a cell stands on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Align {
    Left,
    Right,
}

/// A table: a header line, then rows; columns two spaces apart.
#[derive(Debug)]
pub(super) struct Table {
    columns: Vec<(&'static str, Align)>,
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(super) fn new(columns: &[(&'static str, Align)]) -> Self {
        Self { columns: columns.to_vec(), rows: Vec::new() }
    }

    /// A table of the objects in `list`: each column is a heading, an alignment and the key of its cells.
    pub(super) fn of(list: &Value, columns: &[(&'static str, Align, &str)]) -> Self {
        let mut table =
            Self::new(&columns.iter().map(|(title, align, _)| (*title, *align)).collect::<Vec<_>>());
        for item in items(list) {
            table.row(columns.iter().map(|(_, _, key)| cell(&item[*key])));
        }
        table
    }

    pub(super) fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().collect());
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The text; `nothing` if there are no rows.
    pub(super) fn render(&self, nothing: &str) -> String {
        if self.rows.is_empty() {
            return format!("{nothing}\n");
        }
        let header: Vec<String> = self.columns.iter().map(|(title, _)| (*title).to_owned()).collect();
        let mut widths: Vec<usize> = header.iter().map(|title| width(title)).collect();
        for row in &self.rows {
            for (column, cell) in widths.iter_mut().zip(row) {
                *column = (*column).max(width(cell));
            }
        }
        let mut text = String::new();
        for row in std::iter::once(&header).chain(&self.rows) {
            let mut line = String::new();
            for ((cell, width_wanted), (_, align)) in row.iter().zip(&widths).zip(&self.columns) {
                let padding = " ".repeat(width_wanted.saturating_sub(width(cell)));
                match align {
                    Align::Left => line += &format!("{cell}{padding}  "),
                    Align::Right => line += &format!("{padding}{cell}  "),
                }
            }
            text += line.trim_end();
            text.push('\n');
        }
        text
    }
}

fn width(text: &str) -> usize {
    text.chars().count()
}

/// The elements of a JSON array; none if it is something else.
pub(super) fn items(list: &Value) -> &[Value] {
    list.as_array().map(Vec::as_slice).unwrap_or_default()
}

/// One cell: what is absent is a dash, what is a list is joined by commas. Control characters, which a name from
/// elsewhere might carry, do not reach the terminal.
pub(super) fn cell(value: &Value) -> String {
    let text = match value {
        Value::Null => "-".to_owned(),
        Value::String(text) if text.is_empty() => "-".to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(list) if list.is_empty() => "-".to_owned(),
        Value::Array(list) => list.iter().map(cell).collect::<Vec<_>>().join(", "),
        other => other.to_string(),
    };
    text.chars().map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn columns_are_aligned_and_what_is_absent_is_a_dash() {
        let list = json!([
            { "name": "uplink", "frames": 5, "via": ["a", "b"] },
            { "name": "ü", "frames": 12345, "via": [] },
        ]);
        let table = Table::of(
            &list,
            &[
                ("PORT", Align::Left, "name"),
                ("FRAMES", Align::Right, "frames"),
                ("VIA", Align::Left, "via"),
                ("MAC", Align::Left, "mac"),
            ],
        );
        let expected = "PORT    FRAMES  VIA   MAC\nuplink       5  a, b  -\nü        12345  -     -\n";
        assert_eq!(table.render("none"), expected);
    }

    #[test]
    fn an_empty_table_says_so() {
        assert_eq!(Table::of(&json!([]), &[("A", Align::Left, "a")]).render("no ports"), "no ports\n");
    }

    #[test]
    fn control_characters_do_not_reach_the_terminal() {
        assert_eq!(cell(&json!("a\u{1b}[31m")), "a\u{fffd}[31m");
    }
}
