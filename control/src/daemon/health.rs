//! Whether weir is well: ports up, workers' loops advancing.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde::Serialize;
use weir_dataplane::worker::status::{PortStatus, WorkerStatus};

/// How often workers are looked at.
const INTERVAL: Duration = Duration::from_secs(1);
/// After how long without a loop a worker counts as stuck.
const STUCK: Duration = Duration::from_secs(5);

/// `GET /v1/health`.
#[derive(Debug, Serialize, PartialEq, Eq)]
pub struct Health {
    /// `ok`, `degraded` (see `problems`) or `stopping`.
    pub status: &'static str,
    /// The generation in force.
    pub generation: u64,
    /// One line for each thing that is not well.
    pub problems: Vec<String>,
}

/// Remembers when each worker's loop counter last moved.
#[derive(Debug, Default)]
pub(crate) struct Pulse {
    looked: Option<Instant>,
    workers: BTreeMap<usize, (u64, Instant)>,
}

impl Pulse {
    /// Looks at the workers, if it is time; whether it was.
    pub(crate) fn beat(&mut self, workers: impl FnOnce() -> Vec<WorkerStatus>) -> bool {
        let now = Instant::now();
        let due = self.looked.is_none_or(|last| now.duration_since(last) >= INTERVAL);
        if due {
            self.looked = Some(now);
            self.look(&workers(), now);
        }
        due
    }

    fn look(&mut self, workers: &[WorkerStatus], now: Instant) {
        self.workers.retain(|number, _| workers.iter().any(|worker| worker.worker == *number));
        for worker in workers {
            let entry = self.workers.entry(worker.worker).or_insert((worker.loops, now));
            if entry.0 != worker.loops {
                *entry = (worker.loops, now);
            }
        }
    }

    /// The workers whose loops have not advanced for too long.
    pub(crate) fn stuck(&self) -> Vec<usize> {
        self.stuck_at(Instant::now())
    }

    fn stuck_at(&self, now: Instant) -> Vec<usize> {
        self.workers
            .iter()
            .filter(|(_, (_, moved))| now.saturating_duration_since(*moved) > STUCK)
            .map(|(worker, _)| *worker)
            .collect()
    }
}

/// Puts the findings together.
pub(crate) fn judge(generation: u64, stopping: bool, ports: &[PortStatus], stuck: &[usize]) -> Health {
    let mut problems: Vec<String> = ports
        .iter()
        .filter(|port| port.state != "up")
        .map(|port| format!("port {} ({}): {}", port.name, port.device, port.state))
        .collect();
    problems.extend(
        stuck.iter().map(|worker| format!("worker {worker} has not looped for {} s", STUCK.as_secs())),
    );
    let status = match (stopping, problems.is_empty()) {
        (true, _) => "stopping",
        (false, true) => "ok",
        (false, false) => "degraded",
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
}
