//! The other end of the socket API, for the command line.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::header::{CONTENT_TYPE, HOST};
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::UnixStream;
use tokio::time::timeout;

/// How long a change may take: putting a configuration in force waits for devices.
const CHANGE_TIME: Duration = Duration::from_secs(60);
/// How long an answer may take that only tells something.
const READ_TIME: Duration = Duration::from_secs(10);

/// Why there is no answer to show.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody answers on the socket.
    #[error("cannot reach weir at {path}: {error}{}", advice(error))]
    Unreachable {
        /// The socket's path.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// The connection broke, or what came back is not what weir says.
    #[error("no answer from weir at {path}: {reason}")]
    Broken {
        /// The socket's path.
        path: PathBuf,
        /// What happened.
        reason: String,
    },
    /// weir answered with an error.
    #[error("{message}")]
    Refused {
        /// One line for people.
        message: String,
        /// The diagnostics in the form for people.
        diagnostics: Vec<String>,
        /// The whole body, as it came.
        body: Value,
    },
}

/// What to do about a socket that cannot be opened.
fn advice(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => " (is it running?)",
        io::ErrorKind::PermissionDenied => " (be root, or of the group that owns the socket)",
        _ => "",
    }
}

/// A request's body and its content type.
pub struct Payload {
    /// `application/toml` or `application/json`.
    pub content_type: &'static str,
    /// The text.
    pub text: String,
}

/// Sends one request and reads the JSON that comes back.
///
/// # Errors
/// See [`ClientError`].
pub fn request(
    socket: &Path,
    method: Method,
    path: &str,
    payload: Option<Payload>,
) -> Result<Value, ClientError> {
    let broken = |reason: String| ClientError::Broken { path: socket.to_owned(), reason };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| broken(error.to_string()))?;
    let limit = if method == Method::GET { READ_TIME } else { CHANGE_TIME };
    let (status, bytes) = runtime
        .block_on(async { timeout(limit, exchange(socket, method, path, payload)).await })
        .map_err(|_| broken(format!("nothing within {} s", limit.as_secs())))??;
    let body: Value = serde_json::from_slice(&bytes).map_err(|error| broken(error.to_string()))?;
    if status.is_success() { Ok(body) } else { Err(refused(body)) }
}

fn refused(body: Value) -> ClientError {
    let text = |value: &Value| value.as_str().unwrap_or("no reason given").to_owned();
    let message = text(&body["error"]["message"]);
    let diagnostics = body["error"]["diagnostics"].as_array();
    let diagnostics =
        diagnostics.map(|all| all.iter().map(|d| text(&d["text"])).collect()).unwrap_or_default();
    ClientError::Refused { message, diagnostics, body }
}

async fn exchange(
    socket: &Path,
    method: Method,
    path: &str,
    payload: Option<Payload>,
) -> Result<(hyper::StatusCode, Bytes), ClientError> {
    let broken = |error: &dyn std::fmt::Display| ClientError::Broken {
        path: socket.to_owned(),
        reason: error.to_string(),
    };
    let stream = UnixStream::connect(socket)
        .await
        .map_err(|error| ClientError::Unreachable { path: socket.to_owned(), error })?;
    let (mut sender, connection) =
        http1::handshake(TokioIo::new(stream)).await.map_err(|error| broken(&error))?;
    // Its errors come out of the request below as well.
    tokio::spawn(connection);
    let mut request = Request::builder().method(method).uri(path).header(HOST, "weir");
    let mut body = Bytes::new();
    if let Some(payload) = payload {
        request = request.header(CONTENT_TYPE, payload.content_type);
        body = payload.text.into();
    }
    let request = request.body(Full::new(body)).map_err(|error| broken(&error))?;
    let response = sender.send_request(request).await.map_err(|error| broken(&error))?;
    let status = response.status();
    let bytes = response.into_body().collect().await.map_err(|error| broken(&error))?.to_bytes();
    Ok((status, bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_may_not_open_the_socket_is_not_asked_whether_weir_runs() {
        let told = |kind: io::ErrorKind| {
            ClientError::Unreachable { path: "/run/s".into(), error: kind.into() }.to_string()
        };
        assert!(told(io::ErrorKind::NotFound).ends_with("(is it running?)"));
        assert!(told(io::ErrorKind::PermissionDenied).ends_with("of the group that owns the socket)"));
    }
}
