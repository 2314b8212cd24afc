//! Slots: where sessions lie, and which of them are free.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};

use super::GRACE;
use super::shard::Key;
use super::tcp::{SessionState, Tracker};
use crate::decision::{ChainId, Direction, Domain, Lock, Locked, Nanos, Timeouts, Translations, Tuple};

/// One session.
#[derive(Clone, Debug)]
pub(super) struct Session {
    pub(super) domain: Domain,
    pub(super) forward: Tuple,
    pub(super) reply: Tuple,
    pub(super) chain: Option<ChainId>,
    pub(super) cuts: u8,
    pub(super) tracker: Tracker,
    pub(super) created: Nanos,
    pub(super) timeouts: Timeouts,
    pub(super) translations: Translations,
}

impl Session {
    /// Whether it is found by this key in this direction.
    pub(super) fn has(&self, key: &Key<'_>, direction: Direction) -> bool {
        let tuple = match direction {
            Direction::Forward => &self.forward,
            Direction::Reverse => &self.reply,
        };
        tuple == key.tuple && self.domain == key.domain
    }

    pub(super) fn timeout(&self) -> Nanos {
        self.tracker.state().timeout(self.forward.protocol, &self.timeouts)
    }
}

/// What a slot holds.
#[derive(Clone, Debug, Default)]
pub(super) enum Content {
    /// Nothing.
    #[default]
    Free,
    /// A session that another took the place of, at this moment; still on the timer wheel.
    Gone(Nanos),
    /// A session.
    Live(Session),
}

/// A slot. What sweeps read and write lies outside the lock.
#[derive(Debug, Default)]
pub struct Slot {
    last_seen: AtomicU64,
    /// A [`SessionState`], or 0 if no session is here.
    state: AtomicU8,
    /// How many sessions have been here: tells one from the next.
    incarnation: AtomicU32,
    /// The session that is kept alive with this one: its slot (low half) and its incarnation; 0: none.
    tied: AtomicU64,
    content: Lock<Content>,
}

impl Slot {
    pub(super) fn content(&self) -> Locked<'_, Content> {
        self.content.lock()
    }

    pub(super) fn state(&self) -> Option<SessionState> {
        SessionState::from_u8(self.state.load(Ordering::Relaxed))
    }

    pub(super) fn set_state(&self, state: Option<SessionState>) {
        self.state.store(state.map_or(0, |state| state as u8), Ordering::Relaxed);
    }

    /// Another session begins here, whose content is locked.
    pub(super) fn begin(&self) {
        self.incarnation.store(self.incarnation().wrapping_add(1), Ordering::Relaxed);
        self.tie(None);
    }

    pub(super) fn incarnation(&self) -> u32 {
        self.incarnation.load(Ordering::Relaxed)
    }

    /// The slot and the incarnation of the session that is kept alive with this one.
    pub(super) fn tied(&self) -> Option<(u32, u32)> {
        let tied = self.tied.load(Ordering::Relaxed);
        (tied != 0).then_some((tied as u32, (tied >> 32) as u32))
    }

    pub(super) fn tie(&self, to: Option<(u32, u32)>) {
        let tied = to.map_or(0, |(slot, incarnation)| u64::from(incarnation) << 32 | u64::from(slot));
        if self.tied.load(Ordering::Relaxed) != tied {
            self.tied.store(tied, Ordering::Relaxed);
        }
    }

    pub(super) fn last_seen(&self) -> Nanos {
        self.last_seen.load(Ordering::Relaxed)
    }

    /// Notes traffic; a plain load and store, no read-modify-write.
    pub(super) fn seen(&self, now: Nanos) {
        if self.last_seen() < now {
            self.last_seen.store(now, Ordering::Relaxed);
        }
    }

    pub(super) fn set_last_seen(&self, now: Nanos) {
        self.last_seen.store(now, Ordering::Relaxed);
    }
}

/// Which slots are free, and since when. Some more slots than sessions, so that resting slots seldom make the table full.
#[derive(Debug)]
pub(super) struct FreeSlots {
    queue: VecDeque<(Nanos, u32)>,
    in_use: usize,
    capacity: usize,
    /// How many were taken for good.
    taken: u64,
}

impl FreeSlots {
    /// How many slots a table of `capacity` sessions has.
    pub(super) fn slots_for(capacity: usize) -> usize {
        capacity + capacity / 4 + 1
    }

    pub(super) fn new(capacity: usize) -> Self {
        let slots = u32::try_from(Self::slots_for(capacity)).unwrap_or(u32::MAX - 1);
        Self { queue: (0..slots).map(|slot| (0, slot)).collect(), in_use: 0, capacity, taken: 0 }
    }

    pub(super) fn in_use(&self) -> usize {
        self.in_use
    }

    pub(super) fn is_full(&self) -> bool {
        self.in_use >= self.capacity
    }

    /// Takes the slot that has rested longest, if it has rested enough.
    pub(super) fn take(&mut self, now: Nanos) -> Option<u32> {
        let (ready, slot) = *self.queue.front()?;
        if self.is_full() || ready > now {
            return None;
        }
        self.queue.pop_front();
        self.in_use += 1;
        self.taken += 1;
        Some(slot)
    }

    /// Puts the slots that will be taken next into `numbers`, as many as there are.
    pub(super) fn upcoming(&self, numbers: &mut [u32]) {
        for (number, (_, slot)) in numbers.iter_mut().zip(&self.queue) {
            *number = *slot;
        }
    }

    /// How many were taken so far, and used.
    pub(super) fn taken(&self) -> u64 {
        self.taken
    }

    /// A slot that was taken is not used after all. It is not yet back.
    pub(super) fn give_up(&mut self) {
        self.taken -= 1;
        self.session_gone();
    }

    /// A session went; its slot is not yet back.
    pub(super) fn session_gone(&mut self) {
        self.in_use = self.in_use.saturating_sub(1);
    }

    /// A slot is back, whose session went at `gone`.
    pub(super) fn put_back(&mut self, slot: u32, gone: Nanos) {
        self.queue.push_back((gone.saturating_add(GRACE), slot));
    }
}
