//! The system calls that weir may make, by kind of thread. Tests compare the workers' list with what workers do under load,
//! and `docs/security.md` with both lists.

/// Which pages mmap(2) and mprotect(2) may ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pages {
    /// Whatever; also of calls that ask for none.
    Any,
    /// None that can be executed.
    NotExecutable,
    /// None that can be both written and executed.
    NotBoth,
}

/// A system call that is allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Call {
    /// Its name in the manual.
    pub name: &'static str,
    /// Its number on this architecture.
    pub number: i64,
    /// Which pages it may ask for.
    pub pages: Pages,
}

macro_rules! calls {
    ($($number:ident),* $(,)?) => { &[$((stringify!($number), libc::$number)),*] };
}

type List = &'static [(&'static str, libc::c_long)];

/// What every thread needs of the C library: memory, waiting, time, dying in order.
const EVERY_THREAD: List = calls![
    SYS_brk,
    SYS_clock_gettime,
    SYS_clock_nanosleep,
    SYS_close,
    SYS_exit,
    SYS_exit_group,
    SYS_fcntl,
    SYS_futex,
    SYS_getpid,
    SYS_getrandom,
    SYS_gettid,
    SYS_madvise,
    SYS_mmap,
    SYS_mprotect,
    SYS_mremap,
    SYS_munmap,
    SYS_nanosleep,
    SYS_ppoll,
    SYS_read,
    SYS_restart_syscall,
    SYS_rseq,
    SYS_rt_sigaction,
    SYS_rt_sigprocmask,
    SYS_rt_sigreturn,
    SYS_sched_yield,
    SYS_set_robust_list,
    SYS_sigaltstack,
    SYS_tgkill,
    SYS_write,
];

/// What a worker needs besides: kicks of AF_XDP sockets (sendto, recvfrom), and their statistics (getsockopt); becoming known to DPDK
/// (sched_getaffinity).
const WORKER: List = calls![SYS_getsockopt, SYS_recvfrom, SYS_sched_getaffinity, SYS_sendto];

/// What control needs besides.
const CONTROL: List = calls![
    // The threads themselves.
    SYS_capget,
    SYS_capset,
    SYS_clone,
    SYS_clone3,
    SYS_getcpu,
    SYS_kill,
    SYS_membarrier,
    SYS_prctl,
    SYS_sched_getparam,
    SYS_sched_getscheduler,
    SYS_sched_setaffinity,
    SYS_sched_setscheduler,
    SYS_seccomp,
    SYS_set_tid_address,
    SYS_rt_sigpending,
    SYS_rt_sigtimedwait,
    SYS_uname,
    SYS_sysinfo,
    SYS_getrusage,
    SYS_getrlimit,
    SYS_prlimit64,
    SYS_times,
    SYS_clock_getres,
    SYS_gettimeofday,
    SYS_getuid,
    SYS_geteuid,
    SYS_getgid,
    SYS_getegid,
    SYS_getppid,
    // Frame memory.
    SYS_fallocate,
    SYS_ftruncate,
    SYS_get_mempolicy,
    SYS_mbind,
    SYS_memfd_create,
    SYS_mincore,
    SYS_mlock,
    SYS_munlock,
    SYS_set_mempolicy,
    // The reactor, timers, watches.
    SYS_epoll_create1,
    SYS_epoll_ctl,
    SYS_epoll_pwait,
    SYS_eventfd2,
    SYS_inotify_add_watch,
    SYS_inotify_init1,
    SYS_inotify_rm_watch,
    SYS_pipe2,
    SYS_pselect6,
    SYS_signalfd4,
    SYS_timerfd_create,
    SYS_timerfd_gettime,
    SYS_timerfd_settime,
    // Sockets: AF_XDP, AF_PACKET, netlink, the API, health, systemd.
    SYS_accept,
    SYS_accept4,
    SYS_bind,
    SYS_connect,
    SYS_getpeername,
    SYS_getsockname,
    SYS_listen,
    SYS_recvmmsg,
    SYS_recvmsg,
    SYS_sendmmsg,
    SYS_sendmsg,
    SYS_setsockopt,
    SYS_shutdown,
    SYS_socket,
    SYS_socketpair,
    // The XDP program; devices.
    SYS_bpf,
    SYS_ioctl,
    // Files: the configuration, /sys, the socket's file.
    SYS_chdir,
    SYS_dup,
    SYS_dup3,
    SYS_faccessat,
    SYS_faccessat2,
    SYS_fchmod,
    SYS_fchmodat,
    SYS_fdatasync,
    SYS_flock,
    SYS_fstat,
    SYS_fstatfs,
    SYS_fsync,
    SYS_getcwd,
    SYS_getdents64,
    SYS_lseek,
    SYS_mkdirat,
    SYS_newfstatat,
    SYS_openat,
    SYS_pread64,
    SYS_pwrite64,
    SYS_readlinkat,
    SYS_readv,
    SYS_renameat,
    SYS_renameat2,
    SYS_statfs,
    SYS_statx,
    SYS_umask,
    SYS_unlinkat,
    SYS_writev,
];

/// Older forms, which only this architecture has.
#[cfg(target_arch = "x86_64")]
const WORKER_OLDER: List = calls![SYS_poll];
#[cfg(target_arch = "x86_64")]
const CONTROL_OLDER: List = calls![
    SYS_access,
    SYS_arch_prctl,
    SYS_chmod,
    SYS_dup2,
    // DPDK's interrupt thread.
    SYS_epoll_create,
    SYS_epoll_wait,
    SYS_lstat,
    SYS_mkdir,
    SYS_open,
    SYS_pipe,
    SYS_readlink,
    SYS_rename,
    SYS_rmdir,
    SYS_select,
    SYS_stat,
    SYS_time,
    SYS_unlink,
];
#[cfg(not(target_arch = "x86_64"))]
const WORKER_OLDER: List = &[];
#[cfg(not(target_arch = "x86_64"))]
const CONTROL_OLDER: List = &[];

/// What a worker may call. No page that it gets can be executed.
pub fn worker() -> Vec<Call> {
    list(&[EVERY_THREAD, WORKER, WORKER_OLDER], Pages::NotExecutable)
}

/// What the threads of control may call; also what is inherited by a worker, which then gives up most of it. Libraries are
/// loaded, so that pages may be executed that cannot be written.
pub fn control() -> Vec<Call> {
    list(&[EVERY_THREAD, WORKER, WORKER_OLDER, CONTROL, CONTROL_OLDER], Pages::NotBoth)
}

fn list(lists: &[List], pages: Pages) -> Vec<Call> {
    let mut calls: Vec<Call> = lists
        .iter()
        .flat_map(|list| list.iter())
        .map(|(constant, number)| Call {
            name: constant.trim_start_matches("SYS_"),
            number: *number,
            pages: if matches!(*number, libc::SYS_mmap | libc::SYS_mprotect) { pages } else { Pages::Any },
        })
        .collect();
    calls.sort_unstable_by_key(|call| call.name);
    calls
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_list_names_a_call_twice_or_lets_a_program_be_started() {
        for calls in [worker(), control()] {
            for pair in calls.windows(2) {
                assert_ne!(pair[0].name, pair[1].name);
            }
            for never in
                ["execve", "execveat", "fork", "vfork", "ptrace", "process_vm_readv", "mount", "setns"]
            {
                assert!(calls.iter().all(|call| call.name != never), "{never}");
            }
        }
    }

    #[test]
    fn the_page_about_security_lists_the_calls_as_they_are() {
        let page = include_str!("../../../docs/security.md");
        for (heading, calls) in [("### Worker threads", worker()), ("### All other threads", control())] {
            let block = page.split_once(heading).unwrap().1.split("```text").nth(1).unwrap();
            let listed: Vec<&str> = block.split("```").next().unwrap().split_whitespace().collect();
            let names: Vec<&str> = calls.iter().map(|call| call.name).collect();
            if cfg!(target_arch = "x86_64") {
                assert_eq!(listed, names, "{heading}: {}", names.join(" "));
            }
        }
    }

    #[test]
    fn a_worker_can_neither_open_a_file_nor_make_a_socket_nor_load_a_program() {
        for never in
            ["open", "openat", "socket", "connect", "bind", "bpf", "ioctl", "clone", "clone3", "prctl"]
        {
            assert!(worker().iter().all(|call| call.name != never), "{never}");
        }
    }
}
