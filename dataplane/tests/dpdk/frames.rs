//! Frames between memories, frames of any length, frames that cannot be sent.

use weir_dataplane::io::PortQueue;
use weir_dataplane::io::memory::memory_queue;

use crate::support::{Memory, numbered, unique};

#[test]
fn a_frame_of_another_memory_is_copied_once_and_counted() {
    let (mut memory, mut other) = (Memory::new(2048, 2048), Memory::new(64, 4096));
    let (_port, mut queue) = memory.single(&format!("net_ring{}", unique()));
    let mut frames = vec![memory.frame(&numbered(1, 100)), other.frame(&numbered(2, 200))];
    frames.push(memory.frame(&numbered(3, 300)));
    assert_eq!(queue.transmit(&mut frames, &mut memory.cache), 3);
    assert_eq!(queue.counters().copies, 1);
    assert_eq!(memory.receive(&mut queue, 3), [numbered(1, 100), numbered(2, 200), numbered(3, 300)]);
    // One that does not fit this memory's chunks is not sent; one that just does is.
    let mut frames = vec![other.frame(&numbered(4, 3000)), other.frame(&numbered(5, 1900))];
    assert_eq!(queue.transmit(&mut frames, &mut memory.cache), 2);
    assert_eq!((queue.counters().invalid, queue.counters().copies), (1, 2));
    assert_eq!(memory.receive(&mut queue, 1), [numbered(5, 1900)]);
    queue.close(&mut memory.cache);
    memory.expect_whole();
    other.expect_whole();
}

#[test]
fn a_frame_shorter_than_an_ethernet_header_is_never_sent() {
    let mut memory = Memory::new(2048, 2048);
    let (_port, mut queue) = memory.single(&format!("net_ring{}", unique()));
    let mut frames: Vec<_> =
        [13, 60, 0, 1, 14].iter().zip(0..).map(|(len, n)| memory.frame(&numbered(n, *len))).collect();
    assert_eq!(queue.transmit(&mut frames, &mut memory.cache), 5);
    assert_eq!((queue.counters().invalid, queue.counters().tx_frames), (3, 2));
    assert_eq!(memory.receive(&mut queue, 2), [numbered(1, 60), numbered(4, 14)]);
    queue.close(&mut memory.cache);
    memory.expect_whole();
}

#[test]
fn frames_of_a_port_of_another_kind_leave_without_a_copy() {
    let mut memory = Memory::new(2048, 2048);
    let (wire, mut from) = memory_queue(2048).unwrap();
    let (_port, mut queue) = memory.single(&format!("net_ring{}", unique()));
    for n in 0..200 {
        wire.inject(&numbered(n, 100)).unwrap();
    }
    let mut burst = Vec::new();
    while from.receive(&mut burst, 64, &mut memory.cache) > 0 {}
    assert_eq!(queue.transmit(&mut burst, &mut memory.cache), 200);
    while queue.receive(&mut burst, 64, &mut memory.cache) > 0 {}
    assert_eq!(from.transmit(&mut burst, &mut memory.cache), 200);
    assert_eq!(wire.take_transmitted(), (0..200).map(|n| numbered(n, 100)).collect::<Vec<_>>());
    assert_eq!(queue.counters().copies, 0);
    queue.close(&mut memory.cache);
    memory.expect_whole();
}
