//! What ports over DPDK need: VFIO and its group for PCI functions, huge pages; and what a VF may do, whoever drives it.

use weir_config::DeviceName;

use super::{Findings, Level};
use crate::devices::{DeviceFacts, Function, Leave};
use crate::system::System;

/// The device of a port that is no network device.
pub(super) fn examine(
    system: &System,
    about: &str,
    device: &str,
    facts: &DeviceFacts,
    findings: &mut Findings,
) {
    findings.add(about, Level::Good, format!("driven by DPDK: {}", facts.why));
    if let (Some(DeviceName::Pci(_)), Some(function)) = (DeviceName::parse(device), &facts.pci) {
        vfio(system, about, function, findings);
    }
    if system.value::<u64>("/proc/sys/vm/nr_hugepages").unwrap_or(0) == 0 {
        findings.add_with(
            about,
            Level::Note,
            "no huge pages are reserved: DPDK takes ordinary memory for its rings",
            vec!["sysctl vm.nr_hugepages=512".into()],
        );
    }
    place(about, facts, findings);
}

/// A function on vfio-pci can be opened if its IOMMU group can.
fn vfio(system: &System, about: &str, function: &Function, findings: &mut Findings) {
    let address = &function.address;
    let Some(group) = &function.iommu_group else {
        return findings.add_with(
            about,
            Level::Problem,
            format!("{address} is in no IOMMU group: the IOMMU is off, and VFIO keeps devices away from memory by it"),
            vec!["switch the IOMMU on in the firmware, and add intel_iommu=on iommu=pt (AMD: iommu=pt) to the kernel's command line".into()],
        );
    };
    let node = format!("/dev/vfio/{group}");
    if system.has(&node) {
        findings.add(about, Level::Good, format!("IOMMU group {group}, {node} is here"));
    } else {
        findings.add(
            about,
            Level::Problem,
            format!("IOMMU group {group}, but there is no {node}: a container has only the devices that it was given"),
        );
    }
    for other in &function.shares_group_with {
        let driver = system.link(&format!("/sys/bus/pci/devices/{other}/driver"));
        if let Some(driver) =
            driver.filter(|driver| !matches!(driver.as_str(), "vfio-pci" | "pcieport" | "pci-stub"))
        {
            findings.add_with(
                about,
                Level::Problem,
                format!(
                    "{other} is in the same IOMMU group and bound to {driver}: VFIO gives out whole groups"
                ),
                vec![format!("driverctl set-override {other} vfio-pci")],
            );
        }
    }
}

/// Where a device sits, and what its PF lets it do.
pub(super) fn place(about: &str, facts: &DeviceFacts, findings: &mut Findings) {
    for faster in &facts.faster {
        findings.add(about, Level::Note, faster.clone());
    }
    let Some(function) = &facts.pci else { return };
    let Some(vf) = &function.vf else { return };
    let device = vf.pf_device.as_deref().unwrap_or(&vf.pf);
    let Some(Leave { trust, spoof_check, vlan }) = vf.leave else {
        let text = format!(
            "VF {} of {device}, which cannot be asked from here: whether it is trusted, spoof-checked or in a VLAN is not known",
            vf.number
        );
        return findings.add(about, Level::Note, text);
    };
    let said = |what: Option<bool>| match what {
        Some(true) => "on",
        Some(false) => "off",
        None => "unknown",
    };
    let vlan_said = match vlan {
        None | Some(0) => "none".to_owned(),
        Some(vlan) => vlan.to_string(),
    };
    let text = format!(
        "VF {} of {device}: trust {}, spoof check {}, VLAN {vlan_said}",
        vf.number,
        said(trust),
        said(spoof_check)
    );
    findings.add(about, Level::Good, text);
    if spoof_check == Some(true) {
        findings.add_with(
            about,
            Level::Note,
            "with the spoof check on, frames with another source MAC address than the VF's are dropped by the NIC: bridges and cross-connects do not work over it, routing does",
            vec![format!("ip link set {device} vf {} spoofchk off", vf.number)],
        );
    }
    if trust == Some(false) {
        findings.add_with(
            about,
            Level::Note,
            "an untrusted VF cannot be promiscuous and cannot take another MAC address",
            vec![format!("ip link set {device} vf {} trust on", vf.number)],
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::devices::Vf;

    fn found(facts: &DeviceFacts, system: &System) -> Vec<String> {
        let mut findings = Findings::default();
        examine(system, "port a", "pci:0000:03:02.1", facts, &mut findings);
        findings.0.into_iter().map(|finding| format!("{} {}", finding.level.name(), finding.text)).collect()
    }

    #[test]
    fn a_vf_on_vfio_is_told_with_its_group_and_what_it_may_do() {
        let root = tempfile::tempdir().unwrap();
        let leave = Leave { trust: Some(false), spoof_check: Some(true), vlan: Some(30) };
        let vf =
            Vf { pf: "0000:03:00.0".into(), pf_device: Some("ens1".into()), number: 1, leave: Some(leave) };
        let function = Function {
            address: "0000:03:02.1".into(),
            iommu_group: Some("41".into()),
            shares_group_with: vec!["0000:03:02.2".into()],
            vf: Some(vf),
            ..Function::default()
        };
        let facts = DeviceFacts { pci: Some(function), ..DeviceFacts::default() };
        let driver = root.path().join("sys/bus/pci/devices/0000:03:02.2");
        std::fs::create_dir_all(&driver).unwrap();
        std::os::unix::fs::symlink("../../drivers/igbvf", driver.join("driver")).unwrap();
        let system = System::at(root.path());
        let said = found(&facts, &system).join("\n");
        assert!(said.contains("problem IOMMU group 41, but there is no /dev/vfio/41"), "{said}");
        assert!(
            said.contains("problem 0000:03:02.2 is in the same IOMMU group and bound to igbvf"),
            "{said}"
        );
        assert!(said.contains("good VF 1 of ens1: trust off, spoof check on, VLAN 30"), "{said}");
        std::fs::create_dir_all(root.path().join("dev/vfio")).unwrap();
        std::fs::write(root.path().join("dev/vfio/41"), "").unwrap();
        assert!(found(&facts, &system).join("\n").contains("good IOMMU group 41, /dev/vfio/41 is here"));
    }

    #[test]
    fn a_function_without_an_iommu_group_is_a_problem() {
        let root = tempfile::tempdir().unwrap();
        let function = Function { address: "0000:03:02.1".into(), ..Function::default() };
        let facts = DeviceFacts { pci: Some(function), ..DeviceFacts::default() };
        let said = found(&facts, &System::at(root.path())).join("\n");
        assert!(said.contains("problem 0000:03:02.1 is in no IOMMU group"), "{said}");
    }
}
