//! Frames, ports and a peer for the tests.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use weir_config::HugePages;
use weir_dataplane::frame::{BURST, Frame, FrameCache, FrameMemory, FramePool};
use weir_dataplane::io::PortQueue;
use weir_dataplane::io::dpdk::{DpdkOpenOptions, DpdkPort, DpdkQueue};

/// How long to wait for what must happen.
pub const SOON: Duration = Duration::from_secs(60);

/// A number that no other test of this process has: for names of devices.
pub fn unique() -> u32 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// A frame that can be told from all others, `len` bytes long.
pub fn numbered(n: u32, len: usize) -> Vec<u8> {
    let mut bytes = vec![0x02, 0, 0, 0, 0, 1, 0x02, 0, 0, 0, 0, 2, 0x88, 0xb5];
    bytes.extend(n.to_be_bytes());
    let filler = (0..).map(|at: u32| (at.wrapping_mul(31) ^ n) as u8);
    bytes.extend(filler.take(len.saturating_sub(bytes.len())));
    bytes.truncate(len);
    bytes
}

/// Frames, and a cache of them.
pub struct Memory {
    pub pool: Arc<FramePool>,
    pub cache: FrameCache,
    frames: usize,
}

impl Memory {
    pub fn new(frames: u32, frame_size: u16) -> Self {
        let pool = FramePool::new(FrameMemory::map(frames, frame_size, HugePages::Never).unwrap());
        Self { cache: FrameCache::new(Arc::clone(&pool)), pool, frames: frames as usize }
    }

    pub fn open(&self, options: &DpdkOpenOptions) -> (DpdkPort, Vec<DpdkQueue>) {
        DpdkPort::open(options, &self.pool).unwrap_or_else(|error| panic!("{}: {error}", options.devargs))
    }

    /// A port with one queue.
    pub fn single(&self, devargs: &str) -> (DpdkPort, DpdkQueue) {
        let (port, queues) = self.open(&DpdkOpenOptions::new(devargs));
        let [queue] = <[DpdkQueue; 1]>::try_from(queues).unwrap();
        (port, queue)
    }

    pub fn frame(&mut self, bytes: &[u8]) -> Frame {
        let mut frame = self.cache.alloc().unwrap();
        assert!(frame.write(bytes));
        frame
    }

    /// Sends all of these, however long it takes.
    pub fn send(&mut self, queue: &mut DpdkQueue, frames: impl IntoIterator<Item = Vec<u8>>) {
        let mut frames: Vec<Frame> = frames.into_iter().map(|bytes| self.frame(&bytes)).collect();
        let started = Instant::now();
        while !frames.is_empty() {
            queue.transmit(&mut frames, &mut self.cache);
            queue.service(&mut self.cache);
            assert!(started.elapsed() < SOON, "{} frames could not be sent", frames.len());
        }
    }

    /// Waits for so many frames.
    pub fn receive(&mut self, queue: &mut DpdkQueue, count: usize) -> Vec<Vec<u8>> {
        let (mut burst, mut received) = (Vec::new(), Vec::new());
        let started = Instant::now();
        while received.len() < count && started.elapsed() < SOON {
            queue.receive(&mut burst, BURST, &mut self.cache);
            queue.service(&mut self.cache);
            for frame in burst.drain(..) {
                received.push(frame.bytes().to_vec());
                self.cache.free(frame);
            }
        }
        assert_eq!(received.len(), count);
        received
    }

    /// Every frame is back, and none was lost.
    pub fn expect_whole(&mut self) {
        self.cache.flush();
        assert_eq!(self.pool.available(), self.frames);
        assert_eq!(Frame::leaked(), 0);
    }
}

/// DPDK's testpmd. With one virtual device it sends back what it receives, with two it sends to the other. It ends with this.
pub struct Testpmd(Child);

impl Testpmd {
    pub fn start(devices: &[String]) -> Self {
        let topology = if devices.len() == 1 { "loop" } else { "paired" };
        let mut child = Command::new("stdbuf")
            .args(["-oL", "dpdk-testpmd", "--lcores=0@(0-1),1@(0-1)", "--no-pci", "--no-huge", "-m", "256"])
            .args(["--no-shconf", "--no-telemetry"])
            .args(devices.iter().map(|device| format!("--vdev={device}")))
            .args(["--", "--nb-cores=1", "--forward-mode=io", "--no-flush-rx", "--total-num-mbufs=8192"])
            .arg(format!("--port-topology={topology}"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| panic!("dpdk-testpmd (`make setup` installs it): {error}"));
        let output = child.stdout.take().unwrap();
        let (said, ready) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                if line.contains("Press enter to exit") {
                    let _ = said.send(());
                }
            }
        });
        let this = Self(child);
        ready.recv_timeout(2 * SOON).unwrap_or_else(|_| panic!("testpmd does not start with {devices:?}"));
        this
    }
}

impl Drop for Testpmd {
    fn drop(&mut self) {
        let _ = self.0.stdin.take().map(|mut input| input.write_all(b"\n"));
        let started = Instant::now();
        while matches!(self.0.try_wait(), Ok(None)) && started.elapsed() < SOON {
            std::thread::sleep(Duration::from_millis(20));
        }
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Waits for something to become true.
pub fn eventually(what: &str, mut is: impl FnMut() -> bool) {
    let started = Instant::now();
    while !is() {
        assert!(started.elapsed() < SOON, "not so in time: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Whether a file is there.
pub fn exists(path: &Path) -> bool {
    path.exists()
}
