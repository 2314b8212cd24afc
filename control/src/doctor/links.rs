//! What drivers tell over generic netlink: XDP features (the family `netdev`), channels and offloads (`ethtool`). Requests
//! and attributes as in linux/netdev.h, linux/ethtool_netlink.h and linux/genetlink.h.

use std::io;

use netlink_sys::protocols::NETLINK_GENERIC;
use netlink_sys::{Socket, SocketAddr};

const REQUEST: u16 = 1;
const ERROR: u16 = 2;
/// Type and flags of a message that asks for a family, and of one that tells it.
const CONTROLLER: u16 = 0x10;
const GET_FAMILY: u8 = 3;
const FAMILY_ID: u16 = 1;
const FAMILY_NAME: u16 = 2;

const DEVICE_GET: u8 = 1;
const DEVICE_IFINDEX: u16 = 1;
const DEVICE_XDP_FEATURES: u16 = 3;

const FEATURES_GET: u8 = 11;
const FEATURES_ACTIVE: u16 = 4;
const CHANNELS_GET: u8 = 17;
const CHANNELS_RX: u16 = 6;
const CHANNELS_COMBINED: u16 = 9;
const CHANNELS_RX_MAX: u16 = 2;
const CHANNELS_COMBINED_MAX: u16 = 5;
const HEADER: u16 = 1;
const HEADER_NAME: u16 = 2;
const NESTED: u16 = 0x8000;
const BITSET_BITS: u16 = 3;
const BIT_NAME: u16 = 2;
const BIT_VALUE: u16 = 3;
const BITSET_NO_MASK: u16 = 1;

/// Bits of `xdp-features`.
const BASIC: u64 = 1;
const ZERO_COPY: u64 = 8;

/// What a driver offers to XDP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct XdpFeatures {
    pub(super) native: bool,
    pub(super) zero_copy: bool,
}

/// Receive queues of a device: in use, and at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Channels {
    pub(super) now: u32,
    pub(super) most: u32,
}

/// What is asked about a device in the network namespace of this thread.
pub(super) struct Links {
    socket: Socket,
}

impl Links {
    pub(super) fn open() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_GENERIC)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        Ok(Self { socket })
    }

    /// XDP features of a device, if the kernel tells them (Linux 6.3).
    pub(super) fn xdp_features(&self, ifindex: u32) -> io::Result<XdpFeatures> {
        let attribute = attribute(DEVICE_IFINDEX, &ifindex.to_ne_bytes());
        let answer = self.ask(self.family("netdev")?, DEVICE_GET, &attribute)?;
        let bits = find(&answer, DEVICE_XDP_FEATURES)
            .and_then(|bytes| Some(u64::from_ne_bytes(bytes.try_into().ok()?)))
            .ok_or(io::ErrorKind::Unsupported)?;
        Ok(XdpFeatures { native: bits & BASIC != 0, zero_copy: bits & ZERO_COPY != 0 })
    }

    /// The offloads that are on, by the names that ethtool(8) uses.
    pub(super) fn offloads(&self, device: &str) -> io::Result<Vec<String>> {
        let answer = self.ethtool(FEATURES_GET, device)?;
        Ok(find(&answer, FEATURES_ACTIVE).map(set_bits).unwrap_or_default())
    }

    /// Receive queues.
    pub(super) fn channels(&self, device: &str) -> io::Result<Channels> {
        let answer = self.ethtool(CHANNELS_GET, device)?;
        let number = |kind| {
            let bytes = find(&answer, kind).and_then(|bytes| bytes.try_into().ok());
            bytes.map_or(0, u32::from_ne_bytes)
        };
        let (combined, most) = (number(CHANNELS_COMBINED), number(CHANNELS_COMBINED_MAX));
        Ok(Channels { now: number(CHANNELS_RX) + combined, most: number(CHANNELS_RX_MAX).max(most) })
    }

    fn ethtool(&self, command: u8, device: &str) -> io::Result<Vec<u8>> {
        let name = attribute(HEADER_NAME, &zero_terminated(device));
        self.ask(self.family("ethtool")?, command, &attribute(HEADER | NESTED, &name))
    }

    /// The number of a family of messages.
    fn family(&self, name: &str) -> io::Result<u16> {
        let answer = self.ask(CONTROLLER, GET_FAMILY, &attribute(FAMILY_NAME, &zero_terminated(name)))?;
        let id = find(&answer, FAMILY_ID).and_then(|bytes| bytes.try_into().ok());
        Ok(id.map(u16::from_ne_bytes).ok_or(io::ErrorKind::Unsupported)?)
    }

    /// Sends one request and returns the attributes of the answer.
    fn ask(&self, family: u16, command: u8, attributes: &[u8]) -> io::Result<Vec<u8>> {
        const HEADERS: usize = 20;
        let length = u32::try_from(HEADERS + attributes.len()).map_err(io::Error::other)?;
        let mut message = length.to_ne_bytes().to_vec();
        message.extend(family.to_ne_bytes());
        message.extend(REQUEST.to_ne_bytes());
        // Sequence and port: one request at a time, on a socket of its own.
        message.extend([0; 8]);
        message.extend([command, 1, 0, 0]);
        message.extend(attributes);
        self.socket.send(&message, 0)?;
        let (answer, _) = self.socket.recv_from_full()?;
        let field = |at: usize| answer.get(at..at + 4).and_then(|bytes| bytes.try_into().ok());
        let kind = answer.get(4..6).and_then(|bytes| bytes.try_into().ok()).map(u16::from_ne_bytes);
        if kind == Some(ERROR) {
            let code = field(16).map_or(0, i32::from_ne_bytes);
            return Err(io::Error::from_raw_os_error(-code));
        }
        let length = field(0).map_or(0, u32::from_ne_bytes) as usize;
        let attributes = answer.get(HEADERS..length.min(answer.len())).unwrap_or_default();
        Ok(attributes.to_vec())
    }
}

fn zero_terminated(text: &str) -> Vec<u8> {
    [text.as_bytes(), &[0]].concat()
}

/// One attribute, padded to four bytes.
fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let length = u16::try_from(4 + value.len()).unwrap_or(u16::MAX);
    let mut bytes = [length.to_ne_bytes(), kind.to_ne_bytes()].concat();
    bytes.extend(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

/// The attributes of a message or of another attribute: type without flags, and value.
fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let [a, b, c, d, ..] = *bytes else { return None };
        let length = usize::from(u16::from_ne_bytes([a, b]));
        let value = bytes.get(4..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((u16::from_ne_bytes([c, d]) & !(NESTED | 0x4000), value))
    })
}

fn find(bytes: &[u8], kind: u16) -> Option<&[u8]> {
    attributes(bytes).find(|(have, _)| *have == kind).map(|(_, value)| value)
}

/// The names of the bits that are set in a bit set with names.
fn set_bits(bitset: &[u8]) -> Vec<String> {
    let listed_are_set = find(bitset, BITSET_NO_MASK).is_some();
    let bits = find(bitset, BITSET_BITS).map(attributes).into_iter().flatten();
    let set = bits.filter(|(_, bit)| listed_are_set || find(bit, BIT_VALUE).is_some());
    let name = |bit| Some(String::from_utf8_lossy(find(bit, BIT_NAME)?).trim_end_matches('\0').to_owned());
    set.filter_map(|(_, bit)| name(bit)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_read_as_they_are_written_and_odd_bytes_end_the_list() {
        let bit = |name: &str| attribute(1, &attribute(BIT_NAME, &zero_terminated(name)));
        let on = attribute(1, &[attribute(BIT_NAME, b"rx-gro-hw\0"), attribute(BIT_VALUE, &[])].concat());
        let bits = attribute(BITSET_BITS | NESTED, &[bit("rx-lro"), on].concat());
        assert_eq!(set_bits(&bits), ["rx-gro-hw"]);
        let all = [attribute(BITSET_NO_MASK, &[]), bits].concat();
        assert_eq!(set_bits(&all), ["rx-lro", "rx-gro-hw"]);
        assert_eq!(attributes(&[200, 0, 1, 0, 9]).count(), 0);
        assert_eq!(attributes(&[2, 0, 1, 0]).count(), 0);
    }

    #[test]
    fn the_kernel_answers_about_the_loopback_device() {
        let links = Links::open().unwrap();
        // Every kernel with the family tells something, if only that lo does no XDP.
        match links.xdp_features(1) {
            Ok(features) => assert!(!features.zero_copy),
            Err(error) => assert!(links.family("netdev").is_err(), "{error}"),
        }
        assert!(links.offloads("lo").unwrap().iter().any(|name| name.starts_with("tx-")));
        assert!(links.offloads("no-such-device").is_err());
    }
}
