//! The values that a configuration writes as text: addresses, prefixes, port ranges, flags, rates, times.

mod matching;
mod pool;
mod quantity;

use std::net::IpAddr;

use ipnet::IpNet;

use crate::MacAddress;
use crate::codes::{self, Code};
pub(crate) use matching::{dscp, port_range, protocol, render_tcp_flags, tcp_flags};
pub(crate) use pool::{Pool, ipv4, pool};
pub(crate) use quantity::{Burst, burst, duration, rate, render_duration, render_rate};

/// Why a text is not what the key takes.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Bad {
    pub(crate) code: &'static Code,
    pub(crate) message: String,
    pub(crate) hint: Option<String>,
}

impl Bad {
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self { code: codes::BAD_VALUE, message: message.into(), hint: None }
    }

    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

pub(crate) type Parsed<T> = Result<T, Bad>;

/// An IP address without a prefix length.
pub(crate) fn ip(text: &str) -> Parsed<IpAddr> {
    text.parse().map_err(|_| {
        let bad = Bad::new(format!("`{text}` is not an IP address"));
        match text.parse::<IpNet>() {
            Ok(net) => bad.hint(format!("leave the prefix length out: `{}`", net.addr())),
            Err(_) => bad,
        }
    })
}

/// An address with its prefix length; host bits are the point of it.
pub(crate) fn address(text: &str) -> Parsed<IpNet> {
    text.parse().map_err(|_| {
        let bad = Bad::new(format!("`{text}` is not an address with a prefix length"));
        match text.parse::<IpAddr>() {
            Ok(IpAddr::V4(_)) => bad.hint(format!("give the prefix length too, such as `{text}/24`")),
            Ok(IpAddr::V6(_)) => bad.hint(format!("give the prefix length too, such as `{text}/64`")),
            Err(_) => bad.hint("such as `10.1.0.1/24` or `2001:db8::1/64`"),
        }
    })
}

/// A prefix: no bit is set beyond its length.
pub(crate) fn prefix(text: &str) -> Parsed<IpNet> {
    let Ok(net) = text.parse::<IpNet>() else {
        let bad = Bad::new(format!("`{text}` is not a prefix"));
        return Err(match text.parse::<IpAddr>() {
            Ok(IpAddr::V4(_)) => bad.hint(format!("for this one host write `{text}/32`")),
            Ok(IpAddr::V6(_)) => bad.hint(format!("for this one host write `{text}/128`")),
            Err(_) => bad.hint("such as `10.0.0.0/8` or `2001:db8::/32`"),
        });
    };
    if net.addr() != net.network() {
        let length = net.prefix_len();
        return Err(Bad {
            code: codes::HOST_BITS,
            message: format!("`{text}` has bits set beyond its length of {length}"),
            hint: Some(format!("the prefix is `{}`", net.trunc())),
        });
    }
    Ok(net)
}

/// A MAC address of one station.
pub(crate) fn mac(text: &str) -> Parsed<MacAddress> {
    let mac: MacAddress = text
        .parse()
        .map_err(|error| Bad::new(format!("`{text}` is not a MAC address")).hint(format!("{error}")))?;
    let kind = match mac {
        MacAddress([0, 0, 0, 0, 0, 0]) => "the zero address",
        mac if mac.is_group() => "a group address",
        _ => return Ok(mac),
    };
    Err(Bad {
        code: codes::BAD_MAC,
        message: format!("`{text}` is {kind}, not the address of one station"),
        hint: Some(
            "the first byte of a station's address is even; `02:…` is locally administered".to_owned(),
        ),
    })
}

/// A network device, by its name, PCI address or environment variable.
pub(crate) fn device(text: &str) -> Parsed<()> {
    crate::device::read(text).map(drop)
}

/// A UUID (RFC 9562, section 4): 8-4-4-4-12 hexadecimal digits.
pub(crate) fn uuid(text: &str) -> Parsed<()> {
    let lengths = text.split('-').map(str::len);
    if lengths.eq([8, 4, 4, 4, 12]) && text.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-') {
        return Ok(());
    }
    Err(Bad::new(format!("`{text}` is not a UUID"))
        .hint("hexadecimal digits as in `3b6ff2a5-77c0-4b16-8b1e-2f6c4f2a9d10`"))
}

/// What a `[node]` section is for: a node's name (RFC 1123), or a label `key=value`, as Kubernetes writes them.
pub(crate) fn node(text: &str) -> Parsed<()> {
    let letters = |part: &str, more: &str| {
        part.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c) || more.contains(c))
    };
    let valid = match text.split_once('=') {
        Some((key, value)) => {
            (1..=317).contains(&key.len()) && letters(key, "/") && value.len() <= 63 && letters(value, "")
        }
        None => (1..=253).contains(&text.len()) && letters(text, ""),
    };
    if valid {
        return Ok(());
    }
    Err(Bad {
        code: codes::BAD_NAME,
        message: format!("`{text}` is neither the name nor a label of a node"),
        hint: None,
    }
    .hint("such as `[node.\"worker-1.example.com\"]` or `[node.\"topology.kubernetes.io/zone=west\"]`"))
}

/// A name of a port, VRF, bridge, tunnel, cross-connect, service or chain.
pub(crate) fn name(text: &str) -> Parsed<()> {
    let letters = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
    if (1..=63).contains(&text.len()) && text.bytes().all(letters) {
        return Ok(());
    }
    let bad = Bad { code: codes::BAD_NAME, message: format!("`{text}` cannot be a name"), hint: None };
    Err(if text.contains('.') {
        bad.hint("a dot separates a port from its VLAN: write `[port.<name>.vlan.<id>]` for a VLAN of a port")
    } else {
        bad.hint("1 to 63 letters, digits, `-` and `_`")
    })
}

/// The candidate nearest to `word`, if it is near enough to be what was meant.
pub(crate) fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // Longer texts are no typos; bounding them bounds the time too.
    if word.len() > 64 {
        return None;
    }
    let length = word.chars().count();
    let limit = (length / 3).clamp(1, 3);
    candidates
        .into_iter()
        .filter(|candidate| candidate.chars().count().abs_diff(length) <= limit)
        .map(|candidate| (distance(word, candidate), candidate))
        .filter(|&(distance, candidate)| distance <= limit && distance < candidate.chars().count().max(1))
        .min_by_key(|&(distance, _)| distance)
        .map(|(_, candidate)| candidate)
}

/// Levenshtein distance in which swapping two neighbouring characters counts as one edit.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut before: Vec<usize> = Vec::new();
    let mut above: Vec<usize> = (0..=b.len()).collect();
    for (i, ca) in a.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, cb) in b.iter().enumerate() {
            let get = |row: &[usize], at: usize| row.get(at).copied().unwrap_or(usize::MAX - 1);
            let mut best =
                (get(&above, j) + usize::from(ca != cb)).min(get(&above, j + 1) + 1).min(get(&row, j) + 1);
            if i > 0 && j > 0 && a.get(i - 1) == Some(cb) && b.get(j - 1) == Some(ca) {
                best = best.min(get(&before, j - 1) + 1);
            }
            row.push(best);
        }
        before = std::mem::replace(&mut above, row);
    }
    above.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_with_host_bits_is_refused_with_the_corrected_one() {
        let bad = prefix("10.1.2.3/16").unwrap_err();
        assert_eq!(bad.code, codes::HOST_BITS);
        assert_eq!(bad.hint.as_deref(), Some("the prefix is `10.1.0.0/16`"));
        assert!(prefix("2001:db8::/32").is_ok());
        assert!(prefix("0.0.0.0/0").is_ok());
    }

    #[test]
    fn group_and_zero_addresses_are_no_station() {
        assert_eq!(mac("01:00:5e:00:00:01").unwrap_err().code, codes::BAD_MAC);
        assert_eq!(mac("ff:ff:ff:ff:ff:ff").unwrap_err().code, codes::BAD_MAC);
        assert_eq!(mac("00:00:00:00:00:00").unwrap_err().code, codes::BAD_MAC);
        assert_eq!(mac("02:00:00:00:00:01").unwrap(), MacAddress([2, 0, 0, 0, 0, 1]));
    }

    #[test]
    fn the_nearest_name_is_found_and_a_far_one_is_not() {
        assert_eq!(nearest("uplnik", ["uplink", "pods"]), Some("uplink"));
        assert_eq!(nearest("mtuu", ["mac", "mtu"]), Some("mtu"));
        assert_eq!(nearest("zebra", ["mac", "mtu"]), None);
        assert_eq!(nearest("x", ["a", "b"]), None, "one letter is like any other");
    }

    #[test]
    fn device_names_follow_linux() {
        assert!(device("eth1").is_ok());
        assert!(device("eth1.100").is_ok());
        assert!(device("a-device-name-16").is_err());
        assert!(device("a/b").is_err());
        assert!(device("pci:0000:3b:02.1").is_ok());
    }

    #[test]
    fn a_uuid_has_five_groups_of_digits() {
        assert!(uuid("3b6ff2a5-77c0-4b16-8b1e-2f6c4f2a9d10").is_ok());
        for bad in
            ["", "3b6ff2a5", "3b6ff2a5-77c0-4b16-8b1e-2f6c4f2a9d1", "zb6ff2a5-77c0-4b16-8b1e-2f6c4f2a9d10"]
        {
            assert!(uuid(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_node_is_a_host_name_or_a_label() {
        for good in ["worker-1", "worker-1.example.com", "role=router", "example.com/rack=", "a.b/c=D_1"] {
            assert!(node(good).is_ok(), "{good}");
        }
        for bad in ["", "a b", "=x", "a/b", "k=a/b", "k=v=w"] {
            assert!(node(bad).is_err(), "{bad}");
        }
    }
}
