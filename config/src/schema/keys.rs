//! Kinds and keys that several sections share.

use super::{Form, Key, Kind, Need, Ref};

pub(super) const fn key(name: &'static str, kind: Kind, need: Need, doc: &'static str) -> Key {
    Key { name, kind, need, doc }
}

pub(super) const fn many(of: &'static Kind) -> Kind {
    Kind::List { of, min: 0, max: usize::MAX }
}

pub(super) static IP: Kind = Kind::Text(Form::Ip);
pub(super) static ADDRESS: Kind = Kind::Text(Form::Address);
pub(super) static PREFIX: Kind = Kind::Text(Form::Prefix);
pub(super) static INTERFACE: Kind = Kind::Ref(Ref::Interface);
pub(super) static HOP: Kind = Kind::Ref(Ref::Hop);
pub(super) static ATTACHMENT: Kind = Kind::Ref(Ref::Attachment);
pub(super) static SCOPE: Kind = Kind::Ref(Ref::Scope);
pub(super) static CORE: Kind = Kind::Integer { min: 0, max: 4095 };

pub(super) static PORT: Kind =
    Kind::Either(&[Kind::Integer { min: 0, max: 65_535 }, Kind::Text(Form::PortRange)]);
static DSCP: Kind = Kind::Either(&[Kind::Integer { min: 0, max: 63 }, Kind::Text(Form::Dscp)]);
static ICMP_TYPE: Kind = Kind::Integer { min: 0, max: 255 };

/// A protocol, by number or name.
pub(super) const PROTOCOL: Kind =
    Kind::Either(&[Kind::Integer { min: 0, max: 255 }, Kind::Text(Form::Protocol)]);

const ALL: Need = Need::Optional("matches all");

pub(super) const VRF: Key = key(
    "vrf",
    Kind::Ref(Ref::Vrf),
    Need::Default("\"default\""),
    "The VRF of which it is a routed interface. The VRF `default` always exists.",
);
pub(super) const BRIDGE: Key = key(
    "bridge",
    Kind::Ref(Ref::Bridge),
    Need::Optional("it is in a VRF"),
    "The bridge domain of which it is a member, instead of a VRF.",
);
pub(super) const ADDRESSES: Key = key(
    "addresses",
    many(&ADDRESS),
    Need::Default("[]"),
    "Its own addresses with their prefix lengths; only in a VRF. They answer ping, ARP and ND, and their subnets are connected routes.",
);
pub(super) const FROM: Key = key("from", Kind::OneOrMany(&PREFIX), ALL, "Source prefixes.");
pub(super) const TO: Key = key("to", Kind::OneOrMany(&PREFIX), ALL, "Destination prefixes.");
pub(super) const FROM_PREFIX: Key = key("from-prefix", Kind::OneOrMany(&PREFIX), ALL, "Source prefixes.");
pub(super) const TO_PREFIX: Key = key("to-prefix", Kind::OneOrMany(&PREFIX), ALL, "Destination prefixes.");
pub(super) const FROM_PORT: Key = key(
    "from-port",
    Kind::OneOrMany(&PORT),
    ALL,
    "Source ports of TCP, UDP or SCTP: 443, \"1000-2000\" or a list. Without a protocol, it matches any of these three.",
);
pub(super) const TO_PORT: Key = key(
    "to-port",
    Kind::OneOrMany(&PORT),
    ALL,
    "Destination ports of TCP, UDP or SCTP: 443, \"1000-2000\" or a list. Without a protocol, it matches any of these three.",
);
pub(super) const DSCPS: Key = key(
    "dscp",
    Kind::OneOrMany(&DSCP),
    ALL,
    "DSCP values, by number or by name (`cs0`…`cs7`, `af11`…`af43`, `ef`, `va`, `le`).",
);
pub(super) const TCP_FLAGS: Key = key(
    "tcp-flags",
    Kind::Text(Form::TcpFlags),
    ALL,
    "TCP flags that must be set, and after `!` flags that must not: \"syn\" or \"syn,!ack\". The protocol must be `tcp`.",
);
pub(super) const ICMP_TYPES: Key = key(
    "icmp-type",
    Kind::OneOrMany(&ICMP_TYPE),
    ALL,
    "ICMP or ICMPv6 types by number. The protocol must be `icmp` or `icmp6`.",
);
pub(super) const MATCH_PROTOCOL: Key =
    key("protocol", PROTOCOL, Need::Optional("matches all"), "The IP protocol, by name or number.");
