//! The cores that workers would run on, and what else runs there or slows them down.

use weir_config::{Config, Cores, Idle};

use super::{Findings, Level};
use crate::system::{System, words};

const ABOUT: &str = "cores";
/// A deeper sleep than this many microseconds to wake from is felt by a packet.
const SHALLOW: u32 = 10;

/// Looks at the cores; returns those that workers would be pinned to, as far as it can be told without devices.
pub(super) fn examine(system: &System, config: &Config, findings: &mut Findings) -> Vec<usize> {
    let given = given(system);
    let workers = match &config.workers.cores {
        Cores::List(list) => list.clone(),
        Cores::Auto => given.iter().copied().take(config.ports.len().max(1)).collect(),
    };
    let missing: Vec<usize> = workers.iter().copied().filter(|core| !given.contains(core)).collect();
    if missing.is_empty() {
        let text =
            format!("workers on {} of the cores given to this process ({})", words(&workers), words(&given));
        findings.add(ABOUT, Level::Good, text);
    } else {
        findings.add(
            ABOUT,
            Level::Problem,
            format!(
                "workers.cores names {}, but this process may run on {} only",
                words(&missing),
                words(&given)
            ),
        );
    }
    isolation(system, &workers, findings);
    governor(system, &workers, findings);
    siblings(system, &workers, findings);
    sleep(system, &workers, config.workers.idle, findings);
    if system.runs("irqbalance") {
        findings.add_with(
            ABOUT,
            Level::Warning,
            "irqbalance runs, and may move interrupts onto the workers' cores",
            vec![
                format!("echo IRQBALANCE_BANNED_CPULIST={} >> /etc/default/irqbalance", joined(&workers)),
                "systemctl restart irqbalance".into(),
            ],
        );
    }
    workers
}

/// The affinity mask of this process.
fn given(system: &System) -> Vec<usize> {
    let status = system.text("/proc/self/status").unwrap_or_default();
    let list = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
    crate::system::numbers(list.unwrap_or_default().trim())
}

fn joined(cores: &[usize]) -> String {
    words(cores).replace(", ", ",")
}

fn cpu(core: usize, file: &str) -> String {
    format!("/sys/devices/system/cpu/cpu{core}/{file}")
}

fn isolation(system: &System, workers: &[usize], findings: &mut Findings) {
    let isolated = system.list("/sys/devices/system/cpu/isolated").unwrap_or_default();
    let shared: Vec<usize> = workers.iter().copied().filter(|core| !isolated.contains(core)).collect();
    if shared.is_empty() {
        findings.add(ABOUT, Level::Good, "the workers' cores are isolated from other processes");
    } else {
        let list = joined(&shared);
        findings.add_with(
            ABOUT,
            Level::Note,
            format!("the scheduler may run other processes on {}: a worker that waits for one loses packets at line rate", words(&shared)),
            vec![
                format!("add to the kernel's command line: isolcpus={list} nohz_full={list} rcu_nocbs={list}"),
                format!("or keep others away: systemctl set-property init.scope system.slice user.slice AllowedCPUs=<all but {list}>"),
            ],
        );
    }
}

fn governor(system: &System, workers: &[usize], findings: &mut Findings) {
    let governor = |core: usize| system.text(&cpu(core, "cpufreq/scaling_governor"));
    let slow: Vec<(usize, String)> = workers
        .iter()
        .filter_map(|core| Some((*core, governor(*core)?)))
        .filter(|(_, governor)| governor != "performance")
        .collect();
    if let Some((_, name)) = slow.first() {
        let cores: Vec<usize> = slow.iter().map(|(core, _)| *core).collect();
        findings.add_with(
            ABOUT,
            Level::Warning,
            format!(
                "the frequency governor of {} is `{name}`: the clock follows a load that polling hides",
                words(&cores)
            ),
            vec![format!("cpupower -c {} frequency-set -g performance", joined(&cores))],
        );
    }
}

fn siblings(system: &System, workers: &[usize], findings: &mut Findings) {
    for (at, core) in workers.iter().enumerate() {
        let threads = system.list(&cpu(*core, "topology/thread_siblings_list")).unwrap_or_default();
        let earlier = workers.get(..at).unwrap_or_default();
        if let Some(other) = threads.iter().find(|thread| earlier.contains(thread)) {
            findings.add(
                ABOUT,
                Level::Warning,
                format!("{other} and {core} are threads of one core: two workers there do little more than one; name others in workers.cores"),
            );
        } else if let Some(idle) = threads.iter().find(|thread| *thread != core && !workers.contains(thread))
        {
            findings.add(
                ABOUT,
                Level::Note,
                format!("{core} shares its core with {idle}: keep that one idle"),
            );
        }
    }
}

fn sleep(system: &System, workers: &[usize], idle: Idle, findings: &mut Findings) {
    let latency = |core: usize| {
        let states = system.names(&cpu(core, "cpuidle")).into_iter();
        let enabled = states
            .filter(|state| system.value::<u32>(&cpu(core, &format!("cpuidle/{state}/disable"))) != Some(1));
        enabled.filter_map(|state| system.value::<u32>(&cpu(core, &format!("cpuidle/{state}/latency")))).max()
    };
    let deepest = workers.iter().filter_map(|core| latency(*core)).max().unwrap_or(0);
    // A worker that never sleeps never lets its core sleep either.
    if deepest > SHALLOW && idle != Idle::Spin {
        findings.add_with(
            ABOUT,
            Level::Note,
            format!("an idle worker's core sleeps so deeply that it takes up to {deepest} µs to wake"),
            vec![
                format!("cpupower -c {} idle-set -D {SHALLOW}", joined(workers)),
                "or set workers.idle = \"spin\"".into(),
            ],
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        root
    }

    #[test]
    fn cores_that_sleep_clock_down_or_are_shared_are_told_with_the_command_that_helps() {
        let root = machine(&[
            ("proc/self/status", "Name:\tx\nCpus_allowed_list:\t0-3\n"),
            ("proc/77/comm", "irqbalance\n"),
            ("sys/devices/system/cpu/isolated", "2-3\n"),
            ("sys/devices/system/cpu/cpu1/cpufreq/scaling_governor", "powersave\n"),
            ("sys/devices/system/cpu/cpu1/topology/thread_siblings_list", "1,3\n"),
            ("sys/devices/system/cpu/cpu3/topology/thread_siblings_list", "1,3\n"),
            ("sys/devices/system/cpu/cpu3/cpuidle/state3/latency", "133\n"),
        ]);
        let text = "[workers]\ncores = [1, 3]\n";
        let config = weir_config::load_str("t.toml", text).unwrap().config;
        let mut findings = Findings::default();
        assert_eq!(examine(&System::at(root.path()), &config, &mut findings), [1, 3]);
        let found = |part: &str| {
            let all = findings.0.iter().find(|finding| finding.text.contains(part));
            all.unwrap_or_else(|| panic!("{part} is not in {findings:?}")).clone()
        };
        assert!(found("other processes on 1:").fix[0].contains("isolcpus=1 "));
        assert_eq!(found("`powersave`").fix, ["cpupower -c 1 frequency-set -g performance"]);
        assert_eq!(found("1 and 3 are threads of one core").level, Level::Warning);
        assert!(found("up to 133 µs").fix[0].contains("idle-set -D 10"));
        assert!(found("irqbalance").fix[0].contains("IRQBALANCE_BANNED_CPULIST=1,3"));
    }

    #[test]
    fn a_core_that_was_not_given_is_a_problem() {
        let root = machine(&[("proc/self/status", "Cpus_allowed_list:\t0-1\n")]);
        let config = weir_config::load_str("t.toml", "[workers]\ncores = [1, 7]\n").unwrap().config;
        let mut findings = Findings::default();
        examine(&System::at(root.path()), &config, &mut findings);
        let problem = findings.0.iter().find(|finding| finding.level == Level::Problem).unwrap();
        assert_eq!(problem.text, "workers.cores names 7, but this process may run on 0, 1 only");
    }
}
