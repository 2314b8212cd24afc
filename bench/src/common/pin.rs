//! Pinning to a core.

/// Pins this thread to `core`, or without one to the last core that it may use, and says which it is.
///
/// # Errors
/// When the core is not one of the process's affinity mask, or the kernel refuses.
pub(crate) fn pin(core: Option<usize>) -> Result<usize, String> {
    let cores = core_affinity::get_core_ids().unwrap_or_default();
    // A core that is named need not be among those of this thread: the thread that made it may be pinned itself.
    let chosen = match core {
        Some(id) => core_affinity::CoreId { id },
        None => *cores.last().ok_or("the cores that this process may use cannot be read")?,
    };
    if core_affinity::set_for_current(chosen) {
        Ok(chosen.id)
    } else {
        let ids: Vec<_> = cores.iter().map(|core| core.id).collect();
        Err(format!("core {} is not one that this process may use: {ids:?}", chosen.id))
    }
}

/// Another core of the machine, if it has one: the lowest.
pub(crate) fn other_than(core: usize) -> Option<usize> {
    let online = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let ids =
        online.lines().filter_map(|line| line.strip_prefix("processor")?.split_once(": ")?.1.parse().ok());
    ids.filter(|id| *id != core).min()
}
