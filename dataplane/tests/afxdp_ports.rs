//! AF_XDP ports on real sockets: veth pairs, both copying modes, several queues, devices that come and go.
#![allow(unsafe_code, clippy::unwrap_used)]

mod support;

use std::time::Duration;

use support::{Memory, NEVER, SOON, Wire, experiment, number, privileged, run};
use weir_config::{PortMode, XdpMode};
use weir_dataplane::io::afxdp::{AfXdpPort, OpenError, XdpObtained};
use weir_dataplane::io::{Port, PortQueue};

fn frames_go_in_and_out(xdp: XdpMode, expected: XdpObtained) {
    let wire = Wire::new(1);
    let tap = wire.tap();
    let mut memory = Memory::new(4096);
    let (port, mut queues) = memory.open(&wire.options(PortMode::Dedicated, xdp));
    assert_eq!(port.info().backend.xdp(), Some(expected));
    assert_eq!((port.info().driver.as_str(), port.info().queues, port.info().mtu), ("veth", 1, 1500));
    for n in 0..200 {
        tap.send(&experiment(n, 60 + 7 * n as usize));
    }
    let mut frames = memory.receive(&mut queues, 200, SOON);
    assert_eq!(frames.len(), 200);
    for (n, frame) in (0..).zip(&frames) {
        assert_eq!(frame.bytes(), experiment(n, 60 + 7 * n as usize));
        assert_eq!(frame.headroom(), 256);
    }
    // Back out: encapsulated into the headroom, decapsulated from the front, or as it came.
    let queue = &mut queues[0];
    for frame in &mut frames {
        match number(frame.bytes()) % 3 {
            0 => {
                let old = frame.bytes()[..14].to_vec();
                assert!(frame.grow_front(50));
                frame.bytes_mut()[..14].copy_from_slice(&old);
                frame.bytes_mut()[14..18].copy_from_slice(&7u32.to_be_bytes());
            }
            1 => {
                let old = frame.bytes()[..18].to_vec();
                assert!(frame.strip(10));
                frame.bytes_mut()[..18].copy_from_slice(&old);
            }
            _ => {}
        }
    }
    let expected: Vec<Vec<u8>> = frames.iter().map(|frame| frame.bytes().to_vec()).collect();
    let received = std::thread::scope(|scope| {
        let taps = scope.spawn(|| {
            let wanted = |bytes: &[u8]| bytes.get(12..14) == Some(&support::EXPERIMENT);
            (0..200).map_while(|_| tap.receive(SOON, wanted)).collect::<Vec<_>>()
        });
        while !frames.is_empty() {
            queue.transmit(&mut frames, &mut memory.cache);
            queue.service(&mut memory.cache);
        }
        taps.join().unwrap()
    });
    assert_eq!(received.len(), 200);
    for (n, (received, expected)) in received.iter().zip(&expected).enumerate() {
        assert_eq!(received, expected, "frame {n}");
    }
    let counters = queue.counters();
    assert_eq!(counters.tx_frames, 200);
    assert_eq!(counters.tx_bytes, expected.iter().map(|frame| frame.len() as u64).sum::<u64>());
    assert!(counters.rx_frames >= 200);
    assert_eq!((counters.rx_missed, counters.invalid, counters.copies), (0, 0, 0));
    queue.close(&mut memory.cache);
    assert_eq!(memory.free_frames(), 4096);
}

#[test]
fn frames_go_in_and_out_in_native_mode() {
    if privileged("frames_go_in_and_out_in_native_mode") {
        frames_go_in_and_out(XdpMode::Native, XdpObtained::NativeCopy);
    }
}

#[test]
fn frames_go_in_and_out_in_generic_mode() {
    if privileged("frames_go_in_and_out_in_generic_mode") {
        frames_go_in_and_out(XdpMode::Generic, XdpObtained::Generic);
    }
}

#[test]
fn what_was_refused_before_the_mode_obtained_is_said() {
    if !privileged("what_was_refused_before_the_mode_obtained_is_said") {
        return;
    }
    let wire = Wire::new(1);
    let mut memory = Memory::new(4096);
    let (port, mut queues) = memory.open(&wire.options(PortMode::Dedicated, XdpMode::Auto));
    assert_eq!(port.info().backend.xdp(), Some(XdpObtained::NativeCopy));
    // What was tried before leaves no trace: the queues live, now and after many looks at the device.
    memory.receive(&mut queues, 1, NEVER * 3);
    assert!(queues.iter().all(PortQueue::alive));
    let refused = port.info().refused.join("\n");
    assert!(refused.starts_with("zero-copy: queue 0: binding: the driver does not support it"), "{refused}");
}

#[test]
fn several_queues_of_two_ports_share_one_memory_and_frames_cross_without_a_copy() {
    if !privileged("several_queues_of_two_ports_share_one_memory_and_frames_cross_without_a_copy") {
        return;
    }
    let (left, right) = (Wire::new(4), Wire::new(2));
    let (from, to) = (left.tap(), right.tap());
    let mut memory = Memory::new(16384);
    let (left_port, mut left_queues) = memory.open(&left.options(PortMode::Dedicated, XdpMode::Native));
    let (right_port, mut right_queues) = memory.open(&right.options(PortMode::Dedicated, XdpMode::Native));
    assert_eq!((left_port.info().queues, left_queues.len()), (4, 4));
    assert_eq!((right_port.info().queues, right_queues.len()), (2, 2));

    // Every queue of the left port has a socket: spread the frames by flow, none is lost.
    for n in 0..256u32 {
        from.send(&udp_frame(n));
    }
    let is_udp = |bytes: &[u8]| bytes.get(12..14) == Some(&[8, 0]) && bytes.get(23) == Some(&17);
    let mut frames = memory.receive_if(&mut left_queues, 256, SOON, is_udp);
    assert_eq!(frames.len(), 256);
    let used = left_queues.iter().filter(|queue| queue.counters().rx_frames > 0).count();
    assert!(used > 1, "all frames came by one queue");

    let addresses: Vec<*const u8> = frames.iter().map(|frame| frame.bytes().as_ptr()).collect();
    let mut turn = 0;
    let received = std::thread::scope(|scope| {
        let taps = scope.spawn(|| (0..256).map_while(|_| to.receive(SOON, is_udp)).collect::<Vec<_>>());
        while !frames.is_empty() {
            let mut few = frames.drain(..frames.len().min(16)).collect::<Vec<_>>();
            let queue = &mut right_queues[turn % 2];
            turn += 1;
            queue.transmit(&mut few, &mut memory.cache);
            frames.splice(0..0, few);
            right_queues.iter_mut().for_each(|queue| queue.service(&mut memory.cache));
        }
        taps.join().unwrap()
    });
    let ports: std::collections::BTreeSet<_> = received.iter().map(|bytes| bytes[34..36].to_vec()).collect();
    assert_eq!((received.len(), ports.len(), addresses.len()), (256, 256, 256));
    for queue in left_queues.iter_mut().chain(&mut right_queues) {
        assert_eq!(queue.counters().copies, 0);
        queue.close(&mut memory.cache);
    }
    assert_eq!(memory.free_frames(), 16384);
}

/// A UDP frame from source port `1000 + n`; checksums do not matter here.
fn udp_frame(n: u32) -> Vec<u8> {
    let mut frame = vec![0xff; 6];
    frame.extend([2, 0, 0, 0, 0, 9, 8, 0]);
    frame.extend([0x45, 0, 0, 46, 0, 0, 0, 0, 64, 17, 0, 0, 192, 0, 2, 9, 192, 0, 2, 10]);
    frame.extend((1000 + n as u16).to_be_bytes());
    frame.extend([0, 7, 0, 26, 0, 0]);
    frame.resize(60, 0);
    frame
}

#[test]
fn a_frame_of_another_memory_is_copied_and_counted() {
    if !privileged("a_frame_of_another_memory_is_copied_and_counted") {
        return;
    }
    let wire = Wire::new(1);
    let tap = wire.tap();
    let (memory, mut other) = (Memory::new(4096), Memory::new(16));
    let (_port, mut queues) = memory.open(&wire.options(PortMode::Dedicated, XdpMode::Native));
    let mut frames = vec![other.frame(&experiment(5, 100))];
    assert_eq!(queues[0].transmit(&mut frames, &mut other.cache), 1);
    let wanted = |bytes: &[u8]| bytes.get(12..14) == Some(&support::EXPERIMENT);
    assert_eq!(tap.receive(SOON, wanted), Some(experiment(5, 100)));
    assert_eq!(queues[0].counters().copies, 1);
    queues[0].service(&mut other.cache);
    queues[0].close(&mut other.cache);
    assert_eq!(other.free_frames(), 16);
    assert_eq!(memory.pool.available(), 4096);
}

#[test]
fn opening_and_closing_twenty_times_leaves_the_pool_whole() {
    if !privileged("opening_and_closing_twenty_times_leaves_the_pool_whole") {
        return;
    }
    let wire = Wire::new(2);
    let tap = wire.tap();
    let mut memory = Memory::new(8192);
    for round in 0..20u32 {
        let xdp = if round % 4 == 3 { XdpMode::Generic } else { XdpMode::Native };
        let (port, mut queues) = memory.open(&wire.options(PortMode::Dedicated, xdp));
        for n in 0..50 {
            tap.send(&experiment(n, 60));
        }
        // Some are received and held, some sent, some left in the rings.
        let mut held = memory.receive(&mut queues, 20, SOON);
        assert!(held.len() >= 20, "round {round}: {} frames", held.len());
        queues[0].transmit(&mut held, &mut memory.cache);
        memory.free(held);
        drop(port);
        if round % 2 == 0 {
            queues.iter_mut().for_each(|queue| queue.close(&mut memory.cache));
        }
        drop(queues);
        assert_eq!(memory.free_frames(), 8192, "round {round}");
        assert!(!wire.has_xdp(), "round {round}");
    }
}

#[test]
fn a_device_that_is_deleted_ends_its_queues_and_can_be_opened_again_by_name() {
    if !privileged("a_device_that_is_deleted_ends_its_queues_and_can_be_opened_again_by_name") {
        return;
    }
    let wire = Wire::new(2);
    let mut memory = Memory::new(8192);
    let options = wire.options(PortMode::Dedicated, XdpMode::Native);
    let (port, mut queues) = memory.open(&options);
    let first = port.info().ifindex;
    assert!(port.link().present && port.link().carrier);
    wire.unplug();
    // The queues find out by themselves, without the port's help.
    memory.receive(&mut queues, 1, SOON / 3);
    assert!(queues.iter().all(|queue| !queue.alive()));
    assert!(!port.link().present);
    let gone = AfXdpPort::open(&options, &memory.pool).unwrap_err();
    assert!(matches!(gone, OpenError::NoDevice { .. }), "{gone}");
    queues.iter_mut().for_each(|queue| queue.close(&mut memory.cache));
    drop(port);
    assert_eq!(memory.free_frames(), 8192);

    wire.plug();
    let tap = wire.tap();
    let (port, mut queues) = memory.open(&options);
    assert_ne!(port.info().ifindex, first);
    tap.send(&experiment(1, 60));
    let frames = memory.receive(&mut queues, 1, SOON);
    assert_eq!(frames.len(), 1);
    assert!(queues.iter().all(PortQueue::alive));
    memory.free(frames);
}

#[test]
fn the_port_tells_its_queues_that_the_device_is_gone() {
    if !privileged("the_port_tells_its_queues_that_the_device_is_gone") {
        return;
    }
    let wire = Wire::new(1);
    let memory = Memory::new(4096);
    let (port, queues) = memory.open(&wire.options(PortMode::Dedicated, XdpMode::Native));
    wire.unplug();
    assert!(queues[0].alive());
    assert!(!port.link().present);
    assert!(!queues[0].alive());
}

#[test]
fn a_queue_of_a_device_that_is_down_lives_and_goes_on_when_it_is_up() {
    if !privileged("a_queue_of_a_device_that_is_down_lives_and_goes_on_when_it_is_up") {
        return;
    }
    let wire = Wire::new(1);
    let mut memory = Memory::new(4096);
    let (port, mut queues) = memory.open(&wire.options(PortMode::Dedicated, XdpMode::Native));
    wire.down();
    let mut frames = vec![memory.frame(&experiment(1, 60))];
    queues[0].transmit(&mut frames, &mut memory.cache);
    memory.receive(&mut queues, 1, NEVER * 3);
    assert!(queues[0].alive() && !port.link().carrier && port.link().present);
    wire.up();
    let tap = wire.tap();
    tap.send(&experiment(2, 60));
    let frames = memory.receive(&mut queues, 1, SOON);
    assert_eq!(frames.iter().map(|frame| number(frame.bytes())).collect::<Vec<_>>(), [2]);
    memory.free(frames);
    queues[0].close(&mut memory.cache);
    assert_eq!(memory.free_frames(), 4096);
}

#[test]
fn a_dedicated_device_that_is_down_is_brought_up() {
    if !privileged("a_dedicated_device_that_is_down_is_brought_up") {
        return;
    }
    let wire = Wire::new(1);
    wire.down();
    let memory = Memory::new(4096);
    let (port, _queues) = memory.open(&wire.options(PortMode::Dedicated, XdpMode::Native));
    assert!(port.link().carrier);
}

#[test]
fn poll_wakes_when_a_frame_comes() {
    if !privileged("poll_wakes_when_a_frame_comes") {
        return;
    }
    let wire = Wire::new(1);
    let tap = wire.tap();
    let mut memory = Memory::new(4096);
    let (_port, mut queues) = memory.open(&wire.options(PortMode::Dedicated, XdpMode::Native));
    let poll = |queue: &dyn PortQueue, time: Duration| {
        let mut fd = libc::pollfd { fd: queue.descriptor().unwrap(), events: libc::POLLIN, revents: 0 };
        // SAFETY: one valid pollfd.
        unsafe { libc::poll(&mut fd, 1, time.as_millis() as i32) }
    };
    memory.receive(&mut queues, 1, NEVER);
    assert_eq!(poll(&queues[0], NEVER), 0);
    let woken = std::thread::scope(|scope| {
        scope.spawn(|| {
            std::thread::sleep(NEVER);
            tap.send(&experiment(1, 60));
        });
        poll(&queues[0], SOON)
    });
    assert_eq!(woken, 1);
    let frames = memory.receive(&mut queues, 1, SOON);
    assert_eq!(frames.len(), 1);
    memory.free(frames);
}

#[test]
fn what_cannot_be_opened_is_an_error_in_words_and_takes_nothing() {
    if !privileged("what_cannot_be_opened_is_an_error_in_words_and_takes_nothing") {
        return;
    }
    let wire = Wire::new(2);
    let mut memory = Memory::new(8192);
    let options = wire.options(PortMode::Dedicated, XdpMode::Native);
    let text = |memory: &Memory, options| AfXdpPort::open(options, &memory.pool).unwrap_err().to_string();

    run(&format!("ip link set {} mtu 1771", wire.device));
    let error = text(&memory, &options);
    assert!(error.contains("has an MTU of 1771") && error.contains("at most 1770"), "{error}");
    run(&format!("ip link set {} mtu 1770", wire.device));

    let few = Memory::new(1024);
    let error = text(&few, &options);
    assert!(error.contains("its 2 queues need 4096 frames and 1024 are free"), "{error}");

    let first = memory.open(&options);
    let mut again = options.clone();
    again.busy_wait = Duration::from_millis(50);
    let error = text(&memory, &again);
    assert!(error.contains("another XDP program or socket has the device"), "{error}");
    drop(first);
    assert_eq!(memory.free_frames(), 8192);
    drop(memory.open(&options));
    assert_eq!(memory.free_frames(), 8192);
}

#[test]
fn a_full_transmit_ring_leaves_frames_with_the_caller() {
    if !privileged("a_full_transmit_ring_leaves_frames_with_the_caller") {
        return;
    }
    let wire = Wire::new(1);
    let mut memory = Memory::new(4096);
    let mut options = wire.options(PortMode::Dedicated, XdpMode::Native);
    options.tx_ring = 64;
    let (_port, mut queues) = memory.open(&options);
    wire.down();
    let mut frames: Vec<_> = (0..70).map(|n| memory.frame(&experiment(n, 60))).collect();
    assert_eq!(queues[0].transmit(&mut frames, &mut memory.cache), 64);
    assert_eq!(queues[0].transmit(&mut frames, &mut memory.cache), 0);
    assert_eq!(
        frames.iter().map(|frame| number(frame.bytes())).collect::<Vec<_>>(),
        [64, 65, 66, 67, 68, 69]
    );
    wire.up();
    let end = std::time::Instant::now() + SOON;
    while !frames.is_empty() && std::time::Instant::now() < end {
        queues[0].service(&mut memory.cache);
        queues[0].transmit(&mut frames, &mut memory.cache);
    }
    assert!(frames.is_empty());
    queues[0].close(&mut memory.cache);
    assert_eq!(memory.free_frames(), 4096);
}

#[test]
fn frames_that_a_full_ring_missed_are_counted_exactly() {
    if !privileged("frames_that_a_full_ring_missed_are_counted_exactly") {
        return;
    }
    for xdp in [XdpMode::Native, XdpMode::Generic] {
        let wire = Wire::new(1);
        let tap = wire.tap();
        let mut memory = Memory::new(4096);
        let mut options = wire.options(PortMode::Dedicated, xdp);
        options.rx_ring = 64;
        let (port, mut queues) = memory.open(&options);
        for n in 0..300 {
            tap.send(&experiment(n, 60));
        }
        let frames = memory.receive(&mut queues, 64, SOON);
        assert_eq!(frames.len(), 64);
        memory.free(frames);
        // Another one passes, and after some idle polls the counters are fresh.
        tap.send(&experiment(1000, 60));
        let frames = memory.receive(&mut queues, 2, NEVER * 4);
        assert_eq!(frames.iter().map(|frame| number(frame.bytes())).collect::<Vec<_>>(), [1000]);
        memory.free(frames);
        queues[0].close(&mut memory.cache);
        let counters = queues[0].counters();
        // The kernel itself may have sent or heard a frame or two more; none is unaccounted for.
        assert_eq!(counters.rx_frames + counters.rx_missed, port.counters().redirected, "{xdp:?}");
        assert!(counters.rx_missed >= 236, "{xdp:?}: {counters:?}");
        assert_eq!(memory.free_frames(), 4096);
    }
}

/// Names the device to the child.
const DEVICE: &str = "WEIR_TEST_OPEN_DEVICE";

/// Not a test by itself: the child of the test below.
#[test]
#[allow(clippy::print_stdout)]
fn child_that_opens_a_port() {
    let Ok(device) = std::env::var(DEVICE) else { return };
    let options = weir_dataplane::io::afxdp::OpenOptions::new(device, PortMode::Dedicated, XdpMode::Auto);
    match AfXdpPort::open(&options, &Memory::new(8192).pool) {
        Ok(_) => println!("\nopened"),
        Err(error) => println!("\n{error}"),
    }
}

#[test]
fn the_capability_that_is_missing_is_named() {
    if !privileged("the_capability_that_is_missing_is_named") {
        return;
    }
    let wire = Wire::new(1);
    let open_without = |capabilities: &str| {
        let output = std::process::Command::new("setpriv")
            .args(["--bounding-set", capabilities, "--inh-caps", "-all"])
            .arg(std::env::current_exe().unwrap())
            .args(["--exact", "child_that_opens_a_port", "--nocapture"])
            .env(DEVICE, &wire.device)
            .output()
            .unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let error = open_without("-net_raw");
    assert!(error.contains("missing CAP_NET_RAW; grant it"), "{error}");
    let error = open_without("-net_admin,-sys_admin,-bpf");
    assert!(error.contains("missing CAP_NET_ADMIN and CAP_BPF"), "{error}");
    // The rest is not needed.
    let opened = open_without("-all,+net_raw,+net_admin,+bpf,+ipc_lock");
    assert!(opened.contains("\nopened"), "{opened}");
}

#[test]
fn a_port_takes_foreign_frames_when_it_joins_a_bridge_and_no_more_when_it_leaves() {
    if !privileged("a port becomes promiscuous while it is open") {
        return;
    }
    let wire = Wire::new(1);
    let memory = Memory::new(4096);
    let promiscuous = || !run(&format!("ip -d link show {}", wire.device)).contains("promiscuity 0");
    let (mut port, mut queues) = memory.open(&wire.options(PortMode::Dedicated, XdpMode::Native));
    assert!(!promiscuous());
    port.set_promiscuous(true).unwrap();
    assert!(promiscuous());
    port.set_promiscuous(false).unwrap();
    assert!(!promiscuous());
    port.set_promiscuous(true).unwrap();
    let mut cache = memory.cache;
    queues.iter_mut().for_each(|queue| queue.close(&mut cache));
    drop((port, queues));
    assert!(!promiscuous(), "a port that is closed leaves the device as it was");
}
