//! A wire: a veth pair between two namespaces.

use std::fmt;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::namespace::run;
use crate::node::{Kind, NodeState};
use crate::{Capture, Node, eventually};

/// Longest interface name (IFNAMSIZ − 1).
const LONGEST_NAME: usize = 15;

#[derive(Debug)]
pub(crate) struct WireState {
    ends: [(Arc<NodeState>, String); 2],
    queues: u32,
    carries: AtomicBool,
}

impl WireState {
    #[track_caller]
    pub(crate) fn new(a: Arc<NodeState>, b: Arc<NodeState>, name: &str, queues: u32) -> Self {
        assert!(
            name.len() <= LONGEST_NAME,
            "an interface name has at most {LONGEST_NAME} characters: {name}"
        );
        let (at_a, at_b) = (a.interface_name(name), b.interface_name(name));
        Self { ends: [(a, at_a), (b, at_b)], queues, carries: AtomicBool::new(false) }
    }

    pub(crate) fn create(&self) {
        let queues = self.queues.to_string();
        let queues = ["numrxqueues", &queues, "numtxqueues", &queues];
        let [(a, at_a), (b, at_b)] = &self.ends;
        let mut command = Command::new("ip");
        command.args(["link", "add", "name", at_a, "netns", a.namespace().name()]).args(queues);
        command.args(["type", "veth", "peer", "name", at_b, "netns", b.namespace().name()]).args(queues);
        run(&mut command);
        for (node, interface) in &self.ends {
            node.plug(interface);
        }
        self.carries.store(false, Ordering::SeqCst);
    }

    /// Waits until both ends pass frames: the kernel takes up to a second to tell queueing and bridges of a new carrier.
    pub(crate) fn await_carrier(&self) {
        if self.carries.swap(true, Ordering::SeqCst) {
            return;
        }
        for (node, interface) in &self.ends {
            let up = eventually(Duration::from_secs(5), || {
                let link = node.namespace().ip(&format!("-d link show {interface}"));
                let bridged = node.kind() != Kind::Switch || link.contains("state forwarding");
                (link.contains("state UP") && bridged).then_some(())
            });
            assert!(up.is_some(), "{interface} of {} has no carrier", node.describe());
        }
    }
}

impl fmt::Display for WireState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [(a, at_a), (b, at_b)] = &self.ends;
        write!(f, "{} {at_a} ── {at_b} {}", a.describe(), b.describe())
    }
}

/// A wire of the lab.
#[derive(Clone, Debug)]
pub struct Wire {
    state: Arc<WireState>,
    nodes: [Node; 2],
}

impl Wire {
    pub(crate) fn new(state: Arc<WireState>, a: Node, b: Node) -> Self {
        Self { state, nodes: [a, b] }
    }

    /// Sets the MTU of both ends, in bytes of L3 packet.
    pub fn mtu(&self, bytes: u32) -> &Self {
        for (node, interface) in &self.state.ends {
            node.namespace().ip(&format!("link set {interface} mtu {bytes}"));
        }
        self
    }

    /// Deletes both interfaces, as when a pod or a VF goes away.
    pub fn delete(&self) {
        let (node, interface) = &self.state.ends[0];
        node.namespace().ip(&format!("link del {interface}"));
    }

    /// Makes both interfaces again, with new indexes, and configures them as before.
    pub fn create(&self) {
        self.state.create();
        self.state.await_carrier();
    }

    /// Starts a capture at the first end. What AF_XDP sends or takes there is not seen: capture at the end that is a host,
    /// a Linux box or a switch.
    pub fn capture(&self) -> Capture {
        self.nodes[0].capture(&self.state.ends[0].1)
    }

    /// Starts a capture at the second end.
    pub fn capture_far(&self) -> Capture {
        self.nodes[1].capture(&self.state.ends[1].1)
    }
}
