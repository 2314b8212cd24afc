//! What differs between two configurations, in the terms of the file.

use std::fmt;

use serde::Serialize;
use serde_json::{Map, Value};

use crate::model::Config;
use crate::render::to_json;

/// Sections that a running instance cannot change.
const FIXED_AT_START: &[&str] = &["workers", "limits", "memory"];

/// The longest value text that a change carries, in characters.
const VALUE_WIDTH: usize = 120;

/// What happened to a key, a named table or an element of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum ChangeKind {
    /// Only the new configuration has it.
    Added,
    /// Only the old configuration has it.
    Removed,
    /// Both have it, with different values.
    Changed,
}

/// One difference.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Change {
    /// What happened.
    pub kind: ChangeKind,
    /// The key in the file's terms: `port.uplink.mtu`; for lists, the list's key.
    pub path: String,
    /// Whether only a restart can bring it about.
    pub restart: bool,
    /// The old value, shortened.
    pub old: Option<String>,
    /// The new value, shortened.
    pub new: Option<String>,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = &self.path;
        match (self.kind, &self.old, &self.new) {
            (ChangeKind::Added, _, new) => write!(f, "+ {path} = {}", new.as_deref().unwrap_or("")),
            (ChangeKind::Removed, old, _) => write!(f, "- {path} = {}", old.as_deref().unwrap_or("")),
            (ChangeKind::Changed, old, new) => {
                write!(f, "~ {path}: {} -> {}", old.as_deref().unwrap_or(""), new.as_deref().unwrap_or(""))
            }
        }?;
        if self.restart { f.write_str(" (needs a restart)") } else { Ok(()) }
    }
}

/// The differences between two configurations, ordered by path; none exactly if the two are equal.
pub fn diff(old: &Config, new: &Config) -> Vec<Change> {
    let mut found = Vec::new();
    if let (Value::Object(old), Value::Object(new)) = (to_json(old), to_json(new)) {
        objects("", &old, &new, 0, &mut found);
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    found
}

fn objects(
    path: &str,
    old: &Map<String, Value>,
    new: &Map<String, Value>,
    depth: usize,
    found: &mut Vec<Change>,
) {
    let added = new.keys().filter(|key| !old.contains_key(*key));
    for key in old.keys().chain(added) {
        let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
        values(&path, old.get(key), new.get(key), depth, found);
    }
}

fn values(path: &str, old: Option<&Value>, new: Option<&Value>, depth: usize, found: &mut Vec<Change>) {
    let empty = Map::new();
    match (old, new) {
        (old, new) if old == new => {}
        (Some(Value::Object(old)), Some(Value::Object(new))) => objects(path, old, new, depth + 1, found),
        // A whole section that appears or vanishes is told name by name.
        (Some(Value::Object(old)), None) if depth == 0 => objects(path, old, &empty, 1, found),
        (None, Some(Value::Object(new))) if depth == 0 => objects(path, &empty, new, 1, found),
        (Some(Value::Array(old)), Some(Value::Array(new))) => lists(path, old, new, found),
        (Some(Value::Array(old)), None) => lists(path, old, &[], found),
        (None, Some(Value::Array(new))) => lists(path, &[], new, found),
        (old, new) => found.push(change(path, old, new)),
    }
}

/// Elements that only one list has; if there are none, the order differs.
fn lists(path: &str, old: &[Value], new: &[Value], found: &mut Vec<Change>) {
    let before = found.len();
    for element in missing(old, new) {
        found.push(change(path, Some(element), None));
    }
    for element in missing(new, old) {
        found.push(change(path, None, Some(element)));
    }
    if found.len() == before {
        let order = |list: &[Value]| Value::Array(list.to_vec());
        found.push(change(path, Some(&order(old)), Some(&order(new))));
    }
}

/// Elements of `list` that `other` does not have, or not as often.
fn missing<'a>(list: &'a [Value], other: &[Value]) -> Vec<&'a Value> {
    let mut counts: std::collections::HashMap<String, usize> = std::collections::HashMap::new();
    for element in other {
        *counts.entry(element.to_string()).or_default() += 1;
    }
    let mut absent = Vec::new();
    for element in list {
        match counts.get_mut(&element.to_string()) {
            Some(count) if *count > 0 => *count -= 1,
            _ => absent.push(element),
        }
    }
    absent
}

fn change(path: &str, old: Option<&Value>, new: Option<&Value>) -> Change {
    let kind = match (old, new) {
        (None, _) => ChangeKind::Added,
        (_, None) => ChangeKind::Removed,
        _ => ChangeKind::Changed,
    };
    let section = path.split('.').next().unwrap_or_default();
    Change {
        kind,
        path: path.to_owned(),
        restart: FIXED_AT_START.contains(&section),
        old: old.map(short),
        new: new.map(short),
    }
}

fn short(value: &Value) -> String {
    let text = value.to_string();
    if text.chars().count() <= VALUE_WIDTH {
        return text;
    }
    text.chars().take(VALUE_WIDTH - 1).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(text: &str) -> Config {
        crate::load_str("test.toml", text).unwrap_or_else(|error| panic!("{error}")).config
    }

    fn lines(old: &str, new: &str) -> Vec<String> {
        diff(&config(old), &config(new)).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn equal_configurations_differ_in_nothing() {
        let text = "[port.a]\nmtu = 1400\n[limits]\nflows = 5\n";
        assert_eq!(lines(text, text), Vec::<String>::new());
        assert_eq!(
            lines("", "[memory]\nframe-size = 2048\n"),
            Vec::<String>::new(),
            "a default is a default"
        );
    }

    #[test]
    fn a_changed_key_is_named_as_in_the_file() {
        assert_eq!(lines("[port.a]\nmtu = 1400\n", "[port.a]\nmtu = 1500\n"), ["~ port.a.mtu: 1400 -> 1500"]);
        assert_eq!(lines("[port.a]\n", "[port.a]\nmtu = 1500\n"), ["+ port.a.mtu = 1500"]);
    }

    #[test]
    fn what_a_running_instance_cannot_change_says_so() {
        let found = diff(
            &config(""),
            &config("[limits]\nflows = 5\n[memory]\nframes = 2048\n[workers]\nidle = \"spin\"\n"),
        );
        assert_eq!(found.len(), 3);
        assert!(found.iter().all(|change| change.restart));
        assert!(diff(&config(""), &config("[bridge.lan]\n")).iter().all(|change| !change.restart));
    }

    #[test]
    fn one_added_route_is_one_change() {
        let one = "[[vrf.default.route]]\nprefix = \"10.0.0.0/8\"\nvia = { blackhole = true }\n";
        let two =
            format!("[[vrf.default.route]]\nprefix = \"11.0.0.0/8\"\nvia = {{ blackhole = true }}\n{one}");
        let found = lines(one, &two);
        assert_eq!(found, [r#"+ vrf.default.route = {"prefix":"11.0.0.0/8","via":{"blackhole":true}}"#]);
    }

    #[test]
    fn a_new_order_of_rules_is_a_change() {
        let rules = |list: &str| format!("[service.s.firewall]\nrules = [{list}]\n");
        let (a, b) = ("{ allow = \"tcp\" }", "{ deny = \"udp\" }");
        let found = diff(&config(&rules(&format!("{a},{b}"))), &config(&rules(&format!("{b},{a}"))));
        assert_eq!(found.len(), 1);
        assert_eq!(
            (found[0].kind, found[0].path.as_str()),
            (ChangeKind::Changed, "service.s.firewall.rules")
        );
    }
}
