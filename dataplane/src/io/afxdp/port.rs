//! An AF_XDP port: how it may be opened, what was obtained, what can be asked of it while it is open.

use std::fmt;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use weir_config::{PortMode, XdpMode, XskMap};

use super::device::Device;
use super::error::{OpenError, SteerError};
use super::opening::{Opening, membership};
use super::program::{Attachment, Program};
use super::queue::AfXdpQueue;
use super::steering::Steering;
use crate::frame::{Frame, FramePool, HEADROOM};
use crate::io::{LinkState, Port, PortCounters, PortInfo};

/// Ethernet header and two VLAN tags.
pub(super) const LINK_OVERHEAD: u32 = 14 + 2 * 4;

/// How a device is opened.
#[derive(Clone, Debug)]
pub struct OpenOptions {
    /// Name of the network device.
    pub device: String,
    /// Whether the device is weir's alone.
    pub mode: PortMode,
    /// Best XDP mode to try first.
    pub xdp: XdpMode,
    /// Whose XDP program brings the frames.
    pub xsk_map: XskMap,
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
            xsk_map: XskMap::Own,
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

/// The control side of an AF_XDP port. While it lives, the XDP program is attached.
#[derive(Debug)]
pub struct AfXdpPort {
    info: PortInfo,
    device: Device,
    mode: PortMode,
    /// Absent where the program is another's.
    program: Option<Program>,
    _attachment: Option<Attachment>,
    promiscuous: bool,
    _membership: Option<OwnedFd>,
    gone: Arc<AtomicBool>,
}

/// The largest MTU whose frames fit chunks of `frame_size` bytes behind the headroom, with two VLAN tags.
pub fn largest_mtu(frame_size: u16) -> u32 {
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
        let had_carrier = opening.device.has_carrier();
        let mut redirection = opening.redirection()?;
        for queue in &mut redirection.queues {
            let sends = queue.number() < opening.counts.transmit;
            queue
                .start(&redirection.sockets, sends)
                .map_err(|reason| OpenError::Foreign { device: options.device.clone(), reason })?;
        }
        let membership = opening.join()?;
        if had_carrier {
            opening.await_carrier();
        }
        let info = opening.info(redirection.xdp, redirection.refused)?;
        let port = Self {
            info,
            mode: options.mode,
            device: opening.device,
            program: redirection.program,
            _attachment: redirection.attachment,
            promiscuous: options.promiscuous,
            _membership: membership,
            gone: opening.gone,
        };
        Ok((port, redirection.queues))
    }

    /// Receive queues of a device in the calling thread's network namespace, if there is such a device.
    pub fn receive_queues(device: &str) -> Option<usize> {
        Device::find(device).ok().map(|device| device.queues().receive as usize)
    }
}

impl Port for AfXdpPort {
    fn info(&self) -> &PortInfo {
        &self.info
    }

    fn link(&self) -> LinkState {
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

    fn gone(&self) -> bool {
        self.gone.load(Ordering::Acquire)
    }

    /// Without detaching: new entries are added before old ones are removed, so that an entry in both is never missed.
    ///
    /// # Errors
    /// [`SteerError`] when a map is full (4096 VTEPs, 16384 prefixes a family).
    fn steer(&mut self, steering: &Steering) -> Result<(), SteerError> {
        if self.mode == PortMode::Dedicated {
            return Ok(());
        }
        // A shared port has a program of its own.
        let Some(program) = &mut self.program else { return Ok(()) };
        program.steer(&steering.entries()).map_err(|(action, entry, reason)| SteerError {
            device: self.info.device.clone(),
            action,
            entry,
            reason,
        })
    }

    /// A dedicated port that joins or leaves a bridge domain. A shared port never does.
    fn set_promiscuous(&mut self, promiscuous: bool) -> io::Result<()> {
        if self.mode == PortMode::Shared || promiscuous == self.promiscuous {
            return Ok(());
        }
        // The new socket joins before the old one leaves: no frame is missed in between.
        self._membership = Some(self.device.join(membership(promiscuous))?);
        self.promiscuous = promiscuous;
        Ok(())
    }

    /// What the XDP program did with frames; nothing is known of another's.
    fn counters(&self) -> PortCounters {
        self.program.as_ref().map(Program::counters).unwrap_or_default()
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
}
