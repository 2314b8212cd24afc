//! The check of shapes: keys, types, ranges, words, forms and references, against [`crate::schema`].

use crate::codes;
use crate::names::Defined;
use crate::schema::{Form, Key, Kind, Names, Need, ROOT, Ref, Rule, Table};
use crate::sink::{At, Finding, Sink, error};
use crate::text::{self, Bad, nearest};
use crate::tree::{Entry, Node, Value};

/// Reports everything about the tree that is not as the schema says.
pub(crate) fn check(root: &Node, sink: &mut Sink<'_>) {
    let defined = Defined::collect(root);
    let mut checker = Checker { defined, sink, path: Vec::new(), partial: false };
    checker.table(root, &ROOT);
}

struct Checker<'a, 'b> {
    defined: Defined,
    sink: &'a mut Sink<'b>,
    path: Vec<String>,
    /// Inside a `[node]` section, which is part of a configuration: what is absent may stand elsewhere, and so may what is
    /// referred to.
    partial: bool,
}

impl Checker<'_, '_> {
    fn report(&mut self, at: At, finding: Finding) {
        self.sink.report(&self.path, at, finding);
    }

    fn inside(&mut self, step: impl Into<String>, check: impl FnOnce(&mut Self)) {
        self.path.push(step.into());
        check(self);
        self.path.pop();
    }

    fn table(&mut self, node: &Node, table: &'static Table) {
        let Value::Table(_) = &node.value else {
            return self.wrong_type(node, format!("a table ({})", table.title));
        };
        for entry in node.entries() {
            match table.keys.iter().find(|key| key.name == entry.key) {
                Some(key) => self.inside(entry.key.as_str(), |c| c.value(&entry.node, &key.kind)),
                None => self.unknown_key(entry, table),
            }
        }
        for rule in table.rules {
            self.rule(node, table, rule);
        }
        let whole = !self.partial;
        for key in table.keys.iter().filter(|key| whole && is_missing(key, node, table)) {
            let message = format!("{} needs the key `{}`: {}", table.title, key.name, key.kind.describe());
            self.inside(key.name, |c| c.report(At::Value, error(codes::MISSING_KEY, message)));
        }
    }

    fn unknown_key(&mut self, entry: &Entry, table: &'static Table) {
        let candidates: Vec<&str> = table.keys.iter().map(|key| key.name).collect();
        let hint = match nearest(&entry.key, candidates.iter().copied()) {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("it takes {}", candidates.join(", ")),
        };
        let title = table.title;
        let finding =
            error(codes::UNKNOWN_KEY, format!("there is no key `{}` in {title}", entry.key)).hint(hint);
        self.inside(entry.key.as_str(), |c| c.report(At::Key, finding));
    }

    fn rule(&mut self, node: &Node, table: &'static Table, rule: &Rule) {
        match rule {
            Rule::AtLeastOne(_) if self.partial => {}
            Rule::AtLeastOne(keys) => {
                // A misspelt key is an error of its own; do not ask for it again.
                let misspelt = node.entries().iter().any(|e| !table.keys.iter().any(|key| key.name == e.key));
                if keys.iter().any(|key| node.get(key).is_some()) || misspelt {
                    return;
                }
                let list: Vec<_> = keys.iter().map(|key| format!("`{key}`")).collect();
                let message = format!("{} needs one of the keys {}", table.title, list.join(", "));
                let step = keys.first().copied().unwrap_or_default();
                self.inside(step, |c| c.report(At::Value, error(codes::MISSING_KEY, message)));
            }
            Rule::AtMostOne(keys) => {
                let mut given = node.entries().iter().filter(|entry| keys.contains(&entry.key.as_str()));
                let Some(first) = given.next() else { return };
                for second in given {
                    let mut other = self.path.clone();
                    other.push(first.key.clone());
                    let message = format!("`{}` and `{}` exclude each other", first.key, second.key);
                    let finding = error(codes::CONFLICTING_KEYS, message)
                        .also(&other, At::Key, format!("`{}` is given here", first.key))
                        .hint("give only one of them");
                    self.inside(second.key.as_str(), |c| c.report(At::Key, finding));
                }
            }
        }
    }

    fn value(&mut self, node: &Node, kind: &'static Kind) {
        match kind {
            Kind::Boolean if node.boolean().is_some() => {}
            Kind::True if node.boolean() == Some(true) => {}
            Kind::Integer { min, max } if node.integer().is_some() => self.integer(node, *min, *max),
            Kind::Choice(numbers) if node.integer().is_some() => {
                if !node.integer().is_some_and(|number| numbers.contains(&number)) {
                    self.report(
                        At::Value,
                        error(codes::OUT_OF_RANGE, format!("it takes {}", kind.describe())),
                    );
                }
            }
            Kind::Word(words) if node.text().is_some() => self.word(node, words),
            Kind::Text(form) => match node.text() {
                Some(text) => self.form(text, *form),
                None => self.wrong_type(node, kind.describe()),
            },
            Kind::Ref(to) => match node.text() {
                Some(text) => self.reference(text, *to),
                None => self.wrong_type(node, kind.describe()),
            },
            Kind::Either(kinds) => match kinds.iter().find(|kind| takes(kind, node)) {
                Some(kind) => self.value(node, kind),
                None => self.wrong_type(node, kind.describe()),
            },
            Kind::List { of, min, max } => self.list(node, of, *min, *max, kind),
            Kind::OneOrMany(of) => match &node.value {
                Value::Array(_) => self.list(node, of, 1, usize::MAX, kind),
                _ if takes(of, node) => self.value(node, of),
                _ => self.wrong_type(node, kind.describe()),
            },
            Kind::Table(table) => self.table(node, table),
            Kind::Named(names, table) => self.named(node, *names, table),
            Kind::Records(table) => match &node.value {
                Value::Array(elements) => {
                    for (index, element) in elements.iter().enumerate() {
                        self.inside(index.to_string(), |c| c.table(element, table));
                    }
                }
                _ => self.wrong_type_hint(node, kind.describe(), format!("write `{}`", table.title)),
            },
            _ => self.wrong_type(node, kind.describe()),
        }
    }

    fn integer(&mut self, node: &Node, min: i64, max: i64) {
        let Some(number) = node.integer() else { return };
        if number < min || number > max {
            let message = if max == i64::MAX {
                format!("{number} is out of range: at least {min}")
            } else {
                format!("{number} is out of range: {min} to {max}")
            };
            self.report(At::Value, error(codes::OUT_OF_RANGE, message));
        }
    }

    fn word(&mut self, node: &Node, words: &'static [&'static str]) {
        let Some(text) = node.text().filter(|text| !words.contains(text)) else { return };
        let list: Vec<_> = words.iter().map(|word| format!("\"{word}\"")).collect();
        let hint = match nearest(text, words.iter().copied()) {
            Some(near) => format!("did you mean \"{near}\"?"),
            None => format!("it takes {}", list.join(", ")),
        };
        self.report(
            At::Value,
            error(codes::UNKNOWN_WORD, format!("\"{text}\" is not known here")).hint(hint),
        );
    }

    fn form(&mut self, text: &str, form: Form) {
        let result = match form {
            Form::Ip => text::ip(text).map(drop),
            Form::Ipv4 => text::ipv4(text).map(drop),
            Form::Pool => text::pool(text).map(drop),
            Form::Address => text::address(text).map(drop),
            Form::Prefix => text::prefix(text).map(drop),
            Form::Mac => text::mac(text).map(drop),
            Form::Device => text::device(text),
            Form::Uuid => text::uuid(text),
            Form::Duration => text::duration(text).map(drop),
            Form::Rate => text::rate(text).map(drop),
            Form::Burst => text::burst(text).map(drop),
            Form::PortRange => text::port_range(text).map(drop),
            Form::Protocol => text::protocol(text).map(drop),
            Form::Dscp => text::dscp(text).map(drop),
            Form::TcpFlags => text::tcp_flags(text).map(drop),
        };
        if let Err(bad) = result {
            self.bad(At::Value, bad);
        }
    }

    fn bad(&mut self, at: At, bad: Bad) {
        self.report(at, error(bad.code, bad.message).maybe_hint(bad.hint));
    }

    fn reference(&mut self, name: &str, to: Ref) {
        if self.partial {
            return;
        }
        if let Err(finding) = self.defined.check(to, name) {
            self.report(At::Value, finding);
        }
    }

    fn list(&mut self, node: &Node, of: &'static Kind, min: usize, max: usize, whole: &'static Kind) {
        let Value::Array(elements) = &node.value else {
            let hint = if takes(of, node) { "put it into brackets: `[ … ]`" } else { "" };
            let hint = Some(hint.to_owned()).filter(|hint| !hint.is_empty());
            return self.report(At::Value, wrong_type(node, whole.describe()).maybe_hint(hint));
        };
        if elements.len() < min || elements.len() > max {
            let allowed = match (min, max) {
                (min, usize::MAX) => format!("at least {min}"),
                (min, max) if min == max => format!("exactly {min}"),
                (min, max) => format!("{min} to {max}"),
            };
            let message = format!("the list's length is {}, it takes {allowed}", elements.len());
            self.report(At::Value, error(codes::OUT_OF_RANGE, message));
        }
        for (index, element) in elements.iter().enumerate() {
            self.inside(index.to_string(), |c| c.value(element, of));
        }
    }

    fn named(&mut self, node: &Node, names: Names, table: &'static Table) {
        let Value::Table(_) = &node.value else {
            return self.wrong_type_hint(
                node,
                "tables by name".to_owned(),
                format!("write `{}`", table.title),
            );
        };
        let outside = self.partial;
        self.partial |= matches!(names, Names::Node);
        for entry in node.entries() {
            self.inside(entry.key.as_str(), |c| {
                c.name(&entry.key, names);
                c.table(&entry.node, table);
            });
        }
        self.partial = outside;
    }

    fn name(&mut self, name: &str, names: Names) {
        match names {
            Names::Except(reserved) if reserved.contains(&name) => self.report(
                At::Key,
                error(codes::RESERVED_NAME, format!("`{name}` has a meaning of its own here"))
                    .hint("choose another name"),
            ),
            Names::Except(_) => {
                if let Err(bad) = text::name(name) {
                    self.bad(At::Key, bad);
                }
            }
            Names::Node => {
                if let Err(bad) = text::node(name) {
                    self.bad(At::Key, bad);
                }
            }
            Names::VlanId => {
                let canonical =
                    name.parse().is_ok_and(|id: u16| id.to_string() == name && (1..=4094).contains(&id));
                if !canonical {
                    let message = format!("`{name}` is not a VLAN identifier: 1 to 4094");
                    self.report(At::Key, error(codes::OUT_OF_RANGE, message));
                }
            }
        }
    }

    fn wrong_type(&mut self, node: &Node, wanted: String) {
        self.report(At::Value, wrong_type(node, wanted));
    }

    fn wrong_type_hint(&mut self, node: &Node, wanted: String, hint: String) {
        self.report(At::Value, wrong_type(node, wanted).hint(hint));
    }
}

/// Whether a required key is absent, and no misspelt key stands for it.
fn is_missing(key: &Key, node: &Node, table: &Table) -> bool {
    let grouped = |rule: &Rule| matches!(rule, Rule::AtLeastOne(keys) if keys.contains(&key.name));
    let known = |name: &str| table.keys.iter().any(|key| key.name == name);
    let misspelt = |name: &str| table.keys.len() == 1 || nearest(name, [key.name]).is_some();
    matches!(key.need, Need::Required)
        && node.get(key.name).is_none()
        && !table.rules.iter().any(grouped)
        && !node.entries().iter().any(|entry| !known(&entry.key) && misspelt(&entry.key))
}

fn wrong_type(node: &Node, wanted: String) -> Finding {
    if node.boolean() == Some(false) && wanted == "true" {
        return error(codes::BAD_VALUE, "this can only be true").hint("leave the key out instead");
    }
    error(codes::WRONG_TYPE, format!("this is {}, but it takes {wanted}", node.type_name()))
}

/// Whether a kind takes values of the node's type.
fn takes(kind: &Kind, node: &Node) -> bool {
    match kind {
        Kind::Boolean | Kind::True => node.boolean().is_some(),
        Kind::Integer { .. } | Kind::Choice(_) => node.integer().is_some(),
        Kind::Word(_) | Kind::Text(_) | Kind::Ref(_) => node.text().is_some(),
        Kind::Either(kinds) => kinds.iter().any(|kind| takes(kind, node)),
        Kind::List { .. } | Kind::Records(_) => matches!(node.value, Value::Array(_)),
        Kind::OneOrMany(of) => matches!(node.value, Value::Array(_)) || takes(of, node),
        Kind::Table(_) | Kind::Named(..) => matches!(node.value, Value::Table(_)),
    }
}
