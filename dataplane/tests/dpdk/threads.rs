//! Threads that poll: known to DPDK while they do, and gone with what they kept.

use weir_dataplane::frame::{BURST, FrameCache};
use weir_dataplane::io::PortQueue;

use crate::support::{Memory, unique};

#[test]
fn a_worker_that_ends_gives_back_what_it_kept_and_its_number() {
    let mut memory = Memory::new(4096, 2048);
    let (_port, mut queue) = memory.single(&format!("net_null{}", unique()));
    // More threads than DPDK can know at a time.
    for _ in 0..300 {
        let mut cache = FrameCache::new(memory.pool.clone());
        queue = std::thread::spawn(move || {
            let mut burst = Vec::new();
            queue.receive(&mut burst, BURST, &mut cache);
            queue.transmit(&mut burst, &mut cache);
            assert!(weir_dpdk::number().is_some());
            queue
        })
        .join()
        .unwrap();
        assert_eq!(memory.pool.available(), 4096);
    }
    queue.close(&mut memory.cache);
    memory.expect_whole();
}

#[test]
fn a_worker_that_gives_a_queue_up_keeps_nothing_of_it() {
    let mut memory = Memory::new(4096, 2048);
    let (_port, mut queue) = memory.single(&format!("net_null{}", unique()));
    let mut burst = Vec::new();
    queue.receive(&mut burst, BURST, &mut memory.cache);
    queue.transmit(&mut burst, &mut memory.cache);
    assert!(memory.pool.available() < 4096, "the thread keeps some");
    queue.leave();
    assert_eq!(memory.pool.available(), 4096);
    // Control closes it.
    std::thread::spawn(move || drop(queue)).join().unwrap();
    memory.expect_whole();
}
