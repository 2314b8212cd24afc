//! What weir may take of the machine, cores and frame memory, and the bound of every table.

use serde::{Deserialize, Serialize};

/// `[workers]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Workers {
    /// Which cores workers are pinned to.
    pub cores: Cores,
    /// What a worker does when there is nothing to do.
    pub idle: Idle,
}

impl Default for Workers {
    fn default() -> Self {
        Self { cores: Cores::Auto, idle: Idle::Adaptive }
    }
}

/// `workers.cores`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Cores {
    /// One worker for each core of the process's affinity mask, at most as many as there are queues.
    Auto,
    /// Exactly these cores; each must be in the affinity mask.
    List(Vec<usize>),
}

/// `workers.idle`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Idle {
    /// Poll without pause.
    Spin,
    /// Poll on through short silences, then block in poll(2).
    Adaptive,
}

/// `[limits]`: the bound of every table, so that no table grows without one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Limits {
    /// Flow-table entries of each worker.
    pub flows: u32,
    /// Sessions, shared by all workers.
    pub sessions: u32,
    /// Neighbour entries.
    pub neighbours: u32,
    /// Packets that each worker holds while a neighbour is resolved.
    pub held_packets: u32,
    /// MAC addresses, over all bridge domains.
    pub macs: u32,
    /// Token buckets, over all policers.
    pub meters: u32,
    /// Address bindings, over all translators.
    pub nat_bindings: u32,
    /// ICMP errors a second that weir originates, over all workers; also the depth of the bucket.
    pub icmp_errors_per_second: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            flows: 131_072,
            sessions: 131_072,
            neighbours: 8_192,
            held_packets: 256,
            macs: 16_384,
            meters: 16_384,
            nat_bindings: 131_072,
            icmp_errors_per_second: 1_000,
        }
    }
}

/// `[memory]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Memory {
    /// Frames in the memory pool.
    pub frames: u32,
    /// Bytes of a frame's chunk: 2048, 4096, 8192 or 16384.
    pub frame_size: u32,
    /// Whether 2 MB pages are used.
    pub huge_pages: HugePages,
}

impl Default for Memory {
    fn default() -> Self {
        Self { frames: 16_384, frame_size: 2048, huge_pages: HugePages::Auto }
    }
}

/// `memory.huge-pages`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum HugePages {
    /// Use them where they can be had, and say so.
    Auto,
    /// Refuse to start without them.
    Require,
    /// Never use them.
    Never,
}
