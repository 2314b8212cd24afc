//! The follower against a real kernel: each test runs itself again inside network namespaces of its own.

use std::process::Command;
use std::time::Duration;

use tokio::sync::mpsc::Receiver;
use tokio::time::timeout;

use super::*;
use crate::engine::DeviceEvent;

const INSIDE: &str = "WEIR_TEST_INSIDE_NAMESPACE";

/// Runs the test of this name again in a fresh network namespace; returns true there.
fn inside_a_namespace(test: &str) -> bool {
    if std::env::var_os(INSIDE).is_some() {
        return true;
    }
    if !Command::new("unshare").args(["-n", "true"]).status().is_ok_and(|status| status.success()) {
        eprintln!("skipped: network namespaces need root");
        return false;
    }
    let output = Command::new("unshare")
        .arg("-n")
        .arg(std::env::current_exe().unwrap())
        .args([&format!("netlink::tests::{test}"), "--exact", "--nocapture"])
        .env(INSIDE, "1")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && text.contains("1 passed"), "{text}{errors}");
    false
}

fn ip(arguments: &str) {
    let output = Command::new("ip").args(arguments.split_whitespace()).output().unwrap();
    assert!(output.status.success(), "ip {arguments}: {}", String::from_utf8_lossy(&output.stderr));
}

fn run(test: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(test);
}

async fn wait_for(events: &mut Receiver<KernelEvent>, wanted: &KernelEvent) {
    let mut others = Vec::new();
    let found = timeout(Duration::from_secs(10), async {
        while let Some(event) = events.recv().await {
            if event == *wanted {
                return true;
            }
            others.push(event);
        }
        false
    });
    assert_eq!(found.await, Ok(true), "{wanted:?} did not come, but {others:?}");
}

fn device(event: DeviceEvent) -> KernelEvent {
    KernelEvent::Device { device: "wa".to_owned(), event }
}

fn neighbour(address: &str, mac: Option<&str>) -> KernelEvent {
    KernelEvent::Neighbour {
        device: "wa".to_owned(),
        ip: address.parse().unwrap(),
        mac: mac.map(|text| text.parse().unwrap()),
    }
}

#[test]
fn links_addresses_and_neighbours_are_followed_from_the_first_dump_on() {
    if !inside_a_namespace("links_addresses_and_neighbours_are_followed_from_the_first_dump_on") {
        return;
    }
    run(async {
        ip("link add wa type veth peer name wb");
        ip("addr add 192.0.2.1/24 dev wa");
        ip("link set wa up");
        ip("link set wb up");
        ip("neigh add 192.0.2.9 lladdr 02:00:00:00:00:09 dev wa nud permanent");
        let (kernel, mut events) = Kernel::connect().await.unwrap();
        assert_eq!(kernel.view().addresses("wa"), ["192.0.2.1/24".parse::<ipnet::IpNet>().unwrap()]);
        assert_eq!(
            kernel.view().neighbours("wa"),
            [("192.0.2.9".parse().unwrap(), "02:00:00:00:00:09".parse().unwrap())]
        );

        ip("neigh change 192.0.2.9 lladdr 02:00:00:00:00:0a dev wa nud permanent");
        wait_for(&mut events, &neighbour("192.0.2.9", Some("02:00:00:00:00:0a"))).await;
        ip("neigh del 192.0.2.9 dev wa");
        wait_for(&mut events, &neighbour("192.0.2.9", None)).await;
        ip("neigh add 2001:db8::9 lladdr 02:00:00:00:00:09 dev wa nud reachable");
        wait_for(&mut events, &neighbour("2001:db8::9", Some("02:00:00:00:00:09"))).await;
        ip("addr add 2001:db8::1/64 dev wa nodad");
        wait_for(&mut events, &KernelEvent::Addresses { device: "wa".to_owned() }).await;
        assert_eq!(kernel.view().addresses("wa").len(), 2);

        ip("link set wb down");
        wait_for(&mut events, &device(DeviceEvent::CarrierDown)).await;
        ip("link set wb up");
        wait_for(&mut events, &device(DeviceEvent::CarrierUp)).await;
        ip("link del wa");
        wait_for(&mut events, &device(DeviceEvent::Vanished)).await;
        ip("link add wa type veth peer name wb");
        wait_for(&mut events, &device(DeviceEvent::Appeared)).await;
    });
}

#[test]
fn the_kernel_resolves_a_neighbour_on_request_and_tells_when_nobody_answers() {
    if !inside_a_namespace("the_kernel_resolves_a_neighbour_on_request_and_tells_when_nobody_answers") {
        return;
    }
    let namespace = format!("weir-netlink-{}", std::process::id());
    ip(&format!("netns add {namespace}"));
    let answer = std::panic::catch_unwind(|| {
        run(async {
            ip(&format!("link add wa type veth peer name wb netns {namespace}"));
            ip("addr add 192.0.2.1/24 dev wa");
            ip("addr add 2001:db8::1/64 dev wa nodad");
            ip("link set wa up");
            ip(&format!("-n {namespace} link set wb address 02:00:00:00:00:0b"));
            ip(&format!("-n {namespace} addr add 192.0.2.2/24 dev wb"));
            ip(&format!("-n {namespace} addr add 2001:db8::2/64 dev wb nodad"));
            ip(&format!("-n {namespace} link set wb up"));
            let (kernel, mut events) = Kernel::connect().await.unwrap();
            for address in ["192.0.2.2", "2001:db8::2"] {
                kernel.resolve("wa", address.parse().unwrap());
                wait_for(&mut events, &neighbour(address, Some("02:00:00:00:00:0b"))).await;
            }
            ip(&format!("-n {namespace} link set wb down"));
            wait_for(&mut events, &device(DeviceEvent::CarrierDown)).await;
        });
    });
    ip(&format!("netns del {namespace}"));
    answer.unwrap();
}

#[test]
fn after_lost_messages_everything_is_read_again() {
    if !inside_a_namespace("after_lost_messages_everything_is_read_again") {
        return;
    }
    run(async {
        ip("link add wa type veth peer name wb");
        ip("link set wa up");
        let (kernel, mut events) = Kernel::connect().await.unwrap();
        // The follower cannot run while this thread floods the socket's buffer, so messages are lost. The batch
        // ends with the news that must not be.
        let mut batch = String::new();
        for round in 0..40_000 {
            batch += &format!(
                "neigh replace 10.9.{}.{} lladdr 02:00:00:00:00:01 dev wa nud permanent\n",
                round / 200 % 2,
                round % 200
            );
            batch += &format!("neigh del 10.9.{}.{} dev wa\n", round / 200 % 2, round % 200);
        }
        batch += "neigh replace 192.0.2.7 lladdr 02:00:00:00:00:07 dev wa nud permanent\n";
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("batch");
        std::fs::write(&path, batch).unwrap();
        ip(&format!("-force -batch {}", path.display()));
        let last = neighbour("192.0.2.7", Some("02:00:00:00:00:07"));
        let mut told = 0;
        while events.recv().await.is_some_and(|event| event != last) {
            told += 1;
        }
        assert!(told < 80_000, "no message was lost: this proves nothing");
        assert_eq!(kernel.view().neighbours("wa").len(), 1, "what was deleted is not left over");
    });
}
