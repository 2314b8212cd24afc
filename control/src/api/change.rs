//! What changes the running configuration: a new one in the body, or a reload of the source.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::QueryRejection;
use axum::extract::{FromRequest, Query, Request, State};
use axum::http::Method;
use axum::http::header::CONTENT_TYPE;
use serde::Deserialize;
use tokio::time::timeout;
use tracing::{info, warn};

use super::error::ApiError;
use crate::configuration::{self, Refusal};
use crate::daemon::{Health, Manager, Outcome, blocking};

/// How long a client may take to send a body.
const BODY_TIME: Duration = Duration::from_secs(10);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ChangeQuery {
    #[serde(default, rename = "dry-run")]
    dry_run: bool,
    /// What diagnostics call the body.
    name: Option<String>,
}

/// The languages a body may be in.
#[derive(Clone, Copy)]
enum Language {
    Json,
    Toml,
}

/// `PUT /v1/config`: the body is the whole new configuration.
pub(crate) async fn config(
    State(manager): State<Arc<Manager>>,
    query: Result<Query<ChangeQuery>, QueryRejection>,
    request: Request,
) -> Result<Json<Outcome>, ApiError> {
    let Query(query) = query.map_err(|error| ApiError::new(400, "bad_query", error.body_text()))?;
    let language = language(&request)?;
    let text = read_text(request).await?;
    let name = query.name.unwrap_or_else(|| "request".to_owned());
    let origin = name.clone();
    let identity = manager.identity().clone();
    let result = manager.change(query.dry_run, move || match language {
        Language::Json => configuration::from_json(&name, &text, &identity),
        Language::Toml => configuration::from_toml(&name, &text, &identity),
    });
    tell(&format!("configuration from the socket ({origin})"), query.dry_run, result.await)
}

/// `POST /v1/reload`.
pub(crate) async fn reload(State(manager): State<Arc<Manager>>) -> Result<Json<Outcome>, ApiError> {
    let what = format!("reload of {}", manager.source());
    tell(&what, false, manager.reload().await)
}

/// `POST /v1/drain`: out of service; `DELETE /v1/drain`: back into it. Answers with the health.
pub(crate) async fn drain(State(manager): State<Arc<Manager>>, method: Method) -> Json<Health> {
    Json(
        blocking(move || {
            manager.drain(method == Method::POST);
            manager.health()
        })
        .await,
    )
}

fn tell(what: &str, dry_run: bool, result: Result<Outcome, Refusal>) -> Result<Json<Outcome>, ApiError> {
    match result {
        Ok(outcome) => {
            if !dry_run {
                info!(generation = outcome.generation, changes = outcome.changes.len(), "{what}: applied");
            }
            Ok(Json(outcome))
        }
        Err(refusal) => {
            warn!("{what}: refused: {refusal}");
            Err(refusal.into())
        }
    }
}

fn language(request: &Request) -> Result<Language, ApiError> {
    let Some(value) = request.headers().get(CONTENT_TYPE) else { return Ok(Language::Json) };
    let text = value.to_str().unwrap_or_default();
    match text.split(';').next().unwrap_or_default().trim().to_ascii_lowercase().as_str() {
        "application/json" => Ok(Language::Json),
        "application/toml" => Ok(Language::Toml),
        _ => Err(ApiError::new(
            415,
            "unsupported_media_type",
            "a configuration is application/json or application/toml",
        )),
    }
}

async fn read_text(request: Request) -> Result<String, ApiError> {
    let bytes = timeout(BODY_TIME, Bytes::from_request(request, &()))
        .await
        .map_err(|_| ApiError::new(408, "timeout", "the body took too long to arrive"))?
        .map_err(|rejection| match rejection.status().as_u16() {
            413 => {
                let limit = super::BODY_LIMIT >> 20;
                ApiError::new(413, "body_too_large", format!("a configuration is at most {limit} MiB"))
            }
            status => ApiError::new(status, "bad_body", rejection.body_text()),
        })?;
    String::from_utf8(bytes.into()).map_err(|_| ApiError::new(400, "bad_body", "the body is not UTF-8"))
}
