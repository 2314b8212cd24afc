//! A change of the configuration while packets flow: open what is new, compile, publish, close what is gone.

use std::sync::Arc;
use std::time::{Duration, Instant};

use weir_config::{Config, Port};

use crate::snapshot::Snapshot;

use super::dataplane::Running;
use super::error::ApplyError;
use super::ports::{
    BUSY, OpenPort, Queues, facts, facts_of, open, promiscuous, ring_size, same_device, steering,
};
use super::run::PATIENCE;

impl Running {
    /// Compiles and publishes a configuration while packets flow.
    pub(super) fn apply(&mut self, config: &Config) -> Result<u64, ApplyError> {
        let current = Arc::clone(&self.common.snapshots.load().config);
        let fixed = [
            ("workers", current.workers != config.workers),
            ("memory", current.memory != config.memory),
            ("limits", current.limits != config.limits),
        ];
        if let Some((section, _)) = fixed.into_iter().find(|(_, changed)| *changed) {
            return Err(ApplyError::NeedsRestart(format!("[{section}]")));
        }
        // New and changed devices are opened before anything else happens: a failure leaves all as it was.
        let closed = self.make_way(config);
        let result = self.prepare(config);
        let (opened, snapshot, config) = match result {
            Ok(prepared) => prepared,
            Err(error) => {
                if !closed.is_empty() {
                    self.reopen();
                }
                // What had begun to take foreign frames for the new configuration's sake.
                let _ = self.filter_macs(&current, false);
                return Err(error);
            }
        };
        let generation = snapshot.generation;
        // New ports can send before anything is routed to them, and receive once they are known.
        for (name, port, queues) in opened {
            self.release(port.id);
            self.ports.insert(name.clone(), port);
            self.deal(&name, queues, generation);
        }
        for (name, settings) in &config.ports {
            if let Some(port) = self.ports.get_mut(name) {
                port.settings.clone_from(settings);
            }
        }
        self.publish(snapshot);
        self.icmp.set_rate(config.limits.icmp_errors_per_second);
        let gone: Vec<String> =
            self.ports.keys().filter(|name| !config.ports.contains_key(*name)).cloned().collect();
        for name in gone {
            self.close(&name);
        }
        self.filter_macs(&config, false)?;
        // Last: a port that refuses its new entries keeps those that it has, and everything else is in force.
        self.steer(&config)?;
        Ok(generation)
    }

    /// Closes the ports whose devices the new configuration wants opened another way, or by another port; one that moves to
    /// a device of nobody's stays open until that one is. They are looked for again by [`reopen`](Self::reopen) if the
    /// change fails. Returns their names.
    pub(super) fn make_way(&mut self, config: &Config) -> Vec<String> {
        let in_the_way = |(name, port): &(&String, &OpenPort)| {
            let wants = |(other, settings): (&String, &Port)| {
                settings.device == port.settings.device
                    && (other != *name || !same_device(&port.settings, settings))
            };
            config.ports.iter().any(wants)
        };
        let names: Vec<String> = self.ports.iter().filter(in_the_way).map(|(name, _)| name.clone()).collect();
        for name in &names {
            if let Some(id) = self.ports.get(name).map(|port| port.id) {
                self.release(id);
            }
            if let Some(port) = self.ports.get_mut(name) {
                port.io = None;
                port.queues.clear();
                port.next_try = Instant::now();
            }
        }
        names
    }

    /// Opens what is new or changed, and compiles.
    #[allow(clippy::type_complexity)]
    pub(super) fn prepare(
        &mut self,
        config: &Config,
    ) -> Result<(Vec<(String, OpenPort, Queues)>, Snapshot, Arc<Config>), ApplyError> {
        let mut opened = Vec::new();
        let workers = self.doors().len();
        for (name, settings) in &config.ports {
            if self.ports.get(name).is_some_and(|port| same_device(&port.settings, settings)) {
                continue;
            }
            let ring = ring_size(self.pool.available(), [settings]);
            let (port, queues) = open(name, settings, &mut self.registry, &self.pool, ring, workers, BUSY)?;
            opened.push((name.clone(), port, queues));
        }
        self.filter_macs(config, true)?;
        let mut facts = facts(&self.ports);
        for (name, port, _) in &opened {
            facts.insert(name.clone(), facts_of(port));
        }
        let generation = self.common.snapshots.load().generation + 1;
        let config = Arc::new(config.clone());
        let now = self.common.clock.now();
        let snapshot = Snapshot::compile(&config, &facts, &mut self.registry, &self.shared, generation, now)?;
        Ok((opened, snapshot, config))
    }

    /// Lets open ports take foreign frames that have to (`on`), and those no more that had to.
    pub(super) fn filter_macs(&mut self, config: &Config, on: bool) -> Result<(), ApplyError> {
        for (name, port) in &mut self.ports {
            let (Some(io), Some(settings)) = (&mut port.io, config.ports.get(name)) else { continue };
            if promiscuous(settings) == on {
                io.set_promiscuous(on)
                    .map_err(|error| ApplyError::Port { port: name.clone(), reason: error.to_string() })?;
            }
        }
        Ok(())
    }

    /// Publishes a snapshot and waits, within bounds, until every worker runs it.
    pub(super) fn publish(&mut self, snapshot: Snapshot) {
        let generation = snapshot.generation;
        let snapshot = Arc::new(snapshot);
        self.old.push(Arc::clone(&snapshot));
        self.common.snapshots.store(snapshot);
        let deadline = Instant::now() + PATIENCE;
        for door in &self.common.doors {
            door.nudge();
            while door.counters.generation.get() != generation && Instant::now() < deadline {
                std::thread::sleep(Duration::from_micros(200));
            }
        }
        self.free_old();
    }

    /// Tells each shared port what it takes: the VTEPs of its VRF, and its prefixes.
    pub(super) fn steer(&mut self, config: &Config) -> Result<(), ApplyError> {
        for (name, port) in &mut self.ports {
            let Some(io) = &mut port.io else { continue };
            let Some(settings) = config.ports.get(name) else { continue };
            io.steer(&steering(config, settings))
                .map_err(|error| ApplyError::Port { port: name.clone(), reason: error.to_string() })?;
        }
        Ok(())
    }
}
