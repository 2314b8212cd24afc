//! Devices that need no peer: null, ring, pcap; and af_packet on a veth.

use std::path::Path;

use weir_config::MacAddress;
use weir_dataplane::frame::BURST;
use weir_dataplane::io::dpdk::DpdkOpenOptions;
use weir_dataplane::io::{Backend, Port, PortQueue};
use weir_dataplane::worker::Engine;

use crate::support::{Memory, eventually, numbered, unique};

#[test]
fn the_null_device_receives_and_takes_any_number_of_frames() {
    let mut memory = Memory::new(4096, 2048);
    let (port, mut queue) = memory.single(&format!("net_null{},size=100", unique()));
    let info = port.info();
    assert_eq!(
        (info.driver.as_str(), info.backend, info.queues, info.mtu),
        ("net_null", Backend::Dpdk, 1, 1500)
    );
    assert!(info.device.starts_with("vdev:net_null"), "{}", info.device);
    assert!(port.link().present && !port.gone() && queue.alive());
    let mut burst = Vec::new();
    for _ in 0..1000 {
        assert_eq!(queue.receive(&mut burst, BURST, &mut memory.cache), BURST);
        assert_eq!(queue.receive(&mut burst, 10, &mut memory.cache), 10);
        assert!(burst.iter().all(|frame| frame.len() == 100 && frame.headroom() == 128));
        assert_eq!(queue.transmit(&mut burst, &mut memory.cache), BURST + 10);
        assert!(burst.is_empty());
        queue.service(&mut memory.cache);
    }
    let counters = queue.counters();
    assert_eq!((counters.rx_frames, counters.rx_bytes), (74_000, 7_400_000));
    assert_eq!((counters.tx_frames, counters.tx_bytes), (74_000, 7_400_000));
    assert_eq!((counters.copies, counters.invalid), (0, 0));
    queue.close(&mut memory.cache);
    assert!(!queue.alive() && port.gone() && !port.link().present);
    assert_eq!(queue.receive(&mut burst, BURST, &mut memory.cache), 0);
    memory.expect_whole();
}

#[test]
fn what_a_ring_is_sent_comes_back_byte_for_byte_and_in_order() {
    let mut memory = Memory::new(4096, 2048);
    let (_port, mut queue) = memory.single(&format!("net_ring{}", unique()));
    let sent: Vec<_> = (0..900).map(|n| numbered(n, 60 + n as usize)).collect();
    memory.send(&mut queue, sent.clone());
    assert_eq!(memory.receive(&mut queue, 900), sent);
    assert_eq!(queue.counters().copies, 0);
    // What is under way when the queue is closed comes home too.
    memory.send(&mut queue, sent.iter().take(100).cloned());
    queue.close(&mut memory.cache);
    memory.expect_whole();
}

#[test]
fn a_full_ring_leaves_frames_with_the_caller_in_order() {
    let mut memory = Memory::new(4096, 2048);
    let (_port, mut queue) = memory.single(&format!("net_ring{}", unique()));
    let mut frames: Vec<_> = (0..2000).map(|n| memory.frame(&numbered(n, 64))).collect();
    let taken = queue.transmit(&mut frames, &mut memory.cache);
    assert!((1..2000).contains(&taken) && frames.len() == 2000 - taken, "{taken}");
    assert_eq!(queue.transmit(&mut frames, &mut memory.cache), 0);
    assert_eq!(frames[0].bytes(), numbered(taken as u32, 64));
    assert_eq!(memory.receive(&mut queue, taken).last(), Some(&numbered(taken as u32 - 1, 64)));
    frames.drain(..).for_each(|frame| memory.cache.free(frame));
    queue.close(&mut memory.cache);
    memory.expect_whole();
}

#[test]
fn headers_grow_and_shrink_in_place_between_devices() {
    let mut memory = Memory::new(4096, 2048);
    let (_port, mut queue) = memory.single(&format!("net_ring{}", unique()));
    memory.send(&mut queue, [numbered(1, 200)]);
    let mut burst = Vec::new();
    assert_eq!(queue.receive(&mut burst, BURST, &mut memory.cache), 1);
    assert!(burst[0].grow_front(100));
    burst[0].bytes_mut()[..100].fill(7);
    queue.transmit(&mut burst, &mut memory.cache);
    assert_eq!(queue.receive(&mut burst, BURST, &mut memory.cache), 1);
    assert_eq!(
        (burst[0].len(), burst[0].bytes()[99], &burst[0].bytes()[100..]),
        (300, 7, &numbered(1, 200)[..])
    );
    assert!(burst[0].strip(150));
    queue.transmit(&mut burst, &mut memory.cache);
    assert_eq!(memory.receive(&mut queue, 1), [numbered(1, 200)[50..].to_vec()]);
    queue.close(&mut memory.cache);
    memory.expect_whole();
}

/// A router between two captures.
const ROUTER: &str = r#"
    [port.in]
    mode = "dedicated"
    addresses = ["10.1.0.1/24"]
    mac = "02:00:00:00:00:01"
    [port.out]
    mode = "dedicated"
    addresses = ["10.2.0.1/24"]
    mac = "02:00:00:00:00:02"
    [[neighbour]]
    port = "out"
    ip = "10.2.0.9"
    mac = "02:00:00:00:02:09"
"#;

pub fn datagram(n: u16) -> Vec<u8> {
    let payload = vec![n as u8; usize::from(n) % 1400];
    let mut bytes = Vec::new();
    etherparse::PacketBuilder::ethernet2([2, 0, 0, 0, 1, 9], [2, 0, 0, 0, 0, 1])
        .ipv4([10, 1, 0, 9], [10, 2, 0, 9], 64)
        .udp(1000 + n, 2000)
        .write(&mut bytes, &payload)
        .unwrap();
    bytes
}

pub fn write_capture(path: &Path, frames: &[Vec<u8>]) {
    let mut file = pcap_file::pcap::PcapWriter::new(std::fs::File::create(path).unwrap()).unwrap();
    for frame in frames {
        let packet =
            pcap_file::pcap::PcapPacket::new(std::time::Duration::from_secs(1), frame.len() as u32, frame);
        file.write_packet(&packet).unwrap();
    }
}

pub fn read_capture(path: &Path) -> Vec<Vec<u8>> {
    let mut file = pcap_file::pcap::PcapReader::new(std::fs::File::open(path).unwrap()).unwrap();
    let mut frames = Vec::new();
    while let Some(packet) = file.next_packet() {
        frames.push(packet.unwrap().data.into_owned());
    }
    frames
}

#[test]
fn a_capture_goes_through_the_engine_into_another_byte_for_byte() {
    let directory = tempfile::tempdir().unwrap();
    let (input, output) = (directory.path().join("in.pcap"), directory.path().join("out.pcap"));
    let packets: Vec<_> = (0..500).map(datagram).collect();
    write_capture(&input, &packets);
    let config = weir_config::load_str("t.toml", ROUTER).unwrap().config;

    // What the engine makes of it without DPDK.
    let mut memory = Memory::new(8192, 2048);
    let mut reference = Engine::with_pool(&config, &memory.pool).unwrap();
    packets.iter().for_each(|packet| reference.inject("in", packet));
    let expected: Vec<_> = reference.take_sent().into_iter().map(|(_, bytes)| bytes).collect();
    assert_eq!(expected.len(), 500);
    drop(reference);

    let mut engine = Engine::with_pool(&config, &memory.pool).unwrap();
    let (name, other) = (unique(), unique());
    let (_in, mut source) = memory.single(&format!("net_pcap{name},rx_pcap={}", input.display()));
    let (_out, mut sink) = memory.single(&format!("net_pcap{other},tx_pcap={}", output.display()));
    let port = engine.port("in").unwrap();
    let (mut burst, mut received) = (Vec::with_capacity(256), 0);
    while received < 500 {
        received += source.receive(&mut burst, BURST, engine.cache());
        engine.process(port, &mut burst, |_, frames, cache| {
            let count = frames.len();
            assert_eq!(sink.transmit(frames, cache), count);
        });
    }
    assert_eq!((source.counters().copies, sink.counters().copies), (0, 0));
    source.close(engine.cache());
    sink.close(engine.cache());
    drop(engine);
    let left = read_capture(&output);
    assert_eq!(left.len(), expected.len());
    for (n, (left, expected)) in left.iter().zip(&expected).enumerate() {
        assert_eq!(left, expected, "packet {n}");
    }
    memory.expect_whole();
}

#[test]
fn a_device_has_as_many_queues_as_were_asked_for_each_with_a_thread() {
    let mut memory = Memory::new(8192, 2048);
    let mut options = DpdkOpenOptions::new(format!("net_null{}", unique()));
    options.queues = 2;
    let (port, queues) = memory.open(&options);
    assert_eq!((queues.len(), port.info().queues), (2, 2));
    assert_eq!(queues.iter().map(|queue| queue.number()).collect::<Vec<_>>(), [0, 1]);
    let queues: Vec<_> = std::thread::scope(|scope| {
        let polled: Vec<_> = queues
            .into_iter()
            .map(|mut queue| {
                let mut cache = weir_dataplane::frame::FrameCache::new(memory.pool.clone());
                scope.spawn(move || {
                    let mut burst = Vec::new();
                    for _ in 0..10_000 {
                        queue.receive(&mut burst, BURST, &mut cache);
                        queue.transmit(&mut burst, &mut cache);
                    }
                    burst.drain(..).for_each(|frame| cache.free(frame));
                    queue
                })
            })
            .collect();
        polled.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    for mut queue in queues {
        assert_eq!(queue.counters().tx_frames, 640_000);
        assert!(!port.gone());
        queue.close(&mut memory.cache);
    }
    assert!(port.gone());
    memory.expect_whole();
}

#[test]
fn a_device_can_be_opened_again_under_its_name() {
    let mut memory = Memory::new(1024, 2048);
    let name = format!("net_null{}", unique());
    for _ in 0..20 {
        let (port, queue) = memory.single(&name);
        drop(port);
        drop(queue);
    }
    memory.expect_whole();
}

#[test]
fn a_wrong_argument_and_a_frame_too_small_for_the_mtu_are_refused_in_words() {
    let mut memory = Memory::new(1024, 2048);
    let refused = |options: &DpdkOpenOptions| {
        weir_dataplane::io::dpdk::DpdkPort::open(options, &memory.pool).unwrap_err().to_string()
    };
    let text = refused(&DpdkOpenOptions::new(format!("net_pcap{},rx_pcap=/nowhere/at.all", unique())));
    assert!(text.contains("/nowhere/at.all"), "{text}");
    let mut options = DpdkOpenOptions::new(format!("net_null{}", unique()));
    options.mtu = Some(9000);
    let text = refused(&options);
    assert!(text.contains("set memory.frame-size = 16384"), "{text}");
    memory.expect_whole();
}

#[test]
fn af_packet_on_a_veth_talks_to_its_far_end() {
    // SAFETY: plain system call.
    if unsafe { libc::geteuid() } != 0 {
        println!("skipped: af_packet on a veth needs root");
        return;
    }
    // SAFETY: only this thread, which ends with the test, changes its namespace.
    assert_eq!(unsafe { libc::unshare(libc::CLONE_NEWNET) }, 0);
    let run = |command: &str| {
        let mut words = command.split_whitespace();
        let status = std::process::Command::new(words.next().unwrap()).args(words).status().unwrap();
        assert!(status.success(), "{command}");
    };
    run("ip link add near type veth peer name far");
    for end in ["near", "far"] {
        std::fs::write(format!("/proc/sys/net/ipv6/conf/{end}/disable_ipv6"), "1").unwrap();
        run(&format!("ip link set {end} up"));
    }
    // The driver's own frames of 2048 bytes have to fit a chunk behind its headroom.
    let mut memory = Memory::new(4096, 4096);
    let options = |end: &str| {
        let mut options = DpdkOpenOptions::new(format!("net_af_packet{},iface={end}", unique()));
        options.promiscuous = true;
        options
    };
    let mut near = options("near");
    near.mac = Some(MacAddress([2, 0, 0, 0, 0, 9]));
    let (port, mut near) = memory.open(&near);
    let (_far, mut far) = memory.open(&options("far"));
    assert_eq!(port.info().mac, MacAddress([2, 0, 0, 0, 0, 9]));
    eventually("there is a carrier", || port.link().carrier);
    let sent: Vec<_> = (0..200).map(|n| numbered(n, 60 + 5 * n as usize)).collect();
    memory.send(&mut near[0], sent.clone());
    assert_eq!(memory.receive(&mut far[0], 200), sent);
    memory.send(&mut far[0], sent.clone());
    assert_eq!(memory.receive(&mut near[0], 200), sent);
    near[0].close(&mut memory.cache);
    far[0].close(&mut memory.cache);
    memory.expect_whole();
}
