//! The value tree that TOML and JSON texts are both read into: tables, arrays and scalars with their places.

use std::fmt;
use std::ops::Range;

use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// A byte range of the text; empty at 0 for JSON, whose places are pointers.
pub(crate) type Span = Range<usize>;

/// A value and where it stands.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Node {
    pub(crate) span: Span,
    pub(crate) value: Value,
}

/// A value.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Value {
    Text(String),
    Integer(i64),
    /// A number that is no 64-bit signed integer: a fraction, or too large.
    Number(String),
    Boolean(bool),
    /// JSON's null, TOML's date and time: no key takes them.
    Other(&'static str),
    Array(Vec<Node>),
    Table(Entries),
}

/// The keys of a table, in the order of the text and found by name.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Entries {
    list: Vec<Entry>,
    /// Indices into `list`, ordered by key: a file may have tens of thousands of tunnels.
    by_key: Vec<usize>,
}

impl Entries {
    fn new(list: Vec<Entry>) -> Self {
        let mut keyed: Vec<(&str, usize)> =
            list.iter().enumerate().map(|(i, e)| (e.key.as_str(), i)).collect();
        keyed.sort_unstable();
        let by_key = keyed.into_iter().map(|(_, index)| index).collect();
        Self { list, by_key }
    }

    fn get(&self, key: &str) -> Option<&Entry> {
        let key_of = |index: &usize| self.list.get(*index).map(|entry| entry.key.as_str());
        let at = self.by_key.binary_search_by(|index| key_of(index).cmp(&Some(key))).ok()?;
        self.by_key.get(at).and_then(|&index| self.list.get(index))
    }
}

/// One key of a table.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Entry {
    pub(crate) key: String,
    pub(crate) key_span: Span,
    pub(crate) node: Node,
}

impl Node {
    pub(crate) fn table(span: Span, list: Vec<Entry>) -> Self {
        Self { span, value: Value::Table(Entries::new(list)) }
    }

    pub(crate) fn empty_table() -> Self {
        Self { span: 0..0, value: Value::Table(Entries::default()) }
    }

    /// The value of a key; absent if there is none or this is no table.
    pub(crate) fn get(&self, key: &str) -> Option<&Self> {
        self.entry(key).map(|entry| &entry.node)
    }

    pub(crate) fn entry(&self, key: &str) -> Option<&Entry> {
        match &self.value {
            Value::Table(entries) => entries.get(key),
            _ => None,
        }
    }

    /// The keys of a table in the order of the text; none if this is no table.
    pub(crate) fn entries(&self) -> &[Entry] {
        match &self.value {
            Value::Table(entries) => &entries.list,
            _ => &[],
        }
    }

    /// The elements of an array; none if this is no array.
    pub(crate) fn elements(&self) -> &[Self] {
        match &self.value {
            Value::Array(elements) => elements,
            _ => &[],
        }
    }

    /// The elements of an array, or the value itself as the only one.
    pub(crate) fn one_or_many(&self) -> &[Self] {
        match &self.value {
            Value::Array(elements) => elements,
            _ => std::slice::from_ref(self),
        }
    }

    pub(crate) fn text(&self) -> Option<&str> {
        match &self.value {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    pub(crate) fn integer(&self) -> Option<i64> {
        match self.value {
            Value::Integer(number) => Some(number),
            _ => None,
        }
    }

    pub(crate) fn boolean(&self) -> Option<bool> {
        match self.value {
            Value::Boolean(value) => Some(value),
            _ => None,
        }
    }

    /// The value's type with its article, for messages.
    pub(crate) fn type_name(&self) -> &'static str {
        match &self.value {
            Value::Text(_) => "a string",
            Value::Integer(_) => "an integer",
            Value::Number(_) => "a number that is no 64-bit integer",
            Value::Boolean(_) => "a boolean",
            Value::Other(name) => name,
            Value::Array(_) => "an array",
            Value::Table(_) => "a table",
        }
    }

    /// Follows keys and array indices to their end.
    pub(crate) fn find<S: AsRef<str>>(&self, path: &[S]) -> Option<&Self> {
        path.iter().try_fold(self, |node, step| match &node.value {
            Value::Array(elements) => elements.get(step.as_ref().parse::<usize>().ok()?),
            _ => node.get(step.as_ref()),
        })
    }

    /// Follows keys and array indices as far as they lead: the spans of the last key and value found.
    pub(crate) fn locate<S: AsRef<str>>(&self, path: &[S]) -> (Span, Span) {
        let mut node = self;
        let mut key_span = self.span.clone();
        for step in path {
            let step = step.as_ref();
            let next = match &node.value {
                Value::Table(_) => node.entry(step).map(|entry| (entry.key_span.clone(), &entry.node)),
                Value::Array(elements) => {
                    step.parse().ok().and_then(|i: usize| elements.get(i)).map(|n| (n.span.clone(), n))
                }
                _ => None,
            };
            let Some((span, next)) = next else { break };
            key_span = span;
            node = next;
        }
        (key_span, node.span.clone())
    }
}

/// A text that is not TOML: what and where.
pub(crate) struct SyntaxError {
    pub(crate) message: String,
    pub(crate) span: Span,
}

/// Reads TOML text, going on after errors.
pub(crate) fn from_toml(text: &str) -> (Node, Vec<SyntaxError>) {
    let (table, errors) = DeTable::parse_recoverable(text);
    let span = table.span();
    let node = Node { span, value: from_table(table.get_ref()) };
    let errors = errors
        .into_iter()
        .map(|e| SyntaxError { message: e.message().to_owned(), span: e.span().unwrap_or(0..0) })
        .collect();
    (node, errors)
}

fn from_table(table: &DeTable<'_>) -> Value {
    let mut entries: Vec<Entry> = table
        .iter()
        .map(|(key, node)| Entry {
            key: key.get_ref().to_string(),
            key_span: key.span(),
            node: from_value(node),
        })
        .collect();
    entries.sort_by_key(|entry| entry.key_span.start);
    Value::Table(Entries::new(entries))
}

fn from_value(value: &Spanned<DeValue<'_>>) -> Node {
    let parsed = match value.get_ref() {
        DeValue::String(text) => Value::Text(text.to_string()),
        DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix())
            .map_or_else(|_| Value::Number(number.to_string()), Value::Integer),
        DeValue::Float(number) => Value::Number(number.to_string()),
        DeValue::Boolean(value) => Value::Boolean(*value),
        DeValue::Datetime(_) => Value::Other("a date or time"),
        DeValue::Array(elements) => Value::Array(elements.iter().map(from_value).collect()),
        DeValue::Table(table) => from_table(table),
    };
    Node { span: value.span(), value: parsed }
}

/// Reads JSON text. The error names line and column itself.
pub(crate) fn from_json(text: &str) -> Result<Node, serde_json::Error> {
    serde_json::from_str(text)
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = deserializer.deserialize_any(JsonVisitor)?;
        Ok(Self { span: 0..0, value })
    }
}

struct JsonVisitor;

impl<'de> Visitor<'de> for JsonVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Boolean(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Integer(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(i64::try_from(value).map_or_else(|_| Value::Number(value.to_string()), Value::Integer))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Value::Number(value.to_string()))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::Text(value.to_owned()))
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Other("null"))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let mut elements = Vec::new();
        while let Some(element) = access.next_element()? {
            elements.push(element);
        }
        Ok(Value::Array(elements))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let mut entries: Vec<Entry> = Vec::new();
        let mut seen = std::collections::HashSet::new();
        while let Some((key, node)) = access.next_entry::<String, Node>()? {
            if !seen.insert(key.clone()) {
                return Err(A::Error::custom(format_args!("duplicate key `{key}`")));
            }
            entries.push(Entry { key, key_span: 0..0, node });
        }
        Ok(Value::Table(Entries::new(entries)))
    }
}
