//! The sections of the file.

use super::keys::*;
use super::services::{ATTACHED_HOP, CHAIN, CLASSIFY, SERVICE_TABLE};
use super::{Form, Kind, Names, Need, Ref, Rule, Table};

const MAX_ENTRIES: i64 = 1 << 26;

/// The sections of a file, which are those of a `[node]` too; `more` stands behind them.
macro_rules! sections {
    ($($more:expr)?) => { &[
        key("workers", Kind::Table(&WORKERS), Need::Optional("the defaults"), "Worker threads."),
        key("limits", Kind::Table(&LIMITS), Need::Optional("the defaults"), "The bound of every table."),
        key("memory", Kind::Table(&MEMORY), Need::Optional("the defaults"), "Frame memory."),
        key("port", Kind::Named(Names::Except(&[]), &PORT), Need::Optional("none"), "Ports."),
        key("neighbour", Kind::Records(&NEIGHBOUR), Need::Optional("none"), "Static neighbours."),
        key(
            "vrf",
            Kind::Named(Names::Except(&[]), &VRF_TABLE),
            Need::Optional("only `default`"),
            "VRFs and their routes.",
        ),
        key(
            "bridge",
            Kind::Named(Names::Except(&[]), &BRIDGE_TABLE),
            Need::Optional("none"),
            "Bridge domains.",
        ),
        key("tunnel", Kind::Named(Names::Except(&[]), &TUNNEL), Need::Optional("none"), "Tunnels."),
        key(
            "cross-connect",
            Kind::Named(Names::Except(&[]), &CROSS_CONNECT),
            Need::Optional("none"),
            "Point-to-point cross-connects.",
        ),
        key(
            "service",
            Kind::Named(Names::Except(&[]), &SERVICE_TABLE),
            Need::Optional("none"),
            "Service functions.",
        ),
        key(
            "hop",
            Kind::Named(Names::Except(&[]), &ATTACHED_HOP),
            Need::Optional("none"),
            "Attached hops: containers and virtual machines that chains go through.",
        ),
        key(
            "chain",
            Kind::Named(Names::Except(&["none"]), &CHAIN),
            Need::Optional("none"),
            "Service chains. No chain can be called `none`.",
        ),
        key(
            "classify",
            Kind::Records(&CLASSIFY),
            Need::Optional("nothing goes into a chain"),
            "The classifier: which new flows go into which chain.",
        ),
        $($more)?
    ] };
}

/// The file itself.
pub(crate) static ROOT: Table = Table {
    title: "the file",
    doc: "All sections are optional. Names are 1 to 63 letters, digits, `-` and `_`.",
    keys: sections![key(
        "node",
        Kind::Named(Names::Node, &NODE),
        Need::Optional("the file is the same on every node"),
        "What is different on some nodes.",
    )],
    rules: &[],
};

static NODE: Table = Table {
    title: "[node.<name-or-label>]",
    doc: "What is different on one node (`[node.\"worker-1\"]`) or on nodes with a label (`[node.\"rack=west\"]`): any sections of the file, such as `[node.\"worker-1\".port.uplink]`. The sections for a node's labels are laid over the rest of the file in their order, then the one for its name: tables are merged key by key, arrays of tables written `[[…]]` are appended, every other value is replaced.",
    keys: sections![],
    rules: &[],
};

static WORKERS: Table = Table {
    title: "[workers]",
    doc: "Threads that poll the ports' queues. A running instance cannot change them.",
    keys: &[
        key(
            "cores",
            Kind::Either(&[Kind::Word(&["auto"]), Kind::List { of: &CORE, min: 1, max: 256 }]),
            Need::Default("\"auto\""),
            "The cores that workers are pinned to, one worker each. \"auto\": the cores of the process's affinity mask, at most as many as there are queues. A core in a list must be in the affinity mask.",
        ),
        key(
            "idle",
            Kind::Word(&["spin", "adaptive"]),
            Need::Default("\"adaptive\""),
            "What a worker without work does: poll without pause, or poll on through silences of up to 2 ms and then block until a packet comes.",
        ),
    ],
    rules: &[],
};

static LIMITS: Table = Table {
    title: "[limits]",
    doc: "No table grows beyond its bound: what does not fit is refused and counted. A running instance cannot change them.",
    keys: &[
        key(
            "flows",
            Kind::Integer { min: 1, max: MAX_ENTRIES },
            Need::Default("131072"),
            "Flow-table entries of each worker.",
        ),
        key(
            "sessions",
            Kind::Integer { min: 1, max: MAX_ENTRIES },
            Need::Default("131072"),
            "Sessions, over all workers.",
        ),
        key(
            "neighbours",
            Kind::Integer { min: 1, max: 1 << 20 },
            Need::Default("8192"),
            "Neighbour entries.",
        ),
        key(
            "held-packets",
            Kind::Integer { min: 1, max: 65_536 },
            Need::Default("256"),
            "Packets that each worker holds while neighbours are resolved.",
        ),
        key(
            "macs",
            Kind::Integer { min: 1, max: 1 << 24 },
            Need::Default("16384"),
            "MAC addresses, over all bridge domains.",
        ),
        key(
            "meters",
            Kind::Integer { min: 1, max: 1 << 24 },
            Need::Default("16384"),
            "Token buckets, over all policers.",
        ),
        key(
            "nat-bindings",
            Kind::Integer { min: 1, max: MAX_ENTRIES },
            Need::Default("131072"),
            "Address bindings, over all translators: one for each address and port that has an external one.",
        ),
        key(
            "icmp-errors-per-second",
            Kind::Integer { min: 1, max: 1_000_000 },
            Need::Default("1000"),
            "ICMP errors a second that weir originates, over all workers; also how many may come at once.",
        ),
    ],
    rules: &[],
};

static MEMORY: Table = Table {
    title: "[memory]",
    doc: "The memory that frames live in. A running instance cannot change it.",
    keys: &[
        key(
            "frames",
            Kind::Integer { min: 1024, max: 1 << 24 },
            Need::Default("16384"),
            "Frames in the pool. It takes frames × frame-size bytes.",
        ),
        key(
            "frame-size",
            Kind::Choice(&[2048, 4096, 8192, 16384]),
            Need::Default("2048"),
            "Bytes of a frame's chunk. 256 are headroom and 22 the Ethernet header with two VLAN tags, so an MTU of at most 1770, 3818, 7914 or 16106 fits. AF_XDP takes more than 4096 only on huge pages, DPDK always.",
        ),
        key(
            "huge-pages",
            Kind::Word(&["auto", "require", "never"]),
            Need::Default("\"auto\""),
            "2 MB pages: used where they can be had (which one was obtained is printed), required, or never used.",
        ),
    ],
    rules: &[],
};

static PORT: Table = Table {
    title: "[port.<name>]",
    doc: "A place where frames enter and leave. Its untagged frames belong to a VRF (the default), to a bridge domain, or to a cross-connect that names it.",
    keys: &[
        key(
            "device",
            Kind::Text(Form::Device),
            Need::Optional("only `weir replay` drives the port"),
            "The device. A network device by its name, driven through AF_XDP. A PCI function by its address (`pci:…`): through AF_XDP if it has a network device, through DPDK if it is bound to vfio-pci. One of the names or addresses, separated by commas, in an environment variable, as device plugins set it (`env:…[0]`). Or a virtual device of DPDK with its arguments (`vdev:net_memif0,…`, `vdev:net_vhost0,…`). DPDK needs a weir that is built with it. A device belongs to one port.",
        ),
        key(
            "mode",
            Kind::Word(&["shared", "dedicated"]),
            Need::Default("\"shared\""),
            "\"shared\": the kernel keeps the device; weir takes only packets to its tunnels' UDP ports and to `prefixes`, and uses the kernel's addresses and neighbours. \"dedicated\": the device is weir's alone.",
        ),
        key(
            "xdp",
            Kind::Word(&["auto", "native", "generic"]),
            Need::Default("\"auto\""),
            "The best XDP mode to try: \"auto\" is zero-copy, then native copy, then generic. The one obtained is printed.",
        ),
        key(
            "xsk-map",
            Kind::Word(&["own", "plugin", "pinned"]),
            Need::Default("\"own\""),
            "Whose XDP program brings the frames: weir's \"own\"; or that of the AF_XDP device plugin, whose map of sockets is asked for at `/tmp/afxdp_dp/<device>/afxdp.sock` (\"plugin\") or found pinned at `/tmp/afxdp_dp/<device>/xsks_map` (\"pinned\"). A program that is not weir's takes every frame: the port is \"dedicated\".",
        ),
        key(
            "queues",
            Kind::Integer { min: 1, max: 64 },
            Need::Optional("one for each worker, as far as the device has them; 1 for a virtual device"),
            "How many receive and transmit queues to ask a DPDK device for. The peer of a virtual device must have as many. A network device has those that `ethtool -L` gives it.",
        ),
        key(
            "vfio-token",
            Kind::Text(Form::Uuid),
            Need::Optional("none, or the one that `PCIDEVICE_…_INFO` holds"),
            "The token of a VF on vfio-pci whose PF is on vfio-pci too. All such VFs of one weir share it.",
        ),
        key("mac", Kind::Text(Form::Mac), Need::Optional("the device's own"), "The MAC address to use."),
        key(
            "mtu",
            Kind::Integer { min: 68, max: 9000 },
            Need::Optional("the device's own, or 1500 without a device"),
            "The largest L3 packet in bytes. It must fit a frame (see `memory.frame-size`); at least 1280 with IPv6 addresses.",
        ),
        key(
            "prefixes",
            many(&PREFIX),
            Need::Default("[]"),
            "In shared mode: destinations that weir takes from the kernel, besides its tunnels.",
        ),
        VRF,
        BRIDGE,
        ADDRESSES,
        key(
            "vlan",
            Kind::Named(Names::VlanId, &VLAN),
            Need::Optional("tagged frames are dropped"),
            "Where tagged frames belong.",
        ),
    ],
    rules: &[Rule::AtMostOne(&["vrf", "bridge"])],
};

static VLAN: Table = Table {
    title: "[port.<name>.vlan.<id>]",
    doc: "Frames of the port with this 802.1Q VLAN id (1 to 4094): an interface of its own, called `<port>.<id>`.",
    keys: &[VRF, BRIDGE, ADDRESSES],
    rules: &[Rule::AtMostOne(&["vrf", "bridge"])],
};

static NEIGHBOUR: Table = Table {
    title: "[[neighbour]]",
    doc: "A static neighbour; all others are learned by ARP and ND, or from the kernel on shared ports.",
    keys: &[
        key(
            "port",
            Kind::Ref(Ref::Interface),
            Need::Required,
            "The interface: a port, `<port>.<vid>` or a tunnel, in a VRF.",
        ),
        key(
            "ip",
            Kind::Text(Form::Ip),
            Need::Required,
            "The neighbour's address, on a subnet of the interface.",
        ),
        key("mac", Kind::Text(Form::Mac), Need::Required, "The neighbour's MAC address."),
    ],
    rules: &[],
};

static VRF_TABLE: Table = Table {
    title: "[vrf.<name>]",
    doc: "A routing table of its own. `[vrf.default]` always exists and need not be written.",
    keys: &[key("route", Kind::Records(&ROUTE), Need::Optional("only connected routes"), "Static routes.")],
    rules: &[],
};

static ROUTE: Table = Table {
    title: "[[vrf.<name>.route]]",
    doc: "A static route. The longest prefix wins. Several next hops, in one route or in several with the same prefix, share the flows (equal-cost multipath).",
    keys: &[
        key("prefix", Kind::Text(Form::Prefix), Need::Required, "The destination."),
        key("via", Kind::OneOrMany(&VIA_KIND), Need::Required, "The next hop, or a list of them."),
    ],
    rules: &[],
};

static VIA_KIND: Kind = Kind::Table(&VIA);

static VIA: Table = Table {
    title: "via = { … }",
    doc: "A next hop: `{ ip = … }`, `{ ip = …, port = … }`, `{ port = … }`, `{ tunnel = … }` or `{ blackhole = true }`.",
    keys: &[
        key(
            "ip",
            Kind::Text(Form::Ip),
            Need::Optional("no gateway"),
            "The gateway, of the prefix's family, on a connected subnet of the VRF.",
        ),
        key(
            "port",
            Kind::Ref(Ref::Interface),
            Need::Optional("the gateway's connected interface"),
            "The interface: a port or `<port>.<vid>`, and with `ip` also a tunnel. Without `ip`, destinations are neighbours there.",
        ),
        key(
            "tunnel",
            Kind::Ref(Ref::Tunnel),
            Need::Optional("no tunnel"),
            "A routed tunnel. Inside, the far end is its `remote-mac`, or destinations are neighbours there.",
        ),
        key("blackhole", Kind::True, Need::Optional("no blackhole"), "Drop the packets and count them."),
    ],
    rules: &[
        Rule::AtLeastOne(&["ip", "port", "tunnel", "blackhole"]),
        Rule::AtMostOne(&["port", "tunnel", "blackhole"]),
        Rule::AtMostOne(&["ip", "tunnel", "blackhole"]),
    ],
};

static BRIDGE_TABLE: Table = Table {
    title: "[bridge.<name>]",
    doc: "A bridge domain. Its members say so themselves: `bridge = \"<name>\"`.",
    keys: &[
        key(
            "ageing",
            Kind::Text(Form::Duration),
            Need::Default("\"300s\""),
            "How long a learned MAC address lives without traffic: 1 second to 1000000 seconds.",
        ),
        key("learning", Kind::Boolean, Need::Default("true"), "Whether source addresses are learned."),
        key(
            "macs-per-member",
            Kind::Integer { min: 1, max: 1 << 24 },
            Need::Optional("only `limits.macs` bounds them"),
            "The most MAC addresses learned behind one member.",
        ),
        key(
            "forward-stp",
            Kind::Boolean,
            Need::Default("false"),
            "Whether spanning-tree BPDUs (to 01:80:c2:00:00:00) are flooded to all members instead of dropped.",
        ),
        key(
            "forward-lldp",
            Kind::Boolean,
            Need::Default("false"),
            "Whether LLDP (to 01:80:c2:00:00:0e) is flooded to all members instead of dropped.",
        ),
    ],
    rules: &[],
};

static TUNNEL: Table = Table {
    title: "[tunnel.<name>]",
    doc: "A tunnel; its kind is a table in it.",
    keys: &[key("vxlan", Kind::Table(&VXLAN), Need::Required, "A VXLAN tunnel (RFC 7348).")],
    rules: &[],
};

static VXLAN: Table = Table {
    title: "[tunnel.<name>.vxlan]",
    doc: "A VXLAN tunnel. In a VRF it is a routed interface with its own MAC address and addresses; in a bridge domain it is a member, behind which split horizon holds.",
    keys: &[
        key(
            "local",
            Kind::Text(Form::Ip),
            Need::Required,
            "The local VTEP address: an address of a port, or one that the kernel holds on a shared port.",
        ),
        key(
            "remote",
            Kind::Text(Form::Ip),
            Need::Required,
            "The remote VTEP address, of the family of `local`.",
        ),
        key(
            "remotes",
            Kind::List { of: &IP, min: 1, max: 1024 },
            Need::Required,
            "Instead of `remote`, in a bridge: several remote VTEPs. Broadcast, multicast and unknown frames go to each (head-end replication).",
        ),
        key(
            "vni",
            Kind::Integer { min: 0, max: 0xff_ffff },
            Need::Required,
            "The VXLAN network identifier. (local, port, vni) belongs to one tunnel.",
        ),
        key(
            "port",
            Kind::Integer { min: 1, max: 65_535 },
            Need::Default("4789"),
            "The UDP destination port.",
        ),
        key(
            "underlay-vrf",
            Kind::Ref(Ref::Vrf),
            Need::Default("\"default\""),
            "The VRF in which outer packets are routed.",
        ),
        VRF,
        BRIDGE,
        ADDRESSES,
        key(
            "mac",
            Kind::Text(Form::Mac),
            Need::Optional("derived from the name"),
            "In a VRF: its own inner MAC address.",
        ),
        key(
            "remote-mac",
            Kind::Text(Form::Mac),
            Need::Optional("ARP and ND inside"),
            "In a VRF: the far end's inner MAC address, used for every packet.",
        ),
        key(
            "mtu",
            Kind::Integer { min: 68, max: 9000 },
            Need::Optional("underlay MTU − 50 over IPv4, − 70 over IPv6"),
            "The inner MTU.",
        ),
        key("ttl", Kind::Integer { min: 1, max: 255 }, Need::Default("64"), "The outer TTL or hop limit."),
        key(
            "dscp",
            Kind::Either(&[Kind::Word(&["uniform", "pipe"]), Kind::Integer { min: 0, max: 63 }]),
            Need::Default("\"uniform\""),
            "RFC 2983: \"uniform\" copies the inner DSCP to the outer header; a number is a fixed outer DSCP (pipe), and \"pipe\" is 0. The inner DSCP is never changed. ECN always follows RFC 6040.",
        ),
        key(
            "check-udp",
            Kind::Boolean,
            Need::Default("true"),
            "Whether non-zero outer UDP checksums are verified. A zero one is always accepted.",
        ),
        key(
            "mss-clamp",
            Kind::Boolean,
            Need::Default("false"),
            "Whether the maximum segment size that TCP SYNs announce is lowered to what fits the tunnel, both ways.",
        ),
    ],
    rules: &[
        Rule::AtLeastOne(&["remote", "remotes"]),
        Rule::AtMostOne(&["remote", "remotes"]),
        Rule::AtMostOne(&["vrf", "bridge"]),
    ],
};

static CROSS_CONNECT: Table = Table {
    title: "[cross-connect.<name>]",
    doc: "Two interfaces joined back to back. They have no `vrf`, `bridge` or `addresses` of their own.",
    keys: &[key(
        "ends",
        Kind::List { of: &INTERFACE, min: 2, max: 2 },
        Need::Required,
        "The two interfaces: ports, `<port>.<vid>` or tunnels.",
    )],
    rules: &[],
};
