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
        let peer = Testpmd::start(&[format!("net_memif0,role=client,{arguments}")]);
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
        let peer = Testpmd::start(&[format!("net_memif0,role=server,{arguments}")]);
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
        let guest = format!("net_virtio_user0,path={},server=0,queues=1", socket.display());
        let guest = Testpmd::start(&[guest]);
        eventually("it is connected", || port.link().carrier);
        there_and_back(&mut memory, &mut queue, round * 10_000);
        drop(guest);
        eventually("it is disconnected", || !port.link().carrier);
    }
    queue.close(&mut memory.cache);
    memory.expect_whole();
}

#[test]
fn jumbo_frames_cross_in_one_piece_and_are_dropped_where_chunks_are_too_small() {
    let directory = tempfile::tempdir().unwrap();
    let arguments = |id: u32| {
        let socket = directory.path().join(format!("memif{id}.sock"));
        format!("id={id},socket={},socket-abstract=no", socket.display())
    };
    let (mut large, mut small) = (Memory::new(1024, 16384), Memory::new(2048, 2048));
    let server = |id: u32| format!("net_memif{},role=server,{}", unique(), arguments(id));
    let jumbo = |id: u32| DpdkOpenOptions { mtu: Some(9000), ..DpdkOpenOptions::new(server(id)) };
    let (one, mut ones) = large.open(&jumbo(1));
    let (two, mut twos) = large.open(&jumbo(2));
    assert_eq!((one.info().mtu, two.info().mtu), (9000, 9000));
    let client = |device: u32, id: u32| format!("net_memif{device},role=client,{}", arguments(id));
    let peer = Testpmd::start(&[client(0, 1), client(1, 2)]);
    eventually("they are connected", || one.link().carrier && two.link().carrier);
    let sent: Vec<_> = (0..50).map(|n| numbered(n, 9014 - n as usize)).collect();
    large.send(&mut ones[0], sent.clone());
    assert_eq!(large.receive(&mut twos[0], 50), sent);
    large.send(&mut twos[0], sent.clone());
    assert_eq!(large.receive(&mut ones[0], 50), sent);
    drop(peer);
    twos[0].close(&mut large.cache);

    let (narrow, mut queue) = small.single(&server(3));
    let peer = Testpmd::start(&[client(0, 1), client(1, 3)]);
    eventually("they are connected", || one.link().carrier && narrow.link().carrier);
    large.send(&mut ones[0], [numbered(1, 1500), numbered(2, 9000), numbered(3, 1514)]);
    assert_eq!(small.receive(&mut queue, 2), [numbered(1, 1500), numbered(3, 1514)]);
    assert_eq!(queue.counters().invalid, 1);
    drop(peer);
    queue.close(&mut small.cache);
    ones[0].close(&mut large.cache);
    small.expect_whole();
    large.expect_whole();
}
