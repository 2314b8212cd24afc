//! What DPDK may not change in a process that uses it: where its threads run and how it handles signals. One test, since DPDK is
//! initialised once in the life of a process.
#![allow(unsafe_code, clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::sync::mpsc;

use weir_config::HugePages;
use weir_dataplane::frame::{FrameMemory, FramePool};
use weir_dataplane::io::dpdk::{DpdkOpenOptions, DpdkPort, Level, set_log};

/// How each signal is handled: the address of its handler, and flags.
fn signals() -> Vec<(i32, usize, i32)> {
    (1..=64)
        .filter_map(|signal| {
            // SAFETY: asks for the present action, and sets none.
            unsafe {
                let mut action: libc::sigaction = std::mem::zeroed();
                let known = libc::sigaction(signal, std::ptr::null(), &raw mut action) == 0;
                known.then_some((signal, action.sa_sigaction, action.sa_flags))
            }
        })
        .collect()
}

/// A line of each thread's status, by thread.
fn threads(what: &str) -> BTreeMap<String, String> {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap().flatten();
    let status = tasks.filter_map(|task| {
        let text = std::fs::read_to_string(task.path().join("status")).ok()?;
        let line = text.lines().find(|line| line.starts_with(what))?.to_owned();
        Some((task.file_name().into_string().ok()?, line))
    });
    status.collect()
}

#[test]
fn dpdk_changes_neither_affinity_nor_signals_and_its_log_is_heard() {
    let (sender, lines) = mpsc::channel();
    assert!(set_log(move |level, line| {
        let _ = sender.send((level, line.to_owned()));
    }));
    assert!(!set_log(|_, _| ()), "there is one hook");
    let before = (signals(), threads("Cpus_allowed_list"));

    let pool = FramePool::new(FrameMemory::map(2048, 2048, HugePages::Never).unwrap());
    let refused = DpdkPort::open(&DpdkOpenOptions::new("net_nothing0"), &pool).unwrap_err().to_string();
    assert!(refused.starts_with("DPDK cannot probe `net_nothing0`: "), "{refused}");
    assert!(refused.contains("; DPDK said: "), "{refused}");
    let refused = DpdkPort::open(&DpdkOpenOptions::new("0000:ff:1f.7"), &pool).unwrap_err().to_string();
    assert!(refused.starts_with("DPDK device `0000:ff:1f.7`: there is no such function"), "{refused}");

    let (port, queues) = DpdkPort::open(&DpdkOpenOptions::new("net_null0"), &pool).unwrap();
    let after = (signals(), threads("Cpus_allowed_list"));
    assert_eq!(before.0, after.0);
    for (thread, cores) in &before.1 {
        assert_eq!(after.1.get(thread), Some(cores), "thread {thread}");
    }
    // Its own threads run where the process may, and take no signal that is meant for it.
    let blocked = threads("SigBlk");
    for (thread, cores) in after.1.iter().filter(|(thread, _)| !before.1.contains_key(*thread)) {
        assert!(before.1.values().any(|ours| ours == cores), "thread {thread}: {cores}");
        let mask = blocked[thread].split_whitespace().last().unwrap();
        let mask = u64::from_str_radix(mask, 16).unwrap();
        for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGHUP] {
            assert!(mask >> (signal - 1) & 1 == 1, "thread {thread}: {mask:x}");
        }
    }

    // A second token is refused, whatever the device.
    let mut options = DpdkOpenOptions::new("net_null1");
    options.token = Some("14d63f20-8445-11ea-8900-1f9ce7d5650d".to_owned());
    let refused = DpdkPort::open(&options, &pool).unwrap_err().to_string();
    assert!(refused.contains("VF token differs"), "{refused}");
    let refused = DpdkPort::open(&DpdkOpenOptions::new("net_null0"), &pool).unwrap_err().to_string();
    assert_eq!(refused, "`net_null0` is open already in this process");
    drop((port, queues));
    assert_eq!(pool.available(), 2048);

    let heard: Vec<(Level, String)> = lines.try_iter().collect();
    assert!(
        heard.iter().any(|(level, line)| *level == Level::Error && line.starts_with("EAL:")),
        "{heard:?}"
    );
    assert!(heard.iter().all(|(_, line)| !line.is_empty() && !line.contains('\n')), "{heard:?}");
}
