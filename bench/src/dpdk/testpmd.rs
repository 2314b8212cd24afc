//! DPDK's own programs: testpmd as the program under test and as the generator, and l3fwd.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use super::Setting;
use super::case::{Case, Source};
use super::process::{Program, cycles, file};
use crate::common::machine::HugePages;

/// How long they forward before they are measured.
const WARM_UP: Duration = Duration::from_millis(700);
/// How long two ends of a memif link take to connect, and testpmd to do as it is told.
const CONNECT: Duration = Duration::from_millis(700);
/// 2 MB pages that one of them takes beyond its buffers.
const PAGES: usize = 160;
/// Bytes of a buffer with all that is around it.
const BUFFER: u32 = 2560;

/// Options of EAL: one core to forward on, and the other for control.
fn eal(command: &mut Command, core: usize, control: usize, buffers: u32) {
    let megabytes = 64 + buffers / 1024 * BUFFER / 1024;
    command.args([format!("--lcores=0@{control},1@{core}"), "--no-pci".into(), "--no-telemetry".into()]);
    command.args(["-m".into(), megabytes.to_string()]);
    let enough = HugePages::probe().free >= PAGES.max(megabytes as usize / 2);
    command.arg(if enough { "--in-memory" } else { "--no-huge" });
}

/// testpmd in io mode between a case's two devices: its cycles a packet.
///
/// # Errors
/// What it says, or that it forwarded nothing.
pub(super) fn measure(case: &Case, setting: &Setting) -> Result<f64, String> {
    // testpmd does not listen on a name that is taken, and leaves its own behind.
    let _ = std::fs::remove_file(setting.folder.join("memif.sock"));
    let mut command = Command::new("stdbuf");
    command.args(["-oL", "dpdk-testpmd"]);
    eal(&mut command, setting.core, setting.other, case.buffers());
    command.args(case.devices(&setting.folder).map(|device| format!("--vdev={device}")));
    command.args([
        "--",
        "-i",
        "--auto-start",
        "--nb-cores=1",
        "--forward-mode=io",
        "--burst=64",
        "--no-flush-rx",
    ]);
    command.arg(format!("--total-num-mbufs={}", case.buffers()));
    let mut testpmd = Program::start(&mut command, file(&setting.folder, "testpmd.log"))?;
    testpmd.until(|said| said.contains("testpmd>"))?;
    let generator = match case.source {
        Source::Memif => Some(generator(setting)?),
        Source::Null | Source::Capture => None,
    };
    std::thread::sleep(WARM_UP);
    let result = cycles(setting.time, || sent(&mut testpmd))
        .map_err(|error| format!("testpmd, {}: {error}; it said: {}", case.name, testpmd.last_words()));
    match generator {
        Some(generator) => {
            result.map_err(|error| format!("{error}; the generator said: {}", generator.last_words()))
        }
        None => result,
    }
}

/// testpmd on the other core, which sends back by one memif link what comes by the other, and begins with some packets.
///
/// # Errors
/// What it says.
pub(super) fn generator(setting: &Setting) -> Result<Program, String> {
    let mut command = Command::new("stdbuf");
    command.args(["-oL", "dpdk-testpmd"]);
    eal(&mut command, setting.other, setting.other, 32_768);
    let socket = setting.folder.join("memif.sock");
    let device =
        |n| format!("--vdev=net_memif{n},role=client,id={n},socket={},socket-abstract=no", socket.display());
    command.args([device(0), device(1)]);
    command.args(["--", "-i", "--nb-cores=1", "--forward-mode=io", "--burst=64", "--no-flush-rx"]);
    command.arg("--total-num-mbufs=32768");
    let mut generator = Program::start(&mut command, file(&setting.folder, "generator.log"))?;
    generator.until(|said| said.contains("testpmd>"))?;
    // What is sent before both ends are connected is lost, and so is what comes back before it has polled once, and given the
    // other end buffers to write to.
    for line in ["start", "stop", "start tx_first 8"] {
        std::thread::sleep(CONNECT);
        generator.tell(line)?;
    }
    Ok(generator)
}

/// What testpmd has sent by its second port.
fn sent(testpmd: &mut Program) -> Result<u64, String> {
    let before = testpmd.said().len();
    testpmd.tell("show port stats 1")?;
    let end = Instant::now() + Duration::from_secs(5);
    loop {
        let said = testpmd.said();
        let fresh = said.get(before..).unwrap_or_default();
        let whole = fresh.contains("Tx-pps");
        if let Some(count) = transmitted(fresh).filter(|_| whole) {
            return Ok(count);
        }
        if Instant::now() > end {
            return Err(format!("it does not tell its statistics: {fresh}"));
        }
        std::thread::sleep(Duration::from_micros(200));
    }
}

/// Packets sent, from `show port stats`.
fn transmitted(text: &str) -> Option<u64> {
    let (_, rest) = text.rsplit_once("TX-packets:")?;
    rest.split_whitespace().next()?.parse().ok()
}

/// l3fwd between a case's devices, with as many routes: its cycles a packet.
///
/// It prints no statistics: its port's counters are asked for over telemetry.
///
/// # Errors
/// What it says, or that it forwarded nothing.
pub(super) fn measure_l3fwd(program: &Path, case: &Case, setting: &Setting) -> Result<f64, String> {
    let routes = file(&setting.folder, "routes4");
    std::fs::write(&routes, case.l3fwd_routes()).map_err(|error| error.to_string())?;
    let none = file(&setting.folder, "routes6");
    std::fs::write(&none, "R2001:db8::/32 1\n").map_err(|error| error.to_string())?;
    let run = file(&setting.folder, "l3fwd-run");
    std::fs::create_dir_all(&run).map_err(|error| error.to_string())?;
    let mut command = Command::new(program);
    command.env("XDG_RUNTIME_DIR", &run).env("RUNTIME_DIRECTORY", &run);
    let megabytes = 256 + case.buffers() / 1024 * BUFFER / 1024;
    command.args([format!("--lcores=0@{}", setting.core), "--no-pci".into()]);
    command.args(["-m".to_owned(), megabytes.to_string(), "--in-memory".into()]);
    command.args(case.devices(&setting.folder).map(|device| format!("--vdev={device}")));
    command.args(["--", "-p", "3", "-P", "-L", "--config=(0,0,0),(1,0,0)", "--parse-ptype"]);
    command.arg(format!("--rule_ipv4={}", routes.display())).arg(format!("--rule_ipv6={}", none.display()));
    let mut l3fwd = Program::start(&mut command, file(&setting.folder, "l3fwd.log"))?;
    l3fwd.until(|said| said.contains("entering main loop"))?;
    std::thread::sleep(WARM_UP);
    let socket = telemetry::find(&run)?;
    cycles(setting.time, || telemetry::sent(&socket, 1))
        .map_err(|error| format!("l3fwd, {}: {error}", case.name))
}

mod telemetry {
    //! DPDK's telemetry (lib/telemetry, version 2): a request and an answer in JSON over a sequenced-packet socket.

    use std::io;
    use std::os::fd::AsRawFd;
    use std::path::{Path, PathBuf};

    use nix::sys::socket::{
        AddressFamily, MsgFlags, SockFlag, SockType, UnixAddr, connect, recv, send, socket,
    };

    /// The socket below a run-time directory.
    pub(super) fn find(run: &Path) -> Result<PathBuf, String> {
        let folders = std::fs::read_dir(run.join("dpdk")).map_err(|error| error.to_string())?.flatten();
        let mut sockets =
            folders.flat_map(|folder| std::fs::read_dir(folder.path()).into_iter().flatten().flatten());
        let found =
            sockets.find(|entry| entry.file_name().to_string_lossy().starts_with("dpdk_telemetry.v2"));
        found.map(|entry| entry.path()).ok_or_else(|| format!("no telemetry socket below {}", run.display()))
    }

    /// What a port has sent, in packets.
    pub(super) fn sent(path: &Path, port: u16) -> Result<u64, String> {
        let answer = ask(path, &format!("/ethdev/stats,{port}"))
            .map_err(|error| format!("{}: {error}", path.display()))?;
        let answer: serde_json::Value = serde_json::from_str(&answer).map_err(|error| error.to_string())?;
        answer["/ethdev/stats"]["opackets"].as_u64().ok_or_else(|| format!("no statistics: {answer}"))
    }

    fn ask(path: &Path, question: &str) -> io::Result<String> {
        let socket = socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC, None)?;
        connect(socket.as_raw_fd(), &UnixAddr::new(path)?)?;
        let mut buffer = vec![0; 16_384];
        // It greets first.
        recv(socket.as_raw_fd(), &mut buffer, MsgFlags::empty())?;
        send(socket.as_raw_fd(), question.as_bytes(), MsgFlags::empty())?;
        let length = recv(socket.as_raw_fd(), &mut buffer, MsgFlags::empty())?;
        Ok(String::from_utf8_lossy(buffer.get(..length).unwrap_or_default()).into_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// From DPDK 22.11.
    const SAMPLE: &str = "\
testpmd> show port stats 1

  ######################## NIC statistics for port 1  ########################
  RX-packets: 0          RX-missed: 0          RX-bytes:  0
  RX-errors: 0
  RX-nombuf:  0         
  TX-packets: 40523904   TX-errors: 0          TX-bytes:  2593529856

  Throughput (since last show)
  Rx-pps:            0          Rx-bps:            0
  Tx-pps:            0          Tx-bps:            0
  ############################################################################
";

    #[test]
    fn what_testpmd_sent_is_read() {
        assert_eq!(transmitted(SAMPLE), Some(40_523_904));
        assert_eq!(transmitted("testpmd>"), None);
    }
}
