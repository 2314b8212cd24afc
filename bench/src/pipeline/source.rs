//! Where frames come from and where they go: chunks of frame memory, with no device behind.

use std::collections::VecDeque;

use weir_dataplane::frame::{Frame, FrameCache, HEADROOM};

use super::input::{LINE, Shape};

/// What a packet costs before the pipeline sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Mode {
    /// Frames stay where they are, in turn; the header is restored.
    Inplace,
    /// A free frame is taken, the whole input frame is copied into it, and after the pipeline it is freed.
    Copy,
}

/// The source and the sink.
pub(super) struct Source {
    mode: Mode,
    shapes: Vec<Shape>,
    /// Shapes by packet, over and over.
    cycle: Vec<u16>,
    /// Flows by packet, over and over.
    values: Vec<u32>,
    at_shape: usize,
    at_value: usize,
    /// Input frames. In place: first those that are restored, `ready` of them. Copied: whole, in turn.
    ring: VecDeque<Frame>,
    ready: usize,
    /// More flows than input frames: copies are told apart after copying.
    vary: bool,
    /// Packets given and taken back.
    pub(super) received: u64,
    pub(super) returned: u64,
}

impl Source {
    /// A source of frames of `shapes`, picked by `cycle`, of the flows in `values`; without input frames yet.
    pub(super) fn new(mode: Mode, shapes: Vec<Shape>, cycle: Vec<u16>, values: Vec<u32>) -> Self {
        Self {
            mode,
            shapes,
            cycle,
            values,
            at_shape: 0,
            at_value: 0,
            ring: VecDeque::new(),
            ready: 0,
            vary: false,
            received: 0,
            returned: 0,
        }
    }

    /// Makes `count` input frames of free chunks.
    ///
    /// # Errors
    /// When there are too few free chunks, or a frame does not fit one.
    pub(super) fn fill(&mut self, count: usize, cache: &mut FrameCache) -> Result<(), String> {
        self.ring.reserve(count);
        self.vary = self.mode == Mode::Copy && self.values.len() > count;
        for _ in 0..count {
            let mut frame = cache.alloc().ok_or("too few frames for the input")?;
            let (shape, value) = self.next();
            let value = if self.vary { 0 } else { value };
            let fits = self.shapes.get(shape).is_some_and(|shape| frame.write(&shape.frame(value)));
            self.ring.push_back(frame);
            if !fits {
                return Err("an input frame does not fit its chunk".to_owned());
            }
        }
        (self.at_shape, self.at_value) = (0, 0);
        Ok(())
    }

    /// Packets after which flows and shapes repeat, roughly: a pass.
    pub(super) fn pass(&self) -> usize {
        self.values.len().max(self.cycle.len())
    }

    /// The flows in another order, from the next packet on.
    pub(super) fn reorder(&mut self, values: Vec<u32>) {
        self.values = values;
        self.at_value = 0;
    }

    /// The whole frames of `count` packets from the first on.
    pub(super) fn frames(&self, count: usize) -> impl Iterator<Item = Vec<u8>> + '_ {
        let shapes = self.cycle.iter().cycle();
        let values = self.values.iter().cycle();
        shapes.zip(values).take(count).map(|(&shape, &value)| {
            self.shapes.get(usize::from(shape)).map(|shape| shape.frame(value)).unwrap_or_default()
        })
    }

    /// The next packet's shape and flow.
    #[inline(always)]
    fn next(&mut self) -> (usize, u32) {
        let shape = self.cycle.get(self.at_shape).copied().unwrap_or(0);
        let value = self.values.get(self.at_value).copied().unwrap_or(0);
        self.at_shape += 1;
        if self.at_shape >= self.cycle.len() {
            self.at_shape = 0;
        }
        self.at_value += 1;
        if self.at_value >= self.values.len() {
            self.at_value = 0;
        }
        (usize::from(shape), value)
    }

    /// Puts the next `max` packets into `burst`.
    #[inline]
    pub(super) fn receive(&mut self, burst: &mut Vec<Frame>, max: usize, cache: &mut FrameCache) {
        match self.mode {
            Mode::Inplace => self.receive_in_place(burst, max, cache),
            Mode::Copy => self.receive_copies(burst, max, cache),
        }
        self.received += burst.len() as u64;
    }

    /// Frames are restored one burst before they are given: what was stored just now has left the store buffer when the
    /// pipeline reads it, as with frames that a device wrote.
    #[inline]
    fn receive_in_place(&mut self, burst: &mut Vec<Frame>, max: usize, cache: &mut FrameCache) {
        while self.ring.len() < 2 * max {
            // The pipeline dropped some.
            let Some(frame) = cache.alloc() else { break };
            self.ring.push_back(frame);
        }
        self.restore_to(max);
        let given = max.min(self.ring.len());
        burst.extend(self.ring.drain(..given));
        self.ready -= given;
        self.restore_to(max);
    }

    /// Restores frames until `want` are ready.
    #[inline]
    fn restore_to(&mut self, want: usize) {
        let mut ring = std::mem::take(&mut self.ring);
        let want = want.min(ring.len());
        if self.ready < want {
            for frame in ring.range_mut(self.ready..want) {
                let (shape, value) = self.next();
                let Some(shape) = self.shapes.get(shape) else { continue };
                settle(frame, shape.len());
                shape.restore(frame.bytes_mut(), value);
            }
            self.ready = want;
        }
        self.ring = ring;
    }

    #[inline]
    fn receive_copies(&mut self, burst: &mut Vec<Frame>, max: usize, cache: &mut FrameCache) {
        for _ in 0..max {
            let (shape, value) = self.next();
            let Some(input) = self.ring.get(self.ready) else { break };
            let Some(mut frame) = cache.alloc() else { break };
            frame.set_len(input.len());
            copy(frame.bytes_mut(), input.bytes());
            if self.vary {
                if let Some(shape) = self.shapes.get(shape) {
                    shape.set(frame.bytes_mut(), value);
                }
            }
            burst.push(frame);
            self.ready += 1;
            if self.ready == self.ring.len() {
                self.ready = 0;
            }
        }
    }

    /// Takes frames back, all of them.
    #[inline]
    pub(super) fn take(&mut self, frames: &mut Vec<Frame>, cache: &mut FrameCache) {
        self.returned += frames.len() as u64;
        match self.mode {
            Mode::Inplace => self.ring.extend(frames.drain(..)),
            Mode::Copy => frames.drain(..).for_each(|frame| cache.free(frame)),
        }
    }
}

/// Copies a whole frame; one of a cache line without a call.
#[inline]
fn copy(to: &mut [u8], from: &[u8]) {
    match (to.split_first_chunk_mut::<LINE>(), from.split_first_chunk::<LINE>()) {
        (Some((to, [])), Some((from, []))) => *to = *from,
        _ => to.copy_from_slice(from),
    }
}

/// Moves a frame's start back to where a device would put it, and sets its length.
#[inline]
fn settle(frame: &mut Frame, len: usize) {
    let (start, usual) = (frame.headroom(), usize::from(HEADROOM));
    if start < usual {
        // A pipeline that moved the start forward wrote what is in front: the frame is longer than that.
        frame.strip(usual - start);
    } else if start > usual {
        frame.grow_front(start - usual);
    }
    frame.set_len(len);
}
