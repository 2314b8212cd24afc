//! What is learned of the underlay's path MTU (RFC 1191, RFC 8201, RFC 4459 section 3.2), one value for each remote VTEP.
//!
//! Values only ever go down, and are forgotten after ten minutes, so that a path that grew again is used (RFC 1191
//! section 6.3, RFC 8201 section 4).

use std::sync::atomic::{AtomicU64, Ordering};

use crate::decision::{Apart, EndpointId, Nanos};

/// How long a learned value holds, in nanoseconds: ten minutes.
pub const LIFETIME: Nanos = 600 * 1_000_000_000;

/// The least MTU in bytes that is believed over IPv4: every host takes this much (RFC 1122 section 3.3.2); less would
/// serve an attacker only.
pub const FLOOR_V4: u16 = 576;

/// The least MTU in bytes of an IPv6 link (RFC 8200 section 5).
pub const FLOOR_V6: u16 = 1280;

/// Nanoseconds are kept in units of 2^16 ns (about 66 µs), so that expiry and MTU share one atomic word.
const UNIT: u32 = 16;

/// Learned path MTUs, shared by all workers. Reading one is a relaxed load.
#[derive(Debug)]
pub struct PathMtuTable {
    /// MTU in the top 16 bits, 0 for none; expiry in the others.
    words: Box<[AtomicU64]>,
    /// Read for every burst.
    epoch: Apart<AtomicU64>,
    /// No value is too old before this.
    due: AtomicU64,
}

fn pack(mtu: u16, expiry: Nanos) -> u64 {
    u64::from(mtu) << 48 | (expiry >> UNIT)
}

fn unpack(word: u64) -> (u16, Nanos) {
    ((word >> 48) as u16, word << UNIT)
}

impl PathMtuTable {
    /// A table for endpoints below `capacity`.
    pub fn new(capacity: usize) -> Self {
        Self {
            words: (0..capacity).map(|_| AtomicU64::new(0)).collect(),
            epoch: Apart::default(),
            due: AtomicU64::new(Nanos::MAX),
        }
    }

    /// Notes that the underlay towards `endpoint` takes only `underlay_mtu` bytes of IP packet. Less than [`FLOOR_V4`]
    /// counts as that much; for an IPv6 underlay the caller raises it to [`FLOOR_V6`]. True if the value went down; hearing
    /// the same value again prolongs it, and a larger one is ignored.
    pub fn lower(&self, endpoint: EndpointId, underlay_mtu: u16, now: Nanos) -> bool {
        let Some(cell) = self.words.get(endpoint.index()) else { return false };
        let mtu = underlay_mtu.max(FLOOR_V4);
        let new = pack(mtu, now.saturating_add(LIFETIME));
        let held = cell.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |word| {
            (valid(word, now).is_none_or(|held| mtu <= held)).then_some(new)
        });
        // After the value is there: a look that misses it comes before this.
        self.due.fetch_min(unpack(new).1, Ordering::Release);
        let changed = held.is_ok_and(|word| valid(word, now) != Some(mtu));
        if changed {
            self.epoch.fetch_add(1, Ordering::Release);
        }
        changed
    }

    /// The learned MTU of the underlay towards `endpoint`, in bytes of outer IP packet.
    #[inline]
    pub fn current(&self, endpoint: EndpointId, now: Nanos) -> Option<u16> {
        valid(self.words.get(endpoint.index())?.load(Ordering::Relaxed), now)
    }

    /// Moves whenever a value changes or is forgotten: what was derived from one is then to be derived again.
    #[inline]
    pub fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Acquire)
    }

    /// Forgets what is too old; to be called about once a second. True if anything was. Cheap unless something may be.
    pub fn tick(&self, now: Nanos) -> bool {
        if now < self.due.load(Ordering::Relaxed) {
            return false;
        }
        // Before the look: what is learned meanwhile lowers it again.
        self.due.swap(Nanos::MAX, Ordering::AcqRel);
        let mut any = false;
        for cell in &self.words {
            let word = cell.load(Ordering::Relaxed);
            if word == 0 {
                continue;
            }
            if valid(word, now).is_some() {
                self.due.fetch_min(unpack(word).1, Ordering::Relaxed);
            } else {
                any |= cell.compare_exchange(word, 0, Ordering::Relaxed, Ordering::Relaxed).is_ok();
            }
        }
        if any {
            self.epoch.fetch_add(1, Ordering::Release);
        }
        any
    }
}

/// The MTU of a word, unless it is too old.
#[inline]
fn valid(word: u64, now: Nanos) -> Option<u16> {
    let (mtu, expiry) = unpack(word);
    (mtu != 0 && now < expiry).then_some(mtu)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const A: EndpointId = EndpointId(0);
    const SECOND: Nanos = 1_000_000_000;

    #[test]
    fn a_value_goes_down_and_not_up() {
        let table = PathMtuTable::new(2);
        assert_eq!(table.current(A, 0), None);
        assert!(table.lower(A, 1400, SECOND));
        assert!(!table.lower(A, 1450, SECOND));
        assert!(table.lower(A, 1300, SECOND));
        assert_eq!(table.current(A, SECOND), Some(1300));
        assert_eq!(table.current(EndpointId(1), SECOND), None);
        assert_eq!(table.epoch(), 2);
    }

    #[test]
    fn a_value_is_forgotten_after_ten_minutes_and_the_epoch_moves_once() {
        let table = PathMtuTable::new(1);
        table.lower(A, 1400, SECOND);
        assert!(!table.tick(500 * SECOND));
        assert_eq!(table.current(A, 600 * SECOND), Some(1400));
        assert_eq!(table.current(A, 602 * SECOND), None);
        let epoch = table.epoch();
        assert!(table.tick(602 * SECOND));
        assert!(!table.tick(603 * SECOND));
        assert_eq!(table.epoch(), epoch + 1);
        assert!(table.lower(A, 1450, 603 * SECOND), "a larger value counts after the old one is gone");
    }

    #[test]
    fn each_value_is_forgotten_in_its_own_time() {
        let table = PathMtuTable::new(2);
        table.lower(A, 1400, 0);
        table.lower(EndpointId(1), 1300, 100 * SECOND);
        assert!(!table.tick(599 * SECOND));
        assert!(table.tick(600 * SECOND));
        assert!(!table.tick(699 * SECOND));
        table.lower(EndpointId(1), 1300, 699 * SECOND);
        assert!(!table.tick(1298 * SECOND), "prolonged");
        assert!(table.tick(1299 * SECOND));
        assert!(!table.tick(Nanos::MAX));
    }

    #[test]
    fn hearing_the_same_value_again_prolongs_it_without_moving_the_epoch() {
        let table = PathMtuTable::new(1);
        table.lower(A, 1400, SECOND);
        assert!(!table.lower(A, 1400, 500 * SECOND));
        assert_eq!(table.epoch(), 1);
        assert_eq!(table.current(A, 1000 * SECOND), Some(1400));
    }

    #[test]
    fn a_value_below_576_counts_as_576() {
        let table = PathMtuTable::new(1);
        assert!(table.lower(A, 68, SECOND));
        assert_eq!(table.current(A, SECOND), Some(576));
    }

    #[test]
    fn an_endpoint_beyond_the_table_learns_nothing() {
        let table = PathMtuTable::new(1);
        assert!(!table.lower(EndpointId(1), 1400, SECOND));
        assert_eq!(table.current(EndpointId(1), SECOND), None);
    }

    proptest! {
        /// The slow twin: a list of what was heard, of which the least that is not too old counts.
        #[test]
        fn the_table_equals_a_naive_one(steps in proptest::collection::vec((576..2000u16, 0..400u64), 1..40)) {
            let table = PathMtuTable::new(1);
            let mut held: Option<(u16, Nanos)> = None;
            let mut now = 0;
            for (mtu, seconds) in steps {
                now += seconds * SECOND;
                held = held.filter(|(_, expiry)| now < *expiry);
                let lower = held.is_none_or(|(held, _)| mtu < held);
                if held.is_none_or(|(held, _)| mtu <= held) {
                    // The table counts time in units of 2^16 ns.
                    held = Some((mtu, (now + LIFETIME) >> UNIT << UNIT));
                }
                prop_assert_eq!(table.lower(A, mtu, now), lower);
                prop_assert_eq!(table.current(A, now), held.map(|(mtu, _)| mtu));
            }
        }
    }
}
