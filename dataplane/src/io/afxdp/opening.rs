//! Opening a device step by step: what is checked before anything is changed, and which XDP modes are tried.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use weir_config::{PortMode, XdpMode, XskMap};

use super::device::{Device, Membership, QueueCounts};
use super::error::{OpenError, explain, may_lock_memory, missing_capabilities, missing_for_sockets};
use super::plugin;
use super::port::{LINK_OVERHEAD, OpenOptions, XdpObtained, largest_mtu};
use super::program::{AttachMode, Attachment, Program, SocketMap, attached_generically};
use super::queue::AfXdpQueue;
use super::socket::{Binding, RingSizes, XskSocket};
use crate::frame::{FramePool, HEADROOM, PageKind};
use crate::io::{Backend, PortInfo};

/// What a dedicated port joins.
pub(super) fn membership(promiscuous: bool) -> Membership {
    if promiscuous { Membership::Promiscuous } else { Membership::AllMulticast }
}

/// Whether every frame fits the buffer that a driver makes of a chunk in zero-copy mode. Some count buffers in whole KB, rounded
/// down, and a device goes on in the next one with a frame that does not fit: its two pieces would come as two frames.
fn check_buffers(device: &str, driver: &str, frame_size: u16, mtu: u32) -> Result<(), String> {
    let buffer = |frame_size: u16| match driver {
        "igb" | "igc" => (frame_size - HEADROOM) & !1023,
        _ => frame_size - HEADROOM,
    };
    let limit = |frame_size| u32::from(buffer(frame_size)).saturating_sub(LINK_OVERHEAD);
    if mtu <= limit(frame_size) {
        return Ok(());
    }
    let remedy = if frame_size < 4096 && mtu <= limit(4096) {
        "set memory.frame-size = 4096".to_owned()
    } else {
        format!("lower the MTU: `ip link set {device} mtu {}`", limit(frame_size))
    };
    Err(format!(
        "{driver} makes receive buffers of {} bytes of frames of {frame_size}, too small for an MTU of {mtu}; {remedy}",
        buffer(frame_size)
    ))
}

/// Sockets that are bound, and how frames get to them.
pub(super) struct Redirection {
    pub(super) xdp: XdpObtained,
    pub(super) sockets: SocketMap,
    pub(super) program: Option<Program>,
    pub(super) attachment: Option<Attachment>,
    pub(super) queues: Vec<AfXdpQueue>,
    pub(super) refused: Vec<String>,
}

/// What is known of a device before anything is changed.
pub(super) struct Opening<'a> {
    pub(super) options: &'a OpenOptions,
    pub(super) pool: &'a Arc<FramePool>,
    pub(super) device: Device,
    pub(super) counts: QueueCounts,
    pub(super) gone: Arc<AtomicBool>,
}

impl<'a> Opening<'a> {
    pub(super) fn prepare(options: &'a OpenOptions, pool: &'a Arc<FramePool>) -> Result<Self, OpenError> {
        let device = Device::find(&options.device).map_err(|error| match error.raw_os_error() {
            Some(libc::ENODEV) => OpenError::NoDevice { device: options.device.clone() },
            _ => OpenError::Io { device: options.device.clone(), action: "look it up", source: error },
        })?;
        let missing =
            if options.xsk_map == XskMap::Own { missing_capabilities() } else { missing_for_sockets() };
        if !missing.is_empty() {
            let action = "attach an XDP program and open AF_XDP sockets";
            return Err(OpenError::Capability { device: options.device.clone(), action, missing });
        }
        let counts = device.queues();
        let this = Self { options, pool, device, counts, gone: Arc::default() };
        this.check_frame_size()?;
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

    fn check_frame_size(&self) -> Result<(), OpenError> {
        let memory = self.pool.memory();
        if memory.frame_size() <= 4096 || memory.pages() == PageKind::Huge {
            return Ok(());
        }
        Err(OpenError::FrameSize { device: self.options.device.clone(), frame_size: memory.frame_size() })
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

    pub(super) fn check_frames(&self) -> Result<(), OpenError> {
        let needed = self.sizes().fill.saturating_mul(self.counts.receive);
        let available = self.pool.available() as u32;
        if needed <= available {
            return Ok(());
        }
        let device = self.options.device.clone();
        Err(OpenError::Frames { device, queues: self.counts.receive, needed, available })
    }

    pub(super) fn sizes(&self) -> RingSizes {
        let power = |entries: u32| entries.clamp(64, 1 << 15).next_power_of_two();
        let receive = power(self.options.rx_ring);
        RingSizes { fill: receive * 2, receive, transmit: power(self.options.tx_ring) }
    }

    /// Binds the sockets, behind a program of our own or another's.
    pub(super) fn redirection(&self) -> Result<Redirection, OpenError> {
        if self.options.xsk_map != XskMap::Own {
            return self.foreign();
        }
        let program = Program::load(self.options.mode, self.options.stamps, self.counts.receive)
            .map_err(|reason| OpenError::Program { reason })?;
        let (xdp, attachment, queues, refused) = self.obtain(&program)?;
        let (sockets, attachment) = (program.sockets().clone(), Some(attachment));
        Ok(Redirection { xdp, sockets, program: Some(program), attachment, queues, refused })
    }

    /// Binds the sockets behind the AF_XDP device plugin's program.
    fn foreign(&self) -> Result<Redirection, OpenError> {
        let device = &self.options.device;
        let foreign = |reason| OpenError::Foreign { device: device.clone(), reason };
        let queues = self.counts.receive;
        let sockets = match self.options.xsk_map {
            XskMap::Pinned => SocketMap::pinned(&plugin::pinned(device), queues),
            _ => plugin::ask(device)
                .map_err(|error| error.to_string())
                .and_then(|map| SocketMap::foreign(map, queues)),
        }
        .map_err(foreign)?;
        let Some(generic) = attached_generically(self.device.ifindex) else {
            let reason =
                "no XDP program is attached, although the device plugin gave a map; was the device moved?";
            return Err(foreign(reason.to_owned()));
        };
        let mut refused = Vec::new();
        if !generic {
            match self.bind(true) {
                Ok((xdp, queues)) => {
                    return Ok(Redirection {
                        xdp,
                        sockets,
                        program: None,
                        attachment: None,
                        queues,
                        refused,
                    });
                }
                Err(reason) => refused.push(format!("zero-copy: {reason}")),
            }
        }
        match self.bind(false) {
            Ok((_, queues)) => {
                let xdp = if generic { XdpObtained::Generic } else { XdpObtained::NativeCopy };
                Ok(Redirection { xdp, sockets, program: None, attachment: None, queues, refused })
            }
            Err(reason) => {
                refused.push(reason);
                Err(OpenError::Refused { device: device.clone(), refused })
            }
        }
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
        if zero_copy {
            let mtu = self.device.mtu().map_err(|error| error.to_string())?;
            check_buffers(&self.options.device, &self.device.driver(), self.pool.memory().frame_size(), mtu)?;
        }
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
        let queue =
            AfXdpQueue::new(socket, number, zero_copy.then_some(self.device.ifindex), self.pool, &self.gone);
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

    pub(super) fn join(&self) -> Result<Option<OwnedFd>, OpenError> {
        if self.options.mode == PortMode::Shared {
            return Ok(None);
        }
        let joined = self.device.join(membership(self.options.promiscuous));
        joined.map(Some).map_err(|error| self.io("receive multicast or foreign frames", error))
    }

    pub(super) fn await_carrier(&self) {
        let started = Instant::now();
        while !self.device.has_carrier() && started.elapsed() < self.options.carrier_wait {
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    pub(super) fn info(&self, xdp: XdpObtained, refused: Vec<String>) -> Result<PortInfo, OpenError> {
        Ok(PortInfo {
            device: self.options.device.clone(),
            driver: self.device.driver(),
            ifindex: self.device.ifindex,
            mac: self.device.mac().map_err(|error| self.io("read its MAC address", error))?,
            mtu: self.device.mtu().map_err(|error| self.io("read its MTU", error))?,
            numa: self.device.numa_node(),
            queues: self.counts.receive,
            tx_queues: self.counts.transmit,
            backend: Backend::AfXdp(xdp),
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
    fn zero_copy_is_refused_where_a_device_would_cut_frames() {
        assert_eq!(check_buffers("eth1", "igb", 4096, 1500), Ok(()));
        assert_eq!(check_buffers("eth1", "ice", 2048, 1500), Ok(()));
        assert_eq!(check_buffers("eth1", "igc", 2048, 1002), Ok(()));
        assert_eq!(
            check_buffers("eth1", "igb", 2048, 1500).unwrap_err(),
            "igb makes receive buffers of 1024 bytes of frames of 2048, too small for an MTU of 1500; set \
             memory.frame-size = 4096"
        );
        let error = check_buffers("eth1", "igb", 4096, 3500).unwrap_err();
        assert!(error.ends_with("lower the MTU: `ip link set eth1 mtu 3050`"), "{error}");
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

    #[test]
    fn chunks_larger_than_a_page_are_refused_on_ordinary_pages() {
        let memory = crate::frame::FrameMemory::map(16, 8192, weir_config::HugePages::Never).unwrap();
        let pool = FramePool::new(memory);
        let options = OpenOptions::new("lo", PortMode::Dedicated, XdpMode::Auto);
        let device = Device::find("lo").unwrap();
        let counts = QueueCounts { receive: 1, transmit: 1 };
        let opening = Opening { options: &options, pool: &pool, device, counts, gone: Arc::default() };
        let error = opening.check_frame_size().unwrap_err().to_string();
        assert!(error.contains("frames of 8192 bytes on huge pages only"), "{error}");
    }
}
