//! How a port names its device: a network device, a PCI address, an environment variable that holds either, or a virtual
//! device of DPDK.

use std::fmt;

use crate::text::{Bad, Parsed};

/// What `port.device` says, taken apart. What it stands for on this machine is looked up when a configuration is put in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceName<'a> {
    /// A network device: `eth1`.
    Netdev(&'a str),
    /// A PCI function by its address, without the prefix `pci:`: `0000:3b:02.1`.
    Pci(&'a str),
    /// One of the comma-separated names in an environment variable: `env:PCIDEVICE_INTEL_COM_SRIOV[0]`.
    Environment {
        /// The variable.
        variable: &'a str,
        /// Which of its names, from 0.
        index: usize,
    },
    /// A virtual device of DPDK and its arguments, without the prefix `vdev:`: `net_memif0,role=server,id=1`.
    Virtual(&'a str),
}

impl fmt::Display for DeviceName<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Netdev(name) => f.write_str(name),
            Self::Pci(address) => write!(f, "pci:{address}"),
            Self::Environment { variable, index } => write!(f, "env:{variable}[{index}]"),
            Self::Virtual(arguments) => write!(f, "vdev:{arguments}"),
        }
    }
}

impl<'a> DeviceName<'a> {
    /// Takes the text of `port.device` apart; `None` if it has none of the forms.
    pub fn parse(text: &'a str) -> Option<Self> {
        read(text).ok()
    }

    /// Takes one name of an environment variable apart: a PCI address (the SR-IOV device plugin's) or a network device.
    pub fn parse_value(text: &'a str) -> Option<Self> {
        if is_pci_address(text) {
            return Some(Self::Pci(text));
        }
        is_netdev(text).then_some(Self::Netdev(text))
    }
}

/// One end of a memif.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct MemifEnd<'a> {
    /// Whether it listens on the socket.
    pub(crate) server: bool,
    /// The socket, and whether its name is abstract: in no file system.
    pub(crate) socket: (&'a str, bool),
}

/// What the arguments of a virtual device say of it if it is a memif, with what DPDK takes for those that are not given.
pub(crate) fn memif_end(arguments: &str) -> Option<MemifEnd<'_>> {
    let mut words = arguments.split(',');
    words.next().filter(|name| name.starts_with("net_memif"))?;
    let mut end = MemifEnd { server: false, socket: ("/run/memif.sock", true) };
    for (key, value) in words.filter_map(|word| word.split_once('=')) {
        match key {
            "role" => end.server = matches!(value, "server" | "master"),
            "socket" => end.socket.0 = value,
            "socket-abstract" => end.socket.1 = value != "no",
            _ => {}
        }
    }
    Some(end)
}

/// The text of `port.device`, taken apart.
pub(crate) fn read(text: &str) -> Parsed<DeviceName<'_>> {
    if let Some(address) = text.strip_prefix("pci:") {
        return if is_pci_address(address) {
            Ok(DeviceName::Pci(address))
        } else {
            Err(Bad::new(format!("`{address}` is not a PCI address"))
                .hint("domain, bus, device and function in hexadecimal digits, such as `pci:0000:3b:02.1`"))
        };
    }
    if let Some(rest) = text.strip_prefix("env:") {
        return environment(rest).ok_or_else(|| {
            Bad::new(format!("`{rest}` names no environment variable")).hint(
                "the variable and which of its names, from 0, such as `env:PCIDEVICE_INTEL_COM_SRIOV[0]`",
            )
        });
    }
    if let Some(arguments) = text.strip_prefix("vdev:") {
        return if is_virtual(arguments) {
            Ok(DeviceName::Virtual(arguments))
        } else {
            Err(Bad::new(format!("`{arguments}` is not a virtual device of DPDK")).hint(
                "its driver with a number, and arguments, without spaces, such as `vdev:net_memif0,role=server,id=0` or `vdev:net_vhost0,iface=/run/weir/guest.sock`",
            ))
        };
    }
    if is_netdev(text) {
        return Ok(DeviceName::Netdev(text));
    }
    Err(Bad::new(format!("`{text}` is not the name of a network device"))
        .hint("at most 15 characters, without spaces, `/` or `:`, such as `eth1`"))
}

fn environment(rest: &str) -> Option<DeviceName<'_>> {
    let (variable, index) = match rest.strip_suffix(']') {
        Some(inner) => {
            let (variable, index) = inner.split_once('[')?;
            let digits = (1..=4).contains(&index.len()) && index.bytes().all(|b| b.is_ascii_digit());
            (variable, index.parse().ok().filter(|_| digits)?)
        }
        None => (rest, 0),
    };
    let letter = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    let valid = variable.bytes().all(letter) && variable.bytes().next().is_some_and(|b| !b.is_ascii_digit());
    valid.then_some(DeviceName::Environment { variable, index })
}

/// At most 15 bytes, no `/`, no white space (`dev_valid_name` of Linux).
fn is_netdev(text: &str) -> bool {
    (1..=15).contains(&text.len())
        && text != "."
        && text != ".."
        && text.bytes().all(|b| b.is_ascii_graphic() && b != b'/' && b != b':')
}

/// `net_<driver>[number]` and arguments after a comma, as DPDK's `--vdev` takes them.
fn is_virtual(text: &str) -> bool {
    let name = text.split(',').next().unwrap_or_default();
    let rest = name.strip_prefix("net_").unwrap_or_default();
    !rest.is_empty()
        && name.len() < 64
        && rest.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
        && text.len() < 1024
        && text.bytes().all(|b| b.is_ascii_graphic())
}

/// `DDDD:BB:DD.F` in lower or upper case.
fn is_pci_address(text: &str) -> bool {
    let digits =
        |part: &str, count: usize| part.len() == count && part.bytes().all(|b| b.is_ascii_hexdigit());
    let mut parts = text.split(':');
    let (Some(domain), Some(bus), Some(slot), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return false;
    };
    let Some((device, function)) = slot.split_once('.') else { return false };
    digits(domain, 4) && digits(bus, 2) && digits(device, 2) && matches!(function.as_bytes(), [b'0'..=b'7'])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ends_of_a_memif_are_told_apart() {
        let end = |arguments| memif_end(arguments).map(|end| (end.server, end.socket.0, end.socket.1));
        assert_eq!(end("net_memif0"), Some((false, "/run/memif.sock", true)));
        assert_eq!(end("net_memif7,id=1,role=server,socket=/a"), Some((true, "/a", true)));
        assert_eq!(end("net_memif7,socket=/a,socket-abstract=no,role=client"), Some((false, "/a", false)));
        assert_eq!(end("net_vhost0,iface=/a,role=server"), None);
    }

    #[test]
    fn a_device_is_a_netdev_a_pci_address_or_a_variable() {
        assert_eq!(DeviceName::parse("eth1.100"), Some(DeviceName::Netdev("eth1.100")));
        assert_eq!(DeviceName::parse("pci:0000:3b:02.1"), Some(DeviceName::Pci("0000:3b:02.1")));
        let second = DeviceName::Environment { variable: "PCIDEVICE_INTEL_COM_SRIOV", index: 1 };
        assert_eq!(DeviceName::parse("env:PCIDEVICE_INTEL_COM_SRIOV[1]"), Some(second));
        let memif = DeviceName::Virtual("net_memif0,role=server,id=1");
        assert_eq!(DeviceName::parse("vdev:net_memif0,role=server,id=1"), Some(memif));
        assert_eq!(memif.to_string(), "vdev:net_memif0,role=server,id=1");
        assert_eq!(DeviceName::parse("vdev:net_null0"), Some(DeviceName::Virtual("net_null0")));
        assert_eq!(DeviceName::parse("env:A"), Some(DeviceName::Environment { variable: "A", index: 0 }));
        assert_eq!(second.to_string(), "env:PCIDEVICE_INTEL_COM_SRIOV[1]");
        for wrong in [
            "",
            "..",
            "a/b",
            "a-device-name-16",
            "pci:",
            "pci:3b:02.1",
            "pci:0000:3b:02.8",
            "pci:0000:3b:2.1",
            "env:",
            "env:1A",
            "env:A[",
            "env:A[]",
            "env:A[x]",
            "env:A[-1]",
            "env:A[0]b",
            "env:A B",
            "vdev:",
            "vdev:net_",
            "vdev:eth0",
            "vdev:net_memif0, id=1",
        ] {
            assert_eq!(DeviceName::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn the_value_of_a_variable_is_an_address_or_a_name() {
        assert_eq!(DeviceName::parse_value("0000:03:02.1"), Some(DeviceName::Pci("0000:03:02.1")));
        assert_eq!(DeviceName::parse_value("ens785f3"), Some(DeviceName::Netdev("ens785f3")));
        assert_eq!(DeviceName::parse_value("env:A"), None);
    }
}
