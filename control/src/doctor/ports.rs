//! The configured ports: what their devices offer, what disturbs XDP there, and what a faster mode would need.

use rustix::net::netdevice::name_to_index;
use rustix::net::{AddressFamily, SocketType, socket};
use weir_config::{Config, DeviceName, Port};
use weir_dataplane::io::afxdp::largest_mtu;

use super::functions;
use super::links::{Channels, Links};
use super::{Findings, Level};
use crate::devices;
use crate::system::{System, words};

/// Offloads that join frames, or take their VLAN tags off, before weir sees them: the kernel's name, ethtool's, what it does.
const DISTURBING: &[(&str, &str, &str)] = &[
    (
        "rx-gro-hw",
        "rx-gro-hw",
        "joins received frames; drivers refuse XDP with it, or weir gets frames that do not fit",
    ),
    (
        "rx-lro",
        "lro",
        "joins received frames; drivers refuse XDP with it, or weir gets frames that do not fit",
    ),
    ("rx-vlan-hw-parse", "rxvlan", "takes VLAN tags off frames: tagged traffic arrives untagged"),
];

pub(super) fn examine(system: &System, config: &Config, workers: &[usize], findings: &mut Findings) {
    let links = Links::open();
    for (name, port) in &config.ports {
        let about = format!("port {name}");
        let Some(device) = port.device.as_deref() else {
            findings.add(&about, Level::Problem, "it has no device: only `weir replay` can drive it");
            continue;
        };
        let facts = devices::facts(system, device, "");
        if matches!(DeviceName::parse(device), Some(DeviceName::Pci(_) | DeviceName::Virtual(_))) {
            functions::examine(system, &about, device, &facts, findings);
            continue;
        }
        let index = socket(AddressFamily::INET, SocketType::DGRAM, None)
            .and_then(|socket| name_to_index(&socket, device));
        let Ok(index) = index else {
            let text = format!("there is no network device `{device}` in this network namespace");
            findings.add_with(&about, Level::Problem, text, vec!["ip link".into()]);
            continue;
        };
        let look = Look { system, about: &about, device, port, workers };
        look.link(findings);
        look.mtu(config.memory.frame_size, findings);
        look.numa(findings);
        look.interrupts(findings);
        functions::place(&about, &facts, findings);
        match &links {
            Ok(links) => look.driver(links, index, config, findings),
            Err(error) => findings.add(&about, Level::Note, format!("the driver cannot be asked: {error}")),
        }
    }
}

/// One port that is looked at.
struct Look<'a> {
    system: &'a System,
    about: &'a str,
    device: &'a str,
    port: &'a Port,
    workers: &'a [usize],
}

impl Look<'_> {
    fn sysfs(&self, file: &str) -> String {
        format!("/sys/class/net/{}/{file}", self.device)
    }

    fn link(&self, findings: &mut Findings) {
        let Self { system, device, about, .. } = self;
        if !system.has(&self.sysfs("")) {
            let text = format!(
                "{device}: its carrier, MTU and driver are not seen: /sys shows another network namespace"
            );
            return findings.add(about, Level::Note, text);
        }
        let driver = system.link(&self.sysfs("device/driver"));
        let driver =
            driver.map_or("no bus driver (a virtual device)".to_owned(), |name| format!("driver {name}"));
        match system.value::<u32>(&self.sysfs("carrier")) {
            Some(1) => findings.add(about, Level::Good, format!("{device}: {driver}, carrier")),
            Some(_) => findings.add(
                about,
                Level::Warning,
                format!("{device}: {driver}, no carrier: weir starts, and forwards when there is one"),
            ),
            // The file cannot be read while the device is down.
            None => findings.add_with(
                about,
                Level::Note,
                format!(
                    "{device}: {driver}, down; weir brings up a dedicated port's device, not a shared one's"
                ),
                vec![format!("ip link set {device} up")],
            ),
        }
    }

    fn mtu(&self, frame_size: u32, findings: &mut Findings) {
        let Some(mtu) = self.system.value::<u32>(&self.sysfs("mtu")) else { return };
        let limit = |size| largest_mtu(u16::try_from(size).unwrap_or(u16::MAX));
        if mtu <= limit(frame_size) {
            let text = format!("MTU {mtu}; a frame of {frame_size} bytes holds up to {}", limit(frame_size));
            return findings.add(self.about, Level::Good, text);
        }
        let mut fix = vec![format!("ip link set {} mtu {}", self.device, limit(frame_size))];
        if mtu <= limit(4096) {
            fix.insert(0, "set memory.frame-size = 4096".into());
        }
        let text =
            format!("MTU {mtu}, but a frame of {frame_size} bytes holds {} at most", limit(frame_size));
        findings.add_with(self.about, Level::Problem, text, fix);
    }

    fn numa(&self, findings: &mut Findings) {
        let node = self.system.value::<i64>(&self.sysfs("device/numa_node")).filter(|node| *node >= 0);
        let Some(node) = node else { return };
        let cores =
            self.system.list(&format!("/sys/devices/system/node/node{node}/cpulist")).unwrap_or_default();
        let far: Vec<usize> = self.workers.iter().copied().filter(|core| !cores.contains(core)).collect();
        if far.is_empty() {
            findings.add(self.about, Level::Good, format!("on NUMA node {node}, as the workers are"));
        } else {
            findings.add(
                self.about,
                Level::Warning,
                format!("on NUMA node {node}, but workers run on {} of another: name cores of {} in workers.cores", words(&far), words(&cores)),
            );
        }
    }

    /// The interrupts of the device, against the workers' cores.
    fn interrupts(&self, findings: &mut Findings) {
        let interrupts = self.system.names(&self.sysfs("device/msi_irqs"));
        let on_workers: Vec<String> = interrupts
            .into_iter()
            .filter(|irq| {
                let cores = self.system.list(&format!("/proc/irq/{irq}/effective_affinity_list"));
                cores.unwrap_or_default().iter().any(|core| self.workers.contains(core))
            })
            .collect();
        if let Some(first) = on_workers.first() {
            findings.add_with(
                self.about,
                Level::Note,
                format!("interrupts {} come to workers' cores: good in zero-copy mode with one worker a queue, else they take time from workers", on_workers.join(", ")),
                vec![format!("echo <core> > /proc/irq/{first}/smp_affinity_list")],
            );
        }
        let deferred = self.system.value::<u64>(&self.sysfs("gro_flush_timeout")).unwrap_or(0);
        let times = self.system.value::<u64>(&self.sysfs("napi_defer_hard_irqs")).unwrap_or(0);
        if deferred > 0 && times > 0 {
            findings.add_with(
                self.about,
                Level::Note,
                format!("interrupts are deferred by up to {} µs, {times} times: good for throughput, added to the latency of a quiet port", deferred / 1000),
                vec![
                    format!("echo 0 > /sys/class/net/{}/napi_defer_hard_irqs", self.device),
                    format!("echo 0 > /sys/class/net/{}/gro_flush_timeout", self.device),
                ],
            );
        }
    }

    fn driver(&self, links: &Links, index: u32, config: &Config, findings: &mut Findings) {
        let Self { about, device, .. } = self;
        match links.xdp_features(index) {
            Ok(features) if features.zero_copy => {
                findings.add(about, Level::Good, "the driver offers zero-copy and native XDP");
            }
            Ok(features) if features.native => {
                findings.add(about, Level::Note, "the driver offers native XDP, and no zero-copy: the kernel copies every frame");
            }
            Ok(_) => findings.add(
                about,
                self.without_native(),
                "the driver offers no XDP: generic mode, the slowest; on an SR-IOV VF the fast way is VFIO and DPDK",
            ),
            Err(error) => findings.add(about, Level::Note, format!("the driver does not tell its XDP modes: {error}")),
        }
        if let Ok(channels) = links.channels(device) {
            self.queues(channels, config, findings);
        }
        let on = links.offloads(device).unwrap_or_default();
        for (_, switch, effect) in DISTURBING.iter().filter(|(name, ..)| on.iter().any(|have| have == name)) {
            let text = format!("the offload `{switch}` is on: it {effect}");
            findings.add_with(about, Level::Warning, text, vec![format!("ethtool -K {device} {switch} off")]);
        }
    }

    fn without_native(&self) -> Level {
        if self.port.xdp == weir_config::XdpMode::Native { Level::Problem } else { Level::Warning }
    }

    fn queues(&self, channels: Channels, config: &Config, findings: &mut Findings) {
        let Self { about, device, workers, .. } = self;
        let Channels { now, most } = channels;
        let count = u32::try_from(workers.len()).unwrap_or(u32::MAX);
        let ports = config.ports.len();
        if now == 0 {
            return;
        }
        if now < count && most > now {
            let wanted = count.min(most);
            findings.add_with(
                about,
                Level::Warning,
                format!("{now} receive queues for {count} workers: some have nothing to receive here"),
                vec![format!("ethtool -L {device} combined {wanted}")],
            );
        } else {
            let text =
                format!("{now} receive queues (at most {most}) for {count} workers, {ports} ports in all");
            findings.add(about, Level::Good, text);
        }
    }
}
