//! Serves a router on the unix socket or on a TCP address for probes: a task a connection, one request a connection, and a time limit on each part, so
//! that a slow client costs a task and nothing else.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};
use tracing::{debug, warn};

use super::BODY_LIMIT;

/// Connections served at a time; one more is told so and closed.
const CONNECTIONS: usize = 256;
/// How long a client may take to send a request's head.
const HEAD_TIME: Duration = Duration::from_secs(5);
/// How long a connection lives at most.
const CONNECTION_TIME: Duration = Duration::from_secs(60);
/// Pause after accept(2) failed, for lack of descriptors as a rule.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The answer to one connection too many.
fn busy() -> String {
    let body = r#"{"error":{"code":"busy","message":"too many connections at a time","diagnostics":[]}}"#;
    let length = body.len();
    format!(
        "HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\nconnection: close\r\n\
         content-length: {length}\r\n\r\n{body}"
    )
}

/// What connections come from.
pub trait Accept: Send + 'static {
    /// A connection.
    type Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static;

    /// Waits for the next connection.
    fn next(&self) -> impl Future<Output = io::Result<Self::Stream>> + Send;
}

impl Accept for UnixListener {
    type Stream = UnixStream;

    async fn next(&self) -> io::Result<UnixStream> {
        Ok(self.accept().await?.0)
    }
}

impl Accept for TcpListener {
    type Stream = TcpStream;

    async fn next(&self) -> io::Result<TcpStream> {
        Ok(self.accept().await?.0)
    }
}

/// Accepts connections for ever; ends when its future is dropped.
pub async fn serve(listener: impl Accept, router: Router) -> Infallible {
    let router = router.layer(DefaultBodyLimit::max(BODY_LIMIT));
    let slots = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let stream = match listener.next().await {
            Ok(stream) => stream,
            Err(error) => {
                warn!("a connection could not be accepted: {error}");
                sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        match slots.clone().try_acquire_owned() {
            Ok(slot) => {
                let router = router.clone();
                tokio::spawn(async move {
                    serve_one(stream, router).await;
                    drop(slot);
                });
            }
            Err(_) => refuse(stream),
        }
    }
}

async fn serve_one(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, router: Router) {
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIME)
        .keep_alive(false)
        // A client may close its side when it has said all.
        .half_close(true)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    match timeout(CONNECTION_TIME, connection).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => debug!("a connection ended early: {error}"),
        Err(_) => debug!("a connection took longer than {CONNECTION_TIME:?} and was closed"),
    }
}

/// Says that there is no room, without waiting for the client.
fn refuse(stream: impl AsyncWrite + Unpin + Send + 'static) {
    warn!("more than {CONNECTIONS} connections at a time: one is refused");
    tokio::spawn(async move {
        let mut stream = stream;
        // The client may be gone already; it was refused either way.
        let _ = timeout(ACCEPT_PAUSE, stream.write_all(busy().as_bytes())).await;
    });
}
