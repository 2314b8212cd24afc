//! Whether weir is well: ports up, workers' loops advancing, the generation in force; and where orchestrators ask for it.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use serde::Serialize;
use tokio::net::TcpListener;
use weir_dataplane::worker::status::{PortStatus, WorkerStatus};

/// How often workers are looked at.
const INTERVAL: Duration = Duration::from_secs(1);
/// After how long without a loop a worker counts as stuck.
const STUCK: Duration = Duration::from_secs(5);
/// After how long without a look at the workers the control thread's housekeeping counts as stuck: longer than the engine
/// may be busy with opening a few devices.
const BLIND: Duration = Duration::from_secs(30);

/// `GET /v1/health`.
#[derive(Debug, Serialize, PartialEq, Eq)]
pub struct Health {
    /// `ok`, `degraded` (see `problems`), `draining` or `stopping`.
    pub status: &'static str,
    /// The generation in force.
    pub generation: u64,
    /// One line for each thing that is not well.
    pub problems: Vec<String>,
}

/// Listens for probes. This is the only TCP socket that weir listens on, and only if it was told to.
///
/// # Errors
/// The address cannot be had.
pub(crate) async fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    TcpListener::bind(address).await
}

/// Remembers when each worker's loop counter last moved.
#[derive(Debug, Default)]
pub(crate) struct Pulse {
    looked: Option<Instant>,
    workers: BTreeMap<usize, (u64, Instant)>,
}

impl Pulse {
    /// Whether it is time to look at the workers.
    pub(crate) fn is_due(&self) -> bool {
        self.looked.is_none_or(|last| last.elapsed() >= INTERVAL)
    }

    /// Looks at the workers.
    pub(crate) fn look(&mut self, workers: &[WorkerStatus], now: Instant) {
        self.looked = Some(now);
        self.workers.retain(|number, _| workers.iter().any(|worker| worker.worker == *number));
        for worker in workers {
            let entry = self.workers.entry(worker.worker).or_insert((worker.loops, now));
            if entry.0 != worker.loops {
                *entry = (worker.loops, now);
            }
        }
    }

    /// A line for each worker whose loops have not advanced for too long, as far as anybody looked.
    pub(crate) fn problems(&self) -> Vec<String> {
        self.problems_at(Instant::now())
    }

    fn problems_at(&self, now: Instant) -> Vec<String> {
        let Some(looked) = self.looked else { return Vec::new() };
        let blind = now.saturating_duration_since(looked) > BLIND;
        let blind = blind.then(|| format!("the workers were not looked at for {} s", BLIND.as_secs()));
        let stuck = self.stuck_at(looked);
        let stuck =
            stuck.iter().map(|worker| format!("worker {worker} has not looped for {} s", STUCK.as_secs()));
        blind.into_iter().chain(stuck).collect()
    }

    fn stuck_at(&self, looked: Instant) -> Vec<usize> {
        self.workers
            .iter()
            .filter(|(_, (_, moved))| looked.saturating_duration_since(*moved) > STUCK)
            .map(|(worker, _)| *worker)
            .collect()
    }
}

/// What is known of a weir.
#[derive(Clone, Copy)]
pub(crate) struct Findings<'a> {
    pub(crate) generation: u64,
    pub(crate) stopping: bool,
    pub(crate) draining: bool,
    pub(crate) ports: &'a [PortStatus],
    pub(crate) workers: &'a [WorkerStatus],
    /// What [`Pulse::problems`] says.
    pub(crate) stuck: &'a [String],
}

/// Puts the findings together.
pub(crate) fn judge(findings: &Findings<'_>) -> Health {
    let Findings { generation, stopping, draining, ports, workers, stuck } = *findings;
    let mut problems: Vec<String> = ports
        .iter()
        .filter(|port| port.state != "up")
        .map(|port| format!("port {} ({}): {}", port.name, port.device, port.state))
        .collect();
    if generation == 0 {
        problems.push("no configuration is in force yet".to_owned());
    }
    let behind = workers.iter().filter(|worker| worker.generation < generation);
    problems.extend(
        behind.map(|worker| format!("worker {} still runs generation {}", worker.worker, worker.generation)),
    );
    problems.extend(stuck.iter().cloned());
    let status = match (stopping, draining, problems.is_empty()) {
        (true, _, _) => "stopping",
        (false, true, _) => "draining",
        (false, false, true) => "ok",
        (false, false, false) => "degraded",
    };
    Health { status, generation, problems }
}

#[cfg(test)]
mod tests {
    use weir_dataplane::worker::status::Counters;

    use super::*;

    fn worker(number: usize, loops: u64) -> WorkerStatus {
        WorkerStatus {
            worker: number,
            core: number,
            generation: 1,
            loops,
            sleeps: 0,
            flows: 0,
            flow_capacity: 0,
            held: 0,
            counters: Counters::default(),
        }
    }

    #[test]
    fn a_worker_whose_loops_stand_still_is_stuck_and_one_that_advances_is_not() {
        let start = Instant::now();
        let mut pulse = Pulse::default();
        pulse.look(&[worker(0, 10), worker(1, 10)], start);
        let later = start + STUCK;
        pulse.look(&[worker(0, 10), worker(1, 11)], later);
        assert_eq!(pulse.stuck_at(later), Vec::<usize>::new(), "not yet");
        assert_eq!(pulse.stuck_at(later + Duration::from_secs(1)), [0]);
    }

    #[test]
    fn a_worker_that_no_longer_exists_is_not_stuck() {
        let start = Instant::now();
        let mut pulse = Pulse::default();
        pulse.look(&[worker(0, 10), worker(1, 10)], start);
        pulse.look(&[worker(0, 11)], start + STUCK);
        assert_eq!(pulse.stuck_at(start + STUCK + Duration::from_secs(1)), Vec::<usize>::new());
    }

    #[test]
    fn nobody_is_called_stuck_while_nobody_looked_but_that_is_said() {
        let start = Instant::now();
        let mut pulse = Pulse::default();
        assert!(pulse.problems_at(start + BLIND * 2).is_empty(), "nothing runs yet");
        pulse.look(&[worker(0, 10)], start);
        assert!(pulse.problems_at(start + BLIND).is_empty());
        assert_eq!(pulse.problems_at(start + BLIND * 2), ["the workers were not looked at for 30 s"]);
        pulse.look(&[worker(0, 10)], start + BLIND * 2);
        assert_eq!(pulse.problems_at(start + BLIND * 2), ["worker 0 has not looped for 5 s"]);
    }

    #[test]
    fn a_worker_that_runs_an_older_generation_is_not_ready() {
        let workers = [worker(0, 10)];
        let findings = Findings {
            generation: 2,
            stopping: false,
            draining: false,
            ports: &[],
            workers: &workers,
            stuck: &[],
        };
        let health = judge(&findings);
        assert_eq!(
            (health.status, health.problems),
            ("degraded", vec!["worker 0 still runs generation 1".to_owned()])
        );
        assert_eq!(judge(&Findings { generation: 1, ..findings }).status, "ok");
        assert_eq!(judge(&Findings { generation: 1, draining: true, ..findings }).status, "draining");
        assert_eq!(judge(&Findings { draining: true, stopping: true, ..findings }).status, "stopping");
    }
}
