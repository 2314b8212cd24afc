//! From text to a validated [`Config`]: parse, check shapes, build, validate. All errors come at once.

use std::path::{Path, PathBuf};

use crate::build::build;
use crate::check::check;
use crate::codes;
use crate::diagnostic::{Diagnostic, Diagnostics, Severity};
use crate::model::Config;
use crate::node::{self, Identity};
use crate::sink::{At, Sink, error, warning};
use crate::tree::{self, Node};
use crate::validate::validate;

/// A validated configuration and what is odd about it.
#[derive(Clone, Debug, PartialEq)]
pub struct Loaded {
    /// The configuration.
    pub config: Config,
    /// Findings that do not refuse it, in the order of the text.
    pub warnings: Vec<Diagnostic>,
}

/// Why a file gave no configuration.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The file cannot be read.
    #[error("{}: error[{}]: cannot read the file: {source}", path.display(), codes::UNREADABLE.name)]
    Unreadable {
        /// Its path as given.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// The file was read and refused.
    #[error("{0}")]
    Refused(#[from] Diagnostics),
}

impl LoadError {
    /// The error as diagnostics, whatever it is.
    pub fn into_diagnostics(self) -> Diagnostics {
        match self {
            Self::Refused(diagnostics) => diagnostics,
            Self::Unreadable { path, source } => {
                let message = format!("cannot read the file: {source}");
                let file = path.display().to_string();
                Diagnostics(vec![Diagnostic::new(&file, Severity::Error, codes::UNREADABLE, message)])
            }
        }
    }
}

/// Reads and validates a file.
///
/// # Errors
///
/// [`LoadError::Unreadable`] if the file cannot be read or is not UTF-8, [`LoadError::Refused`] with every
/// error and warning if it is not a valid configuration.
pub fn load(path: &Path) -> Result<Loaded, LoadError> {
    let text = std::fs::read_to_string(path)
        .map_err(|source| LoadError::Unreadable { path: path.to_owned(), source })?;
    Ok(load_str(&path.display().to_string(), &text)?)
}

/// Validates TOML text; `file_name` is only for messages.
///
/// # Errors
///
/// Every error and warning, in the order of the text. After a syntax error nothing else is looked at, other
/// than further syntax errors.
pub fn load_str(file_name: &str, text: &str) -> Result<Loaded, Diagnostics> {
    load_str_for(file_name, text, &Identity::default())
}

/// Validates TOML text as one machine sees it: its `[node]` sections are laid over the rest. Of the other sections only the
/// shape is checked: keys, types and forms.
///
/// # Errors
///
/// As [`load_str`].
pub fn load_str_for(file_name: &str, text: &str, identity: &Identity) -> Result<Loaded, Diagnostics> {
    let (root, errors) = tree::from_toml(text);
    let seen = node::overlay(&root, identity);
    let mut sink = Sink::for_toml(file_name, text, &seen);
    for error in &errors {
        sink.report_syntax(error);
    }
    finish(&seen, sink, identity)
}

/// Validates TOML text for every machine that it has a `[node]` section for, and for one that it has none for.
///
/// # Errors
///
/// Every error and warning, in the order of the text; what only some nodes see names them.
pub fn load_str_everywhere(file_name: &str, text: &str) -> Result<Loaded, Diagnostics> {
    let (root, errors) = tree::from_toml(text);
    let sections: Vec<&str> = node::sections(&root).map(|section| section.key.as_str()).collect();
    if sections.is_empty() || !errors.is_empty() {
        return load_str(file_name, text);
    }
    let mut found = Found::default();
    let mut config = None;
    for section in &sections {
        match load_str_for(file_name, text, &Identity::of_section(section)) {
            Ok(loaded) => {
                found.add(section, loaded.warnings);
                config.get_or_insert(loaded.config);
            }
            Err(diagnostics) => found.add(section, diagnostics.0),
        }
    }
    if let (Some(key), Err(refused)) = (root.entry(node::NODE), load_str(file_name, text)) {
        let message =
            format!("a node that no section is for would refuse this file: {}", plural(refused.errors()));
        let mut sink = Sink::for_toml(file_name, text, &root);
        let finding =
            warning(codes::OTHER_NODES, message).hint("`weir check --node NAME` lists them for a node");
        sink.report(&[&key.key], At::Key, finding);
        found.add_all(sink.finish());
    }
    let diagnostics = found.finish(sections.len());
    match config.filter(|_| diagnostics.errors() == 0) {
        Some(config) => Ok(Loaded { config, warnings: diagnostics.0 }),
        None => Err(diagnostics),
    }
}

fn plural(errors: usize) -> String {
    format!("{errors} error{}", if errors == 1 { "" } else { "s" })
}

/// Nodes that are named with a finding.
const NAMED: usize = 3;

/// Findings of several nodes.
#[derive(Default)]
struct Found(Vec<(Diagnostic, Vec<String>)>);

impl Found {
    fn add(&mut self, section: &str, diagnostics: Vec<Diagnostic>) {
        for diagnostic in diagnostics {
            match self.0.iter_mut().find(|(known, _)| *known == diagnostic) {
                Some((_, sections)) => sections.push(section.to_owned()),
                None => self.0.push((diagnostic, vec![section.to_owned()])),
            }
        }
    }

    fn add_all(&mut self, diagnostics: Vec<Diagnostic>) {
        self.0.extend(diagnostics.into_iter().map(|diagnostic| (diagnostic, Vec::new())));
    }

    /// In the order of the text; what not all of `nodes` see says which do.
    fn finish(self, nodes: usize) -> Diagnostics {
        let name = |(mut diagnostic, sections): (Diagnostic, Vec<String>)| {
            if !sections.is_empty() && sections.len() < nodes {
                let mut names: Vec<String> =
                    sections.iter().take(NAMED).map(|section| format!("`{section}`")).collect();
                if sections.len() > NAMED {
                    names.push("…".to_owned());
                }
                diagnostic.message = format!("{} (on {})", diagnostic.message, names.join(", "));
            }
            diagnostic
        };
        let mut all: Vec<Diagnostic> = self.0.into_iter().map(name).collect();
        all.sort_by_key(|diagnostic| (diagnostic.line, diagnostic.column));
        Diagnostics(all)
    }
}

/// Validates JSON text of the same shape as the file. Places are JSON pointers.
///
/// # Errors
///
/// Every error and warning, in the order of the text.
pub fn from_json(text: &str) -> Result<Config, Diagnostics> {
    load_json("json", text).map(|loaded| loaded.config)
}

/// Like [`from_json`], with a name for messages and with the warnings.
///
/// # Errors
///
/// Every error and warning, in the order of the text.
pub fn load_json(file_name: &str, text: &str) -> Result<Loaded, Diagnostics> {
    load_json_for(file_name, text, &Identity::default())
}

/// Like [`load_json`], as one machine sees it.
///
/// # Errors
///
/// Every error and warning, in the order of the text.
pub fn load_json_for(file_name: &str, text: &str, identity: &Identity) -> Result<Loaded, Diagnostics> {
    match tree::from_json(text) {
        Ok(root) => {
            let seen = node::overlay(&root, identity);
            finish(&seen, Sink::for_json(file_name, &seen), identity)
        }
        Err(failure) => {
            let root = Node::empty_table();
            let mut sink = Sink::for_json(file_name, &root);
            sink.report::<&str>(&[], At::Value, error(codes::SYNTAX, failure.to_string()));
            Err(Diagnostics(sink.finish()))
        }
    }
}

/// A finding that only a running machine makes: what TOML text says at a path of keys asks for more memory than there is.
/// Points at the path's value, or, where the text has none, at what is nearest.
pub fn does_not_fit(file_name: &str, text: &str, path: &[String], message: &str) -> Diagnostic {
    let (root, _) = tree::from_toml(text);
    let mut sink = Sink::for_toml(file_name, text, &root);
    sink.report(path, At::Value, error(codes::DOES_NOT_FIT, message));
    let found = sink.finish().pop();
    found.unwrap_or_else(|| {
        Diagnostic::new(file_name, Severity::Error, codes::DOES_NOT_FIT, message.to_owned())
    })
}

fn finish(root: &Node, mut sink: Sink<'_>, identity: &Identity) -> Result<Loaded, Diagnostics> {
    if sink.has_errors() {
        return Err(Diagnostics(sink.finish()));
    }
    check(root, &mut sink);
    let config = build(root);
    validate(&config, &mut sink);
    if identity.is_unknown() && node::sections(root).next().is_some() {
        let message = "weir was not told which node it is: no section of `[node]` applies";
        let hint = "give its name with `--node` or WEIR_NODE, or labels with `--node-label`";
        sink.report(&[node::NODE], At::Key, warning(codes::NODE_UNKNOWN, message).hint(hint));
    }
    let refused = sink.has_errors();
    let found = sink.finish();
    if refused { Err(Diagnostics(found)) } else { Ok(Loaded { config, warnings: found }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_cannot_be_read_is_an_error_with_its_path() {
        let folder = tempfile::tempdir().unwrap();
        let missing = folder.path().join("missing.toml");
        let error = load(&missing).unwrap_err();
        assert!(error.to_string().starts_with(&format!("{}: error[unreadable]: ", missing.display())));
        assert_eq!(error.to_string(), load(&missing).unwrap_err().into_diagnostics().to_string());
        let binary = folder.path().join("binary.toml");
        std::fs::write(&binary, [0xff, 0xfe, 0x00]).unwrap();
        assert!(matches!(load(&binary), Err(LoadError::Unreadable { .. })));
    }

    #[test]
    fn what_does_not_fit_is_shown_at_its_place() {
        let text = "[limits]\nsessions = 9\nflows = 16777216\n";
        let at = ["limits".to_owned(), "flows".to_owned()];
        let found = does_not_fit("weir.toml", text, &at, "limits.flows = 16777216 takes 9000 MiB");
        assert_eq!((found.line, found.column, found.code), (3, 9, "does-not-fit"));
        assert!(
            found
                .to_string()
                .starts_with("weir.toml:3:9: error[does-not-fit]: limits.flows = 16777216 takes 9000 MiB")
        );
        let without = does_not_fit("weir.toml", "[port.a]\n", &at, "too large");
        assert_eq!((without.line, without.code), (1, "does-not-fit"));
    }

    #[test]
    fn more_errors_than_anyone_reads_are_counted() {
        let text: String = (0..3000).map(|i| format!("key{i} = 1\n")).collect();
        let found = load_str("many.toml", &text).unwrap_err();
        assert_eq!(found.0.len(), 1001);
        let last = found.0.last().unwrap().to_string();
        assert_eq!(last, "many.toml: error[too-many]: 2000 more errors are not shown");
    }

    #[test]
    fn line_ends_of_windows_are_line_ends() {
        let found = load_str("crlf.toml", "[port.a]\r\nmtu = 5\r\n").unwrap_err();
        assert_eq!((found.0[0].line, found.0[0].column), (2, 7));
        assert!(!found.to_string().contains('\r'));
    }
}
