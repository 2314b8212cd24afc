//! The JSON Schema (draft 2020-12) of the file.

use serde_json::{Map, Value, json};

use super::{Form, Key, Kind, Names, Need, ROOT, Ref, Rule, Table, tables};

/// The JSON Schema of the file: exactly the keys that are accepted, with types, defaults and meanings.
///
/// What needs more than one key to judge (that a name exists, that an MTU fits a frame) is beyond it.
pub fn schema() -> Value {
    let definitions: Map<String, Value> =
        tables().into_iter().skip(1).map(|inner| (definition_name(inner), table(inner))).collect();
    let mut root = table(&ROOT);
    if let Some(object) = root.as_object_mut() {
        object.insert("$schema".to_owned(), json!("https://json-schema.org/draft/2020-12/schema"));
        object.insert("title".to_owned(), json!("weir configuration"));
        object.insert("$defs".to_owned(), Value::Object(definitions));
    }
    root
}

/// `[port.<name>.vlan.<id>]` → `port.name.vlan.id`.
fn definition_name(table: &Table) -> String {
    let words = |c: char| !(c.is_ascii_alphanumeric() || c == '-' || c == '.');
    let parts: Vec<&str> = table.title.split(words).filter(|part| !part.is_empty()).collect();
    parts.join("").replace("..", ".")
}

fn reference(table: &Table) -> Value {
    json!({ "$ref": format!("#/$defs/{}", definition_name(table)) })
}

fn table(table: &Table) -> Value {
    let properties: Map<String, Value> = table.keys.iter().map(|k| (k.name.to_owned(), key(k))).collect();
    let mut schema = json!({
        "type": "object",
        "description": table.doc,
        "properties": properties,
        "additionalProperties": false,
    });
    let grouped =
        |name: &str| table.rules.iter().any(|r| matches!(r, Rule::AtLeastOne(keys) if keys.contains(&name)));
    let required: Vec<&str> = table
        .keys
        .iter()
        .filter(|key| matches!(key.need, Need::Required) && !grouped(key.name))
        .map(|key| key.name)
        .collect();
    let all: Vec<Value> = table.rules.iter().flat_map(rule).collect();
    if let Some(object) = schema.as_object_mut() {
        if !required.is_empty() {
            object.insert("required".to_owned(), json!(required));
        }
        if !all.is_empty() {
            object.insert("allOf".to_owned(), json!(all));
        }
    }
    schema
}

fn rule(rule: &Rule) -> Vec<Value> {
    match rule {
        Rule::AtLeastOne(keys) => {
            let any: Vec<_> = keys.iter().map(|key| json!({ "required": [key] })).collect();
            vec![json!({ "anyOf": any })]
        }
        Rule::AtMostOne(keys) => {
            let pairs =
                keys.iter().enumerate().flat_map(|(i, a)| keys.iter().skip(i + 1).map(move |b| (a, b)));
            pairs.map(|(a, b)| json!({ "not": { "required": [a, b] } })).collect()
        }
    }
}

fn key(key: &Key) -> Value {
    let mut schema = kind(&key.kind);
    if let Some(object) = schema.as_object_mut() {
        object.insert("description".to_owned(), json!(key.doc));
        if let Need::Default(default) = key.need {
            // Defaults are written as in TOML; those of scalars and empty lists are JSON as well.
            if let Ok(value) = serde_json::from_str::<Value>(default) {
                object.insert("default".to_owned(), value);
            }
        }
    }
    schema
}

fn kind(kind: &Kind) -> Value {
    match kind {
        Kind::Boolean => json!({ "type": "boolean" }),
        Kind::True => json!({ "const": true }),
        Kind::Integer { min, max: i64::MAX } => json!({ "type": "integer", "minimum": min }),
        Kind::Integer { min, max } => json!({ "type": "integer", "minimum": min, "maximum": max }),
        Kind::Choice(numbers) => json!({ "enum": numbers }),
        Kind::Word(words) => json!({ "enum": words }),
        Kind::Text(form) => text(*form),
        Kind::Ref(to) => json!({ "type": "string", "title": to.describe(), "pattern": ref_pattern(*to) }),
        Kind::Either(kinds) => json!({ "anyOf": kinds.iter().map(self::kind).collect::<Vec<_>>() }),
        Kind::List { of, min, max } => {
            let mut schema = json!({ "type": "array", "items": self::kind(of) });
            if let Some(object) = schema.as_object_mut() {
                if *min > 0 {
                    object.insert("minItems".to_owned(), json!(min));
                }
                if *max != usize::MAX {
                    object.insert("maxItems".to_owned(), json!(max));
                }
            }
            schema
        }
        Kind::OneOrMany(of) => {
            json!({ "anyOf": [self::kind(of), { "type": "array", "items": self::kind(of), "minItems": 1 }] })
        }
        Kind::Table(table) => reference(table),
        Kind::Named(names, table) => json!({
            "type": "object",
            "propertyNames": names_schema(*names),
            "additionalProperties": reference(table),
        }),
        Kind::Records(table) => json!({ "type": "array", "items": reference(table) }),
    }
}

fn names_schema(names: Names) -> Value {
    match names {
        Names::Except([]) => json!({ "pattern": "^[A-Za-z0-9_-]{1,63}$" }),
        Names::Except(reserved) => json!({ "pattern": "^[A-Za-z0-9_-]{1,63}$", "not": { "enum": reserved } }),
        Names::VlanId => json!({ "pattern": "^[1-9][0-9]{0,3}$" }),
        Names::Node => {
            json!({ "pattern": "^([A-Za-z0-9._-]{1,253}|[A-Za-z0-9._/-]{1,317}=[A-Za-z0-9._-]{0,63})$" })
        }
    }
}

fn text(form: Form) -> Value {
    let pattern = match form {
        Form::Ip => "^[0-9A-Fa-f:.]+$",
        Form::Ipv4 => "^[0-9]{1,3}(\\.[0-9]{1,3}){3}$",
        Form::Pool => "^(masquerade|none|[0-9.]+(/[0-9]{1,2}| ?- ?[0-9.]+)?)$",
        Form::Address | Form::Prefix => "^[0-9A-Fa-f:.]+/[0-9]{1,3}$",
        Form::Mac => "^[0-9A-Fa-f]{2}(:[0-9A-Fa-f]{2}){5}$",
        Form::Device => {
            "^([^/: ]{1,15}|pci:[0-9A-Fa-f]{4}:[0-9A-Fa-f]{2}:[0-9A-Fa-f]{2}\\.[0-7]|env:[A-Za-z_][A-Za-z0-9_]*(\\[[0-9]{1,4}\\])?|vdev:net_[A-Za-z0-9_]+(,[!-~]*)?)$"
        }
        Form::Uuid => "^[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}$",
        Form::Duration => "^[0-9]+(\\.[0-9]+)? ?(ms|s|m|min|h|d)$",
        Form::Rate => "^[0-9]+(\\.[0-9]+)? ?[kKMG]?(bit/s|bps|bit|pps|p/s)$",
        Form::Burst => "^[0-9]+(\\.[0-9]+)? ?(B|kB|KB|MB|GB|KiB|MiB|GiB|packets?)$",
        Form::PortRange => "^[0-9]{1,5}( ?- ?[0-9]{1,5})?$",
        Form::Protocol => "^(any|icmp|tcp|udp|gre|esp|icmp6|sctp)$",
        Form::Dscp => "^(cs[0-7]|le|af[1-4][1-3]|va|ef)$",
        Form::TcpFlags => "^!?[a-z]{3}( ?, ?!?[a-z]{3})*$",
    };
    json!({ "type": "string", "title": form.describe(), "pattern": pattern })
}

fn ref_pattern(to: Ref) -> &'static str {
    match to {
        Ref::Vrf | Ref::Bridge | Ref::Tunnel | Ref::Hop | Ref::Chain => "^[A-Za-z0-9_-]{1,63}$",
        Ref::Interface | Ref::Attachment => "^[A-Za-z0-9_-]{1,63}(\\.[1-9][0-9]{0,3})?$",
        Ref::Scope => "^(port|tunnel|vrf|bridge)\\.[A-Za-z0-9_-]{1,63}(\\.[1-9][0-9]{0,3})?$",
    }
}
