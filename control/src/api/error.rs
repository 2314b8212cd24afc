//! Errors as JSON: `{"error": {"code", "message", "diagnostics"}}`.

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use weir_config::Diagnostic;

use crate::configuration::Refusal;
use crate::daemon::Told;

/// An error with its status.
#[derive(Debug)]
pub(crate) struct ApiError {
    status: StatusCode,
    body: Body,
}

#[derive(Debug, Serialize)]
struct Body {
    code: &'static str,
    message: String,
    diagnostics: Vec<Told<Diagnostic>>,
}

#[derive(Serialize)]
struct Envelope {
    error: Body,
}

impl ApiError {
    pub(crate) fn new(status: u16, code: &'static str, message: impl Into<String>) -> Self {
        Self {
            status: StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR),
            body: Body { code, message: message.into(), diagnostics: Vec::new() },
        }
    }
}

impl From<Refusal> for ApiError {
    fn from(refusal: Refusal) -> Self {
        let status = match refusal.code {
            "invalid_configuration" => StatusCode::UNPROCESSABLE_ENTITY,
            "stopping" | "draining" => StatusCode::SERVICE_UNAVAILABLE,
            _ => StatusCode::CONFLICT,
        };
        let diagnostics = refusal.diagnostics.into_iter().map(Told::from).collect();
        let message = match refusal.code {
            "invalid_configuration" => refusal.message + "; nothing was changed",
            _ => refusal.message,
        };
        let body = Body { code: refusal.code, message, diagnostics };
        Self { status, body }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        (self.status, Json(Envelope { error: self.body })).into_response()
    }
}
