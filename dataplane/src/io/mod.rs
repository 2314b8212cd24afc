//! Ports: places where frames enter and leave.
//!
//! The engine polls a [`PortQueue`] and does not know which kind it is. A call serves a whole burst, so that dynamic
//! dispatch is paid once a burst.

pub mod afxdp;
#[cfg(feature = "dpdk")]
pub mod dpdk;
pub mod memory;
pub mod pcap;
mod port;
mod wake;

pub use port::{Backend, LinkState, Port, PortCounters, PortInfo};
pub use wake::Wake;

use std::any::Any;
use std::os::fd::RawFd;

use crate::frame::{Frame, FrameCache};

/// Whether this build can drive devices through DPDK.
pub const WITH_DPDK: bool = cfg!(feature = "dpdk");

/// One receive/transmit queue pair of a port, polled by one worker.
pub trait PortQueue: Send {
    /// Appends at most `max` received frames to `burst`; returns how many.
    fn receive(&mut self, burst: &mut Vec<Frame>, max: usize, cache: &mut FrameCache) -> usize;

    /// Takes as many frames from the front of `frames` as the transmit ring has room for, and sends them (one kick a
    /// call at most). What did not fit stays, in order. Returns how many were taken.
    fn transmit(&mut self, frames: &mut Vec<Frame>, cache: &mut FrameCache) -> usize;

    /// Passes what was received straight on to `other`, a queue of another port, without a token for each frame: from the front, as
    /// long as frames have between 14 and `longest` bytes and `other` has room. Receives at most `max`; what is not passed on is
    /// appended to `burst`, in order, as by [`receive`](Self::receive). Returns how many were passed on; none where a queue cannot do
    /// so.
    fn relay(
        &mut self,
        other: &mut dyn PortQueue,
        longest: usize,
        burst: &mut Vec<Frame>,
        max: usize,
        cache: &mut FrameCache,
    ) -> usize {
        let _ = (other, longest);
        self.receive(burst, max, cache);
        0
    }

    /// The queue itself, for another of its kind to [`relay`](Self::relay) to; `None` where there is no such thing.
    fn as_relay(&mut self) -> Option<&mut dyn Any> {
        None
    }

    /// Housekeeping, once a poll: reaps completions, refills the receive side, kicks what needs a kick.
    fn service(&mut self, cache: &mut FrameCache);

    /// What poll(2) can wait on for received frames, if anything.
    fn descriptor(&self) -> Option<RawFd>;

    /// Counters since the port was opened.
    fn counters(&self) -> QueueCounters;

    /// False once the device is gone: the worker drops the queue and asks for a new one.
    fn alive(&self) -> bool;

    /// Whether this queue can send. A device may have more receive than transmit queues; frames are then handed to a
    /// queue that can.
    fn transmits(&self) -> bool {
        true
    }

    /// The worker gives the queue up, for control to close: what the thread keeps on its behalf is given back.
    fn leave(&mut self) {}

    /// Stops, and gives every frame back that the queue still holds and can have back.
    fn close(&mut self, cache: &mut FrameCache);
}

/// Counters of one queue, in frames and bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QueueCounters {
    /// Frames received.
    pub rx_frames: u64,
    /// Bytes received.
    pub rx_bytes: u64,
    /// Frames that the transmit ring took.
    pub tx_frames: u64,
    /// Bytes that the transmit ring took.
    pub tx_bytes: u64,
    /// Frames that the kernel or device dropped before the queue saw them (ring full, fill ring empty).
    pub rx_missed: u64,
    /// Descriptors that the kernel refused.
    pub invalid: u64,
    /// Frames copied because sender and receiver do not share memory.
    pub copies: u64,
}
