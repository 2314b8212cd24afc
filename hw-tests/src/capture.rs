//! Captures by `tcpdump`, judged by `tshark` with every checksum validated.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::namespace::run;
use crate::process::Process;
use crate::{Node, eventually};

/// tshark's preferences that make it verify what it usually trusts to hardware.
const VALIDATE: [&str; 6] = [
    "ip.check_checksum:TRUE",
    "tcp.check_checksum:TRUE",
    "udp.check_checksum:TRUE",
    // A sender's own retransmissions and windows are not what a capture is judged by.
    "tcp.analyze_sequence_numbers:FALSE",
    "tcp.desegment_tcp_streams:FALSE",
    "sctp.checksum:crc32c",
];

/// Payloads are patterns, whatever protocol tshark would guess from the port or the bytes; only VXLAN is looked into.
const PAYLOADS: [&str; 3] = ["tcp.port==1-65535,data", "udp.port==1-4788,data", "udp.port==4790-32767,data"];

/// What no packet on a wire may be. A checksum's status 0 is "bad". What an ICMP error quotes is cut off, so that its transport
/// checksum cannot be right. 0xffff and 0 are the same sum, and Linux writes the former also for TCP, which tshark minds.
const FAULTS: &str = "_ws.malformed || ip.checksum.status == 0 || icmp.checksum.status == 0 || icmpv6.checksum.status == 0 \
                      || (((tcp.checksum.status == 0 && !(tcp.checksum == 0xffff)) || udp.checksum.status == 0) \
                          && !(icmp.type in {3, 4, 5, 11, 12}) && !(icmpv6.type in {1, 2, 3, 4}))";

/// A capture that runs until it is looked at.
#[derive(Debug)]
pub struct Capture {
    // Keeps the namespace while tcpdump is inside.
    _node: Node,
    process: Option<Process>,
    path: PathBuf,
}

impl Capture {
    /// Starts `tcpdump` on an interface of a node and waits until it listens.
    pub(crate) fn start(node: &Node, interface: &str) -> Self {
        let path = node.lab().capture_path(&format!("{}-{interface}", node.state().label()));
        let mut command = node.command("tcpdump");
        command.args([
            "-i",
            interface,
            "-n",
            "-U",
            "--immediate-mode",
            "-B",
            "16384",
            "-s",
            "0",
            "-Z",
            "root",
            "-w",
        ]);
        let process = Process::start(command.arg(&path), &path.with_extension("log"));
        let listening =
            eventually(Duration::from_secs(10), || process.output().contains("listening on").then_some(()));
        assert!(listening.is_some(), "tcpdump does not listen: {}", process.output());
        Self { _node: node.clone(), process: Some(process), path }
    }

    /// Ends the capture; where it is.
    pub fn stop(&mut self) -> &Path {
        if let Some(mut process) = self.process.take() {
            // What was sent last is on its way to tcpdump.
            std::thread::sleep(Duration::from_millis(100));
            process.signal(Signal::SIGINT);
            process.wait(Duration::from_secs(5)).expect_code(0);
        }
        &self.path
    }

    /// How many packets match a display filter, such as `icmp && ip.src == 10.1.0.2`.
    pub fn count(&mut self, filter: &str) -> usize {
        self.lines(filter, &["-T", "fields", "-e", "frame.number"]).len()
    }

    /// The values of a field in the packets that match a filter; one text a packet.
    pub fn fields(&mut self, filter: &str, field: &str) -> Vec<String> {
        self.lines(filter, &["-T", "fields", "-e", field])
    }

    /// Expects packets that match a filter.
    #[track_caller]
    pub fn expect_some(&mut self, filter: &str) -> &mut Self {
        assert!(self.count(filter) > 0, "no packet matches {filter:?} in {}", self.path.display());
        self
    }

    /// Expects no packet that matches a filter.
    #[track_caller]
    pub fn expect_none(&mut self, filter: &str) -> &mut Self {
        let found = self.lines(filter, &[]);
        assert!(
            found.is_empty(),
            "packets match {filter:?} in {}:\n{}",
            self.path.display(),
            found.join("\n")
        );
        self
    }

    /// Expects at least one packet, none malformed, and no checksum wrong, outside or inside of a tunnel.
    #[track_caller]
    pub fn assert_clean_capture(&mut self) -> &mut Self {
        assert!(self.count("frame") > 0, "nothing was captured in {}", self.path.display());
        self.expect_none(FAULTS)
    }

    #[track_caller]
    fn lines(&mut self, filter: &str, arguments: &[&str]) -> Vec<String> {
        let mut command = Command::new("tshark");
        command.stdin(Stdio::null()).args(["-n", "-r"]).arg(self.stop());
        for preference in VALIDATE {
            command.args(["-o", preference]);
        }
        for payload in PAYLOADS {
            command.args(["-d", payload]);
        }
        run(command.args(["-Y", filter]).args(arguments)).lines().map(str::to_owned).collect()
    }
}
