//! A configuration that is refused, a port that moves.

use super::*;

#[test]
fn a_configuration_that_is_refused_disturbs_no_packet() {
    if !privileged("a_configuration_that_is_refused_disturbs_no_packet") {
        return;
    }
    let _turn = alone();
    let site = Site::start(1, 0);
    let taps = site.taps();
    let traffic = Traffic::default();
    let running = site.dataplane.config();
    std::thread::scope(|scope| {
        let _ending = Ending(&traffic);
        for (from, to) in [(0, 1), (1, 0)] {
            traffic.count(scope, &taps[to]);
            traffic.stream(scope, &taps[from], from, to);
        }
        let refused = |what: &str, config: &Config| -> ApplyError {
            let before = traffic.arrived();
            let error = site.dataplane.apply(config).expect_err(what);
            assert_eq!(site.dataplane.generation(), 1, "{what}: {error}");
            assert!(Arc::ptr_eq(&running, &site.dataplane.config()), "{what}: {error}");
            site.serve_until(what, || traffic.arrived() > before + 20);
            assert!(!site.wires[2].has_xdp(), "{what}: the spare device was kept");
            error
        };
        let [left, spare] = [0, 2].map(|n: usize| site.wires[n].device.as_str());
        let base = site.text(0);
        let changed = |from: &str, to: &str| configured(&base.replace(from, to));
        for _ in 0..3 {
            let error = refused(
                "another port without a device",
                &configured(&format!(
                    "{}[port.more]\ndevice = \"wx-none\"\nmode = \"dedicated\"\n",
                    site.text(SPARE)
                )),
            );
            assert!(error.to_string().contains("more"), "{error}");
            refused("a device that is not there", &changed(left, "wx-none"));
            // The port moves, and what it moves to could be opened, but it does not compile.
            let moved = base.replace(left, spare).replace("[port.right]", "[port.right]\nmtu = 1600");
            refused("an MTU that the device has not", &configured(&moved));
            refused("other memory", &changed("frames = 16384", "frames = 8192"));
            let mut workers = (*running).clone();
            workers.workers.idle = Idle::Spin;
            let error = refused("other workers", &workers);
            assert!(matches!(error, ApplyError::NeedsRestart(_)), "{error}");
        }
    });
    let counters = site.quiet();
    assert_eq!((dropped(&counters), site.missed()), (0, 0), "{counters:?}");
    assert_eq!(traffic.arrived(), traffic.sent());
    site.stop();
}

#[test]
fn a_port_moves_to_another_device_and_back() {
    if !privileged("a_port_moves_to_another_device_and_back") {
        return;
    }
    let _turn = alone();
    let site = Site::start(1, 0);
    let [left, right, spare] = site.taps();
    let assert_even = || {
        let ports = site.dataplane.ports();
        let mut workers: Vec<_> =
            ports.iter().flat_map(|port| &port.queues).map(|queue| queue.worker).collect();
        workers.sort_unstable();
        assert_eq!(workers, [0, 1], "the queues stay dealt out evenly");
    };
    let base = site.text(0);
    let moved = base.replace(&site.wires[0].device, &site.wires[2].device);
    for (text, tap) in [(&moved, &spare), (&base, &left), (&moved, &spare)] {
        site.dataplane.apply(&configured(text)).unwrap();
        assert_even();
        let other = if std::ptr::eq(tap, &spare) { 0 } else { 2 };
        assert!(!site.wires[other].has_xdp());
        tap.send(&datagram(0, 1, 0, COUNTED));
        assert!(right.receive(SOON, is_counted).is_some());
        right.send(&datagram(1, 0, 0, COUNTED));
        assert!(tap.receive(SOON, is_counted).is_some());
    }
    // Two ports swap their devices.
    let [a, b] = [1, 2].map(|n: usize| site.wires[n].device.as_str());
    let swapped = moved.replace(a, "?").replace(b, a).replace('?', b);
    site.dataplane.apply(&configured(&swapped)).unwrap();
    assert_even();
    right.send(&datagram(0, 1, 0, COUNTED));
    assert!(spare.receive(SOON, is_counted).is_some());
    assert_conserved(&site.quiet());
    site.stop();
}
