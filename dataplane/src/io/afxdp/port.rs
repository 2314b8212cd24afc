//! Opening a device: which queues, which mode, what was obtained.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use weir_config::{MacAddress, PortMode, XdpMode};

use super::device::{Device, Membership, QueueCounts};
use super::error::{OpenError, SteerError, explain, may_lock_memory, missing_capabilities};
use super::program::{AttachMode, Attachment, Program, ProgramCounters};
use super::queue::AfXdpQueue;
use super::socket::{Binding, RingSizes, XskSocket};
use super::steering::Steering;
use crate::frame::{Frame, FramePool, HEADROOM};

/// Ethernet header and two VLAN tags.
const LINK_OVERHEAD: u32 = 14 + 2 * 4;

/// How a device is opened.
#[derive(Clone, Debug)]
pub struct OpenOptions {
    /// Name of the network device.
    pub device: String,
    /// Whether the device is weir's alone.
    pub mode: PortMode,
    /// Best XDP mode to try first.
    pub xdp: XdpMode,
    /// Receive ring of each queue in entries, rounded up to a power of two from 64 to 32768; the fill ring, and with it
    /// the number of frames that each queue takes from the pool, is twice as long.
    pub rx_ring: u32,
    /// Transmit and completion ring of each queue in entries, rounded likewise.
    pub tx_ring: u32,
    /// Receive frames to other MAC addresses too (dedicated mode only), as a bridge member must.
    pub promiscuous: bool,
    /// Have the kernel write the time of arrival in front of received frames (dedicated mode only, for measuring):
    /// [`arrival`] reads it.
    pub stamps: bool,
    /// How long to wait for a carrier that attaching took away.
    pub carrier_wait: Duration,
    /// How long to retry while the kernel is still freeing what an earlier owner held.
    pub busy_wait: Duration,
}

impl OpenOptions {
    /// The usual options for `device`.
    pub fn new(device: impl Into<String>, mode: PortMode, xdp: XdpMode) -> Self {
        Self {
            device: device.into(),
            mode,
            xdp,
            rx_ring: 1024,
            tx_ring: 1024,
            promiscuous: false,
            stamps: false,
            carrier_wait: Duration::from_secs(5),
            busy_wait: Duration::from_secs(2),
        }
    }
}

/// What stands in front of a stamp: the same in bpf/weir.bpf.c.
const STAMP_MARK: u64 = 0x7765_6972_7374_6d70;

/// When the kernel got a frame that was received with [`OpenOptions::stamps`], in ns of CLOCK_MONOTONIC. `None` if the driver leaves
/// no room for metadata.
#[inline]
pub fn arrival(frame: &mut Frame) -> Option<u64> {
    if !frame.grow_front(16) {
        return None;
    }
    let word = |at: usize| {
        let bytes = frame.bytes().get(at..at + 8)?.try_into().ok()?;
        Some(u64::from_ne_bytes(bytes))
    };
    let stamp = word(0).filter(|mark| *mark == STAMP_MARK).and_then(|_| word(8));
    frame.strip(16);
    stamp
}

/// The XDP mode that a port got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum XdpObtained {
    /// The device writes to and reads from frames itself.
    ZeroCopy,
    /// The driver runs the program, the kernel copies frames.
    NativeCopy,
    /// The kernel runs the program on its own packet buffers and copies frames.
    Generic,
}

impl fmt::Display for XdpObtained {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ZeroCopy => "zero-copy",
            Self::NativeCopy => "native copy",
            Self::Generic => "generic",
        })
    }
}

/// What a port is and got.
#[derive(Clone, Debug)]
pub struct PortInfo {
    /// Device name.
    pub device: String,
    /// Kernel driver, such as "veth"; "unknown" if it does not say.
    pub driver: String,
    /// Interface index.
    pub ifindex: u32,
    /// The device's MAC address.
    pub mac: MacAddress,
    /// Largest L3 packet in bytes.
    pub mtu: u32,
    /// NUMA node, −1 if the device has none.
    pub numa: i32,
    /// Receive queues, each with a socket.
    pub queues: u32,
    /// Transmit queues. If there are fewer than receive queues, the surplus queues cannot send.
    pub tx_queues: u32,
    /// XDP mode obtained.
    pub xdp: XdpObtained,
    /// What was said to each better mode, a line each.
    pub refused: Vec<String>,
    /// What the operator should know, a line each.
    pub warnings: Vec<String>,
    /// Whether there was a carrier when the port was opened.
    pub carrier: bool,
}

/// A device's link, now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinkState {
    /// Whether the device is still the one that was opened.
    pub present: bool,
    /// Whether it is up and has a carrier.
    pub carrier: bool,
    /// Largest L3 packet in bytes; 0 if the device is gone.
    pub mtu: u32,
}

/// The control side of an AF_XDP port. While it lives, the XDP program is attached.
#[derive(Debug)]
pub struct AfXdpPort {
    info: PortInfo,
    device: Device,
    mode: PortMode,
    program: Program,
    _attachment: Attachment,
    promiscuous: bool,
    _membership: Option<OwnedFd>,
    gone: Arc<AtomicBool>,
}

/// The largest MTU whose frames fit chunks of `frame_size` bytes behind the headroom, with two VLAN tags.
pub(super) fn largest_mtu(frame_size: u16) -> u32 {
    u32::from(frame_size).saturating_sub(u32::from(HEADROOM) + LINK_OVERHEAD)
}

impl AfXdpPort {
    /// Attaches the XDP program to a device and binds a socket to each of its receive queues, in the best mode that
    /// `options.xdp` allows and the device gives. The device is looked for in the calling thread's network namespace.
    ///
    /// Blocks for as long as [`OpenOptions::busy_wait`] and [`OpenOptions::carrier_wait`] say: not for a worker to call.
    /// A dedicated device that is down is brought up. A shared one takes nothing before [`steer`](Self::steer).
    ///
    /// # Errors
    /// [`OpenError`], in words for the operator. The device is then as it was and the pool whole.
    pub fn open(options: &OpenOptions, pool: &Arc<FramePool>) -> Result<(Self, Vec<AfXdpQueue>), OpenError> {
        let opening = Opening::prepare(options, pool)?;
        let program = Program::load(options.mode, options.stamps, opening.counts.receive)
            .map_err(|reason| OpenError::Program { reason })?;
        let had_carrier = opening.device.has_carrier();
        let (xdp, attachment, mut queues, refused) = opening.obtain(&program)?;
        for queue in &mut queues {
            let sends = queue.number() < opening.counts.transmit;
            queue.start(program.sockets(), sends).map_err(|reason| OpenError::Program { reason })?;
        }
        let membership = opening.join()?;
        if had_carrier {
            opening.await_carrier();
        }
        let info = opening.info(xdp, refused)?;
        let port = Self {
            info,
            mode: options.mode,
            device: opening.device,
            program,
            _attachment: attachment,
            promiscuous: options.promiscuous,
            _membership: membership,
            gone: opening.gone,
        };
        Ok((port, queues))
    }

    /// Receive queues of a device in the calling thread's network namespace, if there is such a device.
    pub fn receive_queues(device: &str) -> Option<usize> {
        Device::find(device).ok().map(|device| device.queues().receive as usize)
    }

    /// What the port is and got when it was opened.
    pub fn info(&self) -> &PortInfo {
        &self.info
    }

    /// The device's link now. A device found gone makes its queues' `alive()` false.
    pub fn link(&self) -> LinkState {
        let present = self.device.present();
        if !present {
            self.gone.store(true, Ordering::Release);
        }
        LinkState {
            present,
            carrier: present && self.device.has_carrier(),
            mtu: if present { self.device.mtu().unwrap_or(0) } else { 0 },
        }
    }

    /// Whether the device was found gone, by the port or by one of its queues.
    pub fn gone(&self) -> bool {
        self.gone.load(Ordering::Acquire)
    }

    /// Changes what a shared port takes, without detaching: new entries are added before old ones are removed, so that
    /// an entry in both is never missed. A dedicated port takes everything already.
    ///
    /// # Errors
    /// [`SteerError`] when a map is full (4096 VTEPs, 16384 prefixes a family).
    pub fn steer(&mut self, steering: &Steering) -> Result<(), SteerError> {
        if self.mode == PortMode::Dedicated {
            return Ok(());
        }
        self.program.steer(&steering.entries()).map_err(|(action, entry, reason)| SteerError {
            device: self.info.device.clone(),
            action,
            entry,
            reason,
        })
    }

    /// Takes frames to other MAC addresses too, or no more: a dedicated port that joins or leaves a bridge domain. A
    /// shared port never does.
    ///
    /// # Errors
    /// What the kernel says; the port takes what it took before then.
    pub fn set_promiscuous(&mut self, promiscuous: bool) -> io::Result<()> {
        if self.mode == PortMode::Shared || promiscuous == self.promiscuous {
            return Ok(());
        }
        // The new socket joins before the old one leaves: no frame is missed in between.
        self._membership = Some(self.device.join(membership(promiscuous))?);
        self.promiscuous = promiscuous;
        Ok(())
    }

    /// What the XDP program did with frames since the port was opened.
    pub fn program_counters(&self) -> ProgramCounters {
        self.program.counters()
    }
}

/// What a dedicated port joins.
fn membership(promiscuous: bool) -> Membership {
    if promiscuous { Membership::Promiscuous } else { Membership::AllMulticast }
}

/// What is known of a device before anything is changed.
struct Opening<'a> {
    options: &'a OpenOptions,
    pool: &'a Arc<FramePool>,
    device: Device,
    counts: QueueCounts,
    gone: Arc<AtomicBool>,
}

impl<'a> Opening<'a> {
    fn prepare(options: &'a OpenOptions, pool: &'a Arc<FramePool>) -> Result<Self, OpenError> {
        let device = Device::find(&options.device).map_err(|error| match error.raw_os_error() {
            Some(libc::ENODEV) => OpenError::NoDevice { device: options.device.clone() },
            _ => OpenError::Io { device: options.device.clone(), action: "look it up", source: error },
        })?;
        let missing = missing_capabilities();
        if !missing.is_empty() {
            let action = "attach an XDP program and open AF_XDP sockets";
            return Err(OpenError::Capability { device: options.device.clone(), action, missing });
        }
        let counts = device.queues();
        let this = Self { options, pool, device, counts, gone: Arc::default() };
        this.check_mtu()?;
        this.check_frames()?;
        if options.mode == PortMode::Dedicated && !this.device.is_up() {
            this.device.bring_up().map_err(|error| this.io("bring it up", error))?;
        }
        Ok(this)
    }

    fn io(&self, action: &'static str, source: io::Error) -> OpenError {
        OpenError::Io { device: self.options.device.clone(), action, source }
    }

    fn check_mtu(&self) -> Result<(), OpenError> {
        let mtu = self.device.mtu().map_err(|error| self.io("read its MTU", error))?;
        let frame_size = self.pool.memory().frame_size();
        let limit = largest_mtu(frame_size);
        if mtu <= limit {
            return Ok(());
        }
        Err(OpenError::Mtu { device: self.options.device.clone(), mtu, limit, frame_size })
    }

    fn check_frames(&self) -> Result<(), OpenError> {
        let needed = self.sizes().fill.saturating_mul(self.counts.receive);
        let available = self.pool.available() as u32;
        if needed <= available {
            return Ok(());
        }
        let device = self.options.device.clone();
        Err(OpenError::Frames { device, queues: self.counts.receive, needed, available })
    }

    fn sizes(&self) -> RingSizes {
        let power = |entries: u32| entries.clamp(64, 1 << 15).next_power_of_two();
        let receive = power(self.options.rx_ring);
        RingSizes { fill: receive * 2, receive, transmit: power(self.options.tx_ring) }
    }

    /// Tries the allowed modes from the best down.
    fn obtain(
        &self,
        program: &Program,
    ) -> Result<(XdpObtained, Attachment, Vec<AfXdpQueue>, Vec<String>), OpenError> {
        let mut refused = Vec::new();
        if self.options.xdp != XdpMode::Generic {
            match self.attach(program, AttachMode::Native) {
                Ok(attachment) => {
                    if self.options.xdp == XdpMode::Auto {
                        match self.bind(true) {
                            Ok((xdp, queues)) => return Ok((xdp, attachment, queues, refused)),
                            Err(reason) => refused.push(format!("zero-copy: {reason}")),
                        }
                    }
                    match self.bind(false) {
                        Ok((xdp, queues)) => return Ok((xdp, attachment, queues, refused)),
                        Err(reason) => refused.push(format!("native copy: {reason}")),
                    }
                }
                Err(error) => {
                    refused.push(format!("native: attaching the XDP program: {}", explain(&error)));
                }
            }
        }
        match self.attach(program, AttachMode::Generic) {
            Ok(attachment) => match self.bind(false) {
                Ok((_, queues)) => return Ok((XdpObtained::Generic, attachment, queues, refused)),
                Err(reason) => refused.push(format!("generic: {reason}")),
            },
            Err(error) => refused.push(format!("generic: attaching the XDP program: {}", explain(&error))),
        }
        Err(OpenError::Refused { device: self.options.device.clone(), refused })
    }

    fn attach(&self, program: &Program, mode: AttachMode) -> io::Result<Attachment> {
        program.attach(self.device.ifindex, mode, self.options.busy_wait)
    }

    /// Binds a socket to every receive queue. The first registers the memory for this device, the others share it.
    fn bind(&self, zero_copy: bool) -> Result<(XdpObtained, Vec<AfXdpQueue>), String> {
        // The sockets of a mode that was refused were never bound, which looks like a device that is gone.
        self.gone.store(false, Ordering::Release);
        let mut queues: Vec<AfXdpQueue> = Vec::new();
        let mut obtained = XdpObtained::NativeCopy;
        for number in 0..self.counts.receive {
            let queue = self.bind_queue(number, zero_copy, queues.first())?;
            if queue.socket().is_some_and(|socket| socket.zero_copy().unwrap_or(false)) {
                obtained = XdpObtained::ZeroCopy;
            }
            queues.push(queue);
        }
        Ok((obtained, queues))
    }

    fn bind_queue(
        &self,
        number: u32,
        zero_copy: bool,
        first: Option<&AfXdpQueue>,
    ) -> Result<AfXdpQueue, String> {
        let say = |action: &str, error: io::Error| format!("queue {number}: {action}: {}", explain(&error));
        let socket = XskSocket::new(self.pool.memory(), first.is_none(), self.sizes())
            .map_err(|error| say("making a socket", error))?;
        let queue = AfXdpQueue::new(socket, number, zero_copy, self.pool, &self.gone);
        if queue.lent() < queue.fill_size() {
            return Err(format!("queue {number}: no free frames for its fill ring; raise memory.frames"));
        }
        let binding = Binding {
            ifindex: self.device.ifindex,
            queue: number,
            zero_copy,
            shares: first.and_then(AfXdpQueue::socket).map(AsFd::as_fd),
            patience: self.options.busy_wait,
        };
        let bound = queue.socket().map_or(Ok(()), |socket| socket.bind(binding));
        bound.map_err(|error| say("binding", error))?;
        Ok(queue)
    }

    fn join(&self) -> Result<Option<OwnedFd>, OpenError> {
        if self.options.mode == PortMode::Shared {
            return Ok(None);
        }
        let joined = self.device.join(membership(self.options.promiscuous));
        joined.map(Some).map_err(|error| self.io("receive multicast or foreign frames", error))
    }

    fn await_carrier(&self) {
        let started = Instant::now();
        while !self.device.has_carrier() && started.elapsed() < self.options.carrier_wait {
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn info(&self, xdp: XdpObtained, refused: Vec<String>) -> Result<PortInfo, OpenError> {
        Ok(PortInfo {
            device: self.options.device.clone(),
            driver: self.device.driver(),
            ifindex: self.device.ifindex,
            mac: self.device.mac().map_err(|error| self.io("read its MAC address", error))?,
            mtu: self.device.mtu().map_err(|error| self.io("read its MTU", error))?,
            numa: self.device.numa_node(),
            queues: self.counts.receive,
            tx_queues: self.counts.transmit,
            xdp,
            refused,
            warnings: self.warnings(),
            carrier: self.device.has_carrier(),
        })
    }

    fn warnings(&self) -> Vec<String> {
        let name = &self.options.device;
        let mut warnings = Vec::new();
        if !may_lock_memory() {
            warnings.push("CAP_IPC_LOCK is missing: frame memory counts against `ulimit -l`".into());
        }
        if self.counts.transmit < self.counts.receive {
            warnings.push(format!(
                "{} receive queues but {} transmit queues: the surplus queues hand their frames to others",
                self.counts.receive, self.counts.transmit
            ));
        }
        if self.device.strips_vlan() {
            warnings.push(format!(
                "the device takes VLAN tags off before XDP sees them; if tagged frames matter: `ethtool -K {name} rxvlan off`"
            ));
        }
        warnings
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_may_move_between_threads_and_its_queues_too() {
        fn is_send<T: Send>() {}
        is_send::<AfXdpPort>();
        is_send::<AfXdpQueue>();
    }

    #[test]
    fn ring_sizes_are_powers_of_two_and_the_fill_ring_is_twice_the_receive_ring() {
        let memory = crate::frame::FrameMemory::map(16, 2048, weir_config::HugePages::Never).unwrap();
        let pool = FramePool::new(memory);
        let mut options = OpenOptions::new("lo", PortMode::Dedicated, XdpMode::Auto);
        (options.rx_ring, options.tx_ring) = (1000, 1);
        let device = Device::find("lo").unwrap();
        let counts = QueueCounts { receive: 1, transmit: 1 };
        let opening = Opening { options: &options, pool: &pool, device, counts, gone: Arc::default() };
        let sizes = opening.sizes();
        assert_eq!((sizes.fill, sizes.receive, sizes.transmit), (2048, 1024, 64));
        let error = opening.check_frames().unwrap_err().to_string();
        assert!(error.contains("its 1 queues need 2048 frames and 16 are free"), "{error}");
    }
}
