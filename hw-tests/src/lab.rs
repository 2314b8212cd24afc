//! The lab: what it holds, how it starts, what it prints when a scenario fails, and how it is taken down.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, Once, PoisonError};

use crate::namespace;
use crate::nic::NicState;
use crate::node::{Kind, NodeState};
use crate::weir::WeirState;
use crate::wire::WireState;
use crate::{Nic, Node, WeirBox, Wire};

static SWEEP: Once = Once::new();
static NEXT: AtomicU32 = AtomicU32::new(0);

/// A lab. Everything made in it is deleted when it is dropped, also after a panic.
#[derive(Debug)]
pub struct Lab {
    inner: Arc<Inner>,
}

/// What nodes, wires and boxes share with their lab.
#[derive(Debug)]
pub(crate) struct Inner {
    directory: PathBuf,
    nodes: Mutex<Vec<Arc<NodeState>>>,
    wires: Mutex<Vec<Arc<WireState>>>,
    nics: Mutex<Vec<Arc<NicState>>>,
    weirs: Mutex<Vec<Arc<WeirState>>>,
    captures: AtomicU32,
}

impl Lab {
    /// An empty lab.
    ///
    /// # Panics
    /// Without root.
    #[allow(clippy::new_without_default)] // Making one has effects.
    pub fn new() -> Self {
        assert!(
            nix::unistd::geteuid().is_root(),
            "the lab makes network namespaces and needs root: run `make test`, which asks sudo for it"
        );
        SWEEP.call_once(namespace::sweep);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let directory = std::env::temp_dir().join(format!("weirlab-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&directory).expect("make the lab's directory");
        let inner = Inner {
            directory,
            nodes: Mutex::default(),
            wires: Mutex::default(),
            nics: Mutex::default(),
            weirs: Mutex::default(),
            captures: AtomicU32::new(0),
        };
        Self { inner: Arc::new(inner) }
    }

    /// A host with these addresses (`"10.1.0.2/24 2001:db8:1::2/64"`) on its one wire. Its default gateway is the first
    /// address of each network, unless that is its own.
    pub fn host(&self, addresses: &str) -> Node {
        let node = self.node(Kind::Host);
        for address in addresses.split_whitespace() {
            node.add_address(address.parse().unwrap_or_else(|e| panic!("{address}: {e}")));
        }
        node
    }

    /// A Linux box: a namespace that forwards, configured by `script`: one `ip` command a line, run when all wires are there
    /// (`addr add 10.1.0.1/24 dev pods`). So it is a router, a VXLAN peer, or what else the kernel can be.
    pub fn linux(&self, script: &str) -> Node {
        let node = self.node(Kind::Linux);
        node.state().set_script(script);
        node
    }

    /// An Ethernet switch: the kernel's bridge over all wires that end here, numbered `port1`, `port2`, … in that order.
    /// It lets captures see what goes from one weir to another, which AF_XDP at both ends of a veth pair hides.
    pub fn switch(&self) -> Node {
        self.node(Kind::Switch)
    }

    /// A box that runs `weir run` with this configuration, in a namespace where its wires are the devices.
    pub fn weir(&self, configuration: &str) -> WeirBox {
        let node = self.node(Kind::Weir);
        let weir = WeirState::new(node.clone_state(), &self.inner.directory, configuration);
        self.weir_box(node, weir)
    }

    /// A box that runs `weir run` without a file, configured by these environment variables.
    pub fn weir_by_environment(&self, variables: &[(&str, &str)]) -> WeirBox {
        let node = self.node(Kind::Weir);
        let weir = WeirState::by_environment(node.clone_state(), &self.inner.directory, variables);
        self.weir_box(node, weir)
    }

    /// A box like that of [`Lab::weir`], with these variables in weir's environment.
    pub fn weir_with(&self, configuration: &str, variables: &[(&str, &str)]) -> WeirBox {
        let node = self.node(Kind::Weir);
        let weir = WeirState::new(node.clone_state(), &self.inner.directory, configuration);
        self.weir_box(node, weir.with(variables))
    }

    fn weir_box(&self, node: Node, weir: WeirState) -> WeirBox {
        let weir = Arc::new(weir);
        lock(&self.inner.weirs).push(Arc::clone(&weir));
        WeirBox::new(node, weir)
    }

    /// Joins two nodes by a wire of one queue whose interfaces are called `name` at both ends.
    #[track_caller]
    pub fn wire(&self, a: &Node, b: &Node, name: &str) -> Wire {
        self.wire_with_queues(a, b, name, 1)
    }

    /// The same with several queues.
    #[track_caller]
    pub fn wire_with_queues(&self, a: &Node, b: &Node, name: &str, queues: u32) -> Wire {
        let wire = Arc::new(WireState::new(a.clone_state(), b.clone_state(), name, queues));
        wire.create();
        lock(&self.inner.wires).push(Arc::clone(&wire));
        Wire::new(wire, a.clone(), b.clone())
    }

    /// Lends the network card at a PCI address to a node, as the interface `name`. What it is wired to is the world's affair.
    #[track_caller]
    pub fn nic(&self, node: &Node, pci: &str, name: &str) -> Nic {
        let nic = Arc::new(NicState::new(pci, node.clone_state(), name));
        lock(&self.inner.nics).push(Arc::clone(&nic));
        Nic::new(nic)
    }

    /// Starts every box that does not run yet and waits until it answers. Every verb does this by itself.
    pub fn start(&self) {
        self.inner.start();
    }

    /// The lab's directory: configurations, logs, sockets, captures. Deleted at the end; kept after a failure, or if the
    /// environment holds WEIR_LAB_KEEP.
    pub fn directory(&self) -> &Path {
        &self.inner.directory
    }

    fn node(&self, kind: Kind) -> Node {
        let mut nodes = lock(&self.inner.nodes);
        let number = nodes.iter().filter(|node| node.kind() == kind).count() + 1;
        let state = Arc::new(NodeState::new(kind, number));
        nodes.push(Arc::clone(&state));
        Node::new(state, Arc::clone(&self.inner))
    }
}

impl Inner {
    pub(crate) fn start(&self) {
        let nodes: Vec<_> = lock(&self.nodes).clone();
        nodes.iter().for_each(|node| node.run_script());
        let wires: Vec<_> = lock(&self.wires).clone();
        wires.iter().for_each(|wire| wire.await_carrier());
        if lock(&self.weirs).iter().any(|weir| !weir.was_started()) {
            lock(&self.nics).iter().for_each(|nic| nic.await_carrier());
        }
        let weirs: Vec<_> = lock(&self.weirs).clone();
        let starting: Vec<_> = weirs.iter().filter(|weir| weir.start_once()).collect();
        starting.iter().for_each(|weir| weir.await_ready());
    }

    /// A new path for a capture.
    pub(crate) fn capture_path(&self, label: &str) -> PathBuf {
        let number = self.captures.fetch_add(1, Ordering::Relaxed);
        self.directory.join(format!("{number}-{label}.pcap"))
    }

    /// What to know after a failure.
    fn report(&self) -> String {
        let mut text = String::from("topology:\n");
        for wire in lock(&self.wires).iter() {
            text.push_str(&format!("  {wire}\n"));
        }
        for nic in lock(&self.nics).iter() {
            text.push_str(&format!("  {nic}\n"));
        }
        for weir in lock(&self.weirs).iter() {
            text.push_str(&weir.report());
        }
        text.push_str(&format!("configurations, logs and captures: {}\n", self.directory.display()));
        if let Ok(entries) = std::fs::read_dir(&self.directory) {
            let captures =
                entries.flatten().map(|e| e.path()).filter(|p| p.extension().is_some_and(|e| e == "pcap"));
            captures.for_each(|path| text.push_str(&format!("  {}\n", path.display())));
        }
        text
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        let failed_before = std::thread::panicking();
        let problems: Vec<String> = if failed_before {
            Vec::new()
        } else {
            lock(&self.weirs).iter().filter_map(|weir| weir.final_check().err()).collect()
        };
        let report = (failed_before || !problems.is_empty()).then(|| self.report());
        lock(&self.weirs).iter().for_each(|weir| weir.stop());
        lock(&self.nics).iter().for_each(|nic| nic.unplug());
        match report {
            None if std::env::var_os("WEIR_LAB_KEEP").is_some() => {
                eprintln!("kept {}", self.directory.display())
            }
            None => {
                let _ = std::fs::remove_dir_all(&self.directory);
            }
            Some(report) if failed_before => eprintln!("{report}"),
            Some(report) => panic!("{}\n{report}", problems.join("\n")),
        }
    }
}

/// A lock whose holder panicked is still good enough to report and to clean up.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
