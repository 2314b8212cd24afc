//! Linux's own router.

use std::process::Command;

use super::{SINK, Setting, Started};
use crate::wire::lab::{self, Namespace};

pub(super) fn start(
    setting: &Setting,
    namespace: &Namespace,
    input: &str,
    output: &str,
) -> Result<Started, String> {
    for (key, value) in [("ipv4/ip_forward", "1"), ("ipv4/conf/all/rp_filter", "0")] {
        namespace.sysctl(key, value)?;
    }
    namespace.ip(&format!("addr add 198.18.0.1/24 dev {input}"))?;
    let far = if setting.vxlan { "192.0.2" } else { "198.19.0" };
    namespace.ip(&format!("addr add {far}.1/24 dev {output}"))?;
    namespace.ip(&format!("neigh replace {far}.2 lladdr {SINK} dev {output} nud permanent"))?;
    if setting.vxlan {
        let tunnel = "type vxlan id 100 dstport 4789 local 192.0.2.1 remote 192.0.2.2 nolearning";
        namespace.ip(&format!("link add vx0 {tunnel} dev {output}"))?;
        namespace.ip("link set vx0 up")?;
        namespace.ip("addr add 10.255.0.1/30 dev vx0")?;
        namespace.ip("neigh replace 10.255.0.2 lladdr 02:00:00:00:00:02 dev vx0 nud permanent")?;
        namespace.ip("route add 198.19.64.0/18 via 10.255.0.2")?;
    } else {
        namespace.ip("route add 198.19.64.0/18 via 198.19.0.2")?;
    }
    let mut notes = vec!["routes, and neighbours that never expire".to_owned()];
    match thread_polling(setting, namespace, input) {
        Ok(()) => notes.push(format!("polls in a kernel thread of its own on core {}", setting.core)),
        Err(error) => {
            notes.push(format!(
                "polls in softirqs on the generator's core, where it gets half of it: {error}"
            ));
        }
    }
    let version = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    Ok(Started { version: format!("Linux {}", version.trim()), notes, child: None })
}

/// Has a device polled by a kernel thread on the core of the device under test: otherwise the generator's own softirqs would do the
/// routing.
fn thread_polling(setting: &Setting, namespace: &Namespace, device: &str) -> Result<(), String> {
    // /sys shows the devices of the namespace that it was mounted from.
    let script = format!("mount -t sysfs none /sys && echo 1 > /sys/class/net/{device}/threaded");
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", &script]);
    namespace.run(command)?;
    let wanted = format!("napi/{device}-");
    let mut moved = false;
    for entry in std::fs::read_dir("/proc").map_err(|error| error.to_string())?.flatten() {
        let name = std::fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
        if name.starts_with(&wanted) {
            let id = entry.file_name();
            let core = setting.core.to_string();
            lab::run(Command::new("taskset").args(["-pc", &core]).arg(&id))?;
            // As favoured as the other devices under test, which are this process's children.
            lab::run(Command::new("renice").args(["-n", &nice(), "-p"]).arg(&id))?;
            moved = true;
        }
    }
    if moved { Ok(()) } else { Err(format!("no kernel thread is called {wanted}*")) }
}

/// This process's nice value: field 19 of /proc/self/stat, counted after the name, which may hold anything.
fn nice() -> String {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields = stat.rsplit(')').next().unwrap_or_default();
    fields.split_whitespace().nth(16).unwrap_or("0").to_owned()
}
