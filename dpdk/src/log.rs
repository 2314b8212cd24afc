//! EAL's log, handed on line by line.

use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use crate::error::reason;
use crate::sys;

/// How serious a line is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Something does not work.
    Error,
    /// Something may not work as wanted.
    Warning,
    /// What an operator may want to know.
    Info,
    /// What a developer may want to know.
    Debug,
}

impl Level {
    fn of(level: u32) -> Self {
        // RTE_LOG_ERR is 4, RTE_LOG_WARNING 5, RTE_LOG_INFO 7.
        match level {
            0..=4 => Self::Error,
            5 => Self::Warning,
            6..=7 => Self::Info,
            _ => Self::Debug,
        }
    }
}

/// Takes lines of EAL's log, from any thread.
type Hook = Box<dyn Fn(Level, &str) + Send + Sync>;

static HOOK: OnceLock<Hook> = OnceLock::new();

/// Lines that explain a failure, while somebody waits for one. Most lines kept: the rest would bury the cause.
const KEPT: usize = 8;
static HEARD: Mutex<Option<Vec<String>>> = Mutex::new(None);
/// A line that has not ended yet.
static PARTIAL: Mutex<String> = Mutex::new(String::new());

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Has every line of EAL's log given to `hook`, for the life of the process. False, and nothing done, if there is a hook already.
/// Without one, nobody hears them.
pub fn set_log(hook: impl Fn(Level, &str) + Send + Sync + 'static) -> bool {
    HOOK.set(Box::new(hook)).is_ok()
}

/// Points EAL's log at us. Before EAL is initialised.
pub(crate) fn open() -> Result<(), String> {
    // SAFETY: `take` may be called from any thread and at any time.
    match unsafe { sys::weir_log_to(Some(take)) } {
        0 => Ok(()),
        code => Err(format!("its log cannot be redirected: {}", reason(code))),
    }
}

/// Keeps what is logged as an error or warning while `work` runs: it explains why the work failed. One at a time.
pub(crate) fn listening<T>(work: impl FnOnce() -> T) -> (T, Vec<String>) {
    *lock(&HEARD) = Some(Vec::new());
    let result = work();
    (result, lock(&HEARD).take().unwrap_or_default())
}

unsafe extern "C" fn take(level: u32, text: *const std::ffi::c_char, length: usize) {
    // SAFETY: the C library hands over the bytes that were written.
    let bytes = unsafe { std::slice::from_raw_parts(text.cast::<u8>(), length) };
    let text = String::from_utf8_lossy(bytes);
    let level = Level::of(level);
    let mut whole = Vec::new();
    {
        let mut partial = lock(&PARTIAL);
        for part in text.split_inclusive('\n') {
            partial.push_str(part);
            if part.ends_with('\n') {
                whole.push(std::mem::take(&mut *partial));
            }
        }
    }
    for line in whole {
        let line = line.trim();
        if line.is_empty() {
            continue;
        }
        if level <= Level::Warning {
            if let Some(heard) = lock(&HEARD).as_mut().filter(|heard| heard.len() < KEPT) {
                heard.push(line.to_owned());
            }
        }
        // A panic must not travel through C.
        if let Some(hook) = HOOK.get() {
            let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| hook(level, line)));
        }
    }
}
