//! A packet gets the same from its flow's program as from a walk: the same bytes, the same port, the same fate.
#![allow(missing_docs, clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

#[path = "../common/mod.rs"]
mod common;

mod bindings;
mod steps;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use bindings::Bindings;
use common::site::Site;
use common::{Lab, config};
use proptest::prelude::*;
use steps::{Step, steps};
use weir_dataplane::frame::Frame;

static HITS: AtomicU64 = AtomicU64::new(0);

/// An engine, and what its translator gave out.
struct Twin {
    lab: Lab,
    bindings: Bindings,
}

impl Twin {
    fn new(config: &weir_config::Config) -> Self {
        Self { lab: Lab::of(config), bindings: Bindings::default() }
    }

    fn inject(&mut self, port: &str, frame: &[u8]) {
        self.lab.inject(port, frame);
        self.bindings.update(&self.lab);
    }

    /// What left since the last call, with the ports that were given out by the names of those who have them.
    fn take(&mut self) -> Vec<bindings::Left> {
        let Self { lab, bindings } = self;
        lab.take().into_iter().map(|(port, frame)| bindings.name(port, frame)).collect()
    }
}

fn compare(site: Site, steps: &[Step]) -> Result<(), TestCaseError> {
    let config = config(&site.text());
    // One engine remembers flows; before each packet of the other a new generation makes every program void.
    let (mut warm, mut cold) = (Twin::new(&config), Twin::new(&config));
    cold.lab.engine.take_no_short_cuts();
    let mut waited = false;
    for step in steps {
        for twin in [&mut warm, &mut cold] {
            twin.lab.wait_ms(step.wait);
        }
        prop_assert_eq!(warm.take(), cold.take(), "timers of {:?}", step);
        for time in 0..step.packets() {
            // What waits for a neighbour walks again in a new generation, which counts as use of the neighbour.
            let waits = cold.lab.counters().held > 0;
            waited |= waits;
            if !waits {
                cold.lab.engine.apply(&config).unwrap();
            }
            let owners = warm.bindings.shared(&cold.bindings);
            for twin in [&mut warm, &mut cold] {
                let (port, frame) = step.frame(site, &twin.bindings, &owners, time);
                twin.inject(port, &frame);
            }
            prop_assert_eq!(warm.take(), cold.take(), "time {} of {:?}", time, step);
            let beyond = [warm.bindings.beyond(&cold.bindings), cold.bindings.beyond(&warm.bindings)];
            prop_assert_eq!(beyond, [0, 0], "sessions more, time {} of {:?}", time, step);
        }
        let (warm, cold) = (warm.lab.counters(), cold.lab.counters());
        prop_assert_eq!(warm.dropped, cold.dropped, "{:?}", step);
        prop_assert_eq!(
            (warm.consumed, warm.held, warm.originated),
            (cold.consumed, cold.held, cold.originated)
        );
    }
    prop_assert!(waited || cold.lab.counters().flow_hits == 0, "the slow twin remembers nothing");
    HITS.fetch_add(warm.lab.counters().flow_hits, Ordering::Relaxed);
    Ok(())
}

/// Compares on sites and steps of the kinds that are given.
fn compare_all(sites: impl Strategy<Value = Site>, kinds: std::ops::Range<u8>) {
    // One test at a time: frames are counted.
    static ONE: Mutex<()> = Mutex::new(());
    let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    let cases = std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(192);
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig {
        cases,
        max_shrink_iters: 2000,
        failure_persistence: None,
        ..ProptestConfig::default()
    });
    let before = HITS.load(Ordering::Relaxed);
    runner.run(&(sites, steps(kinds)), |(site, steps)| compare(site, &steps)).unwrap();
    assert!(HITS.load(Ordering::Relaxed) - before > u64::from(cases), "hardly a packet found its flow");
    assert_eq!(Frame::leaked(), 0);
    assert_eq!(common::POOL.available(), 8192, "every frame is back in the pool");
}

#[test]
fn a_cached_flow_is_treated_as_a_walk_would_treat_it() {
    let sites = any::<[bool; 3]>().prop_map(|[v6, chain, ecmp]| Site { v6, chain, ecmp, ..Site::default() });
    compare_all(sites, steps::UNTRANSLATED);
}

/// Which port is given out may differ, since the slow twin walks more often; who has one may not.
#[test]
fn a_translated_flow_is_treated_as_a_walk_would_treat_it() {
    let sites = any::<[bool; 4]>().prop_map(|[v6, chain, ecmp, guarded]| Site {
        v6,
        chain,
        ecmp,
        nat: true,
        guarded,
    });
    compare_all(sites, steps::ALL);
}
