//! Devices that come, go and change while weir runs.

use std::time::{Duration, Instant};

use weir_config::Port;

use crate::decision::PortId;
use crate::io::Backend;
use crate::snapshot::Snapshot;

use super::dataplane::Running;
use super::ports::{OpenPort, facts, open, ring_size};

/// How often a vanished device is looked for.
const REOPEN: Duration = Duration::from_millis(500);
/// How long a vanished device may be busy at each try: control waits meanwhile, and there is another try soon.
const BRIEFLY: Duration = Duration::from_millis(50);
/// How often MTUs and carriers are looked at.
pub(super) const LOOK: Duration = Duration::from_secs(1);

/// How often links are looked at where nobody tells of their changes: those of DPDK's devices.
const LOOK_CLOSER: Duration = Duration::from_millis(100);

impl Running {
    /// The device of a port is gone: its other queues are taken back. A port that has been opened again since is not meant.
    pub(super) fn lose(&mut self, id: PortId) {
        let gone = |port: &OpenPort| port.io.as_ref().is_some_and(|io| io.gone());
        let Some(port) = self.ports.values_mut().find(|port| port.id == id && gone(port)) else {
            return;
        };
        port.io = None;
        port.queues.clear();
        port.next_try = Instant::now();
        port.carrier = false;
        let hop = serves_hop(&port.settings);
        self.release(id);
        // Once the workers are gone, nobody goes another way any more.
        if hop && !self.threads.is_empty() {
            self.compile_again();
        }
    }

    /// Binds vanished devices again by name.
    pub(super) fn reopen(&mut self) {
        let now = Instant::now();
        let due: Vec<String> = self
            .ports
            .iter()
            .filter(|(_, port)| port.io.is_none() && port.next_try <= now)
            .map(|(name, _)| name.clone())
            .collect();
        for name in due {
            let Some(port) = self.ports.get(&name) else { continue };
            let settings = port.settings.clone();
            let (ring, workers) = (ring_size(self.pool.available(), [&settings]), self.doors().len());
            let opened = open(&name, &settings, &mut self.registry, &self.pool, ring, workers, BRIEFLY);
            let Some(port) = self.ports.get_mut(&name) else { continue };
            port.next_try = Instant::now() + REOPEN;
            let Ok((fresh, queues)) = opened else { continue };
            let rebinds = port.rebinds + 1;
            *port = OpenPort { rebinds, ..fresh };
            self.compile_again();
            let current = self.common.snapshots.load_full();
            let _ = self.steer(&current.config);
            self.deal(&name, queues, current.generation);
        }
    }

    /// Compiles the running configuration again, with what the devices are now.
    pub(super) fn compile_again(&mut self) {
        let current = self.common.snapshots.load_full();
        let (config, generation) = (&current.config, current.generation + 1);
        let (now, facts) = (self.common.clock.now(), facts(&self.ports));
        let compiled = Snapshot::compile(config, &facts, &mut self.registry, &self.shared, generation, now);
        // What no longer fits the devices goes on as it was: `apply` says why.
        if let Ok(snapshot) = compiled {
            self.publish(snapshot);
        }
    }

    /// Notices MTUs that were changed from outside, and carriers of ports that attached hops are behind.
    pub(super) fn look_at_links(&mut self) {
        if self.next_look > Instant::now() {
            return;
        }
        let untold = self.ports.values().any(|port| port.info.backend == Backend::Dpdk);
        self.next_look = Instant::now() + if untold { LOOK_CLOSER } else { LOOK };
        let mut changed = false;
        for port in self.ports.values_mut() {
            let link = port.io.as_ref().map(|io| io.link()).filter(|link| link.present);
            let carrier = link.is_some_and(|link| link.carrier);
            changed |= carrier != port.carrier && serves_hop(&port.settings);
            port.carrier = carrier;
            let Some(link) = link else { continue };
            changed |= link.mtu != port.info.mtu;
            port.info.mtu = link.mtu;
        }
        if changed {
            self.compile_again();
        }
    }

    /// The interface of a device name: that of its port, or of the VLAN that the kernel calls `<device>.<vid>`.
    pub(super) fn interface_of(&self, device: &str) -> Option<String> {
        let of = |wanted: &str| {
            let has = |port: &OpenPort| port.settings.device.as_deref() == Some(wanted);
            self.ports.iter().find(|(_, port)| has(port)).map(|(name, _)| name.clone())
        };
        of(device).or_else(|| {
            let (parent, vlan) = device.rsplit_once('.')?;
            Some(format!("{}.{vlan}", of(parent)?))
        })
    }

    pub(super) fn device_of(&self, interface: &str) -> Option<String> {
        if let Some(port) = self.ports.get(interface) {
            return port.settings.device.clone();
        }
        let (port, vlan) = interface.rsplit_once('.')?;
        let device = self.ports.get(port)?.settings.device.as_deref()?;
        Some(format!("{device}.{vlan}"))
    }
}

/// Whether packets of a chain go through something behind this port.
fn serves_hop(settings: &Port) -> bool {
    let attachments = std::iter::once(&settings.attachment).chain(settings.vlans.values());
    attachments.into_iter().any(|attachment| matches!(attachment.domain, weir_config::Domain::Hop(_)))
}
