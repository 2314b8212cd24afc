//! Relaying between two queues over the same mbufs: what a driver handed over is handed to the other as it is.

use std::mem::MaybeUninit;

use weir_dpdk::{Device, Mbuf};

use super::queue::{DpdkQueue, SHORTEST};
use crate::frame::{BURST, Frame};

impl DpdkQueue {
    /// Whether this queue can send what another has received, mbufs and all: they have the same ones.
    pub(super) fn takes_from(&self, from: &Self) -> bool {
        self.shared.is_some() && from.shared.is_some() && std::ptr::eq(self.mempool, from.mempool)
    }

    /// As [`relay`](PortQueue::relay), to a queue that [`takes_from`](Self::takes_from) this one.
    pub(super) fn pass_on(
        &mut self,
        other: &mut Self,
        longest: usize,
        burst: &mut Vec<Frame>,
        max: usize,
    ) -> usize {
        if !weir_dpdk::inside() {
            weir_dpdk::enter();
        }
        let mut mbufs = [const { MaybeUninit::<Mbuf>::uninit() }; BURST];
        let Some(places) = mbufs.get_mut(..max.min(BURST)) else { return 0 };
        // SAFETY: as for `receive`; both queues are this worker's.
        let ready = unsafe { Device::receive(self.port, self.queue, places) };
        if ready == 0 {
            return 0;
        }
        let filled = places.get(..ready).unwrap_or_default();
        // SAFETY: the driver filled the first `ready` places.
        let (usual, mut bytes) = unsafe { self.wired(filled, longest.min(other.longest)) };
        let mut sent = 0;
        if usual > 0 {
            other.quiet = 0;
            // SAFETY: the first `usual` places are mbufs of the pool of both, each one whole frame that nobody else has.
            sent = unsafe {
                let usual = std::slice::from_raw_parts_mut(places.as_mut_ptr().cast::<Mbuf>(), usual);
                Device::transmit(other.port, other.queue, usual)
            };
        }
        let rest = places.get(sent..ready).unwrap_or_default();
        if !rest.is_empty() {
            // SAFETY: these were filled, and not sent.
            unsafe {
                let unsent = rest.iter().take(usual.saturating_sub(sent));
                bytes -= unsent.map(|mbuf| u64::from(mbuf.assume_init().layout().1)).sum::<u64>();
                self.take(rest, burst);
            }
        }
        for (frames, of) in [
            (&mut self.counters.rx_frames, &mut self.counters.rx_bytes),
            (&mut other.counters.tx_frames, &mut other.counters.tx_bytes),
        ] {
            *frames += sent as u64;
            *of += bytes;
        }
        sent
    }

    /// How many mbufs from the front are of this pool, one segment each, and not too long; and their bytes.
    ///
    /// # Safety
    /// As for [`plain`](Self::plain).
    #[inline(always)]
    unsafe fn wired(&self, filled: &[MaybeUninit<Mbuf>], longest: usize) -> (usize, u64) {
        let (mempool, span) = (self.mempool.places(), longest.wrapping_sub(SHORTEST));
        let (mut count, mut bytes) = (0, 0);
        for place in filled {
            // SAFETY: the caller's promise.
            let (mbuf, len, segments) = unsafe {
                let mbuf = place.assume_init();
                let (_, len, segments) = mbuf.layout();
                (mbuf, usize::from(len), segments)
            };
            if segments != 1 || len.wrapping_sub(SHORTEST) > span || mempool.chunk(mbuf).is_none() {
                break;
            }
            bytes += len;
            count += 1;
        }
        (count, bytes as u64)
    }
}
