//! Which cores workers run on: of the process's own affinity mask, never another.

use core_affinity::CoreId;
use weir_config::Cores;

/// Why workers cannot be placed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CoresError {
    /// A core was asked for that the process was not given.
    #[error(
        "workers.cores: core {wanted} is not in the affinity mask of this process ({given}); see `taskset -p` or the pod's CPU requests"
    )]
    NotGiven {
        /// The core.
        wanted: usize,
        /// Those that were given.
        given: String,
    },
    /// The mask could not be read.
    #[error("workers.cores: the affinity mask of this process cannot be read")]
    Unknown,
}

/// The cores that workers may run on.
pub(super) fn available(cores: &Cores) -> Result<Vec<CoreId>, CoresError> {
    let given = core_affinity::get_core_ids().filter(|given| !given.is_empty()).ok_or(CoresError::Unknown)?;
    match cores {
        Cores::Auto => Ok(given),
        Cores::List(list) => list
            .iter()
            .map(|wanted| {
                given.iter().find(|core| core.id == *wanted).copied().ok_or_else(|| CoresError::NotGiven {
                    wanted: *wanted,
                    given: given.iter().map(|core| core.id.to_string()).collect::<Vec<_>>().join(","),
                })
            })
            .collect(),
    }
}

/// One worker for each core asked for; left to choose, at most as many as there are queues.
pub(super) fn choose(available: Vec<CoreId>, cores: &Cores, queues: usize) -> Vec<CoreId> {
    let most = match cores {
        Cores::Auto => queues.max(1),
        Cores::List(list) => list.len().max(1),
    };
    available.into_iter().take(most).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_core_that_was_not_given_is_refused_by_name() {
        let error = available(&Cores::List(vec![4_000])).unwrap_err();
        assert!(error.to_string().contains("core 4000 is not in the affinity mask"), "{error}");
    }

    #[test]
    fn left_to_choose_there_are_no_more_workers_than_queues() {
        let cores = (0..4).map(|id| CoreId { id }).collect::<Vec<_>>();
        assert_eq!(choose(cores.clone(), &Cores::Auto, 2).len(), 2);
        assert_eq!(choose(cores.clone(), &Cores::Auto, 9).len(), 4);
        assert_eq!(choose(cores, &Cores::List(vec![0, 1, 2, 3]), 1).len(), 4);
    }
}
