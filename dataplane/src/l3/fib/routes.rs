//! The routes of one family in order: what a change of one of them means for the ranges of addresses around it.
//!
//! A prefix owns its range less the ranges of longer prefixes within it: the *gaps*. The tables ([`super::tree`],
//! [`super::direct`]) know nothing of prefixes; they are told which value a range of addresses has.

use std::collections::BTreeMap;

/// An address of either family as a number.
pub(super) trait Address: Copy + Ord + std::fmt::Debug {
    /// Bits of an address.
    const BITS: u8;
    const MAX: Self;
    /// A mask of `len` leading ones, inverted: the host bits.
    fn host_bits(len: u8) -> Self;
    fn and_not(self, other: Self) -> Self;
    fn or(self, other: Self) -> Self;
    /// Leading bits that both have in common.
    fn common(self, other: Self) -> u8;
    fn next(self) -> Option<Self>;
    fn previous(self) -> Self;
}

macro_rules! address {
    ($type:ty, $bits:literal) => {
        impl Address for $type {
            const BITS: u8 = $bits;
            const MAX: Self = <$type>::MAX;
            fn host_bits(len: u8) -> Self {
                Self::MAX.checked_shr(u32::from(len)).unwrap_or(0)
            }
            fn and_not(self, other: Self) -> Self {
                self & !other
            }
            fn or(self, other: Self) -> Self {
                self | other
            }
            fn common(self, other: Self) -> u8 {
                (self ^ other).leading_zeros() as u8
            }
            fn next(self) -> Option<Self> {
                self.checked_add(1)
            }
            fn previous(self) -> Self {
                self.wrapping_sub(1)
            }
        }
    };
}
address!(u32, 32);
address!(u128, 128);

/// A range of addresses with one value, by its last address; it begins behind the range before it.
pub(super) type Segment<A> = (A, u32);

/// Appends a segment; one that continues the last one's value makes that one longer.
pub(super) fn push_segment<A: Copy>(segments: &mut Vec<Segment<A>>, end: A, value: u32) {
    match segments.last_mut() {
        Some(last) if last.1 == value => last.0 = end,
        _ => segments.push((end, value)),
    }
}

/// The routes of one family: prefix to value. The default route stands apart: tables say 0 where no other route is.
#[derive(Clone, Debug)]
pub(super) struct Routes<A> {
    routes: BTreeMap<(A, u8), u32>,
    default: u32,
}

impl<A: Address> Routes<A> {
    /// From prefixes without host bits, in any order; of equal ones the last counts. No value is 0.
    pub(super) fn new(mut prefixes: Vec<((A, u8), u32)>) -> Self {
        let mut default = 0;
        prefixes.retain(|((_, len), value)| {
            if *len == 0 {
                default = *value;
            }
            *len != 0
        });
        // The map is built from sorted runs in one go; the sort is stable, and of equal keys the last stays.
        Self { routes: prefixes.into_iter().collect(), default }
    }

    /// What the default route says; 0 without one.
    pub(super) fn default_value(&self) -> u32 {
        self.default
    }

    pub(super) fn len(&self) -> usize {
        self.routes.len() + usize::from(self.default != 0)
    }

    /// What the routes say, one after the other.
    pub(super) fn values(&self) -> impl Iterator<Item = u32> {
        self.routes.values().copied().chain((self.default != 0).then_some(self.default))
    }

    /// Adds or replaces a route; returns the value it had.
    pub(super) fn insert(&mut self, prefix: (A, u8), value: u32) -> Option<u32> {
        if prefix.1 == 0 {
            let old = std::mem::replace(&mut self.default, value);
            return (old != 0).then_some(old);
        }
        self.routes.insert(prefix, value)
    }

    /// Removes a route; returns the value it had.
    pub(super) fn remove(&mut self, prefix: (A, u8)) -> Option<u32> {
        if prefix.1 == 0 {
            let old = std::mem::take(&mut self.default);
            return (old != 0).then_some(old);
        }
        self.routes.remove(&prefix)
    }

    /// The value of the longest route, the default left out, that holds `prefix` and is shorter; 0 if there is none.
    pub(super) fn around(&self, (network, len): (A, u8)) -> u32 {
        let mut below = self.routes.range(..(network, len)).next_back();
        while let Some((&(candidate, length), value)) = below {
            let common = candidate.common(network);
            if common >= length {
                return *value;
            }
            // Whatever holds both holds what they have in common.
            below = self.routes.range(..=(network.and_not(A::host_bits(common)), common)).next_back();
        }
        0
    }

    /// Calls `each` with first and last address of every range of `prefix` that no longer prefix within it has, in order.
    pub(super) fn gaps(&self, (network, len): (A, u8), mut each: impl FnMut(A, A)) {
        let last = network.or(A::host_bits(len));
        let mut from = network;
        if len < A::BITS {
            for (start, length) in
                self.routes.range((network, len + 1)..=(last, A::BITS)).map(|(key, _)| *key)
            {
                if start < from {
                    // Within the one before.
                    continue;
                }
                if start > from {
                    each(from, start.previous());
                }
                match start.or(A::host_bits(length)).next() {
                    Some(next) => from = next,
                    None => return,
                }
            }
        }
        if from <= last {
            each(from, last);
        }
    }

    /// All addresses in order as ranges of one value; 0 where no route but the default is.
    pub(super) fn segments(&self) -> Vec<Segment<A>> {
        let mut segments = Vec::with_capacity(self.routes.len() * 2 + 1);
        // Prefixes that hold the one at hand: last address and value, the longest last.
        let mut around: Vec<(A, u32)> = Vec::new();
        let mut done: Option<A> = None;
        for (&(network, len), &value) in &self.routes {
            while let Some(&(last, value)) = around.last().filter(|(last, _)| *last < network) {
                close(&mut segments, &mut done, last, value);
                around.pop();
            }
            if network > done.and_then(A::next).unwrap_or(A::host_bits(A::BITS)) {
                let value = around.last().map_or(0, |(_, value)| *value);
                close(&mut segments, &mut done, network.previous(), value);
            }
            around.push((network.or(A::host_bits(len)), value));
        }
        while let Some((last, value)) = around.pop() {
            close(&mut segments, &mut done, last, value);
        }
        close(&mut segments, &mut done, A::MAX, 0);
        segments
    }
}

/// Ends a range at `end`, unless one that ends there or later has been made.
fn close<A: Address>(segments: &mut Vec<Segment<A>>, done: &mut Option<A>, end: A, value: u32) {
    if done.is_none_or(|done| done < end) {
        push_segment(segments, end, value);
        *done = Some(end);
    }
}
