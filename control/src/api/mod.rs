//! The socket API: HTTP/1.1 (RFC 9112) with JSON (RFC 8259) over a unix socket.
//!
//! Reading asks the engine; changing goes through the [`Manager`], as a reload of the file does. `docs/api.md`
//! describes every path.

mod change;
mod error;
mod metrics;
mod probe;
mod read;
pub mod server;

use std::sync::Arc;

use axum::Router;
use axum::http::{Method, Uri};
use axum::routing::{get, post};

use crate::daemon::Manager;
use error::ApiError;

/// Entries of `flows`, `sessions` and `nat` unless `limit` says otherwise.
pub const DEFAULT_LIMIT: usize = 1000;
/// The largest body that is read, bytes.
pub const BODY_LIMIT: usize = 32 << 20;

/// Every path.
pub fn router(manager: Arc<Manager>) -> Router {
    Router::new()
        .route("/v1/version", get(read::version))
        .route("/v1/health", get(read::health))
        .route("/v1/config", get(read::config).put(change::config).post(change::config))
        .route("/v1/reload", post(change::reload))
        .route("/v1/drain", post(change::drain).delete(change::drain))
        .route("/v1/ports", get(read::ports))
        .route("/v1/workers", get(read::workers))
        .route("/v1/counters", get(read::counters))
        .route("/v1/routes", get(read::routes))
        .route("/v1/neighbours", get(read::neighbours))
        .route("/v1/tunnels", get(read::tunnels))
        .route("/v1/macs", get(read::macs))
        .route("/v1/flows", get(read::flows))
        .route("/v1/sessions", get(read::sessions))
        .route("/v1/nat", get(read::nat))
        .route("/v1/pipeline", get(read::pipeline))
        .route("/v1/chains", get(read::chains))
        .route("/v1/tables", get(read::tables))
        .route("/metrics", get(metrics::metrics))
        .fallback(unknown_path)
        .method_not_allowed_fallback(wrong_method)
        .with_state(manager)
}

/// What is answered where orchestrators probe: health and metrics, nothing that changes anything or tells of packets.
pub fn probes(manager: Arc<Manager>) -> Router {
    Router::new()
        .route("/startz", get(probe::started))
        .route("/livez", get(probe::live))
        .route("/readyz", get(probe::ready))
        .route("/metrics", get(metrics::metrics))
        .with_state(manager)
}

async fn unknown_path(uri: Uri) -> ApiError {
    ApiError::new(404, "not_found", format!("there is no {}; docs/api.md lists the paths", uri.path()))
}

async fn wrong_method(method: Method, uri: Uri) -> ApiError {
    ApiError::new(405, "method_not_allowed", format!("{} does not take {method}", uri.path()))
}
