//! Header fields that decisions may depend on.

use bitflags::bitflags;

bitflags! {
    /// A set of header fields. The flow key of a scope keeps the union of what the stages behind the scope consult and
    /// masks out the rest. The scope itself, the network layer and the fragment kind are always in the key.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct FieldSet: u16 {
        /// Ethernet source.
        const ETHER_SOURCE = 1 << 0;
        /// Ethernet destination.
        const ETHER_DESTINATION = 1 << 1;
        /// EtherType after VLAN tags.
        const ETHER_TYPE = 1 << 2;
        /// IP source.
        const IP_SOURCE = 1 << 3;
        /// IP destination.
        const IP_DESTINATION = 1 << 4;
        /// IP protocol.
        const PROTOCOL = 1 << 5;
        /// Source port, or ICMP echo identifier.
        const SOURCE_PORT = 1 << 6;
        /// Destination port, or ICMP echo identifier.
        const DESTINATION_PORT = 1 << 7;
        /// DSCP.
        const DSCP = 1 << 8;
        /// TCP flags.
        const TCP_FLAGS = 1 << 9;
        /// ICMP type and code.
        const ICMP_TYPE = 1 << 10;

        /// Addresses, protocol and ports.
        const FIVE_TUPLE = Self::IP_SOURCE.bits() | Self::IP_DESTINATION.bits() | Self::PROTOCOL.bits()
            | Self::SOURCE_PORT.bits() | Self::DESTINATION_PORT.bits();
    }
}
