//! The command line of `weir-bench wire`.

use std::path::PathBuf;
use std::time::Duration;

use super::deck::Deck;
use super::dut::{self, GENERATOR, NEAR};
use super::generator;
use super::mlr::Goal;
use super::stream::{self, Size};

/// Sends packets through devices under test and receives them: throughput (MLRsearch, RFC 9971) and latency
///
/// Without --tx and --rx it makes network namespaces and veth pairs, starts weir, the kernel's forwarding and DPDK's testpmd in them,
/// and measures them in turns. Everything is gone when it ends. Needs root.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// What is measured, side by side; weir-adaptive beside weir only while little is sent
    #[arg(
        long,
        value_delimiter = ',',
        value_enum,
        default_value = "weir,weir-adaptive,kernel,testpmd",
        value_name = "NAME,…"
    )]
    pub(crate) devices_under_test: Vec<dut::Kind>,
    /// Have devices under test put packets into a VXLAN tunnel
    #[arg(long)]
    pub(crate) vxlan: bool,
    /// Send out of this device, to whatever is connected to it (with --rx)
    #[arg(long, value_name = "DEVICE", requires = "rx")]
    pub(crate) tx: Option<String>,
    /// Receive on this device
    #[arg(long, value_name = "DEVICE", requires = "tx")]
    pub(crate) rx: Option<String>,
    /// How packets are sent
    #[arg(long, value_enum, default_value_t)]
    pub(crate) generator: generator::Kind,

    /// Length of frames without frame check sequence: one, a list, or imix
    #[arg(long, default_value = "64", value_name = "BYTES")]
    pub(crate) size: Size,
    /// Flows, each with its own destination address
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=16384))]
    pub(crate) flows: u32,
    /// Streams to send instead, in a TOML file
    #[arg(long, value_name = "FILE", conflicts_with_all = ["size", "flows", "pcap"])]
    pub(crate) streams: Option<PathBuf>,
    /// Packets to send instead, from a pcap or pcapng file: UDP and TCP with 18 bytes of payload or more
    #[arg(long, value_name = "FILE", conflicts_with_all = ["size", "flows"])]
    pub(crate) pcap: Option<PathBuf>,

    /// Goals of the search: loss ratios in percent
    #[arg(long, value_delimiter = ',', default_value = "0,0.5", value_name = "PERCENT,…")]
    pub(crate) loss: Vec<f64>,
    /// Goal width: how close the bounds shall be, in percent
    #[arg(long, default_value_t = 0.5, value_name = "PERCENT")]
    pub(crate) width: f64,
    /// Seconds of a trial
    #[arg(long, default_value_t = 1.0, value_name = "SECONDS")]
    pub(crate) trial: f64,
    /// Seconds of trials at one load that decide about it (goal duration sum): 5, or one trial's; half of them may be bad (goal exceed
    /// ratio 0.5)
    #[arg(long, value_name = "SECONDS")]
    pub(crate) duration_sum: Option<f64>,
    /// Most trials in the search of one device under test
    #[arg(long, default_value_t = 44, value_name = "N")]
    pub(crate) trials: usize,
    /// Smallest load of the search in packets a second
    #[arg(long, default_value_t = 1000.0, value_name = "PPS")]
    pub(crate) min_rate: f64,
    /// Largest load of the search in packets a second; without it, what the self-test found
    #[arg(long, value_name = "PPS")]
    pub(crate) max_rate: Option<f64>,
    /// No search: one trial at this rate instead, in packets a second
    #[arg(long, value_name = "PPS")]
    pub(crate) rate: Option<f64>,
    /// Latency only while idle: no search
    #[arg(long, conflicts_with = "rate")]
    pub(crate) idle: bool,
    /// No latencies
    #[arg(long, conflicts_with = "idle")]
    pub(crate) no_latency: bool,
    /// Microseconds between packets while idle
    #[arg(long, default_value_t = 1100.0, value_name = "MICROSECONDS")]
    pub(crate) silence: f64,
    /// The same once more, with a silence that workers which may sleep do sleep in
    #[arg(long, default_value_t = 10_000.0, value_name = "MICROSECONDS")]
    pub(crate) long_silence: f64,
    /// Repeats of each latency measurement, of --trial seconds each
    #[arg(long, default_value_t = 3, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) repeats: u32,
    /// Only the self-test: generator and sink back to back
    #[arg(long)]
    pub(crate) self_test: bool,

    /// The core of the device under test; the last one of the affinity mask unless told otherwise
    #[arg(long, value_name = "N")]
    pub(crate) core: Option<usize>,
    /// The generator's core; the first one
    #[arg(long, value_name = "N")]
    pub(crate) generator_core: Option<usize>,
    /// The sink's core; the second one if there are three, else the generator's
    #[arg(long, value_name = "N")]
    pub(crate) sink_core: Option<usize>,
    /// weir's binary; the one beside this program unless told otherwise
    #[arg(long, value_name = "FILE")]
    pub(crate) weir: Option<PathBuf>,
    /// Write the record (machine, commit, every trial)
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
    /// Write plots (SVG), latencies (.hgrm, .hlog) and the record (wire.json) into this directory
    #[arg(long, value_name = "DIRECTORY")]
    pub(crate) out: Option<PathBuf>,
}

impl Args {
    /// Values that clap cannot judge.
    pub(crate) fn check(&self) -> Result<(), String> {
        let within = |name: &str, value: f64, least: f64, most: f64| match (least..=most).contains(&value) {
            true => Ok(()),
            false => Err(format!("--{name} {value}: from {least} to {most}")),
        };
        self.loss.iter().try_for_each(|loss| within("loss", *loss, 0.0, 99.0))?;
        within("width", self.width, 0.01, 50.0)?;
        within("trial", self.trial, 0.01, 3600.0)?;
        within("duration-sum", self.duration_sum(), self.trial, 86_400.0)?;
        within("silence", self.silence, 20.0, 1e6)?;
        within("long-silence", self.long_silence, 20.0, 1e6)?;
        within("min-rate", self.min_rate, 1.0, 1e9)?;
        [self.max_rate, self.rate].into_iter().flatten().try_for_each(|rate| within("rate", rate, 1.0, 1e9))
    }

    /// Length of a trial.
    pub(crate) fn duration(&self) -> Duration {
        Duration::from_secs_f64(self.trial)
    }

    pub(crate) fn duration_sum(&self) -> f64 {
        self.duration_sum.unwrap_or(5f64.max(self.trial))
    }

    pub(crate) fn goals(&self) -> Vec<Goal> {
        let goal = |loss: &f64| Goal {
            loss_ratio: loss / 100.0,
            exceed_ratio: 0.5,
            width: self.width / 100.0,
            final_trial: self.trial,
            duration_sum: self.duration_sum(),
        };
        self.loss.iter().map(goal).collect()
    }

    /// The packets to send.
    pub(crate) fn deck(&self) -> Result<Deck, String> {
        match (&self.pcap, &self.streams) {
            (Some(path), _) => Deck::of_capture(path),
            (_, Some(path)) => Deck::of_streams(&stream::load(path)?),
            _ => Deck::of_streams(&self.usual()?),
        }
    }

    /// One stream from the generator's host to the network behind the sink.
    fn usual(&self) -> Result<Vec<stream::Stream>, String> {
        let flows = self.flows;
        let text = format!(
            "[stream.usual]\nflows = {flows}\nsource-mac = \"{GENERATOR}\"\ndestination-mac = \"{NEAR}\"\n\
             source = \"198.18.0.2\"\ndestination = {{ from = \"198.19.64.1\", count = {flows} }}\nsize = {:?}",
            self.size.list()
        );
        stream::parse(&text)
    }

    pub(crate) fn weir_binary(&self) -> Result<PathBuf, String> {
        if let Some(path) = &self.weir {
            return Ok(path.clone());
        }
        let here = std::env::current_exe().map_err(|error| error.to_string())?;
        // Tests stand one directory below.
        let beside = here.ancestors().skip(1).take(2).map(|directory| directory.join("weir"));
        beside.into_iter().find(|path| path.is_file()).ok_or_else(|| {
            "there is no weir beside this program: run `cargo build --release`, or say --weir FILE".to_owned()
        })
    }
}

/// Who runs where.
#[derive(Clone, Debug, serde::Serialize)]
pub(crate) struct Cores {
    pub(crate) generator: usize,
    pub(crate) sink: usize,
    pub(crate) device: usize,
}

impl Cores {
    pub(crate) fn choose(args: &Args) -> Result<Self, String> {
        let given: Vec<_> =
            core_affinity::get_core_ids().unwrap_or_default().iter().map(|core| core.id).collect();
        let (Some(first), Some(last)) = (given.first(), given.last()) else {
            return Err("the cores that this process may use cannot be read".to_owned());
        };
        let generator = args.generator_core.unwrap_or(*first);
        let middle = if given.len() > 2 { given.get(1).copied().unwrap_or(generator) } else { generator };
        let cores =
            Self { generator, device: args.core.unwrap_or(*last), sink: args.sink_core.unwrap_or(middle) };
        for core in [cores.generator, cores.sink, cores.device] {
            if !given.contains(&core) {
                return Err(format!("core {core} is not one that this process may use: {given:?}"));
            }
        }
        Ok(cores)
    }

    /// Which share a core, for people.
    pub(crate) fn describe(&self) -> String {
        let Self { generator, sink, device } = self;
        let mut text =
            format!("generator on core {generator}, sink on core {sink}, device under test on core {device}");
        text += match (sink == generator, device == generator) {
            (_, true) => "; THEY SHARE A CORE: figures say little",
            (true, _) => "; generator and sink share a core",
            _ => "",
        };
        text + ". On veth, what the kernel does to deliver a frame to a socket runs on the sender's core."
    }

    /// All that are used, each once.
    pub(crate) fn all(&self) -> Vec<usize> {
        let mut all = vec![self.generator, self.sink, self.device];
        all.sort_unstable();
        all.dedup();
        all
    }
}
