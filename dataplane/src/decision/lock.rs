//! The lock of what workers share on walks.
//!
//! It is held for some dozens of instructions at a time, by workers that poll anyhow: so it spins. What counts is not the waiting but
//! the letting go, which is an ordinary store here: an atomic exchange, as a futex needs to learn of those that sleep, first waits until
//! everything that was changed under the lock has found its cache line.

use std::time::Duration;

use spin::mutex::{SpinMutex, SpinMutexGuard};

/// Looks before a thread that waits gives its processor away: far more than whoever holds a lock needs while it runs.
const LOOKS: u32 = 1000;
/// How often it gives its processor away before it sleeps.
const YIELDS: u32 = 10;
/// How long it sleeps at a time: whoever holds the lock may be of lower priority, and have no other processor to run on.
const SLEEP: Duration = Duration::from_micros(20);

/// A lock around `T`. A thread that panics lets it go.
#[derive(Debug, Default)]
pub struct Lock<T>(SpinMutex<T>);

/// A lock that is held.
pub type Locked<'a, T> = SpinMutexGuard<'a, T>;

impl<T> Lock<T> {
    /// A lock that nobody holds.
    pub const fn new(value: T) -> Self {
        Self(SpinMutex::new(value))
    }

    /// Waits for the lock.
    #[inline]
    pub fn lock(&self) -> Locked<'_, T> {
        self.0.try_lock().unwrap_or_else(|| self.wait())
    }

    /// The lock, unless somebody holds it.
    #[inline]
    pub fn try_lock(&self) -> Option<Locked<'_, T>> {
        self.0.try_lock()
    }

    #[cold]
    #[inline(never)]
    fn wait(&self) -> Locked<'_, T> {
        let mut looked = 0u32;
        loop {
            if let Some(locked) = self.0.try_lock() {
                return locked;
            }
            while self.0.is_locked() {
                looked = looked.saturating_add(1);
                match looked.saturating_sub(LOOKS) {
                    0 => std::hint::spin_loop(),
                    1..=YIELDS => std::thread::yield_now(),
                    _ => std::thread::sleep(SLEEP),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_that_are_more_than_processors_take_turns() {
        let threads = 4 * std::thread::available_parallelism().map_or(1, |count| count.get());
        let count = Lock::new((0u64, 0u64));
        std::thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(|| {
                    for _ in 0..2_000 {
                        let mut both = count.lock();
                        both.0 += 1;
                        if both.0 % 500 == 0 {
                            // Holds it past its time: whoever waits must let it go on.
                            std::thread::yield_now();
                        }
                        both.1 += 1;
                    }
                });
            }
        });
        assert_eq!(*count.lock(), (2_000 * threads as u64, 2_000 * threads as u64));
    }

    #[test]
    fn a_lock_that_is_held_is_had_by_nobody_else_until_it_is_let_go() {
        let lock = Lock::new(1);
        let held = lock.lock();
        assert!(lock.try_lock().is_none());
        drop(held);
        assert_eq!(lock.try_lock().map(|value| *value), Some(1));
    }
}
