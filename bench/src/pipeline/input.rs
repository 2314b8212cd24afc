//! What goes in: shapes of frames, and the address that tells one flow from another.
//!
//! A frame is a shape's bytes with a 32-bit field (part of an IP address) set to a flow's value, and the checksums over
//! it corrected. So a million flows need no million frames in memory: the source's own cache misses stay out of the
//! figures, whatever the order.

use std::net::{Ipv4Addr, Ipv6Addr};

use weir_dataplane::packet::builder::Packet;

/// Bytes of a cache line.
pub(super) const LINE: usize = 64;
/// Packets of a random order that is not repeated within a repeat.
const SHUFFLED: usize = 1 << 17;

/// Where a flow's value goes in a frame.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Vary {
    /// Offset of the 32-bit field that is the value.
    pub(super) field: usize,
    /// Offsets of Internet checksums (RFC 1071) that cover the field; 0 is none.
    pub(super) sums: [usize; 2],
    /// Offset of a UDP source port without checksum that carries the flow's entropy (RFC 7348 section 5); 0 is none.
    pub(super) entropy: usize,
}

/// Ethernet, IPv4 without options, UDP: the source address.
pub(super) const SOURCE4: Vary = Vary { field: 26, sums: [24, 40], entropy: 0 };
/// The same: the destination address.
pub(super) const DESTINATION4: Vary = Vary { field: 30, sums: [24, 40], entropy: 0 };
/// Ethernet, IPv6, UDP: the last 32 bits of the destination address.
pub(super) const DESTINATION6: Vary = Vary { field: 50, sums: [60, 0], entropy: 0 };
/// VXLAN over IPv4 with [`DESTINATION4`] inside.
pub(super) const INNER_DESTINATION4: Vary = Vary { field: 80, sums: [74, 90], entropy: 34 };

/// One kind of frame.
#[derive(Clone, Debug)]
pub(super) struct Shape {
    /// The whole frame, with the field 0 if it varies.
    bytes: Vec<u8>,
    /// Its first bytes: all that a pipeline may have changed, hence all that is restored.
    header: [[u8; LINE]; 2],
    /// `None`: every frame of the shape is alike.
    vary: Option<Vary>,
}

impl Shape {
    /// Frames that differ in a field, which is 0 in `bytes`. `bytes` is at least [`LINE`] long.
    pub(super) fn varying(bytes: Vec<u8>, vary: Vary) -> Self {
        Self { vary: Some(vary), ..Self::fixed(bytes) }
    }

    /// Frames that are all alike, of any length.
    pub(super) fn fixed(bytes: Vec<u8>) -> Self {
        let mut header = [[0; LINE]; 2];
        for (to, from) in header.as_flattened_mut().iter_mut().zip(&bytes) {
            *to = *from;
        }
        Self { bytes, header, vary: None }
    }

    /// Length in bytes.
    #[inline]
    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Restores the first two cache lines of a frame of this shape, for the flow with this value.
    #[inline]
    pub(super) fn restore(&self, frame: &mut [u8], value: u32) {
        // Short frames end after a line, and so does what a pipeline changes in others, tunnels apart.
        let tunnel = self.vary.is_none_or(|vary| vary.entropy != 0);
        let lines = if tunnel { 2 } else { 1 };
        for (to, from) in frame.chunks_mut(LINE).zip(self.header.iter().take(lines)) {
            match <&mut [u8; LINE]>::try_from(&mut *to) {
                Ok(to) => *to = *from,
                Err(_) => to.iter_mut().zip(from).for_each(|(to, from)| *to = *from),
            }
        }
        self.set(frame, value);
    }

    /// Sets the field to `value` in a frame in which it is 0.
    #[inline]
    pub(super) fn set(&self, frame: &mut [u8], value: u32) {
        let Some(vary) = &self.vary else { return };
        if let Some(field) = frame.get_mut(vary.field..vary.field + 4) {
            field.copy_from_slice(&value.to_be_bytes());
        }
        for &sum in &vary.sums {
            if sum == 0 {
                continue;
            }
            let Some(field) = frame.get_mut(sum..sum + 2) else { continue };
            let Ok(old) = <[u8; 2]>::try_from(&*field) else { continue };
            field.copy_from_slice(&corrected(u16::from_be_bytes(old), value).to_be_bytes());
        }
        if vary.entropy != 0 {
            if let Some(field) = frame.get_mut(vary.entropy..vary.entropy + 2) {
                field.copy_from_slice(&(0xc000 | value as u16).to_be_bytes());
            }
        }
    }

    /// The whole frame of the flow with this value.
    pub(super) fn frame(&self, value: u32) -> Vec<u8> {
        let mut frame = self.bytes.clone();
        self.set(&mut frame, value);
        frame
    }
}

/// A checksum after a 32-bit field that was 0 became `value` (RFC 1624).
#[inline]
fn corrected(sum: u16, value: u32) -> u16 {
    let sum = u32::from(!sum) + (value >> 16) + (value & 0xffff);
    let sum = (sum & 0xffff) + (sum >> 16);
    !(((sum & 0xffff) + (sum >> 16)) as u16)
}

/// Lengths of frames, in bytes without the frame check sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lengths {
    /// All alike.
    Fixed(usize),
    /// Seven of 64, four of 590, one of 1514: the simple Internet mix, of IP packets of 50, 576 and 1500 bytes.
    Imix,
}

/// The order of lengths of [`Lengths::Imix`], spread evenly.
const IMIX: [usize; 12] = [64, 590, 64, 64, 590, 64, 1514, 64, 590, 64, 64, 590];

impl std::str::FromStr for Lengths {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "imix" => Ok(Self::Imix),
            // An IP packet of 1500 bytes in an Ethernet frame.
            "1500" => Ok(Self::Fixed(1514)),
            _ => match text.parse() {
                Ok(length) if (64..=1514).contains(&length) => Ok(Self::Fixed(length)),
                _ => Err("a length from 64 to 1514, 1500 (an IP packet of this length), or imix".to_owned()),
            },
        }
    }
}

impl std::fmt::Display for Lengths {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Fixed(length) => write!(f, "{length}"),
            Self::Imix => f.write_str("imix"),
        }
    }
}

impl Lengths {
    /// The lengths in the order of the packets.
    pub(super) fn cycle(self) -> Vec<usize> {
        match self {
            Self::Fixed(length) => vec![length],
            Self::Imix => IMIX.to_vec(),
        }
    }
}

/// In which order flows have packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Order {
    /// In turn, by ascending address.
    Sequential,
    /// Each pass over the flows in a new random order.
    Random,
}

/// The values of `passes` passes over the flows, in the order of the packets.
pub(super) fn ordered(mut flows: Vec<u32>, order: Order, random: &mut fastrand::Rng) -> Vec<u32> {
    match order {
        Order::Sequential => {
            flows.sort_unstable();
            flows
        }
        Order::Random => {
            let mut values = Vec::new();
            for _ in 0..SHUFFLED.div_ceil(flows.len().max(1)) {
                random.shuffle(&mut flows);
                values.extend_from_slice(&flows);
            }
            values
        }
    }
}

/// An IPv4 UDP frame of `len` bytes from 10.1.0.2 to `destination`, from the port `from` on.
pub(super) fn udp4(to_mac: [u8; 6], source: Ipv4Addr, destination: Ipv4Addr, len: usize) -> Vec<u8> {
    Packet::ethernet([2, 0, 0, 0, 1, 2], to_mac)
        .ipv4(source, destination)
        .udp(4000, 443)
        .payload(&vec![0; len.saturating_sub(42)])
        .build()
}

/// An IPv6 UDP frame of `len` bytes.
pub(super) fn udp6(to_mac: [u8; 6], source: Ipv6Addr, destination: Ipv6Addr, len: usize) -> Vec<u8> {
    Packet::ethernet([2, 0, 0, 0, 1, 2], to_mac)
        .ipv6(source, destination)
        .udp(4000, 443)
        .payload(&vec![0; len.saturating_sub(62)])
        .build()
}

#[cfg(test)]
mod tests {
    use super::*;

    const VALUES: [u32; 5] = [0, 1, 0x0a80_0001, 0xffff_ffff, 0xdead_beef];

    #[test]
    fn a_frame_with_its_value_set_is_the_frame_that_a_builder_makes() {
        for value in VALUES {
            let to = Ipv4Addr::from_bits(value);
            let shape = Shape::varying(udp4([2; 6], [10, 1, 0, 2].into(), 0.into(), 64), DESTINATION4);
            assert_eq!(shape.frame(value), udp4([2; 6], [10, 1, 0, 2].into(), to, 64));
            let shape = Shape::varying(udp4([2; 6], 0.into(), [10, 1, 0, 2].into(), 64), SOURCE4);
            assert_eq!(shape.frame(value), udp4([2; 6], to, [10, 1, 0, 2].into(), 64));
            let six =
                |low: u32| udp6([2; 6], 1.into(), ((0x2001_0db8u128 << 96) | u128::from(low)).into(), 64);
            let shape = Shape::varying(six(0), DESTINATION6);
            assert_eq!(shape.frame(value), six(value));
        }
    }

    #[test]
    fn restoring_undoes_what_a_pipeline_did_to_a_header() {
        let shape = Shape::varying(udp4([2; 6], [10, 1, 0, 2].into(), 0.into(), 590), DESTINATION4);
        let mut frame = shape.frame(7);
        if let Some(header) = frame.get_mut(..60) {
            header.fill(0xee);
        }
        shape.restore(&mut frame, 0x0a80_0005);
        assert_eq!(frame, shape.frame(0x0a80_0005));
    }

    #[test]
    fn a_frame_shorter_than_a_line_is_restored() {
        let shape = Shape::fixed(vec![5; 20]);
        let mut frame = vec![0; 20];
        shape.restore(&mut frame, 1);
        assert_eq!(frame, vec![5; 20]);
    }

    #[test]
    fn imix_is_seven_to_four_to_one() {
        let lengths = Lengths::Imix.cycle();
        let count = |length| lengths.iter().filter(|&&l| l == length).count();
        assert_eq!((count(64), count(590), count(1514), lengths.len()), (7, 4, 1, 12));
        assert_eq!("imix".parse(), Ok(Lengths::Imix));
        assert_eq!("1500".parse(), Ok(Lengths::Fixed(1514)));
        assert!("63".parse::<Lengths>().is_err() && "tiny".parse::<Lengths>().is_err());
    }

    #[test]
    fn every_pass_of_a_random_order_has_every_flow_once_and_no_two_are_alike() {
        let flows: Vec<u32> = (0..1000).collect();
        let values = ordered(flows.clone(), Order::Random, &mut fastrand::Rng::with_seed(1));
        let passes: Vec<_> = values.chunks(1000).collect();
        assert!(passes.len() >= 2 && passes.first() != passes.get(1));
        for pass in passes {
            let mut sorted = pass.to_vec();
            sorted.sort_unstable();
            assert_eq!(sorted, flows);
        }
    }
}
