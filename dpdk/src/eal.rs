//! EAL, DPDK's run time: initialised once in the life of a process, when the first device is opened.

use std::ffi::{CStr, CString, c_char};
use std::fs;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use crate::error::{Error, reason};
use crate::{log, sys};

/// Megabytes of EAL's own memory: rings and tables of drivers. Frames are not in it.
const MEMORY: u64 = 128;

/// EAL, initialised.
#[derive(Debug)]
pub struct Eal {
    /// The VF token that it was given.
    token: Option<String>,
    huge: bool,
}

static EAL: OnceLock<Result<Eal, Error>> = OnceLock::new();
/// Held while devices are made, configured and removed: DPDK wants that from one thread at a time.
static CONTROL: Mutex<()> = Mutex::new(());

pub(crate) fn control() -> MutexGuard<'static, ()> {
    CONTROL.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The version of the DPDK that is linked, such as "DPDK 22.11.11".
pub fn version() -> String {
    // SAFETY: a string that is never freed.
    unsafe { CStr::from_ptr(sys::rte_version()) }.to_string_lossy().into_owned()
}

impl Eal {
    /// EAL, initialised if it is not yet. `token`: the VF token of the device that it is wanted for, a UUID.
    ///
    /// It looks for no PCI device by itself, shares nothing with other processes, opens no socket and leaves threads that exist as
    /// they are: their affinity and how signals are handled. Two threads of its own are left, which handle interrupts and nothing else.
    ///
    /// # Errors
    /// [`Error::Init`], then and ever after; [`Error::Token`].
    pub fn get(token: Option<&str>) -> Result<&'static Self, Error> {
        let eal = EAL.get_or_init(|| initialise(token)).as_ref().map_err(Clone::clone)?;
        match token {
            Some(token) if eal.token.as_deref() != Some(token) => Err(Error::Token { version: version() }),
            _ => Ok(eal),
        }
    }

    /// Whether EAL's own memory is on huge pages.
    pub fn huge_pages(&self) -> bool {
        self.huge
    }
}

fn initialise(token: Option<&str>) -> Result<Eal, Error> {
    let failed = |reason: String, log: Vec<String>| Error::Init { reason, log };
    log::open().map_err(|reason| failed(reason, Vec::new()))?;
    let huge = huge_pages();
    let arguments = arguments(token, huge, &affinity());
    let _guard = control();
    let (outcome, log) = log::listening(|| {
        // EAL pins the thread that initialises it: so that is one of its own.
        let thread = std::thread::Builder::new().name("weir-dpdk".to_owned());
        let joined = thread.spawn(move || call(&arguments)).map_err(|error| error.to_string())?;
        joined.join().map_err(|_| "the thread that initialises it panicked".to_owned())?
    });
    outcome.map_err(|reason| failed(reason, log))?;
    Ok(Eal { token: token.map(str::to_owned), huge })
}

/// Initialises EAL in the calling thread, with every signal blocked: its threads inherit that.
fn call(arguments: &[String]) -> Result<(), String> {
    let mut strings = Vec::new();
    for argument in arguments {
        strings.push(CString::new(argument.as_str()).map_err(|error| error.to_string())?);
    }
    // EAL keeps the pointers.
    let mut pointers: Vec<*mut c_char> = strings.into_iter().map(CString::into_raw).collect();
    let count = i32::try_from(pointers.len()).map_err(|error| error.to_string())?;
    pointers.push(std::ptr::null_mut());
    let pointers = Box::leak(pointers.into_boxed_slice());
    // SAFETY: the set is filled before it is read; the arguments end with a null pointer, and are never freed.
    let code = unsafe {
        let mut all = std::mem::zeroed();
        libc::sigfillset(&raw mut all);
        libc::pthread_sigmask(libc::SIG_SETMASK, &raw const all, std::ptr::null_mut());
        sys::rte_eal_init(count, pointers.as_mut_ptr())
    };
    if code < 0 { Err(reason(code)) } else { Ok(()) }
}

fn arguments(token: Option<&str>, huge: bool, affinity: &[usize]) -> Vec<String> {
    let cores: Vec<String> = affinity.iter().map(ToString::to_string).collect();
    let mut arguments = vec![
        "weir".to_owned(),
        // One lcore, on every core that the process may use.
        format!("--lcores=0@({})", cores.join(",")),
        "--no-telemetry".to_owned(),
        // A PCI bus, for devices to be added to, without any of those that are there.
        "--allow=0000:00:00.0".to_owned(),
        "--iova-mode=va".to_owned(),
        format!("-m{MEMORY}"),
    ];
    // Without huge pages it takes the one, with them the other: either way nothing is left in the file system.
    let private: &[&str] = if huge { &["--in-memory"] } else { &["--no-huge", "--no-shconf"] };
    arguments.extend(private.iter().map(|argument| (*argument).to_owned()));
    if let Some(token) = token {
        arguments.push(format!("--vfio-vf-token={token}"));
    }
    arguments
}

/// Whether there are enough free huge pages for EAL.
fn huge_pages() -> bool {
    let Ok(sizes) = fs::read_dir("/sys/kernel/mm/hugepages") else { return false };
    let free: u64 = sizes
        .flatten()
        .filter_map(|size| {
            let name = size.file_name().into_string().ok()?;
            let kilobytes: u64 = name.strip_prefix("hugepages-")?.strip_suffix("kB")?.parse().ok()?;
            let free: u64 =
                fs::read_to_string(size.path().join("free_hugepages")).ok()?.trim().parse().ok()?;
            Some(kilobytes * free)
        })
        .sum();
    free >= MEMORY << 10
}

/// The cores that the process may use: those of its first thread.
fn affinity() -> Vec<usize> {
    // SAFETY: the set is all zero, which is an empty one; the call writes to it at most its size.
    let set = unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        libc::sched_getaffinity(libc::getpid(), size_of::<libc::cpu_set_t>(), &raw mut set);
        set
    };
    // SAFETY: the core is below the size of the set.
    let cores: Vec<usize> =
        (0..libc::CPU_SETSIZE as usize).filter(|core| unsafe { libc::CPU_ISSET(*core, &set) }).collect();
    if cores.is_empty() { vec![0] } else { cores }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn eal_is_told_to_leave_alone_what_is_not_its_own() {
        let text = arguments(None, false, &[2, 5]).join(" ");
        assert_eq!(
            text,
            "weir --lcores=0@(2,5) --no-telemetry --allow=0000:00:00.0 --iova-mode=va -m128 --no-huge --no-shconf"
        );
        let text = arguments(Some("14d63f20-8445-11ea-8900-1f9ce7d5650d"), true, &[0]).join(" ");
        assert!(
            text.ends_with("-m128 --in-memory --vfio-vf-token=14d63f20-8445-11ea-8900-1f9ce7d5650d"),
            "{text}"
        );
    }
}
