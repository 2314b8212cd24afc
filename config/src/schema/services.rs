//! The sections of service functions, chains and the classifier.

use super::keys::*;
use super::nat::NAT;
use super::{Form, Kind, Need, Ref, Rule, Table};

pub(super) static SERVICE_TABLE: Table = Table {
    title: "[service.<name>]",
    doc: "A service function; its kind is a table in it.",
    keys: &[
        key("firewall", Kind::Table(&FIREWALL), Need::Required, "A stateful firewall."),
        key("policer", Kind::Table(&POLICER), Need::Required, "A policer."),
        key("nat", Kind::Table(&NAT), Need::Required, "A translator of IPv4 addresses and ports."),
    ],
    rules: &[
        Rule::AtLeastOne(&["firewall", "policer", "nat"]),
        Rule::AtMostOne(&["firewall", "policer", "nat"]),
    ],
};

static FIREWALL: Table = Table {
    title: "[service.<name>.firewall]",
    doc: "A stateful firewall: rules are asked for the first packet of a connection; replies and related ICMP errors pass by its session.",
    keys: &[
        key(
            "default",
            Kind::Word(&["allow", "drop", "deny", "reject"]),
            Need::Default("\"drop\""),
            "What becomes of a connection that no rule matches. \"deny\" is the same as \"drop\"; \"reject\" answers with a TCP reset or an ICMP error.",
        ),
        key(
            "tcp-pickup",
            Kind::Boolean,
            Need::Default("false"),
            "Whether a TCP connection may be picked up in mid-stream, at a packet without SYN.",
        ),
        key("rules", many(&FIREWALL_RULE_KIND), Need::Default("[]"), "Ordered rules, the first match wins."),
    ],
    rules: &[],
};

static FIREWALL_RULE_KIND: Kind = Kind::Table(&FIREWALL_RULE);

static FIREWALL_RULE: Table = Table {
    title: "firewall rules = [{ … }]",
    doc: "A rule is an action with its protocol, and what else to match: `{ allow = \"tcp\", to-port = 443 }`.",
    keys: &[
        key("allow", PROTOCOL, Need::Required, "Let connections of this protocol pass."),
        key("deny", PROTOCOL, Need::Required, "Drop them silently."),
        key(
            "reject",
            PROTOCOL,
            Need::Required,
            "Refuse them with a TCP reset or an ICMP administratively-prohibited error.",
        ),
        FROM,
        TO,
        FROM_PORT,
        TO_PORT,
        DSCPS,
        TCP_FLAGS,
        ICMP_TYPES,
    ],
    rules: &[Rule::AtLeastOne(&["allow", "deny", "reject"]), Rule::AtMostOne(&["allow", "deny", "reject"])],
};

static POLICER: Table = Table {
    title: "[service.<name>.policer]",
    doc: "Token buckets. A packet that finds too few tokens is dropped.",
    keys: &[key(
        "rules",
        Kind::List { of: &POLICER_RULE_KIND, min: 1, max: usize::MAX },
        Need::Required,
        "Ordered rules, the first match wins; what no rule matches is not policed.",
    )],
    rules: &[],
};

static POLICER_RULE_KIND: Kind = Kind::Table(&POLICER_RULE);

static POLICER_RULE: Table = Table {
    title: "policer rules = [{ … }]",
    doc: "A rule is a rate and what it is about: `{ rate = \"10Mbit/s\", protocol = \"udp\" }`.",
    keys: &[
        key(
            "rate",
            Kind::Text(Form::Rate),
            Need::Required,
            "Bits of L3 packets a second (`bit/s`, `bps` or `bit`) or packets a second (`pps` or `p/s`), with `k`, `M` or `G` for powers of 1000.",
        ),
        key(
            "burst",
            Kind::Either(&[Kind::Integer { min: 1, max: i64::MAX }, Kind::Text(Form::Burst)]),
            Need::Optional("100 ms of the rate, at least 15000 bytes or 10 packets"),
            "The bucket's depth, in bytes or packets as the rate is in bits or packets: a number, or \"64KB\" (1000), \"64KiB\" (1024), \"100 packets\".",
        ),
        key(
            "per",
            Kind::Word(&["rule", "source"]),
            Need::Default("\"rule\""),
            "One bucket for all that the rule matches, or one for each source address (of a session's first packet).",
        ),
        MATCH_PROTOCOL,
        FROM,
        TO,
        FROM_PORT,
        TO_PORT,
        DSCPS,
        TCP_FLAGS,
        ICMP_TYPES,
    ],
    rules: &[],
};

pub(super) static ATTACHED_HOP: Table = Table {
    title: "[hop.<name>]",
    doc: "Something outside that the packets of a chain go through, as a bump in the wire: a container or a virtual machine behind ports of weir. A hop is in one chain, once, and its interfaces serve nothing else: they have no `vrf`, `bridge` or `addresses`. Services and hops share one name space.",
    keys: &[
        key(
            "attach",
            Kind::OneOrMany(&ATTACHMENT),
            Need::Required,
            "The interfaces, ports or `<port>.<vid>`: two, of which packets in the chain's direction go out by the first and come back by the second, replies the other way round; or one, by which all packets go out and come back.",
        ),
        key(
            "fail",
            Kind::Word(&["closed", "open"]),
            Need::Default("\"closed\""),
            "What becomes of packets while a port of the hop is gone or has no carrier: \"closed\" drops them (`hop_down`), \"open\" skips the hop.",
        ),
    ],
    rules: &[],
};

pub(super) static CHAIN: Table = Table {
    title: "[chain.<name>]",
    doc: "An ordered list of service functions and attached hops.",
    keys: &[key(
        "hops",
        Kind::List { of: &HOP, min: 1, max: 64 },
        Need::Required,
        "Services and hops in forward order; replies take them in reverse. At most 4 of them may be policers.",
    )],
    rules: &[],
};

pub(super) static CLASSIFY: Table = Table {
    title: "[[classify]]",
    doc: "An ordered rule that sends new flows into a chain; the first match wins. Packets to weir's own addresses are not classified.",
    keys: &[
        key(
            "from",
            Kind::OneOrMany(&SCOPE),
            Need::Optional("matches all"),
            "Where the packet came in: \"port.<name>\", \"port.<name>.<vid>\", \"tunnel.<name>\", \"vrf.<name>\" or \"bridge.<name>\", or a list.",
        ),
        MATCH_PROTOCOL,
        FROM_PREFIX,
        TO_PREFIX,
        FROM_PORT,
        TO_PORT,
        DSCPS,
        TCP_FLAGS,
        ICMP_TYPES,
        key("chain", Kind::Ref(Ref::Chain), Need::Required, "The chain, or \"none\" to pass all chains by."),
    ],
    rules: &[],
};
