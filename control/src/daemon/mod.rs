//! The daemon: starts the data plane, serves the socket, follows the kernel, reloads and stops on signals.
//!
//! The control thread is the main thread with a current-thread runtime. It only waits; whatever may block (the engine,
//! reading files) runs on the runtime's blocking threads.

mod announce;
mod conservation;
mod health;
mod log;
mod manager;
mod notify;
mod signals;
mod socket;
mod watch;

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc::Receiver;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until, timeout};
use tracing::{error, info, warn};
use weir_config::Identity;

use crate::api;
use crate::configuration::{Refusal, Source};
use crate::engine::Engine;
use crate::netlink::{Kernel, KernelEvent};

pub use conservation::Conservation;
pub use health::Health;
pub use log::start as start_logging;
pub(crate) use manager::blocking;
pub use manager::{ConfigView, Manager, Outcome, Told};
pub use signals::{Signal, signals};
pub use socket::{BoundSocket, SocketError, bind};

/// How often the engine's housekeeping runs.
const SERVICE_INTERVAL: Duration = Duration::from_millis(100);
/// How often the engine is asked which neighbours the kernel should resolve.
const RESOLVE_INTERVAL: Duration = Duration::from_millis(20);
/// How long the data plane may take to drain and detach.
const STOP_TIME: Duration = Duration::from_secs(4);
/// How long after a change of addresses they are applied: an interface gets several in a row.
const ADDRESS_SETTLING: Duration = Duration::from_millis(200);
/// Kernel events handed on at a time.
const EVENT_BATCH: usize = 256;

/// What the daemon is started with.
pub struct Options {
    /// Where the configuration comes from.
    pub source: Source,
    /// Path of the socket.
    pub socket: PathBuf,
    /// The data plane.
    pub engine: Arc<dyn Engine>,
    /// Which node this is: whose sections of the file apply.
    pub identity: Identity,
    /// Where to answer probes, if anywhere.
    pub health: Option<SocketAddr>,
    /// Whether to load the file again whenever it was replaced.
    pub watch: bool,
}

impl Options {
    /// The options that must be given; nothing is watched and no probe answered.
    pub fn new(source: Source, socket: PathBuf, engine: Arc<dyn Engine>) -> Self {
        Self { source, socket, engine, identity: Identity::default(), health: None, watch: false }
    }
}

/// Why the daemon did not start, or did not stop in order.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The configuration was refused, by the loader or by the data plane.
    #[error("{0}")]
    Refused(Refusal),
    /// The socket could not be had.
    #[error(transparent)]
    Socket(#[from] SocketError),
    /// The kernel's netlink socket.
    #[error("netlink: {0}")]
    Netlink(io::Error),
    /// The control thread's runtime could not be made.
    #[error("the control thread's runtime: {0}")]
    Runtime(io::Error),
    /// Probes cannot be answered where they should be.
    #[error("listening for probes on {address}: {error}")]
    Health {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        error: io::Error,
    },
    /// Signals cannot be received.
    #[error("signals: {0}")]
    Signals(io::Error),
    /// Draining took too long.
    #[error("the data plane did not stop within {} s; the kernel takes the interfaces back", STOP_TIME.as_secs())]
    StopTimedOut,
}

/// Runs until told to stop.
///
/// # Errors
/// It could not start, or not stop in time. After an error nothing is attached any more.
pub async fn run(options: Options, mut signals: Receiver<Signal>) -> Result<(), Failure> {
    let mut socket = bind(&options.socket)?;
    let (kernel, events) = Kernel::connect().await.map_err(Failure::Netlink)?;
    let manager = Arc::new(Manager::new(options.engine, Some(kernel), options.source, options.identity));
    if let Some(address) = options.health {
        // From before the first configuration: a probe learns that there is none yet.
        let listener = health::listen(address).await.map_err(|error| Failure::Health { address, error })?;
        tokio::spawn(api::server::serve(listener, api::probes(manager.clone())));
    }
    let watched = match manager.source() {
        Source::File(path) if options.watch => watch::Watch::begin(path.clone()),
        _ => None,
    };
    let started = tokio::select! {
        started = manager.reload() => started.map(Some),
        () = stop_signal(&mut signals) => Ok(None),
    };
    let outcome = match started {
        Ok(Some(outcome)) => outcome,
        Ok(None) => return stop(&manager).await,
        Err(refusal) => {
            log_refusal(&refusal);
            error!("start refused: {refusal}");
            halt(&manager).await?;
            return Err(Failure::Refused(refusal));
        }
    };
    for warning in &outcome.warnings {
        warn!("{}", warning.text);
    }
    let told = manager.clone();
    blocking(move || {
        told.announce_ports();
        announce::machine(told.engine.as_ref());
    })
    .await;
    info!(
        "weir {} runs generation {} of {}; socket {}",
        env!("CARGO_PKG_VERSION"),
        outcome.generation,
        manager.source(),
        options.socket.display()
    );
    if let Some(listener) = socket.listener.take() {
        tokio::spawn(api::server::serve(listener, api::router(manager.clone())));
    }
    if let Some(watch) = watched {
        tokio::spawn(watch.run(manager.clone()));
    }
    tokio::spawn(service(manager.clone()));
    tokio::spawn(resolve(manager.clone()));
    tokio::spawn(follow_kernel(manager.clone(), events));
    tokio::spawn(notify::watchdog(manager.clone()));
    notify::ready(outcome.generation);
    while let Some(signal) = signals.recv().await {
        match signal {
            Signal::Reload => {
                tokio::spawn(reload(manager.clone()));
            }
            Signal::Stop => break,
        }
    }
    stop(&manager).await
    // The socket's file goes with `socket`, after the interfaces are the kernel's again.
}

/// Waits for a request to stop; one to reload what is just being loaded means nothing.
async fn stop_signal(signals: &mut Receiver<Signal>) {
    while signals.recv().await == Some(Signal::Reload) {}
}

async fn stop(manager: &Arc<Manager>) -> Result<(), Failure> {
    info!("stopping: draining and detaching");
    halt(manager).await?;
    info!("stopped");
    Ok(())
}

async fn halt(manager: &Arc<Manager>) -> Result<(), Failure> {
    notify::stopping();
    manager.set_stopping();
    let engine = manager.engine.clone();
    timeout(STOP_TIME, blocking(move || engine.stop())).await.map_err(|_| Failure::StopTimedOut)
}

async fn reload(manager: Arc<Manager>) {
    match manager.reload().await {
        Ok(outcome) => {
            for warning in &outcome.warnings {
                warn!("{}", warning.text);
            }
            for change in &outcome.changes {
                info!("reload: {}", change.text);
            }
            let changes = outcome.changes.len();
            info!(generation = outcome.generation, "reload of {}: {changes} changes", manager.source());
        }
        Err(refusal) => {
            log_refusal(&refusal);
            error!("reload refused: {refusal}; generation {} goes on", manager.engine.generation());
        }
    }
}

/// Every error with its place.
fn log_refusal(refusal: &Refusal) {
    for diagnostic in &refusal.diagnostics {
        error!("{diagnostic}");
    }
}

/// Housekeeping, until the daemon goes.
async fn service(manager: Arc<Manager>) {
    let mut tick = interval(SERVICE_INTERVAL);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while !manager.is_stopping() {
        tick.tick().await;
        let serviced = manager.clone();
        blocking(move || serviced.service()).await;
    }
}

/// Asks the kernel for neighbours, until the daemon goes: more often than the rest, for packets wait for them.
async fn resolve(manager: Arc<Manager>) {
    let mut tick = interval(RESOLVE_INTERVAL);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while !manager.is_stopping() {
        tick.tick().await;
        let asking = manager.clone();
        blocking(move || asking.resolve()).await;
    }
}

/// Hands on what the kernel tells, in order.
async fn follow_kernel(manager: Arc<Manager>, mut events: Receiver<KernelEvent>) {
    let mut due: Option<Instant> = None;
    loop {
        let mut batch = Vec::new();
        tokio::select! {
            count = events.recv_many(&mut batch, EVENT_BATCH) => if count == 0 { return },
            () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {
                due = None;
                manager.refresh_addresses().await;
                continue;
            }
        }
        let manager = manager.clone();
        let addresses_changed =
            blocking(move || batch.iter().fold(false, |changed, event| changed | manager.hand_on(event)));
        if addresses_changed.await && due.is_none() {
            due = Some(Instant::now() + ADDRESS_SETTLING);
        }
    }
}
