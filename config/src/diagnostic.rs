//! What is wrong with a configuration, and where: `file:line:col: error[code]: text`, the source line with
//! a caret, and hints.

use std::fmt;

use serde::Serialize;

use crate::codes::Code;

/// The widest excerpt of a source line that a diagnostic carries, in characters.
const EXCERPT_WIDTH: usize = 160;

/// Whether a diagnostic refuses the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    /// The configuration is refused.
    Error,
    /// The configuration is accepted, but it probably does not say what was meant.
    Warning,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Error => "error",
            Self::Warning => "warning",
        })
    }
}

/// Another place that a diagnostic is about, such as the first of two conflicting definitions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Related {
    /// Line, from 1; 0 where there are no lines (JSON).
    pub line: usize,
    /// Column in characters, from 1; 0 where there are no lines.
    pub column: usize,
    /// JSON pointer of the value, such as `/port/uplink/mtu`.
    pub pointer: String,
    /// What is there.
    pub text: String,
}

/// The source line that a diagnostic points into.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Excerpt {
    /// The line, or the part of a very long one around the place; control characters are replaced.
    pub text: String,
    /// First character under which a caret stands, from 0, within `text`.
    pub start: usize,
    /// Number of carets, at least 1.
    pub length: usize,
}

/// One finding. Its [`Display`](fmt::Display) form is the one for people, its JSON form the one for programs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Diagnostic {
    /// Name of the file, or of the environment variable or socket request, that the text came from.
    pub file: String,
    /// Line, from 1; 0 where there are no lines (JSON).
    pub line: usize,
    /// Column in characters, from 1; 0 where there are no lines.
    pub column: usize,
    /// JSON pointer of the key or value, such as `/port/uplink/mtu`; empty for the whole text.
    pub pointer: String,
    /// Whether it refuses the configuration.
    pub severity: Severity,
    /// Stable code; [`CODES`](crate::CODES) lists all of them.
    pub code: &'static str,
    /// What is wrong, in one sentence without a full stop.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
    /// Other places that belong to it.
    pub related: Vec<Related>,
    /// The source line; absent for JSON.
    pub excerpt: Option<Excerpt>,
}

impl Diagnostic {
    /// A finding about a whole text.
    pub(crate) fn new(file: &str, severity: Severity, code: &Code, message: String) -> Self {
        Self {
            file: file.to_owned(),
            line: 0,
            column: 0,
            pointer: String::new(),
            severity,
            code: code.name,
            message,
            hint: None,
            related: Vec::new(),
            excerpt: None,
        }
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_place(f, &self.file, self.line, self.column, &self.pointer)?;
        write!(f, ": {}[{}]: {}", self.severity, self.code, self.message)?;
        let gutter = self.line.to_string().len().max(4);
        if let Some(excerpt) = &self.excerpt {
            let indent: String = excerpt
                .text
                .chars()
                .take(excerpt.start)
                .map(|c| if c == '\t' { '\t' } else { ' ' })
                .collect();
            write!(f, "\n{:>gutter$} | {}", self.line, excerpt.text)?;
            write!(f, "\n{:>gutter$} | {indent}{}", "", "^".repeat(excerpt.length))?;
        }
        for related in &self.related {
            write!(f, "\n{:>gutter$} = note: ", "")?;
            write_place(f, &self.file, related.line, related.column, &related.pointer)?;
            write!(f, ": {}", related.text)?;
        }
        match &self.hint {
            Some(hint) => write!(f, "\n{:>gutter$} = hint: {hint}", ""),
            None => Ok(()),
        }
    }
}

fn write_place(
    f: &mut fmt::Formatter<'_>,
    file: &str,
    line: usize,
    column: usize,
    pointer: &str,
) -> fmt::Result {
    match (line, pointer) {
        (0, "") => f.write_str(file),
        (0, pointer) => write!(f, "{file}:{pointer}"),
        (line, _) => write!(f, "{file}:{line}:{column}"),
    }
}

/// All findings of one load, in the order of the text; at least one is an error.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Diagnostics(pub Vec<Diagnostic>);

impl Diagnostics {
    /// How many are errors.
    pub fn errors(&self) -> usize {
        self.0.iter().filter(|d| d.severity == Severity::Error).count()
    }

    /// The findings one by one.
    pub fn iter(&self) -> impl Iterator<Item = &Diagnostic> {
        self.0.iter()
    }
}

impl fmt::Display for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, diagnostic) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            fmt::Display::fmt(diagnostic, f)?;
        }
        Ok(())
    }
}

impl std::error::Error for Diagnostics {}

/// Turns byte offsets of a text into lines and columns.
pub(crate) struct LineIndex<'a> {
    text: &'a str,
    starts: Vec<usize>,
}

impl<'a> LineIndex<'a> {
    pub(crate) fn new(text: &'a str) -> Self {
        let starts = std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect();
        Self { text, starts }
    }

    /// Line and column, both from 1, of a byte offset; an offset inside a character counts as its start.
    pub(crate) fn place(&self, offset: usize) -> (usize, usize) {
        let offset = self.floor(offset);
        let line = self.starts.partition_point(|&start| start <= offset).max(1);
        let start = self.starts.get(line - 1).copied().unwrap_or(0);
        let column = self.text.get(start..offset).map_or(0, |before| before.chars().count());
        (line, column + 1)
    }

    /// The line of a byte range's start, with carets under the part of the range that is on that line.
    pub(crate) fn excerpt(&self, start: usize, end: usize) -> Excerpt {
        let (line, column) = self.place(start);
        let source = self.line(line);
        let begin = self.starts.get(line - 1).copied().unwrap_or(0);
        let end = self.floor(end).min(begin + source.len());
        let length = self.text.get(self.floor(start)..end).map_or(0, |s| s.chars().count()).max(1);
        let skip = if column > EXCERPT_WIDTH / 2 && source.chars().count() > EXCERPT_WIDTH {
            column - EXCERPT_WIDTH / 2
        } else {
            0
        };
        let printable = |c: char| if c.is_control() && c != '\t' { char::REPLACEMENT_CHARACTER } else { c };
        let text: String = source.chars().skip(skip).take(EXCERPT_WIDTH).map(printable).collect();
        let at = column - 1 - skip;
        let length = length.min(text.chars().count().saturating_sub(at).max(1));
        Excerpt { text, start: at, length }
    }

    /// A line by its number from 1, without its line end.
    pub(crate) fn line(&self, number: usize) -> &'a str {
        let start = self.starts.get(number.wrapping_sub(1)).copied().unwrap_or(self.text.len());
        let end = self.starts.get(number).map_or(self.text.len(), |next| next - 1);
        self.text.get(start..end).unwrap_or("").trim_end_matches('\r')
    }

    fn floor(&self, offset: usize) -> usize {
        let mut offset = offset.min(self.text.len());
        while !self.text.is_char_boundary(offset) {
            offset -= 1;
        }
        offset
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_count_characters_and_not_bytes() {
        let index = LineIndex::new("a = 1\nnäme = 2\n");
        assert_eq!(index.place(0), (1, 1));
        assert_eq!(index.place(6), (2, 1));
        assert_eq!(index.place(12), (2, 6));
        assert_eq!(index.place(8), (2, 2), "inside ä counts as its start");
        assert_eq!(index.place(999), (3, 1));
    }

    #[test]
    fn a_very_long_line_is_cut_around_its_place() {
        let text = format!("{}X{}", "a".repeat(1000), "b".repeat(1000));
        let excerpt = LineIndex::new(&text).excerpt(1000, 1001);
        assert_eq!(excerpt.text.chars().count(), EXCERPT_WIDTH);
        assert_eq!(excerpt.text.chars().nth(excerpt.start), Some('X'));
    }

    #[test]
    fn escape_sequences_of_a_file_do_not_reach_the_terminal() {
        let excerpt = LineIndex::new("a = \"\u{1b}[31m\"").excerpt(4, 9);
        assert!(!excerpt.text.contains('\u{1b}'));
    }
}
