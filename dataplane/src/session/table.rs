//! The table: keys over shards, creation, lookup, expiry.
//!
//! Locks are taken in this order: shards (two in the order of their numbers), a slot's content, the list of free slots with the timer
//! wheel. A look-up takes that of the slot only.

use std::sync::atomic::{AtomicU64, Ordering};

use super::shard::{Index, Key, Seed, Vacancy};
use super::slots::{Content, FreeSlots, Session, Slot};
use super::tcp::{SessionState, TIMEOUTS, Tracker, opens};
use super::terms::{Created, Found, NewSession, Refused, SessionCounters, SessionEntry};
use super::wheel::Wheel;
use crate::decision::{
    ChainId, Direction, Domain, End, Lock, Nanos, Openings, SessionId, Translations, Tuple,
};
use crate::packet::protocol;

/// How many due sessions a creation looks at when the table is full.
const FULL_BUDGET: usize = 64;

/// Which slot is taken next, and which is looked at next: under one lock, since a new session has to do with both.
#[derive(Debug)]
struct Turns {
    free: FreeSlots,
    wheel: Wheel,
}

/// The sessions of all workers, bounded. Survives changes of configuration.
#[derive(Debug)]
pub struct SessionTable {
    seed: Seed,
    index: Index,
    pub(super) slots: Box<[Slot]>,
    turns: Lock<Turns>,
    capacity: usize,
    refused: AtomicU64,
    expired: AtomicU64,
    openings: Openings,
}

impl SessionTable {
    /// A table of at most `capacity` sessions (`limits.sessions`). Memory for them is taken at once.
    pub fn new(capacity: usize) -> Self {
        let slots = FreeSlots::slots_for(capacity);
        Self {
            seed: Seed::random(),
            index: Index::new(2 * capacity),
            slots: (0..slots).map(|_| Slot::default()).collect(),
            turns: Lock::new(Turns { free: FreeSlots::new(capacity), wheel: Wheel::new(slots) }),
            capacity,
            refused: AtomicU64::new(0),
            expired: AtomicU64::new(0),
            openings: Openings::default(),
        }
    }

    /// Memory of a table of at most `capacity` sessions, in bytes.
    pub fn bytes_for(capacity: usize) -> usize {
        let slots = FreeSlots::slots_for(capacity);
        let free = size_of::<(Nanos, u32)>();
        slots * (size_of::<Slot>() + free + size_of::<u32>())
            + Index::bytes_for(2 * capacity)
            + Openings::BYTES
    }

    /// Where looking for a packet's session will begin: for asking the processor for it ahead of time.
    #[inline]
    pub fn home(&self, domain: Domain, tuple: &Tuple) -> Option<&impl Sized> {
        self.index.home(&self.key(domain, tuple))
    }

    /// Puts the numbers of the slots that sessions will be made in next into `numbers`, as many as there are.
    pub fn upcoming(&self, numbers: &mut [u32]) {
        self.turns.lock().free.upcoming(numbers);
    }

    /// A slot: for asking the processor for it ahead of time.
    pub fn slot(&self, number: u32) -> Option<&Slot> {
        self.slots.get(number as usize)
    }

    /// The session of a packet with `tuple` in `domain` (see [`super::session_domain`]). `None` also if the packet is a SYN
    /// that opens a connection anew whose last one is closing: it is to be decided and created like any first packet.
    /// `tcp_flags` is 0 for what is not TCP. Changes nothing; see [`SessionTable::observe`].
    pub fn lookup(&self, domain: Domain, tuple: &Tuple, tcp_flags: u8, now: Nanos) -> Option<Found> {
        self.find(&self.key(domain, tuple), |session, last_seen| {
            !Self::is_over(session, last_seen, tcp_flags, now)
        })
    }

    /// The session that an ICMP error is about, by the tuple of the packet that it quotes (RFC 5508 section 4). The
    /// direction is the error's own: against that of the quoted packet. Errors do not keep a session alive.
    pub fn lookup_related(&self, domain: Domain, quoted: &Tuple, now: Nanos) -> Option<Found> {
        self.lookup(domain, &quoted.reversed(), 0, now)
    }

    /// Where sessions were opened lately.
    #[inline(always)]
    pub fn openings(&self) -> &Openings {
        &self.openings
    }

    /// Makes a session for a first packet. If another worker was first, that session is returned.
    ///
    /// # Errors
    /// If the table is full, or another session has the same reply tuple.
    pub fn create(&self, new: NewSession<'_>, now: Nanos) -> Result<Created, Refused> {
        self.create_and(new, now, |_| {})
    }

    /// As [`create`](Self::create). If there is a session then, `settle` is shown the new one's translations, under locks: it
    /// takes none.
    ///
    /// # Errors
    /// As [`create`](Self::create).
    pub fn create_and(
        &self,
        mut new: NewSession<'_>,
        now: Nanos,
        settle: impl Fn(&Translations),
    ) -> Result<Created, Refused> {
        let tcp_flags = new.tcp_flags;
        let keys = [self.key(new.domain, new.forward), self.key(new.domain, new.reply)];
        let mut tried = false;
        loop {
            let result = self.insert(&mut new, &keys, now, &settle);
            // Seldom: somebody is in the way, perhaps nobody any more; or there is no room, perhaps only until somebody looks.
            let again = match result {
                Ok(Created { new: true, id, .. }) => {
                    let answers = match new.direction {
                        Direction::Forward => new.reply,
                        Direction::Reverse => new.forward,
                    };
                    self.openings.opened(End::of(answers), id);
                    return result;
                }
                _ if tried => false,
                Ok(_) | Err(Refused::ReplyTaken) => {
                    let [forward, reply] = keys.each_ref().map(|key| self.displace(key, tcp_flags, now));
                    forward || reply
                }
                Err(Refused::Full) => self.tick(now, FULL_BUDGET) > 0,
            };
            if again {
                tried = true;
                continue;
            }
            match result {
                Ok(_) => settle(&new.translations),
                Err(_) => {
                    self.refused.fetch_add(1, Ordering::Relaxed);
                }
            }
            return result;
        }
    }

    /// Follows a packet of the session: refreshes it and moves its TCP state. `None` if there is no session any more.
    pub fn observe(
        &self,
        id: SessionId,
        direction: Direction,
        tcp_flags: u8,
        now: Nanos,
    ) -> Option<SessionState> {
        let slot = self.slots.get(id.index())?;
        let mut content = slot.content();
        let Content::Live(session) = &mut *content else { return None };
        let state = session.tracker.observe(direction, tcp_flags);
        slot.set_state(Some(state));
        slot.seen(now);
        Some(state)
    }

    /// Notes that cached programs of the session were in use at `now`. Lock-free; for sweeps of flow tables. False if the
    /// session is gone or its packets must walk again (see [`SessionTable::is_established`]): the sweep drops the program.
    pub fn touch(&self, id: SessionId, now: Nanos) -> bool {
        let Some(slot) = self.slots.get(id.index()) else { return false };
        let Some(state) = slot.state() else { return false };
        slot.seen(now);
        state.is_established() && self.touch_tied(id, slot, now)
    }

    /// Whether programs of the session may be cached: TCP from ESTABLISHED on until it closes, everything else at once.
    pub fn is_established(&self, id: SessionId) -> bool {
        self.slots.get(id.index()).and_then(Slot::state).is_some_and(SessionState::is_established)
    }

    /// Looks at up to `budget` sessions whose timers are due, and removes those that are out of time. Returns how many
    /// were looked at; fewer than `budget` means that nothing is due any more.
    pub fn tick(&self, now: Nanos, budget: usize) -> usize {
        for looked_at in 0..budget {
            // The lock is for this statement only: expiry takes others.
            let due = self.turns.lock().wheel.next_due(now);
            let Some(slot) = due else { return looked_at };
            self.expire(slot, now);
        }
        budget
    }

    /// Removes the session, as an operator asks. False if it is gone already.
    pub fn remove(&self, id: SessionId, now: Nanos) -> bool {
        self.retire(id, Content::Gone(now), |_, _| true)
    }

    /// Counters and gauges.
    pub fn counters(&self) -> SessionCounters {
        let (in_use, created) = {
            let turns = self.turns.lock();
            (turns.free.in_use() as u64, turns.free.taken())
        };
        SessionCounters {
            in_use,
            capacity: self.capacity as u64,
            created,
            refused: self.refused.load(Ordering::Relaxed),
            expired: self.expired.load(Ordering::Relaxed),
        }
    }

    /// Has `keep` judge the translations of up to `budget` slots' sessions, from slot `from` on, and removes those that it
    /// would not keep. Returns the slot to go on from; `None` at the end.
    pub fn audit(
        &self,
        from: usize,
        budget: usize,
        now: Nanos,
        mut keep: impl FnMut(Domain, Option<ChainId>, &Translations) -> bool,
    ) -> Option<usize> {
        for (index, slot) in self.slots.iter().enumerate().skip(from).take(budget) {
            if slot.state().is_none() {
                continue;
            }
            let held = match &*slot.content() {
                Content::Live(session) if !session.translations.is_empty() => {
                    (session.domain, session.chain, session.translations.clone())
                }
                _ => continue,
            };
            let (domain, chain, translations) = held;
            if let (false, Ok(id)) = (keep(domain, chain, &translations), u32::try_from(index)) {
                self.remove(SessionId(id), now);
            }
        }
        Some(from.saturating_add(budget)).filter(|next| *next < self.slots.len())
    }

    /// Up to `limit` sessions for show, in the order of their slots. Locks one at a time.
    pub fn entries(&self, now: Nanos, limit: usize) -> Vec<SessionEntry> {
        let slots = self.slots.iter().enumerate().filter(|(_, slot)| slot.state().is_some());
        slots.filter_map(|(index, slot)| Self::entry(index, slot, now)).take(limit).collect()
    }

    fn entry(index: usize, slot: &Slot, now: Nanos) -> Option<SessionEntry> {
        let content = slot.content();
        let Content::Live(session) = &*content else { return None };
        Some(SessionEntry {
            id: SessionId(u32::try_from(index).ok()?),
            domain: session.domain,
            forward: session.forward,
            reply: session.reply,
            chain: session.chain,
            state: session.tracker.state(),
            age: now.saturating_sub(session.created),
            expires: slot.last_seen().saturating_add(session.timeout()).saturating_sub(now),
        })
    }

    /// Whether a session has run out of time, or gives way to a connection that these flags open anew.
    fn is_over(session: &Session, last_seen: Nanos, tcp_flags: u8, now: Nanos) -> bool {
        let reopened = session.forward.protocol == protocol::TCP
            && session.tracker.state().is_closing()
            && opens(tcp_flags);
        reopened || last_seen.saturating_add(session.timeout()) <= now
    }

    fn find(&self, key: &Key<'_>, wanted: impl Fn(&Session, Nanos) -> bool) -> Option<Found> {
        let found = self.index.find(key, |id, direction| {
            let slot = self.slots.get(id.index())?;
            let content = slot.content();
            let Content::Live(session) = &*content else { return None };
            if !session.has(key, direction) {
                return None;
            }
            Some(wanted(session, slot.last_seen()).then(|| Found {
                id,
                direction,
                chain: session.chain,
                cuts: session.cuts,
                state: session.tracker.state(),
                translations: session.translations.clone(),
            }))
        });
        found.flatten()
    }

    /// Where a key, whose shard is locked, can be entered; `None` if there is no room. Or the session that has it, whatever its
    /// state.
    fn vacancy(&self, key: &Key<'_>) -> Result<Option<Vacancy>, (SessionId, Direction)> {
        self.index.vacancy(key, |id, direction| {
            let content = self.slots.get(id.index())?.content();
            matches!(&*content, Content::Live(session) if session.has(key, direction))
                .then_some((id, direction))
        })
    }

    fn key<'a>(&self, domain: Domain, tuple: &'a Tuple) -> Key<'a> {
        Key::new(&self.seed, domain, tuple)
    }

    /// Puts a session into a slot, which then has its translations.
    #[inline]
    fn insert(
        &self,
        new: &mut NewSession<'_>,
        keys: &[Key<'_>; 2],
        now: Nanos,
        settle: &impl Fn(&Translations),
    ) -> Result<Created, Refused> {
        let [forward, reply] = keys;
        let (direction, protocol) = (new.direction, new.forward.protocol);
        let tracker = Tracker::new(protocol, new.tcp_flags, direction);
        let (state, timeouts) = (tracker.state(), new.timeouts.unwrap_or(TIMEOUTS));
        let deadline = now.saturating_add(state.timeout(protocol, &timeouts));
        let shards = self.index.lock([forward, reply]);
        let (own, other) = match direction {
            Direction::Forward => (forward, reply),
            Direction::Reverse => (reply, forward),
        };
        let for_own = match self.vacancy(own) {
            Ok(vacancy) => vacancy.ok_or(Refused::Full)?,
            Err((id, direction)) => return Ok(Created { id, direction, new: false }),
        };
        // If both tuples are the same, the packet is in the forward direction.
        let alone = forward == reply;
        let for_other = match self.vacancy(other) {
            Ok(vacancy) => vacancy.ok_or(Refused::Full)?,
            Err(_) => return Err(Refused::ReplyTaken),
        };
        let (slot, id) = self.take_slot(deadline, now)?;
        let (first, turned) =
            if alone { (Direction::Forward, direction) } else { (direction, direction.turned()) };
        // Nobody else enters anything in a locked shard, but both may have chosen the same place.
        let entered = self.index.enter(own, for_own, id, first)
            && (alone
                || self.index.enter(other, for_other, id, turned)
                || matches!(self.vacancy(other), Ok(Some(next)) if self.index.enter(other, next, id, turned)));
        let mut content = slot.content();
        if !entered {
            self.index.remove(own, id, first);
            // Its timer brings the slot back.
            *content = Content::Gone(now);
            self.turns.lock().free.give_up();
            return Err(Refused::Full);
        }
        slot.begin();
        slot.set_last_seen(now);
        slot.set_state(Some(state));
        settle(&new.translations);
        *content = Content::Live(Session {
            domain: new.domain,
            forward: *new.forward,
            reply: *new.reply,
            chain: new.chain,
            cuts: new.cuts,
            tracker,
            created: now,
            timeouts,
            translations: std::mem::take(&mut new.translations),
        });
        drop(content);
        drop(shards);
        Ok(Created { id, direction, new: true })
    }

    /// Takes a slot for a session that will be looked at when `deadline` is past.
    fn take_slot(&self, deadline: Nanos, now: Nanos) -> Result<(&Slot, SessionId), Refused> {
        let mut turns = self.turns.lock();
        let number = turns.free.take(now).ok_or(Refused::Full)?;
        turns.wheel.arm(number, deadline, now);
        let slot = self.slots.get(number as usize).ok_or(Refused::Full)?;
        Ok((slot, SessionId(number)))
    }

    /// Removes the session of `key` if it is over, so that a new one can take its place before its timer runs. Whether it did.
    fn displace(&self, key: &Key<'_>, tcp_flags: u8, now: Nanos) -> bool {
        let over = |session: &Session, last_seen| Self::is_over(session, last_seen, tcp_flags, now);
        let Some(found) = self.find(key, over) else { return false };
        let gone = self.retire(found.id, Content::Gone(now), over);
        if gone {
            self.expired.fetch_add(1, Ordering::Relaxed);
        }
        gone
    }

    /// A slot's timer is due: back to the free slots, or on the wheel again.
    fn expire(&self, number: u32, now: Nanos) {
        let Some(slot) = self.slots.get(number as usize) else { return };
        let over = |session: &Session, last_seen| Self::is_over(session, last_seen, 0, now);
        if self.retire(SessionId(number), Content::Free, over) {
            self.expired.fetch_add(1, Ordering::Relaxed);
            self.turns.lock().free.put_back(number, now);
            return;
        }
        let mut content = slot.content();
        match &*content {
            Content::Live(session) => {
                let deadline = slot.last_seen().saturating_add(session.timeout());
                self.turns.lock().wheel.arm(number, deadline, now);
            }
            Content::Gone(since) => {
                let since = *since;
                *content = Content::Free;
                self.turns.lock().free.put_back(number, since);
            }
            // Somebody has taken it, and is about to put a session there.
            Content::Free => self.turns.lock().wheel.arm(number, now, now),
        }
    }

    /// Removes the session in a slot if it is `wanted` gone, and leaves `content` there.
    fn retire(&self, id: SessionId, content: Content, wanted: impl Fn(&Session, Nanos) -> bool) -> bool {
        let Some(slot) = self.slots.get(id.index()) else { return false };
        let (domain, tuples) = match &*slot.content() {
            Content::Live(session) if wanted(session, slot.last_seen()) => {
                (session.domain, [session.forward, session.reply])
            }
            _ => return false,
        };
        let keys = tuples.each_ref().map(|tuple| self.key(domain, tuple));
        // What it holds is let go when no lock is held any more: a binding's end takes locks of its own.
        let shards = self.index.lock([&keys[0], &keys[1]]);
        let mut place = slot.content();
        // Looked at again, now that nobody else can change it.
        let same = matches!(&*place, Content::Live(session) if wanted(session, slot.last_seen())
            && session.domain == domain && [session.forward, session.reply] == tuples);
        if !same {
            return false;
        }
        self.index.remove(&keys[0], id, Direction::Forward);
        self.index.remove(&keys[1], id, Direction::Reverse);
        slot.set_state(None);
        self.turns.lock().free.session_gone();
        let gone = std::mem::replace(&mut *place, content);
        drop(place);
        drop(shards);
        drop(gone);
        true
    }
}
