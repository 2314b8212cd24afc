//! The input as a capture file, so that other engines can be driven with the same packets.

use std::fs::File;
use std::io::BufWriter;
use std::path::Path;
use std::time::Duration;

use pcap_file::pcap::{PcapPacket, PcapWriter};

use super::bed::Bed;

/// Writes `count` packets of the bed's input, a microsecond apart.
///
/// # Errors
/// The path, and what could not be done.
pub(super) fn write(path: &Path, bed: &Bed, count: usize) -> Result<(), String> {
    let failed = |error: &dyn std::fmt::Display| format!("cannot write {}: {error}", path.display());
    let file = File::create(path).map_err(|error| failed(&error))?;
    let mut writer = PcapWriter::new(BufWriter::new(file)).map_err(|error| failed(&error))?;
    for (at, frame) in bed.frames(count).enumerate() {
        let time = Duration::from_micros(at as u64);
        let packet = PcapPacket::new(time, frame.len() as u32, &frame);
        writer.write_packet(&packet).map_err(|error| failed(&error))?;
    }
    writer.into_writer().into_inner().map_err(|error| failed(&error.into_error()))?;
    Ok(())
}
