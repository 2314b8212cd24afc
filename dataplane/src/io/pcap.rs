//! Captures: records read from pcap and pcapng files, and written as pcap with nanosecond timestamps.
//!
//! Formats: draft-ietf-opsawg-pcap (classic) and draft-ietf-opsawg-pcapng. Only Ethernet captures are taken.

use std::fs::File;
use std::io::{self, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use pcap_file::pcap::{PcapHeader, PcapReader, PcapWriter, RawPcapPacket};
use pcap_file::pcapng::blocks::interface_description::InterfaceDescriptionOption;
use pcap_file::pcapng::{Block, PcapNgReader};
use pcap_file::{DataLink, Endianness, PcapError, TsResolution};

/// Magic number of a pcapng section header block.
const PCAPNG_MAGIC: [u8; 4] = [0x0a, 0x0d, 0x0d, 0x0a];
/// Snapshot length of captures written.
const SNAPLEN: u32 = 262_144;
const NANOS: u64 = 1_000_000_000;

/// One captured frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CaptureRecord {
    /// When, in ns since 1970.
    pub timestamp: u64,
    /// The frame from its Ethernet header on, as far as it was captured.
    pub bytes: Vec<u8>,
    /// The frame's length on the wire in bytes; more than `bytes.len()` if the capture cut it off.
    pub original_len: u32,
}

impl CaptureRecord {
    /// Whether the capture cut the frame off.
    pub fn truncated(&self) -> bool {
        self.original_len as usize > self.bytes.len()
    }
}

/// Why a capture cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum CaptureError {
    /// The file cannot be opened, made, read or written.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// It is not a capture, or a broken one.
    #[error("{path}: {}not a valid capture: {reason}", place(*record))]
    Format {
        /// The file.
        path: PathBuf,
        /// The record, from 1; 0 is the file's header.
        record: u64,
        /// What is wrong.
        reason: String,
    },
    /// It was not captured on Ethernet.
    #[error("{path}: link type {link:?} is not Ethernet")]
    LinkType {
        /// The file.
        path: PathBuf,
        /// Its link type.
        link: DataLink,
    },
    /// A timestamp beyond what pcap can say (the year 2106).
    #[error("{path}: timestamp {timestamp} ns does not fit a pcap file")]
    Timestamp {
        /// The file.
        path: PathBuf,
        /// The timestamp.
        timestamp: u64,
    },
}

enum Source {
    Pcap(PcapReader<File>),
    PcapNg(Box<PcapNgReader<File>>),
}

/// Reads a pcap or pcapng file, record by record, in the file's order.
pub struct CaptureReader {
    path: PathBuf,
    source: Source,
    record: u64,
    /// Timestamp of the record before: a simple packet block has none of its own.
    last: u64,
    failed: bool,
}

impl CaptureReader {
    /// Opens a capture; the format is told by its first bytes.
    ///
    /// # Errors
    /// [`CaptureError`] when the file cannot be read, is no capture or was not captured on Ethernet.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, CaptureError> {
        let path = path.as_ref().to_path_buf();
        let fail = |source| CaptureError::Io { path: path.clone(), source };
        let mut file = File::open(&path).map_err(fail)?;
        let mut magic = Vec::new();
        (&file).take(4).read_to_end(&mut magic).map_err(fail)?;
        file.seek(SeekFrom::Start(0)).map_err(fail)?;
        let source = if magic == PCAPNG_MAGIC {
            PcapNgReader::new(file).map(|reader| Source::PcapNg(Box::new(reader)))
        } else {
            PcapReader::new(file).map(Source::Pcap)
        };
        let source = source.map_err(|error| convert(&path, 0, error))?;
        if let Source::Pcap(reader) = &source {
            ethernet(&path, reader.header().datalink)?;
        }
        Ok(Self { path, source, record: 0, last: 0, failed: false })
    }

    fn read(&mut self) -> Option<Result<CaptureRecord, CaptureError>> {
        match &mut self.source {
            Source::Pcap(reader) => {
                let resolution = reader.header().ts_resolution;
                let packet = match reader.next_raw_packet()? {
                    Ok(packet) => packet,
                    Err(error) => return Some(Err(convert(&self.path, self.record + 1, error))),
                };
                let unit = if resolution == TsResolution::NanoSecond { 1 } else { 1_000 };
                Some(Ok(CaptureRecord {
                    timestamp: u64::from(packet.ts_sec) * NANOS + u64::from(packet.ts_frac) * unit,
                    original_len: packet.orig_len,
                    bytes: packet.data.into_owned(),
                }))
            }
            Source::PcapNg(reader) => read_block(reader, &self.path, self.record + 1, self.last),
        }
    }
}

impl Iterator for CaptureReader {
    type Item = Result<CaptureRecord, CaptureError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        let record = self.read()?;
        self.record += 1;
        match &record {
            Ok(record) => self.last = record.timestamp,
            Err(_) => self.failed = true,
        }
        Some(record)
    }
}

/// Where in the file: a header needs no number.
fn place(record: u64) -> String {
    if record == 0 { String::new() } else { format!("record {record}: ") }
}

/// How a block says when.
enum Clock {
    /// Ticks of the interface's clock.
    Ticks(u64),
    /// The same in two halves, as the obsolete packet block has it.
    Halves(u64),
    /// Not at all: a simple packet block.
    None,
}

/// The next block that carries a packet.
fn read_block(
    reader: &mut PcapNgReader<File>,
    path: &Path,
    number: u64,
    last: u64,
) -> Option<Result<CaptureRecord, CaptureError>> {
    loop {
        let (interface, clock, original_len, mut bytes) = match reader.next_block()? {
            Ok(Block::EnhancedPacket(packet)) => {
                // The reader gives the raw 64-bit count of ticks as if they were nanoseconds.
                let ticks = u64::try_from(packet.timestamp.as_nanos()).unwrap_or(u64::MAX);
                (packet.interface_id, Clock::Ticks(ticks), packet.original_len, packet.data.into_owned())
            }
            Ok(Block::Packet(packet)) => {
                let clock = Clock::Halves(packet.timestamp);
                (packet.interface_id.into(), clock, packet.original_len, packet.data.into_owned())
            }
            Ok(Block::SimplePacket(packet)) => {
                (0, Clock::None, packet.original_len, packet.data.into_owned())
            }
            Ok(_) => continue,
            Err(error) => return Some(Err(convert(path, number, error))),
        };
        let little = reader.section().endianness == Endianness::Little;
        let Some(interface) = reader.interfaces().get(interface as usize) else {
            let reason = format!("there is no interface {interface}");
            return Some(Err(CaptureError::Format { path: path.to_path_buf(), record: number, reason }));
        };
        if let Err(error) = ethernet(path, interface.linktype) {
            return Some(Err(error));
        }
        let timestamp = match clock {
            Clock::Ticks(ticks) => nanoseconds(ticks, &interface.options),
            // The upper half stands first, each half in the section's byte order.
            Clock::Halves(raw) if little => nanoseconds(raw.rotate_left(32), &interface.options),
            Clock::Halves(raw) => nanoseconds(raw, &interface.options),
            Clock::None => {
                // The data carry padding, and the interface's snapshot length may have cut them.
                let captured =
                    if interface.snaplen == 0 { original_len } else { original_len.min(interface.snaplen) };
                bytes.truncate(captured as usize);
                last
            }
        };
        return Some(Ok(CaptureRecord { timestamp, bytes, original_len }));
    }
}

/// Converts ticks of an interface's clock (if_tsresol, if_tsoffset; microseconds by default) to ns since 1970.
fn nanoseconds(ticks: u64, options: &[InterfaceDescriptionOption<'_>]) -> u64 {
    let (mut resolution, mut offset) = (6u8, 0u64);
    for option in options {
        match option {
            InterfaceDescriptionOption::IfTsResol(value) => resolution = *value,
            InterfaceDescriptionOption::IfTsOffset(seconds) => offset = *seconds,
            _ => {}
        }
    }
    let exponent = u32::from(resolution & 0x7f);
    let per_second =
        if resolution & 0x80 == 0 { 10u128.checked_pow(exponent) } else { 2u128.checked_pow(exponent) };
    let nanos = per_second.map_or(0, |per_second| u128::from(ticks) * u128::from(NANOS) / per_second);
    u64::try_from(nanos).unwrap_or(u64::MAX).saturating_add(offset.saturating_mul(NANOS))
}

fn ethernet(path: &Path, link: DataLink) -> Result<(), CaptureError> {
    if link == DataLink::ETHERNET {
        return Ok(());
    }
    Err(CaptureError::LinkType { path: path.to_path_buf(), link })
}

fn convert(path: &Path, record: u64, error: PcapError) -> CaptureError {
    let path = path.to_path_buf();
    match error {
        PcapError::IoError(source) if source.kind() != io::ErrorKind::UnexpectedEof => {
            CaptureError::Io { path, source }
        }
        PcapError::IoError(_) | PcapError::IncompleteBuffer if record == 0 => {
            CaptureError::Format { path, record, reason: "it has no header of pcap or pcapng".into() }
        }
        PcapError::IoError(_) | PcapError::IncompleteBuffer => {
            CaptureError::Format { path, record, reason: "it ends in the middle of a record".into() }
        }
        other => CaptureError::Format { path, record, reason: other.to_string() },
    }
}

/// Writes a classic pcap file with nanosecond timestamps.
pub struct CaptureWriter {
    path: PathBuf,
    writer: PcapWriter<BufWriter<File>>,
}

impl CaptureWriter {
    /// Makes or overwrites a capture.
    ///
    /// # Errors
    /// [`CaptureError::Io`] when the file cannot be made.
    pub fn create(path: impl AsRef<Path>) -> Result<Self, CaptureError> {
        let path = path.as_ref().to_path_buf();
        let file = File::create(&path).map_err(|source| CaptureError::Io { path: path.clone(), source })?;
        let header = PcapHeader {
            snaplen: SNAPLEN,
            datalink: DataLink::ETHERNET,
            ts_resolution: TsResolution::NanoSecond,
            endianness: Endianness::Little,
            ..PcapHeader::default()
        };
        let writer = PcapWriter::with_header(BufWriter::new(file), header)
            .map_err(|error| convert(&path, 0, error))?;
        Ok(Self { path, writer })
    }

    /// Appends a frame seen at `timestamp` ns since 1970.
    ///
    /// # Errors
    /// [`CaptureError`] when the file cannot be written or the timestamp does not fit.
    pub fn write(&mut self, timestamp: u64, bytes: &[u8]) -> Result<(), CaptureError> {
        let Ok(ts_sec) = u32::try_from(timestamp / NANOS) else {
            return Err(CaptureError::Timestamp { path: self.path.clone(), timestamp });
        };
        let len = bytes.len() as u32;
        let packet = RawPcapPacket {
            ts_sec,
            ts_frac: (timestamp % NANOS) as u32,
            incl_len: len,
            orig_len: len,
            data: bytes.into(),
        };
        match self.writer.write_raw_packet(&packet) {
            Ok(_) => Ok(()),
            Err(error) => Err(convert(&self.path, 0, error)),
        }
    }

    /// Writes everything out and closes the file.
    ///
    /// # Errors
    /// [`CaptureError::Io`] when the file cannot be written; a writer that is only dropped cannot tell.
    pub fn finish(self) -> Result<(), CaptureError> {
        let path = self.path;
        self.writer.into_writer().flush().map_err(|source| CaptureError::Io { path, source })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A pcapng file (little endian) with one interface of the given link type and if_tsresol, and these blocks.
    fn pcapng(link: u16, resolution: u8, blocks: &[Vec<u8>]) -> tempfile::NamedTempFile {
        let mut bytes = Vec::new();
        let mut block = |kind: u32, body: &[u8]| {
            let len = (12 + body.len()) as u32;
            bytes.extend([kind.to_le_bytes(), len.to_le_bytes()].concat());
            bytes.extend(body);
            bytes.extend(len.to_le_bytes());
        };
        let section = [&0x1a2b_3c4du32.to_le_bytes()[..], &[1, 0, 0, 0], &u64::MAX.to_le_bytes()].concat();
        block(0x0a0d_0d0a, &section);
        let options = [9, 0, 1, 0, resolution, 0, 0, 0, 0, 0, 0, 0];
        block(1, &[&link.to_le_bytes()[..], &[0, 0], &[0; 4], &options].concat());
        for body in blocks {
            let (kind, body) = body.split_first().unwrap();
            block(u32::from(*kind), body);
        }
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(&bytes).unwrap();
        file
    }

    /// An enhanced packet block of a 5-byte frame, its kind in front.
    fn enhanced(ticks: u64) -> Vec<u8> {
        let mut body = vec![6];
        for word in [0, (ticks >> 32) as u32, ticks as u32, 5, 9] {
            body.extend(word.to_le_bytes());
        }
        body.extend([1, 2, 3, 4, 5, 0, 0, 0]);
        body
    }

    fn read(path: &Path) -> Vec<CaptureRecord> {
        CaptureReader::open(path).unwrap().map(Result::unwrap).collect()
    }

    #[test]
    fn what_was_written_is_read_back_to_the_nanosecond() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.pcap");
        let mut writer = CaptureWriter::create(&path).unwrap();
        writer.write(1_700_000_000_123_456_789, &[1; 60]).unwrap();
        writer.write(1_700_000_000_123_456_790, &[2; 9000]).unwrap();
        writer.finish().unwrap();
        let records = read(&path);
        assert_eq!(records.len(), 2);
        assert_eq!(records[0].timestamp, 1_700_000_000_123_456_789);
        assert_eq!(records[0].bytes, [1; 60]);
        assert_eq!((records[1].original_len, records[1].truncated()), (9000, false));
    }

    #[test]
    fn pcapng_timestamps_follow_the_resolution_of_their_interface() {
        // if_tsresol: 9 = 10^-9, 6 = 10^-6, 0x94 = 2^-20.
        for (resolution, ticks) in
            [(9, 1_500_000_001_000_000_003), (6, 1_500_000_001_000_000), (0x94, 1_500_000_001 << 20)]
        {
            let file = pcapng(1, resolution, &[enhanced(ticks)]);
            let expected = 1_500_000_001_000_000_000 + if resolution == 9 { 3 } else { 0 };
            let records = read(file.path());
            assert_eq!(records[0].timestamp, expected);
            assert_eq!(records[0].bytes, [1, 2, 3, 4, 5]);
            assert!(records[0].truncated());
        }
    }

    #[test]
    fn a_simple_packet_takes_the_timestamp_before_it_and_loses_its_padding() {
        let simple = [&[3u8][..], &5u32.to_le_bytes(), &[9, 8, 7, 6, 5, 0, 0, 0]].concat();
        let file = pcapng(1, 9, &[enhanced(77), simple]);
        let records = read(file.path());
        assert_eq!(records[1], CaptureRecord { timestamp: 77, bytes: vec![9, 8, 7, 6, 5], original_len: 5 });
    }

    #[test]
    fn a_capture_of_another_link_type_is_refused() {
        let file = pcapng(101, 9, &[enhanced(1)]);
        let error = CaptureReader::open(file.path()).unwrap().next().unwrap().unwrap_err();
        assert!(matches!(error, CaptureError::LinkType { .. }), "{error}");
    }

    #[test]
    fn a_capture_that_ends_in_a_record_gives_what_is_whole_and_then_one_error() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("cut.pcap");
        let mut writer = CaptureWriter::create(&path).unwrap();
        writer.write(1, &[1; 60]).unwrap();
        writer.write(2, &[2; 60]).unwrap();
        writer.finish().unwrap();
        let len = std::fs::metadata(&path).unwrap().len();
        File::options().write(true).open(&path).unwrap().set_len(len - 7).unwrap();
        let records: Vec<_> = CaptureReader::open(&path).unwrap().collect();
        assert_eq!(records.len(), 2);
        assert!(records[0].is_ok());
        let error = records[1].as_ref().unwrap_err().to_string();
        assert!(error.contains("record 2: not a valid capture: it ends in the middle"), "{error}");
    }

    #[test]
    fn what_is_no_capture_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("text");
        std::fs::write(&path, "this is no capture at all, but long enough").unwrap();
        assert!(matches!(CaptureReader::open(&path), Err(CaptureError::Format { record: 0, .. })));
        assert!(matches!(CaptureReader::open(dir.path().join("none")), Err(CaptureError::Io { .. })));
        std::fs::write(&path, "").unwrap();
        let error = CaptureReader::open(&path).err().unwrap().to_string();
        assert!(error.ends_with("text: not a valid capture: it has no header of pcap or pcapng"), "{error}");
    }

    proptest::proptest! {
        #![proptest_config(proptest::prelude::ProptestConfig::with_cases(48))]

        #[test]
        fn whatever_the_bytes_reading_ends_without_a_panic(
            magic in proptest::sample::select(vec![
                [0x0au8, 0x0d, 0x0d, 0x0a], [0xd4, 0xc3, 0xb2, 0xa1], [0x4d, 0x3c, 0xb2, 0xa1], [0xa1, 0xb2, 0xc3, 0xd4],
            ]),
            version in proptest::bool::ANY,
            noise in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..200),
        ) {
            let mut file = tempfile::NamedTempFile::new().unwrap();
            file.write_all(&magic).unwrap();
            if version {
                // Enough of a header for the noise to be read as records.
                let header: &[u8] = match magic {
                    [0x0a, ..] => &[28, 0, 0, 0, 0x4d, 0x3c, 0x2b, 0x1a, 1, 0, 0, 0, 255, 255, 255, 255, 255, 255, 255, 255, 28, 0, 0, 0],
                    [0xa1, ..] => &[0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 255, 255, 0, 0, 0, 1],
                    _ => &[2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 255, 255, 0, 0, 1, 0, 0, 0],
                };
                file.write_all(header).unwrap();
            }
            file.write_all(&noise).unwrap();
            if let Ok(reader) = CaptureReader::open(file.path()) {
                proptest::prop_assert!(reader.count() <= noise.len() + 1);
            }
        }
    }
}
