//! Verdicts and drop reasons: one closed list, the same in counters, traces, metrics and docs.

use crate::packet::Malformed;

macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident = $text:literal, $what:literal;)*) => {
        /// Why a packet was dropped.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u8)]
        pub enum DropReason { $(#[doc = $what] $name,)* }

        impl DropReason {
            /// Every reason, in the order of their numbers.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// Its name in counters, traces and metrics.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }

            /// One line for people.
            pub const fn describe(self) -> &'static str {
                match self { $(Self::$name => $what,)* }
            }
        }
    };
}

reasons! {
    Truncated = "truncated", "shorter than the header that should stand there";
    IpVersion = "ip_version", "IP version is not what the EtherType says";
    IpHeaderLength = "ip_header_length", "IPv4 header length below 20 bytes or beyond the packet";
    IpChecksum = "ip_checksum", "wrong IPv4 header checksum";
    IpLength = "ip_length", "IP length beyond the frame";
    IpAddress = "ip_address", "a source or destination address that is never forwarded";
    IpExtension = "ip_extension", "IPv6 extension headers broken or too many";
    BadFragment = "bad_fragment", "a fragment that reaches past 65535 bytes";
    FragmentUnknown = "fragment_unknown", "a later fragment whose first fragment was not seen, where ports matter";
    BadTransport = "bad_transport", "TCP or UDP header length out of range";
    VlanTags = "vlan_tags", "more than two VLAN tags";
    UnknownVlan = "unknown_vlan", "a VLAN that no interface is configured for";
    ArpInvalid = "arp_invalid", "an ARP message that is not of IPv4 over Ethernet (RFC 826)";
    NdInvalid = "nd_invalid", "a neighbour discovery message that breaks RFC 4861 section 7.1";
    IcmpInvalid = "icmp_invalid", "an ICMP message to weir with a wrong checksum";
    NotForUs = "not_for_us", "a destination MAC on a routed interface that is not ours";
    UnsupportedEtherType = "unsupported_ether_type", "neither IP nor ARP on a routed interface";
    NoRoute = "no_route", "no route to the destination";
    Blackhole = "blackhole", "the route is a blackhole";
    TtlExpired = "ttl_expired", "TTL or hop limit used up";
    PacketTooBig = "packet_too_big", "larger than the path's MTU and not to be fragmented";
    FragmentationFailed = "fragmentation_failed", "larger than the path's MTU, and fragments could not be made";
    NeighbourUnreachable = "neighbour_unreachable", "the next hop did not answer ARP or ND";
    NeighbourQueueFull = "neighbour_queue_full", "too many packets wait for ARP or ND";
    NeighbourTableFull = "neighbour_table_full", "no room for one more neighbour";
    MulticastNotRouted = "multicast_not_routed", "multicast and broadcast are not routed";
    LocalUnsupported = "local_unsupported", "addressed to weir, but nothing listens there";
    InterfaceDown = "interface_down", "the egress interface is gone or has no carrier";
    FirewallDenied = "firewall_denied", "denied by a firewall rule";
    FirewallRejected = "firewall_rejected", "rejected by a firewall rule";
    FirewallNoSession = "firewall_no_session", "a TCP packet that opens no connection and belongs to none";
    SessionTableFull = "session_table_full", "no room for one more session";
    SessionClash = "session_clash", "another session has the same reply: addresses are translated so that two become one";
    Policed = "policed", "over the policer's rate";
    MeterTableFull = "meter_table_full", "no room for one more token bucket";
    NatNoBinding = "nat_no_binding", "to a translated address, but no binding and no rule is for it";
    NatFiltered = "nat_filtered", "to a binding from somebody whom its owner has not sent to";
    NatNoSession = "nat_no_session", "a TCP packet that opens no connection and belongs to none, where addresses are translated";
    NatUntranslatable = "nat_untranslatable", "a packet without ports or identifier, or one whose address cannot be rewritten, where addresses are translated";
    NatNoAddress = "nat_no_address", "the egress interface has no IPv4 address to masquerade as";
    NatPortsExhausted = "nat_ports_exhausted", "no free port of the external address";
    NatHostLimit = "nat_host_limit", "as many bindings as one host may have";
    NatTableFull = "nat_table_full", "no room for one more address binding";
    HopStray = "hop_stray", "from an attached hop, but no session sent it there";
    HopNoSession = "hop_no_session", "a reply to a connection that has not come through all attached hops of its chain";
    HopDown = "hop_down", "an attached hop of its chain is gone or has no carrier";
    VxlanMalformed = "vxlan_malformed", "VXLAN header short, or its I flag not set";
    VxlanUnknownVni = "vxlan_unknown_vni", "no tunnel has this VNI at this VTEP";
    VxlanUnknownRemote = "vxlan_unknown_remote", "the sender is not a configured remote of the tunnel";
    VxlanChecksum = "vxlan_checksum", "wrong outer UDP checksum";
    VxlanFragment = "vxlan_fragment", "a fragment addressed to a VTEP";
    VxlanInnerVlan = "vxlan_inner_vlan", "an inner frame with a VLAN tag";
    EcnNotCapable = "ecn_not_capable", "congestion marked outside, but the inner packet is not ECN capable (RFC 6040)";
    TunnelLoop = "tunnel_loop", "the tunnel's underlay route leads into a tunnel";
    NoHeadroom = "no_headroom", "no room in front of the packet for the outer headers";
    BridgeReserved = "bridge_reserved", "a link-local group address that bridges do not forward (IEEE 802.1Q)";
    BridgeSameMember = "bridge_same_member", "the destination is behind the member that it came from";
    BridgeSplitHorizon = "bridge_split_horizon", "from one tunnel to another within a bridge domain";
    BridgeNoMember = "bridge_no_member", "no other member in the bridge domain";
    BridgeSource = "bridge_source", "a group address as Ethernet source";
    TransmitQueueFull = "transmit_queue_full", "the transmit ring stayed full";
    HandoffQueueFull = "handoff_queue_full", "the ring to another worker stayed full";
    NoFrames = "no_frames", "frame memory is used up";
    NotConfigured = "not_configured", "the port has no interface in the running configuration";
    InternalError = "internal_error", "a stage contradicted itself; please report it";
}

impl DropReason {
    /// How many reasons there are.
    pub const COUNT: usize = Self::ALL.len();

    /// Whether the sender may be told of a packet that is dropped for this reason: then each one is looked at.
    pub fn is_told(self) -> bool {
        matches!(self, Self::TtlExpired | Self::NoRoute | Self::NeighbourUnreachable | Self::FirewallRejected)
    }

    /// As an index.
    #[inline]
    pub const fn index(self) -> usize {
        self as usize
    }
}

impl From<Malformed> for DropReason {
    fn from(malformed: Malformed) -> Self {
        match malformed {
            Malformed::Truncated => Self::Truncated,
            Malformed::IpVersion => Self::IpVersion,
            Malformed::IpHeaderLength => Self::IpHeaderLength,
            Malformed::IpChecksum => Self::IpChecksum,
            Malformed::IpLength => Self::IpLength,
            Malformed::IpExtension => Self::IpExtension,
            Malformed::Fragment => Self::BadFragment,
            Malformed::Transport => Self::BadTransport,
            Malformed::VlanTags => Self::VlanTags,
        }
    }
}

/// What became of a received packet. Every one ends in exactly one of these.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// Left by a port.
    Transmitted,
    /// Dropped.
    Dropped(DropReason),
    /// Handed to the control thread or the kernel.
    Punted,
    /// Addressed to weir and dealt with (ARP, ND, ICMP to its addresses).
    Consumed,
}

/// What a stage says of the first packet of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Let the next stage decide.
    Continue,
    /// Drop it, and the rest of the flow.
    Drop(DropReason),
    /// Drop it, and the rest of the flow, and tell the sender: a TCP reset, or ICMP administratively prohibited. Each packet
    /// is answered, within the ICMP rate limit, cached or not.
    Reject(DropReason),
}
