//! Every code that a diagnostic can have. Codes are stable: programs match on them.

/// A diagnostic's code and what it stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Code {
    /// The code as it is printed.
    pub name: &'static str,
    /// What it stands for, in one sentence.
    pub doc: &'static str,
}

macro_rules! codes {
    ($($constant:ident = $name:literal, $doc:literal;)*) => {
        $(pub(crate) const $constant: &Code = &Code { name: $name, doc: $doc };)*

        /// All codes, in the order of the documentation.
        pub static CODES: &[Code] = &[$(Code { name: $name, doc: $doc }),*];
    };
}

codes! {
    SYNTAX = "syntax", "The text is not TOML (or, on the socket, not JSON).";
    DUPLICATE_KEY = "duplicate-key", "A key or a table is given twice.";
    UNREADABLE = "unreadable", "The file cannot be read.";
    UNKNOWN_KEY = "unknown-key", "No key of that name exists at that place.";
    MISSING_KEY = "missing-key", "A key that must be given is absent.";
    CONFLICTING_KEYS = "conflicting-keys", "Two keys that exclude each other are both given.";
    WRONG_TYPE = "wrong-type", "The value has another type than the key takes.";
    OUT_OF_RANGE = "out-of-range", "A number or a list is larger or smaller than allowed.";
    UNKNOWN_WORD = "unknown-word", "The value is not one of the words that the key takes.";
    BAD_VALUE = "bad-value", "The value's text does not have the form that the key takes.";
    HOST_BITS = "host-bits", "A prefix has bits set beyond its length.";
    BAD_NAME = "bad-name", "A name has other characters than letters, digits, `-` and `_`, or is too long.";
    RESERVED_NAME = "reserved-name", "A name has a meaning of its own and cannot be given to something else.";
    UNKNOWN_REFERENCE = "unknown-reference", "A port, interface, VRF, bridge, tunnel, service, hop or chain that is referred to does not exist.";
    DUPLICATE_INTERFACE = "duplicate-interface", "A port and a tunnel have the same name.";
    DUPLICATE_DEVICE = "duplicate-device", "Two ports use the same device.";
    DUPLICATE_ADDRESS = "duplicate-address", "The same address is given twice in a VRF.";
    OVERLAPPING_ADDRESSES = "overlapping-addresses", "The subnets of two interfaces of a VRF overlap.";
    BAD_ADDRESS = "bad-address", "An address cannot be that of an interface or a VTEP.";
    BAD_MAC = "bad-mac", "A group address or the zero address is given as the MAC address of one station.";
    ADDRESSES_OUTSIDE_VRF = "addresses-outside-vrf", "An interface that is not in a VRF has addresses.";
    MTU_EXCEEDS_FRAME = "mtu-exceeds-frame", "Packets of that MTU do not fit into a frame.";
    MTU_BELOW_IPV6_MINIMUM = "mtu-below-ipv6-minimum", "An interface with IPv6 addresses has an MTU below 1280 (RFC 8200 section 5).";
    SHARED_PORT_IN_BRIDGE = "shared-port-in-bridge", "A port in shared mode is in a bridge or a cross-connect, or serves a hop, which needs every frame of its device.";
    DUPLICATE_VNI = "duplicate-vni", "Two tunnels have the same local VTEP address, UDP port and VNI.";
    FAMILY_MISMATCH = "family-mismatch", "IPv4 and IPv6 are mixed where both must be the same.";
    SEVERAL_REMOTES = "several-remotes", "A tunnel outside a bridge has several remote VTEPs.";
    REMOTE_IS_LOCAL = "remote-is-local", "A tunnel's remote VTEP is its own local address.";
    TUNNEL_LOOP = "tunnel-loop", "Routes lead a tunnel's outer packets back into the tunnel.";
    DUPLICATE_REMOTE = "duplicate-remote", "A tunnel names the same remote VTEP twice.";
    WRONG_VRF = "wrong-vrf", "A route or neighbour uses an interface that is not in its VRF.";
    GATEWAY_NOT_CONNECTED = "gateway-not-connected", "A gateway is on no subnet that is connected in its VRF.";
    GATEWAY_IS_OWN = "gateway-is-own", "A gateway is one of weir's own addresses.";
    BLACKHOLE_MULTIPATH = "blackhole-multipath", "A blackhole is mixed with next hops for the same prefix.";
    DUPLICATE_NEXT_HOP = "duplicate-next-hop", "A route has the same next hop twice.";
    DUPLICATE_NEIGHBOUR = "duplicate-neighbour", "A static neighbour is given twice.";
    NEIGHBOUR_NOT_CONNECTED = "neighbour-not-connected", "A static neighbour is on no subnet of its interface.";
    CROSS_CONNECT_END = "cross-connect-end", "An end of a cross-connect is used twice or belongs to a VRF or bridge.";
    TOO_MANY_POLICERS = "too-many-policers", "A chain has more policers than a program can meter.";
    REPEATED_HOP = "repeated-hop", "A chain names the same service or hop twice.";
    DUPLICATE_HOP = "duplicate-hop", "A service and a hop have the same name.";
    HOP_PORT = "hop-port", "An interface of a hop is used twice, or belongs to something else.";
    HOP_IN_TWO_CHAINS = "hop-in-two-chains", "An attached hop is in more than one chain.";
    HOP_OUTSIDE_VRF = "hop-outside-vrf", "Packets of more than one VRF, of a bridge, of a cross-connect or of a hop are sent into a chain with an attached hop.";
    TOO_MANY_TRANSLATORS = "too-many-translators", "A chain has more than one translator of addresses.";
    NAT_OUTSIDE_VRF = "nat-outside-vrf", "Bridged or cross-connected packets are sent into a chain that translates addresses.";
    NAT_PROTOCOL = "nat-protocol", "Sources of a protocol are translated that has no ports or identifiers.";
    BAD_POOL = "bad-pool", "A pool has an address that belongs to somebody else, or mixes addresses and words.";
    OVERLAPPING_POOLS = "overlapping-pools", "Two pools share some of their addresses and ports, but not all.";
    PORT_RANGES = "port-ranges", "Ports are not mapped one to one: a range is missing, or of another length.";
    POOL_NOT_CONNECTED = "pool-not-connected", "A pool's addresses are in no subnet of any interface (warning).";
    SHORT_TIMEOUT = "short-timeout", "A timeout is shorter than the standards ask for (warning).";
    PORTS_WITHOUT_PROTOCOL = "ports-without-protocol", "Ports are matched in a protocol that has none.";
    FLAGS_WITHOUT_TCP = "flags-without-tcp", "TCP flags are matched outside TCP.";
    TYPE_WITHOUT_ICMP = "type-without-icmp", "ICMP types are matched outside ICMP and ICMPv6.";
    BURST_UNIT = "burst-unit", "A burst in bytes is given for a rate in packets, or the other way round.";
    BURST_TOO_SMALL = "burst-too-small", "A full-sized packet never fits into the bucket (warning).";
    NEVER_MATCHES = "never-matches", "A rule can match no packet (warning).";
    UNREACHABLE_RULE = "unreachable-rule", "A rule stands behind one that matches everything (warning).";
    LOCAL_NOT_OWNED = "local-not-owned", "A tunnel's local address is on no port of its underlay VRF (warning).";
    TUNNEL_MTU = "tunnel-mtu", "A tunnel's MTU does not fit the underlay's (warning).";
    UNUSED = "unused", "Something is defined that nothing uses (warning).";
    IGNORED_KEY = "ignored-key", "A key has no effect at that place (warning).";
    NODE_UNKNOWN = "node-unknown", "The file has `[node]` sections, and weir was not told which node it is (warning).";
    OTHER_NODES = "other-nodes", "A node that no `[node]` section is for would refuse the file (warning).";
    TOO_MANY = "too-many", "There are more findings than are shown.";
    DOES_NOT_FIT = "does-not-fit", "The machine has less memory than the configuration asks for.";
    BAD_ROUTE = "bad-route", "An item of ROUTES does not follow its grammar.";
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::CODES;

    #[test]
    fn codes_are_unique_and_kebab_case() {
        let names: BTreeSet<_> = CODES.iter().map(|code| code.name).collect();
        assert_eq!(names.len(), CODES.len());
        assert!(names.iter().all(|n| n.bytes().all(|b| b.is_ascii_lowercase() || b == b'-' || b == b'6')));
    }
}
