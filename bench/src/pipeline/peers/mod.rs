//! Other packet engines, driven with the same packets on the same core, in turn with weir.
//!
//! Their cost includes their source, DPDK's `net_pcap` with `infinite_rx`: take a buffer, copy the frame, and free the
//! buffer in the end. That alone is what `testpmd` in `io` mode costs, T0 with frames of 64 bytes, and is subtracted. Peers report means only,
//! which an interruption makes larger; so the least of their repeats counts.

pub(crate) mod ovs;
mod process;
mod testpmd;

use std::collections::BTreeMap;
use std::path::PathBuf;

use tempfile::TempDir;

use super::bed::Bed;
use super::report::{PeerCosts, PeerRepeats};
use super::workload::ALL;
use super::{Lengths, Setup, capture};
use crate::common::machine::HugePages;
use crate::common::record;
use ovs::Ovs;

/// 2 MB pages that testpmd takes, and as many that Open vSwitch takes.
const PAGES: usize = 160;
/// Workloads for which `testpmd` has a counterpart, and its mode.
const TESTPMD: &[(&str, &str)] = &[("W1", "macswap")];
/// Workloads for which Open vSwitch is set up.
const OVS: &[&str] = &["W2", "W4", "W5"];

/// Whether `testpmd` is, without which nothing can be said of any peer.
pub(super) fn installed() -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join("dpdk-testpmd").is_file())
}

/// The peers, and what they have cost so far.
pub(super) struct Peers {
    core: usize,
    huge: bool,
    captures: BTreeMap<&'static str, PathBuf>,
    ovs: Option<Ovs>,
    t0: Vec<f64>,
    /// What T0 is for captures of more frames, or of others, by workload.
    source: BTreeMap<&'static str, Vec<f64>>,
    testpmd: BTreeMap<&'static str, Vec<f64>>,
    switch: BTreeMap<&'static str, Vec<f64>>,
    _folder: TempDir,
}

impl Peers {
    /// Writes captures of the beds' input and starts what stays running.
    ///
    /// # Errors
    /// When `testpmd` is not installed or does not work. Open vSwitch is left out, and that is said, if it cannot be had.
    pub(super) fn start(core: usize, beds: &[Bed], setup: &Setup) -> Result<Self, String> {
        let folder = tempfile::tempdir().map_err(|error| format!("cannot make a folder: {error}"))?;
        let (mut captures, mut source) = (BTreeMap::new(), BTreeMap::new());
        let plain = Setup { lengths: Lengths::Fixed(64), order: None, ..*setup };
        for bed in beds {
            let name = bed.workload.name;
            if (TESTPMD.iter().any(|(of, _)| *of == name) || OVS.contains(&name)) && !bed.hostile() {
                let path = folder.path().join(format!("{name}.pcap"));
                capture::write(&path, bed, setup.inputs.max(bed.workload.flows))?;
                captures.insert(name, path);
                if setup.lengths != plain.lengths || bed.workload.flows > setup.inputs {
                    source.insert(name, Vec::new());
                }
            }
        }
        let calibration = folder.path().join("t0.pcap");
        let workload = ALL.first().ok_or("there is no workload")?;
        capture::write(&calibration, &Bed::new(workload, &plain)?, setup.inputs)?;
        captures.insert("T0", calibration);
        let huge = HugePages::probe().free >= PAGES;
        let mut peers = Self {
            core,
            huge,
            captures,
            ovs: None,
            t0: Vec::new(),
            source,
            testpmd: BTreeMap::new(),
            switch: BTreeMap::new(),
            _folder: folder,
        };
        // The first run shows whether it works at all, and warms up what there is to warm up.
        peers.calibrate()?;
        peers.t0.clear();
        peers.source.values_mut().for_each(Vec::clear);
        if OVS.iter().any(|name| peers.captures.contains_key(name)) {
            match Ovs::start(core) {
                Ok(ovs) => peers.ovs = Some(ovs),
                Err(error) => record::remark(&format!("without Open vSwitch: {error}")),
            }
        }
        Ok(peers)
    }

    fn capture(&self, name: &str) -> Result<&PathBuf, String> {
        self.captures.get(name).ok_or_else(|| format!("no capture of {name}"))
    }

    fn calibrate(&mut self) -> Result<(), String> {
        let cycles = testpmd::run("io", self.capture("T0")?, self.core, self.huge)?;
        self.t0.push(cycles);
        for (name, cycles) in &mut self.source {
            if let Some(path) = self.captures.get(name) {
                cycles.push(testpmd::run("io", path, self.core, self.huge)?);
            }
        }
        Ok(())
    }

    /// Every peer once.
    pub(super) fn repeat(&mut self) -> Result<(), String> {
        self.calibrate()?;
        for &(name, mode) in TESTPMD {
            if let Some(path) = self.captures.get(name) {
                let cycles = testpmd::run(mode, path, self.core, self.huge)?;
                self.testpmd.entry(name).or_default().push(cycles);
            }
        }
        let Some(ovs) = &self.ovs else { return Ok(()) };
        for &name in OVS {
            if let Some(path) = self.captures.get(name) {
                self.switch.entry(name).or_default().push(ovs.measure(name, path)?);
            }
        }
        Ok(())
    }

    /// Whether testpmd has 2 MB pages.
    pub(super) fn huge(&self) -> bool {
        self.huge
    }

    /// The repeats of T0, and the peers' costs in cycles a packet, less the least that `io` costs with the same frames.
    pub(super) fn costs(&self) -> (&[f64], BTreeMap<&'static str, (PeerCosts, PeerRepeats)>) {
        let least = |values: &Vec<f64>| values.iter().copied().fold(f64::INFINITY, f64::min);
        let io = |name| least(self.source.get(name).unwrap_or(&self.t0));
        let mut costs: BTreeMap<&'static str, (PeerCosts, PeerRepeats)> = BTreeMap::new();
        for (name, values) in &self.testpmd {
            let (cost, repeats) = costs.entry(name).or_default();
            cost.testpmd = Some(record::round(least(values) - io(name), 2));
            repeats.testpmd.clone_from(values);
        }
        for (name, values) in &self.switch {
            let (cost, repeats) = costs.entry(name).or_default();
            cost.ovs = Some(record::round(least(values) - io(name), 2));
            repeats.ovs.clone_from(values);
        }
        (&self.t0, costs)
    }
}
