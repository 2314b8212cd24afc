//! Addresses that are never forwarded (RFC 1812 sections 5.2.3 and 5.3.7, RFC 3927 section 2.7, RFC 4291 section 2.5).

use std::net::IpAddr;

use super::interface::is_link_local;
use crate::decision::DropReason;

/// Whether a packet between these addresses may be forwarded by weir.
///
/// # Errors
/// [`DropReason::MulticastNotRouted`] for a group as destination; [`DropReason::IpAddress`] for a source that is not one
/// host, and for addresses of this host or this link as source or destination: 0/8, 127/8, 169.254/16, 240/4; `::`, `::1`,
/// fe80::/10, IPv4-mapped.
pub fn forwardable(source: IpAddr, destination: IpAddr) -> Result<(), DropReason> {
    if is_group(destination) {
        return Err(DropReason::MulticastNotRouted);
    }
    let routable = |ip: IpAddr| is_host(ip) && !is_link_local(ip);
    if routable(source) && routable(destination) { Ok(()) } else { Err(DropReason::IpAddress) }
}

/// Whether an address stands for one host that may be answered: not a group, not broadcast, not unspecified, not loopback,
/// not reserved. Link-local addresses do, on their link.
pub fn is_host(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => {
            let [first, ..] = ip.octets();
            first != 0 && first != 127 && first < 224
        }
        IpAddr::V6(ip) => {
            !(ip.is_multicast() || ip.is_unspecified() || ip.is_loopback() || ip.to_ipv4_mapped().is_some())
        }
    }
}

/// Multicast or limited broadcast.
fn is_group(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.is_multicast() || ip.is_broadcast(),
        IpAddr::V6(ip) => ip.is_multicast(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(source: &str, destination: &str) -> Result<(), DropReason> {
        forwardable(source.parse().unwrap(), destination.parse().unwrap())
    }

    #[test]
    fn ordinary_addresses_are_forwarded() {
        for (source, destination) in [
            ("10.0.0.1", "223.255.255.254"),
            ("1.0.0.0", "126.255.255.255"),
            ("128.0.0.1", "169.253.0.1"),
            ("2001:db8::1", "fd00::1"),
            ("fec0::1", "64:ff9b::10.0.0.1"),
        ] {
            assert_eq!(check(source, destination), Ok(()), "{source} → {destination}");
        }
    }

    /// RFC 1812 section 5.3.7, RFC 3927 section 2.7, RFC 4291 sections 2.5.2, 2.5.3, 2.5.5.2 and 2.5.6.
    #[test]
    fn martians_are_never_forwarded() {
        let (v4, v6) = ("10.0.0.1", "2001:db8::1");
        for martian in
            ["0.0.0.0", "0.1.2.3", "127.0.0.1", "127.9.9.9", "169.254.1.1", "240.0.0.1", "254.0.0.1"]
        {
            assert_eq!(check(martian, v4), Err(DropReason::IpAddress), "from {martian}");
            assert_eq!(check(v4, martian), Err(DropReason::IpAddress), "to {martian}");
        }
        for martian in ["::", "::1", "fe80::1", "febf::1", "::ffff:10.0.0.1"] {
            assert_eq!(check(martian, v6), Err(DropReason::IpAddress), "from {martian}");
            assert_eq!(check(v6, martian), Err(DropReason::IpAddress), "to {martian}");
        }
        for group in ["224.0.0.1", "239.1.2.3", "255.255.255.255"] {
            assert_eq!(check(group, v4), Err(DropReason::IpAddress), "from {group}");
            assert_eq!(check(v4, group), Err(DropReason::MulticastNotRouted), "to {group}");
        }
        assert_eq!(check("ff0e::1", v6), Err(DropReason::IpAddress));
        assert_eq!(check(v6, "ff0e::1"), Err(DropReason::MulticastNotRouted));
    }
}
