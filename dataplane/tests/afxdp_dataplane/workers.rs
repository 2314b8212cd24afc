//! Queues that do not drain, workers that do not keep up, that sleep, that do not start.

use super::*;

#[test]
fn a_port_that_does_not_drain_is_counted_and_holds_up_no_other() {
    if !privileged("a_port_that_does_not_drain_is_counted_and_holds_up_no_other") {
        return;
    }
    let _turn = alone();
    let site = Site::start(2, SPARE);
    let taps = site.taps();
    let (noise, traffic) = (Traffic::default(), Traffic::default());
    std::thread::scope(|scope| {
        let (_noise, _ending) = (Ending(&noise), Ending(&traffic));
        traffic.count(scope, &taps[2]);
        traffic.stream(scope, &taps[0], 0, 2);
        site.wires[1].down();
        noise.flood(scope, &taps[0], 0, 1);
        site.serve_until("the ring is full", || {
            site.dataplane.counters().dropped.get("transmit_queue_full").is_some_and(|count| *count > 1000)
        });
        let before = traffic.arrived();
        site.serve_until("the other port goes on", || traffic.arrived() > before + 200);
        site.wires[1].up();
    });
    // What stood in the ring leaves, and what comes later too.
    taps[0].send(&datagram(0, 1, 0, COUNTED));
    assert!(taps[1].receive(SOON, is_counted).is_some());
    let counters = site.quiet();
    assert_conserved(&counters);
    assert_eq!(dropped(&counters), counters.dropped["transmit_queue_full"], "{counters:?}");
    site.stop();
}

/// The threads of this process that have this name.
fn threads(name: &str) -> Vec<i32> {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    tasks
        .filter_map(|task| task.ok()?.file_name().to_str()?.parse().ok())
        .filter(|id: &i32| {
            std::fs::read_to_string(format!("/proc/self/task/{id}/comm"))
                .is_ok_and(|comm| comm.trim() == name)
        })
        .collect()
}

#[test]
fn a_worker_that_does_not_keep_up_makes_the_handoff_ring_full_and_that_is_counted() {
    if !privileged("a_worker_that_does_not_keep_up_makes_the_handoff_ring_full_and_that_is_counted") {
        return;
    }
    let _turn = alone();
    // Both workers on one core, as no file may ask for, and the second one runs when the first has nothing to do: never.
    let site = Site::new(1);
    let mut config = site.config(0);
    config.workers.cores = Cores::List(vec![cores()[0]; 2]);
    config.workers.idle = Idle::Spin;
    site.dataplane.apply(&config).unwrap();
    let workers = site.dataplane.workers();
    assert_eq!(workers.iter().map(|worker| worker.core).collect::<Vec<_>>(), [cores()[0]; 2]);
    let parameters = libc::sched_param { sched_priority: 0 };
    for id in threads("weir-worker-1") {
        // SAFETY: the pointer is that of a live value.
        assert_eq!(unsafe { libc::sched_setscheduler(id, libc::SCHED_IDLE, &parameters) }, 0);
    }
    let taps = site.taps();
    let noise = Traffic::default();
    std::thread::scope(|scope| {
        let _ending = Ending(&noise);
        noise.flood(scope, &taps[0], 0, 1);
        site.serve_until("the ring is full", || {
            site.dataplane.counters().dropped.get("handoff_queue_full").is_some_and(|count| *count > 100)
        });
    });
    let stopped = site.stop();
    assert!(stopped.counters.handed_in > 0);
}

#[test]
fn idle_workers_block_and_a_packet_wakes_them() {
    if !privileged("idle_workers_block_and_a_packet_wakes_them") {
        return;
    }
    let _turn = alone();
    let site = Site::start(1, 0);
    let [left, right, _] = site.taps();
    let used = || -> Duration {
        let ids = ["weir-worker-0", "weir-worker-1"].map(threads).concat();
        assert_eq!(ids.len(), 2);
        let on_core = |id: &i32| {
            let schedstat = std::fs::read_to_string(format!("/proc/self/task/{id}/schedstat")).unwrap();
            schedstat.split_whitespace().next().unwrap().parse::<u64>().unwrap()
        };
        Duration::from_nanos(ids.iter().map(on_core).sum())
    };
    // Until both announcements of the ports' addresses are over.
    std::thread::sleep(Duration::from_secs(3));
    site.quiet();
    for _ in 0..3 {
        let before = (used(), site.dataplane.workers());
        std::thread::sleep(Duration::from_secs(1));
        let after = (used(), site.dataplane.workers());
        assert!(
            after.0 - before.0 < Duration::from_millis(50),
            "{:?} of CPU in one second",
            after.0 - before.0
        );
        for (before, after) in before.1.iter().zip(&after.1) {
            assert!(after.loops > before.loops, "an idle worker still looks at its timers");
            assert!(after.loops < before.loops + 200, "an idle worker does not spin");
        }
        // From one worker's port to the other's: two wake-ups.
        let begun = Instant::now();
        left.send(&datagram(0, 1, 0, COUNTED));
        assert!(right.receive(SOON, is_counted).is_some());
        assert!(begun.elapsed() < Duration::from_millis(50), "{:?}", begun.elapsed());
        site.quiet();
    }
    // The three, and both announcements of the address of the other worker's port.
    assert_eq!(site.stop().counters.handed_out, 3 + 2);
}

#[test]
fn a_start_that_fails_takes_nothing_and_the_next_one_works() {
    if !privileged("a_start_that_fails_takes_nothing_and_the_next_one_works") {
        return;
    }
    let _turn = alone();
    let site = Site::new(2);
    let mut elsewhere = site.config(0);
    elsewhere.workers.cores = Cores::List(vec![cores()[0], 1023]);
    let error = site.dataplane.apply(&elsewhere).unwrap_err();
    assert!(error.to_string().contains("core 1023 is not in the affinity mask"), "{error}");
    let missing = configured(&site.text(SPARE).replace(&site.wires[2].device, "wx-none"));
    for _ in 0..5 {
        let error = site.dataplane.apply(&missing).unwrap_err();
        assert!(matches!(error, ApplyError::Port { .. }), "{error}");
    }
    assert!(site.wires.iter().all(|wire| !wire.has_xdp()));
    assert!(site.dataplane.stop().is_none());
    site.dataplane.apply(&site.config(SPARE)).unwrap();
    site.stop();
}
