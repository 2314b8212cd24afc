//! What rules match: protocols, port ranges, DSCP values, TCP flags.

use super::{Bad, Parsed, nearest};
use crate::model::{PortRange, TcpFlagsMatch};

/// IP protocols by name (IANA protocol numbers).
static PROTOCOLS: &[(&str, u8)] =
    &[("icmp", 1), ("tcp", 6), ("udp", 17), ("gre", 47), ("esp", 50), ("icmp6", 58), ("sctp", 132)];

/// DSCP values by name: RFC 2474 (cs), 2597 (af), 3246 (ef), 5865 (va), 8622 (le).
static DSCP_NAMES: &[(&str, u8)] = &[
    ("cs0", 0),
    ("le", 1),
    ("cs1", 8),
    ("af11", 10),
    ("af12", 12),
    ("af13", 14),
    ("cs2", 16),
    ("af21", 18),
    ("af22", 20),
    ("af23", 22),
    ("cs3", 24),
    ("af31", 26),
    ("af32", 28),
    ("af33", 30),
    ("cs4", 32),
    ("af41", 34),
    ("af42", 36),
    ("af43", 38),
    ("cs5", 40),
    ("va", 44),
    ("ef", 46),
    ("cs6", 48),
    ("cs7", 56),
];

/// Bits of the TCP header's flags (RFC 9293 section 3.1).
static TCP_FLAGS: &[(&str, u8)] = &[
    ("fin", 0x01),
    ("syn", 0x02),
    ("rst", 0x04),
    ("psh", 0x08),
    ("ack", 0x10),
    ("urg", 0x20),
    ("ece", 0x40),
    ("cwr", 0x80),
];

fn lookup(table: &'static [(&'static str, u8)], name: &str) -> Option<u8> {
    table.iter().find(|(known, _)| *known == name).map(|&(_, number)| number)
}

fn unknown(what: &str, name: &str, table: &'static [(&'static str, u8)]) -> Bad {
    let bad = Bad::new(format!("`{name}` is no {what}"));
    match nearest(name, table.iter().map(|(known, _)| *known)) {
        Some(near) => bad.hint(format!("did you mean `{near}`?")),
        None => {
            let names: Vec<_> = table.iter().map(|(known, _)| *known).collect();
            bad.hint(format!("a number, or one of {}", names.join(", ")))
        }
    }
}

/// A protocol by name; `any` is none.
pub(crate) fn protocol(text: &str) -> Parsed<Option<u8>> {
    match text {
        "any" => Ok(None),
        name => lookup(PROTOCOLS, name).map(Some).ok_or_else(|| unknown("protocol", name, PROTOCOLS)),
    }
}

/// A DSCP value by name.
pub(crate) fn dscp(text: &str) -> Parsed<u8> {
    lookup(DSCP_NAMES, text).ok_or_else(|| unknown("DSCP value", text, DSCP_NAMES))
}

/// `443` or `1000-2000`.
pub(crate) fn port_range(text: &str) -> Parsed<PortRange> {
    let number = |part: &str| {
        part.trim().parse::<u16>().map_err(|_| {
            Bad::new(format!("`{text}` is not a port or a range of ports"))
                .hint("such as 443 or \"1000-2000\"; ports go up to 65535")
        })
    };
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (number(first)?, number(last)?);
    if first > last {
        return Err(Bad::new(format!("the range of ports `{text}` is empty"))
            .hint(format!("the smaller port comes first: \"{last}-{first}\"")));
    }
    Ok(PortRange { first, last })
}

/// `syn` or `syn,!ack`: flags that must be set, and with `!` flags that must not.
pub(crate) fn tcp_flags(text: &str) -> Parsed<TcpFlagsMatch> {
    let mut matched = TcpFlagsMatch { set: 0, mask: 0 };
    for part in text.split(',') {
        let part = part.trim();
        let (name, set) = part.strip_prefix('!').map_or((part, true), |name| (name, false));
        let bit = lookup(TCP_FLAGS, name).ok_or_else(|| {
            let bad = Bad::new(format!("`{name}` is no TCP flag"));
            match nearest(name, TCP_FLAGS.iter().map(|(known, _)| *known)) {
                Some(near) => bad.hint(format!("did you mean `{near}`?")),
                None => {
                    bad.hint("fin, syn, rst, psh, ack, urg, ece, cwr; `!` before a flag that must not be set")
                }
            }
        })?;
        if matched.mask & bit != 0 {
            return Err(Bad::new(format!("the TCP flag `{name}` is given twice")));
        }
        matched.mask |= bit;
        matched.set |= if set { bit } else { 0 };
    }
    Ok(matched)
}

/// Flags as [`tcp_flags`] reads them.
pub(crate) fn render_tcp_flags(matched: TcpFlagsMatch) -> String {
    let looked_at = TCP_FLAGS.iter().filter(|(_, bit)| matched.mask & bit != 0);
    let parts = looked_at
        .map(|(name, bit)| if matched.set & bit != 0 { (*name).to_owned() } else { format!("!{name}") });
    parts.collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_after_an_exclamation_mark_must_be_clear() {
        assert_eq!(tcp_flags("syn,!ack"), Ok(TcpFlagsMatch { set: 0x02, mask: 0x12 }));
        assert_eq!(tcp_flags("syn"), Ok(TcpFlagsMatch { set: 0x02, mask: 0x02 }));
        assert!(tcp_flags("syn,!syn").is_err());
        assert!(tcp_flags("").is_err());
    }

    #[test]
    fn a_range_backwards_is_refused_with_the_right_one() {
        assert_eq!(port_range("1000-2000"), Ok(PortRange { first: 1000, last: 2000 }));
        assert_eq!(port_range("443"), Ok(PortRange { first: 443, last: 443 }));
        let bad = port_range("2000-1000").unwrap_err();
        assert_eq!(bad.hint.as_deref(), Some("the smaller port comes first: \"1000-2000\""));
        assert!(port_range("65536").is_err());
        assert!(port_range("-1").is_err());
    }

    #[test]
    fn assured_forwarding_values_follow_rfc_2597() {
        for class in 1..=4u8 {
            for precedence in 1..=3u8 {
                assert_eq!(dscp(&format!("af{class}{precedence}")), Ok(class * 8 + precedence * 2));
            }
        }
    }
}
