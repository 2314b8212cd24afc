//! Opening a device that is the benchmark's alone, by weir's own AF_XDP port.

use weir_config::{HugePages, PortMode, XdpMode};
use weir_dataplane::frame::{FrameCache, FrameMemory, FramePool};
use weir_dataplane::io::afxdp::{AfXdpPort, AfXdpQueue, OpenOptions};

/// Opens every queue of `device` with receive rings of `ring` entries; with `stamps`, frames have the time at which the kernel got
/// them in front of them.
pub(crate) fn open(
    device: &str,
    ring: u32,
    stamps: bool,
) -> Result<(AfXdpPort, Vec<AfXdpQueue>, FrameCache), String> {
    let queues = AfXdpPort::receive_queues(device).ok_or_else(|| format!("there is no device {device}"))?;
    let frames = (queues as u32).saturating_mul(2 * ring + 1024).saturating_add(8192);
    let memory = FrameMemory::map(frames, 2048, HugePages::Auto).map_err(|error| error.to_string())?;
    let pool = FramePool::new(memory);
    let mut options = OpenOptions::new(device, PortMode::Dedicated, XdpMode::Auto);
    options.rx_ring = ring;
    options.promiscuous = true;
    options.stamps = stamps;
    let (port, queues) = AfXdpPort::open(&options, &pool).map_err(|error| error.to_string())?;
    Ok((port, queues, FrameCache::new(pool)))
}
