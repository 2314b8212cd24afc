//! The whole data plane, threads and all, over DPDK's devices.

use std::time::Duration;

use weir_config::Config;
use weir_dataplane::worker::{Dataplane, Engine};

use crate::devices::{datagram, read_capture, write_capture};
use crate::support::{Memory, Testpmd, eventually, unique};

pub fn configured(text: &str) -> Config {
    weir_config::load_str("t.toml", text).unwrap_or_else(|error| panic!("{error}")).config
}

/// A router between two devices. Ports are opened in the order of their names: the exit is there when the first packet comes.
fn router(devices: [&str; 2]) -> Config {
    let [left, right] = devices;
    configured(&format!(
        "[memory]\nhuge-pages = \"never\"\n\
         [port.inside]\ndevice = \"vdev:{left}\"\nmode = \"dedicated\"\naddresses = [\"10.1.0.1/24\"]\nmac = \"02:00:00:00:00:01\"\n\
         [port.exit]\ndevice = \"vdev:{right}\"\nmode = \"dedicated\"\naddresses = [\"10.2.0.1/24\"]\nmac = \"02:00:00:00:00:02\"\n\
         [[neighbour]]\nport = \"exit\"\nip = \"10.2.0.9\"\nmac = \"02:00:00:00:02:09\"\n"
    ))
}

#[test]
fn workers_forward_between_devices_and_every_frame_comes_back() {
    let directory = tempfile::tempdir().unwrap();
    let (input, output) = (directory.path().join("in.pcap"), directory.path().join("out.pcap"));
    let packets: Vec<_> = (0..800).map(datagram).collect();
    write_capture(&input, &packets);
    let devices = [
        format!("net_pcap{},rx_pcap={}", unique(), input.display()),
        format!("net_pcap{},tx_pcap={}", unique(), output.display()),
    ];
    let config = router([&devices[0], &devices[1]]);
    let memory = Memory::new(4096, 2048);
    let mut reference = Engine::with_pool(&config, &memory.pool).unwrap();
    packets.iter().for_each(|packet| reference.inject("inside", packet));
    let expected: Vec<_> = reference.take_sent().into_iter().map(|(_, bytes)| bytes).collect();
    assert_eq!(expected.len(), 800);

    let dataplane = Dataplane::default();
    dataplane.apply(&config).unwrap();
    eventually("all were received", || dataplane.counters().received >= 800);
    std::thread::sleep(Duration::from_millis(300));
    assert!(dataplane.counters().transmitted >= 800, "{:?}", dataplane.counters());
    let ports = dataplane.ports();
    assert_eq!(ports.iter().filter(|port| port.driver == "net_pcap").count(), 2, "{ports:?}");
    let stopped = dataplane.stop().unwrap();
    assert_eq!(stopped.free_frames, stopped.frames);
    // weir announces its own addresses besides.
    let ipv4 = |frame: &Vec<u8>| frame.get(12..14) == Some(&[8, 0]);
    let sent: Vec<_> = read_capture(&output).into_iter().filter(ipv4).collect();
    assert!(sent == expected, "{} packets", sent.len());
}

#[test]
fn an_idle_worker_naps_where_nothing_can_wake_it() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("memif.sock");
    let memif = format!("id=0,socket={},socket-abstract=no", socket.display());
    let left = format!("net_memif{},role=server,{memif}", unique());
    let right = format!("net_ring{}", unique());
    let dataplane = Dataplane::default();
    dataplane.apply(&router([&left, &right])).unwrap();
    std::thread::sleep(Duration::from_millis(100));
    let busiest = || dataplane.workers().iter().map(|worker| worker.loops).max().unwrap();
    let before = busiest();
    std::thread::sleep(Duration::from_millis(500));
    let turns = busiest() - before;
    // It would turn 5 times if it blocked, and a million times or so if it span. After each packet that it announces itself with it polls
    // for two milliseconds, which is ten thousand turns on a quick machine.
    assert!((50..200_000).contains(&turns), "{turns} turns in half a second");
    let stopped = dataplane.stop().unwrap();
    assert_eq!(stopped.free_frames, stopped.frames);
}

#[test]
fn a_memif_client_port_comes_back_with_its_server() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("memif.sock");
    let memif = format!("id=0,socket={},socket-abstract=no", socket.display());
    let server = || Testpmd::start(&[format!("net_memif0,role=server,{memif}")]);
    let config =
        router([&format!("net_memif{},role=client,{memif}", unique()), &format!("net_null{}", unique())]);
    let peer = server();
    let dataplane = Dataplane::default();
    dataplane.apply(&config).unwrap();
    let up = || dataplane.ports().iter().any(|port| port.name == "inside" && port.state == "up");
    let serve = || {
        dataplane.service();
        std::thread::sleep(Duration::from_millis(20));
    };
    eventually("the port is up", || {
        serve();
        up()
    });
    drop(peer);
    eventually("the port is down", || {
        serve();
        !up()
    });
    let _peer = server();
    eventually("the port is up again", || {
        serve();
        up()
    });
    let stopped = dataplane.stop().unwrap();
    assert_eq!(stopped.free_frames, stopped.frames);
}
