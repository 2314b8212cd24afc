//! What arrived of a stream, by sequence numbers: loss, duplicates, reordering (RFC 4737, section 3.3: a packet is reordered if its
//! number is smaller than the next one expected).

/// The packets of one stream in one trial.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tracker {
    seen: Vec<u64>,
    next: u64,
    /// Packets that arrived, each counted once.
    pub(crate) received: u64,
    /// Further copies of packets that had arrived.
    pub(crate) duplicates: u64,
    /// Packets that arrived after one with a larger number.
    pub(crate) reordered: u64,
}

impl Tracker {
    /// A packet arrived. False if it had arrived before.
    #[inline]
    pub(crate) fn arrived(&mut self, sequence: u32) -> bool {
        let (word, bit) = ((sequence / 64) as usize, 1 << (sequence % 64));
        if word >= self.seen.len() {
            self.seen.resize(word + 1, 0);
        }
        let Some(word) = self.seen.get_mut(word) else { return false };
        if *word & bit != 0 {
            self.duplicates += 1;
            return false;
        }
        *word |= bit;
        self.received += 1;
        let sequence = u64::from(sequence);
        if sequence < self.next {
            self.reordered += 1;
        } else {
            self.next = sequence + 1;
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Against the definitions, with a set and a maximum.
        #[test]
        fn it_counts_as_the_definitions_say(arrivals in prop::collection::vec(0u32..300, 0..600)) {
            let mut tracker = Tracker::default();
            let (mut set, mut duplicates, mut reordered, mut largest) = (HashSet::new(), 0, 0, None);
            for sequence in arrivals {
                tracker.arrived(sequence);
                if !set.insert(sequence) {
                    duplicates += 1;
                } else if largest.is_some_and(|largest| sequence < largest) {
                    reordered += 1;
                }
                largest = largest.max(Some(sequence));
            }
            prop_assert_eq!(
                (tracker.received, tracker.duplicates, tracker.reordered),
                (set.len() as u64, duplicates, reordered)
            );
        }
    }

    #[test]
    fn packets_in_order_with_gaps_are_not_reordered() {
        let mut tracker = Tracker::default();
        for sequence in [0, 1, 5, 6, 100] {
            assert!(tracker.arrived(sequence));
        }
        assert_eq!((tracker.received, tracker.duplicates, tracker.reordered), (5, 0, 0));
    }
}
