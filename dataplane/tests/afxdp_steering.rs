//! What a shared port takes and what it leaves to the kernel, on real sockets.
#![allow(clippy::unwrap_used)]

mod support;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use support::{Memory, NEVER, SOON, Tap, Wire, privileged};
use weir_config::{PortMode, XdpMode};
use weir_dataplane::io::afxdp::{AfXdpPort, AfXdpQueue, Steering};
use weir_dataplane::io::{Port, PortQueue};

const VTEP: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const PEER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
const VTEP6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
const PEER6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 2);

fn steering(vteps: &[(&str, u16)], prefixes: &[&str]) -> Steering {
    Steering {
        vteps: vteps.iter().map(|(address, port)| (address.parse().unwrap(), *port)).collect(),
        prefixes: prefixes.iter().map(|prefix| prefix.parse().unwrap()).collect(),
        kept: vec![],
    }
}

/// An Ethernet frame with the given EtherType, tags included.
fn ethernet(types: &[u16], payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2, 0, 0, 0, 0, 9];
    for (n, ethertype) in types.iter().enumerate() {
        frame.extend(ethertype.to_be_bytes());
        if n + 1 < types.len() {
            frame.extend([0, 5 + n as u8]);
        }
    }
    frame.extend(payload);
    if frame.len() < 60 {
        frame.resize(60, 0);
    }
    frame
}

fn udp(to_port: u16, payload: &[u8]) -> Vec<u8> {
    [&[0xc0, 0x01][..], &to_port.to_be_bytes(), &(8 + payload.len() as u16).to_be_bytes(), &[0, 0], payload]
        .concat()
}

fn ipv4(from: Ipv4Addr, to: Ipv4Addr, protocol: u8, fragment: u16, payload: &[u8]) -> Vec<u8> {
    let mut header = vec![0x45, 0];
    header.extend((20 + payload.len() as u16).to_be_bytes());
    header.extend([0, 1]);
    header.extend(fragment.to_be_bytes());
    header.extend([64, protocol, 0, 0]);
    header.extend(from.octets());
    header.extend(to.octets());
    let sum = header.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1])).sum::<u32>();
    let sum = !((sum & 0xffff) + (sum >> 16)) as u16;
    header[10..12].copy_from_slice(&sum.to_be_bytes());
    [header, payload.to_vec()].concat()
}

fn ipv6(from: Ipv6Addr, to: Ipv6Addr, next: u8, payload: &[u8]) -> Vec<u8> {
    let mut header = vec![0x60, 0, 0, 0];
    header.extend((payload.len() as u16).to_be_bytes());
    header.extend([next, 64]);
    header.extend(from.octets());
    header.extend(to.octets());
    [header, payload.to_vec()].concat()
}

struct Shared {
    wire: Wire,
    tap: Tap,
    memory: Memory,
    port: AfXdpPort,
    queues: Vec<AfXdpQueue>,
}

impl Shared {
    fn open(xdp: XdpMode, what: &Steering) -> Self {
        let wire = Wire::new(1);
        let memory = Memory::new(8192);
        let (mut port, queues) = memory.open(&wire.options(PortMode::Shared, xdp));
        port.steer(what).unwrap();
        Self { tap: wire.tap(), wire, memory, port, queues }
    }

    /// Whether the port takes the frame; if not, the kernel got it.
    fn takes(&mut self, frame: &[u8]) -> bool {
        let before = self.port.counters();
        self.tap.send(frame);
        let end = std::time::Instant::now() + SOON;
        loop {
            let frames = self.memory.receive_if(&mut self.queues, 1, NEVER / 40, |bytes| bytes == frame);
            if let Some(taken) = frames.first() {
                assert_eq!(taken.bytes(), frame);
                self.memory.free(frames);
                return true;
            }
            if self.port.counters().passed > before.passed {
                return false;
            }
            assert!(std::time::Instant::now() < end, "the frame never arrived");
        }
    }
}

fn takes_its_own_and_leaves_the_rest(xdp: XdpMode) {
    let vteps = steering(&[("192.0.2.1", 4789), ("2001:db8::1", 4789)], &["10.9.0.0/16", "2001:db8:9::/48"]);
    let mut shared = Shared::open(xdp, &vteps);
    let elsewhere = Ipv4Addr::new(192, 0, 2, 77);
    let (v4, v6, tag, qinq) = (0x0800, 0x86dd, 0x8100, 0x88a8);
    let vxlan = udp(4789, &[8, 0, 0, 0, 0, 0, 100, 0]);

    // UDP to a VTEP, untagged and behind one and two tags.
    let tunnel4 = ipv4(PEER, VTEP, 17, 0, &vxlan);
    let tunnel6 = ipv6(PEER6, VTEP6, 17, &vxlan);
    for tags in [&[][..], &[tag], &[qinq, tag]] {
        assert!(shared.takes(&ethernet(&[tags, &[v4]].concat(), &tunnel4)), "{tags:x?}");
        assert!(shared.takes(&ethernet(&[tags, &[v6]].concat(), &tunnel6)), "{tags:x?}");
    }
    assert!(!shared.takes(&ethernet(&[tag, tag, tag, v4], &tunnel4)));

    // Not its address, not its port, not UDP; ARP; a first and a later fragment.
    assert!(!shared.takes(&ethernet(&[v4], &ipv4(PEER, elsewhere, 17, 0, &vxlan))));
    assert!(!shared.takes(&ethernet(&[v4], &ipv4(PEER, VTEP, 17, 0, &udp(4790, &[])))));
    assert!(!shared.takes(&ethernet(&[v4], &ipv4(PEER, VTEP, 6, 0, &vxlan))));
    assert!(!shared.takes(&ethernet(&[v6], &ipv6(PEER6, VTEP6, 6, &vxlan))));
    assert!(!shared.takes(&ethernet(&[0x0806], &[0, 1, 8, 0, 6, 4, 0, 1])));
    assert!(shared.takes(&ethernet(&[v4], &ipv4(PEER, VTEP, 17, 0x2000, &vxlan))));
    assert!(!shared.takes(&ethernet(&[v4], &ipv4(PEER, VTEP, 17, 0x0010, &vxlan))));

    // Prefixes: whatever the protocol, later fragments too.
    let inside = Ipv4Addr::new(10, 9, 200, 1);
    assert!(shared.takes(&ethernet(&[v4], &ipv4(PEER, inside, 6, 0, &[0; 20]))));
    assert!(shared.takes(&ethernet(&[v4], &ipv4(PEER, inside, 17, 0x0010, &[0; 20]))));
    assert!(!shared.takes(&ethernet(&[v4], &ipv4(PEER, Ipv4Addr::new(10, 10, 0, 1), 6, 0, &[0; 20]))));
    let inside6 = "2001:db8:9:1::5".parse().unwrap();
    assert!(shared.takes(&ethernet(&[tag, v6], &ipv6(PEER6, inside6, 58, &[128, 0, 0, 0]))));
    assert!(
        !shared.takes(&ethernet(&[v6], &ipv6(PEER6, "2001:db8:a::5".parse().unwrap(), 58, &[128, 0, 0, 0])))
    );

    // ICMP errors about a packet of its tunnels (RFC 792, RFC 4443), and no other ICMP.
    let sent4 = ipv4(VTEP, PEER, 17, 0, &vxlan);
    let icmp4 = |kind: u8, quoted: &[u8]| {
        let message = [&[kind, 4, 0, 0, 0, 0, 5, 0x78][..], quoted].concat();
        ethernet(&[v4], &ipv4(PEER, VTEP, 1, 0, &message))
    };
    for kind in [3, 11, 12] {
        assert!(shared.takes(&icmp4(kind, &sent4)), "type {kind}");
    }
    assert!(shared.takes(&icmp4(3, &sent4[..28])));
    assert!(!shared.takes(&icmp4(8, &sent4)));
    assert!(!shared.takes(&icmp4(3, &ipv4(VTEP, PEER, 17, 0, &udp(53, &[])))));
    assert!(!shared.takes(&icmp4(3, &ipv4(VTEP, PEER, 6, 0, &vxlan))));
    assert!(!shared.takes(&icmp4(3, &ipv4(elsewhere, PEER, 17, 0, &vxlan))));
    assert!(!shared.takes(&icmp4(3, &ipv4(VTEP, PEER, 17, 0x0010, &vxlan))));
    let sent6 = ipv6(VTEP6, PEER6, 17, &vxlan);
    let icmp6 = |kind: u8, quoted: &[u8]| {
        let message = [&[kind, 0, 0, 0, 0, 0, 5, 0][..], quoted].concat();
        ethernet(&[v6], &ipv6(PEER6, VTEP6, 58, &message))
    };
    for kind in 1..=4 {
        assert!(shared.takes(&icmp6(kind, &sent6)), "type {kind}");
    }
    assert!(!shared.takes(&icmp6(128, &sent6)));
    assert!(!shared.takes(&icmp6(135, &sent6)));
    assert!(!shared.takes(&icmp6(2, &ipv6(PEER6, PEER6, 17, &vxlan))));

    // A header that ends early is the kernel's.
    assert!(!shared.takes(&icmp4(3, &sent4[..27])[..14 + 20 + 8 + 27]));
    assert_eq!(shared.port.counters().no_socket, 0);
    assert_eq!(shared.queues[0].counters().invalid, 0);
}

#[test]
fn a_shared_port_takes_its_own_and_leaves_the_rest_in_native_mode() {
    if privileged("a_shared_port_takes_its_own_and_leaves_the_rest_in_native_mode") {
        takes_its_own_and_leaves_the_rest(XdpMode::Native);
    }
}

#[test]
fn a_shared_port_takes_its_own_and_leaves_the_rest_in_generic_mode() {
    if privileged("a_shared_port_takes_its_own_and_leaves_the_rest_in_generic_mode") {
        takes_its_own_and_leaves_the_rest(XdpMode::Generic);
    }
}

#[test]
fn the_host_behind_a_shared_port_answers_ping_while_the_port_takes_its_tunnels() {
    if !privileged("the_host_behind_a_shared_port_answers_ping_while_the_port_takes_its_tunnels") {
        return;
    }
    let mut shared = Shared::open(XdpMode::Native, &steering(&[("192.0.2.1", 4789)], &[]));
    support::run(&format!("ip address add {VTEP}/24 dev {}", shared.wire.device));
    shared.wire.there(&format!("ip address add {PEER}/24 dev {}", shared.wire.peer));
    let output = shared.wire.there(&format!("ping -c 3 -i 0.05 -W 2 {VTEP}"));
    assert!(output.contains("3 received"), "{output}");
    assert!(shared.takes(&ethernet(&[0x0800], &ipv4(PEER, VTEP, 17, 0, &udp(4789, &[0; 30])))));
    let output = shared.wire.there(&format!("ping -c 3 -i 0.05 -W 2 {VTEP}"));
    assert!(output.contains("3 received"), "{output}");
    let counters = shared.port.counters();
    assert_eq!(counters.redirected, 1);
    assert!(counters.passed >= 6);
}

#[test]
fn steering_changes_while_the_program_stays_attached() {
    if !privileged("steering_changes_while_the_program_stays_attached") {
        return;
    }
    let mut shared = Shared::open(XdpMode::Native, &Steering::default());
    let tunnel = ethernet(&[0x0800], &ipv4(PEER, VTEP, 17, 0, &udp(4789, &[0; 30])));
    let routed = ethernet(&[0x0800], &ipv4(PEER, Ipv4Addr::new(10, 9, 1, 1), 6, 0, &[0; 20]));
    let program = |shared: &Shared| {
        let link = support::run(&format!("ip -j link show dev {}", shared.wire.device));
        link.split("\"xdp\"").nth(1).map(str::to_owned).unwrap()
    };
    let before = program(&shared);
    assert_eq!((shared.takes(&tunnel), shared.takes(&routed)), (false, false));
    shared.port.steer(&steering(&[("192.0.2.1", 4789)], &[])).unwrap();
    assert_eq!((shared.takes(&tunnel), shared.takes(&routed)), (true, false));
    shared.port.steer(&steering(&[("192.0.2.1", 4789)], &["10.9.0.0/16", "10.8.0.0/16"])).unwrap();
    assert_eq!((shared.takes(&tunnel), shared.takes(&routed)), (true, true));
    shared.port.steer(&steering(&[("192.0.2.1", 4790)], &["10.8.0.0/16"])).unwrap();
    assert_eq!((shared.takes(&tunnel), shared.takes(&routed)), (false, false));
    shared.port.steer(&steering(&[("192.0.2.1", 4789)], &["0.0.0.0/0"])).unwrap();
    assert_eq!((shared.takes(&tunnel), shared.takes(&routed)), (true, true));
    assert_eq!(program(&shared), before);
}

#[test]
fn what_is_kept_stays_the_kernels_within_a_prefix_but_for_tunnels() {
    if !privileged("what_is_kept_stays_the_kernels_within_a_prefix_but_for_tunnels") {
        return;
    }
    let to =
        |to: &str, protocol| ethernet(&[0x0800], &ipv4(PEER, to.parse().unwrap(), protocol, 0, &[0; 20]));
    let to6 = |to: &str| ethernet(&[0x86dd], &ipv6(PEER6, to.parse().unwrap(), 6, &[0; 20]));
    let tunnel = ethernet(&[0x0800], &ipv4(PEER, VTEP, 17, 0, &udp(4789, &[0; 30])));
    let all = steering(&[("192.0.2.1", 4789)], &["0.0.0.0/0", "::/0"]);
    let mut kept = all.clone();
    kept.kept = vec!["192.0.2.1/32".parse().unwrap(), "fe80::/10".parse().unwrap()];
    let mut shared = Shared::open(XdpMode::Native, &kept);
    assert!(!shared.takes(&to("192.0.2.1", 6)));
    assert!(shared.takes(&to("192.0.2.3", 6)));
    assert!(!shared.takes(&to6("fe80::1")));
    assert!(shared.takes(&to6("2001:db8::1")));
    assert!(shared.takes(&tunnel));

    // The same destination asked for, and kept again.
    let mut asked = kept.clone();
    asked.prefixes.push("192.0.2.1/32".parse().unwrap());
    shared.port.steer(&asked).unwrap();
    assert!(shared.takes(&to("192.0.2.1", 6)));
    shared.port.steer(&kept).unwrap();
    assert!(!shared.takes(&to("192.0.2.1", 6)));
    shared.port.steer(&all).unwrap();
    assert!(shared.takes(&to("192.0.2.1", 6)));
}

#[test]
fn steering_beyond_the_size_of_its_map_is_an_error_that_names_the_entry() {
    if !privileged("steering_beyond_the_size_of_its_map_is_an_error_that_names_the_entry") {
        return;
    }
    let mut shared = Shared::open(XdpMode::Native, &Steering::default());
    let vteps = (0..4097u32).map(|n| (IpAddr::from(Ipv4Addr::from(0x0a00_0000 + n)), 4789)).collect();
    let error =
        shared.port.steer(&Steering { vteps, prefixes: vec![], kept: vec![] }).unwrap_err().to_string();
    assert!(error.contains("cannot add VTEP 10.0.16.0 UDP port 4789"), "{error}");
    // A full map takes an exchange all the same.
    shared.port.steer(&steering(&[("192.0.2.1", 4789)], &[])).unwrap();
    assert!(shared.takes(&ethernet(&[0x0800], &ipv4(PEER, VTEP, 17, 0, &udp(4789, &[0; 30])))));
}
