//! DPDK's testpmd as the peer, in a process of its own: memif and vhost-user. It sends back what it receives.

use weir_dataplane::io::dpdk::{DpdkOpenOptions, DpdkPort};
use weir_dataplane::io::{Port, PortQueue};

use crate::support::{Memory, Testpmd, eventually, exists, numbered, unique};

fn there_and_back(memory: &mut Memory, queue: &mut weir_dataplane::io::dpdk::DpdkQueue, from: u32) {
    for batch in 0..20 {
        let sent: Vec<_> = (0..50).map(|n| numbered(from + 50 * batch + n, 60 + 25 * n as usize)).collect();
        memory.send(queue, sent.clone());
        assert_eq!(memory.receive(queue, 50), sent);
    }
}

#[test]
fn a_memif_server_serves_a_peer_that_is_started_again() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("memif.sock");
    let arguments = format!("id=7,socket={},socket-abstract=no", socket.display());
    let mut memory = Memory::new(4096, 2048);
    let (port, mut queue) = memory.single(&format!("net_memif{},role=server,{arguments}", unique()));
    assert!(!port.link().carrier);
    for round in 0..2 {
        let peer = Testpmd::start(&format!("net_memif0,role=client,{arguments}"));
        eventually("it is connected", || port.link().carrier);
        there_and_back(&mut memory, &mut queue, round * 10_000);
        drop(peer);
        eventually("it is disconnected", || !port.link().carrier);
        assert!(queue.alive() && !port.gone(), "a server waits for the next client");
    }
    queue.close(&mut memory.cache);
    memory.expect_whole();
}

#[test]
fn a_memif_client_whose_server_went_away_is_gone_and_can_be_opened_again() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("memif.sock");
    let arguments = format!("id=3,socket={},socket-abstract=no", socket.display());
    let mut memory = Memory::new(4096, 2048);
    let devargs = format!("net_memif{},role=client,{arguments}", unique());
    let refused = DpdkPort::open(&DpdkOpenOptions::new(&devargs), &memory.pool).unwrap_err().to_string();
    assert!(refused.contains("cannot start it"), "{refused}");
    for round in 0..2 {
        let peer = Testpmd::start(&format!("net_memif0,role=server,{arguments}"));
        let (port, mut queue) = memory.single(&devargs);
        eventually("it is connected", || port.link().carrier);
        there_and_back(&mut memory, &mut queue, round * 10_000);
        drop(peer);
        eventually("it is gone", || !port.link().present);
        assert!(port.gone() && !queue.alive());
        queue.close(&mut memory.cache);
        memory.expect_whole();
    }
}

#[test]
fn a_vhost_user_server_serves_a_guest() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("vhost.sock");
    let mut memory = Memory::new(4096, 2048);
    let (port, mut queue) =
        memory.single(&format!("net_vhost{},iface={},queues=1", unique(), socket.display()));
    assert!(exists(&socket));
    for round in 0..2 {
        let guest = Testpmd::start(&format!("net_virtio_user0,path={},server=0,queues=1", socket.display()));
        eventually("it is connected", || port.link().carrier);
        there_and_back(&mut memory, &mut queue, round * 10_000);
        drop(guest);
        eventually("it is disconnected", || !port.link().carrier);
    }
    queue.close(&mut memory.cache);
    memory.expect_whole();
}
