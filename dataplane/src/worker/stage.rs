//! Frames on their way out, gathered by port until the end of a burst.

use crate::decision::PortId;
use crate::frame::{BURST_ROOM, Frame};

/// Frames by egress port. Allocates nothing once every port has been seen.
#[derive(Debug, Default)]
pub(super) struct Stage {
    ports: Vec<Vec<Frame>>,
    dirty: Vec<PortId>,
}

impl Stage {
    /// Makes room for ports up to `ports`.
    #[inline]
    pub(super) fn reserve(&mut self, ports: usize) {
        while self.ports.len() < ports {
            self.ports.push(Vec::with_capacity(BURST_ROOM));
        }
        self.dirty.reserve(ports);
    }

    /// Puts a frame at the end of a port's list.
    #[inline]
    pub(super) fn push(&mut self, port: PortId, frame: Frame) {
        if port.index() >= self.ports.len() {
            self.reserve(port.index() + 1);
        }
        let Some(list) = self.ports.get_mut(port.index()) else { return };
        if list.is_empty() {
            self.dirty.push(port);
        }
        list.push(frame);
    }

    /// Puts frames at the end of a port's list.
    pub(super) fn extend(&mut self, port: PortId, frames: impl Iterator<Item = Frame>) {
        for frame in frames {
            self.push(port, frame);
        }
    }

    /// Puts all of `frames` at the end of a port's list. An empty list and a full one change places: nothing is moved.
    #[inline]
    pub(super) fn adopt(&mut self, port: PortId, frames: &mut Vec<Frame>) {
        if frames.is_empty() {
            return;
        }
        self.reserve(port.index() + 1);
        let Some(list) = self.ports.get_mut(port.index()) else { return };
        if list.is_empty() {
            self.dirty.push(port);
            if frames.capacity() >= BURST_ROOM {
                std::mem::swap(list, frames);
                return;
            }
        }
        list.append(frames);
    }

    /// Takes each port that has frames, with its frames; whatever `send` leaves in the list stays for the next call.
    #[inline]
    pub(super) fn flush(&mut self, mut send: impl FnMut(PortId, &mut Vec<Frame>)) {
        let mut kept = 0;
        for at in 0..self.dirty.len() {
            let Some(&port) = self.dirty.get(at) else { break };
            let Some(list) = self.ports.get_mut(port.index()) else { continue };
            send(port, list);
            if !list.is_empty() {
                if let Some(place) = self.dirty.get_mut(kept) {
                    *place = port;
                }
                kept += 1;
            }
        }
        self.dirty.truncate(kept);
    }
}
