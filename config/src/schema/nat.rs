//! The section of address translation.

use super::keys::*;
use super::{Form, Kind, Need, Table};

pub(super) static NAT: Table = Table {
    title: "[service.<name>.nat]",
    doc: "Translates IPv4 addresses and ports: of the sources of connections (`snat`), of their destinations (`dnat`), or both. Replies and ICMP errors are translated back.",
    keys: &[
        key(
            "snat",
            Kind::OneOrMany(&SNAT_KIND),
            Need::Default("[]"),
            "Ordered rules for sources, the first match wins; what no rule matches keeps its source.",
        ),
        key(
            "dnat",
            many(&DNAT_KIND),
            Need::Default("[]"),
            "Ordered rules for destinations, the first match wins; what no rule matches keeps its destination.",
        ),
        key(
            "filtering",
            Kind::Word(&["endpoint-independent", "address-dependent", "address-and-port-dependent"]),
            Need::Default("\"address-dependent\""),
            "Who may send to a binding from outside (RFC 4787 section 5): anybody, hosts that its owner has sent to, or only addresses and ports that it has sent to.",
        ),
        key(
            "tcp-established-timeout",
            Kind::Text(Form::Duration),
            Need::Default("\"7440s\""),
            "How long an established TCP connection lives without traffic (RFC 5382 REQ-5: at least 2 h 4 min).",
        ),
        key(
            "tcp-transitory-timeout",
            Kind::Text(Form::Duration),
            Need::Default("\"240s\""),
            "How long a TCP connection that opens, closes or was reset lives without traffic (RFC 5382 REQ-5: at least 4 min).",
        ),
        key(
            "udp-timeout",
            Kind::Text(Form::Duration),
            Need::Default("\"300s\""),
            "How long a UDP session lives without traffic (RFC 4787 REQ-5: at least 2 min).",
        ),
        key(
            "icmp-timeout",
            Kind::Text(Form::Duration),
            Need::Default("\"60s\""),
            "How long an ICMP query lives without traffic (RFC 5508 REQ-2: at least 60 s).",
        ),
        key(
            "ports-per-host",
            Kind::Integer { min: 1, max: 1 << 20 },
            Need::Optional("its address's ports and `limits.nat-bindings` bound them"),
            "The most bindings of one host behind the translator.",
        ),
    ],
    rules: &[super::Rule::AtLeastOne(&["snat", "dnat"])],
};

static SNAT_KIND: Kind = Kind::Table(&SNAT);
static DNAT_KIND: Kind = Kind::Table(&DNAT);
static POOL: Kind = Kind::Text(Form::Pool);

static SNAT: Table = Table {
    title: "snat = [{ … }]",
    doc: "What sources become, and of which connections: `{ from = \"10.1.0.0/16\", to = \"203.0.113.7\" }`.",
    keys: &[
        key(
            "to",
            Kind::OneOrMany(&POOL),
            Need::Required,
            "The external addresses: an address, a prefix, a range, or a list of those; or \"masquerade\": the address of the interface that a packet leaves by; or \"none\": the source stays.",
        ),
        key(
            "ports",
            PORT_RANGE,
            Need::Default("\"1024-65535\""),
            "The external ports, and identifiers of ICMP queries, that are handed out.",
        ),
        MATCH_PROTOCOL,
        FROM,
        TO_PREFIX,
        FROM_PORT,
        TO_PORT,
    ],
    rules: &[],
};

static DNAT: Table = Table {
    title: "dnat = [{ … }]",
    doc: "Sends connections to an address, or to ports of it, to another host: `{ protocol = \"tcp\", to = \"203.0.113.7\", to-port = 8443, forward = \"10.1.0.9\", forward-port = 443 }`.",
    keys: &[
        MATCH_PROTOCOL,
        FROM,
        key("to", Kind::Text(Form::Ipv4), Need::Required, "The address that connections come to."),
        key(
            "to-port",
            PORT_RANGE,
            Need::Optional("all"),
            "The port, or the range of ports, that they come to. The protocol must be `tcp`, `udp` or `sctp`.",
        ),
        key("forward", Kind::Text(Form::Ipv4), Need::Required, "The host that gets them."),
        key(
            "forward-port",
            PORT_RANGE,
            Need::Optional("the port that they came to"),
            "Its port, or a range as long as `to-port`: the n-th of the one goes to the n-th of the other.",
        ),
    ],
    rules: &[],
};

const PORT_RANGE: Kind = Kind::Either(&[Kind::Integer { min: 0, max: 65_535 }, Kind::Text(Form::PortRange)]);
