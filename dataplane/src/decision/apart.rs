//! Lines of memory that workers write to and lines that they read for every burst are not to be the same.

use std::ops::Deref;

/// A value with its cache line, and the one that processors bring along with it, to itself.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct Apart<T>(pub T);

impl<T> Deref for Apart<T> {
    type Target = T;

    #[inline(always)]
    fn deref(&self) -> &T {
        &self.0
    }
}

const _: () = assert!(size_of::<Apart<std::sync::atomic::AtomicU32>>() == 128);
