//! What systemd is told (sd_notify(3)), if it listens: readiness, reloads, a line of status, and its watchdog.

use std::sync::Arc;

use sd_notify::NotifyState;
use tokio::time::{MissedTickBehavior, interval};
use tracing::{debug, warn};

use super::Manager;
use super::health::Health;

/// How often workers are looked at for the watchdog: a quarter of its time, so that it is fed twice before it is over.
const LOOKS: u32 = 4;

/// The first generation is in force.
pub(super) fn ready(generation: u64) {
    send(&[NotifyState::Ready, NotifyState::Status(&format!("generation {generation}"))]);
}

/// A change of the configuration begins.
pub(super) fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => send(&[NotifyState::Reloading, now]),
        Err(_) => send(&[NotifyState::Reloading]),
    }
}

/// A change of the configuration is over, in whichever way.
pub(super) fn reloaded() {
    send(&[NotifyState::Ready]);
}

/// weir is on its way out.
pub(super) fn stopping() {
    send(&[NotifyState::Stopping, NotifyState::Status("draining and detaching")]);
}

/// The line of `systemctl status`, sent when it changes.
#[derive(Debug, Default)]
pub(crate) struct StatusLine(String);

impl StatusLine {
    pub(crate) fn tell(&mut self, health: &Health, refused: Option<&str>) {
        let text = describe(health, refused);
        if text != self.0 {
            send(&[NotifyState::Status(&text)]);
            self.0 = text;
        }
    }
}

fn describe(health: &Health, refused: Option<&str>) -> String {
    let mut parts = vec![format!("generation {}, {}", health.generation, health.status)];
    parts.extend(refused.map(|reason| format!("the last change was refused: {reason}")));
    parts.extend(health.problems.iter().cloned());
    // A line is a line, whatever an error's text looks like.
    parts.join("; ").replace('\n', " ")
}

/// Feeds the watchdog while every worker goes round, until the daemon goes. Runs on the control thread: if that is stuck,
/// nothing is fed either.
pub(super) async fn watchdog(manager: Arc<Manager>) {
    let Some(time) = sd_notify::watchdog_enabled() else { return };
    let mut watch = Watch::default();
    let mut tick = interval(time / LOOKS);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while !manager.is_stopping() {
        tick.tick().await;
        match watch.stuck(&manager.engine.turns()) {
            stuck if stuck.is_empty() => send(&[NotifyState::Watchdog]),
            stuck => warn!("the watchdog is not fed: workers {stuck:?} do not go round"),
        }
    }
}

/// Which workers' turns have not advanced between two looks.
#[derive(Debug, Default)]
struct Watch(Vec<u64>);

impl Watch {
    fn stuck(&mut self, turns: &[u64]) -> Vec<usize> {
        let before = std::mem::replace(&mut self.0, turns.to_vec());
        let both = turns.iter().zip(before).enumerate();
        both.filter(|(_, (now, before))| *now == before).map(|(worker, _)| worker).collect()
    }
}

fn send(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        debug!("systemd was not told: {error}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_that_stands_still_between_two_looks_is_stuck_and_new_ones_are_not() {
        let mut watch = Watch::default();
        assert_eq!(watch.stuck(&[]), Vec::<usize>::new(), "not started yet");
        assert_eq!(watch.stuck(&[5, 7]), Vec::<usize>::new());
        assert_eq!(watch.stuck(&[6, 7]), [1]);
        assert_eq!(watch.stuck(&[7, 8]), Vec::<usize>::new(), "it came back");
    }

    #[test]
    fn the_line_of_status_tells_what_is_not_well_and_is_one_line() {
        let problems = vec!["port b (wb): no carrier".to_owned()];
        let health = Health { status: "degraded", generation: 4, problems };
        assert_eq!(
            describe(&health, Some("weir.toml: 1 error\nmore")),
            "generation 4, degraded; the last change was refused: weir.toml: 1 error more; port b (wb): no carrier"
        );
    }
}
