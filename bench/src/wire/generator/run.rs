//! BPF_PROG_RUN with live frames (Documentation/bpf/bpf_prog_run.rst): libbpf-rs has it without the batch size.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use libbpf_rs::libbpf_sys::{bpf_prog_test_run_opts, bpf_test_run_opts};

/// linux/bpf.h: frames are not copies, and what the program says is done with them.
const BPF_F_TEST_XDP_LIVE_FRAMES: u32 = 1 << 1;

/// Runs an XDP program `repeat` times on frames of `length` zeros; frames that it sends leave after every `batch` runs.
///
/// # Errors
/// What the kernel says; EINTR if a signal came in between.
pub(super) fn live_frames(program: BorrowedFd<'_>, length: usize, repeat: u32, batch: u32) -> io::Result<()> {
    let data = vec![0u8; length];
    let mut options = bpf_test_run_opts {
        sz: size_of::<bpf_test_run_opts>() as _,
        data_in: data.as_ptr().cast(),
        data_size_in: data.len() as u32,
        repeat: repeat as i32,
        flags: BPF_F_TEST_XDP_LIVE_FRAMES,
        batch_size: batch,
        ..Default::default()
    };
    // SAFETY: a live program descriptor; the options are those of a live value of the size given, their one pointer is to `data`, which
    // the kernel only reads.
    let result = unsafe { bpf_prog_test_run_opts(program.as_raw_fd(), &raw mut options) };
    if result < 0 { Err(io::Error::from_raw_os_error(-result)) } else { Ok(()) }
}
