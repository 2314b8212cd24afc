//! The different targets of a FIB's routes, each with a number: dense, so that callers can index by it.

use ahash::RandomState;
use std::collections::HashMap;

use super::{NO_ROUTE, Target};

/// Targets by number; numbers start behind [`NO_ROUTE`].
#[derive(Debug, Default)]
pub(super) struct Targets {
    /// By number less one: the target, and how many routes lead there.
    slots: Vec<(Target, u32)>,
    numbers: HashMap<Target, u32, RandomState>,
    /// Numbers without routes.
    free: Vec<u32>,
}

impl Targets {
    /// The number of a target; it has no route yet by that.
    pub(super) fn number(&mut self, target: &Target) -> u32 {
        if let Some(number) = self.numbers.get(target) {
            return *number;
        }
        let number = self.free.pop().unwrap_or(self.slots.len() as u32 + 1);
        match self.slot(number) {
            Some(slot) => *slot = (target.clone(), 0),
            None => self.slots.push((target.clone(), 0)),
        }
        self.numbers.insert(target.clone(), number);
        number
    }

    fn slot(&mut self, number: u32) -> Option<&mut (Target, u32)> {
        self.slots.get_mut(number.checked_sub(NO_ROUTE + 1)? as usize)
    }

    #[inline]
    pub(super) fn get(&self, number: u32) -> Option<&Target> {
        self.slots.get(number.checked_sub(NO_ROUTE + 1)? as usize).map(|(target, _)| target)
    }

    /// A route more leads to `number`.
    pub(super) fn add_route(&mut self, number: u32) {
        if let Some((_, routes)) = self.slot(number) {
            *routes += 1;
        }
    }

    /// A route less leads to `number`, which is free when it was the last.
    pub(super) fn remove_route(&mut self, number: u32) {
        let Some((target, routes)) = self.slot(number) else { return };
        *routes = routes.saturating_sub(1);
        if *routes == 0 {
            let target = std::mem::replace(target, Target::Blackhole);
            self.numbers.remove(&target);
            self.free.push(number);
        }
    }

    /// Frees numbers that were given and have no route after all.
    pub(super) fn drop_unused(&mut self) {
        for number in 1..self.end() as u32 {
            if self.slot(number).is_some_and(|(_, routes)| *routes == 0) {
                self.remove_route(number);
            }
        }
    }

    /// One more than the greatest number.
    pub(super) fn end(&self) -> usize {
        self.slots.len() + 1
    }

    /// Bytes, the targets' own next hops not counted.
    pub(super) fn memory(&self) -> usize {
        self.slots.len() * (size_of::<(Target, u32)>() + size_of::<(Target, u32)>())
    }
}
