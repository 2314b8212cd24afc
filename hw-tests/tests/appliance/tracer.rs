//! Another process's thread, stopped by ptrace(2): alone, while the others of its process go on.

use nix::sys::ptrace;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

/// A thread that is stopped for as long as this lives. Use it from the thread that made it.
pub(crate) struct Stopped(Pid);

impl Stopped {
    pub(crate) fn stop(tid: i32) -> Self {
        let pid = Pid::from_raw(tid);
        ptrace::seize(pid, ptrace::Options::empty()).expect("seize a thread");
        let stopped = Self(pid);
        ptrace::interrupt(pid).expect("interrupt a thread");
        stopped.wait();
        stopped
    }

    fn wait(&self) -> WaitStatus {
        waitpid(self.0, Some(WaitPidFlag::__WALL)).expect("wait for a thread")
    }

    /// Has the thread make a system call, and returns what the kernel says to it: a result, or a negated errno. `None`: the
    /// thread was stopped at a place where it makes none.
    #[cfg(target_arch = "x86_64")]
    pub(crate) fn call(&self, number: u64, arguments: [u64; 3]) -> Option<i64> {
        /// The instruction `syscall`.
        const SYSCALL: i64 = 0x050f;
        let before = ptrace::getregs(self.0).expect("read registers");
        let place = before.rip - 2;
        let word = ptrace::read(self.0, place as ptrace::AddressType).expect("read code");
        if word & 0xffff != SYSCALL {
            return None;
        }
        let mut registers = before;
        registers.rip = place;
        registers.rax = number;
        // Not a call that was interrupted: it is not to be restarted.
        registers.orig_rax = u64::MAX;
        [registers.rdi, registers.rsi, registers.rdx] = arguments;
        ptrace::setregs(self.0, registers).expect("write registers");
        ptrace::step(self.0, None).expect("step");
        self.wait();
        let result = ptrace::getregs(self.0).expect("read registers").rax;
        ptrace::setregs(self.0, before).expect("restore registers");
        Some(result as i64)
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        let _ = ptrace::detach(self.0, None);
    }
}
