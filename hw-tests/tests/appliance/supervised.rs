//! This test is systemd: sd_notify(3) as its socket hears it.

use std::os::unix::net::UnixDatagram;
use std::time::{Duration, Instant};

use weir_hw_tests::{Lab, WeirBox};

use crate::tracer::Stopped;
use crate::{ROUTER, worker};

/// Time of the watchdog.
const WATCHDOG: Duration = Duration::from_secs(2);

struct Supervisor {
    socket: UnixDatagram,
}

impl Supervisor {
    fn new(lab: &Lab) -> (Self, [(&'static str, String); 2]) {
        let path = lab.directory().join("notify.sock");
        let socket = UnixDatagram::bind(&path).expect("a socket for notifications");
        let time = WATCHDOG.as_micros().to_string();
        (Self { socket }, [("NOTIFY_SOCKET", path.display().to_string()), ("WATCHDOG_USEC", time)])
    }

    /// The next message, if there is one before `deadline`.
    fn message(&self, deadline: Instant) -> Option<String> {
        let left = deadline.checked_duration_since(Instant::now()).filter(|left| !left.is_zero())?;
        self.socket.set_read_timeout(Some(left)).expect("set a timeout");
        let mut buffer = [0; 4096];
        let length = self.socket.recv(&mut buffer).ok()?;
        Some(String::from_utf8_lossy(&buffer[..length]).into_owned())
    }

    /// What is said within this time, message by message.
    fn hear(&self, time: Duration) -> Vec<String> {
        let deadline = Instant::now() + time;
        std::iter::from_fn(|| self.message(deadline)).collect()
    }

    /// Listens until `wanted` is said, and returns the message; what follows it is heard next.
    #[track_caller]
    fn await_word(&self, wanted: &str) -> String {
        let (deadline, mut all) = (Instant::now() + Duration::from_secs(30), Vec::new());
        while let Some(message) = self.message(deadline) {
            if message.contains(wanted) {
                return message;
            }
            all.push(message);
        }
        panic!("`{wanted}` was not said, but {all:?}");
    }
}

fn supervised(lab: &Lab) -> (Supervisor, WeirBox) {
    let (supervisor, variables) = Supervisor::new(lab);
    let variables: Vec<_> = variables.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let weir = lab.weir_with(ROUTER, &variables);
    let (left, right) = (lab.host("10.1.0.2/24"), lab.host("10.2.0.2/24"));
    lab.wire(&left, &weir, "left");
    lab.wire(&weir, &right, "right");
    lab.start();
    (supervisor, weir)
}

#[test]
fn systemd_is_told_of_readiness_the_watchdog_reloads_refusals_and_the_end() {
    let lab = Lab::new();
    let (systemd, weir) = supervised(&lab);
    assert!(systemd.await_word("READY=1").contains("STATUS=generation 1"));
    for _ in 0..3 {
        systemd.await_word("WATCHDOG=1");
    }

    weir.hang_up(&ROUTER.replace("10.2.0.1", "10.2.0.9"));
    assert!(systemd.await_word("RELOADING=1").contains("MONOTONIC_USEC="));
    systemd.await_word("READY=1");
    systemd.await_word("STATUS=generation 2");

    weir.hang_up("[port.left]\nnonsense = 1\n");
    systemd.await_word("RELOADING=1");
    systemd.await_word("READY=1");
    let status = systemd.await_word("the last change was refused");
    assert!(status.starts_with("STATUS=generation 2"), "{status}");
    assert_eq!(weir.generation(), 2, "the running generation goes on");

    weir.terminate();
    let said = systemd.hear(Duration::from_millis(200));
    assert!(said.iter().any(|message| message.contains("STOPPING=1")), "{said:?}");
}

#[test]
fn the_watchdog_is_not_fed_while_a_worker_is_stopped_though_control_answers() {
    let lab = Lab::new();
    let (systemd, weir) = supervised(&lab);
    systemd.await_word("WATCHDOG=1");
    {
        let _stopped = Stopped::stop(worker(weir.pid()));
        // One look may have been under way; the next finds the worker where it was.
        systemd.hear(WATCHDOG);
        let said = systemd.hear(WATCHDOG);
        assert!(said.iter().all(|message| !message.contains("WATCHDOG=1")), "{said:?}");
        assert_eq!(weir.show("version")["api"], "v1", "control answers");
    }
    systemd.await_word("WATCHDOG=1");
    assert!(weir.log().contains("the watchdog is not fed: workers [0] do not go round"), "{}", weir.log());
}
