//! Captures through the whole engine, against captures that were looked at once. `WEIR_BLESS=1` writes them anew.
#![allow(missing_docs, clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use common::config;
use common::site::{BLUE, FAR, HOST, INNER, LAN, NATTED, OTHER, PLAIN, PORTS, SIX, Site, WAN};
use weir_dataplane::io::pcap::{CaptureReader, CaptureWriter};
use weir_dataplane::packet::builder::Packet;
use weir_dataplane::packet::tcp_flags::{ACK, FIN, SYN};
use weir_dataplane::worker::{ReplaySummary, replay};

const SECOND: u64 = 1_000_000_000;
/// When the captures begin: 2026-01-01.
const BEGIN: u64 = 1_767_225_600 * SECOND;

/// What enters, by port: nanoseconds after the begin, and the frame.
fn story(site: Site) -> BTreeMap<&'static str, Vec<(u64, Vec<u8>)>> {
    let mut story: BTreeMap<_, Vec<(u64, Vec<u8>)>> = BTreeMap::new();
    let mut at = |seconds: f64, port, packet: Packet| {
        story.entry(port).or_default().push(((seconds * 1e9) as u64, packet.build()));
    };
    let lan = || Packet::ethernet(HOST, LAN).ipv4("10.1.0.2", "10.2.0.2");
    let blue = || Packet::ethernet(HOST, BLUE).ipv4("10.3.0.2", "10.4.0.2");
    let far = || Packet::ethernet(FAR, INNER).ipv4("10.4.0.2", "10.3.0.2");
    let bridged = || Packet::ethernet(HOST, OTHER).ipv4("10.5.0.1", "10.5.0.2");
    if site.nat {
        let wan = |source| Packet::ethernet("02:00:00:00:02:02", WAN).ipv4(source, "192.0.2.7");
        at(0.01, "lan", lan().udp(5, 4000).payload(b"translated"));
        at(0.02, "wan", wan("10.2.0.2").udp(4000, 4001).payload(b"to a binding, or to nobody"));
        at(0.03, "wan", wan("10.2.0.3").udp(9, 55).payload(b"forwarded"));
        at(0.04, "lan", lan().tcp(4010, 80).flags(SYN));
        at(0.05, "wan", wan("10.2.0.2").tcp(80, 4010).flags(SYN | ACK));
        at(0.06, "lan", lan().tcp(4010, 80).flags(ACK).payload(b"GET /"));
        at(0.07, "lan", lan().echo_request(4020, 1).payload(b"ping"));
        at(0.08, "wan", wan("10.2.0.2").echo_reply(4020, 1).payload(b"ping"));
        let quoted = Packet::ethernet(HOST, WAN).ipv4("192.0.2.7", "10.2.0.2").tcp(4010, 80).build_network();
        at(0.09, "wan", wan("10.2.0.3").icmp(3, 1, [0; 4]).payload(&quoted));
        at(
            0.10,
            "lan",
            Packet::ethernet(HOST, LAN).ipv4("10.1.0.2", "192.0.2.7").udp(4030, 53).payload(b"hairpin"),
        );
    }
    // Twice the same, two hours apart: an hour and more of timers in between.
    for day in [0.0, 7200.0] {
        at(day + 0.1, "lan", lan().udp(5, 4000).payload(b"routed"));
        at(day + 0.2, "lan", lan().ttl(1).udp(5, 4000));
        at(day + 0.3, "lan", Packet::ethernet(HOST, LAN).ipv4("10.1.0.2", "10.1.0.1").echo_request(1, 1));
        at(day + 0.4, "lan", Packet::ethernet(HOST, LAN).ipv6("2001:db8:1::2", "2001:db8:9::5").udp(5, 4000));
        at(day + 0.5, "blue", blue().tcp(9, 80).flags(SYN));
        at(day + 0.6, "wan", site.outer(100, &far().tcp(80, 9).flags(SYN | ACK).build()).traffic_class(2));
        at(day + 0.7, "blue", blue().tcp(9, 80).flags(ACK).payload(b"GET /"));
        at(day + 0.8, "blue", blue().tcp(9, 80).flags(FIN | ACK));
        at(day + 0.9, "blue", blue().dont_fragment().udp(5, 4000).payload(&[1; 1473]));
        at(day + 1.0, "blue", blue().identification(9).udp(5, 4000).payload(&[2; 1473]));
        at(day + 1.1, "one", bridged().udp(5, 4000).payload(b"flooded"));
        at(
            day + 1.2,
            "wan",
            site.outer(
                5000,
                &Packet::ethernet(OTHER, HOST).ipv4("10.5.0.2", "10.5.0.1").udp(4000, 5).build(),
            ),
        );
        at(day + 1.3, "one", bridged().udp(5, 4000).payload(b"learned"));
        at(day + 1.4, "lan", lan().tcp(5, 113).flags(SYN));
        // Nobody answers for this one: asked thrice, then the sender is told.
        at(day + 1.5, "lan", Packet::ethernet(HOST, LAN).ipv4("10.1.0.2", "10.2.0.99").udp(5, 4000));
        at(day + 1.6, "left", bridged().vlan(5).udp(5, 6).payload(b"crossed"));
    }
    story
}

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

fn run(site: Site, name: &str, out: &Path) -> ReplaySummary {
    let inputs: Vec<_> = ["lan", "wan", "blue", "one", "left"]
        .map(|port| (port.to_owned(), golden(&format!("{name}/in-{port}.pcap"))))
        .to_vec();
    replay(&config(&site.text()), &inputs, out).unwrap()
}

fn bless(site: Site, name: &str) {
    std::fs::create_dir_all(golden(name)).unwrap();
    for (port, frames) in story(site) {
        let mut writer = CaptureWriter::create(golden(&format!("{name}/in-{port}.pcap"))).unwrap();
        for (at, frame) in frames {
            writer.write(BEGIN + at, &frame).unwrap();
        }
        writer.finish().unwrap();
    }
    let out = tempfile::tempdir().unwrap();
    run(site, name, out.path());
    for port in PORTS {
        let from = out.path().join(format!("{port}.pcap"));
        std::fs::copy(from, golden(&format!("{name}/out-{port}.pcap"))).unwrap();
    }
}

fn check(site: Site, name: &str) {
    if std::env::var_os("WEIR_BLESS").is_some() {
        bless(site, name);
    }
    for time in ["first", "second"] {
        let out = tempfile::tempdir().unwrap();
        let summary = run(site, name, out.path());
        for port in PORTS {
            let made = std::fs::read(out.path().join(format!("{port}.pcap"))).unwrap();
            let wanted = std::fs::read(golden(&format!("{name}/out-{port}.pcap"))).unwrap();
            if made != wanted {
                let list = |path: PathBuf| {
                    let records = CaptureReader::open(path).unwrap().map(Result::unwrap);
                    records.map(|r| format!("{} {:02x?}\n", r.timestamp, r.bytes)).collect::<String>()
                };
                let (made, wanted) =
                    (out.path().join(format!("{port}.pcap")), golden(&format!("{name}/out-{port}.pcap")));
                panic!("{name}, {time} time, port {port}: wanted\n{}made\n{}", list(wanted), list(made));
            }
        }
        let (entered, left) = summary.counters.balance();
        assert_eq!(entered, left, "{:?}", summary.counters);
        assert_eq!(summary.counters.received, summary.read.values().sum::<u64>());
        assert_eq!(summary.counters.transmitted, summary.written.values().sum::<u64>());
        assert!(summary.duration > 7200 * SECOND);
    }
}

#[test]
fn captures_over_an_ipv4_underlay_come_out_as_ever() {
    check(Site { chain: true, ecmp: true, ..PLAIN }, "site-v4");
}

#[test]
fn captures_over_an_ipv6_underlay_come_out_as_ever() {
    check(Site { chain: true, ecmp: true, ..SIX }, "site-v6");
}

/// Which free port a translation gets follows from a hash: another one is no fault if it is of the range, and odd or even as it was.
#[test]
fn captures_through_a_translator_come_out_as_ever() {
    check(Site { chain: true, ecmp: true, ..NATTED }, "site-nat");
}
