//! The lock of what workers share on walks.
//!
//! It is held for some dozens of instructions at a time, by workers that poll anyhow: so it spins. What counts is not the waiting but
//! the letting go, which is an ordinary store here: an atomic exchange, as a futex needs to learn of those that sleep, first waits until
//! everything that was changed under the lock has found its cache line.

use std::cell::Cell;
use std::time::Duration;

use spin::RelaxStrategy;
use spin::mutex::{SpinMutex, SpinMutexGuard};

/// A lock around `T`.
pub type Lock<T> = SpinMutex<T, Patience>;

/// A lock that is held.
pub type Locked<'a, T> = SpinMutexGuard<'a, T, Patience>;

/// Looks before a thread that waits gives its processor away; after twice as many it sleeps.
const LOOKS: u32 = 128;
/// How long it sleeps: whoever holds the lock may be of lower priority, and have no other processor to run on.
const SLEEP: Duration = Duration::from_micros(20);

/// How a thread waits for a lock.
#[derive(Clone, Copy, Debug)]
pub struct Patience;

impl RelaxStrategy for Patience {
    #[inline]
    fn relax() {
        thread_local! {
            static LOOKED: Cell<u32> = const { Cell::new(0) };
        }
        let looked = LOOKED.get().wrapping_add(1);
        LOOKED.set(looked);
        if looked % (2 * LOOKS) == 0 {
            std::thread::sleep(SLEEP);
        } else if looked % LOOKS == 0 {
            std::thread::yield_now();
        } else {
            std::hint::spin_loop();
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
}
