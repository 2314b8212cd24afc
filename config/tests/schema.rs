//! The JSON Schema accepts what the loader accepts, and refuses what has a wrong shape.
//!
//! A validator of the few keywords that the schema uses; patterns are beyond it.

#![allow(clippy::unwrap_used, clippy::panic)] // Helpers of tests, outside test functions.

use std::path::Path;

use serde_json::{Value, json};
use weir_config::{load, schema, to_json};

fn accepts(root: &Value, schema: &Value, value: &Value) -> bool {
    let Some(rules) = schema.as_object() else { return false };
    rules.iter().all(|(keyword, rule)| match keyword.as_str() {
        "$ref" => {
            let name = rule.as_str().unwrap().strip_prefix("#/$defs/").unwrap();
            accepts(root, &root["$defs"][name], value)
        }
        "type" => match rule.as_str().unwrap() {
            "object" => value.is_object(),
            "array" => value.is_array(),
            "string" => value.is_string(),
            "integer" => value.is_i64() || value.is_u64(),
            "boolean" => value.is_boolean(),
            other => panic!("type {other}"),
        },
        "const" => value == rule,
        "enum" => rule.as_array().unwrap().contains(value),
        "minimum" => value.as_i64().is_none_or(|number| number >= rule.as_i64().unwrap()),
        "maximum" => value.as_i64().is_none_or(|number| number <= rule.as_i64().unwrap()),
        "minItems" => value.as_array().is_none_or(|list| list.len() as u64 >= rule.as_u64().unwrap()),
        "maxItems" => value.as_array().is_none_or(|list| list.len() as u64 <= rule.as_u64().unwrap()),
        "items" => value.as_array().is_none_or(|list| list.iter().all(|item| accepts(root, rule, item))),
        "required" => {
            let keys = rule.as_array().unwrap().iter().map(|key| key.as_str().unwrap());
            value.as_object().is_none_or(|object| keys.into_iter().all(|key| object.contains_key(key)))
        }
        "properties" => value.as_object().is_none_or(|object| {
            object.iter().all(|(key, value)| rule.get(key).is_none_or(|schema| accepts(root, schema, value)))
        }),
        "additionalProperties" => value.as_object().is_none_or(|object| {
            let known = |key: &str| schema.get("properties").is_some_and(|p| p.get(key).is_some());
            object
                .iter()
                .filter(|(key, _)| !known(key))
                .all(|(_, value)| rule.as_bool().unwrap_or_else(|| accepts(root, rule, value)))
        }),
        "anyOf" => rule.as_array().unwrap().iter().any(|schema| accepts(root, schema, value)),
        "allOf" => rule.as_array().unwrap().iter().all(|schema| accepts(root, schema, value)),
        "not" => !accepts(root, rule, value),
        "pattern" | "propertyNames" | "description" | "title" | "default" | "$schema" | "$defs" => true,
        other => panic!("keyword {other}"),
    })
}

fn accepted(value: &Value) -> bool {
    let schema = schema();
    accepts(&schema, &schema, value)
}

#[test]
fn every_example_follows_the_json_schema() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap();
        let written = serde_json::to_value(toml::from_str::<toml::Value>(&text).unwrap()).unwrap();
        assert!(accepted(&written), "{} as written", path.display());
        assert!(accepted(&to_json(&load(&path).unwrap().config)), "{} with its defaults", path.display());
    }
}

#[test]
fn wrong_shapes_do_not_follow_the_json_schema() {
    assert!(accepted(&json!({})));
    for wrong in [
        json!({ "prot": {} }),
        json!({ "port": { "a": { "mtuu": 1500 } } }),
        json!({ "port": { "a": { "mtu": "1500" } } }),
        json!({ "port": { "a": { "mtu": 67 } } }),
        json!({ "port": { "a": { "vrf": "x", "bridge": "y" } } }),
        json!({ "memory": { "frame-size": 3000 } }),
        json!({ "tunnel": { "t": { "vxlan": { "local": "192.0.2.1", "vni": 1 } } } }),
        json!({ "tunnel": { "t": { "vxlan": { "local": "192.0.2.1", "remote": "192.0.2.2" } } } }),
        json!({ "service": { "s": {} } }),
        json!({ "service": { "s": { "firewall": { "rules": [{ "allow": "tcp", "deny": "tcp" }] } } } }),
        json!({ "cross-connect": { "x": { "ends": ["a"] } } }),
        json!({ "vrf": { "v": { "route": [{ "prefix": "10.0.0.0/8", "via": {} }] } } }),
        json!({ "vrf": { "v": { "route": [{ "prefix": "10.0.0.0/8", "via": { "blackhole": false } }] } } }),
    ] {
        assert!(!accepted(&wrong), "{wrong}");
    }
}
