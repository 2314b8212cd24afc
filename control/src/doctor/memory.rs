//! Frame memory: huge pages, and what may be locked.

use rustix::process::{Resource, getrlimit};
use rustix::thread::CapabilitySet;
use weir_config::{Config, HugePages};

use super::{Findings, Level};
use crate::system::System;

const ABOUT: &str = "memory";
const MEGABYTE: u64 = 1 << 20;
const HUGE: u64 = 2 * MEGABYTE;
const POOL: &str = "/sys/kernel/mm/hugepages/hugepages-2048kB";

pub(super) fn examine(system: &System, config: &Config, findings: &mut Findings) {
    let memory = &config.memory;
    let bytes = u64::from(memory.frames) * u64::from(memory.frame_size);
    if memory.huge_pages != HugePages::Never {
        huge_pages(system, bytes, memory.huge_pages == HugePages::Require, findings);
    }
    if system.is_this() {
        locked(bytes, config.ports.len().max(1) as u64, findings);
    }
    let hugetlbfs =
        system.text("/proc/mounts").unwrap_or_default().lines().any(|line| line.contains(" hugetlbfs "));
    let mounted = if hugetlbfs { "is mounted" } else { "is not mounted" };
    findings.add(ABOUT, Level::Note, format!("hugetlbfs {mounted}; AF_XDP ports do not need it, DPDK would"));
}

fn huge_pages(system: &System, bytes: u64, required: bool, findings: &mut Findings) {
    let needed = bytes.div_ceil(HUGE);
    let count = |name: &str| system.value::<u64>(&format!("{POOL}/{name}"));
    let (Some(all), Some(free)) = (count("nr_hugepages"), count("free_hugepages")) else {
        let level = if required { Level::Problem } else { Level::Warning };
        return findings.add(ABOUT, level, "this kernel has no huge pages of 2 MB");
    };
    if free >= needed {
        let text = format!("{free} huge pages of 2 MB are free; the frames need {needed}");
        return findings.add(ABOUT, Level::Good, text);
    }
    // What is in use may be a running weir's: a restart gets it back.
    let text = format!("{free} of {all} huge pages of 2 MB are free; the frames need {needed}");
    let (level, text) = if required {
        (Level::Problem, format!("{text}, and memory.huge-pages = \"require\" refuses to start without"))
    } else {
        (Level::Warning, format!("{text}: ordinary pages are used, with more TLB misses"))
    };
    let setting = format!("vm.nr_hugepages={}", all + needed - free);
    let keep = format!("echo '{setting}' > /etc/sysctl.d/60-weir.conf");
    findings.add_with(ABOUT, level, text, vec![format!("sysctl -w {setting}"), keep]);
}

fn locked(bytes: u64, ports: u64, findings: &mut Findings) {
    let may =
        rustix::thread::capabilities(None).is_ok_and(|sets| sets.effective.contains(CapabilitySet::IPC_LOCK));
    let limit = getrlimit(Resource::Memlock).current;
    let needed = bytes * ports;
    match limit {
        _ if may => findings.add(ABOUT, Level::Good, "frames can be locked (CAP_IPC_LOCK)"),
        None => findings.add(ABOUT, Level::Good, "frames can be locked (no RLIMIT_MEMLOCK)"),
        Some(limit) if limit >= needed => {
            let (limit, needed) = (limit / MEGABYTE, needed / MEGABYTE);
            findings.add(ABOUT, Level::Good, format!("{limit} MB may be locked; the frames need {needed}"));
        }
        Some(limit) => findings.add_with(
            ABOUT,
            Level::Warning,
            format!(
                "RLIMIT_MEMLOCK is {} KB and CAP_IPC_LOCK is missing; the frames count {} MB, once for each port",
                limit >> 10,
                needed / MEGABYTE
            ),
            vec!["ulimit -l unlimited".into()],
        ),
    }
}
