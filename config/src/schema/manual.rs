//! weir.toml(5): the reference of all sections and keys as a manual page (man(7)).

use std::fmt::Write as _;

use super::markdown::{default, describe, takes};
use super::{Table, tables};

const OPENING: &str = r#".TH weir.toml 5 "" "weir" "File Formats Manual"
.SH NAME
weir.toml \- configuration of weir
.SH DESCRIPTION
weir takes its topology and its service chains from one TOML file.
.BR weir\-check (1)
tells everything that is wrong with a file without touching a device;
.BR weir\-apply (1)
and
.BR weir\-reload (1)
put a changed one in force while packets keep flowing.
A wrong file changes nothing.
.SH EXAMPLE
.nf
[port.left]
device = "eth1"
mode = "dedicated"
addresses = ["10.1.0.1/24"]

[port.right]
device = "eth2"
mode = "dedicated"
addresses = ["10.2.0.1/24"]

[[vrf.default.route]]
prefix = "0.0.0.0/0"
via = { ip = "10.2.0.254" }
.fi
"#;

const CLOSING: &str = r#".SH FILES
.TP
.I /etc/weir/weir.toml
What the service of systemd reads.
.SH SEE ALSO
.BR weir (1),
.BR weir\-check (1),
.BR weir\-run (1),
.BR weir\-doctor (1)
"#;

/// weir.toml(5) in the language of manual pages.
pub fn manual() -> String {
    let mut out = OPENING.to_owned();
    for table in tables() {
        section(table, &mut out);
    }
    out.push_str(CLOSING);
    out
}

fn section(table: &Table, out: &mut String) {
    let title = if table.title.starts_with("the ") { "THE FILE" } else { table.title };
    let _ = write!(out, ".SH {}\n{}\n", quoted(title), inline(table.doc));
    for rule in table.rules.iter().filter_map(|rule| describe(rule, table)) {
        let _ = write!(out, ".PP\n{}\n", inline(&rule));
    }
    for key in table.keys {
        let _ = write!(
            out,
            ".TP\n.B {}\n{}\n.br\nTakes {}. Default: {}.\n",
            inline(key.name),
            inline(key.doc),
            inline(&takes(&key.kind)),
            inline(&default(key, table))
        );
    }
}

fn quoted(text: &str) -> String {
    format!("\"{}\"", roff(text).replace('"', "\\(dq"))
}

/// Markdown within a paragraph: code and stressed words become bold.
fn inline(markdown: &str) -> String {
    let plain = markdown.replace("\\<", "<").replace("\\|", "|").replace("**", "`");
    let parts = plain.split('`').enumerate();
    let text: String = parts
        .map(|(index, part)| match index % 2 {
            0 => roff(part),
            _ => format!("\\fB{}\\fR", roff(part)),
        })
        .collect();
    // A line that begins with a dot or an apostrophe is a request.
    if text.starts_with(['.', '\'']) { format!("\\&{text}") } else { text }
}

fn roff(text: &str) -> String {
    text.replace('\\', "\\e").replace('-', "\\-").replace('\n', " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_section_and_key_of_the_reference_is_in_the_manual_page() {
        let page = manual();
        for table in tables() {
            for key in table.keys {
                assert!(
                    page.contains(&format!(".B {}\n", inline(key.name))),
                    "{}: {}",
                    table.title,
                    key.name
                );
            }
        }
    }

    #[test]
    fn what_means_something_to_roff_is_escaped() {
        assert_eq!(inline("a `b-c` and **d**"), "a \\fBb\\-c\\fR and \\fBd\\fR");
        assert_eq!(inline(".x"), "\\&.x");
        assert_eq!(inline("\\<name>"), "<name>");
    }
}
