//! All that one worker has cached: flows under whole keys, flows under compact keys, routes; and the programs they share.
//!
//! Which of the three a packet's program is kept in follows from its scope and what it is ([`Place`]); no packet is looked for in two.

use crate::decision::{End, SessionId, VrfId};

use super::compact::{CompactEntry, CompactKey, CompactRewrite, CompactTable};
use super::programs::{ProgramId, ProgramTable, Shared};
use super::table::FlowTable;
use super::{FlowKey, Ops, Program, Replay, Rewrite};

/// Where the program of a packet is kept.
#[derive(Clone, Copy, Debug)]
pub enum Place {
    /// Nowhere: every packet walks.
    Nowhere,
    /// Under a whole key, with its hash.
    Whole(FlowKey, u64),
    /// Under a compact key, with its hash.
    Compact(CompactKey, u64),
    /// With the route that the packet takes: its number among the targets of the VRF.
    Route(VrfId, u32),
}

impl Place {
    /// Where the packet goes, as far as a session may vouch for it.
    pub fn end(&self) -> End {
        match self {
            Self::Nowhere | Self::Route(..) => End::NONE,
            Self::Whole(key, _) => key.end(),
            Self::Compact(key, _) => key.end(),
        }
    }
}

/// What is cached for a packet.
#[derive(Clone, Copy, Debug)]
pub struct Cached {
    /// What to do.
    pub program: Program,
    /// New addresses and ports.
    pub rewrite: Rewrite,
    /// Generation of the snapshot that the program was compiled from.
    pub generation: u32,
    /// Epoch of the forwarding tables at the walk or the last look-up; of what is dropped, also of the sessions that may vouch for it.
    pub epoch: u32,
}

/// When a program was made, and of what kind of time it is.
#[derive(Clone, Copy, Debug)]
pub struct Stamp {
    /// Generation of the snapshot.
    pub generation: u32,
    /// Epoch of the forwarding tables.
    pub epoch: u32,
    /// Milliseconds of the engine's clock.
    pub now_ms: u32,
}

/// A worker's flows.
#[derive(Debug)]
pub struct Flows {
    /// Under whole keys.
    pub whole: FlowTable,
    /// Under compact keys.
    pub compact: CompactTable,
    /// What flows share.
    pub programs: ProgramTable,
    /// By VRF, then by target: what is done to packets that take the route.
    routes: Vec<Vec<ProgramId>>,
    /// Generation whose targets `routes` is numbered by.
    generation: u32,
}

impl Flows {
    /// Empty tables of at most `capacity` flows each, hashed with `seed`.
    pub fn new(capacity: usize, seed: [u64; 8]) -> Self {
        Self {
            whole: FlowTable::new(capacity, seed),
            compact: CompactTable::new(capacity, [seed[0].rotate_left(17) ^ seed[7], seed[1] ^ seed[6] | 1]),
            programs: ProgramTable::default(),
            routes: Vec::new(),
            generation: 0,
        }
    }

    /// Flows now, those of routes not counted.
    pub fn len(&self) -> usize {
        self.whole.len() + self.compact.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Flows that gave way to others since start.
    pub fn evictions(&self) -> u64 {
        self.whole.evictions() + self.compact.evictions()
    }

    /// Forgets the routes if they are numbered as in another generation than this.
    #[inline(always)]
    pub fn renumber(&mut self, generation: u32) {
        if self.generation != generation {
            self.forget_routes();
            self.generation = generation;
        }
    }

    #[cold]
    fn forget_routes(&mut self) {
        for id in self.routes.iter().flatten().filter(|id| **id != ProgramId::NONE) {
            self.programs.release(*id);
        }
        self.routes.clear();
    }

    /// The program of a route, if it has one.
    #[inline(always)]
    pub fn route(&mut self, vrf: VrfId, target: u32) -> Option<&mut Shared> {
        let id = *self.routes.get(vrf.index())?.get(target as usize)?;
        self.programs.get_mut(id)
    }

    /// The numbers of the programs of a VRF's routes, by target, and all programs.
    #[inline(always)]
    pub fn routes_of(&mut self, vrf: VrfId) -> (&[ProgramId], &mut ProgramTable) {
        let Self { routes, programs, .. } = self;
        (routes.get(vrf.index()).map_or(&[], Vec::as_slice), programs)
    }

    /// Every route with a program: VRF, target, program.
    pub fn routes(&self) -> impl Iterator<Item = (VrfId, u32, &Shared)> {
        self.routes.iter().zip(0u16..).flat_map(move |(targets, vrf)| {
            targets
                .iter()
                .zip(0u32..)
                .filter_map(move |(id, target)| Some((VrfId(vrf), target, self.programs.get(*id)?)))
        })
    }

    /// What is cached at a place.
    pub fn get(&self, place: &Place) -> Option<Cached> {
        match place {
            Place::Nowhere => None,
            Place::Whole(key, hash) => {
                let slot = self.whole.find(key, *hash);
                let entry = self.whole.entry(slot)?;
                Some(Cached {
                    program: entry.program,
                    rewrite: self.whole.rewrite(slot).copied().unwrap_or_default(),
                    generation: entry.generation,
                    epoch: entry.epoch,
                })
            }
            Place::Compact(key, hash) => {
                let entry = self.compact.entry(self.compact.find(*hash, key))?;
                let shared = self.programs.get(entry.program)?;
                let rewrites = shared.program.ops.contains(Ops::REWRITE);
                Some(Cached {
                    program: entry.program(&shared.program),
                    rewrite: if rewrites { entry.rewrite.expand(key) } else { Rewrite::default() },
                    generation: shared.generation,
                    epoch: entry.epoch,
                })
            }
            Place::Route(vrf, target) => {
                let id = *self.routes.get(vrf.index())?.get(*target as usize)?;
                let shared = self.programs.get(id)?;
                let (generation, epoch) = (shared.generation, shared.epoch);
                Some(Cached { program: shared.program, rewrite: Rewrite::default(), generation, epoch })
            }
        }
    }

    /// Counts a packet of `bytes` bytes that what is cached at `place` was done to.
    pub fn count(&mut self, place: &Place, bytes: usize, now_ms: u32) {
        match place {
            Place::Nowhere => {}
            Place::Whole(key, hash) => {
                let slot = self.whole.find(key, *hash);
                if let Some(entry) = self.whole.entry_mut(slot) {
                    entry.count(bytes, now_ms);
                }
            }
            Place::Compact(key, hash) => {
                let line = self.compact.find(*hash, key);
                if let Some(entry) = self.compact.entry_mut(line) {
                    entry.count(bytes, now_ms);
                }
            }
            Place::Route(vrf, target) => {
                if let Some(shared) = self.route(*vrf, *target) {
                    shared.count(1, bytes as u64, now_ms);
                }
            }
        }
    }

    /// Caches what is to be done to packets like this one, of `bytes` bytes, which is counted.
    pub fn put(
        &mut self,
        place: &Place,
        program: &Program,
        rewrite: &Rewrite,
        stamp: Stamp,
        bytes: usize,
        replay: &Replay<'_>,
    ) {
        match place {
            Place::Nowhere => {}
            Place::Whole(key, hash) => {
                let Stamp { generation, epoch, now_ms } = stamp;
                let slot = self.whole.insert(key, *hash, *program, *rewrite, generation, epoch, now_ms);
                if let Some(entry) = self.whole.entry_mut(slot) {
                    entry.count(bytes, now_ms);
                }
            }
            Place::Compact(key, hash) => {
                self.put_compact(*key, *hash, program, rewrite, stamp, bytes, replay)
            }
            Place::Route(vrf, target) => self.put_route(*vrf, *target, program, stamp, bytes, replay),
        }
    }

    #[allow(clippy::too_many_arguments)]
    fn put_compact(
        &mut self,
        key: CompactKey,
        hash: u64,
        program: &Program,
        rewrite: &Rewrite,
        stamp: Stamp,
        bytes: usize,
        replay: &Replay<'_>,
    ) {
        let rewrite = if program.ops.contains(Ops::REWRITE) { *rewrite } else { Rewrite::default() };
        let (rewrite, id) = match CompactRewrite::new(&key, &rewrite) {
            Some(rewrite) => (rewrite, self.programs.acquire(program, stamp.generation, replay)),
            None => (CompactRewrite::default(), None),
        };
        let Some(id) = id else {
            self.remove(&Place::Compact(key, hash));
            return;
        };
        let entry = CompactEntry {
            key,
            program: id,
            session: program.session,
            epoch: stamp.epoch,
            used: stamp.now_ms,
            packets: 1,
            bytes: bytes as u64,
            rewrite,
        };
        if let Some(gone) = self.compact.insert(hash, entry) {
            self.programs.release(gone);
        }
    }

    fn put_route(
        &mut self,
        vrf: VrfId,
        target: u32,
        program: &Program,
        stamp: Stamp,
        bytes: usize,
        replay: &Replay<'_>,
    ) {
        self.renumber(stamp.generation);
        // A session is not a route's.
        if program.ops.intersects(Ops::SESSION | Ops::REWRITE) || program.session != SessionId(u32::MAX) {
            return;
        }
        if self.routes.len() <= vrf.index() {
            self.routes.resize_with(vrf.index() + 1, Vec::new);
        }
        let Some(targets) = self.routes.get_mut(vrf.index()) else { return };
        if targets.len() <= target as usize {
            targets.resize(target as usize + 1, ProgramId::NONE);
        }
        let Some(place) = targets.get_mut(target as usize) else { return };
        let Some(id) = self.programs.acquire(program, stamp.generation, replay) else { return };
        let old = std::mem::replace(place, id);
        if old != ProgramId::NONE {
            self.programs.release(old);
        }
        if let Some(shared) = self.programs.get_mut(id) {
            shared.epoch = stamp.epoch;
            shared.count(1, bytes as u64, stamp.now_ms);
        }
    }

    /// Forgets what is cached at a place.
    pub fn remove(&mut self, place: &Place) {
        match place {
            Place::Nowhere => {}
            Place::Whole(key, hash) => {
                self.whole.remove(key, *hash);
            }
            Place::Compact(key, hash) => {
                if let Some(gone) = self.compact.remove(*hash, key) {
                    self.programs.release(gone);
                }
            }
            Place::Route(vrf, target) => {
                let place =
                    self.routes.get_mut(vrf.index()).and_then(|targets| targets.get_mut(*target as usize));
                let old = place.map_or(ProgramId::NONE, |place| std::mem::replace(place, ProgramId::NONE));
                if old != ProgramId::NONE {
                    self.programs.release(old);
                }
            }
        }
    }

    /// Forgets routes for which `keep` is false.
    pub fn sweep_routes(&mut self, mut keep: impl FnMut(&Shared) -> bool) {
        for place in self.routes.iter_mut().flatten().filter(|place| **place != ProgramId::NONE) {
            if !self.programs.get(*place).is_some_and(&mut keep) {
                self.programs.release(*place);
                *place = ProgramId::NONE;
            }
        }
    }

    /// Sweeps compact flows, and gives back the programs of those that go. As [`CompactTable::sweep`].
    pub fn sweep_compact(&mut self, lines: usize, mut keep: impl FnMut(&CompactEntry, &Shared) -> bool) {
        let Self { compact, programs, .. } = self;
        compact.sweep(lines, |entry| {
            let kept = programs.get(entry.program).is_some_and(|shared| keep(entry, shared));
            if !kept {
                programs.release(entry.program);
            }
            kept
        });
    }
}

#[cfg(test)]
mod tests;
