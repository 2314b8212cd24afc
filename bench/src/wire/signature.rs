//! What each test packet carries in its last 18 bytes, wherever a device under test puts or takes headers in front of them:
//!
//! ```text
//! run 16 | stream 16 | sequence 32 | intended departure, CLOCK_MONOTONIC in ns, 64 | balance 16      (big endian)
//! ```
//!
//! `balance` makes the one's complement sum (RFC 1071) of the signature zero. So it shows damage; and since it adds nothing to any
//! checksum over it, however often packets are sent with other numbers, checksums of UDP and TCP stay as they were.
//!
//! Bytes between the layer 4 header and the signature follow a pattern that depends on their distance from the end alone.

/// Bytes of a signature.
pub(crate) const LENGTH: usize = 18;

/// One packet's signature.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Signature {
    /// Number of the trial, so that a packet of an earlier one is not counted.
    pub(crate) run: u16,
    /// The stream, numbered from 0.
    pub(crate) stream: u16,
    /// Number of the packet in its stream, from 0 in each trial.
    pub(crate) sequence: u32,
    /// When the packet should have left, in ns of CLOCK_MONOTONIC.
    pub(crate) time: u64,
}

impl Signature {
    /// The bytes as they stand in a packet.
    pub(crate) fn encode(&self) -> [u8; LENGTH] {
        let mut bytes = [0; LENGTH];
        bytes[..2].copy_from_slice(&self.run.to_be_bytes());
        bytes[2..4].copy_from_slice(&self.stream.to_be_bytes());
        bytes[4..8].copy_from_slice(&self.sequence.to_be_bytes());
        bytes[8..16].copy_from_slice(&self.time.to_be_bytes());
        let balance = !sum(&bytes);
        bytes[16..].copy_from_slice(&balance.to_be_bytes());
        bytes
    }

    /// Reads the signature at the end of a packet. `None` if there is none, or a damaged one.
    #[inline]
    pub(crate) fn decode(packet: &[u8]) -> Option<Self> {
        let bytes: &[u8; LENGTH] = packet.last_chunk()?;
        if sum(bytes) != 0xffff {
            return None;
        }
        let [a, b, c, d, e, f, g, h, time @ .., _, _] = *bytes;
        Some(Self {
            run: u16::from_be_bytes([a, b]),
            stream: u16::from_be_bytes([c, d]),
            sequence: u32::from_be_bytes([e, f, g, h]),
            time: u64::from_be_bytes(time),
        })
    }
}

/// One's complement sum of 16-bit words (RFC 1071); 0xffff is its other zero.
#[inline]
pub(crate) fn sum(bytes: &[u8]) -> u16 {
    let mut sum = 0u64;
    let mut words = bytes.chunks_exact(2);
    for word in &mut words {
        if let [high, low] = *word {
            sum += u64::from(u16::from_be_bytes([high, low]));
        }
    }
    if let [last] = *words.remainder() {
        sum += u64::from(last) << 8;
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

/// The payload byte that stands `distance` bytes before the end of the packet.
#[inline]
pub(crate) fn pattern(distance: usize) -> u8 {
    (distance as u8).wrapping_mul(0x9d) ^ 0x5a
}

/// Whether the `filled` bytes in front of the signature are as they were sent.
#[inline]
pub(crate) fn intact(packet: &[u8], filled: usize) -> bool {
    let Some(from) = packet.len().checked_sub(LENGTH + filled) else { return false };
    let Some(body) = packet.get(from..from + filled) else { return false };
    body.iter().zip((LENGTH + 1..=LENGTH + filled).rev()).all(|(byte, distance)| *byte == pattern(distance))
}

/// Writes the pattern into the `filled` bytes in front of the signature.
pub(crate) fn fill(packet: &mut [u8], filled: usize) {
    let end = packet.len().saturating_sub(LENGTH);
    let from = end.saturating_sub(filled);
    if let Some(body) = packet.get_mut(from..end) {
        let distances = (LENGTH + 1..=LENGTH + filled).rev();
        body.iter_mut().zip(distances).for_each(|(byte, distance)| *byte = pattern(distance));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_signature_reads_back_as_it_was_written(run: u16, stream: u16, sequence: u32, time: u64) {
            let signature = Signature { run, stream, sequence, time };
            prop_assert_eq!(Signature::decode(&signature.encode()), Some(signature));
        }

        #[test]
        fn no_checksum_changes_with_the_signature(
            run: u16, stream: u16, sequence: u32, time: u64, front in prop::collection::vec(any::<u8>(), 1..40)
        ) {
            let signed = |signature: Signature| {
                let mut packet = front.clone();
                packet.extend(signature.encode());
                match sum(&packet) { 0xffff => 0, sum => sum }
            };
            let first = signed(Signature { run: 0, stream: 0, sequence: 0, time: 0 });
            prop_assert_eq!(first, signed(Signature { run, stream, sequence, time }));
        }

        #[test]
        fn one_changed_byte_is_seen(at in 0..LENGTH, change in 1..=255u8, sequence: u32, time: u64) {
            let mut bytes = Signature { run: 1, stream: 2, sequence, time }.encode();
            bytes[at] ^= change;
            prop_assert_eq!(Signature::decode(&bytes), None);
        }

        #[test]
        fn a_payload_is_intact_until_one_byte_of_it_changes(filled in 1usize..400, at in 0usize..400, change in 1..=255u8) {
            let mut packet = vec![0; 42 + filled + LENGTH];
            fill(&mut packet, filled);
            prop_assert!(intact(&packet, filled));
            packet[42 + at % filled] ^= change;
            prop_assert!(!intact(&packet, filled));
        }
    }

    #[test]
    fn what_is_too_short_has_no_signature_and_is_not_intact() {
        assert_eq!(Signature::decode(&[0; LENGTH - 1]), None);
        assert!(!intact(&[0; LENGTH], 1));
    }
}
