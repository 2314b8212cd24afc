//! One shard of the session table: tuples to sessions. A key is hashed once, however often it is asked for: its hash travels with it, chooses
//! the shard and the place in it, and is compared before anything else.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hash, Hasher};

use ahash::RandomState;

use crate::decision::{Direction, Domain, SessionId, Tuple};

/// What a session is found by, and its hash under the table's seed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Key {
    hash: u64,
    tuple: Tuple,
    domain: Domain,
}

impl Key {
    pub(super) fn new(seed: &RandomState, domain: Domain, tuple: Tuple) -> Self {
        Self { hash: seed.hash_one((domain, tuple)), tuple, domain }
    }

    /// A number below `shards`. The map takes the highest seven bits and the lowest ones for itself.
    pub(super) fn shard(&self, shards: usize) -> usize {
        (self.hash >> 40) as u16 as usize % shards
    }
}

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.hash);
    }
}

/// Hands on the hash that a [`Key`] brings.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Brought(u64);

impl Hasher for Brought {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }

    fn write(&mut self, _: &[u8]) {}
}

/// What a map's place holds.
pub(super) type Entry = (Key, (SessionId, Direction));
/// Sessions by key.
pub(super) type Shard = HashMap<Key, (SessionId, Direction), BuildHasherDefault<Brought>>;
