//! The generator over weir's own AF_XDP port: packets are copied into frames and sent by the calling thread.

use std::sync::Arc;
use std::time::Duration;

use weir_dataplane::frame::{BURST, Frame, FrameCache};
use weir_dataplane::io::afxdp::{AfXdpPort, AfXdpQueue};
use weir_dataplane::io::{Port, PortQueue};

use super::{Generator, Offer, Sent, sleep_until_shortly_before, stop};
use crate::wire::clock::now;
use crate::wire::deck::Deck;
use crate::wire::port;
use crate::wire::signature::{LENGTH, Signature};

/// Sends by the first queue of a device.
pub(crate) struct AfXdp {
    port: AfXdpPort,
    queue: AfXdpQueue,
    /// The others are kept open, and emptied now and then.
    others: Vec<AfXdpQueue>,
    cache: FrameCache,
    deck: Arc<Deck>,
    sequences: Vec<u32>,
    card: usize,
    burst: Vec<Frame>,
}

impl AfXdp {
    /// Opens the device.
    pub(crate) fn open(device: &str, deck: Arc<Deck>) -> Result<Self, String> {
        let (port, mut queues, cache) = port::open(device, 1024, false)?;
        if queues.is_empty() {
            return Err(format!("{device} has no queue"));
        }
        let queue = queues.remove(0);
        let sequences = vec![0; deck.streams.len()];
        Ok(Self {
            port,
            queue,
            others: queues,
            cache,
            deck,
            sequences,
            card: 0,
            burst: Vec::with_capacity(BURST),
        })
    }

    /// Adds the next packet of the deck to the burst. False if no frame is free.
    fn deal(&mut self, run: u16, time: u64) -> bool {
        let Some(card) = self.deck.cards.get(self.card) else { return false };
        let Some(mut frame) = self.cache.alloc() else { return false };
        let sequence = self.sequences.get_mut(usize::from(card.stream));
        let written = frame.write(&card.bytes);
        let signature =
            Signature { run, stream: card.stream, sequence: sequence.as_deref().copied().unwrap_or(0), time };
        if let (true, Some(end)) = (written, frame.bytes_mut().last_chunk_mut::<LENGTH>()) {
            *end = signature.encode();
        }
        if let Some(sequence) = sequence {
            *sequence += 1;
        }
        self.card = (self.card + 1) % self.deck.cards.len();
        self.burst.push(frame);
        true
    }

    /// Sends the burst until the ring has taken it; what comes in meanwhile is thrown away.
    fn flush(&mut self, until: u64) {
        while !self.burst.is_empty() {
            self.queue.transmit(&mut self.burst, &mut self.cache);
            self.queue.service(&mut self.cache);
            if now() > until {
                self.burst.drain(..).for_each(|frame| self.cache.free(frame));
            }
        }
    }

    fn discard(&mut self) {
        let mut heap = Vec::new();
        for queue in std::iter::once(&mut self.queue).chain(&mut self.others) {
            queue.receive(&mut heap, BURST, &mut self.cache);
            heap.drain(..).for_each(|frame| self.cache.free(frame));
            queue.service(&mut self.cache);
        }
    }
}

impl Generator for AfXdp {
    fn describe(&self) -> String {
        let info = self.port.info();
        format!("{} on {} ({})", info.backend, info.device, info.driver)
    }

    fn send(&mut self, offer: &Offer) -> Result<Sent, String> {
        self.sequences.fill(0);
        self.card = 0;
        let start = now() + 200_000;
        let end = start.saturating_add(u64::try_from(offer.limit.as_nanos()).unwrap_or(u64::MAX));
        let interval = offer.rate.map(|rate| 1e9 / rate);
        let (mut sent, mut late, mut turns) = (0u64, 0, 0u32);
        while sent < offer.count && now() < end && !(turns % 1024 == 0 && stop::requested()) {
            turns = turns.wrapping_add(1);
            let clock = now();
            let room = (offer.count - sent).min(BURST as u64);
            for n in 0..room {
                let due = interval.map_or(clock, |interval| start + ((sent + n) as f64 * interval) as u64);
                if due > clock || !self.deal(offer.run, due) {
                    break;
                }
                late = late.max(clock - due);
            }
            let count = self.burst.len() as u64;
            if count == 0 {
                self.discard();
                if let Some(interval) = interval {
                    sleep_until_shortly_before(start + (sent as f64 * interval) as u64);
                }
                std::hint::spin_loop();
                continue;
            }
            self.flush(end + 100_000_000);
            sent += count;
            if turns % 64 == 0 {
                self.discard();
            }
        }
        let elapsed = Duration::from_nanos(now().min(end).saturating_sub(start));
        // What the kernel has not sent yet leaves now.
        for _ in 0..1000 {
            self.queue.service(&mut self.cache);
        }
        Ok(Sent { packets: sent, elapsed, late: Duration::from_nanos(late) })
    }
}
