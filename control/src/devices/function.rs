//! A PCI function as sysfs describes it (Documentation/ABI/testing/sysfs-bus-pci of Linux), and what its PF lets a VF do.

use serde::Serialize;

use super::vf::{self, Leave};
use crate::system::System;

/// The driver under which a PCI function has no network device, for programs to drive it themselves.
pub(crate) const VFIO: &str = "vfio-pci";

/// One PCI function.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Function {
    /// Its address, such as `0000:3b:02.1`.
    pub(crate) address: String,
    /// The driver that it is bound to.
    pub(crate) driver: Option<String>,
    /// Its network devices in this network namespace.
    pub(crate) netdevs: Vec<String>,
    /// The number of its IOMMU group: functions of one group go to one process.
    pub(crate) iommu_group: Option<String>,
    /// The other functions of the group.
    pub(crate) shares_group_with: Vec<String>,
    /// NUMA node.
    pub(crate) numa: Option<i32>,
    /// Its place, if it is a VF.
    pub(crate) vf: Option<Vf>,
}

/// A virtual function (PCI Express, single root I/O virtualisation).
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Vf {
    /// Address of its physical function.
    pub(crate) pf: String,
    /// The network device of that, if it is in this network namespace.
    pub(crate) pf_device: Option<String>,
    /// Its number among the functions of the PF.
    pub(crate) number: u32,
    /// What the PF lets it do, if the PF's network device can be asked.
    #[serde(flatten)]
    pub(crate) leave: Option<Leave>,
}

impl Function {
    /// The function at an address, if there is one.
    pub(crate) fn at(system: &System, address: &str) -> Option<Self> {
        let address = address.to_ascii_lowercase();
        let path = |file: &str| format!("/sys/bus/pci/devices/{address}/{file}");
        if !system.has(&path("")) {
            return None;
        }
        let group = system.link(&path("iommu_group"));
        let mut others = system.names(&path("iommu_group/devices"));
        others.retain(|other| *other != address);
        Some(Self {
            driver: system.link(&path("driver")),
            netdevs: netdevs(system, &address),
            iommu_group: group,
            shares_group_with: others,
            numa: system.value::<i32>(&path("numa_node")).filter(|node| *node >= 0),
            vf: system.link(&path("physfn")).and_then(|pf| Vf::of(system, &address, pf)),
            address,
        })
    }

    /// The function behind a network device, if it is one's.
    pub(crate) fn behind(system: &System, netdev: &str) -> Option<Self> {
        let device = format!("/sys/class/net/{netdev}/device");
        let address = system.link(&device)?;
        // A virtio device stands between the network device and the function.
        let address = if address.starts_with("virtio") {
            system
                .names("/sys/bus/pci/devices")
                .into_iter()
                .find(|function| system.has(&format!("/sys/bus/pci/devices/{function}/{address}")))?
        } else {
            address
        };
        Self::at(system, &address)
    }
}

impl Vf {
    fn of(system: &System, address: &str, pf: String) -> Option<Self> {
        let path = |file: &str| format!("/sys/bus/pci/devices/{pf}/{file}");
        let number = system
            .names(&path(""))
            .into_iter()
            .filter_map(|name| name.strip_prefix("virtfn")?.parse::<u32>().ok())
            .find(|number| system.link(&path(&format!("virtfn{number}"))).as_deref() == Some(address))?;
        let pf_device = netdevs(system, &pf).into_iter().next();
        let leave = pf_device
            .as_deref()
            .filter(|_| system.is_this())
            .and_then(|device| vf::leave(device, number).ok()?);
        Some(Self { pf, pf_device, number, leave })
    }
}

/// The network devices of a function: sysfs shows those of this network namespace.
fn netdevs(system: &System, address: &str) -> Vec<String> {
    let function = format!("/sys/bus/pci/devices/{address}");
    let mut devices = system.names(&format!("{function}/net"));
    // A virtio device stands between the function and its network device.
    let virtio = system.names(&function).into_iter().filter(|name| name.starts_with("virtio"));
    devices.extend(virtio.flat_map(|name| system.names(&format!("{function}/{name}/net"))));
    devices
}
