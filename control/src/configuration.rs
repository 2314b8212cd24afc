//! Where a configuration comes from, and loading it: the first two of the four steps (parse, validate, compile, publish).

use std::fmt;
use std::path::{Path, PathBuf};

use serde_json::Value;
use weir_config::{Config, Diagnostic, Identity};

use crate::engine::ApplyError;

/// Where the daemon reads its configuration, at start and at every reload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A TOML file.
    File(PathBuf),
    /// The environment variables `INTERFACES` and `ROUTES`: a plain router.
    Environment {
        /// The value of `INTERFACES`.
        interfaces: String,
        /// The value of `ROUTES`, empty if there is none.
        routes: String,
    },
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Environment { .. } => f.write_str("the environment (INTERFACES and ROUTES)"),
        }
    }
}

/// A configuration that passed every check.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The model.
    pub config: Config,
    /// What is accepted, but probably not meant.
    pub warnings: Vec<Diagnostic>,
    /// The configuration in the shape of the file: as it was written, or for the environment what it stands for.
    pub document: Value,
    /// Where it came from, for people.
    pub origin: String,
}

/// Why a configuration was refused.
#[derive(Clone, Debug)]
pub struct Refusal {
    /// A stable word for programs: `invalid_configuration`, `apply_failed`, ….
    pub code: &'static str,
    /// One line for people.
    pub message: String,
    /// Every error with its place; empty if the data plane or the file system refused.
    pub diagnostics: Vec<Diagnostic>,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl Refusal {
    fn invalid(origin: &str, diagnostics: Vec<Diagnostic>) -> Self {
        let errors = diagnostics.iter().filter(|d| d.severity == weir_config::Severity::Error).count();
        let plural = if errors == 1 { "error" } else { "errors" };
        Self { code: "invalid_configuration", message: format!("{origin}: {errors} {plural}"), diagnostics }
    }

    /// Devices that it names are not there.
    pub(crate) fn for_want_of_devices(problems: &[String]) -> Self {
        Self { code: "no_device", message: problems.join("; "), diagnostics: Vec::new() }
    }

    /// The data plane refused it. If one key of the file `origin` is to blame, the refusal points at it.
    pub fn by_the_engine(error: &ApplyError, origin: &str) -> Self {
        let text = (!error.at.is_empty()).then(|| std::fs::read_to_string(origin).ok()).flatten();
        let place = text.map(|text| weir_config::does_not_fit(origin, &text, &error.at, &error.text));
        Self { code: "apply_failed", message: error.to_string(), diagnostics: place.into_iter().collect() }
    }
}

/// Loads a configuration from its source, as the machine `identity` sees it.
///
/// # Errors
/// The file cannot be read, or the configuration is invalid.
pub fn load(source: &Source, identity: &Identity) -> Result<Loaded, Refusal> {
    match source {
        Source::File(path) => from_file(path, identity),
        Source::Environment { interfaces, routes } => {
            let origin = source.to_string();
            let config = weir_config::from_environment(interfaces, routes)
                .map_err(|diagnostics| Refusal::invalid(&origin, diagnostics.0))?;
            let document = weir_config::to_json(&config);
            Ok(Loaded { config, warnings: Vec::new(), document, origin })
        }
    }
}

/// Loads a TOML file, as the machine `identity` sees it.
///
/// # Errors
/// As [`load`].
pub fn from_file(path: &Path, identity: &Identity) -> Result<Loaded, Refusal> {
    let text = read(path)?;
    from_toml(&path.display().to_string(), &text, identity)
}

/// Loads a TOML file for every machine that it has a `[node]` section for.
///
/// # Errors
/// It cannot be read, or is invalid on one of them.
pub fn from_file_everywhere(path: &Path) -> Result<Loaded, Refusal> {
    let text = read(path)?;
    from_toml_everywhere(&path.display().to_string(), &text)
}

/// The text of a file.
///
/// # Errors
/// It cannot be read, or is not UTF-8.
pub(crate) fn read(path: &Path) -> Result<String, Refusal> {
    std::fs::read_to_string(path).map_err(|error| Refusal {
        code: "unreadable",
        message: match error.kind() {
            std::io::ErrorKind::InvalidData => format!("{}: not UTF-8 text", path.display()),
            _ => format!("{}: {error}", path.display()),
        },
        diagnostics: Vec::new(),
    })
}

/// Loads TOML text, as the machine `identity` sees it; `name` stands in front of every diagnostic.
///
/// # Errors
/// The configuration is invalid.
pub fn from_toml(name: &str, text: &str, identity: &Identity) -> Result<Loaded, Refusal> {
    finish_toml(name, text, weir_config::load_str_for(name, text, identity))
}

/// Loads TOML text for every machine that it has a `[node]` section for.
///
/// # Errors
/// The configuration is invalid on one of them.
pub fn from_toml_everywhere(name: &str, text: &str) -> Result<Loaded, Refusal> {
    finish_toml(name, text, weir_config::load_str_everywhere(name, text))
}

fn finish_toml(
    name: &str,
    text: &str,
    result: Result<weir_config::Loaded, weir_config::Diagnostics>,
) -> Result<Loaded, Refusal> {
    let loaded = result.map_err(|diagnostics| Refusal::invalid(name, diagnostics.0))?;
    let document = toml::from_str(text).ok();
    Ok(finish(name, loaded, document))
}

/// Loads JSON in the shape of the file, as the machine `identity` sees it.
///
/// # Errors
/// The configuration is invalid.
pub fn from_json(name: &str, text: &str, identity: &Identity) -> Result<Loaded, Refusal> {
    let loaded = weir_config::load_json_for(name, text, identity)
        .map_err(|diagnostics| Refusal::invalid(name, diagnostics.0))?;
    let document = serde_json::from_str(text).ok();
    Ok(finish(name, loaded, document))
}

fn finish(name: &str, loaded: weir_config::Loaded, document: Option<Value>) -> Loaded {
    let weir_config::Loaded { config, warnings } = loaded;
    // What the loader could read has a JSON form; if not, the model has.
    let document = document.unwrap_or_else(|| weir_config::to_json(&config));
    Loaded { config, warnings, document, origin: name.to_owned() }
}
