//! The kernel's side of shared ports, by rtnetlink: which devices and addresses there are, who the neighbours are.
//!
//! A task keeps a [`View`] up to date from a first dump and the multicast groups for links, neighbours and addresses,
//! and dumps all again when the kernel had to drop messages (`ENOBUFS`). Routes are not read: what weir routes stands
//! in its own configuration.

mod complete;
mod socket;
mod view;

use std::collections::VecDeque;
use std::io;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::mpsc;
use tracing::{debug, warn};

pub use complete::{complete, interface_device, interfaces_of};
use socket::{Dump, Incoming, RouteSocket};
pub use view::{KernelEvent, View};

/// Events that may wait for the daemon before the socket's own buffer has to hold them.
const EVENT_QUEUE: usize = 1024;
/// Requests to resolve a neighbour that may wait.
const RESOLVE_QUEUE: usize = 256;
/// Pause before a dump is tried again that a change overtook, or that failed.
const RETRY: Duration = Duration::from_millis(100);

/// What the kernel's network stack says; a handle that can be cloned.
#[derive(Clone)]
pub struct Kernel {
    view: Arc<Mutex<View>>,
    resolve: mpsc::Sender<(u32, IpAddr)>,
}

impl Kernel {
    /// Opens the netlink socket, reads everything once, and follows changes from then on. Changes come out of the
    /// receiver; what the first dump showed does not.
    ///
    /// # Errors
    /// The socket could not be opened, or the first dump failed.
    pub async fn connect() -> io::Result<(Self, mpsc::Receiver<KernelEvent>)> {
        let view = Arc::new(Mutex::new(View::default()));
        let mut follower = Follower { socket: RouteSocket::open()?, view: view.clone() };
        follower.synchronise().await?;
        let (events_in, events_out) = mpsc::channel(EVENT_QUEUE);
        let (resolve, requests) = mpsc::channel(RESOLVE_QUEUE);
        tokio::spawn(follower.follow(events_in, requests));
        Ok((Self { view, resolve }, events_out))
    }

    /// What is known now.
    pub fn view(&self) -> MutexGuard<'_, View> {
        lock(&self.view)
    }

    /// Asks the kernel to resolve a neighbour. The answer comes as an event. A request too many is let go: whoever
    /// needs the neighbour asks again. `device` is a device or, for a VLAN, `<device>.<vid>`.
    pub fn resolve(&self, device: &str, ip: IpAddr) {
        let index = {
            let view = self.view();
            view.vlan_by_name(device).or_else(|| view.index(device))
        };
        if let Some(index) = index
            && self.resolve.try_send((index, ip)).is_err()
        {
            debug!("the kernel is not asked for {ip} on {device}: too many requests wait");
        }
    }
}

fn lock(view: &Mutex<View>) -> MutexGuard<'_, View> {
    // A panic elsewhere leaves the view as it was after a whole message: still good.
    view.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Follower {
    socket: RouteSocket,
    view: Arc<Mutex<View>>,
}

impl Follower {
    /// Follows the kernel until the daemon goes.
    async fn follow(
        mut self,
        events: mpsc::Sender<KernelEvent>,
        mut requests: mpsc::Receiver<(u32, IpAddr)>,
    ) {
        loop {
            let news = tokio::select! {
                received = self.socket.receive() => self.digest(received).await,
                request = requests.recv() => {
                    let Some((index, ip)) = request else { return };
                    if let Err(error) = self.socket.resolve(index, ip).await {
                        debug!("the kernel was not asked to resolve {ip}: {error}");
                    }
                    Vec::new()
                }
            };
            for event in news {
                if events.send(event).await.is_err() {
                    return;
                }
            }
        }
    }

    async fn digest(&mut self, received: io::Result<Vec<Incoming>>) -> Vec<KernelEvent> {
        match received {
            Ok(messages) => {
                let mut view = lock(&self.view);
                messages
                    .iter()
                    .flat_map(|incoming| match incoming {
                        Incoming::Message(message) => view.take(message),
                        Incoming::Failed(_, error) => {
                            debug!("the kernel refused a netlink request: {error}");
                            Vec::new()
                        }
                        Incoming::Done(_) | Incoming::Interrupted => Vec::new(),
                    })
                    .collect()
            }
            Err(error) => {
                warn!("netlink messages were lost ({error}): reading links, addresses and neighbours again");
                loop {
                    match self.synchronise().await {
                        Ok(events) => return events,
                        Err(error) => {
                            warn!("reading links, addresses and neighbours failed: {error}; trying again");
                            tokio::time::sleep(RETRY).await;
                        }
                    }
                }
            }
        }
    }

    /// Dumps everything, until a whole round went through undisturbed; returns what changed.
    async fn synchronise(&mut self) -> io::Result<Vec<KernelEvent>> {
        let mut events = Vec::new();
        loop {
            lock(&self.view).begin();
            let mut whole = true;
            let mut dumps = VecDeque::from([Dump::Links, Dump::Addresses, Dump::Neighbours]);
            while let Some(dump) = dumps.pop_front() {
                whole &= self.dump(dump, &mut events).await?;
            }
            if whole {
                events.extend(lock(&self.view).finish());
                return Ok(events);
            }
            tokio::time::sleep(RETRY).await;
        }
    }

    /// One dump; false if it was overtaken by a change or messages were lost.
    async fn dump(&mut self, dump: Dump, events: &mut Vec<KernelEvent>) -> io::Result<bool> {
        let sequence = self.socket.request_dump(dump).await?;
        let mut whole = true;
        loop {
            let messages = match self.socket.receive().await {
                Ok(messages) => messages,
                // Lost messages may include the end of this dump, so do not wait for it.
                Err(_) => return Ok(false),
            };
            for incoming in messages {
                match incoming {
                    Incoming::Message(message) => events.extend(lock(&self.view).take(&message)),
                    Incoming::Done(done) if done == sequence => return Ok(whole),
                    Incoming::Failed(failed, error) if failed == sequence => return Err(error),
                    Incoming::Interrupted => whole = false,
                    Incoming::Done(_) | Incoming::Failed(..) => {}
                }
            }
        }
    }
}

#[cfg(test)]
#[path = "kernel_tests.rs"]
mod tests;
