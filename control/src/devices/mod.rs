//! What `port.device` stands for on this machine: environment variables of device plugins, PCI functions that have a network
//! device or are bound to vfio-pci, and virtual devices of DPDK.

mod facts;
mod function;
mod vf;

use weir_config::{Config, DeviceName, Port};

pub(crate) use facts::{DeviceFacts, facts};
pub(crate) use function::Function;
use function::VFIO;
#[cfg(test)]
pub(crate) use function::Vf;
pub(crate) use vf::Leave;

use crate::system::System;

/// What is said of a device that only DPDK can drive, where there is none.
const NEEDS_DPDK: &str = "it needs a weir built with DPDK, which this one is not: the image `weir:full` is, and `cargo build --release --features dpdk` makes one";

/// Puts what a device is called here where a port names it in another way: a network device's name, or the address of a
/// function on vfio-pci (`pci:…`), with its token. Virtual devices stay as they are.
///
/// `variable` reads the environment, `dpdk` says whether there is a DPDK to drive what is no network device.
///
/// # Errors
/// A line for each port whose device cannot be found.
pub fn resolve(
    config: &mut Config,
    variable: impl Fn(&str) -> Option<String>,
    system: &System,
    dpdk: bool,
) -> Result<(), Vec<String>> {
    let mut problems = Vec::new();
    let mut taken: Vec<(String, String)> = Vec::new();
    for (name, port) in &mut config.ports {
        let Some(written) = port.device.clone() else { continue };
        match find(&written, port, &variable, system, dpdk) {
            Ok(device) => {
                if let Some((other, _)) = taken.iter().find(|(_, taken)| *taken == device) {
                    problems
                        .push(format!("ports `{other}` and `{name}` both stand for the device `{device}`"));
                }
                taken.push((name.clone(), device.clone()));
                port.device = Some(device);
            }
            Err(reason) => problems.push(format!("port `{name}`: device = \"{written}\": {reason}")),
        }
    }
    if problems.is_empty() { Ok(()) } else { Err(problems) }
}

fn find(
    written: &str,
    port: &mut Port,
    variable: impl Fn(&str) -> Option<String>,
    system: &System,
    dpdk: bool,
) -> Result<String, String> {
    match DeviceName::parse(written) {
        Some(DeviceName::Environment { variable: name, index }) => {
            let value = variable(name).filter(|value| !value.trim().is_empty()).ok_or_else(|| {
                format!("the environment has no variable {name}; a device plugin sets it for a container that requests its resource")
            })?;
            let names: Vec<&str> = value.split(',').map(str::trim).filter(|part| !part.is_empty()).collect();
            let chosen = names.get(index).ok_or_else(|| {
                format!(
                    "{name} holds {}, and number {index} (counted from 0) was asked for: {value}",
                    count(names.len())
                )
            })?;
            match DeviceName::parse_value(chosen) {
                Some(DeviceName::Pci(address)) => {
                    if port.vfio_token.is_none() {
                        port.vfio_token = token(name, address, &variable)?;
                    }
                    of_function(address, port, system, dpdk)
                }
                Some(_) => Ok((*chosen).to_owned()),
                None => Err(format!(
                    "{name} holds `{chosen}`, which is neither a PCI address nor a network device"
                )),
            }
        }
        Some(DeviceName::Pci(address)) => of_function(address, port, system, dpdk),
        Some(DeviceName::Virtual(_)) if !dpdk => Err(NEEDS_DPDK.to_owned()),
        _ => Ok(written.to_owned()),
    }
}

fn count(devices: usize) -> String {
    format!("{devices} device{}", if devices == 1 { "" } else { "s" })
}

/// The VFIO token of a VF, if the SR-IOV device plugin gives one: `<variable>_INFO` holds
/// `{"<address>": {"extraInfo": {"token": "<uuid>"}, …}}`.
fn token(
    name: &str,
    address: &str,
    variable: impl Fn(&str) -> Option<String>,
) -> Result<Option<String>, String> {
    let Some(text) = variable(&format!("{name}_INFO")) else { return Ok(None) };
    let information: serde_json::Value =
        serde_json::from_str(&text).map_err(|error| format!("{name}_INFO holds no JSON: {error}"))?;
    Ok(information[address]["extraInfo"]["token"].as_str().map(str::to_owned))
}

/// How a PCI function is called: by its network device, or by its address if it is on vfio-pci.
fn of_function(address: &str, port: &Port, system: &System, dpdk: bool) -> Result<String, String> {
    let Some(function) = Function::at(system, address) else {
        let address = address.to_ascii_lowercase();
        return Err(format!("there is no PCI function {address} on this machine; `lspci -D` lists them"));
    };
    let address = &function.address;
    match (function.netdevs.as_slice(), function.driver.as_deref()) {
        ([device], _) => Ok(device.clone()),
        ([], Some(VFIO)) if !dpdk => Err(format!(
            "{address} is bound to vfio-pci, so that it has no network device: {NEEDS_DPDK}; or bind it to its kernel driver"
        )),
        ([], Some(VFIO)) if port.mode == weir_config::PortMode::Shared => Err(format!(
            "{address} is bound to vfio-pci, so that there is no kernel to share it with: add `mode = \"dedicated\"`"
        )),
        ([], Some(VFIO)) => Ok(format!("pci:{address}")),
        ([], Some(driver)) => Err(format!(
            "{address} (driver {driver}) has no network device in this network namespace; is it in another one?"
        )),
        ([], None) => Err(format!(
            "{address} has no driver: bind it to its kernel driver, or to vfio-pci for DPDK (`driverctl set-override {address} vfio-pci`)"
        )),
        (several, _) => {
            Err(format!("{address} has several network devices, so name one of them: {}", several.join(", ")))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    /// A machine with a PF, a VF of it under its kernel driver, one on vfio-pci, one without a driver, and one with two network devices.
    pub(super) fn sysfs() -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        let functions = [
            ("0000:03:00.0", Some("ice"), &["ens1"][..]),
            ("0000:03:02.0", Some("iavf"), &["ens1f0v0"]),
            ("0000:03:02.1", Some("vfio-pci"), &[]),
            ("0000:03:02.2", None, &[]),
            ("0000:04:00.0", Some("mlx4_core"), &["eth8", "eth9"]),
            ("0000:03:02.3", Some("iavf"), &[]),
        ];
        for (address, driver, devices) in functions {
            let function = root.path().join("sys/bus/pci/devices").join(address);
            std::fs::create_dir_all(&function).unwrap();
            devices.iter().for_each(|name| std::fs::create_dir_all(function.join("net").join(name)).unwrap());
            if let Some(driver) = driver {
                symlink(format!("../../../../bus/pci/drivers/{driver}"), function.join("driver")).unwrap();
            }
        }
        let sys = root.path().join("sys");
        let functions = sys.join("bus/pci/devices");
        for (number, vf) in ["0000:03:02.0", "0000:03:02.1"].into_iter().enumerate() {
            symlink("../0000:03:00.0", functions.join(vf).join("physfn")).unwrap();
            symlink(format!("../{vf}"), functions.join(format!("0000:03:00.0/virtfn{number}"))).unwrap();
        }
        let group = sys.join("kernel/iommu_groups/41");
        std::fs::create_dir_all(group.join("devices/0000:03:02.1")).unwrap();
        symlink(group, functions.join("0000:03:02.1/iommu_group")).unwrap();
        std::fs::write(functions.join("0000:03:02.1/numa_node"), "1\n").unwrap();
        std::fs::create_dir_all(sys.join("class/net/ens1f0v0")).unwrap();
        symlink("../../../bus/pci/devices/0000:03:02.0", sys.join("class/net/ens1f0v0/device")).unwrap();
        root
    }

    fn resolved(devices: &[&str]) -> Result<Vec<String>, Vec<String>> {
        resolved_with(devices, "shared", false)
            .map(|devices| devices.into_iter().map(|(device, _)| device).collect())
    }

    /// What each device is called, and its token.
    fn resolved_with(
        devices: &[&str],
        mode: &str,
        dpdk: bool,
    ) -> Result<Vec<(String, Option<String>)>, Vec<String>> {
        let port = |(n, device)| format!("[port.p{n}]\ndevice = \"{device}\"\nmode = \"{mode}\"\n");
        let text: String = devices.iter().enumerate().map(port).collect();
        let mut config = weir_config::load_str("t.toml", &text).unwrap().config;
        let variable = |name: &str| {
            match name {
            "PCIDEVICE_INTEL_COM_SRIOV" => Some("0000:03:02.0,0000:03:02.1".to_owned()),
            "AFXDP_DEVICES_POOL" => Some("ens785f3 ens785f4".replace(' ', ",")),
            "EMPTY" => Some(String::new()),
            "ODD" => Some("what is this".to_owned()),
            "PCIDEVICE_INTEL_COM_SRIOV_INFO" => Some(
                r#"{"0000:03:02.1":{"extraInfo":{"token":"3b6ff2a5-77c0-4b16-8b1e-2f6c4f2a9d10"},"vfio":{}}}"#.to_owned(),
            ),
            "BROKEN" => Some("0000:03:02.1".to_owned()),
            "BROKEN_INFO" => Some("{".to_owned()),
            _ => None,
        }
        };
        resolve(&mut config, variable, &System::at(sysfs().path()), dpdk)?;
        Ok(config.ports.into_values().map(|port| (port.device.unwrap(), port.vfio_token)).collect())
    }

    fn problem(device: &str) -> String {
        resolved(&[device]).unwrap_err().join("\n")
    }

    #[test]
    fn a_variable_holds_pci_addresses_or_network_devices() {
        assert_eq!(resolved(&["env:PCIDEVICE_INTEL_COM_SRIOV[0]", "eth7"]).unwrap(), ["ens1f0v0", "eth7"]);
        assert_eq!(resolved(&["env:AFXDP_DEVICES_POOL[1]"]).unwrap(), ["ens785f4"]);
        assert_eq!(resolved(&["pci:0000:03:02.0"]).unwrap(), ["ens1f0v0"]);
    }

    #[test]
    fn what_is_missing_is_said_with_what_to_do() {
        for (device, words) in [
            ("env:PCIDEVICE_NOT_THERE[0]", "no variable PCIDEVICE_NOT_THERE; a device plugin sets it"),
            ("env:EMPTY", "no variable EMPTY"),
            ("env:PCIDEVICE_INTEL_COM_SRIOV[2]", "holds 2 devices, and number 2 (counted from 0)"),
            ("env:ODD", "`what is this`, which is neither"),
            (
                "env:PCIDEVICE_INTEL_COM_SRIOV[1]",
                "0000:03:02.1 is bound to vfio-pci, so that it has no network device: it needs a weir built with DPDK",
            ),
            ("pci:0000:03:02.2", "has no driver"),
            ("pci:0000:03:02.3", "(driver iavf) has no network device in this network namespace"),
            ("pci:0000:04:00.0", "several network devices, so name one of them: eth8, eth9"),
            ("pci:0000:99:00.0", "no PCI function 0000:99:00.0"),
        ] {
            let said = problem(device);
            assert!(said.starts_with(&format!("port `p0`: device = \"{device}\": ")), "{said}");
            assert!(said.contains(words), "{said}");
        }
    }

    #[test]
    fn with_dpdk_a_function_on_vfio_is_driven_by_its_address_and_token() {
        let with = |device, mode| resolved_with(&[device], mode, true).map(|mut all| all.remove(0));
        let token = Some("3b6ff2a5-77c0-4b16-8b1e-2f6c4f2a9d10".to_owned());
        let function = "pci:0000:03:02.1".to_owned();
        assert_eq!(with("env:PCIDEVICE_INTEL_COM_SRIOV[1]", "dedicated").unwrap(), (function.clone(), token));
        assert_eq!(with("pci:0000:03:02.1", "dedicated").unwrap(), (function, None));
        assert_eq!(with("vdev:net_null0", "dedicated").unwrap().0, "vdev:net_null0");
        assert_eq!(with("pci:0000:03:02.0", "dedicated").unwrap().0, "ens1f0v0");
        let said = |device, mode| with(device, mode).unwrap_err().join("\n");
        assert!(said("pci:0000:03:02.1", "shared").contains("add `mode = \"dedicated\"`"));
        assert!(said("env:BROKEN[0]", "dedicated").contains("BROKEN_INFO holds no JSON"));
        let without = resolved_with(&["vdev:net_null0"], "dedicated", false).unwrap_err().join("\n");
        assert!(without.contains("it needs a weir built with DPDK"), "{without}");
    }

    #[test]
    fn two_names_of_one_device_are_refused() {
        let said = resolved(&["env:PCIDEVICE_INTEL_COM_SRIOV[0]", "pci:0000:03:02.0"]).unwrap_err();
        assert_eq!(said, ["ports `p0` and `p1` both stand for the device `ens1f0v0`"]);
    }

    #[test]
    fn a_pci_device_of_this_machine_is_found_if_there_is_one() {
        let devices = std::fs::read_dir("/sys/class/net").unwrap().flatten();
        let pci = devices.filter_map(|entry| {
            let link = std::fs::canonicalize(entry.path().join("device")).ok()?;
            let is_pci = |part: &&str| matches!(DeviceName::parse_value(part), Some(DeviceName::Pci(_)));
            let address = link.iter().filter_map(|part| part.to_str()).rfind(is_pci)?.to_owned();
            Some((address, entry.file_name().to_string_lossy().into_owned()))
        });
        for (address, device) in pci {
            let function = Function::at(&System::default(), &address).unwrap();
            assert_eq!(function.netdevs, [device]);
        }
    }
}
