//! What `port.device` stands for on this machine: environment variables of device plugins, and PCI functions that have a
//! network device.

use std::path::Path;

use weir_config::{Config, DeviceName};

/// The driver under which a PCI function has no network device, for programs to drive it themselves.
const VFIO: &str = "vfio-pci";

/// Puts the network device's name where a port names its device in another way.
///
/// `variable` reads the environment, `sysfs` is where sysfs is mounted.
///
/// # Errors
/// A line for each port whose device cannot be found.
pub fn resolve(
    config: &mut Config,
    variable: impl Fn(&str) -> Option<String>,
    sysfs: &Path,
) -> Result<(), Vec<String>> {
    let mut problems = Vec::new();
    let mut taken: Vec<(String, String)> = Vec::new();
    for (name, port) in &mut config.ports {
        let Some(written) = port.device.as_deref() else { continue };
        match find(written, &variable, sysfs) {
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

fn find(written: &str, variable: impl Fn(&str) -> Option<String>, sysfs: &Path) -> Result<String, String> {
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
                Some(DeviceName::Pci(address)) => netdev_of(address, sysfs),
                Some(_) => Ok((*chosen).to_owned()),
                None => Err(format!(
                    "{name} holds `{chosen}`, which is neither a PCI address nor a network device"
                )),
            }
        }
        Some(DeviceName::Pci(address)) => netdev_of(address, sysfs),
        _ => Ok(written.to_owned()),
    }
}

fn count(devices: usize) -> String {
    format!("{devices} device{}", if devices == 1 { "" } else { "s" })
}

/// The network device of a PCI function: `/sys/bus/pci/devices/<address>/net/` shows those of this network namespace.
fn netdev_of(address: &str, sysfs: &Path) -> Result<String, String> {
    let address = address.to_ascii_lowercase();
    let function = sysfs.join("bus/pci/devices").join(&address);
    if !function.exists() {
        return Err(format!("there is no PCI function {address} on this machine; `lspci -D` lists them"));
    }
    let mut devices = names_in(&function.join("net"));
    // A virtio device stands between the function and its network device.
    let virtio = names_in(&function).into_iter().filter(|name| name.starts_with("virtio"));
    devices.extend(virtio.flat_map(|name| names_in(&function.join(name).join("net"))));
    match (devices.as_slice(), driver(&function).as_deref()) {
        ([device], _) => Ok(device.clone()),
        ([], Some(VFIO)) => Err(format!(
            "{address} is bound to vfio-pci, so that it has no network device: it needs a weir built with DPDK, which this one \
             is not; or bind it to its kernel driver"
        )),
        ([], Some(driver)) => Err(format!(
            "{address} (driver {driver}) has no network device in this network namespace; is it in another one?"
        )),
        ([], None) => Err(format!("{address} has no driver: bind it to its kernel driver")),
        (several, _) => {
            Err(format!("{address} has several network devices, so name one of them: {}", several.join(", ")))
        }
    }
}

/// The names in a directory, sorted; none if there is no such directory.
fn names_in(directory: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    let mut names: Vec<String> =
        entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

fn driver(function: &Path) -> Option<String> {
    let link = std::fs::read_link(function.join("driver")).ok()?;
    Some(link.file_name()?.to_string_lossy().into_owned())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    /// A sysfs with a VF under its kernel driver, one on vfio-pci, one without a driver, and one with two network devices.
    fn sysfs() -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        let functions = [
            ("0000:03:02.0", Some("iavf"), &["ens1f0v0"][..]),
            ("0000:03:02.1", Some("vfio-pci"), &[]),
            ("0000:03:02.2", None, &[]),
            ("0000:04:00.0", Some("mlx4_core"), &["eth8", "eth9"]),
            ("0000:03:02.3", Some("iavf"), &[]),
        ];
        for (address, driver, devices) in functions {
            let function = root.path().join("bus/pci/devices").join(address);
            std::fs::create_dir_all(&function).unwrap();
            devices.iter().for_each(|name| std::fs::create_dir_all(function.join("net").join(name)).unwrap());
            if let Some(driver) = driver {
                symlink(format!("../../../../bus/pci/drivers/{driver}"), function.join("driver")).unwrap();
            }
        }
        root
    }

    fn resolved(devices: &[&str]) -> Result<Vec<String>, Vec<String>> {
        let text: String =
            devices.iter().enumerate().map(|(n, d)| format!("[port.p{n}]\ndevice = \"{d}\"\n")).collect();
        let mut config = weir_config::load_str("t.toml", &text).unwrap().config;
        let variable = |name: &str| match name {
            "PCIDEVICE_INTEL_COM_SRIOV" => Some("0000:03:02.0,0000:03:02.1".to_owned()),
            "AFXDP_DEVICES_POOL" => Some("ens785f3 ens785f4".replace(' ', ",")),
            "EMPTY" => Some(String::new()),
            "ODD" => Some("what is this".to_owned()),
            _ => None,
        };
        resolve(&mut config, variable, sysfs().path())?;
        Ok(config.ports.into_values().map(|port| port.device.unwrap()).collect())
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
            assert_eq!(netdev_of(&address, Path::new("/sys")), Ok(device));
        }
    }
}
