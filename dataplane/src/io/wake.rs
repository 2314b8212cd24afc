//! Waking a worker that blocks in poll(2): an eventfd, written only while the worker sleeps.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering, fence};
use std::time::Duration;

/// Wakes one worker.
#[derive(Debug)]
pub struct Wake {
    event: OwnedFd,
    sleeping: AtomicBool,
}

impl Wake {
    /// A new eventfd.
    ///
    /// # Errors
    /// What the kernel says when no descriptor can be had.
    pub fn new() -> io::Result<Self> {
        // SAFETY: no pointers; the descriptor returned is owned by nobody else.
        let fd = unsafe { libc::eventfd(0, libc::EFD_NONBLOCK | libc::EFD_CLOEXEC) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: as above.
        Ok(Self { event: unsafe { OwnedFd::from_raw_fd(fd) }, sleeping: AtomicBool::new(false) })
    }

    /// Wakes the worker if it sleeps. Call it after what it shall see was stored.
    #[inline]
    pub fn wake(&self) {
        fence(Ordering::SeqCst);
        if self.sleeping.load(Ordering::Relaxed) {
            let one = 1u64.to_ne_bytes();
            // SAFETY: the buffer is 8 bytes long. A full counter is as good as a written one.
            unsafe { libc::write(self.event.as_raw_fd(), one.as_ptr().cast(), one.len()) };
        }
    }

    /// Sleeps until one of `descriptors` is readable, somebody calls [`wake`](Self::wake), or `timeout` is over.
    /// `anything` is asked after the worker is marked as sleeping: if it says true there is work already.
    pub fn sleep(&self, descriptors: &[RawFd], timeout: Duration, anything: impl FnOnce() -> bool) {
        self.sleeping.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        if !anything() {
            let mut polled = [libc::pollfd { fd: -1, events: libc::POLLIN, revents: 0 }; MAX_POLLED];
            let sources = std::iter::once(self.event.as_raw_fd()).chain(descriptors.iter().copied());
            let mut count = 0;
            for (place, fd) in polled.iter_mut().zip(sources) {
                place.fd = fd;
                count += 1;
            }
            wait(polled.as_mut_ptr(), count, timeout);
        }
        self.sleeping.store(false, Ordering::Relaxed);
        let mut count = [0u8; 8];
        // SAFETY: the buffer is 8 bytes long; the descriptor does not block.
        unsafe { libc::read(self.event.as_raw_fd(), count.as_mut_ptr().cast(), count.len()) };
    }
}

/// Waits for one of the first `count` entries, which are initialised.
fn wait(polled: *mut libc::pollfd, count: libc::nfds_t, timeout: Duration) {
    // SAFETY: the caller's promise; the time lives through the call.
    unsafe {
        if timeout < Duration::from_millis(1) {
            // poll(2) counts in milliseconds.
            let time =
                libc::timespec { tv_sec: 0, tv_nsec: libc::c_long::from(timeout.subsec_nanos() as i32) };
            libc::ppoll(polled, count, &raw const time, std::ptr::null());
        } else {
            let timeout = libc::c_int::try_from(timeout.as_millis()).unwrap_or(libc::c_int::MAX);
            libc::poll(polled, count, timeout);
        }
    }
}

/// Most descriptors that one worker waits on; of more queues than that it blocks on the first and wakes by the clock.
const MAX_POLLED: usize = 128;
