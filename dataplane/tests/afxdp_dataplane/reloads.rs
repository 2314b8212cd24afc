//! Configurations and devices come and go, and the data plane ends, under load.

use super::*;

fn reloads_under_traffic(queues: u32, flood: bool) {
    let _turn = alone();
    let site = Site::start(queues, 0);
    let taps = site.taps();
    let (traffic, mut random) = (Traffic::default(), 0x5eed_0000 + queues);
    let mut generations: Vec<Weak<Config>> = Vec::new();
    std::thread::scope(|scope| {
        let _ending = Ending(&traffic);
        for (from, to) in [(0, 1), (1, 0)] {
            if flood {
                traffic.flood(scope, &taps[from], from, to);
            } else {
                traffic.count(scope, &taps[to]);
                traffic.stream(scope, &taps[from], from, to);
            }
        }
        if !flood {
            // To a prefix behind the spare port while it is there, else behind the right one.
            traffic.count(scope, &taps[2]);
            traffic.stream(scope, &taps[0], 0, 9);
        }
        for _ in 0..10 {
            generations.push(Arc::downgrade(&site.dataplane.config()));
            let options = next(&mut random) >> 8 & 15;
            let generation = site.dataplane.apply(&site.config(options)).unwrap();
            assert_eq!(site.dataplane.generation(), generation);
            let behind = |worker: &WorkerStatus| worker.generation != generation;
            assert!(!site.dataplane.workers().iter().any(behind), "a worker did not follow");
            site.dataplane.service();
            std::thread::sleep(Duration::from_millis(20));
        }
    });
    let counters = site.quiet();
    assert_conserved(&counters);
    // Old generations are freed: by the control thread, or the debug build would have ended this process.
    let alive = generations.iter().filter(|config| config.strong_count() > 0).count();
    assert_eq!(alive, 0, "snapshots of {alive} old generations are still there");
    if queues == 1 {
        assert!(counters.handed_out > 0, "{counters:?}");
    }
    if !flood {
        let (sent, arrived) = (traffic.sent(), traffic.arrived());
        assert_eq!((dropped(&counters), site.missed()), (0, 0), "{counters:?}");
        assert!(sent > 500 && arrived == sent, "{sent} sent, {arrived} arrived: {counters:?}");
    }
    let stopped = site.stop();
    assert_eq!(stopped.counters.received, counters.received);
}

#[test]
fn reloads_under_full_load_conserve_every_packet_and_free_every_generation() {
    if privileged("reloads_under_full_load_conserve_every_packet_and_free_every_generation") {
        [1, 2, 4].into_iter().for_each(|queues| reloads_under_traffic(queues, true));
    }
}

#[test]
fn reloads_lose_no_packet() {
    if privileged("reloads_lose_no_packet") {
        [1, 2].into_iter().for_each(|queues| reloads_under_traffic(queues, false));
    }
}

#[test]
fn a_device_may_be_deleted_and_made_again_ten_times_under_traffic() {
    if !privileged("a_device_may_be_deleted_and_made_again_ten_times_under_traffic") {
        return;
    }
    let _turn = alone();
    let site = Site::start(2, SPARE);
    let [_, right, spare] = site.taps();
    let (traffic, through) = (Traffic::default(), Traffic::default());
    let polled = |name: &str| -> Vec<usize> {
        let ports = site.dataplane.ports();
        let port = ports.iter().find(|port| port.name == name).unwrap();
        port.queues.iter().map(|queue| queue.worker).collect()
    };
    std::thread::scope(|scope| {
        let (_ending, _through) = (Ending(&traffic), Ending(&through));
        // Towards the port that vanishes, and past it.
        traffic.flood(scope, &right, 1, 0);
        through.count(scope, &right);
        through.stream(scope, &spare, 2, 1);
        for round in 1..=10 {
            let left = site.wires[0].tap();
            let (here, probe) = (Traffic::default(), site.wires[1].tap());
            left.send(&datagram(0, 1, 0, PROBE));
            assert!(probe.receive(SOON, |bytes| is_to(bytes, PROBE)).is_some(), "round {round}");
            assert!(left.receive(SOON, |bytes| is_to(bytes, NOISE)).is_some(), "round {round}");
            std::thread::scope(|scope| {
                let _ending = Ending(&here);
                here.flood(scope, &left, 0, 1);
                let before = through.arrived();
                site.serve_until("traffic past the port", || through.arrived() > before + 20);
                site.wires[0].unplug();
            });
            site.wires[0].plug();
            site.dataplane.device_changed(&site.wires[0].device);
            site.serve_until("bound again", || {
                let ports = site.dataplane.ports();
                ports.iter().any(|port| port.name == "left" && port.state == "up" && port.rebinds >= round)
            });
            let mut workers = polled("left");
            workers.sort_unstable();
            assert_eq!(workers, [0, 1], "the queues stay dealt out evenly");
        }
        let ports = site.dataplane.ports();
        let rebinds: Vec<u64> = ports.iter().map(|port| port.rebinds).collect();
        assert_eq!(rebinds, [10, 0, 0], "once for each deletion, and nothing else is touched");
    });
    // The fresh device works in both directions.
    let (left, right) = (site.wires[0].tap(), site.wires[1].tap());
    left.send(&datagram(0, 1, 0, COUNTED));
    assert!(right.receive(SOON, is_counted).is_some());
    right.send(&datagram(1, 0, 0, COUNTED));
    assert!(left.receive(SOON, is_counted).is_some());
    assert_conserved(&site.quiet());
    site.stop();
}

#[test]
fn stopping_under_full_load_is_quick_and_gives_every_frame_back() {
    if !privileged("stopping_under_full_load_is_quick_and_gives_every_frame_back") {
        return;
    }
    let _turn = alone();
    let site = Site::new(2);
    let taps = site.taps();
    let traffic = Traffic::default();
    std::thread::scope(|scope| {
        let _ending = Ending(&traffic);
        for (from, to) in [(0, 1), (1, 0), (2, 1)] {
            traffic.flood(scope, &taps[from], from, to);
        }
        for _ in 0..3 {
            assert_eq!(site.dataplane.apply(&site.config(SPARE)).unwrap(), 1);
            std::thread::sleep(Duration::from_millis(200));
            let begun = Instant::now();
            let stopped = site.stop();
            assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
            assert!(stopped.counters.transmitted > 0);
            assert!(site.dataplane.stop().is_none());
        }
    });
}

#[test]
fn what_comes_while_weir_starts_finds_every_port_able_to_send() {
    if !privileged("what_comes_while_weir_starts_finds_every_port_able_to_send") {
        return;
    }
    let _turn = alone();
    let site = Site::new(1);
    let taps = site.taps();
    let traffic = Traffic::default();
    std::thread::scope(|scope| {
        let _ending = Ending(&traffic);
        traffic.flood(scope, &taps[0], 0, 1);
        traffic.flood(scope, &taps[2], 2, 1);
        for _ in 0..5 {
            assert_eq!(site.dataplane.apply(&site.config(SPARE)).unwrap(), 1);
            site.serve_until("traffic", || site.dataplane.counters().received > 1000);
            let counters = site.dataplane.counters();
            assert_eq!(counters.dropped.get("interface_down"), None, "{counters:?}");
            site.stop();
        }
    });
}
