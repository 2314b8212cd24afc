//! The validated configuration: what the rest of weir builds from.
//!
//! A value of [`Config`] has passed every check: each name that it refers to exists, ranges hold, nothing
//! conflicts. Tables are ordered by name, so that equal configurations compare and print alike.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::MacAddress;
use crate::nat::Nat;

/// The VRF that always exists and that ports and tunnels belong to unless they say otherwise.
pub const DEFAULT_VRF: &str = "default";

/// A whole, validated configuration.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Config {
    /// Worker threads.
    pub workers: Workers,
    /// Every bounded table's bound.
    pub limits: Limits,
    /// Frame memory.
    pub memory: Memory,
    /// Ports by name.
    pub ports: BTreeMap<String, Port>,
    /// Static neighbours.
    pub neighbours: Vec<StaticNeighbour>,
    /// VRFs by name; [`DEFAULT_VRF`] is always there.
    pub vrfs: BTreeMap<String, Vrf>,
    /// Bridge domains by name.
    pub bridges: BTreeMap<String, Bridge>,
    /// Tunnels by name.
    pub tunnels: BTreeMap<String, Tunnel>,
    /// Point-to-point cross-connects (port ↔ port, port ↔ tunnel) by name.
    pub cross_connects: BTreeMap<String, CrossConnect>,
    /// Service functions by name.
    pub services: BTreeMap<String, Service>,
    /// Attached hops by name; no service has the same.
    pub hops: BTreeMap<String, Hop>,
    /// Chains by name.
    pub chains: BTreeMap<String, Chain>,
    /// Classifier rules, first match wins.
    pub classify: Vec<ClassifyRule>,
}

/// `[workers]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Workers {
    /// Which cores workers are pinned to.
    pub cores: Cores,
    /// What a worker does when there is nothing to do.
    pub idle: Idle,
}

/// `workers.cores`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Cores {
    /// One worker for each core of the process's affinity mask, at most as many as there are queues.
    Auto,
    /// Exactly these cores; each must be in the affinity mask.
    List(Vec<usize>),
}

/// `workers.idle`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Idle {
    /// Poll without pause.
    Spin,
    /// Poll on through short silences, then block in poll(2).
    Adaptive,
}

/// `[limits]`: the bound of every table, so that no table grows without one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Limits {
    /// Flow-table entries of each worker.
    pub flows: u32,
    /// Sessions, shared by all workers.
    pub sessions: u32,
    /// Neighbour entries.
    pub neighbours: u32,
    /// Packets that each worker holds while a neighbour is resolved.
    pub held_packets: u32,
    /// MAC addresses, over all bridge domains.
    pub macs: u32,
    /// Token buckets, over all policers.
    pub meters: u32,
    /// Address bindings, over all translators.
    pub nat_bindings: u32,
    /// ICMP errors a second that weir originates, over all workers; also the depth of the bucket.
    pub icmp_errors_per_second: u32,
}

/// `[memory]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Memory {
    /// Frames in the memory pool.
    pub frames: u32,
    /// Bytes of a frame's chunk: 2048, 4096, 8192 or 16384.
    pub frame_size: u32,
    /// Whether 2 MB pages are used.
    pub huge_pages: HugePages,
}

/// `memory.huge-pages`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum HugePages {
    /// Use them where they can be had, and say so.
    Auto,
    /// Refuse to start without them.
    Require,
    /// Never use them.
    Never,
}

/// `[port.<name>]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Port {
    /// The name of the network device (`eth1`); absent for a port that only `weir replay` drives.
    pub device: Option<String>,
    /// Whether the device is weir's alone.
    pub mode: PortMode,
    /// Best XDP mode to try first; worse ones are tried after it and the one obtained is printed.
    pub xdp: XdpMode,
    /// Whose XDP program brings the frames.
    pub xsk_map: XskMap,
    /// How many queues to ask a DPDK device for; one for each worker, as far as it has them, if
    /// absent; of a virtual device one.
    pub queues: Option<u16>,
    /// The token of a VF on vfio-pci whose PF is on vfio-pci too.
    pub vfio_token: Option<String>,
    /// The MAC address to use instead of the device's own.
    pub mac: Option<MacAddress>,
    /// Largest L3 packet in bytes; the device's own if absent (1500 where there is no device).
    pub mtu: Option<u16>,
    /// In shared mode: destination prefixes that weir takes besides its tunnels.
    pub prefixes: Vec<IpNet>,
    /// Where untagged frames belong.
    pub attachment: Attachment,
    /// Where tagged frames belong, by 802.1Q VLAN id; the interface is called `<port>.<vid>`.
    pub vlans: BTreeMap<u16, Attachment>,
}

/// `port.mode`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PortMode {
    /// The kernel keeps the device; weir takes only what it owns. Neighbours come from the kernel.
    Shared,
    /// The device is weir's alone.
    Dedicated,
}

/// `port.xsk-map`: whose XDP program brings a port's frames, and so whose map the sockets are put into.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum XskMap {
    /// weir's own.
    #[default]
    Own,
    /// The AF_XDP device plugin's, asked for over its socket.
    Plugin,
    /// The AF_XDP device plugin's, pinned in a BPF file system.
    Pinned,
}

/// `port.xdp`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum XdpMode {
    /// Zero-copy, else native copy, else generic.
    Auto,
    /// Native copy, else generic.
    Native,
    /// Generic only.
    Generic,
}

/// Where an interface (an untagged port, a VLAN of a port, a tunnel) belongs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Attachment {
    /// The VRF or the bridge domain.
    pub domain: Domain,
    /// Own addresses with their prefix lengths; only in a VRF.
    pub addresses: Vec<IpNet>,
}

/// What an interface belongs to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Domain {
    /// A routed interface of this VRF.
    Vrf(String),
    /// A member of this bridge domain.
    Bridge(String),
    /// One end of this cross-connect.
    CrossConnect(String),
    /// It serves this attached hop alone.
    Hop(String),
}

/// `[[neighbour]]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StaticNeighbour {
    /// Interface name: a port, `<port>.<vid>` or a tunnel.
    pub interface: String,
    /// The neighbour's IP address.
    pub ip: IpAddr,
    /// The neighbour's MAC address.
    pub mac: MacAddress,
}

/// `[vrf.<name>]`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Vrf {
    /// Static routes. A prefix that stands several times is an equal-cost multipath route.
    pub routes: Vec<Route>,
}

/// `[[vrf.<name>.route]]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Route {
    /// Destination.
    pub prefix: IpNet,
    /// Where to; more than one is equal-cost multipath. Empty is never valid.
    pub via: Vec<NextHop>,
}

/// One next hop of a route.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum NextHop {
    /// A gateway; the interface is the connected one unless named.
    Gateway {
        /// The gateway's address, of the route's own family.
        ip: IpAddr,
        /// Interface name, if given.
        interface: Option<String>,
    },
    /// Directly on this interface (port, `<port>.<vid>`): destinations are neighbours there.
    Interface(String),
    /// Into this routed tunnel. Inside, the far end is `remote_mac` of the tunnel, or destinations are
    /// neighbours there.
    Tunnel(String),
    /// Dropped and counted.
    Blackhole,
}

/// `[bridge.<name>]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Bridge {
    /// How long a learned MAC address lives without traffic.
    pub ageing: Duration,
    /// Whether source addresses are learned.
    pub learning: bool,
    /// Most MAC addresses learned behind one member; absent: only `limits.macs` bounds them.
    pub macs_per_member: Option<u32>,
    /// Whether BPDUs of the spanning tree (to 01:80:c2:00:00:00) are flooded like other groups.
    pub forward_stp: bool,
    /// Whether LLDP (to 01:80:c2:00:00:0e) is flooded like other groups.
    pub forward_lldp: bool,
}

/// `[tunnel.<name>.vxlan]` (RFC 7348).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Tunnel {
    /// The local VTEP address; an address of a port, or one that a shared port's kernel owns.
    pub local: IpAddr,
    /// Remote VTEP addresses, at least one, of the family of `local`. More than one only in a bridge domain:
    /// unknown and broadcast frames are replicated to each.
    pub remotes: Vec<IpAddr>,
    /// VXLAN network identifier, 24 bits.
    pub vni: u32,
    /// UDP destination port, 4789 by default.
    pub udp_port: u16,
    /// VRF in which the outer packet is routed.
    pub underlay_vrf: String,
    /// Where inner frames belong.
    pub attachment: Attachment,
    /// This end's own inner MAC address; derived from the name if absent.
    pub mac: Option<MacAddress>,
    /// A fixed inner destination MAC in a VRF: no ARP or ND inside.
    pub remote_mac: Option<MacAddress>,
    /// Inner MTU; absent: underlay MTU − overhead (50 B over IPv4, 70 B over IPv6).
    pub mtu: Option<u16>,
    /// Outer hop limit (TTL), 64 by default.
    pub ttl: u8,
    /// What becomes of DSCP (RFC 2983).
    pub dscp: DscpModel,
    /// Verify non-zero outer UDP checksums on receive.
    pub check_udp: bool,
    /// Lower the TCP maximum segment size in SYNs that go through, both ways, to what fits (RFC 9293 section 3.7.1).
    pub mss_clamp: bool,
}

/// RFC 2983 section 3: how DSCP crosses a tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum DscpModel {
    /// The outer header takes the inner DSCP on encapsulation; the inner keeps its own on decapsulation.
    Uniform,
    /// The outer DSCP is fixed.
    Pipe(u8),
}

/// `[cross-connect.<name>]`: two interfaces joined back to back.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CrossConnect {
    /// The two interface names: a port, `<port>.<vid>` or a tunnel.
    pub ends: [String; 2],
}

/// `[service.<name>.<kind>]`: one service function.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Service {
    /// `[service.<name>.firewall]`.
    Firewall(Firewall),
    /// `[service.<name>.policer]`.
    Policer(Policer),
    /// `[service.<name>.nat]`.
    Nat(Nat),
}

/// A stateful firewall.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Firewall {
    /// What becomes of a new connection that no rule matches.
    pub default: Action,
    /// Ordered rules, first match wins.
    pub rules: Vec<FirewallRule>,
    /// Whether a TCP connection may be picked up in mid-stream (a first packet without SYN).
    pub tcp_pickup: bool,
}

/// What a firewall does with a new connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Action {
    /// Let it pass and follow its session.
    Allow,
    /// Drop it silently.
    Deny,
    /// Answer with a TCP reset or an ICMP administratively-prohibited error.
    Reject,
}

/// One rule of a firewall.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FirewallRule {
    /// What to do.
    pub action: Action,
    /// What to match.
    pub matches: Match,
}

/// Which packets a rule is about. Every given part must hold; an empty list or `None` matches all.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Match {
    /// IP protocol number (6 TCP, 17 UDP, 1 ICMP, 58 ICMPv6, 132 SCTP).
    pub protocol: Option<u8>,
    /// Source prefixes.
    pub from: Vec<IpNet>,
    /// Destination prefixes.
    pub to: Vec<IpNet>,
    /// Source port ranges (inclusive).
    pub from_ports: Vec<PortRange>,
    /// Destination port ranges (inclusive).
    pub to_ports: Vec<PortRange>,
    /// DSCP values.
    pub dscp: Vec<u8>,
    /// TCP flags that must be set, and the mask of the flags looked at.
    pub tcp_flags: Option<TcpFlagsMatch>,
    /// ICMP or ICMPv6 types.
    pub icmp_types: Vec<u8>,
}

/// An inclusive range of ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct PortRange {
    /// First port.
    pub first: u16,
    /// Last port, not below `first`.
    pub last: u16,
}

/// A test on TCP flags: `flags & mask == set` (bits as in the TCP header: FIN 1, SYN 2, RST 4, PSH 8, ACK 16, URG 32).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct TcpFlagsMatch {
    /// Flags that must be set.
    pub set: u8,
    /// Flags looked at.
    pub mask: u8,
}

/// A policer: token buckets.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Policer {
    /// Ordered rules, first match wins; what no rule matches is not policed.
    pub rules: Vec<PolicerRule>,
}

/// One rule of a policer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PolicerRule {
    /// What to match.
    pub matches: Match,
    /// The committed rate.
    pub rate: Rate,
    /// Depth of the bucket, in bytes or packets as the rate is in bits or packets.
    pub burst: u64,
    /// One bucket for the rule, or one for each source address.
    pub per: PolicerScope,
}

/// A rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Rate {
    /// Bits a second of L3 packets (IP header and payload).
    BitsPerSecond(u64),
    /// Packets a second.
    PacketsPerSecond(u64),
}

/// What shares a bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PolicerScope {
    /// Everything that the rule matches.
    Rule,
    /// Each source address (of the session's first packet).
    Source,
}

/// `[hop.<name>]`: something outside that the packets of a chain go through, such as a container or a virtual machine.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Hop {
    /// Interfaces that it is attached to: two, of which forward packets go out by the first and come back by the second, or one.
    pub attach: Vec<String>,
    /// What becomes of packets while it cannot be reached.
    pub fail: Fail,
}

/// `hop.fail`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Fail {
    /// They are dropped.
    Closed,
    /// They pass it by.
    Open,
}

/// `[chain.<name>]`: an ordered list of hops.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Chain {
    /// Names of services and attached hops in forward order; replies take them in reverse.
    pub hops: Vec<String>,
}

/// `[[classify]]`: sends new flows into a chain.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ClassifyRule {
    /// Where the packet came in; empty matches any.
    pub from: Vec<ClassifyScope>,
    /// What else to match. `from`/`to` prefixes are `from-prefix`/`to-prefix` in the file.
    pub matches: Match,
    /// The chain's name; `None` (`chain = "none"`) sends matching flows past all chains.
    pub chain: Option<String>,
}

/// A scope that a classifier rule names: `port.<name>`, `port.<name>.<vid>`, `tunnel.<name>`, `vrf.<name>`, `bridge.<name>`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, PartialOrd, Ord)]
pub enum ClassifyScope {
    /// An interface: a port, `<port>.<vid>` or a tunnel.
    Interface(String),
    /// All interfaces of a VRF.
    Vrf(String),
    /// All members of a bridge domain.
    Bridge(String),
}

impl Config {
    /// Every interface with what it belongs to: ports, their VLANs, tunnels.
    pub fn interfaces(&self) -> impl Iterator<Item = (String, &Attachment)> {
        let ports = self.ports.iter().flat_map(|(name, port)| {
            let vlans = port.vlans.iter().map(move |(vid, attachment)| (format!("{name}.{vid}"), attachment));
            std::iter::once((name.clone(), &port.attachment)).chain(vlans)
        });
        ports.chain(self.tunnels.iter().map(|(name, tunnel)| (name.clone(), &tunnel.attachment)))
    }

    /// What a rule of the classifier takes packets from, each once: VRFs, bridges, cross-connects.
    pub fn domains_of<'a>(&'a self, rule: &'a ClassifyRule) -> Vec<Domain> {
        let mut domains: Vec<Domain> = Vec::new();
        let mut add = |domain: Domain| {
            if !matches!(domain, Domain::Hop(_)) && !domains.contains(&domain) {
                domains.push(domain);
            }
        };
        if rule.from.is_empty() {
            self.interfaces().for_each(|(_, attachment)| add(attachment.domain.clone()));
        }
        for from in &rule.from {
            match from {
                ClassifyScope::Vrf(name) => add(Domain::Vrf(name.clone())),
                ClassifyScope::Bridge(name) => add(Domain::Bridge(name.clone())),
                ClassifyScope::Interface(wanted) => {
                    let found = self.interfaces().filter(|(name, _)| name == wanted);
                    found.for_each(|(_, attachment)| add(attachment.domain.clone()));
                }
            }
        }
        domains
    }

    /// The VRF whose packets are sent into a chain; `None` if no rule of the classifier sends any.
    pub fn vrf_of_chain(&self, chain: &str) -> Option<String> {
        let rules = self.classify.iter().filter(|rule| rule.chain.as_deref() == Some(chain));
        rules.flat_map(|rule| self.domains_of(rule)).find_map(|domain| match domain {
            Domain::Vrf(name) => Some(name),
            _ => None,
        })
    }
}

impl Default for Workers {
    fn default() -> Self {
        Self { cores: Cores::Auto, idle: Idle::Adaptive }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            flows: 131_072,
            sessions: 131_072,
            neighbours: 8_192,
            held_packets: 256,
            macs: 16_384,
            meters: 16_384,
            nat_bindings: 131_072,
            icmp_errors_per_second: 1_000,
        }
    }
}

impl Default for Memory {
    fn default() -> Self {
        Self { frames: 16_384, frame_size: 2048, huge_pages: HugePages::Auto }
    }
}
