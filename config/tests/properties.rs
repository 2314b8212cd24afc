//! Properties: no text makes the loader panic; what is rendered is read back; the schema accepts what is accepted.

#![allow(clippy::unwrap_used, clippy::panic)] // Helpers of tests, outside test functions.

use std::path::Path;

use proptest::prelude::*;
use weir_config::{
    Attachment, ClassifyScope, Config, Domain, NextHop, diff, from_environment, from_json, load_str, to_json,
};

fn example_texts() -> Vec<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut texts = Vec::new();
    for folder in ["examples", "tests/diagnostics"] {
        for entry in std::fs::read_dir(root.join(folder)).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|extension| extension == "toml") {
                texts.push(std::fs::read_to_string(path).unwrap());
            }
        }
    }
    texts.sort();
    texts
}

/// Everything that an accepted configuration refers to is there; written without the loader's own tables.
fn assert_refers_to_nothing_missing(config: &Config) {
    let mut interfaces: Vec<(String, &Attachment)> = Vec::new();
    for (name, port) in &config.ports {
        interfaces.push((name.clone(), &port.attachment));
        interfaces.extend(port.vlans.iter().map(|(vid, attachment)| (format!("{name}.{vid}"), attachment)));
    }
    interfaces.extend(config.tunnels.iter().map(|(name, tunnel)| (name.clone(), &tunnel.attachment)));
    let interface = |name: &str| interfaces.iter().find(|(known, _)| known == name).map(|(_, a)| *a).unwrap();
    for (name, attachment) in &interfaces {
        match &attachment.domain {
            Domain::Vrf(vrf) => assert!(config.vrfs.contains_key(vrf)),
            Domain::Bridge(bridge) => {
                assert!(config.bridges.contains_key(bridge) && attachment.addresses.is_empty())
            }
            Domain::CrossConnect(cross) => assert!(config.cross_connects[cross].ends.contains(name)),
            Domain::Hop(hop) => {
                let of_vlan = |end: &String| end.starts_with(&format!("{name}."));
                assert!(config.hops[hop].attach.iter().any(|end| end == name || of_vlan(end)));
            }
        }
    }
    for (name, cross) in &config.cross_connects {
        for end in &cross.ends {
            assert_eq!(interface(end).domain, Domain::CrossConnect(name.clone()));
        }
    }
    for (vrf, table) in &config.vrfs {
        for (route, hop) in
            table.routes.iter().flat_map(|route| route.via.iter().map(move |hop| (route, hop)))
        {
            assert_eq!(route.prefix, route.prefix.trunc());
            match hop {
                NextHop::Gateway { ip, interface: name } => {
                    assert_eq!(ip.is_ipv4(), route.prefix.addr().is_ipv4());
                    assert!(name.iter().all(|name| interface(name).domain == Domain::Vrf(vrf.clone())));
                }
                NextHop::Interface(name) | NextHop::Tunnel(name) => {
                    assert_eq!(interface(name).domain, Domain::Vrf(vrf.clone()));
                }
                NextHop::Blackhole => {}
            }
        }
    }
    for tunnel in config.tunnels.values() {
        assert!(config.vrfs.contains_key(&tunnel.underlay_vrf));
        assert!(!tunnel.remotes.is_empty() && tunnel.vni < 1 << 24);
        assert!(tunnel.remotes.iter().all(|remote| remote.is_ipv4() == tunnel.local.is_ipv4()));
    }
    assert!(config.neighbours.iter().all(|n| matches!(interface(&n.interface).domain, Domain::Vrf(_))));
    for hop in config.chains.values().flat_map(|chain| &chain.hops) {
        assert!(config.services.contains_key(hop) != config.hops.contains_key(hop));
    }
    for (name, hop) in &config.hops {
        assert!((1..=2).contains(&hop.attach.len()));
        assert!(hop.attach.iter().all(|end| interface(end).domain == Domain::Hop(name.clone())));
        let chains = config.chains.iter().filter(|(_, chain)| chain.hops.contains(name));
        for (chain, _) in chains.clone() {
            let rules = config.classify.iter().filter(|rule| rule.chain.as_ref() == Some(chain));
            let domains: std::collections::BTreeSet<_> =
                rules.flat_map(|rule| config.domains_of(rule)).map(|domain| format!("{domain:?}")).collect();
            assert!(domains.len() <= 1);
        }
        assert!(chains.count() <= 1);
    }
    for rule in &config.classify {
        assert!(rule.chain.iter().all(|chain| config.chains.contains_key(chain)));
        for scope in &rule.from {
            match scope {
                ClassifyScope::Interface(name) => assert!(interfaces.iter().any(|(known, _)| known == name)),
                ClassifyScope::Vrf(name) => assert!(config.vrfs.contains_key(name)),
                ClassifyScope::Bridge(name) => assert!(config.bridges.contains_key(name)),
            }
        }
    }
}

/// Whatever comes out can be printed, as text and as JSON.
fn load_and_print(text: &str) {
    match load_str("fuzz.toml", text) {
        Ok(loaded) => {
            let again = from_json(&to_json(&loaded.config).to_string());
            assert_eq!(again.as_ref(), Ok(&loaded.config), "{text}");
            assert_refers_to_nothing_missing(&loaded.config);
        }
        Err(diagnostics) => {
            assert!(diagnostics.errors() > 0);
            assert!(!diagnostics.to_string().is_empty());
            serde_json::to_string(&diagnostics).unwrap();
        }
    }
}

#[test]
fn examples_are_rendered_and_read_back_as_equal() {
    let mut valid = 0;
    for text in example_texts() {
        if let Ok(loaded) = load_str("example.toml", &text) {
            let json = to_json(&loaded.config);
            let again = from_json(&json.to_string()).unwrap_or_else(|error| panic!("{error}"));
            assert_eq!(again, loaded.config);
            assert_eq!(diff(&again, &loaded.config), []);
            valid += 1;
        }
    }
    assert!(valid >= 4);
}

/// A line of an example, replaced by another one or by something odd.
fn mutated() -> impl Strategy<Value = String> {
    let texts = example_texts();
    let lines: Vec<String> = texts.iter().flat_map(|text| text.lines().map(str::to_owned)).collect();
    let edit = (any::<prop::sample::Index>(), any::<prop::sample::Index>(), 0..5u8, "\\PC{0,8}");
    (prop::sample::select(texts), prop::collection::vec(edit, 1..4)).prop_map(move |(text, edits)| {
        let mut text: Vec<String> = text.lines().map(str::to_owned).collect();
        for (at, from, how, odd) in edits {
            if text.is_empty() {
                break;
            }
            let at = at.index(text.len());
            match how {
                0 => drop(text.remove(at)),
                1 => text[at] = from.get(&lines).clone(),
                2 => text.insert(at, from.get(&lines).clone()),
                3 => text[at] = text[at].replace('"', ""),
                _ => {
                    let position = from.index(text[at].chars().count() + 1);
                    let (head, tail): (Vec<_>, Vec<_>) =
                        text[at].chars().enumerate().partition(|(i, _)| *i < position);
                    let part =
                        |chars: Vec<(usize, char)>| chars.into_iter().map(|(_, c)| c).collect::<String>();
                    text[at] = format!("{}{odd}{}", part(head), part(tail));
                }
            }
        }
        text.join("\n")
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn arbitrary_text_never_panics(text in "\\PC{0,200}") {
        load_and_print(&text);
        let _ = from_json(&text);
    }

    #[test]
    fn arbitrary_bytes_as_text_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        load_and_print(&String::from_utf8_lossy(&bytes));
    }

    #[test]
    fn a_mutated_configuration_never_panics(text in mutated()) {
        load_and_print(&text);
    }

    #[test]
    fn the_environment_never_panics(interfaces in "[a-z0-9,. ]{0,20}", routes in "[a-z0-9,.:/ ]{0,60}") {
        let _ = from_environment(&interfaces, &routes).map_err(|error| error.to_string());
    }

    #[test]
    fn the_differences_with_itself_are_none(text in mutated()) {
        if let Ok(loaded) = load_str("fuzz.toml", &text) {
            prop_assert_eq!(diff(&loaded.config, &loaded.config), []);
        }
    }
}
