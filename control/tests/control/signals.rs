//! Real signals; in a process of its own, as they reach the whole process.

use std::process::Command;

use crate::common::in_a_child;
use weir_control::daemon::{Signal, signals};

#[test]
fn hangup_reloads_and_terminate_and_interrupt_stop() {
    if !in_a_child("signals::hangup_reloads_and_terminate_and_interrupt_stop", &mut Command::new("env")) {
        return;
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut received = signals().unwrap();
        for (name, expected) in [("HUP", Signal::Reload), ("TERM", Signal::Stop), ("INT", Signal::Stop)] {
            let pid = std::process::id().to_string();
            assert!(Command::new("kill").args(["-s", name, &pid]).status().unwrap().success());
            assert_eq!(received.recv().await, Some(expected), "SIG{name}");
        }
    });
}
