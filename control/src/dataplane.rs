//! The data plane behind [`Engine`].

use std::sync::Arc;

use crate::engine::{Engine, StartError};

/// Starts.
///
/// # Errors
/// As it says.
pub fn start() -> Result<Arc<dyn Engine>, StartError> {
    Err(StartError("not wired".to_owned()))
}
