//! Every TOML block of the feature pages is a whole configuration that loads without a warning.

use std::path::Path;

use weir_config::load_str_everywhere;

/// The TOML blocks of a page.
fn blocks(text: &str) -> Vec<&str> {
    text.split("```toml\n").skip(1).filter_map(|rest| rest.split("```").next()).collect()
}

#[test]
fn every_configuration_on_the_feature_pages_loads_without_a_warning() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs");
    for page in ["firewall.md", "policer.md", "bridging.md", "chains.md", "hops.md", "kubernetes.md"] {
        let text = std::fs::read_to_string(folder.join(page)).unwrap();
        let blocks = blocks(&text);
        assert!(!blocks.is_empty(), "{page}");
        for block in blocks {
            let loaded =
                load_str_everywhere(page, block).unwrap_or_else(|error| panic!("{page}: {error}\n{block}"));
            assert_eq!(loaded.warnings, [], "{page}");
        }
    }
}
