//! A hashed timer wheel of one lap over slots 0 to n − 1.
//!
//! A slot stands in at most one bucket; buckets are lists threaded through one array, so that arming allocates nothing. A
//! timer longer than a lap is looked at once a lap and armed again by its owner, and so is one whose deadline has
//! moved: nobody re-arms on the path of a packet.

use crate::decision::Nanos;

/// Nanoseconds of a tick.
const TICK: Nanos = 1_000_000_000;
/// Ticks of a lap, and so the longest that a slot goes without being looked at.
const LAP: u64 = 128;
const NONE: u32 = u32::MAX;

#[derive(Debug)]
pub(super) struct Wheel {
    heads: [u32; LAP as usize],
    next: Box<[u32]>,
    /// What is left of the bucket being emptied.
    draining: u32,
    /// The next tick whose bucket is to be emptied.
    cursor: u64,
}

impl Wheel {
    pub(super) fn new(slots: usize) -> Self {
        Self { heads: [NONE; LAP as usize], next: vec![NONE; slots].into(), draining: NONE, cursor: 0 }
    }

    /// Has `slot` come due at `deadline`, or at the end of the lap if that is earlier. The slot must not be armed.
    pub(super) fn arm(&mut self, slot: u32, deadline: Nanos, now: Nanos) {
        let now = now / TICK;
        let tick = deadline.div_ceil(TICK).clamp(now + 1, now + LAP - 1).max(self.cursor);
        let Some(head) = self.heads.get_mut((tick % LAP) as usize) else { return };
        let Some(link) = self.next.get_mut(slot as usize) else { return };
        *link = *head;
        *head = slot;
    }

    /// Takes the next slot that is due at `now` off the wheel. After a jump of more than a lap every slot is due once.
    pub(super) fn next_due(&mut self, now: Nanos) -> Option<u32> {
        let now = now / TICK;
        while self.draining == NONE {
            if self.cursor > now {
                return None;
            }
            self.cursor = self.cursor.max(now.saturating_sub(LAP - 1));
            let head = self.heads.get_mut((self.cursor % LAP) as usize)?;
            self.draining = std::mem::replace(head, NONE);
            self.cursor += 1;
        }
        let slot = self.draining;
        self.draining = self.next.get(slot as usize).copied().unwrap_or(NONE);
        Some(slot)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn due(wheel: &mut Wheel, now: Nanos) -> Vec<u32> {
        let mut slots: Vec<u32> = std::iter::from_fn(|| wheel.next_due(now)).collect();
        slots.sort_unstable();
        slots
    }

    #[test]
    fn a_slot_comes_due_at_its_deadline_and_not_before() {
        let mut wheel = Wheel::new(2);
        let start = 50 * TICK;
        assert!(due(&mut wheel, start).is_empty());
        wheel.arm(0, start + 10 * TICK, start);
        wheel.arm(1, start + 10 * TICK + 1, start);
        assert!(due(&mut wheel, start + 10 * TICK - 1).is_empty());
        assert_eq!(due(&mut wheel, start + 10 * TICK), [0]);
        assert_eq!(due(&mut wheel, start + 11 * TICK), [1]);
        assert!(due(&mut wheel, start + 2 * LAP * TICK).is_empty());
    }

    #[test]
    fn a_long_timer_is_looked_at_once_a_lap() {
        let mut wheel = Wheel::new(1);
        due(&mut wheel, TICK);
        wheel.arm(0, 7_440 * TICK, TICK);
        assert!(due(&mut wheel, (LAP - 1) * TICK).is_empty());
        assert_eq!(due(&mut wheel, LAP * TICK), [0]);
    }

    #[test]
    fn a_jump_of_hours_finds_every_slot_once_and_re_arming_does_not_loop() {
        let mut wheel = Wheel::new(300);
        for slot in 0..300 {
            wheel.arm(slot, u64::from(slot) * TICK, 0);
        }
        let now = 7_200 * TICK;
        let mut visits = 0;
        while let Some(slot) = wheel.next_due(now) {
            visits += 1;
            assert!(visits <= 600, "re-armed slots come round at most once more");
            wheel.arm(slot, now + 5 * TICK, now);
        }
        assert_eq!(due(&mut wheel, now + 4 * TICK).len(), 0);
        assert_eq!(due(&mut wheel, now + 5 * TICK).len(), 300);
    }
}
