//! What the AF_XDP tests stand on: veth pairs whose far end is in a network namespace of its own, raw sockets there, and
//! frame memory. Everything is removed when it goes out of scope.
#![allow(
    dead_code,
    missing_docs,
    unreachable_pub,
    unsafe_code,
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout
)]

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use weir_config::{HugePages, PortMode, XdpMode};
use weir_dataplane::frame::{BURST, Frame, FrameCache, FrameMemory, FramePool};
use weir_dataplane::io::PortQueue;
use weir_dataplane::io::afxdp::{AfXdpPort, AfXdpQueue, OpenOptions};

/// EtherType for local experiments: nothing but these tests sends it.
pub const EXPERIMENT: [u8; 2] = [0x88, 0xb5];

/// Whether AF_XDP can be tested here; says so where it cannot.
pub fn privileged(test: &str) -> bool {
    // SAFETY: plain system call.
    let root = unsafe { libc::geteuid() } == 0;
    // SAFETY: as above.
    let socket = unsafe { libc::socket(libc::AF_XDP, libc::SOCK_RAW, 0) };
    if socket >= 0 {
        // SAFETY: our own descriptor, not used after this.
        unsafe { libc::close(socket) };
    }
    if root && socket >= 0 {
        return true;
    }
    println!("skipped: {test}: AF_XDP needs root and a kernel with CONFIG_XDP_SOCKETS");
    false
}

/// Runs a command; its output, or a panic with what it said.
pub fn run(command: &str) -> String {
    try_run(command).unwrap_or_else(|error| panic!("`{command}`: {error}"))
}

/// Runs a command; its output, or what it said.
pub fn try_run(command: &str) -> Result<String, String> {
    let mut words = command.split_whitespace();
    let output =
        Command::new(words.next().unwrap()).args(words).output().map_err(|error| error.to_string())?;
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    } else {
        Err(String::from_utf8_lossy(&output.stderr).into_owned())
    }
}

/// Moves this thread, what it spawns and what it runs into a fresh network namespace, once. It goes with the thread.
fn leave_the_host() {
    thread_local! { static LEFT: std::cell::Cell<bool> = const { std::cell::Cell::new(false) }; }
    if LEFT.replace(true) {
        return;
    }
    // SAFETY: plain system call.
    let left = unsafe { libc::unshare(libc::CLONE_NEWNET) };
    assert_eq!(left, 0, "{}", io::Error::last_os_error());
    run("ip link set lo up");
}

/// A veth pair: `device` here, `peer` in a namespace of its own.
pub struct Wire {
    pub device: String,
    pub peer: String,
    pub namespace: String,
    queues: u32,
}

impl Wire {
    pub fn new(queues: u32) -> Self {
        leave_the_host();
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let id = format!("{}n{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let wire = Self {
            device: format!("wx{id}"),
            peer: format!("wy{id}"),
            namespace: format!("weir-test-{id}"),
            queues,
        };
        run(&format!("ip netns add {}", wire.namespace));
        wire.plug();
        wire
    }

    /// Makes the devices; also again after [`unplug`](Self::unplug).
    pub fn plug(&self) {
        let Self { device, peer, namespace, queues } = self;
        let n = format!("numrxqueues {queues} numtxqueues {queues}");
        run(&format!("ip link add {device} {n} type veth peer name {peer} {n} netns {namespace}"));
        std::fs::write(format!("/proc/sys/net/ipv6/conf/{device}/disable_ipv6"), "1").unwrap();
        self.there(&format!("sysctl -qw net.ipv6.conf.{peer}.disable_ipv6=1"));
        self.there(&format!("ethtool -K {peer} tx off txvlan off"));
        self.there(&format!("ip link set {peer} up"));
        run(&format!("ip link set {device} up"));
    }

    /// Takes the near device down.
    pub fn down(&self) {
        run(&format!("ip link set {} down", self.device));
    }

    /// Has the near device up again, and both ends ready to send: the kernel drops what comes before it has noticed the carrier, on a
    /// busy machine for a second.
    pub fn up(&self) {
        run(&format!("ip link set {} up", self.device));
        let end = Instant::now() + SOON;
        let ready = |link: String| link.contains("state UP");
        while !(ready(run(&format!("ip link show dev {}", self.device)))
            && ready(self.there(&format!("ip link show dev {}", self.peer))))
        {
            assert!(Instant::now() < end, "{} has no carrier", self.device);
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Deletes the devices.
    pub fn unplug(&self) {
        run(&format!("ip link del {}", self.device));
    }

    /// Runs a command at the far end.
    pub fn there(&self, command: &str) -> String {
        run(&format!("ip netns exec {} {command}", self.namespace))
    }

    /// A raw socket at the far end.
    pub fn tap(&self) -> Tap {
        let (namespace, peer) = (self.namespace.clone(), self.peer.clone());
        std::thread::spawn(move || {
            let namespace = File::open(format!("/var/run/netns/{namespace}")).unwrap();
            // SAFETY: only this thread changes its namespace.
            let entered = unsafe { libc::setns(namespace.as_raw_fd(), libc::CLONE_NEWNET) };
            assert_eq!(entered, 0, "{}", io::Error::last_os_error());
            Tap::open(&peer)
        })
        .join()
        .unwrap()
    }

    /// Whether an XDP program is on the near end.
    pub fn has_xdp(&self) -> bool {
        run(&format!("ip -j link show dev {}", self.device)).contains("\"xdp\"")
    }

    pub fn options(&self, mode: PortMode, xdp: XdpMode) -> OpenOptions {
        OpenOptions::new(&self.device, mode, xdp)
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        let _ = try_run(&format!("ip link del {}", self.device));
        let _ = try_run(&format!("ip netns del {}", self.namespace));
    }
}

/// A raw socket on a device.
pub struct Tap {
    socket: OwnedFd,
    address: libc::sockaddr_ll,
}

impl Tap {
    fn open(device: &str) -> Self {
        let all = (libc::ETH_P_ALL as u16).to_be();
        // SAFETY: pointers and lengths are those of live values; the descriptor is fresh.
        unsafe {
            let fd = libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, all.into());
            assert!(fd >= 0, "{}", io::Error::last_os_error());
            let name = std::ffi::CString::new(device).unwrap();
            let mut address: libc::sockaddr_ll = std::mem::zeroed();
            address.sll_family = libc::AF_PACKET as u16;
            address.sll_protocol = all;
            address.sll_ifindex = libc::if_nametoindex(name.as_ptr()) as i32;
            let len = size_of_val(&address) as u32;
            let room: libc::c_int = 16 << 20;
            let room_len = size_of_val(&room) as u32;
            libc::setsockopt(fd, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, (&raw const room).cast(), room_len);
            assert_eq!(libc::bind(fd, (&raw const address).cast(), len), 0);
            Self { socket: OwnedFd::from_raw_fd(fd), address }
        }
    }

    pub fn send(&self, frame: &[u8]) {
        // SAFETY: the pointer and the length are those of a live slice.
        let sent = unsafe { libc::send(self.socket.as_raw_fd(), frame.as_ptr().cast(), frame.len(), 0) };
        assert_eq!(sent, frame.len() as isize, "{}", io::Error::last_os_error());
    }

    /// Sends a frame if the device is there and takes it; says whether it did.
    pub fn try_send(&self, frame: &[u8]) -> bool {
        // SAFETY: the pointer and the length are those of a live slice.
        let sent = unsafe { libc::send(self.socket.as_raw_fd(), frame.as_ptr().cast(), frame.len(), 0) };
        sent == frame.len() as isize
    }

    /// The next frame that the far end received and `wanted` accepts; `None` when the time is over.
    pub fn receive(&self, time: Duration, wanted: impl Fn(&[u8]) -> bool) -> Option<Vec<u8>> {
        let end = Instant::now() + time;
        let mut buffer = vec![0; 4096];
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let mut poll = libc::pollfd { fd: self.socket.as_raw_fd(), events: libc::POLLIN, revents: 0 };
            // SAFETY: one valid pollfd.
            let ready = unsafe { libc::poll(&mut poll, 1, left.as_millis() as i32) };
            if ready < 1 {
                return None;
            }
            let mut from = self.address;
            let mut from_len = size_of_val(&from) as u32;
            // SAFETY: pointers and lengths are those of live values.
            let n = unsafe {
                libc::recvfrom(
                    self.socket.as_raw_fd(),
                    buffer.as_mut_ptr().cast(),
                    buffer.len(),
                    0,
                    (&raw mut from).cast(),
                    &mut from_len,
                )
            };
            let outgoing = from.sll_pkttype == 4;
            if n > 0 && !outgoing && wanted(&buffer[..n as usize]) {
                return Some(buffer[..n as usize].to_vec());
            }
        }
    }
}

/// Frame memory with one worker's cache.
pub struct Memory {
    pub pool: Arc<FramePool>,
    pub cache: FrameCache,
}

impl Memory {
    pub fn new(frames: u32) -> Self {
        let memory = FrameMemory::map(frames, 2048, HugePages::Never).unwrap();
        let pool = FramePool::new(memory);
        Self { cache: FrameCache::new(pool.clone()), pool }
    }

    pub fn frame(&mut self, bytes: &[u8]) -> Frame {
        let mut frame = self.cache.alloc().unwrap();
        assert!(frame.write(bytes));
        frame
    }

    pub fn free(&mut self, frames: Vec<Frame>) {
        frames.into_iter().for_each(|frame| self.cache.free(frame));
    }

    /// Free frames in the pool once the cache has given up its own.
    pub fn free_frames(&mut self) -> usize {
        self.cache.flush();
        self.pool.available()
    }

    pub fn open(&self, options: &OpenOptions) -> (AfXdpPort, Vec<AfXdpQueue>) {
        AfXdpPort::open(options, &self.pool).unwrap_or_else(|error| panic!("{error}"))
    }

    /// Polls the queues for experiment frames (others are freed) until `count` came or the time is over.
    pub fn receive(&mut self, queues: &mut [AfXdpQueue], count: usize, time: Duration) -> Vec<Frame> {
        self.receive_if(queues, count, time, |bytes| bytes.get(12..14) == Some(&EXPERIMENT))
    }

    pub fn receive_if(
        &mut self,
        queues: &mut [AfXdpQueue],
        count: usize,
        time: Duration,
        wanted: impl Fn(&[u8]) -> bool,
    ) -> Vec<Frame> {
        let end = Instant::now() + time;
        let (mut burst, mut frames) = (Vec::with_capacity(BURST), Vec::new());
        while frames.len() < count && Instant::now() < end {
            for queue in &mut *queues {
                queue.service(&mut self.cache);
                if queue.receive(&mut burst, BURST, &mut self.cache) == 0 {
                    std::thread::sleep(Duration::from_micros(200));
                }
            }
            for frame in burst.drain(..) {
                if wanted(frame.bytes()) {
                    frames.push(frame);
                } else {
                    self.cache.free(frame);
                }
            }
        }
        frames
    }
}

pub const SOON: Duration = Duration::from_secs(3);
/// Long enough to be sure that nothing comes.
pub const NEVER: Duration = Duration::from_millis(200);

/// An experiment frame that carries `number`.
pub fn experiment(number: u32, len: usize) -> Vec<u8> {
    let mut frame = vec![0xff; 6];
    frame.extend([2, 0, 0, 0, 0, 9]);
    frame.extend(EXPERIMENT);
    frame.extend(number.to_be_bytes());
    frame.resize(len.max(60), number as u8);
    frame
}

/// The number that an experiment frame carries.
pub fn number(frame: &[u8]) -> u32 {
    u32::from_be_bytes(frame[14..18].try_into().unwrap())
}
