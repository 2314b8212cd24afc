//! The programs that flows share: most flows do what many others do.
//!
//! A program is kept once, however many flows have it, with everything that replaying it needs gathered in front. What is a
//! flow's own, its session and its new addresses, stands in the flow's entry.

use std::collections::HashMap;

use crate::decision::{AdjacencyId, DropReason, MeterId, PortId, SessionId};
use crate::packet::ether_type;

use super::{Ops, Program, Replay};

/// Most different programs at one time.
const MOST: usize = 1 << 18;

bitflags::bitflags! {
    /// What [`Replay::quick`] does for a shared program; empty: nothing, [`Replay::run`] does it.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct Steps: u8 {
        /// Decrement TTL, replace the Ethernet header: of what is routed.
        const FORWARD = 1 << 0;
        /// Spend tokens.
        const METER = 1 << 1;
        /// New addresses and ports.
        const REWRITE = 1 << 2;
        /// Push the headers of a tunnel over IPv4.
        const ENCAPSULATE = 1 << 3;
        /// The inner Ethernet destination is that of the adjacency `inner`; else it is fixed.
        const INNER_ADJACENCY = 1 << 4;
        /// Leave the frame as it is: of what is bridged.
        const CARRY = 1 << 5;
        /// Drop, and tell nobody; with no other.
        const DROP = 1 << 6;
    }
}

/// Number of a shared program.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct ProgramId(pub u32);

impl ProgramId {
    /// No program.
    pub const NONE: Self = Self(u32::MAX);
}

/// One shared program: a line that replay reads, the headers of a tunnel, and the program as it was compiled.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
pub struct Shared {
    /// Own MAC address, its first two bytes: the last two of a frame's first eight.
    pub(super) mac_head: u64,
    /// Its last four bytes.
    pub(super) mac_tail: u32,
    /// Next hop, outside if encapsulated.
    pub(super) adjacency: AdjacencyId,
    /// Next hop inside a tunnel, with [`Steps::INNER_ADJACENCY`].
    pub(super) inner: AdjacencyId,
    /// Generation of the snapshot that the program was compiled from.
    pub generation: u32,
    /// For a route: epoch of the forwarding tables at the walk.
    pub epoch: u32,
    /// Largest L3 length that leaves whole, in bytes, before encapsulation.
    pub(super) mtu: u16,
    /// Where to.
    pub port: PortId,
    /// How.
    pub steps: Steps,
    /// TCP packets with SYN, FIN or RST need more than `steps`.
    pub turns: bool,
    /// With [`Steps::ENCAPSULATE`]: the endpoint.
    pub(super) endpoint: u16,
    /// For a route: milliseconds of the engine's clock at the last packet.
    pub used: u32,
    /// For a route: packets and bytes.
    pub packets: u64,
    /// See `packets`.
    pub bytes: u64,
    references: u32,
    /// Outer Ethernet, IPv4, UDP, VXLAN, inner Ethernet: all but the outer destination, lengths, checksum, source port.
    pub(super) headers: [u8; 64],
    /// The program, without a session.
    pub program: Program,
}

impl Shared {
    fn new(program: Program, generation: u32, replay: &Replay<'_>) -> Self {
        let egress = replay.egress.get(program.egress.index()).copied().unwrap_or_default();
        let [a, b, c, d, e, f] = egress.mac.0;
        let mut shared = Self {
            mac_head: u64::from_le_bytes([0, 0, 0, 0, 0, 0, a, b]),
            mac_tail: u32::from_le_bytes([c, d, e, f]),
            adjacency: program.adjacency,
            inner: program.inner,
            generation,
            epoch: 0,
            mtu: program.mtu,
            port: egress.port,
            steps: Steps::empty(),
            turns: program.ops.intersects(Ops::WATCH_TCP | Ops::CLAMP_MSS),
            endpoint: program.endpoint.0,
            used: 0,
            packets: 0,
            bytes: 0,
            references: 0,
            headers: [0; 64],
            program,
        };
        if program.ops.contains(Ops::DROP) {
            shared.steps.set(Steps::DROP, !program.reason.is_told());
            return shared;
        }
        let essence =
            program.ops.difference(Ops::ASIDE | Ops::REWRITE | Ops::CLAMP_MSS | Ops::INNER_ADJACENCY);
        let bridged = essence == Ops::RETAG || essence == Ops::ENCAPSULATE;
        if egress.vlan != 0 || (essence != Ops::FORWARD && essence != Ops::TUNNEL && !bridged) {
            return shared;
        }
        // What goes to an attached hop translated is not done in one piece: nothing may be spent on it before that is known.
        if bridged && program.ops.contains(Ops::REWRITE) {
            return shared;
        }
        let mut steps = if bridged { Steps::CARRY } else { Steps::FORWARD };
        steps.set(Steps::METER, program.ops.contains(Ops::METER));
        steps.set(Steps::REWRITE, program.ops.contains(Ops::REWRITE));
        if essence == Ops::TUNNEL || essence == Ops::ENCAPSULATE {
            let endpoint = program.endpoint.index();
            let (Some(outer), Some(link)) = (replay.endpoints.get(endpoint), replay.inner.get(endpoint))
            else {
                return shared;
            };
            if !outer.is_v4() {
                return shared;
            }
            steps |= Steps::ENCAPSULATE;
            steps.set(Steps::INNER_ADJACENCY, program.ops.contains(Ops::INNER_ADJACENCY));
            let h = &mut shared.headers;
            h[6..12].copy_from_slice(&egress.mac.0);
            h[12..14].copy_from_slice(&ether_type::IPV4.to_be_bytes());
            h[14..50].copy_from_slice(&outer.header[..36]);
            h[50..56].copy_from_slice(&link.destination.0);
            h[56..62].copy_from_slice(&link.source.0);
            h[62..64].copy_from_slice(&ether_type::IPV4.to_be_bytes());
        }
        shared.steps = steps;
        shared
    }

    /// Why its packets are dropped, if they are, and nobody is told.
    #[inline(always)]
    pub fn drops(&self) -> Option<DropReason> {
        (self.steps == Steps::DROP).then_some(self.program.reason)
    }

    /// Whether a route of this generation and epoch may use it.
    #[inline(always)]
    pub fn is_current(&self, generation: u32, epoch: u32) -> bool {
        (self.generation ^ generation) | (self.epoch ^ epoch) == 0
    }

    /// Counts packets of a route.
    #[inline(always)]
    pub fn count(&mut self, packets: u64, bytes: u64, now_ms: u32) {
        self.packets += packets;
        self.bytes += bytes;
        self.used = now_ms;
    }

    /// Meters that the program spends from.
    pub fn meters(&self) -> impl Iterator<Item = MeterId> + '_ {
        let meters = self.program.meters.iter().take(usize::from(self.program.meter_count));
        meters.map(|meter| MeterId(u32::from(*meter)))
    }
}

/// A worker's shared programs.
#[derive(Debug, Default)]
pub struct ProgramTable {
    programs: Vec<Shared>,
    free: Vec<u32>,
    numbers: HashMap<(u32, Program), u32, ahash::RandomState>,
    /// The one acquired last: flows that begin in a row often share it.
    last: u32,
}

impl ProgramTable {
    /// Shared programs now.
    pub fn len(&self) -> usize {
        self.numbers.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.numbers.is_empty()
    }

    /// A program by number.
    #[inline(always)]
    pub fn get(&self, id: ProgramId) -> Option<&Shared> {
        self.programs.get(id.0 as usize)
    }

    /// A program by number, to count with.
    #[inline(always)]
    pub fn get_mut(&mut self, id: ProgramId) -> Option<&mut Shared> {
        self.programs.get_mut(id.0 as usize)
    }

    /// The number of a program, which is made if no flow has it; one more flow has it now. `None` if there are too many.
    /// Its session is not looked at.
    pub fn acquire(&mut self, program: &Program, generation: u32, replay: &Replay<'_>) -> Option<ProgramId> {
        let program = Program { session: SessionId(u32::MAX), ..*program };
        if let Some(last) = self.programs.get_mut(self.last as usize) {
            if last.references > 0 && last.generation == generation && last.program == program {
                last.references += 1;
                return Some(ProgramId(self.last));
            }
        }
        let number = match self.numbers.get(&(generation, program)) {
            Some(number) => *number,
            None => {
                let shared = Shared::new(program, generation, replay);
                let number = match self.free.pop() {
                    Some(number) => number,
                    None if self.programs.len() < MOST => {
                        self.programs.push(shared);
                        self.programs.len() as u32 - 1
                    }
                    None => return None,
                };
                *self.programs.get_mut(number as usize)? = shared;
                self.numbers.insert((generation, program), number);
                number
            }
        };
        self.programs.get_mut(number as usize)?.references += 1;
        self.last = number;
        Some(ProgramId(number))
    }

    /// One flow less has the program; without any it is gone.
    pub fn release(&mut self, id: ProgramId) {
        let Some(shared) = self.programs.get_mut(id.0 as usize) else { return };
        shared.references = shared.references.saturating_sub(1);
        if shared.references == 0 {
            self.numbers.remove(&(shared.generation, shared.program));
            shared.generation = 0;
            self.free.push(id.0);
        }
    }

    /// Bytes that the table takes.
    pub fn memory(&self) -> usize {
        self.programs.capacity() * size_of::<Shared>()
            + self.numbers.capacity() * (size_of::<(u32, Program)>() + size_of::<u32>())
    }
}

const _: () = assert!(std::mem::offset_of!(Shared, headers) <= 68);
