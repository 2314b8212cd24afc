//! What a reload that is refused leaves in the log; in a process of its own, which the log belongs to.

use std::io::Write;
use std::process::Command;
use std::sync::{Arc, Mutex};

use crate::common::{Daemon, eventually, in_a_child, ports};
use weir_control::daemon::Signal;

#[derive(Clone, Default)]
struct Capture(Arc<Mutex<Vec<u8>>>);

impl Write for Capture {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn every_error_of_a_refused_reload_is_logged_with_its_place() {
    let name = "log::every_error_of_a_refused_reload_is_logged_with_its_place";
    if !in_a_child(name, &mut Command::new("env")) {
        return;
    }
    let capture = Capture::default();
    let writer = capture.clone();
    tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).init();
    let daemon = Daemon::start(&ports(&["a"]));
    let log = || String::from_utf8_lossy(&capture.0.lock().unwrap()).into_owned();
    eventually("the announcement", || {
        log().contains("port a: device wx0 (up), dedicated, driver veth, AF_XDP native copy")
    });
    assert!(log().contains("port a: not obtained: zero-copy: operation not supported"), "{}", log());

    // A port that comes later is told of too, and only that one.
    std::fs::write(daemon.file(), ports(&["a", "b"])).unwrap();
    daemon.signal(Signal::Reload);
    eventually("the second port", || log().contains("port b: device wx1 (up), dedicated"));
    assert_eq!(log().matches("port a: device").count(), 1, "{}", log());
    std::fs::write(daemon.file(), "").unwrap();
    daemon.signal(Signal::Reload);
    eventually("a warning", || log().contains("the configuration has no port: nothing is received or sent"));
    assert!(log().contains("port a: closed") && log().contains("port b: closed"), "{}", log());

    std::fs::write(daemon.file(), "[port.a]\ndevise = \"wx0\"\n\n[prot.b]\n").unwrap();
    daemon.signal(Signal::Reload);
    eventually("the refusal", || log().contains("reload refused"));
    let file = daemon.file().display().to_string();
    for place in [format!("{file}:2:1: error["), format!("{file}:4:2: error[")] {
        assert!(log().contains(&place), "{place} is not in\n{}", log());
    }
}
