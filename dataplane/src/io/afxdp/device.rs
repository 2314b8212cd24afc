//! What is asked of and told to a network device: ioctls (netdevice(7)), ethtool, packet-socket memberships, sysfs.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use weir_config::MacAddress;

const SIOCETHTOOL: libc::c_ulong = 0x8946;
const ETHTOOL_GLINK: u32 = 0x0a;
const ETHTOOL_GDRVINFO: u32 = 0x03;
const ETHTOOL_GCHANNELS: u32 = 0x3c;
const ETHTOOL_GFLAGS: u32 = 0x25;
/// VLAN tags are stripped before XDP sees the frame.
const ETH_FLAG_RXVLAN: u32 = 1 << 8;
const PACKET_ADD_MEMBERSHIP: libc::c_int = 1;

/// A network device, found by name in the network namespace of the thread that asked. Later questions go to that
/// namespace whichever thread asks.
#[derive(Debug)]
pub(super) struct Device {
    socket: OwnedFd,
    name: [libc::c_char; libc::IFNAMSIZ],
    pub(super) ifindex: u32,
}

/// Which multicast and foreign frames the device lets in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Membership {
    AllMulticast,
    Promiscuous,
}

/// Queues of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct QueueCounts {
    pub(super) receive: u32,
    pub(super) transmit: u32,
}

impl Device {
    pub(super) fn find(name: &str) -> io::Result<Self> {
        let mut chars = [0; libc::IFNAMSIZ];
        if name.is_empty() || name.len() >= chars.len() || name.contains('\0') {
            return Err(io::Error::from_raw_os_error(libc::ENODEV));
        }
        for (to, from) in chars.iter_mut().zip(name.bytes()) {
            *to = from as libc::c_char;
        }
        let socket = open_socket(libc::AF_INET, libc::SOCK_DGRAM)?;
        let mut device = Self { socket, name: chars, ifindex: 0 };
        let request = device.request(libc::SIOCGIFINDEX as libc::c_ulong, None)?;
        // SAFETY: SIOCGIFINDEX fills this member.
        device.ifindex = unsafe { request.ifr_ifru.ifru_ifindex } as u32;
        Ok(device)
    }

    /// Whether the device that was found is still there, under whatever name.
    pub(super) fn present(&self) -> bool {
        // SAFETY: all-zero is a valid ifreq.
        let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
        request.ifr_ifru.ifru_ifindex = self.ifindex as libc::c_int;
        self.ioctl(libc::SIOCGIFNAME as libc::c_ulong, &mut request).is_ok()
    }

    fn ioctl(&self, code: libc::c_ulong, request: &mut libc::ifreq) -> io::Result<()> {
        // SAFETY: the request is a live ifreq; a data pointer in it points at a live value of the caller's.
        let result = unsafe { libc::ioctl(self.socket.as_raw_fd(), code as _, &raw mut *request) };
        if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    fn request(&self, code: libc::c_ulong, data: Option<*mut libc::c_char>) -> io::Result<libc::ifreq> {
        // SAFETY: all-zero is a valid ifreq.
        let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
        request.ifr_name = self.name;
        if let Some(data) = data {
            request.ifr_ifru.ifru_data = data;
        }
        self.ioctl(code, &mut request)?;
        Ok(request)
    }

    fn flags(&self) -> io::Result<libc::c_int> {
        let request = self.request(libc::SIOCGIFFLAGS as libc::c_ulong, None)?;
        // SAFETY: SIOCGIFFLAGS fills this member.
        Ok(libc::c_int::from(unsafe { request.ifr_ifru.ifru_flags }))
    }

    /// Whether the device is administratively up.
    pub(super) fn is_up(&self) -> bool {
        self.flags().is_ok_and(|flags| flags & libc::IFF_UP != 0)
    }

    /// Whether the device is up and has a carrier.
    pub(super) fn has_carrier(&self) -> bool {
        let mut link = [ETHTOOL_GLINK, 0];
        // Asked first: the flags follow the driver's carrier with up to a second's delay.
        let carrier = match self.ethtool(&mut link) {
            Ok(()) => link[1] != 0,
            Err(_) => self.flags().is_ok_and(|flags| flags & libc::IFF_RUNNING != 0),
        };
        carrier && self.is_up()
    }

    /// Brings the device up.
    pub(super) fn bring_up(&self) -> io::Result<()> {
        // SAFETY: all-zero is a valid ifreq.
        let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
        request.ifr_name = self.name;
        request.ifr_ifru.ifru_flags = (self.flags()? | libc::IFF_UP) as libc::c_short;
        self.ioctl(libc::SIOCSIFFLAGS as libc::c_ulong, &mut request)
    }

    /// Largest L3 packet in bytes.
    pub(super) fn mtu(&self) -> io::Result<u32> {
        let request = self.request(libc::SIOCGIFMTU as libc::c_ulong, None)?;
        // SAFETY: SIOCGIFMTU fills this member.
        Ok(unsafe { request.ifr_ifru.ifru_mtu } as u32)
    }

    pub(super) fn mac(&self) -> io::Result<MacAddress> {
        let request = self.request(libc::SIOCGIFHWADDR as libc::c_ulong, None)?;
        // SAFETY: SIOCGIFHWADDR fills this member.
        let [a, b, c, d, e, f, ..] = unsafe { request.ifr_ifru.ifru_hwaddr }.sa_data.map(|byte| byte as u8);
        Ok(MacAddress([a, b, c, d, e, f]))
    }

    fn ethtool<T>(&self, command: &mut T) -> io::Result<()> {
        self.request(SIOCETHTOOL, Some((&raw mut *command).cast())).map(drop)
    }

    /// Kernel driver, "unknown" if it does not say.
    pub(super) fn driver(&self) -> String {
        #[repr(C)]
        struct DriverInfo {
            command: u32,
            driver: [u8; 32],
            rest: [u8; 160],
        }
        let mut info = DriverInfo { command: ETHTOOL_GDRVINFO, driver: [0; 32], rest: [0; 160] };
        if self.ethtool(&mut info).is_err() {
            return "unknown".into();
        }
        let name: Vec<u8> = info.driver.iter().copied().take_while(|&byte| byte != 0).collect();
        String::from_utf8_lossy(&name).into_owned()
    }

    /// Queues in use. A device that does not say has one of each.
    pub(super) fn queues(&self) -> QueueCounts {
        // struct ethtool_channels: command; maximum and current counts of receive, transmit, other, combined.
        let mut channels = [ETHTOOL_GCHANNELS, 0, 0, 0, 0, 0, 0, 0, 0];
        if self.ethtool(&mut channels).is_err() {
            return self.queues_in_sysfs().unwrap_or(QueueCounts { receive: 1, transmit: 1 });
        }
        let [.., receive, transmit, _, combined] = channels;
        QueueCounts { receive: (receive + combined).max(1), transmit: (transmit + combined).max(1) }
    }

    fn queues_in_sysfs(&self) -> Option<QueueCounts> {
        let (mut receive, mut transmit) = (0, 0);
        for entry in std::fs::read_dir(format!("/sys/class/net/{}/queues", self.name())).ok()? {
            let name = entry.ok()?.file_name();
            receive += u32::from(name.to_string_lossy().starts_with("rx-"));
            transmit += u32::from(name.to_string_lossy().starts_with("tx-"));
        }
        Some(QueueCounts { receive: receive.max(1), transmit: transmit.max(1) })
    }

    /// Whether the device takes VLAN tags off received frames before XDP sees them.
    pub(super) fn strips_vlan(&self) -> bool {
        let mut value = [ETHTOOL_GFLAGS, 0];
        self.ethtool(&mut value).is_ok() && value[1] & ETH_FLAG_RXVLAN != 0
    }

    /// NUMA node of the device, −1 if it has none.
    pub(super) fn numa_node(&self) -> i32 {
        std::fs::read_to_string(format!("/sys/class/net/{}/device/numa_node", self.name()))
            .ok()
            .and_then(|text| text.trim().parse().ok())
            .unwrap_or(-1)
    }

    pub(super) fn name(&self) -> String {
        self.name.iter().take_while(|&&c| c != 0).map(|&c| char::from(c as u8)).collect()
    }

    /// Lets more frames in for as long as the descriptor returned is open: the kernel undoes it with the process.
    pub(super) fn join(&self, membership: Membership) -> io::Result<OwnedFd> {
        #[repr(C)]
        struct PacketMembership {
            ifindex: libc::c_int,
            kind: libc::c_ushort,
            address_len: libc::c_ushort,
            address: [u8; 8],
        }
        let kind = match membership {
            Membership::Promiscuous => 1,
            Membership::AllMulticast => 2,
        };
        let value =
            PacketMembership { ifindex: self.ifindex as libc::c_int, kind, address_len: 0, address: [0; 8] };
        // Protocol 0: the socket itself receives nothing.
        let socket = open_socket(libc::AF_PACKET, libc::SOCK_RAW)?;
        // SAFETY: the pointer and the length are those of a live value.
        let result = unsafe {
            libc::setsockopt(
                socket.as_raw_fd(),
                libc::SOL_PACKET,
                PACKET_ADD_MEMBERSHIP,
                (&raw const value).cast(),
                size_of_val(&value) as libc::socklen_t,
            )
        };
        if result == 0 { Ok(socket) } else { Err(io::Error::last_os_error()) }
    }
}

fn open_socket(family: libc::c_int, kind: libc::c_int) -> io::Result<OwnedFd> {
    // SAFETY: plain system call.
    let fd = unsafe { libc::socket(family, kind | libc::SOCK_CLOEXEC, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a fresh descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loopback_device_is_found_and_described() {
        let device = Device::find("lo").unwrap();
        assert!(device.present());
        assert_eq!(device.name(), "lo");
        assert_eq!(device.mac().unwrap(), MacAddress([0; 6]));
        assert!(device.mtu().unwrap() >= 1280);
        assert_eq!(device.numa_node(), -1);
        assert!(device.queues().receive >= 1);
    }

    #[test]
    fn a_name_that_no_device_has_is_enodev() {
        for name in ["", "no-such-device", "a-name-longer-than-a-device-can-have"] {
            let error = Device::find(name).unwrap_err();
            assert_eq!(error.raw_os_error(), Some(libc::ENODEV), "{name}");
        }
    }
}
