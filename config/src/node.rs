//! `[node."<name or label>"]`: one file for many machines. A section holds what is different on the nodes that it is for,
//! and is laid over the rest of the file before anything is checked, so that places in errors stay those of the text.

use std::collections::BTreeMap;

use crate::schema::{Key, Kind, ROOT, Table};
use crate::tree::{Entry, Node, Value};

/// The section's key in the file.
pub(crate) const NODE: &str = "node";

/// Which machine a configuration is loaded for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// Its name.
    pub name: Option<String>,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
}

impl Identity {
    /// Whether nothing at all is known.
    pub fn is_unknown(&self) -> bool {
        self.name.is_none() && self.labels.is_empty()
    }

    /// The machine that a section is for, and no more than that.
    pub(crate) fn of_section(section: &str) -> Self {
        match section.split_once('=') {
            Some((key, value)) => {
                Self { name: None, labels: BTreeMap::from([(key.to_owned(), value.to_owned())]) }
            }
            None => Self { name: Some(section.to_owned()), labels: BTreeMap::new() },
        }
    }

    /// A name has no `=`, a label is `key=value`.
    fn is(&self, section: &str) -> bool {
        match section.split_once('=') {
            Some((key, value)) => self.labels.get(key).is_some_and(|have| have == value),
            None => self.name.as_deref() == Some(section),
        }
    }
}

/// The sections of a file, in the order of the text.
pub(crate) fn sections(root: &Node) -> impl Iterator<Item = &Entry> {
    root.get(NODE).map(Node::entries).unwrap_or_default().iter()
}

/// The file as one machine sees it: the sections for its labels over the rest in the order of the text, then the one for its
/// name.
pub(crate) fn overlay(root: &Node, identity: &Identity) -> Node {
    let (labels, names): (Vec<&Entry>, Vec<&Entry>) = sections(root)
        .filter(|section| identity.is(&section.key))
        .partition(|section| section.key.contains('='));
    let whole = root.clone();
    labels.into_iter().chain(names).fold(whole, |below, section| {
        if matches!(section.node.value, Value::Table(_)) {
            lay_over(&below, &section.node, &ROOT)
        } else {
            below
        }
    })
}

/// Tables are merged key by key.
fn lay_over(below: &Node, above: &Node, table: &Table) -> Node {
    let kind = |name: &str| table.keys.iter().find(|key: &&Key| key.name == name).map(|key| &key.kind);
    merge(below, above, |key, under, over| match kind(key) {
        Some(kind) => value(under, over, kind),
        None => over.clone(),
    })
}

fn merge(below: &Node, above: &Node, join: impl Fn(&str, &Node, &Node) -> Node) -> Node {
    let mut list = below.entries().to_vec();
    let position: BTreeMap<String, usize> =
        list.iter().enumerate().map(|(n, e)| (e.key.clone(), n)).collect();
    for over in above.entries() {
        match position.get(&over.key).and_then(|n| list.get_mut(*n)) {
            Some(under) => {
                let node = join(&over.key, &under.node, &over.node);
                // What was replaced stands where its replacement does.
                if node.span == over.node.span {
                    under.key_span = over.key_span.clone();
                }
                under.node = node;
            }
            None => list.push(over.clone()),
        }
    }
    Node::table(below.span.clone(), list)
}

/// `[[…]]` grow, every other value is replaced.
fn value(below: &Node, above: &Node, kind: &Kind) -> Node {
    match (kind, &below.value, &above.value) {
        (Kind::Table(table), Value::Table(_), Value::Table(_)) => lay_over(below, above, table),
        (Kind::Named(_, table), Value::Table(_), Value::Table(_)) => {
            merge(below, above, |_, under, over| match (&under.value, &over.value) {
                (Value::Table(_), Value::Table(_)) => lay_over(under, over, table),
                _ => over.clone(),
            })
        }
        (Kind::Records(_), Value::Array(first), Value::Array(more)) => Node {
            span: below.span.clone(),
            value: Value::Array([first.as_slice(), more.as_slice()].concat()),
        },
        _ => above.clone(),
    }
}
