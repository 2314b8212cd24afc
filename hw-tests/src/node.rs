//! A node: a network namespace with interfaces, addresses and verbs.

use std::net::IpAddr;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use ipnet::IpNet;

use crate::lab::{Inner, lock};
use crate::namespace::{Namespace, run};
use crate::{Capture, Ping, Tcp, Udp};

/// What a node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Host,
    Linux,
    Switch,
    Weir,
}

/// What lasts as long as the lab or a handle does.
#[derive(Debug)]
pub(crate) struct NodeState {
    kind: Kind,
    number: usize,
    namespace: Namespace,
    addresses: Mutex<Vec<IpNet>>,
    script: Mutex<String>,
    configured: AtomicBool,
    switch_ports: AtomicU32,
}

impl NodeState {
    pub(crate) fn new(kind: Kind, number: usize) -> Self {
        let namespace = Namespace::new();
        match kind {
            Kind::Host | Kind::Weir => {}
            Kind::Linux => {
                namespace.sysctl("net/ipv4/ip_forward", "1");
                namespace.sysctl("net/ipv6/conf/all/forwarding", "1");
                namespace.sysctl("net/ipv4/conf/all/rp_filter", "0");
                namespace.sysctl("net/ipv4/conf/default/rp_filter", "0");
                // Traceroute and path-MTU tests send errors faster than the kernel's default limit.
                namespace.sysctl("net/ipv4/icmp_ratelimit", "0");
                namespace.sysctl("net/ipv6/icmp/ratelimit", "0");
            }
            Kind::Switch => {
                namespace.ip("link add switch type bridge");
                namespace.sysctl("net/ipv6/conf/switch/disable_ipv6", "1");
                namespace.ip("link set switch up");
            }
        }
        Self {
            kind,
            number,
            namespace,
            addresses: Mutex::default(),
            script: Mutex::default(),
            configured: AtomicBool::new(false),
            switch_ports: AtomicU32::new(0),
        }
    }

    pub(crate) fn kind(&self) -> Kind {
        self.kind
    }

    pub(crate) fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// Such as `host1`.
    pub(crate) fn label(&self) -> String {
        let kind = match self.kind {
            Kind::Host => "host",
            Kind::Linux => "linux",
            Kind::Switch => "switch",
            Kind::Weir => "weir",
        };
        format!("{kind}{}", self.number)
    }

    /// With its addresses, for people.
    pub(crate) fn describe(&self) -> String {
        let addresses: Vec<_> = lock(&self.addresses).iter().map(ToString::to_string).collect();
        if addresses.is_empty() {
            self.label()
        } else {
            format!("{} ({})", self.label(), addresses.join(", "))
        }
    }

    pub(crate) fn set_script(&self, script: &str) {
        *lock(&self.script) = script.to_owned();
        script.lines().for_each(|line| self.note_address(line));
    }

    /// Remembers the address of an `addr add ADDRESS …` line, so that verbs can name this node as a destination.
    fn note_address(&self, line: &str) {
        let mut words = line.split_whitespace();
        if words.next() == Some("addr") && words.next() == Some("add") {
            if let Some(Ok(address)) = words.next().map(str::parse) {
                lock(&self.addresses).push(address);
            }
        }
    }

    /// Runs the script, once.
    pub(crate) fn run_script(&self) {
        if !self.configured.swap(true, Ordering::SeqCst) {
            let script = lock(&self.script).clone();
            script
                .lines()
                .map(str::trim)
                .filter(|line| !line.is_empty())
                .for_each(|line| self.script_line(line));
        }
    }

    fn script_line(&self, line: &str) {
        self.namespace.ip(line);
    }

    /// The name that a new wire gets at this end.
    pub(crate) fn interface_name(&self, wire: &str) -> String {
        match self.kind {
            Kind::Switch => format!("port{}", self.switch_ports.fetch_add(1, Ordering::Relaxed) + 1),
            _ => wire.to_owned(),
        }
    }

    /// Makes a wire's end ready: up, offloads off, addresses; run again when the wire was deleted and made again.
    pub(crate) fn plug(&self, interface: &str) {
        // With VLAN offload, a tag would travel beside the frame and not in it.
        let offloads = ["tx", "sg", "tso", "gso", "gro", "txvlan", "rxvlan"];
        let off = offloads.iter().flat_map(|offload| [*offload, "off"]);
        run(self.namespace.command("ethtool").args(["-K", interface]).args(off));
        self.configure(interface);
    }

    /// Makes a network card ready likewise. What its driver cannot switch off stays on.
    pub(crate) fn plug_card(&self, interface: &str) {
        for offload in ["gro", "lro", "txvlan", "rxvlan"] {
            let mut command = self.namespace.command("ethtool");
            let _ = command.args(["-K", interface, offload, "off"]).output();
        }
        self.configure(interface);
    }

    fn configure(&self, interface: &str) {
        if self.kind == Kind::Switch {
            self.namespace.ip(&format!("link set {interface} master switch"));
            self.namespace.sysctl(&format!("net/ipv6/conf/{interface}/disable_ipv6"), "1");
        }
        self.namespace.ip(&format!("link set {interface} up"));
        if self.kind == Kind::Host {
            for address in lock(&self.addresses).iter() {
                self.namespace.ip(&format!("addr add {address} dev {interface}"));
                if let Some(gateway) = address.hosts().next().filter(|first| *first != address.addr()) {
                    // A /64 counts its own network address as a host: the router is the one after it.
                    let gateway = match gateway {
                        IpAddr::V6(first) if first == address.network() => {
                            IpAddr::V6((u128::from(first) + 1).into())
                        }
                        other => other,
                    };
                    if gateway != address.addr() {
                        self.namespace.ip(&format!("route replace default via {gateway} dev {interface}"));
                    }
                }
            }
        } else if self.configured.load(Ordering::SeqCst) {
            let script = lock(&self.script).clone();
            let about = |line: &&str| line.split_whitespace().any(|word| word == interface);
            script.lines().filter(about).for_each(|line| self.script_line(line.trim()));
        }
    }
}

/// A node of the lab. Clones are the same node.
#[derive(Clone, Debug)]
pub struct Node {
    state: Arc<NodeState>,
    lab: Arc<Inner>,
}

impl Node {
    pub(crate) fn new(state: Arc<NodeState>, lab: Arc<Inner>) -> Self {
        Self { state, lab }
    }

    pub(crate) fn state(&self) -> &NodeState {
        &self.state
    }

    pub(crate) fn clone_state(&self) -> Arc<NodeState> {
        Arc::clone(&self.state)
    }

    pub(crate) fn lab(&self) -> &Inner {
        &self.lab
    }

    pub(crate) fn add_address(&self, address: IpNet) {
        lock(&self.state.addresses).push(address);
    }

    /// Sends ICMP echo requests.
    pub fn ping(&self, to: impl Destination) -> Ping {
        Ping::new(self.clone(), to.addresses())
    }

    /// Opens a TCP connection to a server that the lab starts there, and sends bytes over it.
    pub fn tcp(&self, to: &Node) -> Tcp {
        Tcp::new(self.clone(), to.clone())
    }

    /// Sends a stream of numbered UDP datagrams to a receiver that the lab starts there.
    pub fn udp(&self, to: &Node) -> Udp {
        Udp::new(self.clone(), to.clone())
    }

    /// Starts a capture on an interface of this node.
    pub fn capture(&self, interface: &str) -> Capture {
        Capture::start(self, interface)
    }

    /// Runs `ip ARGUMENTS` here and returns what it printed. `addr add …` also makes the address this node's in later verbs.
    #[track_caller]
    pub fn ip(&self, arguments: &str) -> String {
        self.state.note_address(arguments);
        self.state.namespace.ip(arguments)
    }

    /// Writes `/proc/sys/KEY` of this node's network.
    pub fn sysctl(&self, key: &str, value: &str) {
        self.state.namespace.sysctl(key, value);
    }

    /// A command that will run here.
    pub fn command(&self, program: &str) -> Command {
        self.state.namespace.command(program)
    }

    /// The path MTU that the kernel of this node has learned for a destination; `None` where it knows no less than the
    /// device's own.
    pub fn learned_mtu(&self, to: impl Destination) -> Option<u32> {
        let address = to.addresses().into_iter().next()?;
        let route = self.state.namespace.ip(&format!("route get {address}"));
        let mut words = route.split_whitespace().skip_while(|word| *word != "mtu");
        words.nth(1)?.parse().ok()
    }

    /// Packets received on an interface since it was made.
    pub fn received(&self, interface: &str) -> u64 {
        let path = format!("/sys/class/net/{interface}/statistics/rx_packets");
        let text = run(self.command("cat").arg(path));
        text.trim().parse().expect("a number")
    }

    /// Its addresses, in the order given.
    pub fn addresses(&self) -> Vec<IpAddr> {
        lock(&self.state.addresses).iter().map(IpNet::addr).collect()
    }
}

/// Where to send: a node, or an address in text.
pub trait Destination {
    /// Its addresses; verbs take the first of the family that they want.
    fn addresses(&self) -> Vec<IpAddr>;
}

impl Destination for &Node {
    fn addresses(&self) -> Vec<IpAddr> {
        Node::addresses(self)
    }
}

impl Destination for &str {
    fn addresses(&self) -> Vec<IpAddr> {
        vec![self.parse().unwrap_or_else(|e| panic!("{self}: {e}"))]
    }
}

/// The first address of a family; of any, if none is asked for.
#[track_caller]
pub(crate) fn choose(addresses: &[IpAddr], v6: bool) -> IpAddr {
    let chosen = addresses.iter().find(|address| address.is_ipv6() == v6);
    *chosen.or(addresses.first().filter(|_| !v6)).expect("the destination has no such address")
}
