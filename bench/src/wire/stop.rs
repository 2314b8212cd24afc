//! Ending early, in order: SIGINT and SIGTERM are noted, and whoever works looks.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use signal_hook::consts::{SIGINT, SIGTERM};

static REQUESTED: OnceLock<std::sync::Arc<AtomicBool>> = OnceLock::new();

/// From now on these signals are noted; a second one ends the process at once.
pub(crate) fn watch() -> Result<(), String> {
    let flag = REQUESTED.get_or_init(Default::default);
    for signal in [SIGINT, SIGTERM] {
        // In this order: the first signal only sets the flag.
        signal_hook::flag::register_conditional_shutdown(signal, 1, flag.clone())
            .and_then(|_| signal_hook::flag::register(signal, flag.clone()))
            .map_err(|error| format!("cannot watch for signals: {error}"))?;
    }
    Ok(())
}

/// Whether the user wants to stop.
pub(crate) fn requested() -> bool {
    REQUESTED.get().is_some_and(|flag| flag.load(Ordering::Relaxed))
}

/// An error if the user wants to stop.
pub(crate) fn check() -> Result<(), String> {
    if requested() { Err("interrupted".to_owned()) } else { Ok(()) }
}
