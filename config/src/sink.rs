//! Collects findings and gives each its place in the text.

use std::collections::BTreeSet;

use crate::codes::{self, Code};
use crate::diagnostic::{Diagnostic, LineIndex, Related, Severity};
use crate::tree::{Node, Span, SyntaxError, Value};

/// Most errors, and most warnings, that are told one by one.
const MOST: usize = 1000;

/// Whether a finding points at a key or at its value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum At {
    Key,
    Value,
}

/// A finding before it has its place.
pub(crate) struct Finding {
    pub(crate) code: &'static Code,
    pub(crate) severity: Severity,
    pub(crate) message: String,
    pub(crate) hint: Option<String>,
    pub(crate) related: Vec<(Vec<String>, At, String)>,
}

/// An error of this code.
pub(crate) fn error(code: &'static Code, message: impl Into<String>) -> Finding {
    Finding { code, severity: Severity::Error, message: message.into(), hint: None, related: Vec::new() }
}

/// A warning of this code.
pub(crate) fn warning(code: &'static Code, message: impl Into<String>) -> Finding {
    Finding { severity: Severity::Warning, ..error(code, message) }
}

impl Finding {
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    pub(crate) fn maybe_hint(mut self, hint: Option<String>) -> Self {
        self.hint = hint.or(self.hint);
        self
    }

    /// Another place that belongs to it.
    pub(crate) fn also<S: AsRef<str>>(mut self, path: &[S], at: At, text: impl Into<String>) -> Self {
        self.related.push((owned(path), at, text.into()));
        self
    }
}

fn owned<S: AsRef<str>>(path: &[S]) -> Vec<String> {
    path.iter().map(|step| step.as_ref().to_owned()).collect()
}

/// RFC 6901.
fn pointer<S: AsRef<str>>(path: &[S]) -> String {
    path.iter().map(|step| format!("/{}", step.as_ref().replace('~', "~0").replace('/', "~1"))).collect()
}

/// Where findings are put.
pub(crate) struct Sink<'a> {
    file: &'a str,
    root: &'a Node,
    /// Absent for JSON.
    lines: Option<LineIndex<'a>>,
    found: Vec<Diagnostic>,
    errors: usize,
    warnings: usize,
    /// Pointers of values that are in error, so that nothing is concluded from them.
    refused: BTreeSet<String>,
}

impl<'a> Sink<'a> {
    pub(crate) fn for_toml(file: &'a str, text: &'a str, root: &'a Node) -> Self {
        Self { lines: Some(LineIndex::new(text)), ..Self::for_json(file, root) }
    }

    pub(crate) fn for_json(file: &'a str, root: &'a Node) -> Self {
        let (found, refused) = (Vec::new(), BTreeSet::new());
        Self { file, root, lines: None, found, errors: 0, warnings: 0, refused }
    }

    /// Adds a finding about the key or value at a path of keys and indices.
    pub(crate) fn report<S: AsRef<str>>(&mut self, path: &[S], at: At, finding: Finding) {
        let pointer = pointer(path);
        if finding.severity == Severity::Error {
            self.refused.insert(pointer.clone());
        }
        if self.count(finding.severity) > MOST {
            return;
        }
        let span = self.span(path, at);
        let related = finding.related.iter().map(|(path, at, text)| self.related(path, *at, text)).collect();
        let (line, column) = self.lines.as_ref().map_or((0, 0), |lines| lines.place(span.start));
        self.found.push(Diagnostic {
            file: self.file.to_owned(),
            line,
            column,
            pointer,
            severity: finding.severity,
            code: finding.code.name,
            message: finding.message,
            hint: finding.hint,
            related,
            excerpt: self.lines.as_ref().map(|lines| lines.excerpt(span.start, span.end)),
        });
    }

    /// Adds a syntax error of TOML text.
    pub(crate) fn report_syntax(&mut self, error: &SyntaxError) {
        let Some(lines) = &self.lines else { return };
        self.errors += 1;
        if self.errors > MOST {
            return;
        }
        let (line, column) = lines.place(error.span.start);
        let duplicate = error.message == "duplicate key";
        let code = if duplicate { codes::DUPLICATE_KEY } else { codes::SYNTAX };
        let related = if duplicate { first_definition(lines, line) } else { None };
        self.found.push(Diagnostic {
            file: self.file.to_owned(),
            line,
            column,
            pointer: String::new(),
            severity: Severity::Error,
            code: code.name,
            message: if duplicate { "this is given twice".to_owned() } else { error.message.clone() },
            hint: None,
            related: related.into_iter().collect(),
            excerpt: Some(lines.excerpt(error.span.start, error.span.end)),
        });
    }

    /// Whether the value at this path, one inside it or one around it is in error.
    pub(crate) fn is_refused<S: AsRef<str>>(&self, path: &[S]) -> bool {
        if self.refused.is_empty() {
            return false;
        }
        let pointer = pointer(path);
        let inside = format!("{pointer}/");
        self.refused.range(inside.clone()..).next().is_some_and(|found| found.starts_with(&inside))
            || (0..=path.len())
                .any(|n| path.get(..n).is_some_and(|p| self.refused.contains(&self::pointer(p))))
    }

    /// The keys directly under a path in which something is in error.
    pub(crate) fn refused_keys<S: AsRef<str>>(&self, path: &[S]) -> Vec<String> {
        let inside = format!("{}/", pointer(path));
        let below = self.refused.range(inside.clone()..).take_while(|found| found.starts_with(&inside));
        below.filter_map(|p| p.get(inside.len()..)?.split('/').next().map(str::to_owned)).collect()
    }

    /// Whether the file has a value at this path.
    pub(crate) fn exists<S: AsRef<str>>(&self, path: &[S]) -> bool {
        self.root.find(path).is_some()
    }

    /// Whether the file has a value at this path, and it is not in error.
    pub(crate) fn is_sound<S: AsRef<str>>(&self, path: &[S]) -> bool {
        self.exists(path) && !self.is_refused(path)
    }

    /// The names in a section, in the order of the text.
    pub(crate) fn names(&self, section: &str) -> Vec<&'a str> {
        let entries = self.root.get(section).map(Node::entries).unwrap_or_default();
        entries.iter().map(|entry| entry.key.as_str()).collect()
    }

    /// Whether the file has a table at this path.
    pub(crate) fn is_table<S: AsRef<str>>(&self, path: &[S]) -> bool {
        self.root.find(path).is_some_and(|node| matches!(node.value, Value::Table(_)))
    }

    /// How many elements the list at this path has.
    pub(crate) fn length<S: AsRef<str>>(&self, path: &[S]) -> usize {
        self.root.find(path).map_or(0, |node| node.elements().len())
    }

    /// The text at this path.
    pub(crate) fn text_at<S: AsRef<str>>(&self, path: &[S]) -> Option<&'a str> {
        self.root.find(path).and_then(Node::text)
    }

    /// All findings in the order of the text.
    pub(crate) fn finish(mut self) -> Vec<Diagnostic> {
        self.found.sort_by_key(|d| (d.line, d.column));
        self.found.dedup();
        for (count, severity) in [(self.errors, Severity::Error), (self.warnings, Severity::Warning)] {
            if count > MOST {
                let message = format!("{} more {severity}s are not shown", count - MOST);
                self.found.push(Diagnostic::new(self.file, severity, codes::TOO_MANY, message));
            }
        }
        self.found
    }

    /// How many findings of a severity there are, with one more.
    fn count(&mut self, severity: Severity) -> usize {
        let count = match severity {
            Severity::Error => &mut self.errors,
            Severity::Warning => &mut self.warnings,
        };
        *count += 1;
        *count
    }

    pub(crate) fn has_errors(&self) -> bool {
        self.errors > 0
    }

    fn span<S: AsRef<str>>(&self, path: &[S], at: At) -> Span {
        let (key, value) = self.root.locate(path);
        if at == At::Key { key } else { value }
    }

    fn related(&self, path: &[String], at: At, text: &str) -> Related {
        let span = self.span(path, at);
        let (line, column) = self.lines.as_ref().map_or((0, 0), |lines| lines.place(span.start));
        Related { line, column, pointer: pointer(path), text: text.to_owned() }
    }
}

/// The line that a duplicate line repeats: the same header before it, or the same key in its section.
fn first_definition(lines: &LineIndex<'_>, duplicate: usize) -> Option<Related> {
    let words = |line: usize| lines.line(line).trim();
    let is_header = words(duplicate).starts_with('[');
    let key = |line: usize| words(line).split('=').next().unwrap_or("").trim();
    let header = |line: usize| words(line).split('#').next().unwrap_or("").trim();
    for line in (1..duplicate).rev() {
        let found = if is_header {
            header(line) == header(duplicate)
        } else {
            words(line).contains('=') && key(line) == key(duplicate)
        };
        if found {
            let indent = lines.line(line).chars().take_while(|c| c.is_whitespace()).count();
            let text = "it is given here first".to_owned();
            return Some(Related { line, column: indent + 1, pointer: String::new(), text });
        }
        if !is_header && words(line).starts_with('[') {
            return None;
        }
    }
    None
}
