//! What rules match: protocols with ports, flags and types; prefixes of both families.

use crate::codes;
use crate::model::Match;
use crate::sink::{At, Sink, error, warning};

const ICMP: u8 = 1;
const TCP: u8 = 6;
const UDP: u8 = 17;
const ICMPV6: u8 = 58;
const SCTP: u8 = 132;

/// Names of the keys of one kind of rule.
pub(super) struct Keys<'a> {
    pub(super) protocol: &'a str,
    pub(super) from: &'a str,
    pub(super) to: &'a str,
}

/// Checks what a rule at `path` matches.
pub(super) fn validate(matches: &Match, keys: &Keys<'_>, path: &[String], sink: &mut Sink<'_>) {
    let at = |key: &str| [path, &[key.to_owned()]].concat();
    if sink.is_refused(&at(keys.protocol)) {
        return;
    }
    let protocol = matches.protocol;
    let how = |wanted: &str| match protocol {
        Some(_) => format!("the rule's protocol is another: give {wanted}"),
        None => format!("give `{} = {wanted}`", keys.protocol),
    };
    for (key, ranges) in [("from-port", &matches.from_ports), ("to-port", &matches.to_ports)] {
        if !ranges.is_empty() && !matches!(protocol, None | Some(TCP | UDP | SCTP)) {
            let finding =
                error(codes::PORTS_WITHOUT_PROTOCOL, format!("`{key}` needs a protocol that has ports"))
                    .also(&at(keys.protocol), At::Value, "the protocol")
                    .hint(how("\"tcp\", \"udp\" or \"sctp\""));
            sink.report(&at(key), At::Key, finding);
        }
    }
    if matches.tcp_flags.is_some() && protocol != Some(TCP) {
        let finding =
            error(codes::FLAGS_WITHOUT_TCP, "`tcp-flags` needs the protocol `tcp`").hint(how("\"tcp\""));
        sink.report(&at("tcp-flags"), At::Key, finding);
    }
    if !matches.icmp_types.is_empty() && !matches!(protocol, Some(ICMP | ICMPV6)) {
        let finding = error(codes::TYPE_WITHOUT_ICMP, "`icmp-type` needs the protocol `icmp` or `icmp6`")
            .hint(how("\"icmp\" or \"icmp6\""));
        sink.report(&at("icmp-type"), At::Key, finding);
    }
    families(matches, keys, path, sink);
}

/// Warns about rules that no packet can match, because its addresses would be of two families.
fn families(matches: &Match, keys: &Keys<'_>, path: &[String], sink: &mut Sink<'_>) {
    let at = |key: &str| [path, &[key.to_owned()]].concat();
    let has = |list: &[ipnet::IpNet], v4: bool| {
        list.is_empty() || list.iter().any(|net| net.addr().is_ipv4() == v4)
    };
    let possible = |v4: bool| has(&matches.from, v4) && has(&matches.to, v4);
    if !possible(true) && !possible(false) {
        let message = format!("no packet matches: `{}` and `{}` are of two families", keys.from, keys.to);
        let finding =
            warning(codes::NEVER_MATCHES, message).also(&at(keys.from), At::Key, format!("`{}`", keys.from));
        sink.report(&at(keys.to), At::Key, finding);
        return;
    }
    let wanted = match matches.protocol {
        Some(ICMP) => true,
        Some(ICMPV6) => false,
        _ => return,
    };
    if !possible(wanted) {
        let (protocol, other) = if wanted { ("icmp", "icmp6") } else { ("icmp6", "icmp") };
        let key = if has(&matches.from, wanted) { keys.to } else { keys.from };
        let finding =
            warning(codes::NEVER_MATCHES, format!("no packet matches: `{protocol}` is not of that family"))
                .hint(format!("did you mean `{other}`?"));
        sink.report(&at(key), At::Key, finding);
    }
}
