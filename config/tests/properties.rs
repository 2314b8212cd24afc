//! Properties: no text makes the loader panic; what is rendered is read back; the schema accepts what is accepted.

use std::path::Path;

use proptest::prelude::*;
use weir_config::{diff, from_environment, from_json, load_str, to_json};

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

/// Whatever comes out can be printed, as text and as JSON.
fn load_and_print(text: &str) {
    match load_str("fuzz.toml", text) {
        Ok(loaded) => {
            let again = from_json(&to_json(&loaded.config).to_string());
            assert_eq!(again.as_ref(), Ok(&loaded.config), "{text}");
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
    #![proptest_config(ProptestConfig::with_cases(512))]

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
