//! JSON of the file's shape goes through the same checks; places are JSON pointers.

#![allow(clippy::unwrap_used, clippy::panic)] // Helpers of tests, outside test functions.

use weir_config::{from_json, load_json, load_str};

fn errors(text: &str) -> Vec<String> {
    from_json(text).unwrap_err().iter().map(ToString::to_string).collect()
}

#[test]
fn json_and_toml_of_one_shape_are_one_configuration() {
    let json = r#"{ "port": { "a": { "mode": "dedicated", "addresses": ["10.1.0.1/24"], "vlan": { "100": {} } } },
                    "vrf": { "default": { "route": [{ "prefix": "0.0.0.0/0", "via": { "ip": "10.1.0.2" } }] } } }"#;
    let toml = r#"
        [port.a]
        mode = "dedicated"
        addresses = ["10.1.0.1/24"]
        [port.a.vlan.100]
        [[vrf.default.route]]
        prefix = "0.0.0.0/0"
        via = { ip = "10.1.0.2" }
    "#;
    assert_eq!(from_json(json).unwrap(), load_str("a.toml", toml).unwrap().config);
}

#[test]
fn every_error_names_its_json_pointer() {
    let text =
        r#"{ "port": { "a": { "mtuu": 1500, "mac": null } }, "chain": { "c": { "hops": ["nobody"] } } }"#;
    assert_eq!(
        errors(text),
        [
            "json:/port/a/mtuu: error[unknown-key]: there is no key `mtuu` in [port.<name>]\n     = hint: did you mean `mtu`?",
            "json:/port/a/mac: error[wrong-type]: this is null, but it takes a MAC address such as \"02:00:00:00:01:09\"",
            "json:/chain/c/hops/0: error[unknown-reference]: there is no service or hop `nobody`",
        ]
    );
}

#[test]
fn a_conflict_names_both_pointers() {
    let text = r#"{ "port": { "a": { "device": "eth1" }, "b": { "device": "eth1" } } }"#;
    let found = from_json(text).unwrap_err();
    assert_eq!(found.0.len(), 1);
    assert_eq!(found.0[0].pointer, "/port/b/device");
    assert_eq!(found.0[0].related[0].pointer, "/port/a/device");
}

#[test]
fn text_that_is_not_json_is_refused_with_its_line() {
    assert_eq!(errors("{ \"port\": }"), ["json: error[syntax]: expected value at line 1 column 11"]);
    assert_eq!(errors("{\"a\":1,\"a\":2}"), ["json: error[syntax]: duplicate key `a` at line 1 column 13"]);
    assert!(errors("[1]")[0].starts_with("json: error[wrong-type]"));
    assert!(errors(&"[".repeat(10_000))[0].contains("recursion limit"));
}

#[test]
fn warnings_come_with_the_name_that_was_given() {
    let loaded = load_json("socket", r#"{ "service": { "spare": { "firewall": {} } } }"#).unwrap();
    let text = loaded.warnings[0].to_string();
    assert_eq!(text, "socket:/service/spare: warning[unused]: service `spare` is in no chain");
}
