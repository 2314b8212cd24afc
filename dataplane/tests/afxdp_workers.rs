//! Two workers forward between two AF_XDP ports, each with its own cache: every frame is accounted for.

mod support;

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use support::{EXPERIMENT, Memory, SOON, Tap, Wire, experiment, privileged};
use weir_config::{PortMode, XdpMode};
use weir_dataplane::frame::{BURST, Frame, FrameCache};
use weir_dataplane::io::PortQueue;
use weir_dataplane::io::afxdp::AfXdpQueue;

/// What a worker did with frames.
#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    received: u64,
    sent: u64,
    dropped: u64,
}

/// Forwards between the two queues until told to stop and both are idle; frees what it cannot send.
fn work(mut queues: [AfXdpQueue; 2], mut cache: FrameCache, stop: &AtomicBool) -> (Tally, [AfXdpQueue; 2]) {
    let mut tally = Tally::default();
    let mut burst: Vec<Frame> = Vec::with_capacity(BURST);
    loop {
        let mut idle = true;
        for (from, to) in [(0, 1), (1, 0)] {
            queues[from].service(&mut cache);
            let received = queues[from].receive(&mut burst, BURST, &mut cache) as u64;
            let sent = queues[to].transmit(&mut burst, &mut cache) as u64;
            tally.received += received;
            tally.sent += sent;
            tally.dropped += received - sent;
            burst.drain(..).for_each(|frame| cache.free(frame));
            idle &= received == 0;
        }
        if idle {
            if stop.load(Ordering::Relaxed) {
                break;
            }
            std::thread::sleep(Duration::from_micros(100));
        }
    }
    queues.iter_mut().for_each(|queue| queue.close(&mut cache));
    (tally, queues)
}

/// Sends `count` frames slowly enough for the far end of the other wire, which counts those that come through.
fn exchange(from: &Tap, to: &Tap, count: u32) -> usize {
    std::thread::scope(|scope| {
        let arrived = scope.spawn(|| {
            let ours = |frame: &[u8]| frame.get(12..14) == Some(&EXPERIMENT);
            (0..count).take_while(|_| to.receive(SOON, ours).is_some()).count()
        });
        for n in 0..count {
            from.send(&experiment(n, 60 + n as usize % 1400));
            if n % 64 == 63 {
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        arrived.join().unwrap_or(0)
    })
}

#[test]
fn two_workers_forward_between_two_ports_and_no_frame_is_unaccounted_for() {
    if !privileged("two_workers_forward_between_two_ports_and_no_frame_is_unaccounted_for") {
        return;
    }
    let (left, right) = (Wire::new(2), Wire::new(2));
    let (left_tap, right_tap) = (left.tap(), right.tap());
    let mut memory = Memory::new(16384);
    let (_left_port, left_queues) = memory.open(&left.options(PortMode::Dedicated, XdpMode::Native));
    let (_right_port, right_queues) = memory.open(&right.options(PortMode::Dedicated, XdpMode::Native));
    let stop = AtomicBool::new(false);
    let (tallies, queues): (Vec<Tally>, Vec<[AfXdpQueue; 2]>) = std::thread::scope(|scope| {
        let workers: Vec<_> = left_queues
            .into_iter()
            .zip(right_queues)
            .map(|(left, right)| {
                let cache = FrameCache::new(memory.pool.clone());
                let stop = &stop;
                scope.spawn(move || work([left, right], cache, stop))
            })
            .collect();
        assert_eq!(exchange(&left_tap, &right_tap, 5000), 5000);
        assert_eq!(exchange(&right_tap, &left_tap, 5000), 5000);
        stop.store(true, Ordering::Relaxed);
        workers.into_iter().filter_map(|worker| worker.join().ok()).unzip()
    });
    assert_eq!(tallies.len(), 2);
    let sum = |of: fn(&Tally) -> u64| tallies.iter().map(of).sum::<u64>();
    assert!(sum(|tally| tally.received) >= 10_000);
    assert_eq!(sum(|tally| tally.received), sum(|tally| tally.sent) + sum(|tally| tally.dropped));
    let counters = || queues.iter().flatten().map(|queue| queue.counters());
    assert_eq!(counters().map(|c| c.rx_frames).sum::<u64>(), sum(|tally| tally.received));
    assert_eq!(counters().map(|c| c.tx_frames).sum::<u64>(), sum(|tally| tally.sent));
    assert_eq!(counters().map(|c| c.invalid + c.copies + c.rx_missed).sum::<u64>(), 0);
    drop(queues);
    assert_eq!(memory.free_frames(), 16384);
}

#[test]
fn a_port_that_vanishes_under_load_costs_no_frame_of_the_pool_and_comes_back() {
    if !privileged("a_port_that_vanishes_under_load_costs_no_frame_of_the_pool_and_comes_back") {
        return;
    }
    let (left, right) = (Wire::new(1), Wire::new(1));
    let mut memory = Memory::new(16384);
    let (_left_port, mut left_queues) = memory.open(&left.options(PortMode::Dedicated, XdpMode::Native));
    let left_tap = left.tap();
    for _ in 0..3 {
        let (right_port, mut right_queues) =
            memory.open(&right.options(PortMode::Dedicated, XdpMode::Native));
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for n in 0.. {
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                    left_tap.send(&experiment(n, 60));
                    if n % 32 == 31 {
                        std::thread::sleep(Duration::from_micros(500));
                    }
                }
            });
            let mut burst = Vec::with_capacity(BURST);
            let (started, mut unplugged) = (Instant::now(), false);
            while right_queues[0].alive() && started.elapsed() < SOON {
                left_queues[0].service(&mut memory.cache);
                right_queues[0].service(&mut memory.cache);
                left_queues[0].receive(&mut burst, BURST, &mut memory.cache);
                right_queues[0].transmit(&mut burst, &mut memory.cache);
                burst.drain(..).for_each(|frame| memory.cache.free(frame));
                if !unplugged && started.elapsed() > Duration::from_millis(100) {
                    right.unplug();
                    unplugged = true;
                }
            }
            stop.store(true, Ordering::Relaxed);
        });
        assert!(!right_queues[0].alive(), "the queue did not notice under load");
        assert!(right_queues[0].counters().tx_frames > 0);
        right_queues[0].close(&mut memory.cache);
        drop(right_port);
        right.plug();
    }
    left_queues[0].close(&mut memory.cache);
    assert_eq!(memory.free_frames(), 16384);
}
