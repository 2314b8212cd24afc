//! What the data plane tells of itself: plain values for the control thread, made when it asks.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use serde::Serialize;
use weir_config::MacAddress;

/// One port.
#[derive(Clone, Debug, Serialize)]
pub struct PortStatus {
    /// Its name in the configuration.
    pub name: String,
    /// Device name.
    pub device: String,
    /// "shared" or "dedicated".
    pub mode: &'static str,
    /// "up", "no carrier", "gone", "opening".
    pub state: &'static str,
    /// Kernel driver, such as "veth" or "ixgbe".
    pub driver: String,
    /// What moves its frames: "AF_XDP" or "DPDK".
    pub backend: &'static str,
    /// XDP mode obtained: "zero-copy", "native copy", "generic"; empty where there is no XDP.
    pub xdp: String,
    /// Why better modes were not obtained: what the driver said, one line for each mode refused.
    pub refused: Vec<String>,
    /// What the operator should know of the device, a line each.
    pub warnings: Vec<String>,
    /// Interface index.
    pub ifindex: u32,
    /// Own MAC address.
    pub mac: MacAddress,
    /// MTU in bytes.
    pub mtu: u16,
    /// NUMA node of the device, −1 if it has none.
    pub numa: i32,
    /// How often the device vanished and was bound again.
    pub rebinds: u64,
    /// Frames that the XDP program took for weir since the device was opened last.
    pub redirected: u64,
    /// Frames that it passed to the kernel since then; always 0 in dedicated mode.
    pub passed: u64,
    /// Frames among those that were weir's, but came by a queue without a socket.
    pub no_socket: u64,
    /// Frames that the device dropped, where it counts for all queues together.
    pub missed: u64,
    /// Frames received broken, as the device says.
    pub errors: u64,
    /// Queues, by number, with the worker that polls each.
    pub queues: Vec<QueueStatus>,
}

/// One queue.
#[derive(Clone, Debug, Serialize)]
pub struct QueueStatus {
    /// Queue number.
    pub queue: u32,
    /// The worker that polls it.
    pub worker: usize,
    /// Frames received.
    pub rx_frames: u64,
    /// Bytes received.
    pub rx_bytes: u64,
    /// Frames sent.
    pub tx_frames: u64,
    /// Bytes sent.
    pub tx_bytes: u64,
    /// Frames the kernel or device dropped before weir saw them.
    pub rx_missed: u64,
    /// Descriptors the kernel refused.
    pub invalid: u64,
    /// Frames copied between memories.
    pub copies: u64,
}

/// One worker.
#[derive(Clone, Debug, Serialize)]
pub struct WorkerStatus {
    /// Its number.
    pub worker: usize,
    /// The core it is pinned to.
    pub core: usize,
    /// The generation it runs.
    pub generation: u64,
    /// Loops since start: advances while the worker lives.
    pub loops: u64,
    /// How often it slept or blocked.
    pub sleeps: u64,
    /// Flow-table entries in use, and the bound.
    pub flows: u64,
    /// The bound.
    pub flow_capacity: u64,
    /// Packets held for ARP or ND now.
    pub held: u64,
    /// Its counters.
    pub counters: Counters,
}

/// What is left when the workers have ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Stopped {
    /// Counters, summed over the workers, for the last time: exact.
    pub counters: Counters,
    /// Frames there are.
    pub frames: u64,
    /// Frames that came back to the pool: all of them, or some are lost until the process ends.
    pub free_frames: u64,
}

/// Packet counters: of one worker, or summed.
///
/// `received + handed_in + originated = transmitted + Σ dropped + punted + consumed + handed_out + held`, exactly.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counters {
    /// Packets taken from receive rings.
    pub received: u64,
    /// Packets that weir made: ARP, ND, ICMP, resets, copies of flooded frames, fragments.
    pub originated: u64,
    /// Packets another worker handed to this one to send.
    pub handed_in: u64,
    /// Packets that a transmit ring took.
    pub transmitted: u64,
    /// Packets handed to the worker that owns the transmit queue.
    pub handed_out: u64,
    /// Packets handed to the control thread or the kernel.
    pub punted: u64,
    /// Packets addressed to weir and dealt with.
    pub consumed: u64,
    /// Packets held for ARP or ND now.
    pub held: u64,
    /// Drops by reason name; reasons that never occurred are left out.
    pub dropped: BTreeMap<&'static str, u64>,
    /// Flow-table hits. A packet that was held is looked up again when it goes on, so it counts twice.
    pub flow_hits: u64,
    /// Flow-table misses: walks.
    pub flow_misses: u64,
    /// Flow entries evicted to make room.
    pub flow_evictions: u64,
    /// ICMP errors not sent because of the rate limit.
    pub icmp_limited: u64,
    /// ARP and ND messages that showed somebody else to use one of weir's addresses.
    pub address_conflicts: u64,
    /// MAC addresses seen to move between bridge members.
    pub mac_moves: u64,
    /// MAC addresses not learned because a bound was reached.
    pub mac_refused: u64,
}

/// One route as compiled.
#[derive(Clone, Debug, Serialize)]
pub struct RouteStatus {
    /// VRF.
    pub vrf: String,
    /// Destination.
    pub prefix: IpNet,
    /// "connected", "static" or "local".
    pub origin: &'static str,
    /// Next hops in words: `via 10.1.0.9 dev pods`, `dev pods`, `tunnel to-b`, `blackhole`, `local`.
    pub via: Vec<String>,
}

/// One neighbour.
#[derive(Clone, Debug, Serialize)]
pub struct NeighbourStatus {
    /// Interface.
    pub interface: String,
    /// Address.
    pub ip: IpAddr,
    /// MAC address once resolved.
    pub mac: Option<MacAddress>,
    /// "incomplete", "reachable", "stale", "probe", "failed", "static", "kernel", "point-to-point".
    pub state: &'static str,
    /// Seconds since it was confirmed.
    pub age: u64,
}

/// One tunnel endpoint.
#[derive(Clone, Debug, Serialize)]
pub struct TunnelStatus {
    /// Tunnel name.
    pub name: String,
    /// Local VTEP.
    pub local: IpAddr,
    /// Remote VTEP.
    pub remote: IpAddr,
    /// VNI.
    pub vni: u32,
    /// UDP port.
    pub udp_port: u16,
    /// VRF or bridge domain that inner frames belong to.
    pub domain: String,
    /// Inner MTU now, bytes.
    pub mtu: u16,
    /// Inner MTU that the underlay's ICMP errors taught, if lowered now.
    pub learned_mtu: Option<u16>,
    /// The underlay's next hop in words.
    pub underlay: String,
}

/// One bridge entry.
#[derive(Clone, Debug, Serialize)]
pub struct MacStatus {
    /// Bridge domain.
    pub bridge: String,
    /// Address.
    pub mac: MacAddress,
    /// Interface behind which it is.
    pub interface: String,
    /// Remote VTEP, if the interface is a tunnel.
    pub remote: Option<IpAddr>,
    /// Seconds since it was seen.
    pub age: u64,
}

/// One flow-table entry.
#[derive(Clone, Debug, Serialize)]
pub struct FlowStatus {
    /// The worker that holds it.
    pub worker: usize,
    /// Ingress interface.
    pub interface: String,
    /// The masked key in words; what is masked out is left out.
    pub key: String,
    /// The program in words.
    pub program: String,
    /// Packets replayed.
    pub packets: u64,
    /// Bytes replayed.
    pub bytes: u64,
    /// Seconds since the last packet.
    pub idle: u64,
}

/// One session.
#[derive(Clone, Debug, Serialize)]
pub struct SessionStatus {
    /// VRF or bridge domain.
    pub domain: String,
    /// Protocol name or number.
    pub protocol: String,
    /// First packet's source, `address:port`.
    pub source: String,
    /// First packet's destination, `address:port`.
    pub destination: String,
    /// "new", "established", "closing" and, for TCP, the state's RFC 9293 name.
    pub state: String,
    /// Chain, if any.
    pub chain: Option<String>,
    /// Seconds until it expires.
    pub expires: u64,
}

/// Address translation: bindings, and use of external addresses.
#[derive(Clone, Debug, Default, Serialize)]
pub struct NatStatus {
    /// Bindings.
    pub bindings: Vec<BindingStatus>,
    /// External addresses with ports in use or at rest.
    pub addresses: Vec<AddressStatus>,
}

/// One binding: an address and port behind a translator, and what the outside sees.
#[derive(Clone, Debug, Serialize)]
pub struct BindingStatus {
    /// VRF.
    pub vrf: String,
    /// Name of the translator.
    pub service: String,
    /// Protocol name.
    pub protocol: String,
    /// Behind the translator, `address:port`.
    pub inside: String,
    /// As the outside sees it, `address:port`.
    pub outside: String,
    /// Sessions that hold it.
    pub sessions: u64,
}

/// Ports of one external address.
#[derive(Clone, Debug, Serialize)]
pub struct AddressStatus {
    /// VRF.
    pub vrf: String,
    /// The address.
    pub address: std::net::Ipv4Addr,
    /// Protocol name.
    pub protocol: String,
    /// Ports in use.
    pub in_use: u32,
    /// Ports that rest before they are given to somebody else.
    pub resting: u32,
}

/// One chain.
#[derive(Clone, Debug, Serialize)]
pub struct ChainStatus {
    /// Its name.
    pub name: String,
    /// Its hops, in forward order.
    pub hops: Vec<HopStatus>,
}

/// One hop of a chain.
#[derive(Clone, Debug, Serialize)]
pub struct HopStatus {
    /// Its name.
    pub name: String,
    /// Kind of a service, such as "firewall"; "attached" of what is outside.
    pub kind: &'static str,
    /// Of an attached hop: "up"; "down" if packets are dropped, "open" if they pass it by; "unused" if nothing is sent into its chain.
    pub state: Option<&'static str>,
    /// Of an attached hop: its interfaces.
    pub attach: Vec<String>,
    /// What its ports have sent and received.
    pub traffic: Vec<HopTraffic>,
}

/// What went out to an attached hop in one direction, and came back: all that its ports carried, other VLANs included.
#[derive(Clone, Debug, Serialize)]
pub struct HopTraffic {
    /// "forward" or "reverse"; "both" of a hop with one arm.
    pub direction: &'static str,
    /// Packets sent to it.
    pub out_packets: u64,
    /// Bytes sent to it.
    pub out_bytes: u64,
    /// Packets that came back.
    pub back_packets: u64,
    /// Bytes that came back.
    pub back_bytes: u64,
}

/// Compiled pipeline of one scope.
#[derive(Clone, Debug, Serialize)]
pub struct PipelineStatus {
    /// Interface.
    pub interface: String,
    /// VRF, bridge domain or cross-connect.
    pub domain: String,
    /// Fields in the flow key.
    pub key: Vec<String>,
    /// Why each field is there: `destination: routing in vrf blue`.
    pub why: Vec<String>,
}

/// What ordered rules were compiled into.
#[derive(Clone, Debug, Serialize)]
pub struct RulesStatus {
    /// Whose rules: `classify`, `firewall edge`.
    pub of: String,
    /// Rules.
    pub rules: u64,
    /// Memory in bytes.
    pub bytes: u64,
    /// How packets of each family find their rule: `ipv4`, `ipv6`.
    pub families: Vec<RuleLookupStatus>,
}

/// How packets of one family find the first rule that they match.
#[derive(Clone, Debug, Serialize)]
pub struct RuleLookupStatus {
    /// `ipv4`, `ipv6`.
    pub family: &'static str,
    /// `none`, `linear`, `tuple-space tree`.
    pub algorithm: &'static str,
    /// Why that one, in words.
    pub why: String,
    /// Regions that rules make, with copies.
    pub regions: u64,
    /// Hash tables.
    pub tables: u64,
    /// Most tables that a look-up asks.
    pub most_tables: u64,
    /// Most regions that a look-up compares.
    pub most_regions: u64,
}

/// Use of one table.
#[derive(Clone, Debug, Serialize)]
pub struct TableStatus {
    /// Table name: "flows", "sessions", "neighbours", "macs", "meters", "nat-bindings", "fragments", "frames", "held",
    /// "routes", "rules".
    pub table: String,
    /// Entries in use.
    pub used: u64,
    /// Bound; 0 for what only the configuration bounds.
    pub limit: u64,
    /// Memory that it has, in bytes. What grows by use is counted as it is now.
    pub bytes: u64,
    /// Of that what entries in use take, in bytes, about.
    pub bytes_used: u64,
    /// Pages that it lies on: `2 MB`, `transparent 2 MB`, `4 KB`, or `heap`, whose pages are the allocator's.
    pub pages: String,
    /// What each worker has of it, if it is private to workers.
    pub workers: Vec<WorkerTableStatus>,
}

/// One worker's part of a table.
#[derive(Clone, Debug, Serialize)]
pub struct WorkerTableStatus {
    /// The worker.
    pub worker: usize,
    /// Entries in use.
    pub used: u64,
    /// Memory in bytes.
    pub bytes: u64,
}

/// The process's memory as the kernel sees it, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ProcessMemory {
    /// Resident, reserved huge pages not counted.
    pub resident: u64,
    /// In reserved huge pages.
    pub huge: u64,
    /// Of the resident memory, in transparent huge pages.
    pub transparent: u64,
    /// What the process may still take: of the machine, or of its control group.
    pub available: u64,
}
