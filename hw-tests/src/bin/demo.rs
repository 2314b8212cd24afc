//! The demonstration: two sites in network namespaces, each a Linux host behind a weir, an underlay between them. It shows in plain
//! words what happens to traffic between the sites, with the counters that prove it, and fails if anything is not as it says.

#![allow(clippy::print_stdout, clippy::panic)] // It talks to a person, and a broken promise ends it.

use std::time::{Duration, Instant};

use weir_hw_tests::{Lab, Node, WeirBox};

const WEST: &str = include_str!("../../../demo/west.toml");
const EAST: &str = include_str!("../../../demo/east.toml");

struct Demo {
    alice: Node,
    bob: Node,
    west: WeirBox,
    east: WeirBox,
    broken: Vec<String>,
}

fn main() {
    let started = Instant::now();
    println!("Two sites, each a Linux host behind a weir, and an underlay that knows nothing of them:\n");
    println!("  alice ───────── west ═══════ VXLAN 100 ═══════ east ───────── bob");
    println!("  10.1.0.2         192.0.2.1          192.0.2.2         10.2.0.2");
    println!("  2001:db8:1::2    demo/west.toml     demo/east.toml    2001:db8:2::2\n");

    let lab = Lab::new();
    let (alice, bob) = (lab.host("10.1.0.2/24 2001:db8:1::2/64"), lab.host("10.2.0.2/24 2001:db8:2::2/64"));
    let (west, east) = (lab.weir(WEST), lab.weir(EAST));
    lab.wire(&alice, &west, "pods");
    lab.wire(&west, &east, "underlay");
    lab.wire(&east, &bob, "pods");
    lab.start();

    let mut demo = Demo { alice, bob, west, east, broken: Vec::new() };
    demo.ports();
    demo.pings();
    demo.transfer();
    demo.denied_port();
    demo.policed_stream();
    demo.reload_in_mid_transfer();
    demo.accounts();

    let Demo { broken, .. } = demo;
    assert!(broken.is_empty(), "the demonstration failed:\n  {}", broken.join("\n  "));
    drop(lab);
    println!(
        "\nAll of it as promised, in {:.0} s. Namespaces, wires and weirs are gone again.",
        started.elapsed().as_secs_f32()
    );
}

impl Demo {
    fn ports(&self) {
        println!("West's ports, as `weir show ports` tells:");
        self.west.show_text("ports").lines().for_each(|line| println!("  {line}"));
    }

    fn pings(&mut self) {
        title("Alice pings bob");
        for (family, ping) in
            [("IPv4", self.alice.ping(&self.bob)), ("IPv6", self.alice.ping(&self.bob).v6())]
        {
            let report = ping.count(10).run();
            self.say(
                report.received == 10,
                &format!("over {family}: {} of {} replies", report.received, report.sent),
            );
        }
        let walks = self.west.counters().get("flow_misses");
        let hits = self.west.counters().get("flow_hits");
        println!("        west walked its chain for {walks} packets and replayed cached programs for {hits}");
    }

    fn transfer(&mut self) {
        title("Alice sends bob 20 MB over TCP, port 443");
        let report = self.alice.tcp(&self.bob).port(443).start(20_000_000).finish();
        let whole = report.received.as_ref().is_ok_and(|bytes| *bytes == 20_000_000);
        let rate = 160.0 / report.took.as_secs_f64();
        self.say(whole, &format!("every byte arrived as sent, at {rate:.0} Mbit/s"));
        let learned = self.alice.learned_mtu(&self.bob);
        let refused = self.west.counters().get("dropped.packet_too_big");
        self.say(
            learned == Some(1450) && refused > 0,
            &format!("west refused {refused} packets of 1500 bytes, and alice's kernel learned the MTU of the path: {learned:?}"),
        );
    }

    fn denied_port(&mut self) {
        title("Alice tries port 80, which east's firewall does not allow");
        let before = self.east.counters().get("dropped.firewall_denied");
        let report = self.alice.tcp(&self.bob).port(80).wait(Duration::from_secs(2)).start(1).finish();
        let denied = self.east.counters().get("dropped.firewall_denied") - before;
        self.say(report.sent.is_err(), "nothing answered for two seconds");
        self.say(denied > 0, &format!("east counted {denied} packets as firewall_denied"));
    }

    fn policed_stream(&mut self) {
        title("Alice sends 8 Mbit/s of numbered datagrams where west's policer allows 2 Mbit/s");
        let before = self.west.counters().get("dropped.policed");
        let report = self.alice.udp(&self.bob).size(1_000).rate(1_000).count(3_000).run();
        let policed = self.west.counters().get("dropped.policed") - before;
        let bucket = 20_000.0 + 250_000.0 * report.took.as_secs_f64();
        let share = 100.0 * report.bytes as f64 / bucket;
        self.say(
            (85.0..=102.0).contains(&share),
            &format!(
                "{} of {} arrived: {share:.0} % of what the bucket holds in that time",
                report.received, report.sent
            ),
        );
        let missing = report.missing.len() as u64;
        self.say(
            policed == missing,
            &format!("{missing} are missing, and west counted {policed} as policed"),
        );
    }

    fn reload_in_mid_transfer(&mut self) {
        title("West gets a new configuration in the middle of a transfer, 20 times");
        let before = self.west.generation();
        let transfer = self.alice.tcp(&self.bob).port(443).rate(5_000_000).start(20_000_000);
        let pings = self.alice.ping(&self.bob).count(1);
        let mut lost = 0;
        for rate in 0..20 {
            self.west.apply(&WEST.replace("2Mbit/s", &format!("{}Mbit/s", 3 + rate)));
            let report = pings.run();
            lost += report.sent - report.received;
        }
        let in_the_middle = transfer.is_running();
        let generations = self.west.generation() - before;
        let report = transfer.finish();
        let whole = report.received.as_ref().is_ok_and(|bytes| *bytes == 20_000_000);
        self.say(
            generations == 20 && in_the_middle,
            &format!("{generations} generations were compiled and picked up while bytes flowed"),
        );
        self.say(
            whole && lost == 0,
            &format!("the transfer is whole, and {lost} of 20 pings in between were lost"),
        );
    }

    fn accounts(&mut self) {
        title("Every packet is accounted for");
        let boxes = [("west", self.west.clone()), ("east", self.east.clone())];
        for (name, weir) in boxes {
            let counters = weir.counters();
            let numbers: Vec<_> = ["received", "originated", "transmitted", "dropped", "consumed", "punted"]
                .iter()
                .map(|what| {
                    format!(
                        "{} {what}",
                        if *what == "dropped" { counters.dropped() } else { counters.get(what) }
                    )
                })
                .collect();
            self.say(counters.is_conserved(), &format!("{name}: {}", numbers.join(", ")));
        }
    }

    fn say(&mut self, holds: bool, what: &str) {
        println!("  {}  {what}", if holds { "  ok" } else { "FAIL" });
        if !holds {
            self.broken.push(what.to_owned());
        }
    }
}

fn title(text: &str) {
    println!("\n{text}:");
}
