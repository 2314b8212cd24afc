//! Which node a configuration is for: `--node`, `--node-label`, and what Kubernetes puts into the environment or a file.

use std::collections::BTreeMap;
use std::path::PathBuf;

use clap::Args;
use weir_config::Identity;

/// Which node this is.
#[derive(Clone, Debug, Default, Args)]
pub(super) struct NodeArguments {
    /// The node whose `[node."NAME"]` section of the file applies; else the environment's WEIR_NODE
    #[arg(long, value_name = "NAME")]
    node: Option<String>,
    /// A label whose `[node."KEY=VALUE"]` section applies; may be given several times, besides those in WEIR_NODE_LABELS
    #[arg(long, value_name = "KEY=VALUE")]
    node_label: Vec<String>,
    /// A file of labels, a line `KEY="VALUE"` each, as Kubernetes' downward API writes `metadata.labels`
    #[arg(long, value_name = "FILE")]
    node_labels_file: Option<PathBuf>,
}

impl NodeArguments {
    /// The identity that the arguments and the environment give.
    pub(super) fn identity(&self) -> Result<Identity, String> {
        let variable = |name| std::env::var(name).ok().filter(|text: &String| !text.trim().is_empty());
        let file = match &self.node_labels_file {
            Some(path) => {
                std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?
            }
            None => String::new(),
        };
        self.with(variable("WEIR_NODE"), &variable("WEIR_NODE_LABELS").unwrap_or_default(), &file)
    }

    fn with(&self, name: Option<String>, variable: &str, file: &str) -> Result<Identity, String> {
        let given = self.node_label.iter().map(String::as_str);
        let words = file.lines().chain(variable.split(',')).chain(given).map(str::trim);
        let mut labels = BTreeMap::new();
        for word in words.filter(|word| !word.is_empty()) {
            let (key, value) =
                word.split_once('=').ok_or_else(|| format!("`{word}` is not a label: write KEY=VALUE"))?;
            let quoted = value.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
            labels.insert(key.to_owned(), quoted.unwrap_or(value).to_owned());
        }
        Ok(Identity { name: self.node.clone().or(name), labels })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_come_from_a_file_the_environment_and_the_command_line() {
        let arguments =
            NodeArguments { node: None, node_label: vec!["rack=west".to_owned()], node_labels_file: None };
        let file = "app=\"weir\"\nrack=\"east\"\n";
        let identity = arguments.with(Some("worker-1".to_owned()), "zone=a, role=router", file).unwrap();
        assert_eq!(identity.name.as_deref(), Some("worker-1"));
        let labels: Vec<String> =
            identity.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
        assert_eq!(labels, ["app=weir", "rack=west", "role=router", "zone=a"]);
        assert!(arguments.with(None, "rack", "").unwrap_err().contains("`rack` is not a label"));
        let named = NodeArguments { node: Some("a".to_owned()), ..arguments };
        assert_eq!(named.with(Some("b".to_owned()), "", "").unwrap().name.as_deref(), Some("a"));
    }
}
