//! What is told of a port's device besides what the data plane got: why it is driven as it is, where it sits, what its PF
//! lets it do, and what a faster mode would need.

use serde::Serialize;
use weir_config::DeviceName;

use super::function::Function;
use crate::system::System;

/// What is known of a port's device.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct DeviceFacts {
    /// Why it is driven through AF_XDP, or through DPDK.
    pub(crate) why: String,
    /// The PCI function behind it.
    pub(crate) pci: Option<Function>,
    /// What a faster mode would need, a line each.
    pub(crate) faster: Vec<String>,
}

/// What is known of the device that a port's `device` stands for after [`resolve`](super::resolve). `xdp` is the XDP mode
/// that it got, empty where that is not known.
pub(crate) fn facts(system: &System, device: &str, xdp: &str) -> DeviceFacts {
    match DeviceName::parse(device) {
        Some(DeviceName::Virtual(_)) => {
            DeviceFacts { why: "DPDK: it is a virtual device of DPDK".to_owned(), ..DeviceFacts::default() }
        }
        Some(DeviceName::Pci(address)) => {
            let pci = Function::at(system, address);
            let driver = pci.as_ref().and_then(|function| function.driver.clone());
            let why = format!("DPDK: {address} is bound to {}", driver.as_deref().unwrap_or("no driver"));
            let alone = pci.as_ref().is_none_or(|function| function.shares_group_with.is_empty());
            let faster = if alone { Vec::new() } else { vec![shared_group(pci.as_ref())] };
            DeviceFacts { why, pci, faster }
        }
        _ => netdev(system, device, xdp),
    }
}

fn netdev(system: &System, device: &str, xdp: &str) -> DeviceFacts {
    let pci = Function::behind(system, device);
    let Some(function) = &pci else {
        return DeviceFacts { why: "AF_XDP: it is a network device".to_owned(), ..DeviceFacts::default() };
    };
    let driver = function.driver.as_deref().unwrap_or("unknown");
    let why = format!("AF_XDP: {} is bound to its kernel driver {driver}", function.address);
    let mut faster = Vec::new();
    if xdp == "generic" {
        let what = if function.vf.is_some() { "VF" } else { "function" };
        faster.push(format!(
            "{driver} offers no XDP: bind this {what} to vfio-pci and give device = \"pci:{}\", and DPDK drives it without the kernel",
            function.address
        ));
    }
    DeviceFacts { why, faster, pci }
}

fn shared_group(function: Option<&Function>) -> String {
    let others = function.map(|function| function.shares_group_with.join(", ")).unwrap_or_default();
    format!(
        "its IOMMU group also holds {others}: VFIO gives them out together, so all must be bound to vfio-pci or to nothing"
    )
}

#[cfg(test)]
mod tests {
    use super::super::tests::sysfs;
    use super::*;

    #[test]
    fn a_device_says_why_it_is_driven_as_it_is() {
        let root = sysfs();
        let system = System::at(root.path());
        let vf = facts(&system, "pci:0000:03:02.1", "");
        assert_eq!(vf.why, "DPDK: 0000:03:02.1 is bound to vfio-pci");
        let function = vf.pci.unwrap();
        assert_eq!((function.iommu_group.as_deref(), function.numa), (Some("41"), Some(1)));
        let place = function.vf.unwrap();
        assert_eq!(
            (place.pf.as_str(), place.pf_device.as_deref(), place.number),
            ("0000:03:00.0", Some("ens1"), 1)
        );
        assert!(vf.faster.is_empty());

        let kernel = facts(&system, "ens1f0v0", "generic");
        assert_eq!(kernel.why, "AF_XDP: 0000:03:02.0 is bound to its kernel driver iavf");
        assert!(kernel.faster[0].contains("bind this VF to vfio-pci and give device = \"pci:0000:03:02.0\""));
        assert!(facts(&system, "ens1f0v0", "zero-copy").faster.is_empty());
        assert_eq!(facts(&system, "veth0", "native copy").why, "AF_XDP: it is a network device");
        assert_eq!(facts(&system, "vdev:net_null0", "").why, "DPDK: it is a virtual device of DPDK");
    }

    #[test]
    fn a_shared_iommu_group_is_told() {
        let root = sysfs();
        let group = root.path().join("sys/kernel/iommu_groups/41/devices");
        std::fs::create_dir_all(group.join("0000:03:02.2")).unwrap();
        let told = facts(&System::at(root.path()), "pci:0000:03:02.1", "").faster.join("\n");
        assert!(told.contains("its IOMMU group also holds 0000:03:02.2"), "{told}");
    }
}
