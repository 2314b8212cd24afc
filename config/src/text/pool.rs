//! Pools of IPv4 addresses as text.

use std::net::{IpAddr, Ipv4Addr};

use ipnet::{IpNet, Ipv4Net};

use super::{Bad, Parsed, prefix};
use crate::model::AddressRange;

/// What sources are translated to, as written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pool {
    /// `203.0.113.7`, `203.0.113.0/28`, `203.0.113.7-203.0.113.9`.
    Range(AddressRange),
    /// `masquerade`.
    Masquerade,
    /// `none`.
    None,
}

/// An IPv4 address without a prefix length.
pub(crate) fn ipv4(text: &str) -> Parsed<Ipv4Addr> {
    match super::ip(text)? {
        IpAddr::V4(ip) => Ok(ip),
        IpAddr::V6(_) => Err(v6(text)),
    }
}

/// An address, a prefix, a range, or one of the words.
pub(crate) fn pool(text: &str) -> Parsed<Pool> {
    match text {
        "masquerade" => return Ok(Pool::Masquerade),
        "none" => return Ok(Pool::None),
        _ => {}
    }
    if text.contains('/') {
        return match prefix(text)? {
            IpNet::V4(net) => Ok(Pool::Range(Ipv4Net::into(net))),
            IpNet::V6(_) => Err(v6(text)),
        };
    }
    let Some((first, last)) = text.split_once('-') else {
        return ipv4(text)
            .map(|ip| Pool::Range(AddressRange::one(ip)))
            .map_err(|bad| if text.parse::<IpAddr>().is_ok() { bad } else { neither(text) });
    };
    let (first, last) = (ipv4(first.trim())?, ipv4(last.trim())?);
    if first > last {
        return Err(Bad::new(format!("the range of addresses `{text}` is empty"))
            .hint(format!("the smaller address comes first: \"{last}-{first}\"")));
    }
    Ok(Pool::Range(AddressRange { first, last }))
}

fn v6(text: &str) -> Bad {
    Bad::new(format!("`{text}` is not IPv4")).hint("only IPv4 is translated")
}

fn neither(text: &str) -> Bad {
    let bad = Bad::new(format!("`{text}` is neither addresses nor a word that is known here"));
    match super::nearest(text, ["masquerade", "none"]) {
        Some(near) => bad.hint(format!("did you mean \"{near}\"?")),
        None => bad.hint(
            "such as \"203.0.113.7\", \"203.0.113.0/28\", \"203.0.113.7-203.0.113.9\", \"masquerade\" or \"none\"",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(text: &str) -> (u64, String) {
        match pool(text).unwrap() {
            Pool::Range(range) => (range.size(), range.to_string()),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_pool_is_an_address_a_prefix_or_a_range() {
        assert_eq!(range("203.0.113.7"), (1, "203.0.113.7".to_owned()));
        assert_eq!(range("203.0.113.0/28"), (16, "203.0.113.0-203.0.113.15".to_owned()));
        assert_eq!(range("203.0.113.7 - 203.0.113.9"), (3, "203.0.113.7-203.0.113.9".to_owned()));
        assert_eq!(range("0.0.0.0/0").0, 1 << 32);
        assert_eq!(pool("masquerade"), Ok(Pool::Masquerade));
        assert_eq!(pool("none"), Ok(Pool::None));
    }

    #[test]
    fn what_is_no_pool_is_refused_with_what_was_meant() {
        let hint = |text: &str| pool(text).unwrap_err().hint.unwrap();
        assert_eq!(hint("masqerade"), "did you mean \"masquerade\"?");
        assert_eq!(
            hint("203.0.113.9-203.0.113.7"),
            "the smaller address comes first: \"203.0.113.7-203.0.113.9\""
        );
        assert_eq!(hint("203.0.113.7/28"), "the prefix is `203.0.113.0/28`");
        assert_eq!(hint("2001:db8::1"), "only IPv4 is translated");
        assert_eq!(hint("2001:db8::/64"), "only IPv4 is translated");
    }
}
