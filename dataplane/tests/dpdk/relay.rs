//! Relaying between two devices, and where frames go that nobody sends.

use std::collections::BTreeSet;
use std::time::Duration;

use weir_dataplane::frame::BURST;
use weir_dataplane::io::PortQueue;
use weir_dataplane::io::memory::memory_queue;
use weir_dataplane::worker::Dataplane;

use crate::devices::{read_capture, write_capture};
use crate::support::{Memory, eventually, numbered, unique};
use crate::workers::configured;

#[test]
fn frames_are_relayed_in_order_up_to_the_first_that_is_too_long() {
    let mut memory = Memory::new(4096, 2048);
    let (_port, mut from) = memory.single(&format!("net_ring{}", unique()));
    let (_other, mut to) = memory.single(&format!("net_ring{}", unique()));
    let lengths = [60, 14, 500, 501, 60, 1700];
    let sent: Vec<_> = lengths.iter().zip(0..).map(|(len, n)| numbered(n, *len)).collect();
    memory.send(&mut from, sent.clone());
    let mut burst = Vec::new();
    assert_eq!(from.relay(&mut to, 500, &mut burst, BURST, &mut memory.cache), 3);
    let left: Vec<_> = burst.iter().map(|frame| frame.bytes().to_vec()).collect();
    assert_eq!(left, sent[3..]);
    let (received, relayed) = (from.counters(), to.counters());
    assert_eq!((received.rx_frames, received.rx_bytes), (6, 2835));
    assert_eq!((relayed.tx_frames, relayed.tx_bytes), (3, 574));
    burst.drain(..).for_each(|frame| memory.cache.free(frame));
    assert_eq!(memory.receive(&mut to, 3), sent[..3]);
    assert_eq!(from.relay(&mut to, 500, &mut burst, BURST, &mut memory.cache), 0);
    assert!(burst.is_empty());
    from.close(&mut memory.cache);
    // What a closed queue had under way is not another's.
    assert_eq!(to.relay(&mut from, 500, &mut burst, BURST, &mut memory.cache), 0);
    to.close(&mut memory.cache);
    memory.expect_whole();
}

#[test]
fn what_the_other_ring_has_no_room_for_is_left_in_order() {
    let mut memory = Memory::new(4096, 2048);
    let (_port, mut from) = memory.single(&format!("net_ring{}", unique()));
    let (_other, mut to) = memory.single(&format!("net_ring{}", unique()));
    let mut frames: Vec<_> = (0..1500).map(|n| memory.frame(&numbered(n, 64))).collect();
    let taken = to.transmit(&mut frames, &mut memory.cache);
    frames.drain(..).for_each(|frame| memory.cache.free(frame));
    memory.receive(&mut to, BURST);
    // Room for part of a burst.
    let room = 24;
    memory.send(&mut to, (0..BURST as u32 - room).map(|n| numbered(n, 64)));
    let filled = taken + BURST - room as usize;
    let room = room as usize;
    let sent: Vec<_> = (0..100).map(|n| numbered(n, 70)).collect();
    memory.send(&mut from, sent.clone());
    let (mut burst, mut relayed) = (Vec::new(), 0);
    for _ in 0..2 {
        relayed += from.relay(&mut to, 1500, &mut burst, BURST, &mut memory.cache);
    }
    assert_eq!((relayed, burst.len()), (room, 100 - room));
    let left: Vec<_> = burst.iter().map(|frame| frame.bytes().to_vec()).collect();
    assert_eq!(left, sent[room..]);
    let bytes = (to.counters().tx_bytes, from.counters().rx_bytes);
    assert_eq!(bytes, ((filled * 64 + room * 70) as u64, 7000));
    burst.drain(..).for_each(|frame| memory.cache.free(frame));
    from.close(&mut memory.cache);
    to.close(&mut memory.cache);
    memory.expect_whole();
}

#[test]
fn queues_of_other_memories_and_of_other_kinds_receive_instead() {
    let (mut memory, mut other) = (Memory::new(4096, 2048), Memory::new(1024, 2048));
    let (_port, mut from) = memory.single(&format!("net_ring{}", unique()));
    let (_other, mut foreign) = other.single(&format!("net_ring{}", unique()));
    let (_wire, mut plain) = memory_queue(2048).unwrap();
    memory.send(&mut from, (0..20).map(|n| numbered(n, 100)));
    let mut burst = Vec::new();
    assert_eq!(from.relay(&mut foreign, 1500, &mut burst, 10, &mut memory.cache), 0);
    assert_eq!(burst.len(), 10);
    assert_eq!(from.relay(&mut plain, 1500, &mut burst, 10, &mut memory.cache), 0);
    assert_eq!(burst.len(), 20);
    burst.drain(..).for_each(|frame| memory.cache.free(frame));
    from.close(&mut memory.cache);
    foreign.close(&mut other.cache);
    memory.expect_whole();
    other.expect_whole();
}

#[test]
fn a_cross_connect_relays_every_frame_and_counts_it_once() {
    let directory = tempfile::tempdir().unwrap();
    let (input, output) = (directory.path().join("in.pcap"), directory.path().join("out.pcap"));
    let mut frames: Vec<_> = (0..700).map(|n| numbered(n, 60 + n as usize % 1400)).collect();
    // One that is too long for the far port.
    frames.insert(300, numbered(9999, 1600));
    write_capture(&input, &frames);
    let config = configured(&format!(
        "[workers]\ncores = [0]\n[memory]\nhuge-pages = \"never\"\n\
         [port.inside]\ndevice = \"vdev:net_pcap{},rx_pcap={}\"\nmode = \"dedicated\"\nmtu = 1600\n\
         [port.exit]\ndevice = \"vdev:net_pcap{},tx_pcap={}\"\nmode = \"dedicated\"\n\
         [cross-connect.wire]\nends = [\"inside\", \"exit\"]\n",
        unique(),
        input.display(),
        unique(),
        output.display()
    ));
    let dataplane = Dataplane::default();
    dataplane.apply(&config).unwrap();
    eventually("all were received", || dataplane.counters().received >= 701);
    std::thread::sleep(Duration::from_millis(100));
    let counters = dataplane.counters();
    assert_eq!((counters.received, counters.transmitted), (701, 700), "{counters:?}");
    let stopped = dataplane.stop().unwrap();
    assert_eq!(stopped.free_frames, stopped.frames);
    frames.remove(300);
    assert!(read_capture(&output) == frames);
}

#[test]
fn drivers_get_the_buffers_again_that_were_freed_last() {
    let mut memory = Memory::new(4096, 2048);
    let (_port, mut queue) = memory.single(&format!("net_null{},size=100", unique()));
    let (mut burst, mut seen) = (Vec::new(), BTreeSet::new());
    for _ in 0..1000 {
        queue.receive(&mut burst, BURST, &mut memory.cache);
        seen.extend(burst.iter().map(weir_dataplane::frame::Frame::index));
        burst.drain(..).for_each(|frame| memory.cache.free(frame));
        queue.service(&mut memory.cache);
    }
    assert!(seen.len() < 1024, "{} of 4096 chunks were used", seen.len());
    queue.close(&mut memory.cache);
    memory.expect_whole();
}
