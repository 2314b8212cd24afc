//! The running configuration: every change goes through here, one after the other.
//!
//! A change is loaded and validated by [`crate::configuration`], completed with what the kernel knows, compared with
//! the running one, and given to the data plane. Whatever fails on the way leaves the running generation untouched.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use serde::Serialize;
use serde_json::Value;
use tracing::{debug, info, warn};
use weir_config::{Change, Config, Diagnostic, Identity};
use weir_dataplane::io::WITH_DPDK;
use weir_dataplane::worker::status::PortStatus;

use crate::configuration::{self, Loaded, Refusal, Source};
use crate::daemon::announce::Announcer;
use crate::daemon::health::{Findings, Health, Pulse, judge};
use crate::daemon::notify::{self, StatusLine};
use crate::daemon::watch::Watched;
use crate::devices;
use crate::engine::Engine;
use crate::netlink::{self, Kernel, KernelEvent};
use crate::system::System;

/// The engine, the kernel and the running configuration.
pub struct Manager {
    /// The data plane.
    pub engine: Arc<dyn Engine>,
    kernel: Option<Kernel>,
    source: Source,
    /// Which node this is: whose sections of the file apply.
    identity: Identity,
    running: Mutex<Arc<Running>>,
    /// Held while a configuration is put in force, so that changes do not overtake each other.
    changing: tokio::sync::Mutex<()>,
    /// Which workers' loops advance.
    pub(crate) pulse: Mutex<Pulse>,
    /// What systemd shows of weir.
    status: Mutex<StatusLine>,
    /// Why the last change was refused, if it was.
    refusal: Mutex<Option<String>>,
    announcer: Mutex<Announcer>,
    applied: AtomicU64,
    refused: AtomicU64,
    stopping: AtomicBool,
    draining: AtomicBool,
    /// Whether the file is watched, and whether what it held last could be put in force.
    pub(crate) watched: Watched,
}

/// What is in force.
#[derive(Clone, Debug, Default)]
struct Running {
    /// As the operator wrote it.
    written: Config,
    /// As the data plane has it: with the kernel's addresses.
    complete: Config,
    document: Value,
    origin: String,
    applied_at: u64,
}

/// What a change did, or would do.
#[derive(Debug, Serialize)]
pub struct Outcome {
    /// The generation in force after it.
    pub generation: u64,
    /// Whether nothing was put in force.
    pub dry_run: bool,
    /// The differences to what was in force.
    pub changes: Vec<Told<Change>>,
    /// Warnings of the validation.
    pub warnings: Vec<Told<Diagnostic>>,
}

/// A value together with its form for people.
#[derive(Clone, Debug, Serialize)]
pub struct Told<T> {
    /// The value.
    #[serde(flatten)]
    pub value: T,
    /// Its form for people; may have several lines.
    pub text: String,
}

impl<T: fmt::Display> From<T> for Told<T> {
    fn from(value: T) -> Self {
        Self { text: value.to_string(), value }
    }
}

/// The running configuration, as `GET /v1/config` gives it.
#[derive(Debug, Serialize)]
pub struct ConfigView {
    /// The generation in force.
    pub generation: u64,
    /// Where it came from.
    pub origin: String,
    /// When it was put in force: seconds since 1970-01-01 UTC.
    pub applied_at: u64,
    /// The configuration in the shape of the file, as it was written.
    pub document: Value,
    /// The same with all defaults and with what the kernel gave, in the shape of the file too.
    pub effective: Value,
}

impl Manager {
    /// A manager of an engine that runs nothing yet. Without `kernel`, shared ports get nothing from the kernel.
    pub fn new(engine: Arc<dyn Engine>, kernel: Option<Kernel>, source: Source, identity: Identity) -> Self {
        Self {
            engine,
            kernel,
            source,
            identity,
            running: Mutex::default(),
            changing: tokio::sync::Mutex::default(),
            pulse: Mutex::default(),
            status: Mutex::default(),
            refusal: Mutex::default(),
            announcer: Mutex::default(),
            applied: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            stopping: AtomicBool::new(false),
            draining: AtomicBool::new(false),
            watched: Watched::default(),
        }
    }

    /// Where reloads read from.
    pub fn source(&self) -> &Source {
        &self.source
    }

    /// How many configurations were put in force, and how many were refused.
    pub fn tally(&self) -> (u64, u64) {
        (self.applied.load(Ordering::Relaxed), self.refused.load(Ordering::Relaxed))
    }

    /// Whether the daemon is on its way out.
    pub fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }

    /// Marks the daemon as on its way out: no change is taken any more.
    pub(crate) fn set_stopping(&self) {
        self.stopping.store(true, Ordering::Relaxed);
    }

    /// Which node this is.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Whether weir is being taken out of service: see [`drain`](Self::drain).
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    /// Takes weir out of service, or back into it. While it drains it is not ready, takes no change and announces no address;
    /// packets are forwarded as before. Blocks for as long as the engine is busy.
    pub fn drain(&self, draining: bool) {
        if self.draining.swap(draining, Ordering::Relaxed) != draining {
            info!(
                "{}",
                if draining {
                    "draining: not ready any more, packets are still forwarded"
                } else {
                    "in service again"
                }
            );
        }
        self.engine.quiet(draining);
    }

    /// What can be said of its health without asking the engine: whether workers and housekeeping advance.
    pub(crate) fn liveness(&self) -> Vec<String> {
        self.pulse.lock().unwrap_or_else(PoisonError::into_inner).problems()
    }

    /// Its health, with what the engine says.
    pub fn health(&self) -> Health {
        self.health_with(&self.engine.ports())
    }

    fn health_with(&self, ports: &[PortStatus]) -> Health {
        let stuck = self.liveness();
        judge(&Findings {
            generation: self.engine.generation(),
            stopping: self.is_stopping(),
            draining: self.is_draining(),
            ports,
            workers: &self.engine.workers(),
            stuck: &stuck,
        })
    }

    /// The running configuration.
    pub fn show(&self) -> ConfigView {
        let running = self.running();
        ConfigView {
            generation: self.engine.generation(),
            origin: running.origin.clone(),
            applied_at: running.applied_at,
            document: running.document.clone(),
            effective: weir_config::to_json(&running.complete),
        }
    }

    /// Loads the source again and puts it in force.
    ///
    /// # Errors
    /// It could not be loaded, or the data plane refused it; nothing changed.
    pub async fn reload(self: &Arc<Self>) -> Result<Outcome, Refusal> {
        let (source, identity) = (self.source.clone(), self.identity.clone());
        let result = self.change(false, move || configuration::load(&source, &identity)).await;
        // Who is on his way out has not read it.
        if !matches!(&result, Err(refusal) if ["draining", "stopping"].contains(&refusal.code)) {
            self.watched.set_current(result.is_ok());
        }
        result
    }

    /// Loads a configuration with `load` and puts it in force, or only says what that would change.
    ///
    /// # Errors
    /// It could not be loaded, or the data plane refused it; nothing changed.
    pub async fn change(
        self: &Arc<Self>,
        dry_run: bool,
        load: impl FnOnce() -> Result<Loaded, Refusal> + Send + 'static,
    ) -> Result<Outcome, Refusal> {
        let _turn = self.changing.lock().await;
        // The first one is part of the start.
        let reloads = !dry_run && self.engine.generation() > 0;
        if reloads {
            notify::reloading();
        }
        let this = self.clone();
        let result = blocking(move || this.change_now(dry_run, load)).await;
        if !dry_run {
            self.refused.fetch_add(u64::from(result.is_err()), Ordering::Relaxed);
            let refusal = result.as_ref().err().map(ToString::to_string);
            *self.refusal.lock().unwrap_or_else(PoisonError::into_inner) = refusal;
        }
        if reloads {
            notify::reloaded();
        }
        result
    }

    fn change_now(
        &self,
        dry_run: bool,
        load: impl FnOnce() -> Result<Loaded, Refusal>,
    ) -> Result<Outcome, Refusal> {
        let loaded = load()?;
        let before = self.running();
        let changes =
            weir_config::diff(&before.written, &loaded.config).into_iter().map(Told::from).collect();
        if !dry_run {
            if self.is_stopping() {
                let message = "weir is stopping".to_owned();
                return Err(Refusal { code: "stopping", message, diagnostics: Vec::new() });
            }
            if self.is_draining() {
                let message =
                    "weir is draining and takes no change; `weir drain --undo` ends that".to_owned();
                return Err(Refusal { code: "draining", message, diagnostics: Vec::new() });
            }
            let complete = self.complete(&loaded.config)?;
            self.engine.apply(&complete).map_err(|error| Refusal::by_the_engine(&error, &loaded.origin))?;
            let applied_at = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |age| age.as_secs());
            self.set_running(Running {
                written: loaded.config,
                complete,
                document: loaded.document,
                origin: loaded.origin,
                applied_at,
            });
            self.applied.fetch_add(1, Ordering::Relaxed);
            self.feed_neighbours();
        }
        let warnings = loaded.warnings.into_iter().map(Told::from).collect();
        Ok(Outcome { generation: self.engine.generation(), dry_run, changes, warnings })
    }

    /// Applies the running configuration again if the kernel's addresses of its ports changed.
    pub(crate) async fn refresh_addresses(self: &Arc<Self>) {
        let _turn = self.changing.lock().await;
        let this = self.clone();
        blocking(move || {
            let running = this.running();
            let complete = match this.complete(&running.written) {
                Ok(complete) => complete,
                Err(refusal) => {
                    return warn!("the kernel's addresses changed, but a device is not there: {refusal}");
                }
            };
            if complete == running.complete || this.is_stopping() {
                return;
            }
            match this.engine.apply(&complete) {
                Ok(generation) => {
                    info!(generation, "the kernel's addresses of shared ports changed: applied");
                    this.set_running(Running { complete, ..Running::clone(&running) });
                    this.feed_neighbours();
                }
                Err(error) => {
                    warn!(
                        "the kernel's addresses of shared ports changed, but could not be applied: {error}"
                    );
                }
            }
        })
        .await;
    }

    /// Hands a change in the kernel on. True if addresses changed, so that [`Self::refresh_addresses`] is due.
    pub(crate) fn hand_on(&self, event: &KernelEvent) -> bool {
        match event {
            KernelEvent::Device { device, event } => {
                let ours = self.running().complete.ports.values().any(|p| p.device.as_ref() == Some(device));
                if ours {
                    info!("device {device}: {event}");
                }
                self.engine.device_changed(device, *event);
                false
            }
            KernelEvent::Neighbour { device, ip, mac } => {
                if let Some(kernel) = &self.kernel {
                    let interfaces = netlink::interfaces_of(&self.running().complete, &kernel.view(), device);
                    for interface in interfaces {
                        debug!("kernel neighbour {ip} on {interface}: {mac:?}");
                        self.engine.kernel_neighbour(&interface, *ip, *mac);
                    }
                }
                false
            }
            KernelEvent::Addresses { .. } => true,
        }
    }

    /// Logs what was obtained for ports that were opened since the last call.
    pub(crate) fn announce_ports(&self) {
        self.announcer.lock().unwrap_or_else(PoisonError::into_inner).ports(self.engine.as_ref());
    }

    /// Housekeeping: the engine's own, a word about new ports, and a look at the workers.
    pub(crate) fn service(&self) {
        self.engine.service();
        self.announce_ports();
        let pulse = || self.pulse.lock().unwrap_or_else(PoisonError::into_inner);
        let due = pulse().is_due();
        if due {
            // The engine may keep us waiting; who asks for the pulse meanwhile does not wait.
            let workers = self.engine.workers();
            pulse().look(&workers, Instant::now());
            let refusal = self.refusal.lock().unwrap_or_else(PoisonError::into_inner).clone();
            let ports = self.engine.ports();
            self.announcer.lock().unwrap_or_else(PoisonError::into_inner).devices(&ports);
            let health = self.health_with(&ports);
            let mut status = self.status.lock().unwrap_or_else(PoisonError::into_inner);
            status.tell(&health, refusal.as_deref());
        }
    }

    /// Has the kernel resolve the neighbours that the engine waits for on shared ports.
    pub(crate) fn resolve(&self) {
        let requests = self.engine.take_kernel_requests();
        if let Some(kernel) = &self.kernel {
            for (device, ip) in requests {
                kernel.resolve(&device, ip);
            }
        }
    }

    /// With what this machine gives: the devices that are meant, and the kernel's addresses.
    fn complete(&self, written: &Config) -> Result<Config, Refusal> {
        let mut complete = written.clone();
        let system = System::default();
        devices::resolve(&mut complete, |name| std::env::var(name).ok(), &system, WITH_DPDK)
            .map_err(|problems| Refusal::for_want_of_devices(&problems))?;
        if let Some(kernel) = &self.kernel {
            netlink::complete(&mut complete, &kernel.view());
        }
        Ok(complete)
    }

    /// Tells the engine every neighbour that the kernel knows on shared ports: new ports start with them.
    fn feed_neighbours(&self) {
        let Some(kernel) = &self.kernel else { return };
        let known: Vec<_> = {
            let view = kernel.view();
            netlink::interface_device(&self.running().complete, &view)
                .into_iter()
                .map(|(interface, device)| (interface, view.neighbours(&device)))
                .collect()
        };
        for (interface, neighbours) in known {
            for (ip, mac) in neighbours {
                self.engine.kernel_neighbour(&interface, ip, Some(mac));
            }
        }
    }

    fn running(&self) -> Arc<Running> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set_running(&self, running: Running) {
        *self.running.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(running);
    }
}

/// Runs what may block away from the control thread's reactor, so that no client waits for another's work.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(value) => value,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // Blocking tasks are never cancelled once they run; before, only when the runtime is gone.
            Err(_) => std::future::pending().await,
        },
    }
}
