//! Threads that EAL knows. One of them has a cache of its own in each mempool, and so neither locks nor shares cache lines with others
//! to get and free mbufs. Being known changes nothing else: not its affinity, not its name.

use std::cell::Cell;

use crate::{mempool, sys};

thread_local! {
    static INSIDE: Cell<bool> = const { Cell::new(false) };
    static LEAVER: Leaver = const { Leaver };
}

/// Leaves when the thread ends.
struct Leaver;

impl Drop for Leaver {
    fn drop(&mut self) {
        leave();
    }
}

/// Whether the calling thread is known, or was refused: then it works without a cache.
#[inline]
pub fn inside() -> bool {
    INSIDE.get()
}

/// The number under which EAL knows the calling thread.
pub fn number() -> Option<u32> {
    // SAFETY: reads a variable of the calling thread.
    let number = unsafe { sys::weir_lcore() };
    (number != u32::MAX).then_some(number)
}

/// Makes the calling thread known, until it ends. EAL must be up.
#[cold]
pub fn enter() {
    if INSIDE.get() {
        return;
    }
    INSIDE.set(true);
    LEAVER.with(|_| ());
    // SAFETY: EAL is up, since there is a device. It refuses when it knows as many threads as it can.
    unsafe { sys::rte_thread_register() };
}

/// Gives back what the calling thread's caches hold.
#[cold]
pub fn flush() {
    if INSIDE.get() {
        mempool::flush_all();
    }
}

/// Makes the calling thread unknown.
fn leave() {
    if INSIDE.replace(false) {
        mempool::flush_all();
        // SAFETY: the thread was registered, or was refused, which makes this do nothing.
        unsafe { sys::rte_thread_unregister() };
    }
}
